//! One object that cannot be kept in line holds up nothing but itself, and nothing silent.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use super::*;
use crate::clock;
use crate::failpoint;
use crate::xattr::{Flags, immutable};

/// No time for what may go away.
const AT_ONCE: Duration = Duration::ZERO;

impl Pair {
    pub fn with_patience(mut self, patience: Duration) -> Pair {
        self.applier = self.applier.map(|applier| applier.with_patience(patience));
        self
    }

    /// What cannot be done is given up at once. Answers whether that came to pass.
    #[track_caller]
    fn say_or_give_up(&mut self, said: &Said) -> bool {
        self.applier = self.applier.take().map(|applier| applier.with_patience(AT_ONCE));
        match self.try_say(said) {
            Outcome::Applied => false,
            Outcome::SetAside => true,
            other => panic!("{:?}: {other:?}", said.0),
        }
    }

    #[track_caller]
    fn assert_aside(&mut self, total: u64) {
        let proof = self.applier().proof();
        let expected = if total == 0 { DataState::Good } else { DataState::Bad };
        assert_eq!((proof.data, self.applier().aside().total), (expected, total));
        if total > 0 {
            assert_eq!(proof.bad_by, BadBy::Aside);
        }
    }
}

/// Nobody may change or remove it, not even root without a capability; taken off again on drop.
struct Immutable(PathBuf);

impl Immutable {
    fn new(path: &Path) -> Immutable {
        immutable(path, true);
        Immutable(path.to_owned())
    }
}

impl Drop for Immutable {
    fn drop(&mut self) {
        immutable(&self.0, false);
    }
}

/// A file that came past the mount: the target never heard of it. Everything behind its first write
/// waited for ever.
#[test]
fn an_object_that_was_never_heard_of() {
    let mut pair = Pair::new();
    let source = Source { root: pair.source.root.clone() };
    fs::write(source.path("past"), "past").unwrap();
    assert!(pair.say_or_give_up(&source.write("past", 4, b" more")));
    pair.assert_aside(1);
    assert!(pair.say_or_give_up(&source.chmod("past", 0o600)));
    assert!(!pair.say_or_give_up(&source.create("other", 0o644)));
    assert!(!pair.say_or_give_up(&source.write("other", 0, b"bytes")));
    // Its names as well: a free one stays free, one that it takes is free for it.
    assert!(pair.say_or_give_up(&source.rename("past", "other")));
    assert!(!pair.replica("other").exists() && !pair.replica("past").exists());
    assert!(!pair.say_or_give_up(&source.create("past", 0o640)));
    assert!(pair.say_or_give_up(&source.unlink("other")));
    pair.assert_aside(1);
    pair.crash();
    pair.assert_aside(1);
    assert!(pair.applier().aside().listed[0].reason.contains("is not in the replica"));
    // All that is known of is as it should be.
    fs::write(source.path("mark"), "").unwrap();
    fs::remove_file(source.path("mark")).unwrap();
    assert_eq!(names(&source.root), names(&pair.places.root));
}

/// What comes into a set with more than its packets tell is no fault of an object: the replica waits for a copy of
/// everything, and what is told of it until then is no fault either.
#[test]
fn what_comes_into_a_set_is_not_set_aside() {
    let mut pair = Pair::new();
    let source = Source { root: pair.source.root.clone() };
    fs::create_dir(source.path("d")).unwrap();
    fs::write(source.path("d/f"), "f").unwrap();
    let object = source.id("d");
    let at = Entry { dir: source.id(""), name: Name::new(b"d").unwrap() };
    let came = (Op::Place { object, at, dir_mtime: source.mtime(""), replaced: None }, Vec::new());
    assert!(pair.say_or_give_up(&came));
    let proof = pair.applier().proof();
    assert_eq!((proof.data, proof.bad_by), (DataState::Bad, BadBy::Anything));
    assert!(pair.say_or_give_up(&source.write("d/f", 1, b"ile")));
    assert!(pair.say_or_give_up(&source.create("d/g", 0o644)));
    assert!(!pair.say_or_give_up(&source.create("h", 0o644)));
    assert_eq!(pair.applier().aside().total, 0);
}

/// A flag that somebody set on the replica. What was left out of its content must not be taken for
/// equal by the next copy, whatever size and time say.
#[test]
fn a_file_that_nobody_may_change() {
    let mut pair = Pair::new();
    let source = Source { root: pair.source.root.clone() };
    pair.say(source.create("f", 0o644));
    pair.say(source.write("f", 0, b"before"));
    pair.applier().set_pending_times().unwrap();
    pair.crash();
    let flag = Immutable::new(&pair.replica("f"));
    assert!(pair.say_or_give_up(&source.write("f", 0, b"after!")));
    assert!(!pair.say_or_give_up(&source.create("g", 0o644)));
    pair.assert_aside(1);
    // Its name is taken away as far as the kernel lets it; the next owner of the name comes there.
    drop(flag);
    assert!(!pair.say_or_give_up(&source.chmod("f", 0o640)));
    let mtime = source.mtime("f");
    assert!(!pair.say_or_give_up(&source.utimes("f", mtime)));
    pair.applier().set_pending_times().unwrap();
    let flags = Flags::of(fs::File::open(pair.replica("f")).unwrap()).unwrap();
    assert!(!flags.is_hindering(), "what was cleared by hand was set again");
    assert_eq!(fs::read(pair.replica("f")).unwrap(), b"before");
    pair.assert_aside(1);
    let list = Index::open(&pair.places.state.join("incomplete")).unwrap();
    assert!(list.get(source.id("f")).unwrap().is_some(), "the next copy must not believe size and time");
}

/// A time that cannot be set once kept everything else from being made durable.
#[test]
fn a_time_that_cannot_be_set() {
    let mut pair = Pair::new().with_patience(AT_ONCE);
    let source = Source { root: pair.source.root.clone() };
    pair.say(source.create("f", 0o644));
    pair.say(source.create("g", 0o644));
    let _flag = Immutable::new(&pair.replica("f"));
    let fault = pair.applier().durable_point().unwrap_err();
    let Fault::Time { object, .. } = &fault else { panic!("{fault}") };
    assert_eq!(*object, source.id("f"));
    pair.applier().durable_point().unwrap();
    pair.assert_aside(1);
    assert_eq!(pair.applier().acknowledged().durable, pair.applier().acknowledged().applied);
}

/// Each packet that went through was new patience for it: while programs worked nothing became durable.
#[test]
fn a_time_is_given_up_while_packets_go_on() {
    let mut pair = Pair::new().with_patience(Duration::from_secs(30));
    let source = Source { root: pair.source.root.clone() };
    pair.say(source.create("f", 0o644));
    pair.say(source.create("g", 0o644));
    let _flag = Immutable::new(&pair.replica("f"));
    let start = std::time::Instant::now();
    let mut is_durable = false;
    for second in 0..=31 {
        clock::set(Some(start + Duration::from_secs(second)));
        pair.say(source.write("g", second, b"."));
        is_durable = pair.applier().durable_point().is_ok();
        assert!(second > 30 || !is_durable, "given up after {second} s");
    }
    clock::set(None);
    assert!(is_durable);
    pair.assert_aside(1);
}

/// Only those that are listed were remembered: the time of any other was given up again and again.
#[test]
fn more_times_that_cannot_be_set_than_are_listed() {
    let mut pair = Pair::new().with_patience(AT_ONCE);
    let source = Source { root: pair.source.root.clone() };
    let many = crate::limits::ASIDE_LISTED_MAX + 5;
    let mut flags = Vec::new();
    for number in 0..many {
        let name = format!("f{number}");
        pair.say(source.create(&name, 0o644));
        let flag = Immutable::new(&pair.replica(&name));
        flags.push(flag);
    }
    for _ in 0..crate::limits::ASIDE_LISTED_MAX {
        let fault = pair.applier().durable_point().unwrap_err();
        assert!(matches!(fault, Fault::Time { .. }), "{fault}");
    }
    pair.applier().durable_point().unwrap();
    pair.assert_aside(many as u64);
}

/// What somebody else put in the way goes to limbo when its time is over, with all below it.
#[test]
fn what_is_in_the_way_goes_to_limbo() {
    let mut pair = Pair::new();
    let source = Source { root: pair.source.root.clone() };
    pair.say(source.create("a", 0o644));
    for name in ["f", "dir", "b"] {
        fs::create_dir(pair.replica(name)).unwrap();
        fs::write(pair.replica(name).join("precious"), name).unwrap();
    }
    assert!(pair.say_or_give_up(&source.create("f", 0o644)));
    assert!(pair.say_or_give_up(&source.mkdir("dir", 0o755)));
    assert!(!pair.say_or_give_up(&source.create("dir/inside", 0o644)));
    assert!(pair.say_or_give_up(&source.rename("a", "b")));
    pair.assert_aside(3);
    pair.assert_same();
    let limbo = fs::read_dir(pair.places.limbo.join("resync")).unwrap();
    let kept = limbo.flat_map(|batch| fs::read_dir(batch.unwrap().path()).unwrap()).count();
    assert_eq!(kept, 3);
}

/// A directory that was moved out: what is in it waits for nobody, and nothing is done outside.
#[test]
fn a_directory_that_is_elsewhere() {
    let mut pair = Pair::new();
    let source = Source { root: pair.source.root.clone() };
    pair.say(source.mkdir("dir", 0o755));
    pair.say(source.create("dir/a", 0o644));
    pair.applier().set_pending_times().unwrap();
    pair.crash();
    let outside = pair.temp.path().join("outside");
    fs::rename(pair.replica("dir"), &outside).unwrap();
    let create = source.create("dir/f", 0o644);
    let Outcome::Retry(retry) = pair.try_say(&create) else { panic!("it went through") };
    // It may come back in time.
    assert_eq!(retry.stuck, Stuck::Object, "{}", retry.fault);
    assert!(pair.say_or_give_up(&create));
    assert!(pair.say_or_give_up(&source.write("dir/f", 0, b"bytes")));
    assert!(pair.say_or_give_up(&source.write("dir/a", 0, b"bytes")));
    assert!(!pair.say_or_give_up(&source.create("other", 0o644)));
    assert_eq!(fs::read(outside.join("a")).unwrap(), b"");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
}

/// An object was to be set aside where there was no room for the mark: the source was told of a target
/// that is stuck, not of one that is full, and never looked for what would make room.
#[test]
fn a_full_target_says_so_where_nothing_passes() {
    let mut pair = Pair::new();
    let source = Source { root: pair.source.root.clone() };
    fs::write(source.path("past"), "past").unwrap();
    let (create, write) = (source.create("f", 0o644), source.write("past", 4, b" more"));
    let frame = pair.frame(&create);
    let header = FrameHeader::Skip(SkipHeader { first: frame.position.sequence });
    assert_nothing_passes(&mut pair, &Frame { header, payload: Bytes::new(), ..frame });
    pair.say(create);
    let frame = pair.frame(&write);
    assert_nothing_passes(&mut pair, &frame);
    assert!(pair.say_or_give_up(&write));
}

/// The frame needs a slot to be written, and none can be.
#[track_caller]
fn assert_nothing_passes(pair: &mut Pair, frame: &Frame) {
    for (number, stuck) in [(libc::ENOSPC, Stuck::Full), (libc::EROFS, Stuck::Target)] {
        failpoint::set(Some(Rc::new(move |place| match place {
            "slot" => Err(io::Error::from_raw_os_error(number)),
            _ => Ok(()),
        })));
        let outcome = pair.applier().handle(frame);
        failpoint::set(None);
        match outcome {
            Outcome::Retry(retry) => assert_eq!(retry.stuck, stuck, "{}", retry.reason),
            other => panic!("{other:?}"),
        }
    }
}

/// ext4 takes 4 KiB of attributes, the source's file system more. The file itself is in line.
#[test]
fn an_attribute_that_is_too_large_there() {
    let mut pair = Pair::new();
    let source = Source { root: pair.source.root.clone() };
    let (create, write) = {
        let (mut op, payload) = source.create("f", 0o644);
        let Op::Create { xattrs, .. } = &mut op else { unreachable!() };
        let value = |name: &str, len| Xattr { name: Bounded(name.into()), value: Bounded(vec![7; len]) };
        xattrs.extend([value("user.big", 65_536), value("user.small", 3)]);
        ((op, payload), source.write("f", 0, b"content"))
    };
    if !pair.say_or_give_up(&create) {
        eprintln!("NOT TESTED: this file system takes attributes of any size");
        return;
    }
    pair.assert_aside(1);
    assert!(!pair.say_or_give_up(&write));
    assert_eq!(fs::read(pair.replica("f")).unwrap(), b"content");
    let names = inode::list_xattrs(fs::File::open(pair.replica("f")).unwrap()).unwrap();
    assert_eq!(names, [Bounded(b"user.small".to_vec())], "what it takes is there");
    pair.crash();
    pair.assert_aside(1);
    // Only what proves it makes it good, and forgets the list.
    pair.applier().replica().mark_good().unwrap();
    pair.assert_aside(0);
}

/// The list is bounded, and counts on.
#[test]
fn many_objects_are_counted() {
    let mut pair = Pair::new();
    let source = Source { root: pair.source.root.clone() };
    let many = crate::limits::ASIDE_LISTED_MAX + 20;
    for number in 0..many {
        let name = format!("past{number}");
        fs::write(source.path(&name), "").unwrap();
        assert!(pair.say_or_give_up(&source.chmod(&name, 0o600)));
    }
    let aside = pair.applier().aside();
    assert_eq!((aside.total, aside.listed.len()), (many as u64, crate::limits::ASIDE_LISTED_MAX));
}

fn names(dir: &Path) -> Vec<std::ffi::OsString> {
    let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    names
}
