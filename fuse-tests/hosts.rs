//! Two hosts: network namespaces with a cable between them, `serve` in one, `protect` in the
//! other, paired by the real commands.

mod addresses;
mod begun;
pub mod cable;
mod doctor;
mod fans;
pub mod lag;
mod limited;
pub mod load;
mod monitored;
mod outages;
mod overloaded;
mod owners;
mod pairing;
mod paths;
mod power;
mod privileges;
pub mod proxy;
mod restored;
mod syncs;
mod weather;

use std::fs;
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::host::{self, COMMAND_MAX, Daemon, STOP_MAX, SYNC_MAX, clear_mounts, describe, output_within};
use crate::tree;
use cable::{Cable, ip};
use proxy::Proxy;

pub const REPSET: &str = "standin://192.0.2.2:7447/web";

/// A source host and a target host. Fields drop in order: daemons, then network, then directories.
pub struct Hosts {
    pub source: Option<Daemon>,
    pub target: Option<Daemon>,
    /// What targets that have ended said.
    target_said: String,
    pub serve_arguments: Vec<&'static str>,
    /// The target as the source names it.
    pub repset: String,
    /// What the source has for `/etc/hosts`.
    pub names: Option<PathBuf>,
    /// Where what the target has for `/etc/passwd` and `/etc/group` lies.
    pub accounts: Option<PathBuf>,
    pub cable: Cable,
    _mounts: TempDir,
    pub mount: PathBuf,
    pub base: TempDir,
}

impl Hosts {
    /// Everything but the daemons.
    pub fn prepare() -> Hosts {
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
            repset: REPSET.to_owned(),
            names: None,
            accounts: None,
            cable: Cable::lay(),
            _mounts: mounts,
            mount,
            base,
        }
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.base.path().join(name)
    }

    pub fn backing(&self) -> PathBuf {
        self.at("backing")
    }

    pub fn replica(&self) -> PathBuf {
        self.at("root/web")
    }

    /// The product in the network namespace of one end. Not `ip netns exec`: that would give it a
    /// mount namespace of its own.
    pub fn standin(&self, end: &str, run: &str, state: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{end}"));
        if let Some(names) = self.names.as_ref().filter(|_| end == self.cable.source) {
            let script = r#"mount --bind "$0" /etc/hosts && exec "$@""#;
            command.args(["unshare", "--mount", "--propagation", "private", "sh", "-c", script]).arg(names);
        }
        if let Some(accounts) = self.accounts.as_ref().filter(|_| end == self.cable.target) {
            let script =
                r#"mount --bind "$0/passwd" /etc/passwd && mount --bind "$0/group" /etc/group && exec "$@""#;
            command
                .args(["unshare", "--mount", "--propagation", "private", "sh", "-c", script])
                .arg(accounts);
        }
        command.arg(host::binary());
        command.arg("--run").arg(self.at(run)).arg("--state").arg(self.at(state));
        command
    }

    pub fn on_source(&self) -> Command {
        self.standin(&self.cable.source, "source-run", "source-state")
    }

    pub fn on_target(&self) -> Command {
        self.standin(&self.cable.target, "target-run", "target-state")
    }

    pub fn serve(&mut self) {
        assert!(self.target.is_none(), "it serves already");
        let mut command = self.on_target();
        command.arg("serve").arg("--root").arg(self.at("root")).args(&self.serve_arguments);
        let mut daemon = Daemon::spawn(command);
        daemon.wait_ready();
        self.target = Some(daemon);
    }

    pub fn kill_target(&mut self) {
        let mut daemon = self.target.take().expect("it serves");
        daemon.signal(libc::SIGKILL);
        daemon.wait(COMMAND_MAX);
        self.target_said += &daemon.said();
    }

    pub fn stop_target(&mut self) {
        let mut daemon = self.target.take().expect("it serves");
        daemon.signal(libc::SIGTERM);
        let status = daemon.wait(STOP_MAX);
        assert!(status.is_some_and(|status| status.success()), "serve: {status:?}\n{}", daemon.said());
        self.target_said += &daemon.said();
    }

    pub fn protect_command(&self) -> Command {
        let mut command = self.on_source();
        command.arg("protect").arg(&self.mount).arg("--backing").arg(self.backing());
        command.args(["--to", &self.repset, "--name", "here"]);
        command
    }

    pub fn protect(&mut self) {
        self.protect_with(&[]);
    }

    pub fn protect_with(&mut self, arguments: &[&str]) {
        let mut command = self.protect_command();
        command.args(arguments).args(host::profile(arguments));
        let mut daemon = Daemon::spawn(command);
        daemon.wait_ready();
        host::wait_in_line(|| self.on_source(), || daemon.said());
        self.source = Some(daemon);
    }

    pub fn kill_source(&mut self) {
        let mut daemon = self.source.take().expect("it runs");
        daemon.signal(libc::SIGKILL);
        daemon.wait(COMMAND_MAX);
    }

    pub fn stop_source(&mut self) {
        let mut daemon = self.source.take().expect("it runs");
        daemon.signal(libc::SIGTERM);
        let status = daemon.wait(STOP_MAX);
        assert!(status.is_some_and(|status| status.success()), "protect: {status:?}\n{}", daemon.said());
    }

    /// A token for the set, as the command prints it.
    #[track_caller]
    pub fn invite(&self, arguments: &[&str]) -> Vec<u8> {
        let output = output_within(self.on_target().args(["invite", "web"]).args(arguments), COMMAND_MAX);
        assert!(output.status.success() && output.stdout.starts_with(b"standin1-"), "{}", describe(&output));
        output.stdout
    }

    /// Pairs as the host whose state is named, with the token on standard input.
    pub fn pair_as(&self, state: &str, target: &str, token: &[u8]) -> Output {
        let mut command = self.standin(&self.cable.source, "source-run", state);
        command.args(["pair", target]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("standin pair");
        child.stdin.take().expect("piped").write_all(token).expect("it reads the token");
        child.wait_with_output().expect("it ends")
    }

    #[track_caller]
    pub fn pair(&self) {
        let output = self.pair_as("source-state", &self.repset, &self.invite(&[]));
        assert!(output.status.success(), "{}{}", describe(&output), self.said());
    }

    #[track_caller]
    pub fn assert_in_sync(&self) -> tree::Seen {
        self.assert_in_sync_by(&tree::Rules::default())
    }

    /// As [`Hosts::assert_in_sync`], by these rules.
    #[track_caller]
    pub fn assert_in_sync_by(&self, rules: &tree::Rules) -> tree::Seen {
        let mut command = self.on_source();
        let output = output_within(command.args(["wait-sync", "--timeout", "120s"]), SYNC_MAX);
        assert!(output.status.success(), "{}{}", describe(&output), self.said());
        tree::assert_same_by(&self.backing(), &self.replica(), rules)
    }

    pub fn status(&self, mut command: Command) -> serde_json::Value {
        let output = output_within(command.args(["status", "--json"]), COMMAND_MAX);
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", describe(&output)))
    }

    /// Waits until the source says this of its connection.
    #[track_caller]
    pub fn wait_for_source(&self, what: &str, is_so: impl Fn(&serde_json::Value) -> bool) {
        self.wait_for_connection(0, what, is_so);
    }

    /// Waits until the source says this of one of its connections, counted from 0.
    #[track_caller]
    pub fn wait_for_connection(&self, number: usize, what: &str, is_so: impl Fn(&serde_json::Value) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let status = self.status(self.on_source());
            if is_so(&status["connections"][number]) {
                return;
            }
            assert!(Instant::now() < deadline, "never {what}: {status}\n{}", self.said());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Puts a proxy between the hosts. Call it before they are paired.
    pub fn through_proxy(&mut self) -> Proxy {
        // As a cable has it: loopback would carry datagrams of 64 KiB.
        ip(&["-n", &self.cable.source, "link", "set", "lo", "mtu", "1500"]);
        let target = (cable::TARGET.parse::<Ipv4Addr>().expect("an address"), 7447).into();
        let proxy = Proxy::start(&self.cable.source, 7447, target);
        self.repset = format!("standin://{}/web", proxy.address);
        proxy
    }

    /// Serves, paired and protected, with nothing there before.
    pub fn connect(&mut self) {
        self.serve();
        self.pair();
        self.protect();
    }

    pub fn connection(&self) -> serde_json::Value {
        self.status(self.on_source())["connections"][0].take()
    }

    /// Waits until the stream goes on after a connection that was lost later than `before`.
    #[track_caller]
    pub fn wait_until_resumed(&self, before: Option<u64>) {
        self.wait_for_source("resumed", |connection| {
            connection["link"]["connected_unix_ms"].as_u64() > before
                && connection["reason"].as_str().is_some_and(|reason| reason.starts_with("resumed"))
        });
    }

    /// When the connection came up that is up now.
    pub fn connected_since(&self) -> Option<u64> {
        let since = self.status(self.on_source())["connections"][0]["link"]["connected_unix_ms"].as_u64();
        since.or_else(|| panic!("not connected\n{}", self.said()))
    }

    /// The source that was there first goes on.
    #[track_caller]
    pub fn assert_goes_on(&self) {
        let mut command = self.on_source();
        let output = output_within(command.args(["wait-sync", "--timeout", "60s"]), SYNC_MAX);
        assert!(output.status.success(), "{}{}", describe(&output), self.said());
    }

    pub fn target_said(&self) -> String {
        self.target_said.clone() + &self.target.as_ref().map(Daemon::said).unwrap_or_default()
    }

    pub fn said(&self) -> String {
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
