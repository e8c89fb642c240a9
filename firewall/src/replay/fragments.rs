//! Packets put together from their pieces, within bounds.
//!
//! As Linux does it, pieces that overlap make the whole packet worthless (RFC 5722; for IPv4 since
//! 4.20), but for a piece that comes a second time.

use std::collections::{BTreeMap, HashMap};

use super::{
    packet::{Piece, lengthen},
    tally::{Cause, Tally},
};

/// Packets of which there are only pieces yet.
const MAX_PACKETS: usize = 1024;
/// Bytes of their pieces.
const MAX_BYTES: usize = 16 << 20;
/// Pieces of one packet: those of 65,535 bytes have 68 at least on the narrowest link that is in use.
const MAX_PIECES: usize = 256;
/// How long the others may take, in nanoseconds.
const TO_WAIT: u64 = 30_000_000_000;

/// Pieces whose packets are not whole yet.
#[derive(Default)]
pub struct Fragments {
    packets: HashMap<[u8; 37], Parts>,
    /// The key of each, the oldest first.
    order: BTreeMap<u64, [u8; 37]>,
    last: u64,
    bytes: usize,
}

#[derive(Default)]
struct Parts {
    place: u64,
    /// The number of the first packet with a piece.
    packet: u64,
    since: u64,
    headers: Vec<u8>,
    /// By offset.
    pieces: BTreeMap<usize, Vec<u8>>,
    /// Where the packet ends.
    end: Option<usize>,
    /// Nothing can come of it any more.
    spoilt: bool,
}

impl Fragments {
    /// Takes a piece, of the packet with this number at this time: the packet that it makes whole.
    pub fn put(
        &mut self,
        piece: &Piece<'_>,
        packet: u64,
        time: u64,
        tally: &mut Tally<Cause>,
    ) -> Option<Vec<u8>> {
        self.expire(time, tally);
        let of = piece.of;
        if !self.packets.contains_key(&of) {
            self.last += 1;
            let parts = Parts { place: self.last, packet, since: time, ..Parts::default() };
            self.order.insert(parts.place, of);
            self.packets.insert(of, parts);
        }
        let parts = self.packets.get_mut(&of)?;
        match parts.put(piece) {
            Put::Kept => self.bytes += piece.data.len(),
            Put::Again => {}
            Put::Spoilt => {
                let lost = parts.pieces.len() as u64;
                self.bytes -= parts.clear();
                tally.add_many(Cause::Overlap, lost, parts.packet);
                tally.add(Cause::Overlap, packet);
            }
            Put::TooMany => {
                let lost = parts.pieces.len() as u64;
                self.bytes -= parts.clear();
                tally.add_many(Cause::NoRoom, lost, parts.packet);
                tally.add(Cause::NoRoom, packet);
            }
        }
        if let Some(whole) = parts.whole() {
            self.remove(&of);
            if whole.is_none() {
                tally.add(Cause::Fragment, packet);
            }
            return whole;
        }
        while self.packets.len() > MAX_PACKETS || self.bytes > MAX_BYTES {
            let Some((_, oldest)) = self.order.first_key_value() else { break };
            let oldest = *oldest;
            self.give_up(&oldest, Cause::NoRoom, tally);
        }
        None
    }

    /// Nothing more comes.
    pub fn finish(&mut self, tally: &mut Tally<Cause>) {
        while let Some((_, oldest)) = self.order.first_key_value() {
            let oldest = *oldest;
            self.give_up(&oldest, Cause::Incomplete, tally);
        }
    }

    fn expire(&mut self, time: u64, tally: &mut Tally<Cause>) {
        while let Some((_, oldest)) = self.order.first_key_value() {
            let oldest = *oldest;
            let since = self.packets.get(&oldest).map_or(0, |parts| parts.since);
            if time.saturating_sub(since) < TO_WAIT {
                break;
            }
            self.give_up(&oldest, Cause::Incomplete, tally);
        }
    }

    fn give_up(&mut self, of: &[u8; 37], why: Cause, tally: &mut Tally<Cause>) {
        if let Some(parts) = self.remove(of) {
            tally.add_many(why, parts.pieces.len() as u64, parts.packet);
        }
    }

    fn remove(&mut self, of: &[u8; 37]) -> Option<Parts> {
        let parts = self.packets.remove(of)?;
        self.order.remove(&parts.place);
        self.bytes -= parts.size();
        Some(parts)
    }
}

enum Put {
    Kept,
    /// It was there already.
    Again,
    Spoilt,
    TooMany,
}

impl Parts {
    fn size(&self) -> usize {
        self.pieces.values().map(Vec::len).sum()
    }

    fn put(&mut self, piece: &Piece<'_>) -> Put {
        let (begin, end) = (piece.offset, piece.offset + piece.data.len());
        if self.spoilt {
            return Put::Spoilt;
        }
        if self.pieces.get(&begin).is_some_and(|there| there == piece.data) {
            return Put::Again;
        }
        let before = self.pieces.range(..=begin).next_back();
        let overlaps = before.is_some_and(|(at, there)| at + there.len() > begin)
            || self.pieces.range(begin..).next().is_some_and(|(at, _)| *at < end);
        let beyond = self.end.is_some_and(|known| end > known || (!piece.more && end != known));
        let short = !piece.more
            && self.pieces.last_key_value().is_some_and(|(at, there)| at + there.len() > end);
        if overlaps || beyond || short {
            self.spoilt = true;
            return Put::Spoilt;
        }
        if self.pieces.len() >= MAX_PIECES {
            self.spoilt = true;
            return Put::TooMany;
        }
        if !piece.more {
            self.end = Some(end);
        }
        if begin == 0 {
            self.headers.clone_from(&piece.headers);
        }
        self.pieces.insert(begin, piece.data.to_vec());
        Put::Kept
    }

    fn clear(&mut self) -> usize {
        let size = self.size();
        self.pieces.clear();
        size
    }

    /// The packet, if all of it is there; `None` inside if it is too long to be one.
    fn whole(&self) -> Option<Option<Vec<u8>>> {
        let end = self.end?;
        // They do not overlap.
        if self.spoilt || self.size() != end {
            return None;
        }
        let mut packet = self.headers.clone();
        self.pieces.values().for_each(|piece| packet.extend(piece));
        Some(lengthen(&mut packet).then_some(packet))
    }
}
