//! The name in a ClientHello: real ones, built ones and bent ones, against a slow parser.
#![expect(clippy::unwrap_used, reason = "tests panic")]

#[path = "stream/cuts.rs"]
mod cuts;
mod stream;

use cuts::{cuts, places};
use firewall_common::{
    name::MAX_NAME,
    parse::payload::{MAX_PAYLOAD, Payload, flags},
};
use proptest::{option, prelude::*, sample::Index, sample::select};
use stream::{Read, agree, any_pieces, read, reads, tls::read as slow, whole};

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
    for first in [vec![0, 4, 7, 0, 1, 0], body.clone()] {
        // A second extension of this kind.
        let extensions = Some(vec![(0, first), (0, body.clone())]);
        let stream = Hello { extensions, ..Hello::new(&[]) }.stream();
        assert_eq!(any_pieces(&stream), Read::NoName(MALFORMED));
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
    // The headers of records count but for the first.
    let fits = MAX_PAYLOAD as usize - 5 - behind;
    let stream = |len: usize| records(&hello(len).message(), &[9000]);
    assert_eq!(whole(&stream(fits)), named("a.com"));
    let long = Read::NoName(MALFORMED | flags::TOO_LONG);
    assert_eq!(whole(&stream(fits + 1)), long);
    assert_eq!(slow(&stream(fits + 1)), long);
    let message = hello(4000).message();
    assert_eq!(whole(&records(&message, &[1; 4000])), long);
    assert_eq!(whole(&records(&message, &[2; 1000])), named("a.com"));
}

fn record(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind, 3, 3][..], &prefixed(body)].concat()
}

/// All answers to these packets, and whether the last has been given.
fn packets(packets: &[&[u8]]) -> (Vec<Read>, bool) {
    let mut end = 0;
    let cuts: Vec<usize> = packets
        .iter()
        .map(|packet| {
            end += packet.len();
            end
        })
        .collect();
    let stream = packets.concat();
    agree(&stream, &cuts);
    agree(&stream, &(1..stream.len()).collect::<Vec<usize>>());
    let mut payload = Payload::default();
    for packet in packets {
        payload.read(*packet, 0, packet.len() as u32);
    }
    (reads(&stream, &cuts).0, payload.is_done())
}

/// The server goes by the hello that it has asked for.
#[test]
fn a_second_hello_has_a_name_too() {
    let [a, b] = ["a.com", "b.com"].map(|name| Hello::new(&[(0, name.as_bytes())]).stream());
    let none = Hello { extensions: None, ..Hello::new(&[]) }.stream();
    let change = record(20, &[1]);
    let cancelled = record(21, &[1, 90]);
    let data = record(23, &[7; 99]);
    assert_eq!(packets(&[&a]), (vec![named("a.com")], false));
    for between in [&[][..], &change, &cancelled, &[&change[..], &cancelled].concat()] {
        let second = [between, &b].concat();
        assert_eq!(packets(&[&a, &second]), (vec![named("a.com"), named("b.com")], false));
        assert!(packets(&[&a, &second, &data]).1);
        let same = [between, &a].concat();
        assert_eq!(packets(&[&a, &same, &data]), (vec![named("a.com")], true));
        assert_eq!(packets(&[&none, &second]).0, [Read::NoName(TLS), named("b.com")]);
        let nameless = [between, &none].concat();
        assert_eq!(packets(&[&a, &nameless]).0, [named("a.com"), Read::NoName(TLS)]);
        // And a third.
        assert_eq!(packets(&[&a, &second, &a]).0, ["a.com", "b.com", "a.com"].map(named));
    }
    let pieces = records(&b[5..], &[1, 1, 1, 1, 100]);
    assert_eq!(packets(&[&a, &pieces]).0, [named("a.com"), named("b.com")]);
    // In the packet of the first nobody can have asked for it.
    assert_eq!(whole(&[&a[..], &b].concat()), Read::NoName(MALFORMED));
    assert_eq!(whole(&[&a[..], &change, &a].concat()), Read::NoName(MALFORMED));
    let one = records(&[&a[5..], &b[5..]].concat(), &[]);
    assert_eq!(reads(&one, &[a.len()]).0, [named("a.com"), named("b.com")]);
    let long = Hello { extensions: Some(vec![(21, vec![0; 17_000])]), ..Hello::new(&[]) };
    let long = records(&long.message(), &[9000]);
    let too_long = Read::NoName(MALFORMED | flags::TOO_LONG);
    // What is behind all that could be a name may be long.
    assert_eq!(packets(&[&a, &long, &data]), (vec![named("a.com"), Read::NoName(TLS)], true));
    let extensions = Some(vec![(21, vec![0; 17_000]), (0, names_body(&[(0, b"b.com")]))]);
    let hello = Hello { extensions, ..Hello::new(&[]) };
    let long = records(&hello.message(), &[9000]);
    assert_eq!(packets(&[&a, &long]), (vec![named("a.com"), too_long], true));
}

/// What comes behind the hello of ordinary clients says that there is no second one.
#[test]
fn a_second_flight_is_the_end() {
    let hello = Hello::new(&[(0, b"a.com")]).stream();
    let change = record(20, &[1]);
    let data = record(23, &[7; 99]);
    let exchange = record(22, &[&[16, 0, 0, 66][..], &[4; 66]].concat());
    // Encrypted, and looks like the start of a hello by accident.
    let finished = record(22, &[&[1, 77, 1, 2][..], &[4; 36]].concat());
    let worse = record(22, &[&[1, 1, 1, 2][..], &[4; 36]].concat());
    for (client, flight, done) in [
        ("of TLS 1.3", [&change[..], &data].concat(), true),
        ("of TLS 1.3 without compatibility", data.clone(), true),
        ("of TLS 1.2", [&exchange[..], &change, &record(22, &[9; 40])].concat(), true),
        ("that resumes TLS 1.2", [&change[..], &record(22, &[0; 40])].concat(), true),
        ("that resumes and looks odd", [&change[..], &finished].concat(), true),
        ("that looks like a hello", [&change[..], &worse, &data].concat(), true),
        ("that gives up", record(21, &[2, 48]), false),
    ] {
        assert_eq!(packets(&[&hello, &flight]), (vec![named("a.com")], done), "{client}");
    }
    assert_eq!(packets(&[&hello, b"GET / HTTP/1.1"]).0, [named("a.com"), Read::NoName(MALFORMED)]);
}

/// Servers that do not want early data go past it to the second hello.
#[test]
fn early_data_is_gone_past() {
    let [a, b] = ["a.com", "b.com"].map(|name| {
        let extensions = vec![(0, names_body(&[(0, name.as_bytes())])), (42, vec![])];
        Hello { extensions: Some(extensions), ..Hello::new(&[]) }.stream()
    });
    let data = record(23, &[7; 16_400]);
    let first = [&a[..], &data].concat();
    assert_eq!(packets(&[&first, &b]), (vec![named("a.com"), named("b.com")], false));
    assert_eq!(packets(&[&first, &data]), (vec![named("a.com")], false));
    assert_eq!(packets(&[&first, &data, &data]), (vec![named("a.com")], true));
    // In the middle of a hello.
    let cut = records(&b[5..], &[50]);
    let (start, rest) = cut.split_at(55);
    let torn = [start, &record(23, &[7]), rest].concat();
    assert_eq!(packets(&[&a, &torn]).0, [named("a.com"), Read::NoName(MALFORMED)]);
}

fn kind() -> impl Strategy<Value = u8> {
    prop_oneof![4 => Just(22), 3 => 20..24u8]
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
        bytes(0..2).prop_map(|bytes| (42, bytes)),
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
        agree(&stream, &[]);
        agree(&stream, &places(&cuts, stream.len()));
    }

    #[test]
    fn a_stream_of_records_is_read_as_the_slow_parser_reads_it(
        records in prop::collection::vec((kind(), hello(), any::<bool>(), 1..300usize), 1..5),
        bend in option::of((any::<Index>(), prop_oneof![any::<u8>(), 0..24u8])),
        cuts in cuts(),
    ) {
        let mut stream = Vec::new();
        let mut between = Vec::new();
        for (kind, hello, whole, len) in records {
            stream.extend(match kind {
                22 if whole => hello.stream(),
                22 => crate::records(&hello.message(), &[len]),
                _ => record(kind, &vec![1; len]),
            });
            between.push(stream.len());
        }
        if let Some((at, byte)) = bend {
            let at = at.index(stream.len());
            stream[at] = byte;
        }
        stream[0] = 22;
        agree(&stream, &[]);
        agree(&stream, &between);
        agree(&stream, &places(&cuts, stream.len()));
    }

    #[test]
    fn any_bytes_are_read_as_the_slow_parser_reads_them(
        start in select(STARTS),
        bytes in prop::collection::vec(prop_oneof![any::<u8>(), 0..4u8], 0..400),
        cuts in cuts(),
    ) {
        let stream = [start, &bytes].concat();
        agree(&stream, &[]);
        agree(&stream, &places(&cuts, stream.len()));
    }
}
