//! What is mounted where, without a look at it: it may hang.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::mount::{UnmountFlags, unmount};

/// Whether something is mounted exactly there. Does not touch the mount, which may be dead.
pub fn is_mounted(at: &Path) -> bool {
    !mounts_at(at).is_empty()
}

/// Device numbers (`major:minor`) and places of all mounts, in the order in which they were made. Places have no odd
/// characters here.
fn all() -> Vec<(String, PathBuf)> {
    let table = fs::read("/proc/self/mountinfo").expect("/proc is mounted");
    let mounts = table.split(|&byte| byte == b'\n').filter_map(|line| {
        let mut fields = line.split(|&byte| byte == b' ').skip(2);
        let device = String::from_utf8_lossy(fields.next()?).into_owned();
        Some((device, PathBuf::from(OsString::from_vec(fields.nth(1)?.to_vec()))))
    });
    mounts.collect()
}

/// Device numbers of what is mounted there.
fn mounts_at(at: &Path) -> Vec<String> {
    let Ok(parent) = fs::canonicalize(at.parent().expect("no root")) else { return Vec::new() };
    let wanted = parent.join(at.file_name().expect("a name"));
    all().into_iter().filter(|(_, place)| *place == wanted).map(|(device, _)| device).collect()
}

/// Takes away all mounts at a place, also hanging ones: their connections are aborted first.
pub fn clear_mounts(at: &Path) {
    clear_mounts_above(at, 0);
}

/// As [`clear_mounts`], but what was there first stays: the disk of the directory.
pub fn clear_mounts_above(at: &Path, disks: usize) {
    for device in mounts_at(at).into_iter().skip(disks) {
        let connection = device.rsplit(':').next().unwrap_or_default();
        let _ = fs::write(format!("/sys/fs/fuse/connections/{connection}/abort"), "1");
        let _ = unmount(at, UnmountFlags::DETACH);
    }
}

/// Takes away what is mounted below a directory, which is about to be removed.
pub fn clear_below(dir: &Path) {
    for (_, place) in all().into_iter().rev().filter(|(_, place)| place.starts_with(dir)) {
        let _ = unmount(&place, UnmountFlags::DETACH);
    }
}
