//! Room that stays free on the disk of the replica: what it needs next goes before any clone.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::limits::{FLOOR_MAX, FLOOR_PART};

/// Errors: `StorageFull` where less is free than has to stay.
pub(super) fn must_be_free(on: impl AsFd) -> io::Result<()> {
    match free_of(on)? {
        Some(_) => Ok(()),
        None => Err(io::Error::new(
            io::ErrorKind::StorageFull,
            "the disk has hardly any room left, and what there is the replica needs",
        )),
    }
}

/// Bytes that are free beside what has to stay; `None`: not even that is.
fn free_of(on: impl AsFd) -> io::Result<Option<u64>> {
    let disk = rustix::fs::fstatvfs(on)?;
    let floor = (disk.f_blocks / FLOOR_PART).saturating_mul(disk.f_frsize).min(FLOOR_MAX);
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize).checked_sub(floor))
}

/// What a directory takes, and what is free, in bytes, where all of it could not be preserved beside it; `None`: it could. It
/// is read no further than that.
pub fn lacks_room(tree: &Path) -> io::Result<Option<(u64, u64)>> {
    let Some(root) = unless_gone(File::open(tree))? else { return Ok(None) };
    let free = free_of(root)?.unwrap_or(0);
    let device = fs::symlink_metadata(tree)?.dev();
    let (mut taken, mut todo) = (0_u64, vec![tree.to_owned()]);
    while let Some(dir) = todo.pop() {
        for entry in unless_gone(fs::read_dir(&dir))?.into_iter().flatten() {
            let entry = entry?;
            let Some(meta) = unless_gone(entry.metadata())? else { continue };
            taken = taken.saturating_add(meta.blocks().saturating_mul(512));
            if taken > free {
                return Ok(Some((taken, free)));
            }
            if meta.is_dir() && meta.dev() == device {
                todo.push(entry.path());
            }
        }
    }
    Ok(None)
}

fn unless_gone<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        found => found.map(Some),
    }
}
