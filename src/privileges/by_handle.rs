//! Calls that reach an object without a name: by its file handle, or by a descriptor that came
//! from one. A confined target has them made elsewhere (see [`super`]).

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags};

use super::{is_confined, unconfined};
use crate::sys::{FileHandle, open_by_handle, proc_path};

/// [`open_by_handle`] on the file system of `mount`.
pub fn open(mount: &File, handle: &FileHandle, flags: i32) -> io::Result<OwnedFd> {
    or_unconfined(open_by_handle(mount.as_fd(), handle, flags), || {
        let (mount, handle) = (mount.try_clone()?, *handle);
        unconfined(move || open_by_handle(mount.as_fd(), &handle, flags))
    })
}

/// Opens the regular file behind an `O_PATH` descriptor for reading and writing.
pub fn reopen_to_write(fd: BorrowedFd<'_>) -> io::Result<File> {
    reopen(fd, OFlags::RDWR)
}

/// The same for reading alone, which leaves no trace.
pub fn reopen_to_read(fd: BorrowedFd<'_>) -> io::Result<File> {
    reopen(fd, OFlags::RDONLY | OFlags::NOATIME)
}

/// Opens the file or directory behind an `O_PATH` descriptor, to ask and tell what is not in it (`ioctl`).
pub fn reopen_to_look(fd: BorrowedFd<'_>) -> io::Result<File> {
    reopen(fd, OFlags::RDONLY | OFlags::NOCTTY)
}

fn reopen(fd: BorrowedFd<'_>, access: OFlags) -> io::Result<File> {
    fn reopen(fd: BorrowedFd<'_>, access: OFlags) -> io::Result<File> {
        let flags = access | OFlags::CLOEXEC | OFlags::NONBLOCK;
        Ok(File::from(rustix::fs::open(proc_path(fd), flags, Mode::empty())?))
    }
    or_unconfined(reopen(fd, access), || {
        let fd = fd.try_clone_to_owned()?;
        unconfined(move || reopen(fd.as_fd(), access))
    })
}

/// Gives the object behind a descriptor another name.
pub fn link(object: &File, dir: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    fn link(object: &File, dir: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
        Ok(rustix::fs::linkat(object, c"", dir, name, AtFlags::EMPTY_PATH)?)
    }
    or_unconfined(link(object, dir, name), || {
        let (object, dir) = (object.try_clone()?, dir.try_clone_to_owned()?);
        let name = CString::from(name);
        unconfined(move || link(&object, dir.as_fd(), &name))
    })
}

/// What a confined thread is refused is done elsewhere: rarely, because the kernel knows the place
/// of what was used lately. Another thread for every call tripled the time of small appends.
fn or_unconfined<T>(tried: io::Result<T>, elsewhere: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    match tried {
        Err(error) if is_confined() && is_refusal(&error) => elsewhere(),
        tried => tried,
    }
}

/// What landlock makes of a place that it cannot judge (Linux 6.18).
fn is_refusal(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EACCES | libc::EXDEV | libc::ESTALE))
}
