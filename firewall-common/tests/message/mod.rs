//! DNS messages, read by the parser and by a slow one for comparison.
#![allow(dead_code, reason = "each test uses a part, and so does the fuzz target")]

use firewall_common::{
    name::Text,
    name_table::{Keys, MAX_LABELS, Suffixes},
    parse::dns::{HEADER, Header, MESSAGE, Message, NameReader},
};

/// Any secrets.
pub const KEYS: Keys = Keys { seed: 0x243f_6a88_85a3_08d3, factor: 0x9e37_79b9_7f4a_7c15 };

/// A message in memory that has something else behind it.
pub struct Memory {
    bytes: Box<[u8; MESSAGE]>,
    len: u32,
}

impl Memory {
    pub fn new(message: &[u8], behind: u8) -> Self {
        let mut bytes = Box::new([behind; MESSAGE]);
        bytes[..message.len()].copy_from_slice(message);
        Self { bytes, len: message.len() as u32 }
    }

    pub fn message(&self) -> Message<'_> {
        Message { bytes: &self.bytes, len: self.len }
    }
}

/// A name as text, and the offset of what comes after it.
pub type Name = Option<(Vec<u8>, u32)>;

/// The parser's answer.
pub fn read(message: &Message<'_>, at: u32) -> Name {
    // Of the name before there may be something left.
    let mut text = Text { len: 200, _pad: 0, bytes: [b'x'; 256] };
    match message.name(at, &mut text) {
        0 => None,
        end => Some((text.as_bytes().to_vec(), end)),
    }
}

/// What a name is made of.
struct Pieces {
    labels: Vec<Vec<u8>>,
    pointers: usize,
    end: usize,
}

/// RFC 1035 section 4.1.4, where a pointer leads to before the name it is in, and not into the
/// header.
fn pieces(message: &[u8], at: usize) -> Option<Pieces> {
    let mut labels = Vec::new();
    let mut here = at;
    loop {
        let first = *message.get(here)?;
        let len = usize::from(first & 0x3f);
        match first >> 6 {
            0 if len == 0 => return Some(Pieces { labels, pointers: 0, end: here + 1 }),
            0 => labels.push(message.get(here + 1..here + 1 + len)?.to_ascii_lowercase()),
            3 => {
                let target = len * 256 + usize::from(*message.get(here + 1)?);
                if target >= at || target < HEADER as usize {
                    return None;
                }
                let rest = pieces(message, target)?;
                labels.extend(rest.labels);
                return Some(Pieces { labels, pointers: rest.pointers + 1, end: here + 2 });
            }
            _ => return None,
        }
        here += 1 + len;
    }
}

/// The name that the parser must read.
pub fn slow(message: &[u8], at: u32) -> Name {
    let Pieces { labels, pointers, end } = pieces(message, at as usize)?;
    let read = labels.iter().map(|label| label.len().div_ceil(NameReader::BYTES as usize));
    let steps = read.sum::<usize>() + pointers + 1;
    let text = labels.join(&b'.');
    let plain = labels.iter().flatten().all(|byte| !matches!(byte, 0 | b'.'));
    let fits = steps <= NameReader::STEPS as usize && text.len() <= 253;
    (plain && fits).then_some((text, end as u32))
}

/// Where the parser must go on behind a name that it does not read. Of a pointer it need not see
/// whether it is all there.
pub fn slow_skip(message: &[u8], at: u32) -> u32 {
    let mut here = at as usize;
    for _ in 0..128 {
        here += match message.get(here) {
            Some(0) => return here as u32 + 1,
            Some(192..) => return here as u32 + 2,
            Some(len @ 1..=63) => 1 + usize::from(*len),
            _ => return 0,
        };
    }
    0
}

fn slow_header(message: &[u8]) -> Option<Header> {
    let &[a, b, flags, _, c, d, e, f, ..] = message.get(..12)? else { return None };
    Some(Header {
        id: u16::from_be_bytes([a, b]),
        answer: flags >= 128,
        questions: u16::from_be_bytes([c, d]),
        answers: u16::from_be_bytes([e, f]),
    })
}

/// Hashes of the suffixes of a name, each for itself.
pub fn check_suffixes(keys: Keys, name: &str) {
    let labels: Vec<&str> = name.split('.').collect();
    let suffix = |count: usize| labels[labels.len() - count..].join(".");
    let text = Text::read(name).expect("a name");
    let suffixes = Suffixes::of(keys, &text);
    assert_eq!(suffixes.whole, keys.hash(name), "{name}");
    assert_eq!(suffixes.labels as usize, labels.len().min(MAX_LABELS), "{name}");
    for place in 0..suffixes.labels as usize {
        let last = place == MAX_LABELS - 1;
        let want = if last { name.to_owned() } else { suffix(place + 1) };
        assert_eq!(suffixes.hashes[place], keys.hash(&want), "{want} of {name}");
    }
}

/// Whether a name is read back as it is written.
pub fn check_written(name: &[u8]) {
    let mut text = Text::EMPTY;
    name.iter().for_each(|byte| text.push(*byte));
    let back = Text::read(&text.to_string()).map(|back| back.as_bytes().to_vec());
    assert_eq!(back.as_deref(), Some(name), "{text}");
}

/// Whether both parsers agree about a name at any place of the message, whatever lies behind it.
pub fn check(bytes: &[u8]) {
    let bytes = &bytes[..bytes.len().min(MESSAGE)];
    let told = || bytes.escape_ascii();
    let memories = [0, 1, 0xc0].map(|behind| Memory::new(bytes, behind));
    for message in memories.each_ref().map(Memory::message) {
        assert_eq!(message.header(), slow_header(bytes), "{}", told());
    }
    for at in 0..bytes.len() as u32 + 3 {
        let (want, past) = (slow(bytes, at), slow_skip(bytes, at));
        for message in memories.each_ref().map(Memory::message) {
            assert_eq!(read(&message, at), want, "at {at}: {}", told());
            assert_eq!(message.skip_name(at), past, "past {at}: {}", told());
        }
        let Some((text, end)) = want else { continue };
        assert!(end > at && end as usize <= bytes.len(), "{end}: {}", told());
        assert_eq!(past, end, "past {at}: {}", told());
        assert!(text.len() <= 253 && !text.iter().any(u8::is_ascii_uppercase), "{}", told());
        check_written(&text);
        if at == HEADER && text.iter().all(|byte| byte.is_ascii() && *byte != b'\\') {
            check_suffixes(KEYS, str::from_utf8(&text).expect("ASCII"));
        }
    }
    let message = memories[0].message();
    for (at, two) in bytes.windows(2).enumerate() {
        assert_eq!(message.u16(at as u32), u16::from_be_bytes([two[0], two[1]]));
    }
    for (at, four) in bytes.windows(4).enumerate() {
        let want = u32::from_be_bytes([four[0], four[1], four[2], four[3]]);
        assert_eq!(message.u32(at as u32), want);
    }
}
