//! Two targets of one source stand in, each for itself: neither overwrites the other, both say so, and a person
//! names the one to keep.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::host::{COMMAND_MAX, SYNC_MAX, clear_mounts, describe, dir_on_disk, output_within, require_host};
use crate::pair::kill;
use crate::stand_in::{Side, fill};
use crate::tree;

pub struct Three {
    pub old: Side,
    pub one: Side,
    pub other: Side,
    pub base: TempDir,
}

impl Three {
    /// The source has died, and both of its targets have stood in and were written to.
    pub fn parted() -> Three {
        require_host();
        let base = dir_on_disk();
        let side = |name| Side::new(base.path(), name);
        let (mut old, mut one, mut other) = (side("old"), side("one"), side("other"));
        fill(&old.tree());
        one.serve(&[]);
        other.serve(&[]);
        old.pair_with(&one);
        old.pair_with(&other);
        old.protect(&["--to", &one.address(), "--to", &other.address()]);
        old.in_line();
        kill(old.protect.as_mut().expect("it runs"));
        old.protect = None;
        clear_mounts(&old.at.join("mount"));
        for (side, what) in [(&mut one, "of the one"), (&mut other, "of the other")] {
            side.protect(&["--stand-in"]);
            fs::write(side.mount("d/1"), what).expect("a write");
            fs::write(side.mount(what), what).expect("a write");
        }
        Three { old, one, other, base }
    }
}

pub fn wait_for(what: &str, said: impl Fn() -> String, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + SYNC_MAX;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}: not in time\n{}", said());
        std::thread::sleep(Duration::from_millis(50));
    }
}

pub fn roles(side: &Side) -> (Option<i32>, Value) {
    let output = output_within(side.command().args(["roles", "--json"]), COMMAND_MAX);
    let shown: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", describe(&output)));
    (output.status.code(), shown["sets"][0].clone())
}

pub fn keep(side: &Side, words: &[&str]) -> (Option<i32>, String) {
    let output = output_within(side.command().args(["roles", "keep", "web"]).args(words), COMMAND_MAX);
    (output.status.code(), describe(&output))
}

fn status(side: &Side) -> (Option<i32>, String) {
    let output = output_within(side.command().args(["status", "web", "--json"]), COMMAND_MAX);
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

fn is_as_written(side: &Side, what: &str) {
    assert_eq!(fs::read_to_string(side.tree().join("d/1")).expect("read"), what);
    assert_eq!(fs::read_to_string(side.tree().join(what)).expect("read"), what);
}

#[test]
fn two_that_stood_in_part_until_a_person_keeps_one() {
    let mut three = Three::parted();
    let Three { old, one, other, .. } = &mut three;
    for side in [&*one, &*other] {
        let (code, shown) = roles(side);
        assert!(code == Some(0) && shown["split_brain"].is_null(), "nobody knows yet: {shown}");
        assert!(shown["role"] == "stand_in" && shown["epoch"]["number"] == 2, "{shown}");
        assert!(shown["history"][0]["after_packet"].as_u64() > Some(0), "{shown}");
    }
    let (code, said) = keep(one, &["--yes"]);
    assert!(code == Some(2) && said.contains("runs"), "{said}");

    // They meet: who comes is refused, and who serves hears of it.
    Side::stop(&mut one.protect);
    let (code, said) = keep(one, &["--yes"]);
    assert!(code == Some(2) && said.contains("Nobody else is known"), "{said}");
    one.pair_with(other);
    one.refuses(&["--to", &other.address()], "split brain");
    let says = |side: &Side| status(side).1.contains("\"split_brain\"");
    wait_for("the other one says so", || other.said(), || says(other));
    assert_eq!(status(other).0, Some(2), "a person has to act");
    fs::write(other.mount("later"), "programs go on").expect("a write");
    let writers: Vec<Value> = [&*one, &*other]
        .into_iter()
        .map(|side| {
            let (code, shown) = roles(side);
            let split = &shown["split_brain"];
            assert_eq!(code, Some(2), "{shown}");
            assert_eq!(split["only_here"][0], shown["epoch"], "{shown}");
            assert_eq!(split["only_there"][0]["number"], 2, "{shown}");
            assert_ne!(split["only_there"][0]["writer"], shown["epoch"]["writer"], "{shown}");
            assert!(split["history"][0]["since_unix_ms"].as_u64() > Some(1_700_000_000_000), "{shown}");
            split["only_there"][0]["writer"].clone()
        })
        .collect();
    assert_eq!(writers[1], roles(one).1["epoch"]["writer"], "each shows the other one");
    is_as_written(one, "of the one");
    is_as_written(other, "of the other");
    // It stays so for whoever comes, also without the other one.
    old.refuses(&["--to", &one.address(), "--to", &other.address()], "was stood in for");
    one_is_kept(&mut three);
}

/// It was overwritten without a word; and a failover with a target that still counted the dead source as connected had
/// raised the epoch when it failed.
#[test]
fn a_second_target_that_is_further_is_kept_until_a_person_gives_it_up() {
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
    old.protect(&["--to", &one.address(), "--to", &other.address()]);
    old.in_line();
    kill(one.serve.as_mut().expect("it runs"));
    one.serve = None;
    fs::write(old.mount("late"), "only there").expect("a write");
    let late = || fs::read_to_string(other.tree().join("late")).unwrap_or_default();
    wait_for("it is there", || other.said(), || late() == "only there");
    // It counts as connected to the other one for some heartbeats more.
    kill(old.protect.as_mut().expect("it runs"));
    old.protect = None;
    clear_mounts(&old.at.join("mount"));
    one.serve(&[]);
    let failover = |words: &[&str]| {
        let mut command = one.target_command();
        command.args(["failover", "web", "--yes", "--at"]).arg(one.at.join("mount")).args(words);
        let output = output_within(&mut command, COMMAND_MAX);
        (output.status.code(), describe(&output))
    };
    for words in [&["--to", &*other.address()][..], &[]] {
        let (code, said) = failover(words);
        assert!(code == Some(2) && said.contains("is further than this replica"), "{said}");
    }
    assert_eq!(roles(&one).1["epoch"]["number"], 1, "nothing was raised");

    // A stand-in without that command raised the epoch, and asked nobody.
    one.refuses(&["--stand-in", "--to", &other.address()], "is further than this replica");
    one.refuses(&["--stand-in"], "is further than this replica");
    assert_eq!(roles(&one).1["epoch"]["number"], 1, "nothing was raised");

    // One that cannot be asked gives nothing up by itself when it comes.
    kill(other.serve.as_mut().expect("it runs"));
    other.serve = None;
    one.protect(&["--stand-in", "--to", &other.address()]);
    other.serve(&[]);
    fs::write(one.mount("served"), "programs work").expect("a write");
    wait_for(
        "it is refused",
        || one.said(),
        || status(&one).1.contains("is further than the one that was stood"),
    );
    assert_eq!(fs::read_to_string(other.tree().join("late")).expect("read"), "only there");
    assert_eq!(roles(&other).1["epoch"]["number"], 1, "it can be served itself");
    Side::stop_as_it_is(&mut one.protect);
    one.protect(&["--to", &other.address(), "--overwrite-further"]);
    one.in_line();
    tree::assert_same(&one.tree(), &other.tree());
    assert!(!other.tree().join("late").exists());
    // Once it follows, nothing is to be said any more.
    Side::stop(&mut one.protect);
    one.protect(&["--to", &other.address()]);
    one.in_line();
}

/// A person decides.
fn one_is_kept(Three { one, other, .. }: &mut Three) {
    let (code, said) = keep(one, &[]);
    assert!(code == Some(2) && said.contains("--yes"), "{said}");
    let (code, said) = keep(one, &["--yes"]);
    assert!(code == Some(0) && said.contains("epoch 3"), "{said}");
    assert_eq!(roles(one).1["split_brain"], Value::Null);
    is_as_written(other, "of the other");
    // The kept one starts while the other one still serves, which takes no changes any more.
    one.protect(&["--to", &other.address()]);
    let read_only = |side: &Side| {
        fs::write(side.mount("too late"), "x").err().and_then(|error| error.raw_os_error())
            == Some(libc::EROFS)
    };
    wait_for("the other one is read-only", || other.said(), || read_only(other));
    let (code, said) = status(other);
    assert!(code == Some(2) && said.contains("\"stood_in_for\"") && said.contains("epoch 3"), "{said}");
    assert_eq!(fs::read_to_string(other.mount("d/1")).expect("reads go on"), "of the other");
    fs::write(one.mount("kept"), "goes on").expect("a write");
    is_as_written(other, "of the other");
    // Only now: a person has stopped it.
    Side::stop(&mut other.protect);
    one.in_line();
    tree::assert_same(&one.tree(), &other.tree());
    assert!(!other.tree().join("later").exists());
    is_as_written(one, "of the one");
    other.refuses(&[], "epoch 3");
    let (code, shown) = roles(one);
    assert!(code == Some(0) && shown["epoch"]["number"] == 3, "{shown}");
    let overruled: Vec<bool> = shown["history"]
        .as_array()
        .expect("epochs")
        .iter()
        .map(|raised| raised["overruled"].as_bool().expect("a word"))
        .collect();
    assert_eq!(overruled, [true, false, false], "{shown}");
}
