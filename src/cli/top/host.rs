//! The daemons of this host, each asked once a second by a thread of its own.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

use super::rows::Row;
use super::screen::Deed;
use crate::cli::args::Common;
use crate::cli::connection;
use crate::cli::status::not_served::Absent;
use crate::control::{Client, ClientError, Severity, Status, measure, sockets, unix_ms};
use crate::events::{History, Page, Record, Sample, Series};
use crate::source_side::NotServed;

const EVERY: Duration = Duration::from_secs(1);
/// How often a daemon is asked for its past: in between, what each answer says is added here.
const PAST_EVERY: Duration = Duration::from_secs(60);
/// Events that are kept of a daemon: more than the highest screen has lines.
const RECORDS_KEPT: usize = 200;
/// So long a daemon may take before the screen says that it does not answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// See the module.
pub(in crate::cli) struct Host {
    inner: Arc<Inner>,
}

struct Inner {
    common: Common,
    run: PathBuf,
    absent: Mutex<Vec<NotServed>>,
    known: Mutex<BTreeMap<String, Known>>,
    /// What came of the last thing that was asked for.
    said: Mutex<Option<Said>>,
    version: AtomicU64,
    ended: AtomicBool,
}

/// What came of a deed.
#[derive(Clone, Debug)]
pub(in crate::cli) struct Said {
    pub text: String,
    pub is_failure: bool,
    pub at_unix_ms: u64,
}

/// What is known of one daemon.
#[derive(Clone, Default)]
pub(in crate::cli) struct Known {
    pub socket: PathBuf,
    pub answer: Answer,
    /// An answer is waited for, since then.
    pub asked: Option<Instant>,
    /// The last that it has told, the oldest first.
    pub records: Vec<Record>,
    /// Its run, and the number to go on from.
    place: (String, u64),
    pub past: Vec<Series>,
    past_at: Option<Instant>,
    since: Arc<Mutex<History>>,
}

#[derive(Clone, Default)]
pub(in crate::cli) enum Answer {
    #[default]
    None,
    Status(Arc<Status>),
    /// It was killed.
    Dead,
    Failed(String),
}

impl Known {
    /// Of a connection, the last seconds or minutes, the oldest first.
    pub(in crate::cli) fn series(&self, uuid: &str, by_minutes: bool) -> Vec<Sample> {
        let of = |all: &[Series]| {
            let series = all.iter().find(|one| one.connection == uuid);
            series.map(|one| if by_minutes { one.minutes.clone() } else { one.seconds.clone() })
        };
        let mut samples = of(&self.past).unwrap_or_default();
        let last = samples.last().map_or(0, |sample| sample.at_unix_ms);
        let since = of(&self.since.lock().series()).unwrap_or_default();
        samples.extend(since.into_iter().filter(|sample| sample.at_unix_ms > last));
        samples
    }

    fn add(&mut self, page: Page) {
        if page.run != self.place.0 {
            self.records.clear();
        }
        self.place = (page.run, page.next);
        self.records.extend(page.records);
        let surplus = self.records.len().saturating_sub(RECORDS_KEPT);
        self.records.drain(..surplus);
    }

    /// For how long it has not answered, where that is too long.
    pub(in crate::cli) fn is_mute_for(&self) -> Option<Duration> {
        self.asked.map(|at| at.elapsed()).filter(|time| *time >= PATIENCE)
    }
}

/// Everything that is known at one moment.
pub(in crate::cli) struct Look {
    pub now_unix_ms: u64,
    pub run: PathBuf,
    pub daemons: BTreeMap<String, Known>,
    /// Sets that none of them serves.
    pub absent: Vec<NotServed>,
    pub said: Option<Said>,
}

impl Look {
    /// In a line, and how bad it is.
    pub(in crate::cli) fn verdict(&self, rows: &[Row]) -> (String, Severity) {
        if self.daemons.is_empty() && self.absent.is_empty() {
            return (format!("no daemon runs (none in {})", self.run.display()), Severity::Critical);
        }
        let count = |severity| rows.iter().filter(|row| row.severity == severity).count();
        let (verdict, worst) = match (count(Severity::Critical), count(Severity::Warning)) {
            (0, 0) => ("all is well".to_owned(), Severity::Ok),
            (0, warnings) => (format!("{warnings} with a warning"), Severity::Warning),
            (critical, 0) => (format!("{critical} critical"), Severity::Critical),
            (critical, warnings) => {
                (format!("{critical} critical, {warnings} with a warning"), Severity::Critical)
            }
        };
        let counted = |number: usize, noun: &str| match number {
            1 => format!("1 {noun}"),
            number => format!("{number} {noun}s"),
        };
        let daemons = counted(self.daemons.len(), "daemon");
        let absent = match self.absent.len() {
            0 => String::new(),
            number => format!(", {} not served", counted(number, "set")),
        };
        (format!("{daemons}{absent}: {verdict}"), worst)
    }

    pub(in crate::cli) fn rows(&self) -> Vec<Row> {
        let is_absent = |name: &str| self.absent.iter().any(|one| one.name == name);
        // More is known of one that was killed than that.
        let told =
            |(name, known): &(&String, &Known)| !(matches!(known.answer, Answer::Dead) && is_absent(name));
        let daemons = self.daemons.iter().filter(told).flat_map(|(name, known)| Row::of(name, known));
        daemons.chain(self.absent.iter().map(|one| Row::not_served(one, self.now_unix_ms))).collect()
    }
}

impl Host {
    /// Errors: no thread can be started.
    pub(in crate::cli) fn start(common: &Common) -> io::Result<Host> {
        let inner = Arc::new(Inner {
            common: common.clone(),
            run: common.asked_dir(),
            absent: Mutex::default(),
            known: Mutex::default(),
            said: Mutex::default(),
            version: AtomicU64::new(0),
            ended: AtomicBool::new(false),
        });
        let asks = inner.clone();
        let each = move || {
            while !asks.ended.load(Ordering::Relaxed) {
                asks.ask_all();
                thread::sleep(EVERY);
            }
        };
        thread::Builder::new().name("top".into()).spawn(each)?;
        Ok(Host { inner })
    }

    /// Another number when there is something new to be seen.
    pub(in crate::cli) fn version(&self) -> u64 {
        self.inner.version.load(Ordering::Acquire)
    }

    pub(in crate::cli) fn look(&self, now_unix_ms: u64) -> Look {
        Look {
            now_unix_ms,
            run: self.inner.run.clone(),
            daemons: self.inner.known.lock().clone(),
            absent: self.inner.absent.lock().clone(),
            said: self.inner.said.lock().clone(),
        }
    }

    /// Asks a daemon for it, from a thread of its own; what comes of it is said.
    pub(in crate::cli::top) fn perform(&self, deed: Deed) {
        let inner = self.inner.clone();
        let socket = inner.known.lock().get(&deed.daemon).map(|known| known.socket.clone());
        let perform = move || {
            let asked = socket.ok_or(ClientError::Absent).and_then(|socket| {
                Client::connect(&socket)?.connection(deed.change.clone(), Some(deed.uuid.clone()))
            });
            let (text, is_failure) = match asked {
                Ok(changed) => (connection::text(&changed), false),
                Err(ClientError::Failure(failure)) => (format!("{} {}", failure.what, failure.next), true),
                Err(error) => (format!("{}: {error}.", deed.daemon), true),
            };
            inner.say(text, is_failure);
        };
        if let Err(error) = thread::Builder::new().name("deed".into()).spawn(perform) {
            self.inner.say(format!("Nothing was done: {error}."), true);
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.inner.ended.store(true, Ordering::Relaxed);
    }
}

impl Inner {
    fn say(&self, text: String, is_failure: bool) {
        *self.said.lock() = Some(Said { text, is_failure, at_unix_ms: unix_ms(SystemTime::now()) });
        self.has_news();
    }

    fn has_news(&self) {
        self.version.fetch_add(1, Ordering::Release);
    }

    fn ask_all(self: &Arc<Inner>) {
        let sockets = match sockets(&self.run) {
            Ok(sockets) => sockets,
            Err(error) => {
                self.say(format!("{} cannot be read: {error}.", self.run.display()), true);
                return;
            }
        };
        *self.absent.lock() = Absent::look(&self.common).not_served;
        let mut known = self.known.lock();
        known.retain(|name, _| sockets.iter().any(|(there, _)| there == name));
        for (name, socket) in sockets {
            let one = known.entry(name.clone()).or_default();
            one.socket.clone_from(&socket);
            if one.asked.is_some() {
                continue;
            }
            one.asked = Some(Instant::now());
            let wants_past = one.past_at.is_none_or(|at| at.elapsed() >= PAST_EVERY);
            let place = one.place.clone();
            let inner = self.clone();
            let ask = move || inner.take(&name, ask(&socket, place, wants_past));
            if thread::Builder::new().name("ask".into()).spawn(ask).is_err() {
                one.asked = None;
            }
        }
        drop(known);
        // Ages go on, whoever answers.
        self.has_news();
    }

    fn take(&self, name: &str, heard: Heard) {
        let mut all = self.known.lock();
        // It went away meanwhile.
        let Some(known) = all.get_mut(name) else { return };
        known.asked = None;
        if let Answer::Status(status) = &heard.answer {
            measure(&mut known.since.lock(), status);
        }
        known.answer = heard.answer;
        if let Some(page) = heard.page {
            known.add(page);
        }
        if let Some(past) = heard.past {
            (known.past, known.past_at) = (past, Some(Instant::now()));
        }
        drop(all);
        self.has_news();
    }
}

struct Heard {
    answer: Answer,
    page: Option<Page>,
    past: Option<Vec<Series>>,
}

fn ask(socket: &Path, (run, after): (String, u64), wants_past: bool) -> Heard {
    let mut client = match Client::connect(socket) {
        Ok(client) => client,
        Err(error) => return Heard { answer: without(&error), page: None, past: None },
    };
    match client.status() {
        Ok(status) => {
            // An older daemon has neither.
            let page = client.events(&run, after).ok();
            let past = if wants_past { client.history().ok() } else { None };
            Heard { answer: Answer::Status(Arc::new(status)), page, past }
        }
        Err(error) => Heard { answer: without(&error), page: None, past: None },
    }
}

fn without(error: &ClientError) -> Answer {
    match error {
        ClientError::Dead | ClientError::Absent => Answer::Dead,
        ClientError::Denied | ClientError::Mute | ClientError::Broken(_) | ClientError::Failure(_) => {
            Answer::Failed(error.to_string())
        }
    }
}
