//! From the words of `fuser` to ours, and back.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{Errno, FileAttr, FileType, FopenFlags, INodeNo, Request, TimeOrNow};

use super::attributes::SetTime;
use super::data::OpenMode;
use super::error::FsError;
use super::listing::Keeps;
use super::objects::NodeId;
use super::volume::{Caller, Meta};
use crate::packet::Timestamp;

pub fn caller(request: &Request) -> Caller {
    Caller { uid: request.uid(), gid: request.gid(), pid: request.pid(), request: request.unique().0 }
}

pub fn node(ino: INodeNo) -> NodeId {
    NodeId(ino.0)
}

pub fn errno(error: FsError) -> Errno {
    log::debug!("answered {error}");
    Errno::from_i32(error.errno)
}

pub fn open_flags(mode: OpenMode) -> FopenFlags {
    match mode {
        OpenMode::Cached => FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_NOFLUSH,
        OpenMode::Direct => FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_NOFLUSH,
    }
}

pub fn listing_flags(keeps: Keeps) -> FopenFlags {
    match keeps {
        Keeps::Nothing => FopenFlags::empty(),
        Keeps::FromNowOn => FopenFlags::FOPEN_CACHE_DIR,
        Keeps::All => FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE,
    }
}

pub fn file_type(mode: u32) -> FileType {
    match mode & libc::S_IFMT {
        libc::S_IFDIR => FileType::Directory,
        libc::S_IFLNK => FileType::Symlink,
        libc::S_IFIFO => FileType::NamedPipe,
        libc::S_IFSOCK => FileType::Socket,
        libc::S_IFCHR => FileType::CharDevice,
        libc::S_IFBLK => FileType::BlockDevice,
        _ => FileType::RegularFile,
    }
}

/// `fuser` splits a time before 1970 into whole seconds and the rest by its own rule, which this
/// undoes: the pair that reaches the kernel is (seconds, nanoseconds) as the file system has it.
pub fn system_time(seconds: i64, nanoseconds: i64) -> SystemTime {
    let nanoseconds = nanoseconds as u32;
    if seconds >= 0 {
        UNIX_EPOCH + Duration::new(seconds as u64, nanoseconds)
    } else {
        UNIX_EPOCH - Duration::new(seconds.unsigned_abs(), 0) + Duration::new(0, nanoseconds)
    }
}

/// `fuser` hands (−2 s, 800,000,000 ns) over as 1970 minus 2.8 s: the true time is minus the
/// seconds plus the nanoseconds.
pub fn set_time(time: TimeOrNow) -> SetTime {
    let TimeOrNow::SpecificTime(time) = time else { return SetTime::Now };
    SetTime::At(match time.duration_since(UNIX_EPOCH) {
        Ok(after) => Timestamp { seconds: after.as_secs() as i64, nanoseconds: after.subsec_nanos() },
        Err(before) => {
            let before = before.duration();
            Timestamp { seconds: -(before.as_secs() as i64), nanoseconds: before.subsec_nanos() }
        }
    })
}

pub fn attr(meta: &Meta) -> FileAttr {
    let stat = &meta.stat;
    FileAttr {
        ino: INodeNo(meta.node.0),
        size: stat.st_size as u64,
        blocks: stat.st_blocks as u64,
        atime: system_time(stat.st_atime, stat.st_atime_nsec as i64),
        mtime: system_time(stat.st_mtime, stat.st_mtime_nsec as i64),
        ctime: system_time(stat.st_ctime, stat.st_ctime_nsec as i64),
        crtime: UNIX_EPOCH,
        kind: file_type(stat.st_mode),
        perm: (stat.st_mode & 0o7777) as u16,
        nlink: stat.st_nlink as u32,
        uid: stat.st_uid,
        gid: stat.st_gid,
        rdev: kernel_device(stat.st_rdev),
        blksize: stat.st_blksize as u32,
        flags: 0,
    }
}

/// A device number as FUSE carries it (the kernel's `new_encode_dev`).
pub fn kernel_device(device: u64) -> u32 {
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

pub fn device_of_kernel(device: u32) -> (u32, u32) {
    ((device & 0xf_ff00) >> 8, (device & 0xff) | ((device >> 12) & 0xf_ff00))
}

/// A name that does not exist, which the kernel may remember: node 0.
pub fn absent() -> FileAttr {
    FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: FileType::RegularFile,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 0,
        flags: 0,
    }
}
