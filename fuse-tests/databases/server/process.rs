//! Servers as processes: their own user, their end, also while they hang in a mount.

use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Output};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use tempfile::TempDir;

use crate::databases::thread_states;
use crate::host::{describe, output_within};

/// For a start with recovery, for a new data directory and for a check of a whole database.
const LONG: Duration = Duration::from_secs(180);

/// The user and the group that a package made.
#[derive(Clone, Copy)]
pub struct Account {
    user: u32,
    group: u32,
}

impl Account {
    /// Panics with the package where there is no such user.
    pub fn find(name: &str, package: &str) -> Account {
        let passwd = fs::read_to_string("/etc/passwd").expect("/etc/passwd");
        let line = passwd.lines().find(|line| line.split(':').next() == Some(name));
        let line = line.unwrap_or_else(|| panic!("there is no user `{name}`: install {package}"));
        let number =
            |at: usize| line.split(':').nth(at).and_then(|field| field.parse().ok()).expect("passwd(5)");
        Account { user: number(2), group: number(3) }
    }

    pub fn command(self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.uid(self.user).gid(self.group).current_dir("/").env("LC_ALL", "C.UTF-8");
        command
    }

    /// A temporary directory that is its.
    pub fn place(self) -> TempDir {
        let place = tempfile::Builder::new().prefix("s").tempdir().expect("a temporary directory");
        self.own(place.path());
        place
    }

    /// Gives it a directory.
    pub fn own(self, path: &Path) {
        chown(path, Some(self.user), Some(self.group)).expect("we are root");
    }
}

/// The first process of a server.
#[derive(Clone, Copy)]
pub struct Process(Pid);

impl Process {
    /// From a file whose first line is its number; none where there is no such file.
    pub fn of(pid_file: &Path) -> Option<Process> {
        let text = fs::read_to_string(pid_file).ok()?;
        Pid::from_raw(text.lines().next()?.trim().parse().ok()?).map(Process)
    }

    pub fn from_child(child: &Child) -> Process {
        Process(Pid::from_child(child))
    }

    /// A zombie that nobody asks for is gone.
    fn is_there(self) -> bool {
        thread_states(self.0.as_raw_pid() as u32).iter().any(|state| *state != b'Z')
    }

    pub fn signal(self, signal: Signal) {
        if self.is_there() {
            let _ = rustix::process::kill_process(self.0, signal);
        }
    }

    /// Whether it has ended in time.
    pub fn ends_within(self, max: Duration) -> bool {
        let deadline = Instant::now() + max;
        while self.is_there() {
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        true
    }
}

/// Waits on drop until a server is gone that hung in a mount: to be dropped after the mount.
pub struct Gone(pub Process);

impl Drop for Gone {
    fn drop(&mut self) {
        if !self.0.ends_within(Duration::from_secs(20)) {
            self.0.signal(Signal::KILL);
        }
    }
}

/// Errors: how it ended and what it said.
pub fn succeeds(command: &mut Command) -> Result<Output, String> {
    let output = output_within(command, LONG);
    match output.status.success() {
        true => Ok(output),
        false => Err(format!("{command:?}: {}", describe(&output))),
    }
}

/// Errors: the first line of a log with one of these words, and the log.
pub fn nothing_bad(log: &str, words: &[&str]) -> Result<(), String> {
    match log.lines().find(|line| words.iter().any(|word| line.contains(word))) {
        Some(line) => Err(format!("{line}\n--- the log:\n{log}")),
        None => Ok(()),
    }
}
