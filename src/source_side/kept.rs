//! What stays of a connection over a restart of its source: what a person wants of it, and what a first
//! copy that is not over has told.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::delete_guard::Asked;
use super::mark::{Clock, EVERYTHING, Mark};
use crate::connection::{KeptSchedule, Wish};
use crate::limits::FIRST_COPY_RUNS_MAX;
use crate::packet::{CheckCounts, Epoch, Incarnation, Sequence, Timestamp};
use crate::words::{Compression, CopyMode, HashKind, LimitPlan, OrphanRules, Own, SchedulePlan, VerifyMode};

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Kept {
    pub wish: Wish,
    pub first_copy: Option<FirstCopy>,
    /// How the copy is made that is under way, or comes next.
    pub copy_mode: CopyMode,
    /// What it does with orphans, where a person has said so.
    pub copy_orphans: Option<OrphanRules>,
    pub copy_hash: HashKind,
    /// It rests.
    pub copy_paused: bool,
    /// One that a person has started, and that has changed nothing yet.
    pub mirror: Option<WishedMirror>,
    /// The last comparison that came to an end.
    pub verified: Option<LastVerified>,
    /// Up to when all comparisons were made that were due by themselves, in seconds since 1970.
    pub checks_served_s: Option<i64>,
    /// Names of whatever is no directory, about.
    pub names: Option<u64>,
    /// Deletions that a person was asked about, who has not answered.
    pub asked: Option<Asked>,
    /// What a person has said of its schedule while it ran.
    pub schedule: Own<SchedulePlan>,
    pub sessions: KeptSchedule,
    /// What a person has said of its limit while it ran.
    pub limit: Own<LimitPlan>,
    /// What a person has said of its compression while it ran.
    pub compression: Own<Compression>,
}

/// A mirror that a person has started of a good replica: it is compared first, and changed only where it differs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WishedMirror {
    pub mode: CopyMode,
    pub hash: HashKind,
    /// Bytes a second.
    pub rate: Option<u64>,
    pub orphans: Option<OrphanRules>,
    /// A path below the directory.
    #[serde(with = "crate::control::path_text::optional")]
    pub part: Option<PathBuf>,
}

/// When a replica was compared, up to which position, and what was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastVerified {
    pub at_unix_ms: u64,
    /// Of which history of the source the position is.
    pub epoch: Epoch,
    pub run: Incarnation,
    pub upto: Sequence,
    pub what: WhatVerified,
    pub counts: CheckCounts,
    /// Objects that the source could not read.
    pub unread: u64,
}

/// What of a replica was compared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhatVerified {
    pub mode: VerifyMode,
    /// Nothing but what is below this directory.
    #[serde(with = "crate::control::path_text::optional")]
    pub below: Option<PathBuf>,
}

/// Copies to a target that held nothing: what it has of a file, and does not know to be incomplete, is as the
/// source had it at this moment or later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirstCopy {
    since: Mark,
    /// The runs of the source that have copied. A replica of another one is not the one that was begun.
    runs: Vec<Incarnation>,
}

impl FirstCopy {
    /// The target holds nothing, and nobody could write past the mount without a trace since `since`.
    pub fn begins(since: Mark, run: Incarnation) -> FirstCopy {
        FirstCopy { since, runs: vec![run] }
    }

    /// It goes on in this run; `None`: it has for too long.
    pub fn joined(mut self, run: Incarnation) -> Option<FirstCopy> {
        if !self.runs.contains(&run) {
            self.runs.push(run);
        }
        (self.runs.len() <= FIRST_COPY_RUNS_MAX).then_some(self)
    }

    /// Whether what such a replica holds came from these copies.
    pub fn has_made(&self, replica_of: Incarnation) -> bool {
        self.runs.contains(&replica_of)
    }

    /// What changed at this moment or later may be missing.
    pub fn suspect_since(&self, clock: &Clock) -> Timestamp {
        self.since.suspect_since(clock)
    }

    /// Whether it still says something.
    pub fn counts(&self, clock: &Clock) -> bool {
        self.suspect_since(clock) != EVERYTHING
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A replica that was put back from somewhere else is not what the first copy has made.
    #[test]
    fn only_what_it_has_made_is_trusted() {
        let copy = FirstCopy::begins(Mark::now(), Incarnation(1)).joined(Incarnation(2)).unwrap();
        assert!(copy.has_made(Incarnation(1)) && copy.has_made(Incarnation(2)));
        assert!(!copy.has_made(Incarnation(3)));
        assert!(copy.counts(&Clock::now()));
        assert_eq!(copy.clone().joined(Incarnation(2)), Some(copy.clone()), "once for each run");
        let all = (3..=FIRST_COPY_RUNS_MAX as u64).try_fold(copy, |copy, run| copy.joined(Incarnation(run)));
        assert_eq!(all.unwrap().joined(Incarnation(99)), None);
    }
}
