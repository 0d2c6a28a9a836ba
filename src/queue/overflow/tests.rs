//! The disk part, stepped by hand: no threads.

use std::cell::{Cell, RefCell};
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use tempfile::TempDir;

use super::super::segment::{RECORDS_AT, record_len};
use super::super::{CursorId, DiskPlace, Draft, Packet, Planted, Queue, Reader};
use super::spill::Spilled;
use crate::failpoint;
use crate::limits::{QUEUE_SPARE_SEGMENTS, QUEUE_WINDOW};
use crate::packet::{ContentResult, Epoch, Incarnation, ObjectId, Op, Position, Sequence, Timestamp};
use crate::random::Random;
use crate::words::DiskTrouble;

const SEGMENT: u64 = 40_000;
pub(super) const MEMORY: usize = 60_000;

pub(super) fn place(dir: &Path, limit: Option<u64>) -> DiskPlace {
    DiskPlace { directory: dir.join("queue"), segment_len: SEGMENT, limit, floor: 0, is_beside_others: false }
}

pub(super) fn start() -> Position {
    Position::origin(Epoch { number: 1, writer: 2 }, Incarnation(3))
}

pub(super) fn disk_queue(limit: Option<u64>) -> (TempDir, Arc<Queue>) {
    let dir = tempfile::tempdir().unwrap();
    let queue = Queue::with_disk(MEMORY, start(), place(dir.path(), limit)).unwrap();
    queue.look_at_disk();
    (dir, queue)
}

pub(super) fn append(queue: &Arc<Queue>, payload: &[u8]) -> Position {
    let object = ObjectId { birth_epoch: 1, generation: 1, inode: payload.len() as u64 };
    let result = ContentResult { size: 7, mtime: Timestamp::default(), mode: None };
    let op = Op::Write { object, offset: 3, result };
    let mut room = queue.reserve(payload.len(), 200).unwrap();
    queue.append(&mut room, Draft::new(b"a/path", &op, Bytes::copy_from_slice(payload)))
}

pub(super) fn spill_all(queue: &Queue) -> Spilled {
    loop {
        match queue.spill_step() {
            Spilled::Some => queue.look_at_disk(),
            other => break other,
        }
    }
}

/// Whatever comes for this reader from here on.
pub(super) fn read_all(queue: &Queue, reader: &Reader, mut after: Sequence) -> Vec<Packet> {
    let mut all = Vec::new();
    loop {
        let mut got = reader.next(after, 20_000);
        while got.is_empty() && queue.read_step() {
            got = reader.next(after, 20_000);
        }
        let Some(last) = got.last() else { break all };
        after = last.position.sequence;
        all.extend(got);
    }
}

fn segments(dir: &TempDir) -> Vec<PathBuf> {
    let mut files: Vec<_> =
        fs::read_dir(dir.path().join("queue")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn payload(n: u64) -> Vec<u8> {
    vec![n as u8; 2000 + (n * 37 % 1000) as usize]
}

/// 200 packets are 500 KB: memory holds no more than half of its 60.
fn filled() -> (TempDir, Arc<Queue>, CursorId, Vec<Position>) {
    let (dir, queue) = disk_queue(None);
    let (id, _) = queue.attach(|_| ());
    let positions = (0..200)
        .map(|n| {
            let position = append(&queue, &payload(n));
            spill_all(&queue);
            position
        })
        .collect();
    (dir, queue, id, positions)
}

#[test]
fn what_memory_has_no_room_for_comes_back_from_disk_in_order() {
    let (dir, queue, id, positions) = filled();
    let stats = queue.stats();
    let disk = stats.disk.unwrap();
    assert_eq!(stats.packets, 200);
    assert!(stats.bytes <= MEMORY as u64 / 2, "{stats:?}");
    assert!(disk.packets > 150 && disk.bytes > 300_000 && disk.trouble.is_none(), "{disk:?}");
    assert_eq!(segments(&dir).len() as u64 * SEGMENT, disk.file_bytes);
    let reader = Reader::of(&queue);
    let got = read_all(&queue, &reader, Sequence(0));
    assert_eq!(got.iter().map(|packet| packet.position).collect::<Vec<_>>(), positions);
    for (n, packet) in got.iter().enumerate() {
        assert_eq!(packet.payload, payload(n as u64));
        assert!(!packet.changes_names);
    }
    assert!(got.is_sorted_by_key(|packet| packet.queued_at), "it is known when each was queued");
    assert_eq!(queue.oldest(), Sequence(1));
    queue.acknowledge_applied(id, Sequence(120));
    assert_eq!(queue.oldest(), Sequence(121));
    queue.acknowledge_applied(id, Sequence(200));
    queue.look_at_disk();
    let stats = queue.stats();
    assert_eq!((stats.packets, stats.bytes, stats.disk.unwrap().bytes), (0, 0, 0));
    assert_eq!(segments(&dir).len(), QUEUE_SPARE_SEGMENTS);
}

/// A target that is away must not slow another one: whoever is in line is served from memory.
#[test]
fn who_is_in_line_reads_nothing_from_disk() {
    let (_dir, queue, _away, _) = filled();
    let (near, at) = queue.attach(|_| ());
    let reader = Reader::of(&queue);
    let mut at = at.sequence;
    for n in 0..100 {
        append(&queue, &payload(n));
        let got = reader.next(at, usize::MAX);
        assert_eq!(got.len(), 1, "it is there at once");
        at = got[0].position.sequence;
        queue.acknowledge_applied(near, at);
        spill_all(&queue);
    }
    assert!(!queue.read_step(), "nobody wants anything from disk");
}

#[test]
fn a_window_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let place = DiskPlace { segment_len: 32 << 20, ..place(dir.path(), None) };
    let queue = Queue::with_disk(8 << 20, start(), place).unwrap();
    let _cursor = queue.attach(|_| ());
    for n in 0..40u8 {
        append(&queue, &vec![n; 1 << 20]);
        spill_all(&queue);
    }
    let reader = Reader::of(&queue);
    assert!(reader.next(Sequence(0), 1).is_empty());
    while queue.read_step() {}
    let held = reader.next(Sequence(0), usize::MAX).len();
    assert!((4..=6).contains(&held) && held << 20 <= QUEUE_WINDOW + (2 << 20), "{held}");
}

#[test]
fn files_of_the_process_before_are_removed_and_a_directory_has_one_user() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("queue")).unwrap();
    fs::write(dir.path().join("queue/segment-00000009"), "standinq, and so on").unwrap();
    let queue = Queue::with_disk(MEMORY, start(), place(dir.path(), None)).unwrap();
    assert_eq!(fs::read_dir(dir.path().join("queue")).unwrap().count(), 0);
    let error = Queue::with_disk(MEMORY, start(), place(dir.path(), None)).err().unwrap();
    assert!(error.to_string().contains("another daemon uses it"), "{error}");
    drop(queue);
    Queue::with_disk(MEMORY, start(), place(dir.path(), None)).unwrap();
}

#[test]
fn at_its_limit_it_says_so_and_goes_on_when_there_is_room() {
    let (dir, queue) = disk_queue(Some(3 * SEGMENT));
    let (id, _) = queue.attach(|_| ());
    while spill_all(&queue) == Spilled::Nothing {
        append(&queue, &payload(3));
    }
    queue.look_at_disk();
    let stats = queue.stats();
    let disk = stats.disk.unwrap();
    assert_eq!((disk.trouble, disk.alert, segments(&dir).len()), (Some(DiskTrouble::AtLimit), true, 3));
    assert!(!queue.disk_follows());
    queue.acknowledge_applied(id, Sequence(20));
    queue.look_at_disk();
    assert_eq!(queue.spill_step(), Spilled::Some);
    assert!(queue.disk_follows());
    let reader = Reader::of(&queue);
    let got = read_all(&queue, &reader, Sequence(20));
    assert_eq!(got.len() as u64, queue.last().sequence.0 - 20);
    // Whoever held it is let go: that it was full interests nobody any more.
    while spill_all(&queue) != Spilled::Stuck {
        append(&queue, &payload(3));
    }
    queue.detach(id);
    assert_eq!(queue.spill_step(), Spilled::Nothing);
    queue.look_at_disk();
    let disk = queue.stats().disk.unwrap();
    assert_eq!((disk.trouble, disk.alert, disk.bytes), (None, false, 0));
}

/// Fails what the closure says. For as long as it lives.
struct Faults;

impl Faults {
    fn set(fails: impl Fn(&'static str) -> bool + 'static) -> Faults {
        failpoint::set(Some(Rc::new(move |at| match fails(at) {
            true => Err(std::io::Error::from_raw_os_error(libc::EIO)),
            false => Ok(()),
        })));
        Faults
    }
}

impl Drop for Faults {
    fn drop(&mut self) {
        failpoint::set(None);
    }
}

#[test]
fn a_disk_that_fails_keeps_everything_in_memory() {
    for at in ["queue: write", "queue: make"] {
        let (_dir, queue) = disk_queue(None);
        let (_id, _) = queue.attach(|_| ());
        for n in 0..10 {
            append(&queue, &payload(n));
        }
        let faults = Faults::set(move |place| place == at);
        assert_eq!(queue.spill_step(), Spilled::Stuck, "{at}");
        assert_eq!(queue.stats().disk.unwrap().trouble, Some(DiskTrouble::Failed { errno: libc::EIO }));
        assert_eq!(queue.stats().packets, 10);
        drop(faults);
        assert_eq!(spill_all(&queue), Spilled::Nothing);
        assert!(queue.stats().disk.unwrap().packets > 0 && queue.disk_follows());
        let reader = Reader::of(&queue);
        assert_eq!(read_all(&queue, &reader, Sequence(0)).len(), 10);
    }
}

#[test]
fn what_cannot_be_read_is_lost_for_those_who_lack_it_alone() {
    let (_dir, queue, away, _) = filled();
    let (near, _) = queue.attach(|_| ());
    let reader = Reader::of(&queue);
    assert!(reader.next(Sequence(0), usize::MAX).is_empty());
    let faults = Faults::set(|place| place == "queue: read");
    assert!(queue.read_step());
    drop(faults);
    let why = queue.lost_for(away).unwrap();
    assert!(why.contains("cannot be read") && why.contains("Input/output error"), "{why}");
    assert!(queue.lost_for(near).is_none());
    assert!(reader.next(Sequence(0), usize::MAX).is_empty(), "nothing of it is sent");
    assert!(queue.oldest() > Sequence(1), "and nothing of it promised");
    queue.detach(away);
    assert_eq!(queue.oldest(), Sequence(201));
}

/// Every byte is checked: one that was changed is found, and nothing behind it is believed.
#[test]
fn damage_at_every_byte_of_the_last_record_is_found() {
    let (dir, queue) = disk_queue(None);
    let (id, _) = queue.attach(|_| ());
    let mut lens = Vec::new();
    for n in 0..22 {
        append(&queue, &vec![n; 1000]);
    }
    lens.extend(queue.next(Sequence(0), usize::MAX).iter().map(|packet| record_len(packet) as u64));
    assert_eq!(queue.spill_step(), Spilled::Some);
    let written = queue.stats().disk.unwrap().packets as usize;
    let end = RECORDS_AT + lens[..written].iter().sum::<u64>();
    let middle = RECORDS_AT + lens[..written / 2].iter().sum::<u64>();
    let file = OpenOptions::new().read(true).write(true).open(&segments(&dir)[0]).unwrap();
    for at in (end - lens[written - 1]..end).chain(middle..middle + 100) {
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
        let reader = Reader::of(&queue);
        assert!(reader.next(Sequence(0), usize::MAX).is_empty());
        assert!(queue.read_step());
        assert!(reader.next(Sequence(0), usize::MAX).is_empty(), "byte {at}");
        assert!(queue.lost_for(id).is_some(), "byte {at} of {end}");
        file.write_all_at(&byte, at).unwrap();
        // As if it had not been looked at.
        queue.tail.lock().disk.as_mut().unwrap().lost = None;
    }
    let reader = Reader::of(&queue);
    assert_eq!(read_all(&queue, &reader, Sequence(0)).len(), 22);
}

/// What stands in a segment that is used again may be whole, and is not what is looked for.
#[test]
fn older_records_of_a_segment_are_not_believed() {
    let (dir, queue, id, _) = filled();
    let files = segments(&dir);
    let old = fs::read(&files[1]).unwrap();
    fs::write(&files[2], old).unwrap();
    let reader = Reader::of(&queue);
    let got = read_all(&queue, &reader, Sequence(0));
    assert!(got.len() < 60 && got.windows(2).all(|pair| pair[1].position.follows(&pair[0].position)));
    assert!(queue.lost_for(id).unwrap().contains("does not come after"));
}

/// A reader that was slow while its segment was used again finds something else there.
#[test]
fn what_was_read_of_a_segment_that_is_gone_is_dropped() {
    let (_dir, queue, id, _) = filled();
    let reader = Reader::of(&queue);
    assert!(reader.next(Sequence(0), usize::MAX).is_empty());
    let during = queue.clone();
    let once = Cell::new(true);
    let faults = Faults::set(move |place| {
        if place == "queue: read" && once.take() {
            during.detach(id);
            return true;
        }
        false
    });
    queue.read_step();
    drop(faults);
    assert!(queue.tail.lock().disk.as_ref().unwrap().lost.is_none(), "nobody has lost anything");
}

/// A reader of the model: a connection.
struct Connection {
    id: CursorId,
    reader: Reader,
    sent: Sequence,
    applied: Sequence,
}

impl Connection {
    fn new(queue: &Arc<Queue>) -> Connection {
        let (id, at) = queue.attach(|_| ());
        Connection { id, reader: Reader::of(queue), sent: at.sequence, applied: at.sequence }
    }
}

#[derive(Default)]
struct Seen {
    spilled: u64,
    read: u64,
    lost: u64,
    stuck: u64,
    reconnected: u64,
}

/// Any order of what threads do, against a list of everything that was given out.
struct Model {
    random: Random,
    dir: TempDir,
    queue: Arc<Queue>,
    given: Vec<(Position, Vec<u8>)>,
    connections: Vec<Connection>,
    is_faulty: Rc<Cell<bool>>,
    read_failed: Rc<Cell<bool>>,
    _faults: Faults,
}

impl Model {
    fn new(seed: u64, planted: Option<Planted>) -> Model {
        let mut random = Random::new(seed);
        let dir = tempfile::tempdir().unwrap();
        let limit = (!random.one_in(3)).then(|| SEGMENT * (2 + random.below(12)));
        let queue = Queue::with_disk(MEMORY, start(), place(dir.path(), limit)).unwrap();
        queue.look_at_disk();
        planted.into_iter().for_each(|planted| queue.plant(planted));
        let (is_faulty, read_failed) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(false)));
        let (faulty, failed) = (is_faulty.clone(), read_failed.clone());
        let chance = RefCell::new(Random::new(seed ^ 0xfa17));
        let _faults = Faults::set(move |place| {
            let fails = faulty.get() && chance.borrow_mut().one_in(3);
            failed.set(failed.get() || fails && place == "queue: read");
            fails
        });
        let connections = (0..1 + random.below(3)).map(|_| Connection::new(&queue)).collect();
        Model { random, dir, queue, given: Vec::new(), connections, is_faulty, read_failed, _faults }
    }

    fn step(&mut self, writes: bool, seen: &mut Seen) {
        match self.random.below(12) {
            0..=3 if writes && self.queue.has_room(6000) => {
                let payload = vec![self.given.len() as u8; self.random.below(4000) as usize];
                self.given.push((append(&self.queue, &payload), payload));
            }
            0..=4 => match self.queue.spill_step() {
                Spilled::Some => seen.spilled += 1,
                Spilled::Stuck => seen.stuck += 1,
                Spilled::Nothing => {}
            },
            5..=6 => seen.read += u64::from(self.queue.read_step()),
            7 => self.queue.look_at_disk(),
            8..=10 => {
                let at = self.random.below(self.connections.len() as u64) as usize;
                receive(&self.queue, &mut self.connections[at], &self.given, &mut self.random);
                let one = &mut self.connections[at];
                one.applied.0 += self.random.below(one.sent.0 - one.applied.0 + 1);
                self.queue.acknowledge_applied(one.id, one.applied);
            }
            _ if self.random.one_in(4) => {
                let at = self.random.below(self.connections.len() as u64) as usize;
                let one = &mut self.connections[at];
                (one.reader, one.sent) = (Reader::of(&self.queue), one.applied);
                seen.reconnected += 1;
            }
            _ => {}
        }
        assert!(self.queue.stats().bytes <= MEMORY as u64, "memory is bounded");
        for one in self.connections.iter_mut().filter(|one| self.queue.lost_for(one.id).is_some()) {
            assert!(self.read_failed.get(), "nothing was lost by the disk");
            seen.lost += 1;
            self.queue.detach(one.id);
            *one = Connection::new(&self.queue);
        }
    }

    /// Whatever is queued arrives, and nothing stays.
    fn end(mut self) {
        let mut rounds = 0;
        for one in &mut self.connections {
            while one.sent < self.queue.last().sequence && self.queue.lost_for(one.id).is_none() {
                rounds += 1;
                assert!(rounds < 50_000, "what is queued never comes");
                receive(&self.queue, one, &self.given, &mut self.random);
                self.queue.acknowledge_applied(one.id, one.sent);
                let _ = (self.queue.spill_step(), self.queue.read_step());
                self.queue.look_at_disk();
            }
            self.queue.detach(one.id);
        }
        self.queue.look_at_disk();
        let stats = self.queue.stats();
        assert_eq!((stats.packets, stats.bytes, stats.disk.unwrap().bytes), (0, 0, 0));
        assert!(segments(&self.dir).len() <= QUEUE_SPARE_SEGMENTS, "segments stay");
    }
}

fn check(seed: u64, planted: Option<Planted>, seen: &mut Seen) {
    let mut model = Model::new(seed, planted);
    for step in 0..3000 {
        model.is_faulty.set(step < 2500 && step % 500 > 400);
        model.step(step < 2500, seen);
    }
    model.end();
}

/// What comes next is what was given out next.
fn receive(queue: &Queue, one: &mut Connection, given: &[(Position, Vec<u8>)], random: &mut Random) {
    if queue.lost_for(one.id).is_some() {
        return;
    }
    let got = one.reader.next(one.sent, 1 + random.below(20_000) as usize);
    let part = 1 + random.below(got.len() as u64 + 1) as usize;
    for packet in got.iter().take(part) {
        let (position, payload) = &given[one.sent.0 as usize];
        assert_eq!(packet.position, *position, "the next one comes next");
        assert_eq!(packet.payload, *payload);
        one.sent = packet.position.sequence;
    }
}

#[test]
fn any_order_of_work_gives_every_packet_once_and_in_order() {
    let seed = std::env::var("STANDIN_SEED").ok().and_then(|seed| seed.parse().ok());
    let first = seed.unwrap_or_else(|| crate::store::random_u64() >> 16);
    let mut seen = Seen::default();
    for seed in first..first + if seed.is_some() { 1 } else { 40 } {
        println!("STANDIN_SEED={seed}");
        check(seed, None, &mut seen);
    }
    let Seen { spilled, read, lost, stuck, reconnected } = seen;
    println!("spilled {spilled}, read {read}, lost {lost}, stuck {stuck}, reconnected {reconnected}");
    assert!(seed.is_some() || [spilled, read, lost, stuck, reconnected].iter().all(|count| *count > 0));
}

#[test]
fn every_planted_bug_is_caught() {
    let all = [
        Planted::RecyclesTooEarly,
        Planted::SkipsAtTheBorder,
        Planted::FillsOutOfOrder,
        Planted::ForgetsWhatWasNotWritten,
    ];
    for planted in all {
        let caught = (1..60).find(|seed| {
            let run = || check(*seed, Some(planted), &mut Seen::default());
            let is_caught = catch_unwind(AssertUnwindSafe(run)).is_err();
            failpoint::set(None);
            is_caught
        });
        println!("{planted:?}: seed {caught:?}");
        assert!(caught.is_some(), "{planted:?} was not caught");
    }
}
