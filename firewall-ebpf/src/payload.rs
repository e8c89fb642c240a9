//! The server name in what a TCP client sends first.

use core::{ffi::c_void, mem::MaybeUninit};

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::generated::{bpf_loop, bpf_skb_load_bytes},
};
use firewall_common::{
    forget::forget,
    parse::{
        Bytes,
        payload::{MAX_PAYLOAD, Payload, answer},
    },
};

/// A packet, read by copying: its bytes need not be in one piece.
struct Skb(*mut __sk_buff);

impl Bytes for Skb {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        let mut bytes = MaybeUninit::<[u8; N]>::uninit();
        // SAFETY: the helper writes `N` bytes or fails.
        let result = unsafe {
            bpf_skb_load_bytes(self.0.cast(), offset, bytes.as_mut_ptr().cast(), N as u32)
        };
        // SAFETY: it did not fail.
        if result == 0 { Some(unsafe { bytes.assume_init() }) } else { None }
    }
}

/// What one call of the loop's body leaves to the next.
struct Walk {
    skb: *mut __sk_buff,
    state: *mut Payload,
    at: u32,
    end: u32,
    answer: u32,
}

/// Reads what a packet has from `offset` up to `end`, and goes on from where the packet before has
/// come to: one of [`answer`].
///
/// `state` is in the memory of a map, or the verifier follows what is in it.
#[inline(always)]
pub fn feed(skb: *mut __sk_buff, state: &mut Payload, offset: u32, end: u32) -> u32 {
    let mut walk = Walk { skb, state, at: offset, end, answer: answer::MORE };
    // A step takes a byte at least, and no more bytes are read than this; one step says so.
    let steps = end.saturating_sub(offset).min(MAX_PAYLOAD + 1);
    // SAFETY: the context outlives the call, and the callback takes it for what it is.
    unsafe { bpf_loop(steps, step as *mut c_void, (&raw mut walk).cast(), 0) };
    walk.answer
}

/// Returns whether the loop is to end.
extern "C" fn step(_index: u32, walk: *mut Walk) -> i64 {
    // SAFETY: `feed` lends both for the time of the loop.
    let walk = unsafe { &mut *walk };
    // SAFETY: as above.
    let state = unsafe { &mut *walk.state };
    // Or the verifier follows every answer and every place through the next step.
    let mut at = forget(walk.at);
    let answer = state.step(&Skb(walk.skb), &mut at, walk.end);
    walk.at = forget(at);
    walk.answer = forget(answer);
    i64::from(walk.answer != answer::MORE)
}
