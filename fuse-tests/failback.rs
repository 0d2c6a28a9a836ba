//! `standin failback`: the way home after a failover.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::covered::{Writer, all_there};
use crate::host::{COMMAND_MAX, Daemon, STOP_MAX, SYNC_MAX, clear_mounts, describe, output_within};
use crate::pair::kill;
use crate::stand_in::{Scene, Side};
use crate::switch::{in_line, kept, take_over};
use crate::tree;

fn typed(side: &Side, arguments: &[&str]) -> Command {
    let mut command = side.target_command();
    command.args(["failback", "web"]).args(arguments);
    command
}

fn dry_run(side: &Side) -> (Option<i32>, Value) {
    let output = output_within(&mut typed(side, &["--dry-run", "--json"]), COMMAND_MAX);
    let found = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", describe(&output)));
    (output.status.code(), found)
}

#[track_caller]
fn refused(side: &Side, arguments: &[&str], word: &str) {
    let output = output_within(&mut typed(side, arguments), SYNC_MAX);
    let said = describe(&output);
    assert!(output.status.code() == Some(2) && said.contains(word), "no '{word}' in:\n{said}");
}

#[track_caller]
fn says(daemon: &Daemon, word: &str) {
    let deadline = Instant::now() + SYNC_MAX;
    while !daemon.said().contains(word) {
        assert!(Instant::now() < deadline, "no '{word}' in:\n{}", daemon.said());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Where a program has a file open in the very moment it is typed again.
fn handed_over_under_writers(new: &Side, mut command: Daemon) -> Daemon {
    let deadline = Instant::now() + SYNC_MAX;
    while !command.said().contains("handed over; on the host of") {
        assert!(Instant::now() < deadline, "{}", command.said());
        if command.has_ended() {
            command.wait(STOP_MAX);
            assert!(command.said().contains("cannot be unmounted"), "{}", command.said());
            command = Daemon::spawn(typed(new, &["--yes"]));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    command
}

/// Its directory is not served before.
fn lost_writes_are_taken_out(old: &Side) {
    let lost = old.at.join("lost");
    let mut extract = old.target_command();
    let taken = output_within(extract.args(["lost-writes", "extract", "--to"]).arg(&lost), COMMAND_MAX);
    assert!(taken.status.success(), "{}", describe(&taken));
    assert_eq!(fs::read(lost.join("d/1")).expect("a file"), b"never shipped");
}

#[track_caller]
fn has_lost_nothing(writer: Writer, now: &Side) {
    let written = writer.end();
    assert!(written.refused > 0 && written.others.is_empty(), "{:?}", written.others);
    assert!(!written.acknowledged.is_empty(), "nobody wrote meanwhile");
    all_there(&written.acknowledged, &now.point);
    eprintln!("{} synced writes, none lost", written.acknowledged.len());
}

#[test]
fn it_waits_for_the_old_host_and_switches_back() {
    let mut scene = Scene::with_a_source(&[]);
    let Scene { old, new, .. } = &mut scene;
    kill(old.protect.as_mut().expect("it runs"));
    old.protect = None;
    clear_mounts(&old.point);
    fs::write(old.tree().join("d/1"), "never shipped").expect("a write");
    take_over(new, &[]);
    fs::write(new.mount("meanwhile"), "by the stand-in").expect("a write");

    refused(new, &["--restore-after", "--yes"], "makes no sense here");
    refused(new, &["--target", "standin://192.0.2.9:7447/web", "--dry-run"], "is no target of it");
    let (code, found) = dry_run(new);
    assert!(code == Some(2) && found["missing"] == "target" && found["ready"] == false, "{found}");
    assert!(found["there"][0].as_str().is_some_and(|line| line.contains("serve --root")), "{found}");
    assert!(found["only_there"] == 0, "it had said so: {found}");
    let here = found["here"].to_string();
    assert!(here.contains("standin connection add standin://127.0.0.1:7447/web web"), "{found}");

    // It waits, also while the stand-in is started anew, and goes on by itself.
    let mut first = Daemon::spawn(typed(new, &["--yes", "--wait", "120s"]));
    says(&first, "NOT YET");
    says(&first, "standin invite");
    kill(&mut first);
    let command = Daemon::spawn(typed(new, &["--yes", "--wait", "120s"]));
    says(&command, "NOT YET");
    old.serve(&["--adopt"]);
    new.pair_with(old);
    // So it does while the stand-in is dead.
    kill(new.protect.as_mut().expect("it runs"));
    new.protect = None;
    std::thread::sleep(Duration::from_millis(1500));
    take_over(new, &[]);
    let writers = ["a", "b"].map(|name| Writer::start(&new.point, name));
    let mut add = new.target_command();
    let added = output_within(add.args(["connection", "add", &old.address(), "web"]), COMMAND_MAX);
    assert!(added.status.success(), "{}", describe(&added));
    says(&command, "its key has sent the set here before");
    let mut command = handed_over_under_writers(new, command);
    new.protect = None;
    // Killed there the same command goes on.
    kill(&mut command);
    let mut command = Daemon::spawn(typed(new, &["--yes"]));
    says(&command, "handed over; on the host of");
    assert!(command.said().contains(" --to standin://"), "{}", command.said());
    lost_writes_are_taken_out(old);
    take_over(old, &["--to", &new.address()]);
    let status = command.wait(STOP_MAX);
    assert!(status.is_some_and(|status| status.success()), "{}", command.said());
    let kept = kept(new);
    assert!(kept["stage"] == "taken" && kept["epoch"] == 3 && kept["position"].is_u64(), "{kept}");
    eprintln!("no mount for {} ms", kept["frozen_ms"].as_u64().expect("it is stated"));
    writers.into_iter().for_each(|writer| has_lost_nothing(writer, old));
    assert_eq!(fs::read(old.mount("meanwhile")).expect("a file"), b"by the stand-in");
    fs::write(old.mount("home"), "again").expect("a write");
    in_line(old);
    refused(old, &["--yes"], "does not stand in");
    Side::stop(&mut old.protect);
    tree::assert_same(&old.tree(), &new.tree());
}

#[test]
fn what_is_ready_is_said_and_nothing_is_changed_by_a_look() {
    let mut scene = Scene::with_a_source(&[]);
    let Scene { old, new, .. } = &mut scene;
    refused(new, &["--yes"], "");
    kill(old.protect.as_mut().expect("it runs"));
    old.protect = None;
    clear_mounts(&old.point);
    old.serve(&["--adopt"]);
    new.pair_with(old);
    take_over(new, &["--to", &old.address()]);
    in_line(new);
    let (code, found) = dry_run(new);
    assert!(code == Some(0) && found["ready"] == true && found["known_by"] == "key", "{found}");
    assert!(found["home"] == old.address() && found["missing"].is_null(), "{found}");
    // The old host goes: it is said what is typed there.
    kill(old.serve.as_mut().expect("it runs"));
    old.serve = None;
    let deadline = Instant::now() + SYNC_MAX;
    let (code, found) = loop {
        let found = dry_run(new);
        if found.1["missing"] == "connection" || Instant::now() >= deadline {
            break found;
        }
        std::thread::sleep(Duration::from_millis(200));
    };
    assert!(code == Some(2) && found["missing"] == "connection", "{found}");
    assert!(found["there"][0].as_str().is_some_and(|line| line.contains("serve --root")), "{found}");
    assert_eq!(found["here"].as_array().map(Vec::len), Some(0), "{found}");
    let output = output_within(&mut typed(new, &["--yes", "--wait", "1s"]), COMMAND_MAX);
    assert_eq!(output.status.code(), Some(1), "{}", describe(&output));
    fs::write(new.mount("served"), "as before").expect("it is served");
    Side::stop_as_it_is(&mut new.protect);
}
