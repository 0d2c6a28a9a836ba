//! Memory: the allocator's, and pages that are to be there.

use std::io;

/// Gives freed memory back to the system (`malloc_trim(3)`): a table that shrank would
/// otherwise keep its pages.
pub fn give_back_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim touches only free memory of the allocator.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Has every page of a range there that whoever owns it may write to, and keeps it there if the limit of locked
/// memory allows (`mlock(2)`): the kernel can write to it without waiting for a page.
///
/// Errors: the system's (`MADV_POPULATE_WRITE` needs Linux 5.14).
pub fn keep_in_memory(at: usize, len: usize) -> io::Result<()> {
    let page = rustix::param::page_size();
    let begin = at / page * page;
    let len = (at + len).next_multiple_of(page) - begin;
    // SAFETY: no byte of the range is changed; the kernel refuses what is not mapped.
    if unsafe { libc::madvise(begin as *mut libc::c_void, len, libc::MADV_POPULATE_WRITE) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: as above.
    if unsafe { libc::mlock(begin as *const libc::c_void, len) } < 0 {
        log::debug!("pages may be swapped out: {}", io::Error::last_os_error());
    }
    Ok(())
}
