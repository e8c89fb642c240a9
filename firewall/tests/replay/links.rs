//! Link types and the formats of files: all of them show the same flow.

use super::{POLICY, Place, build::*};

const DENIED: &str = "203.0.113.9";
const DENIED_V6: &str = "2001:db8:bad::9";

fn packet(v6: bool) -> Vec<u8> {
    let (from, to) = if v6 { (CLIENT_V6, DENIED_V6) } else { (CLIENT, DENIED) };
    tcp((from, 51_000), (to, 443), 1, SYN, &[])
}

#[track_caller]
fn assert_shows(what: &str, file: &[u8], v6: bool) {
    let judged = Place::new(POLICY, "").judge(file);
    let line = judged.only();
    let (from, to) = if v6 { (CLIENT_V6, DENIED_V6) } else { (CLIENT, DENIED) };
    assert_eq!(line["src"]["ip"], from, "{what}");
    assert_eq!(line["src"]["port"], 51_000, "{what}");
    assert_eq!(line["dst"]["ip"], to, "{what}");
    assert_eq!(line["dst"]["port"], 443, "{what}");
    assert_eq!((&line["verdict"], &line["rule"]), (&"deny".into(), &"net".into()), "{what}");
    assert!(!judged.err.contains("not understood"), "{what}: {}", judged.err);
}

#[test]
fn every_link_type_shows_its_packets() {
    for v6 in [false, true] {
        let packet = packet(v6);
        let family: u32 = if v6 { 30 } else { 2 };
        for (what, link, frame) in [
            ("Ethernet", ETHERNET, ethernet(&[], &packet)),
            ("with padding", ETHERNET, [ethernet(&[], &packet), vec![0xaa; 18]].concat()),
            ("802.1Q", ETHERNET, ethernet(&[0x8100], &packet)),
            ("QinQ", ETHERNET, ethernet(&[0x88a8, 0x8100], &packet)),
            ("old QinQ", ETHERNET, ethernet(&[0x9100, 0x8100], &packet)),
            ("SLL", SLL, sll(&packet)),
            ("SLL2", SLL2, sll2(None, &packet)),
            ("SLL2 with a tag", SLL2, sll2(Some(0x8100), &packet)),
            ("raw", RAW, packet.clone()),
            ("raw of one family", if v6 { 229 } else { 228 }, packet.clone()),
            ("NULL", 0, [&family.to_le_bytes()[..], &packet].concat()),
            ("LOOP", 108, [&family.to_be_bytes()[..], &packet].concat()),
        ] {
            assert_shows(what, &pcap(link, &[frame]), v6);
        }
    }
}

#[test]
fn frames_without_ip_are_counted() {
    let arp = [&[2; 12][..], &[8, 6], &[0; 28]].concat();
    let cut = vec![2; 13];
    let tags = ethernet(&[0x8100; 9], &packet(false));
    let file = pcap(ETHERNET, &[arp, cut, tags, ethernet(&[], &packet(false))]);
    let judged = Place::new(POLICY, "").judge(&file);
    judged.only();
    judged
        .says("4 packets: 1 flows denied")
        .says("2 packets not understood")
        .says("2 with a broken link header (the first: packet 2)")
        .says("1 packets of other protocols than IP (the first: packet 1)");
    let judged = Place::new(POLICY, "").judge(&pcap(147, &[packet(false)]));
    assert!(judged.lines.is_empty());
    judged.says("1 of a link type that is not read");
    // What netlink carries is no IP, whatever its protocol is called.
    let mut netlink = sll(&packet(false));
    netlink[2..4].copy_from_slice(&824_u16.to_be_bytes());
    Place::new(POLICY, "").judge(&pcap(SLL, &[netlink])).says("1 packets of other protocols");
}

#[test]
fn pcap_of_either_order_and_precision() {
    let frame = ethernet(&[], &packet(false));
    for order in [Order::Big, Order::Little] {
        for (nano, time) in [(false, "12:00:00.123456Z"), (true, "12:00:00.123456Z")] {
            let file = pcap_of(order, nano, ETHERNET, &[(&frame, frame.len())]);
            assert_shows("pcap", &file, false);
            let judged = Place::new(POLICY, "").judge(&file);
            assert_eq!(judged.only()["time"], format!("2026-11-22T{time}"), "{order:?} {nano}");
        }
    }
}

#[test]
fn pcapng_with_several_interfaces_sections_and_orders() {
    let begin = u64::from(BEGIN);
    let to = |last: u8| tcp((CLIENT, 51_000), (&format!("203.0.113.{last}"), 443), 1, SYN, &[]);
    let mut file = Vec::new();
    for order in [Order::Big, Order::Little] {
        let base = if order == Order::Big { 10 } else { 20 };
        file.extend(section(order));
        file.extend(interface(order, ETHERNET, 0, None));
        file.extend(interface(order, RAW, 0, Some(9)));
        // 2^-10 seconds.
        file.extend(interface(order, SLL, 0, Some(0x8a)));
        file.extend(enhanced(order, 1, begin * 1_000_000_000 + 5_000, &to(base)));
        file.extend(enhanced(order, 0, begin * 1_000_000 + 7, &ethernet(&[], &to(base + 1))));
        file.extend(enhanced(order, 2, (begin << 10) + 512, &sll(&to(base + 2))));
        // A block that nobody knows.
        file.extend(block(order, 0x0bad_0bad, b"whatever"));
        file.extend(enhanced(order, 7, 0, &to(base + 3)));
        file.extend(simple(order, &ethernet(&[], &to(base + 4)), 54));
    }
    let judged = Place::new(POLICY, "").judge(&file);
    let all: Vec<String> = judged
        .lines
        .iter()
        .map(|line| format!("{} {}", line["dst"]["ip"], line["time"]).replace('"', ""))
        .collect();
    let of = |base: u8| {
        [(0, "00.000005"), (1, "00.000007"), (2, "00.500000"), (4, "00.500000")]
            .map(|(last, time)| format!("203.0.113.{} 2026-11-22T12:00:{time}Z", base + last))
    };
    assert_eq!(all, [of(10), of(20)].concat());
    judged.says("2 of an interface that is not described (the first: packet 4)");
}

#[test]
fn simple_packets_are_as_long_as_the_interface_keeps() {
    let segment = packet(false);
    let mut file = section(Order::Little);
    file.extend(interface(Order::Little, RAW, 39, None));
    // The last byte is padding, and would make it whole.
    file.extend(simple(Order::Little, &segment[..39], segment.len()));
    let judged = Place::new(POLICY, "").judge(&file);
    assert!(judged.lines.is_empty(), "{}", judged.out);
    judged.says("1 cut before their headers end");
}
