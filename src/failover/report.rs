//! What is kept of a failover: who, when, of which point, each step with its times.

use std::fmt::{self, Write};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::commands::Ended;
use crate::units;
use crate::words::shown;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    pub number: u64,
    pub state: State,
    pub set: String,
    pub replica: String,
    /// Where programs have the data from now on.
    pub at: String,
    pub by: String,
    pub host: String,
    pub version: String,
    pub started_unix_ms: u64,
    /// Of the last step; `null` while it runs.
    pub ended_unix_ms: Option<u64>,
    /// `null` before the replica was taken, and where an earlier failover was gone on with.
    pub point: Option<Point>,
    /// `null` before it was raised.
    pub epoch: Option<u32>,
    /// By an earlier one that was interrupted: nothing was raised again.
    pub goes_on: bool,
    pub accepted_bad_data: bool,
    pub steps: Vec<StepReport>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Running,
    /// The mount is served.
    Active,
    Failed,
    /// Its process has died, or somebody has stopped it.
    Interrupted,
}

/// What the replica is as of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Point {
    /// Number of the last change that it has.
    pub packet: u64,
    /// By the source's clock: it has everything up to this moment. `null` where nobody has said.
    pub as_of_unix_ms: Option<u64>,
    /// How far that clock was ahead of this host's.
    pub clock_ahead_ms: Option<i64>,
    /// Number of the last change that the source had given out when it was heard last.
    pub given_out: Option<u64>,
    /// How many of them are not here.
    pub beyond: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    Preflight,
    /// A target daemon lets the replica go; what was received is applied and durable.
    Take,
    Before,
    Raise,
    Serve,
    After,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Done,
    Failed,
    Interrupted,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepReport {
    pub step: Step,
    pub started_unix_ms: u64,
    pub length_ms: u64,
    pub outcome: Outcome,
    pub command: Option<String>,
    /// How that has ended.
    pub ended: Option<Ended>,
    pub reason: Option<String>,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Step::Preflight => "preflight",
            Step::Take => "take",
            Step::Before => "before",
            Step::Raise => "raise",
            Step::Serve => "serve",
            Step::After => "after",
        })
    }
}

impl Point {
    /// How old it is at this moment of this host's clock; `None` where that is not known.
    pub fn age_ms(&self, now_unix_ms: u64) -> Option<u64> {
        let here = self.as_of_unix_ms?.checked_add_signed(self.clock_ahead_ms?.saturating_neg())?;
        Some(now_unix_ms.saturating_sub(here))
    }

    pub fn words(&self, now_unix_ms: u64) -> String {
        let mut words = format!("change {}", self.packet);
        match (self.as_of_unix_ms, self.age_ms(now_unix_ms)) {
            (Some(as_of), age) => {
                let age = age.map_or_else(String::new, |age| format!(", {} ago", ms(age)));
                let _ = write!(words, ", as of {} by the source's clock{age}", moment(as_of));
            }
            (None, _) => words.push_str("; as of when is not known"),
        }
        match self.beyond {
            Some(0) => words.push_str("; the source had given out nothing beyond it when it was heard last"),
            Some(beyond) => {
                let _ = write!(words, "; {beyond} changes that the source had given out ARE NOT HERE");
            }
            None => words.push_str("; what the source had given out beyond it is not known"),
        }
        words
    }
}

fn moment(unix_ms: u64) -> String {
    shown((unix_ms / 1000) as i64, &crate::sys::utc_offset)
}

fn ms(ms: u64) -> String {
    units::duration(Duration::from_millis(ms))
}

impl Report {
    /// For people.
    pub fn text(&self) -> String {
        let mut text = format!("Failover {} of {}: {}\n", self.number, self.set, self.said());
        let mut line = |name: &str, value: String| {
            let _ = writeln!(text, "  {name:<10} {value}");
        };
        line(
            "when",
            format!(
                "{}, by {} on {}, standin {}",
                moment(self.started_unix_ms),
                self.by,
                self.host,
                self.version
            ),
        );
        line("data", format!("{} at {}", self.replica, self.at));
        if let Some(point) = &self.point {
            line("point", point.words(self.started_unix_ms));
        }
        if self.accepted_bad_data {
            line("DATA", "bad data were accepted".into());
        }
        if let Some(epoch) = self.epoch {
            line("epoch", if self.goes_on { format!("{epoch}, raised before") } else { epoch.to_string() });
        }
        for step in &self.steps {
            line(&step.step.to_string(), step.words());
            for output in step.ended.iter().flat_map(|ended| ended.output.lines()) {
                line("", format!("| {output}"));
            }
        }
        text
    }

    fn said(&self) -> &'static str {
        match (self.state, self.epoch) {
            (State::Running, _) => "RUNNING",
            (State::Active, _) => "ACTIVE",
            (State::Failed, None) => {
                "FAILED, and nothing was raised: the replica takes its source in as before"
            }
            (State::Failed, Some(_)) => "FAILED after the epoch was raised: the same command goes on",
            (State::Interrupted, None) => "INTERRUPTED before the epoch was noted as raised",
            (State::Interrupted, Some(_)) => {
                "INTERRUPTED after the epoch was raised: the same command goes on"
            }
        }
    }
}

impl StepReport {
    fn words(&self) -> String {
        let mut words = match self.outcome {
            Outcome::Done => "ok".to_owned(),
            Outcome::Failed => "FAILED".to_owned(),
            Outcome::Interrupted => "interrupted".to_owned(),
        };
        let _ = write!(words, ", {}", ms(self.length_ms));
        if let Some(ended) = &self.ended {
            words.push_str(&ended.words());
        }
        if let Some(reason) = &self.reason {
            let _ = write!(words, ": {reason}");
        }
        if let Some(command) = &self.command {
            let _ = write!(words, ": {command}");
        }
        words
    }
}
