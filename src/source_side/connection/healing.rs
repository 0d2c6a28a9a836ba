//! When a target that follows the stream and lacks something is brought into line by a copy: soon, and
//! ever more seldom while copies do not help.

use std::time::{Duration, Instant};

use crate::limits::{HEAL_AFTER, HEAL_AFTER_MAX};

/// See the module.
pub(super) struct Healing {
    due: Option<Instant>,
    pause: Duration,
}

impl Healing {
    pub(super) fn new() -> Healing {
        Healing { due: None, pause: HEAL_AFTER }
    }

    /// The target lacks something, or nothing any more.
    pub(super) fn note(&mut self, now: Instant, lacks: bool) {
        match (lacks, self.due) {
            (true, None) => self.due = Some(now + self.pause),
            (true, Some(_)) => {}
            (false, _) => *self = Healing::new(),
        }
    }

    /// Whether a copy is due: the next one is so much later.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        let is_due = self.due.is_some_and(|due| due <= now);
        if is_due {
            self.due = None;
            self.pause = (self.pause * 2).min(HEAL_AFTER_MAX);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_copies_do_not_mend_is_tried_ever_more_seldom() {
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
        }
        assert_eq!(pauses[..3], [30, 60, 120]);
        assert_eq!(*pauses.last().unwrap(), HEAL_AFTER_MAX.as_secs());
        healing.note(now, false);
        healing.note(now, true);
        assert!(healing.is_due(now + HEAL_AFTER) && !healing.is_due(now + HEAL_AFTER));
    }
}
