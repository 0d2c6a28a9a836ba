//! System calls on one object behind a descriptor (`O_PATH` is enough): owner, mode, mtime,
//! extended attributes. Works on symlinks themselves; never resolves a name.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, FileType, Gid, Mode, Stat, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags};

use super::fault::Fault;
use crate::clone::guard;
use crate::failpoint;
use crate::packet::{Attributes, Owner, Timestamp, Xattr, XattrName};
use crate::sys::proc_path;
use crate::xattr::{self, ACL_ACCESS, FLAGS, OWN_PREFIX, is_replicated};

/// What programs may do that are started from a file (`capabilities(7)`).
const FILE_CAPABILITIES: &[u8] = b"security.capability";

/// Status of the object.
pub fn stat(fd: impl AsFd) -> Result<Stat, Fault> {
    rustix::fs::fstat(fd).map_err(Fault::system("stat"))
}

/// Sets the owner. Clears setuid, setgid and file capabilities, as the kernel does on the source.
pub fn set_owner(fd: impl AsFd, owner: Owner) -> Result<(), Fault> {
    // -1 means "leave it" to the kernel: nobody owns such an object on a source.
    if owner.uid == u32::MAX || owner.gid == u32::MAX {
        return Err(Fault::Refused("an owner of -1"));
    }
    let fd = fd.as_fd();
    guard::attributes(fd);
    let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
    rustix::fs::chownat(fd, c"", Some(uid), Some(gid), AtFlags::EMPTY_PATH).map_err(Fault::system("chown"))
}

/// Sets the permission bits (`0o7777`). A symlink has none: nothing is done.
pub fn set_mode(fd: impl AsFd, mode: u32) -> Result<(), Fault> {
    let fd = fd.as_fd();
    set_mode_of(FileType::from_raw_mode(stat(fd)?.st_mode), fd, mode)
}

/// [`set_mode`] of an object that is known to be of this kind.
pub(super) fn set_mode_of(kind: FileType, fd: BorrowedFd<'_>, mode: u32) -> Result<(), Fault> {
    if kind == FileType::Symlink {
        return Ok(());
    }
    guard::attributes(fd);
    let mode = Mode::from_raw_mode(mode & 0o7777);
    match rustix::fs::fchmod(fd, mode) {
        // An `O_PATH` descriptor.
        Err(rustix::io::Errno::BADF) => rustix::fs::chmod(proc_path(fd), mode),
        done => done,
    }
    .map_err(Fault::system("chmod"))
}

/// Sets the mtime, leaves the atime.
pub fn set_mtime(fd: impl AsFd, mtime: Timestamp) -> Result<(), Fault> {
    // Larger values are orders to the kernel ("now", "leave it").
    if mtime.nanoseconds >= 1_000_000_000 {
        return Err(Fault::Refused("a time of more than 999,999,999 nanoseconds"));
    }
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: mtime.seconds, tv_nsec: i64::from(mtime.nanoseconds) },
    };
    let fd = fd.as_fd();
    guard::attributes(fd);
    rustix::fs::utimensat(fd, c"", &times, AtFlags::EMPTY_PATH).map_err(Fault::system("set mtime"))
}

/// Names of all extended attributes; empty where the file system has none.
pub fn list_xattrs(fd: impl AsFd) -> Result<Vec<XattrName>, Fault> {
    xattr::list(fd).map_err(Fault::system("list xattrs"))
}

/// Value of an extended attribute; `None` where there is no such attribute.
pub fn get_xattr(fd: impl AsFd, name: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
    xattr::get(fd, name).map_err(Fault::system("get xattr"))
}

/// Sets an extended attribute of an object of the replica.
pub fn set_xattr(fd: impl AsFd, name: &XattrName, value: &[u8]) -> Result<(), Fault> {
    not_our_own(name)?;
    let fd = fd.as_fd();
    guard::attributes(fd);
    rustix::fs::setxattr(proc_path(fd), name.0.as_slice(), value, XattrFlags::empty())
        .map_err(|error| attribute_fault("set attribute", name, error))
}

/// Removes an extended attribute; that it is not there is fine.
pub fn remove_xattr(fd: impl AsFd, name: &XattrName) -> Result<(), Fault> {
    not_our_own(name)?;
    let fd = fd.as_fd();
    guard::attributes(fd);
    match rustix::fs::removexattr(proc_path(fd), name.0.as_slice()) {
        Ok(()) | Err(rustix::io::Errno::NODATA) => Ok(()),
        // The kernel asks for `CAP_SETFCAP` before it looks whether there is anything to remove.
        Err(rustix::io::Errno::PERM) if name.0 == FILE_CAPABILITIES => {
            if get_xattr(fd, FILE_CAPABILITIES)?.is_some() {
                drop_file_capabilities(fd)?;
            }
            Ok(())
        }
        Err(error) => Err(attribute_fault("remove attribute", name, error)),
    }
}

/// Without `CAP_SETFCAP`: any chown takes them away, and setuid and setgid, which come back.
fn drop_file_capabilities(fd: BorrowedFd<'_>) -> Result<(), Fault> {
    let before = stat(fd)?;
    set_owner(fd, Owner { uid: before.st_uid, gid: before.st_gid })?;
    set_mode(fd, before.st_mode)
}

/// Gives an object exactly this owner, these extended attributes and this mode, whatever it had;
/// the mtime is left to the pending times.
pub fn make_attributes(fd: impl AsFd, attributes: &Attributes, xattrs: &[Xattr]) -> Result<(), Fault> {
    let mut done = Ok(());
    make_attributes_or(fd, attributes, xattrs, |_, fault| {
        // One that this file system does not take keeps none of the others away.
        if done.is_ok() {
            done = Err(fault);
        }
        Ok(())
    })?;
    done
}

/// [`make_attributes`]; `untaken` decides what becomes of an extended attribute that cannot be set.
///
/// The order matters: a chown clears setuid and file capabilities, an ACL changes the mode, and
/// at no moment has anybody a right that he has neither before nor after.
pub fn make_attributes_or(
    fd: impl AsFd,
    attributes: &Attributes,
    xattrs: &[Xattr],
    mut untaken: impl FnMut(&XattrName, Fault) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let fd = fd.as_fd();
    let mut mode = attributes.mode;
    let owned = make_owner(fd, attributes)?;
    failpoint::at("owner").map_err(Fault::own("chown"))?;
    let dropped = drop_xattrs(fd, |name| xattrs.iter().any(|xattr| xattr.name == *name))?;
    // Flags are set last of all, when the object has its time.
    for Xattr { name, value } in xattrs.iter().filter(|xattr| xattr.name.0 != FLAGS) {
        if get_xattr(fd, &name.0)?.as_deref() != Some(&value.0)
            && let Err(fault) = set_xattr(fd, name, &value.0)
        {
            mode = mode_without(name, mode);
            untaken(name, fault)?;
        }
    }
    failpoint::at("xattrs").map_err(Fault::own("set xattr"))?;
    let now = match owned {
        // Nothing has changed since it was looked at.
        Owned::Already(status) if dropped == 0 && xattrs.is_empty() => status,
        Owned::Already(_) | Owned::Now => stat(fd)?,
    };
    if now.st_mode & 0o7777 != mode & 0o7777 {
        set_mode_of(FileType::from_raw_mode(now.st_mode), fd, mode)?;
    }
    Ok(())
}

/// What became of an owner.
#[allow(clippy::large_enum_variant)]
pub enum Owned {
    /// It had it: its status.
    Already(Stat),
    Now,
}

/// The mode of an object that lacks an extended attribute. With an ACL its group bits are the
/// mask: without the ACL they would be the group's.
pub fn mode_without(name: &XattrName, mode: u32) -> u32 {
    if name.0 == ACL_ACCESS { mode & !0o070 } else { mode }
}

/// Gives an object its owner; until it has its mode, only the rights that it gives before and after.
pub fn make_owner(fd: impl AsFd, attributes: &Attributes) -> Result<Owned, Fault> {
    let fd = fd.as_fd();
    let before = stat(fd)?;
    if (before.st_uid, before.st_gid) == (attributes.uid, attributes.gid) {
        return Ok(Owned::Already(before));
    }
    restrict(fd, attributes)?;
    set_owner(fd, Owner { uid: attributes.uid, gid: attributes.gid })?;
    Ok(Owned::Now)
}

/// Takes every right that an object will not give with these attributes. The group's go whatever
/// they are: where there is an ACL they are its mask, and another one than it will be.
pub fn restrict(fd: impl AsFd, attributes: &Attributes) -> Result<(), Fault> {
    let fd = fd.as_fd();
    let before = stat(fd)?.st_mode & 0o7777;
    let both = before & (attributes.mode | 0o7000) & 0o7707;
    if both == before { Ok(()) } else { set_mode(fd, both) }
}

/// Nobody but root can open the object from now on.
pub fn make_private(fd: impl AsFd) -> Result<(), Fault> {
    let fd = fd.as_fd();
    set_mode(fd, stat(fd)?.st_mode & 0o600)?;
    set_owner(fd, Owner { uid: 0, gid: 0 })
}

/// Takes away all extended attributes that replication carries but those that are kept; answers how
/// many.
pub fn drop_xattrs(fd: impl AsFd, is_kept: impl Fn(&XattrName) -> bool) -> Result<usize, Fault> {
    let fd = fd.as_fd();
    let mut dropped = 0;
    for name in list_xattrs(fd)? {
        if is_replicated(&name.0) && !is_kept(&name) {
            if name.0 == ACL_ACCESS {
                // Its mask would become the group's rights.
                set_mode(fd, stat(fd)?.st_mode & !0o070)?;
            }
            remove_xattr(fd, &name)?;
            dropped += 1;
        }
    }
    Ok(dropped)
}

/// mtime of a status.
pub fn mtime(stat: &Stat) -> Timestamp {
    Timestamp { seconds: stat.st_mtime, nanoseconds: stat.st_mtime_nsec as u32 }
}

fn not_our_own(name: &XattrName) -> Result<(), Fault> {
    if name.0.starts_with(OWN_PREFIX) {
        return Err(Fault::Refused("an extended attribute of the product itself"));
    }
    Ok(())
}

fn attribute_fault(what: &'static str, name: &XattrName, error: rustix::io::Errno) -> Fault {
    Fault::Attribute { what, name: name.clone(), error: error.into() }
}
