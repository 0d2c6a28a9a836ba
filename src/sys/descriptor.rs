//! What a descriptor's number stands for.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// From here on the number of `place` stands for what `by` is open on (`dup3(2)`); what it stood for is closed.
/// Whoever uses the number goes on with the new one. It is closed at `execve(2)`.
pub fn replace_descriptor(place: BorrowedFd<'_>, by: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: both are open, and the number of `place` stays open for whoever owns it.
    match unsafe { libc::dup3(by.as_raw_fd(), place.as_raw_fd(), libc::O_CLOEXEC) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
