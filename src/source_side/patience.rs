//! How long programs wait for the last part of a first copy: the mount is there and answers nothing,
//! so that each of their calls hangs.
//!
//! ```text
//!  gets on          ten times --start-timeout in all, over every mount of this start
//!  gets nowhere     --start-timeout without one file or byte
//!  target retries   5 s: what is in its way does not go away while it is waited for
//!  target is away   15 s, or --start-timeout
//! ```

use std::time::{Duration, Instant};

use super::connection::Report;
use crate::limits::{CONNECT_PATIENCE, START_RETRY_PATIENCE, START_TIMES};

/// What all mounts of one start may take together.
pub struct Budget {
    timeout: Duration,
    left: Duration,
}

/// One mount under which programs wait. Counts against the budget until it is dropped.
pub struct Waiting<'a> {
    budget: &'a mut Budget,
    since: Instant,
    /// When the copy last got on, and how far it was.
    moved: (Instant, [u64; 4]),
    retrying_since: Option<Instant>,
    away_since: Option<Instant>,
}

/// Programs have waited long enough.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    GoOn,
    /// The target is away: it is waited for without a mount.
    Away,
    /// The mount goes, and the start has failed, for this reason.
    Over(String),
}

impl Budget {
    pub fn new(timeout: Duration) -> Budget {
        Budget { timeout, left: timeout.saturating_mul(START_TIMES) }
    }

    /// A mount is there now.
    pub fn mounted(&mut self) -> Waiting<'_> {
        self.mounted_at(Instant::now())
    }

    fn mounted_at(&mut self, now: Instant) -> Waiting<'_> {
        Waiting { budget: self, since: now, moved: (now, [0; 4]), retrying_since: None, away_since: None }
    }
}

impl Waiting<'_> {
    /// Judges how a copy stands.
    pub fn judge(&mut self, report: &Report) -> Verdict {
        self.judge_at(report, Instant::now())
    }

    fn judge_at(&mut self, report: &Report, now: Instant) -> Verdict {
        let (timeout, all) = (self.budget.timeout, self.budget.left);
        let since = |began: &mut Option<Instant>, holds: bool| match holds {
            true => now.saturating_duration_since(*began.get_or_insert(now)),
            false => {
                *began = None;
                Duration::ZERO
            }
        };
        let away = since(&mut self.away_since, report.connected.is_none());
        let retrying = since(&mut self.retrying_since, report.retrying.is_some());
        let at = how_far(report);
        if at != self.moved.1 || report.connected.is_none() {
            self.moved = (now, at);
        }
        let still = now.saturating_duration_since(self.moved.0);
        let why = || match &report.retrying {
            Some(retrying) => format!("it cannot perform {}: {}", retrying.op, retrying.reason),
            None => format!("--start-timeout is {} s", timeout.as_secs_f64()),
        };
        if now.saturating_duration_since(self.since) >= all {
            return Verdict::Over(format!("it took too long while programs waited ({})", why()));
        }
        if retrying >= START_RETRY_PATIENCE.min(timeout) || still >= timeout {
            return Verdict::Over(format!("it got no further while programs waited ({})", why()));
        }
        if away >= CONNECT_PATIENCE.min(timeout) { Verdict::Away } else { Verdict::GoOn }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.budget.left = self.budget.left.saturating_sub(self.since.elapsed());
    }
}

/// Changes with whatever the copy does.
fn how_far(report: &Report) -> [u64; 4] {
    let Some(progress) = &report.progress else { return [0; 4] };
    let now = progress.snapshot();
    [
        now.files + now.directories,
        now.files_compared,
        now.files_identical + now.files_copied,
        now.bytes_copied,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Retrying;
    use crate::source_side::connection::Report;

    const TIMEOUT: Duration = Duration::from_secs(30);

    fn connected() -> Report {
        Report { connected: Some(std::time::SystemTime::now()), ..Report::new("") }
    }

    fn retrying() -> Report {
        let retrying =
            Retrying { op: "create".into(), reason: "no room".into(), since_unix_ms: 0, attempts: 1 };
        Report { retrying: Some(retrying), ..connected() }
    }

    /// Programs waited for a target that retried, or hung, without limit.
    #[test]
    fn nobody_waits_for_ever() {
        let check = |report: &Report, ends_after: u64, expected: &str| {
            let start = Instant::now();
            let mut budget = Budget::new(TIMEOUT);
            let mut waiting = budget.mounted_at(start);
            let at = |seconds: u64| start + Duration::from_secs(seconds);
            for second in 0..ends_after {
                assert_eq!(waiting.judge_at(report, at(second)), Verdict::GoOn, "{expected} {second}");
            }
            let verdict = format!("{:?}", waiting.judge_at(report, at(ends_after)));
            assert!(verdict.contains(expected), "{verdict}");
        };
        check(&connected(), 30, "got no further");
        check(&retrying(), 5, "no room");
        check(&Report::new("gone"), 15, "Away");
    }

    #[test]
    fn a_copy_that_gets_on_has_its_time_and_no_more() {
        let start = Instant::now();
        let mut budget = Budget::new(TIMEOUT);
        let mut waiting = budget.mounted_at(start);
        let mut report = connected();
        for second in 0..300 {
            // Retries pass, and so does a hole of some seconds.
            report.retrying = retrying().retrying.filter(|_| second % 20 < 4);
            waiting.moved.1 = [u64::MAX; 4];
            let now = start + Duration::from_secs(second);
            assert_eq!(waiting.judge_at(&report, now), Verdict::GoOn, "{second}");
        }
        let over = waiting.judge_at(&report, start + Duration::from_secs(300));
        assert!(matches!(over, Verdict::Over(why) if why.contains("too long")));
    }

    #[test]
    fn mounts_of_one_start_count_together() {
        let mut budget = Budget::new(TIMEOUT);
        budget.left = Duration::from_secs(1);
        let since = Instant::now() - Duration::from_secs(2);
        drop(budget.mounted_at(since));
        assert_eq!(budget.left, Duration::ZERO);
        assert!(matches!(budget.mounted().judge(&connected()), Verdict::Over(_)));
    }
}
