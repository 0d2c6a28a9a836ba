//! Nobody waits for the file, and what is not in it is counted.

use std::fs::{self, File};
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::super::file::append;
use super::super::{Statistics, WAITING_MAX};
use super::file::Ground;
use super::source;
use crate::control::tests::{sample_connection, source_of};
use crate::events::{Code, Severity};
use crate::locked::Locked;

fn wait(what: &str, is_so: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < until, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn what_cannot_be_written_is_dropped_and_counted_and_said_once() {
    let ground = Ground::new(1 << 20, 4);
    let path = &ground.to.path;
    let statistics = Statistics::start(ground.to.clone()).unwrap();
    let mut status = source(sample_connection());
    let mut second = 0;
    let mut tell = || {
        second += 1;
        source_of(&mut status).connections[0].sent.packets += 1;
        statistics.tell(Duration::from_secs(second), &status, &[]);
    };
    tell();
    wait("a line", || lines(path).len() == 1);
    assert_eq!(statistics.alert(), None);
    let (dir, aside) = (path.parent().unwrap(), ground.dir.path().join("aside"));
    fs::rename(dir, &aside).unwrap();
    tell();
    tell();
    wait("both are dropped", || statistics.outcome.dropped.load(Relaxed) == 2);
    let alert = statistics.alert().unwrap();
    assert_eq!((alert.code, alert.severity), (Code::StatisticsFailing, Severity::Warning));
    assert!(
        alert.text.contains("No such file") && alert.text.contains(" 2 lines are lost"),
        "{}",
        alert.text
    );
    fs::rename(&aside, dir).unwrap();
    tell();
    wait("it goes on", || lines(path).len() == 2);
    wait("that is said", || statistics.alert().is_none());
    tell();
    statistics.end(Instant::now() + Duration::from_secs(20));
    let dropped: Vec<u64> = lines(path).iter().map(|line| line["dropped_lines"].as_u64().unwrap()).collect();
    assert_eq!(dropped, [0, 2, 2], "what was told before the end is written");
    tell();
    assert_eq!(lines(path).len(), 3, "nothing is told behind the end");
}

/// A disk that hangs: whoever tells does not wait for it.
#[test]
fn nobody_waits_for_a_disk() {
    let ground = Ground::new(1 << 20, 4);
    append(&ground.to, b"{}\n").unwrap();
    let held = Locked::now(File::open(&ground.to.path).unwrap()).unwrap().unwrap();
    let statistics = Statistics::start(ground.to.clone()).unwrap();
    let mut status = source(sample_connection());
    let began = Instant::now();
    let all = WAITING_MAX as u64 + 20;
    for second in 0..all {
        source_of(&mut status).connections[0].sent.packets += 1;
        statistics.tell(Duration::from_secs(second), &status, &[]);
    }
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(statistics.alert().unwrap().text.contains("its disk does not answer"));
    drop(held);
    statistics.end(Instant::now() + Duration::from_secs(20));
    let written = lines(&ground.to.path).len() as u64 - 1;
    assert_eq!(written + statistics.outcome.dropped.load(Relaxed), all);
}
