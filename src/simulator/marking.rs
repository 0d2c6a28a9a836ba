//! What applications change is marked in the map before its op has a position, by the rules of the volume
//! (`intercept::change`); generations of the map begin as the notes of a source have it, also in the midst of a
//! change.

use std::sync::Arc;

use super::backing::Backing;
use super::model::Tree;
use super::planted::Planted;
use crate::map::{Kept, Map, Planted as PlantedInMap, What};
use crate::packet::*;
use crate::random::Random;
use crate::source_side::{Reached, kept_bases};

/// Bytes of a generation: room for a few objects, or for all.
const SIZES: [usize; 5] = [1024, 4096, 1 << 16, 1 << 16, 1 << 16];

/// See the module.
pub struct Marking {
    /// In some runs nothing is marked.
    map: Option<Arc<Map>>,
    bytes: usize,
    /// The mount outlives its daemon, and so do the marks.
    is_kept: bool,
    random: Random,
    planted: Option<Planted>,
    /// A generation has begun in the midst of the change that is made.
    is_rotated: bool,
    pub rotated: u64,
}

impl Marking {
    pub fn new(mut random: Random, planted: Option<Planted>, start: Position) -> Marking {
        let is_kept = !Random::new(random.clone().number() ^ 0x6a7).one_in(3);
        let bytes = *random.one_of(&SIZES);
        let is_marked = !random.one_in(5);
        let mut marking =
            Marking { map: None, bytes, is_kept, random, planted, is_rotated: false, rotated: 0 };
        marking.map = is_marked.then(|| marking.begin(start, None));
        marking
    }

    /// Another process marks, which has given out nothing behind this; the mount is there all the time, or a new one.
    pub fn begins_anew(&mut self, start: Position, is_same_mount: bool) {
        let before = self.map.take();
        self.map = before.map(|before| self.begin(start, Some(&*before).filter(|_| is_same_mount)));
    }

    fn begin(&self, start: Position, before: Option<&Map>) -> Arc<Map> {
        if !self.is_kept {
            return Arc::new(Map::new(self.bytes, start.sequence));
        }
        let memory =
            before.and_then(Map::memory).map(|memory| memory.try_clone_to_owned().expect("a descriptor"));
        let kept = match memory {
            Some(memory) => Kept::open(memory, self.bytes),
            None => Kept::create(self.bytes),
        };
        let map = Map::kept(kept.expect("memory"), self.bytes, start.incarnation, start.sequence);
        let mut map = map.expect("memory");
        map.plant(match self.planted {
            Some(Planted::LastRunAlone) => Some(PlantedInMap::LastRunAlone),
            Some(Planted::RunsWithHoles) => Some(PlantedInMap::RunsWithHoles),
            _ => None,
        });
        Arc::new(map)
    }

    /// Whether the mount outlives the process that ends.
    pub fn is_kept(&self) -> bool {
        self.is_kept && self.map.is_some()
    }

    pub fn map(&self) -> Option<Arc<Map>> {
        self.map.clone()
    }

    /// Before a change is made. `before`: the tree as it is.
    pub fn mark(&mut self, backing: &Backing, before: &Tree, op: &Op, payload: usize) {
        for (object, what) in touched(op, before, payload as u64) {
            self.mark_one(backing, object, &what);
        }
    }

    /// It is made, and has no position yet.
    pub fn mark_new(&mut self, backing: &Backing, op: &Op, last: Sequence) {
        if let Op::Create { object, birth, .. } = op {
            let what = match birth {
                Birth::Directory => What::Names,
                Birth::File => What::From(0),
                _ => What::Itself,
            };
            self.mark_one(backing, *object, &what);
        }
        let rotates = self.random.one_in(15);
        let Some(map) = self.map.as_ref().filter(|_| rotates) else { return };
        self.is_rotated = map.rotate();
        self.rotated += u64::from(self.is_rotated);
        if self.planted == Some(Planted::GenerationBeginsTooEarly) {
            map.begins_at(last);
        }
    }

    /// The change has its position.
    pub fn is_told(&mut self, position: Sequence) {
        if std::mem::take(&mut self.is_rotated)
            && let Some(map) = &self.map
        {
            map.begins_at(position);
        }
    }

    fn mark_one(&mut self, backing: &Backing, object: ObjectId, what: &What) {
        let is_forgotten = self.planted == Some(Planted::MarksForgotten) && self.random.one_in(4);
        if let Some(map) = self.map.as_ref().filter(|_| !is_forgotten)
            && let Some((id, handle)) = backing.at_hand(object)
        {
            map.mark(id, Some(&handle), what);
        }
    }

    /// As a source does it now and then, between two changes. `reached`: what is noted of the target.
    pub fn look(&mut self, base: Option<Sequence>, reached: Option<Reached>, last: Position) {
        let Some(map) = &self.map else { return };
        map.begins_at(last.sequence);
        let mut bases = base.as_slice().to_vec();
        if self.is_kept && self.planted != Some(Planted::RunsWithHoles) {
            bases.extend(kept_bases(map, last.incarnation, reached.into_iter()));
        }
        map.move_on(&bases, last.sequence);
    }

    pub fn is_full(&self) -> bool {
        self.map.as_ref().is_some_and(|map| map.fill().iter().any(|one| one.is_everything))
    }
}

/// What a change touches, beside what it makes.
fn touched(op: &Op, before: &Tree, payload: u64) -> Vec<(ObjectId, What)> {
    let names = |at: &Entry| (at.dir, What::Names);
    let node = |object: &ObjectId| before.nodes.get(&object.inode);
    let moved = |object: &ObjectId| match node(object).map(|node| &node.birth) {
        Some(Birth::Directory) => (*object, What::Names),
        Some(_) | None => (*object, What::Itself),
    };
    match op {
        Op::Create { at, .. }
        | Op::Unlink { at, .. }
        | Op::RemoveDirectory { at, .. }
        | Op::Keep { at, .. } => vec![names(at)],
        Op::Link { at, object, .. } => vec![names(at), (*object, What::Itself)],
        Op::Rename { from, to, object, .. } => vec![names(from), names(to), moved(object)],
        Op::Exchange { left, left_object, right, right_object, .. } => {
            vec![names(left), names(right), moved(left_object), moved(right_object)]
        }
        Op::Write { object, offset, .. } => vec![(*object, What::Content(*offset..*offset + payload))],
        Op::Reserve { object, offset, length, .. } => {
            vec![(*object, What::Content(*offset..*offset + *length))]
        }
        Op::Resize { object, result } => {
            let size = node(object).map_or(0, |node| node.content.len() as u64);
            vec![(*object, What::From(size.min(result.size)))]
        }
        Op::SetAttributes { object, .. } | Op::SetXattr { object, .. } | Op::RemoveXattr { object, .. } => {
            vec![(*object, What::Itself)]
        }
        Op::Barrier { .. } | Op::Stage { .. } | Op::Place { .. } | Op::Leave { .. } | Op::Unstage { .. } => {
            Vec::new()
        }
    }
}
