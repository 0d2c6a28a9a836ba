//! The positions *applied* and *begun* in a page shared with the page cache: they survive the
//! death of the process at once, and count only while that page cache still stands.
//!
//! ```text
//! words of 8 bytes: 0 magic | 1..3 boot id | 3 id of the mount
//! 16..24, 24..32   applied, two slots      32..40, 40..48   begun, two slots
//! slot: generation, epoch number, writer, incarnation, sequence, chain, check
//! ```
//! A store goes to the older slot, its check last: a kill between two words leaves the other slot.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Release};

use xxhash_rust::xxh3::xxh3_64;

use crate::packet::{Chain, Epoch, Incarnation, Position, Sequence};
use crate::sys::SharedPage;

const MAGIC: u64 = u64::from_le_bytes(*b"sdprogr1");
const SLOT_WORDS: usize = 8;

/// Which of the two positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Everything up to here is performed.
    Applied,
    /// The op at this position was begun: if it is the one after *applied*, it is in doubt.
    Begun,
}

impl Which {
    fn first_word(self) -> usize {
        match self {
            Which::Applied => 16,
            Which::Begun => 32,
        }
    }
}

/// What must be the same for unsynced bytes to be still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageCache {
    pub boot: u128,
    /// Unique id of the mount of the replica, 0 where the kernel has none (before 6.8).
    pub mount: u64,
}

/// See the module. Locks its file: one process has a replica open.
pub struct Positions {
    page: SharedPage,
    _locked: File,
}

impl Positions {
    /// Opens the page, or makes it; `None` where another process holds it.
    pub fn open(path: &Path) -> io::Result<Option<Positions>> {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        Ok(Some(Positions { page: SharedPage::map(&file)?, _locked: file }))
    }

    /// Whether the positions were stored over this page cache.
    pub fn belongs_to(&self, cache: PageCache) -> bool {
        let word = |at: usize| self.page.words()[at].load(Acquire);
        word(0) == MAGIC
            && u128::from(word(1)) << 64 | u128::from(word(2)) == cache.boot
            && word(3) == cache.mount
    }

    /// Starts anew over this page cache with both positions here.
    pub fn start(&self, cache: PageCache, at: Position) {
        let words = self.page.words();
        words[0].store(0, Release);
        self.store(Which::Applied, at);
        self.store(Which::Begun, at);
        words[1].store((cache.boot >> 64) as u64, Release);
        words[2].store(cache.boot as u64, Release);
        words[3].store(cache.mount, Release);
        words[0].store(MAGIC, Release);
    }

    /// The position last stored whole; `None` where there is none.
    pub fn load(&self, which: Which) -> Option<Position> {
        self.newest(which).map(|(_, position)| position)
    }

    pub fn store(&self, which: Which, position: Position) {
        let generation = self.newest(which).map_or(0, |(generation, _)| generation) + 1;
        let words = [
            generation,
            u64::from(position.epoch.number),
            position.epoch.writer,
            position.incarnation.0,
            position.sequence.0,
            position.chain.0,
        ];
        let slot = self.slot(which, generation);
        // Without a valid check the slot counts for nothing while its words change.
        slot[6].store(0, Release);
        for (word, value) in slot.iter().zip(words) {
            word.store(value, Release);
        }
        slot[6].store(check(&words), Release);
    }

    fn newest(&self, which: Which) -> Option<(u64, Position)> {
        [0, 1].into_iter().filter_map(|parity| read(self.slot(which, parity))).max_by_key(|found| found.0)
    }

    fn slot(&self, which: Which, generation: u64) -> &[AtomicU64] {
        let at = which.first_word() + (generation % 2) as usize * SLOT_WORDS;
        &self.page.words()[at..at + SLOT_WORDS]
    }
}

fn read(slot: &[AtomicU64]) -> Option<(u64, Position)> {
    let words: [u64; 6] = std::array::from_fn(|at| slot[at].load(Acquire));
    if words[0] == 0 || slot[6].load(Acquire) != check(&words) {
        return None;
    }
    let epoch = Epoch { number: words[1] as u32, writer: words[2] };
    let (incarnation, sequence, chain) = (Incarnation(words[3]), Sequence(words[4]), Chain(words[5]));
    Some((words[0], Position { epoch, incarnation, sequence, chain }))
}

/// Never 0, which says "being written".
fn check(words: &[u64; 6]) -> u64 {
    let mut bytes = [0; 48];
    for (eight, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(words) {
        *eight = word.to_le_bytes();
    }
    xxh3_64(&bytes) | 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(number: u64) -> Position {
        Position { sequence: Sequence(number), chain: Chain(number * 3), ..Position::default() }
    }

    #[test]
    fn a_kill_between_any_two_words_leaves_a_whole_position() {
        let dir = tempfile::tempdir().unwrap();
        let positions = Positions::open(&dir.path().join("page")).unwrap().unwrap();
        assert_eq!(positions.load(Which::Applied), None);
        for number in 1..50 {
            positions.store(Which::Applied, position(number));
            // The next store, stopped after each of its words.
            let slot = positions.slot(Which::Applied, number + 1);
            let before: Vec<u64> = slot.iter().map(|word| word.load(Acquire)).collect();
            slot[6].store(0, Release);
            for word in &slot[..6] {
                word.store(0xdead, Release);
                assert_eq!(positions.load(Which::Applied), Some(position(number)));
            }
            for (word, value) in slot.iter().zip(before) {
                word.store(value, Release);
            }
            assert_eq!(positions.load(Which::Begun), None);
        }
    }

    #[test]
    fn one_process_at_a_time_and_one_page_cache() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("page");
        let cache = PageCache { boot: 5 << 70, mount: 7 };
        let positions = Positions::open(&path).unwrap().unwrap();
        assert!(Positions::open(&path).unwrap().is_none());
        positions.start(cache, position(4));
        drop(positions);
        let positions = Positions::open(&path).unwrap().unwrap();
        assert!(positions.belongs_to(cache));
        assert!(!positions.belongs_to(PageCache { mount: 8, ..cache }));
        assert!(!positions.belongs_to(PageCache { boot: 5, ..cache }));
        assert_eq!(positions.load(Which::Begun), Some(position(4)));
    }
}
