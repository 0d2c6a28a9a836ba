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

pub fn two() -> Vec<(String, String)> {
    vec![("two".to_owned(), "two".to_owned())]
}

/// Of files that are kept: how many names each has.
pub fn names_of_kept(pair: &Pair) -> Vec<u64> {
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

/// Once: the process dies when the copy is there, and the name is not gone. The next one kept it again beside that.
#[test]
fn a_keep_that_was_cut_off_is_not_repeated() {
    let (mut pair, source) = pair();
    pair.say(kept(source.unlink("dir/other"), &Keeping::InPlace));
    // One of this name is there, and is another one.
    pair.say(source.create("dir/a", 0o600));
    pair.say(source.write("dir/a", 0, b"earlier"));
    pair.say(source.rename("dir/a", "a"));
    fs::hard_link(pair.replica("a"), pair.temp.path().join("snapshot a")).unwrap();
    pair.say(kept(source.unlink("a"), &aside()));
    pair.say(source.rename("two", "a"));
    let frame = pair.frame(&kept(source.unlink("a"), &aside()));
    for dies_at in ["put", "kept"] {
        let dies: failpoint::Hook = Rc::new(move |place| {
            assert_ne!(place, dies_at, "killed");
            Ok(())
        });
        let mut handle = || failpoint::with(dies.clone(), || pair.applier().handle(&frame));
        let died = std::panic::catch_unwind(std::panic::AssertUnwindSafe(&mut handle));
        failpoint::set(None);
        assert!(died.is_err(), "{dies_at}");
        pair.crash();
        // With what is over what was begun is removed; this is not.
        pair.applier().remove_overdue(0);
        assert!(pair.replica("a").exists() && pair.aside().len() == 2);
    }
    assert!(matches!(pair.applier().handle(&frame), Outcome::Applied));
    assert!(!pair.replica("a").exists());
    let both = [("a", "earlier"), ("a~2", "two")].map(|(name, held)| (name.to_owned(), held.to_owned()));
    assert_eq!((pair.aside(), names_of_kept(&pair)), (both.to_vec(), vec![1, 1]));
    assert!(!pair.places.limbo.join("keeping-at").exists());
}

/// What was kept of it is another state of it: somebody has written to what stayed, or the source has.
#[test]
fn another_state_of_a_file_is_kept_beside_the_first() {
    let (mut pair, source) = pair();
    pair.say(kept(source.unlink("dir/other"), &Keeping::InPlace));
    let frame = pair.frame(&kept(source.unlink("two"), &aside()));
    let dies: failpoint::Hook = Rc::new(|place| {
        assert_ne!(place, "put", "killed");
        Ok(())
    });
    let mut handle = || failpoint::with(dies.clone(), || pair.applier().handle(&frame));
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(&mut handle)).unwrap_err();
    failpoint::set(None);
    pair.crash();
    fs::write(pair.replica("two"), "another state").unwrap();
    assert!(matches!(pair.applier().handle(&frame), Outcome::Applied));
    let kept: Vec<String> = pair.aside().into_iter().map(|(_, content)| content).collect();
    assert_eq!(kept, ["two", "another state"]);
}

/// As [`what_waits_goes_with_what_is_kept`], of a copy of what is owed, which keeps what it finds deleted: not this
/// once more.
#[test]
fn what_is_owed_is_kept_once() {
    let (mut pair, source) = pair();
    pair.applier().set_pending_times().unwrap();
    fs::remove_file(source.path("dir/other")).unwrap();
    let attributes = Attributes { mode: 0o755, uid: 0, gid: 0, mtime: source.mtime("") };
    let begins = [
        LaneItem::BeginOwed { percent_max: None, compares: false },
        LaneItem::Root { object: source.id(""), attributes, xattrs: Vec::new() },
        LaneItem::Keeping { keeping: aside() },
        items(&source, "dir/one").pop().unwrap(),
    ];
    let position = pair.applier().replica().applied();
    for (number, item) in begins.into_iter().enumerate() {
        pair.applier().take_item(position, ItemNumber(number as u64), item, Bytes::new()).unwrap();
    }
    assert!(pair.replica("dir/one").exists() && !pair.replica("dir/other").exists());
    pair.say(kept(source.unlink("two"), &aside()));
    let position = pair.applier().replica().applied();
    pair.applier().take_item(position, ItemNumber(9), LaneItem::End, Bytes::new()).unwrap();
    assert_eq!((pair.aside(), names_of_kept(&pair)), (two(), vec![1]));
    pair.assert_same();
}

/// The name went before the copy was on the disk: a power loss left a file of zeros.
#[test]
fn no_name_goes_before_its_copy_is_on_the_disk() {
    let (mut pair, source) = pair();
    pair.say(kept(source.unlink("dir/other"), &Keeping::InPlace));
    let frame = pair.frame(&kept(source.unlink("two"), &aside()));
    let hook: failpoint::Hook = Rc::new(|place| match place {
        "sync what is kept" => Err(std::io::Error::from_raw_os_error(libc::EIO)),
        _ => Ok(()),
    });
    let failed = failpoint::with(hook, || pair.applier().handle(&frame));
    assert!(matches!(failed, Outcome::Retry(_)), "{failed:?}");
    assert!(pair.aside().is_empty() && pair.replica("two").exists());
    assert!(matches!(pair.applier().handle(&frame), Outcome::Applied));
    assert_eq!(pair.aside(), two());
}

/// A stop is heard while a large file is copied, and the next session begins it anew.
#[test]
fn a_large_copy_goes_on_no_longer_than_its_session() {
    let (mut pair, source) = pair();
    pair.say(kept(source.unlink("dir/other"), &Keeping::InPlace));
    let piece = vec![b'x'; crate::limits::KEPT_PIECE as usize / 2];
    (0..6).for_each(|number| pair.say(source.write("two", number * piece.len() as u64, &piece)));
    let frame = pair.frame(&kept(source.unlink("two"), &aside()));
    pair.applier().goes_on_while(|| false);
    let stopped = pair.applier().handle(&frame);
    assert!(matches!(stopped, Outcome::Retry(_)), "{stopped:?}");
    assert!(pair.aside().is_empty() && pair.replica("two").exists());
    // Nor is it finished by who ends the session.
    pair.applier().end_session();
    assert!(pair.aside().is_empty() && pair.replica("two").exists());
    assert!(matches!(pair.applier().handle(&frame), Outcome::Applied));
    assert_eq!(pair.aside()[0].1.len(), 6 * piece.len());
}

/// An earlier version had kept the file itself, of which another name had stayed.
#[test]
fn what_was_kept_as_a_link_is_parted_by_the_next_copy() {
    let (mut pair, source) = pair();
    let day = pair.places.limbo.join("deleted/trash/until-2999-01-01");
    fs::create_dir_all(day.join("dir")).unwrap();
    fs::hard_link(pair.replica("two"), day.join("was")).unwrap();
    // These are links of each other alone.
    fs::write(day.join("a"), "a").unwrap();
    fs::hard_link(day.join("a"), day.join("dir/b")).unwrap();
    let position = pair.applier().replica().applied();
    let keep = LaneItem::OrphanRules { rule: OrphanRule::Keep, age_ms: 0 };
    let mut all = items(&source, "two");
    all.insert(2, keep);
    all.push(LaneItem::End);
    for (number, item) in all.into_iter().enumerate() {
        pair.applier().take_item(position, ItemNumber(number as u64), item, Bytes::new()).unwrap();
    }
    pair.say(source.write("two", 0, b"new"));
    let mut links: Vec<_> = names_of_kept(&pair);
    links.sort_unstable();
    assert_eq!(links, [1, 2, 2]);
    assert_eq!(fs::read_to_string(day.join("was")).unwrap(), "two");
}

/// As [`the_last_name_in_the_set_is_kept`], while a copy runs.
#[test]
fn the_last_name_in_the_set_is_kept_while_a_copy_runs() {
    let (mut pair, source) = pair();
    fs::hard_link(source.path("two"), source.path("../outside")).unwrap();
    let position = pair.applier().replica().applied();
    for (number, item) in items(&source, "two").into_iter().enumerate() {
        pair.applier().take_item(position, ItemNumber(number as u64), item, Bytes::new()).unwrap();
    }
    // All of the directory waits, with a name of the file: it goes with it.
    assert!(!pair.replica("dir").exists());
    let other = fs::read_dir(pair.places.limbo.join("resync")).unwrap().next().unwrap().unwrap();
    fs::remove_file(other.path().join("dir/other")).unwrap();
    pair.say(kept(source.unlink("two"), &aside()));
    assert_eq!((pair.aside(), names_of_kept(&pair)), (two(), vec![1]));
    // Packets reach what goes on.
    pair.say(source.write("../outside", 0, b"goes on"));
    pair.say(source.link("../outside", "back"));
    assert_eq!(fs::read_to_string(pair.replica("back")).unwrap(), "goes on");
    assert_eq!(pair.aside(), two());
}

/// A disk that does not take the time of one file: it went to limbo, and was an orphan.
#[test]
fn what_cannot_have_its_time_is_kept() {
    for copies in [false, true] {
        let (mut pair, source) = pair();
        pair.say(source.unlink("dir/other"));
        if copies {
            let position = pair.applier().replica().applied();
            for (number, item) in items(&source, "two").into_iter().enumerate() {
                pair.applier().take_item(position, ItemNumber(number as u64), item, Bytes::new()).unwrap();
            }
        }
        pair.say(source.write("two", 3, b"!"));
        let frame = pair.frame(&kept(source.unlink("two"), &aside()));
        pair.applier = pair.applier.take().map(|applier| applier.with_patience(std::time::Duration::ZERO));
        let hook: failpoint::Hook = Rc::new(|place| match place {
            "settle one" => Err(std::io::Error::from_raw_os_error(libc::EIO)),
            _ => Ok(()),
        });
        let done = failpoint::with(hook, || pair.applier().handle(&frame));
        assert!(matches!(done, Outcome::Applied | Outcome::SetAside), "{done:?}");
        assert_eq!(pair.aside(), [("two".to_owned(), "two!".to_owned())]);
    }
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
    pair.applier().remove_overdue(0);
    assert!(!making.exists());
}
