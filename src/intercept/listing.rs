//! Reading directories.
//!
//! The kernel keeps the listing of a directory that is not large, and drops it with every change of a
//! name through the mount. Each open is asked for still: it tells the kernel to drop what it has where
//! the directory has another change time than at the open before, whoever changed it, and also where
//! only its own place is another (`..`).

use std::collections::{HashMap, VecDeque};
use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};

use parking_lot::{Mutex, RwLock};
use rustix::fs::{AtFlags, FileType, RawDir, SeekFrom, Stat};

use super::error::{FsError, FsResult, Step};
use super::foreign::changed;
use super::objects::{Node, NodeId};
use super::shares::Shares;
use super::standing::{Kind, Standing, serve_request};
use super::volume::{Caller, Meta, Volume, is_reserved, stat_at};
use crate::limits::KEPT_LISTING_SIZE_MAX;

/// Bytes of one `getdents64` call.
const BUFFER_LEN: usize = 32 * 1024;

/// One entry of a directory.
pub struct Listed {
    pub name: OsString,
    pub node: NodeId,
    /// `DT_*` type as the file system gave it.
    pub kind: rustix::fs::FileType,
    /// Where reading goes on after this entry.
    pub next_offset: u64,
}

impl Listed {
    pub fn is_dot(&self) -> bool {
        self.name == "." || self.name == ".."
    }
}

/// An open directory.
pub struct OpenDirectory {
    node: Arc<Node>,
    fd: OwnedFd,
    stream: Mutex<Stream>,
    _share: Share,
    /// Where it is noted for the daemon that comes after this one.
    noted: Option<u32>,
}

/// One of the directories that a user may have open: each has a descriptor, which knows how far it
/// was read.
struct Share {
    shares: Arc<Shares>,
    uid: u32,
}

impl Share {
    fn take(shares: &Arc<Shares>, uid: u32) -> FsResult<Share> {
        match shares.take(uid) {
            true => Ok(Share { shares: shares.clone(), uid }),
            false => Err(FsError::new(libc::ENFILE, "open directories of one user")),
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.shares.give(self.uid);
    }
}

/// An open directory, for a reply to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenedDirectory {
    pub handle: u64,
    pub keeps: Keeps,
}

/// What the kernel may keep of a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeps {
    /// Nothing: it is large, and names come without attributes, each of which would be asked for later.
    Nothing,
    /// What it reads from now on, and not what it has.
    FromNowOn,
    /// What it has is right.
    All,
}

/// Change time of a directory, in nanoseconds, when the kernel was told last to keep its listing.
pub struct KeptListing(AtomicI64);

impl Default for KeptListing {
    fn default() -> KeptListing {
        KeptListing(AtomicI64::new(i64::MIN))
    }
}

impl KeptListing {
    /// The directory is opened, and is like this.
    fn open(&self, stat: &Stat) -> Keeps {
        if stat.st_size as u64 > KEPT_LISTING_SIZE_MAX {
            self.0.store(i64::MIN, SeqCst);
            return Keeps::Nothing;
        }
        let now = changed(stat);
        if self.0.swap(now, SeqCst) == now { Keeps::All } else { Keeps::FromNowOn }
    }
}

/// Entries that were read and not yet taken.
#[derive(Default)]
struct Stream {
    offset: u64,
    entries: VecDeque<Listed>,
}

/// Open directories by the number that the kernel holds.
pub struct Listings {
    next: AtomicU64,
    open: RwLock<HashMap<u64, Arc<OpenDirectory>>>,
    shares: Arc<Shares>,
}

impl Listings {
    /// `max`: directories that may be open at once.
    pub fn new(max: usize) -> Listings {
        let shares = Arc::new(Shares::new(max));
        Listings { next: AtomicU64::new(0), open: RwLock::default(), shares }
    }

    fn get(&self, handle: u64) -> FsResult<Arc<OpenDirectory>> {
        self.open.read().get(&handle).cloned().ok_or(FsError::new(libc::EBADF, "open directory"))
    }
}

impl Volume {
    /// Errors: `ENFILE` where the caller has as many directories open as one user may.
    pub fn opendir(&self, caller: Caller, node: NodeId) -> FsResult<OpenedDirectory> {
        let node = self.node(node)?;
        serve_request(caller.request);
        if let Some(handle) = self.standing().and_then(Standing::opened_before) {
            return Ok(OpenedDirectory { handle, keeps: Keeps::FromNowOn });
        }
        let share = Share::take(&self.listings.shares, caller.uid)?;
        let fd = self.descriptors.open(&node, libc::O_RDONLY | libc::O_DIRECTORY)?;
        let names = node.names.look();
        self.seen_names(&node, &fd);
        let keeps = node.kept_listing.open(&rustix::fs::fstat(&fd).step("stat of a directory")?);
        drop(names);
        let handle = self.listings.next.fetch_add(1, Relaxed) + 1;
        let kind = Kind::Directory { uid: caller.uid };
        let noted = self.standing().and_then(|standing| standing.enter_handle(kind, handle, node.id));
        let open = OpenDirectory { node, fd, stream: Mutex::default(), _share: share, noted };
        let other = self.listings.open.write().insert(handle, Arc::new(open));
        assert!(other.is_none(), "two open directories have one number");
        Ok(OpenedDirectory { handle, keeps })
    }

    /// A program has it open, as a daemon before has answered, and goes on where it was.
    pub(super) fn restore_directory(
        &self,
        caller: Caller,
        node: Arc<Node>,
        (handle, noted): (u64, u32),
    ) -> FsResult<()> {
        let share = Share::take(&self.listings.shares, caller.uid)?;
        let fd = self.descriptors.open(&node, libc::O_RDONLY | libc::O_DIRECTORY)?;
        self.listings.next.fetch_max(handle, Relaxed);
        let open = OpenDirectory { node, fd, stream: Mutex::default(), _share: share, noted: Some(noted) };
        self.listings.open.write().insert(handle, Arc::new(open));
        Ok(())
    }

    pub fn releasedir(&self, handle: u64) {
        let gone = self.listings.open.write().remove(&handle);
        if let (Some(standing), Some(noted)) = (self.standing(), gone.and_then(|gone| gone.noted)) {
            standing.remove_handle(noted);
        }
    }

    /// Hands entries from `offset` on to `take` until it answers `false` (its buffer is full:
    /// that entry comes again) or the directory ends. What was handed over is never made void by an
    /// error after it: that comes with the next call.
    pub fn readdir(&self, handle: u64, offset: u64, mut take: impl FnMut(&Listed) -> bool) -> FsResult<()> {
        let dir = self.listings.get(handle)?;
        let mut stream = dir.stream.lock();
        if offset != stream.offset {
            rustix::fs::seek(&dir.fd, SeekFrom::Start(offset)).step("seek in a directory")?;
            *stream = Stream { offset, entries: VecDeque::new() };
        }
        loop {
            if stream.entries.is_empty() {
                match self.read_entries(&dir) {
                    Ok(entries) => stream.entries = entries,
                    Err(_) if stream.offset != offset => return Ok(()),
                    Err(error) => return Err(error),
                }
            }
            let Some(entry) = stream.entries.front() else { return Ok(()) };
            if !take(entry) {
                return Ok(());
            }
            stream.offset = entry.next_offset;
            stream.entries.pop_front();
        }
    }

    /// Looks up an entry that a listing found; `None` when it is gone by now. The kernel gets
    /// one lookup.
    pub fn lookup_listed(&self, handle: u64, entry: &Listed) -> FsResult<Option<Meta>> {
        let dir = self.listings.get(handle)?;
        let _names = dir.node.names.look();
        match self.sight(&dir.node, dir.fd.as_fd(), &entry.name) {
            Ok((node, stat)) => {
                self.found(&node, &stat, || stat_at(dir.fd.as_fd(), &entry.name));
                let node = node.into_lookup();
                Ok(Some(self.meta(&node, stat)))
            }
            Err(error) if error.errno == libc::ENOENT || error.is_hidden() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What an fsync of an open directory has to sync.
    pub fn sync_directory_target(&self, handle: u64) -> FsResult<OwnedFd> {
        self.listings.get(handle)?.fd.try_clone().step("duplicate a descriptor")
    }

    /// The next entries of a directory, as many as one system call gives; none at its end.
    fn read_entries(&self, dir: &OpenDirectory) -> FsResult<VecDeque<Listed>> {
        loop {
            let (mut entries, seen) = read_entries(&dir.fd)?;
            for entry in &mut entries {
                entry.node = self.listed_node(dir, entry);
            }
            entries.retain(|entry| {
                !is_reserved(&dir.node, &entry.name) && !self.is_hidden_directory(dir, entry)
            });
            if seen == 0 || !entries.is_empty() {
                return Ok(entries);
            }
        }
    }

    /// The node of an entry. Above the root there is nothing, as at the root of every file system.
    fn listed_node(&self, dir: &OpenDirectory, entry: &Listed) -> NodeId {
        let is_root = entry.node == NodeId::of_inode(self.root_inode());
        if is_root || (entry.is_dot() && dir.node.id == NodeId::ROOT) { NodeId::ROOT } else { entry.node }
    }

    /// A subvolume has an entry like any other directory; only a look at it tells.
    fn is_hidden_directory(&self, dir: &OpenDirectory, entry: &Listed) -> bool {
        let may_be = self.has_subvolumes() && !entry.is_dot() && entry.kind == FileType::Directory;
        may_be
            && rustix::fs::statat(&dir.fd, &entry.name, AtFlags::SYMLINK_NOFOLLOW)
                .is_ok_and(|stat| self.is_on_other_device(&stat))
    }
}

/// Entries that one system call gave, and how many they were.
fn read_entries(fd: &OwnedFd) -> FsResult<(VecDeque<Listed>, usize)> {
    let mut buffer = Vec::<u8>::with_capacity(BUFFER_LEN);
    let mut reader = RawDir::new(fd, buffer.spare_capacity_mut());
    let mut entries = VecDeque::new();
    // One system call fills the buffer; what it gave is taken whole.
    while let Some(entry) = reader.next() {
        let entry = entry.step("read a directory")?;
        entries.push_back(Listed {
            name: OsString::from_vec(entry.file_name().to_bytes().to_vec()),
            node: NodeId::of_inode(entry.ino()),
            kind: entry.file_type(),
            next_offset: entry.next_entry_cookie(),
        });
        if reader.is_buffer_empty() {
            break;
        }
    }
    let seen = entries.len();
    Ok((entries, seen))
}
