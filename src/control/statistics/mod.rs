//! Statistics of each connection, or replica, as lines of JSON in a file, for whoever feeds them to something else.
//!
//! ```text
//!  the look of each second (Recorder) ── Pace: who has a line ── lines ──> the statistics' thread ──> the file
//! ```
//! Nobody waits for the file: where it is full, gone, refused or hangs, lines are dropped and counted, and an alert says
//! so until one is written again. Everything in a line the look has already, for the status and the history.

mod file;
mod line;
mod pace;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use parking_lot::Mutex;

use self::line::Line;
use self::pace::{Activity, Pace};
use super::status::{Alert, Status};
use crate::events::{Code, Sample, Severity};
use crate::words::StatisticsTo;

pub use file::refusal;
#[cfg(test)]
pub(crate) use {file::append, tests::statistics_of};

/// Batches that wait for the file: as many seconds as a disk may take for a line without a loss.
const WAITING_MAX: usize = 16;

/// See the module.
pub(super) struct Statistics {
    pace: Mutex<Pace>,
    batches: Mutex<Option<Sender<Batch>>>,
    outcome: Arc<Outcome>,
    thread: JoinHandle<()>,
}

/// Lines of one second.
struct Batch {
    count: u64,
    bytes: Vec<u8>,
}

/// What came of it.
struct Outcome {
    to: StatisticsTo,
    dropped: AtomicU64,
    /// Why the last batch was not written.
    trouble: Mutex<Option<String>>,
}

impl Statistics {
    /// Errors: there are no threads.
    pub fn start(to: StatisticsTo) -> io::Result<Statistics> {
        let (batches, inbox) = bounded(WAITING_MAX);
        let outcome = Arc::new(Outcome { to, dropped: AtomicU64::new(0), trouble: Mutex::new(None) });
        let own = outcome.clone();
        let thread =
            std::thread::Builder::new().name("statistics".into()).spawn(move || own.write_all(&inbox))?;
        Ok(Statistics { pace: Mutex::default(), batches: Mutex::new(Some(batches)), outcome, thread })
    }

    /// The daemon was looked at, at a time that only goes forward. `rates`: of its connections, in their order.
    pub fn tell(&self, now: Duration, status: &Status, rates: &[Option<Sample>]) {
        self.hand_over(&self.due(now, status, rates, false));
    }

    /// As [`Statistics::tell`], of a daemon that ends: a line of each, whether one is due or not.
    pub fn tell_last(&self, now: Duration, status: &Status, rates: &[Option<Sample>]) {
        self.hand_over(&self.due(now, status, rates, true));
    }

    fn hand_over(&self, lines: &[Line<'_>]) {
        let mut bytes = Vec::new();
        for line in lines {
            match serde_json::to_vec(line) {
                Ok(json) => bytes.extend(json.into_iter().chain([b'\n'])),
                Err(error) => log::error!("a line of the statistics cannot be made: {error}"),
            }
        }
        let batch = Batch { count: lines.len() as u64, bytes };
        if batch.bytes.is_empty() {
            return;
        }
        let batches = self.batches.lock();
        let Some(batches) = &*batches else { return };
        if let Err(TrySendError::Full(batch) | TrySendError::Disconnected(batch)) = batches.try_send(batch) {
            self.outcome.lost(batch.count, "its disk does not answer".into());
        }
    }

    /// Why nothing is written.
    pub fn alert(&self) -> Option<Alert> {
        let why = self.outcome.trouble.lock().clone()?;
        let (path, dropped) = (self.outcome.to.path.display(), self.outcome.dropped.load(Relaxed));
        let text = format!(
            "Statistics cannot be written to {path}: {why}. {dropped} lines are lost so far; it is tried again with each \
             one that comes, and replication goes on."
        );
        Some(Alert { severity: Severity::Warning, code: Code::StatisticsFailing, text })
    }

    /// Nothing is told any more; what was is written, if the disk takes it until then.
    pub fn end(&self, until: Instant) {
        drop(self.batches.lock().take());
        while !self.thread.is_finished() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn due<'a>(
        &self,
        now: Duration,
        status: &'a Status,
        rates: &[Option<Sample>],
        all_are: bool,
    ) -> Vec<Line<'a>> {
        let dropped = self.outcome.dropped.load(Relaxed);
        let mut pace = self.pace.lock();
        let all = line::all(status, rates);
        pace.retain(|id| all.iter().any(|one| one.id == id));
        let due = all.into_iter().filter_map(|one| {
            let activity = pace.look(now, one.id, one.seen).or(all_are.then_some(Activity::Idle))?;
            Some(Line::new(status, activity, dropped, one.facts))
        });
        due.collect()
    }
}

impl Outcome {
    fn write_all(&self, inbox: &Receiver<Batch>) {
        for Batch { count, bytes } in inbox {
            match file::append(&self.to, &bytes) {
                Ok(()) => self.written(),
                Err(error) => self.lost(count, error.to_string()),
            }
        }
    }

    fn written(&self) {
        if self.trouble.lock().take().is_some() {
            let dropped = self.dropped.load(Relaxed);
            log::info!(
                "statistics are written to {} again; {dropped} lines are lost",
                self.to.path.display()
            );
        }
    }

    fn lost(&self, count: u64, why: String) {
        self.dropped.fetch_add(count, Relaxed);
        let before = self.trouble.lock().replace(why.clone());
        if before.is_none() {
            log::warn!("statistics cannot be written to {}: {why}", self.to.path.display());
        }
    }
}
