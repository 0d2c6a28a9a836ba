//! Which step of a drill is next, and what it all says in the end: no I/O, no clock.
//!
//! ```text
//!  clone ─> isolate ─> start* ─> ready? ─> check 1 … check n ─> stop* ─> prove? ─> before? ─> clean-up ─> after? ─> end
//!    │         │          └─ failed ─┴──────────────────────────^ └── failed ───────^
//!    └─ failed ┴────────────────────────────────────────────────────────────────────┤
//!  interrupted, wherever it is ─────────────────────────────────────────────────────┘
//! ```
//! One that stays open has the step `open` in the place of its checks; it lasts until somebody asks for its end. A check
//! that fails does not keep the next ones from being run, nor does a stop command; a start command does.

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
    /// Until somebody asks for its end.
    Open,
    Stop,
    /// The checks once more, and then on damaged data.
    Prove,
    /// The hook before the clean-up.
    Before,
    CleanUp,
    /// The hook after it.
    After,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Clone => f.write_str("clone"),
            Step::Isolate => f.write_str("isolate"),
            Step::Start => f.write_str("start"),
            Step::Ready => f.write_str("ready"),
            Step::Check(number) => write!(f, "check {number}"),
            Step::Open => f.write_str("open"),
            Step::Stop => f.write_str("stop"),
            Step::Prove => f.write_str("prove"),
            Step::Before => f.write_str("before"),
            Step::CleanUp => f.write_str("clean-up"),
            Step::After => f.write_str("after"),
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
    /// Commands.
    pub starts: u32,
    pub probes: bool,
    pub checks: u32,
    /// Without checks.
    pub stays_open: bool,
    /// Commands.
    pub stops: u32,
    /// Of a drill that has passed it is tried whether its checks can fail.
    pub proves: bool,
    /// There is a hook before the clean-up.
    pub before: bool,
    /// There is one after it.
    pub after: bool,
}

/// A step, and which of its commands, from 1 on.
pub(super) type At = (Step, u32);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Within(At),
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
        Machine { plan, state: State::Within((Step::Clone, 1)), worst: Worst::Nothing }
    }

    /// What to perform now; `None` at the end.
    pub(super) fn at(&self) -> Option<At> {
        match self.state {
            State::Within(at) => Some(at),
            State::Ended => None,
        }
    }

    /// How that has ended. Panics after the end.
    pub(super) fn ended(&mut self, outcome: Outcome) {
        let State::Within(at) = self.state else { panic!("a drill that has ended has no step") };
        self.worst = self.worst.max(worst_of(at.0, outcome));
        self.state = match self.next(at, outcome) {
            Some(next) => State::Within(next),
            None => State::Ended,
        };
    }

    fn next(&self, (step, nth): At, outcome: Outcome) -> Option<At> {
        let plan = &self.plan;
        let check = |number: u32| (number <= plan.checks).then_some((Step::Check(number), 1));
        let over = if plan.before { (Step::Before, 1) } else { (Step::CleanUp, 1) };
        let has_passed = self.worst == Worst::Nothing && plan.checks > 0;
        let proof = if plan.proves && has_passed { (Step::Prove, 1) } else { over };
        let stop = |nth: u32| if nth <= plan.stops { (Step::Stop, nth) } else { proof };
        let check_or_stop = |number: u32| check(number).unwrap_or(stop(1));
        let work = || if plan.stays_open { (Step::Open, 1) } else { check_or_stop(1) };
        let probe = || if plan.probes { (Step::Ready, 1) } else { work() };
        let start = |nth: u32| if nth <= plan.starts { (Step::Start, nth) } else { probe() };
        match (step, outcome) {
            (Step::After, _) => None,
            (Step::CleanUp, _) => plan.after.then_some((Step::After, 1)),
            (Step::Before, _) => Some((Step::CleanUp, 1)),
            (_, Outcome::Interrupted) | (Step::Clone | Step::Isolate, Outcome::Failed) => Some(over),
            (Step::Clone, Outcome::Done) => Some((Step::Isolate, 1)),
            (Step::Isolate, Outcome::Done) => Some(start(1)),
            (Step::Start, Outcome::Done) => Some(start(nth + 1)),
            (Step::Ready, Outcome::Done) => Some(work()),
            (Step::Start | Step::Ready, Outcome::Failed) => Some(stop(1)),
            (Step::Check(number), Outcome::Done | Outcome::Failed) => Some(check_or_stop(number + 1)),
            (Step::Open, Outcome::Done | Outcome::Failed) => Some(stop(1)),
            (Step::Stop, Outcome::Done | Outcome::Failed) => Some(stop(nth + 1)),
            (Step::Prove, Outcome::Done | Outcome::Failed) => Some(over),
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
        // Without a proof, or what somebody is told of it, the data are as good as the checks have said.
        (_, Outcome::Done) | (Step::Prove, Outcome::Failed) | (Step::Before | Step::After, _) => {
            Worst::Nothing
        }
        (_, Outcome::Interrupted) => Worst::Interrupted,
        (Step::Clone | Step::Isolate, Outcome::Failed) => Worst::CouldNot,
        (
            Step::Start | Step::Ready | Step::Check(_) | Step::Open | Step::Stop | Step::CleanUp,
            Outcome::Failed,
        ) => Worst::Failed,
    }
}
