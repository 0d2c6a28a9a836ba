//! The positions *applied* and *begun* in a page of a file: what is written there survives the
//! death of the process at once, and counts only while that page cache still stands.
//!
//! ```text
//! words of 8 bytes: 0 magic | 1, 2 boot id | 3 ids of the mounts of replica and state
//! 16..24, 24..32   applied, two slots      32..40, 40..48   begun, two slots
//! slot: generation, epoch number, writer, incarnation, sequence, chain, check
//! ```
//! A store goes to the older slot: one that was torn leaves the other. It is a write and not a
//! store into a mapping: where the disk is full, a write gives an error, a mapping the signal that
//! ends the process (always possible where a file system writes no block in place).

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use xxhash_rust::xxh3::xxh3_64;

use crate::locked::Locked;
use crate::packet::{Chain, Epoch, Incarnation, Position, Sequence};

pub(super) const MAGIC: u64 = u64::from_le_bytes(*b"sdprogr1");
const PAGE_LEN: usize = 4096;
const WORD_LEN: usize = 8;
const SLOT_LEN: usize = 8 * WORD_LEN;

/// Which of the two positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Everything up to here is performed.
    Applied,
    /// The op at this position was begun: if it is the one after *applied*, it is in doubt.
    Begun,
}

impl Which {
    fn first_slot(self) -> usize {
        match self {
            Which::Applied => 16 * WORD_LEN,
            Which::Begun => 32 * WORD_LEN,
        }
    }
}

/// What must be the same for unsynced bytes to be still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageCache {
    pub boot: u128,
    /// Of the unique ids of the mounts of the replica and of its state, 0 where the kernel has none (before 6.8).
    pub mount: u64,
}

impl PageCache {
    /// The words 1, 2 and 3.
    fn to_bytes(self) -> [u8; 3 * WORD_LEN] {
        bytes_of([(self.boot >> 64) as u64, self.boot as u64, self.mount])
    }
}

/// See the module. Locks its file: one process has a replica open.
pub struct Positions {
    file: Locked,
    /// Whose the positions are; `None` where the page says nothing.
    cache: Option<[u8; 3 * WORD_LEN]>,
    applied: Newest,
    begun: Newest,
}

/// The newest whole slot of a position: what the file has.
type Newest = Option<(u64, Position)>;

impl Positions {
    /// Opens the page, or makes it; `None` where another process holds it.
    pub fn open(path: &Path) -> io::Result<Option<Positions>> {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        let Some(file) = Locked::now(file)? else { return Ok(None) };
        if file.metadata()?.len() < PAGE_LEN as u64 {
            // Written, not only extended: what is in place once needs no room later, mostly.
            file.write_all_at(&[0; PAGE_LEN], 0)?;
            file.sync_all()?;
        }
        let mut page = [0; PAGE_LEN];
        file.read_exact_at(&mut page, 0)?;
        let has_magic = page[..WORD_LEN] == MAGIC.to_le_bytes();
        let cache = page[WORD_LEN..4 * WORD_LEN].try_into().expect("three words");
        Ok(Some(Positions {
            cache: has_magic.then_some(cache),
            applied: newest(&page, Which::Applied),
            begun: newest(&page, Which::Begun),
            file,
        }))
    }

    /// Whether the positions were stored over this page cache.
    pub fn belongs_to(&self, cache: PageCache) -> bool {
        self.cache == Some(cache.to_bytes())
    }

    /// Starts anew over this page cache with both positions here.
    ///
    /// Errors: the page says nothing then.
    pub fn start(&mut self, cache: PageCache, at: Position) -> io::Result<()> {
        self.cache = None;
        self.file.write_all_at(&[0; WORD_LEN], 0)?;
        self.store(Which::Applied, at)?;
        self.store(Which::Begun, at)?;
        self.file.write_all_at(&cache.to_bytes(), WORD_LEN as u64)?;
        self.file.write_all_at(&MAGIC.to_le_bytes(), 0)?;
        self.cache = Some(cache.to_bytes());
        Ok(())
    }

    /// The position last stored whole; `None` where there is none.
    pub fn load(&self, which: Which) -> Option<Position> {
        self.newest(which).map(|(_, position)| position)
    }

    /// Replaces a position. Errors: the one before stands.
    pub fn store(&mut self, which: Which, position: Position) -> io::Result<()> {
        let generation = self.newest(which).map_or(0, |(generation, _)| generation) + 1;
        self.file.write_all_at(&encode(generation, position), slot_at(which, generation) as u64)?;
        match which {
            Which::Applied => self.applied = Some((generation, position)),
            Which::Begun => self.begun = Some((generation, position)),
        }
        Ok(())
    }

    fn newest(&self, which: Which) -> Newest {
        match which {
            Which::Applied => self.applied,
            Which::Begun => self.begun,
        }
    }
}

fn slot_at(which: Which, generation: u64) -> usize {
    which.first_slot() + (generation % 2) as usize * SLOT_LEN
}

fn newest(page: &[u8; PAGE_LEN], which: Which) -> Newest {
    let slot = |parity| &page[slot_at(which, parity)..][..SLOT_LEN];
    [0, 1].into_iter().filter_map(|parity| decode(slot(parity))).max_by_key(|found| found.0)
}

fn encode(generation: u64, position: Position) -> [u8; SLOT_LEN - WORD_LEN] {
    let words = [
        generation,
        u64::from(position.epoch.number),
        position.epoch.writer,
        position.incarnation.0,
        position.sequence.0,
        position.chain.0,
    ];
    let [generation, number, writer, incarnation, sequence, chain] = words;
    bytes_of([generation, number, writer, incarnation, sequence, chain, check(&words)])
}

/// Words as a file has them.
pub(super) fn bytes_of<const WORDS: usize, const BYTES: usize>(words: [u64; WORDS]) -> [u8; BYTES] {
    const { assert!(BYTES == WORDS * WORD_LEN) };
    let mut bytes = [0; BYTES];
    for (eight, word) in bytes.as_chunks_mut::<WORD_LEN>().0.iter_mut().zip(words) {
        *eight = word.to_le_bytes();
    }
    bytes
}

fn decode(slot: &[u8]) -> Newest {
    let words: [u64; 6] = std::array::from_fn(|at| word(slot, at));
    if words[0] == 0 || word(slot, 6) != check(&words) {
        return None;
    }
    let epoch = Epoch { number: words[1] as u32, writer: words[2] };
    let (incarnation, sequence, chain) = (Incarnation(words[3]), Sequence(words[4]), Chain(words[5]));
    Some((words[0], Position { epoch, incarnation, sequence, chain }))
}

fn word(slot: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(slot[at * WORD_LEN..][..WORD_LEN].try_into().expect("8 bytes"))
}

/// Never 0, which no slot has that was only allocated.
fn check(words: &[u64; 6]) -> u64 {
    xxh3_64(&bytes_of::<6, 48>(*words)) | 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(number: u64) -> Position {
        Position { sequence: Sequence(number), chain: Chain(number * 3), ..Position::default() }
    }

    #[test]
    fn a_torn_store_leaves_the_position_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("page");
        let mut positions = Positions::open(&path).unwrap().unwrap();
        assert_eq!(positions.load(Which::Applied), None);
        for number in 1..50 {
            positions.store(Which::Applied, position(number)).unwrap();
            // The next store, torn after each of its words.
            let next = encode(number + 1, position(number + 1));
            let at = slot_at(Which::Applied, number + 1);
            let mut page: [u8; PAGE_LEN] = std::fs::read(&path).unwrap().try_into().unwrap();
            for end in (0..next.len()).step_by(WORD_LEN) {
                page[at..at + end].copy_from_slice(&next[..end]);
                assert_eq!(newest(&page, Which::Applied), Some((number, position(number))));
            }
            assert_eq!(newest(&page, Which::Begun), None);
        }
    }

    #[test]
    fn one_process_at_a_time_and_one_page_cache() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("page");
        let cache = PageCache { boot: 5 << 70, mount: 7 };
        let mut positions = Positions::open(&path).unwrap().unwrap();
        assert!(Positions::open(&path).unwrap().is_none());
        positions.start(cache, position(4)).unwrap();
        drop(positions);
        let positions = Positions::open(&path).unwrap().unwrap();
        assert!(positions.belongs_to(cache));
        assert!(!positions.belongs_to(PageCache { mount: 8, ..cache }));
        assert!(!positions.belongs_to(PageCache { boot: 5, ..cache }));
        assert_eq!(positions.load(Which::Begun), Some(position(4)));
    }

    /// The layout on disk, as released daemons wrote it: a store here must be found by them.
    #[test]
    fn the_layout_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("page");
        let cache = PageCache { boot: 5 << 64 | 6, mount: 7 };
        Positions::open(&path).unwrap().unwrap().start(cache, position(9)).unwrap();
        let page = std::fs::read(&path).unwrap();
        assert_eq!(page.len(), PAGE_LEN);
        assert_eq!((&page[..8], word(&page, 1), word(&page, 2), word(&page, 3)), (&b"sdprogr1"[..], 5, 6, 7));
        for first in [24, 40] {
            assert_eq!([first, first + 4, first + 5].map(|at| word(&page, at)), [1, 9, 27]);
        }
    }
}
