//! What a pair of hosts makes good: cuts, kills, stops.

use std::fs;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::Hosts;
use super::load::{fill, under_load};
use crate::{host, tree};

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
    for _ in 0..4 {
        under_load(&mount, |_| {
            std::thread::sleep(Duration::from_millis(700));
            let before = hosts.connected_since();
            hosts.kill_target();
            std::thread::sleep(Duration::from_millis(200));
            hosts.serve();
            hosts.wait_for_source("back after a kill", |connection| {
                connection["link"]["connected_unix_ms"].as_u64() > before
            });
        });
        hosts.assert_in_sync();
    }
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
