//! Immutable and append-only objects: their flags are cleared before they are changed, and set last.

use std::cell::Cell;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;

use super::*;
use crate::failpoint;
use crate::limits::PENDING_TIMES_LOG_MAX;
use crate::random::Random;
use crate::xattr::{Flags, Unflagged, immutable};

const LOG: Flags = Flags::APPEND_ONLY;
const FIXED: Flags = Flags::IMMUTABLE;

impl Source {
    /// As who has had it open for writing since before.
    fn lifted(&self, paths: &[&str], change: impl FnOnce(&Source) -> Said) -> Said {
        let files: Vec<_> = paths.iter().map(|path| tree::o_path(&self.path(path))).collect();
        let held: Vec<_> = files.iter().map(|file| Flags::of(file).unwrap()).collect();
        files.iter().for_each(|file| Flags::NONE.set(file.as_fd()).unwrap());
        let said = change(self);
        files.iter().zip(held).for_each(|(file, held)| held.set(file.as_fd()).unwrap());
        said
    }

    fn append(&self, path: &str, bytes: &[u8]) -> Said {
        let offset = fs::metadata(self.path(path)).unwrap().len();
        OpenOptions::new().append(true).open(self.path(path)).unwrap().write_all(bytes).unwrap();
        let result = ContentResult { size: offset + bytes.len() as u64, mtime: self.mtime(path), mode: None };
        (Op::Write { object: self.id(path), offset, result }, bytes.to_vec())
    }
}

type Step = fn(&Source) -> Said;

const STORY: [Step; 24] = [
    |source| source.mkdir("d", 0o755),
    |source| source.create("d/f", 0o644),
    |source| source.write("d/f", 0, b"before"),
    |source| source.create("log", 0o600),
    |source| source.set_flags("log", LOG),
    |source| source.append("log", b"one"),
    |source| source.append("log", b"two"),
    |source| source.set_flags("d/f", FIXED),
    |source| source.set_flags("d", FIXED),
    |source| source.lifted(&["d/f"], |source| source.write("d/f", 2, b"between")),
    |source| source.lifted(&["d/f"], |source| source.chmod("d/f", 0o400)),
    |source| source.lifted(&["d/f"], |source| source.set_xattr("d/f", "user.x", b"1")),
    |source| source.lifted(&["d"], |source| source.create("d/new", 0o644)),
    |source| source.lifted(&["d"], |source| source.rename("d/new", "d/other")),
    |source| source.lifted(&["d", "d/f"], |source| source.link("d/f", "link")),
    |source| source.lifted(&["d", "d/f"], |source| source.rename("d/other", "d/f")),
    |source| source.lifted(&["d"], |source| source.rename("d", "e")),
    |source| source.lifted(&["link"], |source| source.resize("link", 3)),
    |source| source.set_flags("link", Flags::NONE),
    |source| source.append("log", b"three"),
    |source| source.set_flags("log", Flags::NO_DUMP),
    |source| source.write("log", 1, b"NE"),
    |source| source.lifted(&["e"], |source| source.unlink("e/f")),
    |source| source.set_flags("e", LOG),
];

pub fn flagged() -> (Pair, Unflagged) {
    let pair = Pair::new();
    let unflagged = Unflagged(pair.temp.path().to_owned());
    (pair, unflagged)
}

#[test]
fn what_is_immutable_is_changed_as_on_the_source() {
    let (mut pair, _unflagged) = flagged();
    let source = Source { root: pair.source.root.clone() };
    for (number, step) in STORY.iter().enumerate() {
        eprintln!("step {number}");
        pair.say(step(&source));
        if number % 3 == 0 {
            pair.assert_same();
        }
    }
    pair.assert_same();
    assert_eq!(pair.applier().replica().withheld().counts(), WithheldCounts::default());
}

/// Fails at the so manieth place.
fn failing(at: u64) -> failpoint::Hook {
    let left = Cell::new(at);
    Rc::new(move |_| match left.replace(left.get().saturating_sub(1)) {
        1 => Err(io::Error::other("killed here")),
        _ => Ok(()),
    })
}

/// Cleared and never set again, or an op done twice: a target that is killed anywhere on the way.
#[test]
fn wherever_it_is_killed_flags_are_set_in_the_end() {
    for seed in 1..=60 {
        println!("seed {seed}");
        let mut random = Random::new(seed);
        let (mut pair, _unflagged) = flagged();
        let source = Source { root: pair.source.root.clone() };
        for step in STORY {
            let said = step(&source);
            let frame = pair.frame(&said);
            while !matches!(
                failpoint::with(failing(random.below(16)), || pair.applier().handle(&frame)),
                Outcome::Applied
            ) {
                pair.crash();
            }
            match random.below(4) {
                0 => pair.crash(),
                1 => {
                    let hook = failing(random.below(8));
                    if failpoint::with(hook, || pair.applier().set_pending_times()).is_err() {
                        pair.crash();
                    }
                }
                _ => {}
            }
        }
        pair.assert_same();
    }
}

/// What could not be written down was taken for written down by the next attempt: a kill after that lost it.
#[test]
fn flags_that_were_not_written_down_are_when_the_op_is_tried_again() {
    let (mut pair, _unflagged) = flagged();
    let source = Source { root: pair.source.root.clone() };
    pair.say(source.create("log", 0o600));
    pair.say(source.set_flags("log", LOG));
    pair.applier().set_pending_times().unwrap();
    let said = source.append("log", b"one");
    let frame = pair.frame(&said);
    let full: failpoint::Hook = Rc::new(|place| match place {
        "note flags" => Err(io::Error::from_raw_os_error(libc::ENOSPC)),
        _ => Ok(()),
    });
    let first = failpoint::with(full, || pair.applier().handle(&frame));
    assert!(matches!(first, Outcome::Retry(_)), "{first:?}");
    assert!(matches!(pair.applier().handle(&frame), Outcome::Applied));
    pair.crash();
    pair.applier().set_pending_times().unwrap();
    pair.assert_same();
}

/// More than the log of flags has room for: what it lacked was lost to a kill.
#[test]
fn flags_are_set_before_they_are_too_many() {
    let (mut pair, _unflagged) = flagged();
    let source = Source { root: pair.source.root.clone() };
    pair.say(source.create("log", 0o600));
    for round in 0..PENDING_TIMES_LOG_MAX / 32 + 10 {
        pair.say(source.set_flags("log", if round % 2 == 0 { Flags::NO_DUMP } else { Flags::NONE }));
    }
    let log = fs::metadata(pair.places.state.join("flags")).unwrap().len();
    assert!(log <= PENDING_TIMES_LOG_MAX, "{log} bytes");
}

/// What somebody has made immutable on the replica is written to all the same, and stays so.
#[test]
fn a_flag_of_the_replica_keeps_no_op_from_being_done() {
    let (mut pair, _unflagged) = flagged();
    pair.say(pair.source.create("f", 0o644));
    pair.applier().set_pending_times().unwrap();
    FIXED.set(fs::File::open(pair.replica("f")).unwrap().as_fd()).unwrap();
    pair.say(pair.source.write("f", 0, b"bytes"));
    pair.applier().set_pending_times().unwrap();
    let file = fs::File::open(pair.replica("f")).unwrap();
    assert_eq!((fs::read(pair.replica("f")).unwrap(), Flags::of(&file).unwrap()), (b"bytes".to_vec(), FIXED));
    pair.say(pair.source.unlink("f"));
    pair.assert_same();
}

/// A target that may set no flags, or has none: it is said, and the replica is good.
#[test]
fn flags_that_cannot_be_set_are_counted() {
    let (mut pair, _unflagged) = flagged();
    pair.say(pair.source.create("f", 0o644));
    let said = pair.source.set_flags("f", Flags::NO_DUMP);
    pair.say(said);
    let fixed = pair.source.set_flags("f", FIXED);
    fs::write(pair.temp.path().join("any"), "").unwrap();
    // Of this thread, that is.
    immutable(&pair.temp.path().join("any"), true);
    pair.say(fixed);
    pair.say(pair.source.create("g", 0o644));
    pair.applier().set_pending_times().unwrap();
    immutable(&pair.temp.path().join("any"), false);
    let withheld = pair.applier().replica().withheld();
    assert_eq!(withheld.flags.load(Relaxed), 1);
    assert_eq!(pair.applier().proof().data, DataState::Good);
    assert!(pair.replica("g").exists());
}

/// One flag does not keep another one from being set, and neither is a difference.
#[test]
fn what_takes_a_capability_is_left_out_alone() {
    let (mut pair, _unflagged) = flagged();
    fs::write(pair.temp.path().join("any"), "").unwrap();
    for name in ["f", "g"] {
        pair.say(pair.source.create(name, 0o644));
    }
    let both = pair.source.set_flags("f", Flags::from_bits(5));
    let plain = pair.source.set_flags("g", Flags::NO_DUMP);
    immutable(&pair.temp.path().join("any"), true);
    for said in [both, plain] {
        pair.say(said);
        pair.applier().set_pending_times().unwrap();
    }
    for name in ["f", "g"] {
        assert_eq!(Flags::of(fs::File::open(pair.replica(name)).unwrap()).unwrap(), Flags::NO_DUMP, "{name}");
    }
    // Another process knows it from the beginning.
    pair.crash();
    let said = pair.applier().replica().policy().flags(Flags::from_bits(7));
    immutable(&pair.temp.path().join("any"), false);
    assert_eq!(said, Flags::NO_DUMP);
}

/// An object that does not get its flags keeps nothing else from being durable, nor a copy from beginning.
#[test]
fn flags_that_cannot_be_set_now_go_aside_alone() {
    let (mut pair, _unflagged) = flagged();
    pair.applier().patience = std::time::Duration::ZERO;
    for name in ["f", "g"] {
        pair.say(pair.source.create(name, 0o644));
    }
    let refuse: failpoint::Hook = Rc::new(|place| match place {
        "flags" => Err(io::Error::from_raw_os_error(libc::EACCES)),
        _ => Ok(()),
    });
    pair.say(pair.source.set_flags("f", FIXED));
    failpoint::with(refuse.clone(), || {
        assert!(pair.applier().durable_point().is_err());
        pair.applier().durable_point().unwrap();
        let aside = pair.applier().aside();
        assert_eq!((aside.total, aside.listed[0].path.as_str()), (1, "f"), "{aside:?}");
        pair.say(pair.source.set_flags("f", Flags::NO_DUMP));
        let begin = LaneItem::Begin;
        let position = pair.applier().replica().applied();
        let answers = pair.applier().take_item(position, ItemNumber(1), begin, Bytes::new());
        assert!(answers.is_ok(), "{answers:?}");
    });
}

/// What a directory has here until it is at rest, and on the source not any more, is handed down by the file system.
#[test]
fn what_is_made_inherits_no_flag_that_its_directory_has_lost() {
    let (mut pair, _unflagged) = flagged();
    pair.say(pair.source.mkdir("d", 0o755));
    pair.say(pair.source.set_flags("d", Flags::NO_DUMP));
    pair.assert_same();
    pair.say(pair.source.set_flags("d", Flags::NONE));
    pair.say(pair.source.create("d/f", 0o644));
    pair.say(pair.source.mkdir("d/e", 0o755));
    pair.say(pair.source.create("d/e/f", 0o644));
    let held = |path: &str| Flags::of(fs::File::open(pair.replica(path)).unwrap()).unwrap();
    assert_eq!(held("d/f"), Flags::NO_DUMP, "the file system hands nothing down: this shows nothing");
    pair.assert_same();
    let held = |path: &str| Flags::of(fs::File::open(pair.replica(path)).unwrap()).unwrap();
    ["d", "d/f", "d/e", "d/e/f"].into_iter().for_each(|path| assert_eq!(held(path), Flags::NONE, "{path}"));
}

/// By hand made immutable on the replica.
#[test]
fn what_somebody_removes_is_kept_with_its_flags() {
    let (mut pair, _unflagged) = flagged();
    pair.say(pair.source.create("f", 0o644));
    pair.applier().set_pending_times().unwrap();
    FIXED.set(fs::File::open(pair.replica("f")).unwrap().as_fd()).unwrap();
    let said = pair.source.unlink("f");
    pair.say(super::keep::kept(said, &super::keep::aside()));
    assert!(!pair.replica("f").exists());
    let kept = walk(&pair.places.limbo.join("deleted"));
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert_eq!(Flags::of(fs::File::open(&kept[0]).unwrap()).unwrap(), FIXED);
}

fn walk(top: &std::path::Path) -> Vec<std::path::PathBuf> {
    let (mut found, mut waiting) = (Vec::new(), vec![top.to_owned()]);
    while let Some(dir) = waiting.pop() {
        for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() { &mut waiting } else { &mut found }.push(entry.path());
        }
    }
    found
}
