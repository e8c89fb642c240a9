//! The payload of flows whose address does not decide: questions for names, and the server name
//! that a TCP client sends first. The egress program jumps here.

use aya_ebpf::{bindings::bpf_sock, helpers::generated::bpf_sk_fullsock, programs::SkBuffContext};
use firewall_common::{
    answers::{DNS, NO_DNS},
    evaluate::Cell,
    flow::TCP,
    forget::forget,
    layout::{Active, CHAIN, Counter, ENCRYPTED_HELLO, Known, SocketState},
    parse::payload::{answer, flags},
    verdict::{Confidence, Hook, Via},
};

use crate::{
    bytes,
    dns::{self, MALFORMED, NOTHING},
    egress::{DROP, DROP_SILENTLY, PASS},
    maps::{HEADERS, OWN, count},
    names::{self, which},
    packet::{self, Skb},
    payload,
    policy::{self, Judgement},
    scratch,
    socket::{self, Keep, Origin},
    stream::{self, Way},
};

/// In place of what the program returns: it depends on the judgement in scratch memory.
pub const JUDGED: u32 = 8;
/// The same, and what comes next can change it.
const JUDGED_SO_FAR: u32 = 9;

/// A packet whose payload is to be looked at.
#[inline(always)]
pub fn inspect(ctx: &SkBuffContext) -> i32 {
    with_payload(ctx, look)
}

/// Does with a packet what `look` says, which is what the program returns, or [`JUDGED`]. It gets the
/// number of the scratch memory, where [`dns::prepare`] has put what is known of the packet.
#[inline(always)]
pub fn with_payload(ctx: &SkBuffContext, look: impl FnOnce(u32, Skb, *mut bpf_sock) -> u32) -> i32 {
    let skb = Skb(ctx.skb.skb);
    let active = policy::active();
    // SAFETY: reading a context member.
    let sk: *mut bpf_sock = unsafe { (*skb.0).__bindgen_anon_2.sk };
    if sk.is_null() {
        return DROP_SILENTLY;
    }
    // SAFETY: `sk` is not null.
    let sk = unsafe { bpf_sk_fullsock(sk) };
    if sk.is_null() {
        return DROP_SILENTLY;
    }
    if packet::is_bare_segment(skb) {
        return PASS;
    }
    // Each fails closed: the egress program has seen all of them a moment ago.
    let Some(state) = socket::existing_state(sk.cast()) else { return DROP_SILENTLY };
    let Some(taken) = scratch::take() else {
        count(Counter::NoScratch);
        return DROP_SILENTLY;
    };
    let done = match prepare(taken.index, skb, active, state) {
        0 => DROP_SILENTLY as u32,
        OWN_QUESTION => PASS as u32,
        _ => forget(look(taken.index, skb, sk)),
    };
    let passed = if done == JUDGED || done == JUDGED_SO_FAR {
        settle(taken.index, skb, state, done)
    } else if done == PASS as u32 {
        PASS
    } else {
        DROP_SILENTLY
    };
    scratch::give_back(taken);
    passed
}

/// Puts the judgement in scratch memory into force.
// Not inlined: the stack of its caller is small.
#[inline(never)]
fn settle(index: u32, skb: Skb, state: &mut SocketState, done: u32) -> i32 {
    let Some(scratch) = scratch::get(index) else { return DROP_SILENTLY };
    let Some(header) = HEADERS.get(scratch.slot) else { return DROP_SILENTLY };
    let judgement = scratch.judgement;
    // Every question is a judgement of its own, and most are nobody's business.
    if scratch.hook == Hook::Dns as u32
        && judgement.passes()
        && !socket::is_recorded(header.flags, judgement.verdict, judgement.decision)
    {
        count(Counter::Allow);
        return PASS;
    }
    let keep = if scratch.plain == 0 {
        Keep::Nothing
    } else if scratch.service != NO_DNS || done == JUDGED_SO_FAR {
        Keep::Inspect
    } else if scratch.protocol == u32::from(TCP) {
        Keep::Verdict
    } else if judgement.passes() {
        Keep::Opaque
    } else {
        // Of several connections on one flow only this one is denied.
        Keep::Nothing
    };
    let origin = Origin {
        hook: scratch.hook as u8,
        src: scratch.src,
        src_port: scratch.src_port as u16,
        keep,
        told: scratch.told != 0,
    };
    socket::settle(
        state,
        skb.context(),
        scratch.generation,
        header.flags,
        &scratch.destination(),
        &origin,
        judgement,
    );
    if !judgement.passes() {
        return DROP;
    }
    bytes::sent(state, skb, scratch.protocol as u8, scratch.transport);
    PASS
}

/// In place of 1: the firewall asks for a name itself, to know ahead where a denied one leads.
const OWN_QUESTION: u32 = 2;

/// Puts into scratch memory what is known of the packet; 0 if nothing is.
// Not inlined: the stack of its caller is small.
#[inline(never)]
fn prepare(index: u32, skb: Skb, active: Active, state: &mut SocketState) -> u32 {
    let Some(packet) = packet::handed_over(skb) else {
        count(Counter::ParseError);
        return 0;
    };
    let active = policy::deciding(active, state.app, packet.destination.address);
    let Some(header) = policy::header(active) else { return 0 };
    dns::prepare(index, active, header, state, &packet, packet.src_port);
    let asks = scratch::get(index).is_some_and(|scratch| scratch.service == DNS);
    if asks && is_own(state) { OWN_QUESTION } else { 1 }
}

/// Whether the firewall itself has the socket, to ask for names.
#[inline(always)]
fn is_own(state: &SocketState) -> bool {
    let process = state.identity.process();
    process.pid != 0 && OWN.get(0).is_some_and(|own| *own == process)
}

/// What the program returns, or [`JUDGED`].
#[inline(always)]
fn look(index: u32, skb: Skb, sk: *mut bpf_sock) -> u32 {
    let Some(scratch) = scratch::get(index) else { return DROP_SILENTLY as u32 };
    let (transport, service) = (scratch.transport, scratch.service);
    if scratch.protocol != u32::from(TCP) {
        dns::datagrams(index, skb, transport);
        return judge_asked(index);
    }
    let Some(segment) = packet::segment(skb, transport) else {
        return unreadable(index);
    };
    if segment.urgent {
        // Whoever receives it reads other bytes than are in the stream.
        return unreadable(index);
    }
    if service == DNS {
        let Some(stream) = stream::asked(sk.cast()) else {
            count(Counter::NoState);
            return DROP_SILENTLY as u32;
        };
        return match stream::feed(index, skb, stream, &segment, Way::Out) {
            true => judge_asked(index),
            false => DROP_SILENTLY as u32,
        };
    }
    read_payload(index, skb, sk, &segment)
}

/// Judges what cannot be read.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn unreadable(index: u32) -> u32 {
    let Some(scratch) = scratch::get(index) else { return DROP_SILENTLY as u32 };
    let Some(header) = HEADERS.get(scratch.slot) else { return DROP_SILENTLY as u32 };
    scratch.hook = Hook::Packet as u32;
    scratch.judgement = if header.name_lines == 0 {
        let active = Active::new(scratch.generation, scratch.slot);
        policy::judge_silent(active, header, scratch.who(), &scratch.destination())
    } else {
        policy::unparsable(header)
    };
    JUDGED
}

/// Turns what came of a packet with questions into a judgement.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn judge_asked(index: u32) -> u32 {
    let Some(scratch) = scratch::get(index) else { return DROP_SILENTLY as u32 };
    let Some(header) = HEADERS.get(scratch.slot) else { return DROP_SILENTLY as u32 };
    let result = scratch.result;
    if result == NOTHING && scratch.protocol == u32::from(TCP) {
        // Only a part of a message.
        return PASS as u32;
    }
    if result == MALFORMED {
        count(Counter::MalformedDns);
    }
    // Where no rule speaks of names nobody cares what is asked, and mDNS is not judged by what it is.
    let unasked = result == NOTHING
        || (result == MALFORMED && (scratch.service != DNS || header.name_lines == 0));
    let mut judgement = if unasked {
        policy::of_leaf(header, Cell(dns::question_leaf(index, 0)))
    } else if result == MALFORMED {
        policy::unparsable(header)
    } else {
        count(Counter::Questions);
        let judgement = policy::of_leaf(header, Cell(result));
        known_by(scratch.known, Via::Dns, Confidence::Confirmed as u32, judgement)
    };
    scratch.hook = Hook::Dns as u32;
    if judgement.passes() && scratch.trusted == 0 {
        // A server like any other: of what it gets and what the question gets, the one whose rule
        // comes first.
        let active = Active::new(scratch.generation, scratch.slot);
        let server = policy::judge_silent(active, header, scratch.who(), &scratch.destination());
        if unasked || !server.passes() || server.decision < judgement.decision {
            judgement = server;
            scratch.hook = Hook::Packet as u32;
        }
    }
    scratch.judgement = judgement;
    JUDGED
}

#[inline(always)]
fn known_by(name: u64, via: Via, confidence: u32, judgement: Judgement) -> Judgement {
    let known = match name {
        0 => Known::default(),
        _ => Known { name, via: via as u32, confidence },
    };
    Judgement { known, ..judgement }
}

/// Reads what a TCP client sends first.
#[inline(always)]
fn read_payload(index: u32, skb: Skb, sk: *mut bpf_sock, segment: &packet::Segment) -> u32 {
    let Some(stream) = stream::payload(sk.cast()) else {
        // No memory: as with any packet lost to that, the sender tries again.
        count(Counter::NoState);
        return DROP_SILENTLY as u32;
    };
    if stream.started == 0 {
        stream.started = 1;
        stream.next = segment.sequence;
    }
    let known = stream.next.wrapping_sub(segment.sequence);
    let answer = if stream.payload.is_done() {
        // Whatever comes behind it: once a verdict is kept, segments pass without being followed, and
        // the next generation sees one from anywhere in the stream.
        stream.payload.answer()
    } else if known > 1 << 31 {
        return DROP_SILENTLY as u32;
    } else if known >= segment.len {
        // Sent again.
        answer::MORE
    } else {
        let at = segment.offset.wrapping_add(known);
        stream.next = segment.sequence.wrapping_add(segment.len);
        payload::feed(skb, &mut stream.payload, at, segment.offset.wrapping_add(segment.len))
    };
    if answer == answer::MORE {
        return PASS as u32;
    }
    let flags = forget(stream.payload.flags);
    if answer == answer::NAME
        && let Some(scratch) = scratch::get(index)
    {
        scratch::copy(&mut scratch.asked.text, &stream.payload.name);
    }
    let judged = judge_shown(index, answer, flags);
    if stream.payload.is_done() || judged != JUDGED {
        return judged;
    }
    if scratch::get(index).is_some_and(|scratch| scratch.judgement.passes()) {
        return JUDGED_SO_FAR;
    }
    // Whatever it says from now on.
    stream.payload.end();
    JUDGED
}

/// Turns what came of a payload into a judgement.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn judge_shown(index: u32, answer: u32, bits: u32) -> u32 {
    let class = if answer == answer::NAME { names::name_class(index, which::ASKED) } else { 0 };
    let Some(scratch) = scratch::get(index) else { return DROP_SILENTLY as u32 };
    let Some(header) = HEADERS.get(scratch.slot) else { return DROP_SILENTLY as u32 };
    let (via, hook) = match bits & (flags::TLS | flags::QUIC) {
        0 => (Via::Http, Hook::Http),
        flags::TLS => (Via::Tls, Hook::Tls),
        _ => (Via::Quic, Hook::Quic),
    };
    scratch.hook = hook as u32;
    if answer == answer::NAME {
        scratch.name = scratch.suffixes.whole;
        scratch.class = class;
        scratch.asked.chain = [0; CHAIN];
    }
    let active = Active::new(scratch.generation, scratch.slot);
    let to = scratch.destination();
    // Where no verdict depends on a name, nothing is lost with what cannot be read.
    let malformed = bits & flags::MALFORMED != 0 && header.name_lines != 0;
    if answer != answer::NAME && !malformed {
        scratch.hook = Hook::Packet as u32;
        scratch.judgement = policy::judge_silent(active, header, scratch.who(), &to);
        return JUDGED;
    }
    let judgement = if malformed {
        count(Counter::MalformedPayload);
        policy::unparsable(header)
    } else {
        policy::judge_shown(active, header, scratch.who(), &to, index)
    };
    let hidden = if bits & flags::ECH != 0 { ENCRYPTED_HELLO } else { 0 };
    let confidence = Confidence::Confirmed as u32 | hidden;
    if !malformed && socket::is_recorded(header.flags, judgement.verdict, judgement.decision) {
        names::keep_name(index, 0);
    }
    // What cannot be read as a whole has no name for certain.
    let name = if malformed { 0 } else { scratch.name };
    scratch.judgement = known_by(name, via, confidence, judgement);
    JUDGED
}
