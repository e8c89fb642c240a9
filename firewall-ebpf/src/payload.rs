//! The server name in what a TCP client sends first.

use firewall_common::{
    forget::forget,
    parse::payload::{Payload, answer},
};

use crate::{packet::Skb, repeat::repeat};

/// What one call of the loop's body leaves to the next.
struct Walk {
    skb: Skb,
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
pub fn feed(skb: Skb, state: &mut Payload, offset: u32, end: u32) -> u32 {
    let mut walk = Walk { skb, state, at: offset, end, answer: answer::MORE };
    // A step takes a byte at least.
    repeat(end.saturating_sub(offset), step, &mut walk);
    walk.answer
}

/// Returns whether the loop is to end.
extern "C" fn step(_: u32, walk: &mut Walk) -> i64 {
    // SAFETY: `feed` lends it for the time of the loop.
    let state = unsafe { &mut *walk.state };
    // Or the verifier follows every answer and every place through the next step.
    let mut at = forget(walk.at);
    let answer = state.step(&walk.skb, &mut at, walk.end);
    walk.at = forget(at);
    walk.answer = forget(answer);
    i64::from(walk.answer != answer::MORE)
}
