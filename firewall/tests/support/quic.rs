//! Protected Initial packets of QUIC clients, made from what one wants them to say: right ones, and
//! any that no client would send. It knows nothing of what it is to test.
#![allow(dead_code, reason = "each user needs a part of it")]
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "for tests")]

use ring::{
    aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey, quic},
    hkdf::{HKDF_SHA256, KeyType, Prk, Salt},
};

/// RFC 9000.
pub const V1: u32 = 1;
/// RFC 9369.
pub const V2: u32 = 0x6b33_43cf;

/// Bytes that a datagram with an Initial has at least (RFC 9000 section 14.1).
pub const DATAGRAM: usize = 1200;

/// What a client protects its Initials with.
pub struct Keys {
    pub key: [u8; 16],
    pub iv: [u8; 12],
    pub header: [u8; 16],
}

impl Keys {
    /// By the version, and the destination connection id that the client began with.
    pub fn new(version: u32, cid: &[u8]) -> Self {
        let (salt, prefix) = match version {
            V2 => ("0dede3def700a6db819381be6e269dcbf9bd2ed9", "quicv2"),
            _ => ("38762cf7f55934b34d179ae6a4c80cadccbb7f0a", "quic"),
        };
        let initial = Salt::new(HKDF_SHA256, &unhex(salt)).extract(cid);
        let client = Prk::new_less_safe(HKDF_SHA256, &expand::<32>(&initial, "client in"));
        Self {
            key: expand(&client, &format!("{prefix} key")),
            iv: expand(&client, &format!("{prefix} iv")),
            header: expand(&client, &format!("{prefix} hp")),
        }
    }

    fn seal(&self, number: u64, header: &[u8], mut payload: Vec<u8>) -> Vec<u8> {
        let mut nonce = u128::from_be_bytes([&[0; 4], &self.iv[..]].concat().try_into().unwrap());
        nonce ^= u128::from(number);
        let nonce = nonce.to_be_bytes()[4..].try_into().unwrap();
        let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &self.key).unwrap());
        let nonce = Nonce::assume_unique_for_key(nonce);
        key.seal_in_place_append_tag(nonce, Aad::from(header), &mut payload).unwrap();
        payload
    }

    /// What is put over the header.
    pub fn mask(&self, sample: &[u8]) -> [u8; 5] {
        let key = quic::HeaderProtectionKey::new(&quic::AES_128, &self.header).unwrap();
        key.new_mask(sample).unwrap()
    }
}

/// HKDF-Expand-Label (RFC 8446 section 7.1).
fn expand<const N: usize>(secret: &Prk, label: &str) -> [u8; N] {
    struct Len(usize);
    impl KeyType for Len {
        fn len(&self) -> usize {
            self.0
        }
    }
    let label = format!("tls13 {label}");
    let info = [&[0, N as u8, label.len() as u8], label.as_bytes(), &[0]];
    let mut key = [0; N];
    secret.expand(&info, Len(N)).unwrap().fill(&mut key).unwrap();
    key
}

/// An Initial packet.
#[derive(Clone, Debug)]
pub struct Initial {
    pub version: u32,
    pub destination: Vec<u8>,
    /// Whose keys protect it: the id that the connection began with.
    pub keys_of: Vec<u8>,
    /// By the rules of which version they are made.
    pub keys_version: u32,
    pub source: Vec<u8>,
    pub token: Vec<u8>,
    pub number: u64,
    /// Bytes of the number that are sent, 1 to 4.
    pub number_len: usize,
    /// Bits of the first byte: fixed, type, reserved. Those of the length come by themselves.
    pub first: u8,
    /// What the length says too much.
    pub too_long: i64,
    pub frames: Vec<u8>,
}

impl Initial {
    /// The first one of a connection.
    pub fn new(version: u32, destination: &[u8], frames: &[u8]) -> Self {
        Self {
            version,
            destination: destination.to_vec(),
            keys_of: destination.to_vec(),
            keys_version: version,
            source: vec![0xc1; 8],
            token: Vec::new(),
            number: 0,
            number_len: 2,
            first: if version == V2 { 0xd0 } else { 0xc0 },
            too_long: 0,
            frames: frames.to_vec(),
        }
    }

    /// To the id that the server has chosen, with the keys of before.
    pub fn redirected(self, destination: &[u8]) -> Self {
        Self { destination: destination.to_vec(), ..self }
    }

    /// In another version, and with its keys.
    pub fn in_version(self, version: u32) -> Self {
        let first = Self::new(version, b"", b"").first;
        Self { version, keys_version: version, first, ..self }
    }

    pub fn number(self, number: u64, number_len: usize) -> Self {
        Self { number, number_len, ..self }
    }

    /// Adds PADDING until the packet has so many bytes.
    pub fn padded(mut self, len: usize) -> Self {
        let missing = len.saturating_sub(self.seal().len());
        self.frames.extend(padding(missing));
        self
    }

    /// A datagram that is as long as it must be.
    pub fn datagram(self) -> Vec<u8> {
        self.padded(DATAGRAM).seal()
    }

    /// As it is sent.
    pub fn seal(&self) -> Vec<u8> {
        let len = self.number_len + self.frames.len() + AES_128_GCM.tag_len();
        let number = &self.number.to_be_bytes()[8 - self.number_len..];
        let mut header = vec![self.first | (self.number_len - 1) as u8];
        header.extend(self.version.to_be_bytes());
        header.extend(id(&self.destination));
        header.extend(id(&self.source));
        header.extend(short(self.token.len() as u64));
        header.extend(&self.token);
        // Two bytes, whatever it says.
        let said = (len as i64 + self.too_long) as u16;
        header.extend((said & 0x3fff | 0x4000).to_be_bytes());
        let number_at = header.len();
        header.extend(number);

        let keys = Keys::new(self.keys_version, &self.keys_of);
        let sealed = keys.seal(self.number, &header, self.frames.clone());
        let mut packet = [header, sealed].concat();
        let sample = number_at + 4;
        // One that is too short for header protection is sent without.
        if let Some(sample) = packet.get(sample..sample + 16) {
            let mask = keys.mask(sample);
            packet[0] ^= mask[0] & 0x0f;
            for (byte, mask) in packet[number_at..].iter_mut().zip(&mask[1..=self.number_len]) {
                *byte ^= mask;
            }
        }
        packet
    }
}

/// A hello in one datagram.
pub fn hello(version: u32, destination: &[u8], hello: &[u8]) -> Vec<u8> {
    Initial::new(version, destination, &crypto(0, hello)).datagram()
}

/// A hello in as many datagrams as there are pieces, in this order. A piece is an offset and a
/// length; what is behind the end of the hello is left out.
pub fn pieces(
    version: u32,
    destination: &[u8],
    hello: &[u8],
    of: &[(usize, usize)],
) -> Vec<Vec<u8>> {
    let datagram = |(number, &(from, len)): (usize, &(usize, usize))| {
        let from = from.min(hello.len());
        let to = (from + len).min(hello.len());
        let initial = Initial::new(version, destination, &crypto(from as u64, &hello[from..to]));
        initial.number(number as u64, 2).datagram()
    };
    of.iter().enumerate().map(datagram).collect()
}

/// A packet of another kind than Initial, of which nobody here has the keys. Kinds: `early`,
/// `handshake`, `retry`.
pub fn other(version: u32, kind: &str, destination: &[u8], protected: usize) -> Vec<u8> {
    let kind = match kind {
        "early" => 1,
        "handshake" => 2,
        "retry" => 3,
        other => panic!("no such kind: {other}"),
    };
    let kind = if version == V2 { (kind + 1) & 3 } else { kind };
    let mut packet = vec![0xc0 | kind << 4];
    packet.extend(version.to_be_bytes());
    packet.extend(id(destination));
    packet.extend(id(&[0xc1; 8]));
    packet.extend(short(protected as u64));
    packet.extend(vec![0x5a; protected]);
    packet
}

fn id(id: &[u8]) -> Vec<u8> {
    [&[id.len() as u8], id].concat()
}

pub fn crypto(offset: u64, bytes: &[u8]) -> Vec<u8> {
    [&[6][..], &short(offset), &short(bytes.len() as u64), bytes].concat()
}

pub fn padding(len: usize) -> Vec<u8> {
    vec![0; len]
}

pub const PING: [u8; 1] = [1];

/// Of packets 0 to 2, and of 5 and 6, with what ECN counted.
pub const ACK: [u8; 10] = [3, 6, 0, 1, 1, 1, 2, 1, 2, 3];

/// CONNECTION_CLOSE with this reason.
pub fn close(reason: &[u8]) -> Vec<u8> {
    [&[0x1c, 0, 0][..], &short(reason.len() as u64), reason].concat()
}

/// A number in as few bytes as it needs (RFC 9000 section 16).
pub fn short(number: u64) -> Vec<u8> {
    match number {
        0..0x40 => vec![number as u8],
        0x40..0x4000 => (number as u16 | 0x4000).to_be_bytes().to_vec(),
        0x4000..0x4000_0000 => (number as u32 | 0x8000_0000).to_be_bytes().to_vec(),
        _ => (number | 0xc000_0000_0000_0000).to_be_bytes().to_vec(),
    }
}

pub fn unhex(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.chars().filter_map(|digit| Some(digit.to_digit(16)? as u8)).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}
