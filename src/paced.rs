//! Lines of the log that somebody else can cause as often as they like: one in so long, and how many were left out.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Refusals are logged at most this often: strangers must not fill the log.
const REFUSALS_EVERY: Duration = Duration::from_secs(1);

/// Of one kind of line.
pub struct Paced {
    every: Duration,
    last: Mutex<Last>,
}

#[derive(Default)]
struct Last {
    at: Option<Instant>,
    left_out: u64,
}

impl Paced {
    pub fn refusals() -> Paced {
        Paced { every: REFUSALS_EVERY, last: Mutex::default() }
    }

    /// The line as it is to be logged; `None`: not so soon after the one before.
    pub fn line(&self, now: Instant, line: &str) -> Option<String> {
        let mut last = self.last.lock();
        if last.at.is_some_and(|at| now.saturating_duration_since(at) < self.every) {
            last.left_out += 1;
            return None;
        }
        let before = std::mem::replace(&mut *last, Last { at: Some(now), left_out: 0 });
        Some(match before.left_out {
            0 => line.to_owned(),
            others => format!("{line} ({others} others since the line before)"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_in_so_long_is_said() {
        let (paced, now) = (Paced::refusals(), Instant::now());
        let said = |ms| paced.line(now + Duration::from_millis(ms), "refused");
        let all: Vec<_> = (0..25).map(|tenth| said(tenth * 100)).collect();
        let others = Some("refused (9 others since the line before)".to_owned());
        assert_eq!((&all[0], &all[10], &all[20]), (&Some("refused".into()), &others, &others));
        assert_eq!(all.iter().flatten().count(), 3);
        assert_eq!(said(9000), Some("refused (4 others since the line before)".into()));
        assert_eq!(said(10_000), Some("refused".into()));
    }
}
