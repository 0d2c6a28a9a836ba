//! One random change after the other in a small tree. What cannot be done is not done.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FallocateFlags, RenameFlags, Timespec, Timestamps, XattrFlags};

use crate::sys::Mapping;
use standin::random::Random;

/// Longest offset of a change within a file, in bytes.
const OFFSET_MAX: u64 = 3 << 20;

pub struct Changes<'a> {
    root: &'a Path,
    random: &'a mut Random,
}

impl<'a> Changes<'a> {
    pub fn new(root: &'a Path, random: &'a mut Random) -> Changes<'a> {
        Changes { root, random }
    }

    pub fn make(mut self, count: u64) {
        (0..count).for_each(|_| self.change());
    }

    fn change(&mut self) {
        match self.random.below(24) {
            0..=5 => self.write(),
            6..=9 => self.reserve(),
            10 | 11 => self.resize(),
            12 | 13 => self.store(),
            14 => self.rewrite_unseen(),
            15 | 16 => self.rename(),
            17 => _ = fs::hard_link(self.path(), self.path()),
            18 => {
                let path = self.path();
                _ = fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path));
            }
            19 => _ = fs::create_dir(self.path()),
            20 => _ = symlink(format!("to {}", self.random.below(9)), self.path()),
            21 => self.attributes(),
            _ => self.xattr(),
        }
    }

    /// Few names, so that changes meet.
    fn path(&mut self) -> PathBuf {
        let mut path = self.root.to_owned();
        for _ in 0..self.random.below(3) {
            path.push(*self.random.one_of(&["a", "b"]));
            let _ = fs::create_dir(&path);
        }
        path.join(format!("f{}", self.random.below(8)))
    }

    fn file(&mut self) -> Option<File> {
        let path = self.path();
        let is_other = path.symlink_metadata().is_ok_and(|meta| !meta.is_file());
        if is_other {
            return None;
        }
        File::options().read(true).write(true).create(true).truncate(false).open(path).ok()
    }

    fn offset(&mut self) -> u64 {
        let reach = *self.random.one_of(&[5_000, 100_000, OFFSET_MAX]);
        self.random.below(reach)
    }

    fn len(&mut self) -> u64 {
        let reach = *self.random.one_of(&[700, 9_000, 400_000]);
        1 + self.random.below(reach)
    }

    fn write(&mut self) {
        let Some(file) = self.file() else { return };
        for _ in 0..=self.random.below(3) {
            let bytes = vec![self.random.number() as u8 | 1; self.len() as usize];
            let _ = file.write_all_at(&bytes, self.offset());
        }
    }

    fn reserve(&mut self) {
        let Some(file) = self.file() else { return };
        let keep = FallocateFlags::KEEP_SIZE;
        let mode = *self.random.one_of(&[
            FallocateFlags::empty(),
            keep,
            keep | FallocateFlags::PUNCH_HOLE,
            FallocateFlags::ZERO_RANGE,
            keep | FallocateFlags::ZERO_RANGE,
            FallocateFlags::COLLAPSE_RANGE,
            FallocateFlags::INSERT_RANGE,
        ]);
        let (mut offset, mut len) = (self.offset(), self.len());
        if mode == FallocateFlags::COLLAPSE_RANGE || mode == FallocateFlags::INSERT_RANGE {
            (offset, len) = (offset & !4095, (len & !4095) + 4096);
        }
        let _ = rustix::fs::fallocate(&file, mode, offset, len);
    }

    fn resize(&mut self) {
        let Some(file) = self.file() else { return };
        let size = self.offset();
        let _ = file.set_len(size);
    }

    /// Through a shared mapping.
    fn store(&mut self) {
        let Some(file) = self.file() else { return };
        let size = file.metadata().map_or(0, |meta| meta.len());
        let (at, len) = (self.random.below(size.max(1)), self.len().min(20_000));
        let end = (at + len).min(size);
        if at >= end {
            return;
        }
        let bytes = vec![self.random.number() as u8 | 1; (end - at) as usize];
        // What a full disk does not take ends in EFAULT.
        let _ = Mapping::new(&file, size as usize).and_then(|map| map.store(at as usize, &bytes));
    }

    /// The same size and the same mtime, other bytes.
    fn rewrite_unseen(&mut self) {
        let Some(file) = self.file() else { return };
        let Ok(before) = file.metadata() else { return };
        let len = before.len().min(self.len());
        let _ = file.write_all_at(&vec![self.random.number() as u8 | 1; len as usize], 0);
        let mtime = Timespec { tv_sec: before.mtime(), tv_nsec: before.mtime_nsec() };
        let _ = rustix::fs::futimens(&file, &Timestamps { last_access: mtime, last_modification: mtime });
    }

    fn rename(&mut self) {
        let (from, to) = (self.path(), self.path());
        let flags =
            *self.random.one_of(&[RenameFlags::empty(), RenameFlags::NOREPLACE, RenameFlags::EXCHANGE]);
        let _ = rustix::fs::renameat_with(CWD, from, CWD, to, flags);
    }

    fn attributes(&mut self) {
        let path = self.path();
        let Ok(before) = path.symlink_metadata() else { return };
        match self.random.below(3) {
            0 => {
                let (uid, gid) = (self.random.below(9) as u32, self.random.below(9) as u32);
                let _ = lchown(&path, Some(uid), Some(gid));
            }
            1 if !before.is_symlink() => {
                let mode = self.random.below(0o10000) as u32;
                let _ = fs::set_permissions(&path, Permissions::from_mode(mode));
            }
            _ => {
                let (seconds, nanoseconds) = (self.random.below(1 << 31), self.random.below(1_000_000_000));
                let time = Timespec { tv_sec: seconds as i64, tv_nsec: nanoseconds as i64 };
                let times = Timestamps { last_access: time, last_modification: time };
                let _ = rustix::fs::utimensat(CWD, &path, &times, AtFlags::SYMLINK_NOFOLLOW);
            }
        }
    }

    fn xattr(&mut self) {
        let (path, name) = (self.path(), format!("user.x{}", self.random.below(4)));
        // The largest fit on XFS and btrfs only.
        let len = *self.random.one_of(&[1, 50, 700, 9_000, 60_000]);
        let value = vec![self.random.number() as u8; len];
        let _ = match self.random.below(3) {
            0 => rustix::fs::lremovexattr(&path, name),
            _ => rustix::fs::lsetxattr(&path, name, &value, XattrFlags::empty()),
        };
    }
}
