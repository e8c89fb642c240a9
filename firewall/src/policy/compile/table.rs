//! The name table, as [`firewall_common::name_table`] reads it.

use firewall_common::{
    evaluate::{BLOCK, LINE},
    name_table::{ENTRIES, Entry, MAX_CHAIN, line, place},
};

/// Entries for which there is a line, so that few lines need another one.
const ENTRIES_PER_LINE: usize = 3;

/// Where lines are for hashes to lead to, and all blocks.
pub struct Table {
    /// How many lines there are for hashes to lead to.
    pub lines: u32,
    /// With the lines that these go on with behind them.
    pub blocks: Vec<[u32; BLOCK]>,
}

/// The table of `entries`, whose hashes ascend, for a place from block `first` on.
pub fn table(entries: &[(u64, Entry)], first: usize) -> Table {
    if entries.is_empty() {
        return Table { lines: 0, blocks: Vec::new() };
    }
    let (lines, more) = lines(entries);
    let first = first * (BLOCK / LINE);
    let mut free = lines as usize;
    let mut blocks = vec![[0; BLOCK]; (free + more).div_ceil(BLOCK / LINE)];
    let mut write = |number: usize, words: [u32; LINE]| {
        let at = number % (BLOCK / LINE) * LINE;
        blocks[number / (BLOCK / LINE)][at..at + LINE].copy_from_slice(&words);
    };
    for group in entries.chunk_by(|(a, _), (b, _)| place(*a, lines) == place(*b, lines)) {
        let mut number = place(group[0].0, lines) as usize;
        let mut chunks = group.chunks(ENTRIES).peekable();
        while let Some(chunk) = chunks.next() {
            let goes_on = chunks.peek().is_some();
            write(number, line(chunk, if goes_on { (first + free) as u32 } else { 0 }));
            number = free;
            free += usize::from(goes_on);
        }
    }
    Table { lines, blocks }
}

/// How many lines there are for hashes to lead to, and how many that these go on with.
fn lines(entries: &[(u64, Entry)]) -> (u32, usize) {
    let mut lines = entries.len().div_ceil(ENTRIES_PER_LINE) as u32;
    loop {
        let (mut longest, mut more) = (0, 0);
        for group in entries.chunk_by(|(a, _), (b, _)| place(*a, lines) == place(*b, lines)) {
            let chain = group.len().div_ceil(ENTRIES);
            longest = longest.max(chain);
            more += chain - 1;
        }
        if longest <= MAX_CHAIN as usize {
            return (lines, more);
        }
        lines += lines / 2 + 1;
    }
}

#[cfg(test)]
mod tests {
    use firewall_common::{
        evaluate::Tables,
        layout::Header,
        name_table::{Keys, lookup},
    };
    use proptest::prelude::*;

    use super::*;

    struct Blocks(Vec<[u32; BLOCK]>);

    impl Tables for Blocks {
        fn block(&self, index: u32) -> Option<&[u32; BLOCK]> {
            self.0.get(index as usize)
        }
    }

    const KEYS: Keys = Keys { seed: 0x0123_4567_89ab_cdef, factor: 0x9e37_79b9_7f4a_7c15 };

    fn check(mut hashes: Vec<u64>, others: &[u64]) -> Result<Header, TestCaseError> {
        hashes.sort_unstable();
        hashes.dedup();
        let class = |place: u32| Entry { exact: place, below: 0x00ff_ffff - place };
        let entries: Vec<(u64, Entry)> =
            hashes.iter().zip(0..).map(|(hash, place)| (*hash, class(place))).collect();
        // Blocks before and behind are somebody else's.
        let mut blocks = vec![[u32::MAX; BLOCK]; 3];
        let Table { lines, blocks: table } = table(&entries, blocks.len());
        let names = blocks.len() as u32;
        let header = Header { names, name_lines: lines, ..Header::default() };
        blocks.extend(table);
        blocks.push([u32::MAX; BLOCK]);
        let blocks = Blocks(blocks);
        for (hash, entry) in &entries {
            prop_assert_eq!(lookup(&blocks, &header, *hash).entry(), Some(*entry));
        }
        for hash in others.iter().filter(|hash| hashes.binary_search(hash).is_err()) {
            prop_assert_eq!(lookup(&blocks, &header, *hash).entry(), None);
        }
        Ok(header)
    }

    proptest! {
        #[test]
        fn every_entry_is_found_and_no_other(
            hashes in prop::collection::vec(any::<u64>(), 1..400),
            others in prop::collection::vec(any::<u64>(), 50),
        ) {
            check(hashes, &others)?;
        }

        /// Hashes that lead to one line as long as there are few.
        #[test]
        fn chains_never_grow_too_long(
            near in prop::collection::vec(0..1u64 << 52, 1..60),
            rest in prop::collection::vec(any::<u64>(), 0..60),
        ) {
            let header = check(near.iter().chain(&rest).copied().collect(), &rest)?;
            prop_assert!(header.name_lines > 0);
        }
    }

    #[test]
    fn of_many_names_few_lines_go_on() {
        let hash = |number: u32| KEYS.hash(&format!("host-{number}.example.org"));
        let all: Vec<u64> = (0..50_000).map(hash).collect();
        let others: Vec<u64> = (50_000..60_000).map(hash).collect();
        let header = check(all.clone(), &others).unwrap();
        assert_eq!(header.name_lines, 16_667);
        let mut sorted: Vec<(u64, Entry)> =
            all.into_iter().map(|hash| (hash, Entry { exact: 1, below: 1 })).collect();
        sorted.sort_unstable_by_key(|(hash, _)| *hash);
        let (_, more) = lines(&sorted);
        assert!(more < 2_000, "{more}");
    }
}
