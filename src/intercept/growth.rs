//! Sizes that programs may be told.
//!
//! The kernel hands a `stat` the size that the daemon answers, also where it does not take that
//! size over itself because a write is under way. It learns of a growth only when the writer wakes
//! up from its call. A program that was told the new size before would map a file that is shorter
//! to the kernel (`SIGBUS`, or zeros), and would be told the old size afterwards.
//!
//! ```text
//!  change that grows ──> pending ──proof that its writer woke up──> known
//!                           └── whoever asks meanwhile waits, as data: no thread does
//! ```
//! Proofs: a request that the kernel sends under the file's own lock, which the writer held until
//! it had woken up; a request of the writer itself; the release of its handle; the sight of the
//! writer sleeping elsewhere; above all the size that the kernel has, where it can be read off the mount
//! without a question ([`Volume::kernel_size`]). Where none comes in time after the answer, the new size is
//! told all the same. While a call goes on for long, what the kernel has is told: all that has returned is in
//! it, and nothing that has not.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, StatxFlags, openat2, statx};

use super::error::{FsResult, Step};
use super::objects::{Node, NodeId};
use super::volume::{Meta, Mounted, Volume};
use crate::limits::FUSE_WRITE_LEN_MAX;

/// How long a question waits at most. Long before a writer that was answered has run, save on a
/// machine with hundreds of busy programs for each processor.
const PATIENCE: Duration = Duration::from_secs(1);
/// Between its answer and the moment when the kernel knows the size a writer runs for less, also where an interrupt or
/// another guest of the host takes its processor: that counts as if it ran.
const WAKING: Duration = Duration::from_millis(2);
/// How long a question waits at most for a call that goes on (a large write in pieces, a slow disk), and
/// after the answer for a further piece.
const PATIENCE_WITH_CALL: Duration = Duration::from_millis(500);
/// Between two looks at a writer.
const LOOK_EVERY: Duration = Duration::from_micros(500);

/// What is done with the attributes, once they may be told. It runs on any thread and must not wait.
pub type Asked = Box<dyn FnOnce(FsResult<Meta>) + Send>;

/// A change that makes a file longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Growing {
    /// Thread that made the call, as the kernel says; 0 where it cannot say.
    pub writer: u32,
    pub handle: Option<u64>,
    /// First byte that is changed.
    pub offset: u64,
    /// Size of the file afterwards, at least.
    pub end: u64,
}

impl Growing {
    /// A change of the size alone.
    pub fn to(writer: u32, handle: Option<u64>, size: u64) -> Growing {
        Growing { writer, handle, offset: size, end: size }
    }

    /// Whether the call may go on with a further request: a large write comes in pieces, each
    /// as long as one request can be, less what its first page lacks.
    fn may_go_on(&self) -> bool {
        self.end - self.offset > u64::from(FUSE_WRITE_LEN_MAX) / 2
    }

    fn goes_on_with(&self, next: &Growing) -> bool {
        self.may_go_on() && (self.writer, self.handle, self.end) == (next.writer, next.handle, next.offset)
    }
}

/// A change whose writer may not have woken up yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pending {
    change: Growing,
    /// Size of the file before it.
    before: u64,
    /// When the call, or the first piece of it, came.
    began: Instant,
    /// `None` while the change is under way: its writer sleeps for that.
    answered: Option<Instant>,
    /// How long its writer had run in all when it was first looked at after the answer.
    had_run: Option<Duration>,
}

impl Pending {
    /// Its writer has had its time, also for a further piece.
    fn is_old(&self) -> bool {
        let patience = if self.change.may_go_on() { PATIENCE_WITH_CALL } else { PATIENCE };
        self.answered.is_some_and(|answered| answered.elapsed() >= patience)
    }

    /// The kernel has that size, and what comes behind it.
    fn is_in(&self, kernel_size: Option<u64>) -> bool {
        self.answered.is_some() && kernel_size.is_some_and(|size| size >= self.change.end)
    }

    /// Nobody will tell the kernel of it any more: its writer was killed in its call, or what the kernel has cannot be
    /// read. A writer that is late with a further piece, as where a disk withholds a page of its memory, is in its call.
    fn is_over(&self, kernel_size: Option<u64>) -> bool {
        self.is_old() && (kernel_size.is_none() || !Thread::is_there(self.change.writer))
    }

    /// The call goes on for too long: what the kernel has is better than no answer.
    fn lasts(&self) -> bool {
        self.is_old() || self.answered.is_none() && self.began.elapsed() >= PATIENCE_WITH_CALL
    }

    /// Looks whether its writer has run since the answer, or sleeps for something else.
    fn look(&mut self) -> bool {
        if self.answered.is_none() || self.change.may_go_on() {
            return false;
        }
        let Some(writer) = Thread::look(self.change.writer) else { return false };
        let had_run = *self.had_run.get_or_insert(writer.has_run);
        writer.is_asleep || writer.has_run >= had_run + WAKING
    }
}

/// What the kernel may not know yet of the size of one file, and who waits for it to know.
#[derive(Default)]
pub struct Growth {
    pending: Option<Pending>,
    asked: Vec<Asked>,
}

impl Growth {
    /// Takes notice of a change that begins, of a file that has `size` bytes; gives those who
    /// waited and may be told that size.
    fn begin(&mut self, change: Growing, size: u64) -> Vec<Asked> {
        let before = self.pending.filter(|pending| pending.change.goes_on_with(&change));
        let waited = if before.is_some() { Vec::new() } else { self.settle() };
        if before.is_some() || change.end > size {
            let began = before.map_or_else(Instant::now, |before| before.began);
            self.pending = Some(Pending { change, before: size, began, answered: None, had_run: None });
        }
        waited
    }

    /// The kernel knows the size; gives those who waited for that.
    fn settle(&mut self) -> Vec<Asked> {
        self.pending = None;
        std::mem::take(&mut self.asked)
    }
}

/// Answers for those who waited; given when it is dropped, which is best done without locks.
#[derive(Default)]
pub struct Answers(Vec<(Asked, FsResult<Meta>)>);

impl Drop for Answers {
    fn drop(&mut self) {
        self.0.drain(..).for_each(|(asked, outcome)| asked(outcome));
    }
}

impl Volume {
    /// Tells the attributes of an object to `asker`, a thread, as soon as the kernel knows the
    /// size that they say. Answers whether that has to be waited for: somebody has to call
    /// `Volume::look_at_writer` then.
    pub fn ask_attributes(&self, id: NodeId, asker: u32, asked: Asked) -> bool {
        let found = self.node(id).and_then(|node| Ok((self.descriptors.of(&node)?, node)));
        let (fd, node) = match found {
            Ok(found) => found,
            Err(error) => {
                asked(Err(error));
                return false;
            }
        };
        if let Ok(stat) = rustix::fs::fstat(&*fd) {
            self.seen(&node, &stat, || rustix::fs::fstat(&*fd).ok());
        }
        let size = self.kernel_size_of_growing(&node);
        let mut growth = node.growth.lock();
        let is_known = |pending: Pending| {
            (asker != 0 && pending.change.writer == asker) || pending.is_over(size) || pending.is_in(size)
        };
        growth.asked.push(asked);
        let (waited, known) = match growth.pending {
            Some(pending) if is_known(pending) => (growth.settle(), None),
            Some(pending) if !pending.lasts() => return true,
            pending => {
                let known = pending.map(|pending| size.unwrap_or(pending.before));
                (std::mem::take(&mut growth.asked), known)
            }
        };
        let answers = self.answers(&node, fd.as_fd(), waited, known);
        drop(growth);
        drop(answers);
        false
    }

    /// To be called under the object lock before every change that the kernel asks for under the
    /// file's own lock and that may make it longer than `size`.
    pub(super) fn before_growth(&self, node: &Node, fd: impl AsFd, change: Growing, size: u64) -> Answers {
        // Where the kernel gathers writes it takes no size of the daemon's.
        if self.profile.gathers() {
            return Answers::default();
        }
        let mut growth = node.growth.lock();
        assert!(change.offset <= change.end, "a change ends before it begins");
        let waited = growth.begin(change, size);
        self.answers(node, fd, waited, None)
    }

    /// A request came that proves, where `is_proof` says so, that the kernel knows the size.
    pub(super) fn settle_growth(&self, node: &Arc<Node>, is_proof: impl Fn(&Growing) -> bool) {
        if node.growth.lock().pending.is_none() {
            return;
        }
        let Ok(fd) = self.descriptors.of(node) else { return };
        let mut growth = node.growth.lock();
        if growth.pending.is_some_and(|pending| is_proof(&pending.change)) {
            let waited = growth.settle();
            let answers = self.answers(node, fd.as_fd(), waited, None);
            drop(growth);
            drop(answers);
        }
    }

    /// The writer of a change was told that it is done. Call it after the reply.
    pub fn growth_answered(&self, id: NodeId, change: Growing) {
        let Ok(node) = self.node(id) else { return };
        let mut growth = node.growth.lock();
        if let Some(pending) = growth.pending.as_mut().filter(|pending| pending.change == change) {
            pending.answered = Some(Instant::now());
        }
    }

    /// Looks whether the writer that others wait for has woken up. Answers whether somebody still
    /// waits.
    fn look_at_writer(&self, id: NodeId) -> bool {
        let Ok(node) = self.node(id) else { return false };
        let size = self.kernel_size_of_growing(&node);
        let pending = node.growth.lock().pending;
        if let Some(mut pending) = pending {
            // Where the kernel's own word is there, nothing is guessed.
            let is_known = pending.is_over(size) || pending.is_in(size) || size.is_none() && pending.look();
            if let Some(now) = node.growth.lock().pending.as_mut().filter(|now| now.change == pending.change)
            {
                now.had_run = pending.had_run;
            }
            if is_known {
                self.settle_growth(&node, |change| *change == pending.change);
            }
        }
        let mut growth = node.growth.lock();
        if let Some(pending) = growth.pending.filter(Pending::lasts)
            && let Ok(fd) = self.descriptors.of(&node)
        {
            let waited = std::mem::take(&mut growth.asked);
            let answers = self.answers(&node, fd.as_fd(), waited, Some(size.unwrap_or(pending.before)));
            drop(growth);
            drop(answers);
            return false;
        }
        !growth.asked.is_empty()
    }

    /// [`Volume::kernel_size`], where it may not be what the disk has.
    fn kernel_size_of_growing(&self, node: &Node) -> Option<u64> {
        let is_growing = node.growth.lock().pending.is_some();
        if is_growing { self.kernel_size(node) } else { None }
    }

    /// The size that the kernel has of an object at this moment. It is asked by a name, of which all has to be known to
    /// it already, and for what it has already: no request comes of that. `None`: it cannot be told so.
    fn kernel_size(&self, node: &Node) -> Option<u64> {
        let Mounted { point, minor } = self.mounted.get()?;
        let path = self.path(node);
        if path.is_empty() {
            return None;
        }
        let path = point.join(OsStr::from_bytes(&path));
        let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = openat2(CWD, &path, flags, Mode::empty(), ResolveFlags::CACHED).ok()?;
        let (empty, as_known) = (AtFlags::EMPTY_PATH, AtFlags::STATX_DONT_SYNC);
        let seen = statx(&file, c"", empty | as_known, StatxFlags::SIZE | StatxFlags::INO).ok()?;
        // Another object may have that name by now.
        let is_it = (seen.stx_dev_major, seen.stx_dev_minor, seen.stx_ino) == (0, *minor, node.id.0);
        is_it.then_some(seen.stx_size)
    }

    /// The size is looked at under the lock of the growth: no further change is in it. `known`: it is this one, while a
    /// call goes on.
    fn answers(&self, node: &Node, fd: impl AsFd, waited: Vec<Asked>, known: Option<u64>) -> Answers {
        let tell = |asked| {
            let stat = rustix::fs::fstat(fd.as_fd()).step("stat");
            let told = stat.map(|mut stat| {
                stat.st_size = known.map_or(stat.st_size, |size| size as i64);
                self.meta(node, stat)
            });
            (asked, told)
        };
        Answers(waited.into_iter().map(tell).collect())
    }
}

/// A thread that looks at writers for those who wait. It ends with the last sender.
pub fn start_looking(volume: Arc<Volume>) -> Sender<NodeId> {
    let (sender, receiver) = unbounded();
    let started = std::thread::Builder::new().name("sizes".into()).spawn(move || look(&volume, &receiver));
    if let Err(error) = started {
        log::error!("nobody looks at writers: {error}");
    }
    sender
}

fn look(volume: &Volume, asked: &Receiver<NodeId>) {
    let mut waiting = BTreeSet::new();
    let mut looked = Instant::now();
    loop {
        let next = match waiting.is_empty() {
            true => asked.recv().map_err(|_| RecvTimeoutError::Disconnected),
            false => asked.recv_timeout(LOOK_EVERY),
        };
        match next {
            Ok(id) => drop(waiting.insert(id)),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        if waiting.len() == 1 || looked.elapsed() >= LOOK_EVERY {
            waiting.retain(|id| volume.look_at_writer(*id));
            looked = Instant::now();
        }
    }
}

/// What the kernel says of a thread.
struct Thread {
    /// It waits for something. One whose call was just answered does not, until it has run.
    is_asleep: bool,
    /// On a processor, since it began.
    has_run: Duration,
}

impl Thread {
    /// Number 0 is a thread that this process cannot see.
    fn is_there(number: u32) -> bool {
        number != 0 && std::fs::exists(format!("/proc/{number}/stat")).unwrap_or(false)
    }

    /// `None` where the kernel does not say.
    fn look(number: u32) -> Option<Thread> {
        let read = |file| std::fs::read(format!("/proc/{number}/{file}")).ok().filter(|_| number != 0);
        let (stat, times) = (read("stat")?, read("schedstat")?);
        let state = stat.rsplit(|byte| *byte == b')').next()?.get(1)?;
        let first = times.split(|byte| *byte == b' ').next()?;
        let has_run = Duration::from_nanos(std::str::from_utf8(first).ok()?.parse().ok()?);
        Some(Thread { is_asleep: *state == b'S', has_run })
    }
}
