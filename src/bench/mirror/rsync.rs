//! An rsync daemon on the loopback interface, and copies to it.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use super::super::error::{Context, Result};
use super::super::load::run;
use super::super::process::{Process, family_time};
use super::{Copied, Work};
use crate::sys::usage_of_children;

/// What a copy has to keep: everything that this product keeps, too.
const OPTIONS: [&str; 4] = ["-aHAXS", "--numeric-ids", "--delete", "--inplace"];

/// Changes nothing, and reads everything.
const COMPARES: [&str; 2] = ["--dry-run", "--checksum"];

/// The daemon, and where its replicas are.
pub struct Daemon {
    process: Process,
    port: u16,
    pub replicas: PathBuf,
}

impl Daemon {
    pub fn start(home: &Path, stop: &AtomicBool) -> Result<Daemon> {
        let replicas = home.join("replicas");
        fs::create_dir(&replicas).at(&replicas)?;
        let port = free_port().at(home)?;
        let config = home.join("rsyncd.conf");
        let text = format!(
            "use chroot = no\nuid = 0\ngid = 0\nreverse lookup = no\npid file = {0}/rsyncd.pid\n\
             [replicas]\npath = {0}/replicas\nread only = no\n",
            home.display()
        );
        fs::write(&config, text).at(&config)?;
        let mut command = Command::new("rsync");
        command.args(["--daemon", "--no-detach", "--address=127.0.0.1"]);
        command.arg(format!("--port={port}")).arg(format!("--config={}", config.display()));
        let mut process = Process::spawn(command, "the rsync daemon", home.join("rsyncd.log"))?;
        process.wait_until(stop, || TcpStream::connect(("127.0.0.1", port)).is_ok())?;
        Ok(Daemon { process, port, replicas })
    }

    /// Copies a tree into the replica of this name, until that is durable, or compares them.
    pub fn perform(&self, work: Work, source: &Path, name: &str) -> Result<Copied> {
        let target_time = || family_time(self.process.pid()).unwrap_or_default();
        let (sent, received, started) = (usage_of_children().processor, target_time(), Instant::now());
        let mut from = source.as_os_str().to_owned();
        from.push("/");
        let to = format!("rsync://127.0.0.1:{}/replicas/{name}", self.port);
        let compares: &[&str] = if work == Work::Compare { &COMPARES } else { &[] };
        run(Command::new("rsync").args(OPTIONS).args(compares).arg(from).arg(to))?;
        let root = fs::File::open(&self.replicas).at(&self.replicas)?;
        rustix::fs::syncfs(&root).at(&self.replicas)?;
        let seconds = started.elapsed().as_secs_f64();
        let sender = usage_of_children().processor - sent;
        // Its child is counted when the daemon has waited for it.
        std::thread::sleep(SETTLE);
        let cpu = sender + target_time().saturating_sub(received);
        Ok(Copied { seconds, cpu_seconds: cpu.as_secs_f64(), source_memory: None, target_memory: None })
    }
}

const SETTLE: Duration = Duration::from_millis(200);

/// A port that nobody listens on now.
fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
