//! Writes through shared mappings reach the daemon when the kernel writes dirty pages back. This
//! makes it do so: at a bounded interval, before barriers that somebody waits for, at the stop.
//!
//! ```text
//!  flush() ──> flush thread ── a byte ──> helper process: open, syncfs, close ──> kernel
//!                                                                                   │ writes
//!              answers <── two bytes ── helper                        fuse threads <┘
//! ```
//! The daemon cannot call `syncfs` itself: the writes come to it, and it would wait for itself.
//! The helper holds the mount only during a flush, and ends with the daemon.

mod helper;

use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use parking_lot::Mutex;

use crate::intercept::Volume;
pub use helper::serve_flushes;

/// Name of the hidden subcommand that the helper runs.
pub const HELPER_COMMAND: &str = "flush-mount";

/// How often a waiting call looks whether it is still wanted.
const WAIT_SLICE: Duration = Duration::from_millis(200);

/// How long a flush under way may hold up an unmount.
const HOLD_PATIENCE: Duration = Duration::from_secs(1);

/// Asks for flushes of one mount. Dropped, it ends the helper.
pub struct Flusher {
    requests: Sender<Request>,
    /// Why the last flush failed, if it did.
    trouble: Arc<Mutex<Option<String>>>,
}

enum Request {
    Flush(Sender<Result<(), String>>),
    /// No flush from the answer on until the second one is dropped, or for ever if it says so.
    Hold(Sender<()>, Receiver<Over>),
}

/// The mount is gone: there is nothing to flush any more.
struct Over;

/// While it lives, nothing of the mount is held open.
pub struct Held(Sender<Over>);

impl Held {
    /// The mount is gone; flushes succeed from now on, because there is nothing to flush.
    pub fn mount_is_gone(self) {
        let _ = self.0.send(Over);
    }
}

impl Flusher {
    /// Starts the helper. With a `lag` mapped writes stay unseen no longer than that; without,
    /// they are flushed only when somebody asks.
    pub fn start(mount: PathBuf, volume: Arc<Volume>, lag: Option<Duration>) -> io::Result<Flusher> {
        let (requests, inbox) = unbounded();
        let (started, outcome) = bounded(1);
        let trouble = Arc::new(Mutex::new(None));
        // The time of a flush itself is part of the lag.
        let interval = lag.map(|lag| lag * 3 / 4);
        let thread = FlushThread {
            mount,
            volume,
            inbox,
            interval,
            helper: None,
            seen_opened: 0,
            trouble: trouble.clone(),
        };
        // The kernel ends the helper with the thread that started it: this one, at every start.
        std::thread::Builder::new().name("flush".into()).spawn(move || thread.run(&started))?;
        outcome.recv().unwrap_or_else(|_| Err(io::Error::other("its thread ended")))?;
        Ok(Flusher { requests, trouble })
    }

    /// Waits until every write through a shared mapping that was made before this call is in the
    /// queue. `false`: it was not before the deadline, or before `give_up`.
    ///
    /// Errors: why it cannot be.
    pub fn flush(&self, deadline: Option<Instant>, give_up: impl Fn() -> bool) -> Result<bool, String> {
        let (sender, outcome) = bounded(1);
        let gone = |_| "the flush thread ended".to_owned();
        self.requests.send(Request::Flush(sender)).map_err(|_| gone(()))?;
        loop {
            let slice = Instant::now() + WAIT_SLICE;
            match outcome.recv_deadline(deadline.map_or(slice, |deadline| deadline.min(slice))) {
                Ok(outcome) => return outcome.map(|()| true),
                Err(RecvTimeoutError::Disconnected) => return Err(gone(())),
                Err(RecvTimeoutError::Timeout) => {}
            }
            if give_up() || deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Ok(false);
            }
        }
    }

    /// Keeps flushes away from the mount, after the one that may be under way (but does not wait
    /// for one that hangs).
    pub fn hold(&self) -> Held {
        let (ready, is_ready) = bounded(1);
        let (release, released) = bounded(1);
        if self.requests.send(Request::Hold(ready, released)).is_ok()
            && is_ready.recv_timeout(HOLD_PATIENCE).is_err()
        {
            log::warn!("a flush of the mount is still under way");
        }
        Held(release)
    }

    /// Why mapped writes may stay unseen for longer, if they may.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().clone()
    }
}

/// The thread that owns the helper.
struct FlushThread {
    mount: PathBuf,
    volume: Arc<Volume>,
    inbox: Receiver<Request>,
    interval: Option<Duration>,
    helper: Option<Helper>,
    /// Handles that had been opened when the last flush began.
    seen_opened: u64,
    trouble: Arc<Mutex<Option<String>>>,
}

impl FlushThread {
    fn run(mut self, started: &Sender<io::Result<()>>) {
        let helper = Helper::start(&self.mount);
        let _ =
            started.send(helper.as_ref().map(|_| ()).map_err(|error| io::Error::other(error.to_string())));
        let Ok(helper) = helper else { return };
        self.helper = Some(helper);
        let mut due = self.next_due();
        loop {
            let first = match due {
                Some(due) => self.inbox.recv_deadline(due),
                None => self.inbox.recv().map_err(RecvTimeoutError::from),
            };
            let asked = match first {
                Ok(Request::Flush(sender)) => Some(sender),
                Ok(Request::Hold(ready, released)) => {
                    let _ = ready.send(());
                    match released.recv() {
                        Ok(Over) => return self.answer_without_mount(),
                        Err(_) => continue,
                    }
                }
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let outcome = self.flush_if_needed();
            due = self.next_due();
            if let Some(sender) = asked {
                let _ = sender.send(outcome);
            }
        }
    }

    /// There is nothing to flush any more.
    fn answer_without_mount(mut self) {
        self.helper = None;
        while let Ok(request) = self.inbox.recv() {
            match request {
                Request::Flush(sender) => drop(sender.send(Ok(()))),
                Request::Hold(ready, _) => drop(ready.send(())),
            }
        }
    }

    fn next_due(&self) -> Option<Instant> {
        self.interval.map(|interval| Instant::now() + interval)
    }

    /// A mapping writes back when it goes, so that only files that are open, or were since the
    /// last flush, can have something.
    fn flush_if_needed(&mut self) -> Result<(), String> {
        let counts = self.volume.shared_writers();
        if counts.open == 0 && counts.opened == self.seen_opened {
            return Ok(());
        }
        let outcome = self.flush();
        if outcome.is_ok() {
            self.seen_opened = counts.opened;
        }
        let mut trouble = self.trouble.lock();
        if let (Err(why), None) = (&outcome, &*trouble) {
            log::error!("writes through shared mappings cannot be flushed, it is tried again: {why}");
        }
        *trouble = outcome.clone().err();
        outcome
    }

    /// A helper that died is replaced, once for each flush.
    fn flush(&mut self) -> Result<(), String> {
        if let Some(helper) = &mut self.helper {
            match helper.flush() {
                Ok(answer) => return said(answer),
                Err(error) => {
                    log::warn!("the helper that flushes shared mappings died ({error}) and is replaced");
                    self.helper = None;
                }
            }
        }
        let mut helper = Helper::start(&self.mount).map_err(|error| format!("no helper: {error}"))?;
        let answer = helper.flush().map_err(|error| format!("the helper died again: {error}"))?;
        self.helper = Some(helper);
        said(answer)
    }
}

/// What the helper's two bytes mean.
fn said([step, errno]: [u8; 2]) -> Result<(), String> {
    let error = io::Error::from_raw_os_error(i32::from(errno));
    match step {
        helper::DONE => Ok(()),
        helper::NOT_WRITTEN => {
            // Everything came to the daemon, which gave this error itself; the replica is as the disk.
            log::warn!("pages of a shared mapping could not be written: {error}");
            Ok(())
        }
        _ => Err(format!("the mount cannot be opened: {error}")),
    }
}

/// A helper that runs.
struct Helper {
    child: Child,
    /// Closed before the wait: the helper ends with it.
    requests: Option<ChildStdin>,
    answers: ChildStdout,
}

impl Helper {
    fn start(mount: &std::path::Path) -> io::Result<Helper> {
        // This very program, even when its file was replaced meanwhile.
        let mut command = Command::new("/proc/self/exe");
        command.arg0("standin").arg(HELPER_COMMAND).arg(mount).current_dir("/");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = crate::sys::spawn_bound(&mut command)?;
        let pipes = (child.stdin.take(), child.stdout.take());
        let (Some(requests), Some(answers)) = pipes else { return Err(io::Error::other("no pipes")) };
        Ok(Helper { child, requests: Some(requests), answers })
    }

    /// One flush. Errors: the helper is gone.
    fn flush(&mut self) -> io::Result<[u8; 2]> {
        let requests = self.requests.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        requests.write_all(b"f")?;
        let mut answer = [0; 2];
        self.answers.read_exact(&mut answer)?;
        Ok(answer)
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        drop(self.requests.take());
        if let Err(error) = self.child.wait() {
            log::debug!("the flush helper: {error}");
        }
    }
}
