//! IP: fragments, extension headers, and what is broken.

use super::{build::*, hello::client_hello, judge};

const HIDDEN: &str = "deny tracker tls tracker.example tls";

fn hello_v4() -> Vec<u8> {
    let hello = client_hello("plain", "tracker.example");
    tcp((CLIENT, 51_000), (SERVER, 443), 1000, ACK, &hello)
}

fn hello_v6() -> Vec<u8> {
    let hello = client_hello("plain", "tracker.example");
    tcp((CLIENT_V6, 51_000), (SERVER_V6, 443), 1000, ACK, &hello)
}

#[test]
fn fragments_are_put_together_in_any_order() {
    for pieces in [pieces_v4(&hello_v4(), &[24, 80]), pieces_v6(&hello_v6(), &[24, 80])] {
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
            let packets: Vec<Vec<u8>> = order.iter().map(|at| pieces[*at].clone()).collect();
            assert_eq!(judge(&packets).brief(), [HIDDEN], "{order:?}");
        }
        // One comes twice.
        let again = [&pieces[..2], &pieces[..]].concat();
        assert_eq!(judge(&again).brief(), [HIDDEN]);
        // One is missing.
        let judged = judge(&pieces[1..]);
        assert!(judged.lines.is_empty(), "{}", judged.out);
        judged.says("2 fragments without the others (the first: packet 1)");
    }
}

#[test]
fn pieces_of_two_packets_stay_apart() {
    let mut other = pieces_v4(&hello_v4(), &[24]);
    other.iter_mut().for_each(|piece| piece[4] = 0x77);
    let one = pieces_v4(&tcp((CLIENT, 51_001), (SERVER, 443), 1, ACK, &[0; 200]), &[24]);
    let packets = [&one[..1], &other, &one[1..]].concat();
    assert_eq!(judge(&packets).brief(), [HIDDEN, "allow default connect - -"]);
}

#[test]
fn overlapping_fragments_are_worth_nothing() {
    for pieces in [pieces_v4(&hello_v4(), &[24, 80]), pieces_v6(&hello_v6(), &[24, 80])] {
        let mut shifted = pieces[1].clone();
        // Eight bytes earlier.
        let at = if shifted[0] >> 4 == 4 { 7 } else { 43 };
        shifted[at] -= if at == 7 { 1 } else { 8 };
        let judged = judge(&[pieces[0].clone(), shifted, pieces[1].clone(), pieces[2].clone()]);
        assert!(judged.lines.is_empty(), "{}", judged.out);
        judged.says("4 overlapping fragments (the first: packet 1)");
    }
}

#[test]
fn a_fragment_that_cannot_be_one_is_counted() {
    let mut short = pieces_v4(&hello_v4(), &[24])[0].clone();
    short.pop();
    short[3] -= 1;
    let mut beyond = pieces_v4(&hello_v4(), &[24])[1].clone();
    beyond[6..8].copy_from_slice(&0x1fff_u16.to_be_bytes());
    judge(&[short, beyond]).says("2 broken fragments");
}

#[test]
fn too_many_packets_in_pieces_push_out_the_oldest() {
    let piece = pieces_v4(&hello_v4(), &[24])[0].clone();
    let packets: Vec<Vec<u8>> = (0..1030_u16)
        .map(|number| {
            let mut piece = piece.clone();
            piece[4..6].copy_from_slice(&number.to_be_bytes());
            piece
        })
        .collect();
    // None is too old.
    let file = at_once(pcap(RAW, &packets));
    let judged = super::Place::new(super::POLICY, "").judge(&file);
    judged.says("6 fragments beyond what is kept (the first: packet 1)");
    judged.says("1024 fragments without the others (the first: packet 7)");
}

#[test]
fn extension_headers_are_followed() {
    let (from, to) = (CLIENT_V6, "2001:db8:bad::9");
    let segment = tcp_header(51_000, 443, 1, SYN, &[]);
    let options = |next: u8| [next, 0, 1, 4, 0, 0, 0, 0];
    for (what, first, headers) in [
        ("hop-by-hop and destination", 0, [&options(60)[..], &options(6)].concat()),
        ("routing without a hop left", 43, vec![6, 0, 0, 0, 0, 0, 0, 0]),
        ("a fragment that is all", 44, vec![6, 0, 0, 0, 0, 0, 0, 7]),
        (
            "authentication",
            51,
            vec![6, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1],
        ),
    ] {
        let packet = ip(from, to, first, &[&headers[..], &segment].concat());
        let judged = judge(&[packet]);
        assert_eq!(judged.brief(), ["deny net connect - -"], "{what}: {}", judged.err);
    }
    let hops = [&[6, 2, 0, 1, 0, 0, 0, 0][..], &[0x20; 16], &segment].concat();
    judge(&[ip(from, to, 43, &hops)]).says("1 with a source route");
    let many: Vec<u8> = (0..9).flat_map(|at| options(if at == 8 { 6 } else { 60 })).collect();
    judge(&[ip(from, to, 60, &[&many[..], &segment].concat())])
        .says("1 with too many extension headers or options");
    let route = [131, 7, 4, 110, 242, 68, 66, 0];
    judge(&[ip_with(CLIENT, SERVER, 6, &route, &segment)]).says("1 with a source route");
}

#[test]
fn what_is_broken_is_counted_by_its_cause() {
    let good = tcp((CLIENT, 51_000), ("203.0.113.9", 443), 1, SYN, &[]);
    let change = |at: usize, byte: u8| {
        let mut packet = good.clone();
        packet[at] = byte;
        packet
    };
    let mut datagram = udp((CLIENT, 1025), (SERVER, 9999), b"12345678");
    datagram[25] = 17;
    for (packet, says) in [
        (change(0, 0x55), "1 of no known version of IP"),
        (change(0, 0x44), "1 with a broken IP header"),
        (change(3, 200), "1 with a broken IP header"),
        (change(32, 0x40), "1 with a broken transport header"),
        (change(32, 0xf0), "1 with a broken transport header"),
        (datagram, "1 with a broken transport header"),
        (Vec::new(), "1 with a broken IP header"),
    ] {
        let judged = judge(&[packet, good.clone()]);
        judged.says(says).says("1 packets not understood");
        assert_eq!(judged.brief(), ["deny net connect - -"], "{says}");
    }
}

#[test]
fn a_packet_cut_by_the_capture_is_judged_by_what_is_there() {
    let whole = hello_v4();
    let place = super::Place::new(super::POLICY, "");
    for len in [19, 39] {
        let file = pcap_of(Order::Little, false, RAW, &[(&whole[..len], whole.len())]);
        let judged = place.judge(&file);
        assert!(judged.lines.is_empty());
        judged.says("1 cut before their headers end (the first: packet 1)");
    }
    // In the middle of the hello: no name, and all bytes that were sent.
    let file = pcap_of(Order::Little, false, RAW, &[(&whole[..100], whole.len())]);
    let judged = place.judge(&file);
    assert_eq!(judged.brief(), ["allow default connect - -"]);
    assert_eq!(judged.only()["bytes_out"], whole.len() - 40);
    judged.says("1 packets without all of their payload").says("1 streams whose beginning");
}

#[test]
fn other_protocols_are_flows_and_the_kernels_own_are_not() {
    let echo = |kind: u8| [kind, 0, 0, 0, 0, 7, 0, 1, 9, 9];
    let judged = judge(&[
        ip(CLIENT, "203.0.113.9", 1, &echo(8)),
        ip("203.0.113.9", CLIENT, 1, &echo(0)),
        ip(CLIENT_V6, "2001:db8:bad::9", 58, &echo(128)),
        // Errors, neighbours, groups.
        ip("203.0.113.9", CLIENT, 1, &echo(3)),
        ip(CLIENT_V6, "2001:db8:bad::9", 58, &echo(135)),
        ip(CLIENT, "203.0.113.9", 2, &echo(22)),
        ip(CLIENT, "203.0.113.9", 47, &[0; 20]),
    ]);
    let proto: Vec<&str> = judged.lines.iter().filter_map(|line| line["proto"].as_str()).collect();
    assert_eq!(proto, ["icmp", "icmpv6", "47"]);
    assert_eq!(judged.brief(), ["deny net packet - -"; 3]);
    assert_eq!(
        (&judged.lines[0]["bytes_out"], &judged.lines[0]["bytes_in"]),
        (&10.into(), &10.into())
    );
    assert!(judged.lines[0]["dst"]["port"].is_null());
    judged.says("3 control packets of the kernel");
}
