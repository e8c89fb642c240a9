//! The one matcher.
//!
//! A generation is a forest of 256-way tries in one array of blocks. An address leads to its
//! destination class, the pair (app class, destination class) leads to an outcome or, where rules
//! name ports, to one more trie over protocol and port. A name leads to its name class by a hash
//! table of suffixes in the same blocks, and a name class to outcomes in the same way; of the
//! outcomes for the address and for the names it is known by, the one whose rule comes first stands.
//! No step looks at a rule, so the cost does not grow with their number; the compiler has walked
//! them all beforehand.
//!
//! A rule can take out by name what it matches by address, and the other way round. So there are
//! address rows for each *name group*, the names that take out the same of what is matched by
//! address, and name rows for each *address group*.
//!
//! What a step costs is the cache line that it has to wait for. So a node of the trie with few
//! different answers is not a block with a cell for each byte but one line of such a block, which
//! makes the tables of the whole world an eighth as large.

use crate::{
    flow::{Address, Destination, has_ports, is_global_v4},
    forget::forget,
    layout::Header,
    name_table::{self, Packed},
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

    /// The block or line that this leads to.
    #[inline(always)]
    pub const fn index(self) -> u32 {
        self.0 & !(NODE | IN_LINE)
    }

    /// The cell for `byte` in the node that this leads to.
    #[inline(always)]
    pub fn follow(self, tables: &(impl Tables + ?Sized), byte: u8) -> Result<Self, Fault> {
        let index = self.index();
        if self.0 & IN_LINE == 0 {
            let block = tables.block(index).ok_or(Fault::Damaged)?;
            return Ok(Self(block[usize::from(byte)]));
        }
        let block = tables.block(index / LINE as u32).ok_or(Fault::Damaged)?;
        // A line of its own: an index that is put together of two is any number to kernel 6.1.
        let line = &block.as_chunks::<LINE>().0[index as usize % LINE];
        // How many runs start at `byte` or before it, two starts at a time: in each half,
        // 256 + byte - start has the bit 8 if the start is not past the byte.
        const HALVES: u32 = 0x0001_0001;
        let byte = (u32::from(byte) | 0x100) * HALVES;
        let mut found = 0;
        for &starts in &line[..STARTS] {
            for two in [starts, starts >> 8] {
                found += ((byte - (two & (0xff * HALVES))) >> 8) & HALVES;
            }
        }
        let run = (found + (found >> 16)) as usize;
        Ok(Self(line[(STARTS + run) % LINE]))
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

    /// Reads it from a leaf, or the fault in its place.
    #[inline(always)]
    pub const fn from_leaf(cell: Cell) -> Result<Self, Fault> {
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
///
/// The steps that go from block to block are methods, so that the kernel programs can make functions
/// of them that the verifier goes through apart from what comes before and after.
pub trait Tables {
    /// Block `index`; `None` past the end.
    fn block(&self, index: u32) -> Option<&[u32; BLOCK]>;

    /// The destination class of an address, from the root of its family on; 0 if the tables are
    /// damaged.
    #[inline(always)]
    fn class(&self, root: Cell, key: Address) -> u32 {
        walk(self, root, key)
    }

    /// The leaf that a row has for a protocol and port, or the fault in its place.
    #[inline(always)]
    fn leaf(&self, rows: u32, row: u32, service: Service) -> Cell {
        row_leaf(self, rows, row, service)
    }

    /// The leaf of an address that is known by a name, or the fault in its place.
    #[inline(always)]
    fn named(
        &self,
        header: &Header,
        app: u32,
        place: Place,
        service: Service,
        named: &Named,
    ) -> Cell
    where
        Self: Sized,
    {
        decide_leaf(self, header, app, place, service, named)
    }

    /// The entry of the name table for a suffix.
    #[inline(always)]
    fn entry(&self, header: &Header, hash: u64) -> Packed {
        name_table::lookup(self, header, hash)
    }

    /// Word `index` of the table that starts at block `first`; `u32::MAX`, which no table holds, if
    /// it is not there.
    #[inline(always)]
    fn word(&self, first: u32, index: u32) -> u32 {
        match self.block(first.wrapping_add(index >> 8)) {
            Some(block) => block[(index & 0xff) as usize],
            None => u32::MAX,
        }
    }
}

/// Candidates of one name that any rule speaks of: the name asked for and the names it is an alias
/// of.
pub const CANDIDATES: usize = 4;

/// What rules know of a name: the classes of its candidates, 0 where there is none, and which of them
/// come from somebody whose word can widen what an app may reach.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Named {
    /// Name classes: first that of the name asked for.
    pub classes: [u32; CANDIDATES],
    /// Bits by candidate: a trusted resolver gave the address for the name.
    pub trusted: u32,
}

impl Named {
    /// [`Named::trusted`] with a bit for each candidate.
    pub const TRUSTED: u32 = (1 << CANDIDATES) - 1;

    /// Adds the class of a name that the name asked for is an alias of, told by somebody trusted (1) or not
    /// (0): whether there is room for it.
    #[inline(always)]
    pub fn add_alias(&mut self, class: u32, trusted: u32) -> bool {
        if class == 0 {
            return true;
        }
        for place in 1..CANDIDATES {
            let there = self.classes[place];
            if there == 0 {
                self.classes[place] = class;
                self.trusted |= trusted << place;
                return true;
            }
            if there == class && self.trusted >> place & 1 == trusted {
                return true;
            }
        }
        false
    }
}

/// Words of the record of a name class.
pub const RECORD: usize = 4;

/// What the tables say of a name class beside its rows.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct NameRecord {
    /// The leaf of a question for such a name.
    pub question: u32,
    /// The name group that holds for address rows if the name is trusted.
    pub group_trusted: u32,
    /// The name group if it is not.
    pub group_untrusted: u32,
}

impl NameRecord {
    /// As it lies in a block.
    pub const fn words(self) -> [u32; RECORD] {
        [self.question, self.group_trusted, self.group_untrusted, 0]
    }
}

/// Where an address stands in the tables: as one number, because the kernel programs have little room
/// for more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(pub u64);

/// What is allowed of the inner address counts.
const INNER_COUNTS: u64 = 1 << 62;
/// Tells an inner address that the tables have no class for from none.
const HAS_INNER: u64 = 1 << 63;

impl Place {
    /// The destination class of the address; 0 if the tables are damaged.
    const fn class(self) -> u32 {
        self.0 as u32
    }

    /// The destination class of the IPv4 address inside.
    const fn inner(self) -> u32 {
        (self.0 >> 32) as u32 & !(3 << 30)
    }
}

/// Protocol and port, as one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service(pub u32);

impl Service {
    /// Of a destination.
    #[inline(always)]
    pub const fn of(destination: &Destination) -> Self {
        let Destination { port, protocol, port_hidden, .. } = *destination;
        Self(port as u32 | (protocol as u32) << 16 | ((port_hidden != 0) as u32) << 24)
    }

    const fn port(self) -> u16 {
        self.0 as u16
    }

    const fn protocol(self) -> u8 {
        (self.0 >> 16) as u8
    }

    const fn port_hidden(self) -> bool {
        self.0 >> 24 & 1 != 0
    }
}

/// Decides what `app` gets at `destination`, which is known by `named`.
#[inline(always)]
pub fn evaluate(
    tables: &impl Tables,
    header: &Header,
    app: u32,
    destination: &Destination,
    named: &Named,
) -> Result<Outcome, Fault> {
    let place = place(tables, header, destination.address);
    decide(tables, header, app, place, Service::of(destination), named)
}

/// Looks an address up.
///
/// An IPv6 address that carries an IPv4 address inside is judged as both, and of the two decisions
/// the one whose rule comes first stands; but what is allowed of the inner address counts only if
/// that is a global one, as RFC 3056 and RFC 6052 ask of it: nobody routes 2002:a00:1::1 to the
/// neighbour 10.0.0.1.
#[inline(always)]
pub fn place(tables: &impl Tables, header: &Header, address: Address) -> Place {
    let (root, key) = match address.as_v4() {
        Some(bits) => v4(header, bits),
        None => (Cell(header.root_v6), address),
    };
    let class = tables.class(root, key);
    let inner = match address.embedded_v4() {
        None => 0,
        Some(bits) => {
            let (root, key) = v4(header, bits);
            let counts = if is_global_v4(bits) { INNER_COUNTS } else { 0 };
            u64::from(tables.class(root, key)) << 32 | counts | HAS_INNER
        }
    };
    Place(u64::from(class) | inner)
}

/// Decides about an address that was looked up.
#[inline(always)]
pub fn decide(
    tables: &impl Tables,
    header: &Header,
    app: u32,
    place: Place,
    service: Service,
    named: &Named,
) -> Result<Outcome, Fault> {
    Outcome::from_leaf(decide_leaf(tables, header, app, place, service, named))
}

/// As [`decide`], the leaf or the fault in its place.
#[inline(always)]
fn decide_leaf(
    tables: &impl Tables,
    header: &Header,
    app: u32,
    place: Place,
    service: Service,
    named: &Named,
) -> Cell {
    let [a, b, c, d] = named.classes;
    let mut group = 0;
    if header.name_groups > 1 {
        // The lowest, whichever candidate asks for it; less one, so that none (0) is the highest.
        let of = |group: u32, class: u32, place: u32| match class {
            0 => group,
            _ => {
                let of = name_group(tables, header, app, class, named.trusted >> place & 1);
                group.wrapping_sub(1).min(of.wrapping_sub(1)).wrapping_add(1)
            }
        };
        group = of(of(of(of(group, a, 0), b, 1), c, 2), d, 3);
    }
    let outer = of_class(tables, header, app, place.class(), group, service, named);
    if place.0 & HAS_INNER == 0 {
        return outer;
    }
    let inner = of_class(tables, header, app, place.inner(), group, service, named);
    let counts = verdict_of(inner) == Verdict::Deny as u32 || place.0 & INNER_COUNTS != 0;
    if counts || verdict_of(inner) == 0 { first(outer, inner) } else { outer }
}

/// The leaf for one destination class and the candidates of a name.
#[inline(always)]
fn of_class(
    tables: &impl Tables,
    header: &Header,
    app: u32,
    class: u32,
    group: u32,
    service: Service,
    named: &Named,
) -> Cell {
    let known = app < header.apps.classes.max(1);
    if !known || class == 0 || class >= header.classes || group >= header.name_groups {
        return DAMAGED;
    }
    let row = app.wrapping_mul(header.name_groups).wrapping_add(group);
    let row = row.wrapping_mul(header.classes).wrapping_add(class);
    let mut leaf = tables.leaf(header.rows, row, service);
    let mut address_group = 0;
    if header.address_groups > 1 {
        address_group = tables.word(header.address_group_of, class);
    }
    let by_name = |leaf: Cell, name_class: u32, place: u32| {
        // What is not known of one of them is not known of all: another could come before it.
        if name_class == 0 || verdict_of(leaf) == 0 {
            return leaf;
        }
        if name_class >= header.name_classes || address_group >= header.address_groups {
            return DAMAGED;
        }
        let row = app.wrapping_mul(header.name_classes).wrapping_add(name_class);
        let row = row.wrapping_mul(header.address_groups).wrapping_add(address_group);
        let row = row.wrapping_mul(2).wrapping_add(named.trusted >> place & 1);
        let by_name = tables.leaf(header.name_rows, row, service);
        if by_name == NOTHING {
            leaf
        } else if verdict_of(by_name) == 0 {
            by_name
        } else {
            first(leaf, by_name)
        }
    };
    // One by one: the kernel's verifier would follow an array through a loop, in memory.
    let [a, b, c, d] = named.classes;
    leaf = by_name(leaf, a, 0);
    leaf = by_name(leaf, b, 1);
    leaf = by_name(leaf, c, 2);
    leaf = by_name(leaf, d, 3);
    leaf
}

/// Names of different kinds that are kept of an address for one app.
pub const NAMES: usize = 4;

/// What the names of an address come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weighed {
    /// The outcome's leaf, see [`Weighed::outcome`]. Where names differ, that of one that is denied.
    pub leaf: Cell,
    /// Index of the name that the outcome is of; [`NAMES`] if there is none.
    pub which: u32,
    /// How many names there are.
    pub names: u32,
    /// 1 if one is denied and another is not.
    pub differ: u32,
}

impl Weighed {
    /// The same, of which the verifier knows nothing.
    #[inline(always)]
    fn forget(self) -> Self {
        Self {
            leaf: Cell(forget(self.leaf.0)),
            which: forget(self.which),
            names: forget(self.names),
            differ: forget(self.differ),
        }
    }

    /// The outcome.
    #[inline(always)]
    pub const fn outcome(&self) -> Result<Outcome, Fault> {
        Outcome::from_leaf(self.leaf)
    }
}

/// Decides about an address by each of the names that it is known by. `name` says what is known of the name with an index, and whether it still holds.
#[inline(always)]
pub fn weigh<'a>(
    tables: &impl Tables,
    header: &Header,
    app: u32,
    place: Place,
    service: Service,
    name: impl Fn(usize) -> (bool, &'a Named),
) -> Weighed {
    let mut weighed = Weighed { leaf: NOTHING, which: NAMES as u32, names: 0, differ: 0 };
    for index in 0..NAMES {
        let (holds, named) = name(index);
        if !holds {
            continue;
        }
        let leaf = tables.named(header, app, place, service, named);
        let passes = |leaf: Cell| matches!(verdict_of(leaf), 1 | 2);
        let differs = weighed.names != 0 && passes(leaf) != passes(weighed.leaf);
        let stands = if weighed.names == 0 {
            false
        } else if differs {
            passes(leaf)
        } else {
            first(weighed.leaf, leaf) == weighed.leaf
        };
        weighed.differ |= u32::from(differs);
        weighed.names += 1;
        if !stands {
            weighed.leaf = leaf;
            weighed.which = index as u32;
        }
        // Or the verifier follows how many names there were, and which.
        weighed = weighed.forget();
    }
    weighed
}

/// Decides about a question for a name of `class`, by the rules that match names: an outcome's leaf
/// or the fault in its place.
#[inline(always)]
pub fn question(tables: &impl Tables, header: &Header, app: u32, class: u32) -> Cell {
    if class >= header.name_classes {
        return DAMAGED;
    }
    let record = app.wrapping_mul(header.name_classes).wrapping_add(class);
    Cell(tables.word(header.name_records, record.wrapping_mul(RECORD as u32)))
}

#[inline(always)]
fn name_group(tables: &impl Tables, header: &Header, app: u32, class: u32, trusted: u32) -> u32 {
    let record = app.wrapping_mul(header.name_classes).wrapping_add(class);
    let member = if trusted != 0 { 1 } else { 2 };
    tables.word(header.name_records, record.wrapping_mul(RECORD as u32).wrapping_add(member))
}

/// Leaves without a verdict, in place of an outcome: with plain numbers the compiler leaves nothing
/// unset, which the kernel's verifier forbids to look at.
const NOTHING: Cell = Cell::leaf(0);
const PORT_HIDDEN: Cell = Cell::leaf(1);
/// Some table is not what it should be.
pub const DAMAGED: Cell = Cell::leaf(2);

#[inline(always)]
const fn verdict_of(leaf: Cell) -> u32 {
    leaf.0 >> 29
}

/// Of two leaves, the one whose rule comes first.
#[inline(always)]
fn first(one: Cell, other: Cell) -> Cell {
    if verdict_of(one) == 0 || verdict_of(other) == 0 {
        // What one of them denies for certain is denied, whatever is not known of the other.
        let denies = |leaf| verdict_of(leaf) == Verdict::Deny as u32;
        return if denies(one) || (verdict_of(one) == 0 && !denies(other)) { one } else { other };
    }
    if other.0 & MAX_DECISIONS < one.0 & MAX_DECISIONS { other } else { one }
}

/// Where the look-up of an IPv4 address starts, and with which key.
#[inline(always)]
const fn v4(header: &Header, bits: u32) -> (Cell, Address) {
    (Cell(header.root_v4), Address { high: (bits as u64) << 32, low: 0 })
}

/// The leaf of a row for a protocol and port, or the fault in its place.
#[inline(always)]
fn row_leaf(tables: &(impl Tables + ?Sized), rows: u32, row: u32, service: Service) -> Cell {
    let rows = Cell::block(rows.wrapping_add(row >> 8));
    let leaf = match rows.follow(tables, row as u8) {
        Ok(cell) => by_port(tables, cell, service),
        Err(fault) => Err(fault),
    };
    match leaf {
        Ok(leaf) => leaf,
        Err(Fault::PortHidden) => PORT_HIDDEN,
        Err(Fault::Damaged) => DAMAGED,
    }
}

/// The trie over (protocol, high byte of the port, low byte of the port).
#[inline(always)]
fn by_port(tables: &(impl Tables + ?Sized), cell: Cell, service: Service) -> Result<Cell, Fault> {
    if cell.is_leaf() {
        return Ok(cell);
    }
    let cell = cell.follow(tables, service.protocol())?;
    if cell.is_leaf() {
        return Ok(cell);
    }
    // A copy, so that the verifier does not follow each protocol through all that comes after.
    if service.port_hidden() && has_ports(forget(u32::from(service.protocol())) as u8) {
        return Err(Fault::PortHidden);
    }
    let cell = cell.follow(tables, (service.port() >> 8) as u8)?;
    if cell.is_leaf() {
        return Ok(cell);
    }
    let cell = cell.follow(tables, service.port() as u8)?;
    if cell.is_leaf() { Ok(cell) } else { Err(Fault::Damaged) }
}

/// Follows the bytes of `key`, the first one first, until a leaf; 0 if there is none.
#[inline(always)]
fn walk(tables: &(impl Tables + ?Sized), root: Cell, key: Address) -> u32 {
    let Address { mut high, mut low } = key;
    let mut cell = root;
    for _ in 0..size_of::<Address>() {
        if cell.is_leaf() {
            return cell.0;
        }
        cell = match cell.follow(tables, (high >> 56) as u8) {
            Ok(cell) => cell,
            Err(_) => return 0,
        };
        high = high << 8 | low >> 56;
        low <<= 8;
    }
    if cell.is_leaf() { cell.0 } else { 0 }
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
