//! What a file system can hold, tried out in a file without a name: nothing of it is left.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::{IFlags, Mode, OFlags, Timespec, Timestamps, XattrFlags};

use super::facts::FsFacts;
use crate::packet::{Holdings, Text};
use crate::sys::proc_path;

/// Sizes of an attribute's value that are tried, largest first: the most that the kernel takes, and what a
/// block of 4 KiB, or of 1 KiB, has room for.
const XATTR_SIZES: [u32; 4] = [65_536, 16_384, 3_500, 900];

/// 1891, and 2096: before and after what 32 bits have, and what ext4 has in inodes of 128 bytes.
const EARLY: i64 = -2_500_000_000;
const LATE: i64 = 4_000_000_000;

impl FsFacts {
    /// What the file system of an existing directory can hold. Where it takes no unnamed files, what has to be
    /// tried out is taken to be there.
    ///
    /// Errors: the directory cannot be opened.
    pub fn holdings(&self, dir: &Path) -> io::Result<Holdings> {
        let (vfs, place) = (rustix::fs::statvfs(dir)?, File::open(dir)?);
        let mut holdings = Holdings {
            fs_type: Text::from_str_cut(&self.fs_type),
            read_only: self.read_only,
            user_xattrs: self.user_xattrs,
            trusted_xattrs: self.trusted_xattrs,
            acls: self.acls,
            case_insensitive: self.case_insensitive,
            flags: rustix::fs::ioctl_getflags(&place).is_ok_and(takes_flags),
            name_len_max: u32::try_from(vfs.f_namemax).unwrap_or(u32::MAX),
            xattr_len_max: XATTR_SIZES[0],
            nanoseconds: true,
            early_times: true,
            late_times: true,
            file_len_max: i64::MAX as u64,
            free_bytes: self.free_bytes,
            free_inodes: (vfs.f_files > 0).then_some(self.free_inodes),
            is_fresh: false,
        };
        if let Ok(file) = rustix::fs::open(dir, OFlags::TMPFILE | OFlags::RDWR, Mode::RUSR | Mode::WUSR) {
            try_out(&File::from(file), &mut holdings);
        }
        Ok(holdings)
    }
}

fn takes_flags(_: IFlags) -> bool {
    true
}

fn try_out(file: &File, holdings: &mut Holdings) {
    holdings.file_len_max = longest(file);
    holdings.xattr_len_max = XATTR_SIZES.into_iter().find(|size| takes_xattr(file, *size)).unwrap_or(0);
    holdings.nanoseconds = keeps_time(file, 1_000_000_000, 123_456_789);
    holdings.early_times = keeps_time(file, EARLY, 0);
    holdings.late_times = keeps_time(file, LATE, 0);
}

/// By halves: a file without content takes no room, however long it is.
fn longest(file: &File) -> u64 {
    let (mut takes, mut refuses) = (0, i64::MAX as u64);
    if rustix::fs::ftruncate(file, refuses).is_ok() {
        return refuses;
    }
    while refuses - takes > 1 {
        let middle = takes + (refuses - takes) / 2;
        match rustix::fs::ftruncate(file, middle) {
            Ok(()) => takes = middle,
            Err(_) => refuses = middle,
        }
    }
    let _ = rustix::fs::ftruncate(file, 0);
    takes
}

fn takes_xattr(file: &File, size: u32) -> bool {
    use std::os::fd::AsFd;
    let value = vec![0; size as usize];
    let path = proc_path(file.as_fd());
    rustix::fs::setxattr(path, c"user.standin.probe", &value, XattrFlags::empty()).is_ok()
}

fn keeps_time(file: &File, seconds: i64, nanoseconds: i64) -> bool {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds as _ };
    let times = Timestamps { last_access: time, last_modification: time };
    let kept = rustix::fs::futimens(file, &times).and_then(|()| rustix::fs::fstat(file));
    kept.is_ok_and(|kept| {
        kept.st_mtime == seconds && i64::try_from(kept.st_mtime_nsec).is_ok_and(|kept| kept == nanoseconds)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_tried_out_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let facts = FsFacts::of(dir.path()).unwrap();
        let holdings = facts.holdings(dir.path()).unwrap();
        assert!(holdings.nanoseconds && holdings.file_len_max > 1 << 32, "{holdings:?}");
        assert_eq!(holdings.name_len_max, 255);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
