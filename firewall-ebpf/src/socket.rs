//! What is kept with a socket: its verdict, who it is charged to, and where it came from.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::{BPF_SK_STORAGE_GET_F_CREATE, bpf_sock},
    helpers::generated::{bpf_get_netns_cookie, bpf_ktime_get_boot_ns, bpf_sk_storage_get},
    programs::{SockContext, SockOpsContext},
};
use firewall_common::{
    event::tcp,
    flow::{Address, Destination, TCP, fingerprint},
    layout::{Counter, SocketState, flags, kept, socket},
    parse::ip::Packet,
    verdict::{Hook, Verdict},
};

use crate::{
    bytes, emit,
    maps::{self, SOCKETS, count},
    names,
    policy::Judgement,
    process,
};

/// The state of a socket, made if there is none yet.
///
/// `None` if the kernel has no memory for it: the caller then decides without a cache.
#[inline(always)]
pub fn state(sk: *mut c_void) -> Option<&'static mut SocketState> {
    get(sk, u64::from(BPF_SK_STORAGE_GET_F_CREATE))
}

/// The state of a socket, if there is one.
#[inline(always)]
pub fn existing_state(sk: *mut c_void) -> Option<&'static mut SocketState> {
    get(sk, 0)
}

#[inline(always)]
fn get(sk: *mut c_void, flags: u64) -> Option<&'static mut SocketState> {
    let map = (&raw const SOCKETS).cast_mut().cast();
    // SAFETY: `sk` is a socket pointer that the verifier has checked, the storage outlives the
    // program, and a socket's hooks that could race write plain integers only.
    unsafe {
        bpf_sk_storage_get(map, sk, core::ptr::null_mut(), flags).cast::<SocketState>().as_mut()
    }
}

/// What a flow is, apart from where it goes.
#[derive(Clone, Copy)]
pub struct Origin {
    /// [`Hook`] where the verdict was reached, as its byte.
    pub hook: u8,
    /// Source address; zero if not known yet.
    pub src: Address,
    /// Source port.
    pub src_port: u16,
    /// What holds for later packets.
    pub keep: Keep,
    /// Whether user space records the flow, when it has read its name.
    pub told: bool,
}

/// What holds for later packets of a flow.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Nothing: each is judged anew.
    Nothing,
    /// The verdict.
    Verdict,
    /// That their payload is looked at.
    Inspect,
    /// That they pass if they begin no connection of QUIC.
    Opaque,
}

/// Whether a verdict is recorded.
#[inline(always)]
pub fn is_recorded(settings: u32, verdict: u8, decision: u32) -> bool {
    verdict != Verdict::Allow as u8 || (settings & flags::RECORD_ALLOW != 0 && decision != 0)
}

/// Counts a flow by its verdict.
#[inline(always)]
pub fn count_verdict(verdict: u8) {
    count(if verdict == Verdict::Allow as u8 {
        Counter::Allow
    } else if verdict == Verdict::Audit as u8 {
        Counter::Audit
    } else {
        Counter::Deny
    });
}

/// Writes a judgement into the socket's state, and records it where a record is due. `ctx` is the
/// program's context.
#[inline(always)]
pub fn settle(
    state: &mut SocketState,
    ctx: *mut c_void,
    generation: u32,
    settings: u32,
    destination: &Destination,
    origin: &Origin,
    judgement: Judgement,
) {
    // Decisions are numbered anew in each generation.
    let same = state.generation == generation
        && state.dst == destination.address
        && state.dst_port == destination.port
        && state.protocol == destination.protocol
        && state.verdict == judgement.verdict
        && state.decision == judgement.decision
        && state.reason == judgement.reason
        && state.known == judgement.known;
    if !same {
        emit::flush(state, ctx);
        // Another verdict on the same flow does not end it.
        if state.dst != destination.address
            || state.dst_port != destination.port
            || state.protocol != destination.protocol
        {
            emit::close(state, ctx);
            state.bytes_out = 0;
            state.bytes_in = 0;
            state.bytes_told = 0;
        }
        state.recorded_at = 0;
        state.dst = destination.address;
        state.dst_port = destination.port;
        state.protocol = destination.protocol;
        state.verdict = judgement.verdict;
        state.decision = judgement.decision;
        state.reason = judgement.reason;
        state.known = judgement.known;
        state.hook = origin.hook;
        // Whether or not the verdict is kept: the record names it.
        state.generation = generation;
    }
    state.src = origin.src;
    state.src_port = origin.src_port;
    state.flags &= !socket::WAITS;
    let passes = judgement.passes();
    let kept = if origin.keep != Keep::Nothing && generation != 0 {
        let next = match origin.keep {
            Keep::Inspect => kept::INSPECT,
            _ if !passes => kept::DENY,
            Keep::Opaque => kept::OPAQUE,
            _ => kept::PASS,
        };
        fingerprint(maps::seed, generation, destination) | next
    } else {
        0
    };
    // SAFETY: a plain write; volatile, so that it is one write of the whole word.
    unsafe { (&raw mut state.kept).write_volatile(kept) };
    // A flow that may pass is recorded with its first packet, when its source is known and it is
    // more than a plan: resolvers connect UDP sockets only to learn a source address.
    if passes && (origin.hook == Hook::Connect as u8 || origin.hook == Hook::Sendmsg as u8) {
        return;
    }
    count_verdict(judgement.verdict);
    let recorded = is_recorded(settings, judgement.verdict, judgement.decision);
    if passes && recorded {
        state.flags |= socket::OPEN;
    }
    if origin.told && passes {
        // SAFETY: the helper has no preconditions.
        state.recorded_at = unsafe { bpf_ktime_get_boot_ns() };
        return;
    }
    if !passes || (recorded && state.recorded_at == 0) {
        emit::record(state, ctx);
    }
}

/// Notes a flow that passes until its payload has been looked at.
#[inline(always)]
pub fn wait(
    state: &mut SocketState,
    generation: u32,
    settings: u32,
    packet: &Packet,
    judgement: Judgement,
) {
    let destination = &packet.destination;
    if packet.plain != 0 && generation != 0 {
        let kept = fingerprint(maps::seed, generation, destination);
        // SAFETY: a plain write; volatile, so that it is one write of the whole word.
        unsafe { (&raw mut state.kept).write_volatile(kept) };
    }
    // Datagrams are judged each, and so recorded each.
    if destination.protocol != TCP {
        return;
    }
    state.src = packet.src;
    state.src_port = packet.src_port;
    state.dst = destination.address;
    state.dst_port = destination.port;
    state.protocol = destination.protocol;
    state.verdict = judgement.verdict;
    state.decision = judgement.decision;
    state.reason = judgement.reason;
    state.known = judgement.known;
    state.hook = Hook::Packet as u8;
    state.generation = generation;
    if is_recorded(settings, judgement.verdict, judgement.decision) && state.recorded_at == 0 {
        state.flags |= socket::WAITS;
    }
}

/// Tells of a flow that has never said a word and ends: what its address gets is all there is to
/// tell. `ctx` is the program's context.
#[inline(always)]
pub fn wait_no_more(state: &mut SocketState, ctx: *mut c_void) {
    if state.flags & socket::WAITS != 0 {
        state.flags = (state.flags & !socket::WAITS) | socket::OPEN;
        count_verdict(state.verdict);
        emit::record(state, ctx);
        // What the socket does next is another flow.
        state.recorded_at = 0;
    }
}

/// `socket()`: notes who made it. Never refuses.
#[inline(always)]
pub fn created(ctx: &SockContext) {
    match state(ctx.sock.cast()) {
        Some(state) => {
            process::charge_current(state);
            // SAFETY: the helper takes the context of this program type.
            state.netns = unsafe { bpf_get_netns_cookie(ctx.sock.cast()) };
            names::note_app(state);
        }
        None => count(Counter::NoState),
    }
}

/// The last reference is gone: tells of what has not been told yet.
#[inline(always)]
pub fn released(ctx: &SockContext) {
    let sk = ctx.sock.cast();
    if let Some(state) = existing_state(sk) {
        wait_no_more(state, sk);
        emit::flush(state, sk);
        // TCP goes on sending what it has.
        if state.flags & socket::FOLLOWED == 0 {
            end(state, sk, sk);
        }
    }
}

/// Tells of the end of the flow. `ctx` is the program's context.
#[inline(always)]
fn end(state: &mut SocketState, sk: *mut c_void, ctx: *mut c_void) {
    bytes::read_connection(state, sk);
    emit::close(state, ctx);
}

/// Values of `op`, `BPF_SOCK_OPS_…_CB`.
mod op {
    pub const TCP_CONNECT: u32 = 3;
    pub const PASSIVE_ESTABLISHED: u32 = 5;
    pub const STATE: u32 = 10;
}

/// `BPF_SOCK_OPS_STATE_CB_FLAG`
const STATE_FLAG: u32 = 4;

/// A TCP connection begins or gets another state.
#[inline(always)]
pub fn tcp_event(ctx: &SockOpsContext) {
    let op = ctx.op();
    if !matches!(op, op::TCP_CONNECT | op::PASSIVE_ESTABLISHED | op::STATE) {
        return;
    }
    // SAFETY: reading a context member; null where there is no full socket, which is checked.
    let sk: *mut bpf_sock = unsafe { (*ctx.ops).__bindgen_anon_2.sk };
    if sk.is_null() {
        return;
    }
    if op == op::STATE {
        if ctx.arg(1) == u32::from(tcp::CLOSE)
            && let Some(state) = existing_state(sk.cast())
        {
            wait_no_more(state, ctx.ops.cast());
            emit::flush(state, ctx.ops.cast());
            end(state, sk.cast(), ctx.ops.cast());
        }
        return;
    }
    let Some(state) = state(sk.cast()) else {
        // Fails closed: without the mark what an accepted connection sends is judged like a new one.
        count(Counter::NoState);
        return;
    };
    // Other programs can ask for more.
    if ctx.set_cb_flags((ctx.cb_flags() | STATE_FLAG).cast_signed()).is_ok() {
        state.flags |= socket::FOLLOWED;
    }
    // What an accepted connection sends are replies.
    if op == op::PASSIVE_ESTABLISHED && state.flags & socket::CONNECTED == 0 {
        state.flags |= socket::INBOUND;
    }
}

/// The settings that hold without a generation: none.
pub const NO_SETTINGS: u32 = 0;
