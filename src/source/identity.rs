//! Which set a backing directory belongs to: an xattr on its root, hidden from applications.

use std::io;
use std::os::fd::AsFd;

use rustix::fs::XattrFlags;

use crate::packet::SetId;
use crate::sys::proc_path;

/// Name of the xattr; its value is the set's id as 32 hexadecimal digits.
const XATTR: &str = "trusted.standin.set";

/// The set that the directory belongs to, if it says so.
pub fn read(root: impl AsFd) -> Option<SetId> {
    let mut value = [0; 32];
    let len = rustix::fs::getxattr(proc_path(root.as_fd()), XATTR, &mut value).ok()?;
    let text = std::str::from_utf8(value.get(..len)?).ok()?;
    u128::from_str_radix(text, 16).ok().map(SetId)
}

/// Marks the directory. Where the file system has no such xattrs the state directory alone knows.
pub fn write(root: impl AsFd, set: SetId) -> io::Result<()> {
    let value = set.to_string();
    match rustix::fs::setxattr(proc_path(root.as_fd()), XATTR, value.as_bytes(), XattrFlags::empty()) {
        Err(rustix::io::Errno::OPNOTSUPP) => Ok(()),
        outcome => Ok(outcome?),
    }
}
