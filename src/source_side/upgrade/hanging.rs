//! Threads of this process in calls that a disk does not end: programs on the mount would wait for that disk.

use std::time::{Duration, Instant};

use super::AS_BEFORE;
use crate::failure::Failure;
use crate::sys::{Sleep, stuck_threads};

/// A disk that is only busy has answered by then.
const BUSY_MAX: Duration = Duration::from_secs(3);

const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Errors: one hangs.
pub(super) fn none_hangs() -> Result<(), Failure> {
    let until = Instant::now() + BUSY_MAX;
    let mut hanging = stuck_threads();
    while !hanging.is_empty() && Instant::now() < until {
        std::thread::sleep(LOOK_EVERY);
        let now = stuck_threads();
        hanging.retain(|thread, sleep| now.get(thread) == Some(sleep));
    }
    let Some(Sleep { name, .. }) = hanging.values().next() else { return Ok(()) };
    Err(Failure::new(
        format!(
            "A thread of the daemon ({name}) waits for a disk that does not answer: the daemon could not become another \
             program before that disk does, and programs would wait with it."
        ),
        AS_BEFORE,
        "See which disk hangs (dmesg; the state directory, --queue-dir, --statistics) and mend it.",
    )
    .passing())
}
