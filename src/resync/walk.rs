//! The walk over the backing directory: one listing chunk after the other, depth first.
//!
//! What waits is held as file handles, so paths may be longer than `PATH_MAX` and directories may
//! be renamed under the walk. Memory: one chunk, and about 150 bytes for each directory that was
//! listed by its parent and not yet entered.

use std::ffi::CStr;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{Dir, Mode, OFlags, ResolveFlags, Statx, openat2};

use super::error::has_vanished;
use super::look::{attributes, birth, stat, timestamp};
use super::{CopyError, CopyProgress};
use crate::limits::{HEADER_LEN_MAX, LISTING_ENTRIES_MAX, LISTING_LEN_CUT};
use crate::packet::{Attributes, Birth, LaneItem, ListedObject, Name, ObjectId, Timestamp, Xattr};
use crate::sys::{FileHandle, open_by_handle};
use crate::xattr;

/// Room that an item needs beside the object's xattrs: the fields, a name, a symlink target.
const ITEM_ROOM: usize = 16 * 1024;
/// Most that the extended attributes of one object may take, in bytes.
pub(super) const XATTRS_LEN_MAX: usize = HEADER_LEN_MAX - LISTING_LEN_CUT - ITEM_ROOM;

/// A walk over one tree.
pub struct Walk {
    root: OwnedFd,
    /// Device of the root: what lies on another is a nested mount or subvolume.
    device: (u32, u32),
    birth_epoch: u32,
    suspect_since: Option<Timestamp>,
    open: Option<OpenDirectory>,
    waiting: Vec<WaitingDirectory>,
    pub(super) counts: WalkCounts,
}

/// What the walk met that was not listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WalkCounts {
    /// Names and directories that went away under the walk.
    pub vanished: u64,
    /// Directories whose mtime changed while they were read.
    pub changed: u64,
    /// Mount points and subvolumes, which were left out.
    pub nested: u64,
}

/// One listing, ready to be sent.
pub struct Chunk {
    pub item: LaneItem,
    pub dir: Arc<TreePath>,
    /// The regular files of the chunk, to be found again when the target wants them.
    pub files: Vec<ListedFile>,
}

/// A regular file that was listed.
pub struct ListedFile {
    pub object: ObjectId,
    pub handle: FileHandle,
    pub name: Name,
    pub size: u64,
    pub links: u32,
}

struct OpenDirectory {
    id: ObjectId,
    path: Arc<TreePath>,
    entries: Dir,
    /// An entry that did not fit into the chunk before.
    carried: Option<Seen>,
    /// Its mtime before the first entry was read.
    mtime: Timestamp,
}

struct WaitingDirectory {
    id: ObjectId,
    handle: FileHandle,
    path: Arc<TreePath>,
}

/// An entry that was looked at.
struct Seen {
    listed: ListedObject,
    handle: FileHandle,
}

impl Walk {
    /// Prepares a walk over the tree of `root`, a directory opened for reading; gives the item
    /// that says what the root is.
    ///
    /// Errors: [`CopyError::Read`].
    pub fn new(
        root: OwnedFd,
        birth_epoch: u32,
        suspect_since: Option<Timestamp>,
    ) -> Result<(Walk, LaneItem), CopyError> {
        let path = TreePath::root();
        let failed = |doing| {
            let path = path.clone();
            move |error| read_error(doing, &path, error)
        };
        let status = stat(root.as_fd()).map_err(failed("look at"))?;
        let handle = FileHandle::of(root.as_fd()).map_err(failed("get the file handle of"))?;
        let id = handle.object_id(birth_epoch, status.stx_ino);
        let xattrs = xattr::read_replicated(&root).map_err(failed("read attributes of"))?;
        check_xattrs(&xattrs, || path.to_string())?;
        let item = LaneItem::Root { object: id, attributes: attributes(&status), xattrs };
        let walk = Walk {
            root,
            device: (status.stx_dev_major, status.stx_dev_minor),
            birth_epoch,
            suspect_since,
            open: None,
            waiting: vec![WaitingDirectory { id, handle, path }],
            counts: WalkCounts::default(),
        };
        Ok((walk, item))
    }

    /// The next listing; `None` when the whole tree was listed.
    pub fn next_chunk(&mut self, progress: &CopyProgress) -> Result<Option<Chunk>, CopyError> {
        loop {
            if let Some(open) = self.open.take() {
                return self.read_chunk(open, progress).map(Some);
            }
            let Some(waiting) = self.waiting.pop() else { return Ok(None) };
            progress.set_current(waiting.path.to_string());
            self.open = self.enter(waiting)?;
        }
    }

    /// A descriptor on the tree's file system, for opening by handle.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    fn enter(&mut self, dir: WaitingDirectory) -> Result<Option<OpenDirectory>, CopyError> {
        let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOATIME;
        let opened = open_by_handle(self.root.as_fd(), &dir.handle, flags).and_then(|fd| {
            let mtime = timestamp(stat(fd.as_fd())?.stx_mtime);
            Ok((Dir::new(fd)?, mtime))
        });
        match opened {
            Ok((entries, mtime)) => {
                Ok(Some(OpenDirectory { id: dir.id, path: dir.path, entries, carried: None, mtime }))
            }
            Err(error) if has_vanished(&error) => {
                self.counts.vanished += 1;
                Ok(None)
            }
            Err(error) => Err(read_error("open", &dir.path, error)),
        }
    }

    fn read_chunk(&mut self, mut dir: OpenDirectory, progress: &CopyProgress) -> Result<Chunk, CopyError> {
        let (mut listed, mut files) = (Vec::new(), Vec::new());
        let mut len = 0;
        let last = loop {
            if listed.len() == LISTING_ENTRIES_MAX {
                break false;
            }
            let Some(seen) = self.next_entry(&mut dir)? else { break true };
            len += encoded_len(&seen.listed);
            if len > LISTING_LEN_CUT && !listed.is_empty() {
                dir.carried = Some(seen);
                break false;
            }
            self.note(&dir, &seen, &mut files, progress);
            listed.push(seen.listed);
        };
        let mtime = self.mtime_after(&dir)?;
        let item = LaneItem::Listing { dir: dir.id, dir_mtime: mtime, entries: listed, last };
        let path = dir.path.clone();
        if last {
            self.counts.changed += u64::from(mtime != dir.mtime);
            CopyProgress::add(&progress.directories, 1);
        } else {
            self.open = Some(dir);
        }
        Ok(Chunk { item, dir: path, files })
    }

    fn next_entry(&mut self, dir: &mut OpenDirectory) -> Result<Option<Seen>, CopyError> {
        if let Some(seen) = dir.carried.take() {
            return Ok(Some(seen));
        }
        while let Some(entry) = dir.entries.read() {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) if has_vanished(&error.into()) => break,
                Err(error) => return Err(read_error("list", &dir.path, error.into())),
            };
            let Ok(name) = Name::new(entry.file_name().to_bytes()) else { continue };
            if let Some(seen) = self.see(dir, name, entry.file_name())? {
                return Ok(Some(seen));
            }
        }
        Ok(None)
    }

    /// Looks at one entry; `None` where it vanished or is not part of the tree.
    fn see(&mut self, dir: &OpenDirectory, name: Name, raw: &CStr) -> Result<Option<Seen>, CopyError> {
        let path = || TreePath::below(&dir.path, name.clone());
        let fd = match dir.entries.fd().map_err(io::Error::from).and_then(|dir| open_entry(dir, raw)) {
            Ok(fd) => fd,
            Err(error) if error.raw_os_error() == Some(libc::EXDEV) => {
                self.leave_out(&path());
                return Ok(None);
            }
            Err(error) if has_vanished(&error) => {
                self.counts.vanished += 1;
                return Ok(None);
            }
            Err(error) => return Err(read_error("open", &path(), error)),
        };
        let status = stat(fd.as_fd()).map_err(|error| read_error("look at", &path(), error))?;
        if (status.stx_dev_major, status.stx_dev_minor) != self.device {
            self.leave_out(&path());
            return Ok(None);
        }
        let handle = FileHandle::of(fd.as_fd())
            .map_err(|error| read_error("get the file handle of", &path(), error))?;
        let listed = self
            .listed(name.clone(), fd.as_fd(), &status, &handle)
            .map_err(|error| read_error("read attributes of", &path(), error))?;
        check_xattrs(&listed.xattrs, || path().to_string())?;
        Ok(Some(Seen { listed, handle }))
    }

    fn listed(
        &self,
        name: Name,
        fd: BorrowedFd<'_>,
        status: &Statx,
        handle: &FileHandle,
    ) -> io::Result<ListedObject> {
        let birth = birth(fd, status)?;
        let is_file = birth == Birth::File;
        Ok(ListedObject {
            name,
            object: handle.object_id(self.birth_epoch, status.stx_ino),
            birth,
            attributes: attributes(status),
            xattrs: xattr::read_replicated(fd)?,
            size: if is_file { status.stx_size } else { 0 },
            links: status.stx_nlink,
            suspect: is_file && self.suspect_since.is_some_and(|since| timestamp(status.stx_ctime) >= since),
        })
    }

    fn note(
        &mut self,
        dir: &OpenDirectory,
        seen: &Seen,
        files: &mut Vec<ListedFile>,
        progress: &CopyProgress,
    ) {
        let listed = &seen.listed;
        if listed.birth == Birth::Directory {
            let path = TreePath::below(&dir.path, listed.name.clone());
            self.waiting.push(WaitingDirectory { id: listed.object, handle: seen.handle, path });
            return;
        }
        CopyProgress::add(&progress.files, 1);
        if listed.birth == Birth::File {
            files.push(ListedFile {
                object: listed.object,
                handle: seen.handle,
                name: listed.name.clone(),
                size: listed.size,
                links: listed.links,
            });
        }
    }

    /// A directory that was removed meanwhile keeps the time that it had.
    fn mtime_after(&self, dir: &OpenDirectory) -> Result<Timestamp, CopyError> {
        match dir.entries.fd().map_err(io::Error::from).and_then(stat) {
            Ok(status) => Ok(timestamp(status.stx_mtime)),
            Err(error) if has_vanished(&error) => Ok(dir.mtime),
            Err(error) => Err(read_error("look at", &dir.path, error)),
        }
    }

    fn leave_out(&mut self, path: &TreePath) {
        self.counts.nested += 1;
        log::warn!("{path}: another file system is mounted here; it is not part of the copy");
    }
}

/// Opens an entry without following it and without stepping onto another mount (`EXDEV`).
fn open_entry(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat2(dir, name, flags, Mode::empty(), ResolveFlags::NO_XDEV)?)
}

/// What a listed object takes in a listing, in bytes: fixed-width fields, lengths as u64.
fn encoded_len(listed: &ListedObject) -> usize {
    let birth = match &listed.birth {
        Birth::Symlink { target } => 12 + target.0.len(),
        Birth::CharDevice { .. } | Birth::BlockDevice { .. } => 12,
        Birth::File | Birth::Directory | Birth::Fifo | Birth::Socket => 4,
    };
    let fixed = 8 + 16 + size_of::<Attributes>() + 8 + 8 + 4 + 1;
    fixed + listed.name.as_bytes().len() + birth + xattrs_len(&listed.xattrs)
}

fn xattrs_len(xattrs: &[Xattr]) -> usize {
    xattrs.iter().map(|xattr| 16 + xattr.name.0.len() + xattr.value.0.len()).sum()
}

/// Refuses an object whose xattrs would not fit into any item.
pub(super) fn check_xattrs(xattrs: &[Xattr], path: impl Fn() -> String) -> Result<(), CopyError> {
    let len = xattrs_len(xattrs);
    if len > XATTRS_LEN_MAX {
        return Err(CopyError::TooLarge { path: path(), len, max: XATTRS_LEN_MAX });
    }
    Ok(())
}

pub(super) fn read_error(doing: &'static str, path: &TreePath, error: io::Error) -> CopyError {
    CopyError::Read { doing, path: path.to_string(), error }
}

/// Where an object was listed, relative to the root. Directories share their beginnings.
#[derive(Debug)]
pub struct TreePath(Option<(Arc<TreePath>, Name)>);

impl TreePath {
    pub fn root() -> Arc<TreePath> {
        Arc::new(TreePath(None))
    }

    pub fn below(parent: &Arc<TreePath>, name: Name) -> Arc<TreePath> {
        Arc::new(TreePath(Some((parent.clone(), name))))
    }
}

impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut names, mut at) = (Vec::new(), self);
        while let Some((parent, name)) = &at.0 {
            names.push(String::from_utf8_lossy(name.as_bytes()));
            at = parent;
        }
        if names.is_empty() {
            return f.write_str(".");
        }
        for (index, name) in names.iter().rev().enumerate() {
            write!(f, "{}{name}", if index == 0 { "" } else { "/" })?;
        }
        Ok(())
    }
}

/// Frees a chain step by step: a tree may be deeper than the stack.
impl Drop for TreePath {
    fn drop(&mut self) {
        let mut next = self.0.take();
        while let Some((parent, _)) = next {
            next = Arc::into_inner(parent).and_then(|mut node| node.0.take());
        }
    }
}
