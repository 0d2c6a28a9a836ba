//! `standin monitor` on the host of a replica: what it says of a source that is there, dead, cut off or frozen, and what it
//! does at red.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::host::{COMMAND_MAX, Daemon, SYNC_MAX, clear_mounts, describe, is_mounted, output_within};
use crate::pair::kill;
use crate::stand_in::{Scene, Side};

fn typed(side: &Side, arguments: &[&str]) -> Command {
    let mut command = side.target_command();
    command.args(["monitor", "web"]).args(arguments);
    command
}

fn watch(side: &Side, arguments: &[&str]) -> Daemon {
    let mut daemon = Daemon::spawn(typed(side, &[QUICK, arguments].concat()));
    daemon.wait_ready();
    daemon
}

/// Red after 2 s of silence; over the link attempts take 2 s each.
const QUICK: &[&str] = &["--interval", "500ms", "--misses", "4"];

fn shown(side: &Side) -> (Option<i32>, Value) {
    let output = output_within(typed(side, &["--status"]).arg("--json"), COMMAND_MAX);
    let found = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", describe(&output)));
    (output.status.code(), found)
}

fn health(side: &Side) -> String {
    shown(side).1["health"].as_str().unwrap_or_default().to_owned()
}

#[track_caller]
fn wait_for(what: &str, daemon: &Daemon, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < SYNC_MAX, "{what}: not in time\n{}", daemon.said());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Never once within this time.
#[track_caller]
fn never_red(side: &Side, time: Duration) {
    let until = Instant::now() + time;
    while Instant::now() < until {
        assert_ne!(health(side), "red");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn end(mut daemon: Daemon) -> String {
    daemon.signal(libc::SIGTERM);
    let status = daemon.wait(COMMAND_MAX);
    assert!(status.is_some_and(|status| status.success()), "{status:?}\n{}", daemon.said());
    daemon.said()
}

fn kill_source(scene: &mut Scene) {
    kill(scene.old.protect.as_mut().expect("it runs"));
    scene.old.protect = None;
    clear_mounts(&scene.old.at.join("mount"));
}

/// What is served by a process that no test holds is ended by its command.
struct StandIn<'a>(&'a Side);

impl Drop for StandIn<'_> {
    fn drop(&mut self) {
        let _ = output_within(self.0.target_command().args(["stop", "web"]), SYNC_MAX);
        clear_mounts(&self.0.at.join("mount"));
    }
}

fn auto<'a>(side: &Side, fence: &'a str, at: &'a str) -> Vec<&'a str> {
    fs::create_dir_all(side.at.join("mount")).expect("a directory");
    vec!["--auto", "--fence", fence, "--at", at]
}

fn count(path: &Path) -> usize {
    fs::read_to_string(path).map_or(0, |text| text.lines().count())
}

fn note(side: &Side) -> Option<Value> {
    let text = fs::read(side.at.join("state/.monitors/web.json")).ok()?;
    Some(serde_json::from_slice(&text).expect("JSON"))
}

fn reports(side: &Side) -> Vec<PathBuf> {
    let dir = fs::read_dir(side.at.join("state/.failovers")).into_iter().flatten().flatten();
    let paths = dir.map(|entry| entry.path());
    paths.filter(|path| path.extension().is_some_and(|end| end == "json")).collect()
}

#[test]
fn a_dead_source_is_red_within_the_stated_time() {
    let mut scene = Scene::with_a_source(&[]);
    let monitor = watch(&scene.new, &[]);
    wait_for("green", &monitor, || health(&scene.new) == "green");
    let (code, found) = shown(&scene.new);
    assert!(code == Some(0) && found["life"] == "alive", "{found}");
    let worst = Duration::from_millis(found["worst_case_ms"].as_u64().expect("stated"));
    let status = output_within(scene.new.target_command().args(["status", "--json"]), COMMAND_MAX);
    let status: Value = serde_json::from_slice(&status.stdout).expect("JSON");
    assert_eq!(status["monitors"][0]["health"], "green", "{status}");
    kill_source(&mut scene);
    wait_for("red", &monitor, || health(&scene.new) == "red");
    let (code, found) = shown(&scene.new);
    assert!(code == Some(2) && found["probes"][0]["answer"] == "silent", "{found}");
    let status = output_within(scene.new.target_command().arg("status"), COMMAND_MAX);
    assert!(
        status.status.code() == Some(2) && describe(&status).contains("monitor web  red"),
        "{}",
        describe(&status)
    );
    let events = output_within(scene.new.target_command().args(["events", "list"]), COMMAND_MAX);
    assert!(describe(&events).contains("source_red"), "{}", describe(&events));
    // It comes back.
    let to = scene.new.address();
    scene.old.protect(&["--to", &to]);
    wait_for("green again", &monitor, || health(&scene.new) == "green");
    let said = end(monitor);
    assert!(said.contains("-> red") && said.contains("-> green"), "{said}");
    // Counted by the monitor, which may not have come round to it.
    let (_, silence) = said.split_once("-> red  for ").expect("how long");
    let seconds: f64 = silence.split(' ').next().and_then(|number| number.parse().ok()).expect("seconds");
    assert!((2.0..=worst.as_secs_f64() + 0.1).contains(&seconds), "{worst:?} was stated: {said}");
    let gone = output_within(&mut typed(&scene.new, &["--status"]), COMMAND_MAX);
    assert!(
        gone.status.code() == Some(2) && describe(&gone).contains("No monitor of web runs"),
        "{}",
        describe(&gone)
    );
}

/// The daemon is there and does nothing; a target daemon that is away says nothing of its source.
#[test]
fn a_frozen_source_is_red_and_a_dead_target_daemon_is_not() {
    let mut scene = Scene::with_a_source(&[]);
    let monitor = watch(&scene.new, &[]);
    wait_for("green", &monitor, || health(&scene.new) == "green");
    let source = scene.old.protect.as_ref().expect("it runs");
    source.signal(libc::SIGSTOP);
    wait_for("red", &monitor, || health(&scene.new) == "red");
    source.signal(libc::SIGCONT);
    wait_for("green again", &monitor, || health(&scene.new) == "green");
    kill(scene.new.serve.as_mut().expect("it runs"));
    scene.new.serve = None;
    wait_for("blind", &monitor, || health(&scene.new) == "blind");
    never_red(&scene.new, Duration::from_secs(8));
    let (code, found) = shown(&scene.new);
    let probed = &found["probes"][0];
    let why = probed["why"].as_str().unwrap_or_default();
    assert!(code == Some(1) && probed["answer"] == "unknown" && why.contains("target daemon"), "{found}");
    scene.new.serve(&[]);
    wait_for("it sees again", &monitor, || health(&scene.new) == "green");
    let said = end(monitor);
    assert_eq!(said.matches("-> red").count(), 1, "{said}");
}

#[test]
fn one_that_answers_or_a_network_that_is_gone_keep_it_from_being_red() {
    let mut scene = Scene::with_a_source(&[]);
    let port = TcpListener::bind("127.0.0.1:0").expect("a port");
    let there = format!("tcp:{}", port.local_addr().expect("its address"));
    let gateway = scene.new.at.join("gateway");
    fs::write(&gateway, "").expect("a file");
    let own = format!("command:test -e {}", gateway.display());
    let monitor = watch(&scene.new, &["--probe", "link", "--probe", &there, "--self", &own]);
    wait_for("green", &monitor, || health(&scene.new) == "green");
    kill_source(&mut scene);
    never_red(&scene.new, Duration::from_secs(9));
    assert_eq!(shown(&scene.new).1["probes"][0]["answer"], "silent", "{}", monitor.said());
    // Now nothing at all answers, the own network included.
    fs::remove_file(&gateway).expect("removed");
    drop(port);
    wait_for("blind", &monitor, || health(&scene.new) == "blind");
    never_red(&scene.new, Duration::from_secs(6));
    let said = end(monitor);
    assert!(!said.contains("-> red"), "{said}");
    // The same with a network: the port alone is watched.
    fs::write(&gateway, "").expect("a file");
    let monitor = watch(&scene.new, &["--probe", &there, "--self", &own]);
    wait_for("red", &monitor, || health(&scene.new) == "red");
    end(monitor);
}

#[test]
fn a_monitor_that_stands_still_or_was_killed_is_seen() {
    let scene = Scene::with_a_source(&[]);
    let mut monitor = watch(&scene.new, &[]);
    wait_for("green", &monitor, || health(&scene.new) == "green");
    // A second one would do everything twice.
    let second = output_within(&mut typed(&scene.new, &[]), COMMAND_MAX);
    let said = describe(&second);
    assert!(second.status.code() == Some(2) && said.contains("Another monitor of web runs"), "{said}");
    monitor.signal(libc::SIGSTOP);
    wait_for("frozen", &monitor, || shown(&scene.new).1["life"] == "frozen");
    assert_eq!(shown(&scene.new).0, Some(2));
    monitor.signal(libc::SIGCONT);
    wait_for("it goes on", &monitor, || shown(&scene.new).1["life"] == "alive");
    // Its source lived all the time, and it had not listened: that is not held against it.
    wait_for("green again", &monitor, || health(&scene.new) == "green");
    assert!(!monitor.said().contains("-> red"), "{}", monitor.said());
    monitor.signal(libc::SIGKILL);
    monitor.wait(COMMAND_MAX);
    let (code, found) = shown(&scene.new);
    assert!(code == Some(2) && found["life"] == "dead", "{found}");
    let events = output_within(scene.new.target_command().args(["events", "list"]), COMMAND_MAX);
    assert!(describe(&events).contains("monitor_gone"), "{}", describe(&events));
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let scene = Scene::with_a_source(&[]);
    let side = &scene.new;
    for (arguments, word) in [
        (&["--auto", "--at", "/srv"][..], "There is no witness"),
        (&["--auto", "--fence", " ", "--at", "/srv"], "There is no witness"),
        (&["--auto", "--fence", "true"], "--at /srv/web"),
        (&["--fence", "true"], "Say --auto"),
        (&["--self", "link"], "says nothing of the own network"),
        (&["--interval", "1ms"], "between 100ms and 1h"),
        (&["--misses", "1"], "2..=1000"),
        (&["--probe", "icmp:192.0.2.1"], "ping -c 1"),
    ] {
        let output = output_within(&mut typed(side, arguments), COMMAND_MAX);
        let said = describe(&output);
        assert!(output.status.code() == Some(2) && said.contains(word), "no '{word}' in:\n{said}");
    }
    let other = output_within(side.target_command().args(["monitor", "other"]), COMMAND_MAX);
    assert!(describe(&other).contains("has a replica of other"), "{}", describe(&other));
    // The file of the set says the same, with its line.
    fs::create_dir_all(side.at.join("state/sets")).expect("a directory");
    let file = side.at.join("state/sets/web.toml");
    fs::write(&file, "[monitor]\ninterval = \"2s\"\nmisses = 1\n").expect("a file");
    let output = output_within(&mut typed(side, &["--dry-run"]), COMMAND_MAX);
    assert!(describe(&output).contains("web.toml:3"), "{}", describe(&output));
    let checked = output_within(side.target_command().args(["config", "check", "web"]), COMMAND_MAX);
    assert!(describe(&checked).contains("web.toml:3"), "{}", describe(&checked));
    fs::write(
        &file,
        "[monitor]\ninterval = \"2s\"\nprobe = [\"tcp:127.0.0.1:9\"]\nself = \"command:true\"\n",
    )
    .expect("a file");
    let output = output_within(typed(side, &["--dry-run", "--json"]).args(["--misses", "3"]), COMMAND_MAX);
    let found: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", describe(&output)));
    let watched = &found["watched"];
    assert!(watched["timeout_ms"] == 6000 && watched["probes"][0] == "tcp:127.0.0.1:9", "{found}");
    fs::remove_file(&file).expect("removed");
    // A dry run of the failover, which finds the source alive.
    let at = side.at.join("mount").display().to_string();
    let output =
        output_within(&mut typed(side, &["--auto", "--fence", "false", "--at", &at, "--dry-run"]), SYNC_MAX);
    let said = describe(&output);
    assert!(output.status.code() == Some(2) && said.contains("is connected, from"), "{said}");
    assert!(note(side).is_none() && !is_mounted(&side.at.join("mount")), "{said}");
}

#[test]
fn a_failed_fence_is_no_failover_and_one_that_is_well_is_one() {
    let mut scene = Scene::with_a_source(&[]);
    let log = scene.new.at.join("fenced");
    let at = scene.new.at.join("mount").display().to_string();
    let fails = format!("echo $STANDIN_MONITOR_SET >> {}; echo no power switch; exit 3", log.display());
    let monitor = watch(&scene.new, &auto(&scene.new, &fails, &at));
    wait_for("green", &monitor, || health(&scene.new) == "green");
    kill_source(&mut scene);
    let failed = |side: &Side| note(side).is_some_and(|note| note["step"] == "failed");
    wait_for("it has failed", &monitor, || failed(&scene.new));
    let why = note(&scene.new).expect("noted")["why"].to_string();
    assert!(why.contains("exit code 3") && why.contains("no power switch"), "{why}");
    assert!(shown(&scene.new).1["outage"]["step"] == "failed" && !is_mounted(&scene.new.at.join("mount")));
    assert!(reports(&scene.new).is_empty(), "no failover was begun");
    end(monitor);
    // Started again, with a command that would do it: it is the same outage.
    let works = format!("echo $STANDIN_MONITOR_SET >> {}", log.display());
    let monitor = watch(&scene.new, &auto(&scene.new, &works, &at));
    wait_for("red", &monitor, || health(&scene.new) == "red");
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(count(&log), 1, "{}", monitor.said());
    // The source comes back, and goes: another outage.
    let to = scene.new.address();
    scene.old.protect(&["--to", &to]);
    wait_for("it is over", &monitor, || note(&scene.new).is_none());
    kill_source(&mut scene);
    let _stand_in = StandIn(&scene.new);
    wait_for("it stands in", &monitor, || note(&scene.new).is_some_and(|note| note["step"] == "stands_in"));
    assert!(is_mounted(&scene.new.at.join("mount")), "{}", monitor.said());
    assert!(scene.new.mount("written").exists() && count(&log) == 2, "{}", monitor.said());
    // It goes on without its monitor, and no monitor does it again.
    end(monitor);
    let monitor = watch(&scene.new, &auto(&scene.new, &works, &at));
    std::thread::sleep(Duration::from_secs(5));
    assert!(count(&log) == 2 && reports(&scene.new).len() == 1, "{}", monitor.said());
    assert_eq!(fs::read(scene.new.mount("written")).expect("it serves"), b"through the mount");
    end(monitor);
}

/// The failover is refused before anything is cut off.
#[test]
fn a_replica_that_cannot_stand_in_costs_no_fence() {
    let mut scene = Scene::with_a_source(&[]);
    let (log, at) = (scene.new.at.join("fenced"), scene.new.at.join("nowhere/mount").display().to_string());
    let fence = format!("echo fenced >> {}", log.display());
    let monitor = watch(&scene.new, &auto(&scene.new, &fence, &at));
    wait_for("green", &monitor, || health(&scene.new) == "green");
    kill_source(&mut scene);
    wait_for("it has failed", &monitor, || note(&scene.new).is_some_and(|note| note["step"] == "failed"));
    let why = note(&scene.new).expect("noted")["why"].to_string();
    assert!(why.contains("refused, and nothing was fenced"), "{why}");
    assert_eq!(count(&log), 0);
    end(monitor);
}

/// Killed when the failover runs: that goes on, and the next monitor knows what has come of it.
#[test]
fn a_monitor_that_dies_in_its_failover_leaves_one_and_begins_no_other() {
    let mut scene = Scene::with_a_source(&[]);
    let at = scene.new.at.join("mount").display().to_string();
    let log = scene.new.at.join("fenced");
    let fence = format!("echo fenced >> {}", log.display());
    let go = scene.new.at.join("go");
    let pre = format!("until test -e {}; do sleep .1; done", go.display());
    let arguments = [auto(&scene.new, &fence, &at), vec!["--pre", &pre]].concat();
    let mut monitor = watch(&scene.new, &arguments);
    wait_for("green", &monitor, || health(&scene.new) == "green");
    kill_source(&mut scene);
    let _stand_in = StandIn(&scene.new);
    wait_for("it fails over", &monitor, || {
        note(&scene.new).is_some_and(|note| note["step"] == "failing_over")
    });
    std::thread::sleep(Duration::from_secs(1));
    monitor.signal(libc::SIGKILL);
    monitor.wait(COMMAND_MAX);
    let monitor = watch(&scene.new, &arguments);
    fs::write(&go, "").expect("a file");
    wait_for("it stands in", &monitor, || note(&scene.new).is_some_and(|note| note["step"] == "stands_in"));
    assert!(is_mounted(&scene.new.at.join("mount")) && count(&log) == 1, "{}", monitor.said());
    // Written when it serves already.
    wait_for("its report", &monitor, || !reports(&scene.new).is_empty());
    let said = end(monitor);
    assert_eq!(reports(&scene.new).len(), 1, "{said}");
}
