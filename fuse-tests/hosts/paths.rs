//! Paths between the hosts: datagram sizes, address families, names, addresses that change.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use super::Hosts;
use super::cable::ip;
use super::lag::Probe;
use super::load::under_stream;

/// Below it the target is up to date, seconds.
const CAUGHT_UP: f64 = 0.5;

/// Waits until the lag is small again; gives how long that took.
#[track_caller]
fn caught_up(hosts: &Hosts) -> Duration {
    let since = Instant::now();
    hosts.wait_for_source("caught up", |connection| {
        connection["lag_applied"]["seconds"].as_f64().is_some_and(|lag| lag < CAUGHT_UP)
    });
    since.elapsed()
}

/// A path that swallows long datagrams without a word, then a host that cannot send them itself:
/// each could stall a connection for ever, because heartbeats are short.
#[test]
fn datagrams_grow_and_shrink_with_the_path() {
    let mut hosts = Hosts::prepare();
    let ends = [hosts.cable.target.clone(), hosts.cable.source.clone()];
    // Batches are cut into datagrams before the cable, as before a real one.
    ends.iter().for_each(|end| ip(&["-n", end, "link", "set", "cable", "gso_max_segs", "1"]));
    ends.iter().for_each(|end| hosts.cable.set_mtu(end, 9000));
    hosts.connect();
    for (end, mtu) in ends.iter().zip([1400, 1280]) {
        ends.iter().for_each(|end| hosts.cable.set_mtu(end, 9000));
        hosts.stop_target();
        hosts.serve();
        let probe = Probe::start(&hosts.mount, &hosts.replica(), 0);
        under_stream(&hosts.mount, |_| {
            wait_for_datagrams(&hosts, "long", |len| len > 8000);
            let (connected, shrunk) = (hosts.connected_since(), Instant::now());
            hosts.cable.set_mtu(end, mtu);
            wait_for_datagrams(&hosts, "short", |len| len <= mtu);
            caught_up(&hosts);
            let (took, same) = (shrunk.elapsed(), hosts.connected_since() == connected);
            println!("{mtu}: caught up after {took:?}, same connection: {same}");
            probe.check(&hosts, None);
        });
        drop(probe);
        hosts.assert_in_sync();
    }
}

#[track_caller]
fn wait_for_datagrams(hosts: &Hosts, what: &str, are_so: impl Fn(u32) -> bool) {
    hosts.wait_for_source(what, |connection| {
        connection["link"]["udp_payload_max"].as_u64().is_some_and(|len| are_so(len as u32))
    });
}

#[test]
fn the_smallest_path_of_ipv6_carries_it() {
    let mut hosts = Hosts::prepare();
    for (end, address) in [(&hosts.cable.source, "fd00::1/64"), (&hosts.cable.target, "fd00::2/64")] {
        hosts.cable.set_mtu(end, 1280);
        ip(&["-n", end, "address", "add", address, "dev", "cable", "nodad"]);
    }
    hosts.repset = "standin://[fd00::2]:7447/web".into();
    hosts.connect();
    under_stream(&hosts.mount, |_| std::thread::sleep(Duration::from_secs(1)));
    hosts.assert_in_sync();
    wait_for_datagrams(&hosts, "as short as the path", |len| (1200..=1280 - 48).contains(&len));
}

/// A name from `/etc/hosts`: first of an address where nobody answers, then the right one.
#[test]
fn a_target_has_a_name_with_several_addresses() {
    let mut hosts = Hosts::prepare();
    let names = hosts.at("hosts");
    let right = "192.0.2.2 target.example\n";
    fs::write(&names, right).expect("a file");
    hosts.repset = "standin://target.example:7447/web".into();
    hosts.names = Some(names.clone());
    hosts.serve();
    hosts.pair();
    fs::write(&names, format!("192.0.2.3 target.example\n{right}")).expect("a file");
    hosts.protect();
    // Its mount is seen by processes of its own mount namespace alone.
    let root = format!("/proc/{}/root", hosts.source.as_ref().expect("it runs").pid());
    hosts.mount = Path::new(&root).join(hosts.mount.strip_prefix("/").expect("absolute"));
    fs::write(hosts.mount.join("new"), "x").expect("a write");
    assert!(hosts.assert_in_sync().objects > 0);
}

/// The address that the source sends from is replaced while it sends: the connection moves along,
/// or a new one resumes.
#[test]
fn the_source_moves_to_another_address() {
    let mut hosts = Hosts::prepare();
    hosts.connect();
    let probe = Probe::start(&hosts.mount, &hosts.replica(), 0);
    under_stream(&hosts.mount, |_| {
        for (old, new) in [("192.0.2.1/24", "192.0.2.7/24"), ("192.0.2.7/24", "192.0.2.1/24")] {
            let before = hosts.connected_since();
            ip(&["-n", &hosts.cable.source, "address", "delete", old, "dev", "cable"]);
            ip(&["-n", &hosts.cable.source, "address", "add", new, "dev", "cable"]);
            std::thread::sleep(Duration::from_secs(1));
            let took = caught_up(&hosts);
            let same = hosts.connected_since() == before;
            println!("{new}: caught up after {took:?}, same connection: {same}");
        }
        probe.check(&hosts, None);
    });
    drop(probe);
    hosts.assert_in_sync();
}
