//! What changes is marked: wherever a target has lost its place, the map says all that it lacks.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use super::{Ground, Planted, SEEDS_PLANTED, tried_in, work_beside};
use crate::intercept::Volume;
use crate::map::{Changed, Map, MarkedObject};
use crate::mutation::rounds;
use crate::packet::{Epoch, Incarnation, ObjectId, Op, Position, Sequence, decode_packet_header};
use crate::queue::Queue;

const SEEDS: u64 = 300;

/// A generation begins, and then its position is known.
struct Turns<'a> {
    volume: &'a Volume,
    queue: &'a Queue,
    map: &'a Map,
    is_told: bool,
    is_early: bool,
}

impl Turns<'_> {
    fn step(&mut self) {
        if !self.map.is_rotating() {
            assert!(self.map.rotate());
            self.is_told = false;
        }
        if !self.is_told {
            self.is_told = self.volume.tell_changes_apart();
        } else if self.volume.earlier_changes_are_over() || self.is_early {
            self.map.begins_at(self.queue.last().sequence);
        }
    }
}

fn run(place: &Path, seed: u64, planted: Option<Planted>) {
    let backing = place.join("backing");
    std::fs::create_dir(&backing).unwrap();
    let start = Position::origin(Epoch { number: 1, writer: 2 }, Incarnation(3));
    let queue = Queue::new(1 << 30, start);
    queue.attach(|_| ());
    let map = Arc::new(Map::new(1 << 18, start.sequence));
    let fd = File::open(&backing).unwrap().into();
    let volume = Volume::new(fd, queue.clone(), 1).unwrap().marking(map.clone());
    volume.watch_for_others();
    let is_early = planted == Some(Planted::BeginsTooEarly);
    let mut turns = Turns { volume: &volume, queue: &queue, map: &map, is_told: false, is_early };
    work_beside(&volume, seed, planted, || turns.step());
    for begins in map.begins() {
        let changed = map.changed_since(begins).unwrap();
        let objects = changed.objects.iter().map(|object| (object.id, object)).collect();
        assert_marked(&queue, begins, &Marked { changed: &changed, objects });
    }
}

struct Marked<'a> {
    changed: &'a Changed,
    objects: HashMap<ObjectId, &'a MarkedObject>,
}

/// Every packet behind a position is of something that is marked.
fn assert_marked(queue: &Queue, after: Sequence, marked: &Marked<'_>) {
    let sizes = &mut HashMap::new();
    for packet in queue.next(Sequence(0), usize::MAX) {
        let op = decode_packet_header(&packet.header).unwrap().op;
        let is_marked = marked.covers(&op, packet.payload.len() as u64, sizes);
        assert!(is_marked || packet.position.sequence <= after, "{op:?} is not marked since {after}");
    }
}

impl Marked<'_> {
    fn names(&self, dir: ObjectId) -> bool {
        self.objects.get(&dir).is_some_and(|object| object.names)
    }

    fn has(&self, object: ObjectId) -> bool {
        self.objects.contains_key(&object)
    }

    fn content(&self, object: ObjectId, from: u64, to: u64) -> bool {
        let Some(marked) = self.objects.get(&object) else { return false };
        let ranges = self.changed.content.get(&object).map(Vec::as_slice).unwrap_or_default();
        from >= to
            || marked.content_from.is_some_and(|start| start <= from)
            || ranges.iter().any(|range| range.start <= from && to <= range.end)
    }

    /// `sizes`: of files, as of the packet before.
    fn covers(&self, op: &Op, payload: u64, sizes: &mut HashMap<ObjectId, u64>) -> bool {
        match op {
            Op::Create { at, .. }
            | Op::Link { at, .. }
            | Op::Unlink { at, .. }
            | Op::RemoveDirectory { at, .. } => self.names(at.dir),
            Op::Rename { from, to, .. } => self.names(from.dir) && self.names(to.dir),
            Op::Exchange { left, right, .. } => self.names(left.dir) && self.names(right.dir),
            Op::Write { object, offset, result } => {
                sizes.insert(*object, result.size);
                self.content(*object, *offset, offset + payload)
            }
            Op::Reserve { object, offset, length, result, .. } => {
                sizes.insert(*object, result.size);
                self.content(*object, *offset, offset + length)
            }
            Op::Resize { object, result } => {
                let before = sizes.insert(*object, result.size).unwrap_or(0);
                self.content(*object, before.min(result.size), before.max(result.size))
            }
            Op::SetAttributes { object, .. } => self.has(*object),
            Op::SetXattr { object, .. } | Op::RemoveXattr { object, .. } => self.has(*object),
            Op::Barrier { .. } => true,
            Op::Stage { .. } | Op::Place { .. } | Op::Leave { .. } | Op::Unstage { .. } | Op::Keep { .. } => {
                false
            }
        }
    }
}

fn tried(ground: &Ground, seed: u64, planted: Option<Planted>) -> Result<(), String> {
    tried_in(ground, seed, |place| run(place, seed, planted))
}

#[test]
fn whatever_is_told_was_marked() {
    let ground = Ground::new();
    for seed in rounds(SEEDS) {
        if let Err(wrong) = tried(&ground, seed, None) {
            panic!("STANDIN_TEST_SEED={seed}: {wrong}");
        }
    }
}

#[test]
fn what_is_not_marked_is_found() {
    let ground = Ground::new();
    for planted in [Planted::BeginsTooEarly, Planted::MarksTheNewSize] {
        let find = |seed| tried(&ground, seed, Some(planted)).err().map(|wrong| (seed, wrong));
        let (seed, wrong) =
            (1..=SEEDS_PLANTED).find_map(find).unwrap_or_else(|| panic!("{planted:?} was not found"));
        println!("{planted:?}: seed {seed}: {wrong}");
    }
}
