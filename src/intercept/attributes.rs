//! Ops on attributes: mode, owner, times, extended attributes.

use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use bytes::Bytes;
use rustix::fs::{AtFlags, Stat, StatVfs, Timespec, Timestamps, XattrFlags};

use super::appending::leaves_time;
use super::change::{Change, Part, Touched};
use super::clearing::{mode_after_acl, set_mode};
use super::data::FailedResize;
use super::error::{FsError, FsResult, Step};
use super::objects::NodeId;
use super::standing::Intent;
use super::volume::{Caller, Meta, Volume, mtime, permissions};
use crate::limits::XATTR_VALUE_LEN_MAX;
use crate::packet::{Bounded, ObjectId, Op, Owner, Timestamp, XattrName};
use crate::xattr::{self, ACL_ACCESS, FLAGS, OWN_PREFIX};

/// A time to set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetTime {
    Now,
    At(Timestamp),
}

/// What a `setattr` changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AskedAttributes {
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
        self.seen(&node, &stat, || rustix::fs::fstat(&*fd).ok());
        Ok(self.meta(&node, stat))
    }

    /// Changes attributes and size in the order owner, mode, size, times; each change that was
    /// made is captured, also when a later one fails.
    pub fn setattr(
        &self,
        caller: Caller,
        node: NodeId,
        handle: Option<u64>,
        changes: AskedAttributes,
    ) -> FsResult<Meta> {
        let node = self.node(node)?;
        let fd = self.descriptors.of(&node)?;
        if leaves_time(&node, self.profile, &changes) {
            return Ok(self.meta(&node, rustix::fs::fstat(&*fd).step("stat")?));
        }
        let (ops, part) = changes.size.map_or((1, Part::Attributes), |size| (2, Part::Size(size)));
        let touched = Touched::object(&node, &fd, part);
        let mut change = self.prepare_several(ops, touched, 0)?.lock()?;
        let mut done = Done::default();
        let outcome = set_owner_and_mode(&mut change, &fd, changes, &mut done).map_err(FailedResize::from);
        let outcome = outcome.and_then(|()| match changes.size {
            Some(size) => change.part(|change| self.resize_locked(change, caller, &node, handle, size)),
            None => Ok(()),
        });
        let outcome = outcome.and_then(|()| Ok(set_times(&mut change, &fd, changes, &mut done)?));
        // A step that failed half-way has no word of its own for what it did: all is told.
        if outcome.is_err() {
            done = Done { mode: true, owner: true, mtime: true };
        }
        if outcome.is_ok() {
            self.note_time(&node, change.state(), changes.mtime);
        }
        let stat = change.stat_after(&fd)?;
        match change.is_made() && done.any() {
            true => change.append(&done.op(node.object, &stat), Bytes::new()),
            false => change.unchanged(),
        }
        self.after_resize(&node, outcome)?;
        Ok(self.meta(&node, stat))
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
        if !xattr::is_visible(name.as_bytes()) {
            return Err(FsError::new(libc::ENODATA, "hidden xattr"));
        }
        let fd = self.descriptors.of(&self.node(node)?)?;
        let value = xattr::get(&*fd, name.as_bytes()).step("get xattr")?;
        value.ok_or(FsError::new(libc::ENODATA, "get xattr"))
    }

    /// Names of all extended attributes, each ended by a NUL; those that the kernel lets only administrators read are
    /// shown to them alone, as on a disk: copy programs fail at names without a value.
    pub fn listxattr(&self, caller: Caller, node: NodeId) -> FsResult<Vec<u8>> {
        let fd = self.descriptors.of(&self.node(node)?)?;
        let names = xattr::list(&*fd).step("list xattrs")?;
        let is_trusted = |name: &XattrName| name.0.starts_with(b"trusted.");
        let sees_all = !names.iter().any(is_trusted) || caller.administers();
        let kept = names.iter().filter(|name| xattr::is_visible(&name.0) && (sees_all || !is_trusted(name)));
        Ok(kept.flat_map(|name| name.0.iter().copied().chain([0])).collect())
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
        refuse_hidden(name)?;
        if value.len() > XATTR_VALUE_LEN_MAX {
            return Err(FsError::new(libc::E2BIG, "xattr value"));
        }
        let flags = XattrFlags::from_bits_retain(flags as u32);
        let payload = self.pool.copy_of(value);
        self.change_xattr(node, name, value.len(), |change, fd, object| {
            let path = crate::sys::proc_path(fd.as_fd());
            if flags.contains(XattrFlags::CREATE) {
                let is_it = |value: Option<Vec<u8>>| value.is_some_and(|value| value == *payload);
                if self.intended_before() == Some(Intent::Attribute)
                    && xattr::get(fd, name.as_bytes()).is_ok_and(is_it)
                {
                    return Err(DONE_BEFORE);
                }
                self.intend_attribute(fd, name, Attribute::IsAbsent);
            }
            change.make(|| rustix::fs::setxattr(&path, name, &payload, flags).step("set xattr"))?;
            let mode = match name.as_bytes() == ACL_ACCESS {
                true => Some(mode_with_acl(change, fd, caller)?),
                false => None,
            };
            let name = Bounded(name.as_bytes().to_vec());
            Ok((Op::SetXattr { object, name, mode }, payload.clone()))
        })
    }

    /// Removes an extended attribute.
    pub fn removexattr(&self, node: NodeId, name: &OsStr) -> FsResult<()> {
        refuse_hidden(name)?;
        self.change_xattr(node, name, 0, |change, fd, object| {
            let path = crate::sys::proc_path(fd.as_fd());
            if self.intended_before() == Some(Intent::Attribute)
                && xattr::get(fd, name.as_bytes()).is_ok_and(|value| value.is_none())
            {
                return Err(DONE_BEFORE);
            }
            self.intend_attribute(fd, name, Attribute::IsThere);
            change.make(|| rustix::fs::removexattr(&path, name).step("remove xattr"))?;
            let mode = match name.as_bytes() == ACL_ACCESS {
                true => Some(permissions(&change.look(rustix::fs::fstat(fd).step("stat"))?)),
                false => None,
            };
            let name = Bounded(name.as_bytes().to_vec());
            Ok((Op::RemoveXattr { object, name, mode }, Bytes::new()))
        })
    }

    /// Notes an intent where the call can succeed: unlike of names, the kernel does not know beforehand, and what was
    /// refused must not be taken for made. The object is locked.
    fn intend_attribute(&self, fd: &OwnedFd, name: &OsStr, needs: Attribute) {
        if self.standing().is_some()
            && xattr::get(fd, name.as_bytes())
                .is_ok_and(|value| value.is_some() == (needs == Attribute::IsThere))
        {
            self.intend(Intent::Attribute);
        }
    }

    pub(super) fn change_xattr(
        &self,
        node: NodeId,
        name: &OsStr,
        payload: usize,
        make: impl FnOnce(&mut Change<'_>, &OwnedFd, ObjectId) -> FsResult<(Op, Bytes)>,
    ) -> FsResult<()> {
        let node = self.node(node)?;
        let fd = self.descriptors.of(&node)?;
        let touched = Touched::object(&node, &fd, Part::Attributes);
        let mut change = self.prepare(touched, payload)?.lock()?;
        let made = make(&mut change, &fd, node.object);
        if !change.is_made() || !xattr::is_replicated(name.as_bytes()) {
            change.unchanged();
            return if matches!(&made, Err(DONE_BEFORE)) { Ok(()) } else { made.map(drop) };
        }
        let (op, payload) = match &made {
            Ok(made) => made.clone(),
            Err(_) => change.look(self.xattr_now(&fd, node.object, name))?,
        };
        change.append(&op, payload);
        made.map(drop)
    }

    /// What an attribute is after a change of it failed.
    fn xattr_now(&self, fd: &OwnedFd, object: ObjectId, name: &OsStr) -> FsResult<(Op, Bytes)> {
        let mode = match name.as_bytes() == ACL_ACCESS {
            true => Some(permissions(&rustix::fs::fstat(fd).step("stat")?)),
            false => None,
        };
        let value = xattr::get(fd, name.as_bytes()).step("get xattr")?;
        let name = Bounded(name.as_bytes().to_vec());
        Ok(match value {
            Some(value) => (Op::SetXattr { object, name, mode }, self.pool.copy_of(&value)),
            None => (Op::RemoveXattr { object, name, mode }, Bytes::new()),
        })
    }
}

/// What a call needs to succeed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Attribute {
    IsAbsent,
    IsThere,
}

/// A daemon that is gone has made the change for this very request.
const DONE_BEFORE: FsError = FsError { errno: 0, step: "done before" };

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

    fn op(&self, object: ObjectId, stat: &Stat) -> Op {
        Op::SetAttributes {
            object,
            mode: (self.mode || self.owner).then(|| permissions(stat)),
            owner: self.owner.then_some(Owner { uid: stat.st_uid, gid: stat.st_gid }),
            mtime: self.mtime.then(|| mtime(stat)),
        }
    }
}

fn set_owner_and_mode(
    change: &mut Change<'_>,
    fd: &OwnedFd,
    changes: AskedAttributes,
    done: &mut Done,
) -> FsResult<()> {
    if changes.uid.is_some() || changes.gid.is_some() {
        let uid = changes.uid.map(rustix::fs::Uid::from_raw);
        let gid = changes.gid.map(rustix::fs::Gid::from_raw);
        let chown = || rustix::fs::chownat(fd, "", uid, gid, AtFlags::EMPTY_PATH);
        change.make(|| chown().step("change owner"))?;
        done.owner = true;
    }
    if let Some(mode) = changes.mode {
        change.make(|| set_mode(fd, mode & 0o7777))?;
        done.mode = true;
    }
    Ok(())
}

/// Mode of an object whose access ACL was just set.
fn mode_with_acl(change: &mut Change<'_>, fd: &OwnedFd, caller: Caller) -> FsResult<u32> {
    let stat = change.look(rustix::fs::fstat(fd).step("stat"))?;
    match mode_after_acl(caller, &stat) {
        Some(mode) => change.make(|| set_mode(fd, mode)).map(|()| mode),
        None => Ok(permissions(&stat)),
    }
}

fn set_times(
    change: &mut Change<'_>,
    fd: &OwnedFd,
    changes: AskedAttributes,
    done: &mut Done,
) -> FsResult<()> {
    if changes.atime.is_none() && changes.mtime.is_none() {
        return Ok(());
    }
    let times = times(changes.atime, changes.mtime);
    change.make(|| rustix::fs::utimensat(fd, "", &times, AtFlags::EMPTY_PATH).step("set times"))?;
    done.mtime = changes.mtime.is_some();
    Ok(())
}

/// As `utimensat(2)` takes them; `None` leaves a time as it is.
pub(super) fn times(atime: Option<SetTime>, mtime: Option<SetTime>) -> Timestamps {
    Timestamps { last_access: timespec(atime), last_modification: timespec(mtime) }
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

/// An ACL that was set by its second name would change past the capture.
fn refuse_hidden(name: &OsStr) -> FsResult<()> {
    match name.as_bytes() {
        name if name.starts_with(OWN_PREFIX) => Err(FsError::new(libc::EPERM, "own xattr")),
        FLAGS => Err(FsError::new(libc::EOPNOTSUPP, "flags as an attribute")),
        name if !xattr::is_visible(name) => Err(FsError::new(libc::EOPNOTSUPP, "second name of an ACL")),
        _ => Ok(()),
    }
}
