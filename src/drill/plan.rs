//! Which step of a drill is next, and what it all says in the end: no I/O, no clock.
//!
//! ```text
//!  clone ─> isolate ─> start? ─> ready? ─> check 1 … check n ─> stop? ─> prove? ─> clean-up ─> end
//!    │         │          └─ failed ─┴──────────────────────────^ └── failed ───────^
//!    └─ failed ┴────────────────────────────────────────────────────────────────────┤
//!  interrupted, wherever it is ─────────────────────────────────────────────────────┘
//! ```
//! A check that fails does not keep the next ones from being run.

use std::fmt;

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    Clone,
    Isolate,
    Start,
    Ready,
    /// Counted from 1.
    Check(u32),
    Stop,
    /// The checks once more, and then on damaged data.
    Prove,
    CleanUp,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Clone => f.write_str("clone"),
            Step::Isolate => f.write_str("isolate"),
            Step::Start => f.write_str("start"),
            Step::Ready => f.write_str("ready"),
            Step::Check(number) => write!(f, "check {number}"),
            Step::Stop => f.write_str("stop"),
            Step::Prove => f.write_str("prove"),
            Step::CleanUp => f.write_str("clean-up"),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Done,
    Failed,
    /// Somebody asked for the end before the step had one.
    Interrupted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Passed,
    Failed,
    /// The data was there and nothing looked at it: no check was given.
    Opened,
    Interrupted,
}

/// What a drill is to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub starts: bool,
    pub probes: bool,
    pub checks: u32,
    pub stops: bool,
    /// Of a drill that has passed it is tried whether its checks can fail.
    pub proves: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Within(Step),
    Ended,
}

/// The worst that has happened so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Worst {
    Nothing,
    Failed,
    /// No command was run: there was no clone, or no isolation.
    CouldNot,
    Interrupted,
}

#[derive(Debug)]
pub(super) struct Machine {
    plan: Plan,
    state: State,
    worst: Worst,
}

impl Machine {
    pub(super) fn new(plan: Plan) -> Machine {
        Machine { plan, state: State::Within(Step::Clone), worst: Worst::Nothing }
    }

    /// The step to perform now; `None` at the end.
    pub(super) fn step(&self) -> Option<Step> {
        match self.state {
            State::Within(step) => Some(step),
            State::Ended => None,
        }
    }

    /// How the step has ended. Panics after the end.
    pub(super) fn ended(&mut self, outcome: Outcome) {
        let State::Within(step) = self.state else { panic!("a drill that has ended has no step") };
        self.worst = self.worst.max(worst_of(step, outcome));
        self.state = match self.next(step, outcome) {
            Some(next) => State::Within(next),
            None => State::Ended,
        };
    }

    fn next(&self, step: Step, outcome: Outcome) -> Option<Step> {
        let check = |number: u32| (number <= self.plan.checks).then_some(Step::Check(number));
        let has_passed = self.worst == Worst::Nothing && self.plan.checks > 0;
        let over = if self.plan.proves && has_passed { Step::Prove } else { Step::CleanUp };
        let stop = if self.plan.stops { Step::Stop } else { over };
        let probe = self.plan.probes.then_some(Step::Ready).or(check(1)).unwrap_or(stop);
        match (step, outcome) {
            (Step::CleanUp, _) => None,
            (_, Outcome::Interrupted) | (Step::Clone | Step::Isolate, Outcome::Failed) => Some(Step::CleanUp),
            (Step::Clone, Outcome::Done) => Some(Step::Isolate),
            (Step::Isolate, Outcome::Done) => Some(if self.plan.starts { Step::Start } else { probe }),
            (Step::Start, Outcome::Done) => Some(probe),
            (Step::Ready, Outcome::Done) => Some(check(1).unwrap_or(stop)),
            (Step::Start | Step::Ready, Outcome::Failed) => Some(stop),
            (Step::Check(number), Outcome::Done | Outcome::Failed) => Some(check(number + 1).unwrap_or(stop)),
            (Step::Stop, Outcome::Done | Outcome::Failed) => Some(over),
            (Step::Prove, Outcome::Done | Outcome::Failed) => Some(Step::CleanUp),
        }
    }

    /// What the steps so far say of the data.
    pub(super) fn verdict(&self) -> Verdict {
        match self.worst {
            Worst::Interrupted => Verdict::Interrupted,
            Worst::Failed | Worst::CouldNot => Verdict::Failed,
            Worst::Nothing if self.plan.checks == 0 => Verdict::Opened,
            Worst::Nothing => Verdict::Passed,
        }
    }

    /// Nothing was run on the data: it says nothing of them.
    pub(super) fn could_not(&self) -> bool {
        self.worst == Worst::CouldNot
    }
}

fn worst_of(step: Step, outcome: Outcome) -> Worst {
    match (step, outcome) {
        // Without a proof the data are as good as the checks have said.
        (_, Outcome::Done) | (Step::Prove, Outcome::Failed) => Worst::Nothing,
        (_, Outcome::Interrupted) => Worst::Interrupted,
        (Step::Clone | Step::Isolate, Outcome::Failed) => Worst::CouldNot,
        (Step::Start | Step::Ready | Step::Check(_) | Step::Stop | Step::CleanUp, Outcome::Failed) => {
            Worst::Failed
        }
    }
}
