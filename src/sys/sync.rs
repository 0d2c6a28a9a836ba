//! Writing back dirty pages.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Has the kernel write back the dirty pages of a file and waits until they are written; not for
/// the disk below, and without the file's own lock (`sync_file_range(2)`).
pub fn sync_pages(file: impl AsFd) -> io::Result<()> {
    let how =
        libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WRITE | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    // SAFETY: numbers and a descriptor that is open; no memory is touched.
    match unsafe { libc::sync_file_range(file.as_fd().as_raw_fd(), 0, 0, how) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
