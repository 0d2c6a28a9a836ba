//! Where marks are: in this process, or in memory that the next daemon finds.
//!
//! ```text
//!  page 0   format | words of a part | - | which parts hold a generation
//!  part 1   a generation (table.rs)
//!  part 2   …                                        at most so many: then no other generation begins
//! ```

use std::io;
use std::ops::Deref;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};

use parking_lot::Mutex;

use super::table::Table;
use crate::limits::MAP_GENERATIONS_MAX;
use crate::sys::SharedWords;

/// What this memory looks like. Another version of the program may have other words at other places.
pub const FORMAT: u64 = 0x5354_414e_4d00_0001;

/// Words of a page, which memory is taken and given back by.
const PAGE: usize = 512;
const FORMAT_WORD: usize = 0;
const PART_WORDS: usize = 1;
const HOLDS: usize = 8;

/// Words of one generation.
pub(super) enum Memory {
    Own(Box<[AtomicU64]>),
    Kept(Part),
}

impl Memory {
    /// All 0.
    pub(super) fn own(words: usize) -> Memory {
        Memory::Own(std::iter::repeat_with(AtomicU64::default).take(words).collect())
    }
}

impl Deref for Memory {
    type Target = [AtomicU64];

    fn deref(&self) -> &[AtomicU64] {
        match self {
            Memory::Own(words) => words,
            Memory::Kept(part) => part.all.words.part(part.at(), part.all.table),
        }
    }
}

/// One of the parts of a [`Kept`].
pub(super) struct Part {
    all: Arc<All>,
    number: usize,
    /// Nobody needs what is in it, once nobody reads it.
    is_over: AtomicBool,
}

impl Part {
    fn at(&self) -> usize {
        PAGE + self.number * self.all.part
    }

    /// From here on it holds a generation.
    pub(super) fn holds(&self) {
        self.all.words.word(HOLDS + self.number).store(1, Release);
    }

    pub(super) fn is_over(&self) {
        self.is_over.store(true, Relaxed);
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // What a daemon leaves when it ends is for the next one.
        if self.is_over.load(Relaxed) {
            self.all.give_back(self.number);
        }
    }
}

struct All {
    words: SharedWords,
    /// Words of a part, whole pages, and those of them that a table has.
    part: usize,
    table: usize,
    taken: Mutex<[bool; MAP_GENERATIONS_MAX]>,
}

impl All {
    fn give_back(&self, number: usize) {
        self.words.word(HOLDS + number).store(0, Release);
        if let Err(error) = self.words.clear(PAGE + number * self.part, self.part) {
            // It is not used again: what is in it would be taken for marks.
            return log::warn!("memory of marks cannot be given back: {error}");
        }
        self.taken.lock()[number] = false;
    }
}

/// Memory for generations that outlives the process that marks: whoever holds its descriptor has the marks.
pub struct Kept(Arc<All>);

impl Kept {
    /// For generations of so many bytes each. Errors: there is no memory.
    pub fn create(bytes: usize) -> io::Result<Kept> {
        let kept = Kept::of(bytes, |room| SharedWords::create(c"standin-marks", room))?;
        let words = &kept.0.words;
        words.grow(PAGE)?;
        words.word(PART_WORDS).store(kept.0.part as u64, Relaxed);
        words.word(FORMAT_WORD).store(FORMAT, Release);
        Ok(kept)
    }

    /// What a daemon before has left.
    ///
    /// Errors: it is of another version, or for generations of another size.
    pub fn open(memory: OwnedFd, bytes: usize) -> io::Result<Kept> {
        let kept = Kept::of(bytes, |room| SharedWords::open(memory, room))?;
        let All { words, part, taken, .. } = &*kept.0;
        let is_known = words.len() >= PAGE
            && words.word(FORMAT_WORD).load(Acquire) == FORMAT
            && words.word(PART_WORDS).load(Relaxed) == *part as u64;
        if !is_known {
            return Err(io::Error::other("it is of another version, or has another size"));
        }
        for (number, taken) in taken.lock().iter_mut().enumerate() {
            *taken = words.word(HOLDS + number).load(Acquire) != 0;
            let at = PAGE + number * part;
            // One was ended while it was begun, or given back.
            if !*taken && at < words.len() {
                words.clear(at, *part)?;
            }
        }
        Ok(kept)
    }

    fn of(bytes: usize, words: impl FnOnce(usize) -> io::Result<SharedWords>) -> io::Result<Kept> {
        let table = Table::words(bytes);
        let part = table.next_multiple_of(PAGE);
        let words = words(PAGE + part * MAP_GENERATIONS_MAX)?;
        Ok(Kept(Arc::new(All { words, part, table, taken: Mutex::default() })))
    }

    /// For another process.
    pub fn memory(&self) -> BorrowedFd<'_> {
        self.0.words.memory()
    }

    /// One more, all 0. Errors: as many as can be are in use, or there is no memory.
    pub(super) fn take(&self) -> io::Result<Memory> {
        let mut taken = self.0.taken.lock();
        let number = taken.iter().position(|taken| !taken).ok_or(io::ErrorKind::StorageFull)?;
        self.0.words.take(PAGE + number * self.0.part, self.0.part)?;
        taken[number] = true;
        Ok(Memory::Kept(self.part(number)))
    }

    /// Those that hold a generation.
    pub(super) fn left(&self) -> Vec<Memory> {
        let taken = *self.0.taken.lock();
        let held = (0..MAP_GENERATIONS_MAX).filter(|&number| taken[number]);
        held.map(|number| Memory::Kept(self.part(number))).collect()
    }

    fn part(&self, number: usize) -> Part {
        Part { all: self.0.clone(), number, is_over: Default::default() }
    }
}
