//! Bytes of flows: records tell totals so far, of which a flow has several.

use std::{collections::HashMap, net::IpAddr};

use jiff::Timestamp;

use super::CLOSE;
use crate::events::record::Record;

/// Flows that are remembered.
const MAX_FLOWS: usize = 1 << 18;

/// What tells flows apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    pid: Option<u32>,
    src: Option<(IpAddr, Option<u16>)>,
    dst: (IpAddr, Option<u16>),
    proto: String,
}

/// What was counted of a flow.
#[derive(Clone, Copy, Debug, Default)]
struct Total {
    bytes_out: u64,
    bytes_in: u64,
    closed: Option<Timestamp>,
}

/// Knows what of a total was counted before.
#[derive(Debug, Default)]
pub(super) struct Meter {
    flows: HashMap<Key, Total>,
}

impl Meter {
    /// Bytes out and in that no record before has told; `None` if that cannot be known.
    pub fn more(&mut self, record: &Record) -> Option<(u64, u64)> {
        let Record { bytes_out, bytes_in, .. } = *record;
        if (bytes_out, bytes_in) == (0, 0) {
            return Some((0, 0));
        }
        let key = Key {
            pid: record.app.pid,
            src: record.src.map(|src| (src.ip, src.port)),
            dst: (record.dst.ip, record.dst.port),
            proto: record.proto.clone(),
        };
        if self.flows.len() >= MAX_FLOWS && !self.flows.contains_key(&key) {
            self.flows.retain(|_, total| total.closed.is_none());
            if self.flows.len() >= MAX_FLOWS {
                return None;
            }
        }
        let total = self.flows.entry(key).or_default();
        // The same ends again are another flow, but repeats that were held are told late.
        if total.closed.is_some_and(|closed| record.time > closed) {
            *total = Total::default();
        }
        let more =
            (bytes_out.saturating_sub(total.bytes_out), bytes_in.saturating_sub(total.bytes_in));
        total.bytes_out = total.bytes_out.max(bytes_out);
        total.bytes_in = total.bytes_in.max(bytes_in);
        if record.hook == CLOSE {
            total.closed = Some(record.time);
        }
        Some(more)
    }
}
