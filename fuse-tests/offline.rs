//! Random changes in the backing directory while nothing runs, then a start: the replica is the
//! directory again. On small blocks too, where the kernel says other things about holes.
//!
//! `STANDIN_ROUNDS=n` sets the rounds on each file system, `STANDIN_SEED=x` the seed.

mod change;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use rustix::fs::FallocateFlags;

use crate::host::{Disk, Protected, Setup, heavy};
use crate::random::setting;
use crate::tree::Rules;
use change::Changes;
use standin::random::Random;

/// Rounds on each file system; each is a start and a stop of the product.
const ROUNDS: u64 = 4;
/// Changes before each start.
const CHANGES: u64 = 60;

fn rules() -> Rules {
    // Zeros and holes are the same bytes, and each file system keeps them as it likes.
    Rules { ignore_holes: true, ..Rules::default() }
}

fn disk(kind: &'static str) -> Disk {
    // The least that mkfs.xfs makes.
    Disk::Image { kind, mib: 300 }
}

fn converges(source: &'static str, replica: &'static str) {
    let _alone = heavy();
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    let seed = setting("STANDIN_SEED").unwrap_or(clock.as_nanos() as u64 >> 8 & 0xffff_ffff_ffff);
    let rounds = setting("STANDIN_ROUNDS").unwrap_or(ROUNDS);
    println!("{source} to {replica}: {rounds} rounds from STANDIN_SEED={seed}");
    let mut random = Random::new(seed);
    let mut protected =
        Protected::prepare(Setup { source: disk(source), replica: disk(replica), ..Setup::default() });
    for round in 0..rounds {
        Changes::new(&protected.backing, &mut random).make(CHANGES);
        println!("round {round}");
        protected.start_again();
        protected.assert_in_sync_by(&rules());
        if random.below(4) == 0 {
            protected.kill9();
            crate::host::clear_mounts(&protected.mount);
        } else {
            protected.stop();
        }
    }
}

#[test]
fn offline_changes_arrive_from_ext4() {
    converges("ext4", "ext4");
}

#[test]
fn offline_changes_arrive_from_ext4_with_small_blocks() {
    converges("ext4 -b 1024", "ext4 -b 1024");
}

/// A million bytes were missing on the replica, for ever, and it was called good: with blocks
/// smaller than a page the kernel answered `SEEK_HOLE` with the offset of `SEEK_DATA`, and the copy
/// took that for the end of the file.
#[test]
fn a_hole_where_data_begins_is_not_the_end_of_a_file() {
    let disk = |kind| Disk::Image { kind, mib: 64 };
    let setup = Setup { source: disk("ext4 -b 1024"), replica: disk("ext4"), ..Setup::default() };
    let mut protected = Protected::prepare(setup);
    let file = File::create_new(protected.backing.join("file")).expect("a file");
    let reserved = FallocateFlags::KEEP_SIZE | FallocateFlags::ZERO_RANGE;
    rustix::fs::fallocate(&file, reserved, 9002, 3666).expect("reserved");
    file.write_all_at(&[b'D'; 385], 15_939).expect("written");
    file.write_all_at(&vec![b'E'; 1_000_000], 1 << 20).expect("written");
    drop(file);
    protected.start_again();
    protected.assert_in_sync_by(&rules());
    let content = fs::read(protected.replica.join("file")).expect("the file");
    assert_eq!(content.iter().filter(|&&byte| byte != 0).count(), 1_000_385);
}

/// With file systems whose tools are not everywhere.
#[cfg(feature = "suites")]
mod suites {
    use super::*;

    #[test]
    fn offline_changes_arrive_from_xfs() {
        converges("xfs", "xfs");
    }

    #[test]
    fn offline_changes_arrive_from_xfs_with_small_blocks() {
        converges("xfs -b size=1024", "xfs -b size=1024");
    }

    #[test]
    fn offline_changes_arrive_from_btrfs() {
        converges("btrfs", "btrfs");
    }
}
