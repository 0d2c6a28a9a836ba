//! Marks of one generation: a hash table of words, set by any number of threads without a lock.
//!
//! ```text
//! a slot, 8 words:  object  2 | inode | generation, epoch | names      | content from | handle, 3 words
//!                   chunk   3 | inode | generation, epoch | its number | 64 regions   | -
//! before the first: run | number | begins at, and 1 | everything | slots in use | begins its run | -
//! ```
//! A slot is free (0), being filled (1), or says what it is for ever: nothing is taken out. A chunk is 64
//! regions of a file. Where it becomes full it becomes coarser and never fails: a file is marked as a whole
//! instead of by chunks, and in the end everything is.

use std::ops::Range;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use xxhash_rust::xxh3::xxh3_64;

use super::What;
use super::memory::Memory;
use crate::limits::{MAP_RANGE_CHUNKS_MAX, MAP_REGION};
use crate::packet::{Incarnation, ObjectId, Sequence};
use crate::sys::FileHandle;

/// Words of a slot.
const SLOT: usize = 8;
const SLOT_LEN: usize = SLOT * size_of::<u64>();
const REGIONS: u64 = u64::BITS as u64;
/// Bytes of a file that one slot tells apart.
pub(super) const CHUNK: u64 = MAP_REGION * REGIONS;
/// Bytes of a handle that fit: type, length, and the longest that a known file system has.
const HANDLE_ROOM: usize = 3 * size_of::<u64>() - 2;

const FREE: u64 = 0;
const FILLED_SOON: u64 = 1;
const OBJECT: u64 = 2;
const CHUNK_OF: u64 = 3;

/// No content is marked "from here on".
const NO_CONTENT: u64 = u64::MAX;

/// Words of the head: as many as a slot has.
const RUN: usize = 0;
const NUMBER: usize = 1;
const BEGINS_AT: usize = 2;
/// More was marked than it has room for.
const EVERYTHING: usize = 3;
const USED: usize = 4;
const BEGINS_RUN: usize = 5;

/// See the module.
pub(super) struct Table {
    memory: Memory,
}

/// What a table is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub run: Incarnation,
    pub number: u64,
    /// Nothing of the run was marked before.
    pub begins_run: bool,
}

/// One object of a table, as it was marked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MarkedObject {
    pub id: ObjectId,
    pub handle: FileHandle,
    /// The names in a directory.
    pub names: bool,
    /// All content from here on.
    pub content_from: Option<u64>,
}

/// What a slot is of.
#[derive(Clone, Copy)]
struct Key {
    kind: u64,
    id: ObjectId,
    chunk: u64,
}

/// Nothing more fits.
struct Full;

impl Table {
    /// Words that a table of so many bytes has, or of fewer: at least one slot.
    pub(super) fn words(bytes: usize) -> usize {
        let slots = (bytes / SLOT_LEN).max(1);
        let slots = if slots.is_power_of_two() { slots } else { slots.next_power_of_two() / 2 };
        (slots + 1) * SLOT
    }

    /// Of [`Table::words`] that are all 0.
    pub(super) fn begin(memory: Memory, head: Head) -> Table {
        let table = Table { memory };
        let words = [(RUN, head.run.0), (NUMBER, head.number), (BEGINS_RUN, u64::from(head.begins_run))];
        words.into_iter().for_each(|(at, value)| table.memory[at].store(value, Relaxed));
        table
    }

    /// As it was left.
    pub(super) fn left(memory: Memory) -> Table {
        Table { memory }
    }

    pub(super) fn memory(&self) -> &Memory {
        &self.memory
    }

    pub(super) fn head(&self) -> Head {
        let word = |at: usize| self.memory[at].load(Relaxed);
        Head { run: Incarnation(word(RUN)), number: word(NUMBER), begins_run: word(BEGINS_RUN) != 0 }
    }

    /// All that was marked before it was begun has a position up to here.
    pub(super) fn begins_at(&self) -> Option<Sequence> {
        self.memory[BEGINS_AT].load(Acquire).checked_sub(1).map(Sequence)
    }

    /// Said once.
    pub(super) fn set_begins_at(&self, position: Sequence) {
        let _ = self.memory[BEGINS_AT].compare_exchange(0, position.0 + 1, Release, Relaxed);
    }

    pub(super) fn is_everything(&self) -> bool {
        self.memory[EVERYTHING].load(Acquire) != 0
    }

    pub(super) fn mark_everything(&self) {
        self.memory[EVERYTHING].store(1, Release);
    }

    /// Slots that are used, and all.
    pub(super) fn fill(&self) -> (usize, usize) {
        (self.used(), self.slots())
    }

    fn used(&self) -> usize {
        self.memory[USED].load(Relaxed) as usize
    }

    fn slots(&self) -> usize {
        self.memory.len() / SLOT - 1
    }

    fn slot_at(&self, at: usize) -> &[AtomicU64] {
        &self.memory[(at + 1) * SLOT..][..SLOT]
    }

    fn each_slot(&self) -> impl Iterator<Item = &[AtomicU64]> {
        self.memory.chunks_exact(SLOT).skip(1)
    }

    /// Marks a part of an object, which counts as marked itself.
    pub(super) fn mark(&self, id: ObjectId, handle: &FileHandle, what: &What) {
        let Ok(slot) = self.object(id, handle) else { return self.mark_everything() };
        match what {
            What::Itself => {}
            What::Names => set(&slot[3], 1),
            What::From(offset) => lower(&slot[4], *offset),
            What::Content(range) => self.mark_content(id, slot, range),
        }
    }

    fn mark_content(&self, id: ObjectId, object: &[AtomicU64], range: &Range<u64>) {
        if range.is_empty() || object[4].load(Relaxed) <= range.start {
            return;
        }
        let chunks = range.start / CHUNK..(range.end - 1) / CHUNK + 1;
        if chunks.end - chunks.start > MAP_RANGE_CHUNKS_MAX {
            return lower(&object[4], range.start);
        }
        for chunk in chunks {
            match self.chunk(id, chunk) {
                Ok(slot) => set(&slot[4], regions(chunk, range)),
                Err(Full) => return lower(&object[4], 0),
            }
        }
    }

    fn object(&self, id: ObjectId, handle: &FileHandle) -> Result<&[AtomicU64], Full> {
        let handle = to_words(handle).ok_or(Full)?;
        let fill = |slot: &[AtomicU64]| {
            slot[3].store(0, Relaxed);
            slot[4].store(NO_CONTENT, Relaxed);
            for (word, value) in slot[5..].iter().zip(handle) {
                word.store(value, Relaxed);
            }
        };
        // The last sixteenth stays for objects, after chunks have become coarser.
        self.slot(Key { kind: OBJECT, id, chunk: 0 }, self.slots() - self.slots() / 16, fill)
    }

    fn chunk(&self, id: ObjectId, chunk: u64) -> Result<&[AtomicU64], Full> {
        let fill = |slot: &[AtomicU64]| {
            slot[3].store(chunk, Relaxed);
            slot[4].store(0, Relaxed);
        };
        self.slot(Key { kind: CHUNK_OF, id, chunk }, self.slots() / 4 * 3, fill)
    }

    /// The slot of a key; filled if it is new and fewer than `most` are used.
    fn slot(&self, key: Key, most: usize, fill: impl Fn(&[AtomicU64])) -> Result<&[AtomicU64], Full> {
        let slots = self.slots();
        let first = key.hash() as usize;
        for at in (first..first.saturating_add(slots)).map(|at| at & (slots - 1)) {
            let slot = self.slot_at(at);
            if slot[0].load(Acquire) == FREE {
                if self.used() >= most {
                    return Err(Full);
                }
                if slot[0].compare_exchange(FREE, FILLED_SOON, AcqRel, Acquire).is_ok() {
                    self.memory[USED].fetch_add(1, Relaxed);
                    slot[1].store(key.id.inode, Relaxed);
                    slot[2].store(generation_and_epoch(key.id), Relaxed);
                    fill(slot);
                    slot[0].store(key.kind, Release);
                    return Ok(slot);
                }
            }
            while slot[0].load(Acquire) == FILLED_SOON {
                std::hint::spin_loop();
            }
            if key.is_of(slot) {
                return Ok(slot);
            }
        }
        Err(Full)
    }

    /// Every object that is marked, in no order. What is marked meanwhile may be left out.
    pub(super) fn objects(&self) -> impl Iterator<Item = MarkedObject> {
        self.each_slot().filter(|slot| slot[0].load(Acquire) == OBJECT).filter_map(|slot| {
            let from = slot[4].load(Acquire);
            Some(MarkedObject {
                id: id_of(slot),
                handle: from_words([5, 6, 7].map(|at| slot[at].load(Relaxed)))?,
                names: slot[3].load(Acquire) != 0,
                content_from: (from != NO_CONTENT).then_some(from),
            })
        })
    }

    /// Every chunk that is marked: its file, its number, its regions.
    pub(super) fn chunks(&self) -> impl Iterator<Item = (ObjectId, u64, u64)> {
        let of_chunks = self.each_slot().filter(|slot| slot[0].load(Acquire) == CHUNK_OF);
        of_chunks.map(|slot| (id_of(slot), slot[3].load(Relaxed), slot[4].load(Acquire)))
    }

    /// Takes in all marks of another one.
    pub(super) fn merge(&self, other: &Table) {
        if other.is_everything() {
            return self.mark_everything();
        }
        for object in other.objects() {
            let MarkedObject { id, handle, names, content_from } = object;
            self.mark(id, &handle, if names { &What::Names } else { &What::Itself });
            content_from.into_iter().for_each(|from| self.mark(id, &handle, &What::From(from)));
        }
        for (id, chunk, bits) in other.chunks() {
            match self.chunk(id, chunk) {
                Ok(slot) => set(&slot[4], bits),
                Err(Full) => self.mark_known(id),
            }
        }
    }

    /// All content of an object that is marked already.
    fn mark_known(&self, id: ObjectId) {
        let key = Key { kind: OBJECT, id, chunk: 0 };
        match self.slot(key, 0, |_| {}) {
            Ok(slot) => lower(&slot[4], 0),
            Err(Full) => self.mark_everything(),
        }
    }
}

impl Key {
    fn hash(&self) -> u64 {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&self.id.inode.to_le_bytes());
        bytes[8..16].copy_from_slice(&generation_and_epoch(self.id).to_le_bytes());
        bytes[16..24].copy_from_slice(&self.chunk.to_le_bytes());
        bytes[24..].copy_from_slice(&self.kind.to_le_bytes());
        xxh3_64(&bytes)
    }

    fn is_of(&self, slot: &[AtomicU64]) -> bool {
        slot[0].load(Acquire) == self.kind
            && slot[1].load(Relaxed) == self.id.inode
            && slot[2].load(Relaxed) == generation_and_epoch(self.id)
            && (self.kind == OBJECT || slot[3].load(Relaxed) == self.chunk)
    }
}

/// Most marks are there already: then nothing is written, and no processor loses the line.
fn set(word: &AtomicU64, bits: u64) {
    if word.load(Relaxed) & bits != bits {
        word.fetch_or(bits, AcqRel);
    }
}

fn lower(word: &AtomicU64, value: u64) {
    if word.load(Relaxed) > value {
        word.fetch_min(value, AcqRel);
    }
}

/// The regions of a chunk that a range touches.
fn regions(chunk: u64, range: &Range<u64>) -> u64 {
    let start = chunk * CHUNK;
    let first = range.start.saturating_sub(start) / MAP_REGION;
    let last = ((range.end - 1 - start) / MAP_REGION).min(REGIONS - 1);
    (u64::MAX << first) & (u64::MAX >> (REGIONS - 1 - last))
}

fn generation_and_epoch(id: ObjectId) -> u64 {
    u64::from(id.generation) << 32 | u64::from(id.birth_epoch)
}

fn id_of(slot: &[AtomicU64]) -> ObjectId {
    let both = slot[2].load(Relaxed);
    ObjectId { inode: slot[1].load(Relaxed), generation: (both >> 32) as u32, birth_epoch: both as u32 }
}

fn to_words(handle: &FileHandle) -> Option<[u64; 3]> {
    let (kind, bytes) = (u8::try_from(handle.kind()).ok()?, handle.as_bytes());
    let mut all = [0; HANDLE_ROOM + 2];
    (all[0], all[1]) = (kind, u8::try_from(bytes.len()).ok()?);
    all[2..].get_mut(..bytes.len())?.copy_from_slice(bytes);
    let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|byte| all[at * 8 + byte]));
    Some([word(0), word(1), word(2)])
}

fn from_words(words: [u64; 3]) -> Option<FileHandle> {
    let all: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    FileHandle::from_parts(i32::from(all[0]), all[2..].get(..usize::from(all[1]))?)
}
