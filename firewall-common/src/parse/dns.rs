//! DNS messages (RFC 1035 section 4), as far as questions and the names of addresses go.
//!
//! A message is read from memory of one size, so that an index that is masked is in it for certain.
//! Nothing here believes a length or a pointer: what does not fit is malformed.

use crate::{
    flow::Address,
    forget::forget,
    name::{MAX_NAME, Text},
};

/// Bytes of a message that are read; what lies behind is as good as cut off.
pub const MESSAGE: usize = 4096;

/// Bytes of the header.
pub const HEADER: u32 = 12;

/// Bytes of a message with questions in a stream; a longer one is malformed.
pub const MAX_QUESTION: u32 = 2048;

/// Questions of one message that are judged; more are malformed.
pub const MAX_QUESTIONS: u32 = 8;

/// Records of one answer that are read.
pub const MAX_RECORDS: u32 = 40;

/// Service parameters of one record that are read.
pub const MAX_PARAMETERS: u32 = 8;

/// Address hints of one parameter that are read.
pub const MAX_HINTS: u32 = 8;

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

/// A record behind its name (RFC 1035 section 4.1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its type.
    pub kind: u16,
    /// Its time to live, in seconds.
    pub lifetime: u32,
    /// Where its data begins.
    pub data: u32,
    /// Where it ends.
    pub end: u32,
}

impl Record {
    /// Whether it is of a type that is read.
    #[inline(always)]
    pub const fn is_read(&self) -> bool {
        use record::{A, AAAA, CNAME, HTTPS, SVCB};
        matches!(self.kind, A | AAAA | CNAME | SVCB | HTTPS)
    }

    /// Bytes of its data.
    #[inline(always)]
    pub const fn size(&self) -> u32 {
        self.end.wrapping_sub(self.data)
    }
}

/// A service parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Its key.
    pub key: u16,
    /// Where its value begins.
    pub value: u32,
    /// Where it says that it ends.
    pub end: u32,
}

impl Parameter {
    /// Bytes of each address that it hints at; 0 if it hints at none.
    #[inline(always)]
    pub const fn step(&self) -> u32 {
        match self.key {
            parameter::IPV4_HINT => 4,
            parameter::IPV6_HINT => 16,
            _ => 0,
        }
    }

    /// Where the hint of this number is, if all of it is there.
    #[inline(always)]
    pub const fn hint(&self, number: u32) -> Option<u32> {
        let step = self.step();
        let from = self.value.wrapping_add(number.wrapping_mul(step));
        if step == 0 || from.wrapping_add(step) > self.end { None } else { Some(from) }
    }
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

    /// Whether a message without questions is a cookie alone (RFC 7873 section 5.4), which asks for no
    /// name: nothing but options of EDNS (RFC 6891 section 6.1).
    #[inline(always)]
    pub fn is_cookie(&self) -> bool {
        const OPTIONS: u16 = 41;
        let record = HEADER;
        let fixed = record + 11;
        self.u16(6) == 0
            && self.u16(8) == 0
            && self.u16(10) == 1
            && self.len >= fixed
            && self.byte(record) == 0
            && self.u16(record + 1) == OPTIONS
            && self.len == fixed + u32::from(self.u16(record + 9))
    }

    /// The record whose name ends at `fixed`; `None` if it is not all there.
    #[inline(always)]
    pub fn record(&self, fixed: u32) -> Option<Record> {
        let data = fixed.wrapping_add(10);
        if fixed == 0 || data > self.len {
            return None;
        }
        let size = u32::from(self.u16(fixed.wrapping_add(8)));
        let end = data.wrapping_add(size);
        if end > self.len {
            return None;
        }
        let lifetime = self.u32(fixed.wrapping_add(4));
        Some(Record { kind: self.u16(fixed), lifetime, data, end })
    }

    /// The service parameter at `at` of a record that ends at `end` (RFC 9460 section 2.2); `None` if there is
    /// no more.
    #[inline(always)]
    pub fn parameter(&self, at: u32, end: u32) -> Option<Parameter> {
        let value = at.wrapping_add(4);
        if value > end {
            return None;
        }
        let key = self.u16(at);
        let behind = value.wrapping_add(u32::from(self.u16(at.wrapping_add(2))));
        Some(Parameter { key, value, end: behind })
    }

    /// The IPv4 address at `at`.
    #[inline(always)]
    pub const fn v4(&self, at: u32) -> Address {
        Address::v4(self.u32(at))
    }

    /// The IPv6 address at `at`.
    #[inline(always)]
    pub const fn v6(&self, at: u32) -> Address {
        Address::v6([
            self.u32(at).to_be(),
            self.u32(at.wrapping_add(4)).to_be(),
            self.u32(at.wrapping_add(8)).to_be(),
            self.u32(at.wrapping_add(12)).to_be(),
        ])
    }

    /// Reads the name at `at` and returns the offset of what comes after it, or 0 if it is
    /// malformed.
    pub fn name(&self, at: u32, name: &mut Text) -> u32 {
        let mut reader = NameReader::at(at);
        for _ in 0..NameReader::STEPS {
            if !reader.step(self, name) {
                break;
            }
        }
        reader.end()
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

/// Bytes of a label at most.
const MAX_LABEL: u32 = crate::name::MAX_LABEL as u32;

/// Labels of a name of 255 bytes at most.
const MAX_LABELS: u32 = 128;

/// Reads a name, a pointer or some bytes of a label with each step. So it can be the body of a loop
/// that the kernel's verifier looks at once.
///
/// A pointer leads to a name before the one it is in (RFC 1035 section 4.1.4), so no chain of them
/// comes back to where it was. A label with a dot or a zero byte is malformed: as text it would
/// read as another name.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct NameReader {
    /// The next label.
    position: u32,
    /// Where the name that is being read begins.
    begin: u32,
    /// What comes after the first one; 0 while that is being read.
    after: u32,
    /// The same, when the last one has come to its end; 0 before.
    end: u32,
    /// Bytes of the text so far.
    len: u32,
    /// Bytes of the label that are still to be read.
    left: u32,
}

impl NameReader {
    /// Bytes of a label that a step takes at most.
    pub const BYTES: u32 = 16;

    /// A name of 255 bytes has 127 labels at most, each behind a pointer of its own; and what is
    /// left of long labels.
    pub const STEPS: u32 = 256 + MAX_NAME as u32 / Self::BYTES;

    /// Starts with the name at `at`.
    #[inline(always)]
    pub const fn at(at: u32) -> Self {
        Self { position: at, begin: at, after: 0, end: 0, len: 0, left: 0 }
    }

    /// The offset of what comes after the name; 0 if it is malformed or has not been read to its end.
    #[inline(always)]
    pub const fn end(&self) -> u32 {
        self.end
    }

    /// Reads on, and says whether there is more. The name counts when it has an [`end`](Self::end).
    #[inline(always)]
    pub fn step(&mut self, message: &Message<'_>, name: &mut Text) -> bool {
        if self.left != 0 {
            return self.read(message, name);
        }
        let position = self.position;
        if position >= message.len {
            return false;
        }
        let byte = u32::from(message.byte(position));
        let position = position.wrapping_add(1);
        if byte >= 0xc0 {
            if position >= message.len {
                return false;
            }
            let target = (byte & 0x3f) << 8 | u32::from(message.byte(position));
            if target >= self.begin || target < HEADER {
                return false;
            }
            if self.after == 0 {
                self.after = position.wrapping_add(1);
            }
            self.begin = target;
            self.position = target;
            return true;
        }
        let mut len = self.len;
        if byte == 0 {
            self.end = if self.after == 0 { position } else { self.after };
            name.len = len;
            return false;
        }
        let dot = u32::from(len != 0);
        if byte > MAX_LABEL
            || len.wrapping_add(byte).wrapping_add(dot) > MAX_NAME as u32
            || position.wrapping_add(byte) > message.len
        {
            return false;
        }
        if len != 0 {
            name.bytes[len as usize & 255] = b'.';
            len = len.wrapping_add(1);
        }
        self.len = len;
        self.position = position;
        self.left = byte;
        self.read(message, name)
    }

    /// Reads on in a label. That all of it is there has been seen.
    #[inline(always)]
    fn read(&mut self, message: &Message<'_>, name: &mut Text) -> bool {
        let Self { position, len, left, .. } = *self;
        let mut wrong = 0;
        let mut taken = 0;
        for index in 0..Self::BYTES {
            if index >= left {
                break;
            }
            taken = index + 1;
            let byte = u32::from(message.byte(position.wrapping_add(index)));
            // Without branches, which the verifier would follow for each byte.
            wrong |= byte.wrapping_sub(1) | (byte ^ u32::from(b'.')).wrapping_sub(1);
            let from_a = byte.wrapping_sub(u32::from(b'A'));
            let upper = from_a.wrapping_sub(26) >> 31 & !(from_a >> 31);
            name.bytes[len.wrapping_add(index) as usize & 255] = (byte | upper << 5) as u8;
        }
        if wrong >> 31 != 0 {
            return false;
        }
        self.len = len.wrapping_add(taken);
        self.position = position.wrapping_add(taken);
        self.left = left.wrapping_sub(taken);
        true
    }
}
