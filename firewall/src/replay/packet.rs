//! IP packets: how long they are, what they carry, and which are pieces of one.

use firewall_common::{
    flow::{ICMP, ICMPV6, TCP, UDP, UDPLITE},
    parse::ip::{self, Error},
};

use super::tally::Cause;

/// As many bytes of a packet as there are.
#[derive(Clone, Copy, Debug)]
pub struct Bytes<'a> {
    /// From the IP header on.
    pub there: &'a [u8],
    /// How many it had.
    pub len: usize,
}

/// What a packet carries.
#[derive(Clone, Copy, Debug)]
pub enum Carries<'a> {
    /// A segment of TCP.
    Tcp(Segment<'a>),
    /// A datagram.
    Udp(Bytes<'a>),
    /// The kernel's own: errors, neighbour discovery, multicast groups.
    Control,
    /// Something else, of so many bytes.
    Other(usize),
}

/// A segment of TCP.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    /// Its sequence number.
    pub sequence: u32,
    /// It begins a connection.
    pub syn: bool,
    /// It answers something.
    pub ack: bool,
    /// It has urgent data: who receives it reads other bytes than are in the stream.
    pub urgent: bool,
    /// What it carries.
    pub data: Bytes<'a>,
}

impl<'a> Bytes<'a> {
    /// All of a packet that is not behind it, as padding of the link layer is. `len` is how many
    /// bytes there were.
    pub fn of(captured: &'a [u8], len: usize) -> Result<Self, Cause> {
        let cut = if captured.len() < len { Cause::Cut } else { Cause::IpHeader };
        let u16_at = |at: usize| {
            let two = captured.get(at..).and_then(|rest| rest.first_chunk());
            two.map(|two| usize::from(u16::from_be_bytes(*two))).ok_or(cut)
        };
        let said = match captured.first().ok_or(cut)? >> 4 {
            4 => u16_at(2)?,
            6 => match u16_at(4)? {
                0 => 0,
                payload => payload + V6_HEADER,
            },
            _ => return Err(Cause::IpVersion),
        };
        // What the card is to cut into packets, or is too large for a length of 16 bits, has none.
        let said = if said == 0 { len } else { said };
        if said > len {
            return Err(Cause::IpHeader);
        }
        Ok(Self { there: &captured[..captured.len().min(said)], len: said })
    }

    /// Whether all of it is there.
    pub fn is_whole(&self) -> bool {
        self.there.len() == self.len
    }

    fn behind(&self, offset: usize) -> Option<Self> {
        Some(Self { there: self.there.get(offset..)?, len: self.len - offset })
    }

    fn cause(&self) -> Cause {
        if self.is_whole() { Cause::Transport } else { Cause::Cut }
    }
}

const V6_HEADER: usize = 40;

/// Reads the headers of a packet that is no fragment.
pub fn read<'a>(bytes: &Bytes<'a>) -> Result<(ip::Packet, Carries<'a>), Cause> {
    let (packet, error) = ip::parse(bytes.there);
    if let Some(error) = error {
        return Err(match error {
            Error::Truncated if !bytes.is_whole() => Cause::Cut,
            Error::Truncated => Cause::IpHeader,
            Error::Version => Cause::IpVersion,
            Error::SourceRoute => Cause::SourceRoute,
            Error::TooDeep => Cause::TooDeep,
        });
    }
    let rest = bytes.behind(packet.transport as usize).ok_or(bytes.cause())?;
    let carries = match packet.destination.protocol {
        TCP => Carries::Tcp(segment(&rest)?),
        UDP => Carries::Udp(datagram(&rest)?),
        UDPLITE => Carries::Other(rest.behind(8).ok_or(rest.cause())?.len),
        protocol => {
            let kind = rest.there.first().copied();
            if is_control(protocol, kind.ok_or(rest.cause())) {
                Carries::Control
            } else {
                Carries::Other(rest.len)
            }
        }
    };
    Ok((packet, carries))
}

/// IGMP; errors, redirects and advertisements of ICMP; errors, multicast listeners and neighbour
/// discovery of ICMPv6 (RFC 792, RFC 4443, RFC 4861, RFC 3810).
fn is_control(protocol: u8, kind: Result<u8, Cause>) -> bool {
    const IGMP: u8 = 2;
    match (protocol, kind) {
        (IGMP, _) => true,
        (ICMP, Ok(kind)) => matches!(kind, 3 | 4 | 5 | 9..=12),
        (ICMPV6, Ok(kind)) => matches!(kind, 0..=127 | 130..=137 | 143),
        _ => false,
    }
}

fn segment<'a>(rest: &Bytes<'a>) -> Result<Segment<'a>, Cause> {
    let header: &[u8; 20] = rest.there.first_chunk().ok_or(rest.cause())?;
    let size = usize::from(header[12] >> 4) * 4;
    if size < header.len() || size > rest.len {
        return Err(Cause::Transport);
    }
    let flags = header[13];
    Ok(Segment {
        sequence: u32::from_be_bytes([header[4], header[5], header[6], header[7]]),
        syn: flags & 2 != 0,
        ack: flags & 16 != 0,
        urgent: flags & 32 != 0,
        data: rest.behind(size).ok_or(Cause::Cut)?,
    })
}

fn datagram<'a>(rest: &Bytes<'a>) -> Result<Bytes<'a>, Cause> {
    let header: &[u8; 8] = rest.there.first_chunk().ok_or(rest.cause())?;
    let said = usize::from(u16::from_be_bytes([header[4], header[5]]));
    // RFC 2675 section 4: a jumbogram has no length.
    let len = if said == 0 { rest.len } else { said };
    if len < header.len() || len > rest.len {
        return Err(Cause::Transport);
    }
    let there = &rest.there[..rest.there.len().min(len)];
    Ok(Bytes { there: &there[header.len()..], len: len - header.len() })
}

/// A piece of a packet.
#[derive(Clone, Debug)]
pub struct Piece<'a> {
    /// What all pieces of one packet have: addresses, protocol and number.
    pub of: [u8; 37],
    /// The headers, without the one that says it is a piece.
    pub headers: Vec<u8>,
    /// Where its bytes belong.
    pub offset: usize,
    /// There are others behind it.
    pub more: bool,
    /// Its bytes.
    pub data: &'a [u8],
}

/// What a packet is a piece of, if it is one.
pub fn piece<'a>(bytes: &Bytes<'a>) -> Result<Option<Piece<'a>>, Cause> {
    let Some(first) = bytes.there.first() else { return Ok(None) };
    let piece = match first >> 4 {
        4 => piece_v4(bytes.there),
        6 => piece_v6(bytes.there),
        _ => None,
    };
    let Some(piece) = piece else { return Ok(None) };
    if !bytes.is_whole() {
        return Err(Cause::Cut);
    }
    // Only the last may end anywhere (RFC 791 section 3.2, RFC 8200 section 4.5).
    let wrong = piece.data.is_empty() || (piece.more && piece.data.len() % 8 != 0);
    if wrong || piece.offset + piece.data.len() > usize::from(u16::MAX) {
        return Err(Cause::Fragment);
    }
    Ok(Some(piece))
}

fn piece_v4(bytes: &[u8]) -> Option<Piece<'_>> {
    let header: &[u8; 20] = bytes.first_chunk()?;
    let word = u16::from_be_bytes([header[6], header[7]]);
    if word & 0x3fff == 0 {
        return None;
    }
    let size = usize::from(header[0] & 15) * 4;
    let mut headers = bytes.get(..size.max(header.len()))?.to_vec();
    headers[6..8].fill(0);
    let mut of = [4; 37];
    of[1..9].copy_from_slice(&header[12..20]);
    of[9] = header[9];
    of[10..12].copy_from_slice(&header[4..6]);
    Some(Piece {
        of,
        offset: usize::from(word & 0x1fff) * 8,
        more: word & 0x2000 != 0,
        data: &bytes[headers.len()..],
        headers,
    })
}

fn piece_v6(bytes: &[u8]) -> Option<Piece<'_>> {
    const FRAGMENT: u8 = 44;
    /// As many as the parser of headers follows.
    const MAX_EXTENSIONS: usize = 8;
    let header: &[u8; V6_HEADER] = bytes.first_chunk()?;
    let (mut next, mut named_at, mut at) = (header[6], 6, V6_HEADER);
    for _ in 0..MAX_EXTENSIONS {
        let eight: &[u8; 8] = bytes.get(at..)?.first_chunk()?;
        match next {
            FRAGMENT => {
                let word = u16::from_be_bytes([eight[2], eight[3]]);
                if word & 0xfff9 == 0 {
                    // All of a packet (RFC 6946).
                    return None;
                }
                let mut headers = bytes[..at].to_vec();
                headers[named_at] = eight[0];
                let mut of = [6; 37];
                of[1..33].copy_from_slice(&header[8..40]);
                of[33..37].copy_from_slice(&eight[4..8]);
                return Some(Piece {
                    of,
                    headers,
                    offset: usize::from(word & 0xfff8),
                    more: word & 1 != 0,
                    data: &bytes[at + 8..],
                });
            }
            // What comes before a fragment header: hop-by-hop, routing, destination options.
            0 | 43 | 60 => {
                (next, named_at) = (eight[0], at);
                at += 8 + usize::from(eight[1]) * 8;
            }
            _ => return None,
        }
    }
    None
}

/// Says in the headers of a packet how long it has become; `false` if it is too long to be one.
pub fn lengthen(packet: &mut [u8]) -> bool {
    let (at, len) = match packet.first() {
        Some(first) if first >> 4 == 4 => (2, packet.len()),
        _ => (4, packet.len() - V6_HEADER.min(packet.len())),
    };
    let (Ok(len), Some(to)) = (u16::try_from(len), packet.get_mut(at..at + 2)) else {
        return false;
    };
    to.copy_from_slice(&len.to_be_bytes());
    true
}
