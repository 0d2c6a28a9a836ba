//! How large a terminal is.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};

/// Rows and columns; `None` where it is none, or does not know.
pub fn terminal_size(terminal: impl AsFd) -> Option<(usize, usize)> {
    let mut size = MaybeUninit::<libc::winsize>::zeroed();
    // SAFETY: the kernel writes one `winsize` to where the pointer leads, or nothing.
    let done = unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCGWINSZ, size.as_mut_ptr()) };
    // SAFETY: all zeroes are a `winsize`.
    let libc::winsize { ws_row, ws_col, .. } = unsafe { size.assume_init() };
    (done == 0 && ws_row > 0 && ws_col > 0).then_some((ws_row.into(), ws_col.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_no_terminal() {
        assert_eq!(terminal_size(tempfile::tempfile().unwrap()), None);
    }
}
