//! A target that hangs, a mount that is taken away, an end that is one: what programs and scripts
//! notice of it.

use std::fs;
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rustix::mount::UnmountFlags;

use crate::host::{
    COMMAND_MAX, Disk, Frozen, Protected, Setup, describe, heavy, output_within, require_program, run,
    standin, wait_until,
};
use crate::sys::own_descriptors;
use crate::tree;

/// More than the mount has threads on any machine that runs tests.
const WRITERS: usize = 24;
/// What each of them writes.
const EACH: usize = 4 << 20;
/// The queue, 32 MiB, takes what the first few write.
const WAITING: usize = WRITERS - (32 << 20) / EACH;

/// Its target cannot change what is immutable.
fn heeding(arguments: Vec<&'static str>) -> Protected {
    let mut protected = Protected::prepare(Setup { arguments, ..Setup::default() });
    protected.heeds_flags = true;
    protected.start_again();
    protected
}

/// A directory that who lacks a capability cannot write into, until it is dropped.
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
    let arguments = vec!["--queue-memory", "32M", "--queue-disk-limit", "0"];
    let protected = heeding(arguments);
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

/// Reads that the kernel makes ahead stand in one line with what it writes back, and wait for room in the
/// queue there where no more requests are let through.
#[test]
fn readers_go_on_while_what_is_gathered_waits() {
    let _alone = heavy();
    for round in 0..2 {
        let arguments = vec![
            "--profile",
            "batch",
            "--queue-memory",
            "32M",
            "--queue-disk-limit",
            "0",
            "--mmap-lag",
            "10ms",
        ];
        let protected = heeding(arguments);
        let path = |name: &str| protected.mount.join(name);
        fs::create_dir(path("stuck")).expect("a directory");
        for number in 0..READERS {
            fs::write(path(&format!("read{number}")), vec![9; 1 << 20]).expect("room");
        }
        fs::write(path("gathered"), vec![4; GATHERED]).expect("room");
        protected.wait_sync();
        let (stop, read) = (AtomicBool::new(false), [const { AtomicU64::new(0) }; READERS]);
        std::thread::scope(|scope| {
            // Dropped before the scope waits for others, whatever fails.
            let ended = Ended(&stop);
            let immutable = Immutable::make(&protected.replica.join("stuck"));
            fs::write(path("stuck").join("file"), "what everything waits behind").expect("a file");
            for (number, count) in read.iter().enumerate() {
                let (path, stop) = (path(&format!("read{number}")), &stop);
                scope.spawn(move || read_cold(&path, stop, count));
            }
            let writer = scope.spawn(|| write_apart(&path("gathered"), &stop));
            wait_for_status(&protected, |status| writers_waiting(status) >= 16);
            let before = read.each_ref().map(|count| count.load(Relaxed));
            let began = Instant::now();
            while read.iter().zip(before).any(|(now, before)| now.load(Relaxed) < before + 3) {
                let counts: Vec<_> = read.iter().map(|count| count.load(Relaxed)).collect();
                assert!(
                    began.elapsed() < READ_MAX,
                    "round {round}: {before:?} were read, and now {counts:?}"
                );
                std::thread::sleep(Duration::from_millis(5));
            }
            assert!(!writer.is_finished(), "nothing waits: this tests nothing");
            drop((immutable, ended));
        });
        protected.assert_in_sync();
    }
}

/// Bytes of a file.
const GATHERED: usize = 64 << 20;

/// Writes pages of which no two are neighbours: each is a request. In a table of descriptors of its own:
/// a program that is started closes those it inherits, and each close of a file waits for what is gathered
/// of it.
fn write_apart(path: &Path, stop: &AtomicBool) {
    own_descriptors();
    let file = fs::File::options().write(true).open(path).expect("a file");
    for offset in (0..GATHERED as u64).step_by(2 * 4096).cycle().take_while(|_| !stop.load(Relaxed)) {
        file.write_all_at(&[5; 4096], offset).expect("room in memory");
    }
}

/// Programs that read what is not in memory.
const READERS: usize = 4;
const READ_MAX: Duration = Duration::from_secs(20);

struct Ended<'a>(&'a AtomicBool);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

fn read_cold(path: &Path, stop: &AtomicBool, count: &AtomicU64) {
    while !stop.load(Relaxed) {
        let cold = fs::File::open(path).expect("a file");
        rustix::fs::fadvise(&cold, 0, None, rustix::fs::Advice::DontNeed).expect("no page is kept");
        assert!(fs::read(path).expect("a file") == vec![9; 1 << 20]);
        count.fetch_add(1, Relaxed);
    }
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

/// Its target was behind, and nothing said why.
#[test]
fn a_disk_that_does_not_answer_is_an_alarm() {
    let disk = Disk::Image { kind: "ext4", mib: 64 };
    let mut protected = Protected::start(Setup { replica: disk, ..Setup::default() });
    let at = protected.replica.parent().expect("its disk").to_owned();
    let status = |protected: &Protected| -> serde_json::Value {
        serde_json::from_str(&protected.status()).expect("a status")
    };
    let alarm = |status: &serde_json::Value| {
        let findings = status["findings"].as_array().expect("a list");
        findings.iter().find(|one| one["code"] == "disk_hangs").cloned()
    };
    let frozen = Frozen::disk(&at);
    fs::write(protected.mount.join("file"), "programs go on").expect("a write");
    let mut found = None;
    wait_until("it is said", || {
        found = alarm(&status(&protected));
        found.is_some()
    });
    let text = found.expect("an alarm")["text"].as_str().expect("a text").to_owned();
    assert!(text.contains("A disk does not answer") && text.contains("(2)"), "{text}");
    drop(frozen);
    wait_until("it is over", || alarm(&status(&protected)).is_none());
    protected.assert_in_sync();
    protected.stop();
}
