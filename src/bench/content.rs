//! Bytes that are written and recognised again: nothing that did not arrive counts as fast.
//!
//! Every block starts with a stamp (whose run it is of, 8 bytes; its offset in the file, 8 bytes,
//! both little-endian); random bytes follow, the same in each block at the same place.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::error::{Context, Error, Result};
use crate::random::Random;

/// Longest block.
pub const BLOCK_MAX: usize = 1 << 20;

/// Bytes of a stamp.
const STAMP: usize = 16;

/// A block under construction; its length is the whole of it.
pub struct Block {
    bytes: Vec<u8>,
}

impl Block {
    pub fn new(len: usize) -> Block {
        assert!((STAMP..=BLOCK_MAX).contains(&len));
        let mut random = Random::new(0x5eed);
        let words = std::iter::repeat_with(|| random.number().to_le_bytes()).flatten();
        Block { bytes: words.take(len).collect() }
    }

    /// The block of a run for an offset.
    pub fn stamped(&mut self, run: u64, offset: u64) -> &[u8] {
        self.bytes[..8].copy_from_slice(&run.to_le_bytes());
        self.bytes[8..STAMP].copy_from_slice(&offset.to_le_bytes());
        &self.bytes
    }

    /// Whether a file holds the block of this run at each of these offsets.
    ///
    /// Errors: the first block that is another one, or what the file system says.
    pub fn check(&mut self, path: &Path, run: u64, offsets: impl Iterator<Item = u64>) -> Result<()> {
        let file = File::open(path).at(path)?;
        let mut found = vec![0; self.bytes.len()];
        for offset in offsets {
            file.read_exact_at(&mut found, offset).at(path)?;
            if found != self.stamped(run, offset) {
                return Err(Error::Wrong(format!(
                    "{} does not hold at offset {offset} what was written there",
                    path.display()
                )));
            }
        }
        Ok(())
    }
}

/// The offset in the stamp of a block that was read.
pub fn stamped_offset(block: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(block.get(8..STAMP)?.try_into().ok()?))
}

/// Offset of a block of this length within a file of this length, which holds one at least.
pub fn block_offset(random: &mut Random, file_len: u64, block: u64) -> u64 {
    random.below((file_len / block).max(1)) * block
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_written_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let mut block = Block::new(4096);
        let mut written = block.stamped(1, 0).to_vec();
        written.extend_from_slice(block.stamped(1, 4096));
        std::fs::write(&path, &written).unwrap();
        block.check(&path, 1, [0, 4096].into_iter()).unwrap();

        assert!(block.check(&path, 2, [0].into_iter()).is_err(), "of another run");
        assert!(block.check(&path, 1, [8192].into_iter()).is_err(), "too short");
        written[5000] ^= 1;
        std::fs::write(&path, &written).unwrap();
        block.check(&path, 1, [0].into_iter()).unwrap();
        assert!(block.check(&path, 1, [4096].into_iter()).is_err(), "one byte differs");
        assert_eq!(stamped_offset(&written[4096..]), Some(4096));
    }

    #[test]
    fn random_offsets_are_whole_blocks_within_the_file() {
        let mut random = Random::new(1);
        let offsets: Vec<u64> = (0..100).map(|_| block_offset(&mut random, 10 * 4096 + 5, 4096)).collect();
        assert!(offsets.iter().all(|offset| offset % 4096 == 0 && *offset < 10 * 4096));
        assert!(offsets.contains(&(9 * 4096)));
    }
}
