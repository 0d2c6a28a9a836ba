//! Ops on attributes: mode, owner, times, extended attributes.

use std::ffi::{CString, OsStr};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::{AtFlags, StatVfs, Timespec, Timestamps, XattrFlags};
use rustix::io::Errno;

use super::clearing::{mode_after_acl, set_mode};
use super::error::{FsError, FsResult, Step};
use super::objects::{Node, NodeId};
use super::volume::{Caller, Meta, Volume, mtime, permissions};
use crate::limits::{XATTR_LIST_LEN_MAX, XATTR_VALUE_LEN_MAX};
use crate::packet::{Bounded, Op, Owner, Timestamp, Xattr};

/// Extended attributes of the product itself: hidden from applications, never replicated.
pub const OWN_XATTRS: &[u8] = b"trusted.standin.";

const ACCESS_ACL: &[u8] = b"system.posix_acl_access";

/// A time to set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetTime {
    Now,
    At(Timestamp),
}

/// What a `setattr` changes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Changes {
    /// Permission bits; type bits are ignored.
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    /// Bytes.
    pub size: Option<u64>,
    pub atime: Option<SetTime>,
    pub mtime: Option<SetTime>,
}

impl Volume {
    /// Attributes of an object; through an open handle where the kernel names one.
    pub fn getattr(&self, node: NodeId, handle: Option<u64>) -> FsResult<Meta> {
        let node = self.node(node)?;
        let fd = match handle.and_then(|handle| self.handle_fd(handle)) {
            Some(fd) => fd,
            None => self.descriptors.of(&node)?,
        };
        let stat = rustix::fs::fstat(&*fd).step("stat")?;
        Ok(self.meta(&node, stat))
    }

    /// Changes attributes and size in the order owner, mode, size, times; each change that was
    /// made is captured, also when a later one fails.
    pub fn setattr(
        &self,
        caller: Caller,
        node: NodeId,
        handle: Option<u64>,
        changes: Changes,
    ) -> FsResult<Meta> {
        let mut size_room = self.reserve(0)?;
        let mut room = self.reserve(0)?;
        let _tree = self.shared_tree();
        let node = self.node(node)?;
        let state = node.state.lock();
        let fd = self.descriptors.of(&node)?;
        let mut done = Done::default();
        let outcome = self.set_owner_and_mode(&fd, changes, &mut done);
        let outcome = outcome.and_then(|()| match changes.size {
            Some(size) => self.resize_locked(caller, &node, &state, handle, size, &mut size_room),
            None => Ok(()),
        });
        let outcome = outcome.and_then(|()| set_times(&fd, changes, &mut done));
        let stat = self.after_change(rustix::fs::fstat(&*fd).step("stat"))?;
        if done.any() && !state.nameless {
            let op = Op::SetAttributes {
                object: node.object,
                mode: (done.mode || done.owner).then(|| permissions(&stat)),
                owner: done.owner.then_some(Owner { uid: stat.st_uid, gid: stat.st_gid }),
                mtime: done.mtime.then(|| mtime(&stat)),
            };
            self.append(&mut room, &node, &op, Bytes::new());
        }
        outcome?;
        Ok(self.meta(&node, stat))
    }

    fn set_owner_and_mode(
        &self,
        fd: &std::os::fd::OwnedFd,
        changes: Changes,
        done: &mut Done,
    ) -> FsResult<()> {
        if changes.uid.is_some() || changes.gid.is_some() {
            let uid = changes.uid.map(rustix::fs::Uid::from_raw);
            let gid = changes.gid.map(rustix::fs::Gid::from_raw);
            rustix::fs::chownat(fd, "", uid, gid, AtFlags::EMPTY_PATH).step("change owner")?;
            done.owner = true;
        }
        if let Some(mode) = changes.mode {
            set_mode(fd, mode & 0o7777)?;
            done.mode = true;
        }
        Ok(())
    }

    /// Text of a symlink.
    pub fn readlink(&self, node: NodeId) -> FsResult<CString> {
        let node = self.node(node)?;
        let fd = self.descriptors.of(&node)?;
        rustix::fs::readlinkat(&*fd, "", Vec::new()).step("read a symlink")
    }

    /// Facts of the backing file system.
    pub fn statfs(&self) -> FsResult<StatVfs> {
        let root = self.descriptors.of(&self.node(NodeId::ROOT)?)?;
        rustix::fs::fstatvfs(&*root).step("stat the file system")
    }

    /// Value of an extended attribute, whole.
    pub fn getxattr(&self, node: NodeId, name: &OsStr) -> FsResult<Vec<u8>> {
        if name.as_bytes().starts_with(OWN_XATTRS) {
            return Err(FsError::new(libc::ENODATA, "own xattr"));
        }
        let (_fd, path) = self.xattr_path(&self.node(node)?)?;
        read_value(|value| rustix::fs::getxattr(&path, name, value)).step("get xattr")
    }

    /// Names of all extended attributes, each ended by a NUL.
    pub fn listxattr(&self, node: NodeId) -> FsResult<Vec<u8>> {
        let (_fd, path) = self.xattr_path(&self.node(node)?)?;
        let names = read_list(|list| rustix::fs::listxattr(&path, list)).step("list xattrs")?;
        let kept = names.split_inclusive(|&byte| byte == 0).filter(|name| !name.starts_with(OWN_XATTRS));
        Ok(kept.flatten().copied().collect())
    }

    /// Sets an extended attribute; `flags` as `setxattr(2)`.
    pub fn setxattr(
        &self,
        caller: Caller,
        node: NodeId,
        name: &OsStr,
        value: &[u8],
        flags: i32,
    ) -> FsResult<()> {
        refuse_own(name)?;
        if value.len() > XATTR_VALUE_LEN_MAX {
            return Err(FsError::new(libc::E2BIG, "xattr value"));
        }
        let flags = XattrFlags::from_bits_retain(flags as u32);
        let payload = self.pool.copy_of(value);
        self.change_xattr(node, value.len(), |fd, path, object| {
            rustix::fs::setxattr(path, name, &payload, flags).step("set xattr")?;
            let is_acl = name.as_bytes() == ACCESS_ACL;
            let stat = self.after_change(rustix::fs::fstat(fd).step("stat"))?;
            let cleared = if is_acl { mode_after_acl(caller, &stat) } else { None };
            if let Some(mode) = cleared {
                self.after_change(set_mode(fd, mode))?;
            }
            let mode = is_acl.then(|| cleared.unwrap_or(permissions(&stat)));
            let name = Bounded(name.as_bytes().to_vec());
            Ok((Op::SetXattr { object, name, mode }, payload.clone()))
        })
    }

    /// Removes an extended attribute.
    pub fn removexattr(&self, node: NodeId, name: &OsStr) -> FsResult<()> {
        refuse_own(name)?;
        self.change_xattr(node, 0, |fd, path, object| {
            rustix::fs::removexattr(path, name).step("remove xattr")?;
            let mode = match name.as_bytes() == ACCESS_ACL {
                true => Some(permissions(&self.after_change(rustix::fs::fstat(fd).step("stat"))?)),
                false => None,
            };
            let name = Bounded(name.as_bytes().to_vec());
            Ok((Op::RemoveXattr { object, name, mode }, Bytes::new()))
        })
    }

    fn change_xattr(
        &self,
        node: NodeId,
        payload: usize,
        change: impl FnOnce(
            &std::os::fd::OwnedFd,
            &std::path::Path,
            crate::packet::ObjectId,
        ) -> FsResult<(Op, Bytes)>,
    ) -> FsResult<()> {
        let mut room = self.reserve(payload)?;
        let _tree = self.shared_tree();
        let node = self.node(node)?;
        let state = node.state.lock();
        let fd = self.descriptors.of(&node)?;
        let (op, payload) = change(&fd, &crate::sys::proc_path(fd.as_fd()), node.object)?;
        if !state.nameless {
            self.append(&mut room, &node, &op, payload);
        }
        Ok(())
    }

    /// The descriptor must live as long as the path is used.
    fn xattr_path(&self, node: &Arc<Node>) -> FsResult<(Arc<std::os::fd::OwnedFd>, std::path::PathBuf)> {
        let fd = self.descriptors.of(node)?;
        let path = crate::sys::proc_path(fd.as_fd());
        Ok((fd, path))
    }
}

/// What of a `setattr` has happened.
#[derive(Default)]
struct Done {
    mode: bool,
    owner: bool,
    mtime: bool,
}

impl Done {
    fn any(&self) -> bool {
        self.mode || self.owner || self.mtime
    }
}

fn set_times(fd: &std::os::fd::OwnedFd, changes: Changes, done: &mut Done) -> FsResult<()> {
    if changes.atime.is_none() && changes.mtime.is_none() {
        return Ok(());
    }
    let times =
        Timestamps { last_access: timespec(changes.atime), last_modification: timespec(changes.mtime) };
    rustix::fs::utimensat(fd, "", &times, AtFlags::EMPTY_PATH).step("set times")?;
    done.mtime = changes.mtime.is_some();
    Ok(())
}

fn timespec(time: Option<SetTime>) -> Timespec {
    match time {
        None => Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT as _ },
        Some(SetTime::Now) => Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW as _ },
        Some(SetTime::At(time)) => {
            Timespec { tv_sec: time.seconds, tv_nsec: i64::from(time.nanoseconds) as _ }
        }
    }
}

fn refuse_own(name: &OsStr) -> FsResult<()> {
    match name.as_bytes().starts_with(OWN_XATTRS) {
        true => Err(FsError::new(libc::EPERM, "own xattr")),
        false => Ok(()),
    }
}

/// All extended attributes of an object but our own, sorted by name. What cannot be read is left
/// out: a file system without attributes has none.
pub fn read_xattrs(
    list: impl Fn(&mut [u8]) -> rustix::io::Result<usize>,
    get: impl Fn(&OsStr, &mut [u8]) -> rustix::io::Result<usize>,
) -> Vec<Xattr> {
    match list(&mut []) {
        Ok(0) | Err(_) => return Vec::new(),
        Ok(_) => {}
    }
    let Ok(names) = read_list(list) else { return Vec::new() };
    let mut xattrs: Vec<Xattr> = names
        .split(|&byte| byte == 0)
        .filter(|name| !name.is_empty() && !name.starts_with(OWN_XATTRS))
        .filter_map(|name| {
            let value = read_value(|value| get(OsStr::from_bytes(name), value)).ok()?;
            Some(Xattr { name: Bounded(name.to_vec()), value: Bounded(value) })
        })
        .collect();
    xattrs.sort();
    xattrs
}

fn read_value(get: impl Fn(&mut [u8]) -> rustix::io::Result<usize>) -> rustix::io::Result<Vec<u8>> {
    read_growing(get, 256, XATTR_VALUE_LEN_MAX)
}

fn read_list(list: impl Fn(&mut [u8]) -> rustix::io::Result<usize>) -> rustix::io::Result<Vec<u8>> {
    read_growing(list, 1024, XATTR_LIST_LEN_MAX)
}

fn read_growing(
    read: impl Fn(&mut [u8]) -> rustix::io::Result<usize>,
    first: usize,
    max: usize,
) -> rustix::io::Result<Vec<u8>> {
    let mut buffer = vec![0; first];
    let len = match read(&mut buffer) {
        Err(Errno::RANGE) => {
            buffer.resize(max, 0);
            read(&mut buffer)?
        }
        other => other?,
    };
    buffer.truncate(len);
    Ok(buffer)
}
