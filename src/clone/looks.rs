//! All that an object is but its names and its content.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::FileType;

use crate::xattr::{self, FLAGS, Flags};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Looks {
    /// With its kind, as `stat` says.
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) size: u64,
    /// Seconds and nanoseconds.
    pub(super) mtime: (i64, u32),
    pub(super) links: u64,
    pub(super) device: u64,
    /// Those that replication carries, by name, and flags among them.
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Looks {
    /// Of an object behind a descriptor (`O_PATH` is enough).
    pub(super) fn of(fd: BorrowedFd<'_>) -> io::Result<Looks> {
        let stat = rustix::fs::fstat(fd)?;
        let xattrs = xattr::read_replicated(fd)?.into_iter().map(|xattr| (xattr.name.0, xattr.value.0));
        Ok(Looks {
            mode: stat.st_mode,
            uid: stat.st_uid,
            gid: stat.st_gid,
            size: stat.st_size as u64,
            mtime: (stat.st_mtime, stat.st_mtime_nsec as u32),
            links: stat.st_nlink as u64,
            device: stat.st_rdev as u64,
            xattrs: xattrs.collect(),
        })
    }

    pub(super) fn flags(&self) -> Flags {
        let value = self.xattrs.iter().find(|(name, _)| name == FLAGS);
        value.and_then(|(_, value)| Flags::from_value(value)).unwrap_or_default()
    }

    pub(super) fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.mode)
    }
}
