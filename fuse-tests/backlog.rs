//! What is queued at an orderly stop goes to its target after the next start, in its order: the replica is a prefix of
//! the source all the while, and only what has changed while nothing ran is copied.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::host::{COMMAND_MAX, Disk, describe, output_within, standin};
use crate::pair::{Pair, kill};
use crate::tree::Rules;

const RECORD: usize = 4096;

/// Records in two files: one is ahead of the other by one at most, at every moment.
struct Journals {
    first: PathBuf,
    second: PathBuf,
    records: u64,
}

impl Journals {
    fn begin(dir: &Path) -> Journals {
        let (first, second) = (dir.join("first"), dir.join("second"));
        File::create(&first).and(File::create(&second)).expect("files");
        Journals { first, second, records: 0 }
    }

    fn write(&mut self, count: u64) {
        for _ in 0..count {
            for path in [&self.first, &self.second] {
                let mut file = OpenOptions::new().append(true).open(path).expect("a file");
                file.write_all(&[self.records as u8; RECORD]).expect("programs go on");
            }
            self.records += 1;
        }
    }
}

/// How many records the replica has; it has no order that the source never had.
#[track_caller]
fn records_at(replica: &Path) -> u64 {
    // What is read later may be further.
    let second = fs::metadata(replica.join("second")).expect("a file").len();
    let first = fs::metadata(replica.join("first")).expect("a file").len();
    assert!(first >= second, "{first} bytes and then {second}: out of order");
    first / RECORD as u64
}

fn told(pair: &Pair, words: &[&str]) {
    let output = output_within(standin(&pair.run("source")).args(words), COMMAND_MAX);
    assert!(output.status.success(), "{words:?}: {}", describe(&output));
}

fn connection(pair: &Pair) -> Value {
    let output = output_within(standin(&pair.run("source")).args(["status", "--json"]), COMMAND_MAX);
    let mut status: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", describe(&output)));
    status["connections"][0].take()
}

#[track_caller]
fn wait_for(pair: &Pair, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let connection = connection(pair);
        if is_so(&connection) {
            return connection;
        }
        assert!(Instant::now() < deadline, "never {what}: {connection}\n{}", pair.said());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// In sync, with something that no copy should send again.
fn pair() -> (Pair, Journals) {
    let pair = Pair::start(Disk::Plain, Disk::Plain);
    fs::write(pair.mount.join("large"), vec![7; 20 << 20]).expect("a file");
    let mut journals = Journals::begin(&pair.mount);
    journals.write(10);
    pair.assert_in_sync_of(3, &Rules::default());
    // The moment up to which it has everything is noted each 5 s.
    std::thread::sleep(Duration::from_secs(11));
    (pair, journals)
}

/// An orderly stop that leaves something behind.
#[track_caller]
fn stop(pair: &mut Pair) {
    let mut source = pair.source.take().expect("it runs");
    source.signal(libc::SIGTERM);
    let status = source.wait(Duration::from_secs(60));
    let said = source.said();
    assert_eq!(status.and_then(|status| status.code()), Some(3), "{said}");
    assert!(said.contains("sent after the next start"), "{said}");
}

fn segments(pair: &Pair) -> Vec<PathBuf> {
    let mut all = Vec::new();
    let mut waiting = vec![pair.state("source")];
    while let Some(dir) = waiting.pop() {
        for entry in fs::read_dir(&dir).expect("a directory").flatten() {
            match entry.file_type().expect("a kind").is_dir() {
                true => waiting.push(entry.path()),
                false if entry.file_name().to_string_lossy().starts_with("segment-") => {
                    all.push(entry.path())
                }
                false => {}
            }
        }
    }
    all.sort();
    all
}

#[test]
fn what_was_queued_at_a_stop_is_sent_after_the_start_in_its_order() {
    let (mut pair, mut journals) = pair();
    told(&pair, &["connection", "pause"]);
    journals.write(2000);
    stop(&mut pair);
    assert!(!segments(&pair).is_empty(), "nothing was left");
    let before = records_at(&pair.replica());
    // Nobody captures this.
    fs::write(pair.backing.join("unseen"), "made while nothing ran").expect("a file");
    fs::rename(pair.backing.join("large"), pair.backing.join("renamed")).expect("renamed");
    pair.protect_at_once();
    journals.write(50);
    let paused = wait_for(&pair, "paused", |connection| connection["state"] == "paused");
    assert_eq!(paused["data"], "good", "{paused}");
    told(&pair, &["connection", "limit", "8M"]);
    told(&pair, &["connection", "resume"]);
    let (mut last, mut steps) = (before, 0);
    let deadline = Instant::now() + Duration::from_secs(60);
    while last < 2010 {
        let records = records_at(&pair.replica());
        assert!(records >= last, "went back from {last} to {records}");
        steps += u64::from(records > last);
        last = records;
        assert!(Instant::now() < deadline, "{last}: {}\n{}", connection(&pair), pair.said());
        if last < 2010 {
            assert!(!pair.replica().join("unseen").exists(), "it came out of its order");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(steps > 3, "it came in {steps} steps: by a copy");
    pair.assert_in_sync_of(4, &Rules::default());
    let over = wait_for(&pair, "in line", |connection| connection["mirror"]["phase"] == "complete");
    assert!(over["progress"]["bytes_done"].as_u64() < Some(10 << 20), "{over}");
    assert_eq!(records_at(&pair.replica()), 2060);
    pair.stop_source();
    assert!(segments(&pair).is_empty(), "something is left of the queue");
}

/// Its target is away all the time, and changes come in each run.
#[test]
fn a_queue_that_was_left_is_left_again() {
    for [held, goes_on] in [["pause", "resume"], ["stop", "start"]] {
        let (mut pair, mut journals) = pair();
        told(&pair, &["connection", held]);
        journals.write(300);
        for run in 0..3 {
            stop(&mut pair);
            assert_eq!(segments(&pair).len(), 1, "what nobody gets stays, too");
            fs::write(pair.backing.join(format!("unseen{run}")), "made while nothing ran").expect("a file");
            pair.protect_at_once();
            journals.write(100);
        }
        kill(&mut pair.target.take().expect("it serves"));
        told(&pair, &["connection", goes_on]);
        journals.write(10);
        pair.serve();
        pair.assert_in_sync_of(5, &Rules::default());
        assert_eq!(records_at(&pair.replica()), 620);
        pair.stop_source();
    }
}

/// A start that does not come up leaves it for the next one; it was thrown away.
#[test]
fn a_start_that_fails_leaves_what_was_left() {
    let (mut pair, mut journals) = pair();
    told(&pair, &["connection", "pause"]);
    journals.write(300);
    stop(&mut pair);
    // Where the control socket may not be.
    let run = pair.run("source");
    fs::set_permissions(&run, fs::Permissions::from_mode(0o777)).expect("a mode");
    let failed = output_within(&mut pair.protect_command(), Duration::from_secs(60));
    assert!(!failed.status.success(), "{}", describe(&failed));
    fs::set_permissions(&run, fs::Permissions::from_mode(0o700)).expect("a mode");
    assert!(!segments(&pair).is_empty(), "it was thrown away");
    pair.protect_at_once();
    told(&pair, &["connection", "resume"]);
    pair.assert_in_sync_of(3, &Rules::default());
    assert_eq!(records_at(&pair.replica()), 310);
    let said = pair.said();
    assert!(said.contains("what was queued before the last stop is there"), "{said}");
    pair.stop_source();
}

/// Both sides are killed in the middle of it; then a copy brings the rest.
#[test]
fn a_kill_in_the_middle_of_what_was_left_loses_nothing() {
    for kills_source in [true, false] {
        let (mut pair, mut journals) = pair();
        told(&pair, &["connection", "pause"]);
        journals.write(2000);
        stop(&mut pair);
        pair.protect_at_once();
        told(&pair, &["connection", "limit", "8M"]);
        told(&pair, &["connection", "resume"]);
        let deadline = Instant::now() + Duration::from_secs(60);
        while records_at(&pair.replica()) < 100 {
            assert!(Instant::now() < deadline, "nothing comes\n{}", pair.said());
            std::thread::sleep(Duration::from_millis(2));
        }
        match kills_source {
            true => {
                kill(&mut pair.source.take().expect("it runs"));
                pair.protect_at_once();
            }
            false => {
                kill(&mut pair.target.take().expect("it serves"));
                pair.serve();
            }
        }
        told(&pair, &["connection", "limit", "none"]);
        journals.write(10);
        pair.assert_in_sync_of(3, &Rules::default());
        assert_eq!(records_at(&pair.replica()), 2020);
        pair.stop_source();
    }
}

/// What the target had applied and not on its disk when it was killed is no older image of it: no file is suspect for it.
#[test]
fn a_target_that_was_killed_gets_what_was_left_and_a_minicopy() {
    let (mut pair, mut journals) = pair();
    journals.write(40);
    told(&pair, &["wait-sync"]);
    pair.kill_target();
    journals.write(100);
    stop(&mut pair);
    fs::write(pair.backing.join("unseen"), "made while nothing ran").expect("a file");
    pair.serve();
    pair.protect_at_once();
    pair.assert_in_sync_of(4, &Rules::default());
    assert_eq!(records_at(&pair.replica()), 150);
    let after = connection(&pair);
    assert_eq!(after["progress"]["mode"], "minicopy", "{after}");
    let bytes = after["progress"]["bytes_done"].as_u64().expect("a number");
    assert!(bytes < 10 << 20, "what was not in doubt was sent: {after}");
    pair.stop_source();
}

/// A part alone makes no sense before that is there, and the replica is not bad for it.
#[test]
fn a_mirror_of_a_part_waits_for_what_was_left() {
    let (mut pair, mut journals) = pair();
    told(&pair, &["connection", "pause"]);
    journals.write(2000);
    stop(&mut pair);
    pair.protect_at_once();
    told(&pair, &["connection", "limit", "500K"]);
    told(&pair, &["connection", "resume"]);
    wait_for(&pair, "sending", |connection| connection["state"] != "paused" && !connection["link"].is_null());
    let mut command = standin(&pair.run("source"));
    let output = output_within(command.args(["mirror", "start"]).arg(&pair.mount).arg("first"), COMMAND_MAX);
    let said = describe(&output);
    assert!(!output.status.success() && said.contains("still sent what was queued before"), "{said}");
    told(&pair, &["connection", "limit", "none"]);
    pair.assert_in_sync_of(3, &Rules::default());
    pair.stop_source();
}

/// A byte of it is another one: nothing of that is applied, and a copy brings what it held.
#[test]
fn what_is_damaged_of_what_was_left_is_copied() {
    for part in [0, 1, 2] {
        let (mut pair, mut journals) = pair();
        told(&pair, &["connection", "pause"]);
        journals.write(1000);
        stop(&mut pair);
        let all = segments(&pair);
        let file = OpenOptions::new().read(true).write(true).open(&all[0]).expect("a segment");
        match part {
            // Of its header, of a record in the middle, and all of it.
            0 => file.write_all_at(b"x", 41).expect("written"),
            1 => file.write_all_at(b"damaged", 4 << 20).expect("written"),
            _ => fs::remove_file(&all[0]).expect("removed"),
        }
        pair.protect_at_once();
        told(&pair, &["connection", "resume"]);
        journals.write(10);
        pair.assert_in_sync_of(3, &Rules::default());
        assert_eq!(records_at(&pair.replica()), 1020);
        pair.stop_source();
        assert!(segments(&pair).is_empty(), "something is left of the queue");
    }
}

/// What is deleted in it is asked about as ever.
#[test]
fn many_deletions_that_were_left_wait_for_a_person() {
    let mut pair = Pair::start(Disk::Plain, Disk::Plain);
    fs::create_dir(pair.mount.join("dir")).expect("a directory");
    for number in 0..1400 {
        fs::write(pair.mount.join(format!("dir/file{number}")), "x").expect("a file");
    }
    pair.assert_in_sync_of(1400, &Rules::default());
    told(&pair, &["mirror", "start"]);
    wait_for(&pair, "compared", |connection| connection["mirror"]["phase"] == "complete");
    std::thread::sleep(Duration::from_secs(11));
    told(&pair, &["connection", "pause"]);
    fs::remove_dir_all(pair.mount.join("dir")).expect("removed");
    stop(&mut pair);
    pair.protect_at_once();
    told(&pair, &["connection", "resume"]);
    wait_for(&pair, "asked", |connection| {
        connection["reason"].as_str().unwrap_or_default().contains("--accept-deletes")
    });
    let left = fs::read_dir(pair.replica().join("dir")).expect("a directory").count();
    assert!(left >= 600, "{left} of 1400 are left");
    told(&pair, &["connection", "resume", "--accept-deletes"]);
    pair.assert_in_sync_of(1, &Rules::default());
    pair.stop_source();
}
