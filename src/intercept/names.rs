//! Ops that change names: births, links, removals, renames.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags, Stat};

use super::clearing::birth_mode;
use super::data::Opened;
use super::error::{FsError, FsResult, Step};
use super::locks::{lock_names, lock_states};
use super::objects::{Node, NodeId, Pinned};
use super::volume::{Caller, Meta, Volume, attributes, c_name, entry, file_type, mtime};
use crate::packet::{Birth, Bounded, Op, Replaced, Timestamp, Whiteout, Xattr};
use crate::sys::as_caller;
use crate::xattr;

/// A name in a directory, as the kernel names it.
#[derive(Clone, Copy)]
pub struct At<'a> {
    pub parent: NodeId,
    pub name: &'a OsStr,
}

/// What the caller asked for the mode of a new object: permission bits, and the umask that holds
/// where no default ACL does.
#[derive(Clone, Copy)]
pub struct AskedMode {
    pub mode: u32,
    pub umask: u32,
}

impl Volume {
    /// Creates a regular file and opens it. A file that is there already is opened, where
    /// `flags` (`libc::O_*`) do not forbid it.
    pub fn create(
        &self,
        caller: Caller,
        at: At<'_>,
        asked: AskedMode,
        flags: i32,
    ) -> FsResult<(Meta, Opened)> {
        let mut room = self.reserve(0)?;
        let tree = self.shared_tree();
        let parent = self.node(at.parent)?;
        let names = parent.names.lock();
        let dir = self.descriptors.of(&parent)?;
        self.begin_names(&parent, &*dir);
        let name_c = c_name(at.name)?;
        let access = OFlags::from_bits_retain((flags & libc::O_ACCMODE) as u32);
        let open = access | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(birth_mode(caller, &*dir, asked.mode, libc::S_IFREG)?);
        let made =
            as_caller(caller.identity(), asked.umask, || rustix::fs::openat(&*dir, &*name_c, open, mode))
                .step("act for the caller")?;
        let fd = match made {
            Err(rustix::io::Errno::EXIST) if flags & libc::O_EXCL == 0 => {
                drop((names, tree));
                drop(room);
                return self.open_existing(caller, at, flags);
            }
            made => Arc::new(self.birth_failed(&dir, at.name, made.step("create"))?),
        };
        let (node, stat) = self.after_change(self.sight_new(&parent, fd.clone(), at.name))?;
        let state = node.state.lock();
        let xattrs = self.after_change(xattr::read_replicated(&*fd).step("read what was inherited"))?;
        self.append_birth(&mut room, &parent, dir.as_fd(), at.name, &node, Birth::File, &stat, xattrs)?;
        self.end_names(&parent, &*dir);
        drop(state);
        drop((names, tree));
        let opened = self.enter_handle(&node, Some(fd), flags)?;
        let node = node.into_lookup();
        Ok((self.meta(&node, stat), opened))
    }

    /// The name appeared between the kernel's lookup and the creation.
    fn open_existing(&self, caller: Caller, at: At<'_>, flags: i32) -> FsResult<(Meta, Opened)> {
        let meta = self.lookup(at.parent, at.name)?;
        let opened = self.open(meta.node, flags).and_then(|opened| {
            if flags & libc::O_TRUNC != 0 {
                self.resize(caller, meta.node, Some(opened.handle), 0)?;
            }
            Ok(opened)
        });
        match opened {
            Ok(opened) => Ok((Meta { stat: self.getattr(meta.node, None)?.stat, ..meta }, opened)),
            Err(error) => {
                self.forget(meta.node, 1);
                Err(error)
            }
        }
    }

    /// Creates a directory.
    pub fn mkdir(&self, caller: Caller, at: At<'_>, asked: AskedMode) -> FsResult<Meta> {
        self.bear(caller, at, asked, libc::S_IFDIR, Birth::Directory, |dir, name, mode| {
            rustix::fs::mkdirat(dir, name, mode)
        })
    }

    /// Creates a file, fifo, socket or device node; `mode` has the type bits, `device` is
    /// (major, minor).
    pub fn mknod(&self, caller: Caller, at: At<'_>, asked: AskedMode, device: (u32, u32)) -> FsResult<Meta> {
        let kind = asked.mode & libc::S_IFMT;
        let (major, minor) = device;
        let birth = match kind {
            0 | libc::S_IFREG => Birth::File,
            libc::S_IFIFO => Birth::Fifo,
            libc::S_IFSOCK => Birth::Socket,
            libc::S_IFCHR => Birth::CharDevice { major, minor },
            libc::S_IFBLK => Birth::BlockDevice { major, minor },
            _ => return Err(FsError::new(libc::EINVAL, "type of a new object")),
        };
        let kind = if kind == 0 { libc::S_IFREG } else { kind };
        self.bear(caller, at, asked, kind, birth, |dir, name, mode| {
            let device = rustix::fs::makedev(major, minor);
            rustix::fs::mknodat(dir, name, FileType::from_raw_mode(kind), mode, device)
        })
    }

    /// Creates a symlink with this text.
    pub fn symlink(&self, caller: Caller, at: At<'_>, target: &Path) -> FsResult<Meta> {
        let birth = Birth::Symlink { target: Bounded(target.as_os_str().as_bytes().to_vec()) };
        let asked = AskedMode { mode: 0o777, umask: 0 };
        self.bear(caller, at, asked, libc::S_IFLNK, birth, |dir, name, _| {
            rustix::fs::symlinkat(target, dir, name)
        })
    }

    /// Everything that is born without being opened.
    fn bear(
        &self,
        caller: Caller,
        at: At<'_>,
        asked: AskedMode,
        kind: u32,
        birth: Birth,
        make: impl FnOnce(BorrowedFd<'_>, &std::ffi::CStr, Mode) -> rustix::io::Result<()>,
    ) -> FsResult<Meta> {
        let mut room = self.reserve(0)?;
        let _tree = self.shared_tree();
        let parent = self.node(at.parent)?;
        let _names = parent.names.lock();
        let dir = self.descriptors.of(&parent)?;
        self.begin_names(&parent, &*dir);
        let name_c = c_name(at.name)?;
        let mode = Mode::from_raw_mode(birth_mode(caller, &*dir, asked.mode, kind)?);
        let made = as_caller(caller.identity(), asked.umask, || make(dir.as_fd(), &name_c, mode))
            .step("act for the caller")?;
        self.birth_failed(&dir, at.name, made.step("create"))?;
        let path = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(&*dir, &*name_c, path, Mode::empty()).step("open a new object");
        let fd = Arc::new(
            opened.inspect_err(|_| self.undo_birth(&mut room, &parent, dir.as_fd(), at.name, kind))?,
        );
        let (node, stat) = self.after_change(self.sight_new(&parent, fd.clone(), at.name))?;
        let _state = node.state.lock();
        let xattrs = self.after_change(xattr::read_replicated(&*fd).step("read what was inherited"))?;
        self.append_birth(&mut room, &parent, dir.as_fd(), at.name, &node, birth, &stat, xattrs)?;
        self.end_names(&parent, &*dir);
        drop(_state);
        let node = node.into_lookup();
        Ok(self.meta(&node, stat))
    }

    /// A birth that failed leaves no name behind.
    fn birth_failed<T>(&self, dir: &OwnedFd, name: &OsStr, made: FsResult<T>) -> FsResult<T> {
        made.inspect_err(|error| {
            if error.may_have_changed() {
                self.name_must_hold(dir, name, None);
            }
        })
    }

    /// A new object that cannot be reached goes again: the caller is told that it was not made. The
    /// directory keeps the time of it.
    fn undo_birth(
        &self,
        room: &mut crate::queue::Reservation,
        parent: &Node,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        kind: u32,
    ) {
        let how = if kind == libc::S_IFDIR { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        let undone = c_name(name).and_then(|name| rustix::fs::unlinkat(dir, &*name, how).step("remove"));
        if let Ok(mtime) = self.after_change(undone.and_then(|()| mtime_of(dir))) {
            let op = Op::SetAttributes { object: parent.object, mode: None, owner: None, mtime: Some(mtime) };
            self.append(room, parent, &op, Bytes::new());
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn append_birth(
        &self,
        room: &mut crate::queue::Reservation,
        parent: &Node,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        node: &Node,
        birth: Birth,
        stat: &Stat,
        xattrs: Vec<Xattr>,
    ) -> FsResult<()> {
        let op = Op::Create {
            at: entry(parent, name)?,
            dir_mtime: self.after_change(mtime_of(dir))?,
            object: node.object,
            birth,
            attributes: attributes(stat),
            xattrs,
        };
        self.append(room, node, &op, Bytes::new());
        Ok(())
    }

    /// Gives an object a further name.
    pub fn link(&self, node: NodeId, at: At<'_>) -> FsResult<Meta> {
        let mut room = self.reserve(0)?;
        let _tree = self.shared_tree();
        let parent = self.node(at.parent)?;
        let node = self.node(node)?;
        let _names = parent.names.lock();
        let _state = node.state.lock();
        let dir = self.descriptors.of(&parent)?;
        let fd = self.descriptors.of(&node)?;
        self.begin_names(&parent, &*dir);
        self.begin_change(&node, &*fd);
        let linked =
            rustix::fs::linkat(&*fd, "", &*dir, &*c_name(at.name)?, AtFlags::EMPTY_PATH).step("link");
        self.birth_failed(&dir, at.name, linked)?;
        let stat = self.after_change(rustix::fs::fstat(&*fd).step("stat"))?;
        self.objects.set_nameless(&node, false);
        node.set_place(parent.id, at.name.as_bytes());
        let op = Op::Link {
            object: node.object,
            at: entry(&parent, at.name)?,
            dir_mtime: self.after_change(mtime_of(dir.as_fd()))?,
            links: stat.st_nlink as u32,
        };
        self.append(&mut room, &node, &op, Bytes::new());
        self.end_names(&parent, &*dir);
        self.end_change(&node, &stat);
        // The reply is a lookup, like that of every new name.
        let known = self.sight(&parent, dir.as_fd(), at.name)?.0.into_lookup();
        Ok(self.meta(&known, stat))
    }

    /// Removes a name of a non-directory.
    pub fn unlink(&self, at: At<'_>) -> FsResult<()> {
        self.remove(at, AtFlags::empty())
    }

    /// Removes an empty directory.
    pub fn rmdir(&self, at: At<'_>) -> FsResult<()> {
        self.remove(at, AtFlags::REMOVEDIR)
    }

    fn remove(&self, at: At<'_>, how: AtFlags) -> FsResult<()> {
        let mut room = self.reserve(0)?;
        let _tree = self.shared_tree();
        let parent = self.node(at.parent)?;
        let _names = parent.names.lock();
        let dir = self.descriptors.of(&parent)?;
        self.begin_names(&parent, &*dir);
        let (node, stat) = self.sight_open(&parent, dir.as_fd(), at.name)?;
        let _state = node.state.lock();
        node.left.forget();
        let links = links_after_loss(&stat);
        self.keep_reachable(&node, links)?;
        let path = self.path(&node);
        if let Err(error) = rustix::fs::unlinkat(&*dir, &*c_name(at.name)?, how).step("remove") {
            self.release_reachable(&node);
            if error.may_have_changed() {
                self.name_must_hold(&dir, at.name, Some(&stat));
            }
            return Err(error);
        }
        self.objects.set_nameless(&node, links == 0);
        let (at, dir_mtime) = (entry(&parent, at.name)?, self.after_change(mtime_of(dir.as_fd()))?);
        let op = match how.contains(AtFlags::REMOVEDIR) {
            true => Op::RemoveDirectory { at, dir_mtime, object: node.object },
            false => Op::Unlink { at, dir_mtime, object: node.object, links },
        };
        self.queue.append(&mut room, crate::queue::Draft::new(&path, &op, Bytes::new()));
        self.end_names(&parent, &*dir);
        Ok(())
    }

    /// Renames, replaces or exchanges. Errors as `renameat2(2)`.
    pub fn rename(&self, from: At<'_>, to: At<'_>, flags: RenameFlags) -> FsResult<()> {
        let mut exclusive = false;
        loop {
            match self.try_rename(from, to, flags, exclusive)? {
                Attempt::Done => return Ok(()),
                Attempt::NeedsExclusiveTree => exclusive = true,
            }
        }
    }

    /// With the shared tree lock a rename that turns out to move a directory has changed nothing.
    fn try_rename(&self, from: At<'_>, to: At<'_>, flags: RenameFlags, exclusive: bool) -> FsResult<Attempt> {
        let mut room = self.reserve(0)?;
        let _tree = if exclusive { self.exclusive_tree() } else { self.shared_tree() };
        let from_dir = self.node(from.parent)?;
        let to_dir = self.node(to.parent)?;
        let _names = lock_names(&from_dir, &to_dir);
        let from_fd = self.descriptors.of(&from_dir)?;
        let to_fd = self.descriptors.of(&to_dir)?;
        self.begin_names(&from_dir, &*from_fd);
        self.begin_names(&to_dir, &*to_fd);
        let (moved, before) = self.sight(&from_dir, from_fd.as_fd(), from.name)?;
        let taken = match self.sight(&to_dir, to_fd.as_fd(), to.name) {
            Ok(taken) => Some(taken),
            Err(error) if error.errno == libc::ENOENT => None,
            Err(error) => return Err(error),
        };
        let moves_directory =
            moved.is_directory() || taken.as_ref().is_some_and(|(node, _)| node.is_directory());
        if moves_directory && !exclusive {
            return Ok(Attempt::NeedsExclusiveTree);
        }
        let ends = Ends { from, to, from_dir: &from_dir, to_dir: &to_dir, from_fd, to_fd };
        let taken_before = taken.as_ref().map(|(_, stat)| *stat);
        let outcome = if flags.contains(RenameFlags::EXCHANGE) {
            let (other, other_before) = taken.ok_or(FsError::new(libc::ENOENT, "exchange"))?;
            let _states = lock_states(&moved, Some(&other));
            [&moved, &other].into_iter().for_each(|node| node.left.forget());
            self.exchange(&mut room, &ends, (&moved, &before), (&other, &other_before), flags)
        } else {
            let _states = lock_states(&moved, taken.as_ref().map(|(node, _)| &***node));
            moved.left.forget();
            taken.iter().for_each(|(node, _)| node.left.forget());
            self.replace(&mut room, &ends, (&moved, &before), taken.as_ref(), flags)
        };
        if let Err(error) = outcome {
            if error.may_have_changed() {
                self.name_must_hold(&ends.from_fd, from.name, Some(&before));
                self.name_must_hold(&ends.to_fd, to.name, taken_before.as_ref());
            }
            return Err(error);
        }
        if moves_directory {
            self.directories_moved();
        }
        self.end_names(&from_dir, &*ends.from_fd);
        self.end_names(&to_dir, &*ends.to_fd);
        Ok(Attempt::Done)
    }

    /// Renames, perhaps over another object.
    fn replace(
        &self,
        room: &mut crate::queue::Reservation,
        ends: &Ends<'_>,
        (moved, before): (&Arc<Node>, &Stat),
        taken: Option<&(Pinned<'_>, Stat)>,
        flags: RenameFlags,
    ) -> FsResult<()> {
        let path = self.path(moved);
        let replaced = match taken {
            // The same inode under both names: the kernel does nothing, and says it succeeded.
            Some((node, _)) if node.id == moved.id => None,
            Some((node, stat)) if !flags.contains(RenameFlags::NOREPLACE) => {
                let links = links_after_loss(stat);
                self.keep_reachable(node, links)?;
                Some(Replaced { object: node.object, links })
            }
            Some(_) | None => None,
        };
        if let Err(error) = ends.rename(flags) {
            if let Some((node, _)) = taken {
                self.release_reachable(node);
            }
            return Err(error);
        }
        if taken.is_some_and(|(node, _)| node.id == moved.id) {
            return Ok(());
        }
        moved.set_place(ends.to_dir.id, ends.to.name.as_bytes());
        let whiteout = if flags.contains(RenameFlags::WHITEOUT) {
            let (node, stat) =
                self.after_change(self.sight(ends.from_dir, ends.from_fd.as_fd(), ends.from.name))?;
            Some(Whiteout { object: node.object, attributes: attributes(&stat) })
        } else {
            None
        };
        let op = Op::Rename {
            from: entry(ends.from_dir, ends.from.name)?,
            from_mtime: self.after_change(mtime_of(ends.from_fd.as_fd()))?,
            to: entry(ends.to_dir, ends.to.name)?,
            to_mtime: self.after_change(mtime_of(ends.to_fd.as_fd()))?,
            object: moved.object,
            object_mtime: self.after_change(mtime_after_move(&ends.to_fd, ends.to.name, before))?,
            replaced,
            whiteout,
        };
        self.queue.append(room, crate::queue::Draft::new(&path, &op, Bytes::new()));
        if let (Some((node, _)), Some(replaced)) = (taken, replaced) {
            self.objects.set_nameless(node, replaced.links == 0);
        }
        Ok(())
    }

    fn exchange(
        &self,
        room: &mut crate::queue::Reservation,
        ends: &Ends<'_>,
        (moved, before): (&Arc<Node>, &Stat),
        (other, other_before): (&Arc<Node>, &Stat),
        flags: RenameFlags,
    ) -> FsResult<()> {
        let path = self.path(moved);
        ends.rename(flags)?;
        if moved.id == other.id {
            return Ok(());
        }
        moved.set_place(ends.to_dir.id, ends.to.name.as_bytes());
        other.set_place(ends.from_dir.id, ends.from.name.as_bytes());
        let op = Op::Exchange {
            left: entry(ends.from_dir, ends.from.name)?,
            left_mtime: self.after_change(mtime_of(ends.from_fd.as_fd()))?,
            left_object: moved.object,
            left_object_mtime: self.after_change(mtime_after_move(&ends.to_fd, ends.to.name, before))?,
            right: entry(ends.to_dir, ends.to.name)?,
            right_mtime: self.after_change(mtime_of(ends.to_fd.as_fd()))?,
            right_object: other.object,
            right_object_mtime: self.after_change(mtime_after_move(
                &ends.from_fd,
                ends.from.name,
                other_before,
            ))?,
        };
        self.queue.append(room, crate::queue::Draft::new(&path, &op, Bytes::new()));
        Ok(())
    }

    /// Before an object loses its last name: a descriptor keeps it, and its inode number, until
    /// the kernel forgets it.
    fn keep_reachable(&self, node: &Arc<Node>, links_after: u32) -> FsResult<()> {
        if links_after > 0 {
            return Ok(());
        }
        let is_open = node.open.lock().is_open();
        if !self.objects.may_keep(node, crate::sys::acting_as().uid) {
            // Without a descriptor only what somebody has open would be lost.
            return match is_open {
                true => Err(FsError::new(libc::ENFILE, "open files of one user that have no name")),
                false => Ok(()),
            };
        }
        node.keep_descriptor.store(true, Relaxed);
        self.descriptors.of(node).map(drop).inspect_err(|_| self.objects.give_share(node))
    }

    /// The removal failed: the object can be found by its handle as before.
    fn release_reachable(&self, node: &Arc<Node>) {
        self.objects.give_share(node);
        if node.handle.is_some() {
            node.keep_descriptor.store(false, Relaxed);
            self.descriptors.remember(node);
        }
    }
}

enum Attempt {
    Done,
    NeedsExclusiveTree,
}

/// Both ends of a rename.
struct Ends<'a> {
    from: At<'a>,
    to: At<'a>,
    from_dir: &'a Arc<Node>,
    to_dir: &'a Arc<Node>,
    from_fd: Arc<OwnedFd>,
    to_fd: Arc<OwnedFd>,
}

impl Ends<'_> {
    fn rename(&self, flags: RenameFlags) -> FsResult<()> {
        let (from, to) = (c_name(self.from.name)?, c_name(self.to.name)?);
        rustix::fs::renameat_with(&*self.from_fd, &*from, &*self.to_fd, &*to, flags).step("rename")
    }
}

/// Links of an object after one name is gone; a directory has none left.
fn links_after_loss(stat: &Stat) -> u32 {
    if file_type(stat) == libc::S_IFDIR { 0 } else { (stat.st_nlink as u32).saturating_sub(1) }
}

/// The mtime of an object that has just got this name, where the move may have changed it, on this
/// file system or on another one: of a directory always (XFS changes both in an exchange, f2fs the
/// one that a rename moves), of others where it did.
fn mtime_after_move(dir: &OwnedFd, name: &OsStr, before: &Stat) -> FsResult<Option<Timestamp>> {
    let now = rustix::fs::statat(dir, &*c_name(name)?, AtFlags::SYMLINK_NOFOLLOW).step("stat what moved")?;
    let is_directory = file_type(&now) == libc::S_IFDIR;
    Ok((is_directory || mtime(&now) != mtime(before)).then(|| mtime(&now)))
}

fn mtime_of(dir: BorrowedFd<'_>) -> FsResult<Timestamp> {
    Ok(mtime(&rustix::fs::fstat(dir).step("stat a directory")?))
}
