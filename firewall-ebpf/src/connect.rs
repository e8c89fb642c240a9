//! `connect()` and `sendmsg()` with an address: the first place that knows where a flow goes.
//!
//! What passes here is judged again as a packet; what is denied here fails at once, with an error
//! that the app understands.

use aya_ebpf::{
    bindings::{bpf_sock, bpf_sock_addr},
    helpers::generated::{bpf_get_netns_cookie, bpf_set_retval, bpf_skc_to_mptcp_sock},
    programs::SockAddrContext,
};
use firewall_common::{
    answers::DNS,
    event,
    flow::{Address, Destination, TCP, UDP},
    layout::{Active, Counter, Header, SocketState, socket as socket_flags},
    verdict::{Hook, Reason, Verdict},
};

use crate::{
    app as apps,
    maps::count,
    names,
    policy::{self, Judgement, Who},
    process,
    quic::QUIC_READ,
    socket::{self, Keep, Origin},
    stream,
};

/// `IPPROTO_MPTCP`, which is TCP on the wire.
const MPTCP: u32 = 262;

/// 1 lets the call go on, 0 fails it.
#[inline(always)]
pub fn v4(ctx: &SockAddrContext, hook: Hook) -> i32 {
    let addr: *mut bpf_sock_addr = ctx.sock_addr;
    // SAFETY: reading a context member.
    let ip = unsafe { (*addr).user_ip4 };
    judge(ctx, hook, Address::v4(u32::from_be(ip)))
}

/// 1 lets the call go on, 0 fails it.
#[inline(always)]
pub fn v6(ctx: &SockAddrContext, hook: Hook) -> i32 {
    let addr: *mut bpf_sock_addr = ctx.sock_addr;
    // SAFETY: reading a context member, word by word: the kernel refuses wider reads.
    let words = unsafe {
        [
            (&raw const (*addr).user_ip6[0]).read_volatile(),
            (&raw const (*addr).user_ip6[1]).read_volatile(),
            (&raw const (*addr).user_ip6[2]).read_volatile(),
            (&raw const (*addr).user_ip6[3]).read_volatile(),
        ]
    };
    judge(ctx, hook, Address::v6(words))
}

#[inline(always)]
fn judge(ctx: &SockAddrContext, hook: Hook, address: Address) -> i32 {
    let addr: *mut bpf_sock_addr = ctx.sock_addr;
    // SAFETY: reading context members.
    let (port, protocol, sk): (u32, u32, *mut bpf_sock) =
        unsafe { ((*addr).user_port, (*addr).protocol, (*addr).__bindgen_anon_1.sk) };
    let protocol = if protocol == MPTCP { TCP } else { protocol as u8 };
    let port =
        if firewall_common::flow::has_ports(protocol) { u16::from_be(port as u16) } else { 0 };
    let destination =
        Destination { address: address.destination(), port, protocol, port_hidden: 0 };
    let state = if sk.is_null() { None } else { socket::state(sk.cast()) };
    let Some(state) = state else {
        // Fails closed: the kernel has no memory for two hundred bytes.
        count(Counter::NoState);
        return 0;
    };
    charge(state, sk);
    state.flags = (state.flags & !socket_flags::INBOUND) | socket_flags::CONNECTED;
    // SAFETY: the helper takes the context of this program type.
    state.netns = unsafe { bpf_get_netns_cookie(addr.cast()) };
    names::note_app(state);
    if protocol == TCP {
        stream::forget(sk.cast());
        // A socket that was refused, or is let go, can be connected again.
        socket::wait_no_more(state, addr.cast());
    }
    let active = policy::deciding(policy::active(), state.app, destination.address);
    let (settings, errno, judgement) = match policy::header(active) {
        Some(header) => {
            let judgement = decide(active, header, state, &destination);
            (header.flags, header.errno, judgement.forget())
        }
        None => (socket::NO_SETTINGS, 0, policy::no_policy()),
    };
    // Not kept: the first packet is judged again, and recorded with its source.
    let origin = Origin {
        hook: hook as u8,
        src: Address::default(),
        src_port: 0,
        keep: Keep::Nothing,
        told: false,
    };
    let ctx = addr.cast();
    socket::settle(state, ctx, active.generation(), settings, &destination, &origin, judgement);
    if judgement.passes() {
        return 1;
    }
    if errno < 0 {
        // SAFETY: the helper takes a negative errno; without it the caller gets EPERM.
        unsafe { bpf_set_retval(errno) };
    }
    0
}

/// What is known before the first packet.
#[inline(always)]
fn decide(active: Active, header: &Header, state: &mut SocketState, to: &Destination) -> Judgement {
    // Question by question.
    if header.service(to.port) == DNS && names::is_trusted(header, state.netns, to) {
        return Judgement::without_decision(Verdict::Allow, Reason::Default);
    }
    apps::find_class(active, header, state);
    let who = Who { app: &state.app, class: &state.class };
    let judged = policy::judge(active, header, who, to);
    if !judged.differ {
        return judged.judgement;
    }
    if to.protocol == TCP || (to.protocol == UDP && header.flags & QUIC_READ != 0) {
        // What it sends first decides.
        return policy::ambiguous(Verdict::Allow, judged.judgement);
    }
    policy::no_name(header, judged.judgement)
}

/// Charges the flow to who is current, or, where that is the kernel joining a subflow to an MPTCP
/// connection, to whose connection it is.
#[inline(always)]
fn charge(state: &mut SocketState, sk: *mut bpf_sock) {
    process::charge_current(state);
    if state.identity.kind != event::app::KERNEL {
        return;
    }
    // SAFETY: the helper returns null for any socket but an MPTCP subflow.
    let parent = unsafe { bpf_skc_to_mptcp_sock(sk.cast()) };
    if parent.is_null() {
        return;
    }
    if let Some(parent) = socket::existing_state(parent.cast()) {
        state.identity = parent.identity;
    }
}
