//! Daemons that are killed under load, and what the replica is afterwards: the source as of some
//! packet, whole, with its times. Where the source never comes back nobody else can finish what
//! the target had begun.
//!
//! `STANDIN_SEED=x` replays what programs do, `STANDIN_ROUNDS=n` kills for so many rounds on each
//! pair of file systems.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::host::{COMMAND_MAX, Disk, clear_mounts, describe, heavy, output_within, standin};
use crate::pair::{Pair, kill};
use crate::random::{prepare, setting, worker::Worker};
use crate::tree::Rules;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};
use standin::random::Random;

const THREADS: u64 = 2;
/// A target runs about this long before it is killed.
const LIFE: Duration = Duration::from_millis(2000);

/// Mtimes of the files of a flat directory that has what [`touch_many`] leaves.
fn wrong_times(dir: &Path) -> (usize, Vec<PathBuf>) {
    let files: Vec<PathBuf> =
        fs::read_dir(dir).expect("a replica").map(|e| e.expect("an entry").path()).collect();
    let is_wrong = |path: &PathBuf| {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        fs::metadata(path).expect("a file").mtime() != time_of(name[1..].parse().expect("a number"))
    };
    let wrong = files.iter().filter(|path| is_wrong(path)).cloned().collect();
    (files.len(), wrong)
}

fn time_of(number: i64) -> i64 {
    978_307_200 + number % 60
}

fn touch_many(root: &Path, count: i64) {
    for number in 0..count {
        let path = root.join(format!("f{number}"));
        fs::write(&path, number.to_string()).expect("a file");
        let time = Timespec { tv_sec: time_of(number), tv_nsec: 0 };
        let times = Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(CWD, &path, &times, AtFlags::empty()).expect("a time");
    }
}

/// Both are killed while changes arrive and the source never comes back. The files had the time at
/// which they were copied: pending times were set only while a source was connected.
#[test]
fn what_a_killed_target_has_is_whole_without_its_source() {
    let _alone = heavy();
    let mut pair = Pair::start(Disk::Plain, Disk::Plain);
    touch_many(&pair.mount, 200);
    let deadline = Instant::now() + COMMAND_MAX;
    while fs::read_dir(pair.replica()).map_or(0, Iterator::count) < 100 {
        assert!(Instant::now() < deadline, "nothing arrives");
    }
    for daemon in [&mut pair.target, &mut pair.source] {
        kill(daemon.as_mut().expect("it runs"));
    }
    (pair.target, pair.source) = (None, None);
    clear_mounts(&pair.mount);
    pair.serve();
    let output = output_within(standin(&pair.run("target")).args(["status", "--json"]), COMMAND_MAX);
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let replica = &status["target"]["replicas"][0];
    assert_eq!(replica["data"], "good", "{status}");
    let (files, wrong) = wrong_times(&pair.replica());
    // The prefix may end between a file and its time.
    assert!(files >= 100 && wrong.len() <= 1, "of {files} files with a wrong time: {wrong:?}");
    // What it applied becomes durable without a source, too.
    let deadline = Instant::now() + COMMAND_MAX;
    loop {
        let output = output_within(standin(&pair.run("target")).args(["status", "--json"]), COMMAND_MAX);
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let replica = &status["target"]["replicas"][0];
        if replica["applied"] == replica["durable"] {
            break;
        }
        assert!(Instant::now() < deadline, "never durable: {status}");
        std::thread::sleep(Duration::from_millis(100));
    }
    let mut target = pair.target.take().expect("it serves");
    target.signal(libc::SIGTERM);
    assert!(target.wait(COMMAND_MAX).is_some_and(|status| status.success()), "{}", target.said());
    assert_eq!(wrong_times(&pair.replica()), (files, wrong));
}

fn replica_status(pair: &Pair) -> serde_json::Value {
    let output = output_within(standin(&pair.run("target")).args(["status", "--json"]), COMMAND_MAX);
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    status["target"]["replicas"][0].clone()
}

fn now_ms() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    now.as_millis() as u64
}

/// Who stops says last how far it was: nobody could have told how old a replica is whose source ran for a moment.
#[test]
fn what_an_orderly_stop_leaves_has_an_age() {
    let mut pair = Pair::start(Disk::Plain, Disk::Plain);
    fs::write(pair.mount.join("file"), "x").expect("a write");
    let before = now_ms();
    pair.stop_source();
    let last = replica_when(&pair, |status| status["connected"].is_null());
    assert!(last["as_of_unix_ms"].as_u64() >= Some(before) && last["beyond"] == 0, "{last}");
}

/// How old its data is nobody else can say when the source is gone, and it has to be said after a kill and a
/// restart, too: to what the source says twice a second.
#[test]
fn a_target_says_how_old_its_replica_is_without_its_source() {
    let mut pair = Pair::start(Disk::Plain, Disk::Plain);
    let written = now_ms();
    fs::write(pair.mount.join("file"), "x").expect("a write");
    let status = replica_when(&pair, |status| status["as_of_unix_ms"].as_u64() >= Some(written));
    assert!(pair.replica().join("file").exists(), "{status}");
    assert!(status["as_of_unix_ms"].as_u64() <= Some(now_ms()), "a moment that is to come: {status}");
    // More than the link takes: what lags is known as far as it was said.
    let limit = output_within(standin(&pair.run("source")).args(["connection", "limit", "16k"]), COMMAND_MAX);
    assert!(limit.status.success(), "{}", describe(&limit));
    for number in 0..40 {
        fs::write(pair.mount.join(format!("late{number}")), vec![number; 8192]).expect("a write");
    }
    replica_when(&pair, |status| status["beyond"].as_u64() > Some(20));
    kill(&mut pair.source.take().expect("it runs"));
    clear_mounts(&pair.mount);
    let last = replica_when(&pair, |status| status["connected"].is_null());
    let (as_of, beyond) = (&last["as_of_unix_ms"], &last["beyond"]);
    assert!(beyond.as_u64() > Some(0) && as_of.as_u64() < last["heard_unix_ms"].as_u64(), "{last}");
    assert_eq!(
        last["given_out"].as_u64(),
        Some(last["applied"].as_u64().unwrap() + beyond.as_u64().unwrap())
    );
    // It has nothing of it on its disk that it did not have before.
    kill(&mut pair.target.take().expect("it serves"));
    pair.serve();
    let again = replica_status(&pair);
    for field in ["data", "applied", "as_of_unix_ms", "beyond", "heard_unix_ms", "given_out"] {
        assert_eq!(again[field], last[field], "{field}: {again}");
    }
    let output = output_within(standin(&pair.run("target")).arg("status"), COMMAND_MAX);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for word in ["age         as of ", "by the source's clock", "beyond      ", "more were given out at"] {
        assert!(text.contains(word), "no '{word}' in:\n{text}");
    }
}

#[track_caller]
fn replica_when(pair: &Pair, fits: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
    let deadline = Instant::now() + COMMAND_MAX;
    loop {
        let status = replica_status(pair);
        if fits(&status) {
            return status;
        }
        assert!(Instant::now() < deadline, "never: {status}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Programs work below the mount until the end is asked for.
fn under_load(mount: &Path, seed: u64, during: impl FnOnce()) {
    let (end, root) = (AtomicBool::new(false), File::open(mount).expect("the mount"));
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (end, fd) = (&end, root.as_fd());
            scope.spawn(move || {
                let mut random = Random::new(seed ^ (thread << 56));
                while !end.load(Relaxed) {
                    // Errors are those of a mount that dies meanwhile; others are found elsewhere.
                    let _ = Worker::new(fd, mount, Random::new(random.number())).run(50);
                }
            });
        }
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(during));
        end.store(true, Relaxed);
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

fn pause(random: &mut Random, most: Duration) {
    std::thread::sleep(Duration::from_millis(random.below(most.as_millis() as u64 + 1)));
}

fn kill_for_rounds(source: Disk, target: Disk, rounds: u64) {
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    let seed = setting("STANDIN_SEED").unwrap_or(clock.as_nanos() as u64 >> 8);
    println!("STANDIN_SEED={seed}: {} -> {}, {rounds} rounds", shown(source), shown(target));
    let mut random = Random::new(seed);
    let mut pair = Pair::start(source, target);
    prepare(&pair.mount);
    // Which zeros are holes is the file system's business, and not what is asked here.
    let rules = Rules { ignore_holes: true, ..Rules::default() };
    for round in 0..rounds {
        let mount = pair.mount.clone();
        under_load(&mount, random.number(), || {
            for _ in 0..1 + random.below(3) {
                std::thread::sleep(LIFE / 2);
                pause(&mut random, LIFE / 2);
                kill(&mut pair.target.take().expect("it serves"));
                pause(&mut random, LIFE / 8);
                pair.serve();
            }
            if round % 3 == 2 {
                pause(&mut random, LIFE);
                kill(&mut pair.source.take().expect("it runs"));
            }
        });
        if pair.source.is_none() {
            pair.protect();
        }
        println!("round {round}");
        pair.assert_in_sync(&rules);
    }
}

fn shown(disk: Disk) -> &'static str {
    match disk {
        Disk::Plain => "plain",
        Disk::Image { kind, .. } => kind,
    }
}

fn rounds() -> u64 {
    setting("STANDIN_ROUNDS").unwrap_or(3)
}

#[test]
fn killed_under_load_both_sides_come_together() {
    let _alone = heavy();
    kill_for_rounds(Disk::Plain, Disk::Plain, rounds());
}

/// With file systems whose tools are not everywhere.
#[cfg(feature = "suites")]
mod suites {
    use super::*;

    /// `STANDIN_PAIR=xfs,ext4` runs one pair.
    #[test]
    fn killed_under_load_on_all_file_systems() {
        let _alone = heavy();
        let only = std::env::var("STANDIN_PAIR").ok();
        let disk = |kind| Disk::Image { kind, mib: 1024 };
        for source in ["ext4", "xfs", "btrfs"] {
            for target in ["ext4", "xfs", "btrfs"] {
                if only.as_ref().is_none_or(|only| *only == format!("{source},{target}")) {
                    kill_for_rounds(disk(source), disk(target), rounds());
                }
            }
        }
    }
}
