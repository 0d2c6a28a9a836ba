//! Which changes are under way, in two counts that take turns: whoever takes a moment can tell when
//! everything that began before it is over, and holds nobody up for it.
//!
//! A change gets its time from the file system before it gets its place in the queue, and between
//! the two it may wait for a slow disk for as long as that takes.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

/// See the module.
#[derive(Default)]
pub struct Ongoing {
    /// Which of the counts those that begin now belong to: its lowest bit.
    turn: AtomicUsize,
    counts: [AtomicUsize; 2],
}

/// A change, from before its effect to after its op; counted while it lives.
pub struct Counted<'a>(&'a AtomicUsize);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        let before = self.0.fetch_sub(1, SeqCst);
        assert!(before > 0, "a change ends that was not counted");
    }
}

impl Ongoing {
    pub fn enter(&self) -> Counted<'_> {
        loop {
            let turn = self.turn.load(SeqCst);
            let count = &self.counts[turn & 1];
            count.fetch_add(1, SeqCst);
            let change = Counted(count);
            // Not counted among those before although it begins after them.
            if self.turn.load(SeqCst) == turn {
                return change;
            }
        }
    }

    /// Begins the other count. `false`, and nothing done, as long as that holds older changes.
    pub fn turn(&self) -> bool {
        if !self.earlier_are_over() {
            return false;
        }
        self.turn.fetch_add(1, SeqCst);
        true
    }

    /// Whether all that was under way at the last [`Ongoing::turn`] has ended.
    pub fn earlier_are_over(&self) -> bool {
        self.counts[(self.turn.load(SeqCst) + 1) & 1].load(SeqCst) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The moment was taken before the position: a write that was stuck between its time and its
    /// place in the queue for longer than the slack was noted as copied.
    #[test]
    fn a_slow_change_is_waited_for_and_later_ones_are_not() {
        let ongoing = Ongoing::default();
        let slow = ongoing.enter();
        assert!(ongoing.turn());
        let later = ongoing.enter();
        assert!(!ongoing.earlier_are_over());
        assert!(!ongoing.turn(), "the counts would mix");
        drop(slow);
        assert!(ongoing.earlier_are_over());
        assert!(ongoing.turn());
        assert!(!ongoing.earlier_are_over());
        drop(later);
        assert!(ongoing.earlier_are_over());
    }
}
