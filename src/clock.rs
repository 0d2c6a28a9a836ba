//! The time of the decisions that a simulator runs: the system's, or on a simulator's thread its own.

/// This moment.
#[cfg(not(test))]
#[inline]
pub fn now() -> std::time::Instant {
    std::time::Instant::now()
}

#[cfg(test)]
pub use simulated::{now, set};

#[cfg(test)]
mod simulated {
    use std::cell::Cell;
    use std::time::Instant;

    thread_local! {
        static TIME: Cell<Option<Instant>> = const { Cell::new(None) };
    }

    pub fn now() -> Instant {
        TIME.get().unwrap_or_else(Instant::now)
    }

    /// Stands still at `time` for this thread until the next call; `None`: the system's again.
    pub fn set(time: Option<Instant>) {
        TIME.set(time);
    }
}
