//! The long headers of QUIC (RFC 9000 section 17.2, RFC 9369 section 3), as far as they are not
//! protected: enough to tell whose datagram it is.

use super::Bytes;
use crate::forget::{forget, forget_u64};

/// QUIC version 1.
pub const V1: u32 = 1;
/// QUIC version 2.
pub const V2: u32 = 0x6b33_43cf;

/// Bytes of a connection ID at most, in both versions.
pub const MAX_CID: usize = 20;

/// Kinds of packets with a long header, as in version 1.
pub mod kind {
    /// Begins a connection; its keys follow from what it says itself.
    pub const INITIAL: u32 = 0;
    /// Data before the handshake is done.
    pub const ZERO_RTT: u32 = 1;
    /// The rest of the handshake.
    pub const HANDSHAKE: u32 = 2;
    /// The server asks the client to begin again with a token.
    pub const RETRY: u32 = 3;
}

/// A connection ID, zero past its length.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Cid {
    /// Bytes of it.
    pub len: u32,
    /// Zero.
    pub _pad: u32,
    /// The ID, as words in the order of memory.
    pub words: [u64; 3],
}

impl Cid {
    /// The ID of no bytes.
    pub const EMPTY: Self = Self { len: 0, _pad: 0, words: [0; 3] };

    /// `None` if it is longer than an ID can be.
    pub fn new(id: &[u8]) -> Option<Self> {
        if id.len() > MAX_CID {
            return None;
        }
        let mut bytes = [0; 24];
        bytes[..id.len()].copy_from_slice(id);
        Some(Self::starting(id.len() as u32, bytes))
    }

    /// The ID that is `len` bytes long and begins `bytes`; what follows it does not matter.
    #[inline(always)]
    pub fn starting(len: u32, bytes: [u8; 24]) -> Self {
        let mut words = [0; 3];
        for (index, word) in words.iter_mut().enumerate() {
            let at = 8 * index;
            let mut eight = [0; 8];
            eight.copy_from_slice(&bytes[at..at + 8]);
            // Bytes of this word that belong to the ID.
            let own = len.saturating_sub(at as u32);
            let mask = if own >= 8 { !0 } else { (1 << (8 * own)) - 1 };
            // Or the verifier follows each length.
            *word = u64::from_le_bytes(eight) & forget_u64(mask);
        }
        Self { len, _pad: 0, words: words.map(u64::to_le) }
    }

    /// The ID.
    pub fn to_bytes(self) -> ([u8; 24], usize) {
        let mut bytes = [0; 24];
        for (eight, word) in bytes.chunks_exact_mut(8).zip(self.words) {
            eight.copy_from_slice(&word.to_ne_bytes());
        }
        (bytes, (self.len as usize).min(MAX_CID))
    }
}

/// What a datagram begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// No long header: data of a connection, or something else than QUIC.
    Opaque,
    /// The long header of another version.
    OtherVersion,
    /// It ends before its header does, or has an ID that is too long.
    Malformed,
    /// The long header of version 1 or 2.
    Long(Long),
}

/// A long header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Long {
    /// Of [`kind`].
    pub kind: u32,
    /// Bytes of the destination's connection ID.
    pub dcid: u32,
    /// Offset of the length of the source's connection ID.
    pub scid: u32,
}

/// Offset of the destination's connection ID from the start of the packet.
pub const DCID: u32 = 6;

/// The version's number of the long header at `at`; 0, which is none, if it ends before.
#[inline(always)]
pub fn version(bytes: &(impl Bytes + ?Sized), at: u32) -> u32 {
    bytes.read(at.wrapping_add(1)).map_or(0, u32::from_be_bytes)
}

/// Of [`kind`], by the first byte of a packet of version 1 or 2 (RFC 9369 section 3.2).
#[inline(always)]
pub const fn kind_of(version: u32, first: u8) -> u32 {
    let bits = (first >> 4) as u32;
    (if version == V2 { bits.wrapping_sub(1) } else { bits }) & 3
}

/// Reads the start of the datagram at `at`.
#[inline(always)]
pub fn start(bytes: &(impl Bytes + ?Sized), at: u32) -> Start {
    let Some([first]) = bytes.read(at) else { return Start::Opaque };
    if first & 0x80 == 0 {
        return Start::Opaque;
    }
    let Some([_, _, _, _, _, dcid]) = bytes.read(at) else { return Start::Opaque };
    let version = version(bytes, at);
    let kind = match version {
        V1 | V2 => kind_of(version, first),
        // There are servers that take a packet without the fixed bit (RFC 9287), and far more that
        // is no QUIC.
        _ if first & 0x40 == 0 => return Start::Opaque,
        _ => return Start::OtherVersion,
    };
    if u32::from(dcid) > MAX_CID as u32 {
        return Start::Malformed;
    }
    let dcid = u32::from(dcid);
    Start::Long(Long { kind, dcid, scid: at.wrapping_add(DCID).wrapping_add(dcid) })
}

/// A number of variable length (RFC 9000 section 16) and its bytes; one that does not fit 30 bits, or
/// is not there, is larger than any datagram.
// Not an `Option`: the number of none is not written, and the verifier minds.
#[inline(always)]
fn number(bytes: &(impl Bytes + ?Sized), at: u32) -> (u32, u32) {
    const TOO_LARGE: (u32, u32) = (MAX_NUMBER, 8);
    let [first] = bytes.read(at).unwrap_or([0xff]);
    match first >> 6 {
        0 => (u32::from(first), 1),
        1 => match bytes.read(at) {
            Some([a, b]) => (u32::from(a & 0x3f) << 8 | u32::from(b), 2),
            None => TOO_LARGE,
        },
        2 => match bytes.read(at) {
            Some([a, b, c, d]) => (u32::from_be_bytes([a & 0x3f, b, c, d]), 4),
            None => TOO_LARGE,
        },
        _ => TOO_LARGE,
    }
}

const MAX_NUMBER: u32 = 0x3fff_ffff;

/// Where the packet with this header ends; past every datagram if it has no length or one that lies.
#[inline(always)]
pub fn end(bytes: &(impl Bytes + ?Sized), long: &Long) -> u32 {
    if long.kind == kind::RETRY {
        return MAX_NUMBER;
    }
    let [scid] = bytes.read(long.scid).unwrap_or([0xff]);
    let mut at = forget(long.scid.wrapping_add(1).wrapping_add(u32::from(scid)));
    if long.kind == kind::INITIAL {
        let (token, size) = number(bytes, at);
        at = forget(at.wrapping_add(size).wrapping_add(token));
    }
    let (length, size) = number(bytes, at);
    at.wrapping_add(size).wrapping_add(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATAGRAM: [u8; 30] = {
        let mut bytes = [0xee; 30];
        bytes[0] = 0xc3;
        bytes[1] = 0;
        bytes[2] = 0;
        bytes[3] = 0;
        bytes[4] = 1;
        bytes[5] = 8;
        // Source's ID of two bytes, an empty token, a length of ten bytes.
        bytes[14] = 2;
        bytes[17] = 0;
        bytes[18] = 10;
        bytes
    };

    fn long(bytes: &[u8]) -> Long {
        match start(bytes, 0) {
            Start::Long(long) => long,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_initial_shows_its_connection_and_its_end() {
        let read = long(&DATAGRAM);
        assert_eq!((read.kind, read.dcid, read.scid), (kind::INITIAL, 8, 14));
        assert_eq!(end(&DATAGRAM[..], &read), 29);
        assert!(end(&DATAGRAM[..18], &read) > 1 << 29, "the length is not there");
    }

    #[test]
    fn kinds_of_both_versions() {
        let kinds = |version: u32| {
            [0xc0, 0xd0, 0xe0, 0xf0].map(|first| {
                let mut bytes = DATAGRAM;
                bytes[0] = first;
                bytes[1..5].copy_from_slice(&version.to_be_bytes());
                long(&bytes).kind
            })
        };
        assert_eq!(kinds(V1), [0, 1, 2, 3]);
        assert_eq!(kinds(V2), [3, 0, 1, 2]);
    }

    #[test]
    fn what_is_no_long_header_of_a_known_version() {
        let of = |change: &[(usize, u8)]| {
            let mut bytes = DATAGRAM;
            for (at, byte) in change {
                bytes[*at] = *byte;
            }
            start(&bytes[..], 0)
        };
        assert_eq!(of(&[(0, 0x43)]), Start::Opaque);
        assert!(matches!(of(&[(0, 0x83)]), Start::Long(_)), "some take it without the fixed bit");
        assert_eq!(of(&[(1, 0xff)]), Start::OtherVersion);
        assert_eq!(of(&[(0, 0x83), (1, 0xff)]), Start::Opaque);
        assert_eq!(of(&[(5, 21)]), Start::Malformed);
        assert_eq!(start(&DATAGRAM[..3], 0), Start::Opaque);
        assert_eq!(start(&[][..], 0), Start::Opaque);
    }

    #[test]
    fn an_id_is_what_it_is_whatever_follows() {
        let mut bytes = [0; 24];
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = index as u8 + 1;
        }
        for len in 0..=MAX_CID {
            let cid = Cid::starting(len as u32, bytes);
            let mut short = [0; 24];
            short[..len].copy_from_slice(&bytes[..len]);
            assert_eq!(cid, Cid::starting(len as u32, short));
            assert_eq!(Cid::new(&bytes[..len]), Some(cid));
            assert_eq!(cid.to_bytes(), (short, len));
        }
        assert_eq!(Cid::new(&bytes[..MAX_CID + 1]), None);
    }
}
