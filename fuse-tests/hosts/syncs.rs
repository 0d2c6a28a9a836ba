//! `--fsync=target` between two hosts.

use std::fs;
use std::io::Write;
use std::time::{Duration, Instant};

use super::Hosts;
use crate::host::Daemon;
use crate::tree;

/// `--fsync=target` when the other host freezes or dies: late syncs fail, later ones are kept.
#[test]
fn syncs_wait_for_a_target_that_is_away_and_fail_in_time() {
    let mut hosts = Hosts::prepare();
    hosts.serve();
    hosts.pair();
    let mut command = hosts.protect_command();
    command.args(["--fsync=target", "--fsync-timeout", "2s"]);
    let mut daemon = Daemon::spawn(command);
    daemon.wait_ready();
    hosts.source = Some(daemon);
    let mut file = fs::File::create(hosts.mount.join("log")).expect("a file");
    let mut written = String::new();
    let mut record = || {
        let record = format!("record {}\n", written.len());
        file.write_all(record.as_bytes()).expect("a write");
        written += &record;
        let began = Instant::now();
        (file.sync_all().map_err(|error| error.raw_os_error()), began.elapsed(), written.clone())
    };
    let on_replica = |hosts: &Hosts| fs::read_to_string(hosts.replica().join("log")).unwrap_or_default();

    let (outcome, _, content) = record();
    assert_eq!(outcome, Ok(()), "{}", hosts.said());
    assert_eq!(on_replica(&hosts), content);

    hosts.target.as_ref().expect("it serves").signal(libc::SIGSTOP);
    let (outcome, took, _) = record();
    assert_eq!(outcome, Err(Some(libc::EIO)));
    assert!(took >= Duration::from_millis(1900) && took < Duration::from_secs(8), "after {took:?}");
    let alerts = hosts.status(hosts.on_source())["alerts"].to_string();
    assert!(alerts.contains("fsync_timed_out"), "{alerts}");
    hosts.target.as_ref().expect("it serves").signal(libc::SIGCONT);
    hosts.wait_for_syncs();
    let (outcome, _, content) = record();
    assert_eq!(outcome, Ok(()), "{}", hosts.said());
    assert_eq!(on_replica(&hosts), content);

    hosts.kill_target();
    let (outcome, ..) = record();
    assert_eq!(outcome, Err(Some(libc::EIO)));
    hosts.serve();
    hosts.wait_for_syncs();
    let (outcome, _, content) = record();
    hosts.kill_target();
    assert_eq!(outcome, Ok(()), "{}", hosts.said());
    assert_eq!(on_replica(&hosts), content);
    drop(file);
    hosts.serve();
    hosts.wait_for_source("back", |connection| !connection["link"].is_null());
    hosts.stop_source();
    tree::assert_same(&hosts.backing(), &hosts.replica());
}

impl Hosts {
    /// Waits until syncs go through again.
    #[track_caller]
    fn wait_for_syncs(&self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let status = self.status(self.on_source());
            if status["fsync"]["failing_since_unix_ms"].is_null() {
                return;
            }
            assert!(Instant::now() < deadline, "syncs still fail: {status}\n{}", self.said());
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}
