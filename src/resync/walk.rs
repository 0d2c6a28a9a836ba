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

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Statx, StatxFlags, openat2, statx};

use super::error::{has_vanished, is_of_the_object};
use super::look::{attributes, birth, stat, timestamp};
use super::{CopyError, CopyProgress};
use crate::limits::{LISTING_ENTRIES_MAX, LISTING_LEN_CUT, XATTRS_INLINE_MAX};
use crate::packet::{
    Attributes, Birth, LaneItem, LeftOut, ListedObject, Name, ObjectId, Timestamp, Unlisted, Xattr,
};
use crate::sys::{FileHandle, has_xattrs_at, is_no_mount, open_by_handle};
use crate::xattr;

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
    /// What could not be read.
    pub(super) left_out: LeftOut,
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
    /// What has attributes that are sent in items of their own.
    pub large: Vec<ListedFile>,
}

/// An object that was listed, a regular file mostly.
pub struct ListedFile {
    pub object: ObjectId,
    pub handle: FileHandle,
    /// The root has none.
    pub name: Option<Name>,
    pub size: u64,
    pub links: u32,
}

struct OpenDirectory {
    id: ObjectId,
    path: Arc<TreePath>,
    entries: Dir,
    /// No chunk of it was read yet.
    is_fresh: bool,
    /// An entry that did not fit into the chunk before.
    carried: Option<Seen>,
    /// Its mtime before the first entry was read.
    mtime: Timestamp,
    /// Names of the chunk under way whose objects cannot be read.
    unreadable: Vec<Name>,
    /// Reading it failed half-way.
    is_cut_off: bool,
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
    /// that says what the root is, and the root where its attributes are sent in items of their own.
    ///
    /// Errors: [`CopyError::Read`].
    pub fn new(
        root: OwnedFd,
        birth_epoch: u32,
        suspect_since: Option<Timestamp>,
    ) -> Result<(Walk, LaneItem, Option<ListedFile>), CopyError> {
        let path = TreePath::root();
        let failed = |doing| {
            let path = path.clone();
            move |error| read_error(doing, &path, error)
        };
        let status = stat(root.as_fd()).map_err(failed("look at"))?;
        let handle = FileHandle::of(root.as_fd()).map_err(failed("get the file handle of"))?;
        let id = ObjectId::at_first_sight(birth_epoch, &handle, status.stx_ino);
        let xattrs =
            xattr::read_replicated_up_to(&root, XATTRS_INLINE_MAX).map_err(failed("read attributes of"))?;
        let (large, xattrs) = (xattrs.is_none(), xattrs.unwrap_or_default());
        let mut attributes = attributes(&status);
        if large {
            // Its owner's alone until the ACLs among them have come.
            attributes.mode &= !0o077;
        }
        let large = large.then_some(ListedFile { object: id, handle, name: None, size: 0, links: 1 });
        let item = LaneItem::Root { object: id, attributes, xattrs };
        let walk = Walk {
            root,
            device: (status.stx_dev_major, status.stx_dev_minor),
            birth_epoch,
            suspect_since,
            open: None,
            waiting: vec![WaitingDirectory { id, handle, path }],
            counts: WalkCounts::default(),
            left_out: LeftOut::default(),
        };
        Ok((walk, item, large))
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
            Ok((entries, mtime)) => Ok(Some(OpenDirectory {
                id: dir.id,
                path: dir.path,
                entries,
                is_fresh: true,
                carried: None,
                mtime,
                unreadable: Vec::new(),
                is_cut_off: false,
            })),
            Err(error) if has_vanished(&error) => {
                self.counts.vanished += 1;
                self.left_out.add(&format!("{}: it went away under the copy", dir.path));
                Ok(None)
            }
            // Without a listing none of its names on the target is an orphan.
            Err(error) => self.leave("open", &dir.path, error).map(|()| None),
        }
    }

    fn read_chunk(&mut self, mut dir: OpenDirectory, progress: &CopyProgress) -> Result<Chunk, CopyError> {
        let (mut listed, mut files, mut large) = (Vec::new(), Vec::new(), Vec::new());
        let mut len = 0;
        let last = loop {
            if listed.len() + dir.unreadable.len() >= LISTING_ENTRIES_MAX {
                break false;
            }
            let Some(seen) = self.next_entry(&mut dir)? else { break true };
            len += encoded_len(&seen.listed);
            if len > LISTING_LEN_CUT && !listed.is_empty() {
                dir.carried = Some(seen);
                break false;
            }
            if seen.listed.large_xattrs {
                large.push(seen.as_listed());
            }
            self.note(&dir, &seen, &mut files, progress);
            listed.push(seen.listed);
        };
        let names = std::mem::take(&mut dir.unreadable);
        let unlisted = match (dir.is_cut_off, names.is_empty()) {
            (true, _) => Some(Unlisted::TheRest),
            (false, false) => Some(Unlisted::These(names)),
            (false, true) => None,
        };
        let mtime = mtime_after(&dir);
        let first = std::mem::take(&mut dir.is_fresh);
        let item =
            LaneItem::Listing { dir: dir.id, dir_mtime: mtime, entries: listed, unlisted, first, last };
        let path = dir.path.clone();
        if last {
            if mtime != dir.mtime {
                self.counts.changed += 1;
                self.left_out.add(&format!("{path}: its names changed under the copy"));
            }
            CopyProgress::add(&progress.directories, 1);
        } else {
            self.open = Some(dir);
        }
        Ok(Chunk { item, dir: path, files, large })
    }

    fn next_entry(&mut self, dir: &mut OpenDirectory) -> Result<Option<Seen>, CopyError> {
        if let Some(seen) = dir.carried.take() {
            return Ok(Some(seen));
        }
        while let Some(entry) = dir.entries.read() {
            let entry = match entry {
                Ok(entry) => entry,
                // It was removed: it has no names any more.
                Err(rustix::io::Errno::NOENT) => break,
                Err(error) => {
                    self.leave("list", &dir.path, error.into())?;
                    dir.is_cut_off = true;
                    break;
                }
            };
            let Ok(name) = Name::new(entry.file_name().to_bytes()) else { continue };
            match self.see(dir, &name, entry.file_name()) {
                Ok(Some(seen)) => return Ok(Some(seen)),
                Ok(None) => {}
                Err((doing, error)) => {
                    self.leave(doing, &TreePath::below(&dir.path, name.clone()), error)?;
                    dir.unreadable.push(name);
                    if dir.unreadable.len() >= LISTING_ENTRIES_MAX {
                        dir.is_cut_off = true;
                        break;
                    }
                }
            }
        }
        Ok(None)
    }

    /// Looks at one entry; `None` where it vanished or is not part of the tree.
    ///
    /// Errors: what could not be done with it. A name that is listed and cannot be found (`ESTALE`)
    /// has not vanished: it is damaged.
    fn see(&mut self, dir: &OpenDirectory, name: &Name, raw: &CStr) -> Result<Option<Seen>, NotRead> {
        if let Some(seen) = dir.entries.fd().ok().and_then(|dir| self.see_plain(dir, name, raw)) {
            return Ok(Some(seen));
        }
        let path = || TreePath::below(&dir.path, name.clone());
        let fd = match dir.entries.fd().map_err(io::Error::from).and_then(|dir| open_entry(dir, raw)) {
            Ok(fd) => fd,
            Err(error) if error.raw_os_error() == Some(libc::EXDEV) => {
                self.leave_out(&path());
                return Ok(None);
            }
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                self.counts.vanished += 1;
                return Ok(None);
            }
            Err(error) => return Err(("open", error)),
        };
        let status = stat(fd.as_fd()).map_err(|error| ("look at", error))?;
        if (status.stx_dev_major, status.stx_dev_minor) != self.device {
            self.leave_out(&path());
            return Ok(None);
        }
        let handle = FileHandle::of(fd.as_fd()).map_err(|error| ("get the file handle of", error))?;
        let listed = self
            .listed(name.clone(), fd.as_fd(), &status, &handle)
            .map_err(|error| ("read attributes of", error))?;
        Ok(Some(Seen { listed, handle }))
    }

    /// The quick look at most entries: a regular file without extended attributes. `None` where it is
    /// anything else, or cannot be told without opening it.
    fn see_plain(&self, dir: BorrowedFd<'_>, name: &Name, raw: &CStr) -> Option<Seen> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        let status = statx(dir, raw, flags, StatxFlags::BASIC_STATS).ok()?;
        let is_file = FileType::from_raw_mode(u32::from(status.stx_mode)) == FileType::RegularFile;
        let is_here = (status.stx_dev_major, status.stx_dev_minor) == self.device && is_no_mount(&status);
        if !is_file || !is_here || has_xattrs_at(dir, raw).ok()? {
            return None;
        }
        let handle = FileHandle::at(dir, raw).ok()?;
        // Another file may have the name by now; then its directory has changed under the copy.
        if handle.inode() != Some(status.stx_ino) {
            return None;
        }
        let listed = self.listed_as(name.clone(), Birth::File, Some(Vec::new()), &status, &handle);
        Some(Seen { listed, handle })
    }

    fn listed(
        &self,
        name: Name,
        fd: BorrowedFd<'_>,
        status: &Statx,
        handle: &FileHandle,
    ) -> io::Result<ListedObject> {
        let xattrs = xattr::read_replicated_up_to(fd, XATTRS_INLINE_MAX)?;
        Ok(self.listed_as(name, birth(fd, status)?, xattrs, status, handle))
    }

    /// `xattrs`: `None` where they come in items of their own.
    fn listed_as(
        &self,
        name: Name,
        birth: Birth,
        xattrs: Option<Vec<Xattr>>,
        status: &Statx,
        handle: &FileHandle,
    ) -> ListedObject {
        let is_file = birth == Birth::File;
        ListedObject {
            name,
            object: ObjectId::at_first_sight(self.birth_epoch, handle, status.stx_ino),
            birth,
            attributes: attributes(status),
            large_xattrs: xattrs.is_none(),
            xattrs: xattrs.unwrap_or_default(),
            size: if is_file { status.stx_size } else { 0 },
            links: status.stx_nlink,
            suspect: is_file
                && self.suspect_since.is_some_and(|since| latest(timestamp(status.stx_ctime)) >= since),
        }
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
            files.push(seen.as_listed());
        }
    }

    /// Names and counts what cannot be read.
    ///
    /// Errors: the fault is not the object's.
    pub(super) fn leave(
        &mut self,
        doing: &'static str,
        path: &TreePath,
        error: io::Error,
    ) -> Result<(), CopyError> {
        if !is_of_the_object(&error) {
            return Err(read_error(doing, path, error));
        }
        log::warn!("{path}: left out of the copy: cannot {doing} it: {error}");
        self.left_out.add(&format!("{path}: the source cannot {doing} it: {error}"));
        Ok(())
    }

    fn leave_out(&mut self, path: &TreePath) {
        self.counts.nested += 1;
        log::warn!("{path}: another file system is mounted here; it is not part of the copy");
    }
}

impl Seen {
    fn as_listed(&self) -> ListedFile {
        ListedFile {
            object: self.listed.object,
            handle: self.handle,
            name: Some(self.listed.name.clone()),
            size: self.listed.size,
            links: self.listed.links,
        }
    }
}

/// What could not be done with an object, and why.
type NotRead = (&'static str, io::Error);

/// A directory that was removed meanwhile, or cannot be read any more, keeps the time that it had.
fn mtime_after(dir: &OpenDirectory) -> Timestamp {
    let status = dir.entries.fd().map_err(io::Error::from).and_then(stat);
    status.map_or(dir.mtime, |status| timestamp(status.stx_mtime))
}

/// When a change at the latest was made that was stamped so: a time without a fraction is mostly of a
/// file system that keeps whole seconds, or two.
fn latest(stamp: Timestamp) -> Timestamp {
    let coarse = Timestamp { seconds: stamp.seconds.saturating_add(2), ..stamp };
    if stamp.nanoseconds == 0 { coarse } else { stamp }
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
    let fixed = 8 + 16 + size_of::<Attributes>() + 8 + 8 + 4 + 1 + 1;
    fixed + listed.name.as_bytes().len() + birth + xattrs_len(&listed.xattrs)
}

fn xattrs_len(xattrs: &[Xattr]) -> usize {
    xattrs.iter().map(|xattr| 16 + xattr.name.0.len() + xattr.value.0.len()).sum()
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
