//! A directory that the target doubts, found by its id. The target chooses the id: what it names may be
//! anything on the file system, and is listed only where it lies inside the set.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

use super::super::CopyError;
use super::super::error::has_vanished;
use super::super::look::stat;
use super::super::place::TreePath;
use super::super::seeing::{Eyes, read_error};
use crate::packet::ObjectId;
use crate::sys::{FileHandle, open_by_handle};

/// What an id stands for.
pub(super) enum Doubted {
    /// A directory of the set.
    Inside(FileHandle),
    /// No object, another kind of object, or one that is elsewhere: nobody learns which.
    Nowhere,
}

/// Looks for the directory with this id.
///
/// Errors: [`CopyError::NoHandles`] where no handle can be made of an id; [`CopyError::Read`] where this
/// process cannot open anything.
pub(super) fn find(eyes: &Eyes, root: &FileHandle, id: ObjectId) -> Result<Doubted, CopyError> {
    let handle = eyes
        .handle_of(id, root)
        .map_err(|error| {
            read_error("look up the handle of a doubted directory of", &TreePath::root(), error)
        })?
        .ok_or(CopyError::NoHandles)?;
    match is_inside(eyes, &handle, root, id) {
        Ok(true) => Ok(Doubted::Inside(handle)),
        Ok(false) => Ok(Doubted::Nowhere),
        Err(error) if has_vanished(&error) => Ok(Doubted::Nowhere),
        Err(error) => match error.raw_os_error() {
            Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::EPERM) => {
                Err(read_error("open a doubted directory of", &TreePath::root(), error))
            }
            _ => Ok(Doubted::Nowhere),
        },
    }
}

/// Whether a handle is that of the directory with this id, and lies inside the set.
pub(super) fn is_inside(
    eyes: &Eyes,
    handle: &FileHandle,
    root: &FileHandle,
    id: ObjectId,
) -> io::Result<bool> {
    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW;
    let mut at = open_by_handle(eyes.root_fd(), handle, flags)?;
    let mut status = stat(at.as_fd())?;
    if eyes.id(&FileHandle::of(at.as_fd())?, &status)? != id {
        return Ok(false);
    }
    // Directories that move meanwhile stay inside, or outside: nothing leaves a set through its mount.
    while eyes.is_here(&status) {
        if root.inode().is_none_or(|inode| inode == status.stx_ino) && FileHandle::of(at.as_fd())? == *root {
            return Ok(true);
        }
        let up = above(&at)?;
        let above = stat(up.as_fd())?;
        if above.stx_ino == status.stx_ino {
            return Ok(false);
        }
        (at, status) = (up, above);
    }
    Ok(false)
}

fn above(dir: &OwnedFd) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat2(dir, c"..", flags, Mode::empty(), ResolveFlags::NO_XDEV)?)
}
