//! What a descriptor's number stands for.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};

/// The first number behind those of standard input, output and error.
const FIRST_OWN: RawFd = 3;

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

/// The next program of this process (`execve(2)`) gets this descriptor, and beside the standard ones no other.
pub fn pass_alone(descriptor: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: numbers; descriptors stay open, only a flag of theirs is set.
    let closed = unsafe {
        libc::syscall(libc::SYS_close_range, FIRST_OWN, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC)
    };
    if closed < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(fcntl_setfd(descriptor, FdFlags::empty())?)
}

/// What the program before this one in the same process has left open under a number. `None`: nothing; whatever this
/// program opens itself is closed at an `execve(2)`, and is none.
pub fn left_open(number: RawFd) -> Option<OwnedFd> {
    if number < FIRST_OWN {
        return None;
    }
    // SAFETY: only asked for its flags, which an error says are not there.
    let looked = unsafe { BorrowedFd::borrow_raw(number) };
    if !fcntl_getfd(looked).is_ok_and(|flags| flags.is_empty()) {
        return None;
    }
    fcntl_setfd(looked, FdFlags::CLOEXEC).ok()?;
    // SAFETY: it is open, and nobody in this program has opened it: all that it opens carries the flag.
    Some(unsafe { OwnedFd::from_raw_fd(number) })
}
