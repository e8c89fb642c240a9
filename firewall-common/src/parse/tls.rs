//! The server name of a TLS ClientHello (RFC 8446 section 4.1.2, RFC 6066 section 3).
//!
//! Every length must fit the one around it, and lists fill what they are in, as servers demand. The
//! first name of the type `host_name` counts. It is the answer as soon as the packet that it ends
//! in was read to its end: what is left of the packet is looked through for an
//! `encrypted_client_hello`, but no packet is waited for.
//!
//! Behind a hello comes another, if the server has asked for one with a HelloRetryRequest. What
//! servers go past before it is gone past here: the ChangeCipherSpec of RFC 8446 appendix D.4,
//! warnings, and early data (section 4.2.10). Anything else says that there will be none.

use super::{
    Bytes,
    payload::{Payload, TLS_STATES, answer, flags},
};

/// Bits of `Payload::marks`.
mod marks {
    /// A hello has been read.
    pub const AGAIN: u32 = 1;
    /// The name of this hello is known.
    pub const NAMED: u32 = 1 << 1;
    /// There is an answer that has not been given.
    pub const DUE: u32 = 1 << 2;
    /// A hello announces early data.
    pub const EARLY: u32 = 1 << 3;
}

/// The record type of a handshake, which TLS starts with.
pub(super) const HANDSHAKE: u8 = 22;
const CHANGE_CIPHER_SPEC: u8 = 20;
const ALERT: u8 = 21;
const APPLICATION_DATA: u8 = 23;
const MAJOR_VERSION: u8 = 3;
/// What a record has at most, with what TLS 1.3 allows for encryption (RFC 8446 section 5.2).
const MAX_RECORD: u32 = (1 << 14) + 256;
const CLIENT_HELLO: u32 = 1;
/// No server takes a hello so long. In what seems to be a further one, and is the encrypted `Finished`
/// of an older version, the length is a random number.
const MAX_HELLO: u32 = 1 << 18;
/// Bytes between hellos that are gone past. Servers do so with 16 KiB of early data.
const MAX_BETWEEN: u32 = 1 << 15;
/// Version and random.
const VERSION_AND_RANDOM: u32 = 2 + 32;
const SERVER_NAME: u32 = 0;
const EARLY_DATA: u32 = 42;
const ENCRYPTED_CLIENT_HELLO: u32 = 0xfe0d;
const HOST_NAME: u32 = 0;
const MAX_HOST_NAME: u32 = 255;

/// The first state, and the bytes that its number needs.
pub(super) const START: (u32, u32) = (MESSAGE, 4);

/// In `Payload::header`: the record is gone past.
const PASSED: u32 = 1 << 16;

// What comes next in the message. All but the name are numbers.

/// Type and length of the message.
const MESSAGE: u32 = TLS_STATES;
/// Length of the session's id.
const SESSION: u32 = TLS_STATES + 1;
/// Length of the cipher suites.
const CIPHERS: u32 = TLS_STATES + 2;
/// Length of the compression methods.
const COMPRESSION: u32 = TLS_STATES + 3;
/// Length of the extensions.
const EXTENSIONS: u32 = TLS_STATES + 4;
/// Type and length of an extension.
const EXTENSION: u32 = TLS_STATES + 5;
/// Length of the list of names.
const LIST: u32 = TLS_STATES + 6;
/// Type and length of a name.
const ENTRY: u32 = TLS_STATES + 7;
/// The name.
const NAME: u32 = TLS_STATES + 8;

/// Whether a hello has been read, and nothing yet of the message behind it.
#[inline(always)]
pub(super) fn is_between(this: &Payload) -> bool {
    this.state == MESSAGE && this.marks & marks::AGAIN != 0 && this.have == 0
}

/// Whether there is an answer that has not been given; from now on it is.
#[inline(always)]
pub(super) fn is_due(this: &mut Payload) -> bool {
    let due = this.marks & marks::DUE != 0;
    this.marks &= !marks::DUE;
    due
}

/// Reads on in a packet that has `left` bytes.
#[inline(always)]
pub(super) fn step(
    this: &mut Payload,
    bytes: &(impl Bytes + ?Sized),
    at: &mut u32,
    left: u32,
) -> u32 {
    if this.record == 0 {
        let Some([byte]) = bytes.read(*at) else { return this.finish(flags::MALFORMED) };
        this.take(at, 1);
        return record_header(this, byte);
    }
    let here = left.min(this.record);
    if this.skip > 0 {
        let len = here.min(this.skip);
        this.skip -= len;
        take(this, at, len);
        return answer::MORE;
    }
    if this.state == NAME {
        let Some([byte]) = bytes.read(*at) else { return this.finish(flags::MALFORMED) };
        take(this, at, 1);
        return name(this, byte);
    }
    if this.have == 0
        && this.want <= here
        && left >= 4
        && let Some(four) = bytes.read(*at)
    {
        this.word = u64::from(u32::from_be_bytes(four) >> (32 - this.want * 8));
        this.have = this.want;
        take(this, at, this.want);
    } else {
        let Some([byte]) = bytes.read(*at) else { return this.finish(flags::MALFORMED) };
        this.word = this.word << 8 | u64::from(byte);
        this.have += 1;
        take(this, at, 1);
    }
    if this.have < this.want {
        return answer::MORE;
    }
    let number = this.word as u32;
    this.word = 0;
    this.have = 0;
    field(this, number)
}

/// Goes past bytes of the message.
#[inline(always)]
fn take(this: &mut Payload, at: &mut u32, len: u32) {
    this.take(at, len);
    this.record -= len;
    this.position += len;
}

/// Type, version (of which the second byte has no meaning) and length.
#[inline(always)]
fn record_header(this: &mut Payload, byte: u8) -> u32 {
    let fits = match this.header & 255 {
        0 if byte == HANDSHAKE => true,
        0 => {
            let early = this.marks & marks::EARLY != 0;
            let between = is_between(this) && this.skip == 0;
            let far = this.position.wrapping_sub(this.message_end) >= MAX_BETWEEN;
            let further = this.marks & marks::AGAIN != 0;
            if further && byte == APPLICATION_DATA && (!early || between && far) {
                return this.finish(0);
            }
            this.header |= PASSED;
            between && matches!(byte, CHANGE_CIPHER_SPEC | ALERT | APPLICATION_DATA)
        }
        1 if this.flags & flags::TLS == 0 && byte != MAJOR_VERSION => {
            // Something else that starts with the same byte.
            return this.finish(0);
        }
        1 => {
            this.flags |= flags::TLS;
            byte == MAJOR_VERSION
        }
        2 => true,
        3 => {
            // The length's first byte waits here for the second.
            this.header |= u32::from(byte) << 8;
            true
        }
        _ => {
            this.record = this.header & 0xff00 | u32::from(byte);
            if this.header & PASSED != 0 {
                this.skip = this.record;
            }
            this.header = 0;
            let fits = this.record != 0 && this.record <= MAX_RECORD;
            return if fits { answer::MORE } else { this.finish(flags::MALFORMED) };
        }
    };
    this.header += 1;
    if fits { answer::MORE } else { this.finish(flags::MALFORMED) }
}

/// A number was read, and `position` is behind it.
#[inline(always)]
fn field(this: &mut Payload, number: u32) -> u32 {
    let room = this.message_end.wrapping_sub(this.position);
    match this.state {
        MESSAGE => {
            let len = number & 0xff_ffff;
            let is_hello = number >> 24 == CLIENT_HELLO;
            if this.marks & marks::AGAIN == 0 {
                if !is_hello {
                    return this.finish(flags::MALFORMED);
                }
            } else if !is_hello || len >= MAX_HELLO {
                return this.finish(0);
            } else if this.marks & marks::DUE != 0 {
                // In the packet of the one before: nobody can have asked for it.
                return this.finish(flags::MALFORMED);
            }
            this.taken = 4;
            this.extension_end = 0;
            this.marks &= !marks::NAMED;
            this.message_end = this.position + len;
            next(this, VERSION_AND_RANDOM, SESSION)
        }
        SESSION => next(this, number, CIPHERS),
        CIPHERS => next(this, number, COMPRESSION),
        COMPRESSION => next(this, number, EXTENSIONS),
        EXTENSIONS if number == room => next(this, 0, EXTENSION),
        EXTENSION => {
            let (kind, len) = (number >> 16, number & 0xffff);
            let told = this.marks & (marks::NAMED | marks::DUE) == marks::NAMED;
            if kind == ENCRYPTED_CLIENT_HELLO && !told {
                this.flags |= flags::ECH;
            }
            if kind == EARLY_DATA {
                this.marks |= marks::EARLY;
            }
            if kind != SERVER_NAME {
                return next(this, len, EXTENSION);
            }
            // There is one of a kind at most.
            if this.extension_end != 0 || len > room {
                return this.finish(flags::MALFORMED);
            }
            this.extension_end = this.position + len;
            next(this, 0, LIST)
        }
        LIST if number == this.extension_end - this.position => next(this, 0, ENTRY),
        ENTRY => {
            let (kind, len) = (number >> 16, number & 0xffff);
            // As long as this is in the message, the name's bytes are.
            if len > this.extension_end - this.position {
                return this.finish(flags::MALFORMED);
            }
            if kind != HOST_NAME || this.marks & marks::NAMED != 0 {
                return after_entry(this, len);
            }
            if len == 0 || len > MAX_HOST_NAME {
                return this.finish(flags::MALFORMED);
            }
            this.flags &= !flags::FOUND;
            this.name.len = 0;
            this.label = 0;
            this.state = NAME;
            this.want = len;
            answer::MORE
        }
        _ => this.finish(flags::MALFORMED),
    }
}

/// A byte of the name was read.
#[inline(always)]
fn name(this: &mut Payload, byte: u8) -> u32 {
    this.want -= 1;
    if !this.push(byte) || (this.want == 0 && !this.end_name()) {
        return this.finish(flags::MALFORMED);
    }
    if this.want > 0 {
        return answer::MORE;
    }
    this.flags |= flags::FOUND;
    this.marks |= marks::NAMED | marks::DUE;
    after_entry(this, 0)
}

/// After `skip` bytes comes a name or, after the last, an extension.
#[inline(always)]
fn after_entry(this: &mut Payload, skip: u32) -> u32 {
    let last = this.position + skip == this.extension_end;
    next(this, skip, if last { EXTENSION } else { ENTRY })
}

/// After `skip` bytes comes the number `state`, or the end.
#[inline(always)]
fn next(this: &mut Payload, skip: u32, state: u32) -> u32 {
    let want = match state {
        SESSION | COMPRESSION => 1,
        CIPHERS | EXTENSIONS | LIST => 2,
        ENTRY => 3,
        _ => 4,
    };
    let end = if state == LIST || state == ENTRY { this.extension_end } else { this.message_end };
    let room = end - this.position;
    if skip == room && (state == EXTENSION || state == EXTENSIONS) {
        return after_hello(this, skip);
    }
    if skip > room || room - skip < want {
        return this.finish(flags::MALFORMED);
    }
    this.skip = skip;
    this.state = state;
    this.want = want;
    answer::MORE
}

/// After `skip` bytes the hello has ended.
#[inline(always)]
fn after_hello(this: &mut Payload, skip: u32) -> u32 {
    if this.marks & marks::NAMED == 0 {
        this.flags &= !flags::FOUND;
        this.marks |= marks::DUE;
    }
    this.marks |= marks::AGAIN;
    this.skip = skip;
    (this.state, this.want) = START;
    answer::MORE
}
