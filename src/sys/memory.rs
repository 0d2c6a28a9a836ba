//! The allocator's memory.

/// Gives freed memory back to the system (`malloc_trim(3)`): a table that shrank would
/// otherwise keep its pages.
pub fn give_back_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim touches only free memory of the allocator.
    unsafe {
        libc::malloc_trim(0);
    }
}
