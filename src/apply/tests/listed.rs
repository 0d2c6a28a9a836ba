//! Listings that could not be taken to their end at first.

use std::rc::Rc;

use super::sync::items;
use super::*;
use crate::failpoint;

fn take(pair: &mut Pair, item: &LaneItem) -> Result<Vec<ObjectId>, Fault> {
    let at = pair.applier().replica().applied();
    let answers = pair.applier().take_item(at, ItemNumber(1), item.clone(), Bytes::new())?;
    let wanted = answers.into_iter().filter_map(|answer| match answer {
        TargetMessage::Wanted { objects, .. } => Some(objects),
        _ => None,
    });
    Ok(wanted.flatten().collect())
}

/// The first time that something is noted there is no room for it.
fn take_twice(pair: &mut Pair, item: &LaneItem) -> Vec<ObjectId> {
    let fails = std::cell::Cell::new(true);
    failpoint::set(Some(Rc::new(move |place| match place == "incomplete" && fails.take() {
        true => Err(std::io::Error::from_raw_os_error(libc::ENOSPC)),
        false => Ok(()),
    })));
    take(pair, item).unwrap_err();
    let wanted = take(pair, item);
    failpoint::set(None);
    wanted.unwrap()
}

fn listing_of(pair: &Pair, name: &str, birth: Birth) -> LaneItem {
    let mut listing = items(&pair.source, name).pop().unwrap();
    if let LaneItem::Listing { entries, .. } = &mut listing {
        entries[0].birth = birth;
    }
    listing
}

/// An answer had shown a directory that nobody had walked: tried again it was none, the directory was never asked for, and a
/// replica without what was in it was called good.
#[test]
fn a_directory_that_an_answer_shows_is_asked_for_although_it_could_not_be_noted_at_first() {
    let mut pair = Pair::new();
    for dir in ["from", "from/moved", "into"] {
        pair.say(pair.source.mkdir(dir, 0o755));
    }
    pair.applier().set_pending_times().unwrap();
    for item in items(&pair.source, "into").into_iter().take(2) {
        take(&mut pair, &item).unwrap();
    }
    let root = listing_of(&pair, "into", Birth::Directory);
    take(&mut pair, &root).unwrap();
    // Listed before what comes into it, and after it has left where it was.
    let (dir, dir_mtime) = (pair.source.id("into"), pair.source.mtime("into"));
    let into =
        LaneItem::Listing { dir, dir_mtime, entries: Vec::new(), unlisted: None, first: true, last: true };
    take(&mut pair, &into).unwrap();
    pair.say(pair.source.rename("from/moved", "into/moved"));
    let doubt = pair.applier().take_doubts();
    assert_eq!(doubt, Some(TargetMessage::Doubt { directories: vec![dir] }));
    let again = listing_of(&pair, "into/moved", Birth::Directory);
    assert_eq!(take_twice(&mut pair, &again), [pair.source.id("into/moved")]);
}

/// The last chunk of several was not taken for one of the listing any more.
#[test]
fn files_of_the_last_chunk_are_wanted_although_they_could_not_be_noted_at_first() {
    let mut pair = Pair::new();
    for name in ["one", "two"] {
        // What the target never hears of.
        let _ = pair.source.create(name, 0o640);
        let _ = pair.source.write(name, 0, b"content");
    }
    let mut all = items(&pair.source, "one");
    let Some(LaneItem::Listing { last, .. }) = all.last_mut() else { panic!("no listing") };
    *last = false;
    for item in &all {
        take(&mut pair, item).unwrap();
    }
    let mut rest = listing_of(&pair, "two", Birth::File);
    let LaneItem::Listing { first, .. } = &mut rest else { panic!("no listing") };
    *first = false;
    assert_eq!(take_twice(&mut pair, &rest), [pair.source.id("two")]);
}
