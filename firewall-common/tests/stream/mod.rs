//! A stream, read by the parser in pieces and by a slow one for comparison.
#![allow(dead_code, reason = "each test uses a part, and so do the fuzz targets")]

pub mod http;
pub mod tls;

use firewall_common::parse::payload::{Payload, answer, flags};

/// What is known at the end of a stream, or as soon as there is an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// Nothing yet.
    More,
    /// The server's name.
    Name(String),
    /// None, with the flags but [`flags::ECH`].
    NoName(u32),
}

/// The last answer of the stream in the pieces that end at `cuts`, and what the flags are then.
pub fn read(bytes: &[u8], cuts: &[usize]) -> (Read, u32) {
    let (mut all, flags) = reads(bytes, cuts);
    (all.pop().unwrap_or(Read::More), flags)
}

/// All answers, each that is given again but once.
pub fn reads(bytes: &[u8], cuts: &[usize]) -> (Vec<Read>, u32) {
    let mut payload = Payload::default();
    let mut from = 0;
    let mut all = Vec::new();
    for to in cuts.iter().copied().chain([bytes.len()]) {
        // In a packet there is something before the payload, and perhaps something behind.
        let packet = [b"before", &bytes[from..to], b"behind"].concat();
        let (mut at, end) = (6, 6 + (to - from) as u32);
        for _ in from..to {
            let (before, answer) = (at, payload.step(&packet[..], &mut at, end));
            assert!(at <= end, "read {at} of {end}");
            match answer {
                answer::MORE => assert!(at > before, "no byte was read"),
                answer::NAME => {
                    let text = String::from_utf8(payload.name.as_bytes().to_vec()).unwrap();
                    all.push(Read::Name(text));
                }
                answer::NO_NAME => all.push(Read::NoName(payload.flags & !flags::ECH)),
                other => panic!("answer {other}"),
            }
            if payload.is_done() {
                all.dedup();
                return (all, payload.flags);
            }
            assert!(answer == answer::MORE || at == end, "an answer inside a packet");
            if at == end {
                break;
            }
        }
        assert_eq!(at, end, "more steps than bytes");
        from = to;
    }
    all.dedup();
    (all, payload.flags)
}

/// The stream in one piece.
pub fn whole(bytes: &[u8]) -> Read {
    read(bytes, &[]).0
}

/// The stream in one piece, after making sure that no other pieces make another answer of it.
pub fn any_pieces(bytes: &[u8]) -> Read {
    let want = whole(bytes);
    for cut in 0..=bytes.len() {
        assert_eq!(read(bytes, &[cut]).0, want, "cut at {cut}");
    }
    let single: Vec<usize> = (1..bytes.len()).collect();
    assert_eq!(read(bytes, &single).0, want, "single bytes");
    want
}

/// Whether a name is one so far, or is one if it is `complete`, told by its labels.
pub fn is_name(name: &[u8], complete: bool) -> bool {
    let stripped = name.strip_suffix(b".").unwrap_or(name);
    let labels: Vec<&[u8]> = stripped.split(|byte| *byte == b'.').collect();
    let is_label = |label: &&[u8]| {
        let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_".contains(byte);
        (1..=63).contains(&label.len()) && label.iter().all(allowed)
    };
    match labels.split_last() {
        Some((last, [])) if last.is_empty() && name.is_empty() => !complete,
        _ => stripped.len() <= if complete { 253 } else { 254 } && labels.iter().all(is_label),
    }
}

/// The slow parsers' answers.
pub fn slow(bytes: &[u8], cuts: &[usize]) -> Vec<Read> {
    match bytes.first() {
        None => Vec::new(),
        Some(22) => tls::reads(bytes, cuts),
        Some(_) => match http::read(bytes) {
            Read::More => Vec::new(),
            answer => vec![answer],
        },
    }
}

/// Whether all parsers agree on the stream in these pieces.
pub fn agree(bytes: &[u8], cuts: &[usize]) {
    assert_eq!(reads(bytes, cuts).0, slow(bytes, cuts), "{cuts:?} in {}", bytes.escape_ascii());
}

/// Whether they agree, however the stream is cut: for fuzzing.
pub fn check(bytes: &[u8]) {
    agree(bytes, &[]);
    let single: Vec<usize> = (1..bytes.len()).collect();
    agree(bytes, &single);
    let half = bytes.iter().fold(bytes.len(), |sum, byte| sum + usize::from(*byte));
    agree(bytes, &[half % (bytes.len() + 1)]);
}
