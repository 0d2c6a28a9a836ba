//! What cannot be copied is left out, named and counted; everything else is copied, nothing that
//! the target had is lost for it, and nobody sees more than he may meanwhile.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::time::Duration;

use super::cases::{acl, set_mtime, set_xattr};
use super::*;
use crate::apply::{Fault, inode};
use crate::packet::{Attributes, BadBy, Birth, ListedObject, Name, ObjectId, Unlisted};
use crate::sys::FileHandle;
use crate::xattr::immutable;

/// Items said to a target one by one.
struct Said<'a> {
    pair: &'a Pair,
    applier: Applier,
    number: u64,
}

impl<'a> Said<'a> {
    fn begin(pair: &'a Pair) -> Said<'a> {
        let mut said = Said { pair, applier: pair.applier(), number: 0 };
        let (root, attributes) = (said.id("."), said.attributes("."));
        said.say(LaneItem::Begin).unwrap();
        said.say(LaneItem::Root { object: root, attributes, xattrs: Vec::new() }).unwrap();
        said
    }

    fn say(&mut self, item: LaneItem) -> Result<Vec<TargetMessage>, Fault> {
        self.say_with(item, b"")
    }

    fn say_with(&mut self, item: LaneItem, payload: &'static [u8]) -> Result<Vec<TargetMessage>, Fault> {
        self.number += 1;
        let (number, payload) = (ItemNumber(self.number), Bytes::from_static(payload));
        self.applier.take_item(position(), number, item, payload)
    }

    fn end(&mut self) -> (u64, LeftOut) {
        let answers = self.say(LaneItem::End).unwrap();
        let [TargetMessage::Resynchronised { orphans, left_out, .. }] = &answers[..] else {
            panic!("{answers:?}")
        };
        (*orphans, left_out.clone())
    }

    fn open(&self, name: &str) -> File {
        File::open(self.pair.source.join(name)).unwrap()
    }

    fn id(&self, name: &str) -> ObjectId {
        let file = self.open(name);
        ObjectId::at_first_sight(3, &FileHandle::of(file.as_fd()).unwrap(), file.metadata().unwrap().ino())
    }

    fn attributes(&self, name: &str) -> Attributes {
        attributes(&stat(self.open(name).as_fd()).unwrap())
    }

    fn listing(&self, names: &[&str], unlisted: Option<Unlisted>) -> LaneItem {
        let listed = |name: &&str| ListedObject {
            name: Name::new(name.as_bytes()).unwrap(),
            object: self.id(name),
            birth: Birth::File,
            attributes: self.attributes(name),
            xattrs: Vec::new(),
            large_xattrs: false,
            size: self.open(name).metadata().unwrap().len(),
            links: 1,
            suspect: false,
        };
        let (dir, dir_mtime) = (self.id("."), self.attributes(".").mtime);
        let entries = names.iter().map(listed).collect();
        LaneItem::Listing { dir, dir_mtime, entries, unlisted, first: true, last: true }
    }
}

fn left_out(line: &str) -> LaneItem {
    let mut left_out = LeftOut::default();
    left_out.add(line);
    LaneItem::LeftOut { left_out }
}

fn started() -> Pair {
    let pair = Pair::new();
    for name in ["one", "two", "three"] {
        fs::write(pair.source.join(name), name).unwrap();
    }
    pair.converges();
    pair
}

/// One file with many large attributes, which its owner can set, kept a whole directory from being
/// copied: they did not fit into one item.
#[test]
fn large_attributes_travel_in_items_of_their_own() {
    let pair = Pair::in_memory();
    let root = &pair.source;
    fs::write(root.join("big"), "b").unwrap();
    fs::write(root.join("many"), "m").unwrap();
    fs::create_dir(root.join("dir")).unwrap();
    for number in 0..13 {
        set_xattr(&root.join("big"), &format!("user.{number}"), &vec![number; 65_536]);
        set_xattr(&root.join("dir"), &format!("user.{number}"), &vec![number; 30_000]);
        set_xattr(root, &format!("trusted.{number}"), &vec![number; 5_000]);
    }
    for number in 0..3_000 {
        set_xattr(&root.join("many"), &format!("user.n{number:06}"), b"v");
    }
    set_xattr(&root.join("big"), "system.posix_acl_access", &acl());
    set_xattr(&root.join("dir"), "system.posix_acl_default", &acl());
    fs::hard_link(root.join("big"), root.join("dir/again")).unwrap();
    fs::write(root.join("dir/file"), "f").unwrap();
    let outcome = pair.converges();
    assert_eq!(outcome.report.copied, 3);
    assert_eq!(pair.converges().report.copied, 0);
    rustix::fs::removexattr(root.join("big"), "user.3").unwrap();
    set_xattr(&root.join("big"), "user.4", b"other");
    set_xattr(&root.join("dir"), "user.5", b"other");
    assert_eq!(pair.converges().report.copied, 0);
    fs::write(root.join("big"), "more").unwrap();
    assert_eq!(pair.converges().report.copied, 1);
}

/// A name that the source could not read was taken for one that is not there.
#[test]
fn what_the_source_cannot_read_stays_as_it_is() {
    let pair = started();
    let mut said = Said::begin(&pair);
    let names = Unlisted::These(vec![Name::new(b"one").unwrap()]);
    said.say(said.listing(&["three"], Some(names))).unwrap();
    said.say(left_out("one: cannot be read")).unwrap();
    let (orphans, left_out) = said.end();
    assert_eq!((orphans, left_out.count, left_out.lines()), (1, 1, vec!["one: cannot be read".into()]));
    drop(said);
    assert_eq!(tree::names(pair.replica()), [Path::new("one"), Path::new("three")]);
    let data = pair.open_replica().data();
    assert!(data.state == DataState::Bad && data.in_line && data.reason.unwrap().contains("one: cannot"));
    assert_eq!(pair.converges().left_out, LeftOut::default());
}

#[test]
fn a_listing_that_was_cut_off_makes_no_orphans() {
    let pair = started();
    let mut said = Said::begin(&pair);
    said.say(said.listing(&["three"], Some(Unlisted::TheRest))).unwrap();
    said.say(left_out(".: cannot be listed")).unwrap();
    assert_eq!(said.end().0, 0);
    assert_eq!(tree::names(pair.replica()), [Path::new("one"), Path::new("three"), Path::new("two")]);
}

/// The old copy may be the only one that can still be read.
#[test]
fn a_file_that_cannot_be_read_keeps_its_old_copy() {
    let pair = started();
    fs::write(pair.source.join("one"), "changed").unwrap();
    let mut said = Said::begin(&pair);
    let object = said.id("one");
    let wanted = said.say(said.listing(&["one", "two", "three"], None)).unwrap();
    assert_eq!(wanted, [TargetMessage::Wanted { listing: ItemNumber(3), objects: vec![object] }]);
    said.say(LaneItem::Leave { object }).unwrap();
    said.say(left_out("one: cannot be read")).unwrap();
    assert_eq!(said.end().1.count, 1);
    drop(said);
    assert_eq!(fs::read_to_string(pair.replica().join("one")).unwrap(), "one");
    assert_eq!(pair.converges().report.copied, 1);
}

/// One object of the replica that nobody can change kept the copy from its end.
#[test]
fn an_object_that_the_target_cannot_change_is_left_out() {
    let pair = started();
    fs::create_dir(pair.source.join("dir")).unwrap();
    fs::write(pair.source.join("dir/file"), "x").unwrap();
    pair.converges();
    for name in ["one", "dir"] {
        immutable(&pair.replica().join(name), true);
    }
    fs::write(pair.source.join("one"), "changed").unwrap();
    fs::write(pair.source.join("two"), "changed").unwrap();
    fs::remove_file(pair.source.join("three")).unwrap();
    fs::create_dir(pair.source.join("dir/new")).unwrap();
    fs::write(pair.source.join("dir/new/below"), "x").unwrap();
    let outcome = pair.copy();
    for name in ["one", "dir"] {
        immutable(&pair.replica().join(name), false);
    }
    let lines = outcome.left_out.lines().join("\n");
    assert!(lines.contains("one: the target:") && lines.contains("dir/new: the target:"), "{lines}");
    let read = |name: &str| fs::read_to_string(pair.replica().join(name)).unwrap();
    assert_eq!((read("one").as_str(), read("two").as_str()), ("one", "changed"));
    assert!(!pair.replica().join("three").exists());
    assert_eq!(pair.converges().left_out, LeftOut::default());
}

#[test]
fn only_what_adds_up_to_its_size_is_a_file() {
    let pair = started();
    fs::write(pair.source.join("one"), "0123456789").unwrap();
    let mut said = Said::begin(&pair);
    said.say(said.listing(&["one", "two", "three"], None)).unwrap();
    let (object, attributes) = (said.id("one"), said.attributes("one"));
    let close = |hole, size| LaneItem::CloseContent { object, hole, size, attributes, xattrs: Vec::new() };
    said.say(LaneItem::OpenContent { object }).unwrap();
    let mut refused = |item, payload: &'static [u8]| {
        assert!(matches!(said.say_with(item, payload), Err(Fault::Refused(_))));
    };
    refused(LaneItem::Content { object, hole: 0, offset: 2 }, b"234");
    refused(LaneItem::Content { object, hole: 2, offset: 2 }, b"");
    refused(LaneItem::Content { object, hole: u64::MAX, offset: u64::MAX }, b"2");
    said.say_with(LaneItem::Content { object, hole: 2, offset: 2 }, b"234").unwrap();
    let mut refused = |item, payload: &'static [u8]| {
        assert!(matches!(said.say_with(item, payload), Err(Fault::Refused(_))));
    };
    refused(LaneItem::Content { object, hole: 0, offset: 3 }, b"3");
    refused(close(0, 10), b"");
    refused(close(4, 10), b"");
    refused(LaneItem::End, b"");
    said.say(close(5, 10)).unwrap();
    said.end();
    assert_eq!(fs::read(pair.replica().join("one")).unwrap(), b"\0\x00234\0\0\0\0\0");
}

/// A directory that somebody takes away while it is copied held up the copy, and every change behind it.
#[test]
fn a_directory_that_is_taken_away_holds_up_nothing() {
    let pair = started();
    fs::create_dir(pair.source.join("dir")).unwrap();
    fs::write(pair.source.join("dir/file"), "x").unwrap();
    let inode = fs::metadata(pair.source.join("dir")).unwrap().ino();
    let Copying { items, answers, source, .. } = Copying::begin(&pair.source, None, 1, (None, None));
    let (mut applier, mut is_taken) = (pair.applier().with_patience(Duration::ZERO), false);
    for NumberedItem { number, item, payload } in items {
        if matches!(&item, LaneItem::Listing { dir, .. } if dir.inode == inode) {
            fs::remove_dir_all(pair.replica().join("dir")).unwrap();
            is_taken = true;
        }
        for message in applier.take_item(position(), number, item, payload).unwrap() {
            answers.send(answer(message)).unwrap();
        }
    }
    assert!(is_taken && source.join().unwrap().is_ok());
    let data = applier.data();
    assert!(data.state == DataState::Bad && data.reason.unwrap().contains("the target: "));
    drop(applier);
    pair.converges();
}

/// Content that was made private at the source went into a file that everybody could still read.
#[test]
fn new_content_is_never_in_a_file_with_its_old_rights() {
    let pair = Pair::new();
    let (source, copy) = (pair.source.join("file"), pair.replica().join("file"));
    fs::write(&source, "for all").unwrap();
    chown(&source, Some(1234), Some(1234)).unwrap();
    pair.converges();
    fs::write(&source, vec![b's'; 1_000_000]).unwrap();
    chown(&source, Some(77), Some(78)).unwrap();
    fs::set_permissions(&source, fs::Permissions::from_mode(0o640)).unwrap();
    let Copying { items, answers, source, .. } = Copying::begin(&pair.source, None, 1, (None, None));
    let (mut applier, mut seen) = (pair.applier(), 0);
    for NumberedItem { number, item, payload } in items {
        let is_content = matches!(item, LaneItem::OpenContent { .. } | LaneItem::Content { .. });
        for message in applier.take_item(position(), number, item, payload).unwrap() {
            answers.send(answer(message)).unwrap();
        }
        if is_content {
            let meta = fs::metadata(&copy).unwrap();
            assert_eq!((meta.mode() & 0o077, meta.uid(), meta.gid()), (0, 0, 0));
            seen += 1;
        }
    }
    assert!(seen > 2 && source.join().unwrap().is_ok());
    pair.check_equal();
}

/// Between two owners the old mode gave rights to the new group, which neither side gives it.
#[test]
fn a_change_of_owner_gives_nobody_what_neither_side_gives() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    let mode = || fs::metadata(&path).unwrap().mode() & 0o7777;
    fs::write(&path, "x").unwrap();
    chown(&path, Some(1), Some(1)).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o664)).unwrap();
    let after = Attributes { mode: 0o600, uid: 2, gid: 2, mtime: Timestamp::default() };
    inode::make_owner(File::open(&path).unwrap(), &after).unwrap();
    assert_eq!((mode(), fs::metadata(&path).unwrap().uid()), (0o600, 2));
    // An ACL that goes leaves its mask behind as the rights of the group.
    set_xattr(&path, "system.posix_acl_access", &acl());
    assert_eq!(mode() & 0o070, 0o070);
    inode::drop_xattrs(File::open(&path).unwrap(), |_| false).unwrap();
    assert_eq!(mode() & 0o070, 0);
}

/// A replica that is bad for what was left out is so durably, and a new copy makes it plainly bad.
#[test]
fn being_in_line_is_remembered_and_ends_with_the_next_copy() {
    let pair = started();
    let mut said = Said::begin(&pair);
    said.say(said.listing(&["one", "two", "three"], None)).unwrap();
    said.say(left_out("elsewhere: cannot be read")).unwrap();
    said.end();
    assert_eq!(said.applier.proof().bad_by, BadBy::Aside);
    drop(said);
    let mut replica = pair.open_replica();
    assert!(replica.data().in_line && replica.data().state == DataState::Bad);
    replica.durable_point().unwrap();
    assert!(replica.data().in_line);
    drop(replica);
    pair.copy_interrupted(2);
    assert!(!pair.open_replica().data().in_line);
    set_mtime(&pair.source.join("one"), 5, 5);
    pair.converges();
    assert!(!pair.open_replica().data().in_line);
}
