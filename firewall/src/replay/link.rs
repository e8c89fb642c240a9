//! Link layers: where in a frame the IP packet begins.
//!
//! Link types are those of <https://www.tcpdump.org/linktypes.html>.

use super::tally::{Cause, Note};

/// Tags of VLANs in one frame that are followed.
const MAX_TAGS: usize = 8;

/// Why a frame has no IP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum No {
    /// It is another protocol's.
    Ip(Note),
    /// It cannot be read.
    Read(Cause),
}

/// The IP packet in a frame.
pub fn ip(link: i32, frame: &[u8]) -> Result<&[u8], No> {
    match link {
        0 | 108 => loopback(frame),
        1 => tagged(frame, 12),
        // LINKTYPE_RAW, and what DLT_RAW is on other systems; IPv4 and IPv6 alone.
        12 | 14 | 101 | 228 | 229 => Ok(frame),
        113 => cooked(frame, 2, 14),
        276 => cooked_v2(frame),
        _ => Err(No::Read(Cause::LinkType)),
    }
}

/// Where an EtherType is, behind it tags of VLANs (IEEE 802.1Q, 802.1ad) and the packet.
fn tagged(frame: &[u8], mut at: usize) -> Result<&[u8], No> {
    for _ in 0..=MAX_TAGS {
        let kind = u16_at(frame, at)?;
        match kind {
            0x0800 | 0x86dd => return Ok(frame.get(at + 2..).unwrap_or_default()),
            0x8100 | 0x88a8 | 0x9100 => at += 4,
            _ => return Err(No::Ip(Note::NotIp)),
        }
    }
    Err(No::Read(Cause::LinkHeader))
}

/// SLL: the type of the device, and the protocol behind its address.
fn cooked(frame: &[u8], device: usize, protocol: usize) -> Result<&[u8], No> {
    // What a netlink device carries is no Ethernet protocol.
    const NETLINK: u16 = 824;
    match u16_at(frame, device)? {
        NETLINK => Err(No::Ip(Note::NotIp)),
        _ => tagged(frame, protocol),
    }
}

/// SLL2: the protocol comes first, and the packet behind 20 bytes.
fn cooked_v2(frame: &[u8]) -> Result<&[u8], No> {
    const HEADER: usize = 20;
    const NETLINK: u16 = 824;
    let rest = frame.get(HEADER..).ok_or(No::Read(Cause::LinkHeader))?;
    match (u16_at(frame, 8)?, u16_at(frame, 0)?) {
        (NETLINK, _) => Err(No::Ip(Note::NotIp)),
        (_, 0x0800 | 0x86dd) => Ok(rest),
        // The rest of the tag comes first.
        (_, 0x8100 | 0x88a8 | 0x9100) => tagged(rest, 2),
        _ => Err(No::Ip(Note::NotIp)),
    }
}

/// The family's number as the capturing system has it, in either order of bytes.
fn loopback(frame: &[u8]) -> Result<&[u8], No> {
    let family = *frame.first_chunk().ok_or(No::Read(Cause::LinkHeader))?;
    match u32::from_be_bytes(family).min(u32::from_le_bytes(family)) {
        2 | 10 | 24 | 28 | 30 => Ok(&frame[4..]),
        _ => Err(No::Ip(Note::NotIp)),
    }
}

fn u16_at(frame: &[u8], at: usize) -> Result<u16, No> {
    let two = frame.get(at..).and_then(|rest| rest.first_chunk());
    two.map(|two| u16::from_be_bytes(*two)).ok_or(No::Read(Cause::LinkHeader))
}
