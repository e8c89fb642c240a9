//! Any bytes: a file, a packet, or a capture with some bytes changed. Nothing panics, and what is not
//! understood is counted.

use proptest::{collection::vec, prelude::*};

use super::{build::*, fuzzed::replay, hello::client_hello};

/// A capture with something of everything.
fn everything() -> Vec<u8> {
    let mut packets = asks(1, "www.example", &["cdn.example", "tracker.example"], SERVER);
    packets.extend(connection(
        (CLIENT, 51_000),
        (SERVER, 443),
        &[&client_hello("grease", "tracker.example")],
    ));
    packets.extend(connection(
        (CLIENT, 51_001),
        (SERVER, 80),
        &[b"GET / HTTP/1.1\r\nHost: tracker.example\r\n\r\n"],
    ));
    let quic = include_bytes!("../captures/rfc9001");
    packets.push(udp((CLIENT_V6, 51_002), (SERVER_V6, 443), quic));
    packets.extend(pieces_v4(&udp((CLIENT, 51_003), (SERVER, 443), quic), &[400, 800]));
    packets.extend(pieces_v6(&udp((CLIENT_V6, 51_003), (SERVER_V6, 443), quic), &[400, 800]));
    let framed = [&[0, 29][..], &question(7, "www.example")].concat();
    packets.extend(connection((CLIENT, 51_004), (RESOLVER, 53), &[&framed[..1], &framed[1..]]));
    let mut file = section(Order::Big);
    file.extend(interface(Order::Big, ETHERNET, 0, Some(9)));
    file.extend(interface(Order::Big, SLL2, 0, Some(0xff)));
    for (time, packet) in packets.iter().enumerate() {
        // Now one, now the other.
        file.extend(match time % 2 {
            0 => enhanced(Order::Big, 0, time as u64, &ethernet(&[0x8100], packet)),
            _ => enhanced(Order::Big, 1, time as u64, &sll2(None, packet)),
        });
    }
    file
}

#[test]
fn everything_is_understood() {
    let counted = replay(&everything()).expect("a capture");
    assert_eq!((counted.causes.total(), counted.stop), (0, None));
    assert_eq!(counted.verdicts, [5, 0, 2], "two questions and three of QUIC; TLS and HTTP");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_as_a_file(bytes in vec(any::<u8>(), 0..2000), magic in 0..4_usize) {
        let magics: [&[u8]; 4] = [&[], &[0xd4, 0xc3, 0xb2, 0xa1], &[0xa1, 0xb2, 0x3c, 0x4d], &section(Order::Big)];
        replay(&[magics[magic], &bytes].concat());
    }

    #[test]
    fn any_bytes_as_packets(
        packets in vec((vec(any::<u8>(), 0..200), any::<u16>()), 0..50),
        link in prop::sample::select(vec![0_u32, ETHERNET, RAW, SLL, SLL2, 108, 228, 999]),
        begin in prop::sample::select(vec![vec![], vec![0x45, 0], vec![0x60], ethernet(&[0x8100], &[0x45])]),
    ) {
        let packets: Vec<(Vec<u8>, usize)> = packets
            .into_iter()
            .map(|(packet, len)| ([begin.clone(), packet].concat(), usize::from(len)))
            .collect();
        let frames: Vec<(&[u8], usize)> = packets.iter().map(|(it, len)| (&it[..], *len)).collect();
        let counted = replay(&pcap_of(Order::Big, true, link, &frames)).expect("a capture");
        prop_assert_eq!(counted.packets, packets.len() as u64);
    }

    #[test]
    fn a_capture_with_bytes_changed(
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..40),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut file = everything();
        for (at, byte) in changes {
            // The headers of the file stay, or it would be none.
            let at = 60 + at.index(file.len() - 60);
            file[at] = byte;
        }
        file.truncate(60 + cut.index(file.len() - 60));
        replay(&file);
    }
}
