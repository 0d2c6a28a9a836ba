//! Behind which packet an object was changed last, for whoever compares it with a target that is far behind:
//! what was not changed since the packet that the target has applied is compared at once.
//!
//! By inode number, and only of the latest changes: of whatever is not known any more it is said that it was
//! changed at the floor.
//!
//! ```text
//!  ... packets ... │ floor │ older │ younger │ last position given out
//!                            full younger ones become the older ones, and the floor rises to where they began
//! ```

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::limits::RECENT_CHANGES_MAX;
use crate::packet::Sequence;
use crate::queue::Queue;

/// See the module.
pub struct Recent {
    queue: Arc<Queue>,
    /// Taken under the locks of changes, before the queue's.
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    /// What is not listed was changed here at the latest.
    floor: Sequence,
    older: HashMap<u64, Sequence>,
    /// No younger one was changed before this.
    turned: Sequence,
    younger: HashMap<u64, Sequence>,
}

impl Recent {
    pub fn into(queue: Arc<Queue>) -> Recent {
        let floor = queue.last().sequence;
        Recent { queue, kept: Mutex::new(Kept { floor, turned: floor, ..Kept::default() }) }
    }

    /// These were changed, and the ops of that are in the queue; the change has not ended yet.
    pub(super) fn note(&self, inodes: &[u64]) {
        if !inodes.is_empty() {
            let mut kept = self.kept.lock();
            let last = self.queue.last().sequence;
            kept.note(inodes, last, RECENT_CHANGES_MAX);
        }
    }

    /// The last packet that may have changed it.
    pub fn of(&self, inode: u64) -> Sequence {
        self.kept.lock().of(inode)
    }
}

impl Kept {
    fn note(&mut self, inodes: &[u64], last: Sequence, most: usize) {
        if self.younger.len() >= most {
            // Both keep their room: growing anew would hold a change up for a millisecond, again and again.
            std::mem::swap(&mut self.older, &mut self.younger);
            self.younger.clear();
            // What goes was noted before that.
            (self.floor, self.turned) = (self.turned, last);
        }
        self.younger.extend(inodes.iter().map(|inode| (*inode, last)));
    }

    fn of(&self, inode: u64) -> Sequence {
        let known = self.younger.get(&inode).or_else(|| self.older.get(&inode));
        known.copied().unwrap_or(self.floor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    /// Never earlier than it was, however much is forgotten.
    #[test]
    fn what_is_forgotten_counts_as_changed_later() {
        for seed in 0..50 {
            let mut random = Random::new(seed);
            let (mut kept, mut all) = (Kept::default(), HashMap::new());
            for at in 1..400 {
                let inodes = [random.below(30), random.below(30)];
                kept.note(&inodes, Sequence(at), 8);
                all.extend(inodes.map(|inode| (inode, at)));
                for (inode, changed) in &all {
                    let said = kept.of(*inode).0;
                    assert!(said >= *changed && said <= at, "seed {seed}: {inode} at {changed}, not {said}");
                }
                let latest = inodes.map(|inode| kept.of(inode).0);
                assert_eq!(latest, [at, at], "seed {seed}");
                assert!(kept.younger.len() + kept.older.len() <= 2 * (8 + 1), "seed {seed}");
            }
        }
    }
}
