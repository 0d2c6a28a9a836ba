//! Objects that were removed and are not gone yet: their space comes back when their last descriptor
//! is closed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};

#[derive(Default)]
pub struct Departures {
    present: AtomicUsize,
    departed: AtomicU64,
}

/// Held by an object that has lost its last name, until it is gone or has a name again.
pub struct Leaving(Arc<Departures>);

impl Departures {
    pub fn enter(departures: &Arc<Departures>) -> Leaving {
        departures.present.fetch_add(1, SeqCst);
        Leaving(departures.clone())
    }

    /// Objects without a name that still have descriptors.
    pub fn present(&self) -> usize {
        self.present.load(SeqCst)
    }

    /// How many have left so far: rises when the descriptors are closed.
    pub fn departed(&self) -> u64 {
        self.departed.load(SeqCst)
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        // First: between the two the object counts as present and as gone, never as neither.
        self.0.departed.fetch_add(1, SeqCst);
        let before = self.0.present.fetch_sub(1, SeqCst);
        assert!(before > 0, "an object leaves that was not there");
    }
}
