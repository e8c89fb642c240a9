//! The one matcher.
//!
//! A generation is a forest of 256-way tries in one array of blocks. An address leads to its
//! destination class, the pair (app class, destination class) leads to an outcome or, where rules
//! name ports, to one more trie over protocol and port. No step looks at a rule, so the cost does
//! not grow with their number; the compiler has walked them all beforehand.

use crate::{
    flow::{Address, Destination, has_ports, is_global_v4},
    layout::Header,
    verdict::Verdict,
};

/// Cells in a block: one for each value of a byte.
pub const BLOCK: usize = 256;

/// A 32-bit word of a block: a leaf with 31 bits, or the number of a further block.
///
/// The leaf 0 stands for "nothing here" and is never an answer.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cell(pub u32);

const POINTER: u32 = 1 << 31;

impl Cell {
    /// A cell that answers `value`, which fits 31 bits.
    pub const fn leaf(value: u32) -> Self {
        Self(value & !POINTER)
    }

    /// A cell that leads on to block `index`, which fits 31 bits.
    pub const fn block(index: u32) -> Self {
        Self(index | POINTER)
    }

    /// The block this leads to; `None` for a leaf.
    #[inline(always)]
    pub const fn next(self) -> Option<u32> {
        if self.0 & POINTER != 0 { Some(self.0 & !POINTER) } else { None }
    }
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
    /// The cell `index` of block `block`; `None` past the end.
    fn cell(&self, block: u32, index: u8) -> Option<Cell>;
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
    let outcome = match address.as_v4() {
        Some(bits) => evaluate_v4(tables, header, app, bits, destination)?,
        None => {
            let class = walk(tables, Cell(header.root_v6), address, 16)?;
            let outer = by_class(tables, header, app, class, destination);
            match address.embedded_v4() {
                None => outer?,
                Some(bits) => {
                    either(outer, evaluate_v4(tables, header, app, bits, destination), bits)?
                }
            }
        }
    };
    Ok(outcome)
}

/// Of the decisions on an IPv6 address and on the IPv4 address in it, the one that stands.
#[inline(always)]
fn either(
    outer: Result<Outcome, Fault>,
    inner: Result<Outcome, Fault>,
    bits: u32,
) -> Result<Outcome, Fault> {
    match (outer, inner) {
        (Ok(outer), Ok(inner)) => {
            let counts = !inner.verdict.passes() || is_global_v4(bits);
            Ok(if inner.decision < outer.decision && counts { inner } else { outer })
        }
        // What one of them denies for certain is denied, whatever the other would need to know.
        (Ok(one), Err(Fault::PortHidden)) | (Err(Fault::PortHidden), Ok(one))
            if !one.verdict.passes() =>
        {
            Ok(one)
        }
        (Err(fault), _) | (_, Err(fault)) => Err(fault),
    }
}

#[inline(always)]
fn evaluate_v4(
    tables: &impl Tables,
    header: &Header,
    app: u32,
    bits: u32,
    destination: &Destination,
) -> Result<Outcome, Fault> {
    let key = Address { high: (bits as u64) << 32, low: 0 };
    let class = walk(tables, Cell(header.root_v4), key, 4)?;
    by_class(tables, header, app, class, destination)
}

#[inline(always)]
fn by_class(
    tables: &impl Tables,
    header: &Header,
    app: u32,
    class: Cell,
    destination: &Destination,
) -> Result<Outcome, Fault> {
    if class.0 == 0 || class.0 >= header.classes {
        return Err(Fault::Damaged);
    }
    let row = app.wrapping_mul(header.classes).wrapping_add(class.0);
    let cell = tables.cell(header.rows.wrapping_add(row >> 8), row as u8).ok_or(Fault::Damaged)?;
    by_port(tables, cell, destination)
}

/// The trie over (protocol, high byte of the port, low byte of the port).
#[inline(always)]
fn by_port(tables: &impl Tables, cell: Cell, destination: &Destination) -> Result<Outcome, Fault> {
    let Some(block) = cell.next() else { return Outcome::from_leaf(cell) };
    let cell = tables.cell(block, destination.protocol).ok_or(Fault::Damaged)?;
    let Some(block) = cell.next() else { return Outcome::from_leaf(cell) };
    if destination.port_hidden != 0 && has_ports(destination.protocol) {
        return Err(Fault::PortHidden);
    }
    let cell = tables.cell(block, (destination.port >> 8) as u8).ok_or(Fault::Damaged)?;
    let Some(block) = cell.next() else { return Outcome::from_leaf(cell) };
    let cell = tables.cell(block, destination.port as u8).ok_or(Fault::Damaged)?;
    Outcome::from_leaf(cell)
}

/// Follows the bytes of `key`, the first one first, until a leaf; at most `bytes` of them.
#[inline(always)]
fn walk(tables: &impl Tables, root: Cell, key: Address, bytes: u32) -> Result<Cell, Fault> {
    let Address { mut high, mut low } = key;
    let mut cell = root;
    for _ in 0..bytes {
        let Some(block) = cell.next() else { return Ok(cell) };
        cell = tables.cell(block, (high >> 56) as u8).ok_or(Fault::Damaged)?;
        high = high << 8 | low >> 56;
        low <<= 8;
    }
    if cell.next().is_none() { Ok(cell) } else { Err(Fault::Damaged) }
}
