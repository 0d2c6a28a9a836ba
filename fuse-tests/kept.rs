//! What stays of connections over a restart of the protection: what a person stopped or paused, and what a
//! first copy has brought over that was cut off.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::connections::Loopback;
use crate::host::{COMMAND_MAX, Protected, SYNC_MAX, Setup, describe, heavy, output_within, standin};

/// `standin connection … --json`, which must succeed.
#[track_caller]
fn change(protected: &Protected, word: &str) -> Value {
    let output = output_within(standin(&protected.run).args(["--json", "connection", word]), COMMAND_MAX);
    assert!(output.status.success(), "{word}: {}", describe(&output));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn connection(protected: &Protected) -> Value {
    let output = output_within(standin(&protected.run).args(["status", "--json"]), COMMAND_MAX);
    let mut status: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    status["connections"][0].take()
}

/// Waits until the connection is so.
#[track_caller]
fn wait_for(protected: &Protected, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + SYNC_MAX;
    loop {
        let connection = connection(protected);
        if is_so(&connection) {
            return connection;
        }
        assert!(Instant::now() < deadline, "never {what}: {connection}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A restart of the host, or of the daemon by its service manager, started what a person had stopped.
#[test]
fn what_was_held_back_stays_so_over_a_restart() {
    let mut protected = Protected::start(Setup::default());
    fs::write(protected.mount.join("before"), "x").expect("a write");
    protected.assert_in_sync();
    let cases = [
        ("stop", "stopped", "start", "is stopped by hand"),
        ("pause", "paused", "resume", "is paused by hand"),
    ];
    for (hold, state, go_on, said) in cases {
        change(&protected, hold);
        for ends in [Protected::kill9, |protected: &mut Protected| {
            protected.stop_incomplete_by(libc::SIGTERM);
        }] {
            fs::write(protected.mount.join(format!("while {state}")), "x").expect("a write");
            ends(&mut protected);
            protected.start_at_once();
            assert!(protected.said().contains(said), "{}", protected.said());
            wait_for(&protected, state, |connection| connection["state"] == state);
            fs::write(protected.mount.join("unsent"), "x").expect("a write");
            assert!(!protected.replica.join("unsent").exists(), "sent while {state}");
        }
        change(&protected, go_on);
        protected.wait_in_line();
        assert!(protected.assert_in_sync().objects > 1);
        fs::remove_file(protected.mount.join("unsent")).expect("removed");
        // Held back before it is sent, it would be there in the next round.
        protected.wait_sync();
    }
    protected.stop();
    protected.start_again();
    assert_eq!(connection(&protected)["state"], "started", "what goes on goes on after a restart");
}

/// A first copy that a restart of the source cut off sent everything again.
fn a_first_copy_goes_on(ends: fn(&mut Loopback)) {
    const MIB: u64 = 1 << 20;
    /// What the first copy has to carry.
    const TREE: u64 = 160 * MIB;
    /// What it may have sent for nothing when it is cut off: see the windows of the link.
    const WINDOWS: u64 = 33 * MIB;
    let _heavy = heavy();
    let mut hosts = Loopback::paired();
    for number in 0..TREE / (MIB / 4) {
        let content = number.to_le_bytes().repeat((MIB / 4 / 8) as usize);
        fs::write(hosts.at("backing").join(format!("file{number}")), content).expect("a file");
    }
    // What changed in the last two seconds before a copy is in doubt for it, and sent in any case.
    std::thread::sleep(Duration::from_secs(3));
    hosts.begin_to_protect();
    hosts.source.as_mut().expect("it runs").wait_ready();
    let deadline = Instant::now() + COMMAND_MAX;
    while hosts.copied() < TREE * 3 / 4 {
        assert!(Instant::now() < deadline, "the copy does not begin: {}", hosts.source_said());
        std::thread::sleep(Duration::from_millis(2));
    }
    fs::write(hosts.mount.join("file3"), vec![9; MIB as usize / 4]).expect("it changes since the copy began");
    ends(&mut hosts);
    hosts.begin_to_protect();
    hosts.source.as_mut().expect("it runs").wait_ready();
    hosts.assert_in_sync();
    let output = output_within(standin(&hosts.run()).args(["status", "--json"]), COMMAND_MAX);
    let status: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let again = status["connections"][0]["progress"]["bytes_done"].as_u64().expect("a number");
    assert!(again < TREE / 4 + WINDOWS, "{} MiB were sent again, of {}", again / MIB, TREE / MIB);
}

#[test]
fn a_first_copy_goes_on_after_a_kill_of_its_source() {
    a_first_copy_goes_on(|hosts| {
        let mut source = hosts.source.take().expect("it runs");
        source.signal(libc::SIGKILL);
        assert!(source.wait(COMMAND_MAX).is_some());
    });
}

#[test]
fn a_first_copy_goes_on_after_a_restart_of_its_source() {
    a_first_copy_goes_on(|hosts| {
        let stopped = output_within(standin(&hosts.run()).args(["stop", "--now"]), COMMAND_MAX);
        assert!(stopped.status.code().is_some_and(|code| code < 2), "{}", describe(&stopped));
        let mut source = hosts.source.take().expect("it runs");
        assert!(source.wait(COMMAND_MAX).is_some());
    });
}

/// Who takes a target off the command line is told once what that means.
#[test]
fn a_target_that_is_not_named_any_more_is_told_once() {
    let mut protected = Protected::start(Setup::default());
    protected.stop();
    let mut arguments: Vec<_> = protected.protect_command().get_args().map(ToOwned::to_owned).collect();
    let to = arguments.iter().position(|argument| argument == "--to").expect("a target");
    arguments[to + 1] = "null:".into();
    for is_told in [true, false] {
        let mut command = Command::new(protected.protect_command().get_program());
        command.args(&arguments);
        let mut daemon = crate::host::Daemon::spawn(command);
        daemon.wait_ready();
        assert_eq!(daemon.said().contains("is named by no --to any more"), is_told, "{}", daemon.said());
        daemon.signal(libc::SIGTERM);
        assert!(daemon.wait(COMMAND_MAX).expect("it ends").success());
    }
    protected.start_again();
    protected.assert_in_sync();
}
