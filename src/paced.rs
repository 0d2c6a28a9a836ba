//! Lines of the log that somebody else can cause as often as they like: one in so long, and how many were left out.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Refusals are logged at most this often for long: nobody is to fill the log.
const REFUSALS_EVERY: Duration = Duration::from_secs(1);

/// And so many of those who are known at once: each may have another reason, which a person looks for.
const KNOWN_AT_ONCE: u32 = 10;

/// Of one kind of line.
pub struct Paced {
    at_once: u32,
    last: Mutex<Last>,
}

#[derive(Default)]
struct Last {
    /// When as much has been said as there may have been until then.
    spent_until: Option<Instant>,
    left_out: u64,
}

impl Paced {
    /// Refusals of whoever there is.
    pub fn of_strangers() -> Paced {
        Paced { at_once: 1, last: Mutex::default() }
    }

    /// Those of peers that are paired, or that are about to be.
    pub fn of_known() -> Paced {
        Paced { at_once: KNOWN_AT_ONCE, last: Mutex::default() }
    }

    /// The line as it is to be logged; `None`: there were too many before it.
    pub fn line(&self, now: Instant, line: &str) -> Option<String> {
        let mut last = self.last.lock();
        let spent_until = last.spent_until.map_or(now, |at| at.max(now));
        if spent_until - now > REFUSALS_EVERY * (self.at_once - 1) {
            last.left_out += 1;
            return None;
        }
        last.spent_until = Some(spent_until + REFUSALS_EVERY);
        Some(match std::mem::take(&mut last.left_out) {
            0 => line.to_owned(),
            others => format!("{line} ({others} others were left out before it)"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_in_so_long_is_said() {
        let now = Instant::now();
        for (paced, at_once) in [(Paced::of_strangers(), 1), (Paced::of_known(), 10)] {
            let said = |ms| paced.line(now + Duration::from_millis(ms), "refused");
            for _ in 0..at_once {
                assert_eq!(said(0), Some("refused".into()));
            }
            assert!((0..1000).all(|ms| said(ms).is_none()));
            assert_eq!(said(1000), Some("refused (1000 others were left out before it)".into()));
            assert_eq!((said(1500), said(2000).is_some(), said(2001)), (None, true, None));
            // Not more at once, however long it was quiet.
            let again = (0..100).filter(|_| said(99_000).is_some());
            assert_eq!(again.count(), at_once);
        }
    }
}
