//! `standin switch`: a planned change of roles, there and home again.

use std::fs::{self, File};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::host::{Daemon, STOP_MAX, SYNC_MAX, clear_mounts, describe, output_within};
use crate::pair::kill;
use crate::stand_in::{Scene, Side};
use crate::tree;

pub fn switch(side: &Side, arguments: &[&str]) -> Command {
    let mut command = side.command();
    command.args(["switch", "web", "--yes"]).args(arguments);
    command
}

#[track_caller]
fn refused(side: &Side, arguments: &[&str], word: &str) {
    let output = output_within(&mut switch(side, arguments), SYNC_MAX);
    let said = describe(&output);
    assert!(!output.status.success() && said.contains(word), "no '{word}' in:\n{said}");
}

pub fn handed_over(side: &Side, command: Command) -> Daemon {
    let daemon = Daemon::spawn(command);
    let deadline = Instant::now() + SYNC_MAX;
    while !daemon.said().contains("handed over; on the host of") {
        assert!(Instant::now() < deadline, "{}{}", daemon.said(), side.said());
        std::thread::sleep(Duration::from_millis(20));
    }
    let error = fs::write(side.mount("late"), "").expect_err("programs write");
    assert_eq!(error.raw_os_error(), Some(libc::EROFS), "{error}");
    assert!(side.mount("written").exists(), "reads do not go on");
    daemon
}

/// As it is said to be typed there.
pub fn take_over(side: &mut Side, arguments: &[&str]) {
    let mut command = side.target_command();
    command.args(["failover", "web", "--yes", "--at"]).arg(&side.point).args(arguments);
    let mut daemon = Daemon::spawn(command);
    daemon.wait_ready();
    side.protect = Some(daemon);
}

/// Its daemon is beside the target's.
#[track_caller]
pub fn in_line(side: &Side) {
    let mut command = side.target_command();
    let output = output_within(command.args(["wait-sync", "web", "--timeout", "120s"]), SYNC_MAX);
    assert!(output.status.success(), "{}{}", describe(&output), side.said());
}

pub fn kept(side: &Side) -> Value {
    let note = fs::read(side.at.join("state/.failovers/web.switch")).expect("a note");
    serde_json::from_slice(&note).expect("JSON")
}

/// Answers for how long there was no mount, in milliseconds.
#[track_caller]
pub fn over(mut daemon: Daemon, side: &Side, epoch: u32) -> u64 {
    let status = daemon.wait(STOP_MAX);
    assert!(status.is_some_and(|status| status.success()), "{status:?} {}", daemon.said());
    let kept = kept(side);
    assert!(kept["stage"] == "taken" && kept["epoch"] == epoch, "{kept}");
    eprintln!("drained for {} ms, frozen for {} ms", kept["drained_ms"], kept["frozen_ms"]);
    kept["frozen_ms"].as_u64().expect("a number")
}

#[test]
fn roles_are_switched_and_switched_back() {
    let mut scene = Scene::with_a_source(&[]);
    let Scene { old, new, .. } = &mut scene;
    // What is in the way leaves everything as it was.
    refused(old, &["--target", "standin://192.0.2.9:7447/web"], "is no target of it");
    let open = File::open(old.mount("written")).expect("a file");
    refused(old, &[], "written");
    drop(open);
    fs::write(old.mount("late"), "it is served").expect("a write");
    old.in_line();
    refused(new, &[], "");

    // Killed when it was handed over: the same command goes on; taken back: as before.
    let mut first = handed_over(old, switch(old, &[]));
    kill(&mut first);
    drop(first);
    old.protect = None;
    refused(old, &["--wait", "2s"], "nobody has taken over yet");
    old.protect(&["--to", &new.address()]);
    fs::write(old.mount("later"), "taken back").expect("a write");
    old.in_line();
    // What was handed over then is not all any more.
    kill(old.protect.as_mut().expect("it runs"));
    old.protect = None;
    clear_mounts(&old.at.join("mount"));
    refused(old, &[], "it is not known that its target has everything");
    old.protect(&["--to", &new.address()]);
    old.in_line();

    let waits = handed_over(old, switch(old, &[]));
    old.protect = None;
    take_over(new, &[]);
    over(waits, old, 2);
    tree::assert_same(&old.tree(), &new.tree());
    fs::write(new.mount("there"), "by the new one").expect("a write");
    old.refuses(&["--to", &new.address()], "was stood in for");

    // The old one becomes the replica, and takes over again.
    old.serve(&["--adopt"]);
    new.pair_with(old);
    Side::stop(&mut new.protect);
    take_over(new, &["--to", &old.address()]);
    in_line(new);
    let mut command = new.target_command();
    command.args(["switch", "web", "--yes"]);
    let waits = handed_over(new, command);
    new.protect = None;
    take_over(old, &["--to", &new.address()]);
    over(waits, new, 3);
    assert_eq!(fs::read_to_string(old.mount("there")).expect("a file"), "by the new one");
    fs::write(old.mount("home"), "again").expect("a write");
    in_line(old);
    tree::assert_same(&old.tree(), &new.tree());
    Side::stop(&mut old.protect);
}

/// What works on the data is stopped by a command; where that fails all is as it was.
#[test]
fn commands_are_run_before_the_mount_goes_and_when_it_was_taken_over() {
    let mut scene = Scene::with_a_source(&[]);
    let Scene { old, new, .. } = &mut scene;
    refused(old, &["--pre", "echo no room >&2; exit 7"], "(--pre) has failed, exit code 7");
    refused(old, &["--pre", "sleep 60", "--timeout", "1s"], "(--pre) has failed, timed out");
    let note = kept(old);
    assert!(note["stage"] == "draining" && note["commands"][0]["ended"]["timed_out"] == true, "{note}");
    fs::write(old.mount("served"), "as before").expect("a write");
    old.in_line();
    // It has run, and the mount is busy.
    let open = File::open(old.mount("written")).expect("a file");
    refused(old, &["--pre", "true"], "The command before the change (--pre) has run: undo what it has done.");
    drop(open);

    let environment = old.at.join("environment");
    let last = "echo the last > $STANDIN_SWITCH_AT/last && test -z \"$STANDIN_SWITCH_EPOCH\"";
    let after = format!("env | grep ^STANDIN_SWITCH_ > {}; echo taken; exit 9", environment.display());
    let mut waits = handed_over(old, switch(old, &["--pre", last, "--post", &after]));
    old.protect = None;
    assert_eq!(kept(old)["commands"][0]["ended"]["exit_code"], 0);
    // Whoever waits anew runs what comes afterwards.
    kill(&mut waits);
    drop(waits);
    let mut again = switch(old, &["--post", &after]);
    let waits = std::thread::spawn(move || output_within(&mut again, SYNC_MAX));
    take_over(new, &[]);
    let output = waits.join().expect("a thread");
    let said = describe(&output);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("exit 9: has failed, exit code 9") && said.contains("  taken\n"), "{said}");
    let commands = kept(old)["commands"].clone();
    assert_eq!(commands[0]["when"], "before", "{commands}");
    assert_eq!(commands[1]["ended"]["exit_code"], 9, "{commands}");
    let environment = fs::read_to_string(environment).expect("it was run");
    for line in ["STANDIN_SWITCH_SET=web", "STANDIN_SWITCH_EPOCH=2"] {
        assert!(environment.lines().any(|other| other == line), "no {line} in {environment}");
    }
    assert!(environment.contains(&format!("STANDIN_SWITCH_TARGET={}", new.address())), "{environment}");
    assert_eq!(fs::read_to_string(new.mount("last")).expect("a file"), "the last\n");
    tree::assert_same(&old.tree(), &new.tree());
    Side::stop(&mut new.protect);
}
