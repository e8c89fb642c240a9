//! DNS over TCP (RFC 1035 section 4.2.2): messages put together from what the stream has of them.

use firewall_common::parse::dns::{HEADER, MESSAGE};

/// One direction of a connection.
#[derive(Debug, Default)]
pub struct Framer {
    length: Vec<u8>,
    message: Vec<u8>,
    /// Bytes of the message that have come.
    have: usize,
    /// It is not DNS: nothing more is read.
    pub malformed: bool,
}

impl Framer {
    /// Bytes that are kept.
    pub const fn kept(&self) -> usize {
        self.message.len()
    }

    /// How long the message is to be.
    fn said(&self) -> Option<usize> {
        self.length.first_chunk().map(|two| usize::from(u16::from_be_bytes(*two)))
    }

    /// Takes what the stream goes on with, and hands on each message that it makes whole. A message of
    /// more than `most` bytes is malformed.
    pub fn feed(&mut self, mut data: &[u8], most: usize, mut take: impl FnMut(&[u8])) {
        while !data.is_empty() && !self.malformed {
            if self.length.len() < 2 {
                self.length.extend(data.split_off_first());
                let wrong = |length| length < HEADER as usize || length > most;
                self.malformed = self.said().is_some_and(wrong);
                continue;
            }
            let Some(length) = self.said() else { return };
            let piece = (length - self.have).min(data.len());
            let (now, rest) = data.split_at(piece);
            let room = MESSAGE.saturating_sub(self.message.len());
            self.message.extend(&now[..piece.min(room)]);
            self.have += piece;
            data = rest;
            if self.have == length {
                take(&self.message);
                self.length.clear();
                self.message.clear();
                self.have = 0;
            }
        }
    }
}
