//! From a destination to what it gets, and what holds when the tables have no answer.

use aya_ebpf::btf_maps::ArrayOfMaps;
use firewall_common::{
    evaluate::{BLOCK, Fault, Tables, evaluate},
    flow::Destination,
    forget::forget,
    layout::{Active, Counter, Header, SLOTS, flags},
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

struct Generation<'a>(&'a Blocks);

impl Tables for Generation<'_> {
    #[inline(always)]
    fn block(&self, index: u32) -> Option<&[u32; BLOCK]> {
        self.0.get(index)
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
    let blocks: &ArrayOfMaps<Blocks, { SLOTS as usize }> = &BLOCKS;
    let blocks = blocks.get(active.slot()).ok_or(Fault::Damaged)?;
    let outcome = evaluate(&Generation(blocks), header, ANY_APP, destination)?;
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
