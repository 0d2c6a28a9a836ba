//! One file whose blocks are compared.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};

use super::super::super::content::{By, Data, Piece};
use super::super::super::seeing::NotRead;
use super::super::super::sink::{Entry, Gone, StampedSink};
use super::super::exact::show;
use super::super::files::{Place, Reader, attributes_of, open_and_look};
use super::{Finished, Went};
use crate::blocks::{self, Hasher, Hole};
use crate::limits::{CONTENT_CHUNK, HASH_BLOCK, HASHES_OF_CHECK};
use crate::packet::{ItemNumber, LaneItem};
use crate::reads::Reads;

pub(super) struct BlockFile {
    pub place: Place,
    fd: Option<OwnedFd>,
    /// Hashes were sent of everything before it.
    reached: u64,
    pub stage: Stage,
    /// Hashes of it that the target has not answered.
    pub unanswered: usize,
    /// What differs, in its order.
    owed: VecDeque<Range<u64>>,
    differs: bool,
    /// It was written while it was looked at last: what is read is read again.
    is_busy: bool,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Hashing,
    /// Hashes were sent to its end. `if_same`: the target was told that it is complete if nothing differs.
    Hashed {
        if_same: Option<Attributes>,
    },
    /// The target has all of it.
    Complete {
        attributes: Attributes,
    },
    /// The target was told that nothing of it comes, or nothing more.
    Left,
}

/// How extended attributes come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attributes {
    /// With the end of the content.
    AtEnd,
    /// In items of their own.
    Large,
}

/// How far a step came that sends hashes.
pub(super) enum Hashed {
    /// Of these bytes.
    Sent {
        item: ItemNumber,
        bytes: Range<u64>,
        /// How many of them were read: of a large hole none.
        read: u64,
    },
    /// There is nothing more, and no item of it went.
    End,
    /// It has no bytes at all.
    Empty,
    Gone,
    Unreadable(NotRead),
}

/// What a look at hashes has put into its batch.
enum Look {
    Bytes { bytes: Range<u64>, read: u64, end: Option<Attributes> },
    Nothing,
    Gone,
}

impl BlockFile {
    pub fn new(place: Place) -> BlockFile {
        BlockFile {
            place,
            fd: None,
            reached: 0,
            stage: Stage::Hashing,
            unanswered: 0,
            owed: VecDeque::new(),
            differs: false,
            is_busy: false,
        }
    }

    /// A block differs.
    pub fn owe(&mut self, block: Range<u64>) {
        self.differs = true;
        match self.owed.back_mut() {
            Some(last) if last.end == block.start => last.end = block.end,
            _ => self.owed.push_back(block),
        }
    }

    pub fn owes(&self) -> bool {
        !self.owed.is_empty() && matches!(self.stage, Stage::Hashing | Stage::Hashed { .. })
    }

    pub fn is_finished(&self) -> bool {
        let is_over = match self.stage {
            Stage::Hashing | Stage::Hashed { if_same: None } => false,
            Stage::Hashed { if_same: Some(_) } => !self.differs,
            Stage::Complete { .. } | Stage::Left => true,
        };
        is_over && self.unanswered == 0
    }

    pub fn finish(self) -> Option<Finished> {
        let (Stage::Hashed { if_same: Some(attributes) } | Stage::Complete { attributes }) = self.stage
        else {
            return None;
        };
        let has_large = attributes == Attributes::Large;
        Some(Finished { place: self.place, is_same: !self.differs, has_large })
    }

    pub fn hash(
        &mut self,
        hasher: &mut Hasher,
        reader: &Reader<'_>,
        sink: &mut impl StampedSink,
        takes_holes: bool,
    ) -> Result<Hashed, Gone> {
        let BlockFile { place, fd, reached, is_busy, .. } = self;
        let (mut blocks, mut looked_at) = (HASHES_OF_CHECK, 0);
        let (looked, last) = show(sink, reader.looks, place.found(), |batch| {
            let reads = if *is_busy || looked_at > 0 { Reads::Cached } else { Reads::Passing };
            let looked =
                look_at_hashes(reader, place, fd, *reached, (blocks, reads, takes_holes), hasher, batch);
            (looked_at, blocks) = (looked_at + 1, 1);
            or_leave(place, batch, matches!(looked, Ok(Look::Gone) | Err(_)));
            Ok::<_, Gone>(looked)
        })?;
        *is_busy = looked_at > 1;
        let (bytes, read, end) = match looked {
            Ok(Look::Bytes { bytes, read, end }) => (bytes, read, end),
            Ok(Look::Nothing) if self.reached == 0 => return Ok(Hashed::Empty),
            Ok(Look::Nothing) => {
                (self.stage, self.fd) = (Stage::Hashed { if_same: None }, None);
                return Ok(Hashed::End);
            }
            Ok(Look::Gone) => {
                self.leave();
                return Ok(Hashed::Gone);
            }
            Err(why) => {
                self.leave();
                return Ok(Hashed::Unreadable(why));
            }
        };
        let Some(last) = last else { return Ok(Hashed::End) };
        self.reached = bytes.end;
        self.unanswered += 1;
        if end.is_some() {
            (self.stage, self.fd) = (Stage::Hashed { if_same: end }, None);
        }
        // Its end is an item behind them.
        Ok(Hashed::Sent { item: ItemNumber(last.0 - u64::from(end.is_some())), bytes, read })
    }

    fn leave(&mut self) {
        (self.stage, self.fd) = (Stage::Left, None);
        self.owed.clear();
    }

    /// Sends some of what differs, as it is now.
    pub fn send(&mut self, reader: &Reader<'_>, sink: &mut impl StampedSink) -> Result<Went, Gone> {
        let due = self.take_due();
        let (place, fd) = (&self.place, &mut self.fd);
        let mut reads = Reads::Passing;
        let (looked, _) = show(sink, reader.looks, place.found(), |batch| {
            batch.push(Entry::of(LaneItem::OpenBlocks { object: place.listed.object }));
            let looked = look_at_bytes(reader, place, fd, &due, reads, batch);
            reads = Reads::Cached;
            or_leave(place, batch, matches!(looked, Ok(None) | Err(_)));
            Ok::<_, Gone>(looked)
        })?;
        Ok(match looked {
            Ok(Some(bytes)) => Went::Sent(bytes),
            outcome => self.failed(outcome.err()),
        })
    }

    fn failed(&mut self, why: Option<NotRead>) -> Went {
        self.leave();
        why.map_or(Went::Gone, |why| Went::Unreadable(self.place.path(), why))
    }

    /// As much of what differs as goes at once.
    fn take_due(&mut self) -> Vec<Range<u64>> {
        let (mut due, mut room) = (Vec::new(), CONTENT_CHUNK as u64);
        while room > 0
            && let Some(next) = self.owed.front_mut()
        {
            let taken = next.start..next.end.min(next.start + room);
            room -= taken.end - taken.start;
            next.start = taken.end;
            if next.is_empty() {
                self.owed.pop_front();
            }
            due.push(taken);
        }
        due
    }

    /// Sends its end, and all attributes.
    pub fn close(&mut self, reader: &Reader<'_>, sink: &mut impl StampedSink) -> Result<Went, Gone> {
        let (place, fd) = (&self.place, &mut self.fd);
        let object = place.listed.object;
        let (looked, _) = show(sink, reader.looks, place.found(), |batch| {
            batch.push(Entry::of(LaneItem::OpenBlocks { object }));
            let looked = look_at_end(reader, place, fd, batch);
            or_leave(place, batch, matches!(looked, Ok(None) | Err(_)));
            Ok::<_, Gone>(looked)
        })?;
        Ok(match looked {
            Ok(Some(attributes)) => {
                self.stage = Stage::Complete { attributes };
                Went::On
            }
            outcome => self.failed(outcome.err()),
        })
    }
}

/// Nothing of a batch goes but that no more comes.
fn or_leave(place: &Place, batch: &mut Vec<Entry>, is_left: bool) {
    if is_left {
        batch.clear();
        batch.push(Entry::of(LaneItem::Leave { object: place.listed.object }));
    }
}

/// Hashes what comes next, as it is now.
fn look_at_hashes(
    reader: &Reader<'_>,
    place: &Place,
    file: &mut Option<OwnedFd>,
    offset: u64,
    (blocks, reads, takes_holes): (usize, Reads, bool),
    hasher: &mut Hasher,
    batch: &mut Vec<Entry>,
) -> Result<Look, NotRead> {
    let Some((fd, status)) = open_and_look(reader.mount, place, file)? else { return Ok(Look::Gone) };
    let (object, size) = (place.listed.object, status.stx_size);
    if offset >= size {
        return Ok(Look::Nothing);
    }
    let hole = Some(fd).filter(|_| takes_holes).and_then(|fd| Hole::at(fd.as_fd(), offset, size));
    let (bytes, read) = match hole {
        Some(Hole { end, .. }) => {
            batch.push(Entry::of(LaneItem::Hole { object, offset, end, size }));
            (offset..end, 0)
        }
        None => {
            let range = blocks::Range { offset, blocks, size };
            let hashes = hasher.hash(fd.as_fd(), range, reads).map_err(|error| ("read", error))?;
            let bytes = offset..size.min(offset + hashes.len() as u64 * HASH_BLOCK);
            batch.push(Entry::of(LaneItem::Hashes { object, offset, size, hashes }));
            let read = bytes.end - bytes.start;
            (bytes, read)
        }
    };
    if bytes.end < size {
        return Ok(Look::Bytes { bytes, read, end: None });
    }
    let (attributes, xattrs) = attributes_of(fd, &status)?;
    let end = if xattrs.is_none() { Attributes::Large } else { Attributes::AtEnd };
    let xattrs = xattrs.unwrap_or_default();
    batch.push(Entry::of(LaneItem::CloseSame { object, size, attributes, xattrs }));
    Ok(Look::Bytes { bytes, read, end: Some(end) })
}

/// Reads what differs, as it is now; gives how many bytes that is. `None`: it is gone.
fn look_at_bytes(
    reader: &Reader<'_>,
    place: &Place,
    file: &mut Option<OwnedFd>,
    due: &[Range<u64>],
    reads: Reads,
    batch: &mut Vec<Entry>,
) -> Result<Option<u64>, NotRead> {
    let Some((fd, status)) = open_and_look(reader.mount, place, file)? else { return Ok(None) };
    let mut sent = 0;
    for bytes in due {
        let end = bytes.end.min(status.stx_size);
        if bytes.start < end {
            let range = bytes.start..end;
            sent += read_pieces(reader, place, fd, range, reads, batch).map_err(|error| ("read", error))?;
        }
    }
    Ok(Some(sent))
}

/// The data of a range, and its holes.
fn read_pieces(
    reader: &Reader<'_>,
    place: &Place,
    fd: &OwnedFd,
    range: Range<u64>,
    reads: Reads,
    batch: &mut Vec<Entry>,
) -> io::Result<u64> {
    let object = place.listed.object;
    let by = By::Pieces(reads);
    let mut data = Data::of(fd, range.clone(), (reader.pool, CONTENT_CHUNK), by);
    let mut sent = 0;
    loop {
        match data.next()? {
            Piece::Bytes { hole, offset, bytes } => {
                sent += bytes.len() as u64;
                batch.push(Entry { item: LaneItem::Content { object, hole, offset }, payload: bytes });
            }
            Piece::End { hole: 0 } => return Ok(sent),
            Piece::End { hole } => {
                batch.push(Entry::of(LaneItem::Content { object, hole, offset: range.end }));
                return Ok(sent);
            }
        }
    }
}

/// `None`: it is gone.
fn look_at_end(
    reader: &Reader<'_>,
    place: &Place,
    file: &mut Option<OwnedFd>,
    batch: &mut Vec<Entry>,
) -> Result<Option<Attributes>, NotRead> {
    let Some((fd, status)) = open_and_look(reader.mount, place, file)? else { return Ok(None) };
    let (attributes, xattrs) = attributes_of(fd, &status)?;
    let how = if xattrs.is_none() { Attributes::Large } else { Attributes::AtEnd };
    let (object, size, xattrs) = (place.listed.object, status.stx_size, xattrs.unwrap_or_default());
    batch.push(Entry::of(LaneItem::CloseContent { object, hole: 0, size, attributes, xattrs }));
    Ok(Some(how))
}
