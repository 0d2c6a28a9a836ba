//! Threads in calls that a disk does not end: no signal wakes them, a process becomes no other program and does not die
//! before they have come back, and keeps what it has open.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// The name that the kernel shows of this product's processes.
const PROGRAM: &str = "standin";

/// Bit of SIGKILL in the masks of proc(5).
const KILLED: u64 = 1 << (libc::SIGKILL - 1);

/// One sleep of a thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sleep {
    /// Of the thread.
    pub name: String,
    /// How often it has slept before.
    pub number: u64,
}

/// A process of this product that was ended, and has not.
#[derive(Debug, PartialEq, Eq)]
pub struct Undead {
    pub pid: u32,
    /// Name of a thread that keeps it.
    pub thread: String,
}

/// Threads of this process that no signal wakes now, by their ids.
pub fn stuck_threads() -> BTreeMap<String, Sleep> {
    stuck_threads_of(Path::new("/proc/self"))
}

/// One of this product's processes on this host that was killed and does not end.
pub fn undead() -> Option<Undead> {
    let processes = fs::read_dir("/proc").ok()?.flatten();
    processes.into_iter().find_map(|process| {
        let pid = process.file_name().to_str()?.parse().ok()?;
        let status = fs::read_to_string(process.path().join("status")).ok()?;
        if !is_ended(&status) {
            return None;
        }
        let (_, sleep) = stuck_threads_of(&process.path()).pop_first()?;
        Some(Undead { pid, thread: sleep.name })
    })
}

fn stuck_threads_of(process: &Path) -> BTreeMap<String, Sleep> {
    let threads = fs::read_dir(process.join("task")).into_iter().flatten().flatten();
    let asleep = threads.filter_map(|thread| {
        let status = fs::read_to_string(thread.path().join("status")).ok()?;
        Some((thread.file_name().to_string_lossy().into_owned(), sleep_of(&status)?))
    });
    asleep.collect()
}

/// `status`: a file of proc(5).
fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// `None` where signals reach the thread.
fn sleep_of(status: &str) -> Option<Sleep> {
    let number = field(status, "voluntary_ctxt_switches")?.parse().ok()?;
    let name = field(status, "Name")?.to_owned();
    field(status, "State")?.starts_with('D').then_some(Sleep { name, number })
}

/// Of a process's first thread: it is this product, and was killed, or has ended before others.
fn is_ended(status: &str) -> bool {
    let pending = field(status, "ShdPnd").and_then(|mask| u64::from_str_radix(mask, 16).ok());
    let is_killed = pending.is_some_and(|mask| mask & KILLED != 0);
    field(status, "Name") == Some(PROGRAM)
        && (is_killed || field(status, "State").is_some_and(|state| state.starts_with(['Z', 'X'])))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(name: &str, state: &str, pending: &str) -> String {
        format!(
            "Name:\t{name}\nUmask:\t0022\nState:\t{state}\nTgid:\t7\nSigPnd:\t0000000000000000\nShdPnd:\t{pending}\n\
             voluntary_ctxt_switches:\t12\nnonvoluntary_ctxt_switches:\t3\n"
        )
    }

    const NOTHING: &str = "0000000000000000";

    #[test]
    fn a_sleep_that_nothing_ends_is_told_from_others() {
        let asleep = Some(Sleep { name: "statistics".into(), number: 12 });
        assert_eq!(sleep_of(&status("statistics", "D (disk sleep)", NOTHING)), asleep);
        for state in ["S (sleeping)", "R (running)", "Z (zombie)"] {
            assert_eq!(sleep_of(&status("statistics", state, NOTHING)), None, "{state}");
        }
    }

    #[test]
    fn one_that_was_ended_is_told_from_one_that_runs() {
        for (name, state, pending, expected) in [
            ("standin", "S (sleeping)", NOTHING, false),
            ("standin", "D (disk sleep)", NOTHING, false),
            ("standin", "D (disk sleep)", "0000000000000100", true),
            ("standin", "S (sleeping)", "0000000000004000", false),
            ("standin", "Z (zombie)", NOTHING, true),
            ("postgres", "Z (zombie)", NOTHING, false),
        ] {
            assert_eq!(is_ended(&status(name, state, pending)), expected, "{name} {state} {pending}");
        }
    }
}
