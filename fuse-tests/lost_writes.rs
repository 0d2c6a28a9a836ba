//! The source's own disk refuses what it had taken: the kernel drops acknowledged pages, the replica
//! has them, and both were called equal.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use crate::host::{Image, Protected, Setup, heavy};

/// A file system whose disk cannot hold what it promises: a sparse image in a small file system.
/// Both are gone on drop, the upper one first.
struct Overcommitted {
    _disk: Image,
    _below: Image,
}

const BELOW_MIB: u64 = 24;
const DISK_MIB: u64 = 96;

fn overcommitted(protected: &Protected) -> Overcommitted {
    let below = protected.base.path().join("below");
    let _below = Image::mount(protected.base.path(), below.clone(), "tmpfs", BELOW_MIB);
    // Without a journal, which would be refused first and stop everything.
    let made = below.join("disk");
    let disk = Image::mount(&below, made.clone(), "ext4 -O ^has_journal", DISK_MIB);
    drop(disk);
    let disk = Image::mount_existing(&below.join("disk.image"), protected.backing.clone());
    Overcommitted { _disk: disk, _below }
}

fn fill(protected: &Protected) -> File {
    let file = File::create(protected.mount.join("f")).expect("a file");
    for at in 0..40 {
        file.write_all_at(&[at as u8 + 1; 1 << 20], at << 20).expect("the kernel takes it");
    }
    file
}

fn wait_for_alert(protected: &Protected) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !protected.status().contains("refused writes that programs were told are done") {
        assert!(Instant::now() < deadline, "nothing was said: {}", protected.status());
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_failed_sync_of_a_program_is_an_alarm() {
    let _alone = heavy();
    let mut protected = Protected::prepare(Setup::default());
    let _disk = overcommitted(&protected);
    protected.start_again();
    let error = fill(&protected).sync_all().expect_err("the disk has no room");
    assert!(matches!(error.raw_os_error(), Some(libc::EIO | libc::ENOSPC)), "{error}");
    wait_for_alert(&protected);
    protected.kill9();
}

#[test]
fn what_no_program_syncs_is_looked_after() {
    let _alone = heavy();
    let mut protected = Protected::prepare(Setup::default());
    protected.sync_every = Some(Duration::from_millis(200));
    let _disk = overcommitted(&protected);
    protected.start_again();
    drop(fill(&protected));
    wait_for_alert(&protected);
    protected.kill9();
}
