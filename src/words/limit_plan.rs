//! How many bytes a second a connection may send, and when.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::schedule_plan::short_size;
use super::wall_clock::{Date, Span, Zone, first_minute, wall};
use crate::limits::{LIMIT_RATE_MIN, LIMIT_RULES_MAX};
use crate::units::parse_size;

const WEEK: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// Names for several days.
const DAYS: [(&str, u8); 3] = [("daily", 0b111_1111), ("weekdays", 0b001_1111), ("weekends", 0b110_0000)];

/// See the module. Written as in `none`, `1M`, `8Mbit`, or `weekdays 08:00-18:00 1M, sat+sun 00:00-24:00 8M`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum LimitPlan {
    None,
    Always(Rate),
    /// The first one that holds counts; where none does there is no limit.
    Rules(Vec<LimitRule>),
}

/// Bytes a second, as they go over the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate(pub u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitRule {
    /// Bits from Monday on: days on which the span begins.
    days: u8,
    span: Span,
    rate: Rate,
}

impl LimitPlan {
    pub fn rate_at(&self, at: i64, zone: Zone<'_>) -> Option<Rate> {
        match self {
            LimitPlan::None => None,
            LimitPlan::Always(rate) => Some(*rate),
            LimitPlan::Rules(rules) => {
                let wall = wall(at, zone);
                rules.iter().find(|rule| rule.holds(wall)).map(|rule| rule.rate)
            }
        }
    }

    /// When another rate holds for the first time after `at`, and which one.
    pub fn next_change(&self, at: i64, zone: Zone<'_>) -> Option<(i64, Option<Rate>)> {
        let LimitPlan::Rules(_) = self else { return None };
        let now = self.rate_at(at, zone);
        // A week, and what summer time makes of it.
        let change = first_minute(at, 8, |at| self.rate_at(at, zone) != now)?;
        Some((change, self.rate_at(change, zone)))
    }
}

impl LimitRule {
    fn holds(&self, wall: i64) -> bool {
        self.span.begun(wall).is_some_and(|day| self.days >> Date::weekday(day) & 1 == 1)
    }
}

impl FromStr for LimitPlan {
    type Err = String;

    fn from_str(text: &str) -> Result<LimitPlan, String> {
        let text = text.trim();
        if text == "none" {
            return Ok(LimitPlan::None);
        }
        if !text.contains(char::is_whitespace) {
            return text.parse().map(LimitPlan::Always);
        }
        let rules = text.split(',').map(|rule| rule.trim().parse()).collect::<Result<Vec<LimitRule>, _>>()?;
        match rules.len() {
            0..=LIMIT_RULES_MAX => Ok(LimitPlan::Rules(rules)),
            more => Err(format!("{more} rules are too many: {LIMIT_RULES_MAX} at most")),
        }
    }
}

impl FromStr for LimitRule {
    type Err = String;

    fn from_str(text: &str) -> Result<LimitRule, String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let (days, span, rate) = match words[..] {
            [span, rate] => ("daily", span, rate),
            [days, span, rate] => (days, span, rate),
            _ => {
                return Err(format!(
                    "'{text}' is no rule for a limit: write it as weekdays 08:00-18:00 1M, or mon+wed 22:00-06:00 8M"
                ));
            }
        };
        Ok(LimitRule { days: parse_days(days)?, span: span.parse()?, rate: rate.parse()? })
    }
}

/// `daily`, `mon-fri`, `sat+sun`.
fn parse_days(text: &str) -> Result<u8, String> {
    let wrong = || format!("'{text}' names no days: write them as daily, weekdays, mon-fri or sat+sun");
    let day = |name: &str| WEEK.iter().position(|day| *day == name).ok_or_else(wrong);
    let mut days = 0;
    for part in text.split('+') {
        days |= match (DAYS.iter().find(|(name, _)| *name == part), part.split_once('-')) {
            (Some((_, days)), _) => *days,
            (None, Some((from, to))) => {
                let (from, to) = (day(from)?, day(to)?);
                (0..7)
                    .filter(|at| (at + 7 - from) % 7 <= (to + 7 - from) % 7)
                    .fold(0, |days, at| days | 1 << at)
            }
            (None, None) => 1 << day(part)?,
        };
    }
    Ok(days)
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Rate, String> {
        let bytes = match text.strip_suffix("bit") {
            Some(bits) => {
                parse_bits(bits).ok_or_else(|| format!("'{text}' is no rate: write it as 1M or 8Mbit"))?
            }
            None => parse_size(text).map_err(|_| format!("'{text}' is no rate: write it as 1M or 8Mbit"))?,
        };
        match bytes {
            LIMIT_RATE_MIN.. => Ok(Rate(bytes)),
            _ => Err(format!(
                "{text} a second is too little: {} at least, or nothing gets through in time",
                short_size(LIMIT_RATE_MIN)
            )),
        }
    }
}

/// Powers of 1,000, as of networks.
fn parse_bits(text: &str) -> Option<u64> {
    let (number, unit) = text.split_at(text.find(|c: char| c.is_ascii_alphabetic())?);
    let bits = match unit {
        "k" | "K" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        _ => return None,
    };
    let number: f64 = number.parse().ok().filter(|number: &f64| *number >= 0.0 && *number < 1e6)?;
    Some((number * bits / 8.0) as u64)
}

/// Exactly, and as it can be read again.
impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&short_size(self.0))
    }
}

impl fmt::Display for LimitPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LimitPlan::None => f.write_str("none"),
            LimitPlan::Always(rate) => write!(f, "{rate}"),
            LimitPlan::Rules(rules) => {
                let rules: Vec<String> = rules.iter().map(ToString::to_string).collect();
                f.write_str(&rules.join(", "))
            }
        }
    }
}

impl fmt::Display for LimitRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = DAYS.iter().find(|(_, days)| *days == self.days).map(|(name, _)| (*name).to_owned());
        let days = named.unwrap_or_else(|| {
            let days: Vec<&str> = (0..7).filter(|at| self.days >> at & 1 == 1).map(|at| WEEK[at]).collect();
            days.join("+")
        });
        write!(f, "{days} {} {}", self.span, self.rate)
    }
}

impl TryFrom<String> for LimitPlan {
    type Error = String;

    fn try_from(text: String) -> Result<LimitPlan, String> {
        text.parse()
    }
}

impl From<LimitPlan> for String {
    fn from(plan: LimitPlan) -> String {
        plan.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3600;
    /// 2024-07-01 00:00 UTC, a Monday.
    const MONDAY: i64 = 1_719_792_000;

    #[test]
    fn a_limit_is_written_as_it_is_read() {
        for (text, written) in [
            ("none", "none"),
            ("1M", "1M"),
            ("1Mbit", "125000"),
            ("100Mbit", "12500000"),
            ("1.5M", "1536K"),
            ("weekdays 08:00-18:00 1M", "weekdays 08:00-18:00 1M"),
            ("22:00-06:00 8M", "daily 22:00-06:00 8M"),
            (
                "mon-wed+sat 08:00-18:00 1M, sun 00:00-24:00 2M",
                "mon+tue+wed+sat 08:00-18:00 1M, sun 00:00-24:00 2M",
            ),
            ("sat-mon 08:00-18:00 1M", "mon+sat+sun 08:00-18:00 1M"),
            ("sat+sun 08:00-18:00 1M", "weekends 08:00-18:00 1M"),
        ] {
            let plan: LimitPlan = text.parse().unwrap();
            assert_eq!(plan.to_string(), written);
            assert_eq!(written.parse(), Ok(plan), "{text}");
        }
        for (text, part) in [
            ("", "no rate"),
            ("fast", "no rate"),
            ("1X", "no rate"),
            ("1bit", "no rate"),
            ("1K", "too little"),
            ("someday 08:00-18:00 1M", "no days"),
            ("mon 08:00 1M", "part of a day"),
            ("mon 08:00-18:00 1M extra", "no rule"),
        ] {
            let why = text.parse::<LimitPlan>().unwrap_err();
            assert!(why.contains(part), "{text}: {why}");
        }
    }

    /// After midnight a rule of the day before still holds, and not that of the day that has begun.
    #[test]
    fn a_rule_goes_over_midnight_with_its_day() {
        let plan: LimitPlan = "fri 22:00-06:00 1M, daily 08:00-18:00 2M".parse().unwrap();
        let rate = |hours: i64| plan.rate_at(MONDAY + hours * HOUR, &|_| 0).map(|Rate(rate)| rate >> 20);
        let friday = 4 * 24;
        assert_eq!((rate(1), rate(12), rate(18), rate(23)), (None, Some(2), None, None));
        assert_eq!((rate(friday + 1), rate(friday + 22), rate(friday + 29)), (None, Some(1), Some(1)));
        assert_eq!((rate(friday + 30), rate(friday + 46)), (None, None));
    }

    #[test]
    fn the_next_change_is_known() {
        let utc = |_| 0;
        let plan: LimitPlan = "weekdays 08:00-18:00 1M".parse().unwrap();
        let change = |hours: i64| {
            let (at, rate) = plan.next_change(MONDAY + hours * HOUR, &utc).unwrap();
            ((at - MONDAY) / HOUR, rate.is_some())
        };
        assert_eq!((change(0), change(8), change(18)), ((8, true), (18, false), (32, true)));
        assert_eq!(change(4 * 24 + 20), (7 * 24 + 8, true), "over the week end");
        let plan: LimitPlan = "1M".parse().unwrap();
        assert_eq!(plan.next_change(MONDAY, &utc), None);
    }
}
