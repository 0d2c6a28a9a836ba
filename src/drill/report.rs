//! What is kept of a drill: who, when, of which point, what was done and how it ended, and how it was isolated.

use std::fmt::{self, Write};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::group::Limited;
use super::isolation::Isolation;
use super::lag::Lag;
use super::plan::{Outcome, Step, Verdict};
use super::proof::Proof;
use crate::commands::Ended;
use crate::units;
use crate::words::shown;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    pub number: u64,
    /// Hash (BLAKE3) of the report before this one, as it lies on the disk.
    pub previous: Option<String>,
    /// `null` while it runs.
    pub verdict: Option<Verdict>,
    /// No command was run on the data.
    pub could_not: bool,
    pub name: String,
    pub by: String,
    pub host: String,
    pub version: String,
    pub set: String,
    /// Where a file says what it does.
    #[serde(default)]
    pub file: Option<FromFile>,
    pub replica: String,
    /// Where the clone was to be found.
    pub at: String,
    pub started_unix_ms: u64,
    pub ended_unix_ms: u64,
    pub point: Option<Point>,
    pub steps: Vec<StepReport>,
    /// From the start: the clone was at its path, and what `--start` and `--ready` say was done.
    pub usable_after_ms: Option<u64>,
    /// From the start: the last check has ended.
    pub checked_after_ms: Option<u64>,
    pub isolation: Option<Isolation>,
    /// What it might take of the host.
    #[serde(default)]
    pub limits: Option<Limited>,
    pub clone: CloneReport,
    /// How far the replica was behind its source meanwhile.
    #[serde(default)]
    pub lag: Option<Lag>,
    /// Where it was asked for: whether the checks fail on damaged data.
    #[serde(default)]
    pub proof: Option<Proof>,
    /// What was to be thrown away and is still there, and why.
    pub left: Option<String>,
}

/// The file of a drill, `drills/NAME.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FromFile {
    pub name: String,
    /// Options that were typed, and go on top.
    pub typed: Vec<String>,
}

/// What the clone is as of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Point {
    /// Sequence number of the last packet that it has.
    pub packet: u64,
    pub taken_unix_ms: u64,
    /// It has everything that its source had so long before, at most; `null` where nobody has said.
    pub age_ms: Option<u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloneReport {
    pub directory: String,
    pub kept: bool,
    pub bytes_copied: u64,
    /// The longest time that one change of the replica has waited for it.
    pub longest_hold_us: u64,
    /// What the commands of the drill have written to it, in whole pages; `null` where the kernel does not count.
    #[serde(default)]
    pub bytes_written: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepReport {
    pub step: Step,
    /// Of a check that has one.
    #[serde(default)]
    pub name: Option<String>,
    pub command: Option<String>,
    pub started_unix_ms: u64,
    pub length_ms: u64,
    pub outcome: Outcome,
    /// Of a command: its last run.
    pub ended: Option<Ended>,
    /// Runs of a readiness probe.
    pub tries: u32,
    pub reason: Option<String>,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verdict::Passed => "passed",
            Verdict::Failed => "failed",
            Verdict::Opened => "opened",
            Verdict::Interrupted => "interrupted",
        })
    }
}

impl Report {
    /// On one line.
    pub fn line(&self) -> String {
        self.line_of("running")
    }

    /// The same; of one that has no verdict yet with this word.
    pub fn line_of(&self, running: &str) -> String {
        let at = shown((self.started_unix_ms / 1000) as i64, &crate::sys::utc_offset);
        let verdict = self.verdict.map_or_else(|| running.into(), |verdict| verdict.to_string());
        format!("{:>4}  {at}  {verdict:<11}  {}  {}", self.number, self.set, self.at)
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = format!("Drill {} of {}: {}\n", self.number, self.set, self.said());
        let at = |unix_ms: u64| shown((unix_ms / 1000) as i64, &crate::sys::utc_offset);
        let mut line = |name: &str, value: String| {
            let _ = writeln!(text, "  {name:<11} {value}");
        };
        line(
            "when",
            format!(
                "{}, by {} on {}, standin {}",
                at(self.started_unix_ms),
                self.by,
                self.host,
                self.version
            ),
        );
        if let Some(file) = &self.file {
            line("file", file.words());
        }
        if let Some(point) = &self.point {
            let age = point.age_ms.map_or_else(
                || "its age is not known".into(),
                |age| format!("{} old at most (RPO)", ms(age)),
            );
            line("point", format!("packet {}, {age}", point.packet));
        }
        for step in &self.steps {
            line(&step.step.to_string(), step.words());
            for output in step.ended.iter().flat_map(|ended| ended.output.lines()) {
                line("", format!("| {output}"));
            }
        }
        if let Some(proof) = &self.proof {
            line("proof", proof.words());
            proof.files().for_each(|file| line("", format!("| {file}")));
        }
        if let Some(usable) = self.usable_after_ms {
            let checked = self.checked_after_ms.map(|checked| format!(", checked after {}", ms(checked)));
            line("time (RTO)", format!("usable after {}{}", ms(usable), checked.unwrap_or_default()));
        }
        if let Some(isolation) = &self.isolation {
            line("isolation", isolation.words());
        }
        if let Some(limits) = &self.limits {
            line("limits", limits.words());
        }
        if let Some(bytes) = self.clone.bytes_written {
            line("written", format!("{} to the clone", units::size(bytes)));
        }
        if let Some(lag) = &self.lag {
            let held = Duration::from_micros(self.clone.longest_hold_us);
            line(
                "replication",
                format!("{}; a change waited {} at most for the clone", lag.words(), units::duration(held)),
            );
        }
        if self.clone.kept {
            line(
                "kept",
                format!("{} (`standin clone stop {} --remove` removes it)", self.clone.directory, self.name),
            );
        }
        if let Some(left) = &self.left {
            line("LEFT", left.clone());
        }
        text
    }

    /// A proof was asked for, and there is none.
    pub fn is_unproven(&self) -> bool {
        self.proof.as_ref().is_some_and(|proof| !proof.is_proven())
    }

    /// Who was to be told of it was not, or not well.
    pub fn has_failed_hook(&self) -> bool {
        let is_bad = |step: &StepReport| {
            matches!(step.step, Step::Before | Step::After) && step.outcome != Outcome::Done
        };
        self.steps.iter().any(is_bad)
    }

    fn said(&self) -> &'static str {
        match self.verdict {
            None => "RUNNING",
            Some(Verdict::Passed) if self.is_unproven() => "PASSED, and it is not proven that it can fail",
            Some(Verdict::Passed) => "PASSED",
            Some(Verdict::Failed) if self.could_not => "FAILED: nothing was run on the data",
            Some(Verdict::Failed) => "FAILED",
            Some(Verdict::Opened) => "OPENED: no check was given, so nothing is said of the data",
            Some(Verdict::Interrupted) => "INTERRUPTED",
        }
    }
}

fn ms(ms: u64) -> String {
    units::duration(Duration::from_millis(ms))
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
        if self.tries > 1 {
            let _ = write!(words, ", {} tries", self.tries);
        }
        if let Some(reason) = &self.reason {
            let _ = write!(words, ": {reason}");
        }
        if let Some(name) = &self.name {
            let _ = write!(words, ": {name}");
        }
        if let Some(command) = &self.command {
            let _ = write!(words, ": {command}");
        }
        words
    }
}

impl FromFile {
    fn words(&self) -> String {
        match self.typed.is_empty() {
            true => format!("drills/{}.toml", self.name),
            false => format!("drills/{}.toml, and typed on top: {}", self.name, self.typed.join(", ")),
        }
    }
}

impl Isolation {
    fn words(&self) -> String {
        let network = match self.namespaces.iter().any(|kind| kind == "net") {
            true => "loopback only",
            false => "THE HOST'S NETWORK",
        };
        format!("own {}; {network}; writable: {}", self.namespaces.join(", "), self.writable.join(", "))
    }
}
