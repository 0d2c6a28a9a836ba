//! `standin verify`: what differs is found, what does not is never said to, and nothing is changed.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Output;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_OMIT, XattrFlags};
use serde_json::Value;

use crate::host::{Disk, Protected, SYNC_MAX, Setup, StopAtEnd, describe, output_within, standin};

/// What a verification said: its exit code, the kinds and names that it found, and its summary.
struct Said {
    code: i32,
    found: BTreeSet<(String, String)>,
    summary: Value,
}

fn verify(protected: &Protected, arguments: &[&str]) -> Said {
    let output = asked(protected, arguments);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut said = Said {
        code: output.status.code().expect("an exit code"),
        found: BTreeSet::new(),
        summary: Value::Null,
    };
    for line in text.lines() {
        let line: Value = serde_json::from_str(line).expect("a line of JSON");
        match line.get("difference") {
            Some(found) => {
                let path = Path::new(found["path"].as_str().expect("a path"));
                let name =
                    path.strip_prefix(&protected.mount).expect("in the directory").display().to_string();
                said.found.insert((found["kind"].as_str().expect("a kind").to_owned(), name));
            }
            None => said.summary = line["summary"].clone(),
        }
    }
    assert!(!said.summary.is_null(), "no summary: {}{}", describe(&output), protected.said());
    said
}

fn asked(protected: &Protected, arguments: &[&str]) -> Output {
    output_within(standin(&protected.run).args(["verify", "--json"]).args(arguments), SYNC_MAX)
}

fn set(found: &[(&str, &str)]) -> BTreeSet<(String, String)> {
    found.iter().map(|(kind, name)| (kind.to_string(), name.to_string())).collect()
}

/// Files, hard links, holes, extended attributes, a deep and a large directory.
pub fn plant(root: &Path) {
    for dir in 0..6 {
        let dir = root.join(format!("d{dir}/inner/most"));
        fs::create_dir_all(&dir).expect("a directory");
        for file in 0..20 {
            fs::write(dir.join(format!("f{file}")), format!("content {file}").repeat(file * 50))
                .expect("a file");
        }
    }
    let large = fs::File::create(root.join("large")).expect("a file");
    large.set_len(3 << 20).expect("a hole");
    large.write_all_at(&vec![7; 300_000], 1_000_000).expect("written");
    fs::create_dir(root.join("many")).expect("a directory");
    for file in 0..1500 {
        fs::write(root.join(format!("many/{file}")), [file as u8]).expect("a file");
    }
    fs::hard_link(root.join("large"), root.join("d0/linked")).expect("a link");
    std::os::unix::fs::symlink("large", root.join("symlink")).expect("a symlink");
    rustix::fs::setxattr(root.join("d1"), "user.a", b"b", XattrFlags::empty()).expect("an attribute");
    let big = vec![b'x'; 3000];
    for number in 0..8 {
        let name = format!("user.{number}");
        // More than a listing takes.
        let _ = rustix::fs::setxattr(root.join("d2/inner"), &*name, &big, XattrFlags::empty());
    }
}

/// One flipped bit, a changed mode, a lost attribute, a missing and an extra file, each on the replica.
pub fn damage(replica: &Path) -> BTreeSet<(String, String)> {
    let times = |path: &Path| fs::metadata(path).and_then(|meta| meta.modified()).expect("a time");
    let file = fs::OpenOptions::new().read(true).write(true).open(replica.join("large")).expect("a file");
    let before = times(&replica.join("large"));
    let mut byte = [0];
    file.read_exact_at(&mut byte, 1_100_000).expect("read");
    file.write_all_at(&[byte[0] ^ 4], 1_100_000).expect("written");
    file.set_modified(before).expect("its time");
    fs::set_permissions(replica.join("d3/inner"), PermissionsExt::from_mode(0o700)).expect("a mode");
    rustix::fs::removexattr(replica.join("d1"), "user.a").expect("an attribute");
    let dir = fs::File::open(replica.join("many")).expect("a directory");
    let before = times(&replica.join("many"));
    fs::remove_file(replica.join("many/77")).expect("a file");
    fs::write(replica.join("many/extra"), "extra").expect("a file");
    dir.set_modified(before).expect("its time");
    rustix::fs::chownat(
        rustix::fs::CWD,
        replica.join("d4/inner/most/f3"),
        Some(rustix::fs::Uid::from_raw(4711)),
        None,
        rustix::fs::AtFlags::empty(),
    )
    .expect("an owner");
    fs::File::open(replica.join("d4/inner/most/f4"))
        .and_then(|file| file.set_modified(std::time::UNIX_EPOCH))
        .expect("a time");
    fs::OpenOptions::new()
        .append(true)
        .open(replica.join("d4/inner/most/f5"))
        .and_then(|file| file.set_len(file.metadata()?.len() + 9))
        .expect("a size");
    let before = times(&replica.join("d5"));
    fs::rename(replica.join("d5/inner/most/f1"), replica.join("d5/inner/most/f0")).expect("renamed");
    fs::File::open(replica.join("d5")).and_then(|dir| dir.set_modified(before)).expect("its time");
    set(&[
        ("mode", "d3/inner"),
        ("xattr", "d1"),
        ("missing", "many/77"),
        ("extra", "many/extra"),
        ("owner", "d4/inner/most/f3"),
        ("mtime", "d4/inner/most/f4"),
        ("size", "d4/inner/most/f5"),
        ("mtime", "d4/inner/most/f5"),
        ("object", "d5/inner/most/f0"),
        ("missing", "d5/inner/most/f1"),
        ("mtime", "d5/inner/most"),
    ])
}

#[test]
fn what_differs_is_found_and_nothing_is_changed() {
    let mut protected = Protected::prepare(Setup::default());
    plant(&protected.backing);
    protected.start_again();
    for arguments in [&[][..], &["--checksum"], &["--audit"], &["--checksum", "--rate", "500M"]] {
        let said = verify(&protected, arguments);
        assert_eq!((said.code, said.found), (0, set(&[])), "{arguments:?}");
        assert!(said.summary["compared"].as_u64() > Some(1640), "{arguments:?}: {:#}", said.summary);
        let has_content = said.summary["bytes_compared"].as_u64() > Some(3 << 20);
        assert_eq!(has_content, !arguments.is_empty(), "{:#}", said.summary);
    }
    let mut expected = damage(&protected.replica);
    let before = fs::metadata(protected.replica.join("large")).expect("a file").ctime_nsec();
    let said = verify(&protected, &[]);
    assert_eq!((said.code, &said.found), (1, &expected));
    expected.insert(("content".into(), "large".into()));
    for arguments in [["--checksum"], ["--audit"]] {
        let said = verify(&protected, &arguments);
        let mut found = said.found;
        // The hard link is another name of it.
        if found.remove(&("content".into(), "d0/linked".into())) {
            found.insert(("content".into(), "large".into()));
        }
        assert_eq!((said.code, &found), (1, &expected));
        assert_eq!(said.summary["missing"], 2, "{:#}", said.summary);
        assert_eq!(said.summary["extra"], 1, "{:#}", said.summary);
    }
    let below = verify(&protected, &["m", "d4/inner"]);
    let in_it = |(_, name): &&(String, String)| name.starts_with("d4/inner/");
    assert_eq!(below.found, expected.iter().filter(in_it).cloned().collect());
    let after = fs::metadata(protected.replica.join("large")).expect("a file").ctime_nsec();
    assert_eq!(before, after, "a verification has touched the replica");
    let repaired = verify(&protected, &["--repair", "--checksum"]);
    assert_eq!((repaired.code, repaired.summary["identical"].as_bool()), (0, Some(true)));
    assert_eq!(repaired.summary["before_repair"]["missing"], 2, "{:#}", repaired.summary);
    assert_eq!(verify(&protected, &["--audit"]).code, 0);
    protected.assert_in_sync();
    let status = protected.status();
    assert!(status.contains("\"verified\":{\"at_unix_ms\":"), "{status}");
    protected.stop();
}

/// One wrong byte in one file cost a copy and a second comparison of everything.
#[test]
fn a_repair_copies_no_more_than_the_part_that_differs() {
    let mut protected = Protected::prepare(Setup::default());
    plant(&protected.backing);
    protected.start_again();
    protected.wait_sync();
    let whole = verify(&protected, &["--checksum"]);
    let wrong = protected.replica.join("d4/inner/most/f7");
    let before = fs::metadata(&wrong).and_then(|meta| meta.modified()).expect("a time");
    let file = fs::OpenOptions::new().write(true).open(&wrong).expect("a file");
    file.write_all_at(b"X", 3).expect("written");
    file.set_modified(before).expect("its time");
    let repaired = verify(&protected, &["--repair", "--checksum"]);
    assert_eq!((repaired.code, repaired.summary["identical"].as_bool()), (0, Some(true)));
    assert_eq!(repaired.summary["before_repair"]["different"], 1, "{:#}", repaired.summary);
    assert_eq!(repaired.summary["compared"], whole.summary["compared"], "{:#}", repaired.summary);
    assert!(protected.said().contains("mirror of d4/inner/most/f7"), "{}", protected.said());
    // What is kept of it is a comparison of everything.
    let last = asked(&protected, &["--last"]);
    let last: Value = serde_json::from_slice(&last.stdout).expect("JSON");
    assert_eq!(last["verified"]["path"], Value::Null, "{last}");
    assert_eq!(last["verified"]["compared"], whole.summary["compared"], "{last}");
    protected.assert_in_sync();
    protected.stop();
}

/// One time that the replica's file system cannot hold let every wrong time in it pass.
#[test]
fn a_time_that_cannot_be_held_hides_no_wrong_one() {
    // Years up to 2446; whole seconds up to 2038.
    for kind in ["ext4", "ext4 -I 128"] {
        let source = Disk::Image { kind: "btrfs", mib: 150 };
        let setup = Setup { source, replica: Disk::Image { kind, mib: 64 }, ..Setup::default() };
        let mut protected = Protected::prepare(setup);
        let backing = protected.backing.clone();
        for name in ["plain", "second", "far"] {
            fs::write(backing.join(name), "content").expect("a file");
        }
        fs::create_dir(backing.join("dir")).expect("a directory");
        std::os::unix::fs::symlink("far", backing.join("link")).expect("a symlink");
        set_mtime(&backing.join("far"), 20_000_000_000, 5);
        set_mtime(&backing.join("second"), 1_500_000_000, 5);
        protected.start_again();
        protected.wait_sync();
        assert_eq!(verify(&protected, &[]).found, set(&[]), "{kind}");

        let replica = protected.replica.clone();
        for (name, seconds) in [("plain", 5), ("second", 1_500_000_001), ("dir", 1 << 30), ("link", 7)] {
            set_mtime(&replica.join(name), seconds, 0);
        }
        let wrong = |names: &[&'static str]| names.iter().map(|name| ("mtime", *name)).collect::<Vec<_>>();
        let names = ["plain", "second", "dir", "link"];
        assert_eq!(verify(&protected, &[]).found, set(&wrong(&names)), "{kind}");
        set_mtime(&replica.join("far"), 1_000_000_000, 0);
        let names = ["plain", "second", "dir", "link", "far"];
        assert_eq!(verify(&protected, &[]).found, set(&wrong(&names)), "{kind}");
        let repaired = verify(&protected, &["--repair"]);
        assert_eq!((repaired.code, repaired.summary["identical"].as_bool()), (0, Some(true)), "{kind}");
        assert_eq!(verify(&protected, &[]).found, set(&[]), "{kind}");
        protected.stop();
    }
}

/// The target holds directories that it has worked in: they were compared with paths that do not exist.
#[test]
fn a_directory_that_was_removed_is_missing_as_a_whole() {
    let mut protected = Protected::start(Setup::default());
    fs::create_dir_all(protected.mount.join("d0/d1")).expect("directories");
    for name in ["d0/f1", "d0/d1/f2", "other"] {
        fs::write(protected.mount.join(name), name).expect("a file");
    }
    protected.wait_sync();
    fs::remove_dir_all(protected.replica.join("d0")).expect("removed");
    let said = verify(&protected, &[]);
    assert_eq!(said.code, 1, "{}", said.summary);
    assert!(said.found.contains(&("missing".to_owned(), "d0".to_owned())), "{:?}", said.found);
    assert!(said.found.iter().all(|(_, path)| !path.contains("deleted")), "{:?}", said.found);
    verify(&protected, &["--repair"]);
    protected.wait_in_line();
    protected.assert_in_sync();
    protected.stop();
}

fn set_mtime(path: &Path, tv_sec: i64, tv_nsec: i64) {
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec, tv_nsec },
    };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).expect("a time");
}

#[test]
fn what_cannot_be_verified_is_said() {
    let mut protected = Protected::prepare(Setup::default());
    fs::create_dir(protected.backing.join("dir")).expect("a directory");
    fs::write(protected.backing.join("file"), "file").expect("a file");
    std::os::unix::fs::symlink("/etc", protected.backing.join("out")).expect("a symlink");
    protected.start_again();
    let name = "m";
    for (arguments, part) in [
        (&[name, "nothing"][..], "There is nothing at"),
        (&[name, "file/x"], "There is nothing at"),
        (&[name, "out/ssl"], "A symlink is on the way"),
        (&[name, "../x"], "is not in"),
        (&[name, "/etc"], "is not in"),
        (&["--connection", "7"], "no connection"),
    ] {
        let output = asked(&protected, arguments);
        let said = describe(&output);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains(part), "{arguments:?}: {said}");
    }
    let command = |words: &[&str]| output_within(standin(&protected.run).args(words), SYNC_MAX);
    assert!(describe(&asked(&protected, &["--last"])).contains("No verification"));
    command(&["connection", "pause"]);
    let said = describe(&asked(&protected, &[]));
    assert!(said.contains("it is paused"), "{said}");
    command(&["connection", "stop"]);
    let said = describe(&asked(&protected, &[]));
    assert!(said.contains("not in line"), "{said}");
    command(&["connection", "start"]);
    protected.wait_in_line();
    protected.wait_sync();
    assert_eq!(verify(&protected, &["--checksum"]).code, 0);
    protected.stop();
}

/// Also of a run before: when, of what, and what it came to.
#[test]
fn what_the_last_one_came_to_is_kept_over_a_restart() {
    let mut protected = Protected::prepare(Setup::default());
    plant(&protected.backing);
    protected.start_again();
    assert_eq!(verify(&protected, &["m", "d1", "--checksum"]).code, 0);
    let last = |protected: &Protected| {
        let output = asked(protected, &["--last"]);
        let said: Value = serde_json::from_slice(&output.stdout).expect("a line of JSON");
        (output.status.code(), said["verified"].clone())
    };
    let (code, first) = last(&protected);
    assert_eq!(
        (code, &first["mode"], &first["path"]),
        (Some(0), &"checksum".into(), &"d1".into()),
        "{first}"
    );
    fs::write(protected.replica.join("many/extra"), "extra").expect("a file");
    assert_eq!(verify(&protected, &["--audit"]).code, 1);
    let before = last(&protected);
    assert_eq!((before.0, &before.1["extra"]), (Some(1), &1.into()), "{}", before.1);
    protected.stop();
    protected.start_again();
    assert_eq!(last(&protected), before);
    let status = describe(&output_within(standin(&protected.run).arg("status"), SYNC_MAX));
    assert!(status.contains("the last verification found 0 missing, 1 extra"), "{status}");
    assert_eq!(verify(&protected, &[]).code, 0, "the copy of the start has moved it aside");
    assert_eq!(last(&protected).0, Some(0));
    protected.stop();
}

/// It neither waits for ever nor says that something differs.
#[test]
fn one_that_takes_too_long_is_given_up() {
    let mut protected = Protected::prepare(Setup::default());
    plant(&protected.backing);
    protected.start_again();
    let output = asked(&protected, &["--checksum", "--rate", "1K", "--timeout", "700ms"]);
    assert_eq!(output.status.code(), Some(2), "{}", describe(&output));
    let said = describe(&output);
    assert!(said.contains("it has not ended within 0.7 s") && said.contains("Nothing was changed"), "{said}");
    // The next one is none the worse.
    assert_eq!(verify(&protected, &["--checksum", "--timeout", "5m"]).code, 0);
    protected.stop();
}

#[test]
fn one_whose_connection_is_paused_ends() {
    let mut protected = Protected::prepare(Setup::default());
    plant(&protected.backing);
    protected.start_again();
    let run = protected.run.clone();
    let command = |words: &[&str]| output_within(standin(&run).args(words), SYNC_MAX);
    std::thread::scope(|scope| {
        // Slower than anybody waits.
        let waiting = scope.spawn(|| command(&["verify", "--checksum", "--rate", "1K"]));
        let deadline = std::time::Instant::now() + SYNC_MAX;
        let verifies = || describe(&command(&["status", "--json"])).contains("\"verifying\"");
        while !verifies() {
            assert!(std::time::Instant::now() < deadline, "it does not begin");
        }
        command(&["connection", "pause"]);
        let output = waiting.join().expect("it ends");
        let said = describe(&output);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("its connection was paused"), "{said}");
    });
    command(&["connection", "resume"]);
    assert_eq!(verify(&protected, &[]).code, 0);
    protected.stop();
}

/// A program that works all the time in what is compared makes no difference.
#[test]
fn programs_that_write_make_no_difference() {
    // A verification waits behind what is queued: on a machine where the target falls back, behind so much at most.
    let arguments = vec!["--queue-memory", "32M", "--queue-disk-limit", "0"];
    let mut protected = Protected::prepare(Setup { arguments, ..Setup::default() });
    plant(&protected.backing);
    protected.start_again();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let stops = StopAtEnd(&stop);
        for worker in 0..2 {
            let (stop, root) = (&stop, protected.mount.join(format!("d{worker}")));
            let other = protected.mount.join(format!("d{}", worker + 2));
            scope.spawn(move || work(&root, &other, stop));
        }
        let mut rounds = Vec::new();
        for round in 0..rounds_wanted() {
            let arguments: &[&str] = if round % 2 == 0 { &["--checksum"] } else { &[] };
            rounds.push(verify(&protected, arguments));
        }
        drop(stops);
        for (round, said) in rounds.iter().enumerate() {
            assert_eq!((said.code, &said.found), (0, &set(&[])), "round {round}: {:#}", said.summary);
        }
    });
    protected.assert_in_sync();
    assert_eq!(verify(&protected, &["--checksum"]).code, 0);
    protected.stop();
}

/// `STANDIN_TEST_VERIFICATIONS`: more than there is time for every day.
fn rounds_wanted() -> usize {
    let wanted = std::env::var("STANDIN_TEST_VERIFICATIONS").ok();
    wanted.map_or(25, |wanted| wanted.parse().expect("a number of rounds"))
}

/// Writes, renames within and across directories, links, removes and makes, until it is to stop.
pub fn work(root: &Path, other: &Path, stop: &AtomicBool) {
    let mut round = 0u64;
    while !stop.load(Relaxed) {
        round += 1;
        let began = std::time::Instant::now();
        let name = |n: u64| root.join(format!("inner/most/f{}", n % 20));
        let _ = fs::write(name(round), vec![round as u8; (round * 977 % 200_000) as usize]);
        let append = fs::OpenOptions::new().append(true).open(name(round + 7));
        let _ = append.and_then(|mut file| file.write_all(&[round as u8; 777]));
        let _ = fs::rename(name(round + 3), other.join(format!("moved{}", round % 7)));
        let _ = fs::rename(
            other.join(format!("moved{}", (round + 3) % 7)),
            root.join(format!("back{}", round % 5)),
        );
        let _ = fs::hard_link(name(round + 1), root.join(format!("link{}", round % 9)));
        let _ = fs::remove_file(root.join(format!("link{}", (round + 4) % 9)));
        let dir = root.join(format!("new{}", round % 3));
        let _ = fs::create_dir(&dir).and_then(|()| fs::write(dir.join("a"), "a"));
        let _ = fs::rename(&dir, other.join(format!("dir{}", round % 4)));
        let _ = fs::remove_dir_all(other.join(format!("dir{}", (round + 2) % 4)));
        let _ = fs::set_permissions(name(round + 5), PermissionsExt::from_mode(0o600 + (round % 8) as u32));
        let _ = rustix::fs::setxattr(name(round + 2), "user.n", &round.to_le_bytes(), XattrFlags::empty());
        // As fast as it can it would only fill the queue, and on a busy machine for ever: a target has more to do.
        std::thread::sleep(began.elapsed() * 3);
    }
}

/// By the option and by the file of the set; one that was missed is made up for once.
#[test]
fn one_that_is_due_comes_by_itself() {
    check_planned(&["--verify-every", "24h", "--verify-mode", "checksum"], None, "checksum");
    let file = "verify = { every = \"24h\", at = \"03:00\", mode = \"audit\" }\n";
    check_planned(&[], Some(file), "audit");
}

fn check_planned(arguments: &[&'static str], file: Option<&str>, mode: &str) {
    let mut protected = Protected::prepare(Setup { arguments: arguments.to_vec(), ..Setup::default() });
    plant(&protected.backing);
    protected.start_again();
    protected.stop();
    let sets = protected.state.join("sets");
    fs::create_dir_all(&sets).expect("made");
    file.into_iter().for_each(|text| fs::write(sets.join("m.toml"), text).expect("a file"));
    was_last_verified_days_ago(&protected, 2);
    protected.start_again();
    assert_eq!(wait_for_verified(&protected, mode)["different"], 0);
    protected.stop();
    let before = record(&protected);
    protected.start_again();
    // Long enough for one that comes at once.
    std::thread::sleep(std::time::Duration::from_secs(3));
    protected.stop();
    assert_eq!(number(&record(&protected), "at_unix_ms"), number(&before, "at_unix_ms"), "it came again");
}

fn record(protected: &Protected) -> String {
    fs::read_to_string(protected.state.join("m/set.json")).expect("a record")
}

/// The number of this name in a record: it is no JSON that a `Value` keeps (numbers of 128 bits).
fn number<'a>(record: &'a str, name: &str) -> &'a str {
    let (_, rest) =
        record.split_once(&format!("\"{name}\":")).unwrap_or_else(|| panic!("no {name}: {record}"));
    let rest = rest.trim_start();
    &rest[..rest.find(|c: char| !c.is_ascii_digit()).expect("an end")]
}

fn was_last_verified_days_ago(protected: &Protected, days: i64) {
    let record = record(protected);
    let served = number(&record, "checks_served_s");
    let earlier = (served.parse::<i64>().expect("a moment") - days * 86_400).to_string();
    fs::write(protected.state.join("m/set.json"), record.replace(served, &earlier)).expect("a record");
}

fn wait_for_verified(protected: &Protected, mode: &str) -> Value {
    let deadline = std::time::Instant::now() + SYNC_MAX;
    loop {
        let status: Value = serde_json::from_str(&protected.status()).expect("JSON");
        let verified = status["connections"][0]["verified"].clone();
        if verified["mode"] == mode {
            return verified;
        }
        assert!(std::time::Instant::now() < deadline, "not verified in time: {status:#}");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}
