//! Most of what a target has is gone from the directory: the question before the copy, and what it says meanwhile.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use serde_json::Value;

use crate::host::{COMMAND_MAX, Protected, Setup, describe, output_within, run, standin, wait_until};

const FILES: usize = 5000;
/// Of them, those that are removed while nothing runs.
const GONE: usize = 3000;

/// One of which most files were removed while nothing ran, and which runs again.
fn with_missing(arguments: Vec<&'static str>) -> Protected {
    let mut protected = Protected::prepare(Setup { arguments, ..Setup::default() });
    for number in 0..FILES {
        fs::write(file(&protected.backing, number), number.to_string()).expect("a file");
    }
    protected.start_again();
    protected.wait_sync();
    protected.stop();
    for number in 0..GONE {
        fs::remove_file(file(&protected.backing, number)).expect("removed");
    }
    protected.start_at_once();
    wait_until("asked", || connection(&protected)["state"] == "paused");
    protected
}

fn file(root: &Path, number: usize) -> std::path::PathBuf {
    root.join(format!("file{number}"))
}

fn connection(protected: &Protected) -> Value {
    let mut status: Value = serde_json::from_str(&protected.status()).expect("JSON");
    status["connections"][0].take()
}

fn accept(protected: &Protected) {
    run(standin(&protected.run).args(["connection", "resume", "--accept-deletes"]));
}

#[test]
fn whoever_asks_hears_of_the_question() {
    let mut protected = with_missing(vec![]);
    for words in
        [&["mirror", "start"][..], &["mirror", "start", "--mode", "full"], &["mirror", "pause"], &["merge"]]
    {
        let output = output_within(standin(&protected.run).args(words), COMMAND_MAX);
        let said = describe(&output);
        assert!(!output.status.success(), "{words:?}: {said}");
        for part in ["gone from the directory", "resume 1 --accept-deletes", "resume 1` counts again"] {
            assert!(said.contains(part), "{words:?}: no '{part}' in {said}");
        }
    }
    let output = run(standin(&protected.run).args(["resync", "estimate", "--json"]));
    let foreseen: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let foreseen = &foreseen["connections"][0];
    assert!(["owed", "differences", "checksum"].map(Value::from).contains(&foreseen["rung"]), "{foreseen}");
    assert!(
        foreseen["why"].as_str().is_some_and(|why| why.contains("3000 of 5000 files are gone")),
        "{foreseen}"
    );
    let waits_for = foreseen["waits_for"].as_str().expect("a word");
    assert!(waits_for.contains("resume 1 --accept-deletes"), "{foreseen}");
    accept(&protected);
    protected.wait_in_line();
    protected.assert_in_sync();
    protected.stop();
}

/// It has not what they ask for.
#[test]
fn syncs_are_not_taken_for_done_while_it_is_asked() {
    let mut protected = with_missing(vec!["--fsync", "target", "--fsync-timeout", "1s"]);
    let mut written = File::create(protected.mount.join("later")).expect("programs go on");
    written.write_all(b"later").expect("programs go on");
    let failed = written.sync_all().expect_err("its target does not have it");
    assert_eq!(failed.raw_os_error(), Some(libc::EIO));
    accept(&protected);
    protected.wait_in_line();
    wait_until("durable", || written.sync_all().is_ok());
    assert_eq!(fs::read(protected.replica.join("later")).expect("it is there"), b"later");
    drop(written);
    protected.assert_in_sync();
    protected.stop();
}

/// The word was forgotten with the process, and asked for again. It is no word on what goes later.
#[test]
fn what_was_accepted_is_not_asked_again_after_a_kill() {
    for more in [0, 1500] {
        let mut protected = with_missing(vec![]);
        let (large, len) = ("large", 4 << 20);
        fs::write(protected.mount.join(large), vec![7; len]).expect("programs go on");
        run(standin(&protected.run).args(["mirror", "resume", "--rate", "100K"]));
        accept(&protected);
        protected.kill9();
        let sent = fs::read(protected.replica.join(large)).map_or(0, |sent| sent.len());
        assert!(sent < len, "the copy was over before the kill");
        for number in GONE..GONE + more {
            fs::remove_file(file(&protected.backing, number)).expect("removed");
        }
        protected.start_at_once();
        wait_until("in line, or asked", || {
            let connection = connection(&protected);
            connection["state"] == "paused" || connection["mirror"]["phase"] == "complete"
        });
        let connection = connection(&protected);
        let reason = connection["reason"].as_str().expect("a reason");
        assert_eq!(connection["state"] == "paused", more > 0, "{connection}");
        if more > 0 {
            assert!(reason.contains("1499 of 2000 files are gone"), "{reason}");
            accept(&protected);
        }
        protected.wait_in_line();
        protected.assert_in_sync();
        protected.stop();
    }
}

/// What a copy was to bring was said to be there, since no packet told it: also by an orderly stop.
#[test]
fn while_it_is_asked_nobody_is_told_that_all_is_there() {
    let mut protected = Protected::prepare(Setup::default());
    for number in 0..FILES {
        fs::write(file(&protected.backing, number), number.to_string()).expect("a file");
    }
    protected.start_again();
    protected.wait_sync();
    std::thread::sleep(std::time::Duration::from_secs(3));
    protected.stop();
    for number in 0..GONE {
        fs::remove_file(file(&protected.backing, number)).expect("removed");
    }
    // As large and as old as before.
    let (kept, text) = (file(&protected.backing, FILES - 1), "xxxx");
    let modified = kept.metadata().and_then(|metadata| metadata.modified()).expect("a time");
    fs::write(&kept, text).expect("a write");
    File::options().write(true).open(&kept).and_then(|file| file.set_modified(modified)).expect("a time");
    for _ in 0..2 {
        protected.start_at_once();
        wait_until("asked", || connection(&protected)["state"] == "paused");
        for more in [&[][..], &["--durable"]] {
            let wait = output_within(standin(&protected.run).arg("wait-sync").args(more), COMMAND_MAX);
            let said = describe(&wait);
            assert!(wait.status.code() == Some(1) && said.contains("--accept-deletes"), "{said}");
        }
        protected.stop_incomplete_by(libc::SIGTERM);
    }
    protected.start_at_once();
    wait_until("asked", || connection(&protected)["state"] == "paused");
    accept(&protected);
    protected.wait_in_line();
    protected.wait_sync();
    assert_eq!(fs::read_to_string(file(&protected.replica, FILES - 1)).expect("a file"), text);
    protected.assert_in_sync();
    protected.stop();
}
