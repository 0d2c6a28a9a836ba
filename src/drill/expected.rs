//! Drills that are expected to pass now and then: whether they do.

use std::time::Duration;

use serde::Serialize;

use super::last::{Last, Standing, last_of_file};
use super::report::Report;
use crate::events::{About, Code, Seen, Severity};
use crate::units;

/// A drill whose file says how often it is expected to pass. Field names are a promise to scripts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Expected {
    /// The name of its file.
    pub file: String,
    /// Null where that cannot be read.
    pub expect_every_ms: Option<u64>,
    /// Why the file cannot be used; may be empty.
    pub reason: String,
    #[serde(flatten)]
    pub last: Last,
}

impl Expected {
    /// `reports` in order.
    pub fn of(file: &str, set: &str, every: Duration, reports: &[Report], now_unix_ms: u64) -> Expected {
        let expect_every_ms = every.as_millis() as u64;
        let last = last_of_file(reports, file, set, now_unix_ms, expect_every_ms);
        let expect_every_ms = Some(expect_every_ms);
        Expected { file: file.to_owned(), expect_every_ms, reason: String::new(), last }
    }

    /// Whatever it was meant to say: no such drill takes place. Its set is that of the same name, as far as is known.
    pub fn unusable(file: &str, reason: String) -> Expected {
        let last = Last::nothing(file, Standing::Unknown);
        Expected { file: file.to_owned(), expect_every_ms: None, reason, last }
    }

    /// What a person should know; `None` where all is well.
    pub fn seen(&self) -> Option<Seen> {
        let (code, severity) = match self.last.standing {
            Standing::Passed => return None,
            Standing::Never | Standing::Overdue | Standing::Unknown => {
                (Code::DrillOverdue, Severity::Warning)
            }
            Standing::Failed => (Code::DrillFailed, Severity::Critical),
        };
        let about = About { set: Some(self.last.set.clone()), ..About::default() };
        let text = format!("Drill {} of {}: {}.", self.file, self.last.set, self.words());
        Some(Seen { code, severity, about, text })
    }

    /// On one line.
    pub fn words(&self) -> String {
        let ms = |ms: u64| units::duration(Duration::from_millis(ms));
        let ago = self.last.age_ms.map_or_else(String::new, |age| format!(" {} ago", ms(age)));
        let every = self.expect_every_ms.map(ms).unwrap_or_default();
        match self.last.standing {
            Standing::Passed => format!("passed{ago}"),
            Standing::Overdue => format!("OVERDUE: it passed{ago}, and is expected to every {every}"),
            Standing::Never => {
                format!("NEVER: it has neither passed nor failed yet, and is expected to pass every {every}")
            }
            Standing::Failed => format!("FAILED{ago}"),
            Standing::Unknown => {
                format!("UNKNOWN: its file cannot be used, and such a drill does not run: {}", self.reason)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::Verdict;
    use super::super::report::FromFile;
    use super::super::tests::report;
    use super::*;

    #[test]
    fn what_is_expected_is_seen_when_it_does_not_come() {
        let of = |number: u64, verdict, file: &str, typed: &[&str]| Report {
            verdict: Some(verdict),
            ended_unix_ms: number * 1000,
            file: Some(FromFile {
                name: file.into(),
                typed: typed.iter().map(|word| (*word).into()).collect(),
            }),
            ..report(number)
        };
        let (passed, failed) = (Verdict::Passed, Verdict::Failed);
        for (reports, now, standing, code, words) in [
            (vec![], 1000, Standing::Never, Some("drill_overdue"), "NEVER"),
            (vec![of(1, passed, "web", &[])], 61_000, Standing::Passed, None, "passed 1 min"),
            (vec![of(1, passed, "web", &["timeout"])], 2000, Standing::Passed, None, "passed "),
            (
                vec![of(1, passed, "web", &[])],
                61_001,
                Standing::Overdue,
                Some("drill_overdue"),
                "expected to every 1 min",
            ),
            (vec![of(1, passed, "other", &[])], 2000, Standing::Never, Some("drill_overdue"), "NEVER"),
            (
                vec![of(1, passed, "web", &["keep", "check"])],
                2000,
                Standing::Never,
                Some("drill_overdue"),
                "NEVER",
            ),
            (
                vec![Report { file: None, ..of(1, passed, "web", &[]) }],
                2000,
                Standing::Never,
                Some("drill_overdue"),
                "",
            ),
            (
                vec![
                    of(1, passed, "web", &[]),
                    of(2, failed, "web", &[]),
                    of(3, Verdict::Interrupted, "web", &[]),
                ],
                4000,
                Standing::Failed,
                Some("drill_failed"),
                "FAILED 2",
            ),
        ] {
            let found = Expected::of("web", "shop", Duration::from_secs(60), &reports, now);
            assert_eq!((found.last.standing, found.last.set.as_str()), (standing, "shop"), "{reports:?}");
            assert!(found.words().contains(words), "{}", found.words());
            assert_eq!(found.seen().map(|seen| seen.code.word()), code, "{}", found.words());
        }
    }

    /// Somebody has mistyped something: it is as if the drill were gone, and silence would be taken for well-being.
    #[test]
    fn a_file_that_cannot_be_used_is_seen() {
        let seen = Expected::unusable("web", "line 2: no such key".into()).seen().unwrap();
        assert_eq!((seen.code, seen.severity), (Code::DrillOverdue, Severity::Warning));
        assert!(seen.text.contains("web") && seen.text.contains("line 2: no such key"), "{}", seen.text);
    }
}
