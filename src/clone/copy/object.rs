//! Objects of the copy, and their attributes.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{
    AtFlags, FileType, Gid, IFlags, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags,
};
use rustix::io::Errno;

use super::{Stopped, failed};
use crate::clone::looks::Looks;
use crate::privileges::by_handle;
use crate::sys::{FileHandle, proc_path};
use crate::xattr::{self, FLAGS};

/// Flags that a person may have set in the replica, beside those that replication carries.
const OTHERS: [IFlags; 3] = [IFlags::NOATIME, IFlags::SYNC, IFlags::DIRSYNC];

/// Those of a file that a copy takes over, beside those among its looks.
pub(super) fn other_flags_of(file: &File) -> IFlags {
    let all = OTHERS.into_iter().fold(IFlags::empty(), |all, flag| all | flag);
    // A file system without flags has none.
    rustix::fs::ioctl_getflags(file).map_or(IFlags::empty(), |flags| flags & all)
}

/// A symlink, FIFO, socket or device; `None` where the name is there already.
pub(in crate::clone) fn make_special(
    from: &File,
    into: &File,
    name: &[u8],
    looks: &Looks,
) -> Result<Option<File>, Stopped> {
    let made = match looks.kind() {
        FileType::Symlink => {
            let target =
                rustix::fs::readlinkat(from, c"", Vec::new()).map_err(failed("a symlink cannot be read"))?;
            rustix::fs::symlinkat(&*target, into, name)
        }
        kind => rustix::fs::mknodat(into, name, kind, Mode::RUSR | Mode::WUSR, looks.device),
    };
    match made {
        Ok(()) => {}
        Err(Errno::EXIST) => return Ok(None),
        Err(error) => return Err(failed("a special file cannot be made")(error)),
    }
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made =
        rustix::fs::openat(into, name, flags, Mode::empty()).map_err(failed("the copy cannot be opened"))?;
    Ok(Some(File::from(made)))
}

/// A further name of an object of the copy; nothing, and `false`, where the name is there already.
pub(super) fn link(root: &File, made: &FileHandle, into: &File, name: &[u8]) -> Result<bool, Stopped> {
    let made = by_handle::open(root, made, libc::O_PATH | libc::O_NOFOLLOW)
        .map_err(failed("the copy cannot be opened"))?;
    let name = std::ffi::CString::new(name).map_err(failed("a name cannot be given"))?;
    match by_handle::link(&File::from(made), into.as_fd(), &name) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(failed("a link cannot be made")(error))
        }
        done => Ok(done.is_ok()),
    }
}

/// Takes away what was inherited.
pub(super) fn strip(fd: BorrowedFd<'_>) -> io::Result<()> {
    let looks = Looks { xattrs: Vec::new(), ..Looks::of(fd)? };
    give_xattrs(fd, &looks)
}

/// Owner, extended attributes, mode and mtime, in this order: each disturbs those before it.
pub(in crate::clone) fn give_looks(fd: BorrowedFd<'_>, looks: &Looks) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(looks.uid), Gid::from_raw(looks.gid));
    rustix::fs::chownat(fd, c"", Some(uid), Some(gid), AtFlags::EMPTY_PATH)?;
    give_xattrs(fd, looks)?;
    if looks.kind() != FileType::Symlink {
        rustix::fs::chmod(proc_path(fd), Mode::from_raw_mode(looks.mode & 0o7777))?;
    }
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: looks.mtime.0, tv_nsec: i64::from(looks.mtime.1) },
    };
    Ok(rustix::fs::utimensat(fd, c"", &times, AtFlags::EMPTY_PATH)?)
}

fn give_xattrs(fd: BorrowedFd<'_>, looks: &Looks) -> io::Result<()> {
    let path = proc_path(fd);
    for name in xattr::list(fd)? {
        if xattr::is_replicated(&name.0) && !looks.xattrs.iter().any(|(wanted, _)| *wanted == name.0) {
            rustix::fs::removexattr(&path, &*name.0)?;
        }
    }
    // Flags come last of all.
    for (name, value) in looks.xattrs.iter().filter(|(name, _)| name != FLAGS) {
        rustix::fs::setxattr(&path, &**name, value, XattrFlags::empty())?;
    }
    Ok(())
}
