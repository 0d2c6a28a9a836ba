//! What has changed while nobody captured it: found by the source alone, by change times.
//!
//! ```text
//!  root ──> everything below is looked at ──> changed at the moment or later: owed
//!                      │ programs work: what was not walked yet is moved to where it was walked already
//!                      v
//!  the map's marks ──> each is looked at, directories that were not walked are walked ──> again, until there
//!                                                                                         is none of these
//! ```
//! Why nothing is missed: a name that stays as it is while its directory is read is read. So an object that
//! was not come upon, or one of the directories above it, got its name since the walk began: by a rename or a
//! link through the mount, which has marked that very object in the map before it changed anything. When
//! after a walk no marked directory is left that was not walked, all is found; wherever it is moved from
//! then on, it is known by its id. What programs change themselves is marked, and no business of the walk.
//!
//! A change time says nothing of *what* changed: names of a directory, all of a file, attributes of anything.

use std::collections::HashSet;
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Dir, FsWord, Statx};

use super::error::has_vanished;
use super::live::WhatIsOwed;
use super::look::stat;
use super::owed::{Owed, OwedContent, OwedObject};
use super::seeing::Eyes;
use super::{CopyError, Gone};
use crate::limits::{BY_TIME_DIRECTORIES_MAX, BY_TIME_OBJECTS_MAX, BY_TIME_ROUNDS_MAX};
use crate::packet::{Ids, ObjectId, Timestamp};
use crate::sys::{FileHandle, open_by_handle};
use crate::words::RESERVED_NAME;

/// Bugs that are planted on purpose.
#[cfg(test)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Planted {
    /// What programs moved meanwhile is not looked at again.
    TrustsTheWalk,
    /// Of that, directories are not walked.
    WalksOnce,
    /// Of that, only directories are.
    LooksAtDirectories,
    /// Names of directories are not owed: what was deleted stays.
    OwesNoNames,
}

/// See the module. Runs once, on the caller's thread.
pub struct Search<'a> {
    eyes: Eyes,
    root: FileHandle,
    /// What programs have changed since everything is captured.
    marked: &'a WhatIsOwed,
    /// Asked now and then.
    goes_on: &'a mut dyn FnMut() -> Result<(), Gone>,
    /// Directories by inode numbers: where a number is used again, what it stands for now was made and
    /// filled through the mount.
    walked: HashSet<u64>,
    to_walk: Vec<FileHandle>,
    looked_at: HashSet<ObjectId>,
    found: Vec<OwedObject>,
    known: HashSet<ObjectId>,
    #[cfg(test)]
    planted: Option<Planted>,
}

impl<'a> Search<'a> {
    /// Of what changed at this moment or later in a directory opened for reading, not through the mount.
    /// Everything that changes now is captured, and marked before it changes.
    ///
    /// Errors: [`CopyError::ByTime`] where change times do not tell; [`CopyError::Read`].
    pub fn new(
        backing: OwnedFd,
        ids: Ids,
        since: Timestamp,
        marked: &'a WhatIsOwed,
        goes_on: &'a mut dyn FnMut() -> Result<(), Gone>,
    ) -> Result<Search<'a>, CopyError> {
        let stamps =
            rustix::fs::fstatfs(&backing).is_ok_and(|facts| STAMPED_BY_THIS_HOST.contains(&facts.f_type));
        let eyes = Eyes::new(backing, ids, Some(since))?;
        let root = eyes.root()?.handle;
        // Without a layout, a name and a handle could be of two objects.
        if !stamps || root.inode().is_none() {
            return Err(CopyError::ByTime("this host's clock may not be the one that stamps changes"));
        }
        Ok(Search {
            eyes,
            root,
            marked,
            goes_on,
            walked: HashSet::new(),
            to_walk: Vec::new(),
            looked_at: HashSet::new(),
            found: Vec::new(),
            known: HashSet::new(),
            #[cfg(test)]
            planted: None,
        })
    }

    #[cfg(test)]
    pub(crate) fn planting(self, planted: Option<Planted>) -> Search<'a> {
        Search { planted, ..self }
    }

    /// Gives what has changed, and perhaps more.
    ///
    /// Errors: [`CopyError::ByTime`]: it cannot be told, or is too much; [`CopyError::Gone`]: nobody wants it
    /// any more.
    pub fn run(mut self) -> Result<Owed, CopyError> {
        // Without its marks nothing that is found would be all.
        (self.marked)().ok_or(CopyError::Owed)?;
        let root = self.root;
        self.come_upon(&root)?;
        self.walk()?;
        for _ in 0..BY_TIME_ROUNDS_MAX {
            #[cfg(test)]
            if self.planted == Some(Planted::TrustsTheWalk) {
                break;
            }
            let marked = (self.marked)().ok_or(CopyError::Owed)?;
            for object in &marked.objects {
                if self.looked_at.insert(object.id) {
                    self.come_upon(&object.handle)?;
                }
            }
            if self.to_walk.is_empty() {
                return Ok(Owed { objects: self.found });
            }
            #[cfg(test)]
            if self.planted == Some(Planted::WalksOnce) {
                break;
            }
            self.walk()?;
        }
        #[cfg(test)]
        if self.planted.is_some() {
            return Ok(Owed { objects: self.found });
        }
        Err(CopyError::ByTime("directories were moved all the time"))
    }

    fn walk(&mut self) -> Result<(), CopyError> {
        while let Some(dir) = self.to_walk.pop() {
            self.goes_on()?;
            self.walk_one(&dir)?;
        }
        Ok(())
    }

    fn goes_on(&mut self) -> Result<(), CopyError> {
        Ok((self.goes_on)()?)
    }

    /// Looks at whatever is in a directory. One that is gone was removed through the mount.
    fn walk_one(&mut self, handle: &FileHandle) -> Result<(), CopyError> {
        let dir = match self.eyes.open_directory(handle) {
            Ok(dir) => dir,
            Err(error) if has_vanished(&error) => return Ok(()),
            Err(error) => return Err(cannot_tell(&error)),
        };
        let is_root = *handle == self.root;
        let mut entries = Dir::read_from(&dir).map_err(|error| cannot_tell(&error.into()))?;
        while let Some(entry) = entries.read() {
            let entry = entry.map_err(|error| cannot_tell(&error.into()))?;
            let name = entry.file_name();
            let is_reserved = is_root && name.to_bytes() == RESERVED_NAME.as_bytes();
            if !is_reserved && !matches!(name.to_bytes(), b"." | b"..") {
                self.look_at_name(&dir, name)?;
            }
            #[cfg(test)]
            self.goes_on()?;
        }
        Ok(())
    }

    fn look_at_name(&mut self, dir: &OwnedFd, name: &CStr) -> Result<(), CopyError> {
        let status = match self.eyes.status_at(dir.as_fd(), name) {
            Ok(status) => status,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(()),
            Err(error) => return Err(cannot_tell(&error)),
        };
        let is_of_interest = is_directory(&status) || self.eyes.is_suspect(&status);
        if !self.eyes.is_here(&status) || !is_of_interest {
            return Ok(());
        }
        let handle = match FileHandle::at(dir.as_fd(), name) {
            Ok(handle) => handle,
            Err(error) if has_vanished(&error) => return Ok(()),
            Err(error) => return Err(cannot_tell(&error)),
        };
        // Else the name got another object in between: both are marked.
        if handle.inode() == Some(status.stx_ino) { self.take(handle, &status) } else { Ok(()) }
    }

    /// Looks at an object that is known by its handle.
    fn come_upon(&mut self, handle: &FileHandle) -> Result<(), CopyError> {
        let fd = match open_by_handle(self.eyes.root_fd(), handle, libc::O_PATH | libc::O_NOFOLLOW) {
            Ok(fd) => fd,
            Err(error) if has_vanished(&error) => return Ok(()),
            Err(error) => return Err(cannot_tell(&error)),
        };
        let status = stat(fd.as_fd()).map_err(|error| cannot_tell(&error))?;
        #[cfg(test)]
        if self.planted == Some(Planted::LooksAtDirectories) && !is_directory(&status) {
            return Ok(());
        }
        self.take(*handle, &status)
    }

    fn take(&mut self, handle: FileHandle, status: &Statx) -> Result<(), CopyError> {
        if self.eyes.is_suspect(status) {
            self.owe(handle, status)?;
        }
        if is_directory(status) && self.walked.insert(status.stx_ino) {
            self.to_walk.push(handle);
        }
        match self.walked.len() <= BY_TIME_DIRECTORIES_MAX {
            true => Ok(()),
            false => Err(CopyError::ByTime("there are too many directories")),
        }
    }

    fn owe(&mut self, handle: FileHandle, status: &Statx) -> Result<(), CopyError> {
        let id = self.eyes.id(&handle, status).map_err(|error| cannot_tell(&error))?;
        if !self.known.insert(id) {
            return Ok(());
        }
        let content = match file_type(status) {
            libc::S_IFREG => OwedContent::Doubted { size: status.stx_size },
            _ => OwedContent::No,
        };
        let names = is_directory(status);
        #[cfg(test)]
        let names = names && self.planted != Some(Planted::OwesNoNames);
        self.found.push(OwedObject { id, handle, names, content });
        match self.found.len() <= BY_TIME_OBJECTS_MAX {
            true => Ok(()),
            false => Err(CopyError::ByTime("too much has changed")),
        }
    }
}

/// Local file systems (`linux/magic.h`: ext2 to ext4, XFS, btrfs, tmpfs, F2FS): a server's clock may be another.
const STAMPED_BY_THIS_HOST: [FsWord; 5] = [0xef53, 0x5846_5342, 0x9123_683e, 0x0102_1994, 0xf2f5_2010];

/// A copy of everything leaves out what cannot be read, and names it.
fn cannot_tell(error: &io::Error) -> CopyError {
    log::info!("looking for what has changed: {error}");
    CopyError::ByTime("something cannot be read")
}

fn file_type(status: &Statx) -> u32 {
    u32::from(status.stx_mode) & libc::S_IFMT
}

fn is_directory(status: &Statx) -> bool {
    file_type(status) == libc::S_IFDIR
}
