//! With `--holder` programs see no error when the source daemon is killed: their calls wait for the next one.
//!
//! `STANDIN_SEED=x` replays what programs do and when the daemon is killed, `STANDIN_ROUNDS=n` kills so often.

mod ends;
pub mod programs;

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rustix::mount::UnmountFlags;
use standin::random::Random;

use crate::host::{
    COMMAND_MAX, Daemon, Place, Protected, Setup, StopAtEnd, describe, heavy, output_within, require_program,
    standin, wait_until,
};
use crate::random::setting;
use crate::tree::{self, Rules};
use programs::{Done, Program};

const HOLDER: &[&str] = &["--holder", "--takeover-timeout", "60s"];

fn protected(place: Place, arguments: &[&'static str]) -> Protected {
    Protected::start(Setup { place, arguments: arguments.to_vec(), ..Setup::default() })
}

/// Processes that hold the mount of this test: those whose parent is gone, too.
pub fn holders(protected: &Protected) -> Vec<u32> {
    let processes = fs::read_dir("/proc").expect("/proc").flatten();
    let pids = processes.filter_map(|process| process.file_name().to_str()?.parse::<u32>().ok());
    let holds = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let is_holder = line.split(|byte| *byte == 0).nth(1) == Some(b"hold-mount");
        is_holder && has_open(*pid, &protected.backing)
    };
    pids.filter(holds).collect()
}

/// A holder has the directory open that this test protects.
fn has_open(pid: u32, directory: &Path) -> bool {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let mut paths = descriptors.filter_map(|descriptor| fs::read_link(descriptor.path()).ok());
    paths.any(|path| path == directory)
}

/// A start that takes over the mount made the directory for the queue, on whatever disk was below the one that was not mounted.
#[test]
fn a_start_that_takes_over_makes_no_directory_for_the_queue() {
    let mut protected = protected(Place::Beside, HOLDER);
    protected.kill9();
    let missing = protected.base.path().join("missing");
    let output = output_within(protected.protect_command().arg("--queue-dir").arg(&missing), COMMAND_MAX);
    let said = describe(&output);
    // Programs wait: the service manager is to try again.
    assert!(output.status.code() == Some(1) && said.contains("it is not created by itself"), "{said}");
    assert!(!missing.exists());
    // Nor into the own replica, whatever is named now.
    let inside = protected.replica.join("s.jsonl");
    let output = output_within(protected.protect_command().arg("--statistics").arg(&inside), COMMAND_MAX);
    let said = describe(&output);
    assert!(said.contains("is in the replica") && !inside.exists(), "{said}");
    protected.start_again();
    protected.assert_in_sync();
    protected.stop();
}

/// Whatever programs do, no call of theirs fails or is done twice, and in the end the replica is the same.
fn storm(place: Place) {
    let _alone = heavy();
    let seed = setting("STANDIN_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    let rounds = setting("STANDIN_ROUNDS").unwrap_or(8);
    println!("STANDIN_SEED={seed} STANDIN_ROUNDS={rounds}");
    let mut random = Random::new(seed);
    let mut protected = protected(place, HOLDER);
    let programs = programs::all(&protected.mount, seed);
    let (end, mut stalls) = (AtomicBool::new(false), Vec::new());
    let done: Vec<Done> = std::thread::scope(|scope| {
        let _end = StopAtEnd(&end);
        let running: Vec<_> = programs
            .into_iter()
            .map(|program: Box<dyn Program>| scope.spawn(|| programs::run(program, &end)))
            .collect();
        for _ in 0..rounds {
            std::thread::sleep(Duration::from_millis(random.below(400)));
            let killed = Instant::now();
            protected.kill9();
            protected.start_at_once();
            stalls.push(killed.elapsed());
        }
        std::thread::sleep(Duration::from_millis(300));
        end.store(true, Relaxed);
        running.into_iter().map(|program| program.join().expect("a program ends")).collect()
    });
    for done in &done {
        println!("{:>10}: {} calls, the longest {:?}", done.name, done.calls, done.longest);
        assert!(done.calls > 0, "{} did nothing", done.name);
    }
    stalls.sort();
    println!("from the kill to `ready`: {:?} to {:?}", stalls[0], stalls[stalls.len() - 1]);
    protected.wait_sync();
    protected.stop();
    tree::assert_same_by(&protected.backing, &protected.replica, &Rules::default());
    wait_until("no holder is left", || holders(&protected).is_empty());
}

#[test]
fn programs_see_no_error_when_the_daemon_is_killed() {
    storm(Place::Beside);
}

/// The directory under the mount is reached by nobody but the daemon: the next one gets it from the holder.
#[test]
fn a_daemon_goes_on_under_the_mount_that_covers_its_directory() {
    storm(Place::Over);
}

/// An inode without a name goes with the last descriptor: the holder has one.
#[test]
fn a_file_without_a_name_is_there_after_the_kill() {
    let mut protected = protected(Place::Beside, HOLDER);
    let path = protected.mount.join("gone");
    let mut file = OpenOptions::new().create_new(true).read(true).write(true).open(&path).expect("a file");
    file.write_all(b"before ").expect("a write");
    fs::remove_file(&path).expect("removed");
    // Opened while it had no name, which only a daemon can see.
    let again = OpenOptions::new().append(true).open(format!("/proc/self/fd/{}", number(&file)));
    protected.kill9();
    protected.start_at_once();
    let mut again = again.expect("opened without a name");
    again.write_all(b"after").expect("a write to a file without a name");
    let mut text = String::new();
    file.seek(SeekFrom::Start(0)).and_then(|_| file.read_to_string(&mut text)).expect("a read");
    assert_eq!(text, "before after");
    let inode = file.metadata().expect("attributes").ino();
    drop((file, again));
    // Its space comes back.
    let has_it = |pid: &u32| {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        descriptors.filter_map(|fd| fs::metadata(fd.path()).ok()).any(|meta| meta.ino() == inode)
    };
    wait_until("the holder lets go of it", || !holders(&protected).iter().any(has_it));
    protected.assert_in_sync();
    protected.stop();
}

/// A database with a journal of its own and one that it maps; each transaction that it has answered is there, once.
#[test]
fn a_database_goes_on() {
    let _alone = heavy();
    let mut protected = protected(Place::Beside, HOLDER);
    for mode in ["DELETE", "WAL"] {
        let path = protected.mount.join(format!("{mode}.db"));
        let mut command = Command::new(require_program("python3"));
        command.arg("-c").arg(include_str!("outlive/sqlite.py")).arg(&path).arg(mode);
        let mut writer = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python3");
        let input = writer.stdin.take().expect("piped");
        for _ in 0..5 {
            std::thread::sleep(Duration::from_millis(150));
            protected.kill9();
            protected.start_at_once();
        }
        drop(input);
        let output = writer.wait_with_output().expect("it ends");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{mode}: {said}");
        println!("{mode}: {said}");
    }
    protected.wait_in_line();
    protected.assert_in_sync();
    protected.stop();
}

fn number(file: &File) -> i32 {
    std::os::fd::AsRawFd::as_raw_fd(file)
}

/// Locks are the kernel's; a listing goes on where it was.
#[test]
fn locks_and_half_read_listings_outlive_the_daemon() {
    let mut protected = protected(Place::Beside, HOLDER);
    let dir = protected.mount.join("many");
    fs::create_dir(&dir).expect("a directory");
    (0..3000).for_each(|n| drop(File::create(dir.join(format!("name-{n:05}"))).expect("a file")));
    let locked = File::create(protected.mount.join("locked")).expect("a file");
    locked.lock().expect("a lock");
    let mut listing = fs::read_dir(&dir).expect("a listing");
    let mut names: Vec<_> =
        listing.by_ref().take(700).map(|entry| entry.expect("an entry").file_name()).collect();
    protected.kill9();
    let other = {
        let path = protected.mount.join("locked");
        std::thread::spawn(move || File::open(path).expect("it waits, and is opened").try_lock())
    };
    protected.start_at_once();
    assert!(other.join().expect("a thread").is_err(), "the lock was lost");
    names.extend(listing.map(|entry| entry.expect("an entry").file_name()));
    names.sort();
    let expected: Vec<_> = (0..3000).map(|n| std::ffi::OsString::from(format!("name-{n:05}"))).collect();
    assert!(names == expected, "{} names of 3000", names.len());
    drop(locked);
    protected.assert_in_sync();
    protected.stop();
}

fn write_elsewhere(path: PathBuf) -> std::thread::JoinHandle<std::io::Result<()>> {
    let writing = std::thread::spawn(move || fs::write(path, "waits"));
    std::thread::sleep(Duration::from_millis(300));
    assert!(!writing.is_finished(), "nobody could have answered it");
    writing
}

/// Nobody comes: programs get an error, as they would have at once, and a start finds a dead mount.
#[test]
fn the_holder_lets_go_in_time() {
    let mut protected = protected(Place::Beside, &["--holder", "--takeover-timeout", "2s"]);
    protected.kill9();
    assert_eq!(holders(&protected).len(), 1);
    let killed = Instant::now();
    let writing = write_elsewhere(protected.mount.join("file"));
    assert!(writing.join().expect("a thread").is_err(), "it was never written");
    assert!(killed.elapsed() > Duration::from_secs(1), "it did not wait");
    wait_until("no holder is left", || holders(&protected).is_empty());
    protected.start_again();
    fs::write(protected.mount.join("file"), "again").expect("a write");
    protected.assert_in_sync();
    protected.stop();
    wait_until("no holder is left", || holders(&protected).is_empty());
}

/// Without a daemon the mount can be taken away as any other, and is missed by nobody.
#[test]
fn an_unmount_without_a_daemon_ends_the_holder() {
    for flags in [UnmountFlags::empty(), UnmountFlags::DETACH] {
        let mut protected = protected(Place::Beside, HOLDER);
        protected.kill9();
        rustix::mount::unmount(&protected.mount, flags).expect("an unmount");
        wait_until("no holder is left", || holders(&protected).is_empty());
        protected.start_again();
        fs::write(protected.mount.join("file"), "again").expect("a write");
        protected.assert_in_sync();
        protected.stop();
    }
}

/// `standin stop` without a daemon: the mount ends, and is said to.
#[test]
fn a_stop_without_a_daemon_has_the_holder_let_go() {
    let mut protected = protected(Place::Beside, HOLDER);
    protected.kill9();
    let writing = write_elsewhere(protected.mount.join("file"));
    let output = output_within(standin(&protected.run).arg("stop").arg(&protected.mount), COMMAND_MAX);
    assert_eq!(output.status.code(), Some(1), "{}", describe(&output));
    assert!(writing.join().expect("a thread").is_err(), "it was never written");
    wait_until("no holder is left", || holders(&protected).is_empty());
    protected.start_again();
    protected.assert_in_sync();
    protected.stop();
}

/// One of two goes on, the other is refused and changes nothing.
#[test]
fn of_two_daemons_at_once_one_goes_on() {
    let mut protected = protected(Place::Beside, HOLDER);
    for _ in 0..4 {
        protected.kill9();
        let mut daemons: Vec<Daemon> = (0..2).map(|_| Daemon::spawn(protected.protect_command())).collect();
        let path = protected.mount.join("file");
        fs::write(&path, "whoever serves").expect("a write");
        let mut refused = None;
        wait_until("one of them ends", || {
            refused = daemons.iter_mut().position(|daemon| daemon.has_ended());
            refused.is_some()
        });
        let mut loser = daemons.remove(refused.expect("one"));
        let status = loser.wait(COMMAND_MAX);
        assert!(status.is_some_and(|status| !status.success()), "{status:?}\n{}", loser.said());
        let mut winner = daemons.remove(0);
        winner.wait_ready();
        assert_eq!(fs::read_to_string(&path).expect("a read"), "whoever serves");
        protected.adopt_daemon(winner);
    }
    protected.wait_in_line();
    protected.assert_in_sync();
    protected.stop();
}

/// What was started otherwise cannot go on; programs wait for what can.
#[test]
fn another_protection_is_refused_and_programs_go_on_waiting() {
    let mut protected = protected(Place::Beside, HOLDER);
    protected.kill9();
    let writing = write_elsewhere(protected.mount.join("file"));
    let mut command = protected.protect_command();
    let output = output_within(command.args(["--profile", "batch"]), COMMAND_MAX);
    assert_eq!(output.status.code(), Some(2), "{}", describe(&output));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("--profile") && said.contains("go on waiting"), "{said}");
    assert!(!writing.is_finished(), "programs wait still");
    protected.start_at_once();
    writing.join().expect("a thread").expect("it was written");
    protected.wait_in_line();
    protected.assert_in_sync();
    protected.stop();
}

/// A holder that is killed takes nothing with it but what it is for.
#[test]
fn a_daemon_serves_on_without_its_holder() {
    let mut protected = protected(Place::Beside, HOLDER);
    let [holder] = holders(&protected)[..] else { panic!("one holder") };
    let pid = rustix::process::Pid::from_raw(holder as i32).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("a signal");
    fs::write(protected.mount.join("one"), "1").expect("a write");
    assert_eq!(holders(&protected), [holder], "it goes by nobody's wish");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("a signal");
    let path = protected.mount.join("two");
    let file = File::create(&path).expect("a file");
    fs::remove_file(&path).expect("removed");
    file.write_all_at(b"2", 0).expect("a write");
    drop(file);
    protected.assert_in_sync();
    protected.stop();
}

/// Nothing has to be said to it before it is missed.
#[test]
fn a_holder_that_is_gone_is_noticed_at_once() {
    let mut protected = protected(Place::Beside, HOLDER);
    let [holder] = holders(&protected)[..] else { panic!("one holder") };
    signal(holder, rustix::process::Signal::KILL);
    wait_until("it is noticed", || protected.said().contains("the holder of the mount is gone"));
    let status: serde_json::Value = serde_json::from_str(&protected.status()).expect("JSON");
    assert_eq!(status["holder"]["kept"].as_bool(), Some(false), "{status:#}");
    protected.assert_in_sync();
    protected.stop();
}

/// A holder that does not run takes some hundred words; the next one waits for a second, and no other does.
#[test]
fn a_holder_that_is_stopped_holds_up_nobody_for_long() {
    let mut protected = protected(Place::Beside, HOLDER);
    let [holder] = holders(&protected)[..] else { panic!("one holder") };
    signal(holder, rustix::process::Signal::STOP);
    let mut longest = Duration::ZERO;
    for number in 0..1200 {
        let path = protected.mount.join(number.to_string());
        let file = File::create(&path).expect("a file");
        let began = Instant::now();
        fs::remove_file(&path).expect("removed");
        longest = longest.max(began.elapsed());
        drop(file);
    }
    let said = protected.said();
    signal(holder, rustix::process::Signal::CONT);
    assert!(said.contains("the holder of the mount is gone"), "it took 1200 words\n{said}");
    assert!(longest < Duration::from_secs(5), "a call waited for {longest:?}");
    // Its daemon lives, so that there is nothing to hold, and nothing ends.
    wait_until("it goes", || holders(&protected).is_empty());
    fs::write(protected.mount.join("after"), "it is served").expect("a write");
    protected.assert_in_sync();
    protected.stop();
}

/// Nobody but its next daemon gets the directory under a mount that is held.
#[test]
fn another_set_does_not_get_what_is_held() {
    let mut protected = protected(Place::Beside, HOLDER);
    fs::create_dir(protected.mount.join("inside")).expect("a directory");
    protected.kill9();
    let (other, replica) = (protected.base.path().join("other"), protected.base.path().join("other-replica"));
    for dir in [&other, &replica] {
        fs::create_dir(dir).expect("a directory");
    }
    for backing in [protected.backing.clone(), protected.backing.join("inside")] {
        let mut to = OsString::from("local:");
        to.push(&replica);
        let mut command = standin(&protected.run);
        command.args(["protect", "--name", "other"]).arg(&other).arg("--backing").arg(&backing);
        command.arg("--to").arg(to).arg("--state").arg(protected.base.path().join("other-state"));
        let output = output_within(&mut command, COMMAND_MAX);
        let said = describe(&output);
        assert!(!output.status.success() && said.contains("standin hold-mount"), "{said}");
    }
    protected.start_again();
    protected.assert_in_sync();
    protected.stop();
}

/// The mount is not dead: whoever asks hears that, and what to do.
#[test]
fn a_mount_that_waits_is_not_said_to_be_dead() {
    let mut protected = protected(Place::Beside, HOLDER);
    protected.kill9();
    let doctor = ["doctor".into(), protected.mount.clone().into_os_string()].to_vec();
    for arguments in [vec!["status".into()], vec!["wait-sync".into()], doctor] {
        let output = output_within(standin(&protected.run).args(&arguments), COMMAND_MAX);
        let said = describe(&output);
        assert!(!output.status.success(), "{said}");
        for words in ["standin hold-mount keeps the mount", "more", "Start the protection with the command"] {
            assert!(said.contains(words), "{arguments:?}: no '{words}' in {said}");
        }
        assert!(!said.contains("dead mount"), "{said}");
    }
    let output = output_within(standin(&protected.run).args(["status", "--json"]), COMMAND_MAX);
    let error: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(error["error"]["what"].as_str().is_some_and(|what| what.contains("keeps the mount")), "{error}");
    // So does a start of another set there.
    let mut command = standin(&protected.run);
    command.args(["protect", "--name", "other"]).arg(&protected.mount).arg("--to").arg("null:");
    let output = output_within(command.arg("--state").arg(protected.base.path().join("s")), COMMAND_MAX);
    assert!(describe(&output).contains("standin hold-mount keeps the mount"), "{}", describe(&output));
    protected.start_again();
    protected.assert_in_sync();
    protected.stop();
}

fn signal(process: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(process as i32).expect("a pid");
    rustix::process::kill_process(pid, signal).expect("a signal");
}

/// How often it was needed is said.
#[test]
fn the_status_tells_of_it() {
    let mut protected = protected(Place::Beside, HOLDER);
    for _ in 0..2 {
        protected.kill9();
        protected.start_at_once();
    }
    let status: serde_json::Value = serde_json::from_str(&protected.status()).expect("JSON");
    let holder = &status["holder"];
    assert_eq!((holder["kept"].as_bool(), holder["takeovers"].as_u64()), (Some(true), Some(2)), "{status:#}");
    assert!(holder["longest_pause_ms"].as_u64() > Some(0), "{holder}");
    protected.wait_in_line();
    protected.stop();
}
