//! Two hosts: network namespaces with a cable between them, `serve` in one, `protect` in the
//! other, paired by the real commands.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode};
use tempfile::TempDir;

use crate::host::{
    self, COMMAND_MAX, Daemon, STOP_MAX, SYNC_MAX, clear_mounts, describe, output_within, run,
};
use crate::tree;

/// Addresses of the two ends of the cable.
const SOURCE: &str = "192.0.2.1";
const TARGET: &str = "192.0.2.2";
const REPSET: &str = "standin://192.0.2.2:7447/web";

/// Two network namespaces with a cable between them; gone on drop.
struct Cable {
    source: String,
    target: String,
}

impl Cable {
    fn lay() -> Cable {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        host::require_program("ip");
        host::require_program("nsenter");
        let name = |end: &str| format!("sd{}-{}{end}", std::process::id(), NUMBER.load(Relaxed));
        let cable = Cable { source: name("s"), target: name("t") };
        NUMBER.fetch_add(1, Relaxed);
        for end in [&cable.source, &cable.target] {
            ip(&["netns", "add", end]);
            ip(&["-n", end, "link", "set", "lo", "up"]);
        }
        let (source, target) = (cable.source.as_str(), cable.target.as_str());
        ip(&["-n", source, "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", target]);
        for (end, address) in [(source, SOURCE), (target, TARGET)] {
            ip(&["-n", end, "address", "add", &format!("{address}/24"), "dev", "cable"]);
            ip(&["-n", end, "link", "set", "cable", "up"]);
        }
        cable
    }

    fn cut(&self) {
        ip(&["-n", &self.target, "link", "set", "cable", "down"]);
    }

    fn mend(&self) {
        ip(&["-n", &self.target, "link", "set", "cable", "up"]);
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        for end in [&self.source, &self.target] {
            let _ = Command::new("ip").args(["netns", "delete", end]).stderr(Stdio::null()).status();
        }
    }
}

fn ip(arguments: &[&str]) {
    run(Command::new("ip").args(arguments));
}

/// A source host and a target host. Fields drop in order: daemons, then network, then directories.
struct Hosts {
    source: Option<Daemon>,
    target: Option<Daemon>,
    /// What targets that have ended said.
    target_said: String,
    serve_arguments: Vec<&'static str>,
    cable: Cable,
    _mounts: TempDir,
    mount: PathBuf,
    base: TempDir,
}

impl Hosts {
    /// Everything but the daemons.
    fn prepare() -> Hosts {
        host::require_host();
        let base = host::dir_on_disk();
        let mounts = tempfile::Builder::new().prefix("s").tempdir().expect("a temporary directory");
        let mount = mounts.path().join("m");
        fs::create_dir(&mount).expect("a directory");
        for dir in ["backing", "root", "source-run", "target-run"] {
            fs::create_dir(base.path().join(dir)).expect("a directory");
        }
        Hosts {
            source: None,
            target: None,
            target_said: String::new(),
            serve_arguments: Vec::new(),
            cable: Cable::lay(),
            _mounts: mounts,
            mount,
            base,
        }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.base.path().join(name)
    }

    fn backing(&self) -> PathBuf {
        self.at("backing")
    }

    fn replica(&self) -> PathBuf {
        self.at("root/web")
    }

    /// The product in the network namespace of one end. Not `ip netns exec`: that would give it a
    /// mount namespace of its own.
    fn standin(&self, end: &str, run: &str, state: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{end}")).arg(host::binary());
        command.arg("--run").arg(self.at(run)).arg("--state").arg(self.at(state));
        command
    }

    fn on_source(&self) -> Command {
        self.standin(&self.cable.source, "source-run", "source-state")
    }

    fn on_target(&self) -> Command {
        self.standin(&self.cable.target, "target-run", "target-state")
    }

    fn serve(&mut self) {
        assert!(self.target.is_none(), "it serves already");
        let mut command = self.on_target();
        command.arg("serve").arg("--root").arg(self.at("root")).args(&self.serve_arguments);
        let mut daemon = Daemon::spawn(command);
        daemon.wait_ready();
        self.target = Some(daemon);
    }

    fn kill_target(&mut self) {
        let mut daemon = self.target.take().expect("it serves");
        daemon.signal(libc::SIGKILL);
        daemon.wait(COMMAND_MAX);
        self.target_said += &daemon.said();
    }

    fn stop_target(&mut self) {
        let mut daemon = self.target.take().expect("it serves");
        daemon.signal(libc::SIGTERM);
        let status = daemon.wait(STOP_MAX);
        assert!(status.is_some_and(|status| status.success()), "serve: {status:?}\n{}", daemon.said());
        self.target_said += &daemon.said();
    }

    fn protect_command(&self) -> Command {
        let mut command = self.on_source();
        command.arg("protect").arg(&self.mount).arg("--backing").arg(self.backing());
        command.args(["--to", REPSET, "--name", "here"]);
        command
    }

    fn protect(&mut self) {
        let mut daemon = Daemon::spawn(self.protect_command());
        daemon.wait_ready();
        self.source = Some(daemon);
    }

    fn stop_source(&mut self) {
        let mut daemon = self.source.take().expect("it runs");
        daemon.signal(libc::SIGTERM);
        let status = daemon.wait(STOP_MAX);
        assert!(status.is_some_and(|status| status.success()), "protect: {status:?}\n{}", daemon.said());
    }

    /// A token for the set, as the command prints it.
    #[track_caller]
    fn invite(&self, arguments: &[&str]) -> Vec<u8> {
        let output = output_within(self.on_target().args(["invite", "web"]).args(arguments), COMMAND_MAX);
        assert!(output.status.success() && output.stdout.starts_with(b"standin1-"), "{}", describe(&output));
        output.stdout
    }

    /// Pairs as the host whose state is named, with the token on standard input.
    fn pair_as(&self, state: &str, target: &str, token: &[u8]) -> Output {
        let mut command = self.standin(&self.cable.source, "source-run", state);
        command.args(["pair", target]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("standin pair");
        child.stdin.take().expect("piped").write_all(token).expect("it reads the token");
        child.wait_with_output().expect("it ends")
    }

    #[track_caller]
    fn pair(&self) {
        let output = self.pair_as("source-state", REPSET, &self.invite(&[]));
        assert!(output.status.success(), "{}{}", describe(&output), self.said());
    }

    #[track_caller]
    fn assert_in_sync(&self) -> tree::Seen {
        let mut command = self.on_source();
        let output = output_within(command.args(["wait-sync", "--timeout", "120s"]), SYNC_MAX);
        assert!(output.status.success(), "{}{}", describe(&output), self.said());
        tree::assert_same(&self.backing(), &self.replica())
    }

    fn status(&self, mut command: Command) -> serde_json::Value {
        let output = output_within(command.args(["status", "--json"]), COMMAND_MAX);
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", describe(&output)))
    }

    /// Waits until the source says this of its connection.
    #[track_caller]
    fn wait_for_source(&self, what: &str, is_so: impl Fn(&serde_json::Value) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let status = self.status(self.on_source());
            if is_so(&status["connections"][0]) {
                return;
            }
            assert!(Instant::now() < deadline, "never {what}: {status}\n{}", self.said());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// When the connection came up that is up now.
    fn connected_since(&self) -> Option<u64> {
        let since = self.status(self.on_source())["connections"][0]["link"]["connected_unix_ms"].as_u64();
        since.or_else(|| panic!("not connected\n{}", self.said()))
    }

    /// The source that was there first goes on.
    #[track_caller]
    fn assert_goes_on(&self) {
        let mut command = self.on_source();
        let output = output_within(command.args(["wait-sync", "--timeout", "60s"]), SYNC_MAX);
        assert!(output.status.success(), "{}{}", describe(&output), self.said());
    }

    fn target_said(&self) -> String {
        self.target_said.clone() + &self.target.as_ref().map(Daemon::said).unwrap_or_default()
    }

    fn said(&self) -> String {
        let source = self.source.as_ref().map(Daemon::said).unwrap_or_default();
        format!("--- source:\n{source}\n--- target:\n{}", self.target_said())
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.said());
        }
        for mut daemon in [self.source.take(), self.target.take()].into_iter().flatten() {
            daemon.signal(libc::SIGKILL);
            daemon.wait(COMMAND_MAX);
        }
        clear_mounts(&self.mount);
    }
}

/// Writes, renames, links and removes until the end is asked for; counts its rounds.
fn work(root: &Path, number: u64, end: &AtomicBool, rounds: &AtomicU64) {
    let dir = root.join(format!("work{number}"));
    fs::create_dir_all(&dir).expect("a directory");
    let file = |round: u64, name: &str| dir.join(format!("{name}{}", round % 40));
    let mut round = 0;
    while !end.load(Relaxed) {
        round += 1;
        fs::write(file(round, "new"), round.to_string().repeat(700)).expect("a write");
        fs::rename(file(round, "new"), file(round, "kept")).expect("a rename");
        // The third name of a swap: done twice, it would lose a file.
        if round > 40 {
            let (one, other, third) = (file(round, "kept"), file(round + 7, "kept"), dir.join("third"));
            fs::rename(&one, &third).expect("a rename");
            fs::rename(&other, &one).expect("a rename");
            fs::rename(&third, &other).expect("a rename");
        }
        if round % 5 == 0 {
            let link = file(round, "link");
            let _ = fs::remove_file(&link);
            fs::hard_link(file(round, "kept"), &link).expect("a link");
        }
        rounds.fetch_add(1, Relaxed);
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Runs `during` while two writers work; gives the rounds that they made.
fn under_load(root: &Path, during: impl FnOnce(&AtomicU64)) -> u64 {
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
    rounds.load(Relaxed)
}

/// What is there before, with what a target has to be allowed.
fn fill(root: &Path) {
    fs::create_dir_all(root.join("before/deep")).expect("directories");
    for i in 0..50 {
        fs::write(root.join(format!("before/deep/{i}")), format!("{i} ").repeat(i * 200)).expect("a file");
    }
    fs::write(root.join("tool"), "x").expect("a file");
    fs::set_permissions(root.join("tool"), fs::Permissions::from_mode(0o4755)).expect("a mode");
    let null = rustix::fs::makedev(1, 3);
    rustix::fs::mknodat(CWD, root.join("null"), FileType::CharacterDevice, Mode::from_raw_mode(0o666), null)
        .expect("a device node");
}

#[test]
fn two_hosts_stay_identical_through_cuts_kills_and_stops() {
    let _heavy = host::heavy();
    let mut hosts = Hosts::prepare();
    hosts.serve_arguments = vec!["--allow", "device,setuid,security"];
    fill(&hosts.backing());
    hosts.serve();
    hosts.pair();
    hosts.protect();
    let mount = hosts.mount.clone();
    under_load(&mount, |_| std::thread::sleep(Duration::from_secs(1)));
    assert!(hosts.assert_in_sync().objects > 100);
    a_cut_cable_is_made_good(&hosts);
    for _ in 0..4 {
        under_load(&mount, |_| {
            std::thread::sleep(Duration::from_millis(700));
            let before = hosts.connected_since();
            hosts.kill_target();
            std::thread::sleep(Duration::from_millis(200));
            hosts.serve();
            hosts.wait_for_source("back after a kill", |connection| {
                connection["link"]["connected_unix_ms"].as_u64() > before
            });
        });
        hosts.assert_in_sync();
    }
    hosts.stop_target();
    fs::write(mount.join("meanwhile"), "while the target is away").expect("a write");
    hosts.serve();
    hosts.assert_in_sync();
    let target = hosts.status(hosts.on_target());
    assert_eq!(target["target"]["replicas"][0]["data"], "good", "{target}");
    assert_eq!(
        target["target"]["replicas"][0]["connected"]["fingerprint"],
        hosts.status(hosts.on_source())["fingerprint"]
    );
    hosts.stop_source();
    hosts.stop_target();
    tree::assert_same(&hosts.backing(), &hosts.replica());
}

/// Longer than it takes to notice: three heartbeats of 3 s. Applications go on.
fn a_cut_cable_is_made_good(hosts: &Hosts) {
    under_load(&hosts.mount, |rounds| {
        std::thread::sleep(Duration::from_millis(300));
        hosts.cable.cut();
        let before = rounds.load(Relaxed);
        std::thread::sleep(Duration::from_secs(2));
        let during = rounds.load(Relaxed);
        assert!(during > before + 50, "applications stood still: {before} then {during} rounds");
        hosts.wait_for_source("lost", |connection| connection["state"] == "error");
        hosts.cable.mend();
        hosts.wait_for_source("back after a cut", |connection| !connection["link"].is_null());
    });
    hosts.assert_in_sync();
}

#[track_caller]
fn refuses(output: &Output, word: &str) {
    let said = describe(output);
    assert!(!output.status.success() && said.contains(word), "no '{word}' in:\n{said}");
}

#[test]
fn tokens_that_are_wrong_used_or_expired_pair_nobody() {
    let mut hosts = Hosts::prepare();
    hosts.serve();
    let not_paired = output_within(&mut hosts.protect_command(), COMMAND_MAX);
    refuses(&not_paired, "is not paired with");
    refuses(&not_paired, "standin invite web");
    let short_lived = hosts.invite(&["--expires", "1s"]);
    let token = hosts.invite(&[]);
    refuses(&hosts.pair_as("source-state", "standin://192.0.2.2:7447/other", &token), "is for the set 'web'");
    let mut slip = token.clone();
    slip[60] = if slip[60] == b'0' { b'1' } else { b'0' };
    refuses(&hosts.pair_as("source-state", REPSET, &slip), "mistyped");
    let paired = hosts.pair_as("source-state", REPSET, &token);
    assert!(paired.status.success(), "{}", describe(&paired));
    // The same host may come again, another one may not.
    assert!(hosts.pair_as("source-state", REPSET, &token).status.success());
    refuses(&hosts.pair_as("stranger-state", REPSET, &token), "used by another host");
    std::thread::sleep(Duration::from_millis(1100));
    refuses(&hosts.pair_as("stranger-state", REPSET, &short_lived), "expired");
    assert!(!hosts.at("stranger-state/targets.json").exists());
    let said = hosts.target_said();
    for word in ["refused to pair key", "used by another host", "the token has expired", "may send 'web'"] {
        assert!(said.contains(word), "no '{word}' in:\n{said}");
    }
    // Of another target: its key is not the one that the token names.
    hosts.stop_target();
    fs::remove_file(hosts.at("target-state/identity.key")).expect("the target's key");
    hosts.serve();
    refuses(&hosts.pair_as("source-state", REPSET, &token), "but the token names");
}

#[test]
fn only_what_is_paired_is_taken_and_revoking_cuts() {
    let mut hosts = Hosts::prepare();
    fill(&hosts.backing());
    hosts.serve();
    hosts.pair();
    // Who knows where the target is and what key it has is still a stranger.
    fs::create_dir(hosts.at("stranger-state")).expect("a directory");
    fs::copy(hosts.at("source-state/targets.json"), hosts.at("stranger-state/targets.json")).expect("a copy");
    let other = hosts.at("other");
    fs::create_dir(&other).expect("a directory");
    let stranger = hosts.standin(&hosts.cable.source, "stranger-run", "stranger-state");
    refuses(&protect(stranger, &other, REPSET), "does not know this host's key");
    // Nor may a paired host send another set, or another directory as this set.
    let forged = fs::read_to_string(hosts.at("source-state/targets.json")).expect("targets");
    let forged = forged.replace("7447/web", "7447/else");
    fs::create_dir(hosts.at("forged-state")).expect("a directory");
    fs::copy(hosts.at("source-state/identity.key"), hosts.at("forged-state/identity.key")).expect("a copy");
    fs::write(hosts.at("forged-state/targets.json"), forged).expect("targets");
    let forger = hosts.standin(&hosts.cable.source, "forged-run", "forged-state");
    refuses(&protect(forger, &other, "standin://192.0.2.2:7447/else"), "may not send the set 'else'");
    hosts.protect();
    hosts.stop_source();
    refuses(&protect(hosts.on_source(), &other, REPSET), "is the replica of another source's set");
    let said = hosts.target_said();
    for word in ["is not paired with this host", "may not send the set 'else'", "another source's set"] {
        assert!(said.contains(word), "no '{word}' in:\n{said}");
    }
    hosts.protect();
    a_twin_is_kept_out(&hosts);
    revoked_and_paired_again(&hosts);
    hosts.stop_source();
}

/// A copy of the source's host, with the same set and a pairing of its own: not both at a time.
fn a_twin_is_kept_out(hosts: &Hosts) {
    let twin = hosts.at("twin");
    fs::create_dir(&twin).expect("a directory");
    let mut set = [0; 32];
    rustix::fs::getxattr(hosts.backing(), "trusted.standin.set", &mut set).expect("the set's id");
    rustix::fs::setxattr(&twin, "trusted.standin.set", &set, rustix::fs::XattrFlags::empty())
        .expect("an xattr");
    let paired = hosts.pair_as("twin-state", REPSET, &hosts.invite(&[]));
    assert!(paired.status.success(), "{}", describe(&paired));
    let command = hosts.standin(&hosts.cable.source, "twin-run", "twin-state");
    refuses(&protect(command, &twin, REPSET), "another source (key");
    assert!(hosts.target_said().contains("is connected to 'web'"), "{}", hosts.target_said());
    hosts.assert_goes_on();
}

fn revoked_and_paired_again(hosts: &Hosts) {
    let key = hosts.status(hosts.on_source())["fingerprint"].as_str().expect("a key").to_owned();
    let listed = run(hosts.on_target().args(["peers", "list"]));
    assert!(String::from_utf8_lossy(&listed.stdout).contains(&key), "{}", describe(&listed));
    run(hosts.on_target().args(["peers", "revoke", &key[..12], "web"]));
    let unknown = "does not know this host's key";
    hosts.wait_for_source("refused", |connection| {
        connection["reason"].as_str().is_some_and(|reason| reason.contains(unknown))
    });
    assert!(hosts.target_said().contains("the pairing was revoked"), "{}", hosts.target_said());
    let before = fs::read_dir(hosts.replica()).expect("the replica").count();
    fs::write(hosts.mount.join("after the revocation"), "x").expect("applications go on");
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(fs::read_dir(hosts.replica()).expect("the replica").count(), before);
    // A new token, and the running source goes on where it was.
    hosts.pair();
    hosts.wait_for_source("back", |connection| !connection["link"].is_null());
    let output = output_within(hosts.on_source().args(["wait-sync", "--timeout", "60s"]), SYNC_MAX);
    assert!(output.status.success(), "{}", describe(&output));
    assert!(hosts.replica().join("after the revocation").exists());
    // Without --allow: placeholder and mode, counted, never an error.
    assert!(fs::symlink_metadata(hosts.replica().join("null")).expect("a placeholder").is_file());
    let withheld = &hosts.status(hosts.on_target())["target"]["replicas"][0]["withheld"];
    assert!(
        withheld["devices"].as_u64() > Some(0) && withheld["setuid_bits"].as_u64() > Some(0),
        "{withheld}"
    );
}

fn protect(mut command: Command, dir: &Path, target: &str) -> Output {
    output_within(command.arg("protect").arg(dir).args(["--to", target]), COMMAND_MAX)
}

/// `--fsync=target` when the other host freezes or dies: late syncs fail, later ones are kept.
#[test]
fn syncs_wait_for_a_target_that_is_away_and_fail_in_time() {
    let mut hosts = Hosts::prepare();
    hosts.serve();
    hosts.pair();
    let mut command = hosts.protect_command();
    command.args(["--fsync=target", "--fsync-timeout", "2s"]);
    let mut daemon = Daemon::spawn(command);
    daemon.wait_ready();
    hosts.source = Some(daemon);
    let mut file = fs::File::create(hosts.mount.join("log")).expect("a file");
    let mut written = String::new();
    let mut record = || {
        let record = format!("record {}\n", written.len());
        file.write_all(record.as_bytes()).expect("a write");
        written += &record;
        let began = Instant::now();
        (file.sync_all().map_err(|error| error.raw_os_error()), began.elapsed(), written.clone())
    };
    let on_replica = |hosts: &Hosts| fs::read_to_string(hosts.replica().join("log")).unwrap_or_default();

    let (outcome, _, content) = record();
    assert_eq!(outcome, Ok(()), "{}", hosts.said());
    assert_eq!(on_replica(&hosts), content);

    hosts.target.as_ref().expect("it serves").signal(libc::SIGSTOP);
    let (outcome, took, _) = record();
    assert_eq!(outcome, Err(Some(libc::EIO)));
    assert!(took >= Duration::from_millis(1900) && took < Duration::from_secs(8), "after {took:?}");
    let alerts = hosts.status(hosts.on_source())["alerts"].to_string();
    assert!(alerts.contains("fsync_timed_out"), "{alerts}");
    hosts.target.as_ref().expect("it serves").signal(libc::SIGCONT);
    hosts.wait_for_syncs();
    let (outcome, _, content) = record();
    assert_eq!(outcome, Ok(()), "{}", hosts.said());
    assert_eq!(on_replica(&hosts), content);

    hosts.kill_target();
    let (outcome, ..) = record();
    assert_eq!(outcome, Err(Some(libc::EIO)));
    hosts.serve();
    hosts.wait_for_syncs();
    let (outcome, _, content) = record();
    hosts.kill_target();
    assert_eq!(outcome, Ok(()), "{}", hosts.said());
    assert_eq!(on_replica(&hosts), content);
    drop(file);
    hosts.serve();
    hosts.wait_for_source("back", |connection| !connection["link"].is_null());
    hosts.stop_source();
    tree::assert_same(&hosts.backing(), &hosts.replica());
}

impl Hosts {
    /// Waits until syncs go through again.
    #[track_caller]
    fn wait_for_syncs(&self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let status = self.status(self.on_source());
            if status["fsync"]["failing_since_unix_ms"].is_null() {
                return;
            }
            assert!(Instant::now() < deadline, "syncs still fail: {status}\n{}", self.said());
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}
