//! Projects: trees that a file system counts apart (`xfs_quota(8)`), and moves and links nothing between.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// The kernel's `struct fsxattr` (`linux/fs.h`).
#[repr(C)]
#[derive(Default)]
struct RawAttributes {
    flags: u32,
    extent_size: u32,
    extents: u32,
    project: u32,
    cow_extent_size: u32,
    reserved: [u8; 8],
}

const SIZE: libc::c_ulong = (size_of::<RawAttributes>() as libc::c_ulong) << 16;

/// `FS_IOC_FSGETXATTR`: `_IOR('X', 31, struct fsxattr)`.
const GET: libc::c_ulong = 2 << 30 | SIZE | 0x58 << 8 | 31;

/// `FS_IOC_FSSETXATTR`: `_IOW('X', 32, struct fsxattr)`.
const SET: libc::c_ulong = 1 << 30 | SIZE | 0x58 << 8 | 32;

/// `FS_XFLAG_PROJINHERIT`: what is made in a directory is of its project.
const INHERITS: u32 = 0x200;

/// Makes a directory one of the project that another one gives to what is made in it, if it does: objects can be
/// moved from the one to the other then. `false`: it gives none.
///
/// Errors: the system's; `ENOTTY`, `EOPNOTSUPP` where the file system has no projects.
pub fn share_project(of: impl AsFd, to: impl AsFd) -> io::Result<bool> {
    let of = attributes(of)?;
    if of.flags & INHERITS == 0 {
        return Ok(false);
    }
    let held = attributes(&to)?;
    if held.flags & INHERITS != 0 && held.project == of.project {
        return Ok(true);
    }
    let wanted = RawAttributes { flags: held.flags | INHERITS, project: of.project, ..held };
    // SAFETY: the call reads one struct fsxattr, whose layout and size `wanted` has.
    let done = unsafe { libc::ioctl(to.as_fd().as_raw_fd(), SET as _, &raw const wanted) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(true) }
}

fn attributes(fd: impl AsFd) -> io::Result<RawAttributes> {
    let mut raw = RawAttributes::default();
    // SAFETY: the call writes one struct fsxattr, whose layout and size `raw` has.
    let done = unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), GET as _, &raw mut raw) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(raw) }
}
