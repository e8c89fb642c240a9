//! A packet's headers, read by the parser and by a slow one for comparison.
#![allow(dead_code, reason = "the fuzz target uses a part")]
#![allow(clippy::unwrap_used, reason = "panics are what is looked for")]

use std::net::IpAddr;

use firewall_common::{
    flow::{Address, Destination, has_ports},
    parse::ip::{Error, Packet, parse, plain},
};

/// RFC 8200 section 4.1, RFC 4302, and the headers of mobility, HIP and Shim6, which have the same
/// shape (RFC 6564).
const EXTENSIONS: [u8; 8] = [0, 43, 44, 51, 60, 135, 139, 140];

/// Reads a packet front to back, taking what it has read off the front.
pub fn slow(bytes: &[u8]) -> Result<Packet, Error> {
    match bytes.first().ok_or(Error::Truncated)? / 16 {
        4 => slow_v4(bytes),
        6 => slow_v6(bytes),
        _ => Err(Error::Version),
    }
}

fn take<'a>(bytes: &mut &'a [u8], len: usize) -> Result<&'a [u8], Error> {
    let (head, rest) = bytes.split_at_checked(len).ok_or(Error::Truncated)?;
    *bytes = rest;
    Ok(head)
}

fn slow_v4(bytes: &[u8]) -> Result<Packet, Error> {
    let mut rest = bytes;
    let fixed = take(&mut rest, 20)?;
    let ip =
        |at: usize| Address::from(IpAddr::from(<[u8; 4]>::try_from(&fixed[at..at + 4]).unwrap()));
    let end = usize::from(fixed[0] % 16 * 4);
    if end < 20 {
        return Err(Error::Truncated);
    }
    let mut at = 20;
    while at < end {
        match bytes.get(at).ok_or(Error::Truncated)? {
            0 => break,
            1 => at += 1,
            131 | 137 => return Err(Error::SourceRoute),
            _ => match bytes.get(at + 1).ok_or(Error::Truncated)? {
                0 | 1 => return Err(Error::Truncated),
                len => at += usize::from(*len),
            },
        }
    }
    let fragment = u16::from_be_bytes([fixed[6], fixed[7]]);
    let (more, offset) = (fragment & 0x2000 != 0, fragment & 0x1fff);
    let mut packet = Packet {
        src: ip(12),
        src_port: 0,
        destination: Destination { address: ip(16), port: 0, protocol: fixed[9], port_hidden: 0 },
        transport: end as u32,
        plain: u8::from(end == 20 && !more && offset == 0),
    };
    slow_ports(bytes, offset != 0, &mut packet)?;
    Ok(packet)
}

fn slow_v6(bytes: &[u8]) -> Result<Packet, Error> {
    let mut rest = bytes;
    let fixed = take(&mut rest, 40)?;
    let ip =
        |at: usize| Address::from(IpAddr::from(<[u8; 16]>::try_from(&fixed[at..at + 16]).unwrap()));
    let (mut protocol, mut transport, mut later, mut followed) = (fixed[6], 40, false, 0);
    while EXTENSIONS.contains(&protocol) && !later {
        if followed == 8 {
            return Err(Error::TooDeep);
        }
        followed += 1;
        let start = bytes.get(transport..transport + 4).ok_or(Error::Truncated)?;
        if protocol == 43 && start[3] > 0 {
            return Err(Error::SourceRoute);
        }
        later = protocol == 44 && (start[2] != 0 || start[3] & 0xf8 != 0);
        transport += match protocol {
            44 => 8,
            51 => (usize::from(start[1]) + 2) * 4,
            _ => (usize::from(start[1]) + 1) * 8,
        };
        protocol = start[0];
    }
    let mut packet = Packet {
        src: ip(8),
        src_port: 0,
        destination: Destination { address: ip(24), port: 0, protocol, port_hidden: 0 },
        transport: transport as u32,
        plain: u8::from(followed == 0),
    };
    slow_ports(bytes, later, &mut packet)?;
    Ok(packet)
}

fn slow_ports(bytes: &[u8], later: bool, packet: &mut Packet) -> Result<(), Error> {
    if !has_ports(packet.destination.protocol) {
        return Ok(());
    }
    if later {
        packet.destination.port_hidden = 1;
        return Ok(());
    }
    let mut rest = bytes.get(packet.transport as usize..).ok_or(Error::Truncated)?;
    let ports = take(&mut rest, 4)?;
    packet.src_port = u16::from(ports[0]) << 8 | u16::from(ports[1]);
    packet.destination.port = u16::from(ports[2]) << 8 | u16::from(ports[3]);
    Ok(())
}

/// The parser's answer.
pub fn fast(bytes: &[u8]) -> Result<Packet, Error> {
    match parse(bytes) {
        (packet, None) => Ok(packet),
        (_, Some(error)) => Err(error),
    }
}

/// Whether both parsers agree about a packet, whatever lies behind it, and so does the short way for
/// those without options, extension headers and fragments.
pub fn check(bytes: &[u8]) {
    let read = fast(bytes);
    assert_eq!(read, slow(bytes), "{bytes:02x?}");
    if let Ok(packet) = read {
        assert_eq!(fast(&[bytes, b"behind"].concat()), Ok(packet), "{bytes:02x?}");
    }
    let words = |count: usize| {
        let four = |four: &[u8]| u32::from_ne_bytes(four.try_into().unwrap());
        Some(bytes.get(..4 * count)?.chunks_exact(4).map(four).collect::<Vec<_>>())
    };
    let Some(v4) = words(6) else { return };
    let v6 = words(11);
    match plain(v4.first_chunk().unwrap(), || v6.as_ref()?.first_chunk()) {
        Some(packet) => assert_eq!(read, Ok(packet), "{bytes:02x?}"),
        // Of a short one it cannot say.
        None if bytes[0] >> 4 == 6 && v6.is_none() => {}
        None => assert!(read.is_err() || parse(bytes).0.plain == 0, "{bytes:02x?}"),
    }
}
