//! A first copy that cannot end keeps no program waiting for ever.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, UnmountFlags};

use crate::host::{COMMAND_MAX, Daemon, Protected, Setup, is_mounted, output_within, standin};

/// From the start to one end or the other.
const DECIDED_MAX: Duration = Duration::from_secs(60);

struct Tmpfs(PathBuf);

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, UnmountFlags::DETACH);
    }
}

fn has_phase(protected: &Protected, phase: &str) -> bool {
    let status = output_within(standin(&protected.run).args(["status", "--json"]), COMMAND_MAX);
    String::from_utf8_lossy(&status.stdout).contains(&format!("\"phase\":\"{phase}\""))
}

/// What the target had no room for was tried again and again while the mount was up and answered
/// nothing: every program that touched the directory hung.
#[test]
fn a_copy_that_gets_nowhere_gives_the_directory_back() {
    let mut protected = Protected::prepare(Setup::default());
    let small = protected.base.path().join("small");
    fs::create_dir(&small).expect("a directory");
    rustix::mount::mount("none", &small, "tmpfs", MountFlags::empty(), c"size=4m").expect("a tmpfs");
    protected.replica = small.join("replica");
    let disk = Tmpfs(small);
    // The rest of it fits into what is under way: the copy ahead of the mount has sent everything.
    fs::write(protected.backing.join("file"), vec![7; 6 << 20]).expect("room");
    let mut daemon = Daemon::spawn(protected.protect_command());
    let deadline = Instant::now() + DECIDED_MAX;
    let (mut was_mounted, mut is_served) = (false, false);
    while !is_served && (!was_mounted || is_mounted(&protected.mount)) {
        assert!(Instant::now() < deadline, "undecided: {}", daemon.said());
        was_mounted |= is_mounted(&protected.mount);
        is_served = has_phase(&protected, "serving");
        std::thread::sleep(Duration::from_millis(20));
    }
    let listed = output_within(Command::new("ls").arg(&protected.mount), COMMAND_MAX);
    assert!(listed.status.success(), "{listed:?}");
    let status = daemon.wait(COMMAND_MAX).expect("it ends");
    // The rest of stderr arrives through its own thread.
    std::thread::sleep(Duration::from_millis(500));
    // Not 2, a refusal: a service manager tries again.
    assert!(status.code() == Some(1) && !is_served, "{status:?} {}", daemon.said());
    for part in ["No space left on device", "unmounted again and as it was", "--start-timeout"] {
        assert!(daemon.said().contains(part), "{part}: {}", daemon.said());
    }
    assert!(!is_mounted(&protected.mount), "{}", daemon.said());
    drop(disk);
}
