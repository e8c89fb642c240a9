//! Telling user space. Nothing here has a say in a verdict.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::{bpf_get_socket_cookie, bpf_ktime_get_boot_ns};
use firewall_common::{
    event::FlowEvent,
    layout::{Counter, ENCRYPTED_HELLO, SocketState},
};

use crate::maps::{EVENTS, count};

/// Repeats of a flow within this many nanoseconds are one event.
const WINDOW: u64 = 1_000_000_000;

/// Records the flow in `state`, or counts it as a repeat of the record made within the last second.
/// `ctx` is the program's context, by which the kernel knows the socket.
#[inline(always)]
pub fn record(state: &mut SocketState, ctx: *mut c_void) {
    // SAFETY: the helper has no preconditions.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    if state.recorded_at != 0 && now.wrapping_sub(state.recorded_at) < WINDOW {
        state.repeats = state.repeats.saturating_add(1);
        return;
    }
    let count = state.repeats.saturating_add(1);
    state.repeats = 0;
    state.recorded_at = now;
    event(state, ctx, now, count);
}

/// Tells of repeats that have not been told yet: the flow ends or another one takes its place.
#[inline(always)]
pub fn flush(state: &mut SocketState, ctx: *mut c_void) {
    if state.repeats != 0 {
        // SAFETY: the helper has no preconditions.
        let now = unsafe { bpf_ktime_get_boot_ns() };
        let count = state.repeats;
        state.repeats = 0;
        event(state, ctx, now, count);
    }
}

// Not inlined: the callers' stacks are small.
#[inline(never)]
fn event(state: &SocketState, ctx: *mut c_void, time: u64, times: u32) {
    let Some(mut entry) = EVENTS.reserve::<FlowEvent>(0) else {
        count(Counter::LostEvents);
        return;
    };
    entry.write(FlowEvent {
        time,
        // SAFETY: the callers pass the context of a program type that has the helper.
        cookie: unsafe { bpf_get_socket_cookie(ctx) },
        src: state.src,
        dst: state.dst,
        src_port: state.src_port,
        dst_port: state.dst_port,
        protocol: state.protocol,
        verdict: state.verdict,
        reason: state.reason,
        hook: state.hook,
        generation: state.generation,
        decision: state.decision,
        count: times,
        via: state.known.via as u8,
        confidence: state.known.confidence as u8,
        encrypted_hello: u8::from(state.known.confidence & ENCRYPTED_HELLO != 0),
        _pad: 0,
        name: state.known.name,
        identity: state.identity,
    });
    entry.submit(0);
}
