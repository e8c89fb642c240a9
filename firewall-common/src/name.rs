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

    /// The name.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len as usize).unwrap_or(&self.bytes)
    }
}

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
