//! A target that was killed, and whose source never comes back: what it has begun it finishes by
//! itself, and the times that were pending are set. A directory that was made and had neither its
//! attributes nor its time when the target was killed stayed so, and was called good.

use std::cell::Cell;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

use super::doubt::{CASES, prepared};
use super::*;
use crate::failpoint;
use crate::words::Allow;

struct Died;

/// Runs it and dies at the failpoint of this number; `false`: there are fewer.
fn dies_at(number: u32, run: impl FnOnce()) -> bool {
    let left = Cell::new(number);
    failpoint::set(Some(Rc::new(move |_| {
        if left.get() == 0 {
            resume_unwind(Box::new(Died));
        }
        left.set(left.get() - 1);
        Ok(())
    })));
    let outcome = catch_unwind(AssertUnwindSafe(run));
    failpoint::set(None);
    match outcome {
        Ok(()) => false,
        Err(payload) if payload.is::<Died>() => true,
        Err(payload) => resume_unwind(payload),
    }
}

impl Pair {
    /// The process dies, and the next one opens the replica as a daemon does.
    fn crash_to_rest(&mut self) {
        drop(self.applier.take());
        self.applier = Some(Applier::at_rest(Replica::open(&self.places, SET).unwrap()));
    }

    fn shown(&mut self) -> DataStatus {
        self.applier().replica().data_shown()
    }
}

#[test]
fn wherever_it_is_killed_an_op_is_done_whole_or_not_at_all() {
    for case in CASES {
        for number in 0.. {
            let mut pair = prepared();
            let before = tree::describe(&pair.places.root);
            let frame = pair.frame(&(case.change)(&pair.source));
            if !dies_at(number, || _ = pair.applier().handle(&frame)) {
                assert!(number > 3, "{}: only {number} places to die at", case.name);
                break;
            }
            eprintln!("{}, killed at place {number}", case.name);
            // The next process is killed as well, while it finishes the op.
            drop(pair.applier.take());
            let places = pair.places.clone();
            dies_at(number, || drop(Applier::at_rest(Replica::open(&places, SET).unwrap())));
            pair.crash_to_rest();
            assert_eq!(pair.shown().state, DataState::Good);
            assert!(!pair.applier().replica().in_doubt());
            if pair.applier().replica().applied() == frame.position {
                tree::assert_same(&pair.source.root, &pair.places.root);
            } else {
                assert_eq!(number, 0, "{} was begun and forgotten", case.name);
                assert_eq!(before, tree::describe(&pair.places.root));
                assert!(matches!(pair.applier().handle(&frame), Outcome::Applied));
            }
            pair.say(pair.source.create("afterwards", 0o600));
            pair.assert_same();
        }
    }
}

/// Between the system call of an op and its attributes there is no failpoint.
#[test]
fn after_its_system_call_an_op_is_finished() {
    for case in CASES {
        let mut pair = prepared();
        let frame = pair.frame(&(case.change)(&pair.source));
        let FrameHeader::Packet(packet) = &frame.header else { unreachable!() };
        pair.applier().replica().begin(&frame, packet).unwrap();
        (case.by_hand)(&pair.places.root);
        pair.crash_to_rest();
        eprintln!("{}", case.name);
        assert_eq!(pair.applier().replica().applied(), frame.position);
        tree::assert_same(&pair.source.root, &pair.places.root);
    }
}

#[test]
fn pending_times_are_set_without_a_source() {
    let mut pair = prepared();
    for number in 0..20 {
        let name = format!("dir/f{number}");
        pair.say(pair.source.create(&name, 0o644));
        pair.say(pair.source.utimes(&name, Timestamp { seconds: 978_307_200 + number, nanoseconds: 5 }));
    }
    assert!(pair.applier().replica().next_deadline().is_some());
    pair.crash_to_rest();
    tree::assert_same(&pair.source.root, &pair.places.root);
    assert!(pair.applier().replica().next_deadline().is_none());
}

#[test]
fn what_cannot_be_finished_is_said_until_it_is() {
    let mut pair = prepared();
    let said = pair.source.create("new", 0o644);
    let frame = pair.frame(&said);
    fs::write(pair.replica("new"), "somebody else's").unwrap();
    assert!(pair.fails(&said).contains("already there"));
    pair.crash_to_rest();
    let shown = pair.shown();
    assert_eq!(shown.state, DataState::Bad);
    let reason = shown.reason.unwrap();
    assert!(reason.contains("(create) was begun") && reason.contains("already there"), "{reason}");
    // Only this one op is missing: the stream goes on there, nothing is copied.
    assert_eq!(pair.applier().proof().data, DataState::Good);
    assert!(!pair.applier().is_at_rest());
    fs::remove_file(pair.replica("new")).unwrap();
    pair.applier().come_to_rest();
    assert_eq!((pair.shown().state, pair.applier().replica().applied()), (DataState::Good, frame.position));
    tree::assert_same(&pair.source.root, &pair.places.root);
}

/// A state directory of an older version has no record of what was begun: its source has it.
#[test]
fn without_a_record_only_the_source_can_finish_it() {
    let mut pair = prepared();
    let said = pair.source.create("new", 0o644);
    let frame = pair.frame(&said);
    pair.applier().replica().pretend_begun(frame.position);
    fs::File::create_new(pair.replica("new")).unwrap();
    pair.crash_to_rest();
    let reason = pair.shown().reason.unwrap();
    assert!(reason.contains("no record of it: only its source can finish it"), "{reason}");
    assert!(matches!(pair.applier().handle(&frame), Outcome::Applied));
    pair.assert_same();
    assert_eq!(pair.shown().state, DataState::Good);
}

/// The position of a resynchronisation or a skip record is taken over, nothing is performed.
#[test]
fn a_position_that_is_adopted_is_no_op_in_doubt() {
    let mut pair = prepared();
    let next =
        Position { sequence: pair.applier().replica().applied().sequence.next(), ..Default::default() };
    let next = Position { sequence: next.sequence, ..pair.applier().replica().applied() };
    for number in 0..2 {
        dies_at(number, || pair.applier().replica().adopt(next).unwrap());
        pair.crash_to_rest();
        assert_eq!(pair.shown().state, DataState::Good);
    }
}

/// What is finished is what was allowed when it was begun.
#[test]
fn an_op_is_finished_under_the_policy_it_was_begun_under() {
    let mut pair = prepared();
    let frame = pair.frame(&pair.source.mknod("device", Birth::CharDevice { major: 1, minor: 3 }));
    pair.applier().replica().set_allow(Allow::NOTHING);
    assert!(dies_at(3, || _ = pair.applier().handle(&frame)));
    pair.crash_to_rest();
    assert_eq!(pair.applier().replica().applied(), frame.position);
    assert!(fs::symlink_metadata(pair.replica("device")).unwrap().is_file());
}
