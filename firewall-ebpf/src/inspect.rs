//! The payload of flows whose address does not decide: questions for names, and the server name
//! that a TCP client sends first. The egress program jumps here.

use aya_ebpf::{
    bindings::bpf_sock, helpers::generated::bpf_sk_fullsock, programs::SkBuffContext,
};
use firewall_common::{
    evaluate::Cell,
    flow::TCP,
    forget::forget,
    layout::{Active, Counter, Header, Known, SocketState, ENCRYPTED_HELLO},
    parse::{
        ip,
        payload::{answer, flags},
    },
    verdict::{Confidence, Hook, Verdict, Via},
};

use crate::{
    dns::{self, MALFORMED, NOTHING},
    egress::{DROP, DROP_SILENTLY, PASS},
    maps::{ASKED, PAYLOADS, count},
    names::{self, DNS, which},
    packet::{self, Skb},
    payload,
    policy::{self, Judgement},
    scratch,
    socket::{self, Keep, Origin},
    stream::{self, EARLY, Way},
};

/// A packet whose payload is to be looked at.
#[inline(always)]
pub fn inspect(ctx: &SkBuffContext) -> i32 {
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
    // Each fails closed: the egress program has seen all of them a moment ago.
    let Some(state) = socket::existing_state(sk.cast()) else { return DROP_SILENTLY };
    let Some(header) = policy::header(active) else { return DROP_SILENTLY };
    let Some(packet) = packet::handed_over(skb.0) else { return DROP_SILENTLY };
    let packet = packet.forget();

    let service = forget(names::service(header, packet.destination.port));
    if packet.destination.protocol == TCP && service != DNS {
        return judge_payload(skb, active, header, sk, state, &packet);
    }
    let Some(taken) = scratch::take() else {
        count(Counter::NoScratch);
        return DROP_SILENTLY;
    };
    dns::prepare(taken.index, skb, active, header, state, &packet);
    let result = if packet.destination.protocol == TCP {
        questions_in_stream(taken.index, skb, sk, &packet)
    } else {
        dns::datagrams(taken.index, skb, &packet, service)
    };
    let result = forget(result);
    let passed = settle_questions(taken.index, skb, active, header, state, &packet, service, result);
    scratch::give_back(taken);
    passed
}

#[inline(always)]
fn questions_in_stream(index: u32, skb: Skb, sk: *mut bpf_sock, packet: &ip::Packet) -> u32 {
    let Some(segment) = packet::segment(skb, packet.transport) else { return MALFORMED };
    if segment.len == 0 {
        return NOTHING;
    }
    let Some(stream) = stream::of(&ASKED, sk.cast()) else {
        count(Counter::NoState);
        return EARLY;
    };
    let result = stream::feed(index, skb, stream, &segment, Way::Out);
    if result != EARLY && !dns::passes(result) {
        stream.closed = 1;
    }
    result
}

/// Turns what was judged of a packet with questions into its verdict.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "one place for two kinds of packets")]
fn settle_questions(
    index: u32,
    skb: Skb,
    active: Active,
    header: &Header,
    state: &mut SocketState,
    packet: &ip::Packet,
    service: u32,
    result: u32,
) -> i32 {
    if result == EARLY {
        return DROP_SILENTLY;
    }
    if result == NOTHING {
        return PASS;
    }
    let judgement = if result == MALFORMED {
        count(Counter::MalformedDns);
        // mDNS is not judged by what it is, and where no rule speaks of names nobody cares for them.
        if service != DNS {
            return PASS;
        }
        if header.name_lines == 0 {
            policy::of_leaf(header, Cell(header.question))
        } else {
            policy::unparsable(header)
        }
    } else {
        count(Counter::Questions);
        policy::of_leaf(header, Cell(result))
    };
    let name = match scratch::get(index) {
        Some(scratch) if result != MALFORMED => scratch.name,
        _ => 0,
    };
    let known = Known {
        name,
        via: if name == 0 { 0 } else { Via::Dns as u32 },
        confidence: if name == 0 { 0 } else { Confidence::Confirmed as u32 },
    };
    if name != 0 && socket::is_recorded(header.flags, &judgement) {
        names::keep_name(index, 0);
    }
    let origin = Origin {
        hook: Hook::Dns,
        src: packet.src,
        src_port: packet.src_port,
        keep: if packet.plain != 0 { Keep::Inspect } else { Keep::Nothing },
    };
    let judgement = Judgement { known, ..judgement }.forget();
    socket::settle(
        state,
        skb.context(),
        forget(active.generation()),
        forget(header.flags),
        &packet.destination,
        &origin,
        judgement,
    );
    if judgement.passes() { PASS } else { DROP }
}

/// What a TCP client sends first.
#[inline(always)]
fn judge_payload(
    skb: Skb,
    active: Active,
    header: &Header,
    sk: *mut bpf_sock,
    state: &mut SocketState,
    packet: &ip::Packet,
) -> i32 {
    let Some(segment) = packet::segment(skb, packet.transport) else { return DROP };
    if segment.len == 0 {
        return PASS;
    }
    let Some(stream) = stream::of(&PAYLOADS, sk.cast()) else {
        // No memory: as with any packet lost to that, the sender tries again.
        count(Counter::NoState);
        return DROP_SILENTLY;
    };
    if stream.started == 0 {
        stream.started = 1;
        stream.next = segment.sequence;
    }
    let known = stream.next.wrapping_sub(segment.sequence);
    if known > 1 << 31 {
        return DROP_SILENTLY;
    }
    let answer = if known >= segment.len {
        // Sent again: what has been found by now holds, if anything has.
        match stream.payload.is_done() {
            true => stream.payload.answer(),
            false => answer::MORE,
        }
    } else {
        let at = segment.offset.wrapping_add(known);
        stream.next = segment.sequence.wrapping_add(segment.len);
        payload::feed(skb, &mut stream.payload, at, segment.offset.wrapping_add(segment.len))
    };
    if answer == answer::MORE {
        return PASS;
    }
    let Some(taken) = scratch::take() else {
        count(Counter::NoScratch);
        return DROP_SILENTLY;
    };
    let bits = forget(stream.payload.flags);
    let mut class = 0;
    let mut name = 0;
    if answer == answer::NAME
        && let Some(scratch) = scratch::get(taken.index)
    {
        scratch.slot = active.slot();
        scratch.asked.text = stream.payload.name;
        class = names::name_class(taken.index, which::ASKED);
        if let Some(scratch) = scratch::get(taken.index) {
            name = scratch.suffixes.whole;
            scratch.name = name;
            scratch.asked.chain = [0; firewall_common::layout::CHAIN];
        }
    }
    let (via, hook) = match bits & flags::TLS != 0 {
        true => (Via::Tls, Hook::Tls),
        false => (Via::Http, Hook::Http),
    };
    let hook = if name == 0 { Hook::Packet } else { hook };
    let judgement = if bits & flags::MALFORMED != 0 {
        count(Counter::MalformedPayload);
        policy::unparsable(header)
    } else {
        let app = names::app(&state.identity);
        if name != 0 {
            policy::judge_shown(active, header, app, &packet.destination, class)
        } else {
            let judged = policy::judge(active, header, app, &packet.destination);
            match judged.differ {
                true => policy::ambiguous(header, judged.judgement),
                false => judged.judgement,
            }
        }
    };
    let judgement = if name == 0 {
        judgement
    } else {
        let hidden = if bits & flags::ECH != 0 { ENCRYPTED_HELLO } else { 0 };
        let confidence = Confidence::Confirmed as u32 | hidden;
        Judgement { known: Known { name, via: via as u32, confidence }, ..judgement }
    }
    .forget();
    if name != 0 && socket::is_recorded(header.flags, &judgement) {
        names::keep_name(taken.index, 0);
    }
    scratch::give_back(taken);
    let origin = Origin {
        hook,
        src: packet.src,
        src_port: packet.src_port,
        keep: if packet.plain != 0 { Keep::Verdict } else { Keep::Nothing },
    };
    socket::settle(
        state,
        skb.context(),
        forget(active.generation()),
        forget(header.flags),
        &packet.destination,
        &origin,
        judgement,
    );
    if judgement.passes() { PASS } else { DROP }
}
