//! The running source: what the control socket, the signals and the start-up share.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

use super::commands;
use super::connection::{Connection, Report};
use super::durability::TargetDurability;
use super::flush::Flusher;
use super::mark::Mark;
use super::mount_options::BackingMount;
use super::options::ProtectOptions;
use super::state::SetState;
use crate::control::{
    Caller, ChangedConnection, ConnectionChange, Handler, Phase, ProcessMeter, Status, StopMode, StopReport,
    SyncReport, SyncedConnection, WaitFor, WaitSync,
};
use crate::failure::Failure;
use crate::intercept::{Serving, Volume};
use crate::link::Fingerprint;
use crate::packet::{DataState, Op, Sequence};
use crate::preflight::{Claim, Ways};
use crate::queue::{Draft, Queue};

/// How often a waiting call looks whether its caller is still there.
const CALLER_POLL: Duration = Duration::from_millis(200);

/// The one owner of a protected directory.
pub struct Daemon {
    pub options: ProtectOptions,
    pub volume: Arc<Volume>,
    pub queue: Arc<Queue>,
    /// Any descriptor of the backing directory, past the mount.
    pub backing: std::os::fd::OwnedFd,
    /// On the backing directory; gone with [`Daemon::let_go`].
    pub claim: Mutex<Option<Claim>>,
    /// The mount of the daemon's own that it is reached by.
    pub view: std::os::fd::OwnedFd,
    /// Where the backing really is mounted; `None` where that cannot be seen.
    pub backing_mount: Option<BackingMount>,
    pub started: SystemTime,
    pub meter: ProcessMeter,
    pub state: Mutex<SetState>,
    /// This host's key, where a target on another host knows it.
    pub fingerprint: Option<Fingerprint>,
    pub connections: Mutex<Vec<Arc<Connection>>>,
    /// With `--fsync=target`.
    pub durability: Option<Arc<TargetDurability>>,
    /// There as soon as the mount serves.
    pub flusher: OnceLock<Flusher>,
    pub life: Mutex<Life>,
    pub life_changed: Condvar,
    /// The last barrier of [`Daemon::barrier`], and whether it asked for durability.
    pub last_barrier: Mutex<Option<(Sequence, bool)>>,
    /// What stands in the way between programs and the mount, if something does.
    pub mount_lost: Mutex<Option<String>>,
    /// How programs may get past the mount.
    pub ways: Ways,
    /// Why the mount lacks options of the backing's, if it does.
    pub options_trouble: Mutex<Option<String>>,
    /// What a person was told at the start, for the status.
    pub warnings: Vec<String>,
}

/// What was noted by [`Daemon::note_synced`], and what is to be noted next.
#[derive(Default)]
pub struct SyncNotes {
    /// A moment, until every change that may have begun before it is in the queue.
    moment: Option<Mark>,
    /// Per connection, by its number.
    notes: BTreeMap<u32, SyncNote>,
}

#[derive(Clone, Default)]
struct SyncNote {
    noted: Sequence,
    /// Once everything up to here is durable, the target had everything as of this moment.
    asked: Option<(Sequence, Mark)>,
}

/// Where the daemon is in its life.
pub struct Life {
    pub phase: Phase,
    pub serving: Option<Serving>,
    /// A stop ended; what it left.
    pub stopped: Option<StopReport>,
}

impl Daemon {
    pub fn phase(&self) -> Phase {
        self.life.lock().phase
    }

    /// The connections that there are now.
    pub fn connections(&self) -> Vec<Arc<Connection>> {
        self.connections.lock().clone()
    }

    pub fn set_phase(&self, phase: Phase) {
        self.life.lock().phase = phase;
        self.life_changed.notify_all();
    }

    /// The end: nothing of the replicas and of the state is in use afterwards.
    pub fn let_go(&self) {
        self.durability.iter().for_each(|durability| durability.end());
        self.connections().iter().for_each(|connection| connection.end());
        self.queue.close();
        self.state.lock().unlock();
        *self.claim.lock() = None;
    }

    /// Puts a barrier into the stream; everything before it is what its position means.
    ///
    /// Never waits for room: a full queue must not keep a stop or a waiting call beyond its time.
    /// While nothing came after the last barrier that one serves again, so that many calls on a
    /// full queue add nothing.
    pub fn barrier(&self, durable: bool) -> Result<Sequence, Failure> {
        let mut last_barrier = self.last_barrier.lock();
        if let Some((sequence, was_durable)) = *last_barrier
            && sequence == self.queue.last().sequence
            && (was_durable || !durable)
        {
            return Ok(sequence);
        }
        let closed = |_| Failure::new("The daemon is stopping.", "Nothing was changed.", "");
        let mut room = self.queue.reserve_beyond(64).map_err(closed)?;
        let position = self.queue.append(&mut room, Draft::new(b"", &Op::Barrier { durable }, Bytes::new()));
        *last_barrier = Some((position.sequence, durable));
        Ok(position.sequence)
    }

    /// Waits until every target has everything up to `upto`, or the deadline, or `give_up`; not
    /// for what only a person brings about (a connection that is stopped by hand).
    pub fn wait_for(
        &self,
        upto: Sequence,
        wait_for: WaitFor,
        deadline: Option<Instant>,
        give_up: impl Fn() -> bool,
    ) -> bool {
        for connection in self.connections().iter().filter(|connection| !connection.is_null()) {
            let is_diverged = || self.volume.divergence().why().is_some();
            let settled = |report: &Report| {
                has(report, upto, wait_for)
                    || report.held_back().is_some()
                    || is_diverged() && reached(report, wait_for) >= upto
            };
            loop {
                let slice = Instant::now() + CALLER_POLL;
                let report = connection.wait(deadline.map_or(slice, |deadline| deadline.min(slice)), settled);
                let is_over = deadline.is_some_and(|deadline| Instant::now() >= deadline);
                if settled(&report) || is_over || give_up() {
                    break;
                }
            }
        }
        self.connections()
            .iter()
            .all(|connection| connection.is_null() || has(&connection.report(), upto, wait_for))
    }

    /// Notes for each target until when it had everything, so that after a crash only what
    /// changed later has to be copied again. Called now and then; never waits.
    ///
    /// A note says nothing of the source's own disk: it counts only where the page cache that it
    /// speaks of is proved to have survived (see [`super::mark`]).
    pub fn note_synced(&self, notes: &mut SyncNotes) {
        if self.note_divergence() {
            return;
        }
        for connection in self.connections() {
            let note = notes.notes.entry(connection.id).or_default();
            let Some((upto, mark)) = note.asked.take() else { continue };
            if !has(&connection.report(), upto, WaitFor::Durable) {
                note.asked = Some((upto, mark));
                continue;
            }
            let mut state = self.state.lock();
            state.record.marks.insert(connection.target.to_string(), mark);
            if let Err(error) = state.save() {
                log::warn!("the set's record could not be written: {error}");
            }
            note.noted = upto;
        }
        self.ask_for_note(notes);
    }

    /// Takes a moment, and once no change is under way that began before it, the last position as
    /// what belongs to it: a change gets its time before its place in the queue.
    fn ask_for_note(&self, notes: &mut SyncNotes) {
        if let Some(mark) = notes.moment.take() {
            if !self.volume.earlier_changes_are_over() {
                notes.moment = Some(mark);
                return;
            }
            let last = self.queue.last().sequence;
            for note in notes.notes.values_mut().filter(|note| note.asked.is_none() && last > note.noted) {
                note.asked = Some((last, mark.clone()));
            }
        }
        let mark = Mark::now();
        if self.volume.tell_changes_apart() {
            notes.moment = Some(mark);
        }
    }

    /// The clock was set: what was noted by it before is worth nothing.
    pub fn clock_was_set(&self, notes: &mut SyncNotes) {
        log::warn!("the clock was set: until targets are up to date again, everything counts as changed");
        *notes = SyncNotes::default();
        let mut state = self.state.lock();
        state.record.marks.clear();
        if let Err(error) = state.save() {
            log::error!("the set's record could not be written: {error}");
        }
    }

    /// Makes it durable that a change could not be captured, if one could not: from then on no
    /// target is noted to have everything. Answers whether that is so.
    pub fn note_divergence(&self) -> bool {
        let Some(why) = self.volume.divergence().why() else { return false };
        let mut state = self.state.lock();
        if state.diverge(why)
            && let Err(error) = state.save()
        {
            // Tried again until it is on disk.
            state.record.diverged = None;
            log::error!("the set's record does not take that everything has to be compared: {error}");
        }
        true
    }

    /// Every target was compared with everything.
    pub fn forget_divergence(&self) {
        let mut state = self.state.lock();
        if state.record.diverged.take().is_some()
            && let Err(error) = state.save()
        {
            log::warn!("the set's record could not be written, the next start compares everything: {error}");
        }
    }

    /// Brings writes through shared mappings into the queue. `false`: not before the deadline, or
    /// `give_up`.
    pub fn flush_mapped(
        &self,
        deadline: Option<Instant>,
        give_up: impl Fn() -> bool,
    ) -> Result<bool, Failure> {
        let Some(flusher) = self.flusher.get() else { return Ok(true) };
        flusher.flush(deadline, give_up).map_err(|why| {
            Failure::new(
                format!("Writes through shared mappings cannot be flushed: {why}."),
                "What was written in other ways goes on to the targets.",
                "See the log of the daemon.",
            )
        })
    }

    fn sync_report(&self, upto: Sequence, wait_for: WaitFor, since: Instant) -> SyncReport {
        let diverged = self.volume.divergence().why();
        let connections: Vec<SyncedConnection> = self
            .connections()
            .iter()
            .map(|connection| {
                let report = connection.report();
                // Capture only: there is nothing that could lag behind.
                let complete = connection.is_null() || diverged.is_none() && has(&report, upto, wait_for);
                let waits_for = match () {
                    () if complete => String::new(),
                    () if let Some(why) = diverged => {
                        format!("a change that could not be captured ({why}): stop and start the protection")
                    }
                    () if report.held_back().is_some() => commands::way_on(connection.id, &report),
                    () if report.retrying.is_some() => {
                        "the target retries an op that it cannot perform".into()
                    }
                    () if !report.streaming => report.reason.clone(),
                    () if report.data == DataState::Bad => {
                        format!("the replica is no consistent copy ({})", report.data_reason)
                    }
                    () => format!("packets {} to {upto}", report.applied.next()),
                };
                SyncedConnection {
                    id: connection.id,
                    target: connection.target.to_string(),
                    complete,
                    applied: report.applied,
                    durable: report.durable,
                    waits_for,
                }
            })
            .collect();
        // Without a target nobody has anything.
        let complete = !connections.is_empty() && connections.iter().all(|connection| connection.complete);
        SyncReport { complete, upto, waited_ms: since.elapsed().as_millis() as u64, connections }
    }
}

/// The kernel did not write shared mappings back in time: nobody has what they hold.
fn without_mapped_writes(mut report: SyncReport) -> SyncReport {
    report.complete = false;
    for connection in report.connections.iter_mut().filter(|connection| connection.complete) {
        connection.complete = false;
        connection.waits_for = "the flush of writes through shared mappings".into();
    }
    report
}

/// Whether a target has everything up to here.
pub(super) fn has(report: &Report, upto: Sequence, wait_for: WaitFor) -> bool {
    // What it had said to have is worth nothing where it lost its place.
    report.needs_copy.is_none() && report.data == DataState::Good && reached(report, wait_for) >= upto
}

fn reached(report: &Report, wait_for: WaitFor) -> Sequence {
    match wait_for {
        WaitFor::Applied => report.applied,
        WaitFor::Durable => report.durable,
    }
}

impl Handler for Daemon {
    fn status(&self) -> Status {
        super::status::status(self)
    }

    fn wait_sync(&self, wait: WaitSync, caller: &Caller<'_>) -> Result<SyncReport, Failure> {
        if self.connections.lock().is_empty() && !self.options.targets.is_empty() {
            return Err(commands::none_left());
        }
        let since = Instant::now();
        let deadline = wait.timeout.map(|timeout| since + timeout);
        if !self.flush_mapped(deadline, || caller.is_gone())? {
            let report = self.sync_report(self.queue.last().sequence, wait.wait_for, since);
            return Ok(without_mapped_writes(report));
        }
        let upto = self.barrier(wait.wait_for == WaitFor::Durable)?;
        self.wait_for(upto, wait.wait_for, deadline, || caller.is_gone());
        Ok(self.sync_report(upto, wait.wait_for, since))
    }

    fn stop(&self, mode: StopMode, _caller: &Caller<'_>) -> Result<StopReport, Failure> {
        self.stop_serving(mode)
    }

    fn connection(
        &self,
        change: ConnectionChange,
        which: Option<&str>,
    ) -> Result<ChangedConnection, Failure> {
        self.change_connection(change, which)
    }
}
