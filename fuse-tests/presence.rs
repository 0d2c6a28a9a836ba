//! `standin file`: what it says of a file is so on the replica, also while programs write.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use serde_json::Value;

use crate::host::{COMMAND_MAX, Protected, Setup, StopAtEnd, describe, output_within, standin, wait_until};

/// The exit code, and the answer.
fn asked(protected: &Protected, more: &[&str], paths: &[&Path]) -> (Option<i32>, Value) {
    let mut command = standin(&protected.run);
    command.args(["file", "--json"]).args(more).args(paths);
    let output = output_within(&mut command, COMMAND_MAX);
    let answer = serde_json::from_slice(&output.stdout);
    (output.status.code(), answer.unwrap_or_else(|error| panic!("{error}: {}", describe(&output))))
}

#[track_caller]
fn check(protected: &Protected, path: &Path, code: i32, kind: &str, state: &str) -> Value {
    let (found, answer) = asked(protected, &[], &[path]);
    let file = &answer["files"][0];
    let seen = (found, file["kind"].as_str(), file["targets"][0]["state"].as_str());
    assert_eq!(seen, (Some(code), Some(kind), Some(state)), "{}: {answer:#}", path.display());
    answer
}

fn told(protected: &Protected, arguments: &[&str]) {
    let output = output_within(standin(&protected.run).args(arguments), COMMAND_MAX);
    assert!(output.status.success(), "{arguments:?}: {}", describe(&output));
}

/// What is said to be there has the content that it had when it was asked about, or a later one.
#[test]
fn what_is_there_is_there() {
    let protected = Protected::start(Setup::default());
    let (file, stop) = (protected.mount.join("counter"), AtomicBool::new(false));
    fs::write(&file, "0").expect("a file");
    protected.wait_sync();
    std::thread::scope(|scope| {
        let _end = StopAtEnd(&stop);
        scope.spawn(|| {
            // Everything else that is written is not waited for.
            for at in 0.. {
                fs::write(protected.mount.join("load"), vec![at as u8; 1 << 16]).expect("a write");
                if stop.load(Relaxed) {
                    return;
                }
            }
        });
        for number in 1..=100_u32 {
            fs::write(&file, number.to_string()).expect("a write");
            let (code, answer) = asked(&protected, &["--wait", "--timeout", "30s"], &[&file]);
            assert_eq!((code, &answer["verdict"]), (Some(0), &"there".into()), "{answer:#}");
            let replica = fs::read_to_string(protected.replica.join("counter")).expect("on the replica");
            assert_eq!(replica, number.to_string(), "{answer:#}");
        }
    });
    let (code, answer) = asked(&protected, &["--wait", "--durable"], &[&file]);
    assert_eq!(
        (code, &answer["files"][0]["targets"][0]["state"]),
        (Some(0), &"durable".into()),
        "{answer:#}"
    );
}

/// Every kind of path, and a connection that is stopped.
#[test]
fn each_path_has_its_answer() {
    let arguments = vec!["--exclude", "/cache"];
    let protected = Protected::start(Setup { arguments, ..Setup::default() });
    let path = |name: &str| protected.mount.join(name);
    fs::create_dir_all(path("dir/sub")).expect("directories");
    fs::create_dir(path("cache")).expect("a directory");
    for name in ["file", "dir/sub/file", "cache/file", "gone"] {
        fs::write(path(name), name).expect("a file");
    }
    fs::remove_file(path("gone")).expect("removed");
    symlink("/etc", path("link")).expect("a symlink");
    protected.wait_sync();
    let is_there = |path: &Path, kind: &str| {
        let (code, answer) = asked(&protected, &["--wait"], &[path]);
        let seen = (code, answer["files"][0]["kind"].as_str());
        assert_eq!(seen, (Some(0), Some(kind)), "{}: {answer:#}", path.display());
    };
    for (name, kind) in
        [("file", "file"), ("dir", "directory"), ("link", "symlink"), ("gone", "gone"), (".", "directory")]
    {
        is_there(&path(name), kind);
    }
    // By the replica's path, and relative to where one stands.
    is_there(&protected.replica.join("dir/sub/file"), "file");
    let mut relative = standin(&protected.run);
    relative.args(["file", "--wait", "../dir/sub/file"]).current_dir(path("dir"));
    let output = output_within(&mut relative, COMMAND_MAX);
    assert!(output.status.success(), "{}", describe(&output));
    check(&protected, &path("cache/file"), 1, "left_out", "excluded");
    for (path, word) in
        [(path("link/passwd"), "symlink is on the way"), ("/etc/passwd".into(), "no directory")]
    {
        let (code, answer) = asked(&protected, &[], &[&path]);
        assert_eq!(code, Some(2), "{answer:#}");
        assert!(answer["files"][0]["note"].as_str().is_some_and(|note| note.contains(word)), "{answer:#}");
    }
    told(&protected, &["connection", "stop"]);
    // Nothing has changed since: what it said last counts, and it is said that it is its last word.
    let (code, answer) = asked(&protected, &[], &[&path("file")]);
    let why = answer["files"][0]["targets"][0]["why"].as_str().expect("a reason");
    assert!(code == Some(0) && why.contains("connection start"), "{answer:#}");
    fs::write(path("file"), "other").expect("a write");
    let answer = check(&protected, &path("file"), 1, "file", "held_back");
    assert!(answer["files"][0]["targets"][0]["lacks"]["packets"].as_u64() > Some(0), "{answer:#}");
    // Nobody waits for what only a person brings about.
    let (code, _) = asked(&protected, &["--wait"], &[&path("file")]);
    assert_eq!(code, Some(1));
    let output = output_within(standin(&protected.run).arg("file").arg(path("file")), COMMAND_MAX);
    let said = describe(&output);
    assert!(said.contains("not there as of position") && said.contains("held back for"), "{said}");
    told(&protected, &["connection", "start"]);
    is_there(&path("file"), "file");
}

/// What a target has set aside is named, and of the others nobody knows.
#[test]
fn what_was_set_aside_is_said() {
    let mut protected = Protected::prepare(Setup::default());
    protected.patience = Some(std::time::Duration::from_millis(300));
    protected.heeds_flags = true;
    fs::create_dir(protected.backing.join("stuck")).expect("a directory");
    fs::write(protected.backing.join("other"), "x").expect("a file");
    protected.start_again();
    protected.wait_sync();
    let stuck = protected.replica.join("stuck");
    let chattr = |how: &str| drop(Command::new("chattr").arg(how).arg(&stuck).status());
    let flagged = Cleared(chattr);
    flagged.0("+i");
    fs::write(protected.mount.join("stuck/file"), "x").expect("a file");
    let state = |name: &str| {
        let (_, answer) = asked(&protected, &[], &[&protected.mount.join(name)]);
        answer["files"][0]["targets"][0]["state"].as_str().unwrap_or_default().to_owned()
    };
    wait_until("set aside", || state("stuck/file") == "set_aside");
    check(&protected, &protected.mount.join("stuck"), 1, "directory", "set_aside");
    check(&protected, &protected.mount, 1, "directory", "set_aside");
    check(&protected, &protected.mount.join("other"), 2, "file", "doubtful");
}

/// The flag goes whatever fails.
struct Cleared<F: Fn(&str)>(F);

impl<F: Fn(&str)> Drop for Cleared<F> {
    fn drop(&mut self) {
        self.0("-i");
    }
}
