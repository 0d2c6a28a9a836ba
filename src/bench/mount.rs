//! A mount that another process serves; it ends with its guard.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::mount::UnmountFlags;
use rustix::process::{Pid, Signal, kill_process};

use super::error::{Context, Error, Result};
use crate::control::{self, Client, ConnectionStatus, Phase, Status};
use crate::failure::Failure;
use crate::packet::DataState;
use crate::preflight::MountTable;

/// How long a mount may take to come up.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// How long a daemon may take to drain, unmount and end.
const STOP_PATIENCE: Duration = Duration::from_secs(90);

/// How long the replica may take to have everything.
const SYNC_PATIENCE: Duration = Duration::from_secs(600);

/// How long one question waits for everything, so that a signal is seen in time.
const SYNC_SLICE: Duration = Duration::from_secs(1);

const POLL: Duration = Duration::from_millis(20);

/// The process and its mount point.
pub struct Mount {
    child: Child,
    point: PathBuf,
    log: PathBuf,
    /// Of a daemon of this product.
    socket: Option<PathBuf>,
}

/// A daemon of this product that is to be started.
pub struct Protection<'a> {
    /// The `standin` program.
    pub program: &'a Path,
    /// Name of the replication set.
    pub name: &'a str,
    pub point: &'a Path,
    pub backing: &'a Path,
    /// As `--to` takes it.
    pub target: std::ffi::OsString,
    /// Directory for its state, its sockets and its log.
    pub home: &'a Path,
}

impl Mount {
    /// Starts a daemon and waits until it serves and its replica, if any, is in line.
    pub fn protect(protection: &Protection<'_>, stop: &AtomicBool) -> Result<Mount> {
        let run = protection.home.join("run");
        let mut command = Command::new(protection.program);
        command.arg("protect").arg(protection.point);
        command.arg("--backing").arg(protection.backing).arg("--to").arg(&protection.target);
        command.arg("--name").arg(protection.name);
        command.arg("--state").arg(protection.home.join("state")).arg("--run").arg(&run);
        let log = protection.home.join(format!("{}.log", protection.name));
        let mut mount = Mount::spawn(command, protection.point, log)?;
        mount.socket = Some(control::socket_path(&run, protection.name));
        mount.wait_for_start(stop, |mount| mount.status().is_ok_and(|status| is_ready(&status)))?;
        Ok(mount)
    }

    /// Starts bindfs and waits for its mount; `None` where it is not installed.
    pub fn bindfs(point: &Path, backing: &Path, home: &Path, stop: &AtomicBool) -> Result<Option<Mount>> {
        let mut command = Command::new("bindfs");
        command.args(["-f", "--multithreaded"]).arg(backing).arg(point);
        let mut mount = match Mount::spawn(command, point, home.join("bindfs.log")) {
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        mount.wait_for_start(stop, Mount::is_mounted)?;
        Ok(Some(mount))
    }

    fn spawn(mut command: Command, point: &Path, log: PathBuf) -> Result<Mount> {
        let output = File::create(&log).at(&log)?;
        let errors = output.try_clone().at(&log)?;
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        let program = PathBuf::from(command.get_program());
        let child = crate::sys::spawn_bound(&mut command).at(&program)?;
        Ok(Mount { child, point: point.to_owned(), log, socket: None })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What the daemon says of itself now.
    pub fn status(&self) -> Result<Status> {
        self.ask(|client| client.status())
    }

    /// Waits until the replica has all that was written before.
    pub fn wait_sync(&self, stop: &AtomicBool) -> Result<()> {
        let deadline = Instant::now() + SYNC_PATIENCE;
        let wait = control::WaitSync { wait_for: control::WaitFor::Applied, timeout: Some(SYNC_SLICE) };
        loop {
            let report = self.ask(|client| client.wait_sync(wait))?;
            if report.complete {
                return Ok(());
            }
            if stop.load(Ordering::Relaxed) {
                return Err(Error::Interrupted);
            }
            if Instant::now() >= deadline {
                let waits: Vec<String> =
                    report.connections.into_iter().map(|connection| connection.waits_for).collect();
                return Err(Error::Wrong(format!("the replica does not follow: {}", waits.join("; "))));
            }
            // A daemon that knows that it cannot follow now answers at once.
            std::thread::sleep(POLL);
        }
    }

    fn ask<T>(
        &self,
        question: impl FnOnce(&mut Client) -> std::result::Result<T, control::ClientError>,
    ) -> Result<T> {
        let socket = self.socket.as_deref().unwrap_or(&self.point);
        let answer = Client::connect(socket).and_then(|mut client| question(&mut client));
        answer.map_err(|error| {
            Error::Wrong(format!("the daemon gave no answer: {error}. Its log ends: {}", self.log_end()))
        })
    }

    fn wait_for_start(&mut self, stop: &AtomicBool, ready: impl Fn(&Mount) -> bool) -> Result<()> {
        let deadline = Instant::now() + START_PATIENCE;
        while !ready(self) {
            let ended = self.child.try_wait().at(&self.point)?;
            if let Some(ended) = ended {
                return Err(self.refusal(&format!("ended ({ended})")));
            }
            if Instant::now() >= deadline {
                return Err(self.refusal(&format!("was not ready after {} s", START_PATIENCE.as_secs())));
            }
            if stop.load(Ordering::Relaxed) {
                return Err(Error::Interrupted);
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    fn refusal(&self, what: &str) -> Error {
        Error::Refused(Failure::new(
            format!("The process for {} {what}: {}", self.point.display(), self.log_end()),
            "What the benchmark made was removed, unless an error above says otherwise.",
            "Check this machine with `standin doctor`.",
        ))
    }

    /// The last lines of what the process said.
    fn log_end(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(8)..].join("\n")
    }

    fn is_mounted(&self) -> bool {
        MountTable::read().is_ok_and(|mounts| mounts.at(&self.point).is_some())
    }

    /// Asks the process to end, and makes sure that it and its mount are gone.
    fn end(&mut self) -> io::Result<()> {
        if self.child.try_wait()?.is_none() {
            // The pid is this child's until it is waited for.
            kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        }
        let deadline = Instant::now() + STOP_PATIENCE;
        while self.child.try_wait()?.is_none() {
            if Instant::now() >= deadline {
                log::error!("the process for {} did not end and is killed", self.point.display());
                self.child.kill()?;
                self.child.wait()?;
                break;
            }
            std::thread::sleep(POLL);
        }
        if self.is_mounted() {
            log::warn!("{} was still mounted", self.point.display());
            rustix::mount::unmount(&self.point, UnmountFlags::DETACH)?;
        }
        Ok(())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            log::error!("{} could not be taken away: {error}", self.point.display());
        }
    }
}

fn is_ready(status: &Status) -> bool {
    let in_line = |connection: &ConnectionStatus| {
        connection.kind == control::TargetKind::Null || connection.data == DataState::Good
    };
    status.phase == Phase::Serving && status.connections.iter().all(in_line)
}
