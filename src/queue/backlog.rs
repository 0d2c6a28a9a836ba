//! What a queue leaves on disk for the next run of its source, and how that takes it up.
//!
//! ```text
//!  orderly stop: all of memory ──> segments ──> on the disk ──> Backlog, which the source notes
//!  next start:   Backlog ──> the same segments, sealed ──> a reader for each target, where that was
//! ```
//! Packets keep their positions. What the next run gives out has the numbers behind theirs, and an incarnation of
//! its own: nobody may be sent both in one session.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::behind::{Mark, Volume};
use super::list::{Cursor, CursorId, Queue, Tail, Wake};
use super::overflow::{OnDisk, Overflow, Segment};
use super::packet::Haste;
use super::segment::{self, RECORDS_AT};
use super::segment_files::{DiskPlace, SegmentFile};
use crate::packet::{Position, Sequence};

/// See the module. Segments in their order, without a gap.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backlog {
    /// Of one segment, bytes.
    pub(super) segment_len: u64,
    /// When stamps of records began to count, milliseconds since 1970.
    pub(super) began_unix_ms: u64,
    pub(super) segments: Vec<LeftSegment>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LeftSegment {
    pub(super) name: String,
    id: u64,
    before: Position,
    last: Position,
    end: u64,
}

/// Between two looks whether all of memory is written.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// A disk that takes nothing for so long will not do so in time.
const STUCK_MAX: Duration = Duration::from_secs(1);

impl Backlog {
    /// Its last packet.
    pub fn last(&self) -> Position {
        self.segments.last().map(|last| last.last).unwrap_or_default()
    }
}

impl LeftSegment {
    /// The segment, where its file is what it was: its records are looked at as they are read.
    pub(super) fn open(&self, file: SegmentFile, began: Instant) -> io::Result<(Segment, Instant)> {
        let mut bytes = [0; RECORDS_AT as usize];
        file.read(&mut bytes, 0)?;
        let is_it = bytes == segment::header(&self.before, self.id);
        let is_whole = self.end > RECORDS_AT && self.end <= file.len()?;
        if !is_it || !is_whole || self.before.sequence >= self.last.sequence {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut stamp = [0; 8];
        file.read(&mut stamp, RECORDS_AT)?;
        let since = Duration::from_nanos(u64::from_le_bytes(stamp));
        let queued_at = began.checked_add(since).ok_or(io::ErrorKind::InvalidData)?;
        let segment = Segment {
            id: self.id,
            file: Arc::new(file),
            before: self.before,
            last: self.last,
            end: self.end,
            is_sealed: true,
        };
        Ok((segment, queued_at))
    }
}

impl Queue {
    /// Has the disk take all that memory holds, and gives what is there then, once it is on the disk: it stays there
    /// when the queue ends. Nothing may be appended any more. `upto`: of what comes behind this packet nothing is wanted,
    /// and all before it is on disk.
    ///
    /// Errors: why there is none: it has no disk, or that does not take it by the deadline, or before `give_up`.
    pub fn leave_backlog(
        &self,
        upto: Option<Sequence>,
        deadline: Instant,
        give_up: impl Fn() -> bool,
    ) -> Result<Backlog, String> {
        if upto.is_some() {
            return self.backlog(upto).map_err(|error| error.to_string());
        }
        self.begin_leaving();
        let begun = Instant::now();
        while self.is_in_memory() {
            let trouble = self.tail.lock().disk.as_ref().and_then(|disk| disk.trouble);
            if let Some(trouble) = trouble.filter(|_| begun.elapsed() > STUCK_MAX) {
                return Err(trouble.to_string());
            }
            if Instant::now() >= deadline || give_up() {
                return Err("it was not written in time".into());
            }
            self.spill_soon();
            std::thread::sleep(LOOK_EVERY);
        }
        self.backlog(None).map_err(|error| error.to_string())
    }

    /// From now on memory keeps nothing.
    pub(crate) fn begin_leaving(&self) {
        self.tail.lock().disk.iter_mut().for_each(|disk| disk.spills_all = true);
        self.spill_soon();
    }

    fn is_in_memory(&self) -> bool {
        let tail = self.tail.lock();
        !tail.packets.is_empty() || tail.disk.as_ref().is_some_and(|disk| disk.is_written)
    }

    /// What is on disk, when nothing that is wanted is in memory.
    ///
    /// Errors: it cannot be synced, or there is nothing.
    pub(crate) fn backlog(&self, upto: Option<Sequence>) -> io::Result<Backlog> {
        let nothing = || io::Error::new(io::ErrorKind::NotFound, "nothing of it is on a disk");
        let overflow = self.overflow.as_ref().ok_or_else(nothing)?;
        let segments: Vec<Segment> = {
            let tail = self.tail.lock();
            let is_whole = tail.packets.is_empty() || upto.is_some();
            let disk = tail.disk.as_ref().filter(|_| is_whole).ok_or_else(nothing)?;
            let is_wanted = |segment: &&Segment| upto.is_none_or(|upto| segment.before.sequence < upto);
            disk.readable().filter(is_wanted).cloned().collect()
        };
        let reaches = |last: &Segment| upto.is_none_or(|upto| last.last.sequence >= upto);
        if !segments.last().is_some_and(reaches) {
            return Err(nothing());
        }
        segments.iter().try_for_each(|segment| segment.file.sync())?;
        let left = segments.iter().map(|segment| LeftSegment {
            name: segment.file.name().to_owned(),
            id: segment.id,
            before: segment.before,
            last: segment.last,
            end: segment.end,
        });
        let segments: Vec<LeftSegment> = left.collect();
        let segment_len = overflow.keep(segments.iter().map(|segment| segment.name.clone()).collect())?;
        Ok(Backlog { segment_len, began_unix_ms: unix_ms_of(overflow.began), segments })
    }

    /// It leaves nothing when it ends.
    pub fn leave_nothing(&self) {
        self.overflow.iter().for_each(|overflow| drop(overflow.keep(Default::default())));
    }

    /// As [`Queue::with_disk`], with what an earlier one has left there, whose last packet has the number of `start`.
    /// It is kept for a reader that goes by [`Queue::detach`], when all others are there
    /// ([`Queue::attach_behind`]). What is not as it was left is left out, with all before it. The files stay when it ends,
    /// until [`Queue::leave_nothing`] says that nobody takes them up once more.
    ///
    /// Errors: as there.
    pub fn with_backlog(
        limit: usize,
        start: Position,
        place: DiskPlace,
        backlog: &Backlog,
    ) -> io::Result<(Arc<Queue>, CursorId)> {
        assert_eq!(start.sequence, backlog.last().sequence, "numbers go on");
        let began = instant_of(backlog.began_unix_ms);
        let (overflow, left) = Overflow::open_with(limit, place, backlog, began)?;
        let queue = Queue::of(limit, start, Some(overflow));
        let mut tail = queue.tail.lock();
        for (segment, queued_at) in left {
            tail.take_up(segment, queued_at);
        }
        let oldest = tail.disk.as_ref().and_then(OnDisk::first).unwrap_or(start.sequence.next());
        tail.trimmed = Sequence(oldest.0 - 1);
        let trimmed = tail.trimmed;
        let keeper = tail.add_cursor(trimmed, Arc::new(|_| ()));
        drop(tail);
        Ok((queue, keeper))
    }

    /// A new reader that gets every packet behind this one; `None`: they are not all there.
    pub fn attach_behind(
        &self,
        applied: Sequence,
        wake: impl Fn(Haste) + Send + Sync + 'static,
    ) -> Option<CursorId> {
        let mut tail = self.tail.lock();
        let is_there = applied.next() >= tail.oldest() && applied <= tail.last.sequence;
        is_there.then(|| tail.add_cursor(applied, Arc::new(wake)))
    }
}

impl Tail {
    fn take_up(&mut self, segment: Segment, queued_at: Instant) {
        self.marks.note(Mark { sequence: segment.before.sequence.next(), queued_at, before: self.volume });
        let bytes = self.volume.bytes + (segment.end - RECORDS_AT);
        self.volume = Volume { bytes, ..self.volume };
        self.disk.iter_mut().for_each(|disk| disk.take_up(segment.clone()));
    }

    pub(super) fn add_cursor(&mut self, applied: Sequence, wake: Wake) -> CursorId {
        let id = self.next_id();
        let other = self.cursors.insert(id, Cursor { applied, durable: applied, wake });
        assert!(other.is_none(), "two readers of the queue have one number");
        id
    }
}

/// Milliseconds since 1970.
fn unix_ms_of(moment: Instant) -> u64 {
    let then = SystemTime::now().checked_sub(moment.elapsed()).unwrap_or(UNIX_EPOCH);
    then.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

/// Now where it is still to come, or no clock has it.
fn instant_of(unix_ms: u64) -> Instant {
    let then = UNIX_EPOCH + Duration::from_millis(unix_ms);
    let ago = SystemTime::now().duration_since(then).unwrap_or_default();
    Instant::now().checked_sub(ago).unwrap_or_else(Instant::now)
}
