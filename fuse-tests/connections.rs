//! `standin connection`: what is held back by hand comes later and whole; what cannot be held is
//! let go with a word; lost links, refusals and closed ports are told as what they are.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::host::{
    COMMAND_MAX, Daemon, Protected, SYNC_MAX, Setup, clear_mounts, describe, dir_on_disk, heavy,
    output_within, require_host, standin,
};
use crate::tree;

/// Writes, renames, links and removes in a directory of its own until the end is asked for.
fn work(root: &Path, number: usize, end: &AtomicBool, rounds: &AtomicU64) {
    let dir = root.join(format!("work{number}"));
    fs::create_dir_all(&dir).expect("a directory");
    for round in 0u64.. {
        if end.load(Relaxed) {
            return;
        }
        let at = |name: &str, round: u64| dir.join(format!("{name}{}", round % 30));
        fs::write(at("new", round), round.to_string().repeat(500)).expect("a write");
        fs::rename(at("new", round), at("kept", round)).expect("a rename");
        if round % 4 == 0 {
            let link = at("link", round / 4);
            let _ = fs::remove_file(&link);
            fs::hard_link(at("kept", round), &link).expect("a link");
        }
        // Done twice, or in another order, a swap loses a file.
        if round > 30 {
            fs::rename(at("kept", round + 3), dir.join("third")).expect("a rename");
            fs::rename(at("kept", round + 9), at("kept", round + 3)).expect("a rename");
            fs::rename(dir.join("third"), at("kept", round + 9)).expect("a rename");
        }
        rounds.fetch_add(1, Relaxed);
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Runs `during` while two programs work.
pub fn under_load(root: &Path, during: impl FnOnce(&AtomicU64)) {
    let (end, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for number in 0..2 {
            let (end, rounds) = (&end, &rounds);
            scope.spawn(move || work(root, number, end, rounds));
        }
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| during(&rounds)));
        end.store(true, Relaxed);
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

/// Waits until programs have done that many rounds more: they do not stand still.
#[track_caller]
pub fn wait_for_rounds(rounds: &AtomicU64, more: u64) {
    let (upto, deadline) = (rounds.load(Relaxed) + more, Instant::now() + COMMAND_MAX);
    while rounds.load(Relaxed) < upto {
        assert!(Instant::now() < deadline, "programs stand still");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// `standin connection …`, whatever comes of it.
fn connection(run: &Path, arguments: &[&str]) -> Output {
    output_within(standin(run).arg("connection").args(arguments), COMMAND_MAX)
}

/// `standin connection … --json`, which must succeed.
#[track_caller]
fn change(run: &Path, arguments: &[&str]) -> Value {
    let output = output_within(standin(run).args(["--json", "connection"]).args(arguments), COMMAND_MAX);
    assert!(output.status.success(), "{arguments:?}: {}", describe(&output));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[track_caller]
fn status(run: &Path) -> Value {
    let output = output_within(standin(run).args(["status", "--json"]), COMMAND_MAX);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", describe(&output)))
}

/// Waits until the first connection is so.
#[track_caller]
fn wait_for(run: &Path, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let mut status = status(run);
        let connection = status["connections"][0].take();
        if is_so(&connection) {
            return connection;
        }
        assert!(Instant::now() < deadline, "never {what}: {connection}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[track_caller]
fn says(output: &Output, words: &[&str]) {
    let said = describe(output);
    for word in words {
        assert!(said.contains(word), "no '{word}' in:\n{said}");
    }
}

#[test]
fn what_was_stopped_under_load_goes_on_without_loss() {
    let protected = Protected::start(Setup::default());
    let (run, mount) = (protected.run.clone(), protected.mount.clone());
    for round in 0..3 {
        under_load(&mount, |rounds| {
            wait_for_rounds(rounds, 100);
            let stopped = change(&run, &["stop"]);
            assert_eq!(stopped["connection"]["state"], "stopped", "{stopped}");
            assert!(stopped["connection"]["link"].is_null(), "{stopped}");
            let marker = format!("written while stopped {round}");
            fs::write(mount.join(&marker), "x").expect("programs go on");
            wait_for_rounds(rounds, 100);
            let held = &status(&run)["connections"][0];
            assert!(held["queued"]["packets"].as_u64() > Some(100), "{held}");
            assert!(!protected.replica.join(&marker).exists(), "sent while stopped");
            // It does not wait for what only a person brings about.
            let waited = output_within(standin(&run).arg("wait-sync"), COMMAND_MAX);
            assert_eq!(waited.status.code(), Some(1), "{}", describe(&waited));
            says(&waited, &["it is stopped", "standin connection start 1"]);
            let started = change(&run, &["start", "1"]);
            assert_eq!(started["connection"]["state"], "started", "{started}");
            wait_for_rounds(rounds, 50);
        });
        assert!(protected.assert_in_sync().objects > 60);
    }
    let after = &status(&run)["connections"][0];
    assert!(
        after["reason"].as_str().is_some_and(|reason| reason.contains("resumed after packet")),
        "{after}"
    );
}

#[test]
fn a_pause_keeps_the_link_and_sends_nothing() {
    let protected = Protected::start(Setup::default());
    let (run, mount) = (protected.run.clone(), protected.mount.clone());
    under_load(&mount, |rounds| {
        wait_for_rounds(rounds, 100);
        let since = status(&run)["connections"][0]["link"]["connected_unix_ms"].clone();
        let paused = change(&run, &["pause", &format!("local:{}", protected.replica.display())]);
        assert_eq!(paused["connection"]["state"], "paused", "{paused}");
        let sent = status(&run)["connections"][0]["sent"].clone();
        wait_for_rounds(rounds, 200);
        // Longer than heartbeats may be missed.
        std::thread::sleep(Duration::from_secs(10));
        let held = &status(&run)["connections"][0];
        assert_eq!((&held["sent"], &held["state"]), (&sent, &Value::from("paused")), "{held}");
        assert_eq!(held["link"]["connected_unix_ms"], since, "the link was lost: {held}");
        assert!(held["queued"]["packets"].as_u64() > Some(200), "{held}");
        let resumed = change(&run, &["resume"]);
        assert_eq!(resumed["connection"]["state"], "started", "{resumed}");
        wait_for_rounds(rounds, 50);
    });
    assert!(protected.assert_in_sync().objects > 60);
    let after = &status(&run)["connections"][0];
    assert_eq!(after["resent"]["packets"], 0, "nothing was sent again: {after}");
}

#[test]
fn a_disconnected_target_is_gone_and_programs_go_on() {
    let mut protected = Protected::start(Setup::default());
    let (run, mount) = (protected.run.clone(), protected.mount.clone());
    fs::write(mount.join("before"), "x").expect("a write");
    protected.wait_sync();
    let list = change(&run, &["list"]);
    assert_eq!((&list["connections"][0]["id"], &list["state_bits"][0]), (&Value::from(1), &Value::from(1)));
    let uuid = list["connections"][0]["uuid"].as_str().expect("a UUID").to_owned();
    says(&connection(&run, &["stop", "2"]), &["There is no connection '2'", &uuid]);
    under_load(&mount, |rounds| {
        wait_for_rounds(rounds, 50);
        let gone = connection(&run, &["disconnect", &uuid[..10]]);
        assert!(gone.status.success(), "{}", describe(&gone));
        wait_for_rounds(rounds, 50);
    });
    fs::write(mount.join("after"), "x").expect("a write");
    let status = status(&run);
    assert_eq!(status["connections"], Value::Array(Vec::new()), "{status}");
    assert_eq!((&status["queue"]["packets"], &status["queue"]["bytes"]), (&Value::from(0), &Value::from(0)));
    assert_eq!(status["severity"], "warning", "{status}");
    assert!(!protected.replica.join("after").exists());
    for arguments in [&["connection", "start"][..], &["wait-sync"]] {
        let output = output_within(standin(&run).args(arguments), COMMAND_MAX);
        assert_eq!(output.status.code(), Some(2), "{}", describe(&output));
        says(&output, &["There is no connection"]);
    }
    says(&connection(&run, &["list"]), &["nothing is replicated"]);
    protected.stop();
    protected.start_again();
    assert_eq!(change(&run, &["list"])["connections"][0]["uuid"], uuid.as_str(), "the same connection");
    assert!(protected.assert_in_sync().objects > 60);
}

/// Programs never wait for a connection that is stopped by hand.
fn a_full_queue_lets_go(how: &str, word: &str, back: &str) {
    let arguments = vec!["--queue-memory", "32M", "--queue-disk-limit", "0"];
    let mut protected = Protected::start(Setup { arguments, ..Setup::default() });
    let (run, mount) = (protected.run.clone(), protected.mount.clone());
    fs::write(mount.join("before"), "x").expect("a write");
    protected.wait_sync();
    change(&run, &[how]);
    let mut file = File::create(mount.join("large")).expect("a file");
    for _ in 0..96 {
        file.write_all(&vec![3; 1 << 20]).expect("programs go on");
    }
    drop(file);
    wait_for(&run, word, |connection| connection["state"] == word && connection["needs_copy"] == true);
    let held = status(&run);
    let let_go = &held["connections"][0];
    assert_eq!((&held["severity"], &held["queue"]["packets"]), (&Value::from("critical"), &Value::from(0)));
    let reason = let_go["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("the queue became full") && reason.contains(word), "{reason}");
    // A prefix, if an old one: nothing of what came later.
    assert!(!protected.replica.join("large").exists());
    if how == "stop" {
        says(&connection(&run, &["resume"]), &["is stopped", "standin connection start 1"]);
    }
    let waited = output_within(standin(&run).arg("wait-sync"), COMMAND_MAX);
    says(&waited, &[&format!("it is {word}: `standin connection {back} 1`")]);
    // By itself, while the daemon goes on.
    change(&run, &[back]);
    protected.wait_in_line();
    assert!(protected.assert_in_sync().objects >= 2);
    protected.stop();
}

#[test]
fn a_stopped_connection_is_let_go_when_the_queue_is_full() {
    a_full_queue_lets_go("stop", "stopped", "start");
}

#[test]
fn a_paused_connection_is_let_go_when_the_queue_is_full() {
    a_full_queue_lets_go("pause", "paused", "resume");
}

/// A stop of the daemon waited its 30 s for a target that cannot come before it ends.
#[test]
fn the_end_does_not_wait_for_what_is_stopped() {
    let mut protected = Protected::start(Setup::default());
    let run = protected.run.clone();
    change(&run, &["stop"]);
    fs::write(protected.mount.join("only here"), "x").expect("a write");
    let began = Instant::now();
    let stopped = output_within(standin(&run).arg("stop"), COMMAND_MAX);
    assert!(began.elapsed() < Duration::from_secs(20), "after {:?}", began.elapsed());
    assert_eq!(stopped.status.code(), Some(1), "{}", describe(&stopped));
    says(&stopped, &["did not get there", "it is stopped"]);
    protected.forget_ended_with(&[3]);
    assert!(!protected.replica.join("only here").exists());
    protected.start_again();
    change(&run, &["start"]);
    protected.wait_in_line();
    assert!(protected.assert_in_sync().objects >= 1);
}

#[test]
fn syncs_do_not_count_a_target_that_is_held_back() {
    let arguments = vec!["--fsync=target", "--fsync-timeout", "1s"];
    let protected = Protected::start(Setup { arguments, ..Setup::default() });
    let run = protected.run.clone();
    let mut file = File::create(protected.mount.join("log")).expect("a file");
    let mut record = |number: u32| {
        writeln!(file, "record {number}").expect("a write");
        file.sync_all().map_err(|error| error.raw_os_error())
    };
    let on_replica = || fs::read_to_string(protected.replica.join("log")).unwrap_or_default();
    assert_eq!(record(1), Ok(()));
    for (hold, go_on) in [("stop", "start"), ("pause", "resume")] {
        change(&run, &[hold]);
        assert_eq!(record(2), Err(Some(libc::EIO)), "after {hold}");
        change(&run, &[go_on]);
        let deadline = Instant::now() + COMMAND_MAX;
        while record(3).is_err() {
            assert!(Instant::now() < deadline, "syncs still fail after {go_on}");
        }
        assert!(on_replica().ends_with("record 3\n"), "{}", on_replica());
    }
    // Nobody else is there whose word could count.
    change(&run, &["disconnect"]);
    assert_eq!(record(4), Err(Some(libc::EIO)));
    assert!(on_replica().ends_with("record 3\n"));
}

/// A source and a target daemon on this host, over loopback.
pub struct Loopback {
    pub source: Option<Daemon>,
    target: Option<Daemon>,
    port: u16,
    pub mount: PathBuf,
    _mounts: TempDir,
    base: TempDir,
}

impl Loopback {
    /// The target serves and the source is paired with it.
    pub fn paired() -> Loopback {
        require_host();
        let base = dir_on_disk();
        let mounts = tempfile::Builder::new().prefix("s").tempdir().expect("a temporary directory");
        let mount = mounts.path().join("m");
        fs::create_dir(&mount).expect("a directory");
        for dir in ["backing", "root", "source-run", "target-run"] {
            fs::create_dir(base.path().join(dir)).expect("a directory");
        }
        let free = std::net::UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
        let port = free.expect("a free port").port();
        let mut hosts = Loopback { source: None, target: None, port, mount, _mounts: mounts, base };
        hosts.serve();
        hosts.pair();
        hosts
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.base.path().join(name)
    }

    fn repset(&self) -> String {
        format!("standin://127.0.0.1:{}/web", self.port)
    }

    fn daemon(&self, side: &str) -> Command {
        let mut command = standin(&self.at(&format!("{side}-run")));
        command.arg("--state").arg(self.at(&format!("{side}-state")));
        command
    }

    fn serve(&mut self) {
        let mut command = self.daemon("target");
        command.arg("serve").arg("--root").arg(self.at("root"));
        command.args(["--listen", &format!("127.0.0.1:{}", self.port)]);
        let mut daemon = Daemon::spawn(command);
        daemon.wait_ready();
        self.target = Some(daemon);
    }

    fn signal_target(&self, signal: i32) {
        self.target.as_ref().expect("it serves").signal(signal);
    }

    fn end_target(&mut self, signal: i32) {
        let mut daemon = self.target.take().expect("it serves");
        daemon.signal(libc::SIGCONT);
        daemon.signal(signal);
        daemon.wait(COMMAND_MAX);
    }

    fn pair(&self) {
        let invited = output_within(self.daemon("target").args(["invite", "web"]), COMMAND_MAX);
        assert!(invited.status.success(), "{}", describe(&invited));
        let mut command = self.daemon("source");
        command.args(["pair", &self.repset()]).stdin(Stdio::piped()).stdout(Stdio::null());
        let mut child = command.spawn().expect("standin pair");
        child.stdin.take().expect("piped").write_all(&invited.stdout).expect("it reads the token");
        assert!(child.wait().expect("it ends").success());
    }

    fn protect_command(&self, side: &str) -> Command {
        let mut command = self.daemon(side);
        command.arg("protect").arg(&self.mount).arg("--backing").arg(self.at("backing"));
        command.args(crate::host::profile(&[]));
        command.args(["--to", &self.repset(), "--name", "here"]);
        command
    }

    pub fn begin_to_protect(&mut self) {
        self.source = Some(Daemon::spawn(self.protect_command("source")));
    }

    pub fn run(&self) -> PathBuf {
        self.at("source-run")
    }

    pub fn source_said(&self) -> String {
        self.source.as_ref().map(Daemon::said).unwrap_or_default()
    }

    #[track_caller]
    pub fn assert_in_sync(&self) {
        let mut command = standin(&self.run());
        let output = output_within(command.args(["wait-sync", "--timeout", "120s"]), SYNC_MAX);
        assert!(output.status.success(), "{}{}", describe(&output), self.source_said());
        tree::assert_same(&self.at("backing"), &self.at("root/web"));
    }

    /// Bytes of the files that the replica has.
    pub fn copied(&self) -> u64 {
        let Ok(entries) = fs::read_dir(self.at("root/web")) else { return 0 };
        entries.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len())).sum()
    }
}

impl Drop for Loopback {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let target = self.target.as_ref().map(Daemon::said).unwrap_or_default();
            eprintln!("--- source:\n{}\n--- target:\n{target}", self.source_said());
        }
        for mut daemon in [self.source.take(), self.target.take()].into_iter().flatten() {
            daemon.signal(libc::SIGKILL);
            daemon.wait(COMMAND_MAX);
        }
        clear_mounts(&self.mount);
    }
}

const MIB: u64 = 1 << 20;
/// What the first copy has to carry.
const TREE: u64 = 320 * MIB;
/// What it may send for nothing when it is cut off: frames on their way, received and not
/// performed, and taken from the source (the windows of the link).
const WINDOWS: u64 = (16 + 16 + 1) * MIB;

/// A first copy that is cut off when half of it is there, and goes on when the target is back.
fn a_copy_goes_on(signal: i32) -> u64 {
    let _heavy = heavy();
    let mut hosts = Loopback::paired();
    for number in 0..TREE / (MIB / 4) {
        let content = number.to_le_bytes().repeat((MIB / 4 / 8) as usize);
        fs::write(hosts.at("backing").join(format!("file{number}")), content).expect("a file");
    }
    // What changed in the last two seconds before a copy is in doubt for it, and sent in any case.
    std::thread::sleep(Duration::from_secs(3));
    hosts.begin_to_protect();
    let deadline = Instant::now() + COMMAND_MAX;
    while hosts.copied() < TREE / 2 {
        assert!(Instant::now() < deadline, "the copy does not begin: {}", hosts.source_said());
        std::thread::sleep(Duration::from_millis(2));
    }
    hosts.signal_target(libc::SIGSTOP);
    assert!(hosts.copied() < TREE, "the copy was over before it was cut off");
    hosts.end_target(signal);
    wait_for(&hosts.run(), "lost", |connection| connection["link"].is_null());
    fs::write(hosts.mount.join("meanwhile"), "x").expect("programs go on");
    hosts.serve();
    fs::write(hosts.mount.join("after"), "x").expect("a write");
    hosts.assert_in_sync();
    status(&hosts.run())["connections"][0]["sent"]["bytes"].as_u64().expect("a number")
}

#[test]
fn a_first_copy_survives_a_kill_of_the_target() {
    a_copy_goes_on(libc::SIGKILL);
}

/// The start ended with an error, and the next one copied everything again.
#[test]
fn a_first_copy_does_not_send_again_what_is_there() {
    let sent = a_copy_goes_on(libc::SIGTERM);
    assert!(sent < TREE + WINDOWS, "{} MiB sent for a tree of {} MiB", sent / MIB, TREE / MIB);
}

/// Who had asked for an orderly stop could only wait for its 30 s.
fn a_drain_is_cut_short(hasten: impl FnOnce(&Daemon, &Path)) {
    let mut hosts = Loopback::paired();
    hosts.begin_to_protect();
    hosts.source.as_mut().expect("it runs").wait_ready();
    fs::write(hosts.mount.join("before"), "x").expect("a write");
    hosts.assert_in_sync();
    hosts.signal_target(libc::SIGSTOP);
    fs::write(hosts.mount.join("only here"), "x").expect("a write");
    let (run, mut source) = (hosts.run(), hosts.source.take().expect("it runs"));
    source.signal(libc::SIGTERM);
    let deadline = Instant::now() + COMMAND_MAX;
    while status(&run)["phase"] != "draining" {
        assert!(Instant::now() < deadline, "it does not drain: {}", source.said());
        std::thread::sleep(Duration::from_millis(20));
    }
    hasten(&source, &run);
    let ended = source.wait(COMMAND_MAX).and_then(|ended| ended.code());
    let said = source.said();
    assert_eq!(ended, Some(3), "{said}");
    for word in ["not waited for any longer", "did not get there"] {
        assert!(said.contains(word), "no '{word}' in:\n{said}");
    }
}

#[test]
fn a_second_signal_ends_a_drain() {
    a_drain_is_cut_short(|source, _| source.signal(libc::SIGTERM));
}

#[test]
fn a_stop_now_ends_a_drain() {
    a_drain_is_cut_short(|_, run| {
        let orderly = output_within(standin(run).arg("stop"), COMMAND_MAX);
        says(&orderly, &["is not serving at this moment", "standin stop --now"]);
        let now = output_within(standin(run).args(["stop", "--now"]), COMMAND_MAX);
        assert_eq!(now.status.code(), Some(1), "{}", describe(&now));
        says(&now, &["did not get there"]);
    });
}

#[test]
fn what_is_sent_again_is_counted_and_was_in_flight() {
    let mut hosts = Loopback::paired();
    hosts.begin_to_protect();
    hosts.source.as_mut().expect("it runs").wait_ready();
    fs::write(hosts.mount.join("before"), "x").expect("a write");
    hosts.assert_in_sync();
    let sent = || status(&hosts.run())["connections"][0]["sent"].clone();
    let number = |amount: &Value, what: &str| amount[what].as_u64().expect("a number");
    let before = sent();
    hosts.signal_target(libc::SIGSTOP);
    for file in 0..8 {
        fs::write(hosts.mount.join(format!("file{file}")), vec![5; 1 << 20]).expect("a write");
    }
    wait_for(&hosts.run(), "sending", |connection| {
        number(&connection["sent"], "bytes") > number(&before, "bytes") + (MIB / 2)
    });
    let mut daemon = hosts.target.take().expect("it serves");
    daemon.signal(libc::SIGKILL);
    daemon.wait(COMMAND_MAX);
    wait_for(&hosts.run(), "lost", |connection| connection["link"].is_null());
    let cut = status(&hosts.run())["connections"][0]["sent"].clone();
    hosts.serve();
    hosts.assert_in_sync();
    let after = status(&hosts.run())["connections"][0].clone();
    for what in ["packets", "bytes"] {
        let (again, in_flight) = (number(&after["resent"], what), number(&cut, what) - number(&before, what));
        assert!(again > 0 && again <= in_flight, "{what}: {again} again, {in_flight} in flight: {after}");
        assert!(number(&after["sent"], what) >= number(&cut, what) + again, "{what}: {after}");
    }
    eprintln!("sent again: {}, in flight at the cut: {cut} after {before}", after["resent"]);
}

/// `protect` reported these after its 15 s of patience, as if nobody had answered.
#[test]
fn refusals_are_told_at_once() {
    let mut hosts = Loopback::paired();
    // A host that knows the target and is not known there.
    fs::create_dir(hosts.at("stranger-state")).expect("a directory");
    fs::create_dir(hosts.at("stranger-run")).expect("a directory");
    fs::copy(hosts.at("source-state/targets.json"), hosts.at("stranger-state/targets.json")).expect("a copy");
    let refused_within = |side: &str, words: &[&str]| {
        let began = Instant::now();
        let output = output_within(&mut hosts.protect_command(side), COMMAND_MAX);
        assert!(!output.status.success(), "{}", describe(&output));
        says(&output, words);
        began.elapsed()
    };
    let took = refused_within("stranger", &["does not know this host's key", "do not take each other"]);
    assert!(took < Duration::from_secs(8), "after {took:?}");
    // Nobody listens: that is said at once, too, and tried for a while.
    hosts.end_target(libc::SIGTERM);
    let began = Instant::now();
    let mut source = Daemon::spawn(hosts.protect_command("source"));
    while !source.said().contains("nobody listens at 127.0.0.1") {
        assert!(began.elapsed() < Duration::from_secs(8), "not said: {}", source.said());
        std::thread::sleep(Duration::from_millis(20));
    }
    let status = source.wait(COMMAND_MAX);
    // Not 2, which service managers take for a refusal: it goes away when the target is up.
    assert_eq!(status.and_then(|status| status.code()), Some(1));
    assert!(source.said().contains("cannot be reached"), "{}", source.said());
    // Another target in its place.
    fs::remove_file(hosts.at("target-state/identity.key")).expect("the target's key");
    hosts.serve();
    let began = Instant::now();
    let output = output_within(&mut hosts.protect_command("source"), COMMAND_MAX);
    assert!(!output.status.success(), "{}", describe(&output));
    says(&output, &["shows the key", "is paired"]);
    assert!(began.elapsed() < Duration::from_secs(8), "after {:?}", began.elapsed());
}
