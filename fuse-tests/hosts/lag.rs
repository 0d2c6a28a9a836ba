//! The true lag beside the stated one. A writer appends records on the mount and notes when; an
//! observer notes when they are on the replica. What the status states must lie between the
//! bounds that follow: the target lacked the oldest record that was not on the replica when the
//! answer came, and the source knew of every record that had been there for
//! [`Probe::known_after`] when it was asked.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use super::Hosts;

const NAME: &str = "lag-probe";
const RECORD: &[u8; 16] = b"one more record\n";
const WRITE_EVERY: Duration = Duration::from_millis(20);
const LOOK_EVERY: Duration = Duration::from_millis(3);
/// The status gives its time in whole milliseconds.
const ROUNDING: f64 = 0.001;
/// The durable lag is stated to within this, seconds.
const MARK_EVERY: f64 = 0.010;

/// Seconds since 1970.
pub fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64()
}

/// When a record was written: before and after the call.
#[derive(Clone, Copy)]
struct Written {
    before: f64,
    after: f64,
}

/// So many records were on the replica at some moment between the two.
#[derive(Clone, Copy)]
struct Seen {
    began: f64,
    ended: f64,
    count: usize,
}

#[derive(Default)]
struct Notes {
    written: Vec<Written>,
    seen: Vec<Seen>,
}

impl Notes {
    /// Records that were on the replica at this time.
    fn seen_before(&self, time: f64) -> usize {
        let upto = self.seen.partition_point(|seen| seen.ended <= time);
        upto.checked_sub(1).map_or(0, |index| self.seen[index].count)
    }

    /// Records that the first look after this time found; `None` if there was none yet.
    fn seen_after(&self, time: f64) -> Option<usize> {
        let from = self.seen.partition_point(|seen| seen.began < time);
        self.seen.get(from).map(|seen| seen.count)
    }
}

/// Writes and observes until it is dropped.
pub struct Probe {
    notes: Arc<Mutex<Notes>>,
    end: Arc<AtomicBool>,
    pause: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    /// How long an acknowledgement may take.
    pub known_after: Duration,
    connection: usize,
}

/// What the status said of the lag, seconds.
#[derive(Clone, Copy, Debug)]
pub struct Stated {
    pub seconds: f64,
    pub durable: f64,
    /// Between the bounds of what it could have said.
    pub slack: f64,
}

/// An answer to `status`: it stands for some moment between the two, seconds since 1970.
struct Answer {
    asked: f64,
    answered: f64,
    last: u64,
    connection: serde_json::Value,
}

/// Where the records are in the stream, if nothing else is written: the one with this index is
/// the packet with the number after this one.
#[derive(Clone, Copy, Debug)]
pub struct Base {
    index: usize,
    sequence: u64,
}

impl Probe {
    /// Follows connection number `connection`, from 0, whose replica is this.
    pub fn start(mount: &Path, replica: &Path, connection: usize) -> Probe {
        let notes = Arc::new(Mutex::new(Notes::default()));
        let (end, pause) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("{NAME}{}", NUMBER.fetch_add(1, Relaxed));
        let file = File::options().append(true).create_new(true).open(mount.join(&name)).expect("the probe");
        let writer = std::thread::spawn({
            let (notes, end, pause) = (notes.clone(), end.clone(), pause.clone());
            move || write(file, &notes, &end, &pause)
        });
        let observer = std::thread::spawn({
            let (notes, end, path) = (notes.clone(), end.clone(), replica.join(name));
            move || observe(&path, &notes, &end)
        });
        let known_after = Duration::from_millis(500);
        Probe { notes, end, pause, threads: vec![writer, observer], known_after, connection }
    }

    /// Nothing is written any more, or it is again.
    #[cfg(feature = "suites")]
    pub fn pause(&self, pause: bool) {
        self.pause.store(pause, Relaxed);
    }

    /// Asks once and checks the answer. `silent_since`: no acknowledgement has come through since
    /// then (seconds since 1970).
    #[track_caller]
    pub fn check(&self, hosts: &Hosts, silent_since: Option<f64>) -> Stated {
        let Answer { asked, answered, connection, .. } = self.ask(hosts);
        let on_replica = self.look_after(answered);
        let (applied, durable) = (&connection["lag_applied"], &connection["lag_durable"]);
        let (seconds, durable) = (number(&applied["seconds"]), number(&durable["seconds"]));
        let packets = applied["packets"].as_u64().expect("a number");

        let notes = self.notes.lock();
        let missing = notes.written.get(on_replica).filter(|record| record.after < asked);
        let least = missing.map_or(0.0, |record| asked - record.after);
        // What it may lack came after the last record that it is known to have.
        let known =
            notes.seen_before(silent_since.unwrap_or(asked).min(asked) - self.known_after.as_secs_f64());
        let last = known.min(notes.written.len()).checked_sub(1);
        let most = last.map_or(f64::INFINITY, |last| answered - notes.written[last].before);
        let written = notes.written.partition_point(|record| record.after < asked);
        let context = || format!("{seconds}, true {least} to {most}: {connection}\n{}", hosts.said());
        assert!(seconds + ROUNDING >= least, "stated too small: {}", context());
        assert!(seconds <= most + ROUNDING, "stated too great: {}", context());
        assert!(packets >= written.saturating_sub(on_replica) as u64, "too few packets: {}", context());
        assert_eq!(packets == 0, seconds == 0.0, "{}", context());
        assert!(durable + ROUNDING >= seconds, "durable before it was applied: {}", context());
        Stated { seconds, durable, slack: most - least }
    }

    /// With nobody else writing: waits until the target has everything and nothing is on the way.
    #[track_caller]
    pub fn base(&self, hosts: &Hosts) -> Base {
        self.pause.store(true, Relaxed);
        std::thread::sleep(WRITE_EVERY * 3);
        hosts.wait_for_connection(self.connection, "idle", |connection| {
            connection["lag_durable"]["packets"] == 0
        });
        let idle = self.check(hosts, None);
        assert_eq!((idle.seconds, idle.durable), (0.0, 0.0), "{idle:?}");
        let base = Base { index: self.notes.lock().written.len(), sequence: self.ask(hosts).last };
        self.pause.store(false, Relaxed);
        base
    }

    /// With nobody else writing since `base`: the durable lag is exactly the age of the record
    /// after the position that the status gives as durable. Gives the lag, seconds.
    #[track_caller]
    pub fn check_durable(&self, hosts: &Hosts, base: Base) -> f64 {
        let Answer { asked, answered, connection, .. } = self.ask(hosts);
        let seconds = number(&connection["lag_durable"]["seconds"]);
        let durable = connection["durable"].as_u64().expect("a position");
        let notes = self.notes.lock();
        let Some(record) = notes.written.get(base.index + (durable - base.sequence) as usize) else {
            assert!(seconds < WRITE_EVERY.as_secs_f64() * 2.0, "{seconds} of nothing: {connection}");
            return seconds;
        };
        let (least, most) = (asked - record.after, answered - record.before + MARK_EVERY);
        assert!(
            least - ROUNDING <= seconds && seconds <= most + ROUNDING,
            "{least} <= {seconds} <= {most}: {base:?} {connection}"
        );
        seconds
    }

    fn ask(&self, hosts: &Hosts) -> Answer {
        let mut status = hosts.status(hosts.on_source());
        let answered = now();
        let asked = status["now_unix_ms"].as_u64().expect("a time") as f64 / 1000.0;
        let last = status["last"].as_u64().expect("a position");
        let connection = status["connections"][self.connection].take();
        Answer { asked, answered, last, connection }
    }

    fn look_after(&self, time: f64) -> usize {
        loop {
            if let Some(count) = self.notes.lock().seen_after(time) {
                return count;
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

#[track_caller]
fn number(value: &serde_json::Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("no number: {value}"))
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.end.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the probe failed");
        }
    }
}

fn write(mut file: File, notes: &Mutex<Notes>, end: &AtomicBool, pause: &AtomicBool) {
    while !end.load(Relaxed) {
        if !pause.load(Relaxed) {
            let before = now();
            file.write_all(RECORD).expect("an append");
            notes.lock().written.push(Written { before, after: now() });
        }
        std::thread::sleep(WRITE_EVERY);
    }
}

/// The replica belongs to the target alone: it is only looked at.
fn observe(path: &Path, notes: &Mutex<Notes>, end: &AtomicBool) {
    while !end.load(Relaxed) {
        let began = now();
        let count = fs::metadata(path).map_or(0, |metadata| metadata.len() as usize / RECORD.len());
        notes.lock().seen.push(Seen { began, ended: now(), count });
        std::thread::sleep(LOOK_EVERY);
    }
}
