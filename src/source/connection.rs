//! One connection of a source: dials its target, brings it into line, keeps the stream going.
//!
//! ```text
//!            ┌──────────── back-off ───────────┐
//!            v                                 │ lost
//!  dial ── handshake ──┬─ resume ──────────> streaming ── stop
//!                      └─ wait for a copy ── copying ─┘
//! ```
//! Its thread owns the link and the state; everyone else sends it a [`Command`] or reads
//! [`Report`].

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, Sender, TrySendError, after, bounded, never, select, unbounded};
use parking_lot::{Condvar, Mutex};

use super::durability::Standing;
use super::feed::{Lane, PacketFeed, Sent, Stream};
use super::options::Target;
use super::remote::Route;
use crate::control::{ConnectionState, MirrorStatus, Retrying, unix_ms};
use crate::limits::{LISTINGS_IN_FLIGHT, RECONNECT_DELAY_MAX, RECONNECT_DELAY_MIN};
use crate::link::{LinkStats, SourceEvent, SourceLink};
use crate::packet::{
    DataState, Features, ItemNumber, Position, ReplicaProof, Sequence, SetId, SourceMessage, TargetMessage,
    Text, Timestamp, WIRE_VERSION, WIRE_VERSION_OLDEST,
};
use crate::queue::{CursorId, Queue};
use crate::resync::{CopyError, CopyProgress, CopyReport, FirstCopy, Wanted};

/// What a connection needs to know for its whole life.
pub struct Settings {
    /// Small number for people.
    pub id: u32,
    /// The target as it was typed.
    pub target: Target,
    pub route: Route,
    pub set: SetId,
    pub set_name: String,
    pub birth_epoch: u32,
    /// Told whenever it changes how the target stands.
    pub watch: Option<Watch>,
}

/// Hears how a target stands, on the connection's thread: must not wait.
pub type Watch = Box<dyn Fn(Standing) + Send>;

/// What a connection is told to do.
pub enum Command {
    /// Copies the tree. `ends` says that the tree is quiet: the target is in line afterwards and
    /// the stream starts.
    Copy {
        backing: std::os::fd::OwnedFd,
        suspect_since: Option<Timestamp>,
        ends: bool,
        done: Sender<Result<CopyReport, String>>,
    },
    Stop,
}

/// What everyone may know of a connection.
#[derive(Clone)]
pub struct Report {
    pub state: ConnectionState,
    pub since: SystemTime,
    pub reason: String,
    pub data: DataState,
    pub mirror: MirrorStatus,
    pub applied: Sequence,
    pub durable: Sequence,
    pub retrying: Option<Retrying>,
    pub connected: Option<SystemTime>,
    /// The target's word on why it does not take this source.
    pub refused: Option<String>,
    pub link: LinkStats,
    pub resent_packets: u64,
    /// The target is in line and packets flow.
    pub streaming: bool,
    pub progress: Option<Arc<CopyProgress>>,
}

/// A connection as the daemon holds it.
pub struct Connection {
    pub id: u32,
    pub uuid: String,
    pub target: Target,
    pub sent: Arc<Sent>,
    shared: Arc<Shared>,
    commands: Sender<Command>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

struct Shared {
    report: Mutex<Report>,
    changed: Condvar,
    /// Wakes the link of the session that is up, if one is.
    waker: Mutex<Option<crate::link::Waker>>,
}

impl Connection {
    /// Attaches to the queue and starts to dial.
    pub fn start(settings: Settings, queue: Arc<Queue>) -> std::io::Result<Connection> {
        let shared = Arc::new(Shared {
            report: Mutex::new(Report::new()),
            changed: Condvar::new(),
            waker: Mutex::new(None),
        });
        let waking = shared.clone();
        let (cursor, start) = queue.attach(move || {
            if let Some(waker) = &*waking.waker.lock() {
                waker.wake();
            }
        });
        let (commands, inbox) = unbounded();
        let sent = Arc::new(Sent::default());
        let (id, target) = (settings.id, settings.target.clone());
        let driver = Driver {
            settings,
            queue,
            cursor,
            start,
            shared: shared.clone(),
            inbox,
            sent: sent.clone(),
            in_line_once: Cell::new(false),
            gave_up: Cell::new(false),
            sent_upto: Cell::new(Sequence(0)),
        };
        let thread =
            std::thread::Builder::new().name(format!("connection-{id}")).spawn(move || driver.run())?;
        let uuid = format!("{:032x}", crate::store::random_u128());
        Ok(Connection { id, uuid, target, sent, shared, commands, thread: Mutex::new(Some(thread)) })
    }

    /// Capture only: always in line, because it sends nothing.
    pub fn null(id: u32) -> Connection {
        let mut report = Report::new();
        report.reason = "captures and sends nothing".into();
        let shared = Shared { report: Mutex::new(report), changed: Condvar::new(), waker: Mutex::new(None) };
        Connection {
            id,
            uuid: format!("{:032x}", crate::store::random_u128()),
            target: Target::Null,
            sent: Arc::default(),
            shared: Arc::new(shared),
            commands: unbounded().0,
            thread: Mutex::new(None),
        }
    }

    pub fn is_null(&self) -> bool {
        matches!(self.target, Target::Null)
    }

    pub fn report(&self) -> Report {
        self.shared.report.lock().clone()
    }

    /// Tells the connection; a stopped one ignores it.
    pub fn command(&self, command: Command) {
        let _ = self.commands.send(command);
    }

    /// Waits until `done` holds, at most until `deadline`; answers the last report.
    pub fn wait(&self, deadline: Instant, done: impl Fn(&Report) -> bool) -> Report {
        let mut report = self.shared.report.lock();
        while !done(&report) {
            if self.shared.changed.wait_until(&mut report, deadline).timed_out() {
                break;
            }
        }
        report.clone()
    }

    /// Ends the link and the thread.
    pub fn stop(&self) {
        self.command(Command::Stop);
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            log::error!("a connection thread panicked");
        }
    }
}

impl Report {
    /// Whether the target's word counts, and what it is.
    pub fn standing(&self) -> Standing {
        let in_line = self.streaming && self.data == DataState::Good;
        Standing { in_line, durable: self.durable }
    }

    fn new() -> Report {
        Report {
            state: ConnectionState::Started,
            since: SystemTime::now(),
            reason: "connecting".into(),
            data: DataState::Empty,
            mirror: MirrorStatus::Idle,
            applied: Sequence(0),
            durable: Sequence(0),
            retrying: None,
            connected: None,
            refused: None,
            link: LinkStats::default(),
            resent_packets: 0,
            streaming: false,
            progress: None,
        }
    }
}

/// Why a session ended.
enum Ended {
    Stopped,
    Lost(String),
}

/// The thread behind a connection.
struct Driver {
    settings: Settings,
    queue: Arc<Queue>,
    cursor: CursorId,
    start: Position,
    shared: Arc<Shared>,
    inbox: Receiver<Command>,
    sent: Arc<Sent>,
    /// The target was in line once since the start: from then on applications write.
    in_line_once: Cell<bool>,
    /// The queue holds nothing for it any more: it can never resume.
    gave_up: Cell<bool>,
    /// The last packet that earlier sessions sent.
    sent_upto: Cell<Sequence>,
}

/// What a person has to do in this version.
const NEEDS_COPY: &str = "the replica lost its place and needs a copy: stop and start the protection; until \
                          then nothing is sent, and what changes is copied at the next start";

/// How often counters of the link are taken over into the report.
const STATS_EVERY: Duration = Duration::from_millis(500);

impl Driver {
    fn run(self) {
        let mut attempt = 0;
        loop {
            match self.session(&mut attempt) {
                Ended::Stopped => break,
                Ended::Lost(reason) => {
                    let was_up = self.shared.report.lock().connected.is_some();
                    let level = if was_up || attempt == 0 { log::Level::Warn } else { log::Level::Debug };
                    log::log!(level, "connection {} to {}: {reason}", self.settings.id, self.settings.target);
                    self.goto(ConnectionState::Error, &reason);
                }
            }
            attempt += 1;
            if self.wait_before_dialling(attempt) {
                break;
            }
        }
        self.goto(ConnectionState::Stopped, "stopped");
        self.queue.detach(self.cursor);
    }

    /// Waits out the back-off; answers whether the connection is to stop.
    fn wait_before_dialling(&self, attempt: u32) -> bool {
        let timer = after(back_off(attempt));
        loop {
            select! {
                recv(timer) -> _ => return false,
                recv(self.inbox) -> command => match command {
                    Ok(Command::Stop) | Err(_) => return true,
                    Ok(Command::Copy { done, .. }) => {
                        let _ = done.send(Err("the target is not connected".into()));
                    }
                },
            }
        }
    }

    fn session(&self, attempt: &mut u32) -> Ended {
        let dial = match self.settings.route.dial(*attempt) {
            Ok(dial) => dial,
            Err(reason) => return Ended::Lost(reason),
        };
        let stream = Stream::new(self.start);
        let (feed, lane) = PacketFeed::new(self.queue.clone(), stream.clone(), self.sent.clone());
        let link = SourceLink::dial(dial, feed);
        *self.shared.waker.lock() = Some(link.waker());
        let mut session = Session {
            driver: self,
            link,
            lane,
            stream,
            copy: None,
            copy_ended: never(),
            welcomed: false,
            acknowledged: None,
        };
        let ended = session.run(attempt);
        *self.shared.waker.lock() = None;
        self.sent_upto.set(self.sent_upto.get().max(session.stream.sent_upto()));
        let reason = match &ended {
            Ended::Stopped => "the source stops",
            Ended::Lost(reason) => reason,
        };
        session.abort_copy(reason);
        session.link.close(reason);
        self.update(|report| {
            report.connected = None;
            report.streaming = false;
        });
        ended
    }

    /// The target lost what it had, and no copy can run while applications write: the queue is
    /// not held for it any longer, or writers would wait for ever.
    fn give_up_history(&self) {
        self.gave_up.set(true);
        self.queue.detach(self.cursor);
        self.goto(ConnectionState::Error, NEEDS_COPY);
        log::error!("connection {} to {}: {NEEDS_COPY}", self.settings.id, self.settings.target);
    }

    fn goto(&self, state: ConnectionState, reason: &str) {
        self.update(|report| {
            if report.state != state {
                log::debug!("connection {}: {:?} -> {state:?} ({reason})", self.settings.id, report.state);
                report.state = state;
                report.since = SystemTime::now();
            }
            report.reason = reason.to_owned();
        });
    }

    fn update(&self, change: impl FnOnce(&mut Report)) {
        let mut report = self.shared.report.lock();
        let before = report.standing();
        change(&mut report);
        let after = report.standing();
        drop(report);
        self.shared.changed.notify_all();
        if let Some(watch) = &self.settings.watch
            && before != after
        {
            watch(after);
        }
    }
}

/// One link, from dialling to its end.
struct Session<'a> {
    driver: &'a Driver,
    link: SourceLink,
    lane: Lane,
    stream: Arc<Stream>,
    copy: Option<Copying>,
    copy_ended: Receiver<Result<CopyReport, CopyError>>,
    welcomed: bool,
    /// While packets flow: what the target acknowledged last, applied and durable.
    acknowledged: Option<(Sequence, Sequence)>,
}

/// A copy under way on a thread of its own.
struct Copying {
    wanted: Sender<Wanted>,
    done: Sender<Result<CopyReport, String>>,
    progress: Arc<CopyProgress>,
    /// The walk has ended; the target's word on this item makes the copy complete.
    waits_for: Option<(ItemNumber, CopyReport)>,
}

impl Session<'_> {
    fn run(&mut self, attempt: &mut u32) -> Ended {
        let ticks = crossbeam_channel::tick(STATS_EVERY);
        loop {
            select! {
                recv(self.link.events()) -> event => match event {
                    Ok(SourceEvent::Up) => self.greet(),
                    Ok(SourceEvent::Message(message)) => {
                        if let Some(ended) = self.message(message, attempt) {
                            return ended;
                        }
                    }
                    Ok(SourceEvent::Lost { reason }) => return Ended::Lost(reason),
                    Err(_) => return Ended::Lost("the link thread ended".into()),
                },
                recv(self.driver.inbox) -> command => match command {
                    Ok(Command::Copy { backing, suspect_since, ends, done }) => {
                        self.start_copy(backing, suspect_since, ends, done);
                    }
                    Ok(Command::Stop) | Err(_) => {
                        self.link.send(SourceMessage::Goodbye);
                        return Ended::Stopped;
                    }
                },
                recv(self.copy_ended) -> outcome => self.copy_walked(outcome),
                recv(ticks) -> _ => {
                    let stats = self.link.stats();
                    self.driver.update(|report| report.link = stats);
                }
            }
        }
    }

    fn greet(&self) {
        let driver = self.driver;
        self.link.send(SourceMessage::Hello {
            version_oldest: WIRE_VERSION_OLDEST,
            version: WIRE_VERSION,
            features: Features::OFFERED,
            set: driver.settings.set,
            set_name: Text::from_str_cut(&driver.settings.set_name),
            last: driver.queue.last(),
            oldest: driver.queue.oldest(),
        });
    }

    fn message(&mut self, message: TargetMessage, attempt: &mut u32) -> Option<Ended> {
        match message {
            TargetMessage::Welcome { .. } if std::mem::replace(&mut self.welcomed, true) => {
                return Some(Ended::Lost("the target greeted twice".into()));
            }
            TargetMessage::Welcome { version, .. }
                if !(WIRE_VERSION_OLDEST..=WIRE_VERSION).contains(&version) =>
            {
                return Some(Ended::Lost(format!(
                    "the target chose version {version} of the protocol, which was not offered"
                )));
            }
            TargetMessage::Welcome { proof, .. } => {
                *attempt = 0;
                self.welcome(&proof);
            }
            TargetMessage::Refused { reason } => {
                let reason = format!("refused by the target: {}", reason.to_text());
                self.driver.update(|report| report.refused = Some(reason.clone()));
                return Some(Ended::Lost(reason));
            }
            TargetMessage::Acknowledge { applied, durable, .. } => {
                return self.acknowledged(applied, durable);
            }
            TargetMessage::Wanted { listing, objects } => {
                if let Some(copy) = &self.copy
                    && let Err(TrySendError::Full(_)) = copy.wanted.try_send(Wanted { listing, objects })
                {
                    return Some(Ended::Lost("the target answers listings that it was not sent".into()));
                }
            }
            TargetMessage::Resynchronised { end, orphans } => self.resynchronised(end, orphans),
            TargetMessage::Retrying { sequence, op, reason, attempts } => self.driver.update(|report| {
                let since_unix_ms = report
                    .retrying
                    .as_ref()
                    .map_or(unix_ms(SystemTime::now()), |retrying| retrying.since_unix_ms);
                let op = format!("{} (packet {sequence})", op.to_text());
                report.retrying = Some(Retrying { op, reason: reason.to_text(), since_unix_ms, attempts });
            }),
            TargetMessage::Recovered { .. } => self.driver.update(|report| report.retrying = None),
        }
        None
    }

    /// The target said what it can prove: the stream resumes, or waits for a copy.
    fn welcome(&mut self, proof: &ReplicaProof) {
        let driver = self.driver;
        driver.update(|report| {
            report.data = proof.data;
            report.connected = Some(SystemTime::now());
            report.refused = None;
            report.retrying = None;
        });
        self.link.start_feed();
        if !driver.gave_up.get() && self.can_resume(proof) {
            let resent = driver.sent_upto.get().0.saturating_sub(proof.applied.sequence.0);
            driver.update(|report| report.resent_packets += resent);
            self.link.send(SourceMessage::StreamFrom { after: proof.applied });
            self.stream.start(proof.applied);
            self.acknowledged = Some((proof.applied.sequence, Sequence(0)));
            self.link.waker().wake();
            self.streaming(&format!("resumed after packet {}", proof.applied.sequence));
        } else if driver.in_line_once.get() {
            driver.give_up_history();
        } else {
            driver.goto(
                ConnectionState::Started,
                "connected; the replica has to be brought into line by a copy",
            );
        }
    }

    /// The replica is of this history, good, and the queue still has what comes next.
    fn can_resume(&self, proof: &ReplicaProof) -> bool {
        let (last, oldest) = (self.driver.queue.last(), self.driver.queue.oldest());
        let same_end = proof.applied.sequence != last.sequence || proof.applied.chain == last.chain;
        proof.data == DataState::Good
            && proof.applied.same_history(&last)
            && proof.applied.sequence <= last.sequence
            && proof.applied.sequence.next() >= oldest
            && same_end
    }

    fn streaming(&self, reason: &str) {
        self.driver.in_line_once.set(true);
        self.driver.goto(ConnectionState::Started, reason);
        self.driver.update(|report| report.streaming = true);
    }

    /// The queue lets go of what is acknowledged: only what can be true counts.
    fn acknowledged(&mut self, applied: Sequence, durable: Sequence) -> Option<Ended> {
        let driver = self.driver;
        // Before packets flow the target may speak of another history.
        let before = self.acknowledged?;
        if applied > self.stream.sent_upto() {
            return Some(Ended::Lost(format!(
                "the target acknowledged packet {applied}, which it was not sent"
            )));
        }
        if durable > applied {
            return Some(Ended::Lost("the target made durable what it had not applied".into()));
        }
        if applied < before.0 || durable < before.1 {
            return Some(Ended::Lost("the target took back what it had acknowledged".into()));
        }
        self.acknowledged = Some((applied, durable));
        driver.queue.acknowledge_applied(driver.cursor, applied);
        driver.queue.acknowledge_durable(driver.cursor, durable);
        driver.update(|report| {
            report.applied = report.applied.max(applied);
            report.durable = report.durable.max(durable);
        });
        None
    }

    fn start_copy(
        &mut self,
        backing: std::os::fd::OwnedFd,
        suspect_since: Option<Timestamp>,
        ends: bool,
        done: Sender<Result<CopyReport, String>>,
    ) {
        if self.copy.is_some() || self.driver.shared.report.lock().connected.is_none() {
            let _ = done.send(Err("the target is not ready for a copy".into()));
            return;
        }
        let progress = Arc::new(CopyProgress::new());
        let (wanted, answers) = bounded(LISTINGS_IN_FLIGHT);
        let (outcome, copy_ended) = bounded(1);
        let sink = self.lane.sink(self.link.waker());
        let epoch = self.driver.settings.birth_epoch;
        let copy = FirstCopy::new(backing, epoch, suspect_since, sink, answers, progress.clone());
        let copy = if ends { copy } else { copy.without_end() };
        let spawned = std::thread::Builder::new().name("copy".into()).spawn(move || {
            let _ = outcome.send(copy.run());
        });
        if let Err(error) = spawned {
            let _ = done.send(Err(format!("no thread for the copy: {error}")));
            return;
        }
        self.copy_ended = copy_ended;
        self.copy = Some(Copying { wanted, done, progress: progress.clone(), waits_for: None });
        self.driver.update(|report| {
            report.data = DataState::Bad;
            report.mirror = MirrorStatus::Mirroring { percent: 0.0 };
            report.progress = Some(progress);
        });
    }

    /// The walk is over: with an end, the target's word is awaited.
    fn copy_walked(&mut self, outcome: Result<Result<CopyReport, CopyError>, crossbeam_channel::RecvError>) {
        self.copy_ended = never();
        let outcome = outcome.map_err(|_| "the copy's thread died".to_owned());
        let outcome = outcome.and_then(|outcome| outcome.map_err(|error| error.to_string()));
        match outcome {
            Ok(report) => match (report.end, &mut self.copy) {
                (Some(end), Some(copy)) => copy.waits_for = Some((end, report)),
                _ => self.finish_copy(Ok(report), MirrorStatus::Stopped),
            },
            Err(error) => self.finish_copy(Err(error), MirrorStatus::Stopped),
        }
    }

    fn resynchronised(&mut self, end: ItemNumber, orphans: u64) {
        let Some(Copying { waits_for: Some((awaited, report)), progress, .. }) = &self.copy else { return };
        if *awaited != end {
            return;
        }
        progress.set_orphans(orphans);
        let report = *report;
        let after = self.stream.start_here();
        self.acknowledged = Some((after.sequence, Sequence(0)));
        self.link.send(SourceMessage::StreamFrom { after });
        self.link.waker().wake();
        self.driver.update(|report| {
            report.data = DataState::Good;
            report.applied = after.sequence;
            report.durable = after.sequence;
            report.retrying = None;
        });
        self.streaming("in line after a copy by differences");
        self.finish_copy(Ok(report), MirrorStatus::Complete);
    }

    fn finish_copy(&mut self, outcome: Result<CopyReport, String>, mirror: MirrorStatus) {
        let Some(copy) = self.copy.take() else { return };
        self.driver.update(|report| report.mirror = mirror);
        let _ = copy.done.send(outcome);
    }

    fn abort_copy(&mut self, reason: &str) {
        self.finish_copy(Err(reason.to_owned()), MirrorStatus::Stopped);
    }
}

/// Grows with each failed attempt, with jitter so that many sources do not come at once.
fn back_off(attempt: u32) -> Duration {
    let full = RECONNECT_DELAY_MIN.saturating_mul(1 << attempt.min(10)).min(RECONNECT_DELAY_MAX);
    full / 2 + full.mul_f64((crate::store::random_u64() % 1000) as f64 / 2000.0)
}
