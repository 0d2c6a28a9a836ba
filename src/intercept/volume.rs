//! The protected directory as a file system: what the ops in this room share.

use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use std::sync::{Arc, OnceLock};

use rustix::fs::{AtFlags, Stat};

use super::change::Changes;
use super::data::Handles;
use super::descriptors::Descriptors;
use super::divergence::Divergence;
use super::error::{FsError, FsResult, Step};
use super::fence::Fence;
use super::listing::Listings;
use super::mapped::MappedFiles;
use super::members::Members;
use super::objects::{Node, NodeId, Objects, Pinned, Sighting};
use super::refusals::Refusals;
use super::seen_at::Place;
use crate::limits::{self, NAME_LEN_MAX};
use crate::open_files;
use crate::packet::{Attributes, Entry, Ids, Name, ObjectId, Timestamp};
use crate::pool::Pool;
use crate::queue::Queue;
use crate::sys::{FileHandle, Identity};
use crate::words::{Profile, RESERVED_NAME};

/// File systems whose directories may be subvolumes: btrfs, bcachefs (`linux/magic.h`).
const SUBVOLUME_FILE_SYSTEMS: [u32; 2] = [0x9123_683e, 0xca45_1a4e];

/// Who asked, as the kernel says.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    pub uid: u32,
    pub gid: u32,
    pub pid: u32,
    /// Number that the kernel gave to the request, marked where it is asked again (`standing::RESENT`); 0: none asked.
    pub request: u64,
}

impl Caller {
    pub fn identity(&self) -> Identity {
        Identity { uid: self.uid, gid: self.gid }
    }

    /// Whether it is root with `CAP_SYS_ADMIN`, which root of a container has not.
    pub fn administers(&self) -> bool {
        self.uid == 0 && crate::sys::administers(self.pid).unwrap_or(true)
    }
}

/// An object with its attributes, for a reply to the kernel.
pub struct Meta {
    pub node: NodeId,
    pub generation: u32,
    pub stat: Stat,
}

/// A directory under capture. Every change that goes through it is in the queue, in the order of
/// its effects on the backing directory.
pub struct Volume {
    pub(super) objects: Objects,
    pub(super) descriptors: Descriptors,
    pub(super) handles: Handles,
    pub(super) listings: Listings,
    pub(super) changes: Changes,
    pub(super) pool: Pool,
    /// Raised whenever a directory moves: paths remembered before are worthless.
    tree_generation: AtomicU64,
    pub(super) root: Arc<Node>,
    /// Device number of the tree. On another one inode numbers and generations are others' (those
    /// of a btrfs snapshot are even the same), and nothing there is replicated.
    device: u64,
    /// As the backing directory has it.
    root_inode: u64,
    has_subvolumes: bool,
    /// `None` where the file system has none. The root's node is found without it.
    root_handle: Option<FileHandle>,
    ids: Ids,
    divergence: Arc<Divergence>,
    fence: Arc<Fence>,
    pub(super) shared_writers: SharedWriters,
    pub(super) mapped: MappedFiles,
    pub(super) refusals: Refusals,
    pub(super) profile: Profile,
    pub(super) members: Members,
    pub(super) mounted: OnceLock<Mounted>,
}

/// Where programs reach it.
pub(super) struct Mounted {
    pub(super) point: PathBuf,
    /// Of the device number, whose major is 0.
    pub(super) minor: u32,
}

/// Counts cached read-write handles.
#[derive(Default)]
pub(super) struct SharedWriters {
    pub(super) open: AtomicU64,
    pub(super) opened: AtomicU64,
}

/// See [`Volume::shared_writers`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedWriterCounts {
    /// Open at this moment.
    pub open: u64,
    /// Opened since the start.
    pub opened: u64,
}

impl Volume {
    /// `backing` is an open directory (not `O_PATH`) on a mount that shows nothing but the
    /// backing directory. Objects get these ids.
    ///
    /// Errors: `ENOTDIR`, and whatever the file system answers to a first look.
    pub fn new(backing: OwnedFd, queue: Arc<Queue>, ids: impl Into<Ids>) -> FsResult<Volume> {
        Volume::within(backing, queue, ids.into(), limits::Descriptors::of(open_files::limit()))
    }

    /// As [`Volume::new`], with so many descriptors.
    pub(super) fn within(
        backing: OwnedFd,
        queue: Arc<Queue>,
        ids: Ids,
        budget: limits::Descriptors,
    ) -> FsResult<Volume> {
        let handle = FileHandle::of(backing.as_fd()).ok();
        let stat = rustix::fs::fstat(&backing).step("stat the backing directory")?;
        if file_type(&stat) != libc::S_IFDIR {
            return Err(FsError::new(libc::ENOTDIR, "backing directory"));
        }
        let facts = rustix::fs::fstatfs(&backing).step("look at the file system")?;
        let objects = Objects::new(budget.nameless);
        let root_fd = Arc::new(backing.try_clone().step("duplicate a descriptor")?);
        let sighting = Sighting {
            id: NodeId::ROOT,
            object: object_id(handle.as_ref(), &ids, &stat)?,
            file_type: libc::S_IFDIR,
            handle: None,
            descriptor: Some(root_fd),
        };
        let root = objects.pin(sighting).into_lookup();
        Ok(Volume {
            objects,
            descriptors: Descriptors::new(backing, budget.paths, budget.files),
            handles: Handles::default(),
            listings: Listings::new(budget.directories),
            changes: Changes::into(queue),
            pool: Pool::new(),
            tree_generation: AtomicU64::new(0),
            root,
            device: stat.st_dev,
            root_inode: stat.st_ino,
            has_subvolumes: SUBVOLUME_FILE_SYSTEMS.contains(&(facts.f_type as u32)),
            root_handle: handle,
            ids,
            divergence: Arc::default(),
            fence: Arc::default(),
            shared_writers: SharedWriters::default(),
            mapped: MappedFiles::default(),
            refusals: Refusals::default(),
            profile: Profile::default(),
            members: Members::default(),
            mounted: OnceLock::new(),
        })
    }

    /// Programs reach it there, by the connection of this number.
    pub(super) fn is_mounted(&self, point: &Path, connection: u32) {
        let _ = self.mounted.set(Mounted { point: point.to_owned(), minor: connection });
    }

    /// The same, served by the rules of a profile.
    pub fn by(self, profile: Profile) -> Volume {
        Volume { profile, ..self }
    }

    /// Whether the file system has handles. Without them one descriptor stays open for every
    /// known object.
    pub fn has_handles(&self) -> bool {
        self.root_handle.is_some()
    }

    /// Objects that the kernel knows at this moment.
    pub fn known_objects(&self) -> usize {
        self.objects.len()
    }

    /// Files that applications hold open at this moment.
    pub fn open_files(&self) -> usize {
        self.handles.len()
    }

    /// The object with this name in a directory; the kernel gets one lookup on it.
    pub fn lookup(&self, parent: NodeId, name: &OsStr) -> FsResult<Meta> {
        let parent = self.node(parent)?;
        if is_reserved(&parent, name) {
            return Err(FsError::new(libc::ENOENT, "a name of the product's own"));
        }
        let _names = parent.names.look();
        let dir = self.descriptors.of(&parent)?;
        self.seen_names(&parent, &*dir);
        let (node, stat) =
            self.sight(&parent, dir.as_fd(), name).map_err(|error| match error.is_hidden() {
                true => FsError::new(libc::ENOENT, error.step),
                false => error,
            })?;
        self.found(&node, &stat, || stat_at(dir.as_fd(), name));
        let node = node.into_lookup();
        Ok(self.meta(&node, stat))
    }

    /// Takes back lookups of the kernel.
    pub fn forget(&self, node: NodeId, count: u64) {
        if !self.forget_inherited(node, count) {
            self.objects.forget_lookups(node, count);
        }
    }

    /// Handles through which a shared mapping may be written: what it holds is not seen before the
    /// kernel writes it back.
    pub fn shared_writers(&self) -> SharedWriterCounts {
        SharedWriterCounts {
            open: self.shared_writers.open.load(Relaxed),
            opened: self.shared_writers.opened.load(Relaxed),
        }
    }

    /// Where it is noted that the targets may miss a change, and who wants to know looks for it.
    pub fn divergence(&self) -> &Arc<Divergence> {
        &self.divergence
    }

    /// Whether it may be changed.
    pub fn fence(&self) -> &Arc<Fence> {
        &self.fence
    }

    /// Taken before a write, so that [`Volume::expects_space`] can tell what has left meanwhile.
    pub fn departed(&self) -> u64 {
        self.objects.departed()
    }

    /// Whether a disk may have been full only because the kernel had not yet forgotten files that
    /// were just removed: their space comes back with their last descriptor, or has come back since
    /// `departed` was taken.
    pub fn expects_space(&self, error: FsError, departed: u64) -> bool {
        let is_full = matches!(error.errno, libc::ENOSPC | libc::EDQUOT);
        // In this order: what leaves in between is seen by the second.
        is_full && (self.objects.are_leaving() || self.objects.departed() != departed)
    }

    pub(super) fn node(&self, id: NodeId) -> FsResult<Arc<Node>> {
        if id == NodeId::ROOT {
            return Ok(self.root.clone());
        }
        // Once more: another thread may just have made it.
        let node = self.objects.get(id).or_else(|| self.revive(id)).or_else(|| self.objects.get(id));
        node.ok_or(FsError::stale("node"))
    }

    pub(super) fn ids(&self) -> &Ids {
        &self.ids
    }

    /// Whether an object is not part of the tree, although it has a name in it.
    pub(super) fn is_on_other_device(&self, stat: &Stat) -> bool {
        stat.st_dev != self.device
    }

    /// Whether directories of the file system may have a device number of their own without a mount.
    pub(super) fn has_subvolumes(&self) -> bool {
        self.has_subvolumes
    }

    /// What finds an object again when the kernel has forgotten it.
    pub(super) fn handle_of<'a>(&'a self, node: &'a Node) -> Option<&'a FileHandle> {
        if node.id == NodeId::ROOT { self.root_handle.as_ref() } else { node.handle.as_ref() }
    }

    pub(super) fn root_inode(&self) -> u64 {
        self.root_inode
    }

    fn refuse_other_device(&self, stat: &Stat) -> FsResult<()> {
        if self.is_on_other_device(stat) { Err(FsError::hidden()) } else { Ok(()) }
    }

    /// Looks at a name, and pins the node of what it finds. The directory's lock must be held.
    ///
    /// Errors: [`FsError::hidden`] where the name is not part of the tree.
    pub(super) fn sight(
        &self,
        parent: &Arc<Node>,
        dir: BorrowedFd<'_>,
        name: &OsStr,
    ) -> FsResult<(Pinned<'_>, Stat)> {
        let name_c = c_name(name)?;
        let stat = rustix::fs::statat(dir, &*name_c, AtFlags::SYMLINK_NOFOLLOW).step("look up")?;
        self.refuse_other_device(&stat)?;
        let node = if self.has_handles() {
            let handle = FileHandle::at(dir, &name_c).step("look up a handle")?;
            self.pin(Some(handle), None, &stat)?
        } else {
            let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::CLOEXEC;
            let fd =
                rustix::fs::openat(dir, &*name_c, flags, rustix::fs::Mode::empty()).step("open a name")?;
            self.pin(None, Some(Arc::new(fd)), &stat)?
        };
        node.set_place(parent.id, name.as_bytes());
        Ok((node, stat))
    }

    /// As [`Volume::sight`], and the node has its descriptor afterwards: one open instead of a
    /// look, and an open by handle later.
    pub(super) fn sight_open(
        &self,
        parent: &Arc<Node>,
        dir: BorrowedFd<'_>,
        name: &OsStr,
    ) -> FsResult<(Pinned<'_>, Stat)> {
        let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::CLOEXEC;
        let fd =
            rustix::fs::openat(dir, &*c_name(name)?, flags, rustix::fs::Mode::empty()).step("look up")?;
        let fd = Arc::new(fd);
        let stat = rustix::fs::fstat(&*fd).step("stat")?;
        self.refuse_other_device(&stat)?;
        let handle = match self.has_handles() {
            true => Some(FileHandle::of(fd.as_fd()).step("look up a handle")?),
            false => None,
        };
        let node = self.pin(handle, Some(fd.clone()), &stat)?;
        if node.descriptor.lock().get_or_insert_with(|| fd.clone()).as_fd().as_raw_fd() == fd.as_raw_fd() {
            self.descriptors.remember(&node);
        }
        node.set_place(parent.id, name.as_bytes());
        Ok((node, stat))
    }

    /// Pins the node of an object that was just made and is open.
    pub(super) fn sight_new(
        &self,
        parent: &Node,
        fd: Arc<OwnedFd>,
        name: &OsStr,
    ) -> FsResult<(Pinned<'_>, Stat)> {
        let stat = rustix::fs::fstat(&*fd).step("stat a new object")?;
        let handle = if self.has_handles() {
            Some(FileHandle::of(fd.as_fd()).step("handle of a new object")?)
        } else {
            None
        };
        let descriptor = if handle.is_none() { Some(fd) } else { None };
        let node = self.pin(handle, descriptor, &stat)?;
        node.left.learn(&stat);
        self.is_born(&node, &stat);
        node.set_place(parent.id, name.as_bytes());
        Ok((node, stat))
    }

    fn pin(
        &self,
        handle: Option<FileHandle>,
        descriptor: Option<Arc<OwnedFd>>,
        stat: &Stat,
    ) -> FsResult<Pinned<'_>> {
        let id = NodeId::of_inode(stat.st_ino);
        // What the kernel has had of it from a daemon before counts.
        let _ = self.revive(id);
        Ok(self.objects.pin(Sighting {
            id,
            object: object_id(handle.as_ref(), &self.ids, stat)?,
            file_type: file_type(stat),
            handle,
            descriptor,
        }))
    }

    /// Programs that copy take a file without blocks for a hole; what a mapping has stored in one
    /// has its blocks a while later.
    pub(super) fn meta(&self, node: &Node, mut stat: Stat) -> Meta {
        let may_have_more = || match self.profile.gathers() {
            true => true,
            false => stat.st_size > 0 && node.read.lock().next_read(0).is_some(),
        };
        if stat.st_blocks == 0 && node.may_be_mapped.load(Relaxed) && may_have_more() {
            stat.st_blocks = 1;
        }
        Meta { node: node.id, generation: node.object.generation, stat }
    }

    /// Call it when a directory moved, under the exclusive tree lock, after its place was set: whoever reads the
    /// new generation sees that.
    pub(super) fn directories_moved(&self) {
        self.tree_generation.fetch_add(1, Release);
    }

    pub(super) fn tree_generation(&self) -> u64 {
        self.tree_generation.load(Acquire)
    }

    /// Path of a node relative to the root, as far as it is known; remembered until a directory moves.
    pub(super) fn path(&self, node: &Node) -> Arc<[u8]> {
        let generation = self.tree_generation();
        if let Some((as_of, path)) = &node.place.lock().path
            && *as_of == generation
        {
            return path.clone();
        }
        let path: Arc<[u8]> = self.walk_up(node).unwrap_or_default().into();
        node.place.lock().path = Some((generation, path.clone()));
        path
    }

    /// `None` where an ancestor is not known any more, and where it is longer than what travels
    /// along: the path is only a cross-check.
    fn walk_up(&self, node: &Node) -> Option<Vec<u8>> {
        let mut names: Vec<Box<[u8]>> = Vec::new();
        let (mut parent, name) = place_of(&node.place.lock())?;
        let mut len = name.len();
        names.push(name);
        while parent != NodeId::ROOT {
            let (above, name) = place_of(&self.objects.get(parent)?.place.lock())?;
            len += name.len() + 1;
            if len > crate::limits::PATH_LEN_MAX {
                return None;
            }
            names.push(name);
            parent = above;
        }
        names.reverse();
        Some(names.join(&b'/'))
    }
}

fn place_of(place: &Place) -> Option<(NodeId, Box<[u8]>)> {
    Some((place.parent?, place.name.clone()))
}

fn object_id(handle: Option<&FileHandle>, ids: &Ids, stat: &Stat) -> FsResult<ObjectId> {
    match handle {
        Some(handle) => ids.of(handle, stat.st_ino).step("look up the id of an object"),
        None => Ok(ids.of_inode(stat.st_ino)),
    }
}

/// A name as the system calls take it. Longer names than any file system has are refused here.
pub(super) fn c_name(name: &OsStr) -> FsResult<CString> {
    if name.len() > NAME_LEN_MAX {
        return Err(FsError::new(libc::ENAMETOOLONG, "name"));
    }
    CString::new(name.as_bytes()).map_err(|_| FsError::new(libc::EINVAL, "name with a NUL"))
}

/// Looks at a name without following it; `None` where it holds nothing any more.
pub(super) fn stat_at(dir: BorrowedFd<'_>, name: &OsStr) -> Option<Stat> {
    rustix::fs::statat(dir, &*c_name(name).ok()?, AtFlags::SYMLINK_NOFOLLOW).ok()
}

/// A name in a directory, as ops carry it.
///
/// Errors: `EPERM` for the one that no target has.
pub(super) fn entry(dir: &Node, name: &OsStr) -> FsResult<Entry> {
    if is_reserved(dir, name) {
        return Err(FsError::new(libc::EPERM, "a name of the product's own"));
    }
    let name = Name::new(name.as_bytes()).map_err(|_| FsError::new(libc::EINVAL, "name"))?;
    Ok(Entry { dir: dir.object, name })
}

/// Where what was moved aside lies of a directory that is, or was, a replica at a mount point.
pub(super) fn is_reserved(dir: &Node, name: &OsStr) -> bool {
    dir.id == NodeId::ROOT && name.as_bytes() == RESERVED_NAME.as_bytes()
}

/// Type bits (`S_IFMT`) of an object.
pub(super) fn file_type(stat: &Stat) -> u32 {
    stat.st_mode & libc::S_IFMT
}

/// Permission bits, with setuid, setgid and sticky.
pub(super) fn permissions(stat: &Stat) -> u32 {
    stat.st_mode & 0o7777
}

/// When anything of it was changed last.
pub(super) fn changed(stat: &Stat) -> Timestamp {
    Timestamp::of_status(stat.st_ctime, stat.st_ctime_nsec as u32)
}

pub(super) fn mtime(stat: &Stat) -> Timestamp {
    Timestamp::of_status(stat.st_mtime, stat.st_mtime_nsec as u32)
}

pub(super) fn attributes(stat: &Stat) -> Attributes {
    Attributes { mode: permissions(stat), uid: stat.st_uid, gid: stat.st_gid, mtime: mtime(stat) }
}
