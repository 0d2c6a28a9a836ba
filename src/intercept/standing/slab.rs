//! Records of one size in memory that outlives the process.

use std::ffi::CStr;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};

use parking_lot::Mutex;

use crate::sys::SharedWords;

/// Records by which the memory grows.
const GROWS_BY: usize = 4096;

/// See the module. The first word of a record says whether it is one: it is stored last and cleared first, so that a
/// record that a killed process was just writing is none.
pub struct Slab {
    words: SharedWords,
    /// Words in a record.
    size: usize,
    /// Records without content. A leaf lock.
    free: Mutex<Vec<u32>>,
}

impl Slab {
    pub fn create(name: &CStr, size: usize, records_max: usize) -> io::Result<Slab> {
        Ok(Slab { words: SharedWords::create(name, size * records_max)?, size, free: Mutex::default() })
    }

    /// With what another process has left in it.
    pub fn open(memory: OwnedFd, size: usize, records_max: usize) -> io::Result<Slab> {
        let slab =
            Slab { words: SharedWords::open(memory, size * records_max)?, size, free: Mutex::default() };
        let unused = |at: &u32| slab.word(*at, 0).load(Acquire) == 0;
        let free = (0..slab.records()).rev().filter(unused).collect();
        *slab.free.lock() = free;
        Ok(slab)
    }

    /// Keeps a record; its first word is not 0. `None`: there is no memory for it.
    pub fn enter(&self, record: &[u64]) -> Option<u32> {
        assert!(record.len() == self.size && record[0] != 0, "a record of {} words", record.len());
        let at = self.take()?;
        for (word, value) in record.iter().enumerate().skip(1) {
            self.word(at, word).store(*value, Relaxed);
        }
        self.word(at, 0).store(record[0], Release);
        Some(at)
    }

    pub fn remove(&self, at: u32) {
        let before = self.word(at, 0).swap(0, Release);
        assert!(before != 0, "a record is removed that is none");
        self.free.lock().push(at);
    }

    pub fn word(&self, at: u32, word: usize) -> &AtomicU64 {
        assert!(word < self.size, "word {word} of a record of {}", self.size);
        self.words.word(at as usize * self.size + word)
    }

    /// All records, with their numbers. Others may come and go meanwhile.
    pub fn each(&self, mut look: impl FnMut(u32, &[u64])) {
        let mut record = vec![0; self.size];
        for at in 0..self.records() {
            record[0] = self.word(at, 0).load(Acquire);
            if record[0] == 0 {
                continue;
            }
            for (word, value) in record.iter_mut().enumerate().skip(1) {
                *value = self.word(at, word).load(Relaxed);
            }
            look(at, &record);
        }
    }

    pub fn memory(&self) -> BorrowedFd<'_> {
        self.words.memory()
    }

    fn records(&self) -> u32 {
        (self.words.len() / self.size) as u32
    }

    fn take(&self) -> Option<u32> {
        let mut free = self.free.lock();
        if free.is_empty() {
            let from = self.records();
            if let Err(error) = self.words.grow((from as usize + GROWS_BY) * self.size) {
                log::warn!(
                    "what programs use cannot be noted for a daemon that comes after this one: {error}"
                );
                return None;
            }
            free.extend((from..from + GROWS_BY as u32).rev());
        }
        free.pop()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_there_for_the_next_process_and_their_places_are_used_again() {
        let slab = Slab::create(c"standin-test", 3, 3 * GROWS_BY).unwrap();
        let places: Vec<u32> = (1..=5000).map(|n| slab.enter(&[n, n * 2, n * 3]).unwrap()).collect();
        places.iter().step_by(2).for_each(|at| slab.remove(*at));
        let memory = slab.memory().try_clone_to_owned().unwrap();
        drop(slab);
        let next = Slab::open(memory, 3, 3 * GROWS_BY).unwrap();
        let mut seen = Vec::new();
        next.each(|at, record| seen.push((at, record.to_vec())));
        let expected: Vec<_> =
            (1..=5000).zip(&places).skip(1).step_by(2).map(|(n, at)| (*at, vec![n, n * 2, n * 3])).collect();
        seen.sort();
        assert_eq!(seen.len(), expected.len());
        assert!(expected.iter().all(|record| seen.contains(record)));
        let again: Vec<u32> = (0..2500 + 3192).map(|_| next.enter(&[9, 9, 9]).unwrap()).collect();
        assert!(again.iter().all(|at| (*at as usize) < 2 * GROWS_BY), "memory grew before it was full");
        assert!((0..2 * GROWS_BY).any(|_| next.enter(&[9, 9, 9]).is_none()), "there is no end of it");
    }
}
