//! Questions for names, in datagrams and in streams.

use firewall_common::{
    answers::MULTICAST,
    evaluate::{self, DAMAGED},
    forget::forget,
    layout::{Active, Header, SocketState},
    parse::{
        dns::{HEADER, MAX_QUESTIONS, Message},
        ip,
    },
    verdict::Verdict,
};

use crate::{
    app,
    maps::HEADERS,
    names::{self, which},
    packet::Skb,
    policy::Generation,
    repeat::repeat,
    scratch, socket,
};

/// In place of an outcome's leaf: the message cannot be read.
pub const MALFORMED: u32 = 3;

/// In place of an outcome's leaf: there is nothing to judge.
pub const NOTHING: u32 = 4;

/// Messages in one packet that are judged; more are malformed.
const MAX_DATAGRAMS: u32 = 128;

/// Puts into scratch memory what messages of a packet are judged by.
#[inline(always)]
pub fn prepare(
    index: u32,
    active: Active,
    header: &Header,
    state: &mut SocketState,
    packet: &ip::Packet,
    own_port: u16,
) {
    let Some(scratch) = scratch::get(index) else { return };
    scratch.slot = active.slot();
    scratch.generation = active.generation();
    scratch.app = state.app;
    app::find_class(active, header, state);
    scratch.app_class = state.class;
    scratch.src = packet.src;
    scratch.src_port = u32::from(packet.src_port);
    scratch.own_port = u32::from(own_port);
    scratch.plain = u32::from(packet.plain);
    scratch.transport = packet.transport;
    scratch.service = header.service(packet.destination.port);
    scratch.server = packet.destination.address;
    scratch.port = u32::from(packet.destination.port);
    scratch.protocol = u32::from(packet.destination.protocol);
    scratch.trusted = u32::from(names::is_trusted(header, state.netns, &packet.destination));
    scratch.name = 0;
    scratch.known = 0;
    scratch.told = 0;
    scratch.result = NOTHING;
}

/// Judges the questions of the message in scratch memory.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn judge_questions(index: u32) -> u32 {
    let Some(scratch) = scratch::get(index) else { return 0 };
    let message = Message { bytes: &scratch.message, len: scratch.len };
    let service = scratch.service;
    let Some(start) = message.header() else { return stand(index, MALFORMED) };
    let questions = u32::from(start.questions);
    if start.answer || questions == 0 {
        if service == MULTICAST {
            return 0;
        }
        let leaf = match start.answer || !message.is_cookie() {
            true => MALFORMED,
            false => question_leaf(index, 0),
        };
        return stand(index, leaf);
    }
    if questions > MAX_QUESTIONS {
        return stand(index, MALFORMED);
    }
    let mut at = HEADER;
    for question in 0..MAX_QUESTIONS {
        at = forget(at);
        if question >= questions || at == 0 {
            break;
        }
        at = judge_question(index, at);
    }
    0
}

/// Judges the question at `at`: where it ends, or 0 if no other is to be judged.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn judge_question(index: u32, at: u32) -> u32 {
    let end = match names::dns_name(index, at, which::ASKED) {
        0 => 0,
        // Type and class.
        end => end.wrapping_add(4),
    };
    let Some(scratch) = scratch::get(index) else { return 0 };
    scratch.name = 0;
    if end == 0 || end > scratch.len {
        stand(index, MALFORMED);
        return 0;
    }
    let class = names::name_class(index, which::ASKED);
    let leaf = question_leaf(index, class);
    scratch.name = scratch.suffixes.whole;
    if scratch.service == MULTICAST && class == 0 {
        return end;
    }
    stand(index, leaf);
    if !passes(leaf) {
        return 0;
    }
    if let Some(header) = HEADERS.get(scratch.slot) {
        let id = Message { bytes: &scratch.message, len: scratch.len }.u16(0);
        names::ask(header, scratch, id);
    }
    end
}

/// Takes what came of a question, if it stands before what came of those before it: what does not
/// pass, and of others the one whose rule comes first.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn stand(index: u32, leaf: u32) -> u32 {
    let Some(scratch) = scratch::get(index) else { return 0 };
    let Some(header) = HEADERS.get(scratch.slot) else { return 0 };
    let there = scratch.result;
    let first = there == NOTHING
        || !passes(leaf)
        || leaf & evaluate::MAX_DECISIONS < there & evaluate::MAX_DECISIONS;
    if passes(there) && first {
        let name = if leaf == MALFORMED { 0 } else { scratch.name };
        scratch.result = leaf;
        scratch.known = name;
        let (verdict, decision) = ((leaf >> 29) as u8, leaf & evaluate::MAX_DECISIONS);
        if name != 0 && socket::is_recorded(header.flags, verdict, decision) {
            names::keep_name(index, 0);
        }
    }
    0
}

/// The leaf of a question for a name of `class`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn question_leaf(index: u32, class: u32) -> u32 {
    let Some(scratch) = scratch::get(index) else { return DAMAGED.0 };
    let Some(header) = HEADERS.get(scratch.slot) else { return DAMAGED.0 };
    evaluate::question(&Generation { slot: scratch.slot }, header, scratch.app_class as u32, class)
        .0
}

/// Whether what was judged goes on.
#[inline(always)]
pub const fn passes(leaf: u32) -> bool {
    leaf == NOTHING || leaf >> 29 == Verdict::Allow as u32 || leaf >> 29 == Verdict::Audit as u32
}

/// What one call of the loop's body leaves to the next.
struct Walk {
    skb: Skb,
    offset: u32,
    end: u32,
    stride: u32,
    index: u32,
}

/// Judges the datagrams of a UDP packet, of which there can be several (`UDP_SEGMENT`).
#[inline(always)]
pub fn datagrams(index: u32, skb: Skb, transport: u32) {
    let offset = transport.wrapping_add(8);
    let end = skb.size();
    if offset >= end {
        stand(index, MALFORMED);
        return;
    }
    // SAFETY: reading context members.
    let (segments, size) = unsafe { ((*skb.0).gso_segs, (*skb.0).gso_size) };
    let several = segments > 1 && size != 0;
    if !several && !skb.is_linear() {
        // In pages that the app may still write to (sendfile, MSG_ZEROCOPY): what is sent need not be
        // what is read here. Questions that are written are never in pages.
        stand(index, MALFORMED);
        return;
    }
    let stride = if several { size } else { u32::MAX };
    let mut walk = Walk { skb, offset, end, stride, index };
    repeat(MAX_DATAGRAMS, judge_datagram, &mut walk);
    // More than are looked at, if none before was denied.
    if walk.offset < walk.end {
        stand(index, MALFORMED);
    }
}

/// Whether the loop is to end.
extern "C" fn judge_datagram(_: u32, walk: &mut Walk) -> i64 {
    // Or the verifier follows each place through the next datagram.
    let offset = forget(walk.offset);
    let left = walk.end.wrapping_sub(offset);
    let len = if left < walk.stride { left } else { walk.stride };
    let Some(scratch) = scratch::get(walk.index) else { return 1 };
    scratch.len = walk.skb.copy(offset, len, &mut scratch.message, 0);
    judge_questions(walk.index);
    walk.offset = forget(offset.wrapping_add(len));
    i64::from(walk.offset >= walk.end || !passes(scratch.result))
}
