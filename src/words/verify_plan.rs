//! When a replica is verified by itself.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::verify_mode::VerifyMode;
use super::wall_clock::{Recurring, TimeOfDay};
use crate::units::parse_duration;

const DAY: u64 = 86_400;

/// More often nothing would be gained: a verification reads everything.
const EVERY_MIN: u64 = 60;

/// A year and a day.
const EVERY_MAX: u64 = 366 * DAY;

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Table", into = "Table")]
pub struct VerifyPlan {
    every_s: u64,
    at: Option<TimeOfDay>,
    pub mode: VerifyMode,
}

impl VerifyPlan {
    /// `at`: one of the times of a day; `every` is a part of a day, or whole days, then.
    ///
    /// Errors: why it makes no sense.
    pub fn new(every: Duration, at: Option<TimeOfDay>, mode: VerifyMode) -> Result<VerifyPlan, String> {
        let every_s = every.as_secs();
        if !(EVERY_MIN..=EVERY_MAX).contains(&every_s) || every.subsec_nanos() > 0 {
            return Err("verifications come every minute at most, and once in 366 days at least".into());
        }
        if at.is_some() && !Recurring::fits(every_s) {
            return Err(
                "with a time of day, the interval is whole days, or goes into a day without a rest".into()
            );
        }
        Ok(VerifyPlan { every_s, at, mode })
    }

    /// Seconds from one to the next.
    pub fn every_s(&self) -> u64 {
        self.every_s
    }

    /// The times of day for it, where there are some.
    pub fn times(&self) -> Option<Recurring> {
        self.at.map(|at| Recurring { at, from: None, every_s: Some(self.every_s as u32) })
    }
}

impl fmt::Display for VerifyPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "every {}", interval(self.every_s))?;
        self.at.map_or(Ok(()), |at| write!(f, " at {at}"))?;
        write!(f, " ({})", self.mode)
    }
}

/// `36h`, `1d`: as [`parse_duration`] reads it.
pub(super) fn interval(seconds: u64) -> String {
    let units = [(DAY, "d"), (3600, "h"), (60, "m"), (1, "s")];
    let whole = units.into_iter().find(|(unit, _)| seconds.is_multiple_of(*unit));
    whole.map_or_else(String::new, |(unit, word)| format!("{}{word}", seconds / unit))
}

/// As it stands in the file of a set.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    every: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    at: Option<String>,
    #[serde(default)]
    mode: VerifyMode,
}

impl TryFrom<Table> for VerifyPlan {
    type Error = String;

    fn try_from(table: Table) -> Result<VerifyPlan, String> {
        let at = table.at.as_deref().map(TimeOfDay::from_str).transpose()?;
        VerifyPlan::new(parse_duration(&table.every)?, at, table.mode)
    }
}

impl From<VerifyPlan> for Table {
    fn from(plan: VerifyPlan) -> Table {
        let at = plan.at.map(|at| at.to_string());
        Table { every: interval(plan.every_s), at, mode: plan.mode }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(every: &str, at: Option<&str>) -> Result<VerifyPlan, String> {
        let at = at.map(str::parse).transpose()?;
        VerifyPlan::new(parse_duration(every)?, at, VerifyMode::Checksum)
    }

    #[test]
    fn only_what_makes_sense_is_a_plan() {
        for (every, at) in
            [("24h", Some("03:00")), ("6h", Some("23:59")), ("7d", Some("00:00")), ("36h", None)]
        {
            plan(every, at).unwrap();
        }
        for (every, at) in [("36h", Some("03:00")), ("7h", Some("03:00")), ("59s", None), ("367d", None)] {
            plan(every, at).unwrap_err();
        }
        assert_eq!(plan("24h", Some("03:00")).unwrap().to_string(), "every 1d at 03:00 (checksum)");
    }
}
