//! This side of a drill's first process. It is bound to a thread that waits for it: however this process ends,
//! that one ends too, and with it everything in its process namespace.

use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use rustix::process::{Pid, PidfdFlags, Signal};

use super::Answer;
use crate::sys::{Network, spawn_isolated};

/// The command of this program that becomes that process.
pub const COMMAND: &str = "drill-init";

/// The first process of namespaces that are its own. Its end takes everything in them.
pub struct Keeper {
    process: OwnedFd,
    pid: u32,
    requests: ChildStdin,
    answers: Receiver<Answer>,
    ended: Receiver<()>,
}

struct Born {
    process: OwnedFd,
    pid: u32,
    requests: ChildStdin,
    answers: ChildStdout,
}

impl Keeper {
    /// Errors: the system's; nothing is left.
    pub fn start(network: Network) -> io::Result<Keeper> {
        let (tell, born) = bounded(1);
        let (end, ended) = bounded(1);
        std::thread::Builder::new().name("drill".into()).spawn(move || keep(network, &tell, end))?;
        let gone = || io::Error::other("the thread that keeps the drill is gone");
        let Born { process, pid, requests, answers: from } = born.recv().map_err(|_| gone())??;
        let (hear, answers) = unbounded();
        let listen = move || {
            for line in BufReader::new(from).lines().map_while(Result::ok) {
                let Ok(answer) = serde_json::from_str::<Answer>(&line) else { return };
                if hear.send(answer).is_err() {
                    return;
                }
            }
        };
        let keeper = Keeper { process, pid, requests, answers, ended };
        std::thread::Builder::new().name("drill-answers".into()).spawn(listen)?;
        Ok(keeper)
    }

    /// Of the first process, as the host numbers it.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    pub fn ask(&mut self, request: &impl serde::Serialize) -> io::Result<()> {
        let line = serde_json::to_string(request)?;
        writeln!(self.requests, "{line}")?;
        self.requests.flush()
    }

    /// What it says; cut off when it has ended.
    pub fn answers(&self) -> &Receiver<Answer> {
        &self.answers
    }
}

impl Drop for Keeper {
    /// Returns when nothing of it is left.
    fn drop(&mut self) {
        let _ = rustix::process::pidfd_send_signal(&self.process, Signal::KILL);
        let _ = self.ended.recv();
    }
}

/// Starts it and waits for it. The kernel lets its end be seen when all the others are gone.
fn keep(network: Network, tell: &Sender<io::Result<Born>>, end: Sender<()>) {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("standin").arg(COMMAND).current_dir("/").stdin(Stdio::piped()).stdout(Stdio::piped());
    // A drill that stays open keeps nothing open of who has started it.
    command.stderr(Stdio::null());
    let mut child = match spawn_isolated(&mut command, network) {
        Ok(child) => child,
        Err(error) => return drop(tell.send(Err(error))),
    };
    let pid = child.id();
    let opened = Pid::from_raw(pid as i32).ok_or_else(|| io::Error::other("it has no number"));
    let opened = opened.and_then(|pid| Ok(rustix::process::pidfd_open(pid, PidfdFlags::empty())?));
    let born = match (opened, child.stdin.take(), child.stdout.take()) {
        (Ok(process), Some(requests), Some(answers)) => Ok(Born { process, pid, requests, answers }),
        (Err(error), ..) => Err(error),
        (Ok(_), ..) => Err(io::Error::other("no pipes")),
    };
    // Without anybody who hears of it it would run for nothing.
    if born.is_err() {
        let _ = child.kill();
    }
    let _ = tell.send(born);
    let _ = child.wait();
    drop(end);
}
