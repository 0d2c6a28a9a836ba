//! A comparison instead of a copy: the same walk, and of files hashes instead of bytes.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use super::super::looks::Looks;
use super::super::seeing::{Eyes, NotRead};
use super::super::sink::{Entry, Gone, StampedSink};
use super::exact::show;
use super::files::{Place, open_and_look};
use crate::blocks::{Hasher, Range, Reads};
use crate::limits::{HASH_BLOCK, HASHED_BYTES_IN_FLIGHT, HASHES_IN_FLIGHT, HASHES_OF_CHECK};
use crate::packet::{BlockHash, ItemNumber, LaneItem};

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
    /// Hashes that were sent and not answered, with the bytes that they are of.
    in_flight: VecDeque<(ItemNumber, u64)>,
    bytes_in_flight: u64,
}

struct Hashing {
    place: Place,
    fd: Option<OwnedFd>,
    /// Everything before it was sent; what a file gets behind its end as of a stamp is told by packets.
    reached: u64,
}

/// How far a step came.
pub(super) enum Hashed {
    /// So many bytes, and perhaps more.
    On(u64),
    Whole,
    Unreadable(Box<Place>, NotRead),
}

impl Checking {
    pub fn new(order: CheckOrder) -> Checking {
        Checking {
            hasher: order.content.as_ref().map(Hasher::new),
            file: None,
            in_flight: VecDeque::new(),
            bytes_in_flight: 0,
            order,
        }
    }

    /// A file that the target asks for comes next.
    pub fn open(&mut self, place: Place) {
        assert!(self.file.is_none(), "a file before the hashes of the one before it are sent");
        self.file = Some(Hashing { place, fd: None, reached: 0 });
    }

    pub fn is_open(&self) -> bool {
        self.file.is_some()
    }

    pub fn has_room(&self) -> bool {
        self.in_flight.len() < HASHES_IN_FLIGHT && self.bytes_in_flight < HASHED_BYTES_IN_FLIGHT
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
        let (looked, number) = file.next(hasher, eyes, looks, sink)?;
        let bytes = match looked {
            Ok(bytes) => bytes,
            Err(why) => return Ok(Hashed::Unreadable(Box::new(file.place), why)),
        };
        let Some(number) = number else { return Ok(Hashed::Whole) };
        self.in_flight.push_back((number, bytes));
        self.bytes_in_flight += bytes;
        self.file = Some(file);
        Ok(Hashed::On(bytes))
    }
}

impl Hashing {
    /// Gives the bytes whose hashes went; no item went where there is nothing more of the file.
    #[allow(clippy::type_complexity)]
    fn next(
        &mut self,
        hasher: &mut Hasher,
        eyes: &Eyes,
        looks: &dyn Looks,
        sink: &mut impl StampedSink,
    ) -> Result<(Result<u64, NotRead>, Option<ItemNumber>), Gone> {
        let Hashing { place, fd, reached } = self;
        // What is written now is read more than once.
        let mut is_busy = looks.counts(place.listed.object.inode).begun > 0;
        let mut blocks = HASHES_OF_CHECK;
        let shown = show(sink, looks, place.found(), |batch| {
            let reads = if is_busy { Reads::Cached } else { Reads::Passing };
            let looked = look(eyes, place, fd, *reached, (blocks, reads), hasher, batch);
            (is_busy, blocks) = (true, 1);
            Ok::<_, Gone>(looked)
        })?;
        let (looked, number) = shown;
        let looked = looked.map(|(bytes, next)| {
            *reached = next;
            bytes
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
) -> Result<(u64, u64), NotRead> {
    const NOTHING: (u64, u64) = (0, u64::MAX);
    let Some((fd, status)) = open_and_look(eyes.root_fd(), place, file)? else { return Ok(NOTHING) };
    let size = status.stx_size;
    if offset >= size {
        return Ok(NOTHING);
    }
    let range = Range { offset, blocks, size };
    let hashes = hasher.hash(fd.as_fd(), range, reads).map_err(|error| ("read", error))?;
    let bytes = (hashes.len() as u64 * HASH_BLOCK).min(size - offset);
    let object = place.listed.object;
    batch.push(Entry::of(LaneItem::Hashes { object, offset, size, hashes }));
    let end = offset + bytes;
    Ok((bytes, if end < size { end } else { u64::MAX }))
}
