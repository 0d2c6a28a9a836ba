//! Which directory a daemon works on: its own, alone, and the one that it was.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::mount::UnmountFlags;

use crate::host::{
    COMMAND_MAX, Daemon, Protected, SYNC_MAX, Setup, describe, dir_on_disk, output_within, standin,
};

/// A refused start: it mounts nothing, ends with 2 and says all of this.
#[track_caller]
fn assert_refused(command: &mut Command, parts: &[&str]) {
    let output = output_within(command, COMMAND_MAX);
    let said = describe(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    for part in parts {
        assert!(said.contains(part), "no word of '{part}': {said}");
    }
}

/// A second `protect`, with state and sockets of its own.
struct Second {
    base: tempfile::TempDir,
}

impl Second {
    fn new() -> Second {
        let second = Second { base: dir_on_disk() };
        for name in ["mount", "own", "serve"] {
            fs::create_dir(second.path(name)).expect("a directory");
        }
        second
    }

    fn path(&self, name: &str) -> PathBuf {
        self.base.path().join(name)
    }

    fn command(&self) -> Command {
        let mut command = standin(&self.path("run"));
        command.arg("--state").arg(self.path("state"));
        command
    }

    fn protect(&self, backing: &Path, replica: &Path) -> Command {
        let mut command = self.command();
        command.arg("protect").arg(self.path("mount")).arg("--backing").arg(backing);
        command.arg("--to").arg(format!("local:{}", replica.display()));
        command
    }

    fn serve(&self, root: &Path) -> Command {
        let mut command = self.command();
        command.args(["serve", "--listen", "127.0.0.1:0", "--root"]).arg(root);
        command
    }
}

impl Drop for Second {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.path("mount"), UnmountFlags::DETACH);
    }
}

/// The lock was on the name of a set: two daemons over one directory, or onto one replica, each
/// captured its half, and an append through one mount overwrote what was acknowledged through the
/// other.
#[test]
fn two_daemons_never_share_a_tree() {
    let mut protected = Protected::prepare(Setup::default());
    fs::create_dir(protected.backing.join("sub")).expect("a directory");
    protected.start_again();
    let second = Second::new();
    let pid = format!("(pid {})", protected.daemon().pid());
    let (own, spare) = (second.path("own"), second.path("replica"));
    let (backing, replica) = (&protected.backing, &protected.replica);
    let used = ["is used by", pid.as_str(), "goes on as before"];
    assert_refused(&mut second.protect(backing, &spare), &used);
    assert_refused(&mut second.protect(&backing.join("sub"), &spare), &["is inside", &pid]);
    let mut around = second.protect(protected.base.path(), &spare);
    assert_refused(around.arg("--force"), &["is around", &pid]);
    assert_refused(&mut second.protect(&own, replica), &used);
    assert_refused(&mut second.protect(&own, &backing.join("sub")), &["is inside", &pid]);
    assert_refused(&mut second.protect(replica, &spare), &used);
    assert_refused(&mut second.serve(replica), &used);
    assert_refused(&mut second.serve(protected.base.path()), &["is around", &pid]);
    let mut on_replica = standin(&second.path("run"));
    on_replica.arg("--state").arg(second.path("state")).arg("protect").arg(replica);
    on_replica.args(["--name", "other", "--to", "null:"]);
    assert_refused(&mut on_replica, &used);
    // Nobody has these, and what was refused left nothing behind.
    let mut daemon = Daemon::spawn(second.protect(&own, &spare));
    daemon.wait_ready();
    assert_refused(&mut second.serve(&spare), &["is used by"]);
    daemon.signal(libc::SIGTERM);
    assert!(daemon.wait(COMMAND_MAX).is_some_and(|status| status.success()), "{}", daemon.said());
    fs::write(protected.mount.join("sub/file"), "through the first").expect("a write");
    protected.assert_in_sync();
    // Killed, it has nothing any more.
    protected.kill9();
    let mut daemon = Daemon::spawn(second.serve(protected.base.path()));
    daemon.wait_ready();
    daemon.signal(libc::SIGTERM);
    assert!(daemon.wait(COMMAND_MAX).is_some_and(|status| status.success()), "{}", daemon.said());
}

/// From a mount namespace of its own, as a container has it.
#[test]
fn a_mount_namespace_hides_no_daemon() {
    let protected = Protected::start(Setup::default());
    let second = Second::new();
    let protect = second.protect(&protected.backing, &second.path("replica"));
    let mut command = Command::new("unshare");
    command.args(["-m", "--propagation", "private"]).arg(protect.get_program()).args(protect.get_args());
    assert_refused(&mut command, &["is used by", &format!("(pid {})", protected.daemon().pid())]);
}

fn names(dir: &Path) -> usize {
    fs::read_dir(dir).expect("a directory").count()
}

/// The data disk was not mounted when the protection was started again: the empty mount point was
/// taken for the directory, and the replica was emptied.
#[test]
fn a_directory_that_is_not_the_one_empties_no_replica() {
    let mut protected = Protected::start(Setup::default());
    for number in 0..50 {
        fs::write(protected.mount.join(format!("file{number}")), number.to_string()).expect("a file");
    }
    protected.stop();
    let aside = protected.backing.with_file_name("aside");
    fs::rename(&protected.backing, &aside).expect("renamed");
    let refused = ["does not carry the set's mark", "the replicas are as they were", "--adopt-source"];
    // Empty, as a mount point without its disk; and restored without extended attributes.
    fs::create_dir(&protected.backing).expect("a directory");
    assert_refused(&mut protected.protect_command(), &refused);
    for entry in fs::read_dir(&aside).expect("a directory").flatten() {
        fs::copy(entry.path(), protected.backing.join(entry.file_name())).expect("a copy");
    }
    fs::write(protected.backing.join("restored"), "later").expect("a file");
    assert_refused(&mut protected.protect_command(), &refused);
    assert_eq!(names(&protected.replica), 50);
    // Restored with its mark, but another directory all the same.
    let mark = ["-a", "--preserve=xattr", "--attributes-only"];
    crate::host::run(Command::new("cp").args(mark).arg(aside.join(".")).arg(&protected.backing));
    assert_refused(&mut protected.protect_command(), &["it is another directory", "--adopt-source"]);
    let mut daemon = Daemon::spawn({
        let mut command = protected.protect_command();
        command.arg("--adopt-source");
        command
    });
    daemon.wait_ready();
    daemon.signal(libc::SIGTERM);
    assert!(daemon.wait(COMMAND_MAX).is_some_and(|status| status.success()), "{}", daemon.said());
    // From now on it is the one.
    protected.start_again();
    assert!(protected.assert_in_sync().objects >= 51);
    protected.stop();
    fs::rename(&protected.backing, protected.backing.with_file_name("adopted")).expect("renamed");
    fs::rename(&aside, &protected.backing).expect("renamed");
    assert_refused(&mut protected.protect_command(), &["it is another directory"]);
}

/// The first file that says how sets were left.
fn record_of(state: &Path) -> PathBuf {
    let sets = fs::read_dir(state).expect("the state").flatten();
    sets.map(|set| set.path().join("set.json")).find(|path| path.exists()).expect("a record")
}

/// The replica's disk was not mounted: its mount point became a new replica, and filled the disk
/// below.
#[test]
fn a_replica_that_is_missing_is_not_made_anew() {
    let mut protected = Protected::start(Setup::default());
    fs::write(protected.mount.join("file"), "content").expect("a file");
    protected.assert_in_sync();
    protected.stop();
    let aside = protected.replica.with_file_name("aside");
    fs::rename(&protected.replica, &aside).expect("renamed");
    let refused = ["is not there any more", "mount it", "--adopt"];
    assert_refused(&mut protected.protect_command(), &refused);
    assert!(!protected.replica.exists());
    fs::create_dir(&protected.replica).expect("a directory");
    assert_refused(&mut protected.protect_command(), &refused);
    assert_eq!(names(&protected.replica), 0);
    let mut daemon = Daemon::spawn({
        let mut command = protected.protect_command();
        command.arg("--adopt");
        command
    });
    daemon.wait_ready();
    daemon.signal(libc::SIGTERM);
    assert!(daemon.wait(COMMAND_MAX).is_some_and(|status| status.success()), "{}", daemon.said());
    protected.start_again();
    protected.assert_in_sync();
    assert_eq!(fs::read(protected.replica.join("file")).expect("the copy"), b"content");
}

/// A replica whose disk was missing kept the whole directory from being protected, other targets too.
#[test]
fn a_replica_that_is_missing_keeps_nothing_from_the_others() {
    let protected = Protected::prepare(Setup::default());
    let second = protected.replica.with_file_name("second");
    let mut to = std::ffi::OsString::from("local:");
    to.push(&second);
    let start = |protected: &Protected| {
        let mut command = protected.protect_command();
        command.arg("--to").arg(&to);
        let mut daemon = Daemon::spawn(command);
        daemon.wait_ready();
        daemon
    };
    fs::write(protected.backing.join("file"), "content").expect("a file");
    let mut daemon = start(&protected);
    protected.wait_sync();
    daemon.signal(libc::SIGTERM);
    assert!(daemon.wait(COMMAND_MAX).is_some_and(|status| status.success()), "{}", daemon.said());
    let aside = second.with_file_name("aside");
    fs::rename(&second, &aside).expect("renamed");
    let mut daemon = start(&protected);
    let status = || {
        let output = output_within(standin(&protected.run).args(["status", "--json"]), COMMAND_MAX);
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap_or_default()["connections"].take()
    };
    let wait_for = |what: &str, is_so: &dyn Fn(&serde_json::Value) -> bool| {
        let deadline = Instant::now() + SYNC_MAX;
        while !is_so(&status()) {
            assert!(Instant::now() < deadline, "never {what}: {}", status());
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    wait_for("in error", &|connections| {
        let reason = connections[1]["reason"].as_str().unwrap_or_default();
        connections[1]["state"] == "error" && reason.contains("is not there any more")
    });
    fs::write(protected.mount.join("file"), "more").expect("programs go on");
    wait_for("good", &|connections| connections[0]["data"] == "good");
    assert!(!second.exists());
    fs::rename(&aside, &second).expect("renamed");
    wait_for("back", &|connections| connections[1]["data"] == "good");
    protected.wait_sync();
    assert_eq!(fs::read(second.join("file")).expect("the copy"), b"more");
    daemon.signal(libc::SIGTERM);
    assert!(daemon.wait(COMMAND_MAX).is_some_and(|status| status.success()), "{}", daemon.said());
}

/// Adds to each number behind this key, and leaves all else as it is.
fn add_to(text: &mut String, key: &str, more: i64) {
    let places: Vec<usize> = text.match_indices(key).map(|(at, _)| at + key.len()).collect();
    assert!(!places.is_empty(), "no {key} in {text}");
    // From behind: places before it stay where they are.
    for at in places.into_iter().rev() {
        let end = text[at..].find(|c: char| c != '-' && !c.is_ascii_digit()).expect("more text") + at;
        let number: i64 = text[at..end].parse().expect("a number");
        text.replace_range(at..end, &(number + more).to_string());
    }
}

/// A clock that was an hour ahead at the stop made a rewrite of equal size and time look old: it
/// was never copied.
#[test]
fn a_clock_that_was_ahead_hides_no_rewrite() {
    const HOUR: i64 = 3600;
    let mut protected = Protected::start(Setup::default());
    let file = protected.backing.join("file");
    fs::write(protected.mount.join("file"), "before").expect("a write");
    protected.assert_in_sync();
    protected.stop();
    // What a clock that is ahead would have noted.
    let path = record_of(&protected.state);
    let mut record = fs::read_to_string(&path).expect("the record");
    add_to(&mut record, "\"seconds\": ", HOUR);
    add_to(&mut record, "\"booted_ms\": ", HOUR * 1000);
    fs::write(&path, record).expect("the record");
    let times = fs::metadata(&file).expect("the file").modified().expect("its time");
    fs::write(&file, "behind").expect("a rewrite of equal size");
    fs::File::options().write(true).open(&file).and_then(|file| file.set_modified(times)).expect("its time");
    protected.start_again();
    protected.assert_in_sync();
    assert_eq!(fs::read(protected.replica.join("file")).expect("the copy"), b"behind");
}

/// What was noted while the daemon ran is good for the next start after a kill: only what changed
/// later is sent again.
#[test]
fn a_kill_makes_nothing_suspect_that_was_noted() {
    let mut protected = Protected::start(Setup::default());
    for number in 0..20 {
        fs::write(protected.mount.join(format!("file{number}")), "content").expect("a file");
    }
    protected.assert_in_sync();
    let path = record_of(&protected.state);
    let is_noted = || {
        let text = fs::read_to_string(&path).unwrap_or_default();
        text.contains("\"booted_ms\"")
    };
    for _ in 0..300 {
        if is_noted() {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(is_noted(), "nothing was noted");
    // A change after the note, which keeps size and time.
    let (file, through) = (protected.backing.join("file7"), protected.mount.join("file7"));
    let times = fs::metadata(&file).expect("the file").modified().expect("its time");
    protected.kill9();
    crate::host::clear_mounts(&protected.mount);
    assert!(through.parent().is_some_and(Path::exists));
    fs::write(&file, "CONTENT").expect("a rewrite");
    fs::File::options().write(true).open(&file).and_then(|file| file.set_modified(times)).expect("its time");
    protected.start_again();
    protected.assert_in_sync();
    assert_eq!(fs::read(protected.replica.join("file7")).expect("the copy"), b"CONTENT");
}
