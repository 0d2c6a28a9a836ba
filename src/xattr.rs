//! Extended attributes, and flags: which ones are replicated, and how they are read. The same for both
//! sides, so that what is compared means the same.
//!
//! Objects are reached through a descriptor (`O_PATH` is enough), by its `/proc` path: symlinks
//! are never followed.

mod flags;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::io::Errno;

pub use self::flags::{FLAGS, Flags, are_untaken, clear_hindering, is_refusal};
#[cfg(test)]
pub use self::flags::{Unflagged, immutable};
use crate::limits::{XATTR_LIST_LEN_MAX, XATTR_VALUE_LEN_MAX};
use crate::packet::{Bounded, Xattr, XattrName};
use crate::sys::proc_path;

/// Attributes of the product itself: hidden from applications, never replicated.
pub const OWN_PREFIX: &[u8] = b"trusted.standin.";

/// On a placeholder in a replica: what the source has there.
pub const WITHHELD_XATTR: &str = "trusted.standin.withheld";

/// POSIX ACLs, in the kernel's own format.
pub const ACL_ACCESS: &[u8] = b"system.posix_acl_access";
pub const ACL_DEFAULT: &[u8] = b"system.posix_acl_default";

/// Labels that belong to a host and not to the data: each host writes its own.
const OF_THE_HOST: [&[u8]; 4] = [b"security.selinux", b"security.ima", b"security.evm", b"security.apparmor"];

/// Second names of the ACLs on XFS, in its own format: what is set there is the ACL itself.
const ALIASES: [&[u8]; 2] = [b"trusted.SGI_ACL_FILE", b"trusted.SGI_ACL_DEFAULT"];

/// Whether applications see an attribute, by this name, through the mount.
pub fn is_visible(name: &[u8]) -> bool {
    !name.starts_with(OWN_PREFIX) && !ALIASES.contains(&name) && name != FLAGS
}

/// Whether an attribute is one that replication carries and may therefore take away.
pub fn is_replicated(name: &[u8]) -> bool {
    if name == FLAGS {
        return true;
    }
    if !is_visible(name) || OF_THE_HOST.contains(&name) {
        return false;
    }
    name == ACL_ACCESS
        || name == ACL_DEFAULT
        || [&b"user."[..], b"trusted.", b"security."].iter().any(|space| name.starts_with(space))
}

/// Names of all attributes; none where the file system has no attributes.
pub fn list(fd: impl AsFd) -> io::Result<Vec<XattrName>> {
    let fd = fd.as_fd();
    if has_none(fd)? {
        return Ok(Vec::new());
    }
    let path = proc_path(fd);
    let names = read_growing(1024, XATTR_LIST_LEN_MAX, |list| rustix::fs::listxattr(&path, list))?;
    let names = names.split(|&byte| byte == 0).filter(|name| !name.is_empty());
    Ok(names.map(|name| Bounded(name.to_vec())).collect())
}

/// Value of an attribute, or flags as one; `None` where there is no such attribute.
pub fn get(fd: impl AsFd, name: &[u8]) -> io::Result<Option<Vec<u8>>> {
    if name == FLAGS {
        return Ok(Flags::of(fd)?.value());
    }
    let fd = fd.as_fd();
    let read = |value: &mut [u8]| match rustix::fs::fgetxattr(fd, name, &mut *value) {
        // An `O_PATH` descriptor: by a path, which the kernel looks up each time.
        Err(Errno::BADF) => rustix::fs::getxattr(proc_path(fd), name, value),
        done => done,
    };
    match read_growing(256, XATTR_VALUE_LEN_MAX, read) {
        Ok(value) => Ok(Some(value)),
        Err(Errno::NODATA | Errno::NOTSUP) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// What a placeholder stands for, for people; `None`: it is none.
pub fn withheld(fd: impl AsFd) -> io::Result<Option<String>> {
    let value = get(fd, WITHHELD_XATTR.as_bytes())?;
    Ok(value.map(|value| crate::packet::printable(&value)))
}

/// Whether an object of this file system can be marked as a placeholder.
pub fn can_be_withheld(fd: impl AsFd) -> bool {
    let path = proc_path(fd.as_fd());
    !matches!(rustix::fs::getxattr(path, WITHHELD_XATTR, &mut [0u8; 1][..]), Err(Errno::NOTSUP))
}

/// All attributes that are replicated, and flags among them, sorted by name.
pub fn read_replicated(fd: impl AsFd) -> io::Result<Vec<Xattr>> {
    Ok(read_replicated_up_to(fd, usize::MAX)?.unwrap_or_default())
}

/// [`read_replicated`]; `None` where names and values take more than so many bytes.
pub fn read_replicated_up_to(fd: impl AsFd, max: usize) -> io::Result<Option<Vec<Xattr>>> {
    let fd = fd.as_fd();
    let (mut found, mut len) = (Vec::new(), 0);
    for name in replicated_names(fd)? {
        // One that is gone by now was removed since it was listed.
        if let Some(value) = get(fd, &name.0)? {
            len += name.0.len() + value.len();
            if len > max {
                return Ok(None);
            }
            found.push(Xattr { name, value: Bounded(value) });
        }
    }
    Ok(Some(found))
}

/// Names of all attributes that are replicated, and of flags, sorted.
pub fn replicated_names(fd: impl AsFd) -> io::Result<Vec<XattrName>> {
    let fd = fd.as_fd();
    let mut names = list(fd)?;
    names.retain(|name| is_replicated(&name.0));
    if Flags::of(fd)? != Flags::NONE {
        names.push(Bounded(FLAGS.to_vec()));
    }
    names.sort_unstable();
    Ok(names)
}

/// The quick answer for most objects. An `O_PATH` descriptor has to go the long way (`EBADF`).
fn has_none(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let size = match rustix::fs::flistxattr_query(fd) {
        Err(Errno::BADF) => rustix::fs::listxattr_query(proc_path(fd)),
        size => size,
    };
    match size {
        Ok(size) => Ok(size == 0),
        Err(Errno::NOTSUP) => Ok(true),
        Err(errno) => Err(errno.into()),
    }
}

/// Most lists and values are short. (A size of 0 would ask for the length only.)
fn read_growing(
    first: usize,
    max: usize,
    read: impl Fn(&mut [u8]) -> rustix::io::Result<usize>,
) -> rustix::io::Result<Vec<u8>> {
    let mut buffer = vec![0; first];
    let len = match read(&mut buffer) {
        Err(Errno::RANGE) => {
            buffer.resize(max, 0);
            read(&mut buffer)?
        }
        len => len?,
    };
    buffer.truncate(len);
    Ok(buffer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::XattrFlags;

    #[test]
    fn attributes_are_found_by_either_kind_of_descriptor() {
        let dir = tempfile::tempdir().unwrap();
        let file = std::fs::File::create(dir.path().join("f")).unwrap();
        assert_eq!(read_replicated(&file).unwrap(), []);
        for (name, value) in [("user.b", vec![7; 3000]), ("user.a", vec![]), ("trusted.standin.x", vec![1])] {
            rustix::fs::fsetxattr(&file, name, &value, XattrFlags::empty()).unwrap();
        }
        let expected: Vec<Xattr> = [("user.a", vec![]), ("user.b", vec![7; 3000])]
            .map(|(name, value)| Xattr { name: Bounded(name.into()), value: Bounded(value) })
            .into();
        assert_eq!(read_replicated(&file).unwrap(), expected);
        let flags = rustix::fs::OFlags::PATH;
        let path = rustix::fs::open(dir.path().join("f"), flags, rustix::fs::Mode::empty()).unwrap();
        assert_eq!(read_replicated(&path).unwrap(), expected);
        assert_eq!(get(&path, b"user.none").unwrap(), None);
    }

    #[test]
    fn only_what_belongs_to_the_data_is_replicated() {
        for name in ["user.x", "trusted.x", "security.capability", "system.posix_acl_access"] {
            assert!(is_replicated(name.as_bytes()), "{name}");
        }
        for name in
            ["trusted.standin.set", "trusted.SGI_ACL_FILE", "security.selinux", "system.nfs4_acl", "userx"]
        {
            assert!(!is_replicated(name.as_bytes()), "{name}");
        }
    }
}
