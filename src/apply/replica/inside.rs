//! Whether an object that was found by its file handle still belongs to the replica.
//!
//! A handle finds its inode wherever somebody has moved it, so the first time an object is opened
//! it must show one name below the root or in limbo; the answer counts as long as its descriptor is
//! kept. A directory has one place, which the kernel knows, and is asked at every use of a name in
//! it; of frames that came together ([`Run`]) at the first ([`PLACED_FRAMES_MAX`]). Between the
//! question and the use somebody may move it in any case. Any other object may have names inside and
//! outside at once (a hard-linked snapshot of the replica is a usual thing): one inside is enough. They
//! are looked for from the cheapest on:
//!
//! 1. the path that the kernel remembers for the inode: one `readlink`, nearly always;
//! 2. the path that the source sent along: resolved beneath the root, and believed only where it
//!    holds the very same handle, so that a wrong path costs time and nothing else;
//! 3. the name by which an op or a search has found it last, believed in the same way;
//! 4. a search of the whole replica for the inode number: after it the kernel remembers.
//!
//! Below the limbo what lies with the orphans, or was deleted and is kept, is outside: an index that is older than
//! they are (the state set back, the disk not) would take them for objects, and a copy would link them back.
//!
//! Paths longer than 4,096 bytes neither the kernel tells nor the source sends: there 3 does the
//! work, and the place of a directory is found by going up many levels at a time.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::fs::{Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::by_handle;
use super::deleted::DELETED;
use super::limbo::ORPHANS;
use super::{Replica, handle_fault, open_beneath, path_of};
use crate::apply::fault::Fault;
use crate::apply::inode;
use crate::clock;
use crate::clone::AREAS as CLONES;
use crate::limits::{CLIMB_LEVELS, GROUNDS_FRESH, PLACED_FRAMES_MAX, SEEN_NAMES_MAX};
use crate::packet::{Name, ObjectId};
use crate::sys::{FileHandle, proc_path};
use crate::words::RESERVED_NAME;

/// What the kernel remembers of the place of an object that is no directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::apply) enum Remembered {
    Inside,
    /// Outside; it may have another name inside.
    Outside,
    /// It does not say.
    Unknown,
}

impl Replica {
    /// The path that came with what is performed next; empty where none did.
    pub(in crate::apply) fn set_hint(&mut self, path: &[u8]) {
        self.hint.clear();
        self.hint.extend_from_slice(path);
    }

    /// Errors: [`Fault::Outside`] where it has no name in the replica; [`Fault::MissingObject`] of a directory that was
    /// removed.
    pub(super) fn must_be_inside(&mut self, id: ObjectId, file: &File) -> Result<(), Fault> {
        let status = inode::stat(file)?;
        if FileType::from_raw_mode(status.st_mode) == FileType::Directory {
            return self.directory_inside(id, file);
        }
        // Without a name it is nowhere, and held by us alone.
        if status.st_nlink == 0 || self.remembered(file)? == Remembered::Inside {
            return Ok(());
        }
        let handle = FileHandle::of(file.as_fd()).map_err(handle_fault)?;
        if self.holds_at_hint(&handle) || self.holds_where_seen(id, &handle)? {
            return Ok(());
        }
        if let Some(seen) = self.search(&handle, &status)? {
            self.seen.note(id, seen);
            return Ok(());
        }
        let path = std::fs::read_link(proc_path(file.as_fd())).unwrap_or_default();
        Err(Fault::Outside { object: id, path: path.display().to_string() })
    }

    /// A directory lies below the root or in limbo at this moment.
    pub(super) fn directory_inside(&self, id: ObjectId, dir: &File) -> Result<(), Fault> {
        match std::fs::read_link(proc_path(dir.as_fd())) {
            Ok(path) if is_removed(dir, &path)? => Err(Fault::MissingObject(id)),
            Ok(path) if self.is_below(&path)? => Ok(()),
            Ok(path) => Err(Fault::Outside { object: id, path: path.display().to_string() }),
            // Longer than the kernel tells.
            Err(error) if error.raw_os_error() == Some(libc::ENAMETOOLONG) => self.climb(id, dir),
            Err(error) => Err(Fault::system("path of a directory")(error)),
        }
    }

    fn is_below(&self, path: &Path) -> Result<bool, Fault> {
        let mut grounds = self.grounds.borrow_mut();
        if grounds.as_ref().is_some_and(|grounds| grounds.is_fresh() && grounds.hold(path)) {
            return Ok(true);
        }
        Ok(grounds.insert(self.grounds_now()?).hold(path))
    }

    fn grounds_now(&self) -> Result<Grounds, Fault> {
        let (root, limbo) = (path_of(self.root().as_fd())?, path_of(self.limbo().as_fd())?);
        let gone = [limbo.join(ORPHANS), limbo.join(DELETED), limbo.join(CLONES)];
        Ok(Grounds { root, limbo, gone, as_of: clock::now() })
    }

    /// Whether a path is of what was moved aside, deleted or kept for a clone.
    pub(in crate::apply) fn lies_aside(&self, path: &str) -> Result<bool, Fault> {
        Ok(self.grounds_now()?.gone.iter().any(|gone| Path::new(path).starts_with(gone)))
    }

    /// Where the kernel has seen an object last.
    pub(in crate::apply) fn remembered(&self, file: &File) -> Result<Remembered, Fault> {
        match std::fs::read_link(proc_path(file.as_fd())) {
            // A name that is gone is remembered while somebody has the file open by it; and a name
            // may end like that.
            Ok(path) if path.as_os_str().as_bytes().ends_with(b" (deleted)") => Ok(Remembered::Unknown),
            // Opened by its handle before anybody has come upon a name of it: it hangs from nothing.
            Ok(path) if path == Path::new("/") => Ok(Remembered::Unknown),
            Ok(path) if self.is_below(&path)? => Ok(Remembered::Inside),
            Ok(_) => Ok(Remembered::Outside),
            Err(error) if error.raw_os_error() == Some(libc::ENAMETOOLONG) => Ok(Remembered::Unknown),
            Err(error) => Err(Fault::system("path of an object")(error)),
        }
    }

    /// As [`Replica::must_be_inside`], as an answer.
    pub(in crate::apply) fn is_inside(&mut self, id: ObjectId, file: &File) -> Result<bool, Fault> {
        match self.must_be_inside(id, file) {
            Ok(()) => Ok(true),
            Err(Fault::Outside { .. } | Fault::MissingObject(_)) => Ok(false),
            Err(fault) => Err(fault),
        }
    }

    pub(in crate::apply) fn holds_at_hint(&self, handle: &FileHandle) -> bool {
        let resolve = ResolveFlags::BENEATH
            | ResolveFlags::NO_SYMLINKS
            | ResolveFlags::NO_MAGICLINKS
            | ResolveFlags::NO_XDEV;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        if self.hint.windows(RESERVED_NAME.len()).any(|part| part == RESERVED_NAME.as_bytes()) {
            return false;
        }
        rustix::fs::openat2(self.root(), self.hint.as_slice(), flags, Mode::empty(), resolve)
            .ok()
            .and_then(|found| FileHandle::of(found.as_fd()).ok())
            .is_some_and(|found| found == *handle)
    }

    /// The path of a directory is longer than the kernel tells: goes up until it is short enough.
    /// Many levels at a time, and where that is too many (above the root, perhaps), half as many:
    /// one call for each level, at each op, took 8.6 s for a tree of 1,000 levels.
    fn climb(&self, id: ObjectId, dir: &File) -> Result<(), Fault> {
        let mut at = dir.try_clone().map_err(Fault::system("directory"))?;
        let mut levels = CLIMB_LEVELS;
        loop {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let above = rustix::fs::openat(&at, "../".repeat(levels), flags, Mode::empty())
                .map(File::from)
                .map_err(Fault::system("parent of a directory"))?;
            match std::fs::read_link(proc_path(above.as_fd())) {
                // At the top itself it may have come by way of what is gone.
                Ok(path) if levels > 1 && self.grounds_now()?.are(&path) => levels /= 2,
                Ok(path) if self.is_below(&path)? => return Ok(()),
                Ok(path) if levels == 1 => {
                    let path = format!("{}/... (deep below it)", path.display());
                    return Err(Fault::Outside { object: id, path });
                }
                Ok(_) => levels /= 2,
                Err(error) if error.raw_os_error() == Some(libc::ENAMETOOLONG) => at = above,
                Err(error) => return Err(Fault::system("path of a directory")(error)),
            }
        }
    }

    /// Looks at every name below root and limbo but for what is gone, so that the kernel remembers them all: for
    /// whoever has many objects to place.
    pub(in crate::apply) fn remember_names(&self) -> Result<(), Fault> {
        let handle_of = |fd: BorrowedFd<'_>| FileHandle::of(fd).map_err(handle_fault);
        let limbo = handle_of(self.limbo().as_fd())?;
        let mut waiting = vec![handle_of(self.root().as_fd())?, limbo];
        while let Some(handle) = waiting.pop() {
            let Ok(dir) = by_handle::open(self.root(), &handle, libc::O_RDONLY | libc::O_DIRECTORY) else {
                continue;
            };
            let dir = File::from(dir);
            for entry in Dir::read_from(&dir).map_err(Fault::system("list a directory"))? {
                let entry = entry.map_err(Fault::system("list a directory"))?;
                let Ok(name) = Name::new(entry.file_name().to_bytes()) else { continue };
                if handle == limbo && is_of_the_gone(&name) {
                    continue;
                }
                if let Ok(Some(Looked { handle, is_directory: true, .. })) = look(&dir, &name) {
                    waiting.push(handle);
                }
            }
        }
        Ok(())
    }

    /// The name that is being given to an object, or was found for it.
    pub(in crate::apply) fn note_name(&mut self, id: ObjectId, dir: ObjectId, name: &Name) {
        // Elsewhere the kernel and the source know better.
        if self.hint.is_empty()
            && let Ok(Some(dir)) = self.handle(dir)
        {
            self.seen.note(id, Seen { dir, name: name.clone() });
        }
    }

    /// The directory must be inside at this moment, and the name hold the very same handle.
    fn holds_where_seen(&self, id: ObjectId, handle: &FileHandle) -> Result<bool, Fault> {
        let Some(Seen { dir, name }) = self.seen.get(id) else { return Ok(false) };
        let Ok(dir) = by_handle::open(self.root(), dir, libc::O_PATH | libc::O_DIRECTORY) else {
            return Ok(false);
        };
        let dir = File::from(dir);
        Ok(self.name_holds(&dir, name)?.as_ref() == Some(handle) && self.directory_inside(id, &dir).is_ok())
    }

    /// Searches root and limbo, but for what is gone, for a name of an object; never enters a mount.
    pub(in crate::apply) fn search(&self, wanted: &FileHandle, status: &Stat) -> Result<Option<Seen>, Fault> {
        self.search_one(&[self.root(), self.limbo()], wanted, status)
    }

    /// Takes out those that have a name below the root. With each its inode number.
    pub(in crate::apply) fn strike_names_below_root(
        &self,
        objects: &mut HashMap<FileHandle, u64>,
    ) -> Result<(), Fault> {
        if objects.is_empty() {
            return Ok(());
        }
        let numbers: HashSet<u64> = objects.values().copied().collect();
        let done = self.search_below(
            &[self.root()],
            |number| numbers.contains(&number),
            |_, _, found| {
                objects.remove(&found.handle);
                objects.is_empty().then_some(())
            },
        );
        done.map(drop)
    }

    /// Counts the names that these have below the root. With each its inode number.
    pub(in crate::apply) fn count_names_below_root(
        &self,
        objects: &mut HashMap<FileHandle, (u64, u64)>,
    ) -> Result<(), Fault> {
        if objects.is_empty() {
            return Ok(());
        }
        let numbers: HashSet<u64> = objects.values().map(|(number, _)| *number).collect();
        let count = |_: &FileHandle, _: &Name, found: &Looked| {
            objects.get_mut(&found.handle).into_iter().for_each(|(_, names)| *names += 1);
            None::<()>
        };
        self.search_below(&[self.root()], |number| numbers.contains(&number), count).map(drop)
    }

    /// Tells of each name below the root that is not the only one of what it holds.
    pub(in crate::apply) fn names_of_the_linked(
        &self,
        mut tell: impl FnMut(&FileHandle) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let each = |_: &FileHandle, _: &Name, found: &Looked| match found.is_directory || found.links <= 1 {
            true => None,
            false => tell(&found.handle).err(),
        };
        self.search_below(&[self.root()], |_| true, each)?.map_or(Ok(()), Err)
    }

    /// Whether a file has a name below the root, and not only in limbo.
    pub(in crate::apply) fn is_below_root(&self, file: &File) -> Result<bool, Fault> {
        let (root, limbo) = (path_of(self.root().as_fd())?, path_of(self.limbo().as_fd())?);
        let path = std::fs::read_link(proc_path(file.as_fd()));
        // Where the replica is a mount point, limbo lies in it.
        let is_below = |path: PathBuf| path.starts_with(&root) && !path.starts_with(&limbo);
        if path.is_ok_and(is_below) && self.remembered(file)? == Remembered::Inside {
            return Ok(true);
        }
        let handle = FileHandle::of(file.as_fd()).map_err(handle_fault)?;
        Ok(self.search_one(&[self.root()], &handle, &inode::stat(file)?)?.is_some())
    }

    fn search_one(&self, tops: &[&File], wanted: &FileHandle, status: &Stat) -> Result<Option<Seen>, Fault> {
        let is_it = |dir: &FileHandle, name: &Name, found: &Looked| {
            (found.handle == *wanted).then(|| Seen { dir: *dir, name: name.clone() })
        };
        self.search_below(tops, |number| number == status.st_ino, is_it)
    }

    /// Visits all that may be it by its inode number, and every directory, until it is found. The handle of
    /// a directory, a name in it, and what that holds.
    fn search_below<T>(
        &self,
        tops: &[&File],
        may_be: impl Fn(u64) -> bool,
        mut find: impl FnMut(&FileHandle, &Name, &Looked) -> Option<T>,
    ) -> Result<Option<T>, Fault> {
        let handle_of = |top: &&File| FileHandle::of(top.as_fd()).map_err(handle_fault);
        let limbo = handle_of(&self.limbo())?;
        let mut waiting = tops.iter().map(handle_of).collect::<Result<Vec<_>, _>>()?;
        while let Some(handle) = waiting.pop() {
            let Ok(dir) = by_handle::open(self.root(), &handle, libc::O_RDONLY | libc::O_DIRECTORY) else {
                continue;
            };
            let dir = File::from(dir);
            for entry in Dir::read_from(&dir).map_err(Fault::system("list a directory"))? {
                let entry = entry.map_err(Fault::system("list a directory"))?;
                let may_be_directory = matches!(entry.file_type(), FileType::Directory | FileType::Unknown);
                let Ok(name) = Name::new(entry.file_name().to_bytes()) else { continue };
                if !may_be(entry.ino()) && !may_be_directory || handle == limbo && is_of_the_gone(&name) {
                    continue;
                }
                let Some(found) = look(&dir, &name)? else { continue };
                // Where the replica is a mount point, limbo lies in it, and is a top of its own.
                if found.handle == limbo {
                    continue;
                }
                if let Some(found) = find(&handle, &name, &found) {
                    return Ok(Some(found));
                }
                waiting.extend(found.is_directory.then_some(found.handle));
            }
        }
        Ok(None)
    }
}

/// Whether a frame came alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Run {
    /// It was waited for.
    Begins,
    /// It was there when the one before was done.
    GoesOn,
}

/// Directories that were found inside in this run.
#[derive(Default)]
pub(super) struct Placed {
    found: Vec<ObjectId>,
    /// Frames since the first of them was found.
    frames: u32,
    /// A frame is being performed that may go by what others of its run have found.
    counts: bool,
}

impl Placed {
    pub(super) fn begin_frame(&mut self, run: Run) {
        self.frames += 1;
        if run == Run::Begins || self.frames >= PLACED_FRAMES_MAX {
            self.clear();
        }
        self.counts = true;
    }

    pub(super) fn end_frame(&mut self) {
        self.counts = false;
    }

    pub(super) fn has(&self, id: ObjectId) -> bool {
        self.counts && self.found.contains(&id)
    }

    pub(super) fn note(&mut self, id: ObjectId) {
        if !self.counts {
            return;
        }
        if self.found.len() >= PLACED_MAX {
            self.clear();
        }
        self.found.push(id);
    }

    pub(super) fn clear(&mut self) {
        self.found.clear();
        self.frames = 0;
    }
}

/// Found by going through all: few are enough, neighbours in a stream share their directory.
const PLACED_MAX: usize = 8;

/// The paths of root, limbo, and what in it is none, at a moment. A "below" of lately is believed for as long as work on
/// one listing takes anyway: asked anew for each object they were two thirds of the calls for that. A
/// "not below" never is: the replica may have been moved as a whole.
pub(super) struct Grounds {
    root: PathBuf,
    limbo: PathBuf,
    /// What is no object of the replica any more.
    gone: [PathBuf; 3],
    as_of: Instant,
}

impl Grounds {
    fn is_fresh(&self) -> bool {
        clock::now().saturating_duration_since(self.as_of) < GROUNDS_FRESH
    }

    fn hold(&self, path: &Path) -> bool {
        (path.starts_with(&self.root) || path.starts_with(&self.limbo))
            && !self.gone.iter().any(|gone| path.starts_with(gone))
    }

    fn are(&self, path: &Path) -> bool {
        path == self.root || path == self.limbo
    }
}

/// Names by which objects were seen last, in bounded number.
#[derive(Default)]
pub(super) struct SeenNames(HashMap<ObjectId, Seen>);

/// A name in a directory.
pub(in crate::apply) struct Seen {
    dir: FileHandle,
    name: Name,
}

impl SeenNames {
    fn note(&mut self, id: ObjectId, seen: Seen) {
        if self.0.len() >= SEEN_NAMES_MAX && !self.0.contains_key(&id) {
            self.0.clear();
        }
        self.0.insert(id, seen);
    }

    fn get(&self, id: ObjectId) -> Option<&Seen> {
        self.0.get(&id)
    }

    pub(super) fn forget(&mut self, id: ObjectId) {
        self.0.remove(&id);
    }
}

/// Held, and without a name: its path says so, and a name may end like that.
fn is_removed(dir: &File, path: &Path) -> Result<bool, Fault> {
    let says_so = path.as_os_str().as_bytes().ends_with(b" (deleted)");
    Ok(says_so && inode::stat(dir)?.st_nlink == 0)
}

/// A directory of limbo whose content is no object of the replica any more.
fn is_of_the_gone(name: &Name) -> bool {
    [ORPHANS, DELETED, CLONES].iter().any(|gone| name.as_bytes() == gone.as_bytes())
}

/// What a name holds.
struct Looked {
    handle: FileHandle,
    is_directory: bool,
    /// How many names it has, wherever.
    links: u64,
}

/// `None`: gone, or a mount.
// The count has other widths on other processors.
#[allow(clippy::useless_conversion)]
fn look(dir: &File, name: &Name) -> Result<Option<Looked>, Fault> {
    let fd = match open_beneath(dir.as_fd(), name, OFlags::PATH, Mode::empty()) {
        Ok(fd) => fd,
        Err(Errno::NOENT | Errno::XDEV) => return Ok(None),
        Err(error) => return Err(Fault::system("open a name")(error)),
    };
    let status = inode::stat(&fd)?;
    let is_directory = FileType::from_raw_mode(status.st_mode) == FileType::Directory;
    let handle = FileHandle::of(fd.as_fd()).map_err(handle_fault)?;
    Ok(Some(Looked { handle, is_directory, links: status.st_nlink.into() }))
}
