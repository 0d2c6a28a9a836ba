//! What every target has, and waiting for it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;

use super::board::{Board, Posted};
use super::commands;
use super::connection::{Connection, Report};
use super::director::{Event, Question};
use super::ground::Ground;
use crate::connection::FaultKind;
use crate::control::{NoAnswer, SyncReport, SyncedConnection, WaitFor, ask};
use crate::failure::Failure;
use crate::packet::{DataState, Sequence};
use crate::queue::Queue;

/// How often a waiting call looks whether its caller is still there.
pub const CALLER_POLL: Duration = Duration::from_millis(200);

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upto {
    /// A barrier behind it, where one was put there: a target that has it has answered since.
    pub barrier: Sequence,
    /// The last change. Who is sent nothing hears of no barrier, and has everything with this one.
    pub change: Sequence,
}

impl Upto {
    /// Everything that is queued.
    pub fn queued(queue: &Queue) -> Upto {
        // In this order: what comes between the two is waited for, and not passed over.
        let change = queue.last_change();
        Upto { barrier: queue.last().sequence, change }
    }

    /// What is waited for of this target.
    pub fn of(self, report: &Report) -> Sequence {
        if report.stands_still().is_some() { self.change } else { self.barrier }
    }
}

/// A position that everything before this call is at or before: a barrier where the director comes to
/// it in time, and without one, when targets hear only later what is waited for.
pub fn barrier(
    ground: &Ground,
    director: &Sender<Event>,
    wait_for: WaitFor,
    patience: Duration,
) -> Result<Upto, Failure> {
    let durable = wait_for == WaitFor::Durable;
    let question = |answer| Event::Asked(Question::Barrier { durable, name: None, answer });
    match ask(director, patience, question).and_then(|asked| asked.within(patience)) {
        Ok(upto) => upto,
        Err(NoAnswer::Late) => Ok(Upto::queued(&ground.queue)),
        Err(why) => Err(why.into()),
    }
}

/// Waits until every target has everything up to `upto`, or the deadline, or `give_up`; not for
/// what only a person brings about (a connection that is stopped by hand). `mirrors`: for what a person has
/// started, too.
pub fn wait_for(
    (ground, board): (&Ground, &Board),
    upto: Upto,
    (wait_for, mirrors): (WaitFor, bool),
    deadline: Option<Instant>,
    give_up: impl Fn() -> bool,
) -> bool {
    for connection in board.read().connections.iter().filter(|connection| !connection.is_null()) {
        // What the disk lost no copy takes from the target.
        let is_diverged = || ground.volume.divergence().lost_by_disk().is_some();
        let settled = |report: &Report| {
            has(report, upto.of(report), wait_for)
                && !(mirrors && report.kept.mirror.is_some())
                && lacks_comparison(report, ground).is_none_or(|lack| !lack.is_awaited)
                || report.held_back().is_some()
                || report.fault == Some(FaultKind::KeptOut)
                || is_diverged() && reached(report, wait_for) >= upto.of(report)
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
    let has_all = |report: &Report| has(report, upto.of(report), wait_for);
    board.read().connections.iter().all(|connection| connection.is_null() || has_all(&connection.report()))
}

/// Nobody would hear of a barrier.
pub fn is_sent_nothing(connections: &[Arc<Connection>]) -> bool {
    let mut sent = connections.iter().filter(|connection| !connection.is_null()).peekable();
    sent.peek().is_some() && sent.all(|connection| connection.report().stands_still().is_some())
}

/// Brings writes through shared mappings into the queue. `false`: not before the deadline, or
/// `give_up`.
pub fn flush_mapped(
    posted: &Posted,
    deadline: Option<Instant>,
    give_up: impl Fn() -> bool,
) -> Result<bool, Failure> {
    let Some(flusher) = &posted.flusher else { return Ok(true) };
    flusher.flush(deadline, give_up).map_err(|why| {
        Failure::new(
            format!("Writes through shared mappings cannot be flushed: {why}."),
            "What was written in other ways goes on to the targets.",
            "See the log of the daemon.",
        )
    })
}

/// Whether a target has everything up to here.
pub fn has(report: &Report, upto: Sequence, wait_for: WaitFor) -> bool {
    // What it had said to have is worth nothing where it lost its place, or is another one now.
    let is_its_word = report.needs_copy.is_none() && !report.lacks_copy && report.refusal.is_none();
    is_its_word && report.data == DataState::Good && reached(report, wait_for) >= upto
}

/// What packets do not tell, and no copy has brought yet, as far as that is known.
pub struct Uncompared {
    pub why: Arc<str>,
    /// It comes by itself, soon; else everything is in doubt.
    pub is_awaited: bool,
}

/// The target hears of it a moment later.
pub fn lacks_comparison(report: &Report, ground: &Ground) -> Option<Uncompared> {
    let divergence = ground.volume.divergence();
    match divergence.misses(report.covers) {
        true => Some(Uncompared { why: divergence.why()?, is_awaited: false }),
        false if report.covers >= divergence.count() => None,
        false => Some(Uncompared { why: divergence.planned()?, is_awaited: true }),
    }
}

fn reached(report: &Report, wait_for: WaitFor) -> Sequence {
    match wait_for {
        WaitFor::Applied => report.applied,
        WaitFor::Durable => report.durable,
    }
}

/// How every target stands to a wait that began at `since`.
pub fn report(
    (ground, board): (&Ground, &Board),
    upto: Upto,
    wait_for: WaitFor,
    since: Instant,
) -> SyncReport {
    let posted = board.read();
    let connections: Vec<SyncedConnection> = posted
        .connections
        .iter()
        .map(|connection| {
            let report = connection.report();
            let last = upto.of(&report);
            // Capture only: there is nothing that could lag behind.
            let lacks = lacks_comparison(&report, ground);
            let is_wished = report.kept.mirror.is_some();
            let complete =
                connection.is_null() || lacks.is_none() && !is_wished && has(&report, last, wait_for);
            let waits_for = match () {
                () if complete => String::new(),
                () if let Some(Uncompared { why, is_awaited: false }) = &lacks => {
                    format!("a change that could not be captured ({why}): a copy finds it")
                }
                () if report.held_back().is_some() => commands::way_on(connection.id, &report),
                () if let Some(Uncompared { why, .. }) = &lacks => format!("a copy: {why}"),
                () if is_wished && has(&report, last, wait_for) => {
                    "a mirror that was started by hand, and compares the replica".into()
                }
                () if report.retrying.is_some() => "the target retries an op that it cannot perform".into(),
                () if !report.streaming => report.reason.clone(),
                () if report.data == DataState::Bad => {
                    format!("the replica is no consistent copy ({})", report.data_reason)
                }
                () => format!("packets {} to {last}", report.applied.next()),
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
    // What all are measured by, where they are measured by one.
    let upto = if is_sent_nothing(&posted.connections) { upto.change } else { upto.barrier };
    SyncReport { complete, upto, waited_ms: since.elapsed().as_millis() as u64, connections }
}

/// The kernel did not write shared mappings back in time: nobody has what they hold.
pub fn without_mapped_writes(mut report: SyncReport) -> SyncReport {
    report.complete = false;
    for connection in report.connections.iter_mut().filter(|connection| connection.complete) {
        connection.complete = false;
        connection.waits_for = "the flush of writes through shared mappings".into();
    }
    report
}
