//! What holds of a schedule, why, and what comes next and when: in words.

use std::fmt;

use super::{Begun, Ended, Scheduler, Session, holds, is_in_window};
use crate::words::{SchedulePlan, Span, Zone, first_minute, shown};

/// A window changes within a day and what summer time makes of it.
const CHANGES_WITHIN_DAYS: i64 = 2;

/// What holds, and what comes next, in words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outlook {
    pub why: String,
    /// Seconds since 1970.
    pub next_s: Option<i64>,
    pub next: String,
}

impl Scheduler {
    /// For people.
    pub fn outlook(&self, now_s: i64, zone: Zone<'_>) -> Outlook {
        let Some(plan) = &self.plan else { return Outlook::default() };
        match &self.session {
            _ if !self.is_on => Outlook {
                why: "it is switched off: changes are sent as they come".into(),
                ..Outlook::default()
            },
            Some(session) => session.outlook(plan, now_s, zone),
            None if self.is_stopped => {
                Outlook { why: "the connection is stopped by hand".into(), ..Outlook::default() }
            }
            None => self.waits(plan, now_s, zone),
        }
    }

    fn waits(&self, plan: &SchedulePlan, now_s: i64, zone: Zone<'_>) -> Outlook {
        let is_in = is_in_window(plan, now_s, zone);
        let why = match (is_in, self.last_end) {
            (false, _) => "it is outside of its window".to_owned(),
            (true, None) => "nothing has begun a session yet".to_owned(),
            (true, Some(end)) => format!("the last session ended: {end}"),
        };
        let due = self.due(plan, now_s, zone).map(|_| now_s);
        let time = due.or_else(|| plan.times.and_then(|times| times.next_after(now_s, zone)));
        let time = time.map(|at| plan.window.map_or(at, |window| opening(window, at, zone)));
        let level = plan.queue.map(|level| format!("as soon as {level} are queued"));
        match (time, level) {
            (Some(at), level) => {
                let sooner = level.map(|level| format!(", or {level}")).unwrap_or_default();
                let next = format!("a session begins at {}{sooner}", shown(at, zone));
                Outlook { why, next_s: Some(at), next }
            }
            (None, Some(level)) => {
                let opens = plan.window.filter(|_| !is_in).map(|window| opening(window, now_s, zone));
                let since = opens.map(|at| format!(", from {} on", shown(at, zone))).unwrap_or_default();
                Outlook { why, next_s: opens, next: format!("a session begins {level}{since}") }
            }
            (None, None) => {
                let opens = plan.window.filter(|_| !is_in).map(|window| opening(window, now_s, zone));
                let since = opens.map(|at| format!(", from {} on", shown(at, zone))).unwrap_or_default();
                Outlook {
                    why,
                    next_s: opens,
                    next: format!("`standin connection start` begins a session{since}"),
                }
            }
        }
    }
}

impl Session {
    fn outlook(&self, plan: &SchedulePlan, now_s: i64, zone: Zone<'_>) -> Outlook {
        let after = plan.stop_after_s.map(|after| now_s + after.saturating_sub(self.lasted.as_secs()) as i64);
        let closes = plan.window.and_then(|window| change(window, now_s, zone));
        let next_s = after.into_iter().chain(closes).min();
        let ends = [
            plan.stop_empty.then(|| "once the target has what is queued".to_owned()),
            plan.stop_bytes.map(|bytes| format!("after {}", crate::units::size(bytes))),
            next_s.map(|at| format!("at {}", shown(at, zone))),
        ];
        let ends: Vec<String> = ends.into_iter().flatten().collect();
        let next = match ends.is_empty() {
            true => "it goes on until it is stopped by hand".to_owned(),
            false => format!("it ends {}", ends.join(", or ")),
        };
        Outlook {
            why: format!("a session runs since {}, begun {}", shown(self.began_s, zone), self.by),
            next_s,
            next,
        }
    }
}

/// When it is open for the first time from `at` on.
fn opening(window: Span, at: i64, zone: Zone<'_>) -> i64 {
    if holds(window, at, zone) { at } else { change(window, at, zone).unwrap_or(at) }
}

/// `None`: it is the whole day.
fn change(window: Span, at: i64, zone: Zone<'_>) -> Option<i64> {
    let is_open = holds(window, at, zone);
    first_minute(at, CHANGES_WITHIN_DAYS, |at| holds(window, at, zone) != is_open)
}

impl fmt::Display for Begun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Begun::AtTime => "by its time",
            Begun::ByQueue => "by what was queued",
            Begun::ByHand => "by hand",
        })
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Ended::Window => "its window was over",
            Ended::Empty => "the target had what was queued",
            Ended::Time => "its time was over",
            Ended::Bytes => "it had sent what it may",
            Ended::ByHand => "it was stopped by hand",
        })
    }
}
