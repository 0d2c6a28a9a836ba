//! `standin address` on both hosts: the address is where the set is served, and never on both.

use std::fs;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::Hosts;
use super::cable::ip;
use crate::host::{COMMAND_MAX, Daemon, STOP_MAX, describe, is_mounted, output_within, run, wait_until};

const OURS: &str = "192.0.2.10";

fn shown(end: &str, what: &[&str]) -> Value {
    let output = run(Command::new("ip").args(["-n", end, "-j"]).args(what));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn has(end: &str, address: &str) -> bool {
    let all = shown(end, &["address", "show", "dev", "cable"]);
    let all = all[0]["addr_info"].as_array().expect("a list");
    all.iter().any(|one| one["local"] == address)
}

fn hardware(end: &str) -> String {
    shown(end, &["link", "show", "dev", "cable"])[0]["address"].as_str().expect("an address").to_owned()
}

/// Who the host at this end takes for the owner.
fn owner(end: &str) -> Option<String> {
    let all = shown(end, &["neigh", "show", OURS, "dev", "cable"]);
    all[0]["lladdr"].as_str().map(str::to_owned)
}

fn holder(mut command: Command, arguments: &[&str]) -> Daemon {
    let mut holder = Daemon::spawn({
        command.arg("address").args(arguments);
        command
    });
    holder.wait_ready();
    holder
}

fn end(mut holder: Daemon) -> String {
    holder.signal(libc::SIGTERM);
    assert!(holder.wait(STOP_MAX).is_some_and(|status| status.success()), "{}", holder.said());
    holder.said()
}

#[test]
fn the_address_goes_with_the_set() {
    let mut hosts = Hosts::prepare();
    hosts.connect();
    let (source, target) = (hosts.cable.source.clone(), hosts.cable.target.clone());
    let address = format!("{OURS}/32@cable");
    let old = holder(hosts.on_source(), &["here", &address, "--grace", "25s"]);
    let new = holder(hosts.on_target(), &["web", &address]);
    wait_until("the source has it", || has(&source, OURS));
    std::thread::sleep(Duration::from_secs(2));
    assert!(!has(&target, OURS), "a replica serves nobody: {}", new.said());
    fs::write(hosts.mount.join("file"), "text").expect("a write");
    let synced = output_within(hosts.on_source().arg("wait-sync"), COMMAND_MAX);
    assert!(synced.status.success(), "{}", describe(&synced));

    // The source dies, and its address answers for as long as nobody takes it away.
    hosts.kill_source();
    let place = hosts.at("stand-in");
    fs::create_dir(&place).expect("a directory");
    let mut failover = hosts.on_target();
    failover.args(["failover", "web", "--yes", "--at"]).arg(&place);
    let mut stand_in = Daemon::spawn(failover);
    stand_in.wait_ready();
    assert!(is_mounted(&place), "{}", stand_in.said());
    let answers = format!("{} answers for it", hardware(&source));
    wait_until("it is somebody's still", || new.said().contains(&answers) || has(&target, OURS));
    wait_until("the dead source's host gives it back", || !has(&source, OURS));
    wait_until("the other one has it", || has(&target, OURS) && new.said().contains("  held"));
    assert!(new.said().contains("not taken"), "{}", new.said());
    wait_until("the other one says why", || old.said().contains("was killed, or does not answer"));

    // A host that knows it as somebody else's hears of it without asking.
    ip(&[
        "-n",
        &source,
        "neigh",
        "replace",
        OURS,
        "lladdr",
        "02:00:00:00:00:99",
        "dev",
        "cable",
        "nud",
        "stale",
    ]);
    wait_until("it is announced again", || owner(&source) == Some(hardware(&target)));

    stand_in.signal(libc::SIGTERM);
    stand_in.wait(STOP_MAX).expect("it ends");
    wait_until("who is stopped has it no more", || !has(&target, OURS));
    assert!(end(new).contains("the protection was stopped"));
    end(old);
    hosts.stop_target();
}

#[test]
fn who_is_ended_gives_it_back_and_who_was_killed_goes_on() {
    let mut hosts = Hosts::prepare();
    hosts.connect();
    let source = hosts.cable.source.clone();
    for (ours, prefix) in [(OURS, 32), ("2001:db8::10", 64)] {
        let address = format!("{ours}/{prefix}@cable");
        let mut killed = holder(hosts.on_source(), &["here", &address]);
        wait_until("it is held", || has(&source, ours) && killed.said().contains("  held"));
        killed.signal(libc::SIGKILL);
        killed.wait(COMMAND_MAX);
        assert!(has(&source, ours));
        let next = holder(hosts.on_source(), &["here", &address]);
        std::thread::sleep(Duration::from_secs(2));
        assert!(has(&source, ours), "{}", next.said());
        ip(&["-n", &source, "address", "delete", &format!("{ours}/{prefix}"), "dev", "cable"]);
        wait_until("what somebody took away is there again", || {
            next.said().contains("lost") && has(&source, ours)
        });
        assert!(end(next).contains("given back"));
        assert!(!has(&source, ours));
    }
    let refused = |arguments: &[&str]| {
        let output = output_within(hosts.on_source().arg("address").args(arguments), COMMAND_MAX);
        assert!(!output.status.success(), "{}", describe(&output));
        describe(&output)
    };
    assert!(refused(&["here", "192.0.2.10/32@nowhere"]).contains("nowhere"));
    assert!(refused(&["here", "192.0.2.10/32"]).contains("names no interface"));
    assert!(refused(&["here", "192.0.2.1/24@cable"]).contains("has 192.0.2.1 already"));
    assert!(has(&source, "192.0.2.1"));
    // Without a carrier nobody can be asked, and with it somebody answers.
    let target = hosts.cable.target.clone();
    ip(&["-n", &target, "address", "add", &format!("{OURS}/32"), "dev", "cable"]);
    hosts.cable.cut();
    let alone = holder(hosts.on_source(), &["here", &format!("{OURS}/32@cable")]);
    wait_until("it is not taken", || alone.said().contains("nobody can be asked"));
    hosts.cable.mend();
    let answers = format!("{} answers for it", hardware(&target));
    wait_until("it is somebody's", || alone.said().contains(&answers));
    assert!(!has(&source, OURS), "{}", alone.said());
    ip(&["-n", &target, "address", "delete", &format!("{OURS}/32"), "dev", "cable"]);
    wait_until("it is held", || has(&source, OURS) && alone.said().contains("  held"));
    // It comes back on another host, as one that was cut off and stood in for.
    ip(&["-n", &target, "address", "add", &format!("{OURS}/32"), "dev", "cable"]);
    wait_until("two have it", || alone.said().contains("two hosts have it"));
    end(alone);
    hosts.stop_source();
    hosts.stop_target();
}
