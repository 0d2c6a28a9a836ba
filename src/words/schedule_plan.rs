//! When a connection sends: what begins a session, what ends it, and the part of the day beside which there is none.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::verify_plan::interval;
use super::wall_clock::{Date, Recurring, Span, TimeOfDay};
use crate::units::{parse_duration, parse_size};

const DAY: u64 = super::wall_clock::DAY as u64;

/// A year and a day.
const LONGEST: u64 = 366 * DAY;

/// See the module. Written as in `at=22:00,every=1d,queue=50%,stop-after=2h,window=22:00-06:00`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SchedulePlan {
    pub times: Option<Recurring>,
    pub queue: Option<QueueLevel>,
    /// A session ends once its target has what is queued.
    pub stop_empty: bool,
    /// Seconds.
    pub stop_after_s: Option<u64>,
    /// Sent by the session.
    pub stop_bytes: Option<u64>,
    /// Nothing is sent outside of it, whatever else says so.
    pub window: Option<Span>,
}

/// What waits for a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueLevel {
    /// Of what the queue may hold.
    Percent(u8),
    Bytes(u64),
}

/// How much is queued for a target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Headers and payloads.
    pub bytes: u64,
    /// What that takes of the memory that the queue may take, and that.
    pub held: u64,
    pub limit: u64,
}

impl QueueLevel {
    pub fn is_reached(self, waiting: &Waiting) -> bool {
        match self {
            QueueLevel::Percent(percent) => {
                u128::from(waiting.held) * 100 >= u128::from(waiting.limit) * u128::from(percent)
            }
            QueueLevel::Bytes(level) => waiting.bytes >= level,
        }
    }
}

/// As it is written, part by part.
#[derive(Default)]
struct Parts {
    at: Option<(Option<Date>, TimeOfDay)>,
    every_s: Option<u64>,
    queue: Option<QueueLevel>,
    stop_empty: Option<bool>,
    stop_after_s: Option<u64>,
    stop_bytes: Option<u64>,
    window: Option<Span>,
}

impl FromStr for SchedulePlan {
    type Err = String;

    fn from_str(text: &str) -> Result<SchedulePlan, String> {
        let mut parts = Parts::default();
        for part in text.split(',') {
            let (key, value) = part.trim().split_once('=').ok_or_else(|| {
                format!("'{part}' is no part of a schedule: write it as at=22:00,every=1d,window=22:00-06:00")
            })?;
            parts.take(key, value)?;
        }
        parts.joined()
    }
}

impl Parts {
    fn take(&mut self, key: &str, value: &str) -> Result<(), String> {
        let is_new = match key {
            "at" => self.at.replace(parse_at(value)?).is_none(),
            "every" => self.every_s.replace(seconds(value)?).is_none(),
            "queue" => self.queue.replace(value.parse()?).is_none(),
            "stop-empty" => self.stop_empty.replace(yes_or_no(value)?).is_none(),
            "stop-after" => self.stop_after_s.replace(seconds(value)?).is_none(),
            "stop-bytes" => self.stop_bytes.replace(bytes(value)?).is_none(),
            "window" => self.window.replace(value.parse()?).is_none(),
            _ => {
                return Err(format!(
                    "'{key}' is no part of a schedule: at, every, queue, stop-empty, stop-after, stop-bytes and \
                     window are"
                ));
            }
        };
        if is_new { Ok(()) } else { Err(format!("'{key}' stands there twice")) }
    }

    fn joined(self) -> Result<SchedulePlan, String> {
        let times = self.times()?;
        if times.is_none() && self.queue.is_none() && self.window.is_none() {
            return Err(
                "nothing begins a session, and nothing bounds one: give it at, every, queue or window".into(),
            );
        }
        Ok(SchedulePlan {
            times,
            queue: self.queue,
            stop_empty: self.stop_empty.unwrap_or(true),
            stop_after_s: self.stop_after_s,
            stop_bytes: self.stop_bytes,
            window: self.window,
        })
    }

    fn times(&self) -> Result<Option<Recurring>, String> {
        let (from, at) = match (self.at, self.every_s) {
            (None, None) => return Ok(None),
            (Some(at), _) => at,
            (None, Some(_)) => (None, TimeOfDay::default()),
        };
        let every_s = match (self.every_s, from) {
            (Some(every), _) if !Recurring::fits(every) => {
                return Err("every is whole days, or goes into a day without a rest".into());
            }
            (Some(every), _) => Some(every as u32),
            // A time of day comes every day, a date once.
            (None, None) => Some(DAY as u32),
            (None, Some(_)) => None,
        };
        Ok(Some(Recurring { at, from, every_s }))
    }
}

fn parse_at(text: &str) -> Result<(Option<Date>, TimeOfDay), String> {
    match text.split_once([' ', 'T']) {
        Some((date, time)) => Ok((Some(date.parse()?), time.parse()?)),
        None => Ok((None, text.parse()?)),
    }
}

fn seconds(text: &str) -> Result<u64, String> {
    let duration = parse_duration(text)?;
    match duration.as_secs() {
        seconds @ 1..=LONGEST if duration.subsec_nanos() == 0 => Ok(seconds),
        _ => Err(format!("'{text}' is out of bounds: whole seconds, and 366 days at most")),
    }
}

fn bytes(text: &str) -> Result<u64, String> {
    match parse_size(text)? {
        0 => Err("0 bytes are always there: give it more".into()),
        bytes => Ok(bytes),
    }
}

fn yes_or_no(text: &str) -> Result<bool, String> {
    match text {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err(format!("'{text}' is neither yes nor no")),
    }
}

impl FromStr for QueueLevel {
    type Err = String;

    fn from_str(text: &str) -> Result<QueueLevel, String> {
        match text.strip_suffix('%').map(str::parse) {
            Some(Ok(percent @ 1..=99)) => Ok(QueueLevel::Percent(percent)),
            Some(_) => Err(format!("'{text}' is no part of a queue: write it as 50%, from 1% to 99%")),
            None => bytes(text).map(QueueLevel::Bytes),
        }
    }
}

impl fmt::Display for QueueLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            QueueLevel::Percent(percent) => write!(f, "{percent}%"),
            QueueLevel::Bytes(bytes) => f.write_str(&short_size(*bytes)),
        }
    }
}

/// As [`parse_size`] reads it, exactly.
pub(super) fn short_size(bytes: u64) -> String {
    let units = [(1 << 40, "T"), (1 << 30, "G"), (1 << 20, "M"), (1 << 10, "K"), (1, "")];
    let whole = units.into_iter().find(|(unit, _)| bytes.is_multiple_of(*unit));
    whole.map_or_else(String::new, |(unit, word)| format!("{}{word}", bytes / unit))
}

/// As it can be read again.
impl fmt::Display for SchedulePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if let Some(Recurring { at, from, every_s }) = &self.times {
            parts.push(from.map_or_else(|| format!("at={at}"), |date| format!("at={date} {at}")));
            parts.extend(every_s.map(|every| format!("every={}", interval(every.into()))));
        }
        parts.extend(self.queue.map(|level| format!("queue={level}")));
        if !self.stop_empty {
            parts.push("stop-empty=no".into());
        }
        parts.extend(self.stop_after_s.map(|seconds| format!("stop-after={}", interval(seconds))));
        parts.extend(self.stop_bytes.map(|bytes| format!("stop-bytes={}", short_size(bytes))));
        parts.extend(self.window.map(|window| format!("window={window}")));
        f.write_str(&parts.join(","))
    }
}

impl TryFrom<String> for SchedulePlan {
    type Error = String;

    fn try_from(text: String) -> Result<SchedulePlan, String> {
        text.parse()
    }
}

impl From<SchedulePlan> for String {
    fn from(plan: SchedulePlan) -> String {
        plan.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_is_written_as_it_is_read() {
        for (text, written) in [
            ("at=22:00", "at=22:00,every=1d"),
            ("every=6h", "at=00:00,every=6h"),
            ("at=2026-12-31 23:30", "at=2026-12-31 23:30"),
            ("at=2026-12-31T23:30,every=7d", "at=2026-12-31 23:30,every=7d"),
            ("queue=50%, stop-bytes=1.5G", "queue=50%,stop-bytes=1536M"),
            ("queue=64M,stop-empty=no,stop-after=90m", "queue=64M,stop-empty=no,stop-after=90m"),
            ("window=22:00-06:00", "window=22:00-06:00"),
            ("stop-empty=yes,window=00:00-24:00", "window=00:00-24:00"),
        ] {
            let plan: SchedulePlan = text.parse().unwrap();
            assert_eq!(plan.to_string(), written, "{text}");
            assert_eq!(written.parse(), Ok(plan), "{text}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_no_schedule() {
        for (text, part) in [
            ("", "no part"),
            ("22:00", "no part"),
            ("stop-after=2h", "nothing begins"),
            ("at=22:00,at=23:00", "twice"),
            ("every=7h", "goes into a day"),
            ("every=0s", "out of bounds"),
            ("every=400d", "out of bounds"),
            ("at=2026-02-30 22:00", "no date"),
            ("at=25:00", "time of day"),
            ("queue=0%", "1% to 99%"),
            ("queue=0", "always there"),
            ("window=22:00", "part of a day"),
            ("stop-empty=maybe,queue=1M", "yes nor no"),
            ("evry=1d", "evry"),
        ] {
            let why = text.parse::<SchedulePlan>().unwrap_err();
            assert!(why.contains(part), "{text}: {why}");
        }
    }

    #[test]
    fn a_level_is_reached_at_its_bound() {
        let is_reached =
            |level: QueueLevel, bytes, held| level.is_reached(&Waiting { bytes, held, limit: 100 });
        let (percent, bytes) = (QueueLevel::Percent(50), QueueLevel::Bytes(7));
        assert!(is_reached(percent, 7, 50) && !is_reached(percent, 49, 49));
        assert!(is_reached(bytes, 7, 99) && !is_reached(bytes, 6, 99));
    }
}
