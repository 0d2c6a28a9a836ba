//! The time of the decisions that a simulator runs: the system's, or on a simulator's thread its own.

/// This moment.
#[cfg(not(test))]
#[inline]
pub fn now() -> std::time::Instant {
    std::time::Instant::now()
}

/// Milliseconds since this host was started, sleep included: nobody can set this clock.
pub fn steady_ms() -> u64 {
    let since = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    since.tv_sec.unsigned_abs() * 1000 + since.tv_nsec.unsigned_abs() / 1_000_000
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
