//! What one queue leaves and the next one takes up.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;

use tempfile::TempDir;

use super::super::segment::{RECORDS_AT, record_len};
use super::super::{Backlog, CursorId, Packet, Queue, Reader};
use super::tests::{MEMORY, append, disk_queue, place, read_all, spill_all, start};
use crate::packet::{Incarnation, Position, Sequence};

/// With what an earlier one has left; its readers begin behind these packets.
fn taken_up(dir: &TempDir, backlog: &Backlog, applied: &[u64]) -> (Arc<Queue>, Vec<Option<CursorId>>) {
    let start =
        Position { sequence: backlog.last().sequence, ..Position::origin(start().epoch, Incarnation(99)) };
    let (queue, keeper) = Queue::with_backlog(MEMORY, start, place(dir.path(), None), backlog).unwrap();
    let cursors = applied.iter().map(|&applied| queue.attach_behind(Sequence(applied), |_| ())).collect();
    queue.detach(keeper);
    (queue, cursors)
}

/// One that ends and leaves all that is in it.
fn left() -> (TempDir, Vec<Packet>, Backlog) {
    let (dir, queue) = disk_queue(None);
    let (id, _) = queue.attach(|_| ());
    let reader = Reader::of(&queue);
    for number in 0..60 {
        append(&queue, &vec![number; 1000]);
        spill_all(&queue);
    }
    let all = read_all(&queue, &reader, Sequence(0));
    assert_eq!(all.len(), 60);
    queue.acknowledge_applied(id, Sequence(7));
    queue.begin_leaving();
    spill_all(&queue);
    let backlog = queue.backlog(None).unwrap();
    // As the connection ends.
    queue.detach(id);
    queue.look_at_disk();
    queue.end_disk();
    drop((reader, queue));
    (dir, all, backlog)
}

#[test]
fn what_is_left_is_read_by_the_next_queue_and_its_own_comes_behind() {
    let (dir, all, backlog) = left();
    assert_eq!(backlog.last(), all[59].position);
    let (queue, cursors) = taken_up(&dir, &backlog, &[7, 60, 61]);
    let [Some(slow), Some(done), None] = cursors[..] else { panic!("{cursors:?}") };
    let reader = Reader::of(&queue);
    let own = append(&queue, b"of its own");
    assert_eq!((own.sequence, own.incarnation), (Sequence(61), Incarnation(99)));
    assert_eq!(queue.behind(Sequence(7)).unwrap().packets, 54);
    let read = read_all(&queue, &reader, Sequence(7));
    let positions: Vec<Position> = read.iter().map(|packet| packet.position).collect();
    let expected: Vec<Position> = all[7..].iter().map(|packet| packet.position).chain([own]).collect();
    assert_eq!(positions, expected);
    assert!(read.iter().zip(&all[7..]).all(|(read, left)| read.payload == left.payload));
    queue.acknowledge_applied(done, Sequence(61));
    assert_eq!(queue.oldest(), Sequence(8), "one still needs it");
    queue.acknowledge_applied(slow, Sequence(61));
    // As a start that has come through.
    queue.leave_nothing();
    queue.look_at_disk();
    assert_eq!((queue.oldest(), queue.stats().disk.unwrap().bytes), (Sequence(62), 0));
    drop((reader, queue));
    assert!(!dir.path().join("queue").exists(), "nothing is left of it");
}

/// Also where that is left once more, with what the queue in between has written.
#[test]
fn what_is_left_is_left_again() {
    let (dir, all, backlog) = left();
    let (queue, cursors) = taken_up(&dir, &backlog, &[10]);
    let own = append(&queue, b"of its own");
    queue.begin_leaving();
    spill_all(&queue);
    let again = queue.backlog(None).unwrap();
    assert_eq!(again.last(), own);
    queue.detach(cursors[0].unwrap());
    queue.end_disk();
    drop(queue);
    let (queue, cursors) = taken_up(&dir, &again, &[10, 61]);
    assert!(cursors.iter().all(Option::is_some));
    let reader = Reader::of(&queue);
    let read = read_all(&queue, &reader, Sequence(10));
    assert_eq!(read.len(), 51);
    assert_eq!(read[0].position, all[10].position);
    assert_eq!(read[50].position, own);
}

/// Every byte of the last record that is damaged, and the header: it is not read as anything else. A file that is gone
/// takes what came before it along.
#[test]
fn what_is_not_as_it_was_left_is_never_read() {
    let (dir, all, backlog) = left();
    let queue_dir = dir.path().join("queue");
    let names: Vec<PathBuf> = backlog.segments.iter().map(|left| queue_dir.join(&left.name)).collect();
    assert!(names.len() > 1);
    let content: Vec<Vec<u8>> = names.iter().map(|name| fs::read(name).unwrap()).collect();
    let last = names.len() - 1;
    let restore = || {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&queue_dir).unwrap();
        names.iter().zip(&content).for_each(|(name, bytes)| fs::write(name, bytes).unwrap());
    };
    let record = record_len(&all[59]);
    let end = content[last].iter().rposition(|&byte| byte != 0).unwrap() + 1;
    let read = |applied: u64| {
        let (queue, cursors) = taken_up(&dir, &backlog, &[applied]);
        let read = cursors[0].map(|id| {
            let reader = Reader::of(&queue);
            let read = read_all(&queue, &reader, Sequence(applied));
            (read, queue.lost_for(id).is_some())
        });
        queue.begin_leaving();
        let _ = queue.backlog(None);
        read
    };
    for at in (end - record..end).step_by(7).chain(0..RECORDS_AT as usize) {
        restore();
        let mut bytes = content[last].clone();
        bytes[at] ^= 0x40;
        fs::write(&names[last], &bytes).unwrap();
        match read(7) {
            // Its header: nothing of it was taken up.
            None => assert!(at < RECORDS_AT as usize, "byte {at}"),
            Some((read, is_lost)) => {
                assert!(is_lost, "byte {at}");
                let is_part = |packet: &Packet| all.iter().any(|own| own.position == packet.position);
                assert!(read.len() < 53 && read.iter().all(is_part), "byte {at}: {} packets", read.len());
            }
        }
    }
    restore();
    fs::remove_file(&names[0]).unwrap();
    assert!(read(7).is_none(), "what it needs first is gone");
}
