//! Two hosts on which commands are typed as they stand on a page: each with a root, disks, network
//! and processes of its own.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::page::{self, Side};
use crate::host::{self, Daemon, describe, output_within, run};
use crate::hosts::cable::Cable;

/// For one command, on a machine that is busy with other tests: it is there against hangs.
const PATIENCE: Duration = Duration::from_secs(400);

/// Bytes of a disk, most of them holes.
const DISK: u64 = 512 << 20;

/// Fields drop in order: hosts before the network and the directory of their disks.
pub struct Stage {
    source: Host,
    target: Host,
    _cable: Cable,
    _base: TempDir,
}

impl Stage {
    pub fn set() -> Stage {
        host::require_host();
        for program in ["bash", "mkfs.ext4", "nsenter", "pivot_root", "unshare"] {
            host::require_program(program);
        }
        let (base, cable) = (host::dir_on_disk(), Cable::lay());
        // What is carried from host to host lies here, and what a page takes out of the repository.
        let work = base.path().join("work");
        fs::create_dir(&work).expect("a directory");
        run(Command::new("cp").arg("-r").arg(page::repository().join("packaging")).arg(&work));
        let [source, target] = [("source", &cable.source), ("target", &cable.target)]
            .map(|(name, network)| Host::start(base.path(), &work, name, network));
        Stage { source, target, _cable: cable, _base: base }
    }

    /// Types a line and waits for what comes of it. `place` is the page and the line's number.
    pub fn enter(&mut self, side: Side, place: &str, line: &str) {
        let line = self.filled_in(line);
        println!("{place}: {line}");
        let host = match side {
            Side::Source => &mut self.source,
            Side::Target => &mut self.target,
        };
        match stays_in_the_foreground(&line) {
            Some("failback") => return host.hand_over(place, &line),
            Some(kind) => return host.start_daemon(kind, place, &line),
            None => {}
        }
        let output = output_within(&mut host.shell(&line), PATIENCE);
        if !output.status.success() {
            panic!("{place}: {line}: {}\n{}", describe(&output), self.said());
        }
        host.notice_an_end(place, &line);
    }

    /// Whatever waits for another host has come to its end.
    pub fn finish(&mut self) {
        for host in [&mut self.source, &mut self.target] {
            if let Some(mut waits) = host.daemons.remove("failback") {
                let status = waits.wait(PATIENCE);
                assert!(status.is_some_and(|status| status.success()), "{status:?}\n{}", waits.said());
            }
        }
    }

    /// `KEY`: what is not known before.
    fn filled_in(&self, line: &str) -> String {
        if !line.split(' ').any(|word| word == "KEY") {
            return line.to_owned();
        }
        let output: Output = output_within(&mut self.target.shell("standin peers list --json"), PATIENCE);
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let key = json["pairings"][0]["fingerprint"].as_str().expect("a key");
        line.replace("KEY", key)
    }

    fn said(&self) -> String {
        format!("--- source:\n{}\n--- target:\n{}", self.source.said(), self.target.said())
    }
}

/// Which daemon a line starts.
fn stays_in_the_foreground(line: &str) -> Option<&'static str> {
    let command = line.strip_prefix("cargo run --release -- ").or_else(|| line.strip_prefix("standin "))?;
    match command.split(' ').next()? {
        "protect" => Some("protect"),
        "serve" => Some("serve"),
        // From then on it is what `protect` is.
        "failover" if !command.contains("--dry-run") => Some("protect"),
        "failback" if !command.contains("--dry-run") => Some("failback"),
        _ => None,
    }
}

/// Namespaces with a first process; everything in them ends with it.
struct Host {
    init: Child,
    /// The first process goes when it is closed, also where this one is killed.
    life: Option<ChildStdin>,
    pid: String,
    daemons: BTreeMap<&'static str, Daemon>,
}

impl Host {
    fn start(base: &Path, work: &Path, name: &str, network: &str) -> Host {
        let disk = |what: &str| {
            let path = base.join(format!("{name}-{what}.image"));
            fs::File::create_new(&path).and_then(|file| file.set_len(DISK)).expect("an image file");
            run(Command::new(host::require_program("mkfs.ext4")).arg("-q").arg(&path));
            path
        };
        let root = base.join(format!("{name}-root"));
        fs::create_dir(&root).expect("a directory");
        let script = page::repository().join("fuse-tests/docs/host.sh");
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{network}"));
        command.args([
            "unshare",
            "--mount",
            "--propagation",
            "private",
            "--pid",
            "--fork",
            "--kill-child",
            "sh",
        ]);
        command.arg(script).arg(disk("root")).arg(disk("backup")).arg(root).arg(work).arg(host::binary());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut init = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let life = init.stdin.take();
        let mut said = String::new();
        let stdout = init.stdout.take().expect("piped");
        BufReader::new(stdout).read_line(&mut said).expect("a pipe");
        let id = init.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
        let host = Host { init, life, pid: children.trim().to_owned(), daemons: BTreeMap::new() };
        assert!(said == "up\n" && !host.pid.is_empty(), "the host of the {name} did not come up: '{said}'");
        host
    }

    /// The line in a shell of this host, in the directory that both have.
    fn shell(&self, line: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.pid, "--net", "--mount", "--pid", "--root"]);
        command.args(["env", "-i", "HOME=/root", "PATH=/opt/bin:/usr/bin:/bin:/usr/sbin:/sbin"]);
        command.args(["sh", "-c", r#"cd /work && exec bash -e -o pipefail -c "$0""#, line]);
        command
    }

    fn start_daemon(&mut self, kind: &'static str, place: &str, line: &str) {
        assert!(!self.daemons.contains_key(kind), "{place}: the page has not stopped `{kind}` before");
        let mut daemon = Daemon::spawn(self.shell(&format!("exec {line}")));
        daemon.wait_ready_within(PATIENCE);
        self.daemons.insert(kind, daemon);
    }

    /// The next line is typed when it waits for the other host; then the daemon of here has ended.
    fn hand_over(&mut self, place: &str, line: &str) {
        let waits = Daemon::spawn(self.shell(&format!("exec {line}")));
        let deadline = Instant::now() + PATIENCE;
        while !waits.said().contains("handed over; on the host of") {
            assert!(Instant::now() < deadline, "{place}: {line}: {}", waits.said());
            std::thread::sleep(Duration::from_millis(50));
        }
        self.daemons.insert("failback", waits);
        self.notice_an_end(place, "standin stop");
    }

    /// After `standin stop` the daemon that was meant has ended well.
    fn notice_an_end(&mut self, place: &str, line: &str) {
        let Some(which) = line.strip_prefix("standin stop") else { return };
        let kind = if which.split(' ').any(|word| word == "serve") { "serve" } else { "protect" };
        let mut daemon =
            self.daemons.remove(kind).unwrap_or_else(|| panic!("{place}: nothing was there to stop"));
        let status = daemon.wait(PATIENCE);
        assert!(status.is_some_and(|status| status.success()), "{place}: {status:?}\n{}", daemon.said());
    }

    fn said(&self) -> String {
        let said: Vec<String> =
            self.daemons.iter().map(|(kind, daemon)| format!("{kind}:\n{}", daemon.said())).collect();
        said.join("\n")
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        drop(self.life.take());
        let _ = self.init.kill();
        let _ = self.init.wait();
    }
}

#[test]
fn daemons_are_told_from_commands() {
    assert_eq!(
        stays_in_the_foreground("cargo run --release -- protect /srv/data --to null:"),
        Some("protect")
    );
    assert_eq!(stays_in_the_foreground("standin serve --root /backup"), Some("serve"));
    assert_eq!(stays_in_the_foreground("standin failover web --at /srv/web --yes"), Some("protect"));
    assert_eq!(stays_in_the_foreground("standin failback web --yes"), Some("failback"));
    let looks = "standin failover web --at /srv/web --dry-run";
    for ends in ["standin stop serve", "standin status", "echo standin protect", looks] {
        assert_eq!(stays_in_the_foreground(ends), None, "{ends}");
    }
}
