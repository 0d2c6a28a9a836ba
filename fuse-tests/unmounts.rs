//! The end of a mount that others have too, or that others take away.

use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use standin::intercept::Control;

use crate::host::{
    COMMAND_MAX, Daemon, Protected, STOP_MAX, Setup, describe, is_mounted, output_within, standin,
};
use crate::tree;

/// A shell in a mount namespace of its own, as in a container; it does its work when told to.
struct Container(Child);

impl Container {
    fn start(script: &str) -> Container {
        let mut command = Command::new("unshare");
        command.args(["-m", "--propagation", "private", "sh", "-c", &format!("read line; {script}")]);
        let child = command.stdin(Stdio::piped()).spawn().expect("unshare of util-linux");
        // It has its namespace when the shell runs.
        let exe = format!("/proc/{}/comm", child.id());
        while fs::read_to_string(&exe).is_ok_and(|name| name.trim() != "sh") {
            thread::sleep(Duration::from_millis(5));
        }
        Container(child)
    }

    /// Lets it work; whether that succeeded.
    fn work(mut self) -> bool {
        self.0.stdin.take().expect("piped").write_all(b"\n").expect("it reads");
        self.0.wait().expect("our own child").success()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A container that was started meanwhile kept the mount alive: the stop hung for as long as it
/// ran, and no command got an answer.
#[test]
fn a_stop_ends_the_mount_in_other_namespaces() {
    let mut protected = Protected::start(Setup::default());
    fs::write(protected.mount.join("before"), b"x").expect("it serves");
    let late = protected.mount.join("late");
    let container = Container::start(&format!("echo x > {}", late.display()));
    let idle = Container::start("true");
    let said = protected.stop();
    assert!(said.contains("elsewhere") && said.contains("(pid "), "{said}");
    assert!(!container.work(), "a write after the stop was acknowledged");
    drop(idle);
    assert!(!protected.backing.join("late").exists());
    tree::assert_same(&protected.backing, &protected.replica);
    protected.start_again();
    protected.assert_in_sync();
    protected.stop();
}

fn ends_with(mut daemon: Daemon) -> (Option<i32>, String) {
    let status = daemon.wait(STOP_MAX).expect("it ends by itself");
    // The rest of stderr arrives through its own thread.
    thread::sleep(Duration::from_millis(200));
    (status.code(), daemon.said())
}

fn protect(protected: &Protected) -> Daemon {
    let mut daemon = Daemon::spawn(protected.protect_command());
    daemon.wait_ready();
    daemon
}

/// `umount` by somebody else. A program that another test is just starting has our open files until it
/// runs, and the mount is busy for that moment.
#[track_caller]
fn unmount(protected: &Protected) {
    let began = Instant::now();
    loop {
        let output = output_within(Command::new("umount").arg(&protected.mount), COMMAND_MAX);
        if output.status.success() {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(10), "{}", describe(&output));
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// An unmount by somebody else (a mount unit, the shutdown) ended the daemon at once: what was
/// queued was not sent, and nothing was said of it.
#[test]
fn an_unmount_by_others_is_a_stop() {
    let protected = Protected::prepare(Setup::default());
    let daemon = protect(&protected);
    for number in 0..48 {
        fs::write(protected.mount.join(format!("{number}")), vec![number; 1 << 20]).expect("it serves");
    }
    unmount(&protected);
    let (code, said) = ends_with(daemon);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("unmounted by somebody else"), "{said}");
    assert!(!is_mounted(&protected.mount));
    tree::assert_same(&protected.backing, &protected.replica);
}

/// As above, where a target cannot get it all: that is said, and no success.
#[test]
fn what_an_unmount_leaves_behind_is_named() {
    let mut protected = Protected::prepare(Setup::default());
    let daemon = protect(&protected);
    let stopped = output_within(standin(&protected.run).args(["connection", "stop"]), COMMAND_MAX);
    assert!(stopped.status.success());
    fs::write(protected.mount.join("file"), b"text").expect("it serves");
    unmount(&protected);
    let (code, said) = ends_with(daemon);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("changes did not get there"), "{said}");
    protected.start_again();
    start_connection(&protected);
    protected.assert_in_sync();
    protected.stop();
}

/// What a person has stopped stays so over a restart.
fn start_connection(protected: &Protected) {
    let started = output_within(standin(&protected.run).args(["connection", "start"]), COMMAND_MAX);
    assert!(started.status.success(), "{}", describe(&started));
}

/// Waits until the daemon has said this.
#[track_caller]
fn wait_until_said(daemon: &Daemon, part: &str) {
    let deadline = Instant::now() + STOP_MAX;
    while !daemon.said().contains(part) {
        assert!(Instant::now() < deadline, "it never said '{part}': {}", daemon.said());
        thread::sleep(Duration::from_millis(20));
    }
}

/// The first signal leaves a busy mount as it is, and the second one takes it away from its users:
/// what they had written by then is on the target.
#[test]
fn a_second_signal_detaches_a_busy_mount() {
    let protected = Protected::prepare(Setup::default());
    let daemon = protect(&protected);
    let mut held = fs::File::create(protected.mount.join("held")).expect("it serves");
    held.write_all(b"before").expect("it serves");
    daemon.signal(libc::SIGTERM);
    wait_until_said(&daemon, "cannot be unmounted");
    assert!(is_mounted(&protected.mount), "{}", daemon.said());
    fs::write(protected.mount.join("after"), b"x").expect("it goes on serving");
    protected.wait_sync();
    daemon.signal(libc::SIGINT);
    let (code, said) = ends_with(daemon);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("no longer protected"), "{said}");
    assert!(!is_mounted(&protected.mount));
    drop(held);
    tree::assert_same(&protected.backing, &protected.replica);
}

/// Told to stop by a signal, it left changes behind and ended with 0, as after a complete stop.
#[test]
fn what_a_signal_leaves_behind_is_no_success() {
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let mut protected = Protected::start(Setup::default());
        let stopped = output_within(standin(&protected.run).args(["connection", "stop"]), COMMAND_MAX);
        assert!(stopped.status.success());
        fs::write(protected.mount.join("file"), b"text").expect("it serves");
        let said = protected.stop_incomplete_by(signal);
        assert!(said.contains("changes did not get there"), "{said}");
        protected.start_again();
        start_connection(&protected);
        protected.assert_in_sync();
        protected.stop();
    }
}

/// Its number is the next mount's at once: whoever went by it ended that one. Another test may have it for a while.
#[test]
fn a_mount_that_ends_takes_no_other_one_along() {
    let number = |protected: &Protected| fs::metadata(&protected.mount).expect("a mount").dev();
    let again = || {
        let mut first = Protected::start(Setup::default());
        let control = Control::at(&first.mount).expect("a connection");
        let before = number(&first);
        assert!(control.is_connected());
        first.stop();
        let mut others = Vec::new();
        while others.last().map(number) != Some(before) && others.len() < 3 {
            others.push(Protected::start(Setup::default()));
        }
        (others.last().map(number) == Some(before)).then_some((control, others))
    };
    let (control, others) = (0..20).find_map(|_| again()).expect("its number is given out again");
    assert!(!control.is_connected(), "of another one");
    control.abort().expect("of none");
    fs::write(others.last().expect("one").mount.join("file"), "x").expect("it goes on");
    for mut other in others {
        other.stop();
    }
}
