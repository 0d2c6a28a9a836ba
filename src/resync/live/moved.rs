//! Directories that may have come to their names since a tree was restored: what lies below them has a
//! name that says nothing.
//!
//! A file that is renamed has its change time set; of what is renamed with a directory above it, only that
//! directory has. It is looked at after the copy has begun: what is moved later is told by packets, and a
//! target that meets it unlisted takes its name away.

use std::collections::HashSet;
use std::io;
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, Dir, FileType, StatxFlags, statx};

use super::super::seeing::Eyes;
use crate::sys::{FileHandle, is_no_mount};

/// Inode numbers of such directories, and of all below them.
pub(super) type Moved = HashSet<u64>;

struct Waiting {
    handle: FileHandle,
    is_moved: bool,
}

/// Looks at every directory of the tree; one that cannot be read counts as moved.
pub(super) fn moved(eyes: &Eyes, root: &FileHandle) -> Moved {
    let mut moved = Moved::new();
    let mut waiting = vec![Waiting { handle: *root, is_moved: false }];
    while let Some(Waiting { handle, is_moved }) = waiting.pop() {
        let below = directories_in(eyes, &handle);
        let is_moved = is_moved || below.is_err();
        if is_moved {
            moved.extend(handle.inode());
        }
        for (handle, has_changed) in below.unwrap_or_default() {
            waiting.push(Waiting { handle, is_moved: is_moved || has_changed });
        }
    }
    moved
}

/// Handles, and whether they have changed since what is suspect.
fn directories_in(eyes: &Eyes, dir: &FileHandle) -> io::Result<Vec<(FileHandle, bool)>> {
    let mut entries = Dir::new(eyes.open_directory(dir)?)?;
    let mut found = Vec::new();
    while let Some(entry) = entries.read() {
        let entry = entry?;
        let is_other = !matches!(entry.file_type(), FileType::Directory | FileType::Unknown);
        if is_other || matches!(entry.file_name().to_bytes(), b"." | b"..") {
            continue;
        }
        let fd = entries.fd()?;
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        let Ok(status) = statx(fd, entry.file_name(), flags, StatxFlags::BASIC_STATS) else { continue };
        let is_directory = FileType::from_raw_mode(u32::from(status.stx_mode)) == FileType::Directory;
        if is_directory
            && eyes.is_here(&status)
            && is_no_mount(&status)
            && let Ok(handle) = FileHandle::at(fd.as_fd(), entry.file_name())
        {
            found.push((handle, eyes.is_suspect(&status)));
        }
    }
    Ok(found)
}
