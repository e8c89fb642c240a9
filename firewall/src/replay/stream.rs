//! One direction of a TCP connection, in order: each byte once, within bounds.
//!
//! Of bytes that are sent twice the first count, as for the kernel programs.

use std::collections::BTreeMap;

use super::packet::Bytes;

/// Bytes that are kept of what comes before the bytes it follows.
const MAX_BYTES: usize = 64 << 10;
/// Pieces of it.
const MAX_PIECES: usize = 256;

/// What has come of a stream.
#[derive(Debug, Default)]
pub struct Stream {
    started: bool,
    /// The sequence number of what comes next.
    next: u32,
    /// What comes next, counted from the first byte.
    position: u64,
    /// What has come behind a hole, by position.
    ahead: BTreeMap<u64, Piece>,
    kept: usize,
    /// Bytes of payload that were seen, each once.
    pub bytes: u64,
    /// What it says is of no interest any more.
    pub done: bool,
    /// There is a hole that nothing fills.
    pub broken: bool,
    /// The hole was made because too much had come behind it.
    pub crowded: bool,
}

#[derive(Debug)]
struct Piece {
    len: u64,
    /// The first of its bytes that are there.
    data: Vec<u8>,
}

impl Stream {
    /// The sequence number of the first byte is known.
    pub fn start(&mut self, sequence: u32) {
        if !self.started {
            self.started = true;
            self.next = sequence;
        }
    }

    /// Whether a sequence number begins the same stream.
    pub fn begins_with(&self, sequence: u32) -> bool {
        self.started && self.next.wrapping_sub(self.position as u32) == sequence
    }

    /// Takes a segment, and hands on what comes next in the stream.
    pub fn put(&mut self, sequence: u32, data: &Bytes<'_>, mut next: impl FnMut(&mut Self, &[u8])) {
        if data.len == 0 {
            return;
        }
        self.start(sequence);
        let ahead = sequence.wrapping_sub(self.next).cast_signed();
        let begin = self.position.checked_add_signed(i64::from(ahead));
        // What is before the first byte is not of the stream.
        let (begin, skip) = match begin {
            Some(begin) => (begin, 0),
            None => (0, u64::from(ahead.unsigned_abs()) - self.position),
        };
        let len = (data.len as u64).saturating_sub(skip);
        let there = data.there.get(skip as usize..).unwrap_or_default();
        for (from, to) in self.fresh(begin, begin + len) {
            self.bytes += to - from;
            let range = |at: u64| ((at - begin) as usize).min(there.len());
            let data = &there[range(from)..range(to)];
            if from == self.position {
                self.go_on(data, to - from, &mut next);
            } else {
                self.keep(from, to - from, data);
            }
        }
        self.drain(&mut next);
        while self.ahead.len() > MAX_PIECES || self.kept > MAX_BYTES {
            let Some((at, _)) = self.ahead.first_key_value() else { break };
            let hole = at - self.position;
            self.crowded |= !self.done;
            self.skip(hole);
            self.drain(&mut next);
        }
    }

    /// Bytes that are kept.
    pub const fn kept(&self) -> usize {
        self.kept
    }

    /// Whether there is something behind a hole.
    pub fn has_hole(&self) -> bool {
        self.broken || !self.ahead.is_empty()
    }

    /// The parts of a range that have not come yet.
    fn fresh(&self, begin: u64, end: u64) -> Vec<(u64, u64)> {
        let mut fresh = Vec::new();
        let mut at = begin.max(self.position);
        let before = self.ahead.range(..=at).next_back();
        let overlapping = self.ahead.range(at..end.max(at));
        for (from, piece) in before.into_iter().chain(overlapping) {
            if *from > at {
                fresh.push((at, (*from).min(end)));
            }
            at = at.max(from + piece.len);
        }
        if at < end {
            fresh.push((at, end));
        }
        fresh
    }

    fn keep(&mut self, at: u64, len: u64, data: &[u8]) {
        let data = if self.done || self.broken { Vec::new() } else { data.to_vec() };
        self.kept += data.len();
        self.ahead.insert(at, Piece { len, data });
    }

    fn drain(&mut self, next: &mut impl FnMut(&mut Self, &[u8])) {
        while let Some(entry) = self.ahead.first_entry()
            && *entry.key() == self.position
        {
            let Piece { len, data } = entry.remove();
            self.kept -= data.len();
            self.go_on(&data, len, next);
        }
    }

    fn go_on(&mut self, data: &[u8], len: u64, next: &mut impl FnMut(&mut Self, &[u8])) {
        self.position += len;
        self.next = self.next.wrapping_add(len as u32);
        if !self.done && !self.broken {
            if !data.is_empty() {
                next(self, data);
            }
            self.broken |= (data.len() as u64) < len;
        }
    }

    fn skip(&mut self, hole: u64) {
        self.position += hole;
        self.next = self.next.wrapping_add(hole as u32);
        self.broken = true;
        self.kept = 0;
        self.ahead.values_mut().for_each(|piece| piece.data = Vec::new());
    }
}
