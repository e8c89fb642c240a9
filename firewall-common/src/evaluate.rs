//! The one matcher.
//!
//! A generation is a forest of 256-way tries in one array of blocks. An address leads to its
//! destination class, the pair (app class, destination class) leads to an outcome or, where rules
//! name ports, to one more trie over protocol and port. No step looks at a rule, so the cost does
//! not grow with their number; the compiler has walked them all beforehand.
//!
//! What a step costs is the cache line that it has to wait for. So a node of the trie with few
//! different answers is not a block with a cell for each byte but one line of such a block, which
//! makes the tables of the whole world an eighth as large.

use crate::{
    flow::{Address, Destination, has_ports, is_global_v4},
    forget::forget,
    layout::Header,
    verdict::Verdict,
};

/// Words in a block.
pub const BLOCK: usize = 256;

/// Words in a line: 64 bytes, what a processor reads at once.
pub const LINE: usize = 16;

/// Words of a line that say where its runs start, four starts in each.
const STARTS: usize = 3;

/// Runs that fit a line. The first starts at 0, which is not written.
pub const LINE_RUNS: usize = LINE - STARTS;

/// A 32-bit word of a block: a leaf with 31 bits, or the number of a further node of the trie.
///
/// The leaf 0 stands for "nothing here" and is never an answer.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cell(pub u32);

const NODE: u32 = 1 << 31;
const IN_LINE: u32 = 1 << 30;

impl Cell {
    /// A cell that answers `value`, which fits 31 bits.
    pub const fn leaf(value: u32) -> Self {
        Self(value & !NODE)
    }

    /// A cell that leads on to block `index`, which fits 30 bits: it has a cell for each value of
    /// the next byte.
    pub const fn block(index: u32) -> Self {
        Self(index & !IN_LINE | NODE)
    }

    /// A cell that leads on to line `index`, counted through all blocks, which fits 30 bits.
    pub const fn line(index: u32) -> Self {
        Self(index | NODE | IN_LINE)
    }

    /// Whether the trie ends here.
    #[inline(always)]
    pub const fn is_leaf(self) -> bool {
        self.0 & NODE == 0
    }

    /// The cell for `byte` in the node that this leads to.
    #[inline(always)]
    pub fn follow(self, tables: &impl Tables, byte: u8) -> Result<Self, Fault> {
        let index = self.0 & !(NODE | IN_LINE);
        if self.0 & IN_LINE == 0 {
            let block = tables.block(index).ok_or(Fault::Damaged)?;
            return Ok(Self(block[usize::from(byte)]));
        }
        let block = tables.block(index / LINE as u32).ok_or(Fault::Damaged)?;
        let line = index as usize % LINE * LINE;
        // How many runs start at `byte` or before it, two starts at a time: in each half,
        // 256 + byte - start has the bit 8 if the start is not past the byte.
        const HALVES: u32 = 0x0001_0001;
        let byte = (u32::from(byte) | 0x100) * HALVES;
        let mut found = 0;
        for word in 0..STARTS {
            let starts = block[line + word];
            for two in [starts, starts >> 8] {
                found += ((byte - (two & (0xff * HALVES))) >> 8) & HALVES;
            }
        }
        let run = (found + (found >> 16)) as usize;
        Ok(Self(block[line + (STARTS + run) % LINE]))
    }
}

/// The line of the runs, of which there are 2 to [`LINE_RUNS`]: each holds from its byte up to the
/// next, the first from 0.
pub fn line(runs: &[(u8, Cell)]) -> [u32; LINE] {
    let mut words = [0; LINE];
    for place in 0..LINE_RUNS {
        // The last run again where there is no other: starts count from its byte on, all at once.
        let Some((start, cell)) = runs.get(place).or(runs.last()) else { continue };
        words[STARTS + place] = cell.0;
        if let Some(before) = place.checked_sub(1) {
            words[before / 4] |= u32::from(*start) << (before % 4 * 8);
        }
    }
    words
}

/// What the matcher answers: a verdict and the number of the decision it rests on.
///
/// Decisions are numbered from 1 in the order in which their rules are tried, so of two decisions
/// the one with the lower number comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Outcome {
    /// Index into the generation's decisions; never 0.
    pub decision: u32,
    /// What happens.
    pub verdict: Verdict,
}

/// Decisions that fit a leaf beside the verdict.
pub const MAX_DECISIONS: u32 = (1 << 29) - 1;

impl Outcome {
    /// Packs it into a leaf.
    pub const fn cell(self) -> Cell {
        Cell::leaf((self.verdict as u32) << 29 | self.decision)
    }

    #[inline(always)]
    const fn from_leaf(cell: Cell) -> Result<Self, Fault> {
        match Verdict::from_wire((cell.0 >> 29) as u8) {
            Some(verdict) => Ok(Self { decision: cell.0 & MAX_DECISIONS, verdict }),
            None if cell.0 == PORT_HIDDEN.0 => Err(Fault::PortHidden),
            None => Err(Fault::Damaged),
        }
    }
}

/// Why there is no outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A block, row or leaf that must be there is not.
    Damaged,
    /// The outcome depends on a port that this packet does not show.
    PortHidden,
}

/// A generation's tables: BPF maps in the kernel, vectors in user space.
pub trait Tables {
    /// Block `index`; `None` past the end.
    fn block(&self, index: u32) -> Option<&[u32; BLOCK]>;
}

/// Decides what `app` gets at `destination`.
///
/// An IPv6 address that carries an IPv4 address inside is judged as both, and of the two decisions
/// the one whose rule comes first stands; but what is allowed of the inner address counts only if
/// that is a global one, as RFC 3056 and RFC 6052 ask of it: nobody routes 2002:a00:1::1 to the
/// neighbour 10.0.0.1.
#[inline(always)]
pub fn evaluate(
    tables: &impl Tables,
    header: &Header,
    app: u32,
    destination: &Destination,
) -> Result<Outcome, Fault> {
    let address = destination.address;
    let from = match address.as_v4() {
        Some(bits) => v4(header, bits),
        None => (Cell(header.root_v6), address),
    };
    let outer = decide(tables, header, app, from, destination);
    let leaf = match address.embedded_v4() {
        None => outer,
        Some(bits) => {
            either(outer, decide(tables, header, app, v4(header, bits), destination), bits)
        }
    };
    Outcome::from_leaf(leaf)
}

/// Leaves without a verdict, in place of an outcome: with plain numbers the compiler leaves nothing
/// unset, which the kernel's verifier forbids to look at.
const DAMAGED: Cell = Cell::leaf(0);
const PORT_HIDDEN: Cell = Cell::leaf(1);

/// Of the leaves for an IPv6 address and for the IPv4 address in it, the one that stands.
#[inline(always)]
fn either(outer: Cell, inner: Cell, bits: u32) -> Cell {
    let verdict = |leaf: Cell| leaf.0 >> 29;
    let denies = |leaf: Cell| verdict(leaf) == Verdict::Deny as u32;
    if verdict(outer) == 0 || verdict(inner) == 0 {
        // What one of them denies for certain is denied, whatever is not known of the other.
        return if denies(outer) || (verdict(outer) == 0 && !denies(inner)) {
            outer
        } else {
            inner
        };
    }
    let counts = denies(inner) || is_global_v4(bits);
    let comes_first = inner.0 & MAX_DECISIONS < outer.0 & MAX_DECISIONS;
    if comes_first && counts { inner } else { outer }
}

/// Where the look-up of an IPv4 address starts, and with which key.
#[inline(always)]
const fn v4(header: &Header, bits: u32) -> (Cell, Address) {
    (Cell(header.root_v4), Address { high: (bits as u64) << 32, low: 0 })
}

/// The leaf that an address leads to, or the fault in its place.
#[inline(always)]
fn decide(
    tables: &impl Tables,
    header: &Header,
    app: u32,
    from: (Cell, Address),
    destination: &Destination,
) -> Cell {
    match try_decide(tables, header, app, from, destination) {
        Ok(leaf) => leaf,
        Err(Fault::PortHidden) => PORT_HIDDEN,
        Err(Fault::Damaged) => DAMAGED,
    }
}

#[inline(always)]
fn try_decide(
    tables: &impl Tables,
    header: &Header,
    app: u32,
    (root, key): (Cell, Address),
    destination: &Destination,
) -> Result<Cell, Fault> {
    // The verifier is not to follow every length of the way here through all that comes after.
    let class = forget(walk(tables, root, key)?.0);
    if class == 0 || class >= header.classes {
        return Err(Fault::Damaged);
    }
    let row = app.wrapping_mul(header.classes).wrapping_add(class);
    let rows = Cell::block(header.rows.wrapping_add(row >> 8));
    by_port(tables, rows.follow(tables, row as u8)?, destination)
}

/// The trie over (protocol, high byte of the port, low byte of the port).
#[inline(always)]
fn by_port(tables: &impl Tables, cell: Cell, destination: &Destination) -> Result<Cell, Fault> {
    if cell.is_leaf() {
        return Ok(cell);
    }
    let cell = cell.follow(tables, destination.protocol)?;
    if cell.is_leaf() {
        return Ok(cell);
    }
    // A copy, so that the verifier does not follow each protocol through all that comes after.
    if destination.port_hidden != 0 && has_ports(forget(u32::from(destination.protocol)) as u8) {
        return Err(Fault::PortHidden);
    }
    let cell = cell.follow(tables, (destination.port >> 8) as u8)?;
    if cell.is_leaf() {
        return Ok(cell);
    }
    let cell = cell.follow(tables, destination.port as u8)?;
    if cell.is_leaf() { Ok(cell) } else { Err(Fault::Damaged) }
}

/// Follows the bytes of `key`, the first one first, until a leaf.
#[inline(always)]
fn walk(tables: &impl Tables, root: Cell, key: Address) -> Result<Cell, Fault> {
    let Address { mut high, mut low } = key;
    let mut cell = root;
    for _ in 0..size_of::<Address>() {
        if cell.is_leaf() {
            return Ok(cell);
        }
        cell = cell.follow(tables, (high >> 56) as u8)?;
        high = high << 8 | low >> 56;
        low <<= 8;
    }
    if cell.is_leaf() { Ok(cell) } else { Err(Fault::Damaged) }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct One([u32; BLOCK]);

    impl Tables for One {
        fn block(&self, index: u32) -> Option<&[u32; BLOCK]> {
            (index == 0).then_some(&self.0)
        }
    }

    #[test]
    fn every_byte_finds_its_run_in_a_line() {
        let of = |starts: &[u8]| -> Vec<(u8, Cell)> {
            starts.iter().zip(1..).map(|(start, leaf)| (*start, Cell::leaf(leaf))).collect()
        };
        let full: Vec<u8> = (0..LINE_RUNS as u8).map(|run| run * 20).collect();
        for starts in [&[0, 1][..], &[0, 255], &[0, 7, 8, 127, 128, 129], &full] {
            let runs = of(starts);
            let mut tables = One([0; BLOCK]);
            let at = 5;
            tables.0[at * LINE..][..LINE].copy_from_slice(&line(&runs));
            for byte in 0..=255 {
                let (_, want) = runs.iter().rfind(|(start, _)| *start <= byte).unwrap();
                assert_eq!(Cell::line(at as u32).follow(&tables, byte), Ok(*want), "{byte}");
            }
        }
    }
}
