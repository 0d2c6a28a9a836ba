//! What is kept aside is nobody else's file, whatever names of it there are.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::rc::Rc;

use super::keep::{aside, kept, pair};
use super::sync::items;
use super::*;
use crate::failpoint;
use crate::xattr::Flags;

fn two() -> Vec<(String, String)> {
    vec![("two".to_owned(), "two".to_owned())]
}

/// Of files that are kept: how many names each has.
fn names_of_kept(pair: &Pair) -> Vec<u64> {
    let trash = pair.places.limbo.join("deleted/trash");
    let day = fs::read_dir(trash).unwrap().next().unwrap().unwrap().path();
    let files = tree::describe(&day).into_keys().map(|path| day.join(path).metadata().unwrap());
    files.filter(|found| found.is_file()).map(|found| found.nlink()).collect()
}

/// Deletions were ignored once: what had stayed was the file that was kept, and whoever wrote into one of them wrote
/// into both.
#[test]
fn what_has_stayed_is_not_what_is_kept() {
    let (mut pair, source) = pair();
    pair.say(source.chmod("two", 0o604));
    pair.say(kept(source.unlink("dir/other"), &Keeping::InPlace));
    let (mtime, stayed) = (source.mtime("two"), pair.replica("dir/other"));
    pair.say(kept(source.unlink("two"), &aside()));
    assert_eq!((pair.aside(), names_of_kept(&pair)), (two(), vec![1]));
    assert!(!pair.replica("two").exists());
    let day = fs::read_dir(pair.places.limbo.join("deleted/trash")).unwrap().next().unwrap().unwrap();
    let place = Source { root: day.path() };
    assert_eq!(place.mtime("two"), mtime);
    assert_eq!(fs::metadata(place.path("two")).unwrap().mode() & 0o7777, 0o604);
    // Either is changed alone.
    fs::write(&stayed, "changed").unwrap();
    assert_eq!(pair.aside(), two());
    fs::write(place.path("two"), "looked at").unwrap();
    assert_eq!(fs::read_to_string(&stayed).unwrap(), "changed");
    pair.say(source.create("dir/other", 0o640));
    pair.assert_same();
    assert_eq!(pair.applier().look_for_objects(100).unwrap(), None);
}

/// On the source it lives on, outside: on targets it was in limbo alone, until the next copy.
#[test]
fn the_last_name_in_the_set_is_kept() {
    let (mut pair, source) = pair();
    fs::hard_link(source.path("two"), source.path("../outside")).unwrap();
    pair.say(kept(source.unlink("dir/other"), &aside()));
    assert_eq!(pair.aside(), []);
    pair.say(kept(source.unlink("two"), &aside()));
    assert_eq!((pair.aside(), names_of_kept(&pair)), (two(), vec![1]));
    // Packets reach what goes on.
    pair.say(source.write("../outside", 0, b"goes on"));
    pair.crash();
    pair.say(source.link("../outside", "back"));
    assert_eq!(fs::read_to_string(pair.replica("back")).unwrap(), "goes on");
    assert_eq!(pair.aside(), two());
}

/// A snapshot of hard links lies beside the replica.
#[test]
fn a_link_of_a_person_is_not_what_is_kept() {
    let (mut pair, source) = pair();
    let snapshot = pair.temp.path().join("snapshot");
    fs::hard_link(pair.replica("dir/one"), &snapshot).unwrap();
    pair.say(kept(source.unlink("dir/one"), &aside()));
    fs::write(snapshot, "changed").unwrap();
    assert_eq!(pair.aside(), [("dir/one".to_owned(), "dir/one".to_owned())]);
    pair.assert_same();
}

/// While a copy runs: names that the source does not have any more are still there, or stay.
#[test]
fn what_a_copy_leaves_in_its_place_is_not_what_is_kept() {
    let (mut pair, source) = pair();
    fs::remove_file(source.path("dir/other")).unwrap();
    let position = pair.applier().replica().applied();
    let keep = LaneItem::OrphanRules { rule: OrphanRule::Keep, age_ms: 0 };
    let mut all = items(&source, "two");
    all.insert(2, keep);
    for (number, item) in all.into_iter().enumerate() {
        pair.applier().take_item(position, ItemNumber(number as u64), item, Bytes::new()).unwrap();
    }
    pair.say(kept(source.unlink("two"), &aside()));
    let position = pair.applier().replica().applied();
    pair.applier().take_item(position, ItemNumber(9), LaneItem::End, Bytes::new()).unwrap();
    assert_eq!(pair.applier().data().state, DataState::Good);
    assert_eq!((pair.aside(), names_of_kept(&pair)), (two(), vec![1]));
    assert!(pair.replica("dir/other").exists());
}

/// What waits in limbo for the end of a copy goes with what was removed, and is no orphan: it is kept.
#[test]
fn what_waits_goes_with_what_is_kept() {
    let (mut pair, source) = pair();
    fs::remove_file(source.path("dir/other")).unwrap();
    let position = pair.applier().replica().applied();
    for (number, item) in items(&source, "two").into_iter().enumerate() {
        pair.applier().take_item(position, ItemNumber(number as u64), item, Bytes::new()).unwrap();
    }
    // All of the directory waits.
    assert!(!pair.replica("dir").exists());
    pair.say(kept(source.unlink("two"), &aside()));
    let position = pair.applier().replica().applied();
    pair.applier().take_item(position, ItemNumber(9), LaneItem::End, Bytes::new()).unwrap();
    assert_eq!((pair.aside(), names_of_kept(&pair)), (two(), vec![1]));
    let left: Vec<_> = tree::describe(&pair.places.limbo.join("orphans")).into_keys().collect();
    let is_left = |name: &str| left.iter().any(|path| path.ends_with(name));
    assert!(is_left("dir/one") && !is_left("other"), "{left:?}");
}

/// Once: the copy goes again where its name cannot be taken, and what a killed process has begun is begun anew.
#[test]
fn it_is_kept_once() {
    let (mut pair, source) = pair();
    pair.say(kept(source.unlink("dir/other"), &Keeping::InPlace));
    let making = pair.places.limbo.join("keeping");
    fs::write(&making, "what is left of another one").unwrap();
    let frame = pair.frame(&kept(source.unlink("two"), &aside()));
    let hook: failpoint::Hook = Rc::new(|place| match place {
        "kept" => Err(std::io::Error::from_raw_os_error(libc::EIO)),
        _ => Ok(()),
    });
    let failed = failpoint::with(hook, || pair.applier().handle(&frame));
    assert!(!matches!(failed, Outcome::Applied));
    assert!(pair.aside().is_empty() && pair.replica("two").exists() && !making.exists());
    Flags::IMMUTABLE.set(fs::File::open(pair.replica("two")).unwrap().as_fd()).unwrap();
    assert!(matches!(pair.applier().handle(&frame), Outcome::Applied));
    assert!(!pair.replica("two").exists() && !making.exists());
    assert_eq!((pair.aside(), names_of_kept(&pair)), (two(), vec![1]));
    // With what is over.
    fs::write(&making, "what is left").unwrap();
    pair.applier().remove_overdue();
    assert!(!making.exists());
}
