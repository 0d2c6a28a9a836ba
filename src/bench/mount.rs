//! A mount that another process serves; it ends with its guard.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::mount::UnmountFlags;

use super::error::{Error, Result};
use super::process::{POLL, Process};
use crate::control::{self, Client, ConnectionStatus, Phase, Status, WaitFor};
use crate::packet::DataState;
use crate::preflight::MountTable;

/// How long the replica may take to have everything.
const SYNC_PATIENCE: Duration = Duration::from_secs(600);

/// How long one question waits for everything, so that a signal is seen in time.
const SYNC_SLICE: Duration = Duration::from_secs(1);

/// The process and its mount point.
pub struct Mount {
    process: Process,
    point: PathBuf,
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
    /// Of `protect`.
    pub options: &'a [&'a str],
}

impl Mount {
    /// Starts a daemon and waits until it serves and its replica, if any, is in line.
    pub fn protect(protection: &Protection<'_>, stop: &AtomicBool) -> Result<Mount> {
        Mount::start(protection, stop, is_ready)
    }

    /// Starts a daemon and waits until it serves.
    pub fn serving(protection: &Protection<'_>, stop: &AtomicBool) -> Result<Mount> {
        Mount::start(protection, stop, |status| status.phase == Phase::Serving)
    }

    fn start(protection: &Protection<'_>, stop: &AtomicBool, is_there: fn(&Status) -> bool) -> Result<Mount> {
        let run = protection.home.join("run");
        let mut command = Command::new(protection.program);
        command.arg("protect").arg(protection.point);
        command.arg("--backing").arg(protection.backing).arg("--to").arg(&protection.target);
        command.arg("--name").arg(protection.name);
        command.arg("--state").arg(protection.home.join("state")).arg("--run").arg(&run);
        command.args(protection.options);
        let log = protection.home.join(format!("{}.log", protection.name));
        let mut mount = Mount::spawn(command, protection.point, log)?;
        let socket = crate::words::socket_path(&run, protection.name);
        mount.socket = Some(socket.clone());
        mount.process.wait_until(stop, || {
            let status = Client::connect(&socket).and_then(|mut client| client.status());
            status.is_ok_and(|status| is_there(&status))
        })?;
        Ok(mount)
    }

    /// Waits until its replica is in line.
    pub fn wait_until_in_line(&self, stop: &AtomicBool) -> Result<()> {
        let deadline = Instant::now() + SYNC_PATIENCE;
        while !is_ready(&self.status()?) {
            if stop.load(Ordering::Relaxed) {
                return Err(Error::Interrupted);
            }
            if Instant::now() >= deadline {
                return Err(Error::Wrong("the replica does not come into line".into()));
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// Starts a program that passes everything through, and waits for its mount; `None` where it is
    /// not installed.
    pub fn passing(
        program: &Path,
        options: &[&str],
        point: &Path,
        backing: &Path,
        stop: &AtomicBool,
    ) -> Result<Option<Mount>> {
        let mut command = Command::new(program);
        command.args(options).arg(backing).arg(point);
        let mut mount = match Mount::spawn(command, point, point.with_extension("log")) {
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        mount.process.wait_until(stop, || is_mounted(point))?;
        Ok(Some(mount))
    }

    fn spawn(command: Command, point: &Path, log: PathBuf) -> Result<Mount> {
        let process = Process::spawn(command, &point.display().to_string(), log)?;
        Ok(Mount { process, point: point.to_owned(), socket: None })
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// What the daemon says of itself now.
    pub fn status(&self) -> Result<Status> {
        self.ask(|client| client.status())
    }

    /// Waits until the replica has all that was written before.
    pub fn wait_sync(&self, wait_for: WaitFor, stop: &AtomicBool) -> Result<()> {
        let deadline = Instant::now() + SYNC_PATIENCE;
        let wait = control::WaitSync { wait_for, timeout: Some(SYNC_SLICE) };
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
            Error::Wrong(format!(
                "the daemon gave no answer: {error}. Its log ends: {}",
                self.process.log_end()
            ))
        })
    }

    fn end(&mut self) -> io::Result<()> {
        self.process.end()?;
        if is_mounted(&self.point) {
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

fn is_mounted(point: &Path) -> bool {
    MountTable::read().is_ok_and(|mounts| mounts.at(point).is_some())
}

fn is_ready(status: &Status) -> bool {
    let in_line = |connection: &ConnectionStatus| {
        connection.kind == control::TargetKind::Null || connection.data == DataState::Good
    };
    status.phase == Phase::Serving && status.connections().iter().all(in_line)
}
