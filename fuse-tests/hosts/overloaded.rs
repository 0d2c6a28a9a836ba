//! More is written than a target gets, without end: what waits behind that, and what does not.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use serde_json::Value;

use super::Hosts;
use super::load::under_stream;
use crate::host::{SYNC_MAX, describe, heavy, output_within};
use crate::verify::{damage, plant};

/// 6 MB a second are written, and this much goes.
const LIMIT: &str = "2M";

fn queued(hosts: &Hosts) -> u64 {
    hosts.connection()["queued"]["bytes"].as_u64().expect("how much waits")
}

fn limit(hosts: &Hosts, word: &str) {
    let output = output_within(hosts.on_source().args(["connection", "limit", word]), SYNC_MAX);
    assert!(output.status.success(), "{}", describe(&output));
}

/// From a moment at which nothing waits.
fn falls_behind(hosts: &Hosts) {
    limit(hosts, "off");
    hosts
        .wait_for_source("at the front", |connection| connection["queued"]["bytes"].as_u64() < Some(1 << 20));
    limit(hosts, "on");
    hosts.wait_for_source("behind", |connection| connection["queued"]["bytes"].as_u64() > Some(8 << 20));
}

/// Gives the exit code, and how many differences of each kind there were.
fn verify(hosts: &Hosts, arguments: &[&str]) -> (i32, HashMap<String, usize>) {
    let mut command = hosts.on_source();
    let output =
        output_within(command.args(["verify", "--json", "--timeout", "2m"]).args(arguments), SYNC_MAX);
    let mut kinds = HashMap::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let line: Value = serde_json::from_str(line).expect("a line of JSON");
        if let Some(kind) = line["difference"]["kind"].as_str() {
            *kinds.entry(kind.to_owned()).or_default() += 1;
        }
    }
    let code = output.status.code().expect("an exit code");
    assert!(code < 2, "{}{}", describe(&output), hosts.said());
    (code, kinds)
}

/// The damage takes names, and none of it an object: that is seen by the target itself, at any time, and what it
/// sees is copied before it is compared.
fn give_other_names(root: &Path) {
    fs::create_dir(root.join("other")).expect("a directory");
    for (number, taken) in ["many/77", "d5/inner/most/f0"].into_iter().enumerate() {
        fs::hard_link(root.join(taken), root.join(format!("other/{number}"))).expect("a link");
    }
}

/// Each answer waited for all that was queued by then, which was more each time: it never ended.
#[test]
fn a_verification_ends_although_more_is_written_than_goes() {
    let _alone = heavy();
    let mut hosts = Hosts::prepare();
    plant(&hosts.backing());
    give_other_names(&hosts.backing());
    hosts.serve();
    hosts.pair();
    hosts.protect_with(&["--limit", LIMIT, "--queue-memory", "64M"]);
    under_stream(&hosts.mount.clone(), |blocks| {
        for arguments in [&[][..], &["--checksum"]] {
            falls_behind(&hosts);
            let (began, before, written) = (Instant::now(), queued(&hosts), blocks.load(Relaxed));
            let found = verify(&hosts, arguments);
            assert_eq!(found, (0, HashMap::new()), "{arguments:?}");
            let after = queued(&hosts);
            println!("{arguments:?}: {:?}, queued {before} before, {after} after", began.elapsed());
            assert!(blocks.load(Relaxed) > written, "nobody wrote meanwhile");
            assert!(after > before, "the target was not behind any more: {before}, {after}");
        }
        falls_behind(&hosts);
        let expected = damage(&hosts.replica());
        let (code, found) = verify(&hosts, &["--checksum"]);
        assert_eq!(code, 1);
        for (kind, _) in expected {
            assert!(found.contains_key(&kind), "{kind} was not found: {found:?}");
        }
        assert_eq!(found.get("content"), Some(&1), "{found:?}");
    });
    limit(&hosts, "off");
    let repaired = verify(&hosts, &["--checksum", "--repair"]);
    assert_eq!(repaired.0, 0);
    assert!(hosts.assert_in_sync().objects > 1640);
    assert!(fs::metadata(hosts.replica().join("many/77")).is_ok());
}

/// Items of a copy waited for all that was queued when they were looked at: it was longer each time.
#[test]
fn a_copy_ends_although_more_is_written_than_goes() {
    let _alone = heavy();
    let mut hosts = Hosts::prepare();
    plant(&hosts.backing());
    hosts.serve();
    hosts.pair();
    hosts.protect_with(&["--limit", LIMIT, "--queue-memory", "64M"]);
    under_stream(&hosts.mount.clone(), |blocks| {
        falls_behind(&hosts);
        let output = output_within(hosts.on_source().args(["mirror", "start", "--from-scratch"]), SYNC_MAX);
        assert!(output.status.success(), "{}", describe(&output));
        hosts.wait_for_source("bad", |connection| connection["data"] == "bad");
        let (began, before, written) = (Instant::now(), queued(&hosts), blocks.load(Relaxed));
        hosts.wait_for_source("good", |connection| {
            connection["data"] == "good" && connection["mirror"]["phase"] == "complete"
        });
        let after = queued(&hosts);
        println!("{:?}, queued {before} before, {after} after", began.elapsed());
        assert!(blocks.load(Relaxed) > written, "nobody wrote meanwhile");
        assert!(after > before, "the target was not behind any more: {before}, {after}");
    });
    limit(&hosts, "off");
    assert!(hosts.assert_in_sync().objects > 1640);
}
