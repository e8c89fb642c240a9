//! Reads the country data of the `iptocc` package: two binary files that index the registries'
//! delegated statistics for fast look-ups. Of the indexes only the ones that hold addresses are
//! read; the others narrow a search and add nothing.
//!
//! All integers are little endian. `v4.bin`: for each top 16 bits a `u32` whose two highest bits
//! say "mixed, the rest is the number of a bucket", "one country, the rest is its index" or
//! "none"; the country codes; for each mixed bucket where its transitions begin and what holds
//! before the first; the low 16 bits of all transitions; their country indexes.
//! `v6.bin`: for each top 16 bits a `u8`, the number of a bucket or 255; where the entries of each
//! bucket begin; three search indexes; the country codes; the irregular ranges; the entries, each
//! a prefix of 24 to 48 bits, or the number of an irregular range.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, bail, ensure};

use super::format::Transitions;

const NONE: u8 = 0xff;

/// Countries of addresses; a value is the two letters of the code, the first in the low byte.
pub struct Countries {
    pub v4: Transitions<u32>,
    pub v6: Transitions<u128>,
}

pub fn read(package: &Path) -> Result<Countries> {
    let file = |name: &str| {
        let path = package.join("src/data").join(name);
        fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    Ok(Countries {
        v4: read_v4(&file("v4.bin")?).context("v4.bin")?,
        v6: read_v6(&file("v6.bin")?).context("v6.bin")?,
    })
}

fn read_v4(bytes: &[u8]) -> Result<Transitions<u32>> {
    let mut input = Input(bytes);
    let tops = input.u32s(1 << 16)?;
    let codes = input.codes()?;
    let mixed = input.count()?;
    let bases = input.u32s(mixed + 1)?;
    let initial = input.take(mixed)?;
    let count = input.count()?;
    let offsets = input.u16s(count)?;
    let countries = input.take(count)?;
    let dense = input.count()?;
    input.take(dense * 17 * 2)?;
    input.end()?;

    let mut starts = Vec::new();
    for (top, entry) in (0_u32..).zip(&tops) {
        let low = entry & 0x3fff_ffff;
        match entry >> 30 {
            0 => {
                let bucket = low as usize;
                starts.push((top << 16, initial[bucket]));
                for index in bases[bucket] as usize..bases[bucket + 1] as usize {
                    starts.push((top << 16 | u32::from(offsets[index]), countries[index]));
                }
            }
            1 => starts.push((top << 16, u8::try_from(low)?)),
            2 => starts.push((top << 16, NONE)),
            tag => bail!("unknown tag {tag}"),
        }
    }
    let mut transitions = Transitions::default();
    for (index, (start, country)) in starts.iter().enumerate() {
        if *country != NONE {
            let end = starts.get(index + 1).map_or(u32::MAX, |(next, _)| next - 1);
            transitions.push(*start, end, code(&codes, *country)?)?;
        }
    }
    transitions.finish();
    Ok(transitions)
}

fn read_v6(bytes: &[u8]) -> Result<Transitions<u128>> {
    let mut input = Input(bytes);
    let buckets = input.take(1 << 16)?;
    let populated = input.count()?;
    let first = input.u32s(populated + 1)?;
    input.take(populated * 257 * 2)?;
    for _ in 0..2 {
        let count = input.count()?;
        input.take(count * 2 + count * 257 * 4)?;
    }
    let codes = input.codes()?;
    let irregular = input.count()?;
    let irregular = input.take(irregular * 33)?;
    let entries = input.count()?;
    let entries = input.take(entries * 6)?;
    input.end()?;

    let mut transitions = Transitions::default();
    for (top, bucket) in (0_u128..).zip(buckets).filter(|(_, bucket)| **bucket != NONE) {
        let bucket = usize::from(*bucket);
        for index in first[bucket] as usize..first[bucket + 1] as usize {
            let mut entry = Input(&entries[index * 6..][..6]);
            let number = entry.u32s(1)?[0];
            let (length, country) = (entry.take(1)?[0], entry.take(1)?[0]);
            if length == 0 {
                let range = &irregular[number as usize * 33..][..33];
                let start = u128::from_le_bytes(range[..16].try_into()?);
                let end = u128::from_le_bytes(range[16..32].try_into()?);
                transitions.push(start, end, code(&codes, range[32])?)?;
            } else {
                let start = top << 112 | u128::from(number) << 80;
                let end = start | (u128::MAX >> length);
                transitions.push(start, end, code(&codes, country)?)?;
            }
        }
    }
    transitions.finish();
    Ok(transitions)
}

fn code(codes: &[[u8; 2]], index: u8) -> Result<u32> {
    let code = codes.get(usize::from(index)).context("a country without a code")?;
    ensure!(code.iter().all(u8::is_ascii_uppercase), "the code {code:?}");
    Ok(u16::from_le_bytes(*code).into())
}

/// What is left to read.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length).context("cut short")?;
        self.0 = rest;
        Ok(taken)
    }

    fn u32s(&mut self, count: usize) -> Result<Vec<u32>> {
        let (chunks, _) = self.take(count * 4)?.as_chunks::<4>();
        Ok(chunks.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect())
    }

    fn u16s(&mut self, count: usize) -> Result<Vec<u16>> {
        let (chunks, _) = self.take(count * 2)?.as_chunks::<2>();
        Ok(chunks.iter().map(|bytes| u16::from_le_bytes(*bytes)).collect())
    }

    fn count(&mut self) -> Result<usize> {
        Ok(self.u32s(1)?[0] as usize)
    }

    fn codes(&mut self) -> Result<Vec<[u8; 2]>> {
        let count = self.count()?;
        Ok(self.take(count * 2)?.as_chunks::<2>().0.to_vec())
    }

    fn end(&self) -> Result<()> {
        ensure!(self.0.is_empty(), "{} bytes after the end", self.0.len());
        Ok(())
    }
}
