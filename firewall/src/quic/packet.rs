//! The packets of a datagram, as far as they can be read without keys (RFC 9000 section 17.2).

use std::iter;

use firewall_common::parse::quic::{V1, V2, kind, kind_of};

use super::{Cid, Malformed, reader::Reader};

/// What stands in the first byte of every long header.
const LONG_HEADER: u8 = 0x80;

/// A version of which the packets can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// RFC 9000.
    V1,
    /// RFC 9369.
    V2,
}

impl Version {
    const fn of(number: u32) -> Option<Self> {
        match number {
            V1 => Some(Self::V1),
            V2 => Some(Self::V2),
            _ => None,
        }
    }

    pub const fn other(self) -> Self {
        match self {
            Self::V1 => Self::V2,
            Self::V2 => Self::V1,
        }
    }
}

/// A packet with a long header that says how long it is.
pub(super) struct Packet<'a> {
    pub version: Version,
    pub is_initial: bool,
    pub cid: Cid,
    /// All of it, protected.
    pub bytes: &'a [u8],
    /// Where the packet number begins.
    pub number_at: usize,
}

/// The packets with long headers of a datagram, one after the other, up to the first mistake.
///
/// A packet with a short header has no length, so it is the last one, and what stands in its place
/// is nothing that a server can read before it has read a hello. A long header of another version
/// is a mistake: there is no telling what it hides.
pub(super) fn split(datagram: &[u8]) -> impl Iterator<Item = Result<Packet<'_>, Malformed>> {
    let mut rest = Reader(datagram);
    iter::from_fn(move || {
        if rest.0.first()? & LONG_HEADER == 0 {
            return None;
        }
        let packet = packet(&mut rest);
        if packet.is_err() {
            rest.0 = &[];
        }
        Some(packet)
    })
}

/// The destination connection id of the packet that the datagram begins with, whatever is behind.
pub(super) fn destination(datagram: &[u8]) -> Result<Cid, Malformed> {
    let (_, _, cid) = header(&mut Reader(datagram))?;
    Ok(cid)
}

/// What is the same in all versions (RFC 8999 section 5.1), up to the destination connection id:
/// the first byte, the version's number and the id.
fn header(reader: &mut Reader<'_>) -> Result<(u8, u32, Cid), Malformed> {
    let first = reader.byte()?;
    let version = u32::from_be_bytes(reader.four()?);
    if first & LONG_HEADER == 0 {
        return Err(Malformed);
    }
    Ok((first, version, cid(reader)?))
}

fn cid(reader: &mut Reader<'_>) -> Result<Cid, Malformed> {
    let len = reader.byte()?;
    Cid::new(reader.take(len.into())?).ok_or(Malformed)
}

/// Reads off one packet. The fixed bit may be 0 (RFC 9287), and counts with the rest of the header
/// when the packet is opened.
fn packet<'a>(reader: &mut Reader<'a>) -> Result<Packet<'a>, Malformed> {
    let all = reader.0;
    let (first, version, destination) = header(reader)?;
    let kind = kind_of(version, first);
    let version = Version::of(version).ok_or(Malformed)?;
    // Only servers send these.
    if kind == kind::RETRY {
        return Err(Malformed);
    }
    let _source = cid(reader)?;
    let is_initial = kind == kind::INITIAL;
    if is_initial {
        let token = reader.number()?;
        reader.take(token)?;
    }
    let len = reader.number()?;
    let number_at = all.len() - reader.0.len();
    let protected = reader.take(len)?;
    let bytes = &all[..number_at + protected.len()];
    Ok(Packet { version, is_initial, cid: destination, bytes, number_at })
}
