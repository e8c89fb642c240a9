//! Every packet of a local socket on its way out: the authority that nothing gets around.

use aya_ebpf::{
    bindings::{__sk_buff, bpf_sock},
    helpers::generated::{
        bpf_get_socket_uid, bpf_sk_fullsock, bpf_skb_cgroup_id, bpf_skc_to_mptcp_sock,
    },
    programs::SkBuffContext,
};
use firewall_common::{
    answers::{DNS, MULTICAST, NO_DNS},
    event::{Identity, app},
    flow::{Destination, TCP, UDP, fingerprint},
    forget::forget,
    layout::{Active, Counter, Header, SocketState, flags, kept, socket as socket_flags},
    parse::ip,
    verdict::{Hook, Reason, Verdict},
};

use crate::{
    app as apps, bytes, emit, identity,
    maps::{self, JUMPS, Jump, count},
    names, offset,
    packet::{self, Skb},
    policy::{self, Judgement, Who},
    quic,
    socket::{self, Keep, Origin},
};

/// Lets the packet go on.
pub const PASS: i32 = 1;
/// Drops the packet; the sender gets EPERM.
pub const DROP: i32 = 0;
/// Drops the packet; the sender is not told and sends it again.
pub const DROP_SILENTLY: i32 = 2;

const SOCK_STREAM: u32 = 1;
const SOCK_RAW: u32 = 3;
const TCP_LISTEN: u32 = 10;

/// Judges a packet. `rewrite` is for measurements: it sees every packet that was not decided yet.
#[inline(always)]
pub fn judge(ctx: &SkBuffContext, rewrite: impl FnOnce(&mut ip::Packet, &mut SocketState)) -> i32 {
    let skb = ctx.skb.skb;
    let active = policy::active();
    // SAFETY: reading a context member.
    let sk: *mut bpf_sock = unsafe { (*skb).__bindgen_anon_2.sk };
    let state = if sk.is_null() { None } else { socket::state(sk.cast()) };
    let Some(state) = state else {
        // Fails closed: the kernel has no memory for a hundred bytes. As with any packet lost to
        // that, the sender tries again.
        count(Counter::NoState);
        return DROP_SILENTLY;
    };
    match kept_verdict(skb, active, state) {
        kept::DENY => {
            count(Counter::DeniedPackets);
            emit::record(state, skb.cast());
            return DROP;
        }
        kept::PASS => return PASS,
        kept::INSPECT => return go_on(ctx, Jump::Inspect),
        kept::OPAQUE => return go_on(ctx, Jump::Quic),
        _ => {}
    }
    // SAFETY: `sk` is not null, or it would have no state.
    let sk = unsafe { bpf_sk_fullsock(sk) };
    if sk.is_null() {
        // Does not happen: the kernel runs this hook for full sockets only, and others have no
        // state. Fails closed.
        return DROP_SILENTLY;
    }
    match undecided(skb, active, sk, state, rewrite) {
        LOOK => go_on(ctx, Jump::Inspect),
        LOOK_QUIC => go_on(ctx, Jump::Quic),
        decided => decided,
    }
}

/// In place of what the program returns: the payload is to be looked at.
const LOOK: i32 = 4;
/// The same for what can be QUIC.
const LOOK_QUIC: i32 = 5;

/// Goes on with a program that looks at payloads.
#[inline(always)]
fn go_on(ctx: &SkBuffContext, with: Jump) -> i32 {
    // SAFETY: nothing here is left undone.
    unsafe { JUMPS.tail_call(ctx, with as u32) };
    // Fails closed: without that program nobody knows what the packet asks for.
    count(Counter::NoPolicy);
    DROP_SILENTLY
}

/// In place of one of [`kept`]: nothing is.
const NOTHING: u64 = 4;

/// What is kept for where the packet goes.
#[inline(always)]
fn kept_verdict(skb: *mut __sk_buff, active: Active, state: &mut SocketState) -> u64 {
    let Some(packet) = packet::plain(Skb(skb)) else { return NOTHING };
    let fingerprint = fingerprint(maps::seed, active.generation(), &packet.destination);
    // SAFETY: a plain read; volatile, so that it is one read of the whole word.
    let kept = unsafe { (&raw const state.kept).read_volatile() };
    if kept & !3 != fingerprint {
        return NOTHING;
    }
    match kept & 3 {
        kept::OPAQUE if !quic::can_begin(Skb(skb), packet.transport) => {
            count_sent(skb, &packet, state);
            kept::PASS
        }
        kept::PASS => {
            count_sent(skb, &packet, state);
            kept::PASS
        }
        next @ (kept::OPAQUE | kept::INSPECT) => {
            packet::hand_over(Skb(skb), &packet);
            next
        }
        next => next,
    }
}

#[inline(always)]
fn count_sent(skb: *mut __sk_buff, packet: &ip::Packet, state: &mut SocketState) {
    bytes::sent(state, Skb(skb), packet.destination.protocol, packet.transport);
}

/// A packet whose flow has no verdict of the running generation.
#[inline(always)]
fn undecided(
    skb: *mut __sk_buff,
    active: Active,
    sk: *mut bpf_sock,
    state: &mut SocketState,
    rewrite: impl FnOnce(&mut ip::Packet, &mut SocketState),
) -> i32 {
    if state.identity.kind == 0 {
        identify(skb, sk, state);
    }
    let control = forget(state.flags & socket_flags::CONTROL) != 0;
    let plain = packet::plain(Skb(skb));
    let is_plain = forget(u32::from(plain.is_some())) != 0;
    let (mut packet, error) = match is_plain {
        true => (plain.unwrap_or_default().forget(), None),
        false => ip::parse(&Skb(skb)),
    };
    let unreadable = forget(u32::from(error.is_some())) != 0;
    rewrite(&mut packet, state);
    let active = policy::deciding(active, state.app, packet.destination.address);
    let header = policy::header(active);
    // An accepted connection can be given a source route too: only what goes straight back to the
    // other end is a reply.
    let settings = || header.map_or(socket::NO_SETTINGS, |header| header.flags);
    let inbound = settings() & flags::INBOUND_ENFORCE == 0
        && !unreadable
        && packet.plain != 0
        && forget(u32::from(packet.destination.protocol)) == u32::from(TCP)
        && is_inbound(sk, state);
    let inbound = forget(u32::from(inbound)) != 0;

    // 1. The kernel's own control packets: neighbour discovery, resets, errors.
    // 2. Replies on a connection that came from outside.
    // 3. What cannot be read.
    // 4. The generation, and behind it the payload.
    let judgement = if control {
        count(Counter::Kernel);
        Judgement::without_decision(Verdict::Allow, Reason::Kernel)
    } else if inbound {
        count(Counter::Inbound);
        Judgement::without_decision(Verdict::Allow, Reason::Inbound)
    } else {
        match header {
            None => policy::no_policy(),
            Some(header) if unreadable => policy::unparsable(header),
            Some(header) => {
                let (judgement, look) = decide(active, header, state, &packet.destination);
                if look != 0 {
                    packet::hand_over(Skb(skb), &packet);
                }
                if look == LOOK {
                    let generation = forget(active.generation());
                    socket::wait(state, generation, header.flags, &packet, judgement.forget());
                }
                if look != 0 {
                    return look;
                }
                judgement
            }
        }
    }
    .forget();
    let origin = Origin {
        hook: Hook::Packet as u8,
        src: packet.src,
        src_port: packet.src_port,
        keep: if !unreadable && packet.plain != 0 { Keep::Verdict } else { Keep::Nothing },
        told: false,
    };
    socket::settle(
        state,
        skb.cast(),
        forget(active.generation()),
        forget(settings()),
        &packet.destination,
        &origin,
        judgement,
    );
    if !judgement.passes() {
        return DROP;
    }
    count_sent(skb, &packet, state);
    PASS
}

/// Decides by address and the names it is known by; and whether the payload has a say: 0, [`LOOK`]
/// or [`LOOK_QUIC`].
#[inline(always)]
fn decide(
    active: Active,
    header: &Header,
    state: &mut SocketState,
    to: &Destination,
) -> (Judgement, i32) {
    // A piece of a packet shows nothing.
    let shows = to.port_hidden == 0;
    let is_tcp = to.protocol == TCP && shows;
    let is_udp = to.protocol == UDP && shows;
    let service = if is_tcp || is_udp { forget(header.service(to.port)) } else { 0 };
    if service == DNS && names::is_trusted(header, state.netns, to) {
        // Question by question.
        return (Judgement::without_decision(Verdict::Allow, Reason::Default), LOOK);
    }
    if !shows && header.name_lines != 0 && matches!(to.protocol, TCP | UDP) {
        // The name could be in it.
        return (policy::unparsable(header), 0);
    }
    apps::find_class(active, header, state);
    let who = Who { app: &state.app, class: &state.class };
    let judged = policy::judge(active, header, who, to);
    let judgement = judged.judgement;
    // Of what is recorded it is told where it goes, also where that has no say.
    let named = header.name_lines != 0
        || socket::is_recorded(header.flags, judgement.verdict, judgement.decision);
    let look = match service {
        NO_DNS if is_tcp && named => LOOK,
        NO_DNS if is_udp && quic::is_read(header.flags, named) => LOOK_QUIC,
        NO_DNS => 0,
        MULTICAST if header.name_lines == 0 => 0,
        _ => LOOK,
    };
    if !judged.differ {
        return (judgement, if judgement.passes() { look } else { 0 });
    }
    if service == NO_DNS && look != 0 {
        // Passes until its payload shows which name is meant.
        return (policy::ambiguous(Verdict::Allow, judgement), look);
    }
    (policy::no_name(header, judgement), 0)
}

/// Whether what a TCP socket sends is a reply: a listener's SYN-ACK, or an accepted connection.
#[inline(always)]
fn is_inbound(sk: *mut bpf_sock, state: &SocketState) -> bool {
    if state.flags & socket_flags::INBOUND != 0 {
        return true;
    }
    // SAFETY: `sk` is a full socket.
    unsafe { (*sk).type_ == SOCK_STREAM && (*sk).state == TCP_LISTEN }
}

/// Finds out whose socket this is that no process was seen making, and marks the kernel's control
/// sockets.
///
/// Those are raw sockets: ICMP, neighbour discovery and MLD, TCP resets. Other sockets that the
/// kernel opens carry data for somebody (NFS, SMC, RxRPC), so they are judged.
#[inline(never)]
fn identify(skb: *mut __sk_buff, sk: *mut bpf_sock, state: &mut SocketState) {
    find_owner(skb, sk, state);
    names::note_app(state);
}

#[inline(always)]
fn find_owner(skb: *mut __sk_buff, sk: *mut bpf_sock, state: &mut SocketState) {
    // A subflow of an MPTCP connection is the kernel's socket too, but it sends for the app that
    // made the connection.
    // SAFETY: `sk` is a full socket; the helper returns null for any but an MPTCP subflow.
    let parent = unsafe { bpf_skc_to_mptcp_sock(sk.cast()) };
    if !parent.is_null() {
        if let Some(parent) = socket::existing_state(parent.cast()) {
            state.identity = parent.identity;
        }
        return;
    }
    // The verifier forbids arithmetic on a socket pointer, so the address goes through memory,
    // where it becomes a number.
    state.socket = sk as u64;
    // SAFETY: a plain read of what was just written; volatile, so that it is really read.
    let address = unsafe { (&raw const state.socket).read_volatile() };
    let kernel = identity::member::<u8>(address, offset!(sock_kern_byte))
        .is_some_and(|bits| u32::from(bits) & offset!(sock_kern_mask) != 0);
    if kernel {
        state.identity.kind = app::KERNEL;
        // SAFETY: `sk` is a full socket.
        if unsafe { (*sk).type_ } == SOCK_RAW {
            state.flags |= socket_flags::CONTROL;
        }
        return;
    }
    count(Counter::UnknownApp);
    // SAFETY: the helpers have no preconditions beyond a valid context.
    unsafe {
        state.identity.uid = bpf_get_socket_uid(skb);
        state.identity.gid = Identity::NO_GROUP;
        state.identity.cgroup = bpf_skb_cgroup_id(skb);
    }
}
