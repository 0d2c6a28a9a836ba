//! What happens to a tree between two copies, and what an interrupted copy leaves.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::Path;

use rustix::fs::{CWD, RenameFlags};

use super::cases::set_mtime;
use super::*;
use crate::packet::ItemNumber;

fn started() -> Pair {
    let pair = Pair::new();
    let root = &pair.source;
    fs::create_dir_all(root.join("dir/sub/deep")).unwrap();
    fs::create_dir(root.join("other")).unwrap();
    for name in ["one", "two", "dir/three", "dir/sub/four", "dir/sub/deep/five", "other/six"] {
        fs::write(root.join(name), format!("content of {name}").repeat(100)).unwrap();
    }
    pair.converges();
    pair
}

fn inode(path: impl AsRef<Path>) -> u64 {
    fs::symlink_metadata(path).unwrap().ino()
}

/// Changes the source, copies, and expects so many files to be sent and orphans to be left.
#[track_caller]
fn check(copied: u64, orphans: u64, change: impl FnOnce(&Path)) -> Pair {
    let pair = started();
    change(&pair.source);
    let outcome = pair.converges();
    assert_eq!((outcome.report.copied, outcome.orphans), (copied, orphans));
    let again = pair.converges();
    assert_eq!((again.report.copied, again.orphans), (0, 0));
    pair
}

#[test]
fn a_renamed_file_is_not_sent() {
    check(0, 0, |root| fs::rename(root.join("one"), root.join("other/eins")).unwrap());
}

#[test]
fn a_renamed_directory_is_not_sent() {
    check(0, 0, |root| fs::rename(root.join("dir/sub"), root.join("other/sub")).unwrap());
}

#[test]
fn a_directory_that_trades_places_with_its_child() {
    check(0, 0, |root| {
        fs::rename(root.join("dir/sub"), root.join("new")).unwrap();
        fs::rename(root.join("dir"), root.join("new/dir")).unwrap();
    });
}

#[test]
fn two_names_are_swapped() {
    check(0, 0, |root| {
        rustix::fs::renameat_with(CWD, root.join("one"), CWD, root.join("two"), RenameFlags::EXCHANGE)
            .unwrap();
        rustix::fs::renameat_with(CWD, root.join("dir"), CWD, root.join("other"), RenameFlags::EXCHANGE)
            .unwrap();
    });
}

#[test]
fn a_chain_of_names_moves_by_one() {
    // All three files have one size and, mostly, one mtime: nothing may be taken for another.
    check(3, 0, |root| {
        fs::rename(root.join("two"), root.join("three")).unwrap();
        fs::rename(root.join("one"), root.join("two")).unwrap();
        fs::write(root.join("one"), "fresh").unwrap();
    });
}

#[test]
fn a_file_becomes_a_directory_and_a_directory_a_file() {
    let pair = check(2, 2, |root| {
        fs::remove_file(root.join("one")).unwrap();
        fs::create_dir(root.join("one")).unwrap();
        fs::write(root.join("one/in it"), "new").unwrap();
        fs::remove_dir_all(root.join("other")).unwrap();
        fs::write(root.join("other"), "now a file").unwrap();
    });
    let orphans = pair.orphans();
    let names: Vec<_> = orphans.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["./one", "./other/six"]);
    assert_eq!(orphans[0].1, "content of one".repeat(100).as_bytes());
    assert_eq!(orphans[1].1, "content of other/six".repeat(100).as_bytes());
}

#[test]
fn a_symlink_points_elsewhere() {
    let pair = started();
    symlink("here", pair.source.join("link")).unwrap();
    pair.converges();
    fs::remove_file(pair.source.join("link")).unwrap();
    symlink("there", pair.source.join("link")).unwrap();
    pair.converges();
}

#[test]
fn hard_links_are_regrouped() {
    let pair = started();
    let at = |name: &str| pair.source.join(name);
    fs::hard_link(at("one"), at("one b")).unwrap();
    fs::hard_link(at("two"), at("other/two b")).unwrap();
    assert_eq!(pair.converges().report.copied, 0);
    // The second name of each goes to the other; and a pair is parted into two equal files.
    fs::remove_file(at("one b")).unwrap();
    fs::remove_file(at("other/two b")).unwrap();
    fs::hard_link(at("one"), at("other/two b")).unwrap();
    fs::hard_link(at("two"), at("one b")).unwrap();
    assert_eq!(pair.converges().report.copied, 0);
    let time = fs::metadata(at("two")).unwrap();
    fs::remove_file(at("one b")).unwrap();
    fs::copy(at("two"), at("one b")).unwrap();
    set_mtime(&at("one b"), time.mtime(), time.mtime_nsec());
    assert_eq!(pair.converges().report.copied, 1);
    let replica = pair.replica();
    assert_ne!(inode(replica.join("one b")), inode(replica.join("two")));
}

#[test]
fn a_link_that_only_the_replica_has_is_parted() {
    let pair = started();
    let replica = pair.replica();
    fs::remove_file(replica.join("two")).unwrap();
    fs::hard_link(replica.join("one"), replica.join("two")).unwrap();
    assert_eq!(pair.converges().report.copied, 1);
    assert_ne!(inode(replica.join("one")), inode(replica.join("two")));
}

#[test]
fn deleted_things_are_kept_aside() {
    let pair = check(0, 2, |root| {
        fs::remove_file(root.join("two")).unwrap();
        fs::remove_dir_all(root.join("dir/sub")).unwrap();
    });
    let names: Vec<_> = pair.orphans().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["./sub/deep/five", "./sub/four", "./two"]);
    // Their ids are forgotten.
    assert_eq!(pair.open_replica().index().len(), 3 + 3, "root, two directories, three files");
}

#[test]
fn what_was_moved_out_of_a_deleted_directory_lives_on() {
    let pair = check(0, 1, |root| {
        fs::rename(root.join("dir/sub/deep"), root.join("deep")).unwrap();
        fs::rename(root.join("dir/sub/four"), root.join("four")).unwrap();
        fs::remove_dir_all(root.join("dir")).unwrap();
    });
    let names: Vec<_> = pair.orphans().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["./dir/three"], "what lives on is in no orphan");
}

#[test]
fn a_touched_file_is_sent_again_and_a_changed_one() {
    check(2, 0, |root| {
        set_mtime(&root.join("one"), 1, 1);
        fs::write(root.join("two"), "shorter").unwrap();
    });
}

#[test]
fn a_file_shrinks_to_nothing_and_grows_into_a_hole() {
    check(2, 0, |root| {
        fs::write(root.join("one"), "").unwrap();
        File::options().write(true).open(root.join("two")).unwrap().set_len(1 << 30).unwrap();
    });
}

#[test]
fn a_suspect_file_is_sent_although_size_and_mtime_are_equal() {
    let pair = started();
    std::thread::sleep(std::time::Duration::from_millis(20));
    fs::write(pair.source.join("clock"), "").unwrap();
    let clock = fs::metadata(pair.source.join("clock")).unwrap();
    let since = Timestamp { seconds: clock.ctime(), nanoseconds: clock.ctime_nsec() as u32 };
    let path = pair.source.join("one");
    let before = fs::metadata(&path).unwrap();
    File::options().write(true).open(&path).unwrap().write_all_at(b"CHANGED", 0).unwrap();
    set_mtime(&path, before.mtime(), before.mtime_nsec());
    let blind = pair.copy();
    assert_eq!(blind.report.copied, 0, "size and mtime tell nothing");
    let outcome = pair.copy_since(Some(since));
    assert_eq!(outcome.report.copied, 1, "only what changed since then");
    pair.check_equal();
}

#[test]
fn a_replica_without_its_index_is_taken_over_by_name() {
    let pair = started();
    fs::remove_file(pair.places.state.join("index")).unwrap();
    // Equal in size and, mostly, in mtime: names prove nothing about content.
    fs::rename(pair.source.join("one"), pair.source.join("old")).unwrap();
    fs::rename(pair.source.join("two"), pair.source.join("one")).unwrap();
    fs::rename(pair.source.join("old"), pair.source.join("two")).unwrap();
    assert_eq!(pair.open_replica().data().state, DataState::Bad);
    let outcome = pair.converges();
    assert_eq!((outcome.report.copied, outcome.orphans), (6, 0));
}

#[test]
fn a_person_may_say_that_names_do_for_a_comparison() {
    let mut pair = started();
    fs::remove_file(pair.places.state.join("index")).unwrap();
    fs::write(pair.source.join("one"), "other").unwrap();
    pair.name_match = NameMatch::Compare;
    assert_eq!(pair.converges().report.copied, 1);
}

#[test]
fn a_damaged_replica_is_repaired() {
    let pair = started();
    let replica = pair.replica();
    fs::rename(replica.join("one"), replica.join("dir/sub/deep/hidden")).unwrap();
    fs::rename(replica.join("dir"), replica.join("other/dir")).unwrap();
    fs::remove_file(replica.join("two")).unwrap();
    symlink("/etc/passwd", replica.join("two")).unwrap();
    fs::write(replica.join("stranger"), "stranger").unwrap();
    // A directory that was taken out of the replica altogether is not fetched back.
    fs::rename(replica.join("other/dir/sub"), pair.dir.path().join("stolen")).unwrap();
    let outcome = pair.converges();
    assert_eq!(outcome.orphans, 2, "the stranger and the symlink");
    assert!(pair.dir.path().join("stolen").exists());
}

#[test]
fn a_copy_that_is_cut_off_anywhere_is_taken_up_again() {
    let pair = started();
    let root = &pair.source;
    fs::rename(root.join("dir/sub"), root.join("sub")).unwrap();
    fs::rename(root.join("one"), root.join("sub/one")).unwrap();
    fs::write(root.join("one"), vec![5; 1_000_000]).unwrap();
    fs::write(root.join("dir/three"), vec![6; 600_000]).unwrap();
    for items in 1..14 {
        pair.copy_interrupted(items);
    }
    let outcome = pair.converges();
    assert_eq!(outcome.orphans, 0);
}

#[test]
fn what_was_copied_before_an_orderly_cut_is_not_copied_again() {
    let pair = Pair::new();
    for number in 0..20 {
        fs::write(pair.source.join(format!("{number}")), vec![number; 100_000]).unwrap();
    }
    let mut applier = pair.applier();
    let Copying { items, answers, source, .. } = Copying::begin(&pair.source, None, 4, (None, None));
    // Begin, root, listing, and ten files of three items each.
    for NumberedItem { number, item, payload } in items.iter().take(3 + 30) {
        for message in applier.take_item(position(), number, item, payload).unwrap() {
            answers.send(answer(message)).unwrap();
        }
    }
    drop((items, answers));
    assert!(matches!(source.join().unwrap(), Err(CopyError::Gone)));
    applier.end_session();
    drop(applier);
    assert_eq!(pair.converges().report.copied, 10);
}

#[test]
fn a_source_that_breaks_the_order_is_refused() {
    let pair = Pair::new();
    let mut applier = pair.applier();
    let object = crate::packet::ObjectId { birth_epoch: 1, generation: 1, inode: 1 };
    let mut refused = |item: LaneItem| {
        let bytes = Bytes::from_static(b"x");
        applier.take_item(position(), ItemNumber(1), item, bytes).is_err()
    };
    assert!(refused(LaneItem::End));
    assert!(!refused(LaneItem::Begin));
    assert!(refused(LaneItem::End), "nothing was sent");
    assert!(refused(LaneItem::OpenContent { object }));
    assert!(refused(LaneItem::Content { object, hole: 0, offset: 0 }));
}

#[test]
fn an_answer_that_was_not_asked_for_ends_the_copy() {
    let pair = started();
    for strange in [
        Wanted { listing: ItemNumber(9), objects: Vec::new() },
        Wanted { listing: ItemNumber(3), objects: vec![crate::packet::ObjectId::default()] },
    ] {
        let Copying { items, answers, source, .. } = Copying::begin(&pair.source, None, 100, (None, None));
        answers.send(Answer::Wanted(strange)).unwrap();
        let result = source.join().unwrap();
        assert!(matches!(result, Err(CopyError::Answer(_))), "{result:?}");
        drop(items);
    }
}

/// The state was set back, the disk was not: ids were bound to what lies with the orphans, and a copy
/// linked it back, so that a person who edits an orphan edited the replica.
#[test]
fn an_index_older_than_the_orphans_brings_none_back() {
    let pair = started();
    let (root, away) = (pair.source.as_path(), pair.dir.path().join("away"));
    let deep = format!("far{}", format!("/{}", "d".repeat(200)).repeat(30));
    make_deep(root, &deep);
    fs::create_dir(&away).unwrap();
    pair.converges();
    let index = fs::read(pair.places.state.join("index")).unwrap();
    let moved = ["one", "dir", "far"];
    moved.iter().for_each(|name| fs::rename(root.join(name), away.join(name)).unwrap());
    assert_eq!(pair.converges().orphans, 3);
    let kept = pair.orphans();
    moved.iter().for_each(|name| fs::rename(away.join(name), root.join(name)).unwrap());
    fs::write(pair.places.state.join("index"), index).unwrap();
    let outcome = pair.converges();
    assert_eq!((outcome.report.copied, outcome.orphans), (5, 0));
    assert_eq!(fs::metadata(pair.replica().join("one")).unwrap().nlink(), 1);
    assert_eq!(pair.orphans(), kept);
}

/// A path longer than the kernel tells, with a file at its end.
fn make_deep(root: &Path, path: &str) {
    let mut dir = File::open(root).unwrap();
    for name in path.split('/') {
        rustix::fs::mkdirat(&dir, name, 0o755.into()).unwrap();
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY;
        dir = rustix::fs::openat(&dir, name, flags, 0.into()).unwrap().into();
    }
    let flags = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY;
    let file = rustix::fs::openat(&dir, "end", flags, 0o644.into()).unwrap();
    File::from(file).write_all_at(b"far away", 0).unwrap();
}
