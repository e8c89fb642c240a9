//! Datagrams and their packets: versions, ids, tokens, lengths, numbers, and what else is there.

use firewall::quic::{Cid, Inspector, is_of_client};

use super::{
    CID, SERVER, Said, all, alone,
    built::{self, Initial, PING, V1, V2, crypto, other},
    hello, take,
};

fn initial(version: u32) -> Initial {
    Initial::new(version, &CID, &crypto(0, &hello("a.com")))
}

#[test]
fn the_id_is_that_of_the_first_packet() {
    let cid = |datagram: &[u8]| {
        let taken = Inspector::default().take(0, datagram, std::time::Duration::ZERO);
        let (bytes, len) = taken.cid.to_bytes();
        bytes[..len].to_vec()
    };
    for len in [0, 1, 8, 20] {
        let id = &[7; 20][..len];
        assert_eq!(cid(&Initial::new(V1, id, &PING).datagram()), id);
        assert_eq!(cid(&other(V2, "handshake", id, 99)), id);
    }
    // What is behind it can be anything.
    let datagram = initial(V1).datagram();
    for end in 0..datagram.len() {
        let id: &[u8] = if end < 6 + CID.len() { b"" } else { &CID };
        assert_eq!(cid(&datagram[..end]), id, "{end}");
    }
    assert_eq!(Cid::new(&[1; 21]), None);
}

#[test]
fn a_cut_datagram_says_nothing() {
    let datagram = initial(V1).datagram();
    for end in 0..datagram.len() {
        assert_eq!(alone(&datagram[..end]), Said::Malformed, "{end}");
    }
}

#[test]
fn versions() {
    for version in [V1, V2] {
        assert_eq!(alone(&initial(version).datagram()), Said::name("a.com"));
    }
    // Version negotiation, the draft of version 1, that of version 2, a reserved one, SSL.
    for version in [0, 0xff00_001d, 0x709a_50c4, 0x1a2a_3a4a, u32::MAX] {
        assert_eq!(alone(&initial(version).datagram()), Said::Malformed, "{version:x}");
    }
    // The types of one version are others in the other.
    for version in [V1, V2] {
        for kind in ["early", "handshake"] {
            assert_eq!(alone(&other(version, kind, &CID, 50)), Said::NoHello, "{kind}");
        }
        assert_eq!(alone(&other(version, "retry", &CID, 50)), Said::Malformed);
    }
    // The version is protected too.
    let mut turned = initial(V1).datagram();
    turned[0] += 0x10;
    turned[1..5].copy_from_slice(&V2.to_be_bytes());
    assert_eq!(alone(&turned), Said::Malformed);
}

/// There are clients that get them mixed up.
#[test]
fn keys_of_the_other_version() {
    for (version, other) in [(V1, V2), (V2, V1)] {
        let mixed_up = Initial { keys_version: other, ..initial(version) };
        assert_eq!(alone(&mixed_up.clone().datagram()), Said::name("a.com"));
        let said = all(&[initial(other).datagram(), mixed_up.redirected(&SERVER).datagram()]);
        assert_eq!(said, [Said::name("a.com"), Said::Same]);
        let other_name = Initial::new(version, &CID, &crypto(0, &hello("b.com")));
        let other_name = Initial { keys_version: other, ..other_name }.datagram();
        assert_eq!(all(&[initial(other).datagram(), other_name])[1], Said::Malformed);
    }
}

#[test]
fn the_fixed_bit_means_nothing() {
    let packet = Initial { first: 0x80, ..initial(V1) };
    assert_eq!(alone(&packet.datagram()), Said::name("a.com"));
}

#[test]
fn reserved_bits_are_zero() {
    for bits in [0x04, 0x08, 0x0c] {
        let packet = Initial { first: 0xc0 | bits, ..initial(V1) };
        assert_eq!(alone(&packet.datagram()), Said::Malformed, "{bits:x}");
    }
}

#[test]
fn what_is_no_long_header() {
    assert_eq!(alone(b""), Said::Malformed);
    assert_eq!(alone(&[0; 1200]), Said::Malformed);
    let mut short = initial(V1).datagram();
    short[0] &= 0x7f;
    assert_eq!(alone(&short), Said::Malformed);
}

#[test]
fn ids_and_tokens() {
    for (destination, source, token) in [(0, 0, 0), (8, 20, 0), (20, 0, 63), (20, 20, 300)] {
        let destination = &[1; 20][..destination];
        let packet = Initial::new(V1, destination, &crypto(0, &hello("a.com")));
        let packet = Initial { source: vec![2; source], token: vec![3; token], ..packet };
        assert_eq!(alone(&packet.datagram()), Said::name("a.com"));
    }
    for (destination, source) in [(21, 8), (8, 21)] {
        let packet = Initial::new(V1, &vec![1; destination], &crypto(0, &hello("a.com")));
        let packet = Initial { source: vec![2; source], ..packet };
        assert_eq!(alone(&packet.datagram()), Said::Malformed);
    }
    // A token that is said to be longer than all that is there.
    let mut packet = initial(V1).datagram();
    let token_at = 1 + 4 + 1 + CID.len() + 1 + 8;
    assert_eq!(packet[token_at], 0);
    packet[token_at..token_at + 8].copy_from_slice(&[0xff; 8]);
    assert_eq!(alone(&packet), Said::Malformed);
}

#[test]
fn lengths_that_lie() {
    for too_long in [-1200, -1000, -17, -1, 1, 500, 10_000] {
        let packet = Initial { too_long, ..initial(V1).padded(1200) };
        assert_eq!(alone(&packet.seal()), Said::Malformed, "{too_long}");
    }
    // Too short for a number and a sample.
    for len in 0..20 {
        let mut packet = other(V1, "early", &CID, len);
        packet[0] = 0xc0;
        packet.insert(1 + 4 + 1 + CID.len() + 1 + 8, 0);
        assert_eq!(alone(&packet), Said::Malformed, "{len}");
    }
}

#[test]
fn the_size_of_a_datagram_means_nothing() {
    assert_eq!(alone(&initial(V1).seal()), Said::name("a.com"));
    assert_eq!(alone(&initial(V1).padded(1999).seal()), Said::name("a.com"));
}

/// A number is told by its last bytes and the largest one before.
#[test]
fn packet_numbers() {
    for (number, len) in
        [(0, 1), (1, 4), (127, 1), (129, 2), (0x7fff, 2), (0xffff, 3), (1 << 31, 4)]
    {
        assert_eq!(alone(&initial(V1).number(number, len).datagram()), Said::name("a.com"));
    }
    // Nobody can know these from so few bytes.
    for (number, len) in [(256, 1), (1 << 16, 2), (1 << 32, 4)] {
        assert_eq!(alone(&initial(V1).number(number, len).datagram()), Said::Malformed);
    }
    for numbers in [
        [(5, 1), (6, 1), (3, 1), (0, 1), (5, 1), (100, 1)],
        [(100, 1), (200, 1), (300, 1), (400, 1), (300, 2), (301, 1)],
        [(0x17f, 2), (0x100, 1), (0x101, 1), (0x180, 1), (0x201, 1), (0x17f, 1)],
        [(254, 1), (300, 1), (255, 1), (200, 1), (428, 1), (302, 1)],
        [(0xfffe, 3), (0x1_0001, 2), (0xffff, 2), (0x1_7fff, 2), (0x1_ffff, 2), (0x1_ff80, 1)],
        [(0x7fff_ffff, 4), (0xffff_ffff, 4), (1 << 32, 4), (u64::MAX >> 2, 4), (7, 1), (9, 2)],
    ] {
        let mut said = Vec::new();
        let mut inspector = Inspector::default();
        let mut largest = None;
        for (number, len) in numbers {
            let datagram = initial(V1).number(number, len).datagram();
            // By RFC 9000 section 17.1 it is the nearest of all with these last bytes.
            let window = 1_i128 << (8 * len);
            let expected = largest.map_or(0, |largest: u64| i128::from(largest) + 1);
            let from = |number: i128| (number - expected).abs();
            let there = i128::from(number);
            let is_near = from(there) < from(there + window)
                && (there < window || from(there) <= from(there - window));
            let got = take(&mut inspector, 0, &datagram);
            assert_eq!(got != Said::Malformed, is_near, "{number} after {said:?} of {numbers:?}");
            said.push((number, got));
            if is_near {
                largest = largest.max(Some(number));
            }
        }
    }
}

/// A client sends what it has in one datagram, the hello not always first.
#[test]
fn coalesced_packets() {
    for version in [V1, V2] {
        let hello = initial(version).seal();
        let early = other(version, "early", &CID, 200);
        let handshake = other(version, "handshake", &CID, 200);
        let short = [&[0x40][..], &[9; 100]].concat();
        let more = Initial::new(version, &CID, &PING).number(1, 1).padded(50).seal();
        for packets in [
            &[&hello, &early][..],
            &[&early, &hello],
            &[&handshake, &early, &hello, &handshake],
            &[&hello, &handshake, &short],
            &[&more, &hello],
            &[&hello, &more, &early],
        ] {
            let datagram: Vec<u8> = packets.iter().flat_map(|packet| packet.to_vec()).collect();
            assert_eq!(alone(&datagram), Said::name("a.com"));
        }
        let nothing = [early, handshake, short].concat();
        assert_eq!(alone(&nothing), Said::NoHello);
    }
}

/// What servers may pass over, and may not, is malformed where a name could be in it.
#[test]
fn packets_beside_the_first() {
    let first = initial(V1).seal();
    let next = |version, cid: &[u8], name: &str| {
        Initial::new(version, cid, &crypto(0, &hello(name))).seal()
    };
    for (what, behind) in [
        ("another connection", next(V1, b"another!", "b.com")),
        ("another connection of another version", next(V2, b"another!", "b.com")),
        ("the same connection, another name", next(V1, &CID, "b.com")),
        ("the same connection in another version, another name", next(V2, &CID, "b.com")),
        ("a version that is not known", other(0xff00_001d, "early", &CID, 50)),
        ("a Retry", other(V1, "retry", &CID, 50)),
        ("a packet that is longer than what is left", other(V1, "early", &CID, 2000)[..900].into()),
        ("a packet that cannot be opened", {
            let mut packet = next(V1, &CID, "a.com");
            *packet.last_mut().unwrap() ^= 1;
            packet
        }),
        ("the start of a header", vec![0xc0]),
    ] {
        let both = [first.clone(), behind.clone()].concat();
        assert_eq!(alone(&both), Said::Malformed, "{what}");
        assert_eq!(alone(&[behind, first.clone()].concat()), Said::Malformed, "{what}, before");
        // Nothing of it is kept.
        let first = initial(V1).seal();
        assert_eq!(all(&[both, first]), [Said::Malformed, Said::name("a.com")], "{what}");
    }
    for (what, behind) in [
        ("the same again", next(V1, &CID, "a.com")),
        ("the same in another version", next(V2, &CID, "a.com")),
        ("another connection without a hello", other(V1, "handshake", b"another!", 50)),
        ("zeros", vec![0; 300]),
        ("a packet with a short header", vec![0x41; 30]),
    ] {
        let both = [first.clone(), behind].concat();
        assert_eq!(alone(&both), Said::name("a.com"), "{what}");
    }
}

/// An id that the server chose opens nothing, but the keys of the client's first one do.
#[test]
fn keys_of_another_id() {
    let ping = |version| Initial::new(version, &CID, &PING).redirected(&SERVER).number(1, 1);
    for (first, later) in [(V1, V1), (V2, V2), (V1, V2), (V2, V1)] {
        let (first, ping) = (initial(first).datagram(), ping(later).datagram());
        assert_eq!(all(&[first.clone(), ping.clone()]), [Said::name("a.com"), Said::Same]);
        assert_eq!(all(&[ping.clone(), first]), [Said::Malformed, Said::name("a.com")]);
        let mut inspector = Inspector::default();
        take(&mut inspector, 1, &initial(V1).datagram());
        assert_eq!(take(&mut inspector, 2, &ping), Said::Malformed, "another flow");
    }
}

/// An app can make a packet that opens with two keys, to other frames with each: AES-GCM does not
/// bind the key. A server would take it for one connection, and whoever stops at the first key that
/// fits for another. This one has a part of a hello for the client's id, and one for the server's.
#[test]
fn a_packet_that_two_keys_open_is_malformed() {
    const TWO_KEYS: &[u8] = include_bytes!("../captures/two-keys");
    let first = Initial::new(V1, &CID, &PING).datagram();
    assert_eq!(alone(TWO_KEYS), Said::More, "by the key of its own id");
    assert_eq!(all(&[first.clone(), TWO_KEYS.to_vec()]), [Said::More, Said::Malformed]);
    assert_eq!(
        all(&[TWO_KEYS.to_vec(), first, TWO_KEYS.to_vec()]),
        [Said::More, Said::More, Said::Malformed]
    );
}

/// All packets of a datagram are of one connection, whatever id they go to.
#[test]
fn packets_of_two_connections_to_one_id() {
    let mut inspector = Inspector::default();
    let mut say = |datagram: &[u8]| take(&mut inspector, 0, datagram);
    let second = Initial::new(V1, b"another!", &crypto(0, &hello("b.com"))).datagram();
    let first = initial(V1).datagram();
    assert_eq!((say(&first), say(&second)), (Said::name("a.com"), Said::name("b.com")));
    let ping = |cid: &[u8]| {
        Initial::new(V1, cid, &PING).redirected(&SERVER).number(1, 1).padded(50).seal()
    };
    assert_eq!((say(&ping(&CID)), say(&ping(b"another!"))), (Said::Same, Said::Same));
    assert_eq!(say(&[ping(&CID), ping(b"another!")].concat()), Said::Malformed);
}

#[test]
fn each_flow_has_its_own_connections() {
    let mut inspector = Inspector::default();
    let halves = built::pieces(V1, &CID, &hello("a.com"), &[(0, 60), (60, 999)]);
    assert_eq!(take(&mut inspector, 1, &halves[0]), Said::More);
    assert_eq!(take(&mut inspector, 2, &halves[1]), Said::More);
    assert_eq!(take(&mut inspector, 2, &halves[0]), Said::name("a.com"));
    assert_eq!(take(&mut inspector, 1, &halves[1]), Said::name("a.com"));
    assert_eq!(take(&mut inspector, 1, &halves[0]), Said::Same);
}

/// There are servers that would put the halves of two sockets together.
#[test]
fn two_flows_do_not_contradict_each_other() {
    let mut inspector = Inspector::default();
    let datagram = |cid: &[u8], name: &str| built::hello(V1, cid, &hello(name));
    assert_eq!(take(&mut inspector, 1, &datagram(&CID, "a.com")), Said::name("a.com"));
    assert_eq!(take(&mut inspector, 2, &datagram(&CID, "b.com")), Said::Malformed);
    assert_eq!(take(&mut inspector, 2, &datagram(b"another!", "b.com")), Said::name("b.com"));
    assert_eq!(take(&mut inspector, 2, &datagram(&CID, "a.com")), Said::name("a.com"));
    let half = built::pieces(V2, &CID, &hello("b.com"), &[(60, 999)]).remove(0);
    for flow in [1, 2, 3] {
        assert_eq!(take(&mut inspector, flow, &half), Said::Malformed);
    }
    // A proxy on the way makes two flows of one, but no crowd.
    for flow in 3..=8 {
        assert_eq!(take(&mut inspector, flow, &datagram(&CID, "a.com")), Said::name("a.com"));
    }
    assert_eq!(take(&mut inspector, 9, &datagram(&CID, "a.com")), Said::Malformed);
    assert_eq!(take(&mut inspector, 8, &datagram(&CID, "a.com")), Said::Same);
    // When it is forgotten, the id is free.
    inspector.expire(std::time::Duration::from_secs(100));
    assert_eq!(take(&mut inspector, 9, &datagram(&CID, "b.com")), Said::name("b.com"));
}

#[test]
fn who_begins_a_connection() {
    let begins = built::hello(V1, &CID, &hello("a.com"));
    assert!(is_of_client(&begins));
    // An answer goes to the id of the client, and has keys of another one.
    let answer = Initial { keys_of: CID.to_vec(), ..Initial::new(V1, &[0xc1; 8], &PING) };
    assert!(!is_of_client(&answer.datagram()));
    assert!(!is_of_client(&other(V1, "handshake", &CID, 100)));
    assert!(!is_of_client(&begins[1..]));
}
