//! A process of a benchmark; it ends with its guard.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::error::{Context, Error, Result};
use crate::failure::Failure;

/// How long a process may take to be ready: as long as a copy of many files.
const START_PATIENCE: Duration = Duration::from_secs(900);

/// How long a daemon may take to drain, unmount and end.
const STOP_PATIENCE: Duration = Duration::from_secs(90);

/// Between two looks at a process.
pub const POLL: Duration = Duration::from_millis(20);

/// A child with its output in a file.
pub struct Process {
    child: Child,
    /// What it is for, for messages.
    what: String,
    log: PathBuf,
}

impl Process {
    /// Starts a command that ends with this process at the latest.
    pub fn spawn(mut command: Command, what: &str, log: PathBuf) -> Result<Process> {
        let output = File::create(&log).at(&log)?;
        let errors = output.try_clone().at(&log)?;
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        let program = PathBuf::from(command.get_program());
        let child = crate::sys::spawn_bound(&mut command).at(&program)?;
        Ok(Process { child, what: what.to_owned(), log })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it is ready.
    ///
    /// Errors: it ended, it took too long, the benchmark was stopped.
    pub fn wait_until(&mut self, stop: &AtomicBool, ready: impl Fn() -> bool) -> Result<()> {
        let deadline = Instant::now() + START_PATIENCE;
        while !ready() {
            if let Some(ended) = self.child.try_wait().at(Path::new(&self.what))? {
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

    /// The last lines of what it said.
    pub fn log_end(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(8)..].join("\n")
    }

    fn refusal(&self, what: &str) -> Error {
        Error::Refused(Failure::new(
            format!("The process for {} {what}: {}", self.what, self.log_end()),
            "What the benchmark made was removed, unless an error above says otherwise.",
            "Check this machine with `standin doctor`.",
        ))
    }

    /// Asks it to end, and makes sure that it is gone.
    pub fn end(&mut self) -> io::Result<()> {
        if self.child.try_wait()?.is_none() {
            // The pid is this child's until it is waited for.
            kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        }
        let deadline = Instant::now() + STOP_PATIENCE;
        while self.child.try_wait()?.is_none() {
            if Instant::now() >= deadline {
                log::error!("the process for {} did not end and is killed", self.what);
                self.child.kill()?;
                self.child.wait()?;
                break;
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }
}

/// The most memory that a process has held, in bytes; `None` where it is gone, or the kernel does not say.
pub fn peak_memory(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.split_ascii_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

/// Processor time of a process, and of its children that it has waited for (proc_pid_stat(5), fields 14 to
/// 17).
pub fn family_time(pid: u32) -> Option<Duration> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before may hold anything.
    let (_, fields) = text.rsplit_once(')')?;
    let ticks: Vec<u64> = fields.split_ascii_whitespace().skip(11).take(4).flat_map(str::parse).collect();
    let per_second = rustix::param::clock_ticks_per_second();
    Some(Duration::from_secs_f64(ticks.iter().sum::<u64>() as f64 / per_second as f64))
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            log::error!("the process for {} did not end: {error}", self.what);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_memory_and_time() {
        let pid = std::process::id();
        assert!(peak_memory(pid).unwrap() > 1 << 16);
        assert!(family_time(pid).is_some());
        assert_eq!(peak_memory(u32::MAX), None);
    }
}
