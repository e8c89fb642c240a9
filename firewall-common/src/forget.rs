//! Numbers that the kernel's verifier knows nothing about.
//!
//! The verifier follows every way through the code as long as what it knows of a number differs
//! between them: over a million steps for a packet with options, and minutes where such ways
//! multiply. It does not follow numbers through the half-words of the stack at 8k + 4 (seen with
//! kernels 6.1 to 6.18), so a number that went through one is the same on all ways, and they join again.
//! Except zero: it knows of memory that a zero was written to that it is zero. So what goes
//! through is the number with some of its bits turned over.

/// Any number, as long as the code does not happen to know it for its own.
const TURNED: u32 = 0x5a5a_5a5a;

/// The same number, forgotten.
#[inline(always)]
pub fn forget(value: u32) -> u32 {
    #[repr(C, align(8))]
    struct Slot {
        first_half: u32,
        value: u32,
    }
    let mut slot = Slot { first_half: 0, value: 0 };
    // SAFETY: plain accesses to a local variable, volatile so that they are not optimised away;
    // the first one keeps the first half in place, which puts the value into the second.
    unsafe {
        (&raw mut slot.first_half).write_volatile(0);
        (&raw mut slot.value).write_volatile(value ^ TURNED);
        (&raw const slot.value).read_volatile() ^ TURNED
    }
}

/// The same number, forgotten.
#[inline(always)]
pub fn forget_u64(value: u64) -> u64 {
    u64::from(forget((value >> 32) as u32)) << 32 | u64::from(forget(value as u32))
}
