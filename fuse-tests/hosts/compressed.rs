//! What goes over a network is compressed, as it is told, while it runs.

use std::fs;

use serde_json::Value;

use super::Hosts;
use crate::host::{COMMAND_MAX, describe, output_within};

/// `standin …` on the source, which must succeed; what it said.
#[track_caller]
fn told(hosts: &Hosts, arguments: &[&str]) -> String {
    let output = output_within(hosts.on_source().args(arguments), COMMAND_MAX);
    assert!(output.status.success(), "{arguments:?}: {}", describe(&output));
    describe(&output)
}

fn shown(hosts: &Hosts) -> Value {
    let output =
        output_within(hosts.on_source().args(["connection", "compression", "show", "--json"]), COMMAND_MAX);
    let shown: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    shown["connections"][0]["compression"].clone()
}

fn text(lines: usize) -> String {
    (0..lines).map(|line| format!("line {line} of a file that says the same again and again\n")).collect()
}

/// A copy, what is written afterwards, a level that changes, a restart: the replica is what it would be, and less goes
/// over the cable.
#[test]
fn less_goes_over_the_cable() {
    let mut hosts = Hosts::prepare();
    fs::write(hosts.backing().join("before"), text(100_000)).expect("a file");
    hosts.serve_arguments = vec!["--allow", "device,setuid"];
    hosts.serve();
    hosts.pair();
    hosts.protect_with(&["--compression", "1"]);
    hosts.assert_in_sync();
    let content = fs::metadata(hosts.backing().join("before")).expect("a file").len();
    let sent = hosts.cable.sent_bytes();
    assert!(sent < content / 2, "{sent} bytes for {content}");
    let of = shown(&hosts);
    assert_eq!((&of["level"], &of["from"], &of["taken"]), (&1.into(), &"option".into(), &true.into()), "{of}");
    assert!(of["wire_bytes"].as_u64() < of["payload_bytes"].as_u64().map(|bytes| bytes / 2), "{of}");

    for level in ["0", "2", "3", "1"] {
        let said = told(&hosts, &["connection", "compression", level]);
        assert!(said.contains(&format!("level     {level}")), "{said}");
        fs::write(hosts.mount.join(format!("at {level}")), text(20_000)).expect("a file");
        fs::write(hosts.mount.join(format!("short {level}")), "short").expect("a file");
        hosts.assert_in_sync();
    }
    let before = shown(&hosts);
    assert!(told(&hosts, &["connection", "compression", "off"]).contains("switched off"));
    fs::write(hosts.mount.join("plain"), text(20_000)).expect("a file");
    hosts.assert_in_sync();
    let after = shown(&hosts);
    assert_eq!((&after["payload_bytes"], &after["on"]), (&before["payload_bytes"], &false.into()));
    told(&hosts, &["connection", "compression", "3"]);
    hosts.stop_source();
    hosts.protect_with(&[]);
    let of = shown(&hosts);
    assert_eq!((&of["level"], &of["from"]), (&3.into(), &"command".into()), "{of}");
    fs::write(hosts.mount.join("again"), text(20_000)).expect("a file");
    hosts.assert_in_sync();
    let status = told(&hosts, &["status"]);
    assert!(status.contains("compression 3 (zstd 3, set by hand)"), "{status}");

    let bad = output_within(hosts.on_source().args(["connection", "compression", "9"]), COMMAND_MAX);
    assert!(!bad.status.success() && describe(&bad).contains("no level of compression"), "{}", describe(&bad));
    hosts.stop_source();
}
