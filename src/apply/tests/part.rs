//! A part of a replica is mended while its source changes, there and elsewhere: the source's looks, the stream's
//! order and the target together, as in the comparisons.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::unbounded;
use parking_lot::Mutex;

use super::check::{Shared, Sink, Watch, World, prepared};
use super::*;
use crate::apply::reconcile::planted::{self, Planted};
use crate::random::Random;
use crate::resync::{BlockOrder, LiveCopy};

/// Paths below a directory, the directory itself not.
fn below(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut found = Vec::new();
    for path in entries.map(|entry| entry.unwrap().path()) {
        let is_directory = fs::symlink_metadata(&path).unwrap().is_dir();
        found.push(path.clone());
        if is_directory {
            found.extend(below(&path));
        }
    }
    found
}

/// Somebody works in the part by hand.
fn damage(part: &Path, random: &mut Random) {
    let Some(path) = random.pick(&below(part)).cloned() else { return };
    let Ok(meta) = fs::symlink_metadata(&path) else { return };
    match random.below(7) {
        0 | 1 if meta.is_file() => {
            let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
            file.write_all_at(b"damaged", random.below(500)).unwrap();
            file.set_modified(std::time::UNIX_EPOCH + Duration::from_secs(random.below(1 << 30))).unwrap();
        }
        2 if !meta.is_symlink() => {
            fs::set_permissions(&path, PermissionsExt::from_mode(random.below(0o1000) as u32)).unwrap();
        }
        3 if meta.is_dir() => fs::remove_dir_all(&path).unwrap(),
        3 | 4 => drop(fs::remove_file(&path)),
        5 => {
            let other = random.pick(&below(part)).cloned().unwrap();
            let _ = fs::rename(&path, &other);
        }
        _ => drop(fs::write(path.with_file_name(format!("extra{}", random.below(3))), "extra")),
    }
}

/// Where the directory of an inode is now.
fn find(root: &Path, inode: u64) -> Option<PathBuf> {
    let is_it = |path: &PathBuf| fs::symlink_metadata(path).is_ok_and(|meta| meta.ino() == inode);
    below(root).into_iter().find(is_it)
}

/// Gives whether there was a part to compare at the end.
fn run(seed: u64) -> bool {
    let mut random = Random::new(seed);
    let pair = prepared(&mut random);
    let is_directory = |path: &PathBuf| fs::symlink_metadata(path).unwrap().is_dir();
    let directories: Vec<PathBuf> = below(&pair.source.root).into_iter().filter(is_directory).collect();
    let part =
        random.pick(&directories).cloned().unwrap().strip_prefix(&pair.source.root).unwrap().to_owned();
    let inode = fs::metadata(pair.source.root.join(&part)).unwrap().ino();
    let damaged = pair.places.root.join(&part);
    let mut pair = pair;
    pair.applier().set_pending_times().unwrap();
    (0..1 + random.below(12)).for_each(|_| damage(&damaged, &mut random));
    // What has changed before that is stamped by a clock that stands still for some milliseconds.
    std::thread::sleep(Duration::from_millis(25));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let now = now - Duration::from_millis(12);
    let since = Timestamp { seconds: now.as_secs() as i64, nanoseconds: now.subsec_nanos() };
    let by_blocks = random.one_in(2).then_some(BlockOrder {
        hash: BlockHash::Fast { key: [3; 32] },
        least: 1,
        takes_holes: true,
    });
    let changes = random.below(80) as u32;

    let (says, answers) = unbounded();
    let backing = fs::File::open(&pair.source.root).unwrap().into();
    let shared: Shared = Arc::new(Mutex::new(World::new(pair, random, changes, says, false)));
    let (looks, sink) = (Arc::new(Watch(shared.clone())), Sink(shared.clone()));
    let copy = LiveCopy::new(backing, looks, 1, Some(since), sink, answers, Arc::default()).unwrap();
    copy.by_blocks(by_blocks).of_part(&part).unwrap().run().unwrap();
    let mut pair = Arc::into_inner(shared).expect("nobody else has it").into_inner().pair;
    assert_eq!(pair.applier().replica().data().state, DataState::Good, "seed {seed}");
    pair.applier().set_pending_times().unwrap();
    let Some(at) = find(&pair.source.root, inode) else { return false };
    let here = at.strip_prefix(&pair.source.root).unwrap();
    // Somebody may have come to the name before it was looked at.
    if here != part {
        return false;
    }
    tree::assert_same(&at, &pair.places.root.join(here));
    true
}

#[test]
fn a_part_is_mended_whatever_changes_meanwhile() {
    let replayed = std::env::var("STANDIN_TEST_SEED").ok().map(|seed| seed.parse().expect("a number"));
    let count = std::env::var("STANDIN_SEEDS").map_or(80, |count| count.parse().expect("a number"));
    let seeds = replayed.map_or(1..=count, |seed: u64| seed..=seed);
    let compared = seeds
        .clone()
        .filter(|seed| {
            eprintln!("STANDIN_TEST_SEED={seed}");
            run(*seed)
        })
        .count() as u64;
    assert!(compared * 2 > seeds.count() as u64, "the part was gone in most runs");
}

/// The name that it lost first was taken by hand, as far as the target knew; the last one went by a packet.
#[test]
fn what_programs_remove_meanwhile_belongs_nowhere() {
    let mut pair = Pair::new();
    let source = Source { root: pair.source.root.clone() };
    pair.say(source.mkdir("part", 0o755));
    pair.say(source.mkdir("elsewhere", 0o755));
    pair.say(source.create("elsewhere/linked", 0o644));
    pair.say(source.link("elsewhere/linked", "part/link"));
    pair.say(source.create("part/file", 0o644));
    let object = source.id("part/link");
    let root = Attributes { mode: 0o755, uid: 0, gid: 0, mtime: source.mtime("") };
    let hand_in = |pair: &mut Pair, item| {
        let at = pair.applier().replica().applied();
        pair.applier().take_item(at, ItemNumber(1), item, Bytes::new()).unwrap()
    };
    hand_in(&mut pair, LaneItem::BeginOwed { percent_max: Some(0), compares: true });
    hand_in(&mut pair, LaneItem::Root { object: source.id(""), attributes: root, xattrs: Vec::new() });
    pair.say(source.rename("part/file", "elsewhere/linked"));
    pair.say(source.unlink("part/link"));
    let answers = hand_in(&mut pair, LaneItem::End);
    assert_eq!(pair.applier().replica().data().state, DataState::Good, "it looks elsewhere: {answers:?}");
    assert_eq!(pair.applier().replica().handle(object).unwrap(), None);
    assert!(below(&pair.places.limbo.join("orphans")).is_empty());
    pair.assert_same();
}

#[test]
fn every_rule_of_a_part_is_needed() {
    for bug in [Planted::ComparesNothing, Planted::MovedIntoTheWalked] {
        planted::set(Some(bug));
        let found = (1..=400).find(|seed| std::panic::catch_unwind(|| run(*seed)).is_err());
        planted::set(None);
        eprintln!("{bug:?}: seed {found:?}");
        assert!(found.is_some(), "{bug:?}");
    }
}
