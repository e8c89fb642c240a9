//! Intervals into 256-way tries, with equal blocks shared.

use std::collections::HashMap;

use firewall_common::evaluate::{BLOCK, Cell};

/// Tries that share their blocks.
#[derive(Default)]
pub struct Forest {
    /// The blocks; a [`Cell`] names them by index.
    pub blocks: Vec<[u32; BLOCK]>,
    numbers: HashMap<[u32; BLOCK], u32>,
}

impl Forest {
    /// Adds a trie over keys of `bytes` bytes and returns its root.
    ///
    /// `steps` ascend, the first at 0; each holds from its start up to the next.
    pub fn insert(&mut self, steps: &[(u128, Cell)], bytes: u32) -> Cell {
        self.node(steps, 0, bytes)
    }

    /// The cell for the keys from `base` on that share all but their last `bytes` bytes. The first
    /// step starts at `base` or before it, and none starts after the last key.
    fn node(&mut self, steps: &[(u128, Cell)], base: u128, bytes: u32) -> Cell {
        if let [(_, cell)] = steps {
            return *cell;
        }
        let below = (bytes - 1) * 8;
        let mut block = [0; BLOCK];
        let mut rest = steps;
        for (index, slot) in block.iter_mut().enumerate() {
            let start = base + ((index as u128) << below);
            let last = start + ((1u128 << below) - 1);
            // The last step at or before the first key holds there.
            let first = rest.partition_point(|(at, _)| *at <= start).saturating_sub(1);
            let len = rest[first..].partition_point(|(at, _)| *at <= last);
            *slot = self.node(&rest[first..first + len], start, bytes - 1).0;
            rest = &rest[first + len - 1..];
        }
        if block.iter().all(|cell| *cell == block[0]) {
            return Cell(block[0]);
        }
        if let Some(number) = self.numbers.get(&block) {
            return Cell::block(*number);
        }
        let number = self.blocks.len() as u32;
        self.blocks.push(block);
        self.numbers.insert(block, number);
        Cell::block(number)
    }
}
