//! From a destination to what it gets, and what holds when the tables have no answer.

use aya_ebpf::btf_maps::ArrayOfMaps;
use firewall_common::{
    evaluate::{
        self, BLOCK, Cell, DAMAGED, Fault, NAMES, Named, Outcome, Place, Service, Tables, weigh,
    },
    flow::{Address, Destination},
    forget::forget,
    layout::{Active, Answers, Counter, Header, Known, SLOTS},
    name_table::Packed,
    verdict::{Confidence, Reason, Verdict, Via},
};

use crate::{
    maps::{ACTIVE, BLOCKS, Blocks, HEADERS, Scratch, count},
    names, scratch,
};

/// Who is judged.
#[derive(Clone, Copy)]
pub struct Who<'a> {
    /// The app, as names are kept by.
    pub app: &'a u64,
    /// The class of the app, with its generation above. Both where they are kept, as the callers'
    /// stacks are small.
    pub class: &'a u64,
}

impl Who<'_> {
    #[inline(always)]
    fn asks(self) -> u64 {
        // SAFETY: a plain read; volatile, so that it is not read before it is needed.
        let class = unsafe { (&raw const *self.class).read_volatile() };
        class << ask::APP
    }
}

/// What a flow gets.
#[derive(Clone, Copy)]
pub struct Judgement {
    /// [`Verdict`] as its byte.
    pub verdict: u8,
    /// [`Reason`] as its byte, or 0 where the decision says.
    pub reason: u8,
    /// The decision it rests on; 0 if none was reached.
    pub decision: u32,
    /// What the destination is known by.
    pub known: Known,
}

impl Judgement {
    /// One that no decision of the generation stands behind.
    pub const fn without_decision(verdict: Verdict, reason: Reason) -> Self {
        let known = Known { name: 0, via: 0, confidence: 0 };
        Self { verdict: verdict as u8, reason: reason as u8, decision: 0, known }
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
            known: Known {
                name: self.known.name,
                via: forget(self.known.via),
                confidence: forget(self.known.confidence),
            },
        }
    }
}

/// One generation's tables.
///
/// Each step is a global function: the verifier goes through it once, knowing nothing of its
/// arguments, and takes its result for any number.
pub struct Generation {
    /// Where its tables are.
    pub slot: u32,
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
    fn leaf(&self, rows: u32, row: u32, service: Service) -> Cell {
        Cell(row_leaf(self.slot, rows, row, service.0))
    }

    #[inline(always)]
    fn named(&self, _: &Header, app: u32, place: Place, service: Service, named: &Named) -> Cell {
        let pair = |low: u32, high: u32| u64::from(high) << 32 | u64::from(low);
        let [a, b, c, d] = named.classes;
        let head = self.slot | (named.trusted & Named::TRUSTED) << head::TRUSTED | app << head::APP;
        Cell(named_leaf(pair(head, service.0), place.0, pair(a, b), pair(c, d)))
    }

    #[inline(always)]
    fn entry(&self, _: &Header, hash: u64) -> Packed {
        Packed(name_entry(self.slot, hash))
    }
}

/// The same without a function for all that is known of an address.
pub struct Steps<'a> {
    /// Where its tables are. Where that is kept, as the callers' stacks are small.
    pub slot: &'a u32,
}

impl Steps<'_> {
    #[inline(always)]
    fn slot(&self) -> u32 {
        // SAFETY: a plain read; volatile, so that no copy is kept beside it.
        unsafe { (&raw const *self.slot).read_volatile() }
    }
}

impl Tables for Steps<'_> {
    #[inline(always)]
    fn block(&self, index: u32) -> Option<&[u32; BLOCK]> {
        blocks(self.slot())?.get(index)
    }

    #[inline(always)]
    fn class(&self, root: Cell, key: Address) -> u32 {
        destination_class(self.slot(), root.0, key.high, key.low)
    }

    #[inline(always)]
    fn leaf(&self, rows: u32, row: u32, service: Service) -> Cell {
        Cell(row_leaf(self.slot(), rows, row, service.0))
    }

    #[inline(always)]
    fn word(&self, first: u32, index: u32) -> u32 {
        table_word(self.slot(), first, index)
    }
}

/// The same without functions of their own.
pub struct Plain<'a>(pub &'a Blocks);

impl Tables for Plain<'_> {
    #[inline(always)]
    fn block(&self, index: u32) -> Option<&[u32; BLOCK]> {
        self.0.get(index)
    }
}

/// The blocks in a slot.
#[inline(always)]
pub fn blocks(slot: u32) -> Option<&'static Blocks> {
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
extern "C" fn row_leaf(slot: u32, rows: u32, row: u32, service: u32) -> u32 {
    let Some(blocks) = blocks(slot) else { return 0 };
    Plain(blocks).leaf(rows, row, Service(service)).0
}

/// Where parts of the first number of [`named_leaf`] begin; the slot is before them, and the service
/// behind.
mod head {
    pub const TRUSTED: u32 = 4;
    pub const APP: u32 = 8;
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn named_leaf(head: u64, place: u64, first: u64, second: u64) -> u32 {
    let slot = head as u32 & 0xf;
    let Some(header) = HEADERS.get(slot) else { return DAMAGED.0 };
    let named = Named {
        classes: [first as u32, (first >> 32) as u32, second as u32, (second >> 32) as u32],
        trusted: head as u32 >> head::TRUSTED & Named::TRUSTED,
    };
    let service = Service((head >> 32) as u32);
    Steps { slot: &slot }.named(header, head as u32 >> head::APP, Place(place), service, &named).0
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

/// The generation that decides about an address: the running one. As long as names that the app knows it
/// by are still those of the generation before, which user space brings over right after each switch,
/// that one decides: it knows what they mean.
#[inline(always)]
pub fn deciding(active: Active, app: u64, address: Address) -> Active {
    Active(of_names(active.0, app, address.high, address.low))
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn of_names(active: u64, app: u64, high: u64, low: u64) -> u64 {
    let address = Address { high, low };
    let running = Active(active);
    if !names::any(address) {
        return active;
    }
    let number = match names::generation(app, address) {
        0 => names::generation(names::ANYBODY, address),
        number => number,
    };
    if number == 0 || number == running.generation() {
        return active;
    }
    let other = (running.slot() + 1) % SLOTS;
    match HEADERS.get(other) {
        Some(header) if header.number == number => Active::new(number, other).0,
        _ => active,
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

/// What a destination gets by its address and the names it is known by.
#[derive(Clone, Copy)]
pub struct Judged {
    /// Where the names get different verdicts, that of one that is denied.
    pub judgement: Judgement,
    /// Whether they do.
    pub differ: bool,
}

/// The last number of [`weigh_address`]: the [`Service`], and where the name is that the payload shows.
mod ask {
    /// Bits of the service.
    pub const SERVICE: u64 = SHOWN - 1;
    /// Bit: the payload shows a name.
    pub const SHOWN: u64 = 1 << 31;
    /// Where the number of the scratch memory begins that has the name and its class.
    pub const SCRATCH: u32 = 32;
    /// Bits of that number.
    pub const NUMBER: u32 = 0xff;
    /// Where the class of the app begins.
    pub const APP: u32 = 40;
}

/// Bits of what [`weigh_address`] answers, above the leaf.
mod answer {
    /// Names get different verdicts.
    pub const DIFFER: u64 = 1 << 32;
    /// The name is not the only one.
    pub const SEVERAL: u64 = 1 << 33;
    /// Where the place of the name begins, counted from 1.
    pub const WHICH: u32 = 34;
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn weigh_address(active: u64, who: u64, high: u64, low: u64, asked: u64) -> u64 {
    let active = Active(active);
    let Some(header) = HEADERS.get(active.slot()) else { return u64::from(DAMAGED.0) };
    let address = Address { high, low };
    let service = Service((asked & ask::SERVICE) as u32);
    let app = (asked >> ask::APP) as u32;
    let tables = Generation { slot: active.slot() };
    let place = evaluate::place(&tables, header, address);
    let now = names::now();
    let answers = match who {
        names::NOBODY => None,
        who => names::of(who, address, active.generation()),
    };
    let meant = match answers {
        Some(answers) => meant(answers, now, asked),
        None => 0,
    };
    let Some(answers) = answers.filter(|_| meant != 0) else {
        let class = shown(asked).map_or(0, |scratch| scratch.class);
        let named = Named { classes: [class, 0, 0, 0], trusted: 0 };
        return u64::from(tables.named(header, app, place, service, &named).0);
    };
    let weighed = weigh(&tables, header, app, place, service, |index| {
        (meant >> index & 1 != 0, &answers.names[index].named)
    });
    let more = answers.more_until > now;
    // What was looked up ahead is one of the names that the address may have: where it is denied,
    // the app can still mean another.
    let ahead = who == names::ANYBODY && asked & ask::SHOWN == 0;
    let several =
        ahead || weighed.names > 1 || more || answers.several >> (weighed.which & 3) & 1 != 0;
    let differ = weighed.differ != 0 || more || (ahead && !passes(weighed.leaf));
    u64::from(weighed.leaf.0)
        | if differ { answer::DIFFER } else { 0 }
        | if several { answer::SEVERAL } else { 0 }
        | u64::from((weighed.which & 3) + 1) << answer::WHICH
}

/// Who knows names of an address: the app, [`names::ANYBODY`] or [`names::NOBODY`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn knows(generation: u32, app: u64, high: u64, low: u64) -> u64 {
    let address = Address { high, low };
    if !names::any(address) {
        return names::NOBODY;
    }
    match names::of(app, address, generation) {
        Some(answers) if meant(answers, names::now(), 0) != 0 => app,
        _ => names::ANYBODY,
    }
}

/// Whether a leaf lets a flow pass.
#[inline(always)]
fn passes(leaf: Cell) -> bool {
    leaf.0 >> 29 == Verdict::Allow as u32 || leaf.0 >> 29 == Verdict::Audit as u32
}

/// The scratch memory with the name that the payload shows.
#[inline(always)]
fn shown(asked: u64) -> Option<&'static Scratch> {
    if asked & ask::SHOWN == 0 {
        return None;
    }
    scratch::get((asked >> ask::SCRATCH) as u32 & ask::NUMBER).map(|scratch| &*scratch)
}

/// Bits of the names that hold and can be meant.
#[inline(always)]
fn meant(answers: &Answers, now: u32, asked: u64) -> u32 {
    let shown = match asked & ask::SHOWN {
        0 => None,
        _ => Some(shown(asked).map_or((0, 0), |scratch| (scratch.name, scratch.class))),
    };
    forget(answers.meant(now, shown))
}

/// Decides about a destination.
#[inline(always)]
pub fn judge(active: Active, header: &Header, who: Who<'_>, to: &Destination) -> Judged {
    let Address { high, low } = to.address;
    let app = who;
    let who = knows(active.generation(), *app.app, high, low);
    let asked = u64::from(Service::of(to).0) | app.asks();
    let answer = weigh_address(active.0, who, high, low, asked);
    let mut judgement = of_leaf(header, Cell(answer as u32));
    let which = (answer >> answer::WHICH) as usize;
    let via = if who == names::ANYBODY { Via::Ahead } else { Via::Dns };
    if which != 0
        && let Some(answers) = names::of(who, to.address, active.generation())
    {
        judgement.known = Known {
            name: answers.names[(which - 1) % NAMES].name,
            via: via as u32,
            confidence: match answer & answer::SEVERAL {
                0 => Confidence::Unique as u32,
                _ => Confidence::Ambiguous as u32,
            },
        };
    }
    Judged { judgement, differ: answer & answer::DIFFER != 0 }
}

/// Decides about a destination whose payload shows no name.
#[inline(always)]
pub fn judge_silent(active: Active, header: &Header, who: Who<'_>, to: &Destination) -> Judgement {
    let judged = judge(active, header, who, to);
    if judged.differ { no_name(header, judged.judgement) } else { judged.judgement }
}

/// Decides about a destination whose payload shows the name in scratch memory.
#[inline(always)]
pub fn judge_shown(
    active: Active,
    header: &Header,
    who: Who<'_>,
    to: &Destination,
    index: u32,
) -> Judgement {
    let Address { high, low } = to.address;
    let asked =
        u64::from(Service::of(to).0) | ask::SHOWN | u64::from(index) << ask::SCRATCH | who.asks();
    let who = knows(active.generation(), *who.app, high, low);
    of_leaf(header, Cell(weigh_address(active.0, who, high, low, asked) as u32))
}

/// The judgement that a leaf stands for.
#[inline(always)]
pub fn of_leaf(header: &Header, leaf: Cell) -> Judgement {
    let known = Known { name: 0, via: 0, confidence: 0 };
    match Outcome::from_leaf(leaf) {
        Ok(Outcome { verdict, decision }) => {
            Judgement { verdict: verdict as u8, reason: 0, decision, known }
        }
        Err(Fault::PortHidden) => unparsable(header),
        // Fails closed: without tables there is no telling what is denied.
        Err(Fault::Damaged) => no_policy(),
    }
}

/// For what is known by names that get different verdicts, of which one is denied.
#[inline(always)]
pub fn ambiguous(verdict: Verdict, denied: Judgement) -> Judgement {
    Judgement { verdict: verdict as u8, reason: Reason::Ambiguous as u8, ..denied }
}

/// For such a flow that shows no name.
#[inline(always)]
pub fn no_name(header: &Header, denied: Judgement) -> Judgement {
    ambiguous(header.no_name(), denied)
}

/// For what cannot be read far enough to be judged.
#[inline(always)]
pub fn unparsable(header: &Header) -> Judgement {
    count(Counter::ParseError);
    Judgement::without_decision(header.unparsable(), Reason::ParseError)
}

/// For a decision that the tables have no answer to: fails closed.
#[inline(always)]
pub fn no_policy() -> Judgement {
    count(Counter::NoPolicy);
    Judgement::without_decision(Verdict::Deny, Reason::NoPolicy)
}
