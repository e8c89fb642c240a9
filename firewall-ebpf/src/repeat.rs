//! Loops whose body the kernel's verifier looks at once.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_loop;

/// Calls `step` with numbers from 0, until it returns other than 0, but not more than `times`.
///
/// What `step` changes in `context` the verifier follows from call to call until nothing new comes
/// of it; what it changes in the memory of a map, not.
#[inline(always)]
pub fn repeat<C>(times: u32, step: extern "C" fn(u32, &mut C) -> i64, context: &mut C) {
    // SAFETY: the context outlives the call, and `step` takes it for what it is.
    unsafe { bpf_loop(times, step as *mut c_void, (&raw mut *context).cast(), 0) };
}
