//! One object that a target cannot keep in line holds up nothing but itself: it is named, the
//! replica is not called good, and the next start mends it.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::host::{COMMAND_MAX, Disk, Protected, Setup, describe, heavy, output_within, standin};
use crate::tree::Rules;

/// Long enough for anything here on a busy machine.
const LONG: Duration = Duration::from_secs(60);

#[track_caller]
fn wait_until(protected: &Protected, what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + LONG;
    while !done() {
        assert!(Instant::now() < deadline, "{what} never came: {}", protected.status());
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn status(protected: &Protected) -> serde_json::Value {
    serde_json::from_str(&protected.status()).expect("JSON")
}

/// The last link inside is removed while a hard link outside lives, and the file is still written:
/// the target had no such object any more, and everything behind waited for ever.
#[test]
fn a_file_whose_other_name_is_outside() {
    let mut protected = Protected::prepare(Setup::default());
    fs::write(protected.backing.join("log"), "hello").expect("a file");
    let outside = protected.base.path().join("outside");
    fs::hard_link(protected.backing.join("log"), &outside).expect("a link");
    protected.start_again();
    let mut log = File::options().append(true).open(protected.mount.join("log")).expect("opened");
    fs::remove_file(protected.mount.join("log")).expect("removed");
    log.write_all(b" more").expect("a write");
    fs::write(protected.mount.join("after"), "other").expect("a file");
    protected.assert_in_sync();
    // And it may get a name again: then it has all its bytes.
    let open = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&log));
    let back = protected.mount.join("back");
    let linked = rustix::fs::linkat(
        rustix::fs::CWD,
        open.as_str(),
        rustix::fs::CWD,
        &back,
        rustix::fs::AtFlags::SYMLINK_FOLLOW,
    );
    linked.expect("a name again");
    log.write_all(b" and more").expect("a write");
    protected.wait_sync();
    let replica = fs::read_to_string(protected.replica.join("back")).expect("on the replica");
    assert_eq!(replica, "hello more and more");
    assert_eq!(status(&protected)["connections"][0]["data"], "good");
    drop(log);
    protected.stop();
}

/// A copy does not come upon a file that is open and has its only name outside: what is written to it then alarms nobody,
/// and holds up no sync. A name brings it back.
#[test]
fn a_file_without_a_name_inside_is_written_after_a_copy() {
    let arguments = vec!["--fsync=target"];
    let mut protected = Protected::prepare(Setup { arguments, ..Setup::default() });
    let write = |name: &str, content: &str| fs::write(protected.backing.join(name), content).expect("a file");
    ["log", "taken", "new", "other"].iter().for_each(|name| write(name, "hello"));
    write("large", &"large".repeat(200_000));
    for name in ["log", "taken"] {
        let outside = protected.base.path().join(name);
        fs::hard_link(protected.backing.join(name), outside).expect("a link");
    }
    protected.start_again();
    let at = |name: &str| protected.mount.join(name);
    let open = |name: &str| File::options().append(true).open(at(name)).expect("opened");
    let (mut log, mut taken) = (open("log"), open("taken"));
    let command = |arguments: &[&str]| {
        let output = output_within(standin(&protected.run).args(arguments), COMMAND_MAX);
        assert!(output.status.success(), "{}", describe(&output));
    };
    let is_silent = |log: &mut File, taken: &mut File| {
        protected.wait_in_line();
        for file in [log, taken] {
            file.write_all(b" more").expect("a write");
            file.set_permissions(fs::Permissions::from_mode(0o640)).expect("a mode");
        }
        let other = File::create(at("other")).expect("a file");
        other.sync_all().expect("what another program has written");
        protected.wait_sync();
        let status = status(&protected);
        let connection = &status["connections"][0];
        assert_eq!(
            (&connection["data"], &connection["aside"]["total"]),
            (&"good".into(), &0.into()),
            "{status}"
        );
        protected.assert_in_sync();
    };
    // While one runs, and before one.
    command(&["mirror", "start", "--mode", "full", "--rate", "1M"]);
    fs::remove_file(at("log")).expect("removed");
    fs::rename(at("new"), at("taken")).expect("renamed");
    is_silent(&mut log, &mut taken);
    command(&["replication", "stop"]);
    command(&["replication", "start"]);
    is_silent(&mut log, &mut taken);
    let open = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&log));
    let (cwd, follow) = (rustix::fs::CWD, rustix::fs::AtFlags::SYMLINK_FOLLOW);
    rustix::fs::linkat(cwd, open.as_str(), cwd, at("back"), follow).expect("a name again");
    wait_until(&protected, "its content", || protected.replica.join("back").exists());
    wait_until(&protected, "good", || status(&protected)["connections"][0]["data"] == "good");
    fs::remove_file(protected.base.path().join("log")).expect("its name outside");
    protected.assert_in_sync();
    drop((log, taken));
    protected.stop();
}

/// A file that was made past the mount: one write to it stopped everything.
#[test]
fn a_file_that_came_past_the_mount() {
    let mut protected = Protected::start(Setup::default());
    fs::write(protected.backing.join("past"), "by a shell that stands in the directory").expect("a file");
    let file = File::options().write(true).open(protected.mount.join("past")).expect("opened");
    file.write_all_at(b"BY", 0).expect("a write");
    fs::write(protected.mount.join("other"), "behind it").expect("a file");
    let other = protected.replica.join("other");
    wait_until(&protected, "what is behind it", || fs::read(&other).is_ok_and(|bytes| bytes == b"behind it"));
    wait_until(&protected, "its name", || status(&protected)["connections"][0]["aside"]["total"] == 1);
    let told = status(&protected);
    let connection = &told["connections"][0];
    assert_eq!(connection["data"], "bad");
    assert_eq!(connection["aside"]["objects"][0]["path"], "past");
    let text = output_within(standin(&protected.run).arg("status"), COMMAND_MAX);
    assert_eq!(text.status.code(), Some(2), "critical");
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(text.contains("CRITICAL") && text.contains("set aside   past"), "{text}");
    let sync = standin(&protected.run).args(["wait-sync", "--timeout", "500ms"]).output().expect("wait-sync");
    // The copy that finds it may be through.
    let content = |root: &std::path::Path| fs::read(root.join("past")).ok();
    assert!(
        !sync.status.success() || content(&protected.replica) == content(&protected.backing),
        "it is not in sync"
    );
    drop(file);
    // What came past the mount was not captured: it is left behind, but for a copy that is through in time. The next
    // start compares everything; then the list is empty.
    protected.stop_by(libc::SIGTERM);
    protected.start_again();
    protected.assert_in_sync();
    let told = status(&protected);
    assert_eq!(told["connections"][0]["aside"]["total"], 0, "{told}");
    assert_eq!(told["connections"][0]["data"], "good");
    protected.stop();
}

/// Somebody made a file of the replica immutable, for a target that may not change that: after its time it is set aside, and a start mends
/// it although size and time are the same on both sides.
#[test]
fn a_file_that_the_replica_may_not_change() {
    let mut protected = Protected::prepare(Setup::default());
    protected.heeds_flags = true;
    fs::write(protected.backing.join("fixed"), "before").expect("a file");
    protected.patience = Some(Duration::from_millis(400));
    protected.start_again();
    let flag = |how: &str| {
        let path = protected.replica.join("fixed");
        let done = Command::new("chattr").arg(how).arg(path).output().expect("chattr");
        done.status.success()
    };
    if !flag("+i") {
        eprintln!("NOT TESTED: no immutable files on this file system");
        return;
    }
    fs::write(protected.mount.join("fixed"), "after!").expect("a write");
    fs::write(protected.mount.join("other"), "behind it").expect("a file");
    let other = protected.replica.join("other");
    wait_until(&protected, "what is behind it", || fs::read(&other).is_ok_and(|bytes| bytes == b"behind it"));
    assert!(flag("-i"));
    let at = fs::metadata(protected.backing.join("fixed")).and_then(|meta| meta.modified()).expect("a time");
    let file = File::options().write(true).open(protected.mount.join("fixed")).expect("opened");
    file.set_modified(at).expect("a time");
    drop(file);
    wait_until(&protected, "its name", || status(&protected)["connections"][0]["aside"]["total"] == 1);
    let said = protected.stop_incomplete_by(libc::SIGTERM);
    assert!(said.contains("1 object set aside there"), "{said}");
    protected.start_again();
    protected.assert_in_sync();
    assert_eq!(fs::read(protected.replica.join("fixed")).expect("a file"), b"after!");
    protected.stop();
}

/// A temporary file does not fit on the replica, and is removed: its removal waited behind its
/// writes for ever.
#[test]
fn a_full_replica_makes_room_by_itself() {
    let _alone = heavy();
    let replica = Disk::Image { kind: "ext4", mib: 40 };
    let mut protected = Protected::start(Setup { replica, ..Setup::default() });
    fs::write(protected.mount.join("one"), "one").expect("a file");
    let mut large = File::create(protected.mount.join("tmp")).expect("a file");
    for number in 0..60u8 {
        large.write_all(&vec![number; 1 << 20]).expect("a write");
    }
    drop(large);
    wait_until(&protected, "a full disk", || !status(&protected)["connections"][0]["retrying"].is_null());
    fs::remove_file(protected.mount.join("tmp")).expect("removed");
    fs::write(protected.mount.join("two"), "two").expect("a file");
    protected.assert_in_sync_by(&Rules { hole_slack: 64 * 1024, ..Rules::default() });
    let told = status(&protected);
    assert_eq!(told["connections"][0]["data"], "good", "{told}");
    protected.stop();
}
