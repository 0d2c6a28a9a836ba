//! `standin orphans`: what copies have moved aside is listed with what a person wants to know, and removed.

mod odd;

use std::fs;
use std::process::Output;

use serde_json::Value;

use crate::host::{COMMAND_MAX, Disk, Protected, Setup, describe, output_within, standin};

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
    refused(&protected, &["remove", "--path", "dir/other"], "No orphan had such a path");
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

fn connection(protected: &Protected) -> Value {
    let output = output_within(standin(&protected.run).args(["status", "--json"]), COMMAND_MAX);
    let mut status: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    status["connections"][0].take()
}

#[test]
fn kept_orphans_stay_until_a_copy_deletes_them() {
    let mut protected =
        Protected::prepare(Setup { arguments: vec!["--orphans", "keep"], ..Setup::default() });
    fs::create_dir(protected.backing.join("dir")).expect("a directory");
    for name in ["one", "dir/two", "dir/three"] {
        fs::write(protected.backing.join(name), name).expect("a file");
    }
    protected.start_again();
    protected.stop();
    fs::remove_file(protected.backing.join("one")).expect("one");
    fs::remove_file(protected.backing.join("dir/two")).expect("two");
    protected.start_again();
    assert!(protected.replica.join("one").exists() && protected.replica.join("dir/two").exists());
    let counts = &connection(&protected)["orphans"];
    assert_eq!((&counts["kept"], &counts["moved"]), (&2.into(), &0.into()), "{counts}");
    // They give way: a name that is taken, a directory that is not empty.
    fs::write(protected.mount.join("one"), "new").expect("one, anew");
    fs::remove_dir_all(protected.mount.join("dir")).expect("the directory is removed");
    protected.wait_sync();
    protected.assert_in_sync();
    assert_eq!(connection(&protected)["data"], "good");
    assert_eq!(told(&protected, &["list"])["count"], 2);
    protected.stop();
    fs::write(protected.replica.join("stranger"), "x").expect("a stranger");
    protected.start_again();
    let mirror = ["mirror", "start", "--orphans", "delete"];
    let output = output_within(standin(&protected.run).args(mirror), COMMAND_MAX);
    assert!(output.status.success(), "{}", describe(&output));
    protected.wait_in_line();
    let counts = &connection(&protected)["orphans"];
    assert_eq!((&counts["deleted"], &counts["kept"]), (&1.into(), &0.into()), "{counts}");
    protected.assert_in_sync();
    assert_eq!(told(&protected, &["list"])["count"], 2);
}

/// Nothing can be moved out of a mount: what a copy moves aside stays in it, in a place of its own.
#[test]
fn a_replica_may_be_a_mount_point() {
    let replica = Disk::Image { kind: "ext4", mib: 64 };
    let mut protected = Protected::prepare(Setup { replica, ..Setup::default() });
    fs::remove_dir(&protected.replica).expect("an empty directory");
    protected.replica.pop();
    assert!(protected.replica.join("lost+found").exists());
    fs::create_dir_all(protected.backing.join("dir/sub")).expect("a directory");
    for name in ["one", "dir/two", "dir/sub/three"] {
        fs::write(protected.backing.join(name), name).expect("a file");
    }
    protected.start_again();
    fs::rename(protected.mount.join("dir/sub"), protected.mount.join("sub")).expect("a rename");
    fs::write(protected.mount.join("sub/four"), "four").expect("a file");
    protected.wait_sync();
    assert_is_same(&protected);
    protected.kill9();
    fs::remove_file(protected.backing.join("one")).expect("one");
    fs::rename(protected.backing.join("dir/two"), protected.backing.join("sub/two")).expect("two");
    protected.start_again();
    assert_is_same(&protected);
    let listed = told(&protected, &["list"]);
    assert_eq!((&listed["count"], &listed["orphans"][0]["path"]), (&1.into(), &"one".into()), "{listed}");
    assert!(protected.replica.join(".standin.limbo/orphans").is_dir());
    told(&protected, &["remove", "--all"]);
    let mut names: Vec<_> = fs::read_dir(&protected.replica).expect("the replica").map(name_of).collect();
    names.sort();
    assert_eq!(names, [".standin.limbo", "dir", "lost+found", "sub"]);
    protected.stop();
    restores_without_what_is_reserved(&protected);
}

fn name_of(entry: std::io::Result<fs::DirEntry>) -> String {
    entry.expect("an entry").file_name().into_string().expect("text")
}

#[track_caller]
fn assert_is_same(protected: &Protected) {
    let verified = output_within(standin(&protected.run).args(["verify", "--checksum"]), COMMAND_MAX);
    assert!(verified.status.success(), "{}", describe(&verified));
}

fn restores_without_what_is_reserved(protected: &Protected) {
    let to = protected.base.path().join("restored");
    let mut restore = standin(&protected.run);
    restore.arg("--state").arg(&protected.state).arg("restore");
    let mut from = std::ffi::OsString::from("local:");
    from.push(&protected.replica);
    let output = output_within(restore.arg(from).arg("--to").arg(&to).args(["--name", "back"]), COMMAND_MAX);
    assert!(output.status.success(), "{}", describe(&output));
    assert_eq!(fs::read(to.join("sub/four")).expect("a file"), b"four");
    assert!(!to.join(".standin.limbo").exists());
}
