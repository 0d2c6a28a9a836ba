//! Writes through shared mappings reach the daemon when the kernel writes dirty pages back. This
//! makes it do so: at a bounded interval, before barriers that somebody waits for, at the stop.
//!
//! ```text
//!  flush() ──> flush thread ── files that may be mapped ──> helper process: each is written back ──> kernel
//!                                                                                            │ writes
//!              answers <── what it did not find ── helper                      fuse threads <┘
//! ```
//! The daemon cannot do that itself: the writes come to it, and it would wait for itself. `syncfs(2)`
//! is not enough: of a FUSE mount it begins with the write-back and does not wait for it (never for
//! the daemon's answers, and since `SB_I_NO_DATA_INTEGRITY`, Linux 6.18.x, for nothing). So the helper
//! keeps each file open that may be mapped for writing, and waits for its pages. A file that cannot
//! be mapped any more, or is removed, it closes at once; it ends with the daemon.

mod helper;

use std::collections::BTreeSet;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, after, bounded, never, select, unbounded};
use parking_lot::Mutex;

use crate::intercept::{MappedFile, NodeId, Volume};
use crate::words::Profile;
pub use helper::serve_flushes;
use helper::{Answer, Request, Wanted};

/// Name of the hidden subcommand that the helper runs.
pub const HELPER_COMMAND: &str = "flush-mount";

/// How often a waiting call looks whether it is still wanted.
const WAIT_SLICE: Duration = Duration::from_millis(200);

/// How soon a file is tried again that could not be mended: it moved, or is leased.
const MEND_AGAIN: Duration = Duration::from_secs(1);

/// How often a file is looked for that is not where it was.
const LOOKS: u32 = 3;

/// How long a flush under way may hold up an unmount.
const HOLD_PATIENCE: Duration = Duration::from_secs(1);

/// Asks for flushes of one mount. Dropped, it ends the helper.
pub struct Flusher {
    requests: Sender<Asked>,
    /// Why the last flush failed, if it did.
    trouble: Arc<Mutex<Option<String>>>,
}

enum Asked {
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
    pub fn start(
        mount: PathBuf,
        volume: Arc<Volume>,
        profile: Profile,
        lag: Option<Duration>,
    ) -> io::Result<Flusher> {
        let (requests, inbox) = unbounded();
        let (started, outcome) = bounded(1);
        let trouble = Arc::new(Mutex::new(None));
        // The time of a flush itself is part of the lag.
        let interval = lag.map(|lag| lag * 3 / 4);
        let (unlist, unlisted) = unbounded();
        volume.tell_unmapped(move |id| {
            let _ = unlist.send(id);
        });
        let (flush, wanted) = unbounded();
        volume.flush_by(move |id| {
            let (sender, outcome) = bounded(1);
            flush.send((id, sender)).is_ok() && outcome.recv().unwrap_or(false)
        });
        let (refuse, refused) = unbounded();
        volume.tell_refused(move |id| {
            let _ = refuse.send(id);
        });
        let thread = FlushThread {
            mount,
            volume,
            inbox,
            unlisted,
            refused,
            wanted,
            astray: BTreeSet::new(),
            profile,
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
        self.requests.send(Asked::Flush(sender)).map_err(|_| gone(()))?;
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
        if self.requests.send(Asked::Hold(ready, released)).is_ok()
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
    inbox: Receiver<Asked>,
    /// Files that need no flush any more.
    unlisted: Receiver<NodeId>,
    /// Files of which the kernel has what the disk refused.
    refused: Receiver<NodeId>,
    /// Files that somebody waits for; answers whether it was found.
    wanted: Receiver<(NodeId, Sender<bool>)>,
    /// Files that have what the disk refused, and could not be mended yet.
    astray: BTreeSet<NodeId>,
    profile: Profile,
    interval: Option<Duration>,
    helper: Option<Helper>,
    /// Handles that had been opened when the last flush began.
    seen_opened: u64,
    trouble: Arc<Mutex<Option<String>>>,
}

impl FlushThread {
    fn run(mut self, started: &Sender<io::Result<()>>) {
        let helper = self.start_helper();
        let _ =
            started.send(helper.as_ref().map(|_| ()).map_err(|error| io::Error::other(error.to_string())));
        let Ok(helper) = helper else { return };
        self.helper = Some(helper);
        let mut due = self.next_due();
        loop {
            select! {
                recv(self.unlisted) -> id => if let Ok(id) = id {
                    self.close(id);
                },
                recv(self.refused) -> id => if let Ok(id) = id {
                    self.astray.extend(std::iter::once(id).chain(self.refused.try_iter()));
                    self.mend_all();
                    due = self.next_due();
                },
                recv(self.wanted) -> wanted => if let Ok((id, sender)) = wanted {
                    let _ = sender.send(self.flush_one(id));
                },
                recv(self.inbox) -> asked => match asked {
                    Err(_) => return,
                    Ok(Asked::Flush(sender)) => {
                        let _ = sender.send(self.flush_if_needed());
                        due = self.next_due();
                    }
                    Ok(Asked::Hold(ready, released)) => {
                        self.let_go();
                        let _ = ready.send(());
                        if let Ok(Over) = released.recv() {
                            return self.answer_without_mount();
                        }
                    }
                },
                recv(due) -> _ => {
                    self.mend_all();
                    let _shown = match self.profile.gathers() {
                        true => self.begin_if_needed(),
                        false => self.flush_if_needed(),
                    };
                    due = self.next_due();
                }
            }
        }
    }

    /// There is nothing to flush any more.
    fn answer_without_mount(mut self) {
        self.helper = None;
        self.wanted = never();
        while let Ok(request) = self.inbox.recv() {
            match request {
                Asked::Flush(sender) => drop(sender.send(Ok(()))),
                Asked::Hold(ready, _) => drop(ready.send(())),
            }
        }
    }

    fn next_due(&self) -> Receiver<Instant> {
        let again = (!self.astray.is_empty()).then_some(MEND_AGAIN);
        self.interval.into_iter().chain(again).min().map_or_else(never, after)
    }

    /// The kernel drops what the disk has refused.
    fn mend_all(&mut self) {
        for id in std::mem::take(&mut self.astray) {
            if self.profile.gathers() && !self.mend_size(id) {
                self.astray.insert(id);
            }
            self.volume.write_back(id);
        }
    }

    /// Answers whether there is nothing more to be done.
    fn mend_size(&mut self, id: NodeId) -> bool {
        let Some(MappedFile { id, path }) = self.volume.file_at(id) else {
            // Nobody finds it, and it goes with those that have it open.
            self.volume.end_astray(id);
            return true;
        };
        let wanted = Wanted { id: id.0, path: path.to_vec() };
        match self.ask(&Request::Resize(wanted)).and_then(Answer::mounted) {
            Ok(answer) => answer.missed.is_empty(),
            Err(why) => {
                log::warn!("a file is shown with what the disk refused, it is tried again: {why}");
                false
            }
        }
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
        self.note_trouble(&outcome);
        outcome
    }

    /// Every file that is open for writing may have something, and a wait for each of many that have
    /// not would cost more than it brings: nobody waits for this.
    fn begin_if_needed(&mut self) -> Result<(), String> {
        if self.volume.shared_writers().open == 0 {
            return Ok(());
        }
        let outcome = self.ask(&Request::Begin).and_then(|answer| answer.mounted());
        self.note_trouble(&outcome.as_ref().map(drop).map_err(Clone::clone));
        outcome.map(drop)
    }

    fn note_trouble(&self, outcome: &Result<(), String>) {
        let mut trouble = self.trouble.lock();
        if let (Err(why), None) = (&outcome, &*trouble) {
            log::error!("writes through shared mappings cannot be flushed, it is tried again: {why}");
        }
        *trouble = outcome.clone().err();
    }

    /// A file may have moved between the look and the helper's: then it is looked for again.
    fn flush(&mut self) -> Result<(), String> {
        let all = self.volume.mapped_files();
        let missed = self.flush_listed(all.clone())?;
        // Below another mount, or too deep: the kernel finds it by its number, and drops its pages.
        missed.iter().for_each(|file| self.volume.write_back(file.id));
        let settled = all.iter().filter(|file| self.volume.owes_time(file.id));
        settled.filter_map(|file| self.volume.settle_time(file.id).err()).for_each(|error| {
            log::info!("a file keeps the time of its write-back: {error}");
        });
        Ok(())
    }

    /// Answers what was not found, however often it was looked for.
    fn flush_listed(&mut self, mut files: Vec<MappedFile>) -> Result<Vec<MappedFile>, String> {
        for _ in 0..LOOKS {
            let missed = self.flush_files(&files)?;
            if missed.is_empty() {
                return Ok(Vec::new());
            }
            files = self.volume.mapped_files();
            files.retain(|file| missed.contains(&file.id.0));
        }
        Ok(files)
    }

    /// Answers what the helper did not find.
    fn flush_files(&mut self, files: &[MappedFile]) -> Result<Vec<u64>, String> {
        let wanted = files.iter().map(|file| Wanted { id: file.id.0, path: file.path.to_vec() });
        let files = wanted.collect();
        let answer = self.ask(&Request::Flush { files, times: self.profile.gathers() })?.mounted()?;
        if let Some(errno) = answer.not_written {
            // Everything came to the daemon, which gave this error itself; the replica is as the disk.
            let error = io::Error::from_raw_os_error(errno);
            log::warn!("pages of a shared mapping could not be written: {error}");
        }
        Ok(answer.missed)
    }

    /// Answers whether it was found.
    fn flush_one(&mut self, id: NodeId) -> bool {
        let Some(MappedFile { id, path }) = self.volume.mapped_file(id) else { return false };
        let wanted = Wanted { id: id.0, path: path.to_vec() };
        let answer = self.ask(&Request::Sync(wanted)).and_then(Answer::mounted);
        answer.is_ok_and(|answer| answer.missed.is_empty())
    }

    /// The helper has nothing of the mount open any more.
    fn let_go(&mut self) {
        if let Err(why) = self.ask(&Request::CloseAll) {
            log::warn!("files of the mount may still be open: {why}");
        }
    }

    /// Together with those that came meanwhile.
    fn close(&mut self, first: NodeId) {
        let ids = std::iter::once(first).chain(self.unlisted.try_iter()).map(|id| id.0).collect();
        if let Err(why) = self.ask(&Request::Close(ids)) {
            log::warn!("files that nobody else has open may still be open: {why}");
        }
    }

    /// A helper that died is replaced, once for each request.
    fn ask(&mut self, request: &Request) -> Result<Answer, String> {
        if let Some(helper) = &mut self.helper {
            match helper.ask(request) {
                Ok(answer) => return Ok(answer),
                Err(error) => {
                    log::warn!("the helper that flushes shared mappings died ({error}) and is replaced");
                    self.helper = None;
                }
            }
        }
        let mut helper = self.start_helper().map_err(|error| format!("no helper: {error}"))?;
        let answer = helper.ask(request).map_err(|error| format!("the helper died again: {error}"))?;
        self.helper = Some(helper);
        Ok(answer)
    }

    fn start_helper(&self) -> io::Result<Helper> {
        let helper = Helper::start(&self.mount)?;
        self.volume.set_flush_helper(helper.child.id());
        Ok(helper)
    }
}

impl Answer {
    /// Errors: there was no mount to flush.
    fn mounted(self) -> Result<Answer, String> {
        let why = |errno| format!("the mount cannot be opened: {}", io::Error::from_raw_os_error(errno));
        self.no_mount.map_or(Ok(self), |errno| Err(why(errno)))
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

    /// Errors: the helper is gone.
    fn ask(&mut self, request: &Request) -> io::Result<Answer> {
        let requests = self.requests.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        helper::send(requests, request)?;
        helper::receive(&mut self.answers)?.ok_or(io::ErrorKind::UnexpectedEof.into())
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
