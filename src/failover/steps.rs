//! Follows a failover: notes each step before the next one begins, and runs the commands between them.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use parking_lot::Mutex;

use super::journal::Journal;
use super::report::{Outcome, Point, Report, State, Step, StepReport};
use crate::commands::{Ended, Runner};
use crate::control::unix_ms;
use crate::failure::Failure;

/// How often it is asked whether the mount is served.
const ASKED_EVERY: Duration = Duration::from_millis(100);

const NOTHING_RAISED: &str =
    "Nothing was raised: the replica is as it was, and takes its source in as before.";

/// Commands of a person, for a shell.
#[derive(Clone, Debug, Default)]
pub struct Hooks {
    /// When everything is ready, before the epoch is raised.
    pub before: Option<String>,
    /// When the mount is served.
    pub after: Option<String>,
    /// Of each.
    pub timeout: Duration,
}

/// What is done with the report when it has come to its end.
pub type Tell = Box<dyn Fn(&Report) + Send>;

/// See the module.
pub struct Steps {
    kept: Arc<Mutex<Kept>>,
    hooks: Hooks,
    runner: Option<Runner>,
    /// Somebody asks for its end.
    stops: Receiver<()>,
    /// Whether the mount is served.
    is_served: Option<Box<dyn Fn() -> bool + Send>>,
    watcher: Option<(Sender<()>, JoinHandle<()>)>,
}

struct Kept {
    /// Until the report is kept: then the set's turn is free.
    journal: Option<Journal>,
    report: Report,
    /// The step that is under way, and since when.
    under_way: (Step, Instant, SystemTime),
    tell: Tell,
}

impl Steps {
    /// The preflight is over, and well. `runner` has the privileges that the commands need.
    ///
    /// Errors: it cannot be noted.
    pub fn begin(
        (journal, mut report): (Journal, Report),
        (hooks, runner): (Hooks, Runner),
        stops: Receiver<()>,
        is_served: Box<dyn Fn() -> bool + Send>,
        tell: Tell,
    ) -> std::io::Result<Steps> {
        journal.begin(&mut report)?;
        let under_way = (Step::Take, Instant::now(), SystemTime::now());
        let kept = Arc::new(Mutex::new(Kept { journal: Some(journal), report, under_way, tell }));
        let runner = Some(runner);
        Ok(Steps { kept, hooks, runner, stops, is_served: Some(is_served), watcher: None })
    }

    /// The replica is this host's alone, at rest and durable.
    ///
    /// Errors: the command before the change has failed, or nothing can be noted: nothing is to be raised.
    pub fn taken(&mut self, point: Point) -> Result<(), Failure> {
        let mut kept = self.kept.lock();
        kept.report.point = Some(point);
        let next = if self.hooks.before.is_some() { Step::Before } else { Step::Raise };
        kept.ended(Outcome::Done, None, next);
        kept.note()?;
        let own = kept.environment();
        drop(kept);
        if let (Some(command), Some(runner)) = (&self.hooks.before, &mut self.runner) {
            let ended = runner.run(command, self.hooks.timeout, &own, &self.stops);
            let failed = self.kept.lock().ran(command, ended);
            if let Some(why) = failed {
                return Err(Failure::new(
                    format!("The command before the change (--pre) {why}."),
                    NOTHING_RAISED,
                    "Mend what it says, undo what it has done, and give the same command again.",
                ));
            }
        }
        let mut kept = self.kept.lock();
        kept.begins(Step::Raise);
        kept.note()
    }

    /// From here on no source of a lower epoch is taken in. `goes_on`: since an earlier run.
    pub fn raised(&mut self, epoch: u32, goes_on: bool) {
        let mut kept = self.kept.lock();
        (kept.report.epoch, kept.report.goes_on) = (Some(epoch), goes_on);
        if kept.under_way.0 == Step::Take {
            kept.ended(Outcome::Done, None, Step::Raise);
        }
        kept.ended(Outcome::Done, None, Step::Serve);
        kept.note_as_far_as_it_goes();
        drop(kept);
        let (over, is_over) = bounded(1);
        let (Some(runner), Some(is_served)) = (self.runner.take(), self.is_served.take()) else { return };
        let (kept, hooks) = (self.kept.clone(), self.hooks.clone());
        let watch = move || serve_and_tell(&kept, &hooks, runner, &is_served, &is_over);
        match std::thread::Builder::new().name("failover".into()).spawn(watch) {
            Ok(watcher) => self.watcher = Some((over, watcher)),
            Err(error) => log::error!("the failover cannot be followed: {error}"),
        }
    }

    /// The protection has ended, or did not come up: `why`.
    pub fn over(mut self, why: Option<&Failure>) {
        if let Some((over, watcher)) = self.watcher.take() {
            drop(over);
            let _ = watcher.join();
        }
        let mut kept = self.kept.lock();
        if kept.report.state != State::Running {
            return;
        }
        // The command that has failed has said so already.
        if kept.under_way.0 != Step::Before {
            let outcome = if why.is_some() { Outcome::Failed } else { Outcome::Interrupted };
            let next = kept.under_way.0;
            kept.ended(outcome, why.map(|failure| failure.what.clone()), next);
        }
        kept.report.state = if why.is_some() { State::Failed } else { State::Interrupted };
        kept.keep();
    }
}

/// Waits until programs are served, then runs the command for that.
fn serve_and_tell(
    kept: &Mutex<Kept>,
    hooks: &Hooks,
    mut runner: Runner,
    is_served: &dyn Fn() -> bool,
    is_over: &Receiver<()>,
) {
    while !is_served() {
        match is_over.recv_timeout(ASKED_EVERY) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
        }
    }
    let mut at = kept.lock();
    at.ended(Outcome::Done, None, Step::After);
    at.note_as_far_as_it_goes();
    let own = at.environment();
    drop(at);
    if let Some(command) = &hooks.after {
        let ended = runner.run(command, hooks.timeout, &own, is_over);
        if let Some(why) = kept.lock().ran(command, ended) {
            log::error!("the command after the change (--post) {why}; the data are served");
        }
    }
    let mut kept = kept.lock();
    kept.report.state = State::Active;
    kept.keep();
}

impl Kept {
    fn begins(&mut self, step: Step) {
        self.under_way = (step, Instant::now(), SystemTime::now());
    }

    /// The step that is under way has ended, and the next one begins.
    fn ended(&mut self, outcome: Outcome, reason: Option<String>, next: Step) {
        self.push(StepReport { reason, ..self.step(outcome) });
        self.begins(next);
    }

    fn step(&self, outcome: Outcome) -> StepReport {
        let (step, since, started) = self.under_way;
        StepReport {
            step,
            started_unix_ms: unix_ms(started),
            length_ms: since.elapsed().as_millis() as u64,
            outcome,
            command: None,
            ended: None,
            reason: None,
        }
    }

    fn push(&mut self, step: StepReport) {
        self.report.steps.push(step);
        self.report.ended_unix_ms = Some(unix_ms(SystemTime::now()));
    }

    /// A command has ended; why it is no success.
    fn ran(&mut self, command: &str, ended: std::io::Result<Option<Ended>>) -> Option<String> {
        let (outcome, ended, why) = match ended {
            Ok(Some(ended)) if ended.is_success() => (Outcome::Done, Some(ended), None),
            Ok(Some(ended)) => {
                let why = format!("has failed{}", ended.words());
                (Outcome::Failed, Some(ended), Some(why))
            }
            Ok(None) => (Outcome::Interrupted, None, Some("was interrupted".to_owned())),
            Err(error) => (Outcome::Failed, None, Some(format!("could not be run: {error}"))),
        };
        let reason = why.clone().filter(|_| ended.is_none());
        self.push(StepReport { command: Some(command.to_owned()), ended, reason, ..self.step(outcome) });
        why
    }

    fn note(&self) -> Result<(), Failure> {
        let Some(journal) = &self.journal else { return Ok(()) };
        journal.note(&self.report).map_err(|error| {
            Failure::new(
                format!("The failover cannot be noted: {error}."),
                NOTHING_RAISED,
                "Make room where the state directory is.",
            )
        })
    }

    /// What is done is done: a disk that is full must not keep programs from being served.
    fn note_as_far_as_it_goes(&self) {
        if let Err(failure) = self.note() {
            log::warn!("{}", failure.what);
        }
    }

    fn keep(&mut self) {
        if let Some(Err(error)) = self.journal.take().map(|journal| journal.keep(&self.report)) {
            log::warn!("the report of the failover cannot be kept: {error}");
        }
        (self.tell)(&self.report);
    }

    /// Of each command.
    fn environment(&self) -> Vec<(&'static str, String)> {
        let report = &self.report;
        let point = report.point.as_ref();
        let age = point.and_then(|point| point.age_ms(unix_ms(SystemTime::now())));
        vec![
            ("STANDIN_FAILOVER", report.number.to_string()),
            ("STANDIN_FAILOVER_SET", report.set.clone()),
            ("STANDIN_FAILOVER_REPLICA", report.replica.clone()),
            ("STANDIN_FAILOVER_AT", report.at.clone()),
            ("STANDIN_FAILOVER_POSITION", point.map_or_else(String::new, |point| point.packet.to_string())),
            (
                "STANDIN_FAILOVER_AGE",
                age.map_or_else(String::new, |age| format!("{:.1}", age as f64 / 1000.0)),
            ),
            ("STANDIN_FAILOVER_EPOCH", report.epoch.map_or_else(String::new, |epoch| epoch.to_string())),
        ]
    }
}
