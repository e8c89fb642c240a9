//! The host of an HTTP/1 request (RFC 9112 sections 3.2 and 5).
//!
//! A target with a host in it, absolute or of `CONNECT`, goes before the header `Host`, but not for
//! every server: they have to be the same. The answer waits for the end of the headers, as the
//! server does: there may be a second `Host`, which makes the request a malformed one. So do line
//! folding, white space before the colon and a CR that no LF follows, all of which some servers read
//! in one way and some in another.
//!
//! What makes the first line one of HTTP is a word that starts with `HTTP/`, behind a method. With
//! that it is malformed unless all of it is right. Without, it is something else; but a method and a
//! path or URL alone are a request of HTTP/0.9, which has no headers, and servers that look for
//! `Host` behind it all the same.

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
    /// The first line is none, if this is HTTP at all.
    pub const BAD_LINE: u32 = 1 << 2;
    /// A header `Host` has come.
    pub const HOST: u32 = 1 << 3;
    /// The target is a path.
    pub const PATH: u32 = 1 << 4;
    /// A word behind the target starts as the version does.
    pub const HTTP: u32 = 1 << 5;
    /// The method is `PRI`.
    pub const PRI: u32 = 1 << 6;
    /// What is a host or a scheme is no host.
    pub const BAD_SCHEME: u32 = 1 << 7;
}

/// Bytes of empty lines before the request that are put up with (RFC 9112 section 2.2).
const MAX_LEADING: u32 = 8;
/// Bytes of a method that has other white space than a space behind it, or this is something binary.
const MIN_ODD_METHOD: u32 = 3;
/// What methods and the names of headers are made of (RFC 9110 section 5.6.2).
const TOKEN: Set = Set::alphanumeric_and(b"!#$%&'*+-.^_`|~");
/// What schemes and hosts are made of.
const SCHEME_OR_HOST: Set = Set::alphanumeric_and(b"+-._");
/// Between the brackets of an IPv6 address or what may take its place (RFC 3986 section 3.2.2).
const IN_BRACKETS: Set = Set::alphanumeric_and(b":.%-_~");

/// The first state: empty lines.
pub(super) const START: u32 = HTTP_STATES;
pub(super) const METHOD: u32 = HTTP_STATES + 1;
/// The start of the target, or white space before.
const TARGET: u32 = HTTP_STATES + 2;
/// A scheme or a host.
const SCHEME: u32 = HTTP_STATES + 3;
/// After `scheme:` or `host:`.
const COLON: u32 = HTTP_STATES + 4;
/// After `scheme:/`.
const SLASH: u32 = HTTP_STATES + 5;
/// The rest of the target.
const REST: u32 = HTTP_STATES + 6;
/// After white space behind the target.
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
/// After a CR behind the target.
const LINE_CR: u32 = HTTP_STATES + 20;

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
    if !is_http && byte == b'\n' && this.state > METHOD {
        return version(this);
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

/// What some servers take for white space: that of Unicode's Latin-1.
#[inline(always)]
const fn is_space(byte: u8) -> bool {
    matches!(byte, 9..=13 | 28..=32 | 0x85 | 0xa0)
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
    this.finish(flags::MALFORMED)
}

#[inline(always)]
fn request_line(this: &mut Payload, byte: u8, is: Kind) -> u32 {
    if this.state == START {
        this.have += 1;
        if is_space(byte) {
            if !is.end || this.have > MAX_LEADING {
                this.marks |= marks::BAD_LINE;
            }
            return answer::MORE;
        }
        new_word(this, METHOD);
    }
    match this.state {
        METHOD if TOKEN.has(byte) => {
            spell(this, byte);
            answer::MORE
        }
        METHOD => {
            if byte != b' ' {
                if byte == b'\n' || !is_space(byte) || this.have < MIN_ODD_METHOD {
                    return this.finish(0);
                }
                this.marks |= marks::BAD_LINE;
            }
            match this.word {
                PRI => this.marks |= marks::PRI,
                CONNECT => this.marks |= marks::CONNECT,
                _ => {}
            }
            new_word(this, TARGET)
        }
        TARGET if byte <= b' ' => {
            if byte != b' ' {
                this.marks |= marks::BAD_LINE;
            }
            answer::MORE
        }
        REST if byte > b' ' => answer::MORE,
        REST => gap(this, byte),
        VERSION | GAP | LINE_CR => {
            if this.state == LINE_CR {
                this.marks |= marks::BAD_LINE;
            }
            if byte <= b' ' {
                return gap(this, byte);
            }
            if this.state != VERSION {
                new_word(this, VERSION);
            }
            spell(this, byte.to_ascii_lowercase());
            if this.have == 5 && this.word == word(b"http/") {
                this.marks |= marks::HTTP;
            }
            answer::MORE
        }
        _ => target(this, byte),
    }
}

/// A word of the first line, the target or one behind it, has ended.
#[inline(always)]
fn gap(this: &mut Payload, byte: u8) -> u32 {
    if byte != b' ' && byte != b'\r' {
        this.marks |= marks::BAD_LINE;
    }
    go(this, if byte == b'\r' { LINE_CR } else { GAP })
}

/// The target up to its host. One that is none is gone past: there may be no HTTP around it.
#[inline(always)]
fn target(this: &mut Payload, byte: u8) -> u32 {
    let connect = this.marks & marks::CONNECT != 0;
    match this.state {
        TARGET if !connect && (byte == b'/' || byte == b'*') => {
            if byte == b'/' {
                this.marks |= marks::PATH;
            }
            go(this, REST)
        }
        TARGET if connect && byte == b'[' => {
            this.marks |= marks::TARGET_HOST;
            go(this, BRACKETS)
        }
        TARGET | SCHEME if SCHEME_OR_HOST.has(byte) => {
            if !this.push(byte) {
                this.marks |= marks::BAD_SCHEME;
            }
            go(this, SCHEME)
        }
        SCHEME if byte == b':' => go(this, COLON),
        COLON if connect && byte.is_ascii_digit() => {
            if !this.end_name() || this.marks & marks::BAD_SCHEME != 0 {
                this.marks |= marks::BAD_LINE;
            }
            this.marks |= marks::TARGET_HOST;
            go(this, PORT)
        }
        COLON if !connect && byte == b'/' => go(this, SLASH),
        SLASH if byte == b'/' => {
            // What was taken for a name is the scheme.
            this.name.len = 0;
            this.label = 0;
            this.marks &= !marks::BAD_SCHEME;
            this.marks |= marks::TARGET_HOST;
            go(this, HOST)
        }
        _ => bad_host(this, byte),
    }
}

/// The line has ended: is it one of HTTP/1?
#[inline(always)]
fn version(this: &mut Payload) -> u32 {
    let digit = (this.word as u8).is_ascii_digit();
    let right = this.have == 8 && this.word >> 8 == word(b"http/1.") && digit;
    let has_target = this.marks & (marks::PATH | marks::TARGET_HOST) != 0;
    let without = this.have == 0 && has_target;
    let next = this.marks & marks::PRI != 0 && this.have == 8 && this.word == word(b"http/2.0");
    if this.marks & marks::HTTP == 0 && !without || next {
        return this.finish(0);
    }
    this.flags |= flags::HTTP;
    if !right || this.marks & marks::BAD_LINE != 0 {
        return malformed(this);
    }
    if this.name.len > 0 {
        this.flags |= flags::FOUND;
    }
    this.want = 0;
    go(this, LINE)
}

/// A host, perhaps with a port.
#[inline(always)]
fn host(this: &mut Payload, byte: u8, is: Kind) -> u32 {
    let in_target = this.flags & flags::HTTP == 0;
    let ends = if in_target {
        byte <= b' ' || matches!(byte, b'/' | b'?' | b'#')
    } else {
        is.blank || is.end
    };
    let known = !in_target && this.marks & marks::TARGET_HOST != 0;
    let fits = match this.state {
        HOST if ends || byte == b':' => {
            if known {
                this.want >= this.name.len && this.want > 0
            } else {
                this.end_name()
            }
        }
        HOST if byte == b'[' && this.name.len == 0 => return go(this, BRACKETS),
        HOST if known => compare(this, byte),
        HOST => this.push(byte),
        PORT => ends || byte.is_ascii_digit(),
        BRACKETS if byte == b']' => return go(this, BRACKETED),
        BRACKETS => IN_BRACKETS.has(byte),
        _ => ends || byte == b':',
    };
    if !fits {
        return bad_host(this, byte);
    }
    if byte == b':' && this.state != BRACKETS {
        return go(this, PORT);
    }
    if !ends {
        return answer::MORE;
    }
    if in_target {
        return if byte <= b' ' { gap(this, byte) } else { go(this, REST) };
    }
    if this.name.len > 0 {
        this.flags |= flags::FOUND;
    }
    if is.blank { go(this, AFTER_HOST) } else { end_line(this, byte) }
}

/// Whether a byte of `Host` is that of the target's host, or a final dot behind it.
#[inline(always)]
fn compare(this: &mut Payload, byte: u8) -> bool {
    let at = this.want;
    this.want += 1;
    if at >= this.name.len {
        return byte == b'.' && at == this.name.len && at > 0;
    }
    this.name.bytes[(at & 255) as usize] == byte.to_ascii_lowercase()
}

/// There is something where a host should be.
#[inline(always)]
fn bad_host(this: &mut Payload, byte: u8) -> u32 {
    if this.flags & flags::HTTP != 0 {
        return malformed(this);
    }
    this.marks |= marks::BAD_LINE;
    if byte <= b' ' { gap(this, byte) } else { go(this, REST) }
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
