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

/// The stream in the pieces that end at `cuts`, and what the flags are then.
pub fn read(bytes: &[u8], cuts: &[usize]) -> (Read, u32) {
    let mut payload = Payload::default();
    let mut from = 0;
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
                    return (Read::Name(text), payload.flags);
                }
                answer::NO_NAME => {
                    return (Read::NoName(payload.flags & !flags::ECH), payload.flags);
                }
                other => panic!("answer {other}"),
            }
            if at == end {
                break;
            }
        }
        assert_eq!(at, end, "more steps than bytes");
        from = to;
    }
    (Read::More, payload.flags)
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

/// The slow parsers' answer.
pub fn slow(bytes: &[u8]) -> Read {
    match bytes.first() {
        None => Read::More,
        Some(22) => tls::read(bytes),
        Some(b'A'..=b'Z' | b'a'..=b'z' | b'\r' | b'\n') => http::read(bytes),
        Some(_) => Read::NoName(0),
    }
}

/// Whether all parsers agree, however the stream is cut: for fuzzing.
pub fn check(bytes: &[u8]) {
    let want = slow(bytes);
    assert_eq!(whole(bytes), want, "in one piece: {}", bytes.escape_ascii());
    let single: Vec<usize> = (1..bytes.len()).collect();
    assert_eq!(read(bytes, &single).0, want, "single bytes: {}", bytes.escape_ascii());
    let half = bytes.iter().fold(bytes.len(), |sum, byte| sum + usize::from(*byte));
    let cut = half % (bytes.len() + 1);
    assert_eq!(read(bytes, &[cut]).0, want, "cut at {cut}: {}", bytes.escape_ascii());
}
