//! What a service manager hears of a daemon: ready when it serves, alive while it does, and that it ends.

use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::host::{Daemon, Protected, STOP_MAX, Setup, dir_on_disk, is_mounted, require_host, standin};

/// Listens as systemd does.
struct Manager(UnixDatagram);

impl Manager {
    /// And what a daemon has to know of it.
    fn of(dir: &std::path::Path, command: &mut Command) -> Manager {
        let path = dir.join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        socket.set_read_timeout(Some(Duration::from_secs(60))).expect("a time-out");
        command.env("NOTIFY_SOCKET", path).env("WATCHDOG_USEC", "400000");
        Manager(socket)
    }

    /// Hears until something begins so; gives all of it.
    #[track_caller]
    fn hear(&self, begins: &str) -> Vec<String> {
        let (mut heard, deadline) = (Vec::new(), Instant::now() + Duration::from_secs(60));
        loop {
            let mut buffer = [0; 4096];
            assert!(Instant::now() < deadline, "never {begins}: {heard:?}");
            let len = match self.0.recv(&mut buffer) {
                // These tests were stopped for a moment.
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                len => len.unwrap_or_else(|error| panic!("{error}: {heard:?}")),
            };
            heard.push(String::from_utf8_lossy(&buffer[..len]).into_owned());
            if heard.last().is_some_and(|last| last.starts_with(begins)) {
                return heard;
            }
        }
    }
}

#[test]
fn a_source_says_when_it_serves_and_that_it_lives() {
    let protected = Protected::prepare(Setup::default());
    let mut command = protected.protect_command();
    let manager = Manager::of(protected.base.path(), &mut command);
    let mut daemon = Daemon::spawn(command);
    let before = manager.hear("READY=1");
    assert!(is_mounted(&protected.mount), "ready without a mount");
    assert!(before.iter().any(|said| said.contains("is not mounted yet")), "{before:?}");
    assert!(
        before.iter().any(|said| said.starts_with("STATUS=") && said.contains("is protected")),
        "{before:?}"
    );
    daemon.wait_ready();
    manager.hear("WATCHDOG=1");
    let served = manager.hear("WATCHDOG=1");
    assert!(!served.iter().any(|said| said.contains("READY") || said.contains("STOPPING")), "{served:?}");
    daemon.signal(libc::SIGHUP);
    manager.hear("RELOADING=1\nMONOTONIC_USEC=");
    manager.hear("READY=1");
    daemon.signal(libc::SIGTERM);
    let end = manager.hear("STOPPING=1");
    assert!(end.iter().any(|said| said.contains("EXTEND_TIMEOUT_USEC=60000000")), "{end:?}");
    assert!(daemon.wait(STOP_MAX).is_some_and(|status| status.success()), "{}", daemon.said());
}

#[test]
fn a_target_says_it_too() {
    require_host();
    let base = dir_on_disk();
    for dir in ["root", "run"] {
        std::fs::create_dir(base.path().join(dir)).expect("a directory");
    }
    let mut command = standin(&base.path().join("run"));
    command.arg("--state").arg(base.path().join("state")).arg("serve");
    command.arg("--root").arg(base.path().join("root")).args(["--listen", "127.0.0.1:0"]);
    let manager = Manager::of(base.path(), &mut command);
    let mut daemon = Daemon::spawn(command);
    let before = manager.hear("READY=1");
    assert!(before.iter().any(|said| said.contains("replicas are served at 127.0.0.1:")), "{before:?}");
    manager.hear("WATCHDOG=1");
    daemon.signal(libc::SIGHUP);
    manager.hear("RELOADING=1\nMONOTONIC_USEC=");
    manager.hear("READY=1");
    daemon.signal(libc::SIGTERM);
    manager.hear("STOPPING=1");
    assert!(daemon.wait(STOP_MAX).is_some_and(|status| status.success()), "{}", daemon.said());
}
