//! `standin mirror`: copies that a person starts, stops, holds and slows down; what is refused; what is listed.

use std::fs;
use std::process::Output;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::host::{COMMAND_MAX, Protected, SYNC_MAX, Setup, describe, output_within, standin};

const FILES: u64 = 40;
const LEN: u64 = 256 << 10;

/// Directories with files, in line.
fn in_line() -> Protected {
    let mut protected = Protected::prepare(Setup::default());
    for number in 0..FILES {
        let content = vec![number as u8; LEN as usize];
        fs::write(protected.backing.join(format!("file{number}")), content).expect("a file");
    }
    protected.start_again();
    protected
}

fn mirror(protected: &Protected, arguments: &[&str]) -> Output {
    output_within(standin(&protected.run).arg("mirror").args(arguments), COMMAND_MAX)
}

/// It must succeed.
#[track_caller]
pub fn told(protected: &Protected, arguments: &[&str]) -> String {
    let output = mirror(protected, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", describe(&output));
    describe(&output)
}

/// It is refused, with these words, and the connection is as it was.
#[track_caller]
fn refused(protected: &Protected, arguments: &[&str], words: &[&str]) {
    let before = connection(protected);
    let output = mirror(protected, arguments);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", describe(&output));
    for word in words {
        assert!(describe(&output).contains(word), "no '{word}' in: {}", describe(&output));
    }
    let after = connection(protected);
    assert_eq!((&after["state"], &after["mirror"]["phase"]), (&before["state"], &before["mirror"]["phase"]));
}

pub fn connection(protected: &Protected) -> Value {
    let output = output_within(standin(&protected.run).args(["status", "--json"]), COMMAND_MAX);
    let mut status: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    status["connections"][0].take()
}

#[track_caller]
pub fn wait_for(protected: &Protected, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    wait_for_within(SYNC_MAX, protected, what, is_so)
}

/// As [`wait_for`], for so long.
pub fn wait_for_within(
    max: Duration,
    protected: &Protected,
    what: &str,
    is_so: impl Fn(&Value) -> bool,
) -> Value {
    let deadline = Instant::now() + max;
    loop {
        let connection = connection(protected);
        if is_so(&connection) {
            return connection;
        }
        assert!(Instant::now() < deadline, "never {what}: {connection}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn runs(connection: &Value) -> bool {
    connection["mirror"]["phase"] == "mirroring" && connection["progress"]["bytes_done"].as_u64() > Some(0)
}

pub fn is_complete(connection: &Value) -> bool {
    connection["mirror"]["phase"] == "complete" && connection["data"] == "good"
}

#[test]
fn a_mirror_rests_while_changes_go_on() {
    let protected = in_line();
    told(&protected, &["start", "--mode", "full", "--rate", "1M"]);
    let begun = wait_for(&protected, "begun", runs);
    assert_eq!((&begun["progress"]["mode"], &begun["data"]), (&"full".into(), &"bad".into()));
    assert_eq!(begun["progress"]["rate_limit"], 1 << 20, "{begun}");
    refused(&protected, &["start"], &["is being copied to", "standin mirror stop"]);
    let counted = wait_for(&protected, "counted", |connection| {
        connection["progress"]["files_total"] == FILES && connection["progress"]["eta_seconds"].is_u64()
    });
    assert_eq!(counted["progress"]["bytes_total"], FILES * LEN, "{counted}");
    let listed = told(&protected, &["list"]);
    for part in [" of 40 files in line", "10 MiB in all", "to go"] {
        assert!(listed.contains(part), "no '{part}' in {listed}");
    }
    told(&protected, &["pause"]);
    wait_for(&protected, "paused", |connection| connection["mirror"]["phase"] == "paused");
    // What was under way.
    std::thread::sleep(Duration::from_millis(300));
    let held = connection(&protected)["progress"]["bytes_done"].clone();
    fs::write(protected.mount.join("meanwhile"), "x").expect("programs go on");
    let deadline = Instant::now() + COMMAND_MAX;
    while !protected.replica.join("meanwhile").exists() {
        assert!(Instant::now() < deadline, "changes do not go on");
        std::thread::sleep(Duration::from_millis(10));
    }
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(connection(&protected)["progress"]["bytes_done"], held, "it goes on although it is paused");
    told(&protected, &["resume", "--rate", "0"]);
    let done = wait_for(&protected, "complete", is_complete);
    assert!(done["progress"]["bytes_done"].as_u64() >= Some(FILES * LEN), "all of it: {done}");
    assert!(done["progress"]["rate_limit"].is_null(), "{done}");
    assert!(protected.assert_in_sync().objects > FILES as usize);
}

/// One that was longer than its session began at the front in each.
#[test]
fn a_mirror_of_everything_that_is_cut_off_goes_on_by_comparing() {
    let protected = in_line();
    told(&protected, &["start", "--mode", "full", "--rate", "1M"]);
    wait_for(&protected, "begun", runs);
    for word in ["stop", "start"] {
        let output = output_within(standin(&protected.run).args(["connection", word]), COMMAND_MAX);
        assert!(output.status.success(), "{}", describe(&output));
    }
    let done = wait_for(&protected, "complete", is_complete);
    let progress = &done["progress"];
    assert_eq!(progress["mode"], "checksum", "{done}");
    assert!(progress["bytes_compared"].as_u64() > Some(0), "{done}");
    assert!(protected.assert_in_sync().objects > FILES as usize);
}

/// A gentle comparison at night, and an outage later: that copy took hours.
#[test]
fn the_rate_of_a_mirror_ends_with_it() {
    let protected = in_line();
    told(&protected, &["start", "--mode", "checksum", "--rate", "1000"]);
    wait_for(&protected, "begun", |connection| connection["mirror"]["phase"] == "verifying");
    let said = told(&protected, &["stop"]);
    assert!(said.contains("is given up") && said.contains("The replica is good"), "{said}");
    copied_by_itself(&protected, "after one that was given up");
    told(&protected, &["start", "--mode", "differences", "--rate", "1000"]);
    wait_for(&protected, "complete", is_complete);
    copied_by_itself(&protected, "after one that found nothing");
    fs::write(protected.replica.join("file1"), "changed by hand").expect("a write");
    told(&protected, &["start", "--mode", "differences", "--rate", "1M"]);
    let is_equal = || fs::read(protected.replica.join("file1")).is_ok_and(|read| read.len() == LEN as usize);
    wait_for(&protected, "mended", |connection| is_equal() && is_complete(connection));
    copied_by_itself(&protected, "after one that mended something");
    protected.assert_in_sync();
}

/// At the rate of the mirrors before it would take half an hour.
#[track_caller]
fn copied_by_itself(protected: &Protected, when: &str) {
    let order = |word: &str| {
        let output = output_within(standin(&protected.run).args(["replication", word]), COMMAND_MAX);
        assert!(output.status.success(), "{}", describe(&output));
    };
    order("stop");
    fs::write(protected.mount.join(when), vec![3; 2 << 20]).expect("a write");
    order("start");
    let done = wait_for(protected, when, is_complete);
    assert!(done["progress"]["rate_limit"].is_null(), "{done}");
    protected.wait_sync();
    assert_eq!(fs::metadata(protected.replica.join(when)).expect("it is there").len(), 2 << 20);
}

/// Nothing that the target acknowledged counted before the mirror went on: the queue became full, and programs waited.
#[test]
fn a_mirror_that_rests_over_a_new_connection_keeps_nothing_in_the_queue() {
    let arguments = vec!["--queue-memory", "32M", "--queue-disk-limit", "0"];
    let protected = Protected::start(Setup { arguments, ..Setup::default() });
    fs::write(protected.mount.join("file"), vec![1; LEN as usize]).expect("a write");
    protected.wait_sync();
    told(&protected, &["start", "--mode", "full", "--rate", "1"]);
    told(&protected, &["pause"]);
    for word in ["stop", "start"] {
        let output = output_within(standin(&protected.run).args(["connection", word]), COMMAND_MAX);
        assert!(output.status.success(), "{}", describe(&output));
    }
    wait_for(&protected, "paused", |connection| connection["mirror"]["phase"] == "paused");
    for number in 0..96 {
        fs::write(protected.mount.join(format!("more{number}")), vec![2; 1 << 20]).expect("a write");
    }
    let is_empty = |connection: &Value| connection["queued"]["packets"] == 0;
    let now = wait_for(&protected, "nothing queued", is_empty);
    assert_eq!((&now["mirror"]["phase"], &now["data"]), (&"paused".into(), &"bad".into()), "{now}");
    told(&protected, &["resume", "--rate", "0"]);
    wait_for(&protected, "complete", is_complete);
    assert!(protected.assert_in_sync().objects > 96);
}

#[test]
fn a_stopped_mirror_waits_for_a_person_over_a_restart() {
    let mut protected = in_line();
    told(&protected, &["start", "--mode", "full", "--rate", "1M"]);
    wait_for(&protected, "begun", runs);
    told(&protected, &["stop", "--from-scratch"]);
    let is_stopped =
        |connection: &Value| connection["state"] == "started" && connection["mirror"]["phase"] == "stopped";
    for restarts in [false, true] {
        if restarts {
            fs::write(protected.mount.join("before the end"), "x").expect("programs go on");
            protected.stop_incomplete_by(libc::SIGTERM);
            protected.start_at_once();
            assert!(protected.said().contains("is not copied to, by hand"), "{}", protected.said());
        }
        wait_for(&protected, "stopped, and says what it waits for", |connection| {
            let says = connection["reason"].as_str().is_some_and(|why| why.contains("standin mirror start"));
            is_stopped(connection) && connection["needs_copy"] == true && says
        });
        fs::write(protected.mount.join("while it is stopped"), "x").expect("programs go on");
        let waited = output_within(standin(&protected.run).arg("wait-sync"), COMMAND_MAX);
        assert_eq!(waited.status.code(), Some(1), "{}", describe(&waited));
        assert!(describe(&waited).contains("standin mirror start --connection 1"), "{}", describe(&waited));
        assert!(!protected.replica.join("while it is stopped").exists());
    }
    told(&protected, &["start"]);
    let done = wait_for(&protected, "complete", is_complete);
    assert_eq!(done["progress"]["mode"], "full", "it was to begin from scratch: {done}");
    assert!(done["progress"]["bytes_done"].as_u64() >= Some(FILES * LEN), "{done}");
    assert!(protected.assert_in_sync().objects > FILES as usize);
    protected.stop();
    protected.start_again();
    assert!(is_complete(&connection(&protected)), "the next one begins by itself");
}

#[test]
fn a_mirror_by_hand_sends_what_differs() {
    let protected = in_line();
    let began = connection(&protected)["progress"]["started_unix_ms"].clone();
    told(&protected, &["start", "--connection", "1"]);
    let is_another = |connection: &Value| {
        is_complete(connection) && connection["progress"]["started_unix_ms"].as_u64() >= began.as_u64()
    };
    wait_for(&protected, "complete", is_another);
    assert!(protected.assert_in_sync().objects >= FILES as usize);
    let listed = told(&protected, &["list"]);
    assert!(listed.contains("complete, replica good") && listed.contains("differences"), "{listed}");
    let output = output_within(standin(&protected.run).args(["--json", "mirror", "list"]), COMMAND_MAX);
    let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let mirror = &document["connections"][0];
    assert_eq!((&mirror["left_out"]["count"], &mirror["aside"]["total"]), (&0.into(), &0.into()));
}

#[test]
fn what_makes_no_sense_is_refused_and_starts_nothing() {
    let protected = in_line();
    refused(&protected, &["pause"], &["is not being copied to"]);
    refused(&protected, &["resume"], &["is not being copied to"]);
    refused(&protected, &["stop"], &["is not being copied to"]);
    refused(&protected, &["start", "--connection", "7"], &["There is no connection '7'"]);
    refused(&protected, &["start", "--mode", "guess"], &["invalid value"]);
    refused(&protected, &["start", "--mode", "full", "--from-scratch"], &["cannot be used with"]);
    refused(&protected, &["start", "--rate", "fast"], &["invalid value"]);
    refused(&protected, &["start", "--mode", "checksums"], &["invalid value", "differences+checksum"]);
    refused(&protected, &["start", "--audit"], &["--mode"]);
    refused(&protected, &["start", "--audit", "--mode", "differences"], &["--audit is about hashes"]);
    let held = |word: &str| output_within(standin(&protected.run).args(["connection", word]), COMMAND_MAX);
    for (hold, words, go_on) in [
        ("stop", ["is stopped", "standin connection start 1"], "start"),
        ("pause", ["is paused", "standin connection resume 1"], "resume"),
    ] {
        assert!(held(hold).status.success());
        refused(&protected, &["start"], &words);
        assert!(held(go_on).status.success());
    }
    assert!(protected.assert_in_sync().objects >= FILES as usize);
}
