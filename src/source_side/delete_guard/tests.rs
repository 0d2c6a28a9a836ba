//! What is asked about, and what goes.

use bytes::Bytes;

use super::*;
use crate::packet::{Attributes, Entry, Epoch, Incarnation, Name, Position, Timestamp};
use crate::queue::{CursorId, Draft, Queue};
use std::sync::Arc;

const FILES: u64 = 2000;

/// A stream of ops before a guard.
struct Line {
    queue: Arc<Queue>,
    _cursor: CursorId,
    guard: DeleteGuard,
}

impl Line {
    /// The target is in line, with [`FILES`].
    fn new() -> Line {
        let origin = Position::origin(Epoch { number: 1, writer: 2 }, Incarnation(3));
        let queue = Queue::new(64 << 20, origin);
        let cursor = queue.attach(|_| {}).0;
        let guard = DeleteGuard::new(DeleteLimit::default());
        guard.knows(FILES);
        Line { queue, _cursor: cursor, guard }
    }

    /// Whether it may be sent, as the stream asks: it comes again if not.
    fn says(&self, op: &Op) -> bool {
        let mut room = self.queue.reserve(0, 200).unwrap();
        let position = self.queue.append(&mut room, Draft::new(b"", op, Bytes::new()));
        self.passes(position.sequence)
    }

    fn passes(&self, sequence: Sequence) -> bool {
        self.guard.lets_pass(&self.queue.next(Sequence(sequence.0 - 1), 1)[0])
    }

    /// How many of these go before it asks.
    fn goes(&self, ops: impl Iterator<Item = Op>) -> u64 {
        ops.take_while(|op| self.says(op)).count() as u64
    }

    /// What a later minute is like.
    fn a_minute_later(&self) {
        self.guard.state.lock().recent = Recent::default();
    }
}

fn object(inode: u64) -> ObjectId {
    ObjectId { birth_epoch: 1, generation: 1, inode }
}

fn at() -> Entry {
    Entry { dir: object(1), name: Name::new(b"f").unwrap() }
}

fn created(inode: u64) -> Op {
    let attributes = Attributes { mode: 0o644, uid: 0, gid: 0, mtime: Timestamp::default() };
    let dir_mtime = Timestamp::default();
    Op::Create {
        at: at(),
        dir_mtime,
        object: object(inode),
        birth: Birth::File,
        attributes,
        xattrs: Vec::new(),
    }
}

fn unlinked(inode: u64, links: u32) -> Op {
    Op::Unlink { at: at(), dir_mtime: Timestamp::default(), object: object(inode), links }
}

fn replaced(inode: u64, by: u64) -> Op {
    let time = Timestamp::default();
    Op::Rename {
        from: at(),
        from_mtime: time,
        to: at(),
        to_mtime: time,
        object: object(by),
        object_mtime: None,
        replaced: Some(Replaced { object: object(inode), links: 0 }),
        whiteout: None,
    }
}

#[test]
fn half_of_the_files_go_and_not_one_more() {
    let line = Line::new();
    assert_eq!(line.goes((1..).map(|inode| unlinked(inode, 0))), FILES / 2);
    let asked = line.guard.asks().unwrap();
    assert_eq!((asked.gone, asked.of, asked.at), (FILES / 2 + 1, FILES, Sequence(FILES / 2 + 1)));
    // Nothing passes what waits, and it does not wait for a name.
    assert!(!line.says(&created(9000)));
    assert!(!line.passes(asked.at));
    // What was sent before comes again after a reconnection.
    assert!(line.passes(Sequence(5)));
}

#[test]
fn what_was_accepted_goes_and_nothing_later() {
    let line = Line::new();
    line.goes((1..).map(|inode| unlinked(inode, 0)));
    // Queued behind it meanwhile.
    (2000..2800).for_each(|inode| assert!(!line.says(&unlinked(inode, 0))));
    line.guard.accept(line.queue.last().sequence);
    let waits = FILES / 2 + 1..=line.queue.last().sequence.0;
    waits.for_each(|sequence| assert!(line.passes(Sequence(sequence)), "{sequence}"));
    assert_eq!(line.guard.state.lock().files, Some(FILES - 1001 - 800));
    // Too few are left to ask about.
    assert_eq!(line.goes((5000..5150).map(|inode| unlinked(inode, 0))), 150);
    // An acceptance that nobody asked for is none.
    line.guard.knows(FILES);
    line.a_minute_later();
    line.guard.accept(Sequence(u64::MAX));
    assert_eq!(line.goes((1..).map(|inode| unlinked(inode, 0))), FILES / 2);
}

#[test]
fn temporary_files_and_saves_are_no_deletions() {
    let line = Line::new();
    let churn = (10_000..15_000).flat_map(|inode| [created(inode), unlinked(inode, 0)]);
    assert_eq!(line.goes(churn), 10_000);
    let saves = (1..2000).flat_map(|inode| [created(20_000 + inode), replaced(inode, 20_000 + inode)]);
    assert_eq!(line.goes(saves), 2 * 1999);
    assert_eq!(line.goes((1..2000).map(|inode| unlinked(inode, 1))), 1999, "another name is left");
    assert_eq!(line.guard.asks(), None);
    // One older file in the place of another is one less.
    line.a_minute_later();
    assert_eq!(line.goes((1..).map(|inode| replaced(inode, 50_000 + inode))), FILES / 2);
}

#[test]
fn slow_deletions_small_replicas_and_off_ask_nobody() {
    let line = Line::new();
    for _ in 0..4 {
        assert_eq!(line.goes((1..=480).map(|inode| unlinked(inode, 0))), 480);
        line.a_minute_later();
    }
    let small = Line::new();
    small.guard.knows(DELETE_GUARD_FILES_MIN);
    assert_eq!(small.goes((1..=1000).map(|inode| unlinked(inode, 0))), 1000);
    let off = Line { guard: DeleteGuard::new(DeleteLimit::Off), ..Line::new() };
    off.guard.knows(FILES);
    assert_eq!(off.goes((1..=FILES).map(|inode| unlinked(inode, 0))), FILES);
}

#[test]
fn what_is_older_than_a_minute_is_forgotten() {
    let (mut recent, begin) = (Recent::default(), Instant::now());
    let gone = |inode| Change::Gone { file: object(inode), by: None };
    for second in 0..100 {
        let now = begin + Duration::from_secs(second);
        let misses = recent.misses(now, gone(second));
        recent.take(now, gone(second), misses);
    }
    assert_eq!((recent.gone_files, recent.gone.len()), (60, 60));
    recent.take(begin, Change::Born(object(7)), false);
    assert!(!recent.misses(begin, gone(7)));
    assert!(recent.misses(begin + DELETE_GUARD_WINDOW, gone(7)));
}
