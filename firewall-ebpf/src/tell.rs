//! What user space has found out: the names in QUIC Initials, and the addresses of names that it
//! looked up. It comes as the packet of a program that is attached nowhere and run by hand.
//!
//! So verdicts are reached here, with the tables of the running generation, and by one matcher.

use aya_ebpf::{
    helpers::generated::{bpf_get_current_task, bpf_ktime_get_boot_ns, bpf_skb_load_bytes},
    programs::SkBuffContext,
};
use firewall_common::{
    answers::NO_DNS,
    evaluate::Named,
    event::FlowEvent,
    flow::UDP,
    forget::forget,
    layout::{CHAIN, Connection, Counter, ENCRYPTED_HELLO, Told, held, told},
    parse::{payload::flags, quic::Cid},
    verdict::{Reason, Verdict},
};

use crate::{
    answers, app, identity,
    inspect::{self, JUDGED},
    maps::{CONNECTIONS, EVENTS, HEADERS, Led, OWN, ROOT, Scratch, count},
    names::{self, which},
    offset,
    packet::Skb,
    policy,
    quic::{self, NO_CONNECTION},
    scratch, socket,
};

/// It could not be taken in.
const NOT_TAKEN: u32 = 0;
/// It was.
const TAKEN: u32 = 1;

/// Takes in a [`Told`].
#[inline(always)]
pub fn tell(ctx: &SkBuffContext) -> i32 {
    let Some(taken) = scratch::take() else { return NOT_TAKEN as i32 };
    let done = match read(taken.index, Skb(ctx.skb.skb)) {
        told::HELLO => hello(taken.index),
        told::VERIFIED => verified(taken.index),
        told::AHEAD => ahead(taken.index),
        told::INBOUND => inbound(taken.index),
        told::ROOT => root(),
        told::OWN => own(),
        _ => NOT_TAKEN,
    };
    scratch::give_back(taken);
    (forget(done) & 1) as i32
}

/// Notes the root directory of who tells.
#[inline(always)]
fn root() -> u32 {
    // SAFETY: the helper has no preconditions.
    let fs = identity::member(unsafe { bpf_get_current_task() }, offset!(task_fs));
    match (fs.and_then(|fs| identity::member::<u64>(fs, offset!(fs_root))), ROOT.get_ptr_mut(0)) {
        (Some(root), Some(to)) => {
            // SAFETY: the pointer is valid as long as the map.
            unsafe { to.write_volatile(root) };
            TAKEN
        }
        _ => NOT_TAKEN,
    }
}

/// Notes which process tells.
#[inline(always)]
fn own() -> u32 {
    // SAFETY: the helper has no preconditions.
    match (identity::process(unsafe { bpf_get_current_task() }), OWN.get_ptr_mut(0)) {
        (Some((process, _)), Some(to)) => {
            // SAFETY: the pointer is valid as long as the map.
            unsafe { to.write_volatile(process) };
            TAKEN
        }
        _ => NOT_TAKEN,
    }
}

/// No kind of what is told.
const NOTHING: u32 = u32::MAX;

/// Puts into scratch memory what is told: its kind, or [`NOTHING`].
#[inline(always)]
fn read(index: u32, skb: Skb) -> u32 {
    let Some(scratch) = scratch::get(index) else { return NOTHING };
    // SAFETY: the helper writes as many bytes as there are, or fails.
    let result = unsafe {
        let to = (&raw mut scratch.tells).cast();
        bpf_skb_load_bytes(skb.context(), 0, to, size_of::<Told>() as u32)
    };
    if result != 0 {
        return NOTHING;
    }
    if matches!(scratch.tells.kind, told::ROOT | told::OWN) {
        return scratch.tells.kind;
    }
    let active = policy::active();
    let Some(header) = policy::header(active) else { return NOTHING };
    scratch.slot = active.slot();
    scratch.generation = active.generation();
    scratch.app = scratch.tells.app;
    scratch.app_class = u64::from(app::of(active, header, &scratch.tells.event.identity));
    scratch.src = scratch.tells.event.src;
    scratch.src_port = u32::from(scratch.tells.event.src_port);
    scratch.server = scratch.tells.event.dst;
    scratch.port = u32::from(scratch.tells.event.dst_port);
    scratch.protocol = u32::from(UDP);
    scratch.service = NO_DNS;
    scratch.trusted = 0;
    scratch.name = 0;
    scratch::copy(&mut scratch.asked.text, &scratch.tells.name);
    scratch.asked.chain = [0; CHAIN];
    scratch.tells.kind
}

/// Judges what the datagrams of a connection show.
#[inline(always)]
fn hello(index: u32) -> u32 {
    let Some(scratch) = scratch::get(index) else { return NOT_TAKEN };
    if flow(scratch).is_some_and(|flow| quic::is_inbound(flow)) {
        // What answers a client out there, and was held back before that was known.
        return TAKEN;
    }
    let (answer, bits) = (scratch.tells.answer, scratch.tells.flags | flags::QUIC);
    if inspect::judge_shown(index, answer, bits) != JUDGED {
        return NOT_TAKEN;
    }
    put(index)
}

/// Keeps the judgement in scratch memory for the connection, and records it where nothing else will.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn put(index: u32) -> u32 {
    let Some(scratch) = scratch::get(index) else { return NOT_TAKEN };
    let Some(header) = HEADERS.get(scratch.slot) else { return NOT_TAKEN };
    let judgement = scratch.judgement;
    let passes = judgement.passes();
    let why = scratch.tells.why;
    let recorded =
        !passes || socket::is_recorded(header.flags, judgement.verdict, judgement.decision);
    if recorded && (!passes || why == held::WATCHED) {
        record(scratch);
    }
    if why == held::WATCHED {
        return TAKEN;
    }
    let flow = flow(scratch).filter(|flow| flow.generation == scratch.generation);
    // SAFETY: the helper has no preconditions.
    let begun = flow.as_ref().map_or_else(|| unsafe { bpf_ktime_get_boot_ns() }, |flow| flow.begun);
    scratch.key.flow = 0;
    scratch.key.cid = scratch.tells.cid;
    scratch.connection = Connection {
        generation: scratch.generation,
        decision: judgement.decision,
        verdict: u32::from(judgement.verdict),
        reason: u32::from(judgement.reason),
        known: judgement.known,
        begun,
        ..NO_CONNECTION
    };
    if CONNECTIONS.insert(&scratch.key, &scratch.connection, 0).is_err() {
        count(Counter::NoName);
        return NOT_TAKEN;
    }
    // What another connection of the flow may has no say in one that is denied before it began.
    if !passes && why == held::BACK {
        return TAKEN;
    }
    match flow {
        Some(flow) => {
            // Once it is denied, nothing that is said on it opens it again.
            if flow.verdict != Verdict::Deny as u32 {
                flow.decision = scratch.connection.decision;
                flow.reason = scratch.connection.reason;
                flow.known = scratch.connection.known;
                flow.verdict = scratch.connection.verdict;
            }
            if why == held::PASSED {
                flow.verified = flow.verified.wrapping_add(1);
            }
        }
        // Its entry had to make room: what has gone out is not known any more.
        None if passes && why == held::PASSED => {}
        None => keep_flow(scratch),
    }
    TAKEN
}

/// Keeps the connection in scratch memory as what is known of the flow.
#[inline(always)]
fn keep_flow(scratch: &mut Scratch) {
    scratch.key.flow = 1;
    scratch.key.cid = Cid::EMPTY;
    if CONNECTIONS.insert(&scratch.key, &scratch.connection, 0).is_err() {
        count(Counter::NoName);
    }
}

/// What is known of the flow that is told of.
#[inline(always)]
fn flow(scratch: &mut Scratch) -> Option<&'static mut Connection> {
    scratch.key.cookie = scratch.tells.event.cookie;
    scratch.key.address = scratch.server;
    scratch.key.port = scratch.port;
    quic::flow(scratch)
}

/// Notes that a client out there began a connection: whoever is there gets answers.
#[inline(always)]
fn inbound(index: u32) -> u32 {
    let Some(scratch) = scratch::get(index) else { return NOT_TAKEN };
    if flow(scratch).is_none() {
        scratch.connection = Connection {
            generation: scratch.generation,
            verdict: Verdict::Allow as u32,
            reason: Reason::Inbound as u32,
            ..NO_CONNECTION
        };
        keep_flow(scratch);
    }
    TAKEN
}

/// Notes that an Initial that went out shows what was shown before.
#[inline(always)]
fn verified(index: u32) -> u32 {
    let Some(scratch) = scratch::get(index) else { return NOT_TAKEN };
    let Some(flow) = flow(scratch) else { return NOT_TAKEN };
    // Only user space's one reader writes this member.
    flow.verified = flow.verified.wrapping_add(1);
    TAKEN
}

/// Writes an event with the judgement in scratch memory.
#[inline(always)]
fn record(scratch: &Scratch) {
    let Some(mut entry) = EVENTS.reserve::<FlowEvent>(0) else {
        count(Counter::LostEvents);
        return;
    };
    let event: *mut FlowEvent = entry.as_mut_ptr();
    let judgement = scratch.judgement;
    // SAFETY: the entry is as large as the event.
    unsafe {
        scratch::copy(&mut *event, &scratch.tells.event);
        (*event).time = bpf_ktime_get_boot_ns();
        (*event).generation = scratch.generation;
        (*event).verdict = judgement.verdict;
        (*event).reason = judgement.reason;
        (*event).decision = judgement.decision;
        (*event).hook = scratch.hook as u8;
        (*event).name = judgement.known.name;
        (*event).via = judgement.known.via as u8;
        (*event).confidence = judgement.known.confidence as u8;
        (*event).encrypted_hello = u8::from(judgement.known.confidence & ENCRYPTED_HELLO != 0);
    }
    entry.submit(0);
    socket::count_verdict(judgement.verdict);
}

/// Ties an address to a name for every app that knows no name of it.
#[inline(always)]
fn ahead(index: u32) -> u32 {
    let class = names::name_class(index, which::ASKED);
    let Some(scratch) = scratch::get(index) else { return NOT_TAKEN };
    scratch.name = scratch.suffixes.whole;
    scratch.app = 0;
    scratch.now = names::now();
    scratch.more = 0;
    scratch.named = Named { classes: [class, 0, 0, 0], trusted: 0 };
    scratch.led[0] = Led { to: scratch.server, lifetime: u64::from(scratch.tells.lifetime) };
    scratch.addresses = 1;
    names::keep_name(index, 0);
    answers::keep(index, 0)
}
