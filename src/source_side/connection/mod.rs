//! One connection of a source, as the daemon holds it: told by commands, known by its report.
//!
//! ```text
//!  control socket, start-up ── Told ──> driver thread: Machine (pure) ── link, stream, copy
//!                 Report <── published ──┘
//! ```
//! The thread owns the link and the machine; everyone else sends it something or reads
//! [`Report`]. What is decided is decided in [`crate::connection`]. The driver runs without a
//! thread, a network or a disk as well: see [`surroundings`].

mod checking;
mod copying;
mod driver;
mod healing;
mod publishing;
mod surroundings;
mod verified;

use std::collections::{HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Instant, SystemTime};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use parking_lot::{Condvar, Mutex};

use super::activity::Merge;
use super::backlog::{Leaves, LeftBehind};
use super::durability::Standing;
use super::embedded::Embedded;
use super::feed::Sent;
use super::kept::Kept;
use super::mark::{Mark, Marks};
use super::terms::Terms;
use crate::connection::{Command, Copies, FaultKind, NotNow, Scheduler};
use crate::control::{AsideStatus, ConnectionState, MirrorStatus, ResyncStatus, Retrying};
use crate::intercept::{Divergence, Fence};
use crate::link::{LinkStats, Saved};
use crate::map::Map;
use crate::packet::{
    DataState, DifferenceKind, Ids, LeftOut, MarkerEnd, ObjectId, OrphanCounts, Position, Sequence, SetId,
    WithheldCounts,
};
use crate::queue::{CursorId, Haste, Queue};
use crate::resync::{CheckOrder, CopyProgress};
use crate::source_side::roles::Roles;
use crate::target_side::clones::Unit;
use crate::words::{
    Compression, CopyMode, DeleteLimit, HashKind, LimitPlan, Order, Origin, OrphanRules, OwnedBy, Rate,
    SchedulePlan, Target, VerifyMode, WhenFull,
};
use checking::CheckWish;
pub use checking::Outcome;
pub(crate) use driver::Driver;
pub use driver::Foreseen;
#[cfg(test)]
pub(crate) use driver::News;
pub use surroundings::Around;
#[cfg(test)]
pub(crate) use surroundings::{FirstOwed, NetworkLink, OwedOrder, Surroundings, WalkOrder, Walked};
pub use verified::Verified;

/// What a connection needs to know for its whole life.
pub struct Settings {
    /// Small number for people.
    pub id: u32,
    /// For scripts: stays over a restart.
    pub uuid: String,
    /// The target as it was typed.
    pub target: Target,
    /// It has answered an earlier start: there is a replica, whatever it is worth now.
    pub is_known: bool,
    pub set: SetId,
    pub set_name: String,
    pub ids: Ids,
    /// What a target has that had nothing is as the source had it then, or later.
    pub unwritten_at: Mark,
    /// Told whenever it changes how the target stands; nothing stands when the connection is over.
    pub watch: Option<Watch>,
    /// A target that is in line is told of it.
    pub divergence: Arc<Divergence>,
    /// Where it is noted that somebody else writes the set.
    pub fence: Arc<Fence>,
    /// Who else writes it, as one of two.
    pub roles: Arc<Roles>,
    /// Until when targets had everything.
    pub marks: Arc<Marks>,
    /// Somebody may have changed something past the mount since it was in line.
    pub touched: bool,
    /// What changes is marked there.
    pub map: Option<Arc<Map>>,
    /// What is in doubt since the source's host has lost power.
    pub merge: Option<Arc<Merge>>,
    pub when_full: WhenFull,
    /// From the run before this one.
    pub kept: Kept,
    pub delete_guard: DeleteLimit,
    /// By what its replica's files get their owners.
    pub owners: OwnedBy,
    /// Of its copies, where a person says nothing else of one.
    pub orphans: OrphanRules,
    /// The directory was restored from this target as of this, and the target was not in line with it since.
    pub restored_at: Option<Position>,
    /// This run goes on as the one before it, behind its start.
    pub goes_on: bool,
    /// The run before it has left this in the queue.
    pub left: Option<LeftBehind>,
    pub terms: Terms,
}

/// Hears how a target stands, on the connection's thread: must not wait.
pub type Watch = Box<dyn Fn(Option<Standing>) + Send>;

/// What the driver is told.
pub(crate) enum Told {
    Command(Command, Sender<Result<(), NotNow>>),
    Mirror(MirrorCommand, Sender<Result<(), NotNow>>),
    Schedule(Order<SchedulePlan>, Sender<Result<(), NotNow>>),
    Limit(Order<LimitPlan>, Sender<Result<(), NotNow>>),
    Compression(Order<Compression>, Sender<Result<(), NotNow>>),
    /// What was typed or stands in the file of the set has changed.
    Terms(Terms),
    /// What a resynchronisation would take.
    Foresee(Sender<Foreseen>),
    /// Compare the replica. Where that cannot be, or ends without a result, the answer says why.
    Verify(CheckWish),
    /// Have a copy mend what a comparison has found; or why not.
    Repair {
        suspects: Suspects,
        part: Option<PathBuf>,
        answer: Sender<Result<(), String>>,
    },
    /// Nobody waits for the comparison under way any more.
    StopVerifying,
    /// From now on nothing that programs do gets past the mount: copies may begin.
    Captured,
    End,
}

/// What a person wants of the copies of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MirrorCommand {
    /// Without a mode: as the last stop left it. `rate`: bytes a second.
    Start {
        mode: Option<CopyMode>,
        hash: HashKind,
        rate: Option<u64>,
        orphans: Option<OrphanRules>,
        /// A path below the directory.
        part: Option<PathBuf>,
    },
    /// What is in doubt is copied.
    Merge,
    Stop {
        from_scratch: bool,
    },
    Pause,
    /// With another rate from now on, where one is named; 0: as fast as it goes.
    Resume {
        rate: Option<u64>,
    },
}

/// What everyone may know of a connection.
#[derive(Clone)]
pub struct Report {
    pub state: ConnectionState,
    pub since: SystemTime,
    pub reason: String,
    /// Why the last session failed, while it is in error.
    pub fault: Option<FaultKind>,
    /// How one side refused the other when they met last, also after a stop: what the target had said counts no more.
    pub refusal: Option<FaultKind>,
    /// Failed attempts in a row, and when the next one is due.
    pub attempts: u32,
    pub retry_at: Option<SystemTime>,
    /// Why the queue holds nothing for this target: it is brought into line by a copy.
    pub needs_copy: Option<String>,
    /// What it has is as of an earlier run, or a copy waits for somebody's word: it may lack what no packet tells.
    pub lacks_copy: bool,
    pub data: DataState,
    /// Why the target says that its data is bad, while packets flow.
    pub data_reason: String,
    /// What the target has set aside.
    pub aside: AsideStatus,
    /// What the target has not taken as it came.
    pub withheld: WithheldCounts,
    /// What the last copy left out: for it, and for nothing else, the replica is bad.
    pub left_out: LeftOut,
    /// What the copy that ended last did with what only the target has.
    pub orphans: Option<OrphanCounts>,
    pub mirror: MirrorStatus,
    /// It connects for a copy, or one is about to begin.
    pub begins_copy: bool,
    /// Times that a copy has begun since the target was in line.
    pub copy_attempts: u32,
    /// Changes that could not be captured, before the last copy that ended began.
    pub covers: u64,
    pub applied: Sequence,
    pub durable: Sequence,
    pub retrying: Option<Retrying>,
    /// Since when the target has answered.
    pub connected: Option<SystemTime>,
    /// Its target has answered since the start.
    pub heard: bool,
    pub link: LinkStats,
    /// The target is in line and its stream runs, or is paused.
    pub streaming: bool,
    pub progress: Option<Arc<CopyProgress>>,
    /// How the copy is made that began last.
    pub mode: CopyMode,
    /// It shows what has changed since the target was in line, and nothing else.
    pub is_minicopy: bool,
    /// How the target is brought into line, or was last; amounts as far as they are known without its progress.
    pub resync: Option<ResyncStatus>,
    /// It is of what lies there alone.
    pub part: Option<PathBuf>,
    /// Its progress is that of a comparison, which sends nothing.
    pub is_comparison: bool,
    /// The target has everything up to here on its disk, whatever it lacks of what came since.
    pub base: Option<Sequence>,
    /// What it may send in a second, where a person has said so.
    pub rate: Option<u64>,
    /// What is to stay over a restart.
    pub kept: Kept,
    /// What it has not sent, and may after a restart.
    pub leaves: Leaves,
    /// What the run before this one had queued has come as of this moment.
    pub has_come: Option<Mark>,
    /// Deletions wait for a person's word.
    pub asks_deletes: bool,
    /// When it sends, where not always.
    pub schedule: Option<Scheduled>,
    /// How fast, where not as fast as it goes.
    pub limit: Option<Throttled>,
    /// How short payloads are made, where a level was set.
    pub compression: Option<Compressing>,
    /// What the target has said of markers; the oldest first, [`crate::limits::MARKERS_HEARD_MAX`] at most.
    pub markers: VecDeque<MarkerHeard>,
}

/// What became of a marker on the target.
#[derive(Clone, Debug)]
pub struct MarkerHeard {
    pub sequence: Sequence,
    pub end: MarkerEnd,
    pub text: String,
}

/// A level of compression, as it stands.
#[derive(Clone)]
pub struct Compressing {
    pub level: Compression,
    pub origin: Origin,
    pub is_on: bool,
    /// Whether the target that was connected last takes it.
    pub is_taken: Option<bool>,
    pub saved: Saved,
}

/// A limit, as it stands.
#[derive(Clone)]
pub struct Throttled {
    pub plan: LimitPlan,
    pub origin: Origin,
    pub is_on: bool,
    /// What holds now.
    pub rate: Option<Rate>,
    /// Bytes a second by which what is queued for the target grows.
    pub grows: Option<u64>,
}

/// A schedule, as it stands.
#[derive(Clone)]
pub struct Scheduled {
    pub scheduler: Scheduler,
    pub origin: Origin,
}

/// Files whose content is in doubt on a target, whatever their sizes and times say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Suspects {
    These(Arc<HashSet<ObjectId>>),
    All,
}

impl Suspects {
    /// What a comparison has found. Where content was compared and not all is known by name, everything is suspect.
    pub(super) fn found(verified: &Verified) -> Suspects {
        match verified.mode {
            VerifyMode::Checksum | VerifyMode::Audit if !verified.names_all() => Suspects::All,
            VerifyMode::Checksum | VerifyMode::Audit => {
                Suspects::These(Arc::new(verified.differing(|_| true).collect()))
            }
            // Of content nothing is known but by sizes and times, and by those a copy sends it.
            VerifyMode::Attributes => {
                use DifferenceKind::{Mode, Owner, Xattr};
                let is_of_content = |kind| !matches!(kind, Mode | Owner | Xattr);
                Suspects::These(Arc::new(verified.differing(is_of_content).collect()))
            }
        }
    }
}

impl Default for Suspects {
    fn default() -> Suspects {
        Suspects::These(Arc::default())
    }
}

/// A connection as the daemon holds it.
pub struct Connection {
    pub id: u32,
    pub uuid: String,
    pub target: Target,
    pub sent: Arc<Sent>,
    shared: Arc<Shared>,
    inbox: Sender<Told>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
    embedded: Mutex<Option<Embedded>>,
}

struct Shared {
    report: Mutex<Report>,
    changed: Condvar,
    /// Holds something while there is a state that nobody has looked at.
    news: (Sender<()>, Receiver<()>),
    /// The mount is gone, and the end is near: no copy is worth beginning.
    drains: AtomicBool,
    /// Wakes the link of the session that is up, if one is.
    waker: Mutex<Option<crate::link::Waker>>,
}

impl Shared {
    fn new(report: Report) -> Arc<Shared> {
        Arc::new(Shared {
            report: Mutex::new(report),
            changed: Condvar::new(),
            news: bounded(1),
            drains: AtomicBool::new(false),
            waker: Mutex::new(None),
        })
    }

    /// A reader of the queue: what is appended wakes the link that is up.
    fn attach(self: &Arc<Shared>, queue: &Queue) -> (CursorId, Position) {
        queue.attach(self.waking())
    }

    /// As [`Shared::attach`], behind what the run before has left there; that is dropped where it is not all there.
    fn attach_to(self: &Arc<Shared>, queue: &Queue, left: &mut Option<LeftBehind>) -> (CursorId, Position) {
        let behind = left.as_ref().and_then(|left| queue.attach_behind(left.applied, self.waking()));
        match behind {
            Some(cursor) => (cursor, queue.last()),
            None => {
                if let Some(left) = left.take() {
                    log::warn!(
                        "what was queued before the last stop behind packet {} is not all there: it comes by a copy",
                        left.applied
                    );
                }
                self.attach(queue)
            }
        }
    }

    fn waking(self: &Arc<Shared>) -> impl Fn(Haste) + Send + Sync + use<> {
        let waking = self.clone();
        move |haste| match (&*waking.waker.lock(), haste) {
            (Some(waker), Haste::Together) => waker.wake(),
            (Some(waker), Haste::Now) => waker.wake_now(),
            (None, _) => {}
        }
    }
}

impl Connection {
    /// Attaches to the queue and starts to dial. An embedded target ends with the connection.
    pub fn start(
        mut settings: Settings,
        around: Around,
        queue: Arc<Queue>,
        embedded: Option<Embedded>,
    ) -> std::io::Result<Connection> {
        let kept = settings.kept.clone();
        let shared = Shared::new(Report { kept, ..Report::before_an_answer(settings.is_known) });
        let attached = shared.attach_to(&queue, &mut settings.left);
        let (inbox, told) = unbounded();
        let sent = Arc::new(Sent::default());
        let (id, uuid, target) = (settings.id, settings.uuid.clone(), settings.target.clone());
        let driver = Driver::new(settings, around, queue, attached, shared.clone(), sent.clone());
        let thread =
            std::thread::Builder::new().name(format!("connection-{id}")).spawn(move || driver.run(&told))?;
        let thread = Mutex::new(Some(thread));
        Ok(Connection { id, uuid, target, sent, shared, inbox, thread, embedded: Mutex::new(embedded) })
    }

    /// Capture only: always in line, because it sends nothing.
    pub fn null(id: u32, uuid: String) -> Connection {
        Connection {
            id,
            uuid,
            target: Target::Null,
            sent: Arc::default(),
            shared: Shared::new(Report::new("captures and sends nothing")),
            inbox: unbounded().0,
            thread: Mutex::new(None),
            embedded: Mutex::new(None),
        }
    }

    pub fn is_null(&self) -> bool {
        matches!(self.target, Target::Null)
    }

    pub fn report(&self) -> Report {
        self.shared.report.lock().clone()
    }

    /// What is to stay of it over a restart.
    pub fn kept(&self) -> Kept {
        self.shared.report.lock().kept.clone()
    }

    /// Tells it what a person asks for. The outcome comes when the report says so, after the end of a
    /// network connection, some seconds at most; none comes from a connection that is over.
    ///
    /// Errors: why not; nothing has changed.
    pub fn command(&self, command: Command) -> Receiver<Result<(), NotNow>> {
        let (answer, answered) = bounded(1);
        let _ = self.inbox.send(Told::Command(command, answer));
        answered
    }

    /// As [`Connection::command`], of its copies.
    pub fn mirror(&self, command: MirrorCommand) -> Receiver<Result<(), NotNow>> {
        let (answer, answered) = bounded(1);
        let _ = self.inbox.send(Told::Mirror(command, answer));
        answered
    }

    /// As [`Connection::command`], of its schedule.
    pub fn schedule(&self, order: Order<SchedulePlan>) -> Receiver<Result<(), NotNow>> {
        let (answer, answered) = bounded(1);
        let _ = self.inbox.send(Told::Schedule(order, answer));
        answered
    }

    /// As [`Connection::command`], of its limit.
    pub fn limit(&self, order: Order<LimitPlan>) -> Receiver<Result<(), NotNow>> {
        let (answer, answered) = bounded(1);
        let _ = self.inbox.send(Told::Limit(order, answer));
        answered
    }

    /// As [`Connection::command`], of its compression.
    pub fn compression(&self, order: Order<Compression>) -> Receiver<Result<(), NotNow>> {
        let (answer, answered) = bounded(1);
        let _ = self.inbox.send(Told::Compression(order, answer));
        answered
    }

    /// It goes by these from now on, as far as no person has said anything else.
    pub fn follow(&self, terms: Terms) {
        let _ = self.inbox.send(Told::Terms(terms));
    }

    /// What a resynchronisation would take if it began now. Nothing comes from a connection that is over.
    pub fn foresee(&self) -> Receiver<Foreseen> {
        let (answer, answered) = bounded(1);
        let _ = self.inbox.send(Told::Foresee(answer));
        answered
    }

    /// Compares its replica. Nothing comes from a connection that is over.
    pub fn verify(&self, order: CheckOrder) -> Receiver<Outcome> {
        self.verify_for(order, None)
    }

    /// With its result all are made that were due by themselves up to this moment.
    pub fn verify_for(&self, order: CheckOrder, serves_s: Option<i64>) -> Receiver<Outcome> {
        let (reply, answered) = bounded(1);
        let _ = self.inbox.send(Told::Verify(CheckWish { order, serves_s, reply }));
        answered
    }

    /// Has a copy mend what a comparison has found: it has begun, or is awaited, when the answer comes.
    pub fn repair(&self, suspects: Suspects, part: Option<PathBuf>) -> Receiver<Result<(), String>> {
        let (answer, answered) = bounded(1);
        let _ = self.inbox.send(Told::Repair { suspects, part, answer });
        answered
    }

    /// Ends a comparison under way.
    pub fn stop_verifying(&self) {
        let _ = self.inbox.send(Told::StopVerifying);
    }

    /// The mount is gone: what is queued is sent, and no more is begun.
    pub fn drains(&self) {
        self.shared.drains.store(true, Relaxed);
    }

    /// Something comes here after its state has changed.
    pub fn news(&self) -> &Receiver<()> {
        &self.shared.news.1
    }

    /// From now on nothing that programs do gets past the mount: copies may begin.
    pub fn captured(&self) {
        let _ = self.inbox.send(Told::Captured);
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

    /// The replica of its embedded target, to be cloned, where it has one.
    pub fn unit(&self, set_name: &str) -> Option<Unit> {
        self.embedded.lock().as_ref().map(|embedded| embedded.unit(set_name))
    }

    /// Ends the network connection, the thread, and the embedded target.
    pub fn end(&self) {
        let _ = self.inbox.send(Told::End);
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            log::error!("a connection thread panicked");
        }
        drop(self.embedded.lock().take());
    }
}

impl Report {
    /// What a copy under way does, or one that is about to begin.
    pub fn mirror_shown(&self) -> MirrorStatus {
        match self.mirror {
            MirrorStatus::Idle | MirrorStatus::Stopped | MirrorStatus::Verifying | MirrorStatus::Complete
                if self.begins_copy =>
            {
                MirrorStatus::Calculating
            }
            shown => shown,
        }
    }

    /// Whether the target's word counts, and what it is.
    pub fn standing(&self) -> Standing {
        let in_line = self.streaming && self.data == DataState::Good;
        Standing { in_line, durable: self.durable, covers: self.covers }
    }

    /// Nothing comes through before a person acts, or a schedule, and what it waits for.
    pub fn held_back(&self) -> Option<&'static str> {
        self.stands_still().or(match (self.kept.wish.copies, self.kept.copy_paused) {
            (Copies::Stopped, _) => Some("copies to it are stopped"),
            (Copies::ByThemselves, true) => Some("its copy is paused"),
            (Copies::ByThemselves, false) => None,
        })
    }

    /// It is sent nothing at all before that.
    pub fn stands_still(&self) -> Option<&'static str> {
        match self.state {
            ConnectionState::Stopped => Some("it is stopped"),
            ConnectionState::Paused => Some("it is paused"),
            ConnectionState::Scheduled | ConnectionState::ScheduledAfterError => {
                Some("it waits for its schedule")
            }
            ConnectionState::Started | ConnectionState::Error => None,
        }
    }

    /// Nothing is known of its data yet: `data` is the worst that it can be. What was heard stays known when the link goes.
    pub fn is_unheard(&self) -> bool {
        !self.heard && self.data == DataState::Bad
    }

    fn before_an_answer(is_known: bool) -> Report {
        let report = Report::new("connecting");
        match is_known {
            true => Report {
                data: DataState::Bad,
                data_reason: "its target has not answered since the start".into(),
                ..report
            },
            false => report,
        }
    }

    pub(super) fn new(reason: &str) -> Report {
        Report {
            state: ConnectionState::Started,
            since: SystemTime::now(),
            reason: reason.into(),
            fault: None,
            refusal: None,
            attempts: 0,
            retry_at: None,
            needs_copy: None,
            lacks_copy: false,
            data: DataState::Empty,
            data_reason: String::new(),
            aside: AsideStatus::default(),
            withheld: WithheldCounts::default(),
            left_out: LeftOut::default(),
            orphans: None,
            mirror: MirrorStatus::Idle,
            begins_copy: false,
            copy_attempts: 0,
            covers: 0,
            applied: Sequence(0),
            durable: Sequence(0),
            retrying: None,
            connected: None,
            heard: false,
            link: LinkStats::default(),
            streaming: false,
            progress: None,
            mode: CopyMode::default(),
            is_minicopy: false,
            resync: None,
            part: None,
            is_comparison: false,
            base: None,
            rate: None,
            kept: Kept::default(),
            leaves: Leaves::Nothing,
            has_come: None,
            asks_deletes: false,
            schedule: None,
            limit: None,
            compression: None,
            markers: VecDeque::new(),
        }
    }
}
