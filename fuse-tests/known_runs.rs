//! A failover looks at other targets: what they say is told from what this host has, over restarts, after a person has
//! kept a history, and where both have stood in.

use std::fs;

use serde_json::Value;

use crate::host::{COMMAND_MAX, clear_mounts, describe, dir_on_disk, output_within, require_host};
use crate::pair::kill;
use crate::split_brain::{Three, keep, roles, wait_for};
use crate::stand_in::{Side, fill};

/// `standin failover web` that only looks: its exit code and what it says.
fn look(side: &Side, words: &[&str]) -> (Option<i32>, String) {
    let mut command = side.target_command();
    command.args(["failover", "web", "--dry-run", "--at"]).arg(side.at.join("mount")).args(words);
    let output = output_within(&mut command, COMMAND_MAX);
    (output.status.code(), describe(&output))
}

fn is_good(side: &Side) -> bool {
    let status = output_within(side.target_command().args(["status", "--json"]), COMMAND_MAX);
    let status: Value = serde_json::from_slice(&status.stdout).unwrap_or_default();
    status["target"]["replicas"][0]["data"] == "good"
}

fn die(side: &mut Side) {
    kill(side.protect.as_mut().expect("it runs"));
    side.protect = None;
    clear_mounts(&side.at.join("mount"));
}

/// The source was started anew while one of its targets was away: neither of the two could be told from the other.
#[test]
fn a_target_that_has_missed_a_run_is_behind() {
    require_host();
    let base = dir_on_disk();
    let side = |name| Side::new(base.path(), name);
    let (mut old, mut one, mut other) = (side("old"), side("one"), side("other"));
    fill(&old.tree());
    one.serve(&[]);
    other.serve(&[]);
    old.pair_with(&one);
    old.pair_with(&other);
    one.pair_with(&other);
    other.pair_with(&one);
    let both = [one.address(), other.address()];
    let both = ["--to", &both[0], "--to", &both[1]];
    old.protect(&both);
    old.in_line();
    Side::stop(&mut one.serve);
    Side::stop_as_it_is(&mut old.protect);
    for number in 0..2 {
        old.protect(&both);
        let name = format!("in a later run {number}");
        fs::write(old.mount(&name), "only the other one has it").expect("a write");
        wait_for("it is there", || old.said(), || other.tree().join(&name).exists() && is_good(&other));
        if number == 0 {
            Side::stop_as_it_is(&mut old.protect);
        }
    }
    die(&mut old);
    one.serve(&[]);
    let (code, said) = look(&other, &["--to", &one.address()]);
    assert_eq!(code, Some(0), "it has everything: {said}");
    let (code, said) = look(&one, &["--to", &other.address()]);
    assert!(code == Some(2) && said.contains("Serve that one instead"), "{said}");
}

/// Each host said that the other one is to be served, and neither knew of a split brain.
#[test]
fn two_that_have_stood_in_find_out_by_a_look() {
    let mut three = Three::parted();
    let Three { one, other, .. } = &mut three;
    one.pair_with(other);
    Side::stop(&mut one.protect);
    assert!(roles(one).1["split_brain"].is_null());
    let (code, said) = look(one, &["--to", &other.address()]);
    assert!(code == Some(2) && said.contains("Split brain") && said.contains("roles keep"), "{said}");
    let (code, shown) = roles(one);
    assert!(code == Some(2) && shown["split_brain"]["met"] == other.address().as_str(), "{shown}");
    let (code, said) = keep(one, &["--yes"]);
    assert!(code == Some(0) && said.contains("epoch 3"), "{said}");
    assert_eq!(roles(one).1["split_brain"], Value::Null);
}

/// It was said of the kept host's own target that it may be further: all that it has came from that host.
#[test]
fn what_follows_a_kept_host_has_no_more_than_it() {
    let mut three = Three::parted();
    let mut third = Side::new(three.base.path(), "third");
    let Three { one, other, .. } = &mut three;
    third.serve(&[]);
    one.pair_with(&third);
    Side::stop(&mut one.protect);
    for round in 0..2 {
        one.protect(&["--to", &third.address()]);
        fs::write(one.mount("written in a run"), round.to_string()).expect("a write");
        one.in_line();
        Side::stop(&mut one.protect);
    }
    let (code, said) = look(one, &["--to", &third.address()]);
    assert_eq!(code, Some(0), "before: {said}");
    one.pair_with(other);
    let (code, said) = look(one, &["--to", &other.address()]);
    assert!(code == Some(2) && said.contains("Split brain"), "{said}");
    let (code, said) = keep(one, &["--yes"]);
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = look(one, &["--to", &third.address()]);
    assert_eq!(code, Some(0), "after: {said}");
    one.protect(&["--to", &third.address()]);
    one.in_line();
    crate::tree::assert_same(&one.tree(), &third.tree());
}
