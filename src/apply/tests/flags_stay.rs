//! A name goes from a directory that lets nothing go: the directory has its flags again afterwards.

use std::fs;
use std::os::fd::AsFd;

use super::flags::flagged;
use super::keep::kept;
use super::*;
use crate::xattr::{FLAGS, Flags};

const LOG: Flags = Flags::APPEND_ONLY;

fn flags_of(path: &Path) -> Flags {
    Flags::of(tree::o_path(path)).unwrap()
}

fn flag(path: &Path, flags: Flags) {
    flags.set(tree::o_path(path).as_fd()).unwrap();
}

/// What had stayed under a name gave way, and the good replica's directory was append-only no more.
#[test]
fn of_a_directory_in_which_something_gives_way() {
    let (mut pair, _unflagged) = flagged();
    let source = Source { root: pair.source.root.clone() };
    pair.say(source.mkdir("log", 0o755));
    pair.say(source.create("log/one", 0o644));
    pair.say(kept(source.unlink("log/one"), &Keeping::InPlace));
    pair.say(source.set_flags("log", LOG));
    pair.applier().set_pending_times().unwrap();
    assert_eq!(flags_of(&pair.replica("log")), LOG);
    pair.say(source.create("log/one", 0o640));
    pair.applier().set_pending_times().unwrap();
    assert_eq!(flags_of(&pair.replica("log")), LOG);
    pair.assert_same();
}

fn listed(source: &Source, path: &str) -> ListedObject {
    let (Op::Create { at, object, birth, attributes, .. }, _) = source.created(path, Birth::Directory) else {
        panic!("not a creation")
    };
    let value = flags_of(&source.path(path)).value();
    let flags = |value| Xattr { name: Bounded(FLAGS.to_vec()), value: Bounded(value) };
    ListedObject {
        name: at.name,
        object,
        birth,
        attributes,
        xattrs: value.map(flags).into_iter().collect(),
        large_xattrs: false,
        size: 0,
        links: 1,
        suspect: false,
    }
}

fn listing(source: &Source, dir: &str, names: &[&str]) -> LaneItem {
    let entries = names.iter().map(|name| listed(source, name)).collect();
    let (dir, dir_mtime) = (source.id(dir), source.mtime(dir));
    LaneItem::Listing { dir, dir_mtime, entries, unlisted: None, first: true, last: true }
}

/// A copy that came to rest in its middle had set them, and took a directory from there to where the source has it.
#[test]
fn of_a_directory_that_a_copy_moves_something_out_of() {
    for comes_first in ["into", "log"] {
        let (mut pair, _unflagged) = flagged();
        let source = Source { root: pair.source.root.clone() };
        for name in ["into", "log", "log/moved"] {
            pair.say(source.mkdir(name, 0o755));
        }
        pair.say(source.set_flags("log", LOG));
        pair.applier().set_pending_times().unwrap();
        flag(&source.path("log"), Flags::NONE);
        fs::rename(source.path("log/moved"), source.path("into/moved")).unwrap();
        flag(&source.path("log"), LOG);
        let attributes = Attributes { mode: 0o755, uid: 0, gid: 0, mtime: source.mtime("") };
        let into = listing(&source, "into", &["into/moved"]);
        let log = listing(&source, "log", &[]);
        let [first, second] = if comes_first == "into" { [into, log] } else { [log, into] };
        let items = [
            LaneItem::Begin,
            LaneItem::Root { object: source.id(""), attributes, xattrs: Vec::new() },
            LaneItem::OrphanRules { rule: OrphanRule::Keep, age_ms: 0 },
            listing(&source, "", &["into", "log"]),
            first,
            second,
            listing(&source, "into/moved", &[]),
            LaneItem::End,
        ];
        let at = pair.applier().replica().applied();
        for (number, item) in items.into_iter().enumerate() {
            pair.applier().take_item(at, ItemNumber(number as u64), item, Bytes::new()).unwrap();
            if (3..6).contains(&number) {
                pair.applier().replica().settle_times().unwrap();
            }
        }
        assert_eq!(pair.applier().data().state, DataState::Good, "{comes_first}");
        assert!(pair.replica("into/moved").is_dir());
        assert_eq!(flags_of(&pair.replica("log")), LOG, "{comes_first}");
        assert_eq!(
            Source { root: pair.places.root.clone() }.mtime("log"),
            source.mtime("log"),
            "{comes_first}"
        );
    }
}

/// What stood in the way of an op that was given up went from there.
#[test]
fn of_a_directory_from_which_something_goes_for_what_is_set_aside() {
    let (mut pair, _unflagged) = flagged();
    let source = Source { root: pair.source.root.clone() };
    pair.say(source.mkdir("log", 0o755));
    pair.say(source.set_flags("log", LOG));
    pair.applier().set_pending_times().unwrap();
    fs::write(pair.replica("log/one"), "somebody else's").unwrap();
    pair.applier = pair.applier.take().map(|applier| applier.with_patience(std::time::Duration::ZERO));
    let said = source.create("log/one", 0o640);
    assert!(matches!(pair.try_say(&said), Outcome::SetAside));
    pair.applier().set_pending_times().unwrap();
    assert!(pair.replica("log/one").metadata().unwrap().len() == 0);
    assert_eq!(flags_of(&pair.replica("log")), LOG);
}

/// A directory lay below the one that is to come into it, in one that lets nothing go.
#[test]
fn of_a_directory_out_of_which_what_lies_below_is_taken() {
    let (mut pair, _unflagged) = flagged();
    let source = Source { root: pair.source.root.clone() };
    for name in ["above", "above/log", "above/log/below"] {
        pair.say(source.mkdir(name, 0o755));
    }
    pair.say(source.set_flags("above/log", LOG));
    pair.applier().set_pending_times().unwrap();
    flag(&source.path("above/log"), Flags::NONE);
    fs::rename(source.path("above/log/below"), source.path("below")).unwrap();
    fs::rename(source.path("above"), source.path("below/above")).unwrap();
    flag(&source.path("below/above/log"), LOG);
    let attributes = Attributes { mode: 0o755, uid: 0, gid: 0, mtime: source.mtime("") };
    let items = [
        LaneItem::BeginOwed { percent_max: None, compares: false },
        LaneItem::Root { object: source.id(""), attributes, xattrs: Vec::new() },
        listing(&source, "below", &["below/above"]),
        listing(&source, "", &["below"]),
        listing(&source, "below/above/log", &[]),
        LaneItem::End,
    ];
    let at = pair.applier().replica().applied();
    for (number, item) in items.into_iter().enumerate() {
        pair.applier().take_item(at, ItemNumber(number as u64), item, Bytes::new()).unwrap();
    }
    assert_eq!(pair.applier().data().state, DataState::Good);
    assert!(pair.replica("below/above/log").is_dir());
    assert_eq!(flags_of(&pair.replica("below/above/log")), LOG);
}
