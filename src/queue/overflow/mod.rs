//! What memory has no room for: segments on disk, and windows over them.
//!
//! ```text
//!            segments                            memory
//!  [oldest ............... last] [next ......................... last given out]
//!      │  read (a thread)          │                                    ^ append
//!      v                           └── spill (a thread): the oldest ────┘
//!  window of each reader ──> link        of memory, where that fills
//! ```
//! Packets leave memory only when they are written, and come back only where every byte and the chain of
//! positions is right. What cannot be read is lost for those who have not applied it: their
//! connections let go of the queue, and the map brings their targets into line.
//! What lies on disk is of this process alone: at its start the files of the one before are removed, but for those that
//! it has left on purpose ([`super::Backlog`]).

#[cfg(test)]
mod backlog_tests;
mod read;
mod spill;
#[cfg(test)]
mod tests;
mod threads;

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;

pub use read::Reader;
#[cfg(test)]
pub(crate) use spill::Spilled;

use super::backlog::Backlog;
use super::list::{CursorId, Queue};
use super::segment_files::{DiskPlace, SegmentFile, SegmentFiles};
use crate::limits::{QUEUE_READ_BATCH, QUEUE_SPILL_EIGHTHS, QUEUE_WINDOW};
use crate::packet::{Position, Sequence};
use crate::pool::Pool;
use crate::words::{DiskQueueStats, DiskTrouble};
use read::Window;

/// What the two threads share that nobody else needs, and how they are woken.
pub(super) struct Overflow {
    /// Of the thread that writes. Never under the tail's lock, nor the other way round.
    files: Mutex<SegmentFiles>,
    /// Stamps count from here.
    pub(super) began: Instant,
    /// Memory may hold so much before its oldest part is written, bytes.
    spill_at: usize,
    spill: Bell,
    read: Bell,
    /// What is read goes there: as much as a window has, and one more.
    buffers: Pool,
}

/// Rung by many, heard by one.
struct Bell(Sender<()>, Receiver<()>);

impl Bell {
    fn new() -> Bell {
        let (rung, heard) = bounded(1);
        Bell(rung, heard)
    }

    fn ring(&self) {
        // One that nobody has heard yet is enough.
        let _ = self.0.try_send(());
    }
}

impl Overflow {
    pub(super) fn open(limit: usize, place: DiskPlace) -> std::io::Result<Overflow> {
        Ok(Overflow::of(limit, SegmentFiles::open(place)?, Instant::now()))
    }

    /// With what an earlier queue has left there, and when the first packet of each segment was queued: as far as it
    /// is as it was left, from the end on.
    pub(super) fn open_with(
        limit: usize,
        place: DiskPlace,
        backlog: &Backlog,
        began: Instant,
    ) -> std::io::Result<(Overflow, Vec<(Segment, Instant)>)> {
        let keeps = backlog.segment_len == place.segment_len;
        let (files, left) = SegmentFiles::open_with(place, &backlog.segments, |left, file| match keeps {
            true => left.open(file, began),
            false => Err(std::io::Error::other("the limit of its disk was changed")),
        })?;
        Ok((Overflow::of(limit, files, began), left))
    }

    fn of(limit: usize, files: SegmentFiles, began: Instant) -> Overflow {
        Overflow {
            files: Mutex::new(files),
            began,
            spill_at: limit / 8 * QUEUE_SPILL_EIGHTHS,
            spill: Bell::new(),
            read: Bell::new(),
            buffers: Pool::keeping(QUEUE_WINDOW + QUEUE_READ_BATCH),
        }
    }

    /// These files stay when the queue ends, and are on the disk with their names. Gives the length of a segment.
    pub(super) fn keep(&self, names: HashSet<String>) -> std::io::Result<u64> {
        let mut files = self.files.lock();
        files.keep(names)?;
        Ok(files.segment_len())
    }

    pub(super) fn spill_at(&self) -> usize {
        self.spill_at
    }
}

/// What is on disk: in order, without a gap, up to the packet before the first one in memory.
#[derive(Default)]
pub(super) struct OnDisk {
    segments: VecDeque<Segment>,
    next_id: u64,
    /// From the mark down to half of it.
    spills: bool,
    /// All of memory is written, for good.
    pub(super) spills_all: bool,
    /// The last segment, or the one after it, is being written.
    pub(super) is_written: bool,
    /// Files that no segment is in any more.
    freed: Vec<Arc<SegmentFile>>,
    windows: BTreeMap<u64, Window>,
    next_window: u64,
    /// The window that was filled last.
    turn: u64,
    lost: Option<Lost>,
    pub(super) trouble: Option<DiskTrouble>,
    /// Bytes in the segments.
    bytes: u64,
    /// Bytes of all files, and what they may come to.
    file_bytes: u64,
    capacity: u64,
    #[cfg(test)]
    pub(super) planted: Option<super::Planted>,
}

/// Cheap to clone: where records are, as of a moment.
#[derive(Clone)]
pub(super) struct Segment {
    pub(super) id: u64,
    pub(super) file: Arc<SegmentFile>,
    /// Of the packet before its first one.
    pub(super) before: Position,
    pub(super) last: Position,
    /// Of its last record.
    pub(super) end: u64,
    /// Nothing is written to it any more.
    pub(super) is_sealed: bool,
}

impl Segment {
    fn first(&self) -> Sequence {
        self.before.sequence.next()
    }
}

/// What cannot be read.
#[derive(Clone)]
struct Lost {
    upto: Sequence,
    why: Arc<str>,
}

impl OnDisk {
    /// The oldest packet that can be read; `None` where none is on disk.
    pub(super) fn oldest(&self, trimmed: Sequence) -> Option<Sequence> {
        let first = self.segments.front()?.first().max(trimmed.next());
        Some(self.lost.as_ref().map_or(first, |lost| first.max(lost.upto.next())))
    }

    /// The first packet of all that are there.
    pub(super) fn first(&self) -> Option<Sequence> {
        self.segments.front().map(Segment::first)
    }

    /// Those of which nothing is lost.
    pub(super) fn readable(&self) -> impl Iterator<Item = &Segment> {
        let lost = self.lost.as_ref().map_or(Sequence(0), |lost| lost.upto);
        self.segments.iter().filter(move |segment| segment.first() > lost)
    }

    /// The next one of those that an earlier queue has left.
    pub(super) fn take_up(&mut self, segment: Segment) {
        self.next_id = segment.id + 1;
        self.bytes += segment.end;
        self.segments.push_back(segment);
    }

    /// Frees segments that nobody needs; whether there are any.
    pub(super) fn trim(&mut self, upto: Sequence) -> bool {
        #[cfg(test)]
        let upto = match self.planted {
            Some(super::Planted::RecyclesTooEarly) if upto > Sequence(0) => {
                let reached = self.segments.iter().find(|segment| segment.last.sequence > upto);
                reached
                    .filter(|segment| segment.first() <= upto)
                    .map_or(upto, |segment| segment.last.sequence)
            }
            _ => upto,
        };
        let before = self.freed.len();
        while let Some(front) = self.segments.front()
            && front.last.sequence <= upto
            && !(self.is_written && self.segments.len() == 1)
        {
            self.bytes -= front.end;
            self.freed.extend(self.segments.pop_front().map(|segment| segment.file));
        }
        self.freed.len() > before
    }

    /// Numbers go with the order.
    fn of_id(&self, id: u64) -> Option<usize> {
        self.segments.binary_search_by_key(&id, |segment| segment.id).ok()
    }

    fn holding(&self, sequence: Sequence) -> Option<&Segment> {
        let at = self.segments.partition_point(|segment| segment.last.sequence < sequence);
        self.segments.get(at).filter(|segment| segment.first() <= sequence)
    }

    pub(super) fn stats(&self, oldest: Sequence) -> DiskQueueStats {
        let last = self.segments.back().map_or(Sequence(0), |segment| segment.last.sequence);
        let bytes = self.bytes;
        DiskQueueStats {
            packets: last.next().0.saturating_sub(oldest.0),
            bytes,
            file_bytes: self.file_bytes,
            limit_bytes: self.capacity,
            alert: bytes > 0 && bytes * 2 >= self.capacity,
            trouble: self.trouble,
        }
    }
}

impl Queue {
    /// Whether there is a disk that takes what memory has no room for.
    pub fn disk_follows(&self) -> bool {
        self.tail.lock().disk.as_ref().is_some_and(|disk| disk.trouble.is_none())
    }

    /// Nobody reads or writes any more: nothing of it stays on disk.
    pub fn end_disk(&self) {
        self.overflow.iter().for_each(|overflow| overflow.files.lock().end());
    }

    /// Why some of what this reader has not applied cannot be read any more.
    pub fn lost_for(&self, id: CursorId) -> Option<Arc<str>> {
        let tail = self.tail.lock();
        let lost = tail.disk.as_ref()?.lost.as_ref()?;
        (tail.cursors.get(&id)?.applied < lost.upto).then(|| lost.why.clone())
    }

    pub(super) fn spill_soon(&self) {
        self.overflow.iter().for_each(|overflow| overflow.spill.ring());
    }

    /// The last packet that some target has lost.
    #[cfg(test)]
    pub(crate) fn lost(&self) -> Option<Sequence> {
        self.tail.lock().disk.as_ref()?.lost.as_ref().map(|lost| lost.upto)
    }

    #[cfg(test)]
    pub(crate) fn plant(&self, planted: super::Planted) {
        self.tail.lock().disk.iter_mut().for_each(|disk| disk.planted = Some(planted));
    }
}
