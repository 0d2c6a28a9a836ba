//! Bad networks: whatever happens to datagrams, the two sides become equal, and the status states
//! the true lag meanwhile.

use std::time::{Duration, Instant};

use super::Hosts;
use super::lag::{Probe, Stated};
use super::load::under_paced_load;
use super::proxy::{Proxy, Way, Weather};

/// Two hosts that are in sync, with a proxy between them.
fn connected() -> (Hosts, Proxy) {
    let mut hosts = Hosts::prepare();
    let proxy = hosts.through_proxy();
    hosts.serve();
    hosts.pair();
    hosts.protect();
    (hosts, proxy)
}

/// Compares stated and true lag again and again for this long.
#[track_caller]
fn watch(hosts: &Hosts, probe: &Probe, how_long: Duration) -> Vec<Stated> {
    let until = Instant::now() + how_long;
    let mut stated = Vec::new();
    while Instant::now() < until {
        stated.push(probe.check(hosts, None));
        std::thread::sleep(Duration::from_millis(50));
    }
    stated
}

/// In words, for the reader of the test.
fn summary(stated: &[Stated]) -> String {
    let mut slacks: Vec<f64> = stated.iter().map(|stated| stated.slack).collect();
    slacks.sort_by(f64::total_cmp);
    let slack = slacks.get(slacks.len() / 2).copied().unwrap_or_default();
    format!("{} answers, lag up to {:.3} s, known to {slack:.3} s", stated.len(), greatest(stated))
}

fn greatest(stated: &[Stated]) -> f64 {
    stated.iter().map(|stated| stated.seconds).fold(0.0, f64::max)
}

#[test]
fn loss_repetition_disorder_and_damage_change_nothing() {
    let (hosts, proxy) = connected();
    let lossy = |loss| Weather { loss, ..Weather::default() };
    let mad = Weather { duplication: 100, reordering: 100, corruption: 20, ..Weather::default() };
    let far = Weather { loss: 10, delay: Duration::from_millis(25), ..Weather::default() };
    let connected = hosts.connected_since();
    // Milliseconds between two rounds of a writer: loss makes a long path slow.
    let weathers =
        [("1 % lost", lossy(10), 1), ("10 % lost", lossy(100), 1), ("mad", mad, 1), ("far", far, 20)];
    for (name, weather, pause) in weathers {
        let mut probe = Probe::start(&hosts.mount, &hosts.replica(), 0);
        // A lost acknowledgement is sent again after some round trips, twice as long each time.
        probe.known_after = Duration::from_millis(1000);
        let before = [Way::ToTarget, Way::ToSource].map(|way| proxy.counts(way));
        proxy.set(weather);
        let mut stated = Vec::new();
        let rounds = under_paced_load(&hosts.mount, Duration::from_millis(pause), |_| {
            std::thread::sleep(probe.known_after);
            stated = watch(&hosts, &probe, Duration::from_millis(2000));
        });
        drop(probe);
        let seen = hosts.assert_in_sync();
        proxy.set(Weather::default());
        println!("{name}: {rounds} rounds, {seen:?}, {}", summary(&stated));
        for (way, before) in [Way::ToTarget, Way::ToSource].into_iter().zip(before) {
            let counts = proxy.counts(way);
            println!("  {way:?}: {counts:?}");
            let met = [
                (weather.loss, counts.lost - before.lost),
                (weather.duplication, counts.duplicated - before.duplicated),
                (weather.reordering, counts.reordered - before.reordered),
                (weather.corruption, counts.corrupted - before.corrupted),
            ];
            let datagrams = counts.passed - before.passed;
            for (chance, happened) in met {
                // Of 12 that are due, fewer than 3 come once in 2,000 runs; of fewer, none at times.
                let can_tell = chance * datagrams >= 12 * 1000;
                let is_fine = happened * 4000 < chance * datagrams;
                assert!(!(can_tell && is_fine), "{name} {way:?}: too fine: {counts:?}");
            }
        }
    }
    assert_eq!(hosts.connected_since(), connected, "{}", hosts.said());
}

/// More is written than the line carries: the lag grows, and shrinks when writing ends.
#[test]
fn on_a_slow_line_the_stated_lag_is_the_true_one() {
    let (hosts, proxy) = connected();
    let probe = Probe::start(&hosts.mount, &hosts.replica(), 0);
    proxy.set(Weather { rate: Some(125_000), ..Weather::default() });
    let mut stated = Vec::new();
    let connected = hosts.connected_since();
    under_paced_load(&hosts.mount, Duration::from_millis(15), |_| {
        stated = watch(&hosts, &probe, Duration::from_secs(8));
    });
    let grown = greatest(&stated);
    println!("while writing: {}", summary(&stated));
    assert!(grown > 3.0, "no backlog grew: {stated:?}");
    let after = watch(&hosts, &probe, Duration::from_secs(3));
    proxy.set(Weather::default());
    let caught_up = Instant::now();
    hosts.wait_for_source("caught up", |connection| {
        connection["lag_applied"]["seconds"].as_f64().is_some_and(|lag| lag < 0.5)
    });
    println!("then {}; caught up in {:?}", summary(&after), caught_up.elapsed());
    // Heartbeats have to pass the full line too.
    assert_eq!(hosts.connected_since(), connected, "{}", hosts.said());
    watch(&hosts, &probe, Duration::from_secs(1));
    drop(probe);
    hosts.assert_in_sync();
}

/// Nobody else writes: idle is nothing, and what is on the disk of the target has its true age.
#[test]
fn the_durable_lag_is_the_true_one() {
    let (hosts, _proxy) = connected();
    let probe = Probe::start(&hosts.mount, &hosts.replica(), 0);
    let base = probe.base(&hosts);
    let until = Instant::now() + Duration::from_secs(5);
    let mut stated = Vec::new();
    while Instant::now() < until {
        stated.push(probe.check_durable(&hosts, base));
        probe.check(&hosts, None);
        std::thread::sleep(Duration::from_millis(30));
    }
    let greatest = stated.iter().copied().fold(0.0, f64::max);
    println!("{} comparisons, durable lag up to {greatest:.3} s", stated.len());
    // A durable point every two seconds; a record each 20 ms.
    assert!(greatest > 1.0, "{stated:?}");
    probe.base(&hosts);
}

/// The same by the kernel's own means.
#[cfg(feature = "suites")]
mod suites {
    use std::process::Command;

    use super::*;
    use crate::host::{require_program, run};

    fn direct() -> Hosts {
        let mut hosts = Hosts::prepare();
        hosts.connect();
        hosts
    }

    fn at(end: &str, program: &str, arguments: &str) {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{end}")).arg(require_program(program));
        run(command.args(arguments.split(' ')));
    }

    #[test]
    fn datagrams_that_the_kernel_drops_are_sent_again() {
        let hosts = direct();
        for percent in [1, 10] {
            for end in [&hosts.cable.source, &hosts.cable.target] {
                at(end, "nft", "add table inet bad");
                at(end, "nft", "add chain inet bad in { type filter hook input priority 0 ; }");
                let rule = format!("meta l4proto udp numgen random mod 100 < {percent} counter drop");
                at(end, "nft", &format!("add rule inet bad in {rule}"));
            }
            let mut probe = Probe::start(&hosts.mount, &hosts.replica(), 0);
            probe.known_after = Duration::from_millis(1000);
            let mut stated = Vec::new();
            under_paced_load(&hosts.mount, Duration::from_millis(1), |_| {
                std::thread::sleep(probe.known_after);
                stated = watch(&hosts, &probe, Duration::from_secs(4));
            });
            drop(probe);
            let seen = hosts.assert_in_sync();
            println!("{percent} % dropped: {seen:?}, {}", summary(&stated));
            let lost = hosts.connection()["link"]["udp_lost_packets"].as_u64();
            assert!(lost > Some(10), "{lost:?}");
            for end in [&hosts.cable.source, &hosts.cable.target] {
                at(end, "nft", "delete table inet bad");
            }
        }
    }

    #[test]
    fn one_megabit_a_second_carries_what_it_can() {
        let hosts = direct();
        let probe = Probe::start(&hosts.mount, &hosts.replica(), 0);
        let slow = "qdisc add dev cable root tbf rate 1mbit burst 32kbit latency 400ms";
        at(&hosts.cable.source, "tc", slow);
        let mut stated = Vec::new();
        under_paced_load(&hosts.mount, Duration::from_millis(15), |_| {
            stated = watch(&hosts, &probe, Duration::from_secs(20));
        });
        println!("while writing: {}", summary(&stated));
        assert!(greatest(&stated) > 8.0, "no backlog grew: {stated:?}");
        probe.pause(true);
        while probe.check(&hosts, None).seconds > 0.0 {
            std::thread::sleep(Duration::from_millis(200));
        }
        drop(probe);
        hosts.assert_in_sync();
        assert_eq!(hosts.connection()["state"], "started");
    }
}
