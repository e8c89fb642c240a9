//! The name in a ClientHello: real ones, built ones and bent ones, against a slow parser.
#![expect(clippy::unwrap_used, reason = "tests panic")]

#[path = "stream/cuts.rs"]
mod cuts;
mod stream;

use cuts::{cuts, places};
use firewall_common::{
    name::MAX_NAME,
    parse::payload::{MAX_PAYLOAD, flags},
};
use proptest::{option, prelude::*, sample::Index, sample::select};
use stream::{Read, any_pieces, read, tls::read as slow, whole};

const TLS: u32 = flags::TLS;
const MALFORMED: u32 = flags::TLS | flags::MALFORMED;
const ECH: u16 = 0xfe0d;

/// A hello that is right.
#[derive(Clone, Debug)]
struct Hello {
    session: u8,
    ciphers: Vec<u16>,
    compression: u8,
    /// Kind and bytes; 0 stands for the names.
    extensions: Option<Vec<(u16, Vec<u8>)>>,
    /// What the parser must find.
    name: Option<String>,
}

impl Hello {
    fn new(names: &[(u8, &[u8])]) -> Self {
        let extensions = Some(vec![(0x0a0a, vec![]), (0, names_body(names)), (43, vec![2, 3, 4])]);
        Self { session: 32, ciphers: vec![0x1301], compression: 1, extensions, name: None }
    }

    fn message(&self) -> Vec<u8> {
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.push(self.session);
        body.extend(vec![1; self.session.into()]);
        body.extend((self.ciphers.len() as u16 * 2).to_be_bytes());
        body.extend(self.ciphers.iter().flat_map(|cipher| cipher.to_be_bytes()));
        body.push(self.compression);
        body.extend(vec![0; self.compression.into()]);
        if let Some(extensions) = &self.extensions {
            let all: Vec<u8> = extensions
                .iter()
                .flat_map(|(kind, bytes)| [&kind.to_be_bytes()[..], &prefixed(bytes)].concat())
                .collect();
            body.extend(prefixed(&all));
        }
        let mut message = (body.len() as u32 | 1 << 24).to_be_bytes().to_vec();
        message.extend(body);
        message
    }

    fn stream(&self) -> Vec<u8> {
        records(&self.message(), &[])
    }
}

fn prefixed(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat()
}

fn names_body(names: &[(u8, &[u8])]) -> Vec<u8> {
    let entry = |(kind, name): &(u8, &[u8])| [&[*kind][..], &prefixed(name)].concat();
    prefixed(&names.iter().flat_map(entry).collect::<Vec<u8>>())
}

/// The message in records that have `sizes`, and one with the rest.
fn records(message: &[u8], sizes: &[usize]) -> Vec<u8> {
    let mut rest = message;
    let mut stream = Vec::new();
    for size in sizes.iter().copied().chain([usize::MAX]) {
        let (body, behind) = rest.split_at(size.min(16384).min(rest.len()));
        if !body.is_empty() {
            stream.extend([22, 3, 1]);
            stream.extend(prefixed(body));
        }
        rest = behind;
    }
    stream
}

fn named(name: &str) -> Read {
    Read::Name(name.to_owned())
}

const REAL: [(&str, &[u8], Option<&str>); 7] = [
    ("openssl", include_bytes!("payload/openssl"), Some("hm.baidu.com")),
    ("openssl-tls1.2", include_bytes!("payload/openssl-tls1.2"), Some("hm.baidu.com")),
    ("openssl-no-name", include_bytes!("payload/openssl-no-name"), None),
    ("curl", include_bytes!("payload/curl"), Some("evilbaidu.com")),
    ("node", include_bytes!("payload/node"), Some("mcs.zijieapi.com")),
    ("rustls-mlkem768", include_bytes!("payload/rustls-mlkem768"), Some("gator.volces.com")),
    (
        "rustls-mlkem768-ech-grease",
        include_bytes!("payload/rustls-mlkem768-ech-grease"),
        Some("hm.baidu.com"),
    ),
];

#[test]
fn real_clients() {
    for (client, stream, name) in REAL {
        let want = name.map_or(Read::NoName(TLS), named);
        assert_eq!(any_pieces(stream), want, "{client}");
        assert_eq!(slow(stream), want, "{client}");
        let ech = read(stream, &[]).1 & flags::ECH != 0;
        assert_eq!(ech, client.ends_with("ech-grease"), "{client}");
        let message = &stream[5..];
        for size in [1, 2, 3, 5, 64, 250] {
            let sizes = vec![size; message.len() / size];
            let stream = records(message, &sizes);
            let single: Vec<usize> = (1..stream.len()).collect();
            assert_eq!(whole(&stream), want, "{client} by {size}");
            assert_eq!(read(&stream, &single).0, want, "{client} by {size}");
        }
        for end in 0..stream.len() {
            let cut = whole(&stream[..end]);
            assert_eq!(cut, slow(&stream[..end]), "{client} up to {end}");
            assert!(cut == Read::More || cut == want, "{client} up to {end}: {cut:?}");
        }
    }
}

#[test]
fn the_flag_of_ech_is_seen_on_both_sides_of_the_name() {
    let body = names_body(&[(0, b"outer.example")]);
    for (extensions, held) in [
        (vec![(ECH, vec![0; 300]), (0, body.clone())], true),
        (vec![(0, body.clone()), (ECH, vec![0; 300])], true),
        (vec![(0, body)], false),
    ] {
        let hello = Hello { extensions: Some(extensions), ..Hello::new(&[]) };
        let (name, flags) = read(&hello.stream(), &[]);
        assert_eq!(name, named("outer.example"));
        assert_eq!(flags & flags::ECH != 0, held);
    }
}

#[test]
fn no_packet_is_waited_for_behind_the_name() {
    let hello = Hello::new(&[(0, b"hm.baidu.com")]);
    let stream = hello.stream();
    let end = stream.windows(12).position(|part| part == b"hm.baidu.com").unwrap() + 12;
    assert_eq!(whole(&stream[..end - 1]), Read::More);
    assert_eq!(whole(&stream[..end]), named("hm.baidu.com"));
}

#[test]
fn names_that_are_some_and_names_that_are_none() {
    let label = "a".repeat(63);
    let three = format!("{label}.{label}.{label}.");
    let longest = format!("{three}{}", "b".repeat(61));
    for (name, want) in [
        ("HM.Baidu.COM", Some("hm.baidu.com")),
        ("hm.baidu.com.", Some("hm.baidu.com")),
        ("_dmarc.a-b.x", Some("_dmarc.a-b.x")),
        ("localhost", Some("localhost")),
        ("192.0.2.1", Some("192.0.2.1")),
        (&longest, Some(&longest)),
        (&format!("{longest}."), Some(&longest)),
        (&format!("{longest}b"), None),
        (&format!("{longest}b."), None),
        (&format!("{label}a.com"), None),
        ("", None),
        (".", None),
        (".com", None),
        ("a..com", None),
        ("a.com..", None),
        ("a.com\0", None),
        ("a b.com", None),
        ("a*.com", None),
        ("\u{e9}.com", None),
        ("[::1]", None),
        ("2001:db8::1", None),
    ] {
        let stream = Hello::new(&[(0, name.as_bytes())]).stream();
        let want = want.map_or(Read::NoName(MALFORMED), named);
        assert_eq!(any_pieces(&stream), want, "{name:?}");
        assert_eq!(slow(&stream), want, "{name:?}");
    }
}

#[test]
fn the_first_host_name_of_the_list_counts() {
    for (names, want) in [
        (&[(0, &b"a.com"[..]), (0, b"b.com")][..], Some("a.com")),
        (&[(7, b"no..name"), (0, b"b.com")], Some("b.com")),
        (&[(0, b"a.com"), (7, b"")], Some("a.com")),
        (&[(7, b"a.com")], None),
    ] {
        let want = want.map_or(Read::NoName(TLS), named);
        assert_eq!(any_pieces(&Hello::new(names).stream()), want, "{names:?}");
    }
    assert_eq!(whole(&Hello::new(&[]).stream()), Read::NoName(MALFORMED), "an empty list");
    let body = names_body(&[(0, b"a.com")]);
    for (first, want) in
        [(vec![0, 4, 7, 0, 1, 0], Read::NoName(MALFORMED)), (body.clone(), named("a.com"))]
    {
        // A second extension of this kind: a name that was found stands.
        let extensions = Some(vec![(0, first), (0, body.clone())]);
        assert_eq!(any_pieces(&Hello { extensions, ..Hello::new(&[]) }.stream()), want);
    }
}

#[test]
fn what_is_no_hello() {
    let stream = Hello::new(&[(0, b"a.com")]).stream();
    let with = |at: usize, byte: u8| {
        let mut stream = stream.clone();
        stream[at] = byte;
        any_pieces(&stream)
    };
    assert_eq!(with(0, 23), Read::NoName(0), "another record");
    assert_eq!(with(0, 0x80), Read::NoName(0), "SSL 2");
    assert_eq!(with(1, 2), Read::NoName(0), "another protocol");
    assert_eq!(with(2, 99), named("a.com"), "the minor version means nothing");
    assert_eq!(with(5, 2), Read::NoName(MALFORMED), "another message");
    assert_eq!(with(3, 0x41), Read::NoName(MALFORMED), "a record too long");
    assert_eq!(whole(&[22, 3, 1, 0, 0]), Read::NoName(MALFORMED), "an empty record");
    assert_eq!(whole(&[22, 3, 1, 0x41, 0]), Read::More, "the longest record");
    assert_eq!(whole(&[22, 3, 1, 0x41, 1]), Read::NoName(MALFORMED), "a longer one");
    let empty = [&stream[..5 + 20], &[22, 3, 1, 0, 0], &stream[5 + 20..]].concat();
    assert_eq!(any_pieces(&empty), Read::NoName(MALFORMED), "a record inside the first");
    for kind in [20, 21, 23] {
        let mut split = records(&stream[5..], &[40]);
        assert_eq!(any_pieces(&split), named("a.com"));
        split[5 + 40] = kind;
        assert_eq!(any_pieces(&split), Read::NoName(MALFORMED), "a record {kind} between");
    }
    assert_eq!(whole(b""), Read::More);
}

#[test]
fn lengths_that_lie() {
    let extensions = Some(vec![(0, names_body(&[(0, b"a.com")]))]);
    let stream = Hello { extensions, ..Hello::new(&[]) }.stream();
    // Where the message, the extensions, this extension, the list and the name say how long they
    // are. Each is in the one before, and they all end together.
    let fields = [8, 15, 11, 9, 6].map(|place| if place == 8 { 8 } else { stream.len() - place });
    for first in 0..fields.len() {
        for last in first..fields.len() {
            for by in [-3, -1, 1, 3] {
                let mut bent = stream.clone();
                for field in &fields[first..=last] {
                    bent[*field] = bent[*field].wrapping_add_signed(by);
                }
                let got = any_pieces(&bent);
                assert_eq!(got, slow(&bent), "{first} to {last} by {by}");
                // The name is in something that ends before it.
                if by < 0 && last < 4 {
                    assert_eq!(got, Read::NoName(MALFORMED), "{first} to {last} by {by}");
                }
            }
        }
    }
}

#[test]
fn no_more_than_sixteen_kilobytes_are_read() {
    let hello = |len: usize| {
        let extensions = vec![(21, vec![0; len]), (0, names_body(&[(0, b"a.com")]))];
        Hello { extensions: Some(extensions), ..Hello::new(&[]) }
    };
    let behind = hello(0).message().len();
    let fits = MAX_PAYLOAD as usize - 5 - behind;
    assert_eq!(whole(&hello(fits).stream()), named("a.com"));
    let long = Read::NoName(TLS | flags::TOO_LONG);
    assert_eq!(whole(&hello(fits + 1).stream()), long);
    assert_eq!(slow(&hello(fits + 1).stream()), long);
    // The headers of records count.
    let message = hello(4000).message();
    assert_eq!(whole(&records(&message, &[1; 4000])), long);
    assert_eq!(whole(&records(&message, &[2; 1000])), named("a.com"));
}

fn label() -> impl Strategy<Value = String> {
    prop_oneof![8 => "[a-zA-Z0-9_-]{1,12}", 1 => "[a-z]{63}"]
}

fn host() -> impl Strategy<Value = (String, String)> {
    (prop::collection::vec(label(), 1..5), any::<bool>()).prop_map(|(labels, dot)| {
        let mut labels = labels;
        while labels.join(".").len() > MAX_NAME {
            labels.pop();
        }
        let text = labels.join(".");
        let name = text.to_ascii_lowercase();
        (if dot { text + "." } else { text }, name)
    })
}

fn extension() -> impl Strategy<Value = (u16, Vec<u8>)> {
    let bytes = |len| prop::collection::vec(any::<u8>(), len);
    prop_oneof![
        // GREASE (RFC 8701).
        (0..16u16, bytes(0..2)).prop_map(|(n, bytes)| (n << 12 | 0x0a0a | n << 4, bytes)),
        // A key share with ML-KEM-768 beside X25519.
        Just((51, vec![0xa5; 2 + 4 + 1216 + 4 + 32])),
        bytes(0..400).prop_map(|bytes| (ECH, bytes)),
        (1..=u16::MAX, bytes(0..40)),
    ]
}

fn hello() -> impl Strategy<Value = Hello> {
    let names = option::weighted(0.8, (host(), prop::collection::vec(host(), 0..2)));
    let extensions = prop::collection::vec(extension(), 0..12);
    (
        any::<u8>(),
        prop::collection::vec(any::<u16>(), 0..40),
        any::<u8>(),
        names,
        extensions,
        any::<Index>(),
    )
        .prop_map(|(session, ciphers, compression, names, mut extensions, place)| {
            let mut name = None;
            if let Some((first, more)) = names {
                let all: Vec<(u8, &[u8])> = [&first]
                    .into_iter()
                    .chain(&more)
                    .map(|(text, _)| (0, text.as_bytes()))
                    .collect();
                extensions.insert(place.index(extensions.len() + 1), (0, names_body(&all)));
                name = Some(first.1);
            }
            let extensions = (name.is_some() || session % 8 > 0).then_some(extensions);
            Hello { session: session % 33, ciphers, compression: compression % 3, extensions, name }
        })
}

/// More and more of a hello that is right.
const STARTS: &[&[u8]] = &[&[22], &[22, 3, 1, 0], &[22, 3, 1, 0, 200, 1, 0, 0]];

proptest! {
    #![proptest_config(ProptestConfig { cases: 2048, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_hello_is_read_as_it_was_built(
        hello in hello(),
        sizes in prop::collection::vec(prop_oneof![1..10usize, 1..3000usize], 0..8),
        cuts in cuts(),
    ) {
        let stream = records(&hello.message(), &sizes);
        let want = hello.name.as_deref().map_or(Read::NoName(TLS), named);
        prop_assert_eq!(slow(&stream), want.clone());
        prop_assert_eq!(whole(&stream), want.clone());
        prop_assert_eq!(read(&stream, &places(&cuts, stream.len())).0, want);
        let ech = hello.extensions.iter().flatten().any(|(kind, _)| *kind == ECH);
        prop_assert_eq!(read(&stream, &[]).1 & flags::ECH != 0, ech);
    }

    #[test]
    fn a_bent_hello_is_read_as_the_slow_parser_reads_it(
        hello in hello(),
        sizes in prop::collection::vec(1..300usize, 0..4),
        bends in prop::collection::vec((any::<Index>(), prop_oneof![any::<u8>(), 0..4u8]), 1..4),
        near in any::<bool>(),
        cuts in cuts(),
        end in option::of(any::<Index>()),
    ) {
        let mut stream = records(&hello.message(), &sizes);
        for (at, byte) in bends {
            // The first hundred bytes have most of the lengths.
            let len = if near { stream.len().min(100) } else { stream.len() };
            stream[at.index(len)] = byte;
        }
        stream[0] = 22;
        if let Some(end) = end {
            stream.truncate(end.index(stream.len() + 1));
        }
        let want = slow(&stream);
        prop_assert_eq!(whole(&stream), want.clone(), "{:02x?}", stream);
        prop_assert_eq!(read(&stream, &places(&cuts, stream.len())).0, want, "{:02x?}", stream);
    }

    #[test]
    fn any_bytes_are_read_as_the_slow_parser_reads_them(
        start in select(STARTS),
        bytes in prop::collection::vec(prop_oneof![any::<u8>(), 0..4u8], 0..400),
        cuts in cuts(),
    ) {
        let stream = [start, &bytes].concat();
        let want = slow(&stream);
        prop_assert_eq!(whole(&stream), want.clone(), "{:02x?}", stream);
        prop_assert_eq!(read(&stream, &places(&cuts, stream.len())).0, want, "{:02x?}", stream);
    }
}
