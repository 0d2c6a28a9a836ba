//! What a drill says of its own checks: whether they fail where the data are damaged. Pure.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use super::isolation::{Damaged, Harm, LeftOut};
use super::limits::NAMED_MAX;
use super::plan::Step;
use crate::commands::Ended;
use crate::units;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Conclusion {
    /// Every check has noticed the damage, or what runs before them has.
    Proven,
    /// Of one check at least it is not shown that it can fail.
    ProvesNothing,
    /// It could not be tried.
    NotMade,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finding {
    /// It failed on damaged data, and only there.
    Noticed,
    /// It passed on damaged data as well.
    Passed,
    /// It has read nothing of the data.
    ReadNothing,
    /// It failed on the same data without damage when it was run once more.
    NotRepeatable,
    /// It passed, and nothing of what it has read could be damaged.
    NotDamaged,
    /// Starting on the damaged data failed before it.
    NotReached,
}

/// Of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckProof {
    pub check: u32,
    pub finding: Finding,
    /// Files of the data that it has read.
    pub read_files: u64,
    /// How it has ended on damaged data; where it was not repeatable, without.
    pub ended: Option<Ended>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    pub conclusion: Conclusion,
    /// Why it was not made.
    pub reason: Option<String>,
    pub checks: Vec<CheckProof>,
    /// The step before the checks that has failed on damaged data.
    pub noticed_by: Option<Step>,
    pub damaged_files: u64,
    pub damaged_bytes: u64,
    /// The first of them.
    pub damaged: Vec<Damaged>,
    /// Names of files that were to be damaged, and could not be.
    #[serde(default)]
    pub left_out_files: u64,
    /// The first of them.
    #[serde(default)]
    pub left_out: Vec<LeftOut>,
}

impl Proof {
    pub(super) fn not_made(reason: String) -> Proof {
        Proof {
            conclusion: Conclusion::NotMade,
            reason: Some(reason),
            checks: Vec::new(),
            noticed_by: None,
            damaged_files: 0,
            damaged_bytes: 0,
            damaged: Vec::new(),
            left_out_files: 0,
            left_out: Vec::new(),
        }
    }

    pub(super) fn made(checks: Vec<CheckProof>, noticed_by: Option<Step>, harm: Harm) -> Proof {
        let Harm { mut damaged, mut left_out } = harm;
        let shows = |check: &CheckProof| matches!(check.finding, Finding::Noticed | Finding::NotReached);
        let conclusion =
            if checks.iter().all(shows) { Conclusion::Proven } else { Conclusion::ProvesNothing };
        let damaged_bytes = damaged.iter().map(|file| file.bytes).sum();
        let (damaged_files, left_out_files) = (damaged.len() as u64, left_out.len() as u64);
        damaged.truncate(NAMED_MAX);
        left_out.truncate(NAMED_MAX);
        Proof {
            conclusion,
            reason: None,
            checks,
            noticed_by,
            damaged_files,
            damaged_bytes,
            damaged,
            left_out_files,
            left_out,
        }
    }

    pub fn is_proven(&self) -> bool {
        self.conclusion == Conclusion::Proven
    }

    /// On one line.
    pub fn words(&self) -> String {
        let mut words = match (self.conclusion, &self.reason) {
            (Conclusion::NotMade, reason) => {
                return format!("NOT MADE: {}", reason.as_deref().unwrap_or_default());
            }
            (Conclusion::Proven, _) => "the checks notice damage".to_owned(),
            (Conclusion::ProvesNothing, _) => {
                let all: Vec<String> = self.checks.iter().filter_map(CheckProof::against).collect();
                all.join("; ")
            }
        };
        if let Some(step) = self.noticed_by {
            let _ = write!(words, "; already {step} failed on damaged data");
        }
        if self.damaged_files > 0 {
            let size = units::size(self.damaged_bytes);
            let _ = write!(words, "; {size} in {} were damaged", files(self.damaged_files));
        }
        if self.left_out_files > 0 {
            let _ = write!(words, "; {} could not be damaged", files(self.left_out_files));
        }
        words
    }

    /// Which files were damaged and which could not be, one a line.
    pub fn files(&self) -> impl Iterator<Item = String> {
        let damaged = self.damaged.iter();
        let damaged = damaged.map(|file| format!("{} in {}", units::size(file.bytes), file.path.display()));
        let left_out = self.left_out.iter();
        let left_out = left_out.map(|file| format!("not damaged: {}: {}", file.path.display(), file.reason));
        let others = |all: u64, named: usize| {
            let others = all.saturating_sub(named as u64);
            (others > 0).then(|| format!("and {others} more"))
        };
        damaged
            .chain(others(self.damaged_files, self.damaged.len()))
            .chain(left_out)
            .chain(others(self.left_out_files, self.left_out.len()))
    }
}

fn files(count: u64) -> String {
    format!("{count} {}", if count == 1 { "file" } else { "files" })
}

impl CheckProof {
    /// What speaks against it.
    pub fn against(&self) -> Option<String> {
        let why = match self.finding {
            Finding::Noticed | Finding::NotReached => return None,
            Finding::Passed => "passes on damaged data as well",
            Finding::ReadNothing => "reads nothing of the data",
            Finding::NotDamaged => "passes, and nothing of what it reads could be damaged",
            Finding::NotRepeatable => "fails without damage, too, when it is run once more",
        };
        Some(format!("check {} PROVES NOTHING: it {why}", self.check))
    }
}
