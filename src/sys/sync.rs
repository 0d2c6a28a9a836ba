//! Writing back dirty pages; files that share blocks.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

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

/// The kernel's `struct file_clone_range` (`linux/fs.h`).
#[repr(C)]
struct RawRange {
    from: i64,
    from_offset: u64,
    length: u64,
    into_offset: u64,
}

/// `FICLONERANGE`: `_IOW(0x94, 13, struct file_clone_range)`.
const FICLONERANGE: libc::c_ulong = 1 << 30 | (size_of::<RawRange>() as libc::c_ulong) << 16 | 0x94 << 8 | 13;

/// Lets a range of one file have the blocks of the same range of another one.
///
/// Errors: `EOPNOTSUPP`, `EXDEV`, `EINVAL` where the file system cannot do that, or not with these ranges.
pub fn share_range(from: BorrowedFd<'_>, into: BorrowedFd<'_>, offset: u64, length: u64) -> io::Result<()> {
    let range = RawRange { from: from.as_raw_fd().into(), from_offset: offset, length, into_offset: offset };
    // SAFETY: the call reads one struct file_clone_range, whose layout `range` has; both descriptors are open.
    match unsafe { libc::ioctl(into.as_raw_fd(), FICLONERANGE as _, &raw const range) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
