//! A comparison instead of a copy: the same walk, and of files hashes instead of bytes.

use std::collections::VecDeque;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use super::super::looks::Looks;
use super::super::seeing::{Eyes, NotRead};
use super::super::sink::{Entry, Gone, StampedSink};
use super::exact::show;
use super::files::{Place, open_and_look};
use super::later::{Later, is_behind};
use crate::blocks::{self, Hasher, Hole, next_data};
use crate::limits::{
    HASH_BLOCK, HASHED_BYTES_IN_FLIGHT, HASHES_IN_FLIGHT, HASHES_LATE, HASHES_MAX, HASHES_OF_BUSY,
    HASHES_OF_CHECK,
};
use crate::packet::{BlockHash, ItemNumber, LaneItem, ObjectId};
use crate::reads::Reads;

/// What is to be compared.
#[derive(Clone, Debug, Default)]
pub struct CheckOrder {
    /// Content too, by these hashes.
    pub content: Option<BlockHash>,
    /// Nothing but what lies at this path below the root.
    pub below: Option<PathBuf>,
    /// Bytes of content a second.
    pub rate: Option<u64>,
    /// The target offers [`crate::packet::Features::HOLES`].
    pub takes_holes: bool,
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
    /// The last item was a hole of the file that is open: how far it was looked at is not known yet.
    hole: Option<ItemNumber>,
}

pub(super) struct Hashing {
    place: Place,
    fd: Option<OwnedFd>,
    /// It was put off before.
    is_due: bool,
    /// It was written while it was looked at last: what is read is read again.
    is_busy: bool,
    /// Everything before it was sent; what a file gets behind its end as of a stamp is told by packets.
    reached: u64,
    /// What was told last as a hole.
    hole: Range<u64>,
    /// The target has data in a hole that ends here: up to there it gets hashes.
    hashed_to: u64,
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
            hole: None,
            order,
        }
    }

    /// A file that the target asks for comes next.
    pub fn open(&mut self, place: Place) {
        if self.later.was_ahead(place.listed.object) {
            return;
        }
        assert!(self.file.is_none(), "a file before the hashes of the one before it are sent");
        self.file = Some(Hashing { is_due: false, ..Hashing::due(place) });
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
            _ if self.hole.is_some() => false,
            true => self.in_flight.len() < HASHES_LATE,
            false => self.in_flight.len() < HASHES_IN_FLIGHT && self.bytes_in_flight < HASHED_BYTES_IN_FLIGHT,
        }
    }

    /// Whether all hashes were answered.
    pub fn is_answered(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// Answers come in the order of the items. `said`: of hashes nothing; of a hole, up to where it was looked at.
    ///
    /// Errors: what makes no sense in the answer.
    pub fn answered(&mut self, item: ItemNumber, said: u64) -> Result<(), String> {
        match self.in_flight.pop_front() {
            Some((due, bytes)) if due == item => self.bytes_in_flight -= bytes,
            due => {
                let due = due.map(|(due, _)| due.0);
                return Err(format!("it is for hashes {}, due is {due:?}", item.0));
            }
        }
        match (self.hole.take_if(|hole| *hole == item), &mut self.file) {
            (Some(_), Some(file)) => file.went_through(said),
            (Some(_), None) | (None, _) => Ok(()),
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
        let holes = self.order.takes_holes;
        let (looked, number) = file.next(hasher, eyes, looks, sink, holes)?;
        let (piece, is_hole) = match looked {
            Ok(piece) => piece,
            Err(why) => return Ok(Hashed::Unreadable(Box::new(file.place), why)),
        };
        let Some(number) = number else { return Ok(Hashed::Whole) };
        self.in_flight.push_back((number, piece.read));
        self.bytes_in_flight += piece.read;
        self.hole = is_hole.then_some(number);
        self.file = Some(file);
        Ok(Hashed::On(piece))
    }
}

impl Hashing {
    /// It goes at its place.
    pub fn due(place: Place) -> Hashing {
        Hashing { place, fd: None, is_due: true, is_busy: false, reached: 0, hole: 0..0, hashed_to: 0 }
    }

    pub fn object(&self) -> ObjectId {
        self.place.listed.object
    }

    /// The target has looked at the hole up to here.
    fn went_through(&mut self, upto: u64) -> Result<(), String> {
        let Range { start, end } = self.hole;
        let is_possible = upto == end || (start < upto && upto < end && upto.is_multiple_of(HASH_BLOCK));
        if !is_possible {
            return Err(format!("a hole from {start} to {end} was looked at up to {upto}"));
        }
        if upto < end {
            (self.reached, self.hashed_to) = (upto, end);
        }
        Ok(())
    }

    /// Gives the bytes whose hashes went, and whether they are a hole; no item went where there is nothing more of
    /// the file.
    #[allow(clippy::type_complexity)]
    fn next(
        &mut self,
        hasher: &mut Hasher,
        eyes: &Eyes,
        looks: &dyn Looks,
        sink: &mut impl StampedSink,
        takes_holes: bool,
    ) -> Result<(Result<(Piece, bool), NotRead>, Option<ItemNumber>), Gone> {
        let Hashing { place, fd, reached, hole, hashed_to, is_busy, is_due: _ } = self;
        let takes_holes = takes_holes && *reached >= *hashed_to;
        let mut blocks = HASHES_OF_CHECK;
        let mut looked_at = 0;
        let shown = show(sink, looks, place.found(), |batch| {
            let reads = if *is_busy || looked_at > 0 { Reads::Cached } else { Reads::Passing };
            let looked = look(eyes, place, fd, *reached, (blocks, reads, takes_holes), hasher, batch);
            looked_at += 1;
            // Twice more than it takes: whoever writes without rest is held up for the last look.
            blocks = if looked_at < 3 { HASHES_OF_CHECK } else { HASHES_OF_BUSY };
            Ok::<_, Gone>(looked)
        })?;
        *is_busy = looked_at > 1;
        let (looked, number) = shown;
        let looked = looked.map(|Looked { piece, next, is_hole }| {
            if is_hole {
                *hole = *reached..*reached + piece.bytes;
            }
            *reached = next;
            (piece, is_hole)
        });
        Ok((looked, number))
    }
}

/// What comes next of a file.
struct Looked {
    piece: Piece,
    /// Where more of it would begin.
    next: u64,
    /// It went as one.
    is_hole: bool,
}

/// Hashes what comes next, as it is now.
fn look(
    eyes: &Eyes,
    place: &Place,
    file: &mut Option<OwnedFd>,
    offset: u64,
    (blocks, reads, takes_holes): (usize, Reads, bool),
    hasher: &mut Hasher,
    batch: &mut Vec<Entry>,
) -> Result<Looked, NotRead> {
    const NOTHING: Looked = Looked { piece: Piece { bytes: 0, read: 0 }, next: u64::MAX, is_hole: false };
    let Some((fd, status)) = open_and_look(eyes.root_fd(), place, file)? else { return Ok(NOTHING) };
    let size = status.stx_size;
    if offset >= size {
        return Ok(NOTHING);
    }
    let next = |end: u64| if end < size { end } else { u64::MAX };
    let object = place.listed.object;
    if let Some(Hole { end, .. }) =
        Some(fd).filter(|_| takes_holes).and_then(|fd| Hole::at(fd.as_fd(), offset, size))
    {
        batch.push(Entry::of(LaneItem::Hole { object, offset, end, size }));
        let piece = Piece { bytes: end - offset, read: 0 };
        return Ok(Looked { piece, next: next(end), is_hole: true });
    }
    let of = |blocks: usize| (blocks as u64 * HASH_BLOCK).min(size - offset);
    // Nothing of a large hole is read, here and as a rule there.
    let is_hole = next_data(fd.as_fd(), offset).is_ok_and(|data| data >= offset + of(HASHES_MAX));
    let range = blocks::Range { offset, blocks: if is_hole { HASHES_MAX } else { blocks }, size };
    let hashes = hasher.hash(fd.as_fd(), range, reads).map_err(|error| ("read", error))?;
    let bytes = of(hashes.len());
    let piece = Piece { bytes, read: if is_hole { 0 } else { bytes } };
    batch.push(Entry::of(LaneItem::Hashes { object, offset, size, hashes }));
    Ok(Looked { piece, next: next(offset + bytes), is_hole: false })
}
