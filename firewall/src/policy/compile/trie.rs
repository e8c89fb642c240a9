//! Intervals into 256-way tries, with equal nodes shared.

use std::collections::HashMap;

use firewall_common::evaluate::{BLOCK, Cell, LINE, LINE_RUNS, line};

/// Tries that share their nodes.
#[derive(Default)]
pub struct Forest {
    /// The blocks; a [`Cell`] names them, or their lines, by index.
    pub blocks: Vec<[u32; BLOCK]>,
    numbers: HashMap<[u32; BLOCK], u32>,
    lines: HashMap<[u32; LINE], u32>,
    /// Where the next line goes.
    free_line: u32,
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
        let mut runs: Vec<(u8, Cell)> = Vec::with_capacity(LINE_RUNS);
        // The first one holds at the first key of `byte`.
        let mut rest = steps;
        let mut byte = 0;
        while byte <= u128::from(u8::MAX) {
            let start = base + (byte << below);
            let last = start + ((1u128 << below) - 1);
            let changes = rest.get(1).is_some_and(|(at, _)| *at <= last);
            let cell = if changes {
                let len = rest.partition_point(|(at, _)| *at <= last);
                let cell = self.node(&rest[..len], start, bytes - 1);
                rest = &rest[len - 1..];
                cell
            } else {
                rest[0].1
            };
            if runs.last().is_none_or(|(_, before)| *before != cell) {
                runs.push((byte as u8, cell));
            }
            // All bytes before that of the next step are as this one.
            byte = match rest.get(1) {
                _ if changes => byte + 1,
                Some((at, _)) => (at - base) >> below,
                None => break,
            };
            if rest.get(1).is_some_and(|(at, _)| *at == base + (byte << below)) {
                rest = &rest[1..];
            }
        }
        self.of_runs(&runs)
    }

    /// The cell for a node of `runs`, the first from byte 0: each holds up to the next.
    pub fn node_of(&mut self, runs: &[(u8, Cell)]) -> Cell {
        let mut runs = runs.to_vec();
        runs.dedup_by_key(|(_, cell)| *cell);
        self.of_runs(&runs)
    }

    fn of_runs(&mut self, runs: &[(u8, Cell)]) -> Cell {
        match runs.len() {
            1 => runs[0].1,
            2..=LINE_RUNS => self.line(line(runs)),
            _ => self.block(block(runs)),
        }
    }

    /// A node of so many runs that [`Self::fill`] says later, shared with nobody.
    pub fn reserve(&mut self, runs: usize) -> Cell {
        match runs {
            ..=LINE_RUNS => Cell::line(self.next_line()),
            _ => {
                self.blocks.push([0; BLOCK]);
                Cell::block(self.blocks.len() as u32 - 1)
            }
        }
    }

    /// Fills a node that was reserved for so many runs.
    pub fn fill(&mut self, cell: Cell, runs: &[(u8, Cell)]) {
        match runs.len() {
            ..=LINE_RUNS => self.write_line(cell.index(), line(runs)),
            _ => self.blocks[cell.index() as usize] = block(runs),
        }
    }

    fn block(&mut self, block: [u32; BLOCK]) -> Cell {
        if let Some(number) = self.numbers.get(&block) {
            return Cell::block(*number);
        }
        let number = self.blocks.len() as u32;
        self.blocks.push(block);
        self.numbers.insert(block, number);
        Cell::block(number)
    }

    fn line(&mut self, line: [u32; LINE]) -> Cell {
        if let Some(number) = self.lines.get(&line) {
            return Cell::line(*number);
        }
        let number = self.next_line();
        self.write_line(number, line);
        self.lines.insert(line, number);
        Cell::line(number)
    }

    fn next_line(&mut self) -> u32 {
        if (self.free_line as usize).is_multiple_of(BLOCK / LINE) {
            self.free_line = (self.blocks.len() * (BLOCK / LINE)) as u32;
            self.blocks.push([0; BLOCK]);
        }
        self.free_line += 1;
        self.free_line - 1
    }

    fn write_line(&mut self, number: u32, line: [u32; LINE]) {
        let (block, place) = (number as usize * LINE / BLOCK, number as usize * LINE % BLOCK);
        self.blocks[block][place..place + LINE].copy_from_slice(&line);
    }
}

fn block(runs: &[(u8, Cell)]) -> [u32; BLOCK] {
    let mut block = [0; BLOCK];
    for (start, cell) in runs {
        block[usize::from(*start)..].fill(cell.0);
    }
    block
}

#[cfg(test)]
mod tests {
    use firewall_common::evaluate::Tables;
    use proptest::prelude::*;

    use super::*;

    impl Tables for Forest {
        fn block(&self, index: u32) -> Option<&[u32; BLOCK]> {
            self.blocks.get(index as usize)
        }
    }

    proptest! {
        /// Close to each other, so that nodes have all numbers of runs, and at the boundaries.
        #[test]
        fn every_key_finds_its_step(
            starts in prop::collection::btree_set(0u128..1 << 24, 0..200),
            near in prop::collection::btree_set(0u128..300, 0..60),
            keys in prop::collection::vec(0u128..1 << 24, 100),
        ) {
            let starts: std::collections::BTreeSet<u128> =
                starts.into_iter().chain(near).chain([0]).collect();
            let steps: Vec<(u128, Cell)> = starts
                .iter()
                .enumerate()
                .map(|(place, at)| (*at, Cell::leaf(place as u32 % 40 + 1)))
                .collect();
            let mut forest = Forest::default();
            let root = forest.insert(&steps, 3);
            for key in keys.into_iter().chain(starts.iter().flat_map(|at| [*at, at.saturating_sub(1)])) {
                let mut cell = root;
                for byte in &(key as u32).to_be_bytes()[1..] {
                    if cell.is_leaf() {
                        break;
                    }
                    cell = cell.follow(&forest, *byte).unwrap();
                }
                let (_, want) = steps.iter().rfind(|(at, _)| *at <= key).unwrap();
                prop_assert_eq!(cell, *want, "{:#x}", key);
            }
        }
    }
}
