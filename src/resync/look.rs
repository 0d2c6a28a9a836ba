//! What an object is, read from a descriptor of it (`O_PATH` is enough): the same look on both
//! sides, so that what is compared means the same.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::{self, AtFlags, FileType, Statx, StatxFlags, StatxTimestamp};

use crate::packet::{Attributes, Birth, Bounded, Timestamp};

/// What is asked of an object.
pub(super) const LOOKED_AT: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::BTIME);

/// Status of the object behind a descriptor.
pub fn stat(fd: BorrowedFd<'_>) -> io::Result<Statx> {
    Ok(fs::statx(fd, c"", AtFlags::EMPTY_PATH, LOOKED_AT)?)
}

pub fn timestamp(time: StatxTimestamp) -> Timestamp {
    Timestamp::of_status(time.tv_sec, time.tv_nsec)
}

/// Owner, permission bits and mtime out of a status.
pub fn attributes(stat: &Statx) -> Attributes {
    Attributes {
        mode: u32::from(stat.stx_mode) & 0o7777,
        uid: stat.stx_uid,
        gid: stat.stx_gid,
        mtime: timestamp(stat.stx_mtime),
    }
}

/// What the object is. `fd` is read only where it is a symlink.
///
/// Errors: those of `readlink(2)`; `InvalidData` for a kind of object that Linux does not have.
pub fn birth(fd: BorrowedFd<'_>, stat: &Statx) -> io::Result<Birth> {
    let (major, minor) = (stat.stx_rdev_major, stat.stx_rdev_minor);
    Ok(match FileType::from_raw_mode(u32::from(stat.stx_mode)) {
        FileType::RegularFile => Birth::File,
        FileType::Directory => Birth::Directory,
        FileType::Symlink => {
            Birth::Symlink { target: Bounded(fs::readlinkat(fd, c"", Vec::new())?.into_bytes()) }
        }
        FileType::Fifo => Birth::Fifo,
        FileType::Socket => Birth::Socket,
        FileType::CharacterDevice => Birth::CharDevice { major, minor },
        FileType::BlockDevice => Birth::BlockDevice { major, minor },
        FileType::Unknown => {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "unknown kind of object"));
        }
    })
}
