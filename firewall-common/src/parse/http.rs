//! The host of an HTTP/1 request (RFC 9112 sections 3.2 and 5).
//!
//! A target with a host in it, absolute or of `CONNECT`, goes before the header `Host`. With that
//! the answer waits for the end of the headers, as the server does: there may be a second one, which
//! makes the request a malformed one. So do line folding, white space before the colon and a CR
//! that no LF follows, all of which some servers read in one way and some in another.
//!
//! A line that does not end in `HTTP/1.x` is something else, not a malformed request.

use super::{
    Bytes,
    payload::{HTTP_STATES, Payload, Set, answer, flags},
};

/// Bits of `Payload::marks`.
mod marks {
    /// The method is `CONNECT`.
    pub const CONNECT: u32 = 1;
    /// The target has a host.
    pub const TARGET_HOST: u32 = 1 << 1;
    /// The target is none, if this is HTTP at all.
    pub const BAD_TARGET: u32 = 1 << 2;
    /// A header `Host` has come.
    pub const HOST: u32 = 1 << 3;
}

/// Bytes of empty lines before the request that are put up with (RFC 9112 section 2.2).
const MAX_LEADING: u32 = 8;
/// Bytes of a method; the longest registered one has 17.
const MAX_METHOD: u32 = 32;
/// What methods and the names of headers are made of (RFC 9110 section 5.6.2).
const TOKEN: Set = Set::alphanumeric_and(b"!#$%&'*+-.^_`|~");
/// What schemes and hosts are made of.
const SCHEME_OR_HOST: Set = Set::alphanumeric_and(b"+-._");
/// Between the brackets of an IPv6 address or what may take its place (RFC 3986 section 3.2.2).
const IN_BRACKETS: Set = Set::alphanumeric_and(b":.%-_~");

/// The first state: empty lines.
pub(super) const START: u32 = HTTP_STATES;
const METHOD: u32 = HTTP_STATES + 1;
/// The start of the target, or a space before.
const TARGET: u32 = HTTP_STATES + 2;
/// A scheme or a host.
const SCHEME: u32 = HTTP_STATES + 3;
/// After `scheme:` or `host:`.
const COLON: u32 = HTTP_STATES + 4;
/// After `scheme:/`.
const SLASH: u32 = HTTP_STATES + 5;
/// The rest of the target.
const REST: u32 = HTTP_STATES + 6;
/// After a space behind the target.
const GAP: u32 = HTTP_STATES + 7;
/// A word behind the target, the last of which is the version.
const VERSION: u32 = HTTP_STATES + 8;
/// A host, in the target or the header.
const HOST: u32 = HTTP_STATES + 9;
/// The host's port.
const PORT: u32 = HTTP_STATES + 10;
/// A host in brackets.
const BRACKETS: u32 = HTTP_STATES + 11;
/// Behind them.
const BRACKETED: u32 = HTTP_STATES + 12;
/// The start of a line.
const LINE: u32 = HTTP_STATES + 13;
/// The name of a header.
const HEADER: u32 = HTTP_STATES + 14;
/// Its value.
const VALUE: u32 = HTTP_STATES + 15;
/// After a CR that ends a line.
const CR: u32 = HTTP_STATES + 16;
/// After a CR that ends the headers.
const LAST_CR: u32 = HTTP_STATES + 17;
/// White space before the host.
const BEFORE_HOST: u32 = HTTP_STATES + 18;
/// White space after the host.
const AFTER_HOST: u32 = HTTP_STATES + 19;

/// HTTP/2 starts with a request that is none (RFC 9113 section 3.4).
const PRI: u64 = word(b"PRI");
const CONNECT: u64 = word(b"CONNECT");

/// The word that `Payload::word` is after these bytes, which are at most eight. No zero byte gets
/// into it, so no other bytes make the same.
const fn word(text: &[u8]) -> u64 {
    let mut word = 0;
    let mut i = 0;
    while i < text.len() {
        word = word << 8 | text[i] as u64;
        i += 1;
    }
    word
}

/// Reads on in a packet that has `left` bytes.
#[inline(always)]
pub(super) fn step(
    this: &mut Payload,
    bytes: &(impl Bytes + ?Sized),
    at: &mut u32,
    left: u32,
) -> u32 {
    let mut first = None;
    if left >= 8
        && (this.state == REST || this.state == VALUE)
        && let Some(eight) = bytes.read(*at)
    {
        // Nothing in here ends what is gone past: a space or a control character.
        let eight = u64::from_le_bytes(eight);
        let limit = if this.state == REST { b' ' + 1 } else { b' ' };
        if !has_below(eight, limit) {
            this.take(at, 8);
            return answer::MORE;
        }
        first = Some(eight as u8);
    }
    let byte = match first {
        Some(byte) => byte,
        None => {
            let Some([byte]) = bytes.read(*at) else { return this.finish(flags::MALFORMED) };
            byte
        }
    };
    this.take(at, 1);
    let is = Kind { blank: byte == b' ' || byte == b'\t', end: byte == b'\r' || byte == b'\n' };
    if this.state == BEFORE_HOST && !is.blank && !is.end {
        this.state = HOST;
    }
    let is_http = this.flags & flags::HTTP != 0;
    let text = byte >= b' ' || is.blank || (is.end && may_end(this.state));
    if !is_http && !text {
        return this.finish(0);
    }
    if this.state >= HOST && this.state <= BRACKETED {
        host(this, byte, is)
    } else if is_http {
        headers(this, byte, is)
    } else {
        request_line(this, byte, is)
    }
}

/// What a byte can be to any state.
#[derive(Clone, Copy)]
struct Kind {
    blank: bool,
    end: bool,
}

/// Whether there can be a line's end in the first lines.
#[inline(always)]
const fn may_end(state: u32) -> bool {
    state == START || state == VERSION || state == GAP
}

/// Whether a byte of `eight` is below `limit`, which is at most 128. What is borrowed from the byte
/// above only adds to a byte that is.
#[inline(always)]
const fn has_below(eight: u64, limit: u8) -> bool {
    const EACH: u64 = 0x0101_0101_0101_0101;
    eight.wrapping_sub(EACH * limit as u64) & !eight & EACH << 7 != 0
}

/// Puts a byte behind the word, the first one of it if there is none.
#[inline(always)]
fn spell(this: &mut Payload, byte: u8) {
    this.word = this.word << 8 | u64::from(byte);
    this.have += 1;
}

/// Starts a word.
#[inline(always)]
fn new_word(this: &mut Payload, state: u32) -> u32 {
    this.word = 0;
    this.have = 0;
    go(this, state)
}

#[inline(always)]
fn go(this: &mut Payload, state: u32) -> u32 {
    this.state = state;
    answer::MORE
}

/// A request that servers refuse or understand in different ways: it has no name.
#[inline(always)]
fn malformed(this: &mut Payload) -> u32 {
    this.flags &= !flags::FOUND;
    this.finish(flags::MALFORMED)
}

#[inline(always)]
fn request_line(this: &mut Payload, byte: u8, is: Kind) -> u32 {
    if this.state == START {
        this.have += 1;
        if is.end && this.have <= MAX_LEADING {
            return answer::MORE;
        }
        if !byte.is_ascii_alphabetic() {
            return this.finish(0);
        }
        new_word(this, METHOD);
    }
    match this.state {
        METHOD if is.blank => {
            match this.word {
                PRI => return this.finish(0),
                CONNECT => this.marks |= marks::CONNECT,
                _ => {}
            }
            go(this, TARGET)
        }
        METHOD => {
            spell(this, byte);
            let fits = TOKEN.has(byte) && this.have <= MAX_METHOD;
            if fits { answer::MORE } else { this.finish(0) }
        }
        VERSION | GAP => {
            if is.end {
                return version(this, byte);
            }
            if is.blank {
                return go(this, GAP);
            }
            if this.state == GAP {
                new_word(this, VERSION);
            }
            spell(this, byte.to_ascii_lowercase());
            answer::MORE
        }
        REST if is.blank => new_word(this, GAP),
        REST => answer::MORE,
        TARGET if is.blank => answer::MORE,
        _ => target(this, byte, is),
    }
}

/// The target up to its host. One that is none is gone past: there may be no HTTP around it.
#[inline(always)]
fn target(this: &mut Payload, byte: u8, is: Kind) -> u32 {
    let connect = this.marks & marks::CONNECT != 0;
    match this.state {
        TARGET if !connect && (byte == b'/' || byte == b'*') => go(this, REST),
        TARGET if connect && byte == b'[' => {
            this.marks |= marks::TARGET_HOST;
            go(this, BRACKETS)
        }
        TARGET | SCHEME if SCHEME_OR_HOST.has(byte) => {
            if !this.push(byte) {
                this.marks |= marks::BAD_TARGET;
            }
            go(this, SCHEME)
        }
        SCHEME if byte == b':' => go(this, COLON),
        COLON if connect && byte.is_ascii_digit() => {
            if !this.end_name() {
                this.marks |= marks::BAD_TARGET;
            }
            this.marks |= marks::TARGET_HOST;
            go(this, PORT)
        }
        COLON if !connect && byte == b'/' => go(this, SLASH),
        SLASH if byte == b'/' => {
            // What was taken for a name is the scheme.
            this.name.len = 0;
            this.label = 0;
            this.marks &= !marks::BAD_TARGET;
            this.marks |= marks::TARGET_HOST;
            go(this, HOST)
        }
        _ => bad_host(this, is),
    }
}

/// The line has ended: is it one of HTTP/1?
#[inline(always)]
fn version(this: &mut Payload, byte: u8) -> u32 {
    let digit = (this.word as u8).is_ascii_digit();
    if this.have != 8 || this.word >> 8 != word(b"http/1.") || !digit {
        return this.finish(0);
    }
    this.flags |= flags::HTTP;
    if this.marks & marks::BAD_TARGET != 0 {
        return malformed(this);
    }
    if this.marks & marks::TARGET_HOST != 0 {
        return this.finish(if this.name.len > 0 { flags::FOUND } else { 0 });
    }
    end_line(this, byte)
}

/// A host, perhaps with a port.
#[inline(always)]
fn host(this: &mut Payload, byte: u8, is: Kind) -> u32 {
    let in_target = this.flags & flags::HTTP == 0;
    let ends = is.blank || if in_target { matches!(byte, b'/' | b'?' | b'#') } else { is.end };
    let fits = match this.state {
        HOST if ends || byte == b':' => this.end_name(),
        HOST if byte == b'[' && this.name.len == 0 => return go(this, BRACKETS),
        HOST => this.push(byte),
        PORT => ends || byte.is_ascii_digit(),
        BRACKETS if byte == b']' => return go(this, BRACKETED),
        BRACKETS => IN_BRACKETS.has(byte),
        _ => ends || byte == b':',
    };
    if !fits {
        return bad_host(this, is);
    }
    if byte == b':' && this.state != BRACKETS {
        return go(this, PORT);
    }
    if !ends {
        return answer::MORE;
    }
    if in_target {
        return if is.blank { new_word(this, GAP) } else { go(this, REST) };
    }
    if this.name.len > 0 {
        this.flags |= flags::FOUND;
    }
    if is.blank { go(this, AFTER_HOST) } else { end_line(this, byte) }
}

/// There is something where a host should be.
#[inline(always)]
fn bad_host(this: &mut Payload, is: Kind) -> u32 {
    if this.flags & flags::HTTP != 0 {
        return malformed(this);
    }
    this.marks |= marks::BAD_TARGET;
    if is.blank { new_word(this, GAP) } else { go(this, REST) }
}

#[inline(always)]
fn headers(this: &mut Payload, byte: u8, is: Kind) -> u32 {
    match this.state {
        CR if byte == b'\n' => go(this, LINE),
        LAST_CR if byte == b'\n' => this.finish(0),
        LINE if byte == b'\n' => this.finish(0),
        LINE if byte == b'\r' => go(this, LAST_CR),
        LINE | HEADER if TOKEN.has(byte) => {
            if this.state == LINE {
                new_word(this, HEADER);
            }
            spell(this, byte.to_ascii_lowercase());
            answer::MORE
        }
        HEADER if byte == b':' => {
            if this.word != word(b"host") {
                return go(this, VALUE);
            }
            if this.marks & marks::HOST != 0 {
                return malformed(this);
            }
            this.marks |= marks::HOST;
            go(this, BEFORE_HOST)
        }
        VALUE | BEFORE_HOST | AFTER_HOST if is.end => end_line(this, byte),
        VALUE => answer::MORE,
        BEFORE_HOST | AFTER_HOST if is.blank => answer::MORE,
        _ => malformed(this),
    }
}

/// A CR or LF at the end of a line.
#[inline(always)]
fn end_line(this: &mut Payload, byte: u8) -> u32 {
    go(this, if byte == b'\r' { CR } else { LINE })
}
