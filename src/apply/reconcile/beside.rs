//! Small files that hold nothing yet are filled on a thread beside what comes next: a copy of many of them is busy
//! with names, and would wait for their bytes.
//!
//! ```text
//!  OpenContent  Content, all of it  CloseContent ──> the thread ──> done: it counts as come
//!  held                             handed over        └──> not so: written here, as any other content
//! ```
//! Whatever else is performed, packets above all, waits for the thread first; only listings and content pass, and not
//! those of the same file. So nothing is seen of it but in time.

use std::collections::{HashSet, VecDeque};
use std::fs::File;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread::JoinHandle;

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, unbounded};
use rustix::fs::{AtFlags, FileType, StatxFlags, statx};

use super::Session;
use super::content::{Comes, OpenFile};
use super::planted::{self, Planted};
use crate::apply::fault::Fault;
use crate::apply::inode;
use crate::apply::replica::{Replica, Writer};
use crate::clone::guard;
use crate::failpoint;
use crate::limits::{BESIDE_AFTER, BESIDE_BATCH, BESIDE_BYTES_MAX, BESIDE_FILES_MAX};
use crate::packet::{Attributes, LaneItem, ObjectId, Owner, Xattr};
use crate::xattr::{self, Flags};

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
            let (object, left_out) = (job.object, self.left_out.clone());
            let done = match is_done {
                true => self.has_come(replica, object, job.attributes.mtime),
                false => self.write_here(replica, &job),
            };
            if let Err(fault) = self.or_leave_content(replica, object, done) {
                // It is tried again, and counts once.
                self.left_out = left_out;
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

/// `false`: it is not as a copy makes it, or not all went well; what was done is done again.
fn fill(job: &Job, writer: &Writer) -> Result<bool, Fault> {
    let file = job.file.as_fd();
    let status = statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS);
    let status = status.map_err(Fault::system("stat"))?;
    let mode = u32::from(status.stx_mode);
    let is_private = (status.stx_uid, status.stx_gid, mode & 0o7077) == (0, 0, 0);
    let is_empty = FileType::from_raw_mode(mode) == FileType::RegularFile && status.stx_size == 0;
    // Of the directory it is in it may have an ACL.
    let is_plain = Flags::in_status(&status) == Flags::NONE
        && xattr::list(file).map_err(Fault::system("list xattrs"))?.is_empty();
    if !(is_private && is_empty && is_plain) {
        return Ok(false);
    }
    failpoint::at("content").map_err(Fault::system("write"))?;
    writer.write_all_at(&job.file, &job.bytes, 0).map_err(Fault::system("write"))?;
    let Attributes { uid, gid, .. } = job.attributes;
    if (uid, gid) != (0, 0) {
        inode::set_owner(file, Owner { uid, gid })?;
    }
    failpoint::at("owner").map_err(Fault::own("chown"))?;
    if mode & 0o7777 != job.mode & 0o7777 {
        inode::set_mode_of(FileType::RegularFile, file, job.mode)?;
    }
    Ok(true)
}

fn fill_all(batch: Vec<Job>, writer: &Writer) -> Vec<Back> {
    let fill_one = |job| {
        let is_done = fill(&job, writer).unwrap_or(false);
        Back { job, is_done }
    };
    batch.into_iter().map(fill_one).collect()
}

/// What fills files, awaited when it is dropped: nobody has the replica open then.
enum Thread {
    Beside {
        /// None at its end.
        jobs: Option<Sender<Vec<Job>>>,
        back: Receiver<Vec<Back>>,
        thread: Option<JoinHandle<()>>,
    },
    /// In tests that say when what happens: when it is waited for.
    #[cfg(test)]
    InTime { jobs: std::cell::RefCell<Vec<Job>>, writer: Writer },
}

impl Thread {
    fn begin(writer: Writer) -> std::io::Result<Thread> {
        #[cfg(test)]
        if !tests::are_filled(tests::Where::OnAThread) {
            return Ok(Thread::InTime { jobs: std::cell::RefCell::default(), writer });
        }
        let (jobs, come) = unbounded::<Vec<Job>>();
        let (done, back) = unbounded();
        let fill = move || {
            for batch in come {
                if done.send(fill_all(batch, &writer)).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("fill".into()).spawn(fill)?;
        Ok(Thread::Beside { jobs: Some(jobs), back, thread: Some(thread) })
    }

    /// Gives back what could not be sent.
    fn send(&self, batch: Vec<Job>) -> Vec<Job> {
        match self {
            Thread::Beside { jobs, .. } => {
                let jobs = jobs.as_ref().expect("it has not ended");
                jobs.send(batch).map_or_else(|unsent| unsent.into_inner(), |()| Vec::new())
            }
            #[cfg(test)]
            Thread::InTime { jobs, .. } => {
                jobs.borrow_mut().extend(batch);
                Vec::new()
            }
        }
    }

    fn receive(&self, waits: bool) -> Option<Vec<Back>> {
        match self {
            Thread::Beside { back, .. } if waits => {
                Some(back.recv().expect("the thread that fills files lives as long as it is waited for"))
            }
            Thread::Beside { back, .. } => back.try_recv().ok(),
            #[cfg(test)]
            Thread::InTime { jobs, writer } => {
                waits.then(|| fill_all(std::mem::take(&mut jobs.borrow_mut()), writer))
            }
        }
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        match self {
            Thread::Beside { jobs, thread, .. } => {
                *jobs = None;
                if let Some(thread) = thread.take() {
                    let _ = thread.join();
                }
            }
            #[cfg(test)]
            Thread::InTime { .. } => {}
        }
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
