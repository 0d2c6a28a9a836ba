use super::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::limits::QUEUE_MARK_EVERY;
use crate::packet::{ContentResult, Epoch, Incarnation, ObjectId, Op, Position, Sequence, Timestamp};

fn queue(limit: usize) -> Arc<Queue> {
    Queue::new(limit, Position::origin(Epoch { number: 1, writer: 2 }, Incarnation(3)))
}

fn append(queue: &Arc<Queue>, payload: &[u8]) -> Position {
    let mut room = queue.reserve(payload.len(), 64).unwrap();
    queue.append(
        &mut room,
        Draft::new(b"", &Op::Barrier { durable: false, name: None }, bytes::Bytes::copy_from_slice(payload)),
    )
}

#[test]
fn packets_come_in_order_and_go_when_applied() {
    let queue = queue(1 << 20);
    let woken = Arc::new(AtomicUsize::new(0));
    let (id, start) = queue.attach({
        let woken = woken.clone();
        move |_| {
            woken.fetch_add(1, Ordering::Relaxed);
        }
    });
    let positions: Vec<_> = (0..10).map(|n| append(&queue, &[n])).collect();
    assert_eq!(woken.load(Ordering::Relaxed), 10);
    let got = queue.next(start.sequence, usize::MAX);
    assert_eq!(got.iter().map(|packet| packet.position).collect::<Vec<_>>(), positions);
    queue.acknowledge_applied(id, Sequence(4));
    assert_eq!(queue.oldest(), Sequence(5));
    assert_eq!(queue.next(Sequence(7), usize::MAX).len(), 3);
    queue.acknowledge_applied(id, Sequence(10));
    assert_eq!(queue.stats().bytes, 0);
    assert_eq!(queue.oldest(), Sequence(11));
}

#[test]
fn the_slowest_cursor_holds_packets() {
    let queue = queue(1 << 20);
    let (fast, _) = queue.attach(|_| ());
    let (slow, _) = queue.attach(|_| ());
    append(&queue, b"x");
    queue.acknowledge_applied(fast, Sequence(1));
    assert_eq!(queue.stats().packets, 1);
    queue.detach(slow);
    assert_eq!(queue.stats().packets, 0);
}

/// Whom to let go when writers wait: only who holds back the most.
#[test]
fn the_last_cursor_is_to_blame_for_a_full_queue() {
    let queue = queue(10_000);
    let (ahead, _) = queue.attach(|_| ());
    let (behind, _) = queue.attach(|_| ());
    append(&queue, &[0; 6000]);
    queue.acknowledge_applied(ahead, Sequence(1));
    assert!(queue.waits_for(behind).is_none(), "nobody waits");
    let writer = std::thread::spawn({
        let queue = queue.clone();
        move || append(&queue, &[0; 6000])
    });
    while queue.stats().writers_waiting == 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(queue.waits_for(ahead).is_none());
    assert!(queue.waits_for(behind).is_some());
    queue.detach(behind);
    assert_eq!(writer.join().unwrap().sequence, Sequence(2));
    assert!(queue.waits_for(ahead).is_none() && queue.waits_for(behind).is_none());
}

#[test]
fn a_full_queue_makes_writers_wait_and_says_so() {
    let queue = queue(10_000);
    let (id, _) = queue.attach(|_| ());
    append(&queue, &[0; 6000]);
    let writer = std::thread::spawn({
        let queue = queue.clone();
        move || append(&queue, &[1; 6000])
    });
    while queue.stats().writers_waiting == 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    queue.acknowledge_applied(id, Sequence(1));
    assert_eq!(writer.join().unwrap().sequence, Sequence(2));
    assert_eq!(queue.stats().waits, 1);
}

#[test]
fn closing_lets_waiting_writers_go() {
    let queue = queue(10_000);
    queue.attach(|_| ());
    append(&queue, &[0; 6000]);
    let writer = std::thread::spawn({
        let queue = queue.clone();
        move || queue.reserve(6000, 64).err()
    });
    while queue.stats().writers_waiting == 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    queue.close();
    assert_eq!(writer.join().unwrap(), Some(Closed));
}

/// Whoever waited for a target that was not there was found by a look, half a second later or more.
#[test]
fn who_has_to_wait_says_so_once_and_again_when_another_is_to_blame() {
    let queue = queue(10_000);
    let ((first, _), (second, _)) = (queue.attach(|_| ()), queue.attach(|_| ()));
    let bell = queue.waits();
    drop(queue.waits());
    append(&queue, &[0; 3000]);
    append(&queue, &[0; 3000]);
    assert!(bell.try_recv().is_err(), "there was room");
    let writer = std::thread::spawn({
        let queue = queue.clone();
        move || drop(queue.reserve(9000, 64))
    });
    let told = |why: &str| bell.recv_timeout(Duration::from_secs(20)).expect(why);
    told("a writer waits");
    assert!(queue.waits_for(first).is_some() && queue.waits_for(second).is_some());
    assert!(bell.recv_timeout(Duration::from_millis(50)).is_err(), "it says so once");
    queue.acknowledge_applied(first, Sequence(1));
    told("the second one is the last now");
    assert!(queue.waits_for(first).is_none());
    queue.acknowledge_applied(second, Sequence(1));
    assert!(bell.recv_timeout(Duration::from_millis(50)).is_err(), "no other one is behind it");
    queue.detach(second);
    told("the first one is the last now");
    assert!(queue.waits_for(first).is_some());
    queue.detach(first);
    writer.join().unwrap();
}

#[test]
fn without_readers_nothing_is_held() {
    let queue = queue(10_000);
    for _ in 0..100 {
        append(&queue, &[0; 6000]);
    }
    assert_eq!(queue.stats().bytes, 0);
    assert_eq!(queue.last().sequence, Sequence(100));
    assert_eq!(queue.stats().captured_bytes, 600_000);
}

/// Room that was reserved for an op that failed on disk must come back.
#[test]
fn an_unused_reservation_is_given_back() {
    let queue = queue(10_000);
    drop(queue.reserve(9000, 64).unwrap());
    assert_eq!(queue.stats().bytes, 0);
}

#[test]
fn many_threads_share_one_unbroken_order() {
    let queue = queue(1 << 20);
    let (id, start) = queue.attach(|_| ());
    let writers: Vec<_> = (0..4u8)
        .map(|n| {
            let queue = queue.clone();
            std::thread::spawn(move || (0..2000).for_each(|_| _ = append(&queue, &[n; 100])))
        })
        .collect();
    let mut last = start;
    while last.sequence < Sequence(8000) {
        for packet in queue.next(last.sequence, 50_000) {
            let digest = crate::packet::HeaderDigest::of(&packet.header, packet.payload.len());
            assert_eq!(last.next(digest), packet.position);
            last = packet.position;
        }
        queue.acknowledge_applied(id, last.sequence);
    }
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    assert_eq!(queue.stats().bytes, 0);
}

/// The durable lag was stated as that of what is queued: nothing, while the target's disk lacked
/// two seconds.
#[test]
fn what_is_applied_and_not_durable_keeps_its_age() {
    let queue = queue(1 << 20);
    let (id, _) = queue.attach(|_| ());
    assert_eq!(queue.behind(Sequence(0)), Some(Behind::default()));
    let before = Instant::now();
    append(&queue, &[0; 100]);
    let between = Instant::now();
    std::thread::sleep(QUEUE_MARK_EVERY * 2);
    append(&queue, &[0; 50]);
    let all = queue.behind(Sequence(0)).unwrap();
    queue.acknowledge_applied(id, Sequence(2));
    assert_eq!(queue.stats().packets, 0);
    assert_eq!(queue.behind(Sequence(0)), Some(all));
    assert_eq!(all.packets, 2);
    assert!(all.bytes >= 150 && all.since > Some(before) && all.since < Some(between), "{all:?}");
    queue.acknowledge_durable(id, Sequence(1));
    let second = queue.behind(Sequence(1)).unwrap();
    assert!(second.packets == 1 && second.bytes >= 50 && second.bytes < 150, "{second:?}");
    assert!(second.since >= Some(between + QUEUE_MARK_EVERY), "{second:?}");
    queue.acknowledge_durable(id, Sequence(2));
    assert_eq!(queue.behind(Sequence(2)), Some(Behind::default()));
    // Nobody reads any more: what is behind an old position has no known age.
    queue.detach(id);
    append(&queue, &[0]);
    assert_eq!(queue.behind(Sequence(2)), None);
}

#[test]
fn a_barrier_is_no_change() {
    let queue = queue(1 << 20);
    let change = |path: &[u8]| {
        let mut room = queue.reserve(0, 64).unwrap();
        let result = ContentResult { size: 0, mtime: Timestamp::default(), mode: None };
        let op = Op::Resize { object: ObjectId { birth_epoch: 1, generation: 1, inode: 1 }, result };
        queue.append(&mut room, Draft::new(path, &op, Bytes::new()))
    };
    // Also where nobody reads.
    append(&queue, &[]);
    assert_eq!(queue.last_change(), Sequence(0));
    let (_id, _) = queue.attach(|_| ());
    change(b"file");
    append(&queue, &[]);
    append(&queue, &[]);
    assert_eq!((queue.last_change(), queue.last().sequence), (Sequence(2), Sequence(4)));
    change(b"file");
    assert_eq!((queue.last_change(), queue.last().sequence), (Sequence(5), Sequence(5)));
}

/// What small changes take of the queue is mostly what each of them takes beside its bytes.
#[test]
fn what_a_target_lacks_is_known_as_the_memory_that_it_takes() {
    let queue = queue(1 << 20);
    let (id, _) = queue.attach(|_| ());
    for number in 0..100 {
        append(&queue, &vec![0; number * 50]);
        let behind = queue.behind(Sequence(0)).unwrap();
        assert_eq!(behind.held, queue.stats().bytes, "{behind:?}");
    }
    queue.acknowledge_applied(id, Sequence(40));
    let behind = queue.behind(Sequence(40)).unwrap();
    assert_eq!(behind.held, queue.stats().bytes, "{behind:?}");
    assert!(behind.held > behind.bytes, "{behind:?}");
}

/// A packet that was trimmed before its reservation was settled gave back what was never counted:
/// room for ever after was none (or, in a debug build, a panic).
#[test]
fn a_packet_may_go_before_its_append_returns() {
    let queue = queue(1 << 30);
    let (id, _) = queue.attach(|_| ());
    let done = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while done.load(Ordering::Relaxed) == 0 {
                queue.acknowledge_applied(id, queue.last().sequence);
            }
        });
        for _ in 0..20_000 {
            // A path that is longer than the room for headers.
            let mut room = queue.reserve(0, 64).unwrap();
            queue.append(
                &mut room,
                Draft::new(&[b'x'; 4000], &Op::Barrier { durable: false, name: None }, Bytes::new()),
            );
        }
        done.store(1, Ordering::Relaxed);
    });
    queue.acknowledge_applied(id, queue.last().sequence);
    assert_eq!(queue.stats().bytes, 0);
}
