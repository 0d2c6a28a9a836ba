//! What tells one file system from another.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// The kernel's `struct fsuuid2` (`linux/fs.h`).
#[repr(C)]
struct RawUuid {
    len: u8,
    uuid: [u8; 16],
}

/// `FS_IOC_GETFSUUID`: `_IOR(0x15, 0, struct fsuuid2)`, since 6.9.
const GETFSUUID: libc::c_ulong = 2 << 30 | (size_of::<RawUuid>() as libc::c_ulong) << 16 | 0x15 << 8;

/// `FUSE_SUPER_MAGIC` of `include/uapi/linux/magic.h`; virtiofs has it, too.
const FUSE: u32 = 0x6573_5546;

/// Whether a daemon, or a host around this machine, serves the file system behind a descriptor.
pub fn is_fuse(fd: impl AsFd) -> io::Result<bool> {
    Ok(rustix::fs::fstatfs(fd)?.f_type as u32 == FUSE)
}

/// The UUID of the file system behind a descriptor (not `O_PATH`), as the file system has it on
/// disk.
///
/// Errors: `ENOTTY` where kernel or file system do not say.
pub fn filesystem_uuid(fd: BorrowedFd<'_>) -> io::Result<u128> {
    let mut raw = RawUuid { len: 0, uuid: [0; 16] };
    // SAFETY: the call writes one struct fsuuid2, whose layout and size `raw` has.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), GETFSUUID as _, &raw mut raw) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    match raw.len {
        16 => Ok(u128::from_be_bytes(raw.uuid)),
        _ => Err(io::Error::from_raw_os_error(libc::ENOTTY)),
    }
}
