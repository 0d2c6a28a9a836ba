//! Performs the steps of a drill. Before the first of them a record lies on the disk, so that a drill whose command
//! was killed is cleaned up by the next one.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::Receiver;

use super::inside::{Bad, Inside, rest};
use super::isolation::{Wanted, namespaces};
use super::journal::{Journal, Record, Turn};
use super::plan::{Machine, Outcome, Plan, Step};
use super::recovery::{find, remove};
use super::report::{Point, Report, StepReport};
use crate::commands::{Ended, environment};
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

/// What is to be done, checked by who asks.
pub struct Request {
    pub at: PathBuf,
    pub start: Option<String>,
    pub ready: Option<String>,
    pub checks: Vec<String>,
    pub stop: Option<String>,
    /// It is tried whether the checks fail on damaged data.
    pub proves: bool,
    /// Of each command.
    pub timeout: Duration,
    pub clone_timeout: Duration,
    pub network: Network,
    pub hidden: Vec<PathBuf>,
    /// Places of the host to be seen though something is mounted there.
    pub shown: Vec<PathBuf>,
}

/// A drill that runs.
pub struct Drill<'a> {
    pub request: Request,
    pub cloning: &'a dyn Cloning,
    pub journal: &'a Journal,
    pub record: Record,
    /// Somebody asks for its end.
    pub stops: Receiver<()>,
    /// Says to a person how far it is.
    pub tell: &'a dyn Fn(&str),
    /// Held as long as it runs.
    pub turn: Turn,
}

/// What is there while it runs.
pub(super) struct Under {
    machine: Machine,
    begun: Instant,
    pub(super) inside: Option<Inside>,
    age_ms: Option<u64>,
}

impl Drill<'_> {
    /// Performs it to its end, whatever happens; gives what is kept of it.
    ///
    /// Errors: the state directory cannot be written. What was made before is cleaned up.
    pub fn run(mut self) -> std::io::Result<Report> {
        self.journal.note(&self.record)?;
        let plan = Plan {
            starts: self.request.start.is_some(),
            probes: self.request.ready.is_some(),
            checks: self.request.checks.len() as u32,
            stops: self.request.stop.is_some(),
            proves: self.request.proves,
        };
        let mut under =
            Under { machine: Machine::new(plan), begun: Instant::now(), inside: None, age_ms: None };
        while let Some(step) = under.machine.step() {
            (self.tell)(&step.to_string());
            let report = self.perform(step, &mut under);
            under.machine.ended(report.outcome);
            self.record.report.steps.push(report);
            self.note_times(step, &under);
            self.record.report.could_not = under.machine.could_not();
            // Before it is cleaned up a failed write must not keep it from that.
            if let Err(error) = self.journal.note(&self.record) {
                log::warn!("the record of the drill cannot be written: {error}");
            }
        }
        let report = &mut self.record.report;
        report.verdict = Some(under.machine.verdict());
        report.ended_unix_ms = unix_ms(SystemTime::now());
        match report.left {
            // The next command tries again.
            Some(_) => self.journal.note(&self.record)?,
            None => self.journal.keep(&mut self.record.report)?,
        }
        Ok(self.record.report)
    }

    fn note_times(&mut self, step: Step, under: &Under) {
        let now = under.begun.elapsed().as_millis() as u64;
        let next = under.machine.step();
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
            | Step::Stop
            | Step::Prove
            | Step::CleanUp => {}
        }
    }

    fn perform(&mut self, step: Step, under: &mut Under) -> StepReport {
        let (begun, started_unix_ms) = (Instant::now(), unix_ms(SystemTime::now()));
        let command = self.command(step);
        let (mut ended, mut tries) = (None, 0);
        let outcome = match step {
            Step::Clone => self.clone(),
            Step::Isolate => self.isolate(under),
            Step::Start | Step::Check(_) | Step::Stop => {
                self.command_once(under, command.as_deref().unwrap_or_default(), &mut ended)
            }
            Step::Ready => {
                self.probe(under, command.as_deref().unwrap_or_default(), (&mut ended, &mut tries))
            }
            Step::Prove => self.prove(under),
            Step::CleanUp => self.clean_up(under),
        };
        let (outcome, reason) = match outcome {
            Ok(()) => (Outcome::Done, None),
            Err(Bad::Interrupted) => (Outcome::Interrupted, None),
            Err(Bad::Failed(reason)) => (Outcome::Failed, (!reason.is_empty()).then_some(reason)),
        };
        let length_ms = begun.elapsed().as_millis() as u64;
        StepReport { step, command, started_unix_ms, length_ms, outcome, ended, tries, reason }
    }

    fn command(&self, step: Step) -> Option<String> {
        let request = &self.request;
        match step {
            Step::Start => request.start.clone(),
            Step::Ready => request.ready.clone(),
            Step::Check(number) => request.checks.get(number as usize - 1).cloned(),
            Step::Stop => request.stop.clone(),
            Step::Clone | Step::Isolate | Step::Prove | Step::CleanUp => None,
        }
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
        under.age_ms = self.record.report.point.as_ref().and_then(|point| point.age_ms);
        let mut inside = self.noted(under)?;
        let isolation = inside.arrange(&self.wanted(under), Duration::ZERO)?;
        self.record.report.isolation = Some(isolation);
        under.inside = Some(inside);
        Ok(())
    }

    /// Namespaces whose first process is on record.
    pub(super) fn noted(&mut self, under: &mut Under) -> Result<Inside, Bad> {
        under.inside = None;
        let inside = Inside::begin(self.request.network, &self.stops)?;
        self.record.process = super::journal::begun(inside.pid()).map(|begun| (inside.pid(), begun));
        self.journal
            .note(&self.record)
            .map_err(|error| Bad::Failed(format!("it cannot be noted: {error}")))?;
        Ok(inside)
    }

    pub(super) fn wanted(&self, under: &Under) -> Wanted {
        Wanted {
            clone: PathBuf::from(&self.record.report.clone.directory),
            at: self.request.at.clone(),
            hidden: self.request.hidden.clone(),
            shown: self.request.shown.clone(),
            has_own_network: self.request.network == Network::Own,
            watches: false,
            damage: Vec::new(),
            outside: namespaces(),
            environment: self.environment(under),
        }
    }

    fn environment(&self, under: &Under) -> BTreeMap<String, String> {
        let report = &self.record.report;
        let point = report.point.as_ref().map(|point| point.packet.to_string());
        let age = under.age_ms.map(|age| format!("{:.1}", age as f64 / 1000.0));
        environment(&[
            ("STANDIN_DRILL", "1".into()),
            ("STANDIN_DRILL_NAME", report.name.clone()),
            ("STANDIN_DRILL_SET", report.set.clone()),
            ("STANDIN_DRILL_PATH", report.at.clone()),
            ("STANDIN_DRILL_POSITION", point.unwrap_or_default()),
            ("STANDIN_DRILL_AGE", age.unwrap_or_default()),
        ])
    }

    fn command_once(&self, under: &mut Under, command: &str, last: &mut Option<Ended>) -> Result<(), Bad> {
        let ended = under.inside()?.run(command, self.request.timeout)?;
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

    fn clean_up(&mut self, under: &mut Under) -> Result<(), Bad> {
        // Returns when every process of it has gone, and with them its mounts.
        under.inside = None;
        self.record.process = None;
        let is_wanted = self.record.keeps && self.record.report.point.is_some();
        self.record.report.clone.kept = is_wanted;
        if is_wanted {
            return Ok(());
        }
        let removed = remove(self.cloning, &self.record.report);
        self.record.report.left = removed.as_ref().err().cloned();
        removed.map_err(Bad::Failed)
    }
}

impl Under {
    fn inside(&mut self) -> Result<&mut Inside, Bad> {
        self.inside.as_mut().ok_or_else(|| Bad::Failed("there is no isolation".into()))
    }
}
