//! The wish that a drain which runs ends at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Held by whoever may wish it, and by what drains. It is never taken back.
#[derive(Clone, Default)]
pub struct Haste(Arc<AtomicBool>);

impl Haste {
    pub fn make(&self) {
        self.0.store(true, Relaxed);
    }

    pub fn is_made(&self) -> bool {
        self.0.load(Relaxed)
    }
}
