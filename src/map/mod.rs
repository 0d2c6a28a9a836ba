//! The map: what was changed, so that a target that has lost its place in the queue is shown that and
//! nothing else.
//!
//! ```text
//!  change ── its locks are taken ── mark ── system call ── its op gets a position
//!                                     │
//!  generations   1 ─────── 2 ─────── 3 (marks go here)
//!  begin at      0         4711      9002      a target that has all up to 5000 lacks what 2 and 3 say
//! ```
//! A generation *begins at* a position when all changes that may have marked the one before have theirs: so
//! whoever has everything up to there needs none before. A rotation begins a new one
//! ([`Map::rotate`]), and the position is told when it is known ([`Map::begins_at`]). Generations between
//! which no target stands are one ([`Map::tidy`]): a target that is away for a week costs two.
//! Bounded, without I/O, and no lock is taken under it; a full generation becomes coarser (`table`).
//!
//! Where the mount outlives its daemon, so do the marks ([`Kept`]): a mark is there before its change is made, so
//! whatever a daemon that was killed has changed is marked, and nothing but the next daemon changes anything. What
//! a target lacks that had everything up to a position of an earlier run is what that run has marked from there on,
//! and all that any run since has.

mod left;
mod memory;
mod table;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use self::memory::Memory;
pub use self::memory::{FORMAT, Kept};
pub use self::table::MarkedObject;
use self::table::{CHUNK, Head, Table};
use crate::limits::MAP_REGION;
use crate::packet::{Incarnation, ObjectId, Sequence};
use crate::sys::FileHandle;

/// Bugs that are planted on purpose.
#[cfg(test)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// Of what daemons before have marked the last one's counts, whatever the target has.
    LastRunAlone,
    /// Nobody looks whether all of a run's marks are there.
    RunsWithHoles,
}

/// What of an object changes; its attributes always may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    Itself,
    /// Names in a directory.
    Names,
    /// Bytes of a file.
    Content(Range<u64>),
    /// All bytes from an offset on: its size changes.
    From(u64),
}

/// See the module.
pub struct Map {
    generations: RwLock<Generations>,
    bytes: usize,
    run: Incarnation,
    /// What this process marks is of changes behind this position.
    began_at: Sequence,
    /// Where the marks outlive this process, if they do.
    kept: Option<Kept>,
    /// What daemons before have marked, the oldest first.
    left: Mutex<Vec<Arc<Generation>>>,
    #[cfg(test)]
    planted: Option<Planted>,
}

/// The oldest first; the last one is marked.
struct Generations {
    older: Vec<Arc<Generation>>,
    current: Arc<Generation>,
}

struct Generation {
    table: Table,
}

/// Everything that was changed since a position, and perhaps more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    pub objects: Vec<MarkedObject>,
    /// By file: in order, without overlaps, whole regions.
    pub content: HashMap<ObjectId, Vec<Range<u64>>>,
}

/// How full a generation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    /// Counted from 1.
    pub number: u64,
    pub begins_at: Option<Sequence>,
    pub used: usize,
    pub slots: usize,
    pub bytes: usize,
    /// More was marked than it has room for.
    pub is_everything: bool,
    /// It is there for the next daemon.
    pub is_kept: bool,
}

impl Map {
    /// Of a run whose packets come after this position; a generation has so many bytes.
    pub fn new(bytes: usize, begins_at: Sequence) -> Map {
        let head = Head { run: Incarnation(0), number: 1, begins_run: true };
        let current = Generation::begin(Memory::own(Table::words(bytes)), head);
        Map::of(bytes, (current, begins_at), None, Vec::new())
    }

    fn of(
        bytes: usize,
        (current, begins_at): (Generation, Sequence),
        kept: Option<Kept>,
        left: Vec<Arc<Generation>>,
    ) -> Map {
        current.table.set_begins_at(begins_at);
        let (run, current) = (current.table.head().run, Arc::new(current));
        let generations = RwLock::new(Generations { older: Vec::new(), current });
        Map {
            generations,
            bytes,
            run,
            began_at: begins_at,
            kept,
            left: Mutex::new(left),
            #[cfg(test)]
            planted: None,
        }
    }

    pub fn began_at(&self) -> Sequence {
        self.began_at
    }

    /// Before the change. Objects without a handle could not be found again: then everything is marked.
    pub fn mark(&self, id: ObjectId, handle: Option<&FileHandle>, what: &What) {
        // Held until it is marked: after a rotation nobody marks an older generation.
        let generations = self.generations.read();
        match handle {
            Some(handle) => generations.current.table.mark(id, handle, what),
            None => generations.current.table.mark_everything(),
        }
    }

    /// From now on another generation is marked, unless the last rotation is not over, or there is no memory for it.
    pub fn rotate(&self) -> bool {
        if self.is_rotating() {
            return false;
        }
        let number = self.generations.read().current.table.head().number + 1;
        let head = Head { run: self.run, number, begins_run: false };
        // Not under the lock: all of it is written once.
        let memory = match &self.kept {
            None => Memory::own(Table::words(self.bytes)),
            Some(kept) => match kept.take() {
                Ok(memory) => memory,
                // Marks go on where they are: more is shown than has changed.
                Err(error) => {
                    log::info!("no other generation of the map begins: {error}");
                    return false;
                }
            },
        };
        let next = Arc::new(Generation::begin(memory, head));
        let mut generations = self.generations.write();
        let before = std::mem::replace(&mut generations.current, next);
        generations.older.push(before);
        true
    }

    /// Whether a rotation waits for its position.
    pub fn is_rotating(&self) -> bool {
        self.generations.read().current.table.begins_at().is_none()
    }

    /// All changes that began before the last rotation have positions up to this one.
    pub fn begins_at(&self, position: Sequence) {
        let generations = self.generations.read();
        if generations.current.table.begins_at().is_none() {
            generations.current.table.set_begins_at(position);
        }
    }

    /// Where the generation that is marked begins, and whether it has marks.
    pub fn current(&self) -> (Option<Sequence>, bool) {
        let generations = self.generations.read();
        let (used, _) = generations.current.table.fill();
        (generations.current.table.begins_at(), used > 0 || generations.current.table.is_everything())
    }

    /// What a target lacks that has everything up to here. `None`: it is not known, or too much.
    pub fn changed_since(&self, has: Sequence) -> Option<Changed> {
        let (generations, first) = self.from(has)?;
        changed(generations[first..].iter())
    }

    /// All generations, and the first one that somebody needs who has everything up to here.
    fn from(&self, has: Sequence) -> Option<(Vec<Arc<Generation>>, usize)> {
        let generations = self.generations.read();
        let all: Vec<_> = generations.older.iter().chain([&generations.current]).cloned().collect();
        let first = all.iter().rposition(|one| one.table.begins_at().is_some_and(|begins| begins <= has))?;
        Some((all, first))
    }

    /// Only targets that have everything up to one of these will ask. For one caller at a time, which is
    /// the one that rotates.
    pub fn tidy(&self, bases: &[Sequence]) {
        let needed: Vec<usize> = bases.iter().filter_map(|&base| Some(self.from(base)?.1)).collect();
        let older = self.generations.read().older.clone();
        let (mut kept, mut over): (Vec<Arc<Generation>>, Vec<_>) = Default::default();
        for (at, generation) in older.into_iter().enumerate() {
            match kept.last() {
                _ if needed.contains(&at) => kept.push(generation),
                // Nobody begins with it: whoever needs it needs the one before.
                Some(before) => {
                    before.table.merge(&generation.table);
                    over.push(generation);
                }
                None => over.push(generation),
            }
        }
        self.generations.write().older = kept;
        over.iter().for_each(|generation| generation.is_over());
    }

    /// Where a target has moved on since the generation that is marked began, another one begins. `bases`: as for
    /// [`Map::tidy`]; `last`: the last position that was given out.
    pub fn move_on(&self, bases: &[Sequence], last: Sequence) {
        self.tidy(bases);
        let (begins, has_marks) = self.current();
        // Where nothing comes any more, what was changed while the last one began would stay marked.
        let has_more =
            |begins: Sequence| bases.iter().any(|&base| base > begins || base == begins && base == last);
        if has_marks && begins.is_some_and(has_more) {
            self.rotate();
        }
    }

    /// Where generations begin.
    #[cfg(test)]
    pub fn begins(&self) -> Vec<Sequence> {
        let generations = self.generations.read();
        let all = generations.older.iter().chain([&generations.current]);
        all.filter_map(|generation| generation.table.begins_at()).collect()
    }

    /// The oldest first.
    pub fn fill(&self) -> Vec<Fill> {
        let generations = self.generations.read();
        let all = generations.older.iter().chain([&generations.current]);
        all.map(|generation| generation.fill(self.bytes)).collect()
    }
}

impl Generation {
    fn begin(memory: Memory, head: Head) -> Generation {
        let table = Table::begin(memory, head);
        if let Memory::Kept(part) = table.memory() {
            part.holds();
        }
        Generation { table }
    }

    /// Nobody needs it but who reads it now.
    fn is_over(&self) {
        if let Memory::Kept(part) = self.table.memory() {
            part.is_over();
        }
    }

    fn fill(&self, bytes: usize) -> Fill {
        let (used, slots) = self.table.fill();
        let (number, begins_at) = (self.table.head().number, self.table.begins_at());
        let is_kept = matches!(self.table.memory(), Memory::Kept(_));
        Fill { number, begins_at, used, slots, bytes, is_everything: self.table.is_everything(), is_kept }
    }
}

/// `None`: more than there was room for.
fn changed<'a>(generations: impl Iterator<Item = &'a Arc<Generation>>) -> Option<Changed> {
    let mut objects: HashMap<ObjectId, MarkedObject> = HashMap::new();
    let mut content: HashMap<ObjectId, HashMap<u64, u64>> = HashMap::new();
    for table in generations.map(|generation| &generation.table) {
        table.objects().for_each(|object| add(&mut objects, object));
        for (id, chunk, regions) in table.chunks() {
            *content.entry(id).or_default().entry(chunk).or_default() |= regions;
        }
        // Last: what did not fit while this was read is everything, too.
        if table.is_everything() {
            return None;
        }
    }
    let content = content.into_iter().map(|(id, chunks)| (id, ranges(chunks))).collect();
    Some(Changed { objects: objects.into_values().collect(), content })
}

fn add(objects: &mut HashMap<ObjectId, MarkedObject>, more: MarkedObject) {
    let there = objects.entry(more.id).or_insert_with(|| more.clone());
    there.names |= more.names;
    there.content_from = match (there.content_from, more.content_from) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    };
}

fn ranges(chunks: HashMap<u64, u64>) -> Vec<Range<u64>> {
    let mut chunks: Vec<_> = chunks.into_iter().collect();
    chunks.sort_unstable();
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for (chunk, regions) in chunks {
        for region in (0..u64::BITS as u64).filter(|region| regions >> region & 1 == 1) {
            let start = chunk * CHUNK + region * MAP_REGION;
            match ranges.last_mut() {
                Some(last) if last.end == start => last.end += MAP_REGION,
                _ => ranges.push(start..start + MAP_REGION),
            }
        }
    }
    ranges
}
