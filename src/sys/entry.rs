//! What an entry of a directory is, without opening it.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::fs::{Statx, StatxAttributes};

/// `listxattrat(2)`: its number, the same on all processors that Linux numbers alike (`asm-generic/unistd.h`).
const LISTXATTRAT: libc::c_long = 465;

/// Whether an entry has extended attributes of any kind; a symlink is not followed.
///
/// Errors: `ENOSYS` before Linux 6.13; `EOPNOTSUPP` where the file system has none.
pub fn has_xattrs_at(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<bool> {
    let no_list: *mut u8 = std::ptr::null_mut();
    // SAFETY: `name` is NUL-terminated; with a size of 0 nothing is written.
    let size = unsafe {
        libc::syscall(LISTXATTRAT, dir.as_raw_fd(), name.as_ptr(), libc::AT_SYMLINK_NOFOLLOW, no_list, 0usize)
    };
    if size < 0 { Err(io::Error::last_os_error()) } else { Ok(size > 0) }
}

/// Whether a status by name is known to be that of the directory's own entry, and not of what is
/// mounted on it.
pub fn is_no_mount(status: &Statx) -> bool {
    status.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT)
        && !status.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn entries_with_attributes_are_told_from_those_without() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["bare", "dressed"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(dir.path().join("dressed"), "trusted.x", b"1", flags).unwrap();
        std::os::unix::fs::symlink("dressed", dir.path().join("link")).unwrap();
        let root = std::fs::File::open(dir.path()).unwrap();
        let has = |name: &CStr| has_xattrs_at(root.as_fd(), name);
        match has(c"bare") {
            Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => return,
            has => assert!(!has.unwrap()),
        }
        assert!(has(c"dressed").unwrap() && !has(c"link").unwrap());
        assert_eq!(has(c"none").unwrap_err().raw_os_error(), Some(libc::ENOENT));
    }
}
