//! What this process has of the machine's memory.

/// Gives back to the system what reading and compiling the policies took: the C library keeps what
/// is freed, and the command may run for long.
pub fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: has no preconditions.
    unsafe {
        libc::malloc_trim(0);
    }
}
