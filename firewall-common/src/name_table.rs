//! From a name to its class: a hash table of suffixes in a generation's blocks.
//!
//! An entry stands for a suffix at a label boundary and has two classes: that of the suffix as a
//! whole name and that of the names below it. Each class has in it what shorter suffixes say too, so
//! the longest suffix that has an entry answers, and a name costs a look-up for each of its labels.
//!
//! Suffixes are hashed from the right, byte by byte, with secrets of the generation, so that nobody
//! outside can make a name that falls together with another.

use crate::{
    evaluate::{BLOCK, LINE, Tables},
    forget::forget,
    layout::Header,
    name::{MAX_NAME, Text},
};

/// Suffixes of a name that are looked up. An entry has fewer labels than that.
pub const MAX_LABELS: usize = 32;

/// Entries in a line.
pub const ENTRIES: usize = 5;

/// Words of an entry.
const WORDS: usize = 3;

/// Lines that are followed from the one a hash leads to. The compiler makes the table larger until
/// that is enough.
pub const MAX_CHAIN: u32 = 4;

/// Name classes that fit an entry.
pub const MAX_CLASSES: u32 = 1 << 24;

const CHECK: u64 = (1 << 48) - 1;

/// Secrets of a generation.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keys {
    /// Where a hash starts.
    pub seed: u64,
    /// What it is multiplied by; odd.
    pub factor: u64,
}

impl Keys {
    /// Takes one more byte to the left into a hash.
    #[inline(always)]
    pub const fn step(self, state: u64, byte: u8) -> u64 {
        let state = (state ^ byte as u64).wrapping_mul(self.factor);
        state ^ state >> 32
    }

    /// The hash of the suffix that a state stands for.
    #[inline(always)]
    pub const fn finish(self, state: u64) -> u64 {
        let state = (state ^ self.seed).wrapping_mul(self.factor);
        state ^ state >> 29
    }

    /// The hash of a whole name or suffix.
    pub fn hash(self, name: &str) -> u64 {
        self.finish(name.bytes().rev().fold(self.seed, |state, byte| self.step(state, byte)))
    }
}

/// What the table says of a suffix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Class of the name that is this suffix.
    pub exact: u32,
    /// Class of the names below it.
    pub below: u32,
}

/// The line of up to [`ENTRIES`] suffixes by their hashes; `next` is the line that goes on with
/// more, counted through all blocks, or 0.
pub fn line(entries: &[(u64, Entry)], next: u32) -> [u32; LINE] {
    let mut words = [0; LINE];
    for ((hash, entry), to) in entries.iter().zip(words.chunks_exact_mut(WORDS)) {
        let check = check(*hash);
        to[0] = check as u32;
        to[1] = (check >> 32) as u32 | (entry.exact >> 8) << 16;
        to[2] = entry.exact << 24 | entry.below;
    }
    words[LINE - 1] = next;
    words
}

/// The part of a hash that an entry keeps; never 0, which is an empty place.
#[inline(always)]
const fn check(hash: u64) -> u64 {
    let check = hash & CHECK;
    if check == 0 { 1 } else { check }
}

/// Which of `lines` lines a hash leads to.
#[inline(always)]
pub const fn place(hash: u64, lines: u32) -> u32 {
    (((hash >> 32) * lines as u64) >> 32) as u32
}

/// An entry as one number, 0 for none: with plain numbers the compiler leaves nothing unset, which
/// the kernel's verifier forbids to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packed(pub u64);

const FOUND: u64 = 1 << 63;

impl Packed {
    /// What was found.
    pub const fn entry(self) -> Option<Entry> {
        if self.0 & FOUND == 0 {
            return None;
        }
        Some(Entry { exact: self.exact(), below: self.below() })
    }

    /// Class of the name that is this suffix.
    #[inline(always)]
    pub const fn exact(self) -> u32 {
        (self.0 >> 24) as u32 & (MAX_CLASSES - 1)
    }

    /// Class of the names below it.
    #[inline(always)]
    pub const fn below(self) -> u32 {
        self.0 as u32 & (MAX_CLASSES - 1)
    }
}

/// Looks a suffix up by its hash.
#[inline(always)]
pub fn lookup(tables: &(impl Tables + ?Sized), header: &Header, hash: u64) -> Packed {
    let check = check(hash);
    let first = header.names.wrapping_mul((BLOCK / LINE) as u32);
    let mut line = first.wrapping_add(place(hash, header.name_lines));
    for _ in 0..MAX_CHAIN {
        line = forget(line);
        let Some(block) = tables.block(line / LINE as u32) else { return Packed(0) };
        let at = line as usize % LINE * LINE;
        for entry in 0..ENTRIES {
            let at = at + entry * WORDS;
            if block[at] == check as u32 && block[at + 1] & 0xffff == (check >> 32) as u32 {
                let low = u64::from(block[at + 2]);
                return Packed(FOUND | u64::from(block[at + 1] >> 16) << 32 | low);
            }
        }
        line = block[at + LINE - 1];
        if line == 0 {
            break;
        }
    }
    Packed(0)
}

/// The hashes of the suffixes of a name.
///
/// They are taken some bytes with each step. So a step can be the body of a loop that the kernel's
/// verifier looks at once.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Suffixes {
    /// Of the last label, of the last two, and so on.
    pub hashes: [u64; MAX_LABELS],
    /// Of the whole name; until that is known, of what was read.
    pub whole: u64,
    /// Labels of the name; `hashes` has as many of them as fit.
    pub labels: u32,
    /// Bytes that were read, from the right.
    read: u32,
}

impl Suffixes {
    /// Bytes that a step takes at most.
    const BYTES: u32 = 16;

    /// Steps of the longest name.
    pub const STEPS: u32 = (MAX_NAME as u32).div_ceil(Self::BYTES);

    /// No name yet.
    pub const EMPTY: Self = Self { hashes: [0; MAX_LABELS], whole: 0, labels: 0, read: 0 };

    /// The suffixes of a name.
    pub fn of(keys: Keys, name: &Text) -> Self {
        let mut suffixes = Self::EMPTY;
        suffixes.start(keys);
        for _ in 0..Self::STEPS {
            if !suffixes.step(keys, name) {
                break;
            }
        }
        suffixes
    }

    /// Starts with a name.
    #[inline(always)]
    pub fn start(&mut self, keys: Keys) {
        self.whole = keys.seed;
        self.labels = 0;
        self.read = 0;
    }

    /// Reads on, and says whether there is more.
    #[inline(always)]
    pub fn step(&mut self, keys: Keys, name: &Text) -> bool {
        let mut state = self.whole;
        let mut read = self.read;
        for _ in 0..Self::BYTES {
            if read >= name.len {
                break;
            }
            read = read.wrapping_add(1);
            let byte = name.bytes[name.len.wrapping_sub(read) as usize & 255];
            if byte == b'.' {
                self.end_label(keys.finish(state));
            }
            state = keys.step(state, byte);
        }
        self.read = read;
        if read < name.len {
            self.whole = state;
            return true;
        }
        self.whole = keys.finish(state);
        self.end_label(self.whole);
        false
    }

    /// Of more labels than any entry has, the last place is for the whole name.
    #[inline(always)]
    fn end_label(&mut self, hash: u64) {
        let place = forget(self.labels).min(MAX_LABELS as u32 - 1);
        self.hashes[place as usize % MAX_LABELS] = hash;
        self.labels = place + 1;
    }

    /// The class of the name.
    #[inline(always)]
    pub fn class(&self, tables: &impl Tables, header: &Header) -> u32 {
        if header.name_lines == 0 {
            return 0;
        }
        let most = if self.labels < header.name_depth { self.labels } else { header.name_depth };
        for left in 0..MAX_LABELS as u32 {
            // From the longest down.
            let labels = forget(most.wrapping_sub(left));
            if labels == 0 || labels > MAX_LABELS as u32 {
                break;
            }
            let found = tables.entry(header, self.hashes[(labels as usize - 1) % MAX_LABELS]);
            if found.0 != 0 {
                return if labels == self.labels { found.exact() } else { found.below() };
            }
        }
        0
    }
}

const _: () = {
    assert!(ENTRIES * WORDS < LINE);
    assert!(size_of::<Keys>() == 16);
    assert!(size_of::<Suffixes>() == 8 * MAX_LABELS + 16);
};
