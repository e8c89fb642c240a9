//! Questions for names, in datagrams and in streams.

use aya_ebpf::helpers::generated::bpf_get_socket_cookie;
use firewall_common::{
    evaluate::{self, DAMAGED},
    forget::forget,
    layout::{Active, Header, SocketState},
    parse::{
        dns::{HEADER, Message},
        ip,
    },
    verdict::Verdict,
};

use crate::{
    maps::HEADERS,
    names::{self, MULTICAST, which},
    packet::Skb,
    policy::Generation,
    repeat::repeat,
    scratch,
};

/// In place of an outcome's leaf: the message cannot be read.
pub const MALFORMED: u32 = 3;

/// In place of an outcome's leaf: there is nothing to judge.
pub const NOTHING: u32 = 4;

/// Questions of one message that are judged; more are malformed.
const MAX_QUESTIONS: u32 = 8;

/// Messages in one packet that are judged; more are malformed.
const MAX_DATAGRAMS: u32 = 16;

/// Puts into scratch memory what messages of a packet are judged by.
#[inline(always)]
pub fn prepare(
    index: u32,
    skb: Skb,
    active: Active,
    header: &Header,
    state: &SocketState,
    packet: &ip::Packet,
) {
    let Some(scratch) = scratch::get(index) else { return };
    scratch.slot = active.slot();
    scratch.generation = active.generation();
    // SAFETY: the helper takes the context of this program type.
    scratch.cookie = unsafe { bpf_get_socket_cookie(skb.context()) };
    scratch.app = names::app(&state.identity);
    scratch.src = packet.src;
    scratch.src_port = u32::from(packet.src_port);
    scratch.plain = u32::from(packet.plain);
    scratch.transport = packet.transport;
    scratch.service = names::service(header, packet.destination.port);
    scratch.server = packet.destination.address;
    scratch.port = u32::from(packet.destination.port);
    scratch.protocol = u32::from(packet.destination.protocol);
    scratch.trusted = u32::from(names::is_trusted(header, &packet.destination));
    scratch.now = names::now();
    scratch.name = 0;
}

/// Judges the questions of the message in scratch memory: the leaf of the first that is denied, or
/// of the one whose rule comes first, or what stands in its place.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn judge_questions(index: u32, service: u32) -> u32 {
    let Some(scratch) = scratch::get(index) else { return MALFORMED };
    let message = Message { bytes: &scratch.message, len: scratch.len };
    let Some(start) = message.header() else { return MALFORMED };
    if start.answer {
        return if service == MULTICAST { NOTHING } else { MALFORMED };
    }
    let questions = u32::from(start.questions);
    if questions > MAX_QUESTIONS {
        return MALFORMED;
    }
    if questions == 0 {
        // A cookie alone (RFC 7873 section 5.4): a question for no name.
        return if service == MULTICAST { NOTHING } else { question_leaf(index, 0) };
    }
    let mut result = NOTHING;
    let mut at = HEADER;
    for question in 0..MAX_QUESTIONS {
        result = forget(result);
        at = forget(at);
        if question >= questions {
            break;
        }
        at = judge_question(index, at, service);
        if at == 0 {
            return MALFORMED;
        }
        let leaf = judged(index);
        if !passes(leaf) {
            return leaf;
        }
        if result == NOTHING || leaf & evaluate::MAX_DECISIONS < result & evaluate::MAX_DECISIONS {
            result = leaf;
        }
    }
    result
}

/// Judges the question at `at`: where it ends, or 0 if it is malformed. What comes of it is
/// [`judged`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn judge_question(index: u32, at: u32, service: u32) -> u32 {
    let end = match names::dns_name(index, at, which::ASKED) {
        0 => return 0,
        // Type and class.
        end => end.wrapping_add(4),
    };
    let class = names::name_class(index, which::ASKED);
    let leaf = question_leaf(index, class);
    let Some(scratch) = scratch::get(index) else { return 0 };
    if end > scratch.len {
        return 0;
    }
    scratch.name = scratch.suffixes.whole;
    if service == MULTICAST {
        scratch.judged = if class == 0 { NOTHING } else { leaf };
        return end;
    }
    scratch.judged = leaf;
    let Some(header) = HEADERS.get(scratch.slot) else { return 0 };
    if passes(leaf) {
        let id = Message { bytes: &scratch.message, len: scratch.len }.u16(0);
        names::ask(header, scratch, id, class);
    }
    end
}

#[inline(always)]
fn judged(index: u32) -> u32 {
    scratch::get(index).map_or(DAMAGED.0, |scratch| scratch.judged)
}

/// The leaf of a question for a name of `class`.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn question_leaf(index: u32, class: u32) -> u32 {
    let Some(scratch) = scratch::get(index) else { return DAMAGED.0 };
    let Some(header) = HEADERS.get(scratch.slot) else { return DAMAGED.0 };
    evaluate::question(&Generation { slot: scratch.slot }, header, 0, class).0
}

/// Whether what was judged goes on.
#[inline(always)]
pub const fn passes(leaf: u32) -> bool {
    leaf == NOTHING || leaf >> 29 == Verdict::Allow as u32 || leaf >> 29 == Verdict::Audit as u32
}

/// Of two results the one that stands: what is denied or cannot be read.
#[inline(always)]
pub fn worse(one: u32, other: u32) -> u32 {
    if !passes(one) || other == NOTHING { one } else { other }
}

/// What one call of the loop's body leaves to the next.
struct Walk {
    skb: Skb,
    offset: u32,
    end: u32,
    stride: u32,
    index: u32,
    service: u32,
    result: u32,
}

/// Judges the datagrams of a UDP packet, of which there can be several (`UDP_SEGMENT`).
#[inline(always)]
pub fn datagrams(index: u32, skb: Skb, transport: u32, service: u32) -> u32 {
    let offset = transport.wrapping_add(8);
    let end = skb.len();
    if offset >= end {
        return MALFORMED;
    }
    // SAFETY: reading context members.
    let (segments, size) = unsafe { ((*skb.0).gso_segs, (*skb.0).gso_size) };
    let stride = if segments > 1 && size != 0 { size } else { u32::MAX };
    let mut walk = Walk { skb, offset, end, stride, index, service, result: NOTHING };
    repeat(MAX_DATAGRAMS, judge_datagram, &mut walk);
    if walk.offset >= walk.end { walk.result } else { MALFORMED }
}

/// Whether the loop is to end.
extern "C" fn judge_datagram(_: u32, walk: &mut Walk) -> i64 {
    // Or the verifier follows each result and place through the next datagram.
    let offset = forget(walk.offset);
    let left = walk.end.wrapping_sub(offset);
    let len = if left < walk.stride { left } else { walk.stride };
    let Some(scratch) = scratch::get(walk.index) else { return 1 };
    scratch.len = walk.skb.copy(offset, len, &mut scratch.message, 0);
    let result = judge_questions(walk.index, walk.service);
    walk.result = forget(worse(forget(walk.result), result));
    walk.offset = forget(offset.wrapping_add(len));
    i64::from(walk.offset >= walk.end)
}
