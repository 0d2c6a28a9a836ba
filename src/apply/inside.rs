//! Whether an object that was found by its file handle still belongs to the replica.
//!
//! A handle finds its inode wherever somebody has moved it, so the first time an object is opened
//! it must show one name below the root or in limbo; the answer counts as long as its descriptor is
//! kept. A directory has one place, which the kernel knows, and is asked at every use of a name in
//! it. Any other object may have names inside and outside at once (a hard-linked snapshot of the
//! replica is a usual thing): one inside is enough. They are looked for from the cheapest on:
//!
//! 1. the path that the kernel remembers for the inode: one `readlink`, nearly always;
//! 2. the path that the source sent along: resolved beneath the root, and believed only where it
//!    holds the very same handle, so that a wrong path costs time and nothing else;
//! 3. a search of the whole replica for the inode number: after it the kernel remembers.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::by_handle;
use super::fault::Fault;
use super::inode;
use super::replica::{Replica, handle_fault, open_beneath, path_of};
use crate::packet::{Name, ObjectId};
use crate::sys::{FileHandle, proc_path};

impl Replica {
    /// The path that came with what is performed next; empty where none did.
    pub(super) fn set_hint(&mut self, path: &[u8]) {
        self.hint.clear();
        self.hint.extend_from_slice(path);
    }

    /// Errors: [`Fault::Outside`] where it has no name in the replica.
    pub(super) fn must_be_inside(&self, id: ObjectId, file: &File) -> Result<(), Fault> {
        let status = inode::stat(file)?;
        if FileType::from_raw_mode(status.st_mode) == FileType::Directory {
            return self.directory_inside(id, file);
        }
        // Without a name it is nowhere, and held by us alone.
        if status.st_nlink == 0 || self.remembered_inside(file)? {
            return Ok(());
        }
        let handle = FileHandle::of(file.as_fd()).map_err(handle_fault)?;
        if self.holds_at_hint(&handle) || self.has_name(&handle, &status)? {
            return Ok(());
        }
        let path = std::fs::read_link(proc_path(file.as_fd())).unwrap_or_default();
        Err(Fault::Outside { object: id, path: path.display().to_string() })
    }

    /// A directory lies below the root or in limbo at this moment.
    pub(super) fn directory_inside(&self, id: ObjectId, dir: &File) -> Result<(), Fault> {
        match std::fs::read_link(proc_path(dir.as_fd())) {
            Ok(path) if self.is_below(&path)? => Ok(()),
            Ok(path) => Err(Fault::Outside { object: id, path: path.display().to_string() }),
            // Longer than the kernel tells.
            Err(error) if error.raw_os_error() == Some(libc::ENAMETOOLONG) => self.climb(dir),
            Err(error) => Err(Fault::system("path of a directory")(error)),
        }
    }

    fn is_below(&self, path: &Path) -> Result<bool, Fault> {
        Ok(path.starts_with(path_of(self.root().as_fd())?)
            || path.starts_with(path_of(self.limbo().as_fd())?))
    }

    pub(super) fn remembered_inside(&self, file: &File) -> Result<bool, Fault> {
        match std::fs::read_link(proc_path(file.as_fd())) {
            // A name that is gone is remembered while somebody has the file open by it.
            Ok(path) if path.as_os_str().as_bytes().ends_with(b" (deleted)") => Ok(false),
            Ok(path) => self.is_below(&path),
            Err(error) if error.raw_os_error() == Some(libc::ENAMETOOLONG) => Ok(false),
            Err(error) => Err(Fault::system("path of an object")(error)),
        }
    }

    pub(super) fn holds_at_hint(&self, handle: &FileHandle) -> bool {
        let resolve = ResolveFlags::BENEATH
            | ResolveFlags::NO_SYMLINKS
            | ResolveFlags::NO_MAGICLINKS
            | ResolveFlags::NO_XDEV;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat2(self.root(), self.hint.as_slice(), flags, Mode::empty(), resolve)
            .ok()
            .and_then(|found| FileHandle::of(found.as_fd()).ok())
            .is_some_and(|found| found == *handle)
    }

    /// Goes up from a directory until it meets the root or limbo.
    fn climb(&self, dir: &File) -> Result<(), Fault> {
        let handle_of = |fd: BorrowedFd<'_>| FileHandle::of(fd).map_err(handle_fault);
        let tops = [handle_of(self.root().as_fd())?, handle_of(self.limbo().as_fd())?];
        let mut at = handle_of(dir.as_fd())?;
        let mut fd = dir.try_clone().map_err(Fault::system("directory"))?;
        while !tops.contains(&at) {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            fd = rustix::fs::openat(&fd, c"..", flags, Mode::empty())
                .map(File::from)
                .map_err(Fault::system("parent of a directory"))?;
            let above = handle_of(fd.as_fd())?;
            if above == at {
                return Err(Fault::Refused("a directory deep below another one than the replica"));
            }
            at = above;
        }
        Ok(())
    }

    /// Looks at every name below root and limbo, so that the kernel remembers them all: for whoever
    /// has many objects to place.
    pub(super) fn remember_names(&self) -> Result<(), Fault> {
        let handle_of = |fd: BorrowedFd<'_>| FileHandle::of(fd).map_err(handle_fault);
        let mut waiting = vec![handle_of(self.root().as_fd())?, handle_of(self.limbo().as_fd())?];
        while let Some(handle) = waiting.pop() {
            let Ok(dir) = by_handle::open(self.root(), &handle, libc::O_RDONLY | libc::O_DIRECTORY) else {
                continue;
            };
            let dir = File::from(dir);
            for entry in Dir::read_from(&dir).map_err(Fault::system("list a directory"))? {
                let entry = entry.map_err(Fault::system("list a directory"))?;
                let Ok(name) = Name::new(entry.file_name().to_bytes()) else { continue };
                if let Ok(Some((found, true))) = look(&dir, &name) {
                    waiting.push(found);
                }
            }
        }
        Ok(())
    }

    /// Searches root and limbo; never enters a mount.
    pub(super) fn has_name(&self, wanted: &FileHandle, status: &Stat) -> Result<bool, Fault> {
        let handle_of = |fd: BorrowedFd<'_>| FileHandle::of(fd).map_err(handle_fault);
        let mut waiting = vec![handle_of(self.root().as_fd())?, handle_of(self.limbo().as_fd())?];
        while let Some(handle) = waiting.pop() {
            let Ok(dir) = by_handle::open(self.root(), &handle, libc::O_RDONLY | libc::O_DIRECTORY) else {
                continue;
            };
            let dir = File::from(dir);
            for entry in Dir::read_from(&dir).map_err(Fault::system("list a directory"))? {
                let entry = entry.map_err(Fault::system("list a directory"))?;
                let may_be_directory = matches!(entry.file_type(), FileType::Directory | FileType::Unknown);
                let Ok(name) = Name::new(entry.file_name().to_bytes()) else { continue };
                if entry.ino() != status.st_ino && !may_be_directory {
                    continue;
                }
                let Some(found) = look(&dir, &name)? else { continue };
                if found.0 == *wanted {
                    return Ok(true);
                }
                waiting.extend(found.1.then_some(found.0));
            }
        }
        Ok(false)
    }
}

/// Handle of what a name holds, and whether that is a directory; `None`: gone, or a mount.
fn look(dir: &File, name: &Name) -> Result<Option<(FileHandle, bool)>, Fault> {
    let fd = match open_beneath(dir.as_fd(), name, OFlags::PATH, Mode::empty()) {
        Ok(fd) => fd,
        Err(Errno::NOENT | Errno::XDEV) => return Ok(None),
        Err(error) => return Err(Fault::system("open a name")(error)),
    };
    let is_directory = FileType::from_raw_mode(inode::stat(&fd)?.st_mode) == FileType::Directory;
    Ok(Some((FileHandle::of(fd.as_fd()).map_err(handle_fault)?, is_directory)))
}
