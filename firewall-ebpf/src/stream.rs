//! DNS over TCP (RFC 1035 section 4.2.2): messages put together from what segments have of them.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::BPF_SK_STORAGE_GET_F_CREATE,
    btf_maps::SkStorage,
    helpers::generated::{bpf_sk_storage_delete, bpf_sk_storage_get},
};
use firewall_common::{
    layout::{PayloadState, Stream},
    parse::dns::{HEADER, MAX_QUESTION},
};

use crate::{
    answers,
    dns::{self, MALFORMED, judge_questions},
    maps::{ANSWERED, ASKED, PAYLOADS},
    packet::{Segment, Skb},
    repeat::repeat,
    scratch::{self, copy},
};

/// Pieces of one packet that are looked at; more, and the packet is malformed.
const STEPS: u32 = 1024;

/// Which way a stream goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Questions.
    Out = 0,
    /// Answers.
    In = 1,
}

/// What one call of the loop's body leaves to the next.
struct Walk {
    skb: Skb,
    stream: *mut Stream,
    at: u32,
    end: u32,
    index: u32,
    way: u32,
}

/// What a socket has asked over TCP, made if there is nothing yet.
#[inline(always)]
pub fn asked(sk: *mut c_void) -> Option<&'static mut Stream> {
    of(&raw const ASKED, sk)
}

/// What a socket was answered over TCP, made if there is nothing yet.
#[inline(always)]
pub fn answered(sk: *mut c_void) -> Option<&'static mut Stream> {
    of(&raw const ANSWERED, sk)
}

/// What a socket has sent first, made if there is nothing yet.
#[inline(always)]
pub fn payload(sk: *mut c_void) -> Option<&'static mut PayloadState> {
    of(&raw const PAYLOADS, sk)
}

#[inline(always)]
fn of<T>(map: *const SkStorage<T>, sk: *mut c_void) -> Option<&'static mut T> {
    let flags = u64::from(BPF_SK_STORAGE_GET_F_CREATE);
    // SAFETY: `sk` is a full socket; the storage outlives the program, and the segments of one TCP
    // socket go through its hooks one after the other.
    unsafe {
        bpf_sk_storage_get(map.cast_mut().cast(), sk, core::ptr::null_mut(), flags)
            .cast::<T>()
            .as_mut()
    }
}

/// Forgets what a socket has sent and received: it begins another connection.
#[inline(always)]
pub fn forget(sk: *mut c_void) {
    delete(&ASKED, sk);
    delete(&ANSWERED, sk);
    delete(&PAYLOADS, sk);
}

#[inline(always)]
fn delete<T>(map: &'static SkStorage<T>, sk: *mut c_void) {
    // SAFETY: `sk` is a full socket; nothing here refers to its storage.
    unsafe { bpf_sk_storage_delete((&raw const *map).cast_mut().cast(), sk) };
}

/// Takes in a segment and does with the messages that it makes whole what is done with messages.
/// Returns whether it comes in its turn; one that does not is to come again.
#[inline(always)]
pub fn feed(index: u32, skb: Skb, stream: &mut Stream, segment: &Segment, way: Way) -> bool {
    if segment.len == 0 {
        return true;
    }
    if stream.closed != 0 {
        if let Some(scratch) = scratch::get(index) {
            scratch.result = stream.closed;
            scratch.known = stream.name;
        }
        return true;
    }
    if stream.started == 0 {
        stream.started = 1;
        stream.next = segment.sequence;
    }
    let known = stream.next.wrapping_sub(segment.sequence);
    if known > 1 << 31 {
        return false;
    }
    if known >= segment.len {
        return true;
    }
    let end = segment.offset.wrapping_add(segment.len);
    stream.next = segment.sequence.wrapping_add(segment.len);
    let at = segment.offset.wrapping_add(known);
    let mut walk = Walk { skb, stream, at, end, index, way: way as u32 };
    repeat(STEPS, step, &mut walk);
    if walk.at != walk.end {
        dns::stand(index, MALFORMED);
    }
    if let Some(scratch) = scratch::get(index)
        && !dns::passes(scratch.result)
    {
        // Nothing behind it is read as if it were a message of its own.
        stream.closed = scratch.result;
        stream.name = scratch.known;
    }
    true
}

/// Takes a byte of the length or a piece of the message. Returns whether the loop is to end.
extern "C" fn step(_: u32, walk: &mut Walk) -> i64 {
    // SAFETY: `feed` lends it for the time of the loop.
    let stream = unsafe { &mut *walk.stream };
    if walk.at >= walk.end {
        return 1;
    }
    if stream.have < 2 {
        let [byte] = firewall_common::parse::Bytes::read(&walk.skb, walk.at).unwrap_or([0]);
        stream.length = (stream.length << 8 | u32::from(byte)) & 0xffff;
        stream.have += 1;
        stream.read = 0;
        let long = walk.way == Way::Out as u32 && stream.length > MAX_QUESTION;
        if stream.have == 2 && (stream.length < HEADER || long) {
            // Malformed: the loop ends before the segment does.
            return 1;
        }
        walk.at += 1;
        return 0;
    }
    let body = stream.have - 2;
    let mut piece = stream.length.saturating_sub(body).min(walk.end - walk.at);
    if stream.read == body {
        let copied = walk.skb.copy(walk.at, piece, &mut stream.message, body);
        stream.read += copied;
        if copied != 0 {
            piece = copied;
        }
    }
    stream.have += piece;
    walk.at += piece;
    if stream.have - 2 < stream.length {
        return 0;
    }
    if let Some(scratch) = scratch::get(walk.index) {
        copy(&mut scratch.message, &stream.message);
        scratch.len = stream.read;
    }
    stream.have = 0;
    stream.length = 0;
    if walk.way == Way::In as u32 {
        answers::learn(walk.index);
        return 0;
    }
    judge_questions(walk.index);
    scratch::get(walk.index).map_or(1, |scratch| i64::from(!dns::passes(scratch.result)))
}
