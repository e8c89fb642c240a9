//! DNS messages (RFC 1035 section 4), as far as questions and the names of addresses go.
//!
//! A message is read from memory of one size, so that an index that is masked is in it for certain.
//! Nothing here believes a length or a pointer: what does not fit is malformed.

use crate::{
    forget::forget,
    name::{MAX_LABEL, MAX_NAME, Text},
};

/// Bytes of a message that are read; what lies behind is as good as cut off.
pub const MESSAGE: usize = 4096;

/// Bytes of the header.
pub const HEADER: u32 = 12;

/// Record types that are read.
pub mod record {
    /// RFC 1035 section 3.4.1
    pub const A: u16 = 1;
    /// RFC 1035 section 3.3.1
    pub const CNAME: u16 = 5;
    /// RFC 3596 section 2.1
    pub const AAAA: u16 = 28;
    /// RFC 9460 section 14.1
    pub const SVCB: u16 = 64;
    /// RFC 9460 section 14.1
    pub const HTTPS: u16 = 65;
}

/// Keys of service parameters that are read (RFC 9460 section 14.3.2).
pub mod parameter {
    /// IPv4 addresses.
    pub const IPV4_HINT: u16 = 4;
    /// IPv6 addresses.
    pub const IPV6_HINT: u16 = 6;
}

/// A message in memory.
#[derive(Clone, Copy)]
pub struct Message<'a> {
    /// The bytes; past the length they mean nothing.
    pub bytes: &'a [u8; MESSAGE],
    /// How many there are.
    pub len: u32,
}

/// The header of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Transaction.
    pub id: u16,
    /// Whether this is an answer.
    pub answer: bool,
    /// How many questions.
    pub questions: u16,
    /// How many records in the answer section.
    pub answers: u16,
}

impl Message<'_> {
    #[inline(always)]
    const fn byte(&self, at: u32) -> u8 {
        self.bytes[at as usize % MESSAGE]
    }

    /// Two bytes; those past the end are whatever lies there.
    #[inline(always)]
    pub const fn u16(&self, at: u32) -> u16 {
        (self.byte(at) as u16) << 8 | self.byte(at.wrapping_add(1)) as u16
    }

    /// Four bytes; those past the end are whatever lies there.
    #[inline(always)]
    pub const fn u32(&self, at: u32) -> u32 {
        (self.u16(at) as u32) << 16 | self.u16(at.wrapping_add(2)) as u32
    }

    /// The header; `None` if the message is shorter.
    #[inline(always)]
    pub fn header(&self) -> Option<Header> {
        if self.len < HEADER {
            return None;
        }
        Some(Header {
            id: self.u16(0),
            answer: self.byte(2) & 0x80 != 0,
            questions: self.u16(4),
            answers: self.u16(6),
        })
    }

    /// Reads the name at `at` and returns the offset of what comes after it, or 0 if it is
    /// malformed. A pointer leads to a name before this one (RFC 1035 section 4.1.4), so no chain of
    /// them comes back to where it was.
    ///
    /// A label with a dot or a zero byte is malformed: as text it would read as another name.
    #[inline(always)]
    pub fn name(&self, at: u32, name: &mut Text) -> u32 {
        let mut position = at;
        // Where the name that is being read begins, and what comes after the first one.
        let mut begin = forget(at);
        let mut after = forget(0);
        let mut left = 0;
        let mut len = 0;
        for _ in 0..STEPS {
            position = forget(position);
            left = forget(left);
            len = forget(len);
            if position >= self.len {
                return 0;
            }
            let byte = self.byte(position);
            position = position.wrapping_add(1);
            if left != 0 {
                left -= 1;
                if byte == b'.' || byte == 0 {
                    return 0;
                }
                // Without a branch, which the verifier would follow for each byte.
                let upper = u32::from(byte).wrapping_sub(65).wrapping_sub(26) >> 31
                    & !(u32::from(byte).wrapping_sub(65) >> 31);
                name.bytes[len as usize & 255] = byte | (upper as u8) << 5;
                len = len.wrapping_add(1);
            } else if byte == 0 {
                if after == 0 {
                    after = position;
                }
                name.len = len;
                return if len > MAX_NAME as u32 { 0 } else { after };
            } else if byte >= 0xc0 {
                if position >= self.len {
                    return 0;
                }
                let target = u32::from(byte & 0x3f) << 8 | u32::from(self.byte(position));
                if target >= begin || target < HEADER {
                    return 0;
                }
                after = forget(if after == 0 { position.wrapping_add(1) } else { after });
                begin = forget(target);
                position = begin;
            } else {
                if byte > MAX_LABEL as u8 || len > MAX_NAME as u32 {
                    return 0;
                }
                left = u32::from(byte);
                if len != 0 {
                    name.bytes[len as usize & 255] = b'.';
                    len = len.wrapping_add(1);
                }
            }
        }
        0
    }

    /// The offset of what comes after the name at `at`, or 0 if it is malformed.
    #[inline(always)]
    pub fn skip_name(&self, at: u32) -> u32 {
        let mut position = at;
        for _ in 0..MAX_LABELS {
            position = forget(position);
            if position >= self.len {
                return 0;
            }
            let byte = self.byte(position);
            match byte {
                0 => return position.wrapping_add(1),
                0xc0.. => return position.wrapping_add(2),
                1..=63 => position = position.wrapping_add(1).wrapping_add(u32::from(byte)),
                _ => return 0,
            }
        }
        0
    }
}

/// A name is 255 bytes on the wire at most, and a pointer takes a step of its own: each leads to
/// another label.
const STEPS: u32 = 320;

/// Labels of a name of 255 bytes at most.
const MAX_LABELS: u32 = 128;
