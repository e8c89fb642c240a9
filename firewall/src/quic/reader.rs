//! Reads what a QUIC packet is made of off the front of its bytes.

use super::Malformed;

/// Bytes that are still to be read.
pub(super) struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    pub fn byte(&mut self) -> Result<u8, Malformed> {
        self.0.split_off_first().copied().ok_or(Malformed)
    }

    pub fn four(&mut self) -> Result<[u8; 4], Malformed> {
        self.take(4)?.try_into().map_err(|_| Malformed)
    }

    /// A number of one, two, four or eight bytes, as its first two bits say (RFC 9000 section 16).
    pub fn number(&mut self) -> Result<u64, Malformed> {
        let first = self.byte()?;
        let further = (1 << (first >> 6)) - 1;
        let rest = self.take(further)?;
        let begin = u64::from(first & 0x3f);
        Ok(rest.iter().fold(begin, |number, byte| number << 8 | u64::from(*byte)))
    }

    pub fn take(&mut self, len: u64) -> Result<&'a [u8], Malformed> {
        let len = usize::try_from(len).map_err(|_| Malformed)?;
        self.0.split_off(..len).ok_or(Malformed)
    }
}
