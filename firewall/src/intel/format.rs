//! The format of the embedded tables, both ways: `cargo xtask data` compiles this very file to
//! write what the library reads, so the two cannot drift apart.
//!
//! A *range table* maps addresses to numbers. It is a list of transitions: from this address on,
//! until the next transition, the value is this; 0 is "nothing known". All integers are little
//! endian, and a text is a `u16` length and UTF-8.
//!
//! ```text
//! magic    8 bytes   FWTABLE1
//! source   4 texts   name, version, date (ISO 8601), licence
//! v4, v6   each      u32 number of transitions, u32 length of the frame, a zstd frame with
//!                      the starts, each less the one before, in 4 (v4) or 16 (v6) byte planes
//!                      the values in 4 byte planes
//! ```
//!
//! A *name table* maps numbers to texts:
//!
//! ```text
//! magic    8 bytes   FWNAMES1
//! source   4 texts
//! names              u32 count, u32 length of all texts together, u32 length of the frame, a zstd
//!                      frame with the numbers, each less the one before, in 4 byte planes, the
//!                      lengths in 2 byte planes, the texts
//! ```
//!
//! A *byte plane* holds the same byte of all the numbers of a column, lowest first. Zero bytes,
//! of which delta-coded addresses are full, so lie side by side, where zstd finds them.

use std::fmt;

const TABLE_MAGIC: &[u8; 8] = b"FWTABLE1";
const NAMES_MAGIC: &[u8; 8] = b"FWNAMES1";
const LEVEL: i32 = 19;
/// No table comes near; keeps a damaged length from asking for all the memory there is.
const MAX_ENTRIES: usize = 1 << 24;
const MAX_TEXT: usize = 1 << 28;

/// Where a table comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// What its makers call it.
    pub name: String,
    /// Theirs.
    pub version: String,
    /// The day the data was made, `YYYY-MM-DD`.
    pub date: String,
    /// SPDX expression, and whom to credit.
    pub licence: String,
    /// Records of a file that said nothing usable, and were left out.
    pub unusable: usize,
}

/// Why bytes are not a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damaged(pub &'static str);

impl fmt::Display for Damaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Damaged {}

/// An address as a number.
pub trait Address: Copy + Ord + fmt::Debug {
    /// Its length in bytes.
    const BYTES: usize;
    /// The highest.
    const MAX: Self;
    /// The one after, if there is one.
    fn next(self) -> Option<Self>;
    /// As a number that holds every kind.
    fn wide(self) -> u128;
    /// Back again; the part above `BYTES` is lost.
    fn narrow(wide: u128) -> Self;
}

impl Address for u32 {
    const BYTES: usize = 4;
    const MAX: Self = Self::MAX;
    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }
    fn wide(self) -> u128 {
        self.into()
    }
    #[expect(clippy::cast_possible_truncation, reason = "documented")]
    fn narrow(wide: u128) -> Self {
        wide as Self
    }
}

impl Address for u128 {
    const BYTES: usize = 16;
    const MAX: Self = Self::MAX;
    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }
    fn wide(self) -> u128 {
        self
    }
    fn narrow(wide: u128) -> Self {
        wide
    }
}

/// The transitions of one address family: strictly ascending starts, and no value twice in a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transitions<A> {
    /// Where each begins.
    pub starts: Vec<A>,
    /// What holds from there on; 0 is nothing.
    pub values: Vec<u32>,
    /// The first address that no range pushed so far reaches; `None` when there is none left.
    free: Option<A>,
}

impl<A: Address> Default for Transitions<A> {
    fn default() -> Self {
        Self { starts: Vec::new(), values: Vec::new(), free: Some(A::narrow(0)) }
    }
}

impl<A: Address> Transitions<A> {
    /// Adds a range behind the others. Adjacent ranges of one value become one.
    ///
    /// # Errors
    /// The range is inverted, or begins before the end of the last one.
    pub fn push(&mut self, start: A, end: A, value: u32) -> Result<(), Damaged> {
        let free = self.free.ok_or(Damaged("a range beyond the last address"))?;
        if start < free || end < start {
            return Err(Damaged("ranges overlap or are out of order"));
        }
        if start > free {
            self.begin(free, 0);
        }
        self.begin(start, value);
        self.free = end.next();
        Ok(())
    }

    /// Closes the last range.
    pub fn finish(&mut self) {
        if let Some(free) = self.free.take() {
            self.begin(free, 0);
        }
    }

    fn begin(&mut self, start: A, value: u32) {
        if self.values.last().copied().unwrap_or(0) != value {
            self.starts.push(start);
            self.values.push(value);
        }
    }
}

/// Writes a range table.
///
/// # Errors
/// A column or a text is longer than its length field can say.
pub fn encode_table(
    source: &Source,
    v4: &Transitions<u32>,
    v6: &Transitions<u128>,
) -> Result<Vec<u8>, Damaged> {
    let mut out = TABLE_MAGIC.to_vec();
    encode_source(&mut out, source)?;
    encode_family(&mut out, v4)?;
    encode_family(&mut out, v6)?;
    Ok(out)
}

/// Reads a range table.
///
/// # Errors
/// The bytes are not one, are cut short, or break one of its rules.
pub fn decode_table(
    bytes: &[u8],
) -> Result<(Source, Transitions<u32>, Transitions<u128>), Damaged> {
    let mut input = Input(bytes);
    input.magic(TABLE_MAGIC)?;
    let source = decode_source(&mut input)?;
    let v4 = decode_family(&mut input)?;
    let v6 = decode_family(&mut input)?;
    input.end()?;
    Ok((source, v4, v6))
}

/// Writes a name table, of names in ascending order of their numbers.
///
/// # Errors
/// As [`encode_table`].
pub fn encode_names(source: &Source, names: &[(u32, &str)]) -> Result<Vec<u8>, Damaged> {
    let numbers: Vec<u32> = names.iter().map(|(number, _)| *number).collect();
    let lengths = names
        .iter()
        .map(|(_, name)| u16::try_from(name.len()).map_err(|_| Damaged("a name is too long")))
        .collect::<Result<Vec<_>, _>>()?;
    let text: String = names.iter().map(|(_, name)| *name).collect();
    let mut raw = Vec::new();
    encode_planes(&mut raw, 4, &deltas(&numbers));
    encode_planes(&mut raw, 2, &lengths.iter().map(|l| u128::from(*l)).collect::<Vec<_>>());
    raw.extend(text.as_bytes());

    let mut out = NAMES_MAGIC.to_vec();
    encode_source(&mut out, source)?;
    out.extend(length(names.len())?);
    out.extend(length(text.len())?);
    encode_frame(&mut out, &raw)?;
    Ok(out)
}

/// Reads a name table: the numbers, where each name ends in the text, and the text.
///
/// # Errors
/// As [`decode_table`].
pub fn decode_names(bytes: &[u8]) -> Result<(Source, Vec<u32>, Vec<u32>, String), Damaged> {
    let mut input = Input(bytes);
    input.magic(NAMES_MAGIC)?;
    let source = decode_source(&mut input)?;
    let count = input.length(MAX_ENTRIES)?;
    let text_length = input.length(MAX_TEXT)?;
    let raw = input.frame(count * 6 + text_length)?;
    input.end()?;

    let mut planes = Input(&raw);
    let numbers: Vec<u32> = ascending(planes.planes(4, count)?)?;
    let mut end = 0_usize;
    let ends = planes
        .planes::<u32>(2, count)?
        .into_iter()
        .map(|length| {
            end += length as usize;
            u32::try_from(end).map_err(|_| Damaged("names are too long"))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let text = String::from_utf8(planes.0.to_vec()).map_err(|_| Damaged("a name is not UTF-8"))?;
    if end != text.len() || !ends.iter().all(|end| text.is_char_boundary(*end as usize)) {
        return Err(Damaged("the lengths of the names do not add up"));
    }
    Ok((source, numbers, ends, text))
}

fn encode_source(out: &mut Vec<u8>, source: &Source) -> Result<(), Damaged> {
    for text in [&source.name, &source.version, &source.date, &source.licence] {
        let length = u16::try_from(text.len()).map_err(|_| Damaged("a text is too long"))?;
        out.extend(length.to_le_bytes());
        out.extend(text.as_bytes());
    }
    Ok(())
}

fn decode_source(input: &mut Input<'_>) -> Result<Source, Damaged> {
    let (name, version) = (input.text()?, input.text()?);
    let (date, licence) = (input.text()?, input.text()?);
    Ok(Source { name, version, date, licence, unusable: 0 })
}

fn encode_family<A: Address>(out: &mut Vec<u8>, family: &Transitions<A>) -> Result<(), Damaged> {
    let mut raw = Vec::new();
    encode_planes(&mut raw, A::BYTES, &deltas(&family.starts));
    encode_planes(&mut raw, 4, &family.values.iter().map(|v| u128::from(*v)).collect::<Vec<_>>());
    out.extend(length(family.starts.len())?);
    encode_frame(out, &raw)
}

fn decode_family<A: Address>(input: &mut Input<'_>) -> Result<Transitions<A>, Damaged> {
    let count = input.length(MAX_ENTRIES)?;
    let raw = input.frame(count * (A::BYTES + 4))?;
    let mut planes = Input(&raw);
    let starts = ascending(planes.planes(A::BYTES, count)?)?;
    let values: Vec<u32> = planes.planes(4, count)?;
    if values.first() == Some(&0) || values.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(Damaged("a transition changes nothing"));
    }
    Ok(Transitions { starts, values, free: None })
}

fn deltas<A: Address>(ascending: &[A]) -> Vec<u128> {
    let mut previous = 0;
    ascending
        .iter()
        .map(|number| {
            let delta = number.wide() - previous;
            previous = number.wide();
            delta
        })
        .collect()
}

/// Undoes [`deltas`] in place.
fn ascending<A: Address>(mut column: Vec<A>) -> Result<Vec<A>, Damaged> {
    let mut sum = 0_u128;
    for (index, number) in column.iter_mut().enumerate() {
        let delta = number.wide();
        if delta == 0 && index > 0 {
            return Err(Damaged("a number stands twice"));
        }
        sum = sum.checked_add(delta).ok_or(Damaged("a number is too high"))?;
        if sum > A::MAX.wide() {
            return Err(Damaged("a number is too high"));
        }
        *number = A::narrow(sum);
    }
    Ok(column)
}

fn encode_planes(out: &mut Vec<u8>, width: usize, column: &[u128]) {
    for byte in 0..width {
        out.extend(column.iter().map(|number| number.to_le_bytes()[byte]));
    }
}

fn encode_frame(out: &mut Vec<u8>, raw: &[u8]) -> Result<(), Damaged> {
    let frame = zstd::bulk::compress(raw, LEVEL).map_err(|_| Damaged("zstd failed"))?;
    out.extend(length(frame.len())?);
    out.extend(frame);
    Ok(())
}

fn length(length: usize) -> Result<[u8; 4], Damaged> {
    Ok(u32::try_from(length).map_err(|_| Damaged("a column is too long"))?.to_le_bytes())
}

/// What is left to read.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], Damaged> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Damaged("cut short"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn magic(&mut self, magic: &[u8; 8]) -> Result<(), Damaged> {
        if self.take(8)? == magic { Ok(()) } else { Err(Damaged("of another kind or version")) }
    }

    fn length(&mut self, max: usize) -> Result<usize, Damaged> {
        let bytes = self.take(4)?.try_into().map_err(|_| Damaged("cut short"))?;
        let length = u32::from_le_bytes(bytes) as usize;
        if length > max { Err(Damaged("a column is too long")) } else { Ok(length) }
    }

    fn text(&mut self) -> Result<String, Damaged> {
        let bytes = self.take(2)?.try_into().map_err(|_| Damaged("cut short"))?;
        let text = self.take(u16::from_le_bytes(bytes).into())?;
        String::from_utf8(text.to_vec()).map_err(|_| Damaged("a text is not UTF-8"))
    }

    fn frame(&mut self, raw_length: usize) -> Result<Vec<u8>, Damaged> {
        let length = self.length(MAX_TEXT)?;
        let raw = zstd::bulk::decompress(self.take(length)?, raw_length)
            .map_err(|_| Damaged("a frame does not decompress"))?;
        if raw.len() == raw_length { Ok(raw) } else { Err(Damaged("a frame is too short")) }
    }

    fn planes<A: Address>(&mut self, width: usize, count: usize) -> Result<Vec<A>, Damaged> {
        let mut column = vec![A::narrow(0); count];
        for byte in 0..width {
            for (number, part) in column.iter_mut().zip(self.take(count)?) {
                *number = A::narrow(number.wide() | u128::from(*part) << (8 * byte));
            }
        }
        Ok(column)
    }

    fn end(&self) -> Result<(), Damaged> {
        if self.0.is_empty() { Ok(()) } else { Err(Damaged("bytes after the end")) }
    }
}
