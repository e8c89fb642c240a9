//! The header parser against a slow one, on packets that are built, bent and made up.

mod packet;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use firewall_common::{
    flow::{Destination, has_ports},
    parse::ip::{Error, Packet},
};
use packet::{check, fast, slow};
use proptest::{option, prelude::*, sample::Index, sample::select};

/// A packet and what must be read of it.
#[derive(Clone, Debug)]
struct Built {
    bytes: Vec<u8>,
    want: Result<Packet, Error>,
}

/// An option or extension header: its kind, a size that it is free to choose, and its bytes.
type Part = (u8, u8, u8);

fn built() -> impl Strategy<Value = Built> {
    let protocol = prop_oneof![
        4 => select(&[6, 17, 132, 136][..]),
        2 => select(&[1, 47, 50, 58, 59, 255][..]),
    ];
    let fragment = option::weighted(0.3, (prop_oneof![Just(0), 1..0x2000u16], any::<bool>()));
    let parts = prop::collection::vec((any::<u8>(), any::<u8>(), any::<u8>()), 0..10);
    let ports = any::<(u16, u16)>();
    (any::<bool>(), any::<(u128, u128)>(), protocol, fragment, parts, ports).prop_map(
        |(v6, addresses, protocol, fragment, parts, ports)| {
            if v6 {
                build_v6(addresses, protocol, fragment, &parts, ports)
            } else {
                build_v4(addresses, protocol, fragment, &parts, ports)
            }
        },
    )
}

fn build_v4(
    addresses: (u128, u128),
    protocol: u8,
    fragment: Option<(u16, bool)>,
    parts: &[Part],
    ports: (u16, u16),
) -> Built {
    let (src, dst) = (Ipv4Addr::from(addresses.0 as u32), Ipv4Addr::from(addresses.1 as u32));
    let mut options = Vec::new();
    let mut source_route = false;
    for (kind, size, fill) in parts {
        let option = match kind % 8 {
            0..=2 => vec![1],
            // Rarely, or no packet would pass.
            3 if *fill < 40 => vec![if *size % 2 == 0 { 131 } else { 137 }, 3, 4],
            // What a source route looks like within another option is none.
            4 => vec![68, 4, 131, 137],
            _ => [vec![148, size % 10 + 2], vec![*fill; usize::from(size % 10)]].concat(),
        };
        if options.len() + option.len() <= 40 {
            source_route |= matches!(option[0], 131 | 137);
            options.extend(option);
        }
    }
    options.resize(options.len().next_multiple_of(4), 0);
    let (offset, more) = fragment.unwrap_or((0, false));
    let header = 20 + options.len();
    let mut bytes = vec![0x40 | (header / 4) as u8, 0, 0, 0, 0, 0];
    bytes.extend((offset | u16::from(more) << 13).to_be_bytes());
    bytes.extend([64, protocol, 0, 0]);
    bytes.extend(src.octets());
    bytes.extend(dst.octets());
    bytes.extend(options);
    finish(
        bytes,
        (src.into(), dst.into()),
        protocol,
        offset != 0,
        ports,
        source_route,
        header == 20 && !more && offset == 0,
    )
}

fn build_v6(
    addresses: (u128, u128),
    protocol: u8,
    fragment: Option<(u16, bool)>,
    parts: &[Part],
    ports: (u16, u16),
) -> Built {
    let (src, dst) = (Ipv6Addr::from(addresses.0), Ipv6Addr::from(addresses.1));
    let mut headers: Vec<(u8, Vec<u8>)> = Vec::new();
    for (kind, size, fill) in parts {
        let units = size % 5;
        let kind = [0, 60, 43, 51, 135, 139, 140, 60][usize::from(kind % 8)];
        let left = u8::from(kind == 43 && *fill < 40);
        let len = if kind == 51 { usize::from(units) * 4 + 8 } else { usize::from(units) * 8 + 8 };
        headers.push((kind, [vec![0, units, 0, left], vec![*fill; len - 4]].concat()));
    }
    // Eight headers are followed, and the fragment's may be one of them.
    headers.truncate(8 - usize::from(fragment.is_some()));
    let source_route = headers.iter().any(|(kind, header)| *kind == 43 && header[3] != 0);
    let (offset, more) = fragment.unwrap_or((0, false));
    if fragment.is_some() {
        // The reserved byte has no meaning.
        let [high, low] = (offset << 3 | u16::from(more)).to_be_bytes();
        headers.push((44, vec![0, 255, high, low, 0, 0, 0, 1]));
    }
    let plain = headers.is_empty();
    let mut kinds: Vec<u8> = headers.iter().map(|(kind, _)| *kind).collect();
    kinds.push(protocol);
    let mut bytes = vec![0x60, 0, 0, 0, 0, 0, kinds[0], 64];
    bytes.extend(src.octets());
    bytes.extend(dst.octets());
    for ((_, mut header), following) in headers.into_iter().zip(&kinds[1..]) {
        header[0] = *following;
        bytes.extend(header);
    }
    finish(bytes, (src.into(), dst.into()), protocol, offset != 0, ports, source_route, plain)
}

fn finish(
    mut bytes: Vec<u8>,
    (src, dst): (IpAddr, IpAddr),
    protocol: u8,
    later: bool,
    (src_port, port): (u16, u16),
    source_route: bool,
    plain: bool,
) -> Built {
    let transport = bytes.len() as u32;
    bytes.extend(src_port.to_be_bytes());
    bytes.extend(port.to_be_bytes());
    let shown = has_ports(protocol) && !later;
    let packet = Packet {
        src: src.into(),
        src_port: if shown { src_port } else { 0 },
        destination: Destination {
            address: dst.into(),
            port: if shown { port } else { 0 },
            protocol,
            port_hidden: u8::from(has_ports(protocol) && later),
        },
        transport,
        plain: plain.into(),
    };
    Built { bytes, want: if source_route { Err(Error::SourceRoute) } else { Ok(packet) } }
}

#[test]
fn no_more_than_eight_extension_headers_are_followed() {
    let packet = |extensions: usize| {
        let headers: Vec<u8> = (1..=extensions)
            .flat_map(|n| [if n == extensions { 6 } else { 60 }, 0, 1, 4, 0, 0, 0, 0])
            .collect();
        [&[0x60, 0, 0, 0, 0, 0, 60, 64][..], &[1; 32], &headers, &[0, 1, 0, 2]].concat()
    };
    for extensions in 1..=8 {
        let read = fast(&packet(extensions)).map(|packet| packet.destination.port);
        assert_eq!(read, Ok(2), "{extensions}");
    }
    assert_eq!(fast(&packet(9)), Err(Error::TooDeep));
    assert_eq!(fast(&packet(1000)), Err(Error::TooDeep));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_packet_is_read_as_it_was_built(Built { bytes, want } in built()) {
        prop_assert_eq!(fast(&bytes), want);
        prop_assert_eq!(slow(&bytes), want);
    }

    /// Nothing of a packet may be left out of what the reading rests on.
    #[test]
    fn a_packet_cut_short_is_refused(Built { bytes, want } in built(), at: Index) {
        let at = at.index(bytes.len());
        let got = fast(&bytes[..at]);
        match want {
            Ok(packet) => {
                let shows_ports = has_ports(packet.destination.protocol)
                    && packet.destination.port_hidden == 0;
                if shows_ports {
                    prop_assert_eq!(got, Err(Error::Truncated));
                } else if let Ok(got) = got {
                    prop_assert_eq!(got, packet);
                }
            }
            Err(_) => prop_assert!(got.is_err()),
        }
    }

    #[test]
    fn a_bent_packet_is_read_as_the_slow_parser_reads_it(
        Built { mut bytes, .. } in built(),
        bends in prop::collection::vec(any::<(Index, u8)>(), 1..4),
        end in option::of(any::<Index>()),
    ) {
        for (at, byte) in bends {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(end) = end {
            bytes.truncate(end.index(bytes.len() + 1));
        }
        check(&bytes);
    }

    #[test]
    fn any_bytes_are_read_as_the_slow_parser_reads_them(
        first in select(&[0x40u8, 0x45, 0x4f, 0x60, 0x6f, 0, 0xff][..]),
        mut bytes in prop::collection::vec(any::<u8>(), 0..160),
    ) {
        check(&bytes);
        if let Some(byte) = bytes.first_mut() {
            *byte = first;
        }
        check(&bytes);
    }
}
