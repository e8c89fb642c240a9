//! The server name of a TLS ClientHello (RFC 8446 section 4.1.2, RFC 6066 section 3).
//!
//! Every length must fit the one around it, and lists fill what they are in, as servers demand. The
//! first name of the type `host_name` counts. It is the answer as soon as the packet that it ends
//! in was read to its end, or the hello: what is left of the packet is looked through for an
//! `encrypted_client_hello`, but no packet is waited for.

use super::{
    Bytes,
    payload::{Payload, TLS_STATES, answer, flags},
};

/// The record type of a handshake, which TLS starts with.
pub(super) const HANDSHAKE: u8 = 22;
const MAJOR_VERSION: u8 = 3;
/// What a record has at most, with what TLS 1.3 allows for encryption (RFC 8446 section 5.2).
const MAX_RECORD: u32 = (1 << 14) + 256;
const CLIENT_HELLO: u32 = 1;
/// Version and random.
const VERSION_AND_RANDOM: u32 = 2 + 32;
const SERVER_NAME: u32 = 0;
const ENCRYPTED_CLIENT_HELLO: u32 = 0xfe0d;
const HOST_NAME: u32 = 0;
const MAX_HOST_NAME: u32 = 255;

/// The first state, and the bytes that its number needs.
pub(super) const START: (u32, u32) = (MESSAGE, 4);

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
        0 => byte == HANDSHAKE,
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
            if number >> 24 != CLIENT_HELLO {
                return this.finish(flags::MALFORMED);
            }
            this.message_end = this.position + (number & 0xff_ffff);
            next(this, VERSION_AND_RANDOM, SESSION)
        }
        SESSION => next(this, number, CIPHERS),
        CIPHERS => next(this, number, COMPRESSION),
        COMPRESSION => next(this, number, EXTENSIONS),
        EXTENSIONS if number == room => next(this, 0, EXTENSION),
        EXTENSION => {
            let (kind, len) = (number >> 16, number & 0xffff);
            if kind == ENCRYPTED_CLIENT_HELLO {
                this.flags |= flags::ECH;
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
            if kind != HOST_NAME || this.flags & flags::FOUND != 0 {
                return after_entry(this, len);
            }
            if len == 0 || len > MAX_HOST_NAME {
                return this.finish(flags::MALFORMED);
            }
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
        return this.finish(0);
    }
    if skip > room || room - skip < want {
        return this.finish(flags::MALFORMED);
    }
    this.skip = skip;
    this.state = state;
    this.want = want;
    answer::MORE
}
