//! What a copy of what is owed keeps, aside or in its place.

use std::fs;
use std::os::unix::fs::MetadataExt;

use super::keep::{aside, kept, pair};
use super::kept_own::{names_of_kept, two};
use super::sync::items;
use super::*;

/// One name of what a copy of what is owed found deleted lay below a directory that nobody knew any more: what was kept
/// by the other one was shared with the orphan.
#[test]
fn what_is_kept_is_in_no_orphan() {
    let (mut pair, source) = pair();
    pair.say(source.create("stays", 0o640));
    for name in ["dir/one", "dir/other"] {
        pair.say(kept(source.unlink(name), &Keeping::InPlace));
    }
    pair.say(kept(source.rmdir("dir"), &Keeping::InPlace));
    pair.applier().set_pending_times().unwrap();
    fs::remove_file(source.path("two")).unwrap();
    let attributes = Attributes { mode: 0o755, uid: 0, gid: 0, mtime: source.mtime("") };
    let items = [
        LaneItem::BeginOwed { percent_max: None, compares: false },
        LaneItem::Root { object: source.id(""), attributes, xattrs: Vec::new() },
        LaneItem::Keeping { keeping: aside() },
        items(&source, "stays").pop().unwrap(),
        LaneItem::End,
    ];
    let position = pair.applier().replica().applied();
    for (number, item) in items.into_iter().enumerate() {
        pair.applier().take_item(position, ItemNumber(number as u64), item, Bytes::new()).unwrap();
    }
    assert_eq!((pair.aside(), names_of_kept(&pair)), (two(), vec![1]));
    pair.assert_same();
}

/// In their places two names had stayed of what is gone from the source, and a person has linked it; or one of them had
/// given way to another file while the copy ran. Its id stayed: when the last of them gave way it was missed.
#[test]
fn what_has_stayed_alone_is_known_no_more() {
    for (is_linked, gives_way) in [(true, false), (false, true), (true, true)] {
        let (mut pair, source) = pair();
        pair.say(source.chmod("", 0o755));
        pair.applier().set_pending_times().unwrap();
        if is_linked {
            fs::hard_link(pair.replica("two"), pair.temp.path().join("snapshot")).unwrap();
        }
        for name in ["two", "dir/other"] {
            fs::remove_file(source.path(name)).unwrap();
        }
        let attributes = Attributes { mode: 0o755, uid: 0, gid: 0, mtime: source.mtime("") };
        let mut listing = items(&source, "dir").pop().unwrap();
        if let LaneItem::Listing { entries, .. } = &mut listing {
            entries[0].birth = Birth::Directory;
        }
        let begins = [
            LaneItem::BeginOwed { percent_max: None, compares: false },
            LaneItem::Root { object: source.id(""), attributes, xattrs: Vec::new() },
            LaneItem::Keeping { keeping: Keeping::InPlace },
            listing,
            items(&source, "dir/one").pop().unwrap(),
        ];
        let position = pair.applier().replica().applied();
        for (number, item) in begins.into_iter().enumerate() {
            pair.applier().take_item(position, ItemNumber(number as u64), item, Bytes::new()).unwrap();
        }
        if gives_way {
            pair.say(source.create("two", 0o600));
        }
        let position = pair.applier().replica().applied();
        pair.applier().take_item(position, ItemNumber(9), LaneItem::End, Bytes::new()).unwrap();
        assert_eq!(pair.applier().replica().data().state, DataState::Good);
        if !gives_way {
            pair.say(source.create("two", 0o600));
        }
        pair.say(source.create("dir/other", 0o600));
        pair.assert_same();
        assert_eq!(pair.applier().missing(), None, "{is_linked} {gives_way}");
    }
}

/// A name had stayed once, and a copy of what is owed takes another one of what lives on: what is kept took its id, and a
/// further name of it became another file.
#[test]
fn what_lives_on_keeps_its_id() {
    let (mut pair, source) = pair();
    pair.say(source.link("two", "dir/third"));
    pair.say(kept(source.unlink("dir/other"), &Keeping::InPlace));
    pair.applier().set_pending_times().unwrap();
    fs::remove_file(source.path("two")).unwrap();
    let attributes = Attributes { mode: 0o755, uid: 0, gid: 0, mtime: source.mtime("") };
    let mut listing = items(&source, "dir").pop().unwrap();
    if let LaneItem::Listing { entries, .. } = &mut listing {
        entries[0].birth = Birth::Directory;
    }
    let items = [
        LaneItem::BeginOwed { percent_max: None, compares: false },
        LaneItem::Root { object: source.id(""), attributes, xattrs: Vec::new() },
        LaneItem::Keeping { keeping: aside() },
        listing,
        LaneItem::End,
    ];
    let position = pair.applier().replica().applied();
    for (number, item) in items.into_iter().enumerate() {
        pair.applier().take_item(position, ItemNumber(number as u64), item, Bytes::new()).unwrap();
    }
    assert_eq!((pair.aside(), names_of_kept(&pair)), (two(), vec![1]));
    pair.say(source.link("dir/third", "again"));
    let inode = |name: &str| fs::metadata(pair.replica(name)).unwrap().ino();
    assert_eq!(inode("again"), inode("dir/third"));
    assert_eq!(pair.applier().missing(), None);
}

/// One name had stayed once, and a packet removed the last one of the source while a copy of what is owed ran: the id
/// stayed with what had stayed, and was missed when that went.
#[test]
fn what_a_packet_removes_is_known_no_more() {
    let (mut pair, source) = pair();
    pair.say(kept(source.unlink("dir/other"), &Keeping::InPlace));
    pair.applier().set_pending_times().unwrap();
    let attributes = Attributes { mode: 0o755, uid: 0, gid: 0, mtime: source.mtime("") };
    let begins = [
        LaneItem::BeginOwed { percent_max: None, compares: false },
        LaneItem::Root { object: source.id(""), attributes, xattrs: Vec::new() },
        LaneItem::Keeping { keeping: aside() },
    ];
    let position = pair.applier().replica().applied();
    for (number, item) in begins.into_iter().enumerate() {
        pair.applier().take_item(position, ItemNumber(number as u64), item, Bytes::new()).unwrap();
    }
    pair.say(kept(source.unlink("two"), &aside()));
    let position = pair.applier().replica().applied();
    pair.applier().take_item(position, ItemNumber(9), LaneItem::End, Bytes::new()).unwrap();
    assert_eq!((pair.aside(), names_of_kept(&pair)), (two(), vec![1]));
    fs::remove_file(pair.replica("dir/other")).unwrap();
    assert_eq!(pair.applier().look_for_objects(100).unwrap(), None);
}
