//! What a drill is asked to do.

use std::path::PathBuf;
use std::time::Duration;

use super::group::Limits;
use super::plan::{At, Plan, Step};
use crate::sys::Network;

/// What is to be done, checked by who asks.
pub struct Request {
    pub at: PathBuf,
    pub start: Vec<String>,
    pub ready: Option<String>,
    pub checks: Vec<Check>,
    /// In the place of checks it stays open until it is stopped.
    pub stays_open: bool,
    pub stop: Vec<String>,
    /// It is tried whether the checks fail on damaged data.
    pub proves: bool,
    /// Run on the host, in no isolation, before the clean-up and after it.
    pub before: Option<String>,
    pub after: Option<String>,
    /// Of each command but the checks.
    pub timeout: Duration,
    pub clone_timeout: Duration,
    pub network: Network,
    pub limits: Limits,
    pub hidden: Vec<PathBuf>,
    /// Places of the host to be seen though something is mounted there.
    pub shown: Vec<PathBuf>,
}

/// A command that says whether the data are good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    pub name: Option<String>,
    pub command: String,
    pub timeout: Duration,
}

impl Request {
    pub(super) fn plan(&self) -> Plan {
        Plan {
            starts: self.start.len() as u32,
            probes: self.ready.is_some(),
            checks: if self.stays_open { 0 } else { self.checks.len() as u32 },
            stays_open: self.stays_open,
            stops: self.stop.len() as u32,
            proves: self.proves,
            before: self.before.is_some(),
            after: self.after.is_some(),
        }
    }

    /// What is run for a step.
    pub(super) fn command(&self, (step, nth): At) -> Option<String> {
        let nth = nth as usize - 1;
        match step {
            Step::Start => self.start.get(nth).cloned(),
            Step::Ready => self.ready.clone(),
            Step::Check(_) => self.check(step).map(|check| check.command.clone()),
            Step::Stop => self.stop.get(nth).cloned(),
            Step::Before => self.before.clone(),
            Step::After => self.after.clone(),
            Step::Clone | Step::Isolate | Step::Open | Step::Prove | Step::CleanUp => None,
        }
    }

    pub(super) fn check(&self, step: Step) -> Option<&Check> {
        match step {
            Step::Check(number) => self.checks.get(number as usize - 1),
            _ => None,
        }
    }
}
