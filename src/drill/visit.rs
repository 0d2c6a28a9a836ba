//! A command, or a shell, in a drill that stays open. No descriptor of the host gets in: its terminal is one of the
//! drill's, or its three streams are pipes, and what goes through them is copied.
//!
//! ```text
//!  standin drill shell ── thread: into the process namespace ──> isolation::enter ──> the shell
//!    terminal, or three streams <── copied ──> /dev/pts of the drill, or three pipes
//! ```

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded, select};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};
use rustix::pty::OpenptFlags;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};
use rustix::thread::ThreadNameSpaceType;
use signal_hook::consts::SIGWINCH;
use signal_hook::iterator::Signals;

use super::isolation::enter::{COMMAND, Entry};
use super::journal::{Journal, begun};
use super::limits::LOOKED_EVERY;
use super::written;
use crate::sys::is_ready_within;

/// Where one drill is entered.
pub struct Door {
    pid: u32,
    first: OwnedFd,
}

/// What is in there of the one who asks.
enum Inner {
    /// This side of a terminal of the drill's.
    Terminal(OwnedFd),
    Pipes,
}

/// The process in there, as the thread that has started it tells.
struct Born {
    child: Pid,
    process: OwnedFd,
    pipes: Option<(OwnedFd, OwnedFd, OwnedFd)>,
}

impl Door {
    /// Of a drill whose first process has this number and was started then.
    ///
    /// Errors: it has ended.
    pub fn of((pid, since): (u32, u64)) -> io::Result<Door> {
        let number = Pid::from_raw(pid as i32).ok_or(io::ErrorKind::NotFound)?;
        let first = rustix::process::pidfd_open(number, PidfdFlags::empty())?;
        match begun(pid) == Some(since) {
            true => Ok(Door { pid, first }),
            false => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Runs what is asked for to its end, and gives its exit code, or 128 and its signal. Through `stops` somebody asks for
    /// that end. With a terminal, which standard input and output have to be.
    ///
    /// What it has written is noted for the drill of this number.
    pub fn visit(
        self,
        entry: &Entry,
        (journal, number): (&Journal, u64),
        stops: &Receiver<()>,
    ) -> io::Result<u8> {
        let (inner, streams) = match entry.has_terminal {
            true => {
                let (ours, theirs) = self.terminal()?;
                (Inner::Terminal(ours), [theirs.try_clone()?, theirs.try_clone()?, theirs].map(Stdio::from))
            }
            false => (Inner::Pipes, [Stdio::piped(), Stdio::piped(), Stdio::piped()]),
        };
        let entry = serde_json::to_string(entry)?;
        let ((tell, born), (end, ended)) = (bounded(1), bounded(1));
        let begin = move || self.begin(&entry, streams, &tell, &end);
        std::thread::Builder::new().name("visit".into()).spawn(begin)?;
        let gone = || io::Error::other("the thread that enters the drill is gone");
        let born: Born = born.recv().map_err(|_| gone())??;
        let raw = match &inner {
            Inner::Terminal(_) => Some(Raw::set()?),
            Inner::Pipes => None,
        };
        let is_over = Arc::new(AtomicBool::new(false));
        let copies = copy(inner, born.pipes, &is_over)?;
        let asked = if raw.is_some() { Signal::HUP } else { Signal::TERM };
        let left = outlast(&ended, stops, &born.process, asked).ok_or_else(gone)?;
        let Left { status, written } = left;
        journal.add_written(number, written)?;
        is_over.store(true, SeqCst);
        copies.into_iter().for_each(|copy| drop(copy.join()));
        drop(raw);
        log::debug!("process {:?} in the drill has ended: {status}", born.child);
        Ok(code(status))
    }

    /// A terminal of the drill's: this side of it, and the one in there.
    fn terminal(&self) -> io::Result<(OwnedFd, OwnedFd)> {
        // Only the drill's own file system of terminals has this name, and nobody in there can put another one over it.
        let path = format!("/proc/{}/root/dev/pts/ptmx", self.pid);
        let ours = rustix::fs::open(path, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?;
        rustix::pty::unlockpt(&ours)?;
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let theirs = rustix::pty::ioctl_tiocgptpeer(&ours, flags)?;
        if let Ok(size) = tcgetwinsize(io::stdin()) {
            tcsetwinsize(&ours, size)?;
        }
        Ok((ours, theirs))
    }

    /// Starts it, and waits for it. This thread can start nothing else afterwards.
    fn begin(&self, entry: &str, streams: [Stdio; 3], tell: &Sender<io::Result<Born>>, end: &Sender<Left>) {
        let [stdin, stdout, stderr] = streams;
        let mut command = Command::new("/proc/self/exe");
        command.arg0("standin").args([COMMAND, entry]).stdin(stdin).stdout(stdout).stderr(stderr);
        let within = ThreadNameSpaceType::PROCESS_ID;
        let entered = rustix::thread::move_into_thread_name_spaces(self.first.as_fd(), within);
        let started = entered.map_err(io::Error::from).and_then(|()| command.spawn());
        drop(command);
        let mut child = match started {
            Ok(child) => child,
            Err(error) => return drop(tell.send(Err(error))),
        };
        let born = Born::of(&mut child);
        if born.is_err() {
            let _ = child.kill();
        }
        let _ = tell.send(born);
        // While nobody has waited for it, what it has written can still be read.
        if let Some(pid) = Pid::from_raw(child.id() as i32) {
            let _ = rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
        }
        let written = written::by(child.id()).unwrap_or(0);
        if let Ok(status) = child.wait() {
            let _ = end.send(Left { status, written });
        }
    }
}

/// The end of it.
struct Left {
    status: ExitStatus,
    /// Bytes.
    written: u64,
}

impl Born {
    fn of(child: &mut Child) -> io::Result<Born> {
        let pid = Pid::from_raw(child.id() as i32).ok_or(io::ErrorKind::NotFound)?;
        let process = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
        let pipes = match (child.stdin.take(), child.stdout.take(), child.stderr.take()) {
            (Some(stdin), Some(stdout), Some(stderr)) => Some((stdin.into(), stdout.into(), stderr.into())),
            _ => None,
        };
        Ok(Born { child: pid, process, pipes })
    }
}

/// Until it has ended. Who is asked to end it once asks it, and kills it when he is asked again.
fn outlast(ended: &Receiver<Left>, stops: &Receiver<()>, process: &OwnedFd, asked: Signal) -> Option<Left> {
    let (never, mut stops, mut signal) = (crossbeam_channel::never(), stops, asked);
    loop {
        select! {
            recv(ended) -> left => return left.ok(),
            recv(stops) -> asked => match asked {
                Ok(()) => {
                    let _ = rustix::process::pidfd_send_signal(process, signal);
                    signal = Signal::KILL;
                }
                Err(_) => stops = &never,
            },
        }
    }
}

fn code(status: ExitStatus) -> u8 {
    let code = status.code().or(status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

/// Copies both ways; gives the threads whose copies have an end.
fn copy(
    inner: Inner,
    pipes: Option<(OwnedFd, OwnedFd, OwnedFd)>,
    is_over: &Arc<AtomicBool>,
) -> io::Result<Vec<JoinHandle<()>>> {
    match (inner, pipes) {
        (Inner::Terminal(ours), _) => {
            follow_size(ours.try_clone()?)?;
            feed(ours.try_clone()?)?;
            Ok(vec![relay(ours, io::stdout(), is_over)?])
        }
        (Inner::Pipes, Some((stdin, stdout, stderr))) => {
            feed(stdin)?;
            Ok(vec![relay(stdout, io::stdout(), is_over)?, relay(stderr, io::stderr(), is_over)?])
        }
        (Inner::Pipes, None) => Err(io::Error::other("no pipes")),
    }
}

/// What is typed, until that ends; nobody waits for it.
fn feed(to: OwnedFd) -> io::Result<()> {
    let copy = move || {
        let _ = io::copy(&mut io::stdin(), &mut File::from(to));
    };
    std::thread::Builder::new().name("visit-in".into()).spawn(copy).map(|_| ())
}

/// What is said, until nobody says anything any more: what is left behind in there may keep the other end open.
fn relay(
    from: OwnedFd,
    mut to: impl Write + Send + 'static,
    is_over: &Arc<AtomicBool>,
) -> io::Result<JoinHandle<()>> {
    let (mut from, is_over) = (File::from(from), is_over.clone());
    let copy = move || {
        let mut part = [0; 16 << 10];
        loop {
            // Before it is looked whether there is more: what was said before its end is said.
            let was_over = is_over.load(SeqCst);
            match is_ready_within(&from, LOOKED_EVERY).unwrap_or(false) {
                true => match from.read(&mut part) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    // A terminal without anybody behind it answers EIO.
                    Ok(0) | Err(_) => return,
                    Ok(count) => {
                        if to.write_all(&part[..count]).and_then(|()| to.flush()).is_err() {
                            return;
                        }
                    }
                },
                false if was_over => return,
                false => {}
            }
        }
    };
    std::thread::Builder::new().name("visit-out".into()).spawn(copy)
}

/// As large as the one outside, whenever that changes.
fn follow_size(ours: OwnedFd) -> io::Result<()> {
    let mut signals = Signals::new([SIGWINCH])?;
    let follow = move || {
        for _ in signals.forever() {
            if let Ok(size) = tcgetwinsize(io::stdin()) {
                let _ = tcsetwinsize(&ours, size);
            }
        }
    };
    std::thread::Builder::new().name("visit-size".into()).spawn(follow).map(|_| ())
}

/// The terminal outside acts upon nothing that is typed: the one in there does. Dropped, it is as before.
struct Raw(Termios);

impl Raw {
    fn set() -> io::Result<Raw> {
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        Ok(Raw(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &self.0);
    }
}
