//! `standin orphans`: what copies have moved aside is listed with what a person wants to know, and removed.

use std::fs;
use std::process::Output;

use serde_json::Value;

use crate::host::{COMMAND_MAX, Protected, Setup, describe, output_within, standin};

fn orphans(protected: &Protected, arguments: &[&str]) -> Output {
    output_within(standin(&protected.run).arg("orphans").args(arguments), COMMAND_MAX)
}

/// The only replica, as JSON.
#[track_caller]
fn told(protected: &Protected, arguments: &[&str]) -> Value {
    let output = orphans(protected, &[arguments, &["--json"]].concat());
    assert!(output.status.success(), "{arguments:?}: {}", describe(&output));
    let mut answer: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(answer["replicas"].as_array().map(Vec::len), Some(1), "{answer}");
    answer["replicas"][0].take()
}

#[track_caller]
fn refused(protected: &Protected, arguments: &[&str], words: &str) {
    let output = orphans(protected, arguments);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", describe(&output));
    assert!(describe(&output).contains(words), "no '{words}' in: {}", describe(&output));
}

#[test]
fn orphans_are_listed_and_removed() {
    let mut protected = Protected::prepare(Setup::default());
    fs::create_dir_all(protected.backing.join("dir/sub")).expect("a directory");
    for name in ["one", "two", "dir/three", "dir/sub/four"] {
        fs::write(protected.backing.join(name), vec![7; 20_000]).expect("a file");
    }
    protected.start_again();
    protected.stop();
    refused(&protected, &["list"], "No daemon that holds replicas is running");
    fs::remove_file(protected.backing.join("one")).expect("one");
    fs::remove_dir_all(protected.backing.join("dir/sub")).expect("a directory");
    protected.start_again();
    let listed = told(&protected, &["list"]);
    assert_eq!((&listed["count"], &listed["objects"]), (&2.into(), &3.into()), "{listed}");
    let found: Vec<_> = listed["orphans"].as_array().into_iter().flatten().collect();
    let paths: Vec<_> = found.iter().map(|orphan| orphan["path"].as_str().unwrap_or_default()).collect();
    assert!(paths.contains(&"one") && paths.contains(&"dir/sub"), "{listed}");
    assert!(found.iter().all(|orphan| orphan["why"] == "the source did not have it"), "{listed}");
    refused(&protected, &["remove"], "--all");
    refused(&protected, &["list", "nowhere"], "holds a replica of nowhere");
    told(&protected, &["remove", "--older-than", "1h"]);
    let path = protected.replica.join("dir");
    let removed = told(&protected, &["remove", "--path", path.to_str().expect("text")]);
    assert_eq!((&removed["removed"]["count"], &removed["removed"]["objects"]), (&1.into(), &2.into()));
    assert!(removed["removed"]["bytes"].as_u64() >= Some(20_000), "{removed}");
    let text = describe(&orphans(&protected, &["remove", "--all"]));
    assert!(text.contains("1 orphans removed") && text.contains("0 orphans are left"), "{text}");
    assert_eq!(told(&protected, &["list"])["count"], 0);
    told(&protected, &["remove", "--waiting"]);
    protected.assert_in_sync();
}
