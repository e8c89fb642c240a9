//! Memory to read messages in, too large for the stack.
//!
//! Programs on one CPU can interrupt each other: a softirq an app's system call, and, where the
//! kernel is preemptible, one app another. So each takes one of several pieces for itself, and one
//! that finds none drops the packet unread.

use core::arch::asm;

use aya_ebpf::helpers::generated::{bpf_ktime_get_boot_ns, bpf_probe_read_kernel};
use firewall_common::{forget::forget, layout::SCRATCHES, parse::dns::MESSAGE};

use crate::maps::{SCRATCH, Scratch};

/// A piece that is taken; to be given back.
#[derive(Clone, Copy)]
pub struct Taken {
    /// Its number.
    pub index: u32,
}

/// Takes a piece; `None` if none is free.
#[inline(always)]
pub fn take() -> Option<Taken> {
    for index in 0..SCRATCHES {
        let scratch = SCRATCH.get_ptr_mut(index)?;
        // SAFETY: the pointer is valid as long as the map.
        let busy = unsafe { &raw mut (*scratch).busy };
        if swap(busy, 1) == 0 {
            // Or the verifier follows each number through all that comes after.
            return Some(Taken { index: forget(index) });
        }
    }
    None
}

/// Gives a piece back.
#[inline(always)]
pub fn give_back(taken: Taken) {
    if let Some(scratch) = SCRATCH.get_ptr_mut(taken.index) {
        // SAFETY: the pointer is valid as long as the map; volatile, so that it is written last.
        unsafe { (&raw mut (*scratch).busy).write_volatile(0) }
    }
}

/// The piece with a number.
#[inline(always)]
pub fn get(index: u32) -> Option<&'static mut Scratch> {
    // SAFETY: who has the number has taken the piece, so there is no other reference to it.
    SCRATCH.get_ptr_mut(index).map(|scratch| unsafe { &mut *scratch })
}

/// Copies by a helper: of more than some bytes the compiler makes a loop, which the verifier follows
/// byte by byte.
#[inline(always)]
pub fn copy<T: Copy>(to: &mut T, from: &T) {
    // SAFETY: both are as large.
    unsafe {
        bpf_probe_read_kernel(
            (&raw mut *to).cast(),
            size_of::<T>() as u32,
            (&raw const *from).cast(),
        );
    }
}

/// Now, in nanoseconds: what is written to a map at this moment is told apart by it from all else.
///
/// Who copies an entry of a map, of which another CPU makes one of another key at any moment, asks
/// afterwards whether that with this stamp is still there.
#[inline(always)]
pub fn stamp() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// How often such a copy is tried.
pub const TRIES: u32 = 3;

/// Writes `value` and returns what was there, in one step.
#[inline(always)]
fn swap(to: *mut u64, value: u64) -> u64 {
    let mut value = value;
    // SAFETY: `to` is valid and aligned. An exchange that nothing comes between (kernel 5.12);
    // `core` has none for this target.
    unsafe { asm!("{v} = xchg_64({to} + 0, {v})", to = in(reg) to, v = inout(reg) value) };
    value
}

/// The message in a piece is read with indexes that are masked.
const _: () = assert!(MESSAGE.is_power_of_two());
