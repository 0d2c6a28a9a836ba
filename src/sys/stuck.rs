//! Threads in calls that a disk does not end: no signal wakes them, a process becomes no other program and does not die
//! before they have come back, and keeps what it has open.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

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

/// What a thread of this process waits in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Call {
    /// Of the system call, where it is one of those that wait for disks.
    pub name: Option<&'static str>,
    /// Where the file system is mounted that it was made on, where that can be told.
    pub mount: Option<PathBuf>,
}

/// Those that wait for disks. Where the first argument is a descriptor, it is that of the file, or of its directory.
const CALLS: [(i64, &str); 37] = [
    (libc::SYS_read, "read"),
    (libc::SYS_pread64, "pread64"),
    (libc::SYS_preadv, "preadv"),
    (libc::SYS_write, "write"),
    (libc::SYS_pwrite64, "pwrite64"),
    (libc::SYS_pwritev, "pwritev"),
    (libc::SYS_pwritev2, "pwritev2"),
    (libc::SYS_copy_file_range, "copy_file_range"),
    (libc::SYS_fsync, "fsync"),
    (libc::SYS_fdatasync, "fdatasync"),
    (libc::SYS_syncfs, "syncfs"),
    (libc::SYS_sync_file_range, "sync_file_range"),
    (libc::SYS_fallocate, "fallocate"),
    (libc::SYS_ftruncate, "ftruncate"),
    (libc::SYS_close, "close"),
    (libc::SYS_fchmod, "fchmod"),
    (libc::SYS_fchmodat, "fchmodat"),
    (libc::SYS_fchown, "fchown"),
    (libc::SYS_fchownat, "fchownat"),
    (libc::SYS_fsetxattr, "fsetxattr"),
    (libc::SYS_fremovexattr, "fremovexattr"),
    (libc::SYS_setxattr, "setxattr"),
    (libc::SYS_lsetxattr, "lsetxattr"),
    (libc::SYS_utimensat, "utimensat"),
    (libc::SYS_openat, "openat"),
    (libc::SYS_openat2, "openat2"),
    (libc::SYS_open_by_handle_at, "open_by_handle_at"),
    (libc::SYS_mkdirat, "mkdirat"),
    (libc::SYS_mknodat, "mknodat"),
    (libc::SYS_symlinkat, "symlinkat"),
    (libc::SYS_linkat, "linkat"),
    (libc::SYS_renameat2, "renameat2"),
    (libc::SYS_unlinkat, "unlinkat"),
    (libc::SYS_getdents64, "getdents64"),
    (libc::SYS_statx, "statx"),
    (libc::SYS_ioctl, "ioctl"),
    (libc::SYS_flock, "flock"),
];

/// What the thread of this id waits in now. Nothing here waits for a disk.
pub fn call_of(thread: &str) -> Call {
    let text = fs::read_to_string(format!("/proc/self/task/{thread}/syscall")).unwrap_or_default();
    let Some((name, descriptor)) = parse_call(&text) else { return Call::default() };
    let mount = descriptor.and_then(|descriptor| {
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{descriptor}")).ok()?;
        mount_point(field(&info, "mnt_id")?, &fs::read_to_string("/proc/self/mountinfo").ok()?)
    });
    Call { name: Some(name), mount }
}

/// `text`: `/proc/PID/task/TID/syscall` of proc(5). Gives the call and its descriptor.
fn parse_call(text: &str) -> Option<(&'static str, Option<u32>)> {
    let mut words = text.split_whitespace();
    let number: i64 = words.next()?.parse().ok()?;
    let (_, name) = CALLS.iter().find(|(known, _)| *known == number)?;
    let first = words.next().and_then(|word| u64::from_str_radix(word.trim_start_matches("0x"), 16).ok());
    // `AT_FDCWD` is none.
    Some((name, first.and_then(|first| u32::try_from(first).ok()).filter(|first| *first < 1 << 31)))
}

/// Of a mount in `/proc/self/mountinfo`.
fn mount_point(id: &str, mounts: &str) -> Option<PathBuf> {
    let line = mounts.lines().find(|line| line.split(' ').next() == Some(id))?;
    // What it escapes (spaces) is shown as it stands there.
    line.split(' ').nth(4).map(PathBuf::from)
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
    fn the_call_and_its_mount_are_named() {
        let fsync = libc::SYS_fsync;
        assert_eq!(parse_call(&format!("{fsync} 0x2a 0x0 0x0 0x7ff 0x401")), Some(("fsync", Some(42))));
        let open = libc::SYS_openat;
        assert_eq!(parse_call(&format!("{open} 0xffffffffffffff9c 0x0")), Some(("openat", None)));
        assert_eq!(parse_call("running\n"), None);
        assert_eq!(parse_call("-1 0x7f 0x40"), None, "in the kernel, and in no call");
        assert_eq!(parse_call(&format!("{} 0x1", libc::SYS_getpid)), None);
        let mounts = "26 1 8:1 / / rw - ext4 /dev/a rw\n127 26 8:2 / /srv/a\\040b rw - xfs /dev/b rw\n";
        assert_eq!(mount_point("127", mounts).as_deref(), Some(Path::new("/srv/a\\040b")));
        assert_eq!(mount_point("7", mounts), None);
        let file = fs::File::open("/proc/self/mountinfo").unwrap();
        let info =
            fs::read_to_string(format!("/proc/self/fdinfo/{}", std::os::fd::AsRawFd::as_raw_fd(&file)))
                .unwrap();
        let all = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert_eq!(
            field(&info, "mnt_id").and_then(|id| mount_point(id, &all)).as_deref(),
            Some(Path::new("/proc"))
        );
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
