//! The index: object id -> file handle of the replica's object, on disk and never in memory.
//!
//! ```text
//! page 0   header, words of 8 bytes: 0 magic, 1 version, 2 slots, 3 hash seed, 4 hash of 0..4,
//!          5 slots in use (live and tombstones), 6 live; both all ones while a process changes
//!          them, and after its death they are counted anew
//! 4096..   slots of 64 bytes, open addressing, linear probing:
//!           0  4  crc32c of bytes 4..64
//!           4  1  state: 0 empty (all zero), 1 live, 2 tombstone
//!           5  1  length of the handle
//!           6  2  zero
//!           8  4  type of the handle
//!          12 16  object id: birth epoch, generation, inode
//!          28 36  bytes of the handle, zero-padded
//! ```
//! Header and slots are written in place, never through a mapping (see [`super::page`]): a write survives
//! the death of the process at once, power loss after [`Index::sync`]. A slot whose crc is wrong (a torn sector) counts as absent.
//! What is removed leaves a tombstone, or an empty slot where the next one is empty and of the same sector: the
//! last slot of a sector is never emptied, so that no sector that a power loss keeps as it was hangs behind an
//! empty one.

mod window;

#[cfg(test)]
pub(in crate::apply) use self::window::MEMORY as GROWTH_MEMORY;

use std::cell::Cell;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use self::window::Window;
use super::page::bytes_of;
use crate::packet::ObjectId;
use crate::store::random_u64;
use crate::sys::FileHandle;

const MAGIC: u64 = u64::from_le_bytes(*b"sdindex\0");
pub(super) const VERSION: u64 = 1;
const HEADER_LEN: u64 = 4096;
const SLOT_LEN: usize = 64;
/// Longest handle a slot holds, bytes; no local file system has longer ones.
const SLOT_HANDLE_MAX: usize = 36;
/// Slots of a new index: 256 KiB, enough for 3,000 objects.
const SLOTS_MIN: u64 = 4096;
/// Slots read at once: at 75 % load a search ends within these mostly.
const PROBE: u64 = 8;
/// Slots of 512 bytes, which a disk writes whole.
const PER_SECTOR: u64 = 8;

/// Words of the header that are in use.
const HEADER_WORDS: usize = 7;

/// Stands for both counts while they are not written.
const UNCOUNTED: u64 = u64::MAX;

/// See the module. One thread uses it at a time.
pub struct Index {
    path: PathBuf,
    file: File,
    slots: u64,
    seed: u64,
    counts: Counts,
    /// The header has the counts: it does not during changes. Written with each of them they were a
    /// third of the calls.
    is_counted: bool,
    torn: Cell<u64>,
    /// What was looked for or bound last: an op asks for its object more than once.
    last: Cell<Option<(ObjectId, Found)>>,
}

/// The header has them too, after an orderly end.
#[derive(Clone, Copy, Default)]
struct Counts {
    /// Slots in use: live and tombstones.
    used: u64,
    live: u64,
}

impl Index {
    /// Opens an index, or makes an empty one where there is none.
    ///
    /// Errors: `InvalidData` where the file is no index of this version; the caller decides
    /// (a lost index is a resynchronisation).
    pub fn open(path: &Path) -> io::Result<Index> {
        match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => Self::load(path, file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::create(path, SLOTS_MIN),
            Err(error) => Err(error),
        }
    }

    /// An empty one whose objects lie in the same places in each run.
    #[cfg(test)]
    pub fn create_alike(path: &Path, seed: u64) -> io::Result<Index> {
        Self::create_with_seed(path, SLOTS_MIN, seed)
    }

    /// Handle of an object; `None` where it is not known.
    pub fn get(&self, id: ObjectId) -> io::Result<Option<FileHandle>> {
        match self.find(id)? {
            Found::Here { handle, .. } => Ok(Some(handle)),
            Found::Absent { .. } => Ok(None),
        }
    }

    /// Binds an object to a handle, replacing what was there.
    ///
    /// Errors: `Unsupported` for a handle of more than 36 bytes.
    pub fn insert(&mut self, id: ObjectId, handle: FileHandle) -> io::Result<()> {
        let raw = encode(STATE_LIVE, id, &handle)?;
        match self.find(id)? {
            Found::Here { at, is_last, .. } => {
                self.write_slot(at, &raw)?;
                self.last.set(Some((id, Found::Here { at, handle, is_last })));
                Ok(())
            }
            Found::Absent { free, was_empty } => self.insert_at(free, was_empty, id, &handle),
        }
    }

    /// Binds an object to a handle where it has none yet; gives the one that it has.
    ///
    /// Errors: as [`Index::insert`].
    pub fn get_or_insert(&mut self, id: ObjectId, handle: FileHandle) -> io::Result<FileHandle> {
        match self.find(id)? {
            Found::Here { handle, .. } => Ok(handle),
            Found::Absent { free, was_empty } => {
                self.insert_at(free, was_empty, id, &handle).map(|()| handle)
            }
        }
    }

    /// `free`, `was_empty`: as [`Index::find`] gave them.
    fn insert_at(
        &mut self,
        free: Option<u64>,
        was_empty: bool,
        id: ObjectId,
        handle: &FileHandle,
    ) -> io::Result<()> {
        let Some(free) = free.filter(|_| !was_empty || self.has_room()) else {
            self.grow()?;
            return self.insert(id, *handle);
        };
        let raw = encode(STATE_LIVE, id, handle)?;
        self.uncount()?;
        self.write_slot(free, &raw)?;
        self.last.set(Some((id, Found::Here { at: free, handle: *handle, is_last: false })));
        self.counts.live = self.counts.live.saturating_add(1);
        self.counts.used = self.counts.used.saturating_add(u64::from(was_empty));
        Ok(())
    }

    /// Forgets an object; gives the handle it had.
    pub fn remove(&mut self, id: ObjectId) -> io::Result<Option<FileHandle>> {
        let Found::Here { at, handle, is_last } = self.find(id)? else { return Ok(None) };
        self.uncount()?;
        if is_last {
            let emptied = self.empty_to(at)?;
            self.counts.used = self.counts.used.saturating_sub(emptied);
        } else {
            self.write_slot(at, &tombstone())?;
        }
        // Not before: where the disk takes nothing this is tried again and again.
        self.counts.live = self.counts.live.saturating_sub(1);
        Ok(Some(handle))
    }

    /// Every object, in no order. Reads the file once from front to back.
    pub fn for_each(&self, mut visit: impl FnMut(ObjectId, FileHandle) -> io::Result<()>) -> io::Result<()> {
        self.for_each_slot(|slot| match slot {
            Slot::Live(id, handle) => visit(id, handle),
            Slot::Empty | Slot::Tombstone | Slot::Torn => Ok(()),
        })
    }

    /// Some of the objects, at most `count`: by their hashes neighbours, and so of no kind. Reads
    /// 4,096 slots at most.
    pub fn some(&self, random: u64, count: usize) -> io::Result<Vec<(ObjectId, FileHandle)>> {
        let (start, span) = (random % self.slots, self.slots.min(SLOTS_MIN));
        let to_end = span.min(self.slots - start);
        let mut buffer = vec![0; span as usize * SLOT_LEN];
        let (before, wrapped) = buffer.split_at_mut(to_end as usize * SLOT_LEN);
        self.file.read_exact_at(before, offset(start))?;
        self.file.read_exact_at(wrapped, offset(0))?;
        let live = buffer.as_chunks::<SLOT_LEN>().0.iter().filter_map(|raw| match decode(raw) {
            Slot::Live(id, handle) => Some((id, handle)),
            Slot::Empty | Slot::Tombstone | Slot::Torn => None,
        });
        Ok(live.take(count).collect())
    }

    fn for_each_slot(&self, mut visit: impl FnMut(Slot) -> io::Result<()>) -> io::Result<()> {
        let mut buffer = vec![0; SLOT_LEN * 1024];
        let mut at = 0;
        while at < self.slots {
            let count = (self.slots - at).min(1024) as usize;
            self.file.read_exact_at(&mut buffer[..count * SLOT_LEN], offset(at))?;
            for raw in buffer[..count * SLOT_LEN].as_chunks::<SLOT_LEN>().0 {
                visit(decode(raw))?;
            }
            at += count as u64;
        }
        Ok(())
    }

    /// Objects known.
    pub fn len(&self) -> u64 {
        self.counts.live
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Torn slots met and cleared since it was opened.
    pub fn torn(&self) -> u64 {
        self.torn.get()
    }

    /// Forgets everything: the file is replaced by an empty one.
    pub fn clear(&mut self) -> io::Result<()> {
        let fresh = Self::create(&temporary(&self.path), SLOTS_MIN)?;
        self.replace_by(fresh)
    }

    /// Makes all changes durable (`fdatasync`).
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// A second descriptor of the file, to sync it from another thread.
    pub fn sync_handle(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    fn create(path: &Path, slots: u64) -> io::Result<Index> {
        Self::create_with_seed(path, slots, random_u64())
    }

    /// `seed`: of the hash that gives each object its place.
    fn create_with_seed(path: &Path, slots: u64, seed: u64) -> io::Result<Index> {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(path)?;
        file.set_len(offset(slots))?;
        let index = Index::over(path, file, (slots, seed), Counts::default());
        index.write_header()?;
        Ok(index)
    }

    fn load(path: &Path, file: File) -> io::Result<Index> {
        let damaged = |why: &str| io::Error::new(io::ErrorKind::InvalidData, format!("object index: {why}"));
        let len = file.metadata()?.len();
        if len < offset(1) {
            return Err(damaged("too short"));
        }
        let mut bytes = [0; HEADER_WORDS * 8];
        file.read_exact_at(&mut bytes, 0)?;
        let words: Vec<u64> = bytes.as_chunks().0.iter().copied().map(u64::from_le_bytes).collect();
        let [magic, version, slots, seed, check, used, live] = words[..] else {
            return Err(damaged("too short"));
        };
        if magic != MAGIC || version != VERSION || check != header_check(&[magic, version, slots, seed]) {
            return Err(damaged("no header of this version"));
        }
        if len != HEADER_LEN + slots.saturating_mul(SLOT_LEN as u64) {
            return Err(damaged("cut off"));
        }
        let counts = Counts { used, live };
        let mut index = Index::over(path, file, (slots, seed), counts);
        if used == UNCOUNTED {
            index.count_anew()?;
        }
        Ok(index)
    }

    fn over(path: &Path, file: File, (slots, seed): (u64, u64), counts: Counts) -> Index {
        let (torn, last) = (Cell::new(0), Cell::new(None));
        Index { path: path.to_owned(), file, slots, seed, counts, is_counted: true, torn, last }
    }

    /// Walks from the home slot of an id to it, or to the first empty slot.
    fn find(&self, id: ObjectId) -> io::Result<Found> {
        match self.last.get() {
            Some((last, found)) if last == id => return Ok(found),
            Some(_) | None => {}
        }
        let found = self.search(id)?;
        self.last.set(Some((id, found)));
        Ok(found)
    }

    fn search(&self, id: ObjectId) -> io::Result<Found> {
        let mut buffer = [0; SLOT_LEN * PROBE as usize];
        let home = self.home(id);
        let mut free = None;
        let mut probed = 0;
        while probed < self.slots {
            let at = (home + probed) % self.slots;
            let count = PROBE.min(self.slots - at).min(self.slots - probed);
            let read = &mut buffer[..count as usize * SLOT_LEN];
            self.file.read_exact_at(read, offset(at))?;
            let read = read.as_chunks::<SLOT_LEN>().0;
            for ((at, raw), next) in (at..).zip(read).zip(1..) {
                match decode(raw) {
                    Slot::Live(found, handle) if found == id => {
                        let ends = |next: &[u8; SLOT_LEN]| {
                            *next == [0; SLOT_LEN] && !(at + 1).is_multiple_of(PER_SECTOR)
                        };
                        let is_last = read.get(next).is_some_and(ends);
                        return Ok(Found::Here { at, handle, is_last });
                    }
                    Slot::Live(..) => {}
                    Slot::Tombstone => _ = free.get_or_insert(at),
                    Slot::Torn => {
                        self.torn.set(self.torn.get() + 1);
                        self.write_slot(at, &tombstone())?;
                        free.get_or_insert(at);
                    }
                    Slot::Empty => {
                        let was_empty = free.is_none();
                        return Ok(Found::Absent { free: Some(free.unwrap_or(at)), was_empty });
                    }
                }
            }
            probed += count;
        }
        Ok(Found::Absent { free, was_empty: false })
    }

    /// Order-preserving in the hash, so that growth writes the new file from front to back.
    fn home(&self, id: ObjectId) -> u64 {
        let hash = xxh3_64_with_seed(&id_bytes(id), self.seed);
        ((u128::from(hash) * u128::from(self.slots)) >> 64) as u64
    }

    fn has_room(&self) -> bool {
        self.counts.used.saturating_add(1).saturating_mul(4) <= self.slots * 3
    }

    /// Rewrites into a new file: twice as large, or the same size where tombstones filled it.
    fn grow(&mut self) -> io::Result<()> {
        let outcome = self.grow_now();
        if outcome.is_err() {
            // On a full disk it would keep what others need.
            let _ = std::fs::remove_file(temporary(&self.path));
        }
        outcome
    }

    fn grow_now(&mut self) -> io::Result<()> {
        let mut live = 0u64;
        self.for_each(|_, _| {
            live += 1;
            Ok(())
        })?;
        let slots = if live * 8 > self.slots * 3 { self.slots * 2 } else { self.slots };
        let mut grown = Self::create_with_seed(&temporary(&self.path), slots, self.seed)?;
        let mut window = Window::new(&mut grown);
        self.for_each(|id, handle| window.insert(id, &handle))?;
        window.finish()?;
        grown.write_header()?;
        grown.is_counted = true;
        self.replace_by(grown)
    }

    /// A rename after a sync: killed or without power, the old file is whole or the new one.
    fn replace_by(&mut self, mut other: Index) -> io::Result<()> {
        other.file.sync_all()?;
        std::fs::rename(&other.path, &self.path)?;
        other.path = std::mem::take(&mut self.path);
        other.torn = Cell::new(self.torn.get());
        *self = other;
        Ok(())
    }

    fn write_header(&self) -> io::Result<()> {
        let header = [MAGIC, VERSION, self.slots, self.seed];
        let Counts { used, live } = self.counts;
        let words = [MAGIC, VERSION, self.slots, self.seed, header_check(&header), used, live];
        self.file.write_all_at(&bytes_of::<HEADER_WORDS, { HEADER_WORDS * 8 }>(words), 0)
    }

    /// From now on the header does not have the counts.
    fn uncount(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.is_counted) {
            let unknown = Counts { used: UNCOUNTED, live: UNCOUNTED };
            self.write_counts(unknown).inspect_err(|_| self.is_counted = true)?;
        }
        Ok(())
    }

    fn write_counts(&self, Counts { used, live }: Counts) -> io::Result<()> {
        self.file.write_all_at(&bytes_of::<2, 16>([used, live]), (HEADER_WORDS as u64 - 2) * 8)
    }

    /// Reads the file once.
    fn count_anew(&mut self) -> io::Result<()> {
        let mut counts = Counts::default();
        self.for_each_slot(|slot| {
            counts.used += u64::from(!matches!(slot, Slot::Empty));
            counts.live += u64::from(matches!(slot, Slot::Live(..)));
            Ok(())
        })?;
        (self.counts, self.is_counted) = (counts, false);
        Ok(())
    }

    /// Empties a slot at which every search ends, and the tombstones before it in its sector: a list that many come
    /// to and leave again was rewritten each few thousand. Gives how many.
    fn empty_to(&self, at: u64) -> io::Result<u64> {
        let mut buffer = [0; SLOT_LEN * PER_SECTOR as usize];
        let before = &mut buffer[..(at % PER_SECTOR) as usize * SLOT_LEN];
        self.file.read_exact_at(before, offset(at - at % PER_SECTOR))?;
        let is_tombstone = |raw: &&[u8; SLOT_LEN]| matches!(decode(raw), Slot::Tombstone);
        let tombstones = before.as_chunks().0.iter().rev().take_while(is_tombstone).count();
        let empty = [0; SLOT_LEN * PER_SECTOR as usize];
        self.last.set(None);
        self.file.write_all_at(&empty[..(tombstones + 1) * SLOT_LEN], offset(at - tombstones as u64))?;
        Ok(tombstones as u64 + 1)
    }

    fn write_slot(&self, at: u64, raw: &[u8; SLOT_LEN]) -> io::Result<()> {
        // What is known of it may not be so any more, nor after a fault.
        self.last.set(None);
        self.file.write_all_at(raw, offset(at))
    }
}

impl Drop for Index {
    /// Best effort: they can be counted anew.
    fn drop(&mut self) {
        if !self.is_counted
            && let Err(error) = self.write_counts(self.counts)
        {
            log::debug!("{}: its counts are not written: {error}", self.path.display());
        }
    }
}

#[derive(Clone, Copy)]
enum Found {
    /// `is_last`: no search that passes this slot goes on, as the next one of its sector is empty.
    Here { at: u64, handle: FileHandle, is_last: bool },
    /// `free`: where it could go; `was_empty`: that slot was never used.
    Absent { free: Option<u64>, was_empty: bool },
}

enum Slot {
    Empty,
    Live(ObjectId, FileHandle),
    Tombstone,
    Torn,
}

const STATE_LIVE: u8 = 1;
const STATE_TOMBSTONE: u8 = 2;

fn encode(state: u8, id: ObjectId, handle: &FileHandle) -> io::Result<[u8; SLOT_LEN]> {
    let bytes = handle.as_bytes();
    if bytes.len() > SLOT_HANDLE_MAX {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "file handles of more than 36 bytes"));
    }
    let mut raw = [0; SLOT_LEN];
    raw[4] = state;
    raw[5] = bytes.len() as u8;
    raw[8..12].copy_from_slice(&handle.kind().to_le_bytes());
    raw[12..28].copy_from_slice(&id_bytes(id));
    raw[28..28 + bytes.len()].copy_from_slice(bytes);
    Ok(sealed(raw))
}

fn tombstone() -> [u8; SLOT_LEN] {
    let mut raw = [0; SLOT_LEN];
    raw[4] = STATE_TOMBSTONE;
    sealed(raw)
}

fn sealed(mut raw: [u8; SLOT_LEN]) -> [u8; SLOT_LEN] {
    let crc = crc32c::crc32c(&raw[4..]);
    raw[..4].copy_from_slice(&crc.to_le_bytes());
    raw
}

fn decode(raw: &[u8; SLOT_LEN]) -> Slot {
    if raw.iter().all(|&byte| byte == 0) {
        return Slot::Empty;
    }
    let u32_at = |at: usize| u32::from_le_bytes(raw[at..at + 4].try_into().expect("4 bytes"));
    if u32_at(0) != crc32c::crc32c(&raw[4..]) {
        return Slot::Torn;
    }
    if raw[4] == STATE_TOMBSTONE {
        return Slot::Tombstone;
    }
    let inode = u64::from_le_bytes(raw[20..28].try_into().expect("8 bytes"));
    let id = ObjectId { birth_epoch: u32_at(12), generation: u32_at(16), inode };
    match raw[28..].get(..raw[5] as usize).and_then(|bytes| FileHandle::from_parts(u32_at(8) as i32, bytes)) {
        Some(handle) => Slot::Live(id, handle),
        None => Slot::Torn,
    }
}

fn id_bytes(id: ObjectId) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&id.birth_epoch.to_le_bytes());
    bytes[4..8].copy_from_slice(&id.generation.to_le_bytes());
    bytes[8..].copy_from_slice(&id.inode.to_le_bytes());
    bytes
}

fn header_check(header: &[u64; 4]) -> u64 {
    xxh3_64(&bytes_of::<4, 32>(*header))
}

fn offset(slot: u64) -> u64 {
    HEADER_LEN + slot * SLOT_LEN as u64
}

fn temporary(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    PathBuf::from(name)
}

#[cfg(test)]
mod tests;
