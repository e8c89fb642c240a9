//! Telling user space. Nothing here has a say in a verdict.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::{BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    helpers::generated::{bpf_get_socket_cookie, bpf_ktime_get_boot_ns},
};
use firewall_common::{
    event::FlowEvent,
    layout::{Counter, ENCRYPTED_HELLO, SocketState, socket},
};

use crate::maps::{EVENTS, WOKEN, count};

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
    event(state, ctx, now, count, 0);
}

/// Tells of repeats that have not been told yet: the flow ends or another one takes its place.
#[inline(always)]
pub fn flush(state: &mut SocketState, ctx: *mut c_void) {
    if state.repeats != 0 {
        // SAFETY: the helper has no preconditions.
        let now = unsafe { bpf_ktime_get_boot_ns() };
        let count = state.repeats;
        state.repeats = 0;
        event(state, ctx, now, count, 0);
    }
}

/// Tells what the flow has moved so far, if it has moved any since that was last told.
#[inline(always)]
pub fn progress(state: &mut SocketState, ctx: *mut c_void) {
    // Its end has been told if it came meanwhile.
    if state.bytes_out.wrapping_add(state.bytes_in) != state.bytes_told
        && state.flags & socket::OPEN != 0
    {
        // SAFETY: the helper has no preconditions.
        event(state, ctx, unsafe { bpf_ktime_get_boot_ns() }, 0, 0);
    }
}

/// Tells that the flow has ended, if it was recorded and may pass: once, with all that it has moved.
#[inline(always)]
pub fn close(state: &mut SocketState, ctx: *mut c_void) {
    if state.flags & socket::OPEN != 0 {
        state.flags &= !socket::OPEN;
        // SAFETY: the helper has no preconditions.
        event(state, ctx, unsafe { bpf_ktime_get_boot_ns() }, 0, 1);
    }
}

/// How long nobody is woken after an event that has woken: a wake costs more than the verdict, and who
/// reads looks again by itself (`Reader::ready`).
const QUIET: u64 = 10_000_000;

/// What the ring buffer is told with an event.
#[inline(always)]
fn wakes(now: u64) -> u64 {
    let Some(woken) = WOKEN.get_ptr_mut(0) else { return u64::from(BPF_RB_FORCE_WAKEUP) };
    // SAFETY: the pointer is to this CPU's own value, which lives as long as the map. That an interrupt
    // comes in between wakes once more.
    unsafe {
        if now.wrapping_sub(*woken) < QUIET {
            return u64::from(BPF_RB_NO_WAKEUP);
        }
        *woken = now;
    }
    u64::from(BPF_RB_FORCE_WAKEUP)
}

// Not inlined: the callers' stacks are small.
#[inline(never)]
fn event(state: &mut SocketState, ctx: *mut c_void, time: u64, times: u32, closed: u8) {
    if times == 0 {
        state.bytes_told = state.bytes_out.wrapping_add(state.bytes_in);
    }
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
        closed,
        name: state.known.name,
        bytes_out: state.bytes_out,
        bytes_in: state.bytes_in,
        identity: state.identity,
    });
    entry.submit(wakes(time));
}
