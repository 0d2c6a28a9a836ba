//! `standin mirror start` of a replica that is good: it is compared first, and mended where it differs, whole or in
//! part, while programs work.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::AtomicBool;

use serde_json::Value;

use crate::host::{COMMAND_MAX, Protected, SYNC_MAX, Setup, StopAtEnd, describe, output_within, standin};
use crate::mirror::{connection, is_complete, told, wait_for};
use crate::verify::{damage, plant, work};

fn planted() -> Protected {
    let mut protected = Protected::prepare(Setup::default());
    plant(&protected.backing);
    protected.start_again();
    protected.wait_sync();
    protected
}

fn command(protected: &Protected, arguments: &[&str]) -> (Option<i32>, String) {
    let output = output_within(standin(&protected.run).args(arguments), SYNC_MAX);
    (output.status.code(), describe(&output))
}

#[track_caller]
fn refused(protected: &Protected, arguments: &[&str], word: &str) {
    let before = connection(protected);
    let (code, said) = command(protected, arguments);
    assert_eq!(code, Some(2), "{arguments:?}: {said}");
    assert!(
        said.contains(word) && said.contains("Nothing was changed"),
        "{arguments:?}: no '{word}' in {said}"
    );
    let after = connection(protected);
    assert_eq!((&after["mirror"], &after["data"]), (&before["mirror"], &before["data"]), "{arguments:?}");
}

/// The network connection that is there; a copy of everything makes another one.
fn link(connection: &Value) -> &Value {
    &connection["link"]["connected_unix_ms"]
}

fn compares(connection: &Value) -> bool {
    connection["progress"]["compares_first"] == true && connection["mirror"]["phase"] == "verifying"
}

/// It was bad from its beginning to its end, also where nothing differed.
#[test]
fn a_good_replica_stays_good_while_nothing_differs() {
    let mut protected = planted();
    let before = connection(&protected);
    told(&protected, &["start", "--mode", "checksum", "--rate", "20K"]);
    let begun = wait_for(&protected, "comparing", compares);
    assert_eq!((&begun["data"], &begun["progress"]["mode"]), (&"good".into(), &"checksum".into()), "{begun}");
    refused(&protected, &["mirror", "start"], "is being copied to");
    let (code, said) = command(&protected, &["wait-sync", "--timeout", "100ms"]);
    assert!(code == Some(1) && said.contains("a mirror that was started by hand"), "{said}");
    let (_, listed) = command(&protected, &["mirror", "list"]);
    assert!(listed.contains("nothing changed so far"), "{listed}");
    told(&protected, &["pause"]);
    wait_for(&protected, "paused", |connection| connection["mirror"]["phase"] == "paused");
    fs::write(protected.mount.join("meanwhile"), "x").expect("programs go on");
    told(&protected, &["resume"]);
    wait_for(&protected, "comparing", compares);
    // What a person wants stays over a restart.
    protected.stop();
    protected.start_at_once();
    wait_for(&protected, "comparing", compares);
    told(&protected, &["resume", "--rate", "0"]);
    let done = wait_for(&protected, "complete", is_complete);
    assert_eq!(done["progress"]["compares_first"], false, "{done}");
    protected.wait_sync();
    let restarted = connection(&protected);
    told(&protected, &["start", "--mode", "checksum"]);
    protected.wait_sync();
    assert_eq!(link(&connection(&protected)), link(&restarted), "nothing was copied");
    told(&protected, &["start", "--mode", "checksum", "--rate", "1K"]);
    told(&protected, &["stop"]);
    assert_eq!(connection(&protected)["data"], "good", "{before}");
    assert!(protected.assert_in_sync().objects > 1000);
    protected.stop();
}

/// Of the connection only the part is bad meanwhile; what lies elsewhere is not looked at.
#[test]
fn a_part_is_mended_in_each_mode_while_programs_work() {
    for mode in ["full", "differences", "differences+checksum", "checksum"] {
        let mut protected = planted();
        damage(&protected.replica);
        let elsewhere = protected.replica.join("many/extra");
        let before = connection(&protected);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let _stops = StopAtEnd(&stop);
            // What was damaged stays in its part: elsewhere nobody would look at it. What was not goes to and fro.
            let at = |path: &str| protected.mount.join(path);
            for (root, other) in [("d4", "d4/inner"), ("d2", "d1")] {
                let (root, other, stop) = (at(root), at(other), &stop);
                scope.spawn(move || work(&root, &other, stop));
            }
            for part in ["d4", "d5/inner", "large", "d3", "d1"] {
                told(&protected, &["start", "m", part, "--mode", mode]);
                wait_in_line(&protected);
                let shown = connection(&protected);
                assert_eq!(shown["progress"]["path"], part, "{shown}");
                let (code, said) = command(&protected, &["verify", "m", part]);
                assert_eq!(code, Some(0), "{mode}, {part}: {said}");
            }
        });
        protected.wait_sync();
        let after = connection(&protected);
        assert_eq!(link(&after), link(&before), "{mode}: {after}");
        let flipped = |root: &Path| fs::read(root.join("large")).expect("a file");
        let is_mended = flipped(&protected.replica) == flipped(&protected.backing);
        assert_eq!(is_mended, matches!(mode, "full" | "checksum"), "{mode}");
        assert!(elsewhere.exists(), "{mode}: what lies elsewhere was looked at");
        assert!(!protected.replica.join("many/77").exists(), "{mode}");
        // All of it, by the parts that are left.
        told(&protected, &["start", "--mode", "checksum"]);
        wait_in_line(&protected);
        assert!(!elsewhere.exists() && protected.replica.join("many/77").exists(), "{mode}");
        assert!(protected.assert_in_sync().objects > 1000);
        protected.stop();
    }
}

fn wait_in_line(protected: &Protected) {
    wait_for(protected, "complete", |connection| {
        is_complete(connection) && connection["progress"]["compares_first"] == false
    });
    protected.wait_sync();
}

/// A verification mends a part by the part alone.
#[test]
fn a_verification_repairs_a_part() {
    let mut protected = planted();
    damage(&protected.replica);
    let before = connection(&protected);
    let (code, said) = command(&protected, &["verify", "m", "many", "--repair"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("Repaired: 2 differences before, 0 after"), "{said}");
    assert_eq!(link(&connection(&protected)), link(&before));
    let (code, said) = command(&protected, &["verify", "m", "d4/inner/most/f3"]);
    assert!(code == Some(1) && said.contains("owner") && said.contains("4 objects compared"), "{said}");
    let (code, said) = command(&protected, &["verify", "m", "d4/inner/most/f3", "--repair"]);
    assert_eq!(code, Some(0), "{said}");
    let metadata = fs::metadata(protected.replica.join("d4/inner/most/f3")).expect("a file");
    assert_eq!(metadata.uid(), 0);
    protected.stop();
}

#[test]
fn what_is_no_part_of_the_set_starts_nothing() {
    let mut protected = Protected::prepare(Setup {
        arguments: vec!["--exclude", "/cache", "--exclude", "*.tmp"],
        ..Setup::default()
    });
    plant(&protected.backing);
    fs::create_dir(protected.backing.join("cache")).expect("a directory");
    fs::write(protected.backing.join("cache/a"), "a").expect("a file");
    fs::write(protected.backing.join("d0/x.tmp"), "a").expect("a file");
    std::os::unix::fs::symlink("/etc", protected.backing.join("out")).expect("a symlink");
    protected.start_again();
    protected.wait_sync();
    for (part, word) in [
        ("nothing", "There is nothing at"),
        ("d0/nothing/x", "There is nothing at"),
        ("d0/inner/most/f1/x", "There is nothing at"),
        ("/etc", "is not in"),
        ("../x", "is not in"),
        ("out/ssl", "A symlink is on the way"),
        ("cache", "The rules of the set leave"),
        ("cache/a", "The rules of the set leave"),
        ("d0/x.tmp", "The rules of the set leave"),
    ] {
        refused(&protected, &["mirror", "start", "m", part], word);
        refused(&protected, &["verify", "m", part], word);
    }
    let held = |word: &str| assert_eq!(command(&protected, &["connection", word]).0, Some(0));
    for (hold, words, go_on) in [("stop", "is stopped", "start"), ("pause", "is paused", "resume")] {
        held(hold);
        refused(&protected, &["mirror", "start", "m", "d0"], words);
        held(go_on);
    }
    wait_in_line(&protected);
    // Rules hold for a part as for all of it: what they leave out is no orphan.
    fs::create_dir_all(protected.replica.join("d0/inner")).expect("a directory");
    fs::write(protected.replica.join("d0/left.tmp"), "left").expect("a file");
    fs::write(protected.replica.join("d0/extra"), "extra").expect("a file");
    fs::write(protected.replica.join("d0/inner/most/f1"), "damaged").expect("a file");
    told(&protected, &["start", "m", "d0", "--mode", "checksum"]);
    wait_in_line(&protected);
    let replica = |name: &str| protected.replica.join(name);
    assert!(replica("d0/left.tmp").exists() && !replica("d0/extra").exists() && !replica("cache").exists());
    assert_eq!(
        fs::read(replica("d0/inner/most/f1")).ok(),
        fs::read(protected.backing.join("d0/inner/most/f1")).ok()
    );
    let (code, said) = command(&protected, &["verify", "--checksum"]);
    assert_eq!(code, Some(0), "{said}");
    protected.stop();
}

/// Nobody vouches for a replica of which a part was being mended: everything is compared.
#[test]
fn a_part_that_is_cut_off_is_followed_by_a_copy_of_everything() {
    for killed in [false, true] {
        let mut protected = planted();
        damage(&protected.replica);
        let file = protected.replica.join("many/99");
        fs::write(&file, "damaged").expect("a file");
        told(&protected, &["start", "m", "large", "--mode", "full", "--rate", "64K"]);
        wait_for(&protected, "begun", |connection| connection["progress"]["bytes_done"].as_u64() > Some(0));
        assert_eq!(connection(&protected)["data"], "bad");
        refused(&protected, &["mirror", "start", "m", "d0"], "is being copied to");
        if killed {
            protected.kill9();
            protected.start_again();
        } else {
            told(&protected, &["stop"]);
            let stopped = connection(&protected);
            assert_eq!((&stopped["data"], &stopped["mirror"]["phase"]), (&"bad".into(), &"stopped".into()));
            wait_for(&protected, "pending", |connection| {
                connection["reason"].as_str().is_some_and(|why| why.contains("standin mirror start"))
            });
            refused(&protected, &["mirror", "start", "m", "d0"], "is not good");
            told(&protected, &["start"]);
        }
        wait_in_line(&protected);
        assert_ne!(fs::read(&file).expect("a file"), b"damaged", "killed: {killed}");
        assert!(protected.assert_in_sync().objects > 1000);
        protected.stop();
    }
}

/// Directories that are moved into what was looked at, files that are written to before they are: none of it
/// passes for compared.
#[test]
fn what_moves_while_a_part_is_mended_is_mended() {
    let mut protected = planted();
    let part = protected.backing.join("part");
    for dir in 0..20 {
        let dir = part.join(format!("{dir}"));
        fs::create_dir_all(&dir).expect("a directory");
        for file in 0..30 {
            fs::write(dir.join(format!("f{file}")), vec![b'x'; 20_000]).expect("a file");
        }
    }
    protected.stop();
    protected.start_again();
    protected.wait_sync();
    for round in 0..3 {
        for dir in fs::read_dir(protected.replica.join("part")).expect("a directory") {
            let dir = dir.expect("a directory").path();
            for file in ["f3", "f7", "f11"] {
                if let Ok(file) = fs::OpenOptions::new().write(true).open(dir.join(file)) {
                    file.write_all_at(b"damaged", 5000).expect("written");
                    file.set_modified(std::time::UNIX_EPOCH).expect("a time");
                }
            }
            let _ = fs::remove_file(dir.join("f13"));
            fs::set_permissions(dir.join("f15"), PermissionsExt::from_mode(0o700)).ok();
        }
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let _stops = StopAtEnd(&stop);
            scope.spawn(|| shuffle(&protected.mount.join("part"), &stop));
            told(&protected, &["start", "m", "part", "--rate", "4M"]);
            wait_in_line(&protected);
        });
        protected.wait_sync();
        let (code, said) = command(&protected, &["verify", "m", "part", "--checksum"]);
        assert_eq!(code, Some(0), "round {round}: {said}");
    }
    assert!(protected.assert_in_sync().objects > 1000);
    protected.stop();
}

/// Renames directories and files to and fro, and writes into what is about to be compared.
fn shuffle(root: &Path, stop: &AtomicBool) {
    let mut round = 0u64;
    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
        round += 1;
        std::thread::sleep(std::time::Duration::from_micros(500));
        let dir = |n: u64| root.join(format!("{}", n % 20));
        let file = |n: u64| dir(n).join(format!("f{}", n % 30));
        if let Ok(file) = fs::OpenOptions::new().write(true).open(file(round * 7)) {
            let _ = file.write_all_at(&[round as u8; 100], round * 31 % 19_000);
        }
        let _ = fs::rename(file(round * 13), dir(round * 17).join(format!("moved{}", round % 9)));
        let _ = fs::rename(dir(round * 3), dir(round * 11).join("inside"));
        let _ = fs::rename(dir(round * 11).join("inside"), dir(round * 3));
        let _ = fs::rename(dir(round * 5), root.join("away"));
        let _ = fs::rename(root.join("away"), dir(round * 5));
    }
}

#[test]
fn a_mirror_command_waits_for_nobody() {
    let mut protected = planted();
    let began = std::time::Instant::now();
    told(&protected, &["start", "m", "many", "--mode", "checksum", "--rate", "1K"]);
    assert!(began.elapsed() < COMMAND_MAX);
    told(&protected, &["stop"]);
    assert_eq!(connection(&protected)["mirror"]["phase"], "stopped");
    protected.wait_sync();
    protected.stop();
}
