//! A new index, filled from an old one: the home slots of what comes rise, but for what lay out of its
//! place. So all but a few find theirs in a part that is kept in memory, and is written as it moves on.

use std::io;
use std::os::unix::fs::FileExt;

use super::{Index, SLOT_LEN, STATE_LIVE, encode, offset};
use crate::packet::ObjectId;
use crate::sys::FileHandle;

/// Slots in memory: 512 KiB. What lies out of its place does so by less, or goes the long way.
const SLOTS: u64 = 8192;

/// So many may lie behind the last slot of an old index, at its beginning.
const WRAPPED_MAX: usize = 1024;

/// What an index takes in memory while it grows, bytes.
#[cfg(test)]
pub(in crate::apply) const MEMORY: usize = SLOTS as usize * SLOT_LEN;

/// See the module. An index that is not used otherwise meanwhile.
pub(super) struct Window<'a> {
    index: &'a mut Index,
    /// The slot that is the first in memory.
    start: u64,
    /// The last home slot of those that came in their order.
    reached: u64,
    /// Those up to here are not written yet; beyond them the index is empty.
    slots: Vec<[u8; SLOT_LEN]>,
    /// What an old index has at its beginning and belongs to its end: once there, nothing before would be in
    /// memory any more.
    wrapped: Vec<(ObjectId, FileHandle)>,
    /// How many went the long way.
    beside: u64,
}

impl<'a> Window<'a> {
    /// Over an empty index.
    pub(super) fn new(index: &'a mut Index) -> Window<'a> {
        assert!(index.is_empty(), "a window begins over an empty index");
        let slots = vec![[0; SLOT_LEN]; SLOTS as usize];
        Window { index, start: 0, reached: 0, slots, wrapped: Vec::new(), beside: 0 }
    }

    /// Of an object that was not there before.
    pub(super) fn insert(&mut self, id: ObjectId, handle: &FileHandle) -> io::Result<()> {
        let home = self.index.home(id);
        let is_far = home > self.reached + self.index.slots / 2;
        if is_far && self.wrapped.len() < WRAPPED_MAX {
            self.wrapped.push((id, *handle));
            return Ok(());
        }
        self.reached = self.reached.max(home);
        self.place(home, id, handle)
    }

    fn place(&mut self, home: u64, id: ObjectId, handle: &FileHandle) -> io::Result<()> {
        if home >= self.start + SLOTS / 2 {
            self.move_on(home - SLOTS / 4)?;
        }
        let free = home.checked_sub(self.start).and_then(|from| self.free_from(from as usize));
        // Beyond the last slot it begins anew at the first.
        match free.filter(|&at| self.start + (at as u64) < self.index.slots) {
            Some(at) => {
                self.slots[at] = encode(STATE_LIVE, id, handle)?;
                self.index.counts.live += 1;
                self.index.counts.used += 1;
                Ok(())
            }
            None => self.insert_beside(id, *handle),
        }
    }

    fn free_from(&self, from: usize) -> Option<usize> {
        (from..self.slots.len()).find(|&at| self.slots[at] == [0; SLOT_LEN])
    }

    /// What is in memory counts there, too.
    fn insert_beside(&mut self, id: ObjectId, handle: FileHandle) -> io::Result<()> {
        self.beside += 1;
        self.write(self.slots.len())?;
        self.index.insert(id, handle)?;
        self.read()
    }

    /// The part in memory begins later, so many slots at least being behind it.
    fn move_on(&mut self, start: u64) -> io::Result<()> {
        let by = ((start - self.start) as usize).min(self.slots.len());
        self.write(by)?;
        self.slots.drain(..by);
        self.start = start;
        let left = self.slots.len();
        self.slots.resize(SLOTS as usize, [0; SLOT_LEN]);
        assert_eq!(left + by, SLOTS as usize, "slots are lost");
        Ok(())
    }

    /// Writes the first of those in memory, as far as the index has them.
    fn write(&mut self, count: usize) -> io::Result<()> {
        let count = count.min(self.index.slots.saturating_sub(self.start) as usize);
        self.index.last.set(None);
        self.index.file.write_all_at(self.slots[..count].as_flattened(), offset(self.start))
    }

    fn read(&mut self) -> io::Result<()> {
        let count = self.slots.len().min(self.index.slots.saturating_sub(self.start) as usize);
        self.index.file.read_exact_at(self.slots[..count].as_flattened_mut(), offset(self.start))
    }

    /// All of it is in the index; gives how many objects went the long way.
    pub(super) fn finish(mut self) -> io::Result<u64> {
        for (id, handle) in std::mem::take(&mut self.wrapped) {
            self.place(self.index.home(id), id, &handle)?;
        }
        self.write(self.slots.len())?;
        Ok(self.beside)
    }
}

#[cfg(test)]
mod tests {
    use super::super::HEADER_LEN;
    use super::*;
    use std::collections::HashMap;

    fn id(number: u64) -> ObjectId {
        ObjectId { birth_epoch: 3, generation: number as u32, inode: number }
    }

    fn handle(number: u64) -> FileHandle {
        FileHandle::from_parts(1, &number.to_le_bytes()).unwrap()
    }

    /// What lay beyond the last slot of the old index comes first, and belongs to the end of the new one.
    #[test]
    fn what_comes_first_and_belongs_last_keeps_the_others_in_memory() {
        let dir = tempfile::tempdir().unwrap();
        let sizes = [(1 << 12, 1500), (1 << 13, 3000), (1 << 14, 6000), (1 << 16, 24_000)];
        for (seed, (slots, count)) in (0..5).flat_map(|seed| sizes.map(|size| (seed, size))) {
            let mut index = Index::create_with_seed(&dir.path().join("index"), slots, seed).unwrap();
            let mut numbers: Vec<u64> = (0..count).collect();
            numbers.sort_by_key(|&number| index.home(id(number)));
            // Some of what belongs to the beginning came before them.
            numbers.rotate_right(5);
            numbers[..8].rotate_right(2);
            let mut window = Window::new(&mut index);
            numbers.iter().for_each(|&number| window.insert(id(number), &handle(number)).unwrap());
            let beside = window.finish().unwrap();
            assert!(beside < 10, "seed {seed}: {beside} of {count} went the long way");
            for &number in &numbers {
                assert_eq!(index.get(id(number)).unwrap(), Some(handle(number)), "{slots}");
            }
        }
    }

    /// Whatever the order in which they come: as an old index has them, by chance, from behind.
    #[test]
    fn all_are_found_where_they_are_looked_for() {
        let dir = tempfile::tempdir().unwrap();
        for (slots, count) in [(1 << 12, 3000), (1 << 14, 12_000), (1 << 16, 49_000)] {
            for order in 0..3 {
                let mut index = Index::create(&dir.path().join("index"), slots).unwrap();
                let mut numbers: Vec<u64> = (0..count).collect();
                match order {
                    0 => numbers.sort_by_key(|&number| index.home(id(number)) / 16),
                    1 => {}
                    _ => numbers.sort_by_key(|&number| u64::MAX - index.home(id(number))),
                }
                // From behind each goes the long way.
                numbers.truncate(if order == 2 { 1500 } else { numbers.len() });
                let mut window = Window::new(&mut index);
                numbers.iter().for_each(|&number| window.insert(id(number), &handle(number)).unwrap());
                window.finish().unwrap();
                let mut listed = HashMap::new();
                let list = |id, handle| {
                    listed.insert(id, handle);
                    Ok(())
                };
                index.for_each(list).unwrap();
                assert_eq!(index.len(), numbers.len() as u64);
                assert_eq!(listed, numbers.iter().map(|&number| (id(number), handle(number))).collect());
                for &number in &numbers {
                    assert_eq!(index.get(id(number)).unwrap(), Some(handle(number)), "{slots} {order}");
                }
                assert_eq!(index.get(id(count)).unwrap(), None);
                let len = std::fs::metadata(&index.path).unwrap().len();
                assert_eq!(len, HEADER_LEN + slots * SLOT_LEN as u64, "it is written beyond its end");
            }
        }
    }
}
