//! What is asked about, and what goes.

use bytes::Bytes;

use super::*;
use crate::packet::{
    Attributes, Birth, Bounded, Entry, Epoch, Incarnation, Name, Position, Timestamp, Whiteout,
};
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
        let guard = DeleteGuard::new(DeleteLimit::default(), None, None);
        guard.knows(FILES, Sequence(0));
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
    made(inode, Birth::File)
}

fn made(inode: u64, birth: Birth) -> Op {
    let attributes = Attributes { mode: 0o644, uid: 0, gid: 0, mtime: Timestamp::default() };
    let dir_mtime = Timestamp::default();
    Op::Create { at: at(), dir_mtime, object: object(inode), birth, attributes, xattrs: Vec::new() }
}

fn linked(inode: u64) -> Op {
    Op::Link { object: object(inode), at: at(), dir_mtime: Timestamp::default(), links: 2 }
}

fn unlinked(inode: u64, links: u32) -> Op {
    Op::Unlink { at: at(), dir_mtime: Timestamp::default(), object: object(inode), links }
}

fn replaced(inode: u64, by: u64) -> Op {
    renamed(by, Some(Replaced { object: object(inode), links: 0 }), None)
}

fn renamed(inode: u64, replaced: Option<Replaced>, whiteout: Option<Whiteout>) -> Op {
    let time = Timestamp::default();
    Op::Rename {
        from: at(),
        from_mtime: time,
        to: at(),
        to_mtime: time,
        object: object(inode),
        object_mtime: None,
        replaced,
        whiteout,
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
    assert_eq!(line.guard.state.lock().names, Some(FILES - 1001 - 800));
    // Too few are left to ask about.
    assert_eq!(line.goes((5000..5150).map(|inode| unlinked(inode, 0))), 150);
    // An acceptance that nobody asked for is none.
    line.guard.knows(FILES, line.queue.last().sequence);
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
    small.guard.knows(DELETE_GUARD_FILES_MIN, Sequence(0));
    assert_eq!(small.goes((1..=1000).map(|inode| unlinked(inode, 0))), 1000);
    let off = Line { guard: DeleteGuard::new(DeleteLimit::Off, None, None), ..Line::new() };
    off.guard.knows(FILES, Sequence(0));
    assert_eq!(off.goes((1..=FILES).map(|inode| unlinked(inode, 0))), FILES);
}

/// Files were counted by their names, and their deletions by last names: half of them were never gone where
/// each had two, or a link outside.
#[test]
fn a_name_that_goes_is_a_deletion_whatever_names_are_left() {
    for links in [1, 0] {
        let line = Line::new();
        assert_eq!(line.goes((1..).map(|inode| unlinked(inode, links))), FILES / 2);
        let line = Line::new();
        let takes = |inode| renamed(50_000 + inode, Some(Replaced { object: object(inode), links }), None);
        assert_eq!(line.goes((1..).map(takes)), FILES / 2);
    }
}

#[test]
fn a_name_that_comes_makes_up_for_one_that_goes() {
    // Moved by a link, from the old name to the new one.
    let line = Line::new();
    assert_eq!(line.goes((1..=FILES).flat_map(|inode| [linked(inode), unlinked(inode, 1)])), 2 * FILES);
    // The old version is kept by a link until the new one is in its place.
    let kept = |inode| Some(Replaced { object: object(inode), links: 1 });
    let packages = (1..=FILES).flat_map(|inode| {
        let new = 20_000 + inode;
        [created(new), linked(inode), renamed(new, kept(inode), None), unlinked(inode, 0)]
    });
    assert_eq!(line.goes(packages), 4 * FILES);
    // One that is new takes the place of one that is new, and goes too.
    let temporary = (40_000..42_000).flat_map(|inode| {
        let by = 10_000 + inode;
        [created(inode), created(by), replaced(inode, by), unlinked(by, 0)]
    });
    assert_eq!(line.goes(temporary), 4 * 2000);
    assert_eq!(line.guard.asks(), None);
}

/// A name that made up for one was taken for a newborn one once more: what was saved and then deleted was
/// not missed, nor what one new file replaced in turn.
#[test]
fn it_makes_up_for_no_more_than_one() {
    let line = Line::new();
    let saves = (1..=FILES).flat_map(|inode| [created(20_000 + inode), replaced(inode, 20_000 + inode)]);
    assert_eq!(line.goes(saves), 2 * FILES);
    assert_eq!(line.goes((1..).map(|inode| unlinked(20_000 + inode, 0))), FILES / 2);
    let line = Line::new();
    assert!(line.says(&created(20_000)));
    assert_eq!(line.goes((1..).map(|inode| replaced(inode, 20_000))), 1 + FILES / 2);
    let line = Line::new();
    assert_eq!(line.goes((1..=FILES).map(linked)), FILES);
    // As many names as there were are left, and then half of them.
    let both = (1..=FILES).map(|inode| unlinked(inode, 1)).chain((1..).map(|inode| unlinked(inode, 0)));
    assert_eq!(line.goes(both), FILES + FILES / 2);
}

/// Renewed symlinks were deletions, as they were not known to be new.
#[test]
fn symlinks_and_special_files_count_as_files_do() {
    let to = Bounded(b"to".to_vec());
    for birth in [Birth::Symlink { target: to }, Birth::Fifo, Birth::CharDevice { major: 0, minor: 0 }] {
        let line = Line::new();
        let renewed = (1..=FILES)
            .flat_map(|inode| [made(20_000 + inode, birth.clone()), replaced(inode, 20_000 + inode)]);
        assert_eq!(line.goes(renewed), 2 * FILES);
        assert_eq!(line.guard.state.lock().names, Some(FILES));
    }
    let line = Line::new();
    assert_eq!(line.goes((1..=FILES).map(|inode| made(20_000 + inode, Birth::Directory))), FILES);
    assert_eq!(line.guard.state.lock().names, Some(FILES), "a directory is none");
    let attributes = Attributes { mode: 0, uid: 0, gid: 0, mtime: Timestamp::default() };
    let white = |inode| Some(Whiteout { object: object(20_000 + inode), attributes });
    let whiteouts =
        (1..=FILES).flat_map(|inode| [renamed(inode, None, white(inode)), unlinked(20_000 + inode, 0)]);
    assert_eq!(line.goes(whiteouts), 2 * FILES);
    assert_eq!(line.guard.state.lock().names, Some(FILES));
}

/// What was sent when the target came into line is in what it has.
#[test]
fn what_was_sent_before_is_not_counted() {
    let line = Line::new();
    line.guard.knows(FILES, Sequence(600));
    assert_eq!(line.goes((1..).map(|inode| unlinked(inode, 0))), 600 + FILES / 2);
}

#[test]
fn what_is_older_than_a_minute_is_forgotten() {
    let (mut recent, begin) = (Recent::default(), Instant::now());
    let gone = |inode| Change { born: None, gone: Some(Gone([Some(object(inode)), None])) };
    let born = |inode| Change { born: Some(object(inode)), gone: None };
    let after = |seconds| begin + Duration::from_secs(seconds);
    for second in 0..100 {
        recent.pass(after(second));
        recent.take(after(second), gone(second), true);
    }
    assert_eq!((recent.gone_names, recent.gone.len()), (60, 60));
    let mut recent = Recent::default();
    recent.take(begin, born(7), false);
    assert_eq!((recent.misses(gone(7)), recent.names_before(after(59), 10)), (false, 9));
    assert_eq!((recent.names_before(after(60), 10), recent.misses(gone(7))), (10, true));
    assert!(recent.newborn.is_empty());
    // The first name made up for one: it is not the second one that a minute later is none.
    recent.take(after(60), born(8), false);
    recent.take(after(61), gone(8), false);
    recent.take(after(90), born(8), false);
    assert_eq!((recent.names_before(after(121), 10), recent.misses(gone(8))), (9, false));
    assert_eq!((recent.names_before(after(150), 10), recent.misses(gone(8))), (10, true));
    assert!(recent.newborn.is_empty() && recent.born.is_empty());
}

/// A copy that has looked at little knows how many names there were in the run before.
#[test]
fn about_so_many_names_are_known_in_the_next_run() {
    let guard = DeleteGuard::new(DeleteLimit::default(), None, None);
    assert_eq!(guard.noted(), None);
    guard.knows(10_000, Sequence(5));
    assert_eq!(guard.noted(), Some(10_000));
    guard.knows(10_500, Sequence(6));
    assert_eq!(guard.noted(), Some(10_000), "it changes seldom");
    guard.knows(12_000, Sequence(7));
    let next = DeleteGuard::new(DeleteLimit::default(), guard.noted(), None);
    assert_eq!(next.state.lock().names, None, "before it is in line nothing is counted");
    next.knows_the_rest(Sequence(0));
    assert_eq!(next.state.lock().names, Some(12_000));
    next.knows_the_rest(Sequence(3));
    assert_eq!(next.noted(), Some(12_000));
}

/// Before a copy the names are counted; what a person accepts is what was counted, in the next run too, which asked
/// again.
#[test]
fn what_is_gone_before_a_copy_is_asked_about_once() {
    let guard = DeleteGuard::new(DeleteLimit::Percent(50), Some(FILES), None);
    let expected = NamesHad { names: FILES, percent: 50 };
    assert_eq!(guard.expects(), Some(expected), "by what the run before has noted");
    let asked = guard.ask_of_copy(1500, FILES);
    assert!(asked.to_string().contains("1500 of 2000 files are gone"), "{asked}");
    assert_eq!(guard.asks(), Some(asked));
    // The next run counts again.
    assert_eq!(DeleteGuard::new(DeleteLimit::Percent(50), Some(FILES), Some(asked)).asks(), None);
    guard.accept(Sequence(7));
    // Under a thousand that are left nobody is asked.
    assert_eq!((guard.asks(), guard.expects()), (None, None));
    guard.knows(FILES, Sequence(9));
    assert_eq!(guard.expects(), Some(expected));
    let guard = DeleteGuard::new(DeleteLimit::Percent(5), Some(10_000), None);
    guard.ask_of_copy(600, 10_000);
    guard.accept(Sequence(7));
    let left = NamesHad { names: 9_400, percent: 5 };
    assert_eq!(guard.expects(), Some(left), "what goes later is asked about");
    let next = DeleteGuard::new(DeleteLimit::Percent(5), guard.noted(), None);
    assert_eq!(next.expects(), Some(left), "few are noted too");
    assert_eq!(DeleteGuard::new(DeleteLimit::Off, Some(FILES), None).expects(), None);
    assert_eq!(DeleteGuard::new(DeleteLimit::Percent(50), Some(900), None).expects(), None);
    assert_eq!(DeleteGuard::new(DeleteLimit::Percent(50), None, None).expects(), None);
}
