//! Opens Initial packets: the keys of a client follow from the destination connection id that it
//! began with (RFC 9001 section 5, RFC 9369 section 3.3).

use ring::{
    aead::{self, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey, quic::HeaderProtectionKey},
    hkdf::{self, KeyType, Prk, Salt},
};

use super::{
    Cid, Malformed,
    packet::{Packet, Version},
};

/// Bits of the first byte that must be zero.
const RESERVED: u8 = 0x0c;
/// Bits of the first byte that header protection covers.
const PROTECTED: u8 = 0x0f;
/// Bits of the first byte that say how many bytes the packet number has, less one.
const NUMBER_LEN: u8 = 0x03;
/// Packet numbers are below.
const END_OF_NUMBERS: u64 = 1 << 62;

/// The salt of a version, and what keys are expanded by: the length, and the label with its prefix
/// (RFC 8446 section 7.1).
struct Constants {
    salt: [u8; 20],
    key: &'static [u8],
    iv: &'static [u8],
    header: &'static [u8],
}

const CLIENT: &[u8] = b"\0\x20\x0ftls13 client in\0";

const V1: Constants = Constants {
    salt: [
        0x38, 0x76, 0x2c, 0xf7, 0xf5, 0x59, 0x34, 0xb3, 0x4d, 0x17, 0x9a, 0xe6, 0xa4, 0xc8, 0x0c,
        0xad, 0xcc, 0xbb, 0x7f, 0x0a,
    ],
    key: b"\0\x10\x0etls13 quic key\0",
    iv: b"\0\x0c\x0dtls13 quic iv\0",
    header: b"\0\x10\x0dtls13 quic hp\0",
};

const V2: Constants = Constants {
    salt: [
        0x0d, 0xed, 0xe3, 0xde, 0xf7, 0x00, 0xa6, 0xdb, 0x81, 0x93, 0x81, 0xbe, 0x6e, 0x26, 0x9d,
        0xcb, 0xf9, 0xbd, 0x2e, 0xd9,
    ],
    key: b"\0\x10\x10tls13 quicv2 key\0",
    iv: b"\0\x0c\x0ftls13 quicv2 iv\0",
    header: b"\0\x10\x0ftls13 quicv2 hp\0",
};

/// What opens the Initials of a client.
pub(super) struct Keys {
    payload: LessSafeKey,
    header: HeaderProtectionKey,
    iv: [u8; NONCE_LEN],
}

/// A packet without its protection.
pub(super) struct Opened<'a> {
    pub number: u64,
    pub payload: &'a [u8],
}

impl Keys {
    /// Those of a connection that began with this destination connection id. There is no id that
    /// has none.
    pub fn new(version: Version, cid: &Cid) -> Result<Self, Malformed> {
        let Constants { salt, key, iv, header } = match version {
            Version::V1 => V1,
            Version::V2 => V2,
        };
        let (cid, len) = cid.to_bytes();
        let initial = Salt::new(hkdf::HKDF_SHA256, &salt).extract(&cid[..len]);
        let client: Prk = expand(&initial, &[CLIENT], hkdf::HKDF_SHA256)?.into();
        let key: UnboundKey = expand(&client, &[key], &aead::AES_128_GCM)?.into();
        let mut nonce = [0; NONCE_LEN];
        expand(&client, &[iv], NonceLen)?.fill(&mut nonce).map_err(|_| Malformed)?;
        let header = expand(&client, &[header], &aead::quic::AES_128)?.into();
        Ok(Self { payload: LessSafeKey::new(key), header, iv: nonce })
    }

    /// Opens a packet in a copy of it, if these are its keys. `largest` is the largest number of
    /// the packets before.
    pub fn open<'a>(
        &self,
        packet: &Packet<'_>,
        largest: Option<u64>,
        copy: &'a mut Vec<u8>,
    ) -> Option<Opened<'a>> {
        let (header, protected) = packet.bytes.split_at_checked(packet.number_at)?;
        // As if the number had four bytes (RFC 9001 section 5.4.2).
        let (number, sample) = protected.split_first_chunk::<4>()?;
        let sample = sample.get(..self.header.algorithm().sample_len())?;
        let [first_mask, mask @ ..] = self.header.new_mask(sample).ok()?;
        let first = header.first()? ^ first_mask & PROTECTED;
        // Other keys get here for one packet in four.
        if first & RESERVED != 0 {
            return None;
        }
        let len = usize::from(first & NUMBER_LEN) + 1;
        let mut number = *number;
        number.iter_mut().zip(mask).take(len).for_each(|(byte, mask)| *byte ^= mask);

        copy.clear();
        copy.push(first);
        copy.extend(&header[1..]);
        copy.extend(&number);
        copy.extend(&protected[number.len()..]);
        let (header, payload) = copy.split_at_mut(packet.number_at + len);
        let number = whole_number(&number[..len], largest);
        let nonce = Nonce::assume_unique_for_key(self.nonce(number));
        let payload = self.payload.open_in_place(nonce, Aad::from(header), payload).ok()?;
        Some(Opened { number, payload })
    }

    fn nonce(&self, number: u64) -> [u8; NONCE_LEN] {
        let mut nonce = self.iv;
        nonce.iter_mut().rev().zip(number.to_le_bytes()).for_each(|(byte, of)| *byte ^= of);
        nonce
    }
}

struct NonceLen;

impl KeyType for NonceLen {
    fn len(&self) -> usize {
        NONCE_LEN
    }
}

fn expand<'a, L: KeyType>(
    secret: &'a Prk,
    info: &'a [&'a [u8]],
    len: L,
) -> Result<hkdf::Okm<'a, L>, Malformed> {
    // It refuses nothing but lengths, and these are fixed.
    secret.expand(info, len).map_err(|_| Malformed)
}

/// The number of which these are the last bytes, and which is nearest to the one that comes after
/// the largest (RFC 9000 appendix A.3).
fn whole_number(bytes: &[u8], largest: Option<u64>) -> u64 {
    let expected = largest.map_or(0, |largest| largest + 1);
    let window = 1 << (8 * bytes.len());
    let low = bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
    let near = expected & !(window - 1) | low;
    if near + window / 2 <= expected && near + window < END_OF_NUMBERS {
        near + window
    } else if near > expected + window / 2 && near >= window {
        near - window
    } else {
        near
    }
}
