//! A sync that failed: the kernel may have dropped what it could not write, and says so once.

use std::cell::Cell;
use std::rc::Rc;

use super::*;
use crate::failpoint;

/// Lets the next sync of this thread fail; nothing else.
fn next_sync_fails() {
    let fails = Cell::new(true);
    failpoint::set(Some(Rc::new(move |place| match place == "sync" && fails.take() {
        true => Err(std::io::Error::from_raw_os_error(libc::EIO)),
        false => Ok(()),
    })));
}

/// The items of a copy of a tree with one file, without its content.
pub fn items(source: &Source, name: &str) -> Vec<LaneItem> {
    let (Op::Create { at, dir_mtime, object, birth, attributes, xattrs }, _) =
        source.created(name, Birth::File)
    else {
        panic!("not a creation")
    };
    let size = std::fs::metadata(source.path(name)).unwrap().len();
    let root = Attributes { mode: 0o755, uid: 0, gid: 0, mtime: dir_mtime };
    let (name, dir, suspect, links) = (at.name, at.dir, false, 1);
    let one =
        ListedObject { name, object, birth, attributes, xattrs, large_xattrs: false, size, links, suspect };
    vec![
        LaneItem::Begin,
        LaneItem::Root { object: dir, attributes: root, xattrs: Vec::new() },
        LaneItem::Listing { dir, dir_mtime, entries: vec![one], unlisted: None, first: true, last: true },
    ]
}

fn begin(pair: &mut Pair) -> Vec<ObjectId> {
    let mut wanted = Vec::new();
    for item in items(&pair.source, "one") {
        let answers = hand_in(pair, item).unwrap();
        for answer in answers {
            if let TargetMessage::Wanted { objects, .. } = answer {
                wanted.extend(objects);
            }
        }
    }
    wanted
}

fn hand_in(pair: &mut Pair, item: LaneItem) -> Result<Vec<TargetMessage>, Fault> {
    let at = pair.applier().replica().applied();
    pair.applier().take_item(at, ItemNumber(1), item, Bytes::new())
}

/// The end of a copy was tried again after its sync had failed; the second sync succeeded, and the
/// replica called itself good without the bytes that the kernel had dropped. A copy after that
/// trusted size and mtime of what was there.
#[test]
fn a_sync_that_failed_is_not_tried_again() {
    let mut pair = Pair::new();
    pair.say(pair.source.create("one", 0o644));
    pair.say(pair.source.write("one", 0, b"some bytes"));
    pair.applier().set_pending_times().unwrap();
    assert_eq!(begin(&mut pair), [], "it is known, and its size and mtime are right");
    next_sync_fails();
    hand_in(&mut pair, LaneItem::End).unwrap_err();
    failpoint::set(None);
    assert!(pair.applier().replica().sync_failed());
    let again = hand_in(&mut pair, LaneItem::End);
    assert!(again.is_err(), "{again:?}");
    assert!(pair.applier().durable_point().is_err());
    assert_eq!(pair.applier().replica().data().state, DataState::Bad);
    let wanted = begin(&mut pair);
    assert_eq!(wanted, [pair.source.id("one")], "all content is copied again");
    assert!(!pair.applier().replica().sync_failed());
}

/// A session that died without its end left a copy behind: nothing goes on with it.
#[test]
fn another_session_does_not_go_on_with_a_copy() {
    let mut pair = Pair::new();
    pair.say(pair.source.create("one", 0o644));
    begin(&mut pair);
    assert!(pair.applier().is_copying());
    assert_eq!(pair.applier().begin_session().data, DataState::Bad);
    assert!(!pair.applier().is_copying());
    hand_in(&mut pair, LaneItem::End).unwrap_err();
    assert_eq!(pair.applier().data().state, DataState::Bad);
}

/// The same for a replica in line: it is bad, in this process and in the next, and what is copied
/// then is everything.
#[test]
fn after_a_failed_sync_everything_is_copied() {
    let mut pair = Pair::new();
    pair.say(pair.source.create("one", 0o644));
    pair.say(pair.source.write("one", 0, b"some bytes"));
    pair.applier().set_pending_times().unwrap();
    next_sync_fails();
    pair.applier().durable_point().unwrap_err();
    failpoint::set(None);
    pair.applier().durable_point().unwrap_err();
    pair.crash();
    assert_eq!(pair.applier().replica().data().state, DataState::Bad);
    let wanted = begin(&mut pair);
    assert_eq!(wanted, [pair.source.id("one")]);
}

/// A source that ends a copy at an earlier position of the same history left a replica that said to
/// have more durable than it had applied.
#[test]
fn who_goes_back_takes_back_what_was_durable() {
    let mut pair = Pair::new();
    let origin = pair.applier().replica().applied();
    let said = pair.source.mkdir("one", 0o755);
    pair.say(said);
    pair.applier().durable_point().unwrap();
    assert!(pair.applier().acknowledged().durable.is_ahead_of(&origin));
    pair.applier().diverged("another source").unwrap();
    pair.applier().replica().adopt(origin).unwrap();
    let now = pair.applier().acknowledged();
    assert_eq!((now.applied, now.durable), (origin, origin));
    pair.crash();
    assert_eq!(pair.applier().acknowledged().durable, origin);
}

/// Between its greeting and the beginning of a copy of what is owed a target found that it lacks more: that copy was
/// tried again for ever, and no other one came.
#[test]
fn a_copy_that_shows_too_little_ends_the_session() {
    let mut pair = Pair::new();
    pair.say(pair.source.create("one", 0o640));
    pair.applier().diverged("an object is set aside").unwrap();
    let position = pair.applier().replica().applied();
    let item = LaneItem::BeginOwed { percent_max: None, compares: false };
    let header = FrameHeader::Item(ItemHeader { number: ItemNumber(1), item });
    let outcome = pair.applier().handle(&Frame::new(position, HeaderDigest(0), header, Bytes::new()));
    assert!(matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
    let proof = pair.applier().begin_session();
    assert_eq!((proof.data, proof.bad_by), (DataState::Bad, BadBy::Anything));
}
