//! DNS names as text.

use core::fmt;

/// Bytes that a name has at most as text, the dots counted and the final one not: what fits the
/// 255 bytes of RFC 1035 section 3.1.
pub const MAX_NAME: usize = 253;

/// Bytes that a label has at most (RFC 1035 section 2.3.4).
pub const MAX_LABEL: usize = 63;

/// A name as text: lower case, no final dot.
///
/// What is past the length means nothing.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Text {
    /// How many of the bytes are the name.
    pub len: u32,
    /// Zero.
    pub _pad: u32,
    /// The name.
    pub bytes: [u8; 256],
}

const _: () = assert!(size_of::<Text>() == 264);

impl Text {
    /// No name.
    pub const EMPTY: Self = Self { len: 0, _pad: 0, bytes: [0; 256] };

    /// Adds a byte in lower case. A name has no room for more than 256, the last of which are
    /// written over: ask for the length before.
    #[inline(always)]
    pub fn push(&mut self, byte: u8) {
        self.bytes[(self.len & 255) as usize] = byte.to_ascii_lowercase();
        self.len = self.len.wrapping_add(1);
    }

    /// Reads what a name is written as, the root as `.`; `None` if no name is written so.
    pub fn read(written: &str) -> Option<Self> {
        let mut name = Self::EMPTY;
        let mut rest = if written == "." { &[] } else { written.as_bytes() };
        while let Some((&first, behind)) = rest.split_first() {
            let (byte, behind) = match (first, behind) {
                (b'\\', [b'x', high, low, behind @ ..]) => {
                    let digit = |digit: u8| char::from(digit).to_digit(16);
                    ((digit(*high)? << 4 | digit(*low)?) as u8, behind)
                }
                (b'\\', [b't', behind @ ..]) => (b'\t', behind),
                (b'\\', [b'n', behind @ ..]) => (b'\n', behind),
                (b'\\', [b'r', behind @ ..]) => (b'\r', behind),
                (b'\\', [byte @ (b'\\' | b'\'' | b'"'), behind @ ..]) => (*byte, behind),
                (b'\\', _) => return None,
                _ => (first, behind),
            };
            if name.len as usize == MAX_NAME {
                return None;
            }
            name.push(byte);
            rest = behind;
        }
        Some(name)
    }

    /// The name.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len as usize).unwrap_or(&self.bytes)
    }
}

/// With what [`core::ascii::escape_default`] writes in place of bytes that are not printed.
impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_bytes().escape_ascii().fmt(f)
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}
