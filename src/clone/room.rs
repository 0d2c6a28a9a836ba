//! Room that stays free on the disk of the replica: what it needs next goes before any clone.

use std::io;
use std::os::fd::AsFd;

use super::limits::{FLOOR_MAX, FLOOR_PART};

/// Errors: `StorageFull` where less is free than has to stay.
pub(super) fn must_be_free(on: impl AsFd) -> io::Result<()> {
    let disk = rustix::fs::fstatvfs(on)?;
    let floor = (disk.f_blocks / FLOOR_PART).saturating_mul(disk.f_frsize).min(FLOOR_MAX);
    match disk.f_bavail.saturating_mul(disk.f_frsize) < floor {
        false => Ok(()),
        true => Err(io::Error::new(
            io::ErrorKind::StorageFull,
            "the disk has hardly any room left, and what there is the replica needs",
        )),
    }
}
