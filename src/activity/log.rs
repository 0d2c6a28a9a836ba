//! The log while a directory is protected.
//!
//! ```text
//!  changes ── heat ──> waiting ──┐
//!                                ├── the log's thread: one write and one sync for all ──> done
//!  readers ── ask ──> ceiling ───┘
//!  the keeper ── prepare, rotate, settle ──> generations
//! ```
//! Its lock is a leaf, and nothing is waited for under it but the log itself.

use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::ceiling::Ceiling;
use super::files::{Files, Generation, Known};
use super::record::{Entry, HotObject};
use crate::limits::{ACTIVITY_LOOK_EVERY, ACTIVITY_PATIENCE};
use crate::packet::{Incarnation, ObjectId, Sequence, Timestamp};
use crate::ranks;

const LATE: &str = "its disk did not answer in time";

const FAILED: &str = "its disk failed";

/// How often it is looked whether its disk answers, and one that did not take its failure is told again.
const WATCHED_EVERY: Duration = Duration::from_millis(ACTIVITY_PATIENCE.as_millis() as u64 / 4);

/// No generation: nothing is noted any more.
const NONE: u64 = u64::MAX;

/// What a log stands between.
pub struct Outside {
    /// The last packet that was given out.
    pub last: Box<dyn Fn() -> Sequence + Send + Sync>,
    /// Packets may go out up to here.
    pub leave: Box<dyn Fn(Sequence) + Send + Sync>,
    /// Says on the source's own disk, durably, with which generation of this log it goes: when that disk is put back to
    /// an earlier state it says another one.
    pub mark: Box<dyn Fn(u64) -> io::Result<()> + Send + Sync>,
    /// Says on the source's own disk, durably, that this log is worth nothing: its own disk may not take that any
    /// more. A change that it has passed needs that disk, too.
    pub revoke: Box<dyn Fn() -> io::Result<()> + Send + Sync>,
}

/// How it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Everything is in it since it was begun; whether that is enough says [`Fill::is_whole`].
    Kept,
    /// More was hot than a generation has room for: the next one is whole again.
    Full,
    /// Its disk failed, or did not answer.
    Failed(String),
}

/// Its state, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fill {
    pub standing: Standing,
    pub is_whole: bool,
    /// Why not.
    pub why: String,
    pub generation: u64,
    pub hot: u64,
    pub records: u64,
    /// Writes, each with a sync; and how long changes have waited for them, in all.
    pub commits: u64,
    pub waits: u64,
    pub waited: Duration,
}

/// See the module. Dropped after [`ActivityLog::end`].
pub struct ActivityLog {
    /// The one in which changes have to be hot; [`NONE`]: in none.
    generation: AtomicU64,
    /// When it began, ns since 1970.
    begins: AtomicI64,
    shared: Mutex<Shared>,
    /// For the log's thread.
    work: Condvar,
    /// For who watches it.
    over: Condvar,
    /// What waits may go on.
    done: Condvar,
    /// Taken before the other one.
    files: Mutex<Files>,
    /// The source's disk knows that it is worth nothing: it is marked there no more.
    is_taken_back: Mutex<bool>,
    /// When it was looked last whether the clock was set, and what was noted by it before is forgotten.
    clock_looked_at: Mutex<Option<Instant>>,
    outside: Outside,
}

struct Shared {
    /// `None` while it is written to.
    current: Option<Generation>,
    /// Since when.
    writes_since: Option<Instant>,
    /// In the generation, on disk.
    hot: HashSet<ObjectId>,
    waiting: Vec<HotObject>,
    /// Of those that ever waited, and of those that are on disk.
    asked: u64,
    written: u64,
    ceiling: Ceiling,
    /// To be written into a generation that has none yet.
    needs_ceiling: bool,
    /// Readers wait.
    is_asked: bool,
    looked: Instant,
    standing: Standing,
    /// The source's disk was told of a failure.
    is_revoked: bool,
    /// Some disk has taken that.
    is_known: bool,
    is_over: bool,
    counts: Counts,
    /// As the files say, for people.
    is_whole: bool,
    why: String,
}

#[derive(Clone, Copy, Default)]
struct Counts {
    records: u64,
    commits: u64,
    waits: u64,
    waited: Duration,
}

/// A generation that is to be the next one.
pub struct Prepared(Generation);

impl ActivityLog {
    /// A log in this directory of a run that has given out nothing behind `first`. Packets go out up to there from
    /// now on. `carried`: what is owed to targets still, whatever is noted from now on.
    ///
    /// Errors: the disk's.
    pub fn begin(
        dir: &Path,
        (run, log): (Incarnation, u64),
        carried: Option<&Known>,
        first: Sequence,
        outside: Outside,
    ) -> io::Result<Arc<ActivityLog>> {
        let (files, mut current) = Files::begin(dir, run, log, carried)?;
        current.write(&[Entry::Ceiling(first)])?;
        (outside.leave)(first);
        let head = current.head;
        let log = Arc::new(ActivityLog {
            generation: AtomicU64::new(head.generation),
            begins: AtomicI64::new(nanoseconds(head.begins)),
            shared: Mutex::new(Shared {
                current: Some(current),
                writes_since: None,
                hot: HashSet::new(),
                waiting: Vec::new(),
                asked: 0,
                written: 0,
                ceiling: Ceiling::at(first),
                needs_ceiling: false,
                is_asked: false,
                looked: Instant::now(),
                standing: Standing::Kept,
                is_revoked: false,
                is_known: false,
                is_over: false,
                counts: Counts::default(),
                is_whole: false,
                why: files.why().to_owned(),
            }),
            work: Condvar::new(),
            over: Condvar::new(),
            done: Condvar::new(),
            files: Mutex::new(files),
            is_taken_back: Mutex::new(false),
            clock_looked_at: Mutex::new(None),
            outside,
        });
        let (writer, watch) = (log.clone(), log.clone());
        std::thread::Builder::new().name("activity".into()).spawn(move || writer.write_on())?;
        std::thread::Builder::new().name("activity-watch".into()).spawn(move || watch.watch_on())?;
        Ok(log)
    }

    /// Whether an object may be changed that was noted in this generation last.
    #[inline]
    pub fn is_hot(&self, noted: &AtomicU64) -> bool {
        let generation = self.generation.load(Acquire);
        noted.load(Relaxed) == generation || generation == NONE
    }

    /// Returns when the object is hot on disk in the present generation, or none is kept any more. No lock may be
    /// held.
    pub fn heat(&self, noted: &AtomicU64, object: HotObject) {
        if self.is_hot(noted) {
            return;
        }
        ranks::assert_none_held("a wait for the activity log");
        let since = Instant::now();
        let mut shared = self.shared.lock();
        let mut waited_for = None;
        while !self.is_hot(noted) {
            // Stored under the lock.
            let generation = self.generation.load(Acquire);
            match (shared.hot.contains(&object.id), waited_for) {
                (true, _) => noted.store(generation, Relaxed),
                (false, Some((asked, of))) if of == generation && shared.written < asked => {
                    self.wait_in(&mut shared, since + ACTIVITY_PATIENCE);
                }
                (false, _) => {
                    shared.waiting.push(object);
                    shared.asked += 1;
                    waited_for = Some((shared.asked, generation));
                    self.work.notify_one();
                }
            }
        }
        if waited_for.is_some() {
            shared.counts.waits += 1;
            shared.counts.waited += since.elapsed();
        }
    }

    fn wait_in(&self, shared: &mut MutexGuard<'_, Shared>, deadline: Instant) {
        if matches!(shared.standing, Standing::Failed(_)) {
            // Somebody takes it back.
            self.done.wait(shared);
        } else if self.done.wait_until(shared, deadline).timed_out() {
            MutexGuard::unlocked(shared, || self.fail(LATE));
        }
    }

    /// An object is born, with this change time, and nobody has changed its content yet.
    pub fn born(&self, noted: &AtomicU64, changed: Timestamp) {
        let generation = self.generation.load(Acquire);
        // A clock that was set back since makes it no newborn: its first change is noted.
        if nanoseconds(changed) >= self.begins.load(Acquire) {
            noted.store(generation, Relaxed);
        }
    }

    /// Packets wait for the ceiling.
    pub fn ask(&self) {
        self.shared.lock().is_asked = true;
        self.work.notify_one();
    }

    /// The next generation, on disk. What began before it counts is noted in the one before.
    ///
    /// Errors: the disk's; all is as it was.
    pub fn prepare(&self) -> io::Result<Prepared> {
        let mut files = self.files.lock();
        let next = files.make_next()?;
        files.add(&next)?;
        Ok(Prepared(next))
    }

    /// From now on changes are noted in the next generation. `false`: none is kept any more.
    pub fn rotate(&self, Prepared(next): Prepared) -> bool {
        let mut shared = self.shared.lock();
        while shared.current.is_none() && !shared.is_out() {
            self.done.wait(&mut shared);
        }
        if shared.is_out() {
            return false;
        }
        let head = next.head;
        shared.current = Some(next);
        shared.hot.clear();
        shared.standing = Standing::Kept;
        shared.needs_ceiling = true;
        self.begins.store(nanoseconds(head.begins), Release);
        self.generation.store(head.generation, Release);
        self.done.notify_all();
        self.work.notify_one();
        true
    }

    /// A sync of the source's file system has ended that began after all changes that were noted in older
    /// generations; that disk says so when this returns.
    ///
    /// Errors: that disk's; no generation may go.
    pub fn mark(&self) -> io::Result<()> {
        let is_taken_back = self.is_taken_back.lock();
        match self.generation.load(Acquire) {
            _ if *is_taken_back => Ok(()),
            NONE => Ok(()),
            generation => (self.outside.mark)(generation),
        }
    }

    /// It was looked at this moment whether the clock was set; what was noted by it before is forgotten, on disk.
    pub fn clock_is_looked_at(&self, at: Instant) {
        let mut last = self.clock_looked_at.lock();
        *last = (*last).max(Some(at));
    }

    pub fn clock_was_looked_at_since(&self, at: Instant) -> bool {
        *self.clock_looked_at.lock() >= Some(at)
    }

    /// Behind [`ActivityLog::mark`]: older generations go, and the log is whole if it has room. `is_proof`: unless
    /// something passed it by.
    pub fn settle(&self, is_proof: bool) {
        {
            let mut shared = self.shared.lock();
            while shared.needs_ceiling && shared.standing == Standing::Kept && !shared.is_over {
                self.done.wait(&mut shared);
            }
        }
        let mut files = self.files.lock();
        {
            // What becomes full, or fails, from here on says so later.
            let shared = self.shared.lock();
            if shared.is_out() || shared.standing != Standing::Kept {
                return;
            }
        }
        let kept = files.keep_the_last(is_proof);
        self.post(&files);
        if let Err(error) = kept {
            drop(files);
            self.fail(&format!("its disk failed: {error}"));
        }
    }

    /// Something was changed that is not noted.
    pub fn doubt(&self, why: &str) {
        let said = self.say_not_whole(why);
        if let Err(error) = said {
            self.fail(&format!("its disk failed: {error}"));
        }
    }

    fn say_not_whole(&self, why: &str) -> io::Result<()> {
        let mut files = self.files.lock();
        let said = files.say_not_whole(why);
        self.post(&files);
        said
    }

    fn post(&self, files: &Files) {
        let mut shared = self.shared.lock();
        (shared.is_whole, shared.why) = (files.is_whole(), files.why().to_owned());
    }

    /// What was hot before this run is owed to nobody any more.
    pub fn forget_carried(&self) {
        if let Err(error) = self.files.lock().drop_carried() {
            log::warn!("what the activity log does not need any more stays: {error}");
        }
    }

    /// Whether a further generation is worth its cost: something is hot, and how urgent it is.
    pub fn wants_next(&self) -> (bool, bool) {
        let shared = self.shared.lock();
        let is_half_full = shared.current.as_ref().is_some_and(|current| {
            let (used, room) = (current.written() as usize, current.room());
            used > room
        });
        (!shared.hot.is_empty() || is_half_full, is_half_full || shared.standing == Standing::Full)
    }

    pub fn fill(&self) -> Fill {
        let shared = self.shared.lock();
        let Counts { records, commits, waits, waited } = shared.counts;
        let standing = shared.standing.clone();
        Fill {
            is_whole: shared.is_whole && standing == Standing::Kept,
            why: shared.why.clone(),
            standing,
            generation: self.generation.load(Relaxed),
            hot: shared.hot.len() as u64,
            records,
            commits,
            waits,
            waited,
        }
    }

    /// Nothing is written any more.
    pub fn end(&self) {
        let mut shared = self.shared.lock();
        shared.is_over = true;
        self.generation.store(NONE, Release);
        self.work.notify_all();
        self.over.notify_all();
        self.done.notify_all();
        drop(shared);
        (self.outside.leave)(Sequence(u64::MAX));
    }

    /// The log's thread.
    fn write_on(&self) {
        while let Some((mut current, entries)) = self.next_write() {
            let outcome = current.write(&entries);
            match outcome {
                Ok(()) => self.has_written(current, &entries),
                Err(error) => return self.fail(&format!("its disk failed: {error}")),
            }
        }
    }

    /// Sees that a disk does not answer, also where only packets wait for it. Of a log that has failed the disks are
    /// told until one has taken it.
    fn watch_on(&self) {
        let mut shared = self.shared.lock();
        while !shared.is_out() {
            if shared.writes_since.is_some_and(|since| since.elapsed() > ACTIVITY_PATIENCE) {
                MutexGuard::unlocked(&mut shared, || self.fail(LATE));
            } else {
                self.over.wait_for(&mut shared, WATCHED_EVERY);
            }
        }
        while !shared.is_known && !shared.is_over {
            self.over.wait_for(&mut shared, WATCHED_EVERY);
            MutexGuard::unlocked(&mut shared, || self.take_back(true));
        }
    }

    /// Waits for something to write, and takes it.
    fn next_write(&self) -> Option<(Generation, Vec<Entry>)> {
        let mut shared = self.shared.lock();
        loop {
            if shared.is_out() {
                return None;
            }
            let ceiling = self.ceiling(&mut shared);
            let mut entries: Vec<Entry> = shared.waiting.drain(..).map(Entry::Hot).collect();
            entries.extend(ceiling.map(Entry::Ceiling));
            let room = shared.current.as_ref().map_or(0, Generation::room);
            if entries.len() > room {
                MutexGuard::unlocked(&mut shared, || self.is_full());
                continue;
            }
            if !entries.is_empty() {
                let current = shared.current.take().expect("nobody else writes");
                shared.writes_since = Some(Instant::now());
                return Some((current, entries));
            }
            if shared.ceiling.flows() {
                self.work.wait_for(&mut shared, ACTIVITY_LOOK_EVERY);
            } else {
                self.work.wait(&mut shared);
            }
        }
    }

    /// What is to be written of it, if anything.
    fn ceiling(&self, shared: &mut Shared) -> Option<Sequence> {
        let (last, before) = ((self.outside.last)(), shared.ceiling.upto());
        let mut wanted = match std::mem::take(&mut shared.is_asked) {
            true => shared.ceiling.is_asked(last),
            false if shared.ceiling.flows() && shared.looked.elapsed() >= ACTIVITY_LOOK_EVERY => {
                shared.looked = Instant::now();
                shared.ceiling.look(last)
            }
            false => None,
        };
        if wanted.is_some_and(|wanted| wanted < before) {
            // First nothing goes above it any more; what went since is below the next one.
            (self.outside.leave)(last);
            let now = (self.outside.last)();
            wanted = shared.ceiling.is_asked(now).or(wanted);
        }
        wanted.or_else(|| shared.needs_ceiling.then_some(shared.ceiling.upto()))
    }

    fn has_written(&self, current: Generation, entries: &[Entry]) {
        let mut shared = self.shared.lock();
        let hot = entries.iter().filter_map(|entry| match entry {
            Entry::Hot(object) => Some(object.id),
            Entry::Ceiling(_) => None,
        });
        shared.hot.extend(hot);
        shared.written += entries.iter().filter(|entry| matches!(entry, Entry::Hot(_))).count() as u64;
        shared.counts.commits += 1;
        shared.counts.records += entries.len() as u64;
        (shared.current, shared.writes_since) = (Some(current), None);
        let ceiling = entries.iter().find_map(|entry| match entry {
            Entry::Ceiling(upto) => Some(*upto),
            Entry::Hot(_) => None,
        });
        shared.needs_ceiling &= ceiling.is_none();
        self.done.notify_all();
        // Under the lock: once it has failed or is over nothing is held any more.
        if !shared.is_out() {
            ceiling.into_iter().for_each(|upto| (self.outside.leave)(upto));
        }
    }

    /// Durably not whole; then changes pass it until the next generation.
    fn is_full(&self) {
        // First: whoever settles it meanwhile says that it is whole before the next line, or not at all.
        self.shared.lock().standing = Standing::Full;
        let said = self.say_not_whole("more was changed than it has room for");
        if let Err(error) = said {
            return self.fail(&format!("its disk failed: {error}"));
        }
        let mut shared = self.shared.lock();
        shared.written = shared.asked;
        self.generation.store(NONE, Release);
        self.done.notify_all();
        while shared.standing == Standing::Full && !shared.is_over {
            // Of what nobody notes no ceiling says anything.
            (self.outside.leave)(Sequence(u64::MAX));
            self.done.wait(&mut shared);
        }
        shared.ceiling = Ceiling::at((self.outside.last)());
    }

    /// Returns when changes may pass it: the source's disk knows that it is worth nothing.
    fn fail(&self, why: &str) {
        {
            let mut shared = self.shared.lock();
            if matches!(shared.standing, Standing::Failed(_)) {
                while !shared.is_revoked {
                    self.done.wait(&mut shared);
                }
                return;
            }
            shared.standing = Standing::Failed(why.to_owned());
        }
        // Whoever asks a disk that does not answer waits with the change.
        self.take_back(why != LATE);
        log::error!(
            "the activity log is not kept any more ({why}): after a power loss all content is compared"
        );
        let mut shared = self.shared.lock();
        shared.is_revoked = true;
        self.generation.store(NONE, Release);
        self.work.notify_all();
        self.done.notify_all();
        drop(shared);
        (self.outside.leave)(Sequence(u64::MAX));
    }

    /// Says that it is worth nothing, durably, where a disk takes that: the source's, or its own, which may have
    /// failed for a moment. Else a start after a power loss would believe it.
    fn take_back(&self, asks_its_own: bool) {
        let revoked = {
            let mut is_taken_back = self.is_taken_back.lock();
            *is_taken_back = true;
            (self.outside.revoke)()
        };
        let said = || self.files.try_lock().is_some_and(|mut files| files.say_not_whole(FAILED).is_ok());
        match revoked {
            Err(error) if !(asks_its_own && said()) => {
                log::error!("the activity log failed, and no disk takes that yet: {error}");
            }
            Ok(()) | Err(_) => self.shared.lock().is_known = true,
        }
    }
}

impl Shared {
    fn is_out(&self) -> bool {
        self.is_over || matches!(self.standing, Standing::Failed(_))
    }
}

/// Since 1970; far away times as the nearest that fits.
fn nanoseconds(time: Timestamp) -> i64 {
    time.seconds.saturating_mul(1_000_000_000).saturating_add(i64::from(time.nanoseconds))
}
