//! What a descriptor's number stands for.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

/// From here on the number of `place` stands for what `by` is open on (`dup3(2)`); what it stood for is closed.
/// Whoever uses the number goes on with the new one. It is closed at `execve(2)`.
pub fn replace_descriptor(place: BorrowedFd<'_>, by: BorrowedFd<'_>) -> io::Result<()> {
    DescriptorNumber::of(place).stand_for(by)
}

/// A descriptor of somebody who keeps it open and does not give it out any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DescriptorNumber(RawFd);

impl DescriptorNumber {
    pub fn of(descriptor: BorrowedFd<'_>) -> DescriptorNumber {
        DescriptorNumber(descriptor.as_raw_fd())
    }

    /// As [`replace_descriptor`]. Its owner has it open still: else it would be given to whoever opens something.
    pub fn stand_for(self, by: BorrowedFd<'_>) -> io::Result<()> {
        // SAFETY: numbers; what they mean is the caller's promise.
        match unsafe { libc::dup3(by.as_raw_fd(), self.0, libc::O_CLOEXEC) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }
}
