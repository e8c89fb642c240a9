//! A ClientHello, read by a parser that has all of it and is in no hurry.

use firewall_common::parse::payload::{MAX_PAYLOAD, flags};

use super::{Read, is_name};

/// Why a reading ended without the hello's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    More,
    NotTls,
    Malformed,
    TooLong,
    /// All was read.
    End,
}

/// The message in the records of a stream, and what comes behind.
fn unframe(stream: &[u8]) -> (Vec<u8>, Stop) {
    let limit = stream.len().min(MAX_PAYLOAD as usize);
    let mut rest = &stream[..limit];
    let short = if limit < stream.len() { Stop::TooLong } else { Stop::More };
    let mut message = Vec::new();
    let mut first = true;
    loop {
        match rest {
            [kind, ..] if *kind != 22 => {
                return (message, if first { Stop::NotTls } else { Stop::Malformed });
            }
            [_, major, ..] if *major != 3 => {
                return (message, if first { Stop::NotTls } else { Stop::Malformed });
            }
            [_, _, _, high, low, body @ ..] => {
                let len = usize::from(u16::from_be_bytes([*high, *low]));
                if len == 0 || len > 16384 + 256 {
                    return (message, Stop::Malformed);
                }
                let Some((body, behind)) = body.split_at_checked(len) else {
                    message.extend(body);
                    return (message, short);
                };
                message.extend(body);
                rest = behind;
            }
            _ => return (message, short),
        }
        first = false;
    }
}

/// A message, read front to back.
struct Slow<'a> {
    message: &'a [u8],
    at: usize,
    behind: Stop,
    name: Option<String>,
}

impl Slow<'_> {
    fn bytes(&mut self, len: usize, end: usize) -> Result<&[u8], Stop> {
        if self.at + len > end {
            return Err(Stop::Malformed);
        }
        let bytes = self.message.get(self.at..self.at + len).ok_or(self.behind)?;
        self.at += len;
        Ok(bytes)
    }

    fn number(&mut self, len: usize, end: usize) -> Result<usize, Stop> {
        Ok(self.bytes(len, end)?.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }

    /// Goes past bytes that at least `then` others must follow.
    fn skip(&mut self, len: usize, then: usize, end: usize) -> Result<(), Stop> {
        if self.at + len + then > end {
            return Err(Stop::Malformed);
        }
        self.bytes(len, end).map(|_| ())
    }

    fn hello(&mut self) -> Result<(), Stop> {
        let head = self.number(4, usize::MAX / 2)?;
        if head >> 24 != 1 {
            return Err(Stop::Malformed);
        }
        let end = self.at + (head & 0xff_ffff);
        self.skip(34, 1, end)?;
        let session = self.number(1, end)?;
        self.skip(session, 2, end)?;
        let ciphers = self.number(2, end)?;
        self.skip(ciphers, 1, end)?;
        let compression = self.number(1, end)?;
        if self.at + compression == end {
            return Err(Stop::End);
        }
        self.skip(compression, 2, end)?;
        let extensions = self.number(2, end)?;
        if self.at + extensions != end {
            return Err(Stop::Malformed);
        }
        let mut seen = false;
        while self.at < end {
            let head = self.number(4, end)?;
            let len = head & 0xffff;
            if head >> 16 != 0 {
                self.skip_in_hello(len, end)?;
                continue;
            }
            if seen || self.at + len > end {
                return Err(Stop::Malformed);
            }
            seen = true;
            self.server_name(self.at + len, end)?;
        }
        Err(Stop::End)
    }

    /// Goes past bytes that an extension must follow, or nothing.
    fn skip_in_hello(&mut self, len: usize, end: usize) -> Result<(), Stop> {
        if self.at + len == end { Err(Stop::End) } else { self.skip(len, 4, end) }
    }

    fn server_name(&mut self, end: usize, hello_end: usize) -> Result<(), Stop> {
        let len = self.number(2, end)?;
        if self.at + len != end || len == 0 {
            return Err(Stop::Malformed);
        }
        while self.at < end {
            let head = self.number(3, end)?;
            let (kind, len) = (head >> 16, head & 0xffff);
            if self.at + len > end {
                return Err(Stop::Malformed);
            }
            if kind != 0 || self.name.is_some() {
                if self.at + len == end {
                    self.skip_in_hello(len, hello_end)?;
                } else {
                    self.skip(len, 3, end)?;
                }
                continue;
            }
            if len == 0 || len > 255 {
                return Err(Stop::Malformed);
            }
            let there = &self.message[self.at..self.message.len().min(self.at + len)];
            if !is_name(there, there.len() == len) {
                return Err(Stop::Malformed);
            }
            let text = String::from_utf8(self.bytes(len, end)?.to_ascii_lowercase()).unwrap();
            self.name = Some(text.strip_suffix('.').unwrap_or(&text).to_owned());
        }
        Ok(())
    }
}

/// What the parser must answer.
pub fn read(stream: &[u8]) -> Read {
    let (message, behind) = unframe(stream);
    let mut slow = Slow { message: &message, at: 0, behind, name: None };
    let stop = slow.hello().unwrap_err();
    if let Some(name) = slow.name {
        return Read::Name(name);
    }
    match stop {
        Stop::More => Read::More,
        Stop::NotTls => Read::NoName(0),
        Stop::Malformed => Read::NoName(flags::TLS | flags::MALFORMED),
        Stop::TooLong => Read::NoName(flags::TLS | flags::TOO_LONG),
        Stop::End => Read::NoName(flags::TLS),
    }
}
