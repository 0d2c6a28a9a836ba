//! Ops that change one name: births, links, removals.

use std::ffi::{CStr, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};

use super::change::{Attempt, Change, Part, Touched, Tree};
use super::clearing::birth_mode;
use super::data::Opened;
use super::error::{FsError, FsResult, Step};
use super::objects::{Node, NodeId};
use super::standing::Intent;
use super::volume::{Caller, Meta, Volume, attributes, c_name, entry, file_type, mtime, stat_at};
use crate::packet::{Birth, Bounded, Entry, Op, Timestamp};
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
        let parent = self.node(at.parent)?;
        let (name, entry) = (c_name(at.name)?, entry(&parent, at.name)?);
        // Outlives the change, which locks it.
        let node;
        let mut change = self.prepare(Touched::name(&parent, at.name), 0)?.lock()?;
        let dir = change.dir();
        if self.intended_before() == Some(Intent::Birth) && stat_at(dir.as_fd(), at.name).is_some() {
            // A daemon that is gone has made it for this request.
            change.unchanged();
            return self.open_existing(caller, at, flags);
        }
        let access = self.profile.access(flags & libc::O_ACCMODE);
        let access = OFlags::from_bits_retain(access as u32);
        let open = access | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(birth_mode(caller, &*dir, asked.mode, libc::S_IFREG)?);
        let make = || rustix::fs::openat(&*dir, &*name, open, mode);
        self.intend(Intent::Birth);
        let fd = match change.make(|| born_of(caller, asked, make)) {
            Ok(fd) => Arc::new(fd),
            Err(error) if error.errno == libc::EEXIST && flags & libc::O_EXCL == 0 => {
                self.was_refused();
                change.unchanged();
                return self.open_existing(caller, at, flags);
            }
            Err(error) => {
                self.was_refused();
                return Err(change.failed(error, &[None]));
            }
        };
        let (born, stat) = change.look(self.sight_new(&parent, fd.clone(), at.name))?;
        node = born;
        change.lock_new(&node);
        append_birth(change, entry, &node, Birth::File, &fd, &stat)?;
        let opened = self.enter_handle(&node, Some(fd), flags)?;
        let node = node.into_lookup();
        Ok((self.meta(&node, stat), opened))
    }

    /// The name appeared between the kernel's lookup and the creation.
    ///
    /// Errors: `ESTALE` for what is no file. The kernel looks once more then, and opens it itself: here
    /// a fifo would wait for its other end.
    fn open_existing(&self, caller: Caller, at: At<'_>, flags: i32) -> FsResult<(Meta, Opened)> {
        let meta = self.lookup(at.parent, at.name)?;
        if file_type(&meta.stat) != libc::S_IFREG {
            self.forget(meta.node, 1);
            return Err(FsError::stale("a name that appeared"));
        }
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
        make: impl FnOnce(BorrowedFd<'_>, &CStr, Mode) -> rustix::io::Result<()>,
    ) -> FsResult<Meta> {
        let parent = self.node(at.parent)?;
        let (name, entry) = (c_name(at.name)?, entry(&parent, at.name)?);
        // Outlives the change, which locks it.
        let node;
        let mut change = self.prepare(Touched::name(&parent, at.name), 0)?.lock()?;
        let dir = change.dir();
        if self.intended_before() == Some(Intent::Birth)
            && let Ok((born, stat)) = self.sight(&parent, dir.as_fd(), at.name)
            && file_type(&stat) == kind
        {
            change.unchanged();
            return Ok(self.meta(&born.into_lookup(), stat));
        }
        let mode = Mode::from_raw_mode(birth_mode(caller, &*dir, asked.mode, kind)?);
        self.intend(Intent::Birth);
        if let Err(error) = change.make(|| born_of(caller, asked, || make(dir.as_fd(), &name, mode))) {
            self.was_refused();
            return Err(change.failed(error, &[None]));
        }
        let path = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = match rustix::fs::openat(&*dir, &*name, path, Mode::empty()).step("open a new object") {
            Ok(fd) => Arc::new(fd),
            Err(error) => {
                undo_birth(change, &parent, &name, kind);
                return Err(error);
            }
        };
        let (born, stat) = change.look(self.sight_new(&parent, fd.clone(), at.name))?;
        node = born;
        change.lock_new(&node);
        append_birth(change, entry, &node, birth, &fd, &stat)?;
        let node = node.into_lookup();
        Ok(self.meta(&node, stat))
    }

    /// Gives an object a further name.
    pub fn link(&self, node: NodeId, at: At<'_>) -> FsResult<Meta> {
        let (parent, node) = (self.node(at.parent)?, self.node(node)?);
        let (name, entry) = (c_name(at.name)?, entry(&parent, at.name)?);
        let fd = self.descriptors.of(&node)?;
        self.stage_for_link(&node, &parent, at.name);
        let touched = Touched::name(&parent, at.name).and(&node, &fd, Part::Attributes);
        let mut change = self.prepare(touched, 0)?.lock()?;
        let is_told = self.is_told_for_link(&node, &parent, at.name);
        let dir = change.dir();
        if self.intended_before() == Some(Intent::Link)
            && let Ok((known, stat)) = self.sight(&parent, dir.as_fd(), at.name)
            && known.id == node.id
        {
            change.unchanged();
            return Ok(self.meta(&known.into_lookup(), stat));
        }
        self.intend(Intent::Link);
        let link = || rustix::fs::linkat(&*fd, "", &*dir, &*name, AtFlags::EMPTY_PATH).step("link");
        if let Err(error) = change.make(link) {
            self.was_refused();
            let error = change.failed(error, &[None]);
            self.unstage(&node);
            return Err(error);
        }
        let stat = change.stat_after(&fd)?;
        self.objects.set_nameless(&node, false);
        node.set_place(parent.id, at.name.as_bytes());
        let dir_mtime = change.look(mtime_of(&dir))?;
        let object = node.object;
        match is_told {
            true => {
                let op = Op::Link { object, at: entry, dir_mtime, links: stat.st_nlink as u32 };
                change.tell(&op, Bytes::new());
            }
            false => self.divergence().arrives(&at.name.to_string_lossy(), || {
                let op = Op::Place { object, at: entry, dir_mtime, replaced: None };
                change.tell(&op, Bytes::new());
                change.told()
            }),
        }
        // The reply is a lookup, like that of every new name; nobody takes the name away meanwhile.
        let known = self.sight(&parent, dir.as_fd(), at.name)?.0.into_lookup();
        drop(change);
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
        match self.try_remove(at, how, Tree::Shared)? {
            Attempt::Done => Ok(()),
            Attempt::NeedsExclusiveTree => self.try_remove(at, how, Tree::Exclusive).map(drop),
        }
    }

    fn try_remove(&self, at: At<'_>, how: AtFlags, tree: Tree) -> FsResult<Attempt> {
        let parent = self.node(at.parent)?;
        let (name, entry) = (c_name(at.name)?, entry(&parent, at.name)?);
        // Outlives the change, which locks it.
        let node;
        let mut change = self.prepare(Touched::name(&parent, at.name), 0)?.lock_tree(tree)?;
        let dir = change.dir();
        let found = self.sight_open(&parent, dir.as_fd(), at.name);
        if self.intended_before() == Some(Intent::Removal)
            && found.as_ref().is_err_and(|error| error.errno == libc::ENOENT)
        {
            // A daemon that is gone has removed it for this request.
            change.unchanged();
            return Ok(Attempt::Done);
        }
        let (found, stat) = found?;
        node = found;
        if node.is_directory() && !change.lock_inside(&node) {
            return Ok(Attempt::NeedsExclusiveTree);
        }
        change.lock_found(&node, None);
        let stat = change.stat_found(&node, stat)?;
        let links = links_after_loss(&stat);
        self.keep_reachable(&node, links)?;
        self.intend(Intent::Removal);
        if let Err(error) = change.make(|| rustix::fs::unlinkat(&*dir, &*name, how).step("remove")) {
            self.was_refused();
            self.release_reachable(&node);
            return Err(change.failed(error, &[Some(&stat)]));
        }
        self.objects.set_nameless(&node, links == 0);
        if links == 0 {
            self.unlist(&node);
            // It may have been opened since it was looked whether it is.
            change.look(self.keep_standing(&node))?;
        }
        let dir_mtime = change.look(mtime_of(&dir))?;
        let op = match how.contains(AtFlags::REMOVEDIR) {
            true => Op::RemoveDirectory { at: entry, dir_mtime, object: node.object },
            false => Op::Unlink { at: entry, dir_mtime, object: node.object, links },
        };
        change.append(&op, Bytes::new());
        Ok(Attempt::Done)
    }
}

/// Makes an object for its caller.
fn born_of<T>(caller: Caller, asked: AskedMode, make: impl FnOnce() -> rustix::io::Result<T>) -> FsResult<T> {
    as_caller(caller.identity(), asked.umask, make).step("act for the caller")?.step("create")
}

/// Tells of an object that was made, with what it has inherited.
fn append_birth(
    mut change: Change<'_>,
    at: Entry,
    node: &Node,
    birth: Birth,
    fd: &OwnedFd,
    stat: &Stat,
) -> FsResult<()> {
    let xattrs = change.look(xattr::read_replicated(fd).step("read what was inherited"))?;
    let dir_mtime = change.look(mtime_of(&change.dir()))?;
    let op = Op::Create { at, dir_mtime, object: node.object, birth, attributes: attributes(stat), xattrs };
    change.append(&op, Bytes::new());
    Ok(())
}

/// A new object that cannot be reached goes again: the caller is told that it was not made. The
/// directory keeps the time of it.
fn undo_birth(mut change: Change<'_>, parent: &Node, name: &CStr, kind: u32) {
    let dir = change.dir();
    let how = if kind == libc::S_IFDIR { AtFlags::REMOVEDIR } else { AtFlags::empty() };
    let undone = rustix::fs::unlinkat(&*dir, name, how).step("remove");
    if let Ok(mtime) = change.look(undone.and_then(|()| mtime_of(&dir))) {
        let op = Op::SetAttributes { object: parent.object, mode: None, owner: None, mtime: Some(mtime) };
        change.append(&op, Bytes::new());
    }
}

/// Links of an object after one name is gone; a directory has none left.
pub(super) fn links_after_loss(stat: &Stat) -> u32 {
    if file_type(stat) == libc::S_IFDIR { 0 } else { (stat.st_nlink as u32).saturating_sub(1) }
}

pub(super) fn mtime_of(dir: &OwnedFd) -> FsResult<Timestamp> {
    Ok(mtime(&rustix::fs::fstat(dir).step("stat a directory")?))
}
