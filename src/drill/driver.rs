//! Performs the steps of a drill. Before the first of them a record lies on the disk, so that a drill whose command
//! was killed is cleaned up by the next one.

use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, Sender};

use super::group;
use super::inside::{Bad, Inside, rest};
use super::isolation::{Wanted, namespaces};
use super::journal::{Journal, Record, Turn};
use super::lag::{self, Lag};
use super::limits::LAG_EVERY;
use super::plan::{At, Machine, Outcome, Step};
use super::recovery::{find, remove};
use super::report::{Point, Report, StepReport};
use super::request::Request;
use super::written;
use crate::commands::Ended;
use crate::control::{CloneStatus, unix_ms};
use crate::failure::Failure;
use crate::sys::Network;

/// The daemon that holds the replica, as far as a drill needs it.
pub trait Cloning {
    fn start(&self, name: &str, directory: &std::path::Path) -> Result<(), Failure>;

    /// The clone of this name; `None` where there is none.
    fn find(&self, name: &str) -> Result<Option<CloneStatus>, Failure>;

    /// Ends it and removes it, whatever state it is in.
    fn remove(&self, name: &str) -> Result<(), Failure>;

    /// By this host's clock: the replica has everything up to this moment of its source. `None`: that is not known.
    fn as_of_unix_ms(&self) -> Option<u64>;
}

/// A drill that runs.
pub struct Drill<'a> {
    pub request: Request,
    pub cloning: &'a (dyn Cloning + Sync),
    pub journal: &'a Journal,
    pub record: Record,
    /// Somebody asks for its end.
    pub stops: Receiver<()>,
    /// Says to a person how far it is.
    pub tell: &'a dyn Fn(&str),
    /// It is open.
    pub opened: &'a dyn Fn(&Report),
    /// Held as long as it runs.
    pub turn: Turn,
}

/// What is there while it runs.
pub(super) struct Under {
    pub(super) machine: Machine,
    begun: Instant,
    pub(super) inside: Option<Inside>,
}

impl Drill<'_> {
    /// Performs it to its end, whatever happens; gives what is kept of it.
    ///
    /// Errors: the state directory cannot be written. What was made before is cleaned up.
    pub fn run(mut self) -> std::io::Result<Report> {
        self.journal.note(&self.record)?;
        let (cloning, (over, is_over)) = (self.cloning, crossbeam_channel::bounded(0));
        let lag = std::thread::scope(|scope| {
            let watched = scope.spawn(|| lag::watch(cloning, LAG_EVERY, &is_over));
            self.perform_all();
            drop::<Sender<()>>(over);
            watched.join().ok()
        });
        let lag = lag.map(|lag| Lag { after_ms: lag::now(cloning), ..lag });
        let report = &mut self.record.report;
        report.lag = lag;
        report.ended_unix_ms = unix_ms(SystemTime::now());
        match report.left {
            // The next command tries again.
            Some(_) => self.journal.note(&self.record)?,
            None => self.journal.keep(&mut self.record.report)?,
        }
        Ok(self.record.report)
    }

    /// Step by step; the report has its verdict afterwards.
    fn perform_all(&mut self) {
        let machine = Machine::new(self.request.plan());
        let mut under = Under { machine, begun: Instant::now(), inside: None };
        while let Some(at @ (step, _)) = under.machine.at() {
            (self.tell)(&step.to_string());
            let report = self.perform(at, &mut under);
            under.machine.ended(report.outcome);
            self.record.report.steps.push(report);
            self.note_times(step, &under);
            self.record.report.could_not = under.machine.could_not();
            // Before it is cleaned up a failed write must not keep it from that.
            if let Err(error) = self.journal.note(&self.record) {
                log::warn!("the record of the drill cannot be written: {error}");
            }
        }
        self.record.report.verdict = Some(under.machine.verdict());
    }

    fn note_times(&mut self, step: Step, under: &Under) {
        let now = under.begun.elapsed().as_millis() as u64;
        let next = under.machine.at().map(|(step, _)| step);
        let report = &mut self.record.report;
        let was_done = report.steps.last().is_some_and(|step| step.outcome == Outcome::Done);
        match step {
            Step::Isolate | Step::Start | Step::Ready if was_done => match next {
                Some(Step::Start | Step::Ready) => {}
                _ => report.usable_after_ms = Some(now),
            },
            Step::Check(_) => report.checked_after_ms = Some(now),
            Step::Clone
            | Step::Isolate
            | Step::Start
            | Step::Ready
            | Step::Open
            | Step::Stop
            | Step::Prove
            | Step::Before
            | Step::CleanUp
            | Step::After => {}
        }
    }

    fn perform(&mut self, at: At, under: &mut Under) -> StepReport {
        let (begun, started_unix_ms) = (Instant::now(), unix_ms(SystemTime::now()));
        let step = at.0;
        let (command, name) =
            (self.request.command(at), self.request.check(step).and_then(|check| check.name.clone()));
        let typed = command.as_deref().unwrap_or_default();
        let (mut ended, mut tries) = (None, 0);
        let outcome = match step {
            Step::Clone => self.clone(),
            Step::Isolate => self.isolate(under),
            Step::Start | Step::Check(_) | Step::Stop => {
                let timeout = self.request.check(step).map_or(self.request.timeout, |check| check.timeout);
                self.command_once(under, (typed, timeout), &mut ended)
            }
            Step::Ready => self.probe(under, typed, (&mut ended, &mut tries)),
            Step::Before | Step::After => self.hook(under.machine.verdict(), typed, &mut ended),
            Step::Open => self.stay_open(under),
            Step::Prove => self.prove(under),
            Step::CleanUp => self.clean_up(under),
        };
        let (outcome, reason) = match outcome {
            Ok(()) => (Outcome::Done, None),
            Err(Bad::Interrupted) => (Outcome::Interrupted, None),
            Err(Bad::Failed(reason)) => (Outcome::Failed, (!reason.is_empty()).then_some(reason)),
        };
        let length_ms = begun.elapsed().as_millis() as u64;
        StepReport { step, name, command, started_unix_ms, length_ms, outcome, ended, tries, reason }
    }

    fn clone(&mut self) -> Result<(), Bad> {
        let name = self.record.report.name.clone();
        let directory = PathBuf::from(&self.record.report.clone.directory);
        let as_of = self.cloning.as_of_unix_ms();
        self.cloning.start(&name, &directory)?;
        self.record.is_begun = true;
        self.journal
            .note(&self.record)
            .map_err(|error| Bad::Failed(format!("it cannot be noted: {error}")))?;
        let deadline = Instant::now() + self.request.clone_timeout;
        let clone = loop {
            let Some(clone) = find(self.cloning, &self.record.report)? else {
                return Err(Bad::Failed("somebody has stopped the clone".into()));
            };
            match clone.state.as_str() {
                "SYNCHRONIZING" if Instant::now() >= deadline => {
                    return Err(Bad::Failed("the clone was not complete in time (--clone-timeout)".into()));
                }
                "SYNCHRONIZING" => rest(&self.stops)?,
                _ if clone.usable => break clone,
                _ => return Err(Bad::Failed(clone.reason.unwrap_or_else(|| "the clone has failed".into()))),
            }
        };
        let taken_unix_ms = clone.started_unix_ms;
        let age_ms = as_of.map(|as_of| taken_unix_ms.saturating_sub(as_of));
        self.record.report.point = Some(Point { packet: clone.position, taken_unix_ms, age_ms });
        self.record.report.clone.bytes_copied = clone.bytes_copied;
        self.record.report.clone.longest_hold_us = clone.longest_hold_us;
        Ok(())
    }

    fn isolate(&mut self, under: &mut Under) -> Result<(), Bad> {
        let mut inside = self.noted(under)?;
        let isolation = inside.arrange(&self.wanted(), Duration::ZERO)?;
        self.record.report.isolation = Some(isolation);
        under.inside = Some(inside);
        Ok(())
    }

    /// Namespaces whose first process is on record.
    pub(super) fn noted(&mut self, under: &mut Under) -> Result<Inside, Bad> {
        under.inside = None;
        let inside = Inside::begin(self.request.network, &self.stops)?;
        self.limit(inside.pid());
        self.record.process = super::journal::begun(inside.pid()).map(|begun| (inside.pid(), begun));
        self.journal
            .note(&self.record)
            .map_err(|error| Bad::Failed(format!("it cannot be noted: {error}")))?;
        Ok(inside)
    }

    /// Before anything runs in there.
    fn limit(&mut self, pid: u32) {
        let Report { name, limits, .. } = &mut self.record.report;
        let limited = limits.get_or_insert_with(|| group::make(name, &self.request.limits));
        let Some(group) = &limited.group else { return };
        if let Err(error) = group::join(group, pid) {
            *limited = limited.without_group(&format!("it cannot be entered: {error}"));
        }
    }

    pub(super) fn wanted(&self) -> Wanted {
        Wanted {
            clone: PathBuf::from(&self.record.report.clone.directory),
            at: self.request.at.clone(),
            hidden: self.request.hidden.clone(),
            shown: self.request.shown.clone(),
            has_own_network: self.request.network == Network::Own,
            watches: false,
            damage: Vec::new(),
            outside: namespaces(),
            environment: self.record.report.environment(),
        }
    }

    /// Until somebody asks for its end.
    fn stay_open(&mut self, under: &mut Under) -> Result<(), Bad> {
        self.record.is_open = true;
        let noted = self.journal.note(&self.record);
        noted.map_err(|error| Bad::Failed(format!("it cannot be noted: {error}")))?;
        (self.opened)(&self.record.report);
        let ended = under.inside()?.until_asked();
        self.record.is_open = false;
        ended
    }

    fn command_once(
        &self,
        under: &mut Under,
        (command, timeout): (&str, Duration),
        last: &mut Option<Ended>,
    ) -> Result<(), Bad> {
        let ended = under.inside()?.run(command, timeout)?;
        let is_success = ended.is_success();
        *last = Some(ended);
        if is_success { Ok(()) } else { Err(Bad::Failed(String::new())) }
    }

    fn probe(
        &self,
        under: &mut Under,
        command: &str,
        last: (&mut Option<Ended>, &mut u32),
    ) -> Result<(), Bad> {
        match under.inside()?.probe(command, self.request.timeout, last)? {
            true => Ok(()),
            false => Err(Bad::Failed("it was not ready in time".into())),
        }
    }

    /// By its commands, and by those who came in from outside and have left again.
    pub(super) fn written(&self, first: u32) -> Option<u64> {
        let by_visitors = self.journal.written(self.record.report.number);
        written::by_all_with(first).map(|bytes| bytes.saturating_add(by_visitors))
    }

    fn clean_up(&mut self, under: &mut Under) -> Result<(), Bad> {
        if let Some(inside) = &under.inside {
            self.record.report.clone.bytes_written = self.written(inside.pid());
        }
        // Returns when every process of it has gone, and with them its mounts.
        under.inside = None;
        self.record.process = None;
        let ungrouped = group::remove(&self.record.report.name);
        let is_wanted = self.record.keeps && self.record.report.point.is_some();
        self.record.report.clone.kept = is_wanted;
        let removed = match is_wanted {
            true => ungrouped,
            false => remove(self.cloning, &self.record.report).and(ungrouped),
        };
        self.record.report.left = removed.as_ref().err().cloned();
        removed.map_err(Bad::Failed)
    }
}

impl Under {
    fn inside(&mut self) -> Result<&mut Inside, Bad> {
        self.inside.as_mut().ok_or_else(|| Bad::Failed("there is no isolation".into()))
    }
}
