//! Ethernet frames for destinations, plain and in disguise.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use firewall_common::flow::{TCP, UDP};
use proptest::{prelude::*, sample::select};

use crate::generate::Target;

/// What a packet has besides its plain headers.
#[derive(Clone, Debug)]
pub enum Dress {
    Plain,
    /// IPv4 options that mean no harm; the extension headers hop-by-hop, destination, routing
    /// (none left) or authentication.
    Extras(Vec<Extra>),
    /// The first of several fragments, which shows the ports.
    FirstFragment,
    /// An IPv4 source route, an IPv6 routing header with a segment left.
    SourceRoute(Extra),
    /// Ends within the ports, or before.
    Cut(u8),
}

#[derive(Clone, Copy, Debug)]
pub enum Extra {
    First,
    Second,
    Third,
    Fourth,
}

const EXTRAS: [Extra; 4] = [Extra::First, Extra::Second, Extra::Third, Extra::Fourth];

impl Dress {
    /// Whether such a packet must be refused as unreadable.
    pub fn is_unreadable(&self, target: Target) -> bool {
        match self {
            Self::SourceRoute(_) => true,
            Self::Cut(_) => firewall_common::flow::has_ports(target.protocol) && !target.hidden,
            Self::Plain | Self::Extras(_) | Self::FirstFragment => false,
        }
    }

    fn is_plain(&self) -> bool {
        matches!(self, Self::Plain | Self::Cut(_))
    }
}

pub fn dress() -> impl Strategy<Value = Dress> {
    let extra = || select(&EXTRAS[..]);
    prop_oneof![
        10 => Just(Dress::Plain),
        4 => prop::collection::vec(extra(), 1..=4).prop_map(Dress::Extras),
        2 => Just(Dress::FirstFragment),
        1 => extra().prop_map(Dress::SourceRoute),
        1 => (0..4u8).prop_map(Dress::Cut),
    ]
}

/// The source of every frame.
pub const SOURCE_PORT: u16 = 40_000;
pub const SOURCE_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub const SOURCE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

/// An Ethernet frame to `target`, and whether it is one that can be told by its first bytes.
pub fn frame(target: Target, dress: &Dress) -> (Vec<u8>, bool) {
    let mut transport = match target.protocol {
        // The data offset of TCP stands in its 13th byte.
        TCP => [[0; 12].as_slice(), &[0x50], &[0; 7]].concat(),
        UDP => vec![0, 0, 0, 0, 0, 8, 0, 0],
        _ => vec![0; 12],
    };
    if firewall_common::flow::has_ports(target.protocol) && !target.hidden {
        transport[..2].copy_from_slice(&SOURCE_PORT.to_be_bytes());
        transport[2..4].copy_from_slice(&target.port.to_be_bytes());
    }
    if let Dress::Cut(len) = dress {
        transport.truncate((*len).into());
    }
    let (ethertype, packet) = match target.ip {
        IpAddr::V4(ip) => (0x0800u16, packet_v4(ip, target, dress, &transport)),
        IpAddr::V6(ip) => (0x86dd, packet_v6(ip, target, dress, &transport)),
    };
    let frame = [[0; 12].as_slice(), &ethertype.to_be_bytes(), &packet].concat();
    (frame, dress.is_plain() && !target.hidden)
}

fn packet_v4(ip: Ipv4Addr, target: Target, dress: &Dress, transport: &[u8]) -> Vec<u8> {
    let mut options: Vec<u8> = match dress {
        Dress::Extras(extras) => extras.iter().flat_map(|extra| option(*extra)).collect(),
        // Behind another option, loose and strict.
        Dress::SourceRoute(Extra::First) => vec![131, 7, 4, 10, 0, 0, 1],
        Dress::SourceRoute(Extra::Second) => vec![137, 7, 4, 10, 0, 0, 1],
        Dress::SourceRoute(Extra::Third) => vec![1, 148, 4, 0, 0, 131, 7, 4, 10, 0, 0, 1],
        Dress::SourceRoute(Extra::Fourth) => vec![1, 1, 1, 137, 3, 4],
        Dress::Plain | Dress::FirstFragment | Dress::Cut(_) => vec![],
    };
    options.resize(options.len().next_multiple_of(4), 0);
    let header = 20 + options.len();
    let fragment: u16 = match (target.hidden, dress) {
        (true, _) => 185,
        (false, Dress::FirstFragment) => 0x2000,
        // "Don't fragment" is no fragment.
        (false, _) => 0x4000,
    };
    let mut packet = vec![0x40 | (header / 4) as u8, 0];
    packet.extend(((header + transport.len()) as u16).to_be_bytes());
    packet.extend([0, 1]);
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, target.protocol, 0, 0]);
    packet.extend(SOURCE_V4.octets());
    packet.extend(ip.octets());
    packet.extend(options);
    packet.extend(transport);
    packet
}

/// An IPv4 option: nothing, router alert, timestamp, record route.
fn option(extra: Extra) -> Vec<u8> {
    match extra {
        Extra::First => vec![1],
        Extra::Second => vec![148, 4, 0, 0],
        Extra::Third => vec![68, 8, 5, 0, 0, 0, 0, 0],
        Extra::Fourth => vec![7, 7, 4, 131, 131, 131, 137],
    }
}

fn packet_v6(ip: Ipv6Addr, target: Target, dress: &Dress, transport: &[u8]) -> Vec<u8> {
    let mut headers: Vec<(u8, Vec<u8>)> = match dress {
        Dress::Extras(extras) => extras.iter().map(|extra| extension(*extra)).collect(),
        Dress::SourceRoute(Extra::First) => vec![(43, routing(0, 1))],
        Dress::SourceRoute(Extra::Second) => vec![(60, vec![0; 8]), (43, routing(4, 1))],
        Dress::SourceRoute(Extra::Third) => vec![(43, routing(2, 0)), (43, routing(2, 1))],
        Dress::SourceRoute(Extra::Fourth) => vec![(44, vec![0; 8]), (43, routing(3, 255))],
        Dress::Plain | Dress::FirstFragment | Dress::Cut(_) => vec![],
    };
    if target.hidden {
        headers.push((44, vec![0, 0, 0x05, 0xc8, 0, 0, 0, 1]));
    } else if matches!(dress, Dress::FirstFragment) {
        headers.push((44, vec![0, 0, 0, 1, 0, 0, 0, 1]));
    }
    let mut payload = Vec::new();
    let kinds: Vec<u8> = headers.iter().map(|(kind, _)| *kind).chain([target.protocol]).collect();
    for ((_, mut header), following) in headers.into_iter().zip(&kinds[1..]) {
        header[0] = *following;
        payload.extend(header);
    }
    payload.extend(transport);
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((payload.len() as u16).to_be_bytes());
    packet.extend([kinds[0], 64]);
    packet.extend(SOURCE_V6.octets());
    packet.extend(ip.octets());
    packet.extend(payload);
    packet
}

/// An extension header whose first byte is still to be set.
fn extension(extra: Extra) -> (u8, Vec<u8>) {
    match extra {
        Extra::First => (0, vec![0, 0, 1, 4, 0, 0, 0, 0]),
        Extra::Second => (60, [vec![0, 1, 1, 12], vec![0; 12]].concat()),
        Extra::Third => (43, routing(0, 0)),
        // Four units of 4 bytes, minus 2.
        Extra::Fourth => (51, [vec![0, 2], vec![0; 14]].concat()),
    }
}

fn routing(kind: u8, left: u8) -> Vec<u8> {
    [vec![0, 2, kind, left], vec![0; 20]].concat()
}
