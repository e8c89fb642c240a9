//! The hellos of a stream, read by a parser that has all of it and is in no hurry.

use firewall_common::parse::payload::{MAX_PAYLOAD, flags};

use super::{Read, is_name};

/// Why a reading ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    More,
    NotTls,
    Malformed,
    TooLong,
    /// There will be no further hello.
    End,
}

/// A stream, read front to back.
struct Slow<'a> {
    stream: &'a [u8],
    cuts: &'a [usize],
    at: usize,
    /// Bytes left in the record.
    record: usize,
    is_tls: bool,
    /// Where the hello being read has its first byte, if one is.
    hello: Option<usize>,
    /// Whether a hello has been read.
    again: bool,
    early: bool,
    /// Bytes gone past since the last one.
    passed: usize,
    name: Option<String>,
    /// Where an answer came about that no packet has ended behind.
    due: Option<usize>,
    answers: Vec<Read>,
}

impl Slow<'_> {
    fn raw(&mut self) -> Result<u8, Stop> {
        let byte = *self.stream.get(self.at).ok_or(Stop::More)?;
        if self.hello.is_some_and(|from| self.at >= from + MAX_PAYLOAD as usize) {
            return Err(Stop::TooLong);
        }
        self.at += 1;
        // The packet with the byte before ended there, if there was one.
        if self.cuts.contains(&(self.at - 1)) {
            self.tell(self.at - 1);
        }
        Ok(byte)
    }

    /// The packet ends behind the byte before `at`.
    fn tell(&mut self, at: usize) {
        if self.due.is_some_and(|due| due <= at) {
            self.answers.push(self.answer());
            self.due = None;
        }
    }

    fn answer(&self) -> Read {
        self.name.clone().map_or(Read::NoName(flags::TLS), Read::Name)
    }

    /// The next byte of the messages; `between` if none of this message has been read.
    fn byte(&mut self, between: bool) -> Result<u8, Stop> {
        while self.record == 0 {
            let kind = self.raw()?;
            if kind == 23 && self.again && (!self.early || between && self.passed >= 1 << 15) {
                return Err(Stop::End);
            }
            let past = between && matches!(kind, 20 | 21 | 23);
            if kind != 22 && !past {
                return Err(Stop::Malformed);
            }
            if self.raw()? != 3 {
                return Err(if self.is_tls { Stop::Malformed } else { Stop::NotTls });
            }
            self.is_tls = true;
            self.raw()?;
            let len = usize::from(self.raw()?) << 8 | usize::from(self.raw()?);
            if len == 0 || len > 16384 + 256 {
                return Err(Stop::Malformed);
            }
            if past {
                for _ in 0..len {
                    self.raw()?;
                    self.passed += 1;
                }
            } else {
                self.record = len;
            }
        }
        self.record -= 1;
        self.raw()
    }

    fn messages(&mut self) -> Result<(), Stop> {
        loop {
            let kind = self.byte(self.again)?;
            let mut len = 0;
            for _ in 0..3 {
                len = len << 8 | usize::from(self.byte(false)?);
            }
            match (kind, self.again) {
                (1, false) => {}
                (1, true) if len < 1 << 18 => {
                    if self.due.is_some() {
                        return Err(Stop::Malformed);
                    }
                }
                (_, false) => return Err(Stop::Malformed),
                (_, true) => return Err(Stop::End),
            }
            self.hello = Some(self.at - 4);
            let mut hello = Hello { slow: self, left: len, named: false };
            let rest = hello.read()?;
            let named = hello.named;
            self.hello = None;
            self.again = true;
            if !named {
                self.name = None;
                self.due = Some(self.at);
            }
            for _ in 0..rest {
                self.byte(false)?;
            }
            self.passed = 0;
        }
    }
}

struct Hello<'a, 'b> {
    slow: &'a mut Slow<'b>,
    /// Bytes left of it.
    left: usize,
    named: bool,
}

impl Hello<'_, '_> {
    /// A number in something that has `left` bytes.
    fn number(&mut self, len: usize) -> Result<usize, Stop> {
        if len > self.left {
            return Err(Stop::Malformed);
        }
        let mut number = 0;
        for _ in 0..len {
            number = number << 8 | usize::from(self.slow.byte(false)?);
        }
        self.left -= len;
        Ok(number)
    }

    /// Goes past bytes that at least `then` others must follow.
    fn skip(&mut self, len: usize, then: usize) -> Result<(), Stop> {
        if len + then > self.left {
            return Err(Stop::Malformed);
        }
        for _ in 0..len {
            self.number(1)?;
        }
        Ok(())
    }

    /// How many bytes of it are left that say nothing.
    fn read(&mut self) -> Result<usize, Stop> {
        self.skip(34, 1)?;
        let session = self.number(1)?;
        self.skip(session, 2)?;
        let ciphers = self.number(2)?;
        self.skip(ciphers, 1)?;
        let compression = self.number(1)?;
        if compression == self.left {
            return Ok(self.left);
        }
        self.skip(compression, 2)?;
        if self.number(2)? != self.left {
            return Err(Stop::Malformed);
        }
        let mut seen = false;
        while self.left > 0 {
            if self.left < 4 {
                return Err(Stop::Malformed);
            }
            let (kind, mut len) = (self.number(2)?, self.number(2)?);
            self.slow.early |= kind == 42;
            if kind == 0 {
                if seen || len > self.left {
                    return Err(Stop::Malformed);
                }
                seen = true;
                len = self.server_name(len)?;
            }
            if len == self.left {
                return Ok(len);
            }
            self.skip(len, 4)?;
        }
        Ok(0)
    }

    /// How many bytes of the last name are left.
    fn server_name(&mut self, extension: usize) -> Result<usize, Stop> {
        // What is behind the extension is no part of what is read here.
        let behind = self.left - extension;
        self.left = extension;
        if self.number(2)? != self.left || self.left < 3 {
            return Err(Stop::Malformed);
        }
        while self.left > 0 {
            let (kind, len) = (self.number(1)?, self.number(2)?);
            if len > self.left {
                return Err(Stop::Malformed);
            }
            if kind == 0 && !self.named {
                self.name(len)?;
            } else if len == self.left {
                self.left += behind;
                return Ok(len);
            } else {
                self.skip(len, 3)?;
                continue;
            }
            if self.left > 0 && self.left < 3 {
                return Err(Stop::Malformed);
            }
        }
        self.left = behind;
        Ok(0)
    }

    fn name(&mut self, len: usize) -> Result<(), Stop> {
        if len == 0 || len > 255 {
            return Err(Stop::Malformed);
        }
        self.slow.name = None;
        let mut text = Vec::new();
        for _ in 0..len {
            text.push(self.number(1)? as u8);
            if !is_name(&text, text.len() == len) {
                return Err(Stop::Malformed);
            }
        }
        let text = String::from_utf8(text.to_ascii_lowercase()).unwrap();
        self.slow.name = Some(text.strip_suffix('.').unwrap_or(&text).to_owned());
        self.slow.due = Some(self.slow.at);
        self.named = true;
        Ok(())
    }
}

/// What the parser must answer of the stream in the pieces that end at `cuts`.
pub fn reads(stream: &[u8], cuts: &[usize]) -> Vec<Read> {
    let mut slow = Slow {
        stream,
        cuts,
        at: 0,
        record: 0,
        is_tls: false,
        hello: None,
        again: false,
        early: false,
        passed: 0,
        name: None,
        due: None,
        answers: Vec::new(),
    };
    let stop = slow.messages().unwrap_err();
    // An answer of the same packet is the last one's.
    match stop {
        Stop::More => slow.tell(stream.len()),
        Stop::NotTls => slow.answers.push(Read::NoName(0)),
        Stop::Malformed => slow.answers.push(Read::NoName(flags::TLS | flags::MALFORMED)),
        Stop::TooLong => {
            if cuts.contains(&slow.at) {
                slow.tell(slow.at);
            }
            let flags = flags::TLS | flags::MALFORMED | flags::TOO_LONG;
            slow.answers.push(Read::NoName(flags));
        }
        Stop::End => slow.answers.push(slow.answer()),
    }
    slow.answers.dedup();
    slow.answers
}

/// The last answer of the stream in one piece.
pub fn read(stream: &[u8]) -> Read {
    reads(stream, &[]).pop().unwrap_or(Read::More)
}
