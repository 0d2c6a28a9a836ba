//! Threads of this process in calls that a disk does not end: nothing ends them, and a process becomes no other program
//! and does not die before they have. Programs on the mount would wait for that disk.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use super::AS_BEFORE;
use crate::failure::Failure;

/// A disk that is only busy has answered by then.
const BUSY_MAX: Duration = Duration::from_secs(3);

const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Errors: one hangs.
pub(super) fn none_hangs() -> Result<(), Failure> {
    let until = Instant::now() + BUSY_MAX;
    let mut hanging = waiting();
    while !hanging.is_empty() && Instant::now() < until {
        std::thread::sleep(LOOK_EVERY);
        let now = waiting();
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

/// One sleep of a thread.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sleep {
    name: String,
    /// How often it has slept before.
    number: u64,
}

/// Threads that no signal wakes now, by their ids.
fn waiting() -> BTreeMap<String, Sleep> {
    let threads = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let asleep = threads.filter_map(|thread| {
        let status = fs::read_to_string(thread.path().join("status")).ok()?;
        Some((thread.file_name().to_string_lossy().into_owned(), sleep_of(&status)?))
    });
    asleep.collect()
}

/// `status`: a file of proc(5); `None` where signals reach the thread.
fn sleep_of(status: &str) -> Option<Sleep> {
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let name = field("Name:")?.to_owned();
    let number = field("voluntary_ctxt_switches:")?.parse().ok()?;
    field("State:")?.starts_with('D').then_some(Sleep { name, number })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sleep_that_nothing_ends_is_told_from_others() {
        let status = |state: &str| {
            format!(
                "Name:\tstatistics\nUmask:\t0022\nState:\t{state}\nTgid:\t7\nvoluntary_ctxt_switches:\t12\nnonvoluntary_ctxt_switches:\t3\n"
            )
        };
        let asleep = Some(Sleep { name: "statistics".into(), number: 12 });
        assert_eq!(sleep_of(&status("D (disk sleep)")), asleep);
        for state in ["S (sleeping)", "R (running)", "Z (zombie)"] {
            assert_eq!(sleep_of(&status(state)), None, "{state}");
        }
        none_hangs().unwrap();
    }
}
