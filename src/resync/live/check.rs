//! A comparison instead of a copy: the same walk, and of files hashes instead of bytes.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use super::super::looks::Looks;
use super::super::seeing::{Eyes, NotRead};
use super::super::sink::{Entry, Gone, StampedSink};
use super::exact::show;
use super::files::{Place, open_and_look};
use super::later::{Later, is_behind};
use crate::blocks::{Hasher, Range, Reads, next_data};
use crate::limits::{
    HASH_BLOCK, HASHED_BYTES_IN_FLIGHT, HASHES_IN_FLIGHT, HASHES_LATE, HASHES_MAX, HASHES_OF_BUSY,
    HASHES_OF_CHECK,
};
use crate::packet::{BlockHash, ItemNumber, LaneItem, ObjectId};

/// What is to be compared.
#[derive(Clone, Debug, Default)]
pub struct CheckOrder {
    /// Content too, by these hashes.
    pub content: Option<BlockHash>,
    /// Nothing but what lies at this path below the root.
    pub below: Option<PathBuf>,
    /// Bytes of content a second.
    pub rate: Option<u64>,
}

/// A comparison under way.
pub(super) struct Checking {
    pub order: CheckOrder,
    hasher: Option<Hasher>,
    /// The file whose hashes are being sent.
    file: Option<Hashing>,
    pub later: Later,
    /// Hashes that were sent and not answered, with the bytes that they are of.
    in_flight: VecDeque<(ItemNumber, u64)>,
    bytes_in_flight: u64,
}

pub(super) struct Hashing {
    place: Place,
    fd: Option<OwnedFd>,
    /// It was put off before.
    is_due: bool,
    /// Everything before it was sent; what a file gets behind its end as of a stamp is told by packets.
    reached: u64,
}

/// Bytes of a file whose hashes went, and how many of them were read: holes are not.
#[derive(Clone, Copy, Default)]
pub(super) struct Piece {
    pub bytes: u64,
    pub read: u64,
}

/// How far a step came.
pub(super) enum Hashed {
    /// So far, and perhaps more.
    On(Piece),
    Whole,
    /// It goes on later.
    Later,
    Unreadable(Box<Place>, NotRead),
}

impl Checking {
    pub fn new(order: CheckOrder) -> Checking {
        Checking {
            hasher: order.content.as_ref().map(Hasher::new),
            file: None,
            later: Later::default(),
            in_flight: VecDeque::new(),
            bytes_in_flight: 0,
            order,
        }
    }

    /// A file that the target asks for comes next.
    pub fn open(&mut self, place: Place) {
        if self.later.was_ahead(place.listed.object) {
            return;
        }
        assert!(self.file.is_none(), "a file before the hashes of the one before it are sent");
        self.file = Some(Hashing { place, fd: None, is_due: false, reached: 0 });
    }

    /// Whether there are hashes to be sent before anything else.
    pub fn is_open(&mut self) -> bool {
        if self.file.is_none() {
            self.file = self.later.next_file();
        }
        self.file.is_some()
    }

    pub fn has_room(&self) -> bool {
        match self.later.is_late() {
            true => self.in_flight.len() < HASHES_LATE,
            false => self.in_flight.len() < HASHES_IN_FLIGHT && self.bytes_in_flight < HASHED_BYTES_IN_FLIGHT,
        }
    }

    /// Whether all hashes were answered.
    pub fn is_answered(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// Answers come in the order of the items.
    ///
    /// Errors: what makes no sense in the answer.
    pub fn answered(&mut self, item: ItemNumber) -> Result<(), String> {
        match self.in_flight.pop_front() {
            Some((due, bytes)) if due == item => {
                self.bytes_in_flight -= bytes;
                Ok(())
            }
            due => Err(format!("it is for hashes {}, due is {:?}", item.0, due.map(|(due, _)| due.0))),
        }
    }

    /// Sends the next hashes of the file that is open.
    ///
    /// Errors: [`Gone`].
    pub fn step(
        &mut self,
        eyes: &Eyes,
        looks: &dyn Looks,
        sink: &mut impl StampedSink,
    ) -> Result<Hashed, Gone> {
        let (Some(mut file), Some(hasher)) = (self.file.take(), &mut self.hasher) else {
            return Ok(Hashed::Whole);
        };
        if !file.is_due && self.later.has_room(sink.reached()) && is_behind(looks, sink, file.object().inode)
        {
            (file.is_due, file.fd) = (true, None);
            self.later.file(file);
            return Ok(Hashed::Later);
        }
        let (looked, number) = file.next(hasher, eyes, looks, sink)?;
        let piece = match looked {
            Ok(piece) => piece,
            Err(why) => return Ok(Hashed::Unreadable(Box::new(file.place), why)),
        };
        let Some(number) = number else { return Ok(Hashed::Whole) };
        self.in_flight.push_back((number, piece.read));
        self.bytes_in_flight += piece.read;
        self.file = Some(file);
        Ok(Hashed::On(piece))
    }
}

impl Hashing {
    /// It goes at its place.
    pub fn due(place: Place) -> Hashing {
        Hashing { place, fd: None, is_due: true, reached: 0 }
    }

    pub fn object(&self) -> ObjectId {
        self.place.listed.object
    }

    /// Gives the bytes whose hashes went; no item went where there is nothing more of the file.
    #[allow(clippy::type_complexity)]
    fn next(
        &mut self,
        hasher: &mut Hasher,
        eyes: &Eyes,
        looks: &dyn Looks,
        sink: &mut impl StampedSink,
    ) -> Result<(Result<Piece, NotRead>, Option<ItemNumber>), Gone> {
        let Hashing { place, fd, reached, is_due: _ } = self;
        // What is written now is read more than once.
        let mut is_busy = looks.counts(place.listed.object.inode).begun > 0;
        let mut blocks = HASHES_OF_CHECK;
        let mut looked_at = 0;
        let shown = show(sink, looks, place.found(), |batch| {
            let reads = if is_busy { Reads::Cached } else { Reads::Passing };
            let looked = look(eyes, place, fd, *reached, (blocks, reads), hasher, batch);
            (is_busy, looked_at) = (true, looked_at + 1);
            // Twice more than it takes: whoever writes without rest is held up for the last look.
            blocks = if looked_at < 3 { HASHES_OF_CHECK } else { HASHES_OF_BUSY };
            Ok::<_, Gone>(looked)
        })?;
        let (looked, number) = shown;
        let looked = looked.map(|(piece, next)| {
            *reached = next;
            piece
        });
        Ok((looked, number))
    }
}

/// Hashes what comes next, as it is now; gives how many bytes that is, and where more of it would begin.
fn look(
    eyes: &Eyes,
    place: &Place,
    file: &mut Option<OwnedFd>,
    offset: u64,
    (blocks, reads): (usize, Reads),
    hasher: &mut Hasher,
    batch: &mut Vec<Entry>,
) -> Result<(Piece, u64), NotRead> {
    const NOTHING: (Piece, u64) = (Piece { bytes: 0, read: 0 }, u64::MAX);
    let Some((fd, status)) = open_and_look(eyes.root_fd(), place, file)? else { return Ok(NOTHING) };
    let size = status.stx_size;
    if offset >= size {
        return Ok(NOTHING);
    }
    let of = |blocks: usize| (blocks as u64 * HASH_BLOCK).min(size - offset);
    // Nothing of a large hole is read, here and as a rule there.
    let is_hole = next_data(fd.as_fd(), offset).is_ok_and(|data| data >= offset + of(HASHES_MAX));
    let range = Range { offset, blocks: if is_hole { HASHES_MAX } else { blocks }, size };
    let hashes = hasher.hash(fd.as_fd(), range, reads).map_err(|error| ("read", error))?;
    let bytes = of(hashes.len());
    let piece = Piece { bytes, read: if is_hole { 0 } else { bytes } };
    let object = place.listed.object;
    batch.push(Entry::of(LaneItem::Hashes { object, offset, size, hashes }));
    let end = offset + bytes;
    Ok((piece, if end < size { end } else { u64::MAX }))
}
