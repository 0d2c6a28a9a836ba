//! The daemon's own book of events and history: it looks at the daemon's status once a second, as a caller
//! would, from a thread of its own. Kept in memory; it ends with the daemon.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::{Condvar, Mutex};

use super::clones::{CloneRequest, ClonesRequest};
use super::hanging::Hanging;
use super::message::Response;
use super::moments::moments;
use super::server::Handler;
use super::statistics::Statistics;
use super::status::{Alert, Status};
use super::unix_ms;
use crate::events::{
    About, Code, History, Journal, Measured, Now, Page, Record, Ring, Sample, Seen, Series, Severity,
};
use crate::store::random_u64;

/// How often the daemon is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Clones are looked at with one look of so many: a list of them tends them.
const CLONES_EVERY: u32 = 5;

/// Threads are looked at with one look of so many.
const HANGING_EVERY: u32 = 5;

/// See the module.
pub(super) struct Recorder {
    name: String,
    started: Instant,
    journal: Option<Journal>,
    statistics: Option<Statistics>,
    hanging: Mutex<(Hanging, Option<Alert>)>,
    books: Mutex<Books>,
    closing: Mutex<bool>,
    wake: Condvar,
}

struct Books {
    ring: Ring,
    history: History,
    before: Option<Status>,
}

impl Recorder {
    /// `name`: of the daemon.
    pub fn new(name: String, statistics: Option<Statistics>) -> Recorder {
        let run = format!("{:016x}", random_u64());
        let books = Books { ring: Ring::new(run), history: History::default(), before: None };
        Recorder {
            name,
            started: Instant::now(),
            journal: Journal::of_process(),
            statistics,
            hanging: Mutex::default(),
            books: Mutex::new(books),
            closing: Mutex::new(false),
            wake: Condvar::new(),
        }
    }

    /// Looks until it is closed.
    ///
    /// Errors: there are no threads.
    pub fn start(self: &Arc<Self>, handler: Arc<dyn Handler>) -> std::io::Result<JoinHandle<()>> {
        let own = self.clone();
        let pid = std::process::id();
        let text = format!(
            "The daemon {} has begun to run (standin {}, pid {pid}).",
            self.name,
            env!("CARGO_PKG_VERSION")
        );
        self.happened(Code::DaemonStarted, Severity::Ok, text);
        std::thread::Builder::new().name("events".into()).spawn(move || own.look_until_closed(&*handler))
    }

    pub fn close(&self) {
        *self.closing.lock() = true;
        self.wake.notify_all();
    }

    /// Lines that are told already are written, if that does not take too long.
    pub fn end_statistics(&self, until: Instant) {
        self.statistics.iter().for_each(|statistics| statistics.end(until));
    }

    /// What the daemon says of itself, and what the recorder has to say beside.
    pub fn status(&self, handler: &dyn Handler) -> Status {
        let mut status = handler.status();
        status.alerts.extend(self.statistics.as_ref().and_then(Statistics::alert));
        status.alerts.extend(self.hanging.lock().1.clone());
        status
    }

    pub fn page(&self, run: &str, after: u64) -> Page {
        let books = self.books.lock();
        let epoch = books.before.as_ref().and_then(epoch);
        Page { epoch, ..books.ring.after(run, after) }
    }

    pub fn history(&self) -> Vec<Series> {
        self.books.lock().history.series()
    }

    /// A person, or a script, changes something; `words`: of its [`Deed`](super::deed::Deed).
    pub fn command(&self, who: &str, pid: i32, words: &str, response: Option<&Response>) {
        let outcome = match response {
            None => "is being done".into(),
            Some(Response::Failure { failure }) => format!("refused: {}", failure.what),
            Some(_) => "done".into(),
        };
        let text = format!("Told by {who} (process {pid}): {words}; {outcome}");
        self.happened(Code::CommandGiven, Severity::Ok, text);
    }

    fn happened(&self, code: Code, severity: Severity, text: String) {
        let about = About { set: Some(self.name.clone()), ..About::default() };
        let record = self.books.lock().ring.happened(self.now(), Seen { code, severity, about, text });
        self.tell(&[record]);
    }

    fn look_until_closed(&self, handler: &dyn Handler) {
        let mut closing = self.closing.lock();
        let mut clones = Vec::new();
        for look in 0_u32.. {
            if *closing {
                drop(closing);
                return self.look_last(handler);
            }
            drop(closing);
            let next = Instant::now() + LOOK_EVERY;
            if look % CLONES_EVERY == 0 {
                clones = catch_unwind(AssertUnwindSafe(|| failed_clones(handler))).unwrap_or_default();
            }
            if look % HANGING_EVERY == 0 {
                let (hanging, alert) = &mut *self.hanging.lock();
                *alert = hanging.look(self.now().since_start);
            }
            // A defect in a status ends this look alone.
            if let Ok(status) = catch_unwind(AssertUnwindSafe(|| self.status(handler))) {
                self.look(status, clones.clone());
            }
            closing = self.closing.lock();
            if !*closing {
                // Each second; one that took longer is no reason for a look right behind it.
                let rest = next.saturating_duration_since(Instant::now()).max(LOOK_EVERY / 2);
                self.wake.wait_for(&mut closing, rest);
            }
        }
    }

    fn look(&self, status: Status, mut seen: Vec<Seen>) {
        let now = self.now();
        let mut records = Vec::new();
        {
            let books = &mut *self.books.lock();
            let happened = books.before.as_ref().map(|before| moments(before, &status)).unwrap_or_default();
            records.extend(happened.into_iter().map(|one| books.ring.happened(now, one)));
            seen.extend(status.findings().into_iter().map(|finding| Seen {
                code: finding.code,
                severity: finding.severity,
                about: finding.about,
                text: finding.text,
            }));
            records.extend(books.ring.observe(now, seen));
            let rates = measure(&mut books.history, &status);
            if let Some(statistics) = &self.statistics {
                statistics.tell(now.since_start, &status, &rates);
            }
            books.before = Some(status);
        }
        self.tell(&records);
    }

    /// How it has ended, for the statistics.
    fn look_last(&self, handler: &dyn Handler) {
        let Some(statistics) = &self.statistics else { return };
        if let Ok(status) = catch_unwind(AssertUnwindSafe(|| self.status(handler))) {
            let rates = measure(&mut self.books.lock().history, &status);
            statistics.tell_last(self.now().since_start, &status, &rates);
        }
    }

    fn tell(&self, records: &[Record]) {
        if let Some(journal) = &self.journal {
            records.iter().for_each(|record| journal.tell(&self.name, record));
        }
    }

    fn now(&self) -> Now {
        Now { since_start: self.started.elapsed(), unix_ms: unix_ms(SystemTime::now()) }
    }
}

/// The number of the epoch in which a source writes.
fn epoch(status: &Status) -> Option<u32> {
    status.source()?.history.split('.').next()?.parse().ok()
}

/// Adds how the connections of a daemon are to their history; those that are gone go from it. Gives what that makes of
/// the time since the look before, in their order.
pub fn measure(history: &mut History, status: &Status) -> Vec<Option<Sample>> {
    let Some(source) = status.source() else { return Vec::new() };
    let mut samples = Vec::new();
    for connection in &source.connections {
        let measured = Measured {
            lag_seconds: connection.lag_applied.map(|lag| lag.seconds as f32),
            queued_packets: connection.queued.packets,
            queued_bytes: connection.queued.bytes,
            sent_bytes: connection.sent.bytes,
            captured_bytes: source.queue.captured_bytes,
        };
        samples.push(history.add(status.now_unix_ms, &connection.uuid, &connection.target, measured));
    }
    let there: BTreeSet<&str> =
        source.connections.iter().map(|connection| connection.uuid.as_str()).collect();
    history.retain(|connection| there.contains(connection));
    samples
}

/// Of whoever holds replicas.
fn failed_clones(handler: &dyn Handler) -> Vec<Seen> {
    let list = ClonesRequest { replica: None, what: CloneRequest::List };
    let Ok(replicas) = handler.clones(&list) else { return Vec::new() };
    let of = |replica: &super::ReplicaClones| -> Vec<Seen> {
        let failed = replica.clones.iter().filter(|clone| clone.state == "FAILED");
        let seen = failed.map(|clone| Seen {
            code: Code::CloneFailed,
            severity: Severity::Warning,
            about: About {
                set: Some(replica.name.clone()),
                target: Some(clone.name.clone()),
                connection: None,
            },
            text: match &clone.reason {
                Some(why) => format!("The clone {} of {} has failed: {why}.", clone.name, replica.name),
                None => format!("The clone {} of {} has failed.", clone.name, replica.name),
            },
        });
        seen.collect()
    };
    replicas.iter().flat_map(of).collect()
}
