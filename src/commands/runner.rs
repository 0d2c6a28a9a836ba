//! A runner beside the process that asks: with the privileges that this one has now, whatever it gives up later.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, select, unbounded};
use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};

use super::limits::{ANSWERS_WITHIN, ENDS_WITHIN, KILLED_WITHIN, LOOKED_EVERY};
use super::{Ended, Run, answer, next, perform};

/// The command of this program that becomes that process.
pub const COMMAND: &str = "run-commands";

/// See the module. Dropped, the process ends, and what it runs with it.
pub struct Runner {
    child: Child,
    requests: Option<ChildStdin>,
    answers: Receiver<Ended>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Request {
    run: Run,
    environment: BTreeMap<String, String>,
}

impl Runner {
    /// Errors: the system's.
    pub fn start() -> io::Result<Runner> {
        let mut command = Command::new("/proc/self/exe");
        command.arg0("standin").arg(COMMAND).current_dir("/").stdin(Stdio::piped()).stdout(Stdio::piped());
        // A signal from a terminal is for who asks, who ends it.
        let mut child = command.process_group(0).spawn()?;
        let (Some(requests), Some(from)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(io::Error::other("no pipes"));
        };
        let (hear, answers) = unbounded();
        let listen = move || {
            for line in BufReader::new(from).lines().map_while(Result::ok) {
                let Ok(ended) = serde_json::from_str::<Ended>(&line) else { return };
                if hear.send(ended).is_err() {
                    return;
                }
            }
        };
        let runner = Runner { child, requests: Some(requests), answers };
        std::thread::Builder::new().name("answers".into()).spawn(listen)?;
        Ok(runner)
    }

    /// Runs a command to its end, or to its time-out. Of this process it has its path, language and time zone, and
    /// `own`. `None`: something came through `stops`, or nobody holds its other end any more; the command is
    /// killed, and no other one is run.
    ///
    /// Errors: the runner has ended, or does not answer.
    pub fn run(
        &mut self,
        command: &str,
        timeout: Duration,
        own: &[(&str, String)],
        stops: &Receiver<()>,
    ) -> io::Result<Option<Ended>> {
        self.run_with(command, timeout, own, String::new(), stops)
    }

    /// The same, with something to read.
    pub fn run_with(
        &mut self,
        command: &str,
        timeout: Duration,
        own: &[(&str, String)],
        input: String,
        stops: &Receiver<()>,
    ) -> io::Result<Option<Ended>> {
        let run = Run { command: command.to_owned(), timeout_ms: timeout.as_millis() as u64, input };
        let request = Request { run, environment: environment(own) };
        let requests = self.requests.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        writeln!(requests, "{}", serde_json::to_string(&request)?)?;
        requests.flush()?;
        let within = timeout.saturating_add(KILLED_WITHIN + ANSWERS_WITHIN);
        select! {
            recv(self.answers) -> ended => match ended {
                Ok(ended) => Ok(Some(ended)),
                Err(_) => Err(io::Error::other("the process that runs commands has ended")),
            },
            recv(stops) -> _ => {
                self.end();
                Ok(None)
            }
            default(within) => {
                self.end();
                let text = "the process that runs commands does not answer; it was ended, and what it ran with it";
                Err(io::Error::new(io::ErrorKind::TimedOut, text))
            }
        }
    }

    /// It hears the end of its requests, and ends what it runs; one that somebody has stopped is let go on for that. What
    /// hangs in the kernel is left alone.
    fn end(&mut self) {
        if self.requests.take().is_none() {
            return;
        }
        if let Some(pid) = Pid::from_raw(self.child.id() as i32) {
            let _ = rustix::process::kill_process(pid, Signal::CONT);
        }
        if !self.has_ended_within(ENDS_WITHIN) {
            let _ = self.child.kill();
            self.has_ended_within(ENDS_WITHIN);
        }
    }

    fn has_ended_within(&mut self, time: Duration) -> bool {
        let until = Instant::now() + time;
        loop {
            match self.child.try_wait() {
                Ok(None) if Instant::now() < until => std::thread::sleep(LOOKED_EVERY),
                Ok(None) => return false,
                Ok(Some(_)) | Err(_) => return true,
            }
        }
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        self.end();
    }
}

/// What a command of a person gets: of this process its path, language and time zone alone.
pub fn environment(own: &[(&str, String)]) -> BTreeMap<String, String> {
    let mut all: BTreeMap<String, String> = ["LANG", "LC_ALL", "TZ", "TERM"]
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?)))
        .collect();
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned();
    all.insert("PATH".into(), std::env::var("PATH").unwrap_or(path));
    all.insert("HOME".into(), "/root".into());
    all.extend(own.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    all
}

/// The runner's side: serves requests from standard input until it ends; answers on standard output.
///
/// Errors: the process that asks is gone, or does not speak these words.
pub fn serve() -> io::Result<()> {
    let mut requests = BufReader::new(io::stdin());
    while let Some(Request { run, environment }) = next::<Request>(&mut requests)? {
        answer(&perform(&run, Path::new("/"), &environment)?)?;
    }
    Ok(())
}
