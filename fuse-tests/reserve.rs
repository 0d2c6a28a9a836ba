//! Blocks that a file system keeps for root: not for programs of other users, on the mount neither.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::FallocateFlags;

use crate::host::{COMMAND_MAX, Disk, Protected, Setup};
use crate::sys::{Mapping, as_other_user};

const USER: u32 = 1234;

/// Bytes that are free, and those of them that only root may use.
fn free(dir: &Path) -> (u64, u64) {
    let facts = rustix::fs::statvfs(dir).unwrap();
    (facts.f_bfree * facts.f_frsize, (facts.f_bfree - facts.f_bavail) * facts.f_frsize)
}

/// The daemon wrote as root: any user filled the disk to the last block, and what root needs to go
/// on (logs, a way in) found no room.
#[test]
fn a_user_does_not_fill_what_is_reserved() {
    let source = Disk::Image { kind: "ext4", mib: 64 };
    let protected = Protected::start(Setup { source, ..Setup::default() });
    let public = protected.mount.join("public");
    fs::create_dir(&public).unwrap();
    fs::set_permissions(&public, fs::Permissions::from_mode(0o777)).unwrap();
    let (_, reserved) = free(&protected.backing);
    assert!(reserved > 2 << 20, "the file system reserves {reserved}: otherwise this tests nothing");
    for way in ["written", "reserved", "mapped"] {
        let path = public.join(way);
        as_other_user(USER, &[], || match way {
            "written" => fill_by_writing(&path),
            "reserved" => fill_by_reserving(&path),
            _ => fill_by_mapping(&path),
        });
        let (left, _) = free(&protected.backing);
        assert!(left + (1 << 20) > reserved, "{way}: {left} of {reserved} bytes are left for root");
        fs::write(protected.mount.join("roots"), vec![1; 1 << 20]).unwrap();
        fs::remove_file(protected.mount.join("roots")).unwrap();
        fs::remove_file(public.join(way)).unwrap();
        // The space comes back when the kernel has forgotten the file.
        let deadline = Instant::now() + COMMAND_MAX;
        while free(&protected.backing).0 < left + (10 << 20) {
            assert!(Instant::now() < deadline, "{way}: the space does not come back");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    protected.wait_sync();
}

fn create(path: &Path, write_only: bool) -> fs::File {
    OpenOptions::new().create_new(true).write(true).read(!write_only).mode(0o600).open(path).unwrap()
}

fn fill_by_writing(path: &Path) {
    let file = create(path, true);
    let mut at = 0;
    for size in [1 << 20, 4096] {
        while file.write_all_at(&vec![7; size], at).and_then(|()| file.sync_data()).is_ok() {
            at += size as u64;
        }
    }
    assert!(at > 10 << 20);
}

fn fill_by_reserving(path: &Path) {
    let file = create(path, true);
    let mut at = 0;
    for size in [1 << 20, 4096] {
        while rustix::fs::fallocate(&file, FallocateFlags::empty(), at, size).is_ok() {
            at += size;
        }
    }
    assert!(at > 10 << 20);
}

/// What the kernel writes back is written by nobody: it counts for the owner of the file.
fn fill_by_mapping(path: &Path) {
    let file = create(path, false);
    const LEN: usize = 62 << 20;
    file.set_len(LEN as u64).unwrap();
    let mapping = Mapping::new(&file, LEN).unwrap();
    for at in (0..LEN).step_by(4096) {
        let _ = mapping.store(at, &[7]);
    }
    let _ = mapping.sync();
}
