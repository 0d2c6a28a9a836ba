//! The two threads of the queue that work with its disk, and how that fails.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use super::*;
use crate::failpoint;
use crate::queue::Spilled;

impl World {
    /// Whatever they come to between two steps.
    pub(super) fn disk_turns(&mut self) -> Checked {
        if self.queue_disk.is_none() {
            return Ok(());
        }
        let stuck = self.seen.disk_stuck;
        let fails = !self.calm && self.disk_random.one_in(12);
        let chance = Rc::new(RefCell::new(Random::new(self.disk_random.number())));
        let failed = Rc::new(RefCell::new(false));
        let noted = failed.clone();
        let hook = Rc::new(move |place: &'static str| {
            if !fails || !chance.borrow_mut().one_in(2) {
                return Ok(());
            }
            *noted.borrow_mut() |= place == "queue: read";
            Err(io::Error::from_raw_os_error(libc::EIO))
        });
        let turns = self.disk_random.below(3);
        for _ in 0..turns {
            let (queue, what) = (self.source.queue.clone(), self.disk_random.below(3));
            let was_lost = queue.lost();
            let done = failpoint::with(hook.clone(), || match what {
                0 => match queue.spill_step() {
                    Spilled::Nothing => (0, 0, 0),
                    Spilled::Some => (1, 0, 0),
                    Spilled::Stuck => (0, 0, 1),
                },
                1 => (0, u64::from(queue.read_step()), 0),
                _ => {
                    queue.look_at_disk();
                    (0, 0, 0)
                }
            });
            self.seen.spilled += done.0;
            self.seen.read_from_disk += done.1;
            self.seen.disk_stuck += done.2;
            self.disk_failed |= *failed.borrow();
            if queue.lost() != was_lost {
                self.seen.lost_by_disk += 1;
                self.note("the queue lost what it had on disk".into());
            }
        }
        // Whoever waits waits for the target from now on.
        if self.seen.disk_stuck > stuck { self.hear(News::Waits) } else { Ok(()) }
    }
}
