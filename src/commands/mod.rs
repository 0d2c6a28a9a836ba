//! Commands that a person has named, run by a shell, one after the other, with a time-out each; the end of their
//! output is kept.
//!
//! ```text
//!  who asks ── requests, one a line ──> runner ── /bin/sh -c … (a group of its own)
//!           <── answers, one a line ──
//! ```
//! The runner is a process of its own: a drill's lies in namespaces (`drill`), that of a failover
//! keeps the privileges that the daemon gives up ([`Runner`]). It ends with who asks, and what it runs at
//! that moment with it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, PipeReader, Read, Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::fs::MemfdFlags;
use rustix::process::{Pid, Signal, WaitOptions};
use serde::{Deserialize, Serialize};

mod limits;
mod runner;

pub use limits::KILLED_WITHIN;
pub use runner::{COMMAND, Runner, environment, serve};

use limits::{LOOKED_EVERY, OUTPUT_MAX};

/// A command for a shell.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Run {
    pub command: String,
    pub timeout_ms: u64,
    /// What it reads from standard input; nothing where it is empty.
    #[serde(default)]
    pub input: String,
}

/// How a command has ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    pub exit_code: Option<i32>,
    pub signal: Option<i32>,
    pub timed_out: bool,
    /// Both outputs as they came, the end of them.
    pub output: String,
    /// Bytes before it that were not kept.
    pub output_cut: u64,
    /// Why it could not be started, or ended.
    pub problem: Option<String>,
}

impl Ended {
    pub fn is_success(&self) -> bool {
        self.exit_code == Some(0) && !self.timed_out && self.problem.is_none()
    }

    /// Behind how long it took.
    pub fn words(&self) -> String {
        match (self.timed_out, self.exit_code, self.signal, &self.problem) {
            (_, _, _, Some(problem)) => format!(", {problem}"),
            (true, ..) => ", timed out".into(),
            (_, Some(code), ..) => format!(", exit code {code}"),
            (_, _, Some(signal), _) => format!(", killed by signal {signal}"),
            (false, None, None, None) => String::new(),
        }
    }
}

/// The next request; `None`: there are no more.
pub fn next<T: serde::de::DeserializeOwned>(requests: &mut impl BufRead) -> io::Result<Option<T>> {
    let mut line = String::new();
    match requests.read_line(&mut line)? {
        0 => Ok(None),
        _ => Ok(Some(serde_json::from_str(&line)?)),
    }
}

/// To who asks.
pub fn answer(answer: &impl Serialize) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(answer)?)?;
    out.flush()
}

/// Runs a command to its end, or to its time-out, in this directory.
///
/// Errors: the process that asks is gone.
pub fn perform(run: &Run, at: &Path, environment: &BTreeMap<String, String>) -> io::Result<Ended> {
    match start(run, at, environment) {
        Ok((shell, output)) => watch(shell, output, Duration::from_millis(run.timeout_ms)),
        Err(error) => {
            Ok(Ended { problem: Some(format!("/bin/sh could not be started: {error}")), ..Ended::default() })
        }
    }
}

fn start(run: &Run, at: &Path, environment: &BTreeMap<String, String>) -> io::Result<(Pid, PipeReader)> {
    let (output, both) = io::pipe()?;
    let mut shell = Command::new("/bin/sh");
    shell.arg("-c").arg(&run.command).env_clear().envs(environment).current_dir(at).process_group(0);
    let child = shell.stdin(standard_input(&run.input)?).stdout(both.try_clone()?).stderr(both).spawn()?;
    let pid = Pid::from_raw(child.id() as i32).ok_or(io::ErrorKind::NotFound)?;
    rustix::io::ioctl_fionbio(&output, true)?;
    Ok((pid, output))
}

/// A file in memory: nobody has to write while the command reads, or does not.
fn standard_input(text: &str) -> io::Result<Stdio> {
    if text.is_empty() {
        return Ok(Stdio::null());
    }
    let mut file = File::from(rustix::fs::memfd_create("input", MemfdFlags::CLOEXEC)?);
    file.write_all(text.as_bytes())?;
    file.rewind()?;
    Ok(file.into())
}

fn watch(shell: Pid, mut output: PipeReader, timeout: Duration) -> io::Result<Ended> {
    let deadline = Instant::now() + timeout;
    let (mut kept, mut ended) = (Tail::default(), Ended::default());
    let mut is_open = true;
    loop {
        wait_for_more(is_open.then_some(&output)).inspect_err(|_| kill(shell))?;
        is_open = is_open && kept.take_from(&mut output)?;
        if let Some(status) = reap(shell)? {
            ended.exit_code = status.exit_status();
            ended.signal = status.terminating_signal();
            break;
        }
        let now = Instant::now();
        if now >= deadline && !ended.timed_out {
            ended.timed_out = true;
            kill(shell);
        }
        if now >= deadline + KILLED_WITHIN {
            // Whenever it ends, a later `reap` takes it.
            ended.problem = Some("timed out, and cannot be killed: it hangs in the kernel".to_owned());
            break;
        }
    }
    if is_open && kept.take_from(&mut output)? {
        // A service that it has left behind goes on speaking.
        rustix::io::ioctl_fionbio(&output, false)?;
        std::thread::Builder::new().spawn(move || io::copy(&mut output, &mut io::sink()))?;
    }
    (ended.output, ended.output_cut) = kept.text();
    Ok(ended)
}

/// The whole group; those that have gone already are no matter.
fn kill(shell: Pid) {
    let _ = rustix::process::kill_process_group(shell, Signal::KILL);
}

/// Until there may be output, or a short time has passed.
///
/// Errors: nobody hears the answer any more.
fn wait_for_more(output: Option<&PipeReader>) -> io::Result<()> {
    let stdin = io::stdin();
    // Of standard input nothing is awaited but its end.
    let mut watched = vec![PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::empty())];
    watched.extend(output.map(|output| PollFd::new(output, PollFlags::IN)));
    let time = rustix::event::Timespec { tv_sec: 0, tv_nsec: LOOKED_EVERY.as_nanos() as i64 };
    match rustix::event::poll(&mut watched, Some(&time)) {
        Err(error) if error != rustix::io::Errno::INTR => return Err(error.into()),
        Ok(_) | Err(_) => {}
    }
    match watched[0].revents().contains(PollFlags::HUP) {
        true => Err(io::ErrorKind::BrokenPipe.into()),
        false => Ok(()),
    }
}

/// Takes every process that has ended: whose parent is gone is this one's child.
fn reap(wanted: Pid) -> io::Result<Option<rustix::process::WaitStatus>> {
    let mut found = None;
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid == wanted => found = Some(status),
            Ok(Some(_)) => {}
            Ok(None) | Err(rustix::io::Errno::CHILD) => return Ok(found),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// The end of an output.
#[derive(Default)]
struct Tail {
    bytes: Vec<u8>,
    cut: u64,
}

impl Tail {
    /// Takes what is there; `false` at the end of it.
    fn take_from(&mut self, output: &mut PipeReader) -> io::Result<bool> {
        let mut part = [0; 16 << 10];
        // A command that never stops speaking does not keep its time-out from being seen.
        for _ in 0..64 {
            match output.read(&mut part) {
                Ok(0) => return Ok(false),
                Ok(count) => self.add(&part[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    fn add(&mut self, part: &[u8]) {
        self.bytes.extend_from_slice(part);
        if self.bytes.len() > 2 * OUTPUT_MAX {
            self.cut_to(OUTPUT_MAX);
        }
    }

    fn cut_to(&mut self, max: usize) {
        let over = self.bytes.len().saturating_sub(max);
        self.bytes.drain(..over);
        self.cut += over as u64;
    }

    fn text(mut self) -> (String, u64) {
        self.cut_to(OUTPUT_MAX);
        (String::from_utf8_lossy(&self.bytes).into_owned(), self.cut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_an_output_is_kept() {
        let mut tail = Tail::default();
        for _ in 0..5 {
            tail.add(&[b'a'; OUTPUT_MAX]);
        }
        tail.add(b"end");
        let (text, cut) = tail.text();
        assert!(text.len() == OUTPUT_MAX && text.ends_with("aend"));
        assert_eq!(cut, 4 * OUTPUT_MAX as u64 + 3);
    }
}
