//! When a target that follows the stream and lacks something is brought into line by a copy: soon, and
//! ever more seldom while copies do not help, the more so the longer one takes.

use std::time::{Duration, Instant};

use crate::limits::{HEAL_AFTER, HEAL_AFTER_MAX, HEAL_EVERY, HEAL_SHARE};

/// See the module.
pub(super) struct Healing {
    due: Option<Instant>,
    pause: Duration,
    /// As long as the last copy took.
    took: Duration,
}

impl Healing {
    pub(super) fn new() -> Healing {
        Healing { due: None, pause: HEAL_AFTER, took: Duration::ZERO }
    }

    /// The target lacks something, or nothing any more.
    pub(super) fn note(&mut self, now: Instant, lacks: bool) {
        match (lacks, self.due) {
            (true, None) => self.due = Some(now + self.pause),
            (true, Some(_)) => {}
            (false, _) => *self = Healing::new(),
        }
    }

    /// A copy of everything has come to its end.
    pub(super) fn took(&mut self, took: Duration) {
        self.took = took;
    }

    /// Whether a copy is due: the next one is so much later.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        let is_due = self.due.is_some_and(|due| due <= now);
        if is_due {
            self.due = None;
            let seldom = self.took.saturating_mul(HEAL_SHARE).clamp(HEAL_EVERY, HEAL_AFTER_MAX);
            self.pause = (self.pause * 2).min(seldom);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The seconds between what is due, while copies of so many seconds do not help.
    fn pauses(took: u64) -> Vec<u64> {
        let mut healing = Healing::new();
        let mut now = Instant::now();
        healing.note(now, true);
        assert!(!healing.is_due(now));
        let mut pauses = Vec::new();
        for _ in 0..12 {
            let since = now;
            healing.note(now, true);
            while !healing.is_due(now) {
                now += Duration::from_secs(1);
            }
            pauses.push((now - since).as_secs());
            healing.took(Duration::from_secs(took));
        }
        pauses
    }

    #[test]
    fn what_copies_do_not_mend_is_tried_ever_more_seldom() {
        assert_eq!(pauses(0)[..5], [30, 60, 120, 240, 300]);
        assert_eq!(pauses(0).last(), Some(&HEAL_EVERY.as_secs()));
        assert_eq!(pauses(10).last(), Some(&1000));
        assert_eq!(pauses(600).last(), Some(&HEAL_AFTER_MAX.as_secs()));
    }

    #[test]
    fn what_was_mended_is_tried_soon_when_it_comes_again() {
        let (mut healing, now) = (Healing::new(), Instant::now());
        for times in 0..3 {
            healing.note(now, true);
            assert!(healing.is_due(now + HEAL_AFTER_MAX), "{times}");
        }
        healing.note(now, false);
        healing.note(now, true);
        assert!(healing.is_due(now + HEAL_AFTER) && !healing.is_due(now + HEAL_AFTER));
    }
}
