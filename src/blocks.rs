//! The content of a file as hashes of its blocks: the same on both sides, so that what is compared means
//! the same.
//!
//! Holes are not read: they hash as the zeros that they are.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;
use xxhash_rust::xxh3::xxh3_128_with_secret;

use crate::limits::{HASH_BLOCK, HASHED_AT_ONCE, HASHES_MAX, HOLE_LEAST};
use crate::packet::BlockHash;
use crate::reads::{Reads, read_up_to};
use crate::words::sha256;

/// Bytes of a secret of xxh3: what it makes of a seed by itself.
const SECRET_LEN: usize = 192;

/// A range of a file of a size, from the beginning of a block on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    pub offset: u64,
    pub blocks: usize,
    pub size: u64,
}

impl Range {
    /// Whether a file can have it, and one item its hashes.
    pub fn is_of_a_file(&self) -> bool {
        let Range { offset, blocks, size } = *self;
        let is_sized = size <= i64::MAX as u64 && offset < size && offset.is_multiple_of(HASH_BLOCK);
        is_sized
            && (1..=HASHES_MAX).contains(&blocks)
            && (size - offset).div_ceil(HASH_BLOCK) >= blocks as u64
    }
}

/// A stretch of a file of a size that holds nothing: from the beginning of a block to that of another one, or to its
/// end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hole {
    pub offset: u64,
    pub end: u64,
    pub size: u64,
}

impl Hole {
    /// The large one that a file has here, if it has one.
    pub fn at(fd: BorrowedFd<'_>, offset: u64, size: u64) -> Option<Hole> {
        // Whoever cannot say has none.
        let data = next_data(fd, offset).ok()?;
        let end = if data >= size { size } else { data / HASH_BLOCK * HASH_BLOCK };
        (end.saturating_sub(offset) >= hole_least()).then_some(Hole { offset, end, size })
    }

    /// Whether a file can have it.
    pub fn is_of_a_file(&self) -> bool {
        let Hole { offset, end, size } = *self;
        let is_sized = size <= i64::MAX as u64 && offset < end && end <= size;
        is_sized && offset.is_multiple_of(HASH_BLOCK) && (end == size || end.is_multiple_of(HASH_BLOCK))
    }
}

#[cfg(not(test))]
fn hole_least() -> u64 {
    HOLE_LEAST
}

#[cfg(test)]
fn hole_least() -> u64 {
    LEAST.get()
}

#[cfg(test)]
thread_local! {
    static LEAST: std::cell::Cell<u64> = const { std::cell::Cell::new(HOLE_LEAST) };
}

/// On this thread holes of so few bytes are large ones, until this is dropped.
#[cfg(test)]
pub struct ShortHoles;

#[cfg(test)]
impl ShortHoles {
    pub fn of(least: u64) -> ShortHoles {
        LEAST.set(least);
        ShortHoles
    }
}

#[cfg(test)]
impl Drop for ShortHoles {
    fn drop(&mut self) {
        LEAST.set(HOLE_LEAST);
    }
}

/// Hashes with the key of one comparison.
pub struct Hasher {
    key: Key,
    /// Of a whole block of zeros.
    hole: u128,
    buffer: Vec<u8>,
}

enum Key {
    Fast(Box<[u8; SECRET_LEN]>),
    Audit([u8; 32]),
}

impl Hasher {
    pub fn new(hash: &BlockHash) -> Hasher {
        let key = match hash {
            BlockHash::Fast { key } => Key::Fast(Box::new(secret_of(key))),
            BlockHash::Audit { key } => Key::Audit(*key),
        };
        let hole = key.hash(&[0; HASH_BLOCK as usize]);
        Hasher { key, hole, buffer: Vec::new() }
    }

    /// Hashes of the blocks of a range, those of them that lie in the size. What the file has not is taken
    /// for zeros.
    ///
    /// Errors: those of `pread(2)`.
    pub fn hash(&mut self, fd: BorrowedFd<'_>, range: Range, reads: Reads) -> io::Result<Vec<u128>> {
        let mut hashes = Vec::with_capacity(range.blocks);
        let limit = range.size.min(range.offset.saturating_add(range.blocks as u64 * HASH_BLOCK));
        let (mut data, mut read) = (0, 0..0);
        let mut at = range.offset;
        while hashes.len() < range.blocks && at < range.size {
            let len = HASH_BLOCK.min(range.size - at);
            if data < at + len {
                data = next_data(fd, at.max(data))?;
            }
            let is_hole = data >= at + len;
            if !is_hole && read.end < at + len {
                read = at..self.read(fd, at, limit, reads)?;
            }
            hashes.push(match is_hole {
                true => self.zeros(len as usize),
                false => self.key.hash(&self.buffer[(at - read.start) as usize..][..len as usize]),
            });
            at += len;
        }
        Ok(hashes)
    }

    /// Looks at what a file has where another one has a hole: at so much of it as hashes of one item are of. Gives up
    /// to where that is, and how many bytes of it lie in blocks that are not zeros.
    ///
    /// Errors: those of `lseek(2)` and `pread(2)`.
    pub fn look_at_hole(&mut self, fd: BorrowedFd<'_>, hole: Hole) -> io::Result<(u64, u64)> {
        let Hole { offset, end, .. } = hole;
        let (mut at, mut differ) = (offset, 0);
        for _ in 0..HASHES_MAX {
            let data = next_data(fd, at)?;
            if data >= end {
                return Ok((end, differ));
            }
            at = at.max(data / HASH_BLOCK * HASH_BLOCK);
            let len = HASH_BLOCK.min(end - at);
            if self.block(fd, at, len as usize, Reads::Passing)? != self.zeros(len as usize) {
                differ += len;
            }
            at += len;
        }
        Ok((at, differ))
    }

    fn block(&mut self, fd: BorrowedFd<'_>, at: u64, len: usize, reads: Reads) -> io::Result<u128> {
        self.read(fd, at, at + len as u64, reads)?;
        Ok(self.key.hash(&self.buffer[..len]))
    }

    fn zeros(&self, len: usize) -> u128 {
        if len as u64 == HASH_BLOCK { self.hole } else { self.key.hash(&vec![0; len]) }
    }

    /// Reads from the beginning of a block on, up to a hole, to `limit`, or as much as goes at once; gives the end, of a
    /// block or `limit`. What the file has not is zeros.
    fn read(&mut self, fd: BorrowedFd<'_>, at: u64, limit: u64, reads: Reads) -> io::Result<u64> {
        // Whoever cannot say has none; one that begins here was filled meanwhile.
        let hole = seek(fd, SeekFrom::Hole(at)).unwrap_or(limit);
        let end = hole.next_multiple_of(HASH_BLOCK).clamp(at + HASH_BLOCK, at + HASHED_AT_ONCE).min(limit);
        let len = (end - at) as usize;
        if self.buffer.len() < len {
            self.buffer.resize(len, 0);
        }
        let got = read_up_to(fd, &mut self.buffer[..len], at, reads)?;
        self.buffer[got..len].fill(0);
        Ok(end)
    }
}

impl Key {
    fn hash(&self, bytes: &[u8]) -> u128 {
        match self {
            Key::Fast(secret) => xxh3_128_with_secret(bytes, &secret[..]),
            Key::Audit(key) => {
                let hash = blake3::keyed_hash(key, bytes);
                let half = hash.as_bytes().first_chunk().expect("32 bytes have 16");
                u128::from_le_bytes(*half)
            }
        }
    }
}

/// As many bytes as the hash wants, out of the key.
fn secret_of(key: &[u8; 32]) -> [u8; SECRET_LEN] {
    let mut secret = [0; SECRET_LEN];
    for (number, part) in secret.chunks_mut(32).enumerate() {
        part.copy_from_slice(&sha256(&[&key[..], &[number as u8]].concat()));
    }
    secret
}

/// The first offset in bytes from here on where data may be (`SEEK_DATA` of lseek(2)); `u64::MAX`: none.
///
/// Errors: the system's.
pub fn next_data(fd: BorrowedFd<'_>, at: u64) -> io::Result<u64> {
    match seek(fd, SeekFrom::Data(at)) {
        Ok(found) => Ok(found),
        // No data up to the end.
        Err(Errno::NXIO) => Ok(u64::MAX),
        // It does not know: everything is data.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(at),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::os::unix::fs::FileExt;

    fn both() -> [BlockHash; 2] {
        [BlockHash::Fast { key: [1; 32] }, BlockHash::Audit { key: [1; 32] }]
    }

    fn hashes(file: &File, size: u64, hash: &BlockHash, reads: Reads) -> Vec<u128> {
        let range = Range { offset: 0, blocks: 64, size };
        Hasher::new(hash).hash(file.as_fd(), range, reads).unwrap()
    }

    /// Holes, zeros that were written, and what a file lacks are the same content.
    #[test]
    fn a_hole_is_as_good_as_zeros() {
        let block = HASH_BLOCK;
        let (sparse, dense) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        let size = 5 * block + 77;
        sparse.set_len(size).unwrap();
        dense.write_all_at(&vec![0; size as usize], 0).unwrap();
        for file in [&sparse, &dense] {
            file.write_all_at(b"here", 3 * block - 2).unwrap();
        }
        let short = tempfile::tempfile().unwrap();
        short.set_len(2 * block).unwrap();
        short.write_all_at(b"here", 3 * block - 2).unwrap();
        for hash in both() {
            let expected = hashes(&dense, size, &hash, Reads::Cached);
            assert_eq!(expected.len(), 6);
            assert_eq!(hashes(&sparse, size, &hash, Reads::Passing), expected);
            assert_eq!(hashes(&short, size, &hash, Reads::Passing), expected);
            assert_eq!(expected[0], expected[1]);
            assert_ne!(expected[2], expected[3]);
        }
    }

    /// As far as that goes at once: behind it are as many blocks as one item has.
    #[test]
    fn what_lies_in_a_hole_is_found() {
        let file = tempfile::tempfile().unwrap();
        let size = 3 * HOLE_LEAST + 77;
        file.set_len(size).unwrap();
        let at = |offset| Hole::at(file.as_fd(), offset, size);
        let hole = Hole { offset: 0, end: size, size };
        assert_eq!((at(0), at(HASH_BLOCK)), (Some(hole), Some(Hole { offset: HASH_BLOCK, ..hole })));
        assert_eq!((at(2 * HOLE_LEAST + HASH_BLOCK), at(size)), (None, None));
        for hash in both() {
            let mut hasher = Hasher::new(&hash);
            let mut looked = |offset| hasher.look_at_hole(file.as_fd(), Hole { offset, ..hole }).unwrap();
            file.set_len(0).unwrap();
            assert_eq!(looked(0), (size, 0), "what is not there is a hole");
            file.set_len(size).unwrap();
            assert_eq!(looked(HASH_BLOCK), (size, 0));
            file.write_all_at(b"x", size - 1).unwrap();
            file.write_all_at(b"x", HOLE_LEAST).unwrap();
            assert_eq!(looked(0), (size, HASH_BLOCK + 77));
            file.write_all_at(&vec![0; 1 << 20], HOLE_LEAST).unwrap();
            let upto = HOLE_LEAST + HASHES_MAX as u64 * HASH_BLOCK;
            assert_eq!(looked(0), (upto, 0), "zeros are no difference");
        }
        assert_eq!(at(0).unwrap().end, HOLE_LEAST);
    }

    #[test]
    fn one_bit_anywhere_and_another_key_make_another_hash() {
        let seed = 11;
        let mut random = Random::new(seed);
        let file = tempfile::tempfile().unwrap();
        let size = 2 * HASH_BLOCK + HASH_BLOCK / 3;
        let mut bytes: Vec<u8> = (0..size).map(|_| random.below(256) as u8).collect();
        file.write_all_at(&bytes, 0).unwrap();
        for hash in both() {
            for _ in 0..20 {
                let before = hashes(&file, size, &hash, Reads::Passing);
                let at = random.below(size) as usize;
                bytes[at] ^= 1 << random.below(8);
                file.write_all_at(&bytes[at..=at], at as u64).unwrap();
                let after = hashes(&file, size, &hash, Reads::Cached);
                let differ: Vec<usize> = (0..3).filter(|&block| before[block] != after[block]).collect();
                assert_eq!(differ, [at / HASH_BLOCK as usize], "seed {seed}");
            }
        }
        let [fast, _] = both();
        let other = BlockHash::Fast { key: [2; 32] };
        assert_ne!(hashes(&file, size, &fast, Reads::Cached), hashes(&file, size, &other, Reads::Cached));
    }
}
