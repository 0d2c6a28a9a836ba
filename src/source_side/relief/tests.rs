//! What is found, and what waits for a person.

use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::packet::{ContentResult, Entry, Epoch, Incarnation, Name, Position, Timestamp};
use crate::queue::{Draft, Queue};
use crate::words::DeleteLimit;

const FILES: u64 = 2000;

fn object(inode: u64) -> ObjectId {
    ObjectId { birth_epoch: 1, generation: 1, inode }
}

fn removed(inode: u64) -> Op {
    let at = Entry { dir: object(1), name: Name::new(b"f").unwrap() };
    Op::Unlink { at, dir_mtime: Timestamp::default(), object: object(inode), links: 0 }
}

fn cut_down(inode: u64) -> Op {
    let result = ContentResult { size: 0, mtime: Timestamp::default(), mode: None };
    Op::Resize { object: object(inode), result }
}

/// Nothing of it was sent.
fn queued(ops: impl Iterator<Item = Op>) -> Arc<Queue> {
    let queue = Queue::new(64 << 20, Position::origin(Epoch { number: 1, writer: 2 }, Incarnation(3)));
    queue.attach(|_| {});
    for op in ops {
        let mut room = queue.reserve(0, 200).unwrap();
        queue.append(&mut room, Draft::new(b"", &op, Bytes::new()));
    }
    queue
}

fn guard(limit: DeleteLimit) -> DeleteGuard {
    let guard = DeleteGuard::new(limit, None, None);
    guard.knows(FILES, Sequence(0));
    guard
}

/// `rm -rf` while the target was full: the removals waited, were not asked about, and all files were
/// emptied.
#[test]
fn it_asks_about_deletions_that_are_queued() {
    let queue = queued((1..=FILES).map(removed));
    let guard = guard(DeleteLimit::default());
    let (found, upto) = look(&Reader::of(&queue), Sequence(1), &guard);
    assert_eq!((found.len() as u64, upto), (FILES / 2, Sequence(FILES / 2)));
    assert_eq!(guard.asks().map(|asked| asked.at), Some(Sequence(FILES / 2 + 1)));
    // The stream comes to what was counted ahead of it, and no farther.
    let packets = queue.next(Sequence(0), usize::MAX);
    assert_eq!(packets.iter().take_while(|packet| guard.lets_pass(packet)).count() as u64, FILES / 2);
    guard.accept(queue.last().sequence);
    let (found, upto) = look(&Reader::of(&queue), upto.next(), &guard);
    assert_eq!((found.len() as u64, upto), (FILES / 2, Sequence(FILES)));
    assert_eq!(guard.asks(), None);
}

#[test]
fn what_nobody_is_asked_about_is_found() {
    let queue = queued((1..=FILES).map(cut_down));
    assert_eq!(look(&Reader::of(&queue), Sequence(1), &guard(DeleteLimit::default())).0.len() as u64, FILES);
    let queue = queued((1..=FILES).flat_map(|inode| [cut_down(inode), removed(inode)]));
    let (found, upto) = look(&Reader::of(&queue), Sequence(1), &guard(DeleteLimit::Off));
    assert_eq!((found.len() as u64, upto), (FILES, Sequence(2 * FILES)));
}
