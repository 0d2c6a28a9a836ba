//! How fast a connection sends: never faster than it may, by the counters of the network itself.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::Hosts;
use super::load::{fill, under_stream};
use crate::host::{COMMAND_MAX, describe, heavy, output_within};

/// `standin …` on the source, which must succeed; what it said.
#[track_caller]
fn told(hosts: &Hosts, arguments: &[&str]) -> String {
    let output = output_within(hosts.on_source().args(arguments), COMMAND_MAX);
    assert!(output.status.success(), "{arguments:?}: {}", describe(&output));
    describe(&output)
}

/// What had been sent at some moment between the two.
struct Seen {
    from: Instant,
    to: Instant,
    bytes: u64,
}

/// Looks at the counter of the cable for so long.
fn watch(hosts: &Hosts, long: Duration) -> Vec<Seen> {
    let (began, mut seen) = (Instant::now(), Vec::new());
    while began.elapsed() < long {
        let from = Instant::now();
        let bytes = hosts.cable.sent_bytes();
        seen.push(Seen { from, to: Instant::now(), bytes });
        std::thread::sleep(Duration::from_millis(20));
    }
    seen
}

/// The most that was certainly sent within a second, and the mean of a second.
fn most_and_mean(seen: &[Seen]) -> (u64, u64) {
    let within = |first: &Seen| {
        let upto = first.from + Duration::from_secs(1);
        let last = seen.iter().take_while(|look| look.to <= upto).last();
        last.map_or(0, |last| last.bytes.saturating_sub(first.bytes))
    };
    let (first, last) = (seen.first().expect("a look"), seen.last().expect("a look"));
    let time = last.to.duration_since(first.from).as_secs_f64();
    let most = seen.iter().map(within).max().unwrap_or(0);
    (most, ((last.bytes - first.bytes) as f64 / time) as u64)
}

#[test]
fn no_second_passes_the_limit() {
    let _alone = heavy();
    let mut hosts = Hosts::prepare();
    fill(&hosts.backing());
    fs::write(
        hosts.backing().join("large"),
        (0..8 << 20).map(|i: u64| ((i * i) >> 8) as u8).collect::<Vec<u8>>(),
    )
    .expect("a file");
    hosts.serve_arguments = vec!["--allow", "device,setuid"];
    hosts.serve();
    hosts.pair();
    hosts.protect_with(&["--queue-memory", "256M", "--limit", "none"]);
    let mut since = None;
    under_stream(&hosts.mount.clone(), |_| {
        told(&hosts, &["mirror", "start", "--mode", "full"]);
        for (typed, rate) in [("8Mbit", 1_000_000), ("1Mbit", 125_000), ("24Mbit", 3_000_000)] {
            let said = told(&hosts, &["connection", "limit", typed]);
            assert!(said.contains("set by hand"), "{said}");
            // What was on its way is over, and the copy has its own network connection.
            std::thread::sleep(Duration::from_millis(1200));
            since = since.or_else(|| hosts.connected_since());
            let (most, mean) = most_and_mean(&watch(&hosts, Duration::from_secs(8)));
            println!("{typed}: {most} in a second at most, {mean} in the mean, of {rate}");
            assert!(most <= rate, "{most} bytes within a second of {rate}");
            // It sends, if not how well.
            assert!(mean > rate / 4, "{mean} bytes a second of {rate}");
        }
    });
    assert_eq!(hosts.connected_since(), since, "the link was lost");
    told(&hosts, &["connection", "limit", "off"]);
    crate::host::wait_in_line(|| hosts.on_source(), || hosts.said());
    assert!(hosts.assert_in_sync().objects > 50);
}

#[test]
fn a_limit_that_is_too_low_is_said() {
    let mut hosts = Hosts::prepare();
    hosts.serve();
    hosts.pair();
    hosts.protect_with(&["--limit", "64K"]);
    under_stream(&hosts.mount.clone(), |_| {
        let grows = |connection: &Value| connection["limit"]["queue_grows"].as_u64() > Some(1 << 20);
        hosts.wait_for_source("behind by the limit", grows);
        let output = output_within(hosts.on_source().arg("status"), COMMAND_MAX);
        for part in ["its limit of 64 KiB a second is below what is written", "is full in"] {
            assert!(describe(&output).contains(part), "{}", describe(&output));
        }
        let shown = told(&hosts, &["connection", "limit", "--json"]);
        assert!(shown.contains("\"queue_grows\""), "{shown}");
    });
    let said = told(&hosts, &["connection", "limit", "daily 00:00-12:00 8M, daily 12:00-24:00 9M"]);
    assert!(said.contains("a second; from "), "{said}");
    let wrong = output_within(hosts.on_source().args(["connection", "limit", "1K"]), COMMAND_MAX);
    assert!(describe(&wrong).contains("too little"), "{}", describe(&wrong));
    assert!(hosts.assert_in_sync().objects > 1);
    // It is kept over a restart, and goes before what was typed.
    hosts.stop_source();
    hosts.protect_with(&["--limit", "64K"]);
    let limit: &Value = &hosts.connection()["limit"];
    assert_eq!((&limit["from"], &limit["on"]), (&Value::from("command"), &Value::from(true)), "{limit}");
    assert!(told(&hosts, &["connection", "limit", "clear"]).contains("64K"));
}
