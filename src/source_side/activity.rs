//! The activity log of a source: what its last run has left, who keeps it, and what is in doubt after a power
//! loss of the host ([`crate::activity`] says why nothing else is).
//!
//! ```text
//!  the last run ended in order, or its page cache is there ──> change times tell
//!  its log is whole ──> what was hot is compared, whatever times tell, until every target is in line (*merging*)
//!  else ──> everything is
//! ```

mod merge;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use rustix::fs::{Mode, OFlags, XattrFlags};
use rustix::io::Errno;

pub use self::merge::Merge;
use super::ground::Ground;
use super::mark::ClockWatch;
use super::record::SetRecord;
use super::writeback;
use crate::activity::{ActivityLog, Found, Known, Marked, Outside, Standing, forget, look};
use crate::control::ActivityStatus;
use crate::intercept::Volume;
use crate::limits::{ACTIVITY_KEEPER_LOOKS, activity_generation};
use crate::packet::Incarnation;
use crate::queue::Queue;
use crate::store;
use crate::sys::proc_path;
use crate::words::{ActivityLogging, ProtectOptions};

/// Name of the xattr of the backing directory that says which log is worth something, and as of which generation the
/// disk is: it can be taken back although the log's own disk has failed, and is an older one where the disk was put
/// back to an earlier state.
const XATTR: &str = "trusted.standin.activity";

/// How often it is looked whether changes under way are over.
const CHANGES_POLL: Duration = Duration::from_millis(5);

fn directory(options: &ProtectOptions) -> PathBuf {
    options.set_state().join("activity")
}

/// What the last run has left.
pub fn left(options: &ProtectOptions, backing: &OwnedFd, record: &SetRecord) -> Found {
    look(&directory(options), record.runs.last().copied(), marked(backing))
}

fn marked(backing: &OwnedFd) -> Option<Marked> {
    let mut value = [0; 16];
    let len = rustix::fs::getxattr(proc_path(backing.as_fd()), XATTR, &mut value).ok()?;
    let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|byte| value[at + byte]));
    (len == value.len()).then(|| Marked { log: word(0), generation: word(8) })
}

/// Durable with the next sync of the directory.
fn mark(backing: &OwnedFd, Marked { log, generation }: Marked) -> io::Result<()> {
    let mut value = [0; 16];
    value[..8].copy_from_slice(&log.to_le_bytes());
    value[8..].copy_from_slice(&generation.to_le_bytes());
    Ok(rustix::fs::setxattr(proc_path(backing.as_fd()), XATTR, &value, XattrFlags::empty())?)
}

/// As [`mark`]: no log is worth anything.
fn unmark(backing: &OwnedFd) -> io::Result<()> {
    match rustix::fs::removexattr(proc_path(backing.as_fd()), XATTR) {
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
        outcome => Ok(outcome?),
    }
}

/// Changes the mark of a directory that is served, durably: nobody else did.
fn change_mark(
    volume: &Weak<Volume>,
    backing: &OwnedFd,
    change: impl FnOnce() -> io::Result<()>,
) -> io::Result<()> {
    match volume.upgrade() {
        Some(volume) => volume.note_at_root(change)?,
        None => change()?,
    }
    Ok(rustix::fs::fsync(backing)?)
}

/// Begins the log of a run; what cannot be kept costs the proof alone, and is said.
pub fn begin(
    options: &ProtectOptions,
    run: Incarnation,
    (backing, queue, volume): (&OwnedFd, &Arc<Queue>, &Arc<Volume>),
    owed: Option<&Known>,
) {
    if options.activity_log == ActivityLogging::Lazy {
        return forget_all(options, backing);
    }
    match begin_strict(options, run, (backing, queue, volume), owed) {
        Ok(log) => volume.log_into(log),
        Err(error) => {
            aside!(
                "note: no activity log can be kept ({error}): after a power loss of this host all content is compared."
            );
            forget_all(options, backing);
        }
    }
}

fn begin_strict(
    options: &ProtectOptions,
    run: Incarnation,
    (backing, queue, volume): (&OwnedFd, &Arc<Queue>, &Arc<Volume>),
    owed: Option<&Known>,
) -> io::Result<Arc<ActivityLog>> {
    let number = store::random_u64();
    // As of none yet.
    mark(backing, Marked { log: number, generation: 0 })?;
    rustix::fs::fsync(backing)?;
    let (last, leave) = (queue.clone(), queue.clone());
    let (own, again) = (backing.try_clone()?, backing.try_clone()?);
    let (served, still_served) = (Arc::downgrade(volume), Arc::downgrade(volume));
    let outside = Outside {
        last: Box::new(move || last.last().sequence),
        leave: Box::new(move |upto| leave.let_leave(upto)),
        mark: Box::new(move |generation| {
            change_mark(&served, &again, || mark(&again, Marked { log: number, generation }))
        }),
        revoke: Box::new(move || change_mark(&still_served, &own, || unmark(&own))),
    };
    let first = queue.last().sequence;
    let log = ActivityLog::begin(&directory(options), (run, number), owed, first, outside)?;
    let asked = Arc::downgrade(&log);
    queue.when_held(move || asked.upgrade().into_iter().for_each(|log| log.ask()));
    Ok(log)
}

fn forget_all(options: &ProtectOptions, backing: &OwnedFd) {
    let unmarked = unmark(backing).and_then(|()| Ok(rustix::fs::fsync(backing)?));
    for outcome in [unmarked, forget(&directory(options))] {
        outcome.unwrap_or_else(|error| log::warn!("what is left of an activity log stays: {error}"));
    }
}

/// Begins generations, and gives them up, until it is dropped.
pub struct Keeper {
    _end: Sender<()>,
}

struct Keeping {
    volume: Arc<Volume>,
    /// Its own: an error of the disk is told to each open file once.
    backing: OwnedFd,
    log: Arc<ActivityLog>,
    clock: ClockWatch,
    /// What the present generation does not know of may not be on the disk.
    is_settled: bool,
    ended: Receiver<()>,
}

/// The keeper is dropped.
struct Over;

impl Keeper {
    /// Programs are captured from before this call on: what was changed before, and nobody noted, is on the disk
    /// when a first sync has ended. On a thread of its own: a sync may take long, or hang.
    pub fn begin(ground: &Ground) -> io::Result<Option<Keeper>> {
        let Some(log) = ground.volume.activity().cloned() else { return Ok(None) };
        let (end, ended) = bounded(0);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let backing = rustix::fs::openat(&ground.backing, c".", flags, Mode::empty())?;
        let (volume, clock) = (ground.volume.clone(), ClockWatch::begin());
        let mut keeping = Keeping { volume, backing, log, clock, is_settled: false, ended };
        let keep = move || {
            let _over = keeping.run();
        };
        std::thread::Builder::new().name("activity-keeper".into()).spawn(keep)?;
        Ok(Some(Keeper { _end: end }))
    }
}

impl Keeping {
    fn run(&mut self) -> Result<(), Over> {
        self.settle();
        let mut next = Instant::now() + activity_generation();
        loop {
            self.rest(ACTIVITY_KEEPER_LOOKS)?;
            let was_set = self.clock.was_set();
            if was_set {
                self.clock_was_set()?;
            }
            if let Some(why) = self.passed_by() {
                self.log.doubt(&why);
            }
            let (is_worth_it, is_urgent) = self.log.wants_next();
            let is_due = Instant::now() >= next;
            match self.is_settled {
                // What is kept grows with each generation: the one that is there goes on.
                false if is_due => self.settle(),
                true if was_set || is_urgent || is_due && (is_worth_it || !self.log.fill().is_whole) => {
                    self.next_generation()?;
                }
                _ => continue,
            }
            next = Instant::now() + activity_generation();
        }
    }

    /// What was born before looks older, or newer, than it is, and so do changes beside what targets were noted to
    /// have: it is no proof again before that is forgotten.
    fn clock_was_set(&self) -> Result<(), Over> {
        let since = Instant::now();
        self.log.doubt("the clock was set");
        while !self.log.clock_was_looked_at_since(since) {
            self.rest(CHANGES_POLL)?;
        }
        Ok(())
    }

    fn next_generation(&mut self) -> Result<(), Over> {
        let prepared = match self.log.prepare() {
            Ok(prepared) => prepared,
            Err(error) => {
                // Changes are noted in the one that is there as long as it has room.
                log::warn!("the activity log's next generation cannot be made: {error}");
                return self.rest(Duration::from_secs(1));
            }
        };
        if !self.log.rotate(prepared) {
            return Ok(());
        }
        self.is_settled = false;
        while !self.volume.tell_changes_apart() {
            self.rest(CHANGES_POLL)?;
        }
        while !self.volume.earlier_changes_are_over() {
            self.rest(CHANGES_POLL)?;
        }
        self.settle();
        Ok(())
    }

    /// What was changed up to now, and is not noted in the present generation, is on the disk.
    fn settle(&mut self) {
        let synced = writeback::sync(&self.backing, self.volume.divergence());
        if let Err(error) = synced.and_then(|()| self.log.mark()) {
            return log::warn!("what the activity log has noted is kept: {error}");
        }
        // What began before it was set is noted in what would go.
        if !self.clock.is_set() {
            self.log.settle(self.passed_by().is_none());
            self.is_settled = true;
        }
    }

    /// What was changed that the log does not know of, in this run.
    fn passed_by(&self) -> Option<String> {
        let divergence = self.volume.divergence();
        let touched =
            divergence.touched().map(|path| format!("something was changed past the mount ({path})"));
        touched.or_else(|| divergence.lost_by_disk().map(|why| format!("its disk lost writes ({why})")))
    }

    fn rest(&self, time: Duration) -> Result<(), Over> {
        match self.ended.recv_timeout(time) {
            Err(RecvTimeoutError::Timeout) => Ok(()),
            Ok(()) | Err(RecvTimeoutError::Disconnected) => Err(Over),
        }
    }
}

/// How it stands, for people and scripts.
pub fn status(ground: &Ground) -> ActivityStatus {
    let in_doubt = ground.merge.as_ref().map_or(0, |merge| merge.hot.len() as u64);
    let Some(log) = ground.volume.activity() else {
        let why = match ground.options.activity_log {
            ActivityLogging::Lazy => "--activity-log lazy",
            ActivityLogging::Strict => "it could not be begun",
        };
        return ActivityStatus { why: why.into(), in_doubt, ..ActivityStatus::default() };
    };
    let fill = log.fill();
    ActivityStatus {
        kept: fill.standing == Standing::Kept,
        whole: fill.is_whole,
        why: match fill.standing {
            Standing::Failed(why) => why,
            Standing::Kept | Standing::Full => fill.why,
        },
        hot: fill.hot,
        records: fill.records,
        commits: fill.commits,
        waits: fill.waits,
        waited_ms: fill.waited.as_millis() as u64,
        in_doubt,
    }
}
