//! Files that the target has with other content: hashes of their blocks go first, and then the bytes of
//! blocks that differ.
//!
//! ```text
//!  Hashes* CloseSame ──> Hashed ── nothing differs ──> over: the target has taken it as complete
//!                          │ something differs
//!                          v
//!                OpenBlocks Content*   ...   OpenBlocks CloseContent
//! ```
//! An answer only says which blocks are owed: what is sent of them is read anew, and stamped. Hashes of
//! many files are under way, and of one while its first blocks are sent.

mod file;

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use self::file::{BlockFile, Hashed, Stage};
use super::super::place::TreePath;
use super::super::seeing::NotRead;
use super::super::sink::{Gone, StampedSink};
use super::files::{Place, Reader};
use crate::blocks::Hasher;
use crate::limits::{COMPARED_FILES_MAX, HASH_BLOCK, HASHED_BYTES_IN_FLIGHT, HASHES_IN_FLIGHT, HASHES_MAX};
use crate::packet::{BlockHash, ItemNumber};

/// Which files are sent by blocks, and how these are compared.
#[derive(Clone, Copy, Debug)]
pub struct BlockOrder {
    pub hash: BlockHash,
    /// Those that have so many bytes on both sides; and those of which no more is known than that they are
    /// in doubt.
    pub least: u64,
    /// The target offers [`crate::packet::Features::HOLES`].
    pub takes_holes: bool,
}

/// The files under way, oldest first.
pub(super) struct Blocks {
    hasher: Hasher,
    takes_holes: bool,
    files: VecDeque<BlockFile>,
    /// So many are over.
    over: u64,
    /// Hashes that were sent and not answered, oldest first.
    in_flight: VecDeque<Asked>,
    bytes_in_flight: u64,
}

/// What hashes were sent of.
struct Asked {
    item: ItemNumber,
    /// Number of the file, from the first one on.
    file: u64,
    bytes: Range<u64>,
    /// How many of them are read: a large hole is not.
    read: u64,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// [`Blocks::send`].
    Send,
    /// [`Blocks::close`].
    Close,
    /// [`Blocks::hash`].
    Hash,
    /// [`Blocks::finish`].
    Finish,
    /// Nothing before an answer.
    Wait,
    /// Nothing of these files before an answer, and another one may be opened.
    Open,
}

/// How far a step came.
pub(super) enum Went {
    On,
    /// So many bytes of content were sent.
    Sent(u64),
    /// There is nothing to compare.
    Empty(Place),
    Gone,
    /// The target was told that no more of it comes.
    Unreadable(Arc<TreePath>, NotRead),
}

/// Bytes that were compared, and how many of them are the same on both sides.
pub(super) struct Counted {
    pub bytes: u64,
    pub same: u64,
}

/// A file that is complete.
pub(super) struct Finished {
    pub place: Place,
    /// The target had all of it.
    pub is_same: bool,
    /// Its attributes come in items of their own.
    pub has_large: bool,
}

impl Blocks {
    pub fn new(order: &BlockOrder) -> Blocks {
        let (hasher, takes_holes) = (Hasher::new(&order.hash), order.takes_holes);
        Blocks {
            hasher,
            takes_holes,
            files: VecDeque::new(),
            over: 0,
            in_flight: VecDeque::new(),
            bytes_in_flight: 0,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Its hashes come next.
    pub fn open(&mut self, place: Place) {
        assert!(self.files.len() < COMPARED_FILES_MAX, "more files are compared than a target keeps");
        self.files.push_back(BlockFile::new(place));
    }

    pub fn turn(&self) -> Turn {
        let (Some(first), Some(last)) = (self.files.front(), self.files.back()) else { return Turn::Open };
        match first.stage {
            _ if first.is_finished() => return Turn::Finish,
            _ if first.owes() => return Turn::Send,
            Stage::Hashed { .. } if first.unanswered == 0 => return Turn::Close,
            Stage::Hashing | Stage::Hashed { .. } | Stage::Complete { .. } | Stage::Left => {}
        }
        match last.stage {
            _ if !self.has_room() => Turn::Wait,
            Stage::Hashing => Turn::Hash,
            Stage::Hashed { .. } | Stage::Complete { .. } | Stage::Left => Turn::Open,
        }
    }

    fn has_room(&self) -> bool {
        self.in_flight.len() < HASHES_IN_FLIGHT
            && self.bytes_in_flight < HASHED_BYTES_IN_FLIGHT
            && self.files.len() < COMPARED_FILES_MAX
    }

    /// Answers come in the order of the items.
    ///
    /// Errors: what makes no sense in the answer.
    pub fn answered(&mut self, item: ItemNumber, differing: u64) -> Result<Counted, String> {
        let Some(Asked { file, bytes, read, .. }) =
            self.in_flight.pop_front().filter(|asked| asked.item == item)
        else {
            return Err(format!("hashes of item {} are not due", item.0));
        };
        let len = bytes.end - bytes.start;
        let mut same = len;
        self.bytes_in_flight -= read;
        let file = &mut self.files[(file - self.over) as usize];
        file.unanswered -= 1;
        let differs = |(bit, block)| (differing >> bit & 1 == 1).then_some(block);
        // A hole is longer, and none of it differs.
        for block in blocks(bytes).take(HASHES_MAX).enumerate().filter_map(differs) {
            same -= block.end - block.start;
            file.owe(block);
        }
        Ok(Counted { bytes: len, same })
    }

    /// Sends the next hashes of the file that was opened last.
    ///
    /// Errors: [`Gone`].
    pub fn hash(&mut self, reader: &Reader<'_>, sink: &mut impl StampedSink) -> Result<Went, Gone> {
        let number = self.over + self.files.len() as u64;
        let Some(mut file) = self.files.pop_back() else { return Ok(Went::On) };
        let went = match file.hash(&mut self.hasher, reader, sink, self.takes_holes)? {
            Hashed::Empty => return Ok(Went::Empty(file.place)),
            Hashed::Sent { item, bytes, read } => {
                self.bytes_in_flight += read;
                self.in_flight.push_back(Asked { item, file: number - 1, bytes, read });
                Went::On
            }
            Hashed::End => Went::On,
            Hashed::Gone => Went::Gone,
            Hashed::Unreadable(why) => Went::Unreadable(file.place.path(), why),
        };
        self.files.push_back(file);
        Ok(went)
    }

    /// Sends blocks of the first file that differ.
    ///
    /// Errors: [`Gone`].
    pub fn send(&mut self, reader: &Reader<'_>, sink: &mut impl StampedSink) -> Result<Went, Gone> {
        self.files.front_mut().map_or(Ok(Went::On), |file| file.send(reader, sink))
    }

    /// All that differs of the first file was sent.
    ///
    /// Errors: [`Gone`].
    pub fn close(&mut self, reader: &Reader<'_>, sink: &mut impl StampedSink) -> Result<Went, Gone> {
        self.files.front_mut().map_or(Ok(Went::On), |file| file.close(reader, sink))
    }

    /// The first file is over; `None`: the target was told that it does not come.
    pub fn finish(&mut self) -> Option<Finished> {
        let file = self.files.pop_front()?;
        assert!(file.is_finished(), "a file is over before all of it was answered and sent");
        self.over += 1;
        file.finish()
    }
}

/// The blocks that such bytes are hashed in.
fn blocks(bytes: Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let Range { start, end } = bytes;
    (start..end).step_by(HASH_BLOCK as usize).map(move |at| at..(at + HASH_BLOCK).min(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_block_ends_with_the_bytes() {
        let end = 3 * HASH_BLOCK + 5;
        let cut: Vec<_> = blocks(HASH_BLOCK..end).collect();
        assert_eq!(cut, [HASH_BLOCK..2 * HASH_BLOCK, 2 * HASH_BLOCK..3 * HASH_BLOCK, 3 * HASH_BLOCK..end]);
    }
}
