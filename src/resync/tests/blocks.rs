//! Copies that compare blocks: only what differs is sent, whatever has become of a file.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use rustix::fs::FallocateFlags;

use super::cases::set_mtime;
use super::*;
use crate::limits::{HASH_BLOCK, HOLE_LEAST};
use crate::packet::BlockHash;
use crate::random::Random;

/// Everything is suspect.
const CHECKSUM: Option<Timestamp> = Some(Timestamp { seconds: i64::MIN, nanoseconds: 0 });

const BLOCKS: u64 = 70;

fn started(hash: BlockHash) -> Pair {
    let mut pair = Pair::new();
    let content: Vec<u8> = (0..BLOCKS * HASH_BLOCK + 99).map(|at| (at / 1000) as u8 | 1).collect();
    fs::write(pair.source.join("large"), content).unwrap();
    for number in 0..300 {
        fs::write(pair.source.join(format!("small{number}")), format!("content {number}")).unwrap();
    }
    fs::write(pair.source.join("empty"), "").unwrap();
    pair.converges();
    pair.by_blocks = Some(BlockOrder { hash, least: 1, takes_holes: true });
    pair
}

fn fast() -> BlockHash {
    BlockHash::Fast { key: [5; 32] }
}

fn change(file: &Path, at: u64, bytes: &[u8]) {
    File::options().write(true).open(file).unwrap().write_all_at(bytes, at).unwrap();
}

/// Changes a file of the source, copies, and expects so many bytes to be sent.
#[track_caller]
fn check(sent: u64, alter: impl Fn(&File)) {
    for hash in [fast(), BlockHash::Audit { key: [6; 32] }] {
        let pair = started(hash);
        let inode = fs::metadata(pair.replica().join("large")).unwrap().ino();
        let large = File::options().write(true).read(true).open(pair.source.join("large")).unwrap();
        alter(&large);
        let outcome = pair.converges();
        let files = u64::from(sent > 0);
        assert_eq!((outcome.progress.bytes_copied, outcome.report.copied), (sent, files), "{outcome:?}");
        assert_eq!(fs::metadata(pair.replica().join("large")).unwrap().ino(), inode, "it is another file");
    }
}

#[test]
fn only_blocks_that_differ_are_sent() {
    check(HASH_BLOCK, |large| large.write_all_at(b"x", 5 * HASH_BLOCK).unwrap());
    check(2 * HASH_BLOCK, |large| large.write_all_at(b"xx", 5 * HASH_BLOCK - 1).unwrap());
    check(HASH_BLOCK + 99, |large| {
        large.write_all_at(b"x", 0).unwrap();
        large.write_all_at(b"x", BLOCKS * HASH_BLOCK + 98).unwrap();
    });
    let half = |large: &File| {
        (0..BLOCKS).step_by(2).for_each(|block| large.write_all_at(b"x", block * HASH_BLOCK).unwrap());
    };
    check(BLOCKS / 2 * HASH_BLOCK, half);
}

#[test]
fn a_file_that_is_longer_or_shorter_is_no_other_one() {
    check(99 + 7, |large| large.write_all_at(b"appends", BLOCKS * HASH_BLOCK + 99).unwrap());
    // Nothing but its end.
    check(0, |large| large.set_len(3 * HASH_BLOCK + 10).unwrap());
    check(0, |large| large.set_len(3 * HASH_BLOCK).unwrap());
    check(0, |large| large.set_len((BLOCKS + 40) * HASH_BLOCK).unwrap());
}

#[test]
fn holes_stay_holes() {
    let pair = started(fast());
    let large = File::options().write(true).open(pair.source.join("large")).unwrap();
    let (at, len) = (8 * HASH_BLOCK + 9, 40 * HASH_BLOCK);
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(&large, flags, at, len).unwrap();
    rustix::fs::fallocate(&large, flags, 64 * HASH_BLOCK, 6 * HASH_BLOCK).unwrap();
    pair.converges();
    let zeros = fs::read(pair.replica().join("large")).unwrap();
    let range = at as usize..(at + len) as usize;
    assert!(zeros[range].iter().all(|&byte| byte == 0));
}

/// What the target has in one goes with it, and nothing is sent.
#[test]
fn a_large_hole_is_told_as_one() {
    let size = 3 * HOLE_LEAST + 77;
    for takes_holes in [true, false] {
        for last in [false, true] {
            let mut pair = Pair::new();
            let file = File::create(pair.source.join("sparse")).unwrap();
            file.write_all_at(b"first", 0).unwrap();
            file.set_len(size).unwrap();
            if last {
                file.write_all_at(b"last", size - 4).unwrap();
            }
            pair.converges();
            pair.by_blocks = Some(BlockOrder { hash: fast(), least: 1, takes_holes });
            let replica = pair.replica().join("sparse");
            let before = fs::metadata(&replica).unwrap().modified().unwrap();
            change(&replica, HOLE_LEAST, b"nobody wrote this");
            change(&replica, 2 * HOLE_LEAST, &vec![0; 1 << 20]);
            File::open(&replica).unwrap().set_modified(before).unwrap();
            let copied = pair.copy_since(CHECKSUM).progress;
            assert!(fs::read(&replica).unwrap() == fs::read(pair.source.join("sparse")).unwrap());
            assert_eq!(copied.bytes_copied, 0, "{copied:?}");
            assert!(copied.bytes_compared >= size, "{copied:?}");
            // One that takes none has kept the zeros: they are the same content.
            let room = fs::metadata(&replica).unwrap().blocks() * 512;
            assert_eq!(room < 1 << 20, takes_holes, "{room}");
        }
    }
}

#[test]
fn what_is_the_same_is_not_sent_however_old_it_looks() {
    let pair = started(fast());
    for name in ["large", "small7", "small8"] {
        set_mtime(&pair.source.join(name), 1_000_000, 5);
    }
    let outcome = pair.converges();
    assert_eq!((outcome.progress.bytes_copied, outcome.report.copied), (0, 0));
    assert!(outcome.progress.bytes_identical >= BLOCKS * HASH_BLOCK);
}

/// A byte that nobody wrote is found by its hash alone.
#[test]
fn a_flipped_byte_is_found_by_checksum_and_not_by_differences() {
    let pair = started(fast());
    for (name, at) in [("large", 44 * HASH_BLOCK + 1), ("small9", 3)] {
        let path = pair.replica().join(name);
        let before = fs::metadata(&path).unwrap().modified().unwrap();
        change(&path, at, b"?");
        File::open(&path).unwrap().set_modified(before).unwrap();
    }
    assert_eq!(pair.copy().report.copied, 0);
    let differ = |name: &str| {
        fs::read(pair.source.join(name)).unwrap() != fs::read(pair.replica().join(name)).unwrap()
    };
    assert!(differ("large") && differ("small9"), "differences go by size and time");
    let outcome = pair.copy_since(CHECKSUM);
    assert_eq!(outcome.report.copied, 2);
    assert_eq!(outcome.progress.bytes_copied, HASH_BLOCK + "content 9".len() as u64);
    pair.check_equal();
    let again = pair.copy_since(CHECKSUM);
    assert_eq!((again.report.copied, again.progress.bytes_copied), (0, 0));
}

/// Files that the target does not have, or has empty, have no blocks to compare.
#[test]
fn what_is_not_there_is_sent_whole() {
    let mut pair = started(fast());
    fs::write(pair.source.join("empty"), "not any more").unwrap();
    fs::write(pair.source.join("new"), vec![9; 200_000]).unwrap();
    fs::write(pair.source.join("large"), "").unwrap();
    let outcome = pair.converges();
    assert_eq!(outcome.report.copied, 3);
    assert_eq!(outcome.progress.bytes_copied, 200_000 + 12);
    // Under the bound nothing is compared.
    pair.by_blocks = Some(BlockOrder { hash: fast(), least: 1 << 20, takes_holes: true });
    change(&pair.source.join("new"), 3, b"x");
    assert_eq!(pair.converges().progress.bytes_copied, 200_000);
}

/// Wherever a copy is cut off, what it left is found, also where size and time are what they were.
#[test]
fn a_copy_by_blocks_that_is_cut_off_anywhere_is_taken_up_again() {
    let seed = crate::store::random_u64();
    println!("seed {seed}");
    let mut random = Random::new(seed);
    for _ in 0..12 {
        let pair = started(fast());
        for _ in 0..9 {
            change(&pair.source.join("large"), random.below(BLOCKS) * HASH_BLOCK, b"y");
            change(&pair.source.join(format!("small{}", random.below(300))), 0, b"z");
        }
        let items = 5 + random.below(320) as usize;
        // It may be over by then.
        let _ = pair.run(CHECKSUM, items);
        pair.copy();
        pair.check_equal();
    }
}

/// Whether the first page of a file is in memory. A read that may not wait would not tell: it begins to read, and finds
/// what a fast disk has brought by then.
fn is_in_memory(file: &File) -> bool {
    crate::sys::in_memory(file.as_fd(), 0, rustix::param::page_size()).unwrap()[0]
}

/// The kernel keeps what it could not write as if it had: compared with that, blocks that are not on the disk were the
/// same.
#[test]
fn after_a_failed_sync_blocks_are_read_from_the_disk() {
    let pair = started(fast());
    let file = Arc::new(File::open(pair.replica().join("large")).unwrap());
    file.sync_all().unwrap();
    assert!(fs::read(pair.replica().join("large")).is_ok() && is_in_memory(&file));
    let _ = rustix::fs::fadvise(&*file, 0, None, rustix::fs::Advice::DontNeed);
    let forgets = !is_in_memory(&file);
    fs::read(pair.replica().join("large")).unwrap();
    let seen = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
    let hook: crate::failpoint::Hook = std::rc::Rc::new({
        let (file, seen) = (file.clone(), seen.clone());
        move |place| {
            if place == "compare" {
                seen.borrow_mut().push(is_in_memory(&file));
            }
            Ok(())
        }
    });
    fs::write(pair.source.join("large"), vec![1; (BLOCKS * HASH_BLOCK) as usize]).unwrap();
    crate::failpoint::with(hook, || pair.converges());
    // In a directory in memory there is no disk to be read.
    assert!(seen.borrow().first() == Some(&!forgets), "{:?}, forgets: {forgets}", seen.borrow());
}
