//! IPv4 (RFC 791) and IPv6 (RFC 8200) headers up to the ports.
//!
//! A packet that hides where it goes is an error, not a guess: source routes and routing headers
//! name a further destination, so they are refused while a hop is left.

use super::Bytes;
use crate::{
    flow::{Address, Destination, has_ports},
    forget::forget,
};

/// Source and destination of a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packet {
    /// Source address.
    pub src: Address,
    /// Source port; 0 where there is none or it is not shown.
    pub src_port: u16,
    /// Where it goes.
    pub destination: Destination,
    /// Offset of the transport header.
    pub transport: u32,
    /// 1 if there are neither options, extension headers nor a fragment: the next packet of the flow
    /// can be told by its first bytes.
    pub plain: u8,
}

/// Why a packet cannot be judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// It ends before its headers do.
    Truncated,
    /// Neither version 4 nor 6.
    Version,
    /// An IPv4 source route or an IPv6 routing header with hops left.
    SourceRoute,
    /// More extension headers, or more options, than are followed.
    TooDeep,
}

/// Extension headers that are followed; RFC 8200 section 4.1 lists seven in the usual order.
const MAX_EXTENSIONS: u32 = 8;
/// Options of an IPv4 header are 40 bytes at most.
const MAX_OPTIONS: u32 = 40;

impl Packet {
    const fn unread() -> Self {
        let unknown = Address { high: 0, low: 0 };
        Self {
            src: unknown,
            src_port: 0,
            destination: Destination { address: unknown, port: 0, protocol: 0, port_hidden: 0 },
            transport: 0,
            plain: 1,
        }
    }

    /// The same packet, of which the verifier knows nothing.
    #[inline(always)]
    pub fn forget(self) -> Self {
        let Destination { address, port, protocol, port_hidden } = self.destination;
        Self {
            src: self.src.forget(),
            src_port: forget(u32::from(self.src_port)) as u16,
            destination: Destination {
                address: address.forget(),
                port: forget(u32::from(port)) as u16,
                protocol: forget(u32::from(protocol)) as u8,
                port_hidden: forget(u32::from(port_hidden)) as u8,
            },
            transport: forget(self.transport),
            plain: forget(u32::from(self.plain)) as u8,
        }
    }
}

/// Reads the headers of a packet with neither options, extension headers nor a fragment, from its
/// first words as they lie in memory. `None` for any other, which takes [`parse`].
///
/// `v6` gives the eleven words up to the ports, which is more than many IPv4 packets have.
#[inline(always)]
pub fn plain<'a>(v4: &[u32; 6], v6: impl FnOnce() -> Option<&'a [u32; 11]>) -> Option<Packet> {
    let mut packet = Packet::unread();
    let first = u32::from_be(v4[0]);
    let ports = if first >> 24 == 0x45 {
        // The flag "more fragments" and the offset.
        if u32::from_be(v4[1]) & 0x3fff != 0 {
            return None;
        }
        packet.src = Address::v4(u32::from_be(v4[3]));
        packet.destination.address = Address::v4(u32::from_be(v4[4]));
        packet.destination.protocol = (u32::from_be(v4[2]) >> 16) as u8;
        packet.transport = 20;
        v4[5]
    } else if first >> 28 == 6 {
        let words = v6()?;
        packet.src = Address::v6([words[2], words[3], words[4], words[5]]);
        packet.destination.address = Address::v6([words[6], words[7], words[8], words[9]]);
        packet.destination.protocol = (u32::from_be(words[1]) >> 8) as u8;
        packet.transport = 40;
        if is_extension(packet.destination.protocol) {
            return None;
        }
        words[10]
    } else {
        return None;
    };
    if has_ports(packet.destination.protocol) {
        packet.src_port = (u32::from_be(ports) >> 16) as u16;
        packet.destination.port = u32::from_be(ports) as u16;
    }
    Some(packet)
}

/// Reads the headers: the packet as far as it could be read, and what stopped the reading.
#[inline(always)]
pub fn parse(bytes: &(impl Bytes + ?Sized)) -> (Packet, Option<Error>) {
    let mut packet = Packet::unread();
    let error = headers(bytes, &mut packet).err();
    (packet.forget(), error)
}

#[inline(always)]
fn headers(bytes: &(impl Bytes + ?Sized), packet: &mut Packet) -> Result<(), Error> {
    let [first] = bytes.read(0).ok_or(Error::Truncated)?;
    let later_fragment = match first >> 4 {
        4 => parse_v4(bytes, packet)?,
        6 => parse_v6(bytes, packet)?,
        _ => return Err(Error::Version),
    };
    if !has_ports(packet.destination.protocol) {
        return Ok(());
    }
    if later_fragment {
        packet.destination.port_hidden = 1;
        return Ok(());
    }
    let [a, b, c, d] = bytes.read(packet.transport).ok_or(Error::Truncated)?;
    packet.src_port = u16::from_be_bytes([a, b]);
    packet.destination.port = u16::from_be_bytes([c, d]);
    Ok(())
}

/// Returns whether this is a fragment other than the first.
#[inline(always)]
fn parse_v4(bytes: &(impl Bytes + ?Sized), packet: &mut Packet) -> Result<bool, Error> {
    let header: [u8; 20] = bytes.read(0).ok_or(Error::Truncated)?;
    let word =
        |i: usize| u32::from_be_bytes([header[i], header[i + 1], header[i + 2], header[i + 3]]);
    packet.src = Address::v4(word(12));
    packet.destination.address = Address::v4(word(16));
    packet.destination.protocol = header[9];
    packet.transport = u32::from(header[0] & 15) * 4;
    if packet.transport < 20 {
        return Err(Error::Truncated);
    }
    if packet.transport > 20 {
        packet.plain = 0;
        refuse_source_route(bytes, packet.transport)?;
    }
    // The flag "more fragments" and the offset.
    let fragment = u16::from_be_bytes([header[6], header[7]]) & 0x3fff;
    if fragment != 0 {
        packet.plain = 0;
    }
    Ok(fragment & 0x1fff != 0)
}

/// Looks for a loose (131) or strict (137) source route among the options.
#[inline(always)]
fn refuse_source_route(bytes: &(impl Bytes + ?Sized), end: u32) -> Result<(), Error> {
    let mut offset = 20;
    for _ in 0..MAX_OPTIONS {
        offset = forget(offset);
        if offset >= end {
            return Ok(());
        }
        let [kind] = bytes.read(offset).ok_or(Error::Truncated)?;
        match kind {
            0 => return Ok(()),
            1 => offset += 1,
            131 | 137 => return Err(Error::SourceRoute),
            _ => {
                let [len] = bytes.read(offset + 1).ok_or(Error::Truncated)?;
                if len < 2 {
                    return Err(Error::Truncated);
                }
                offset += u32::from(len);
            }
        }
    }
    if offset >= end { Ok(()) } else { Err(Error::TooDeep) }
}

/// Returns whether this is a fragment other than the first.
#[inline(always)]
fn parse_v6(bytes: &(impl Bytes + ?Sized), packet: &mut Packet) -> Result<bool, Error> {
    let header: [u8; 40] = bytes.read(0).ok_or(Error::Truncated)?;
    let word =
        |i: usize| u32::from_ne_bytes([header[i], header[i + 1], header[i + 2], header[i + 3]]);
    packet.src = Address::v6([word(8), word(12), word(16), word(20)]);
    packet.destination.address = Address::v6([word(24), word(28), word(32), word(36)]);
    packet.destination.protocol = header[6];
    packet.transport = 40;
    for _ in 0..MAX_EXTENSIONS {
        let next = packet.destination.protocol;
        if !is_extension(next) {
            return Ok(false);
        }
        packet.plain = 0;
        // Every extension header names what follows in its first byte. The second is a length
        // but for fragments, the fourth of a routing header the number of hops left.
        let [following, len, third, fourth] =
            bytes.read(packet.transport).ok_or(Error::Truncated)?;
        packet.destination.protocol = following;
        packet.transport = forget(packet.transport);
        packet.transport += match next {
            43 if fourth != 0 => return Err(Error::SourceRoute),
            44 => 8,
            // Authentication header (RFC 4302): units of 4 bytes, minus 2.
            51 => 8 + u32::from(len) * 4,
            _ => 8 + u32::from(len) * 8,
        };
        if next == 44 && u16::from_be_bytes([third, fourth]) >> 3 != 0 {
            // What follows is the middle of something, no header.
            return Ok(true);
        }
    }
    if is_extension(packet.destination.protocol) { Err(Error::TooDeep) } else { Ok(false) }
}

/// Hop-by-hop, routing, fragment, authentication, destination, mobility, HIP, Shim6.
const fn is_extension(protocol: u8) -> bool {
    matches!(protocol, 0 | 43 | 44 | 51 | 60 | 135 | 139 | 140)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Words of a packet that is plain but for what `change` does to its bytes.
    fn both(bytes: &[u8; 44]) -> (Option<Packet>, (Packet, Option<Error>)) {
        let mut words = [0u32; 11];
        for (word, four) in words.iter_mut().zip(bytes.chunks_exact(4)) {
            *word = u32::from_ne_bytes([four[0], four[1], four[2], four[3]]);
        }
        let v4 = words.first_chunk().unwrap();
        (plain(v4, || Some(&words)), parse(&bytes[..]))
    }

    #[test]
    fn what_is_plain_is_what_parse_reads() {
        let mut state = 1u32;
        let mut random = || {
            // Marsaglia's xorshift.
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state.to_le_bytes()
        };
        let (mut seen, mut others) = (0, 0);
        for _ in 0..100_000 {
            let mut bytes = [0u8; 44];
            for four in bytes.chunks_exact_mut(4) {
                four.copy_from_slice(&random());
            }
            let [kind, fragment, protocol, _] = random();
            bytes[0] = [0x45, 0x60, 0x46, 0x6f, 0x50][usize::from(kind) % 5];
            if fragment % 4 != 0 {
                (bytes[6], bytes[7]) = (fragment & 0xc0, 0);
            }
            let next = [6, 17, 1, 58, 132, 136, 44, 0, 43, 47][usize::from(protocol) % 10];
            bytes[if bytes[0] >> 4 == 4 { 9 } else { 6 }] = next;
            match both(&bytes) {
                (Some(packet), parsed) => {
                    seen += 1;
                    assert_eq!(parsed, (packet, None), "{bytes:x?}");
                }
                (None, (packet, error)) => {
                    others += 1;
                    assert!(error.is_some() || packet.plain == 0, "{bytes:x?}");
                }
            }
        }
        assert!(seen > 10_000 && others > 10_000, "{seen} plain, {others} not");
    }
}
