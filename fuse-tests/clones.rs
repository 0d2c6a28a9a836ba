//! `standin clone` with real daemons: under load, over a kill, on a full disk, of a database that is written.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::host::{COMMAND_MAX, Disk, describe, heavy, output_within, require_program, run};
use crate::pair::{Pair, kill};
use crate::random::{prepare, work};
use crate::tree::{self, Rules};

fn clone(pair: &Pair, arguments: &[&str]) -> Output {
    output_within(pair.daemon("target").arg("clone").args(arguments), COMMAND_MAX)
}

#[track_caller]
fn done(pair: &Pair, arguments: &[&str]) -> Value {
    let output = clone(pair, &[arguments, &["--json"]].concat());
    assert!(output.status.success(), "{arguments:?}: {}", describe(&output));
    let mut answer: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    answer["replicas"][0]["clones"].take()
}

#[track_caller]
fn refused(pair: &Pair, arguments: &[&str], words: &str) {
    let output = clone(pair, arguments);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", describe(&output));
    assert!(describe(&output).contains(words), "no '{words}' in: {}", describe(&output));
}

/// Until the only clone is in another state than SYNCHRONIZING.
fn ended(pair: &Pair) -> Value {
    let deadline = Instant::now() + 4 * COMMAND_MAX;
    loop {
        let mut all = done(pair, &["list"]);
        if all[0]["state"] != "SYNCHRONIZING" {
            return all[0].take();
        }
        assert!(Instant::now() < deadline, "it has no end: {all}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn wait_sync(pair: &Pair) {
    let output = output_within(pair.daemon("source").arg("wait-sync"), 4 * COMMAND_MAX);
    assert!(output.status.success(), "{}", describe(&output));
}

/// A directory on the disk of the replica.
fn beside(pair: &Pair, name: &str) -> PathBuf {
    pair.replica().with_file_name(name)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

fn many_files(root: &Path, count: usize) {
    for dir in 0..20 {
        fs::create_dir_all(root.join(format!("many{dir}"))).expect("a directory");
    }
    for file in 0..count {
        let path = root.join(format!("many{}/file{file}", file % 20));
        fs::write(path, vec![file as u8; 3000 + file]).expect("a file");
    }
}

/// Each has what the replica had when it began; the old ones go once the new one is complete, and not before.
#[test]
fn a_series_keeps_the_newest() {
    let mut pair = Pair::start(Disk::Plain, Disk::Plain);
    let place = beside(&pair, "series");
    fs::create_dir(&place).expect("a directory");
    let arguments = ["rotate", "day", "--to", text(&place), "--keep", "2"];
    let names = |all: &Value| -> Vec<String> {
        let all = all.as_array().expect("clones").iter();
        all.map(|clone| clone["name"].as_str().expect("a name").to_owned()).collect()
    };
    let other = beside(&pair, "other");
    done(&pair, &["start", "day.of-mine", "--to", text(&other), "--wait"]);
    let mut made = Vec::new();
    for round in 0..4 {
        fs::write(pair.mount.join("round"), format!("{round}")).expect("a file");
        wait_sync(&pair);
        // Two within a second would have one name.
        std::thread::sleep(Duration::from_millis(1100));
        let one = done(&pair, &arguments);
        assert_eq!((&one[0]["state"], &one[0]["usable"]), (&"SPLIT".into(), &true.into()), "{one}");
        made.push(names(&one).remove(0));
        let kept = &made[made.len().saturating_sub(2)..];
        let there = fs::read_dir(&place).expect("a directory");
        let mut there: Vec<String> =
            there.map(|entry| entry.expect("one").file_name().into_string().expect("text")).collect();
        there.sort();
        assert_eq!(there, kept);
        for (back, name) in kept.iter().rev().enumerate() {
            let content = fs::read_to_string(place.join(name).join("round")).expect("a file");
            assert_eq!(content, format!("{}", round - back));
        }
    }
    let mut expected = vec!["day.of-mine".to_owned()];
    expected.splice(0..0, made[2..].iter().cloned());
    assert_eq!(names(&done(&pair, &["list"])), expected);
    // What cannot be removed is said, and the new one is there all the same.
    let oldest = place.join(&made[2]);
    run(Command::new("mount").args(["-t", "tmpfs", "none"]).arg(&oldest));
    std::thread::sleep(Duration::from_millis(1100));
    let output = clone(&pair, &arguments);
    run(Command::new("umount").arg(&oldest));
    let said = describe(&output);
    assert!(output.status.code() == Some(1) && said.contains(&format!("NOT removed: {}", made[2])), "{said}");
    assert!(said.contains("SPLIT") && place.join(&made[3]).exists(), "{said}");
    // Of a replica that is not good there is no new one, and no old one goes for it.
    let before = names(&done(&pair, &["list"]));
    fs::remove_file(pair.replica().join("round")).expect("removed");
    fs::write(pair.mount.join("round"), "again").expect("a file");
    std::thread::sleep(Duration::from_millis(1100));
    refused(&pair, &arguments, "no consistent");
    assert_eq!(names(&done(&pair, &["list"])), before);
    refused(&pair, &["rotate", "a/b", "--to", text(&place)], "cannot name clones");
    refused(&pair, &["rotate", "day", "--to", text(&place.join("none"))], "cannot be reached");
    pair.stop_source();
    pair.stop_target();
}

/// Everything of it is changed while the copy runs, and its target killed.
#[test]
fn a_clone_is_the_replica_as_it_was_when_it_began() {
    let _alone = heavy();
    let mut pair = Pair::start(Disk::Plain, Disk::Plain);
    prepare(&pair.mount);
    many_files(&pair.mount, 1500);
    work(&pair.mount, 7, 400);
    wait_sync(&pair);
    let (dir, expected) = (beside(&pair, "clone"), beside(&pair, "expected"));
    let started = done(&pair, &["start", "one", "--to", text(&dir)]);
    assert_eq!((&started[0]["state"], &started[0]["usable"]), (&"SYNCHRONIZING".into(), &false.into()));
    // Killed within the copy, which goes on later, when everything changes. Nobody writes at this moment.
    pair.kill_target();
    run(Command::new("cp").args(["-a", "--sparse=always"]).arg(pair.replica()).arg(&expected));
    pair.serve();
    let resumed = done(&pair, &["list"]);
    println!("after the kill: {resumed}");
    let mount = pair.mount.clone();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for seed in 0..50 {
                if stop.load(SeqCst) {
                    break;
                }
                work(&mount, seed, 100);
                let at = mount.join(format!("many{}", seed % 20));
                let _ = fs::remove_dir_all(&at);
            }
        });
        for _ in 0..3 {
            std::thread::sleep(Duration::from_millis(300));
            pair.kill_target();
            pair.serve();
        }
        let shown = ended(&pair);
        stop.store(true, SeqCst);
        assert_eq!((&shown["state"], &shown["usable"]), (&"SPLIT".into(), &true.into()), "{shown}");
        println!("{shown}");
    });
    let rules = Rules { hole_slack: 64 * 1024, ignore_holes: true, ..Rules::default() };
    tree::assert_same_by(&expected, &dir, &rules);
    wait_sync(&pair);
    pair.assert_in_sync(&rules);
    done(&pair, &["stop", "one"]);
    assert_eq!(done(&pair, &["list"]).as_array().map(Vec::len), Some(0));
    tree::assert_same_by(&expected, &dir, &rules);
    let left = pair.replica().with_file_name(".web.standin").join("clones");
    assert_eq!(fs::read_dir(left).into_iter().flatten().count(), 0);
}

/// A source dies in the middle of a copy: the replica is no state of anything, and what it was before is there.
#[test]
fn what_was_good_outlives_a_source_that_dies_in_a_copy() {
    let _alone = heavy();
    let mut pair = Pair::start(Disk::Plain, Disk::Plain);
    pair.stop_target();
    fs::write(pair.state("target").join("standin.toml"), "[serve]\nkeep_good = true\n").expect("a file");
    pair.serve();
    prepare(&pair.mount);
    many_files(&pair.mount, 1500);
    work(&pair.mount, 7, 400);
    wait_sync(&pair);
    let (dir, expected) = (beside(&pair, "clone"), beside(&pair, "expected"));
    run(Command::new("cp").args(["-a", "--sparse=always"]).arg(pair.replica()).arg(&expected));
    run(pair.daemon("source").args(["mirror", "start", "--mode", "full", "--rate", "1M"]));
    let deadline = Instant::now() + COMMAND_MAX;
    while done(&pair, &["list"]).as_array().is_none_or(Vec::is_empty) {
        assert!(Instant::now() < deadline, "nothing is kept");
        std::thread::sleep(Duration::from_millis(50));
    }
    work(&pair.mount, 8, 300);
    fs::remove_dir_all(pair.mount.join("many3")).expect("removed");
    kill(&mut pair.source.take().expect("a source"));
    // It is kept over a kill of the target, too.
    pair.kill_target();
    pair.serve();
    let status = output_within(pair.daemon("target").arg("status"), COMMAND_MAX);
    assert!(describe(&status).contains("standin clone copy last-good --to DIR"), "{}", describe(&status));
    let kept = &done(&pair, &["list"])[0];
    assert_eq!((&kept["name"], &kept["keeps_good"]), (&"last-good".into(), &true.into()), "{kept}");
    assert_eq!((&kept["directory"], &kept["usable"]), (&Value::Null, &false.into()), "{kept}");
    refused(&pair, &["copy", "other", "--to", text(&dir)], "cannot be copied: there is no such clone");
    let copied = done(&pair, &["copy", "last-good", "--to", text(&dir), "--wait"]);
    assert_eq!((&copied[0]["state"], &copied[0]["keeps_good"]), (&"SPLIT".into(), &false.into()), "{copied}");
    let rules = Rules { hole_slack: 64 * 1024, ignore_holes: true, ..Rules::default() };
    tree::assert_same_by(&expected, &dir, &rules);
    refused(&pair, &["copy", "last-good", "--to", text(&expected)], "has a directory already");
    // The source is back: another copy, and nothing is left of what was kept for it.
    pair.protect();
    wait_sync(&pair);
    pair.assert_in_sync(&rules);
    let deadline = Instant::now() + COMMAND_MAX;
    while done(&pair, &["list"]).as_array().map(Vec::len) != Some(1) {
        assert!(Instant::now() < deadline, "{}", done(&pair, &["list"]));
        std::thread::sleep(Duration::from_millis(50));
    }
    done(&pair, &["stop", "last-good"]);
    let left = pair.replica().with_file_name(".web.standin").join("clones");
    assert_eq!(fs::read_dir(&left).map_or(0, |entries| entries.count()), 0);
}

#[test]
fn what_cannot_be_cloned_is_refused() {
    let pair = Pair::start(Disk::Plain, Disk::Plain);
    fs::write(pair.mount.join("file"), "x").expect("a file");
    wait_sync(&pair);
    let dir = beside(&pair, "clone");
    refused(&pair, &["start", "one", "--to", "/var/tmp/standin-clone-elsewhere"], "--root");
    refused(&pair, &["start", "one", "--to", text(&pair.replica().join("x"))], "belongs to the replica");
    refused(&pair, &["start", "one", "--to", text(&dir), "--lazy"], "cannot be used with");
    refused(&pair, &["start", "one", "--to", text(&dir), "--kind", "mirror"], "not in this version");
    for command in ["activate", "restart", "restore", "swap"] {
        refused(&pair, &[command, "one"], "not in this version");
    }
    refused(&pair, &["stop", "one"], "'one'");
    let made = done(&pair, &["start", "one", "--to", text(&dir), "--wait"]);
    assert_eq!(made[0]["state"], "SPLIT", "{made}");
    assert_eq!(fs::read(dir.join("file")).expect("a file"), b"x");
    refused(&pair, &["start", "one", "--to", text(&beside(&pair, "other"))], "already");
    done(&pair, &["stop", "one", "--remove"]);
    assert!(!dir.exists());
}

/// What it preserves and copies takes the room that the replica needs.
#[test]
fn a_full_disk_fails_the_clone_and_not_the_replication() {
    let pair = Pair::start(Disk::Plain, Disk::Image { kind: "ext4", mib: 96 });
    let file = pair.mount.join("file");
    for part in 0..5_u8 {
        fs::write(file.with_extension(part.to_string()), vec![part + 1; 8 << 20]).expect("a file");
    }
    wait_sync(&pair);
    let dir = beside(&pair, "clone");
    done(&pair, &["start", "one", "--to", text(&dir)]);
    for part in 0..5_u8 {
        fs::write(file.with_extension(part.to_string()), vec![part + 9; 8 << 20]).expect("a file");
    }
    let shown = ended(&pair);
    assert_eq!(shown["state"], "FAILED", "{shown}");
    assert!(!dir.exists() && shown["reason"].is_string(), "{shown}");
    wait_sync(&pair);
    pair.assert_in_sync_of(6, &Rules { hole_slack: 64 * 1024, ..Rules::default() });
    done(&pair, &["stop", "one"]);
}

/// Commits to the database of its first argument until the second one is there.
pub const WRITER: &str = r#"
import sqlite3, sys, os
db = sqlite3.connect(sys.argv[1])
db.execute("pragma journal_mode=wal")
db.execute("create table n(i integer primary key, text)")
number = 0
while not os.path.exists(sys.argv[2]):
    number += 1
    db.execute("insert into n values(?, ?)", (number, "x" * (number % 3000)))
    db.commit()
    if number == 50:
        print("ready", flush=True)
"#;

const CHECK: &str = r#"
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
assert db.execute("pragma integrity_check").fetchall() == [("ok",)]
count, last = db.execute("select count(*), max(i) from n").fetchone()
assert count == last and count > 0, (count, last)
print(count)
"#;

#[test]
fn a_clone_of_a_database_that_is_written_opens() {
    use std::io::{BufRead, BufReader};
    let python = require_program("python3");
    let pair = Pair::start(Disk::Plain, Disk::Plain);
    let stop = pair.state("source").join("stop-writing");
    let mut writer = Command::new(&python)
        .args(["-c", WRITER])
        .arg(pair.mount.join("n.db"))
        .arg(&stop)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("python3");
    let mut ready = String::new();
    BufReader::new(writer.stdout.take().expect("piped")).read_line(&mut ready).expect("a line");
    wait_sync(&pair);
    let mut counts = Vec::new();
    for round in 0..5 {
        let (name, dir) = (format!("c{round}"), beside(&pair, &format!("clone{round}")));
        let made = done(&pair, &["start", &name, "--to", text(&dir), "--wait"]);
        assert_eq!(made[0]["state"], "SPLIT", "{made}");
        let output =
            output_within(Command::new(&python).args(["-c", CHECK]).arg(dir.join("n.db")), COMMAND_MAX);
        assert!(output.status.success(), "{}", describe(&output));
        let count = String::from_utf8_lossy(&output.stdout).trim().parse::<u64>().expect("a number");
        counts.push(count);
        done(&pair, &["stop", &name, "--remove"]);
    }
    fs::write(&stop, "").expect("a file");
    assert!(writer.wait().expect("it ends").success());
    println!("{counts:?}");
    assert!(counts.is_sorted(), "{counts:?}");
}

/// At moments that no two rounds share: each stop is answered, and leaves nothing.
#[test]
fn a_copy_is_given_up_at_any_moment() {
    let pair = Pair::start(Disk::Plain, Disk::Plain);
    many_files(&pair.mount, 1500);
    wait_sync(&pair);
    for round in 0..30_u64 {
        let (name, dir) = (format!("c{round}"), beside(&pair, &format!("clone{round}")));
        done(&pair, &["start", &name, "--to", text(&dir)]);
        std::thread::sleep(Duration::from_millis(round * 13 % 170));
        let ended = done(&pair, &["stop", &name, "--force"]);
        let is_kept = match ended[0]["ended"].as_str() {
            Some("kept") => true,
            Some("never_complete") => false,
            other => panic!("{other:?}: {ended}"),
        };
        assert_eq!(dir.exists(), is_kept, "{ended}");
        assert!(!beside(&pair, &format!(".clone{round}.standin-clone")).exists(), "{ended}");
    }
    assert_eq!(done(&pair, &["list"]).as_array().map(Vec::len), Some(0));
    let left = pair.replica().with_file_name(".web.standin").join("clones");
    assert_eq!(fs::read_dir(left).into_iter().flatten().count(), 0);
}

/// A mount, while this lives.
struct Bound(PathBuf);

impl Drop for Bound {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn what_is_mounted_in_a_clone_is_not_removed_with_it() {
    let pair = Pair::start(Disk::Plain, Disk::Plain);
    fs::create_dir_all(pair.mount.join("d/sub")).expect("a directory");
    fs::write(pair.mount.join("file"), "x").expect("a file");
    wait_sync(&pair);
    let (dir, other) = (beside(&pair, "clone"), beside(&pair, "other"));
    fs::create_dir(&other).expect("a directory");
    fs::write(other.join("precious"), "x").expect("a file");
    done(&pair, &["start", "one", "--to", text(&dir), "--wait"]);
    let at = dir.join("d/sub");
    run(Command::new("mount").arg("--bind").arg(&other).arg(&at));
    let bound = Bound(at);
    refused(&pair, &["stop", "one", "--remove"], "unmount it first");
    assert!(other.join("precious").exists() && dir.join("file").exists());
    assert_eq!(done(&pair, &["list"])[0]["state"], "SPLIT");
    drop(bound);
    assert_eq!(done(&pair, &["stop", "one", "--remove"])[0]["ended"], "removed");
    assert!(other.join("precious").exists() && !dir.exists());
    // On the whole of it, as a protection is: it was taken for gone, and stayed for good.
    done(&pair, &["start", "two", "--to", text(&dir), "--wait"]);
    let cover = || {
        run(Command::new("mount").arg("--bind").arg(&other).arg(&dir));
        Bound(dir.clone())
    };
    let bound = cover();
    refused(&pair, &["stop", "two", "--remove"], "unmount it first");
    drop(bound);
    assert_eq!(done(&pair, &["stop", "two", "--remove"])[0]["ended"], "removed");
    assert!(other.join("precious").exists() && !dir.exists());
    done(&pair, &["start", "three", "--to", text(&dir), "--wait"]);
    let bound = cover();
    assert_eq!(done(&pair, &["stop", "three"])[0]["ended"], "kept");
    drop(bound);
    assert!(dir.join("file").exists());
}
