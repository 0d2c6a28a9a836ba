//! What a program began before the first copy looked at a file, and ended after.

use std::fs::{self, File};
use std::time::{Duration, Instant};

use super::Hosts;
use crate::host::{self, Daemon};
use crate::sys::Mapping;

/// As many files as it takes to still be copying when the first of them has come.
const FILES: usize = 20_000;

/// Longer than clocks are given.
const LONG_BEFORE: Duration = Duration::from_secs(3);

#[track_caller]
fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "never {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Only the first store into a page of a mapping changes the times of its file. What was stored while
/// the copy ran, under a time from before it, was taken for copied, and the replica for good.
#[test]
fn a_store_during_the_first_copy_arrives() {
    let mut hosts = Hosts::prepare();
    let page = hosts.backing().join("a page");
    fs::write(&page, [b'0'; 4096]).unwrap();
    fs::create_dir(hosts.backing().join("many")).unwrap();
    for number in 0..FILES {
        fs::write(hosts.backing().join(format!("many/{number}")), number.to_string()).unwrap();
    }
    hosts.serve();
    hosts.pair();
    hosts.stop_target();
    let mut command = hosts.protect_command();
    command.args(host::profile(&[]));
    let mut source = Daemon::spawn(command);
    // It has seen that nobody had a file open for writing, and waits for its target.
    wait_until("waits for its target", || source.said().contains("tried for"));
    let file = File::options().read(true).write(true).open(&page).unwrap();
    let mapping = Mapping::new(&file, 4096).unwrap();
    drop(file);
    mapping.store(0, &[b'A'; 4096]).unwrap();
    std::thread::sleep(LONG_BEFORE);
    hosts.serve();
    let copied = || fs::read(hosts.replica().join("a page")).is_ok_and(|bytes| bytes == [b'A'; 4096]);
    wait_until("copied the page", copied);
    mapping.store(0, &[b'B'; 4096]).unwrap();
    drop(mapping);
    source.wait_ready_within(host::SYNC_MAX);
    hosts.source = Some(source);
    hosts.assert_in_sync();
    hosts.stop_source();
}
