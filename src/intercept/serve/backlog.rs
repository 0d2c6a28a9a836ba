//! Write-backs that wait for room in the queue.
//!
//! The kernel has only so many requests of its own under way, and reads that it makes ahead stand in
//! the same line as write-backs: where all of these wait for room, readers would wait with them. So
//! while many wait, all are let through. How many there can be is bounded by what the kernel lets
//! programs have unwritten of one mount.

use std::sync::Arc;

use parking_lot::Mutex;

use super::cache::Cache;

/// From so many on all are let through: well below what the kernel has under way otherwise.
const MANY: usize = 16;

#[derive(Clone)]
pub struct Backlog {
    waiting: Arc<Mutex<Waiting>>,
    cache: Arc<dyn Cache>,
}

#[derive(Default)]
struct Waiting {
    count: usize,
    all_come: bool,
}

/// One that waits, until it is dropped.
pub struct Waits(Backlog);

impl Backlog {
    pub fn new(cache: Arc<dyn Cache>) -> Backlog {
        Backlog { waiting: Arc::default(), cache }
    }

    pub fn enter(&self) -> Waits {
        self.count(|count| count + 1);
        Waits(self.clone())
    }

    /// The lock is held meanwhile: two of these are told in their order.
    fn count(&self, next: impl FnOnce(usize) -> usize) {
        let mut waiting = self.waiting.lock();
        waiting.count = next(waiting.count);
        let all = if waiting.all_come { waiting.count > 0 } else { waiting.count >= MANY };
        if std::mem::replace(&mut waiting.all_come, all) != all {
            self.cache.let_all_through(all);
        }
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.count(|count| count - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intercept::objects::NodeId;
    use std::ops::Range;

    #[derive(Default)]
    struct Told(Mutex<Vec<bool>>);

    impl Cache for Told {
        fn forget_attributes(&self, _: NodeId) {}
        fn write_back(&self, _: NodeId, _: Range<u64>) {}
        fn let_all_through(&self, all: bool) {
            self.0.lock().push(all);
        }
    }

    #[test]
    fn all_are_let_through_while_many_wait() {
        let told = Arc::new(Told::default());
        let backlog = Backlog::new(told.clone());
        for _ in 0..2 {
            drop(backlog.enter());
            let waits: Vec<_> = (0..MANY + 3).map(|_| backlog.enter()).collect();
            assert_eq!(told.0.lock().last(), Some(&true));
            drop(waits);
        }
        assert_eq!(*told.0.lock(), [true, false, true, false]);
    }
}
