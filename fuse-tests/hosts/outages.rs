//! What a pair of hosts makes good: cuts, kills, stops.

use std::fs;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::Hosts;
use super::lag::{Probe, now};
use super::load::{fill, under_load, under_paced_load, until_killed};
use crate::random::setting;
use crate::{host, tree};
use standin::limits::{FEED_BATCH, RECEIVE_WINDOW, STREAM_WINDOW};
use standin::random::Random;

#[test]
fn two_hosts_stay_identical_through_cuts_kills_and_stops() {
    let _heavy = host::heavy();
    let mut hosts = Hosts::prepare();
    hosts.serve_arguments = vec!["--allow", "device,setuid,security"];
    fill(&hosts.backing());
    hosts.serve();
    hosts.pair();
    hosts.protect();
    let mount = hosts.mount.clone();
    under_load(&mount, |_| std::thread::sleep(Duration::from_secs(1)));
    assert!(hosts.assert_in_sync().objects > 100);
    a_cut_cable_is_made_good(&hosts);
    killed_at_random_moments(&mut hosts);
    hosts.stop_target();
    fs::write(mount.join("meanwhile"), "while the target is away").expect("a write");
    hosts.serve();
    hosts.assert_in_sync();
    let target = hosts.status(hosts.on_target());
    assert_eq!(target["target"]["replicas"][0]["data"], "good", "{target}");
    assert_eq!(
        target["target"]["replicas"][0]["connected"]["fingerprint"],
        hosts.status(hosts.on_source())["fingerprint"]
    );
    hosts.stop_source();
    hosts.stop_target();
    tree::assert_same(&hosts.backing(), &hosts.replica());
}

/// Longer than it takes to notice: three heartbeats of 3 s. Applications go on.
fn a_cut_cable_is_made_good(hosts: &Hosts) {
    under_load(&hosts.mount, |rounds| {
        std::thread::sleep(Duration::from_millis(300));
        hosts.cable.cut();
        let before = rounds.load(Relaxed);
        std::thread::sleep(Duration::from_secs(2));
        let during = rounds.load(Relaxed);
        assert!(during > before + 50, "applications stood still: {before} then {during} rounds");
        hosts.wait_for_source("lost", |connection| connection["state"] == "error");
        hosts.cable.mend();
        hosts.wait_for_source("back after a cut", |connection| !connection["link"].is_null());
    });
    hosts.assert_in_sync();
}

/// Kills of the target in the short series; `STANDIN_KILLS` for a longer one, `STANDIN_SEED` for the
/// same moments again.
const KILLS: u64 = 4;

fn killed_at_random_moments(hosts: &mut Hosts) {
    let seed = setting("STANDIN_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    println!("kills: STANDIN_SEED={seed}");
    let mut random = Random::new(seed);
    let mount = hosts.mount.clone();
    let mut resent = 0;
    for kill in 0..setting("STANDIN_KILLS").unwrap_or(KILLS) {
        let [before_kill, before_start] = [800, 300].map(|max| Duration::from_millis(random.below(max)));
        under_load(&mount, |_| {
            std::thread::sleep(before_kill);
            let before = hosts.connected_since();
            hosts.kill_target();
            std::thread::sleep(before_start);
            hosts.serve();
            hosts.wait_until_resumed(before);
        });
        hosts.assert_in_sync();
        // What the network and the target's memory held.
        let under_way = (FEED_BATCH + RECEIVE_WINDOW) as u64 + u64::from(STREAM_WINDOW);
        println!("kill {} after {before_kill:?}, away {before_start:?}", kill + 1);
        resent = assert_sent_again(hosts, resent + under_way);
    }
}

/// Everything was sent once, and no more than this many bytes again; gives how many.
#[track_caller]
fn assert_sent_again(hosts: &Hosts, max: u64) -> u64 {
    let status = hosts.status(hosts.on_source());
    let connection = &status["connections"][0];
    let number = |value: &serde_json::Value| value.as_u64().unwrap_or_else(|| panic!("{status}"));
    let (packets, bytes) = (number(&connection["sent"]["packets"]), number(&connection["sent"]["bytes"]));
    let (resent, resent_bytes) =
        (number(&connection["resent"]["packets"]), number(&connection["resent"]["bytes"]));
    // Numbers start with the daemon.
    assert_eq!(packets, number(&status["last"]) + resent, "{status}");
    println!("{packets} packets of {bytes} B sent, {resent} of {resent_bytes} B again");
    assert_eq!(resent == 0, resent_bytes == 0, "{status}");
    assert!(resent_bytes <= max, "{status}");
    resent_bytes
}

/// As long as a switch takes to start. Applications go on, the stated lag grows with the clock, and
/// the queue drains from where the target stands.
#[test]
fn a_cut_of_half_a_minute_is_made_good_by_resuming() {
    let mut hosts = Hosts::prepare();
    hosts.serve_arguments = vec!["--allow", "device,setuid,security"];
    fill(&hosts.backing());
    hosts.connect();
    let probe = Probe::start(&hosts.mount, &hosts.replica(), 0);
    let (mut during, mut under_way) = (Vec::new(), 0);
    under_paced_load(&hosts.mount, Duration::from_millis(10), |rounds| {
        std::thread::sleep(Duration::from_secs(1));
        let connected = hosts.connected_since();
        probe.check(&hosts, None);
        let cut = now();
        hosts.cable.cut();
        let before = rounds.load(Relaxed);
        while now() < cut + 30.0 {
            during.push(probe.check(&hosts, Some(cut)).seconds);
            std::thread::sleep(Duration::from_millis(700));
        }
        let after = rounds.load(Relaxed);
        assert!(after > before + 1000, "applications stood still: {before} then {after} rounds");
        let connection = hosts.connection();
        assert_eq!(connection["state"], "error", "{connection}");
        let number = |value: &serde_json::Value| value.as_u64().expect("a number");
        under_way = number(&connection["sent"]["packets"]) - number(&connection["applied"]);
        hosts.cable.mend();
        hosts.wait_until_resumed(connected);
    });
    drop(probe);
    let greatest = during.iter().copied().fold(0.0, f64::max);
    println!("{} answers during the cut, lag up to {greatest:.3} s", during.len());
    assert!(during.is_sorted() && greatest > 28.0, "{during:?}");
    hosts.assert_in_sync();
    // The target went on with what it had: only what the network lost was sent again.
    assert_sent_again(&hosts, u64::from(STREAM_WINDOW) + FEED_BATCH as u64);
    let resent = hosts.connection()["resent"]["packets"].as_u64();
    assert!(resent <= Some(under_way), "{resent:?} of {under_way} under way");
    let on_the_cable = hosts.cable.sent_bytes();
    let sent = hosts.connection()["sent"]["bytes"].as_u64().expect("a number");
    println!("{on_the_cable} B on the cable");
    assert!(on_the_cable < sent * 5 / 4 + 200_000, "{on_the_cable} B on the cable for {sent}");
}

#[test]
fn either_side_and_both_may_be_restarted() {
    let _heavy = host::heavy();
    let mut hosts = Hosts::prepare();
    fs::write(hosts.backing().join("large"), vec![7; 8 << 20]).expect("a file");
    hosts.connect();
    let mount = hosts.mount.clone();
    under_load(&mount, |_| {
        std::thread::sleep(Duration::from_millis(300));
        let before = hosts.connected_since();
        hosts.stop_target();
        std::thread::sleep(Duration::from_millis(500));
        hosts.serve();
        hosts.wait_until_resumed(before);
    });
    hosts.assert_in_sync();
    // No wait: the stop drains.
    under_load(&mount, |_| std::thread::sleep(Duration::from_millis(300)));
    hosts.stop_source();
    tree::assert_same(&hosts.backing(), &hosts.replica());
    fs::write(hosts.backing().join("unprotected"), "x").expect("a write");
    hosts.protect();
    assert_little_was_sent(&hosts);
    hosts.stop_source();
    hosts.stop_target();
    hosts.serve();
    hosts.protect();
    assert_little_was_sent(&hosts);
    for both in [false, true] {
        until_killed(&mount, |_| {
            std::thread::sleep(Duration::from_millis(400));
            if both {
                hosts.kill_target();
            }
            std::thread::sleep(Duration::from_millis(300));
            hosts.kill_source();
        });
        if both {
            hosts.serve();
        }
        hosts.protect();
        assert_little_was_sent(&hosts);
    }
    // The target away, the source stopped: its stop cannot drain, and its next start copies.
    under_load(&mount, |_| {
        std::thread::sleep(Duration::from_millis(300));
        hosts.kill_target();
        std::thread::sleep(Duration::from_millis(300));
    });
    hosts.kill_source();
    hosts.serve();
    hosts.protect();
    assert_little_was_sent(&hosts);
}

/// In sync after a start of the source, without sending again what was not in doubt.
#[track_caller]
fn assert_little_was_sent(hosts: &Hosts) {
    hosts.assert_in_sync();
    let connection = hosts.connection();
    let sent = connection["sent"]["bytes"].as_u64().expect("a number");
    println!("{}; {sent} B sent", connection["reason"]);
    assert!(sent < 1 << 20, "the start copied again what was there: {connection}");
}
