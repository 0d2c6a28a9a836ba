//! The walk over the backing directory: one listing chunk after the other, depth first.
//!
//! What waits is held as file handles, so paths may be longer than `PATH_MAX` and directories may
//! be renamed under the walk. Memory: one chunk, and about 150 bytes for each directory that was
//! listed by its parent and not yet entered.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::Dir;

use super::error::has_vanished;
use super::look::{stat, timestamp};
use super::seeing::{Eyes, Root, Seen, Sight, leave};
use super::{CopyError, CopyProgress};
use crate::limits::{LISTING_ENTRIES_MAX, LISTING_LEN_CUT};
use crate::packet::{
    Attributes, Birth, LaneItem, LeftOut, ListedObject, Name, ObjectId, Timestamp, Unlisted, Xattr,
};
use crate::sys::FileHandle;

/// A walk over one tree.
pub struct Walk {
    eyes: Eyes,
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
#[derive(Clone)]
pub struct ListedFile {
    pub object: ObjectId,
    pub handle: FileHandle,
    /// `S_IFMT` bits.
    pub file_type: u32,
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
        let eyes = Eyes::new(root, birth_epoch, suspect_since)?;
        let Root { id, handle, item, large } = eyes.root()?;
        let path = TreePath::root();
        let walk = Walk {
            eyes,
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
        self.eyes.root_fd()
    }

    fn enter(&mut self, dir: WaitingDirectory) -> Result<Option<OpenDirectory>, CopyError> {
        let opened = self.eyes.open_directory(&dir.handle).and_then(|fd| {
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
            let of = dir.entries.fd().map_err(|error| ("open", error.into()));
            match of.and_then(|of| self.eyes.see(of, &name, entry.file_name())) {
                Ok(Sight::Here(seen)) => return Ok(Some(seen)),
                Ok(Sight::Gone) => self.counts.vanished += 1,
                Ok(Sight::Nested) => {
                    self.counts.nested += 1;
                    say_nested(&TreePath::below(&dir.path, name));
                }
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
        leave(&mut self.left_out, doing, path, error)
    }
}

pub(super) fn say_nested(path: &TreePath) {
    log::warn!("{path}: another file system is mounted here; it is not part of the copy");
}

/// A directory that was removed meanwhile, or cannot be read any more, keeps the time that it had.
fn mtime_after(dir: &OpenDirectory) -> Timestamp {
    let status = dir.entries.fd().map_err(io::Error::from).and_then(stat);
    status.map_or(dir.mtime, |status| timestamp(status.stx_mtime))
}

/// What a listed object takes in a listing, in bytes: fixed-width fields, lengths as u64.
pub(super) fn encoded_len(listed: &ListedObject) -> usize {
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

/// Where an object was listed, relative to the root. Directories share their beginnings.
#[derive(Debug)]
pub struct TreePath(Option<(Arc<TreePath>, Name)>);

impl TreePath {
    pub fn root() -> Arc<TreePath> {
        Arc::new(TreePath(None))
    }

    /// Of a directory that is known by its id alone.
    pub fn of_id(id: ObjectId) -> Arc<TreePath> {
        let name = Name::new(format!("(directory {})", id.inode).as_bytes());
        name.map_or_else(|_| TreePath::root(), |name| TreePath::below(&TreePath::root(), name))
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
