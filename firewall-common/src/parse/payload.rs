//! The server name in the first bytes that a TCP client sends: TLS or HTTP/1.
//!
//! Nothing is buffered. A [`Payload`] is what is known so far, and [`Payload::step`] reads on from
//! there: it takes at least a byte and does one bounded thing with it. So it can be the body of a
//! loop that the kernel's verifier looks at once, and a packet can end anywhere.
//!
//! A TLS server can ask for a second hello, and goes by that one (RFC 8446 section 4.1.4). So a
//! stream of TLS has an answer with every hello, and is read on until something else has come.
//!
//! The name is what the client says, and no more: the first packet of a flow that is to be let
//! through can say anything.

use super::{Bytes, http, tls};
use crate::name::{MAX_LABEL, MAX_NAME, Text};

/// Bytes that are read of a request or a hello; a server name is not looked for past them.
pub const MAX_PAYLOAD: u32 = 16 * 1024;

/// Answers of [`Payload::step`].
pub mod answer {
    /// Nothing that was not answered before.
    pub const MORE: u32 = 0;
    /// [`super::Payload::name`] is the server's.
    pub const NAME: u32 = 1;
    /// There is none; [`super::Payload::flags`] say why, if there should be one.
    pub const NO_NAME: u32 = 2;
}

/// Bits of [`Payload::flags`].
pub mod flags {
    /// It is TLS.
    pub const TLS: u32 = 1;
    /// It is HTTP/1.
    pub const HTTP: u32 = 1 << 1;
    /// The hello has an `encrypted_client_hello`: the name is the outer one, which need not be the
    /// one that the client wants. Clients also send it without meaning (GREASE).
    pub const ECH: u32 = 1 << 2;
    /// No server should accept it, or servers read it in different ways: a length that lies, a name
    /// that is none, two hosts.
    pub const MALFORMED: u32 = 1 << 3;
    /// [`super::MAX_PAYLOAD`] bytes did not get to the end. There are servers that read on, so it is
    /// malformed too.
    pub const TOO_LONG: u32 = 1 << 4;
    /// The name is known.
    pub const FOUND: u32 = 1 << 5;
    /// The hello came in QUIC: nothing sets it here.
    pub const QUIC: u32 = 1 << 6;
}

/// What is known of a stream between two packets. All zero is the start.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Payload {
    /// Of [`flags`].
    pub flags: u32,
    /// What comes next: [`START`], [`DONE`], or a state of [`tls`] or [`http`].
    pub(super) state: u32,
    /// The number that is being read, or the last eight bytes of the word.
    pub(super) word: u64,
    /// Bytes that `word` has of it.
    pub(super) have: u32,
    /// Bytes that it needs; of a name in TLS, the bytes that are left; in HTTP, how many bytes of
    /// `Host` were compared.
    pub(super) want: u32,
    /// Bytes read of the request or the hello.
    pub(super) taken: u32,
    /// Length of the last label of the name so far.
    pub(super) label: u32,
    /// Of `http::marks` or `tls::marks`.
    pub(super) marks: u32,
    /// In TLS, bytes left in the record; 0 in its header.
    pub(super) record: u32,
    /// Bytes of the record's header that were read.
    pub(super) header: u32,
    /// Bytes to go past before the next number.
    pub(super) skip: u32,
    /// Bytes of the message that were read, without the headers of records.
    pub(super) position: u32,
    /// Where the message ends, as a position.
    pub(super) message_end: u32,
    /// Where the server name's extension ends, as a position; 0 if there was none.
    pub(super) extension_end: u32,
    _pad: u32,
    /// The name as far as it was read; it counts when the answer is [`answer::NAME`].
    pub name: Text,
}

const _: () = assert!(size_of::<Payload>() == 64 + size_of::<Text>());

/// Nothing was read.
const START: u32 = 0;
/// The last answer was given.
const DONE: u32 = 1;
/// States of TLS start here, those of HTTP after them.
pub(super) const TLS_STATES: u32 = 2;
pub(super) const HTTP_STATES: u32 = 32;

impl Default for Payload {
    fn default() -> Self {
        Self::START
    }
}

impl Payload {
    /// Nothing was read.
    pub const START: Self = Self {
        flags: 0,
        state: START,
        word: 0,
        have: 0,
        want: 0,
        taken: 0,
        label: 0,
        marks: 0,
        record: 0,
        header: 0,
        skip: 0,
        position: 0,
        message_end: 0,
        extension_end: 0,
        _pad: 0,
        name: Text::EMPTY,
    };

    /// Reads on in a packet whose payload has come to `at` and ends before `end`: one of
    /// [`answer`].
    ///
    /// As many steps as the packet has bytes are always enough.
    #[inline(always)]
    pub fn step(&mut self, bytes: &(impl Bytes + ?Sized), at: &mut u32, end: u32) -> u32 {
        if self.state == DONE {
            return self.answer();
        }
        if *at >= end {
            return answer::MORE;
        }
        if self.state == START {
            let Some([first]) = bytes.read(*at) else { return self.finish(flags::MALFORMED) };
            if first == tls::HANDSHAKE {
                (self.state, self.want) = tls::START;
            } else {
                self.state = http::START;
            }
        }
        if tls::is_between(self) {
            self.taken = 0;
        }
        if self.taken >= MAX_PAYLOAD {
            // No server takes a word of that length for a method: it is text of something else.
            return self.finish(match self.state {
                http::METHOD => 0,
                _ => flags::TOO_LONG | flags::MALFORMED,
            });
        }
        let left = (end - *at).min(MAX_PAYLOAD - self.taken);
        if self.state >= HTTP_STATES {
            return http::step(self, bytes, at, left);
        }
        let answer = tls::step(self, bytes, at, left);
        if answer == answer::MORE && *at >= end && tls::is_due(self) {
            return self.answer();
        }
        answer
    }

    /// Reads what a packet has from `at` up to `end`.
    pub fn read(&mut self, bytes: &(impl Bytes + ?Sized), mut at: u32, end: u32) -> u32 {
        let mut answer = answer::MORE;
        while answer == answer::MORE && at < end {
            answer = self.step(bytes, &mut at, end);
        }
        answer
    }

    /// The last answer, with what speaks for or against it.
    #[inline(always)]
    pub(super) fn finish(&mut self, flags: u32) -> u32 {
        self.flags |= flags;
        if flags & flags::MALFORMED != 0 {
            self.flags &= !flags::FOUND;
        }
        self.end();
        self.answer()
    }

    /// Nothing more is read: the answer that was given last holds for all that comes.
    #[inline(always)]
    pub fn end(&mut self) {
        self.state = DONE;
    }

    /// Whether the last answer was given.
    #[inline(always)]
    pub fn is_done(&self) -> bool {
        self.state == DONE
    }

    /// The answer that was given last.
    #[inline(always)]
    pub fn answer(&self) -> u32 {
        if self.flags & flags::FOUND == 0 { answer::NO_NAME } else { answer::NAME }
    }

    /// Goes past `len` bytes.
    #[inline(always)]
    pub(super) fn take(&mut self, at: &mut u32, len: u32) {
        *at += len;
        self.taken += len;
    }

    /// Puts a byte behind the name: whether it still is one.
    #[inline(always)]
    pub(super) fn push(&mut self, byte: u8) -> bool {
        let allowed = if byte == b'.' {
            let empty = self.label == 0;
            self.label = 0;
            !empty
        } else {
            self.label += 1;
            NAME_BYTES.has(byte) && self.label <= MAX_LABEL as u32
        };
        self.name.push(byte);
        // The final dot may be one more.
        allowed && self.name.len <= MAX_NAME as u32 + 1
    }

    /// Takes the final dot off the name: whether it is one.
    #[inline(always)]
    pub(super) fn end_name(&mut self) -> bool {
        if self.label == 0 {
            self.name.len = self.name.len.saturating_sub(1);
        }
        self.name.len > 0 && self.name.len <= MAX_NAME as u32
    }
}

/// A set of ASCII bytes.
pub(super) struct Set {
    low: u64,
    high: u64,
}

impl Set {
    /// Letters, digits and `others`.
    pub(super) const fn alphanumeric_and(others: &[u8]) -> Self {
        let mut set = Self { low: 0x3ff << b'0', high: 0x07ff_fffe_07ff_fffe };
        let mut i = 0;
        while i < others.len() {
            if others[i] < 64 {
                set.low |= 1 << others[i];
            } else {
                set.high |= 1 << (others[i] - 64);
            }
            i += 1;
        }
        set
    }

    #[inline(always)]
    pub(super) const fn has(&self, byte: u8) -> bool {
        let half = if byte < 64 { self.low } else { self.high };
        byte < 128 && half >> (byte & 63) & 1 != 0
    }
}

/// What host names are made of. An underscore is not allowed in them and used all the same.
const NAME_BYTES: Set = Set::alphanumeric_and(b"-_");
