//! Small files that hold nothing yet are filled on a thread beside what comes next: a copy of many of them is busy
//! with names, and would wait for their bytes.
//!
//! ```text
//!  OpenContent  Content, all of it  CloseContent ──> the thread ──> done: it counts as come
//!  held                             handed over        └──> not so: written here, as any other content
//! ```
//! Whatever else is performed, packets above all, waits for the thread first; only listings and content pass, and not
//! those of the same file. So nothing is seen of it but in time.

mod thread;

use std::collections::{HashSet, VecDeque};
use std::fs::File;
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::FileType;

use self::thread::Thread;
use super::Session;
use super::content::{Comes, OpenFile};
use super::planted::{self, Planted};
use crate::apply::fault::Fault;
use crate::apply::replica::{Replica, Writer};
use crate::clone::guard;
use crate::limits::{BESIDE_AFTER, BESIDE_BATCH, BESIDE_BYTES_MAX, BESIDE_FILES_MAX};
use crate::packet::{Attributes, LaneItem, ObjectId, Xattr};

/// See the module.
#[derive(Default)]
pub(super) struct Beside {
    /// The file whose content arrives, while all that came may be handed over.
    held: Option<Held>,
    /// To be handed over with others: each wakes the thread.
    batch: Vec<Job>,
    thread: Option<Thread>,
    /// In a batch, or with the thread.
    under_way: HashSet<ObjectId>,
    /// They have come back.
    back: VecDeque<Back>,
    /// Files whose content has come since the last packet.
    since_packet: u32,
}

struct Held {
    object: ObjectId,
    file: Arc<File>,
    bytes: Bytes,
}

/// A file, and all that it gets but its time.
struct Job {
    object: ObjectId,
    file: Arc<File>,
    bytes: Bytes,
    /// As they came.
    attributes: Attributes,
    /// What it gets of its mode.
    mode: u32,
}

struct Back {
    job: Job,
    is_done: bool,
}

/// How long to wait for the thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// Until not too many are under way.
    ForRoom,
    ForAll,
}

impl Beside {
    fn holds(&self, object: ObjectId) -> bool {
        self.held.as_ref().is_some_and(|held| held.object == object)
    }

    /// As long as what has come back, or what is held, cannot be written.
    pub(super) fn has_unwritten(&self) -> bool {
        !self.back.is_empty() || self.has_held()
    }

    pub(super) fn has_held(&self) -> bool {
        self.held.is_some()
    }

    /// What has come of a file is of no use.
    pub(super) fn drop_held(&mut self, object: ObjectId) {
        self.held.take_if(|held| held.object == object);
    }

    /// `false` where it is not all there is, from the start on.
    fn takes(&mut self, object: ObjectId, hole: u64, offset: u64, bytes: &Bytes) -> bool {
        let Some(held) = self.held.as_mut().filter(|held| held.object == object) else { return false };
        let fits = held.bytes.is_empty() && (hole, offset) == (0, 0) && bytes.len() <= BESIDE_BYTES_MAX;
        if fits {
            held.bytes = bytes.clone();
        }
        fits
    }

    fn is_about(&self, object: ObjectId) -> bool {
        self.under_way.contains(&object) || self.holds(object)
    }

    fn hand_over(&mut self, job: Job, writer: &Writer) {
        self.under_way.insert(job.object);
        self.batch.push(job);
        if self.batch.len() >= BESIDE_BATCH {
            self.send(writer);
        }
    }

    fn send(&mut self, writer: &Writer) {
        if self.batch.is_empty() {
            return;
        }
        let batch = std::mem::take(&mut self.batch);
        let unsent = match &self.thread {
            Some(thread) => thread.send(batch),
            None => match Thread::begin(writer.clone()) {
                Ok(thread) => self.thread.insert(thread).send(batch),
                Err(error) => {
                    log::debug!("files are not written beside: {error}");
                    batch
                }
            },
        };
        self.back.extend(unsent.into_iter().map(|job| Back { job, is_done: false }));
    }

    fn gather(&mut self, wait: Wait, writer: &Writer) {
        let most = match wait {
            Wait::ForRoom => BESIDE_FILES_MAX,
            Wait::ForAll => 0,
        };
        if self.under_way.len() > most {
            self.send(writer);
        }
        let Some(thread) = &self.thread else { return };
        while let Some(back) = thread.receive(self.under_way.len() - self.back.len() > most) {
            self.back.extend(back);
        }
    }
}

impl Session {
    /// What was handed over counts as come as far as it is done. `item`: what is performed next, and what must not pass.
    ///
    /// Errors: as those of content; it may be called again.
    pub(super) fn take_in_for(&mut self, replica: &mut Replica, item: &LaneItem) -> Result<(), Fault> {
        let passes = match item {
            LaneItem::Listing { entries, .. } => {
                !entries.iter().any(|entry| self.beside.is_about(entry.object))
            }
            LaneItem::OpenContent { object } => !self.beside.is_about(*object),
            LaneItem::Content { object, .. } | LaneItem::CloseContent { object, .. } => {
                !self.beside.under_way.contains(object)
            }
            _ => false,
        };
        if passes { self.gather(replica, Wait::ForRoom) } else { self.take_in(replica) }
    }

    /// [`Session::take_in`]; among packets each file would be waited for, and files are filled in their place.
    pub(super) fn take_in_before_packet(&mut self, replica: &mut Replica) -> Result<(), Fault> {
        self.beside.since_packet = 0;
        if planted::is(Planted::PassesWhatIsWritten) {
            return Ok(());
        }
        self.take_in(replica)
    }

    /// All that has come so far is written.
    ///
    /// Errors: as those of content; it may be called again.
    pub(super) fn take_in(&mut self, replica: &mut Replica) -> Result<(), Fault> {
        self.gather(replica, Wait::ForAll)?;
        if let Some(held) = &self.beside.held {
            let object = held.object;
            let done = self.write_held(replica);
            self.or_leave_content(replica, object, done)?;
        }
        Ok(())
    }

    fn gather(&mut self, replica: &mut Replica, wait: Wait) -> Result<(), Fault> {
        self.beside.gather(wait, replica.writer());
        while let Some(Back { job, is_done }) = self.beside.back.pop_front() {
            let (object, before) = (job.object, self.begin_to_leave_out());
            let done = match is_done {
                true => self.has_come(replica, object, job.attributes.mtime),
                false => self.write_here(replica, &job),
            };
            if let Err(fault) = self.or_leave_content(replica, object, done) {
                self.comes_again(before);
                self.beside.back.push_front(Back { job, is_done });
                return Err(fault);
            }
            self.beside.under_way.remove(&object);
        }
        Ok(())
    }

    /// The content of a file comes next. `true` where it is held until all of it is there.
    pub(super) fn hold(&mut self, replica: &mut Replica, object: ObjectId) -> bool {
        self.beside.held = None;
        let before = self.beside.since_packet;
        self.beside.since_packet = before.saturating_add(1);
        if before < BESIDE_AFTER {
            return false;
        }
        #[cfg(test)]
        if tests::are_filled(tests::Where::InPlace) {
            return false;
        }
        // What is preserved is noted by the thread that changes it.
        if guard::is_watched() || replica.pending_flags(object).is_some() {
            return false;
        }
        let file = replica.held_to_write(object);
        self.beside.held = file.map(|file| Held { object, file, bytes: Bytes::new() });
        self.beside.has_held()
    }

    /// `true` where the bytes are held.
    pub(super) fn hold_bytes(
        &mut self,
        replica: &mut Replica,
        object: ObjectId,
        (hole, offset): (u64, u64),
        bytes: &Bytes,
    ) -> Result<bool, Fault> {
        if !self.beside.holds(object) {
            return Ok(false);
        }
        let is_held = self.beside.takes(object, hole, offset, bytes);
        if !is_held {
            self.write_held(replica)?;
        }
        Ok(is_held)
    }

    /// `true` where the file was handed over.
    pub(super) fn hand_over(
        &mut self,
        replica: &mut Replica,
        object: ObjectId,
        (hole, size): (u64, u64),
        attributes: &Attributes,
        xattrs: &[Xattr],
    ) -> Result<bool, Fault> {
        let Some(held) = self.beside.held.take_if(|held| held.object == object) else { return Ok(false) };
        let is_all = hole == 0 && size > 0 && held.bytes.len() as u64 == size;
        if !is_all || !replica.policy().xattrs(xattrs).is_empty() {
            self.beside.held = Some(held);
            return self.write_held(replica).map(|()| false);
        }
        let mode = replica.policy().mode_of(FileType::RegularFile, attributes.mode);
        let Held { object, file, bytes } = held;
        self.beside.hand_over(Job { object, file, bytes, attributes: *attributes, mode }, replica.writer());
        Ok(true)
    }

    /// What was held comes as any other content.
    fn write_held(&mut self, replica: &mut Replica) -> Result<(), Fault> {
        let Some(held) = &self.beside.held else { return Ok(()) };
        let mut open = OpenFile::open(replica, held.object, Comes::All { reached: 0 })?;
        if !held.bytes.is_empty() {
            replica.lifting(held.object, |_| open.write(0, 0, &held.bytes))?;
        }
        self.open = Some(open);
        self.beside.held = None;
        Ok(())
    }

    /// What the thread could not do.
    fn write_here(&mut self, replica: &mut Replica, job: &Job) -> Result<(), Fault> {
        if !self.asked.contains(job.object)? {
            return Ok(());
        }
        let mut open = OpenFile::open(replica, job.object, Comes::All { reached: 0 })?;
        replica.lifting(job.object, |_| open.write(0, 0, &job.bytes))?;
        self.complete(replica, job.object, job.bytes.len() as u64, &job.attributes, &[])
    }
}

#[cfg(test)]
pub(in crate::apply) mod tests {
    use std::cell::Cell;

    /// Where the files of a test are filled.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Where {
        /// When they are waited for.
        InTime,
        /// On a thread, as in the product.
        OnAThread,
        /// None is held.
        InPlace,
    }

    thread_local! {
        static WHERE: Cell<Where> = const { Cell::new(Where::InTime) };
    }

    pub fn fill(at: Where) {
        WHERE.set(at);
    }

    pub(super) fn are_filled(at: Where) -> bool {
        WHERE.get() == at
    }
}
