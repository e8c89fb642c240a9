//! What this process has of the machine's memory.

/// Has large pieces of memory given back as soon as they are freed. To be called before there are threads.
///
/// The C library would learn from the first one that is freed to keep such pieces, for each thread apart,
/// and [`give_memory_back`] does not reach those that are last in a thread's heap.
pub fn keep_no_large_pieces() {
    #[cfg(target_env = "gnu")]
    {
        const LARGE: libc::c_int = 1 << 20;
        // SAFETY: has no preconditions. That it does not succeed costs memory and nothing else.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
        }
    }
}

/// Gives back to the system what reading and compiling the policies took: the C library keeps what
/// is freed, and the command may run for long.
pub fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: has no preconditions.
    unsafe {
        libc::malloc_trim(0);
    }
}
