//! Who may send what: tokens, strangers, twins, revocation.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use super::load::fill;
use super::{Hosts, REPSET};
use crate::host::{COMMAND_MAX, SYNC_MAX, describe, output_within, run};

#[track_caller]
fn refuses(output: &Output, word: &str) {
    let said = describe(output);
    assert!(!output.status.success() && said.contains(word), "no '{word}' in:\n{said}");
}

#[test]
fn tokens_that_are_wrong_used_or_expired_pair_nobody() {
    let mut hosts = Hosts::prepare();
    hosts.serve();
    let not_paired = output_within(&mut hosts.protect_command(), COMMAND_MAX);
    refuses(&not_paired, "is not paired with");
    refuses(&not_paired, "standin invite web");
    let short_lived = hosts.invite(&["--expires", "1s"]);
    let token = hosts.invite(&[]);
    refuses(&hosts.pair_as("source-state", "standin://192.0.2.2:7447/other", &token), "is for the set 'web'");
    refuses(&hosts.pair_as("target-state", REPSET, &token), "would be paired with itself");
    let mut slip = token.clone();
    slip[60] = if slip[60] == b'0' { b'1' } else { b'0' };
    refuses(&hosts.pair_as("source-state", REPSET, &slip), "mistyped");
    let paired = hosts.pair_as("source-state", REPSET, &token);
    assert!(paired.status.success(), "{}", describe(&paired));
    // The same host may come again, another one may not.
    assert!(hosts.pair_as("source-state", REPSET, &token).status.success());
    refuses(&hosts.pair_as("stranger-state", REPSET, &token), "used by another host");
    std::thread::sleep(Duration::from_millis(1100));
    refuses(&hosts.pair_as("stranger-state", REPSET, &short_lived), "expired");
    assert!(!hosts.at("stranger-state/targets.json").exists());
    let said = hosts.target_said();
    for word in ["refused to pair key", "used by another host", "the token has expired", "may send 'web'"] {
        assert!(said.contains(word), "no '{word}' in:\n{said}");
    }
    // Of another target: its key is not the one that the token names.
    hosts.stop_target();
    refuses(&hosts.pair_as("source-state", REPSET, &token), "nobody listens at 192.0.2.2:7447");
    fs::remove_file(hosts.at("target-state/identity.key")).expect("the target's key");
    hosts.serve();
    refuses(&hosts.pair_as("source-state", REPSET, &token), "but the token names");
}

#[test]
fn only_what_is_paired_is_taken_and_revoking_cuts() {
    let mut hosts = Hosts::prepare();
    fill(&hosts.backing());
    hosts.serve();
    hosts.pair();
    // Who knows where the target is and what key it has is still a stranger.
    fs::create_dir(hosts.at("stranger-state")).expect("a directory");
    fs::copy(hosts.at("source-state/targets.json"), hosts.at("stranger-state/targets.json")).expect("a copy");
    let other = hosts.at("other");
    fs::create_dir(&other).expect("a directory");
    let stranger = hosts.standin(&hosts.cable.source, "stranger-run", "stranger-state");
    refuses(&protect(stranger, &other, REPSET), "does not know this host's key");
    // Nor may a paired host send another set, or another directory as this set.
    let forged = fs::read_to_string(hosts.at("source-state/targets.json")).expect("targets");
    let forged = forged.replace("7447/web", "7447/else");
    fs::create_dir(hosts.at("forged-state")).expect("a directory");
    fs::copy(hosts.at("source-state/identity.key"), hosts.at("forged-state/identity.key")).expect("a copy");
    fs::write(hosts.at("forged-state/targets.json"), forged).expect("targets");
    let forger = hosts.standin(&hosts.cable.source, "forged-run", "forged-state");
    refuses(&protect(forger, &other, "standin://192.0.2.2:7447/else"), "may not send the set 'else'");
    hosts.protect();
    hosts.stop_source();
    refuses(&protect(hosts.on_source(), &other, REPSET), "is the replica of another source's set");
    let said = hosts.target_said();
    for word in ["is not paired with this host", "may not send the set 'else'", "another source's set"] {
        assert!(said.contains(word), "no '{word}' in:\n{said}");
    }
    hosts.protect();
    a_twin_is_kept_out(&hosts);
    revoked_and_paired_again(&hosts);
    hosts.stop_source();
}

/// A copy of the source's host, with the same set and a pairing of its own: not both at a time. Its directory
/// is marked as by a version that did not note the place of it, and so does not say that it is a copy.
fn a_twin_is_kept_out(hosts: &Hosts) {
    let twin = hosts.at("twin");
    fs::create_dir(&twin).expect("a directory");
    let mut mark = [0; 1024];
    rustix::fs::getxattr(hosts.backing(), "trusted.standin.set", &mut mark).expect("the set's id");
    rustix::fs::setxattr(&twin, "trusted.standin.set", &mark[..32], rustix::fs::XattrFlags::empty())
        .expect("an xattr");
    let paired = hosts.pair_as("twin-state", REPSET, &hosts.invite(&[]));
    assert!(paired.status.success(), "{}", describe(&paired));
    let command = hosts.standin(&hosts.cable.source, "twin-run", "twin-state");
    refuses(&protect(command, &twin, REPSET), "another source (key");
    assert!(hosts.target_said().contains("is connected to 'web'"), "{}", hosts.target_said());
    hosts.assert_goes_on();
}

fn revoked_and_paired_again(hosts: &Hosts) {
    let key = hosts.status(hosts.on_source())["fingerprint"].as_str().expect("a key").to_owned();
    let listed = run(hosts.on_target().args(["peers", "list"]));
    assert!(String::from_utf8_lossy(&listed.stdout).contains(&key), "{}", describe(&listed));
    run(hosts.on_target().args(["peers", "revoke", &key[..12], "web"]));
    let unknown = "does not know this host's key";
    hosts.wait_for_source("refused", |connection| {
        connection["reason"].as_str().is_some_and(|reason| reason.contains(unknown))
    });
    assert!(hosts.target_said().contains("the pairing was revoked"), "{}", hosts.target_said());
    let before = fs::read_dir(hosts.replica()).expect("the replica").count();
    fs::write(hosts.mount.join("after the revocation"), "x").expect("applications go on");
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(fs::read_dir(hosts.replica()).expect("the replica").count(), before);
    // A new token, and the running source goes on where it was.
    hosts.pair();
    hosts.wait_for_source("back", |connection| !connection["link"].is_null());
    let output = output_within(hosts.on_source().args(["wait-sync", "--timeout", "60s"]), SYNC_MAX);
    assert!(output.status.success(), "{}", describe(&output));
    assert!(hosts.replica().join("after the revocation").exists());
    // Without --allow: placeholder and mode, counted, never an error.
    assert!(fs::symlink_metadata(hosts.replica().join("null")).expect("a placeholder").is_file());
    let withheld = &hosts.status(hosts.on_target())["target"]["replicas"][0]["withheld"];
    assert!(
        withheld["devices"].as_u64() > Some(0) && withheld["setuid_bits"].as_u64() > Some(0),
        "{withheld}"
    );
}

fn protect(mut command: Command, dir: &Path, target: &str) -> Output {
    output_within(command.arg("protect").arg(dir).args(["--to", target]), COMMAND_MAX)
}
