//! Datagrams that user space reads, because what they say is encrypted.

use core::{arch::asm, mem::offset_of};

use aya_ebpf::helpers::generated::{
    bpf_get_socket_cookie, bpf_ktime_get_boot_ns, bpf_ktime_get_ns, bpf_skb_load_bytes,
};
use firewall_common::{
    event::FlowEvent,
    flow::UDP,
    layout::{Counter, Held, MAX_DATAGRAM, PATIENCE, SocketState, held},
    verdict::Hook,
};

use crate::{
    maps::{BUDGETS, HELD, MAX_BUDGETS, READER, Scratch, count},
    packet::Skb,
};

/// Nanoseconds of a socket's budget that a datagram takes, and how much of it can be saved up.
const OF_SOCKET: (u64, u64) = (1_000_000_000 / 128, 1_000_000_000);
/// The same of an app's.
const OF_APP: (u64, u64) = (1_000_000_000 / 4096, 1_000_000_000 / 4);

/// Whether somebody reads what is handed over.
#[inline(always)]
pub fn is_attended() -> bool {
    let Some(sign) = READER.get_ptr(0) else { return false };
    // SAFETY: the pointer is valid as long as the map; volatile, because user space writes it.
    let sign = unsafe { sign.read_volatile() };
    // SAFETY: the helper has no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    sign != 0 && now.wrapping_sub(sign) < PATIENCE
}

/// Takes a datagram's share of a budget, kept as the time when it is whole again (GCRA): whether it
/// had enough.
#[inline(always)]
fn take_share(whole_at: *mut u64, (share, saved): (u64, u64), now: u64) -> bool {
    // SAFETY: the caller's pointer is valid. Who writes at the same time makes the budget somewhat
    // larger.
    let at = unsafe { whole_at.read_volatile() };
    let at = if at < now { now } else { at };
    if at - now > saved {
        return false;
    }
    // SAFETY: as above.
    unsafe { whole_at.write_volatile(at + share) };
    true
}

/// Whether another datagram of the socket may be held: one socket, or one app, that sends without
/// end leaves the others their share of the reader.
#[inline(always)]
fn may_hold(scratch: &Scratch, state: &mut SocketState) -> bool {
    // SAFETY: the helper has no preconditions.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    let Some(of_app) = BUDGETS.get_ptr_mut((scratch.app >> 32) as u32 % MAX_BUDGETS) else {
        return false;
    };
    take_share(&raw mut state.held, OF_SOCKET, now) && take_share(of_app, OF_APP, now)
}

/// Hands `len` bytes at `at` over to user space, for one of the reasons in [`held`]: whether there
/// was room.
#[inline(always)]
pub fn hand_over(
    scratch: &Scratch,
    skb: Skb,
    state: &mut SocketState,
    (at, len): (u32, u32),
    why: u32,
) -> bool {
    if len > MAX_DATAGRAM as u32 || !may_hold(scratch, state) {
        count(Counter::LostInitials);
        return false;
    }
    let Some(mut entry) = HELD.reserve::<Held>(0) else {
        count(Counter::LostInitials);
        return false;
    };
    let to: *mut Held = entry.as_mut_ptr();
    let mut size = len;
    // SAFETY: keeps the bounds in one register, where the verifier sees them.
    unsafe {
        asm!(
            "if {n} <= 2000 goto +1", "{n} = 2000", "if {n} > 0 goto +1", "{n} = 1",
            n = inout(reg) size
        );
    }
    // SAFETY: the entry is as large as `Held`; every member is written, the datagram as far as it
    // goes.
    let result = unsafe {
        let datagram = to.cast::<u8>().add(offset_of!(Held, datagram));
        let event: *mut FlowEvent = &raw mut (*to).event;
        (*event).time = bpf_ktime_get_boot_ns();
        (*event).cookie = bpf_get_socket_cookie(skb.context());
        (*event).src = scratch.src;
        (*event).dst = scratch.server;
        (*event).src_port = scratch.src_port as u16;
        (*event).dst_port = scratch.port as u16;
        (*event).protocol = UDP;
        (*event).verdict = 0;
        (*event).reason = 0;
        (*event).hook = Hook::Quic as u8;
        (*event).generation = scratch.generation;
        (*event).decision = 0;
        (*event).count = 1;
        (*event).via = 0;
        (*event).confidence = 0;
        (*event).encrypted_hello = 0;
        (*event).closed = 0;
        (*event).name = 0;
        (*event).bytes_out = 0;
        (*event).bytes_in = 0;
        (*event).identity = state.identity;
        (*to).app = scratch.app;
        (*to).why = why;
        (*to).len = len;
        bpf_skb_load_bytes(skb.context(), at, datagram.cast(), size)
    };
    if result != 0 {
        entry.discard(0);
        count(Counter::LostInitials);
        return false;
    }
    if why == held::BACK {
        count(Counter::HeldInitials);
    }
    entry.submit(0);
    true
}
