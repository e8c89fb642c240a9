//! From a destination to what it gets, and what holds when the tables have no answer.

use aya_ebpf::btf_maps::ArrayOfMaps;
use firewall_common::{
    evaluate::{BLOCK, Cell, Fault, Named, Tables, evaluate},
    flow::{Address, Destination},
    forget::forget,
    layout::{Active, Counter, Header, SLOTS, flags},
    name_table::Packed,
    verdict::{Reason, Verdict},
};

use crate::maps::{ACTIVE, BLOCKS, Blocks, HEADERS, count};

/// Every app is in this class until policies can tell them apart.
const ANY_APP: u32 = 0;

/// What a flow gets.
#[derive(Clone, Copy)]
pub struct Judgement {
    /// [`Verdict`] as its byte.
    pub verdict: u8,
    /// [`Reason`] as its byte, or 0 where the decision says.
    pub reason: u8,
    /// The decision it rests on; 0 if none was reached.
    pub decision: u32,
}

impl Judgement {
    /// One that no decision of the generation stands behind.
    pub const fn without_decision(verdict: Verdict, reason: Reason) -> Self {
        Self { verdict: verdict as u8, reason: reason as u8, decision: 0 }
    }

    /// Whether the packet or call goes on.
    pub const fn passes(self) -> bool {
        self.verdict == Verdict::Allow as u8 || self.verdict == Verdict::Audit as u8
    }

    /// The same judgement, of which the verifier knows nothing.
    #[inline(always)]
    pub fn forget(self) -> Self {
        Self {
            verdict: forget(u32::from(self.verdict)) as u8,
            reason: forget(u32::from(self.reason)) as u8,
            decision: forget(self.decision),
        }
    }
}

/// One generation's tables.
///
/// Each step is a global function: the verifier goes through it once, knowing nothing of its
/// arguments, and takes its result for any number.
pub struct Generation {
    slot: u32,
}

impl Tables for Generation {
    #[inline(always)]
    fn block(&self, index: u32) -> Option<&[u32; BLOCK]> {
        blocks(self.slot)?.get(index)
    }

    #[inline(always)]
    fn class(&self, root: Cell, key: Address) -> u32 {
        destination_class(self.slot, root.0, key.high, key.low)
    }

    #[inline(always)]
    fn leaf(&self, rows: u32, row: u32, to: &Destination) -> Cell {
        let to =
            u64::from(to.port_hidden) << 24 | u64::from(to.protocol) << 16 | u64::from(to.port);
        Cell(row_leaf(self.slot, rows, row, to))
    }

    #[inline(always)]
    fn entry(&self, _: &Header, hash: u64) -> Packed {
        Packed(name_entry(self.slot, hash))
    }

    #[inline(always)]
    fn word(&self, first: u32, index: u32) -> u32 {
        table_word(self.slot, first, index)
    }
}

/// The same without functions of their own.
struct Plain<'a>(&'a Blocks);

impl Tables for Plain<'_> {
    #[inline(always)]
    fn block(&self, index: u32) -> Option<&[u32; BLOCK]> {
        self.0.get(index)
    }
}

#[inline(always)]
fn blocks(slot: u32) -> Option<&'static Blocks> {
    let blocks: &ArrayOfMaps<Blocks, { SLOTS as usize }> = &BLOCKS;
    blocks.get(slot)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn destination_class(slot: u32, root: u32, high: u64, low: u64) -> u32 {
    match blocks(slot) {
        Some(blocks) => Plain(blocks).class(Cell(root), Address { high, low }),
        None => 0,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn row_leaf(slot: u32, rows: u32, row: u32, to: u64) -> u32 {
    let Some(blocks) = blocks(slot) else { return 0 };
    let destination = Destination {
        port: to as u16,
        protocol: (to >> 16) as u8,
        port_hidden: (to >> 24) as u8,
        ..Destination::default()
    };
    Plain(blocks).leaf(rows, row, &destination).0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn name_entry(slot: u32, hash: u64) -> u64 {
    let (Some(blocks), Some(header)) = (blocks(slot), HEADERS.get(slot)) else { return 0 };
    Plain(blocks).entry(header, hash).0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn table_word(slot: u32, first: u32, index: u32) -> u32 {
    match blocks(slot) {
        Some(blocks) => Plain(blocks).word(first, index),
        None => u32::MAX,
    }
}

/// The running generation.
#[inline(always)]
pub fn active() -> Active {
    match ACTIVE.get_ptr(0) {
        // SAFETY: the pointer is valid as long as the map; volatile, so that the word is read once
        // and whole though user space may be writing it.
        Some(active) => unsafe { active.read_volatile() },
        None => Active(0),
    }
}

/// The settings of a generation; `None` before the first.
#[inline(always)]
pub fn header(active: Active) -> Option<&'static Header> {
    if active.generation() == 0 {
        return None;
    }
    HEADERS.get(active.slot())
}

/// Decides about a destination.
#[inline(always)]
pub fn judge(active: Active, header: &Header, destination: &Destination) -> Judgement {
    match try_judge(active, header, destination) {
        Ok(judgement) => judgement,
        Err(Fault::PortHidden) => unparsable(header),
        // Fails closed: without tables there is no telling what is denied.
        Err(Fault::Damaged) => no_policy(),
    }
}

#[inline(always)]
fn try_judge(
    active: Active,
    header: &Header,
    destination: &Destination,
) -> Result<Judgement, Fault> {
    let tables = Generation { slot: active.slot() };
    let outcome = evaluate(&tables, header, ANY_APP, destination, &Named::default())?;
    Ok(Judgement { verdict: outcome.verdict as u8, reason: 0, decision: outcome.decision })
}

/// For what cannot be read far enough to be judged: fails closed unless configured otherwise.
#[inline(always)]
pub fn unparsable(header: &Header) -> Judgement {
    count(Counter::ParseError);
    let verdict =
        if header.flags & flags::UNPARSABLE_ALLOW != 0 { Verdict::Audit } else { Verdict::Deny };
    Judgement::without_decision(verdict, Reason::ParseError)
}

/// For a decision that the tables have no answer to: fails closed.
#[inline(always)]
pub fn no_policy() -> Judgement {
    count(Counter::NoPolicy);
    Judgement::without_decision(Verdict::Deny, Reason::NoPolicy)
}
