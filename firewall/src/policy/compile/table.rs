//! The name table, as [`firewall_common::name_table`] reads it.

use firewall_common::{
    evaluate::{BLOCK, LINE},
    layout::Header,
    name_table::{ENTRIES, Entry, MAX_CHAIN, line, place},
};

/// Entries for which there is a line, so that few lines need another one.
const ENTRIES_PER_LINE: usize = 3;

/// Appends the table of `entries`, whose hashes ascend, and says in `header` where it is.
pub fn append(entries: &[(u64, Entry)], blocks: &mut Vec<[u32; BLOCK]>, header: &mut Header) {
    if entries.is_empty() {
        return;
    }
    let (lines, more) = lines(entries);
    header.names = blocks.len() as u32;
    header.name_lines = lines;
    let first = blocks.len() * (BLOCK / LINE);
    let all = first + lines as usize + more;
    blocks.resize(all.div_ceil(BLOCK / LINE), [0; BLOCK]);
    let mut write = |number: usize, words: [u32; LINE]| {
        let at = number % (BLOCK / LINE) * LINE;
        blocks[number / (BLOCK / LINE)][at..at + LINE].copy_from_slice(&words);
    };
    let mut free = first + lines as usize;
    for group in entries.chunk_by(|(a, _), (b, _)| place(*a, lines) == place(*b, lines)) {
        let mut number = first + place(group[0].0, lines) as usize;
        let mut chunks = group.chunks(ENTRIES).peekable();
        while let Some(chunk) = chunks.next() {
            let next = if chunks.peek().is_some() { free } else { 0 };
            write(number, line(chunk, next as u32));
            number = free;
            free += usize::from(next != 0);
        }
    }
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
