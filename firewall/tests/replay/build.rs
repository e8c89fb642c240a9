//! Packets, frames and files of captures, made by hand.

use std::net::IpAddr;

pub const CLIENT: &str = "10.0.0.2";
pub const SERVER: &str = "192.0.2.80";
pub const RESOLVER: &str = "10.0.0.1";
pub const CLIENT_V6: &str = "2001:db8::2";
pub const SERVER_V6: &str = "2001:db8::80";

pub const ETHERNET: u32 = 1;
pub const RAW: u32 = 101;
pub const SLL: u32 = 113;
pub const SLL2: u32 = 276;

pub const SYN: u8 = 2;
pub const SYN_ACK: u8 = 18;
pub const ACK: u8 = 16;
pub const URGENT: u8 = 32 | 16;

/// When the first packet of a capture is, in seconds since 1970: 2026-11-22T12:00:00Z.
pub const BEGIN: u32 = 1_795_348_800;

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// An IP packet.
pub fn ip(from: &str, to: &str, protocol: u8, payload: &[u8]) -> Vec<u8> {
    ip_with(from, to, protocol, &[], payload)
}

/// With options of IPv4.
pub fn ip_with(from: &str, to: &str, protocol: u8, options: &[u8], payload: &[u8]) -> Vec<u8> {
    match (address(from), address(to)) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let header = 20 + options.len();
            let [a, b] = ((header + payload.len()) as u16).to_be_bytes();
            let first = 0x40 | (header / 4) as u8;
            let fixed = [first, 0, a, b, 0x11, 0x22, 0, 0, 64, protocol, 0, 0];
            [&fixed[..], &from.octets(), &to.octets(), options, payload].concat()
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let [a, b] = (payload.len() as u16).to_be_bytes();
            let fixed = [0x60, 0, 0, 0, a, b, protocol, 64];
            [&fixed[..], &from.octets(), &to.octets(), payload].concat()
        }
        _ => panic!("two families"),
    }
}

/// A datagram with its IP header.
pub fn udp(from: (&str, u16), to: (&str, u16), data: &[u8]) -> Vec<u8> {
    ip(from.0, to.0, 17, &udp_header(from.1, to.1, data))
}

pub fn udp_header(from: u16, to: u16, data: &[u8]) -> Vec<u8> {
    let len = (8 + data.len()) as u16;
    [&from.to_be_bytes()[..], &to.to_be_bytes(), &len.to_be_bytes(), &[0, 0], data].concat()
}

/// A segment with its IP header.
pub fn tcp(from: (&str, u16), to: (&str, u16), seq: u32, flags: u8, data: &[u8]) -> Vec<u8> {
    ip(from.0, to.0, 6, &tcp_header(from.1, to.1, seq, flags, data))
}

pub fn tcp_header(from: u16, to: u16, seq: u32, flags: u8, data: &[u8]) -> Vec<u8> {
    let rest = [0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0];
    let ports = [from.to_be_bytes(), to.to_be_bytes()].concat();
    [&ports[..], &seq.to_be_bytes(), &rest, data].concat()
}

/// A connection of TCP on which the client says this, in segments as they are given.
pub fn connection(from: (&str, u16), to: (&str, u16), said: &[&[u8]]) -> Vec<Vec<u8>> {
    let mut packets = vec![tcp(from, to, 999, SYN, &[]), tcp(to, from, 4999, SYN_ACK, &[])];
    let mut seq = 1000;
    for data in said {
        packets.push(tcp(from, to, seq, ACK, data));
        seq += data.len() as u32;
    }
    packets
}

/// The pieces of an IPv4 packet, cut at these places of its payload.
pub fn pieces_v4(packet: &[u8], cuts: &[usize]) -> Vec<Vec<u8>> {
    let (header, payload) = packet.split_at(20);
    ranges(payload.len(), cuts)
        .map(|(begin, end)| {
            let mut piece = [header, &payload[begin..end]].concat();
            let more = u16::from(end < payload.len()) << 13;
            piece[2..4].copy_from_slice(&((20 + end - begin) as u16).to_be_bytes());
            piece[6..8].copy_from_slice(&(more | (begin / 8) as u16).to_be_bytes());
            piece
        })
        .collect()
}

/// The same of an IPv6 packet without extension headers.
pub fn pieces_v6(packet: &[u8], cuts: &[usize]) -> Vec<Vec<u8>> {
    let (header, payload) = packet.split_at(40);
    ranges(payload.len(), cuts)
        .map(|(begin, end)| {
            let word = begin as u16 | u16::from(end < payload.len());
            let [a, b] = word.to_be_bytes();
            let fragment = [header[6], 0, a, b, 0, 0, 0, 7];
            let mut piece = [header, &fragment, &payload[begin..end]].concat();
            piece[6] = 44;
            piece[4..6].copy_from_slice(&((8 + end - begin) as u16).to_be_bytes());
            piece
        })
        .collect()
}

fn ranges(len: usize, cuts: &[usize]) -> impl Iterator<Item = (usize, usize)> {
    let begins: Vec<usize> = std::iter::once(0).chain(cuts.iter().copied()).collect();
    let ends: Vec<usize> = cuts.iter().copied().chain([len]).collect();
    begins.into_iter().zip(ends)
}

/// A name as it is in messages.
pub fn name(text: &str) -> Vec<u8> {
    let labels = text.split('.').filter(|label| !label.is_empty());
    let mut bytes: Vec<u8> =
        labels.flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat()).collect();
    bytes.push(0);
    bytes
}

pub fn question(id: u16, of: &str) -> Vec<u8> {
    let header = [1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    [&id.to_be_bytes()[..], &header, &name(of), &[0, 1, 0, 1]].concat()
}

/// An answer with aliases, each of the one before, and an address of the last.
pub fn answer(id: u16, of: &str, aliases: &[&str], to: &str, ttl: u32) -> Vec<u8> {
    let records = (aliases.len() + 1) as u8;
    let header = [0x81, 0x80, 0, 1, 0, records, 0, 0, 0, 0];
    let mut bytes = [&id.to_be_bytes()[..], &header, &name(of), &[0, 1, 0, 1]].concat();
    let mut record = |owner: &str, kind: u8, data: &[u8]| {
        bytes.extend(name(owner));
        bytes.extend([0, kind, 0, 1]);
        bytes.extend(ttl.to_be_bytes());
        bytes.extend((data.len() as u16).to_be_bytes());
        bytes.extend(data);
    };
    let mut owner = of;
    for alias in aliases {
        record(owner, 5, &name(alias));
        owner = alias;
    }
    match address(to) {
        IpAddr::V4(to) => record(owner, 1, &to.octets()),
        IpAddr::V6(to) => record(owner, 28, &to.octets()),
    }
    bytes
}

/// A question for a name to the resolver, and its answer.
pub fn asks(id: u16, of: &str, aliases: &[&str], to: &str) -> Vec<Vec<u8>> {
    let (client, server) = ((CLIENT, 40_000 + id), (RESOLVER, 53));
    vec![
        udp(client, server, &question(id, of)),
        udp(server, client, &answer(id, of, aliases, to, 60)),
    ]
}

/// A frame of Ethernet, with tags of VLANs.
pub fn ethernet(tags: &[u16], packet: &[u8]) -> Vec<u8> {
    let mut frame = vec![2; 12];
    for tag in tags {
        frame.extend(tag.to_be_bytes());
        frame.extend([0, 7]);
    }
    frame.extend(ether_type(packet));
    frame.extend(packet);
    frame
}

fn ether_type(packet: &[u8]) -> [u8; 2] {
    if packet[0] >> 4 == 4 { [8, 0] } else { [0x86, 0xdd] }
}

pub fn sll(packet: &[u8]) -> Vec<u8> {
    let header = [0, 4, 0, 1, 0, 6, 2, 2, 2, 2, 2, 2, 0, 0];
    [&header[..], &ether_type(packet), packet].concat()
}

pub fn sll2(tag: Option<u16>, packet: &[u8]) -> Vec<u8> {
    let kind = tag.map_or(ether_type(packet), u16::to_be_bytes);
    let rest = [0, 0, 0, 0, 0, 2, 0, 1, 4, 6, 2, 2, 2, 2, 2, 2, 0, 0];
    let inner: &[u8] = if tag.is_some() { &[0, 7] } else { &[] };
    let behind = if tag.is_some() { ether_type(packet).to_vec() } else { Vec::new() };
    [&kind[..], &rest, inner, &behind, packet].concat()
}

/// How numbers are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Big,
    Little,
}

impl Order {
    pub fn u32(self, number: u32) -> [u8; 4] {
        if self == Self::Big { number.to_be_bytes() } else { number.to_le_bytes() }
    }

    pub fn u16(self, number: u16) -> [u8; 2] {
        if self == Self::Big { number.to_be_bytes() } else { number.to_le_bytes() }
    }
}

/// A file of pcap, a packet each second.
pub fn pcap(link: u32, frames: &[Vec<u8>]) -> Vec<u8> {
    let whole: Vec<(&[u8], usize)> = frames.iter().map(|frame| (&frame[..], frame.len())).collect();
    pcap_of(Order::Little, false, link, &whole)
}

/// The same packets, all in the first second.
pub fn at_once(mut file: Vec<u8>) -> Vec<u8> {
    let mut at = 24;
    while at < file.len() {
        file[at..at + 4].copy_from_slice(&BEGIN.to_le_bytes());
        let len = file[at + 8..at + 12].try_into().expect("four bytes");
        at += 16 + u32::from_le_bytes(len) as usize;
    }
    file
}

/// With the bytes that were captured and how many there were.
pub fn pcap_of(order: Order, nano: bool, link: u32, frames: &[(&[u8], usize)]) -> Vec<u8> {
    let magic = if nano { 0xa1b2_3c4d } else { 0xa1b2_c3d4 };
    let mut file = order.u32(magic).to_vec();
    file.extend([order.u16(2), order.u16(4)].concat());
    file.extend([order.u32(0), order.u32(0), order.u32(262_144), order.u32(link)].concat());
    for (second, (frame, len)) in (BEGIN..).zip(frames) {
        let fraction = if nano { 123_456_789 } else { 123_456 };
        let numbers = [second, fraction, frame.len() as u32, *len as u32];
        file.extend(numbers.map(|number| order.u32(number)).concat());
        file.extend(*frame);
    }
    file
}

/// A block of pcapng.
pub fn block(order: Order, kind: u32, body: &[u8]) -> Vec<u8> {
    let pad = vec![0; (4 - body.len() % 4) % 4];
    let len = order.u32((12 + body.len() + pad.len()) as u32);
    [&order.u32(kind)[..], &len, body, &pad, &len].concat()
}

pub fn section(order: Order) -> Vec<u8> {
    let body = [&order.u32(0x1a2b_3c4d)[..], &order.u16(1), &order.u16(0), &[0xff; 8]].concat();
    block(order, 0x0a0d_0d0a, &body)
}

/// An interface, with a resolution of times as its option has it.
pub fn interface(order: Order, link: u32, snap: u32, resolution: Option<u8>) -> Vec<u8> {
    let mut body = [&order.u16(link as u16)[..], &[0, 0], &order.u32(snap)].concat();
    if let Some(resolution) = resolution {
        body.extend([order.u16(9), order.u16(1)].concat());
        body.extend([resolution, 0, 0, 0, 0, 0, 0, 0]);
    }
    block(order, 1, &body)
}

pub fn enhanced(order: Order, interface: u32, time: u64, frame: &[u8]) -> Vec<u8> {
    let len = frame.len() as u32;
    let numbers = [interface, (time >> 32) as u32, time as u32, len, len];
    block(order, 6, &[&numbers.map(|number| order.u32(number)).concat()[..], frame].concat())
}

pub fn simple(order: Order, frame: &[u8], len: usize) -> Vec<u8> {
    block(order, 3, &[&order.u32(len as u32)[..], frame].concat())
}
