//! Bytes of a generation, and what they say after a power loss.
//!
//! ```text
//! head    0  8 magic "sdactiv1" | 8 4 version | 12 4 - | 16 8 log | 24 8 generation | 32 8 begins, s | 40 4 ns
//!         44 4 - | 48 8 xxh3 of what precedes; zeros up to 4096
//! record  0  8 xxh3 of what follows, seeded with log and generation | 8 4 its number, from 0
//! (64)   12  4 number of the first one that was written with it | 16 1 kind | 17 7 -
//!         hot      24 8 inode | 32 4 inode's generation | 36 4 epoch | 40 1 type of the handle | 41 1 its length
//!                  42 22 handle, where it fits
//!         ceiling  24 8 sequence number
//! ```
//! A record lies in one sector, which is written as a whole or not at all; what is not written yet is zeros. So
//! the end of a log is zeros, or what one write has left of itself: its records say with which one it began. Anything
//! else is damage.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::packet::{ObjectId, Sequence, Timestamp};
use crate::sys::FileHandle;

pub(super) const HEAD: usize = 4096;
pub(super) const RECORD: usize = 64;
const MAGIC: [u8; 8] = *b"sdactiv1";
pub(super) const VERSION: u32 = 1;
const HANDLE_ROOM: usize = 22;
const HOT: u8 = 1;
const CEILING: u8 = 2;

const _: () = assert!(HEAD.is_multiple_of(RECORD) && 512 % RECORD == 0);

/// Which generation of which log a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// A random number; another one for each run.
    pub log: u64,
    pub generation: u64,
    pub begins: Timestamp,
}

/// An object whose content is being changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HotObject {
    pub id: ObjectId,
    /// `None` where the file system has none, or longer ones.
    pub handle: Option<FileHandle>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    Hot(HotObject),
    /// Packets go out up to this one.
    Ceiling(Sequence),
}

/// Something was written that is not there any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Damaged;

impl Head {
    pub fn encode(&self) -> [u8; HEAD] {
        let mut raw = [0; HEAD];
        raw[..8].copy_from_slice(&MAGIC);
        raw[8..12].copy_from_slice(&VERSION.to_le_bytes());
        raw[16..24].copy_from_slice(&self.log.to_le_bytes());
        raw[24..32].copy_from_slice(&self.generation.to_le_bytes());
        raw[32..40].copy_from_slice(&self.begins.seconds.to_le_bytes());
        raw[40..44].copy_from_slice(&self.begins.nanoseconds.to_le_bytes());
        let sum = xxh3_64(&raw[..48]);
        raw[48..56].copy_from_slice(&sum.to_le_bytes());
        raw
    }

    /// `None`: it is no head, or one of another version.
    pub fn decode(raw: &[u8]) -> Option<Head> {
        let raw = raw.get(..HEAD)?;
        let is_one = raw[..8] == MAGIC && word(raw, 48) == xxh3_64(&raw[..48]) && half(raw, 8) == VERSION;
        let begins = || Timestamp { seconds: word(raw, 32).cast_signed(), nanoseconds: half(raw, 40) };
        let rest_is_empty = raw[56..].iter().all(|&byte| byte == 0);
        (is_one && rest_is_empty).then(|| Head {
            log: word(raw, 16),
            generation: word(raw, 24),
            begins: begins(),
        })
    }

    fn seed(&self) -> u64 {
        self.log ^ self.generation.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    /// Record `number`, written together with those from `first` on.
    pub fn record(&self, number: u32, first: u32, entry: &Entry) -> [u8; RECORD] {
        let mut raw = [0; RECORD];
        raw[8..12].copy_from_slice(&number.to_le_bytes());
        raw[12..16].copy_from_slice(&first.to_le_bytes());
        match entry {
            Entry::Hot(HotObject { id, handle }) => {
                raw[16] = HOT;
                raw[24..32].copy_from_slice(&id.inode.to_le_bytes());
                raw[32..36].copy_from_slice(&id.generation.to_le_bytes());
                raw[36..40].copy_from_slice(&id.birth_epoch.to_le_bytes());
                if let Some((kind, bytes)) = handle.as_ref().and_then(short) {
                    (raw[40], raw[41]) = (kind, bytes.len() as u8);
                    raw[42..42 + bytes.len()].copy_from_slice(bytes);
                }
            }
            Entry::Ceiling(Sequence(sequence)) => {
                raw[16] = CEILING;
                raw[24..32].copy_from_slice(&sequence.to_le_bytes());
            }
        }
        let sum = xxh3_64_with_seed(&raw[8..], self.seed());
        raw[..8].copy_from_slice(&sum.to_le_bytes());
        raw
    }

    /// What a record says, and with which one its write began.
    fn entry(&self, number: u32, raw: &[u8]) -> Option<(Entry, u32)> {
        let is_whole = word(raw, 0) == xxh3_64_with_seed(&raw[8..], self.seed()) && half(raw, 8) == number;
        if !is_whole {
            return None;
        }
        let entry = match raw[16] {
            HOT => Entry::Hot(HotObject {
                id: ObjectId { inode: word(raw, 24), generation: half(raw, 32), birth_epoch: half(raw, 36) },
                handle: match usize::from(raw[41]) {
                    0 => None,
                    len => FileHandle::from_parts(i32::from(raw[40]), raw[42..].get(..len)?),
                },
            }),
            CEILING => Entry::Ceiling(Sequence(word(raw, 24))),
            _ => return None,
        };
        Some((entry, half(raw, 12)))
    }

    /// What is there of all that was written and synced, and perhaps more. `raw`: what is behind the head.
    ///
    /// Errors: something is missing of what was synced, or may be.
    pub fn recover(&self, raw: &[u8]) -> Result<Vec<Entry>, Damaged> {
        let mut entries = Vec::new();
        let mut records = raw.chunks_exact(RECORD).zip(0..);
        for (raw, number) in records.by_ref() {
            match self.entry(number, raw) {
                Some((entry, _)) => entries.push(entry),
                None if is_empty(raw) => break,
                None => return Err(Damaged),
            }
        }
        let end = entries.len() as u32;
        for (raw, number) in records.filter(|(raw, _)| !is_empty(raw)) {
            // Of the write that the end is a part of: nobody has gone on because of it.
            let is_of_the_last = self.entry(number, raw).is_some_and(|(_, first)| first <= end);
            if !is_of_the_last {
                return Err(Damaged);
            }
        }
        Ok(entries)
    }
}

fn is_empty(raw: &[u8]) -> bool {
    raw.iter().all(|&byte| byte == 0)
}

fn short(handle: &FileHandle) -> Option<(u8, &[u8])> {
    let bytes = handle.as_bytes();
    (!bytes.is_empty() && bytes.len() <= HANDLE_ROOM).then_some((u8::try_from(handle.kind()).ok()?, bytes))
}

fn word(raw: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|byte| raw[at + byte]))
}

fn half(raw: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|byte| raw[at + byte]))
}
