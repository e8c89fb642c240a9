//! Hellos in pieces: order, overlaps, contradictions, further hellos, and what is none.

use firewall::quic::{Found, Hello, Inspector};
use firewall_common::parse::payload::{MAX_PAYLOAD, flags};

use super::{
    CID, REAL, SERVER, Said, all, alone,
    built::{self, Initial, PING, V1, V2, crypto, padding, pieces},
    hello,
    hello::client_hello,
    take,
};

#[test]
fn real_hellos_in_one_datagram_or_two() {
    for (name, record) in REAL {
        let hello = &record[5..];
        assert_eq!(alone(&built::hello(V1, &CID, hello)), Said::name(name));
        for cut in (1..hello.len()).step_by(7) {
            for order in [[(0, cut), (cut, 9999)], [(cut, 9999), (0, cut)]] {
                let said = all(&pieces(V2, &CID, hello, &order));
                assert_eq!(said, [Said::More, Said::name(name)], "cut at {cut}");
            }
        }
    }
}

#[test]
fn ech_is_told() {
    for (form, held) in [("ech", true), ("plain", false)] {
        let datagram = built::hello(V1, &CID, &client_hello(form, "outer.example")[5..]);
        let taken = Inspector::default().take(0, &datagram, std::time::Duration::ZERO);
        let Found::Hello(Hello { flags, name, .. }) = taken.found else { panic!("{taken:?}") };
        assert_eq!((flags & flags::ECH != 0, name.to_string().as_str()), (held, "outer.example"));
    }
}

/// What the parser says of the hello is told as it is.
#[test]
fn hellos_without_a_name() {
    let datagram = built::hello(V1, &CID, &client_hello("plain", "-")[5..]);
    assert_eq!(alone(&datagram), Said::NoName(flags::TLS));
    let datagram = built::hello(V1, &CID, &client_hello("plain", "a..b")[5..]);
    assert_eq!(
        all(&[datagram.clone(), datagram]),
        [Said::NoName(flags::TLS | flags::MALFORMED), Said::Same]
    );
}

/// The name is the answer when all of the hello is there, and not before.
#[test]
fn a_hello_is_whole_or_none() {
    let hello = hello("a.com");
    for missing in [0, 3, 4, 80, hello.len() - 1] {
        let (before, behind) = (&hello[..missing], &hello[missing + 1..]);
        let frames = [crypto(0, before), crypto(missing as u64 + 1, behind)].concat();
        let rest = crypto(missing as u64, &hello[missing..=missing]);
        let datagram = |frames: &[u8]| Initial::new(V1, &CID, frames).datagram();
        let said = all(&[datagram(&frames), datagram(&frames), datagram(&PING), datagram(&rest)]);
        let more = Said::More;
        assert_eq!(said, [more.clone(), more.clone(), more, Said::name("a.com")], "{missing}");
    }
}

#[test]
fn pieces_in_any_order_overlapping_and_again() {
    let hello = hello("a.com");
    let end = hello.len();
    let mut single: Vec<(usize, usize)> = (0..end).map(|at| (at, 1)).collect();
    for order in [
        vec![(0, 60), (40, 60), (90, end)],
        vec![(90, end), (40, 60), (0, 60)],
        vec![(40, 20), (40, 60), (0, 45), (95, end)],
        single.clone(),
        {
            single.reverse();
            single
        },
    ] {
        let frames: Vec<Vec<u8>> = order
            .iter()
            .map(|&(from, len)| crypto(from as u64, &hello[from..(from + len).min(end)]))
            .collect();
        let one = Initial::new(V1, &CID, &frames.concat()).datagram();
        assert_eq!(alone(&one), Said::name("a.com"), "{order:?}");
        let several: Vec<Vec<u8>> =
            frames.iter().map(|frames| Initial::new(V1, &CID, frames).seal()).collect();
        let said = all(&[several.clone(), several].concat());
        let (last, more) = said[..order.len()].split_last().unwrap();
        assert!(more.iter().all(|said| *said == Said::More), "{order:?}: {said:?}");
        assert_eq!(*last, Said::name("a.com"), "{order:?}");
        assert!(said[order.len()..].iter().all(|said| *said == Said::Same), "{order:?}: {said:?}");
    }
}

#[test]
fn nothing_is_said_in_two_ways() {
    let (a, b) = (hello("a.com"), hello("b.com"));
    let (one, other) = (built::hello(V1, &CID, &a), built::hello(V1, &CID, &b));
    let name = Said::name("a.com");
    assert_eq!(
        all(&[one.clone(), other.clone(), one.clone()]),
        [name.clone(), Said::Malformed, Said::Same]
    );
    let other_version = built::hello(V2, &CID, &b);
    assert_eq!(all(&[one.clone(), other_version]), [name.clone(), Said::Malformed]);
    // To the id of the server.
    let redirected = Initial::new(V1, &CID, &crypto(0, &b)).redirected(&SERVER).number(1, 1);
    assert_eq!(all(&[one.clone(), redirected.datagram()]), [name.clone(), Said::Malformed]);
    // Before the hello is whole, and in one packet.
    let [first, second] = pieces(V1, &CID, &a, &[(0, 90), (80, 9999)]).try_into().unwrap();
    let bent = pieces(V1, &CID, &b, &[(0, 90)]).remove(0);
    assert!(a[..90] == b[..90], "the names are behind");
    assert_eq!(all(&[first.clone(), bent, second.clone()]), [Said::More, Said::More, name.clone()]);
    for at in [0, 50, 89] {
        let mut bent = a.clone();
        bent[at] ^= 1;
        let bent = pieces(V1, &CID, &bent, &[(at, 1)]).remove(0);
        let said = all(&[first.clone(), bent, second.clone()]);
        assert_eq!(said, [Said::More, Said::Malformed, name.clone()], "{at}");
    }
    for (before, behind) in [(&a, &b), (&b, &a)] {
        let frames = [crypto(0, before), crypto(0, behind)].concat();
        assert_eq!(alone(&Initial::new(V1, &CID, &frames).datagram()), Said::Malformed);
    }
}

/// Nothing of a malformed datagram is kept, wherever in it the mistake is.
#[test]
fn malformed_datagrams_leave_nothing_behind() {
    let (a, b) = (hello("a.com"), hello("b.com"));
    for frames in [
        [crypto(0, &b), vec![0x08, 0, 0, 0]].concat(),
        [crypto(0, &b), crypto(5, b"x")].concat(),
        [crypto(0, &b), crypto(0, &a)].concat(),
        [crypto(0, &b), crypto(b.len() as u64, b"x")].concat(),
    ] {
        let bad = Initial::new(V1, &CID, &frames).number(200, 1).datagram();
        let mut inspector = Inspector::default();
        assert_eq!(take(&mut inspector, 0, &bad), Said::Malformed);
        assert_eq!(inspector.counters().connections, 0);
        let good = built::hello(V1, &CID, &a);
        assert_eq!(take(&mut inspector, 0, &good), Said::name("a.com"));
        assert_eq!(take(&mut inspector, 0, &bad), Said::Malformed);
        assert_eq!(take(&mut inspector, 0, &good), Said::Same);
    }
}

/// The server asks for another hello (RFC 8446 section 4.1.4).
#[test]
fn a_second_hello() {
    let (first, second) = (hello("a.com"), hello("b.com"));
    let behind = first.len() as u64;
    let start = || built::hello(V1, &CID, &first);
    for version in [V1, V2] {
        let later = |number: u64, frames: &[u8]| {
            Initial::new(version, &CID, frames).redirected(&SERVER).number(number, 1).datagram()
        };
        let whole = later(1, &crypto(behind, &second));
        let said = all(&[start(), whole.clone(), whole.clone(), start(), later(9, &PING)]);
        let [a, b, same] = [Said::name("a.com"), Said::name("b.com"), Said::Same];
        assert_eq!(said, [a.clone(), b.clone(), same.clone(), same.clone(), same.clone()]);

        let begin = later(1, &crypto(behind, &second[..50]));
        let rest = later(2, &crypto(behind + 50, &second[50..]));
        for halves in [[begin.clone(), rest.clone()], [rest.clone(), begin.clone()]] {
            let more = Said::More;
            let said = all(&[&[start()][..], &halves, &halves].concat());
            assert_eq!(said, [a.clone(), more, b.clone(), same.clone(), same.clone()]);
        }
        // While it is not whole, the first one can come again.
        assert_eq!(
            all(&[start(), begin.clone(), start(), begin]),
            [a.clone(), Said::More, same.clone(), same.clone()]
        );
        // There is no third one.
        for third in [&hello("c.com")[..], b"x"] {
            let third = later(3, &crypto(behind + second.len() as u64, third));
            assert_eq!(all(&[start(), whole.clone(), third])[2], Said::Malformed);
        }
        let other = later(2, &crypto(behind, &hello("c.com")));
        assert_eq!(all(&[start(), whole, other])[2], Said::Malformed, "said in another way");
    }
}

/// Nobody can have asked for it before the first one was there.
#[test]
fn a_second_hello_that_comes_too_early() {
    let first = hello("a.com");
    let behind = crypto(first.len() as u64, &hello("b.com"));
    let datagram = |frames: &[u8]| Initial::new(V1, &CID, frames).datagram();
    for behind in [&behind[..], &crypto(first.len() as u64, b"\x01")] {
        let both = [&crypto(0, &first), behind].concat();
        assert_eq!(alone(&datagram(&both)), Said::Malformed);
        let said = all(&[datagram(&crypto(0, &first[..50])), datagram(behind)]);
        assert_eq!(said, [Said::More, Said::Malformed]);
        let said = all(&[datagram(behind), datagram(&crypto(0, &first))]);
        assert_eq!(said, [Said::More, Said::Malformed]);
    }
}

#[test]
fn what_is_no_hello() {
    let mut message = hello("a.com");
    for kind in [0, 2, 11, 20, 22, 255] {
        message[0] = kind;
        assert_eq!(alone(&built::hello(V1, &CID, &message)), Said::Malformed, "type {kind}");
        assert_eq!(alone(&built::hello(V1, &CID, &message[..4])), Said::Malformed, "type {kind}");
    }
    // What is behind a hello is one too.
    let start = built::hello(V1, &CID, &hello("a.com"));
    let behind = crypto(hello("a.com").len() as u64, &message);
    let behind = Initial::new(V1, &CID, &behind).number(1, 1).datagram();
    assert_eq!(all(&[start, behind])[1], Said::Malformed);
}

#[test]
fn no_more_than_sixteen_kilobytes() {
    const MOST: usize = MAX_PAYLOAD as usize;
    let of = |len: usize| {
        // A hello of an unknown extension before that with the name.
        let small = hello("a.com");
        let extensions_at = 4 + 2 + 32 + 1 + 32 + 2 + 6 + 1 + 1;
        let mut hello = small.clone();
        let unknown = len - small.len();
        let head = [&[0xfa, 0xfa][..], &((unknown - 4) as u16).to_be_bytes()].concat();
        hello.splice(extensions_at + 2..extensions_at + 2, [head, vec![7; unknown - 4]].concat());
        let extensions = (len - extensions_at - 2) as u16;
        hello[extensions_at..extensions_at + 2].copy_from_slice(&extensions.to_be_bytes());
        hello[1..4].copy_from_slice(&(len as u32 - 4).to_be_bytes()[1..]);
        assert_eq!(hello.len(), len);
        hello
    };
    let steps = |len: usize| -> Vec<(usize, usize)> {
        (0..len).step_by(1000).map(|from| (from, 1000)).collect()
    };
    let said = all(&pieces(V1, &CID, &of(MOST), &steps(MOST)));
    let (last, more) = said.split_last().unwrap();
    assert!(more.iter().all(|said| *said == Said::More));
    assert_eq!(*last, Said::name("a.com"));

    let longer = pieces(V1, &CID, &of(MOST + 1), &steps(MOST + 1));
    assert_eq!(alone(&longer[0]), Said::Malformed, "it says so");
    assert_eq!(alone(&longer[16]), Said::Malformed, "it is so");
    let datagram = |offset, said: &[u8]| Initial::new(V1, &CID, &crypto(offset, said)).datagram();
    assert_eq!(alone(&datagram(MOST as u64 - 1, b"x")), Said::More);
    for (offset, said) in [(MOST as u64 - 1, &b"xx"[..]), (MOST as u64, b"x"), (1 << 61, b"x")] {
        assert_eq!(alone(&datagram(offset, said)), Said::Malformed, "{offset}");
    }
    let last = Initial::new(V1, &CID, &[&[6][..], &[0xff; 8], &[0], &padding(9)].concat());
    assert_eq!(alone(&last.datagram()), Said::Malformed);
}
