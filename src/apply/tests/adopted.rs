//! What a directory had when it became the replica of who stood in for its host.

use std::io;

use super::*;
use crate::clone::{Content, Force, LOST_WRITES, Past, Shown, Start, State, Stop, Where};

/// A file whose content is about to be overwritten, and that is kept.
fn kept() -> Pair {
    let mut pair = Pair::new();
    pair.say(pair.source.mkdir("d", 0o755));
    pair.say(pair.source.create("d/f", 0o640));
    pair.say(pair.source.write("d/f", 0, &[7; 40_000]));
    pair.applier().raise_fence(Epoch { number: 2, writer: 9 }).unwrap();
    pair.applier().keep_adopted().unwrap();
    pair
}

fn shown(pair: &mut Pair, name: &str) -> Shown {
    let all = pair.applier().clones().list();
    all.into_iter().find(|shown| shown.name == name).unwrap_or_else(|| panic!("there is no {name}"))
}

fn past(pair: &Pair) -> Past {
    let Places { root, limbo, state } = &pair.places;
    Past::open(&Where { root, limbo, state, name: LOST_WRITES }).unwrap()
}

/// What differs, and the bytes of files, as they were.
fn differing(past: &mut Past) -> io::Result<Vec<(PathBuf, Vec<u8>)>> {
    let mut found = Vec::new();
    past.differing(&mut |past, object| {
        let (mut content, mut bytes) = (Content::of(object)?, Vec::new());
        while let Some((_, part)) = content.next(past)? {
            bytes.extend(part);
        }
        found.push((object.path.clone(), bytes));
        Ok(())
    })?;
    Ok(found)
}

fn before() -> Vec<(PathBuf, Vec<u8>)> {
    vec![(PathBuf::from("d/f"), vec![7; 40_000])]
}

/// The next start of the daemon took it for one that had been written past.
#[test]
fn what_is_kept_outlives_an_epoch_that_is_raised_again() {
    let mut pair = kept();
    pair.say(pair.source.write("d/f", 9_000, b"overwritten"));
    pair.applier().raise_fence(Epoch { number: 3, writer: 9 }).unwrap();
    pair.crash();
    assert_eq!(shown(&mut pair, LOST_WRITES).state, State::Synchronizing);
    pair.say(pair.source.write("d/f", 30_000, b"overwritten"));
    assert_eq!(differing(&mut past(&pair)).unwrap(), before());
    // Nor is another one begun.
    pair.applier().keep_adopted().unwrap();
    assert_eq!(pair.applier().clones().list().len(), 1);
}

/// It was taken for what is kept, and nothing was.
#[test]
fn a_clone_that_a_person_has_given_the_name_keeps_nothing_of_it() {
    let mut pair = Pair::new();
    pair.say(pair.source.create("f", 0o640));
    let name = format!("{LOST_WRITES}-mine");
    let clones = pair.applier().clones();
    let start = Start { name, dir: None, accepts_bad: false, room_max: None, keeps_off: Vec::new() };
    let applier = std::cell::RefCell::new(pair.applier());
    clones.start(&start, || applier.borrow_mut().take_barrier()).unwrap();
    applier.borrow_mut().keep_adopted().unwrap();
    assert_eq!(shown(&mut pair, LOST_WRITES).state, State::Synchronizing);
}

/// It was given as zeros.
#[test]
fn what_somebody_else_has_removed_is_said() {
    let mut pair = kept();
    pair.say(pair.source.rename("d/f", "d/g"));
    // Nobody has it open.
    drop(pair.applier.take());
    std::fs::remove_file(pair.replica("d/g")).unwrap();
    let refused = differing(&mut past(&pair)).unwrap_err();
    assert!(refused.to_string().contains("somebody else than standin has removed"), "{refused}");
}

/// What was changed since was given as what it had been.
#[test]
fn a_reader_is_told_that_nothing_is_kept_any_more() {
    let mut pair = kept();
    let mut open = past(&pair);
    pair.say(pair.source.write("d/f", 0, b"overwritten"));
    assert_eq!(differing(&mut open).unwrap(), before());
    let stop = Stop { force: Force::Yes, removes: false };
    pair.applier().clones().stop(LOST_WRITES, stop).unwrap();
    pair.say(pair.source.write("d/f", 20_000, b"overwritten"));
    assert!(differing(&mut open).is_err());
}

/// A person said how much room it may take; a source that comes again took it each time.
#[test]
fn it_fails_once_where_its_room_was_said() {
    let mut pair = kept();
    let stop = Stop { force: Force::Yes, removes: false };
    pair.applier().clones().stop(LOST_WRITES, stop).unwrap();
    pair.applier().clones().lost_writes_may_take(Some(20_000));
    pair.applier().keep_adopted().unwrap();
    pair.say(pair.source.write("d/f", 0, &[8; 40_000]));
    assert_eq!(shown(&mut pair, LOST_WRITES).state, State::Failed);
    pair.applier().keep_adopted().unwrap();
    assert_eq!(pair.applier().clones().list().len(), 1);
}
