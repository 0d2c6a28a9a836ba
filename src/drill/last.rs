//! How long ago a replica's data were last seen to be good, of all the reports of drills. Pure.
//!
//! A drill says something of the data when it has passed or failed. One that was interrupted, or that had no check,
//! says nothing, and what was known before it stands.

use std::collections::BTreeMap;

use serde::Serialize;

use super::plan::Verdict;
use super::report::Report;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    Passed,
    /// It is longer ago than is expected.
    Overdue,
    Never,
    Failed,
    /// The file of the drill cannot be used: nothing can be expected.
    Unknown,
}

/// What is known of one set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Last {
    pub set: String,
    pub standing: Standing,
    /// Number of the drill that says so.
    pub drill: Option<u64>,
    pub age_ms: Option<u64>,
}

impl Last {
    fn never(set: &str) -> Last {
        Last::nothing(set, Standing::Never)
    }

    /// Without a report that says so.
    pub(super) fn nothing(set: &str, standing: Standing) -> Last {
        Last { set: set.to_owned(), standing, drill: None, age_ms: None }
    }

    /// What this report says of the data, if it says anything.
    fn take(&mut self, report: &Report, now_unix_ms: u64, every_ms: Option<u64>) {
        let age_ms = now_unix_ms.saturating_sub(report.ended_unix_ms);
        self.standing = match report.verdict {
            Some(Verdict::Passed) if every_ms.is_some_and(|every_ms| age_ms > every_ms) => Standing::Overdue,
            Some(Verdict::Passed) => Standing::Passed,
            Some(Verdict::Failed) => Standing::Failed,
            Some(Verdict::Opened | Verdict::Interrupted) | None => return,
        };
        (self.drill, self.age_ms) = (Some(report.number), Some(age_ms));
    }
}

/// Of each set that has a report, or of the one that is named, by its name or the directory of its replica. `reports` in
/// order; an age above `every_ms` is overdue.
pub fn last(reports: &[Report], named: Option<&str>, now_unix_ms: u64, every_ms: Option<u64>) -> Vec<Last> {
    let mut sets: BTreeMap<&str, Last> = BTreeMap::new();
    let is_named =
        |report: &&Report| named.is_none_or(|named| report.set == named || report.replica == named);
    for report in reports.iter().filter(is_named) {
        let last = sets.entry(&report.set).or_insert_with(|| Last::never(&report.set));
        last.take(report, now_unix_ms, every_ms);
    }
    match (named, sets.is_empty()) {
        (Some(named), true) => vec![Last::never(named)],
        _ => sets.into_values().collect(),
    }
}

/// Of the drills of one file, as it says them: with other checks typed on top it is another drill.
pub fn last_of_file(reports: &[Report], file: &str, set: &str, now_unix_ms: u64, every_ms: u64) -> Last {
    let mut last = Last::never(set);
    let is_own = |report: &&Report| {
        let own = report.file.as_ref().filter(|own| own.name == file);
        own.is_some_and(|own| !own.typed.iter().any(|option| option == "check"))
    };
    reports.iter().filter(is_own).for_each(|report| last.take(report, now_unix_ms, Some(every_ms)));
    last
}
