//! Replicas that are not there any more, or not where they were.

use std::fs;

use super::keep::pair;
use super::sync::items;
use super::*;

/// A replica with some objects.
fn at_work() -> Pair {
    let mut pair = Pair::new();
    pair.say(pair.source.mkdir("dir", 0o755));
    for name in ["dir/f", "g", "h"] {
        pair.say(pair.source.create(name, 0o644));
    }
    pair
}

/// At rest, and closed.
fn at_rest() -> Pair {
    let mut pair = at_work();
    pair.applier.take().unwrap().durable_point().unwrap();
    pair
}

#[track_caller]
fn assert_bad(pair: &Pair, why: &str) {
    let mut applier = Applier::at_rest(Replica::open(&pair.places, SET).unwrap());
    let proof = applier.begin_session();
    assert_eq!((proof.data, proof.bad_by), (DataState::Bad, BadBy::Anything));
    let reason = applier.data().reason.unwrap();
    assert!(reason.contains(why), "{reason}");
}

/// The mount point of a disk that was not mounted became a new replica, and filled the disk below.
#[test]
fn a_replica_that_is_missing_is_not_made_anew() {
    let pair = at_rest();
    fs::rename(&pair.places.root, pair.temp.path().join("away")).unwrap();
    fs::create_dir(&pair.places.root).unwrap();
    assert!(matches!(Replica::open(&pair.places, SET), Err(OpenError::Missing)));
    assert_eq!(fs::read_dir(&pair.places.root).unwrap().count(), 0);
    let mut replica = Replica::open_or_adopt(&pair.places, SET).unwrap();
    assert_eq!(replica.data().state, DataState::Empty);
    assert_eq!(replica.applied(), Position::default());
    assert!(matches!(replica.object(pair.source.id("g")), Err(Fault::MissingObject(_))));
}

/// It was resumed, and called good.
#[test]
fn a_replica_that_was_emptied_in_place_is_bad() {
    let pair = at_rest();
    fs::remove_dir_all(pair.replica("dir")).unwrap();
    fs::remove_file(pair.replica("g")).unwrap();
    fs::remove_file(pair.replica("h")).unwrap();
    assert_bad(&pair, "emptied");
    let pair = at_rest();
    fs::remove_dir_all(pair.replica("dir")).unwrap();
    assert_bad(&pair, "removed objects");
    let pair = at_rest();
    fs::rename(pair.replica("dir"), pair.temp.path().join("away")).unwrap();
    assert_bad(&pair, "removed objects");
    let pair = at_rest();
    fs::rename(pair.replica("dir/f"), pair.temp.path().join("away")).unwrap();
    assert_bad(&pair, "removed objects");
}

#[test]
fn a_replica_that_is_whole_is_good() {
    let pair = at_rest();
    for _ in 0..20 {
        let mut applier = Applier::at_rest(Replica::open(&pair.places, SET).unwrap());
        assert_eq!(applier.begin_session().data, DataState::Good);
    }
}

/// A copy of a replica carries its mark, and the objects that are known are not in it.
#[test]
fn a_replica_that_was_moved_by_a_copy_is_bad() {
    let pair = at_rest();
    let away = pair.temp.path().join("away");
    fs::rename(&pair.places.root, &away).unwrap();
    let copied = std::process::Command::new("cp").arg("-a").arg(&away).arg(&pair.places.root).status();
    assert!(copied.unwrap().success());
    let replica = Replica::open(&pair.places, SET).unwrap();
    let reason = replica.data().reason.unwrap();
    assert!(reason.contains("it is another directory"), "{reason}");
    assert!(replica.index().is_empty());
    drop(replica);
    // Said once, it stays: only a copy proves what is in it.
    assert_eq!(Replica::open(&pair.places, SET).unwrap().data().state, DataState::Bad);
}

/// Its disk was unmounted, or somebody moved it, while no source worked on it.
#[test]
fn a_replica_that_is_elsewhere_now_is_told() {
    let pair = at_rest();
    let applier = Applier::at_rest(Replica::open(&pair.places, SET).unwrap());
    assert!(applier.is_where_it_was());
    fs::rename(&pair.places.root, pair.temp.path().join("away")).unwrap();
    assert!(!applier.is_where_it_was());
    fs::create_dir(&pair.places.root).unwrap();
    assert!(!applier.is_where_it_was());
    fs::remove_dir(&pair.places.root).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, &pair.places.root, rustix::fs::Mode::RWXU).unwrap();
    assert!(!applier.is_where_it_was(), "and nobody waits at a fifo");
    fs::remove_file(&pair.places.root).unwrap();
    fs::rename(pair.temp.path().join("away"), &pair.places.root).unwrap();
    assert!(applier.is_where_it_was());
}

/// An object that was opened by its handle before anybody has come upon a name of it has the path of a root: it
/// was taken for one outside of the replica.
#[test]
fn what_hangs_from_nothing_is_unknown() {
    use rustix::mount::{OpenTreeFlags, open_tree};
    let mut pair = Pair::new();
    pair.say(pair.source.create("f", 0o644));
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    // As such a handle, a mount that hangs from nowhere has no path.
    let cold = open_tree(rustix::fs::CWD, pair.replica("f"), flags).unwrap();
    let path = std::fs::read_link(crate::sys::proc_path(std::os::fd::AsFd::as_fd(&cold))).unwrap();
    assert_eq!(path, Path::new("/"));
    let found = pair.applier().replica().remembered(&cold.into()).unwrap();
    assert_eq!(found, crate::apply::replica::Remembered::Unknown);
}

/// What a copy of what is owed found deleted lived on in a snapshot of hard links that a person had made: its id stayed,
/// and a good replica was taken for one that somebody had removed objects from.
#[test]
fn what_lives_on_outside_alone_is_not_missed() {
    let (mut pair, source) = pair();
    pair.say(source.create("dir/stays", 0o640));
    pair.applier().set_pending_times().unwrap();
    for name in ["two", "dir/one"] {
        fs::hard_link(pair.replica(name), pair.temp.path().join(name.replace('/', "-"))).unwrap();
    }
    for name in ["dir/one", "dir/other"] {
        fs::remove_file(source.path(name)).unwrap();
    }
    let attributes = Attributes { mode: 0o755, uid: 0, gid: 0, mtime: source.mtime("") };
    let begins = [
        LaneItem::BeginOwed { percent_max: None, compares: false },
        LaneItem::Root { object: source.id(""), attributes, xattrs: Vec::new() },
        items(&source, "dir/stays").pop().unwrap(),
    ];
    let position = pair.applier().replica().applied();
    for (number, item) in begins.into_iter().enumerate() {
        pair.applier().take_item(position, ItemNumber(number as u64), item, Bytes::new()).unwrap();
    }
    pair.say(source.unlink("two"));
    let position = pair.applier().replica().applied();
    pair.applier().take_item(position, ItemNumber(9), LaneItem::End, Bytes::new()).unwrap();
    pair.assert_same();
    assert_eq!(pair.applier().missing(), None);
}

/// As [`what_lives_on_outside_alone_is_not_missed`], of what a packet has removed in a session that was cut off.
#[test]
fn what_was_removed_before_a_cut_is_not_missed() {
    let (mut pair, source) = pair();
    pair.applier().set_pending_times().unwrap();
    fs::hard_link(pair.replica("dir/one"), pair.temp.path().join("snapshot")).unwrap();
    for is_first in [true, false] {
        let attributes = Attributes { mode: 0o755, uid: 0, gid: 0, mtime: source.mtime("") };
        let begins = [
            LaneItem::BeginOwed { percent_max: None, compares: false },
            LaneItem::Root { object: source.id(""), attributes, xattrs: Vec::new() },
        ];
        let position = pair.applier().replica().applied();
        for (number, item) in begins.into_iter().enumerate() {
            pair.applier().take_item(position, ItemNumber(number as u64), item, Bytes::new()).unwrap();
        }
        if is_first {
            pair.say(source.unlink("dir/one"));
            pair.applier().end_session();
            pair.applier().begin_session();
        }
    }
    let position = pair.applier().replica().applied();
    pair.applier().take_item(position, ItemNumber(9), LaneItem::End, Bytes::new()).unwrap();
    pair.assert_same();
    assert_eq!(pair.applier().missing(), None);
}

/// A copy that kept a directory aside and was cut off, before it had forgotten what went with it.
#[test]
fn what_was_moved_out_before_a_cut_is_not_missed() {
    let (mut pair, source) = pair();
    pair.applier().set_pending_times().unwrap();
    for is_first in [true, false] {
        let attributes = Attributes { mode: 0o755, uid: 0, gid: 0, mtime: source.mtime("") };
        let begins = [
            LaneItem::BeginOwed { percent_max: None, compares: false },
            LaneItem::Root { object: source.id(""), attributes, xattrs: Vec::new() },
        ];
        let position = pair.applier().replica().applied();
        for (number, item) in begins.into_iter().enumerate() {
            pair.applier().take_item(position, ItemNumber(number as u64), item, Bytes::new()).unwrap();
        }
        if is_first {
            fs::rename(pair.replica("dir"), pair.temp.path().join("aside")).unwrap();
            pair.applier().end_session();
            pair.applier().begin_session();
        }
    }
    let position = pair.applier().replica().applied();
    pair.applier().take_item(position, ItemNumber(9), LaneItem::End, Bytes::new()).unwrap();
    assert_eq!(pair.applier().missing(), None);
}

/// Nothing was cut off: what has its only name outside somebody has moved there, and the source still has it.
#[test]
fn what_a_person_moves_out_in_a_copy_of_what_is_owed_is_missed() {
    let (mut pair, source) = pair();
    pair.applier().set_pending_times().unwrap();
    let attributes = Attributes { mode: 0o755, uid: 0, gid: 0, mtime: source.mtime("") };
    let items = [
        LaneItem::BeginOwed { percent_max: None, compares: false },
        LaneItem::Root { object: source.id(""), attributes, xattrs: Vec::new() },
        LaneItem::End,
    ];
    fs::rename(pair.replica("dir/one"), pair.temp.path().join("elsewhere")).unwrap();
    let position = pair.applier().replica().applied();
    for (number, item) in items.into_iter().enumerate() {
        pair.applier().take_item(position, ItemNumber(number as u64), item, Bytes::new()).unwrap();
    }
    assert!(pair.applier().missing().is_some());
}

/// By a descriptor that was held since it had a name: what came was in no file of the replica, and a look at some of many
/// objects would have come upon it in hours.
#[test]
fn what_is_written_to_without_a_name_is_missed() {
    let mut pair = at_work();
    pair.say(pair.source.write("g", 0, b"before"));
    fs::remove_file(pair.replica("g")).unwrap();
    let looked = |pair: &mut Pair| pair.applier().look_for_objects(0).unwrap();
    assert_eq!(looked(&mut pair), None);
    pair.say(pair.source.write("g", 0, b"behind"));
    pair.applier().set_pending_times().unwrap();
    let missing = looked(&mut pair).expect("it has no name");
    assert!(missing.contains("removed objects"), "{missing}");
    assert_eq!(pair.applier().data().state, DataState::Bad);
    // Nor only content.
    let mut pair = at_work();
    pair.say(pair.source.chmod("g", 0o600));
    fs::remove_file(pair.replica("g")).unwrap();
    pair.say(pair.source.chmod("g", 0o640));
    assert!(looked(&mut pair).is_some());
}

/// What the source removes is none.
#[test]
fn what_the_source_removes_is_not_missed() {
    let mut pair = at_work();
    pair.say(pair.source.write("g", 0, b"before"));
    pair.say(pair.source.unlink("g"));
    pair.applier().set_pending_times().unwrap();
    assert_eq!(pair.applier().look_for_objects(0).unwrap(), None);
}

/// One that is held is where it was by its path, with a word behind it.
#[test]
fn a_directory_that_was_removed_is_missing() {
    let mut pair = at_work();
    fs::remove_dir_all(pair.replica("dir")).unwrap();
    let said = pair.source.create("dir/more", 0o644);
    let fault = pair.fails(&said);
    assert!(fault.contains("is not in the replica"), "{fault}");
}
