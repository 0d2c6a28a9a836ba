//! `standin failover` on the host of a replica: what it finds, what it undoes, what it goes on with, what it keeps.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::host::{COMMAND_MAX, Daemon, SYNC_MAX, clear_mounts, describe, is_mounted, output_within};
use crate::pair::kill;
use crate::stand_in::{Scene, Side};

/// As a shell does it to the process that runs the commands' runner.
const KILL: &str = "read -r _ _ _ up _ < /proc/$PPID/stat; kill -9 $up; sleep 20";

fn typed(side: &Side, arguments: &[&str]) -> Command {
    let mut command = side.target_command();
    command.arg("failover").args(arguments).arg("--at").arg(side.at.join("mount"));
    command
}

#[track_caller]
fn refused(side: &Side, arguments: &[&str], words: &[&str]) {
    let output = output_within(&mut typed(side, arguments), SYNC_MAX);
    let said = describe(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    for word in words {
        assert!(said.contains(word), "no '{word}' in:\n{said}");
    }
    assert!(!is_mounted(&side.at.join("mount")), "it is served: {said}");
}

fn dry_run(side: &Side, arguments: &[&str]) -> (Option<i32>, Value) {
    let output = output_within(typed(side, arguments).args(["--dry-run", "--json"]), COMMAND_MAX);
    let found = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", describe(&output)));
    (output.status.code(), found)
}

/// The reports that are kept, in order.
fn kept(side: &Side) -> Vec<Value> {
    let dir = side.at.join("state/.failovers");
    let mut names: Vec<PathBuf> =
        fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    names.retain(|name| name.extension().is_some_and(|end| end == "json"));
    names.sort();
    names.iter().map(|name| serde_json::from_slice(&fs::read(name).expect("read")).expect("JSON")).collect()
}

fn steps(report: &Value) -> Vec<String> {
    let steps = report["steps"].as_array().expect("steps");
    let of = |step: &Value| {
        format!("{} {}", step["step"].as_str().expect("a name"), step["outcome"].as_str().expect("an end"))
    };
    steps.iter().map(of).collect()
}

fn wait_for(what: &str, said: impl Fn() -> String, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + SYNC_MAX;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}: not in time\n{}", said());
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn killed(daemon: &mut Option<Daemon>, mount: &Path) {
    kill(daemon.as_mut().expect("it runs"));
    *daemon = None;
    clear_mounts(mount);
}

/// The source has said how far it is, which it does now and then.
fn knows_its_moment(new: &Side) {
    wait_for("a moment", || new.said(), || dry_run(new, &["web"]).1["point"]["as_of_unix_ms"].is_u64());
}

/// The source comes back, is taken in as before, and dies again.
fn source_is_taken_in(scene: &mut Scene) {
    let Scene { old, new, .. } = scene;
    old.protect(&["--to", &new.address()]);
    old.in_line();
    killed(&mut old.protect, &old.at.join("mount"));
}

#[test]
fn a_look_finds_everything_that_is_in_the_way() {
    let mut scene = Scene::with_a_source(&[]);
    let Scene { old, new, .. } = &mut scene;
    let (code, found) = dry_run(new, &["web"]);
    let said = found.to_string();
    assert!(code == Some(2) && said.contains("is connected, from"), "{said}");
    refused(new, &["web", "--yes"], &["is connected, from", "Nothing was changed"]);
    knows_its_moment(new);
    killed(&mut old.protect, &old.at.join("mount"));
    let (code, found) = dry_run(new, &["web"]);
    assert_eq!(code, Some(0), "it was just heard, and is waited for: {found}");
    assert!(found["epoch"] == 2 && found["data"] == "good", "{found}");
    assert!(found["point"]["packet"].as_u64() > Some(0) && found["point"]["beyond"] == 0, "{found}");
    assert!(found["point"]["as_of_unix_ms"].as_u64() > Some(1_700_000_000_000), "{found}");
    // The same of the replica alone, without its target daemon.
    killed(&mut new.serve, &new.at.join("mount"));
    let tree = new.tree();
    let replica = tree.to_str().expect("text");
    let (code, found) = dry_run(new, &[replica]);
    assert!(code == Some(0) && found["epoch"] == 2 && found["point"]["as_of_unix_ms"].is_u64(), "{found}");
    // Several at once, each with its line; a place that is none, data that are not built, nobody to say yes.
    let (code, found) = dry_run(new, &[replica, "--to", "standin://192.0.2.1:1/web"]);
    assert!(code == Some(2) && found.to_string().contains("paired"), "{found}");
    refused(new, &["other", "--yes"], &["has a replica of other"]);
    refused(new, &[replica, "--data", "clone:before", "--yes"], &["is not in this version"]);
    refused(new, &[replica, "--pre", " ", "--yes"], &["--pre is empty"]);
    refused(new, &[replica], &["nobody is there to answer", "--yes"]);
    assert!(kept(new).is_empty(), "nothing was begun");
    new.serve(&[]);
    source_is_taken_in(&mut scene);
}

#[test]
fn what_fails_or_dies_before_the_epoch_is_raised_is_undone() {
    let mut scene = Scene::with_a_source(&[]);
    let mount = scene.old.at.join("mount");
    killed(&mut scene.old.protect, &mount);
    wait_for("the source is gone", || scene.old.said(), || dry_run(&scene.new, &["web"]).0 == Some(0));
    let before = ["web", "--yes", "--pre", "echo no room; exit 7"];
    refused(&scene.new, &before, &["(--pre) has failed, exit code 7", "Nothing was raised", "| no room"]);
    refused(&scene.new, &["web", "--yes", "--timeout", "1s", "--pre", "sleep 60"], &["timed out"]);
    let reports = kept(&scene.new);
    assert_eq!(reports.len(), 2);
    assert_eq!(steps(&reports[0]), ["preflight done", "take done", "before failed"]);
    assert!(reports[0]["epoch"].is_null() && reports[0]["state"] == "failed", "{}", reports[0]);
    assert!(reports[0]["point"]["packet"].as_u64() > Some(0), "{}", reports[0]);
    source_is_taken_in(&mut scene);
    // kill -9 in the middle of it: the command ends with it, and nothing remains.
    wait_for("the source is gone", || scene.old.said(), || dry_run(&scene.new, &["web"]).0 == Some(0));
    let new = &scene.new;
    let mark = new.at.join("alive");
    let dies = format!("{KILL}; touch {}", mark.display());
    let output = output_within(&mut typed(new, &["web", "--yes", "--pre", &dies]), SYNC_MAX);
    assert_eq!(output.status.code(), None, "{}", describe(&output));
    source_is_taken_in(&mut scene);
    assert!(!mark.exists(), "its command has gone on");
}

#[test]
fn a_failover_is_served_and_gone_on_with_after_a_kill() {
    let mut scene = Scene::with_a_source(&[]);
    let Scene { old, new, .. } = &mut scene;
    knows_its_moment(new);
    killed(&mut old.protect, &old.at.join("mount"));
    wait_for("the source is gone", || old.said(), || dry_run(new, &["web"]).0 == Some(0));
    let log = new.at.join("log");
    let say = |what: &str| {
        format!("echo {what} $STANDIN_FAILOVER_SET $STANDIN_FAILOVER_EPOCH >> {}", log.display())
    };
    let (pre, post) = (say("pre"), say("post"));
    let command = ["web", "--yes", "--pre", &pre, "--post", &post];
    let mut daemon = Daemon::spawn(typed(new, &command));
    daemon.wait_ready();
    wait_for("the report", || daemon.said(), || kept(new).len() == 1);
    let report = &kept(new)[0];
    assert_eq!(report["state"], "active", "{report}");
    let all = ["preflight done", "take done", "before done", "raise done", "serve done", "after done"];
    assert_eq!(steps(report), all);
    assert!(report["epoch"] == 2 && report["goes_on"] == false && report["point"]["beyond"] == 0, "{report}");
    assert_eq!(fs::read_to_string(&log).expect("a log"), "pre web\npost web 2\n");
    fs::write(new.mount("written"), "by the stand-in").expect("a write");
    // The old source, and a second failover, are kept out.
    old.refuses(&["--to", &new.address()], "was stood in for");
    let second = output_within(&mut typed(new, &["web", "--yes"]), SYNC_MAX);
    let said = describe(&second);
    assert!(second.status.code() == Some(2) && !said.contains("under way"), "{said}");
    // Its dead mount stays.
    kill(&mut daemon);
    drop(daemon);
    // After the epoch was raised the same command goes on: nothing is asked or raised again.
    let (code, found) = dry_run(new, &["web"]);
    assert!(code == Some(0) && found["goes_on"] == true && found["epoch"].is_null(), "{found}");
    let mut daemon = Daemon::spawn(typed(new, &command));
    daemon.wait_ready();
    wait_for("the report", || daemon.said(), || kept(new).len() == 2);
    let report = &kept(new)[1];
    assert!(report["epoch"] == 2 && report["goes_on"] == true && report["state"] == "active", "{report}");
    assert_eq!(fs::read_to_string(&log).expect("a log"), "pre web\npost web 2\npost web 2\n");
    assert_eq!(fs::read_to_string(new.mount("written")).expect("a file"), "by the stand-in");
    Side::stop(&mut Some(daemon));
}

/// The target daemon has files of a replica open that is copied to: it was taken for a program that writes past the
/// mount, for as long as it ran.
#[test]
fn a_replica_that_was_copied_to_is_served_if_somebody_wants_it() {
    let mut scene = Scene::with_a_source(&[]);
    let Scene { old, new, .. } = &mut scene;
    fs::write(old.mount("large"), vec![b'x'; 64 << 20]).expect("a write");
    old.in_line();
    let mirror = ["mirror", "start", "--mode", "full", "--rate", "1M"];
    let begun = output_within(old.command().args(mirror), COMMAND_MAX);
    assert!(begun.status.success(), "{}", describe(&begun));
    let is_copied_to = || dry_run(new, &["web"]).1["data"] == "bad";
    wait_for("the copy", || old.said(), is_copied_to);
    killed(&mut old.protect, &old.at.join("mount"));
    fs::write(new.at.join("mount/below"), "covered").expect("a write");
    // It was just heard, and is waited for.
    let (code, found) = dry_run(new, &["web", "--accept-bad-data"]);
    let said = found.to_string();
    assert!(
        code == Some(0) && said.contains("no consistent state") && said.contains("are covered"),
        "{said}"
    );
    refused(new, &["web", "--yes"], &["no consistent state", "--accept-bad-data"]);
    let mut daemon = Daemon::spawn(typed(new, &["web", "--yes", "--accept-bad-data"]));
    daemon.wait_ready();
    fs::write(new.mount("written"), "by the stand-in").expect("a write");
    Side::stop(&mut Some(daemon));
}
