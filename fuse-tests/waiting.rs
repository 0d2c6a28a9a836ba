//! A target that hangs, a mount that is taken away, an end that is one: what programs and scripts
//! notice of it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::mount::UnmountFlags;

use crate::host::{COMMAND_MAX, Protected, Setup, describe, output_within, require_program, run, standin};
use crate::tree;

/// More than the mount has threads on any machine that runs tests.
const WRITERS: usize = 24;
/// What each of them writes.
const EACH: usize = 4 << 20;
/// The queue, 32 MiB, takes what the first few write.
const WAITING: usize = WRITERS - (32 << 20) / EACH;

/// A directory that root cannot write into either, until it is dropped.
struct Immutable(PathBuf);

impl Immutable {
    fn make(dir: &Path) -> Immutable {
        run(Command::new(require_program("chattr")).arg("+i").arg(dir));
        Immutable(dir.to_owned())
    }
}

impl Drop for Immutable {
    fn drop(&mut self) {
        let _ = Command::new("chattr").arg("-i").arg(&self.0).status();
    }
}

#[track_caller]
fn wait_for_status(protected: &Protected, fits: impl Fn(&str) -> bool) {
    let deadline = Instant::now() + COMMAND_MAX;
    while !fits(&protected.status()) {
        assert!(Instant::now() < deadline, "the status never became so: {}", protected.status());
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn writers_waiting(status: &str) -> usize {
    let (_, rest) = status.split_once("\"writers_waiting\":").expect("a field of the status");
    rest.split(',').next().and_then(|number| number.parse().ok()).expect("a number")
}

fn change_much(dir: &Path) {
    let (file, sub) = (dir.join("file"), dir.join("sub"));
    fs::write(&file, vec![7; EACH]).expect("a write");
    fs::create_dir(&sub).expect("a directory");
    fs::rename(&file, sub.join("moved")).expect("renamed");
    symlink("to", sub.join("link")).expect("a symlink");
    fs::hard_link(sub.join("moved"), sub.join("hard")).expect("a link");
    fs::remove_file(sub.join("link")).expect("removed");
    fs::File::options().write(true).open(sub.join("hard")).and_then(|file| file.set_len(9)).expect("cut");
}

/// As many writers as the mount had threads, all waiting for a target that was full, kept every
/// reader waiting too: the whole directory stood still.
#[test]
fn readers_go_on_while_all_writers_wait() {
    let arguments = vec!["--queue-memory", "32M"];
    let protected = Protected::start(Setup { arguments, ..Setup::default() });
    let (read, stuck) = (protected.mount.join("read"), protected.mount.join("stuck"));
    fs::create_dir(&read).expect("a directory");
    fs::create_dir(&stuck).expect("a directory");
    fs::write(read.join("file"), "read me").expect("a file");
    // One each: the kernel itself lets only one program change a directory at a time.
    let own: Vec<PathBuf> = (0..WRITERS).map(|at| protected.mount.join(format!("w{at}"))).collect();
    own.iter().for_each(|dir| fs::create_dir(dir).expect("a directory"));
    protected.wait_sync();
    std::thread::scope(|scope| {
        // Dropped before the scope waits for the writers, whatever fails.
        let immutable = Immutable::make(&protected.replica.join("stuck"));
        fs::write(stuck.join("file"), "what everything waits behind").expect("a file");
        own.iter().for_each(|dir| drop(scope.spawn(move || change_much(dir))));
        wait_for_status(&protected, |status| writers_waiting(status) >= WAITING);
        for program in ["ls", "stat", "df"] {
            let output = output_within(Command::new(program).arg(&read), Duration::from_secs(5));
            assert!(output.status.success(), "{program}: {}", describe(&output));
        }
        let output = output_within(Command::new("cat").arg(read.join("file")), Duration::from_secs(5));
        assert_eq!(output.stdout, b"read me");
        // Its barrier once waited for room itself, beyond every time-out; so did that of a stop.
        for _ in 0..3 {
            let mut waiting = standin(&protected.run);
            waiting.args(["wait-sync", "--timeout", "300ms"]);
            let output = output_within(&mut waiting, Duration::from_secs(5));
            assert_eq!(output.status.code(), Some(1), "{}", describe(&output));
        }
        drop(immutable);
    });
    assert!(protected.assert_in_sync().objects > 3 * WRITERS);
}

/// `stop` answered while the daemon still had the replica open: a start right after it was refused,
/// and the replica's disk could not be unmounted.
#[test]
fn after_a_stop_nothing_is_in_use() {
    let mut protected = Protected::start(Setup::default());
    for round in 0..5 {
        fs::write(protected.mount.join(format!("file{round}")), vec![7; 1 << 20]).expect("a write");
        let stopped = output_within(standin(&protected.run).arg("stop"), COMMAND_MAX);
        assert!(stopped.status.success(), "{}", describe(&stopped));
        protected.forget_ended();
        protected.start_again();
    }
    assert!(protected.assert_in_sync().objects > 5);
}

/// A lazy unmount under an open file left the daemon "serving", status 0, while everything that
/// was written at the directory went past it.
#[test]
fn a_mount_that_was_taken_away_is_an_alarm() {
    let protected = Protected::start(Setup::default());
    let held = fs::File::create(protected.mount.join("held")).expect("a file");
    rustix::mount::unmount(&protected.mount, UnmountFlags::DETACH).expect("a lazy unmount");
    wait_for_status(&protected, |status| status.contains("\"mount_lost\""));
    let status = output_within(standin(&protected.run).arg("status"), COMMAND_MAX);
    assert_eq!(status.status.code(), Some(2), "{}", describe(&status));
    let stop = output_within(standin(&protected.run).arg("stop"), COMMAND_MAX);
    assert!(describe(&stop).contains("taken away"), "{}", describe(&stop));
    drop(held);
    let gone = Instant::now() + COMMAND_MAX;
    while output_within(standin(&protected.run).arg("status"), COMMAND_MAX).status.code() == Some(2)
        && protected.run.join("m.sock").exists()
    {
        assert!(Instant::now() < gone, "it serves a mount without users");
        std::thread::sleep(Duration::from_millis(50));
    }
    tree::assert_same(&protected.backing, &protected.replica);
}
