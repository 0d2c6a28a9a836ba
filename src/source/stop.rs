//! The end of protection: unmount, drain, note how the set was left.

use std::io;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};

use super::daemon::Daemon;
use super::flush::{Flusher, Held};
use super::keepers::keepers;
use super::mark::Mark;
use super::writeback;
use crate::control::{Phase, StopMode, StopReport, WaitFor};
use crate::failure::Failure;
use crate::intercept::Serving;
use crate::limits::STOP_DRAIN;
use crate::packet::Sequence;
use crate::preflight::{list_uses, users_of};

/// How long a stop waits for dirty pages of shared mappings.
const FLUSH_PATIENCE: Duration = Duration::from_secs(5);

/// How long the kernel needs to end a connection that nobody has any more.
const UNMOUNT_SETTLES: Duration = Duration::from_millis(500);

/// How long requests under way are waited for when the connection was ended.
const LAST_REQUESTS: Duration = Duration::from_secs(10);

impl Daemon {
    /// Takes the mount away and sends what is queued. With [`StopMode::Orderly`] a busy mount is
    /// an error that names its users, and the daemon goes on serving.
    pub fn stop_serving(&self, mode: StopMode) -> Result<StopReport, Failure> {
        let mut life = self.life.lock();
        if let Some(report) = &life.stopped {
            return Ok(report.clone());
        }
        if life.phase != Phase::Serving {
            return Err(Failure::new(
                format!("The daemon of {} is not serving at this moment.", self.options.directory.display()),
                "Nothing was changed.",
                match life.phase {
                    Phase::Starting => format!(
                        "To end it during the first copy: Ctrl-C in its terminal, or kill -TERM {}.",
                        std::process::id()
                    ),
                    _ => "It is about to end; `standin status` says what it still sends.".to_owned(),
                },
            ));
        }
        let Some(serving) = life.serving.take() else {
            return Err(Failure::new("There is no mount.", "Nothing was changed.", ""));
        };
        life.phase = Phase::Stopping;
        // Nothing is locked from here on: whoever asks gets an answer, whatever a stop waits for.
        drop(life);
        self.last_flush();
        let held = self.flusher.get().map(Flusher::hold);
        // Before the mount goes: what is written in the bare directory afterwards counts as later.
        let mark = Mark::now();
        if let Err(error) = self.take_away(&serving, mode) {
            let mut life = self.life.lock();
            life.serving = Some(serving);
            life.phase = Phase::Serving;
            drop(life);
            return Err(self.busy(&error));
        }
        held.into_iter().for_each(Held::mount_is_gone);
        drop(serving);
        self.set_phase(Phase::Draining);
        let report = self.drain(mode, mark);
        self.has_stopped(&report);
        Ok(report)
    }

    /// The end after somebody else took the mount away. `alive`: it was there at this moment.
    pub fn stop_without_mount(&self, alive: Mark) -> StopReport {
        let mut life = self.life.lock();
        life.phase = Phase::Draining;
        drop(life.serving.take());
        drop(life);
        self.flusher.get().map(Flusher::hold).into_iter().for_each(Held::mount_is_gone);
        let report = self.drain(StopMode::Orderly, alive);
        self.has_stopped(&report);
        report
    }

    fn has_stopped(&self, report: &StopReport) {
        let mut life = self.life.lock();
        life.phase = Phase::Stopping;
        life.stopped = Some(report.clone());
        self.life_changed.notify_all();
    }

    /// Errors: the mount is busy, and is as it was.
    fn take_away(&self, serving: &Serving, mode: StopMode) -> io::Result<()> {
        match (unmount(serving), mode) {
            (Ok(()), _) => {}
            (Err(error), StopMode::Now) => {
                if let Err(second) = serving.detach() {
                    log::warn!("the mount could not be detached: {second} (before: {error})");
                }
                return Ok(());
            }
            // Somebody else took it away from here, and others have it.
            (Err(error), StopMode::Orderly) if is_elsewhere(serving, &error) => {}
            (Err(error), StopMode::Orderly) => return Err(error),
        }
        self.end_everywhere(serving);
        Ok(())
    }

    /// A container that was started meanwhile has the mount too, and would keep it for as long as it
    /// lives. What programs there write after the stop is refused, not taken and lost.
    fn end_everywhere(&self, serving: &Serving) {
        if ended_within(serving, UNMOUNT_SETTLES) {
            return;
        }
        let keepers = keepers(&serving.device());
        if !keepers.is_empty() {
            eprintln!(
                "warning: {} was also mounted elsewhere, and ends there too (programs get errors): {}.",
                self.options.directory.display(),
                keepers.join(", ")
            );
        }
        match serving.disconnect() {
            Ok(()) if ended_within(serving, LAST_REQUESTS) => {}
            Ok(()) => log::warn!("requests of programs are still under way"),
            Err(error) => {
                log::error!("the mount cannot be ended for others, it ends with this process: {error}")
            }
        }
    }

    /// What shared mappings hold at this moment goes along; a flush that hangs is not waited for.
    fn last_flush(&self) {
        match self.flush_mapped(Some(Instant::now() + FLUSH_PATIENCE), || false) {
            Ok(true) => {}
            Ok(false) => log::warn!("writes through shared mappings were not flushed in time"),
            Err(failure) => log::warn!("{failure}"),
        }
    }

    fn busy(&self, error: &io::Error) -> Failure {
        if let Some(lost) = self.mount_lost.lock().clone() {
            return Failure::new(
                lost,
                "The daemon goes on with the files that are still open.",
                "End the programs that have files open, or `standin stop --now`.",
            );
        }
        let users = users_of(&self.options.directory).map(|users| list_uses(&users.uses)).unwrap_or_default();
        let shown = self.options.directory.display();
        let users = if users.is_empty() { "its users could not be found".to_owned() } else { users };
        Failure::new(
            format!("{shown} cannot be unmounted ({error}): {users}."),
            "The directory is still mounted and protected.",
            "End these programs and stop again; a second signal, or `standin stop --now`, detaches it from them.",
        )
    }

    /// Sends everything and has it made durable; notes a clean stop if that worked.
    /// What happened after `mark` counts as later.
    fn drain(&self, mode: StopMode, mark: Mark) -> StopReport {
        // With programs that still write there is no end of changes to be settled.
        let settling = (mode == StopMode::Orderly).then(|| self.settle()).flatten();
        let (upto, patience) = match mode {
            StopMode::Orderly => (self.barrier(true).ok(), STOP_DRAIN),
            StopMode::Now => (Some(self.queue.last().sequence), Duration::ZERO),
        };
        let deadline = Instant::now() + patience;
        let drained =
            upto.is_some_and(|upto| self.wait_for(upto, WaitFor::Durable, Some(deadline), || false));
        let mut left = Vec::new();
        for connection in self.connections() {
            let report = connection.report();
            if !connection.is_null()
                && let Some(what) = missing(self.queue.last().sequence, report.applied, report.durable)
            {
                let why = report.held_back().map(|why| format!(" ({why})")).unwrap_or_default();
                left.push(format!("{}: {what}{why}", connection.target));
            }
        }
        if let Some(why) = self.volume.divergence().why() {
            self.note_divergence();
            left.push(format!(
                "all targets: a change that could not be captured ({why}); everything is compared"
            ));
        }
        let drained = drained && left.is_empty();
        let disk = settling.map_or(Disk::Unknown, |settling| disk_after(&settling, deadline));
        self.note_end(drained.then_some(mark), disk);
        StopReport { drained, left }
    }

    /// Begins a sync of the backing file system, on a thread of its own: it may take long, or hang.
    fn settle(&self) -> Option<Receiver<io::Result<()>>> {
        let (backing, divergence) = (self.backing.try_clone().ok()?, self.volume.divergence().clone());
        let (done, outcome) = bounded(1);
        let sync = move || drop(done.send(writeback::sync(&backing, &divergence)));
        std::thread::Builder::new().name("settle".into()).spawn(sync).ok()?;
        Some(outcome)
    }

    /// Notes how the directory was left: up to when every target had everything, if they had, and
    /// whether what was shown to targets is on this disk, so that it is not behind them after a
    /// power loss.
    fn note_end(&self, drained: Option<Mark>, disk: Disk) {
        let mut state = self.state.lock();
        for connection in drained.iter().flat_map(|_| self.connections()) {
            state.record.marks.extend(drained.clone().map(|mark| (connection.target.to_string(), mark)));
        }
        match disk {
            Disk::Settled => state.record.settled = true,
            Disk::Unknown => {}
            Disk::Failed => state.record.marks.clear(),
        }
        if let Err(error) = state.save() {
            log::warn!("the stop could not be noted: {error}");
        }
    }
}

/// What is known of the source's own disk at the end.
enum Disk {
    /// It has everything.
    Settled,
    /// Everything may only be in the page cache.
    Unknown,
    /// A sync failed: nobody knows what it has, and the page cache may have dropped it, too.
    Failed,
}

fn disk_after(settling: &Receiver<io::Result<()>>, deadline: Instant) -> Disk {
    match settling.recv_deadline(deadline) {
        Ok(Ok(())) => Disk::Settled,
        Ok(Err(error)) => {
            log::error!(
                "the directory's disk could not be synced, the next start compares everything: {error}"
            );
            Disk::Failed
        }
        Err(_) => {
            log::warn!(
                "the directory's disk was not synced in time; after a restart of the host everything is compared"
            );
            Disk::Unknown
        }
    }
}

/// What a target lacks of everything up to `last`; `None` if nothing.
fn missing(last: Sequence, applied: Sequence, durable: Sequence) -> Option<String> {
    match (last.0.saturating_sub(applied.0), last.0.saturating_sub(durable.0)) {
        (0, 0) => None,
        (0, unsynced) => {
            Some(format!("it has everything; the last {unsynced} changes may not be on its disk yet"))
        }
        (absent, _) => Some(format!("{absent} changes did not get there")),
    }
}

/// The mount is gone from this namespace, but there in others.
fn is_elsewhere(serving: &Serving, error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EINVAL) && !keepers(&serving.device()).is_empty()
}

/// Whether the connection to the kernel is over, at the latest then.
fn ended_within(serving: &Serving, patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    while !serving.ended() {
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}

/// Programs that just ended may still hold the mount for a moment.
fn unmount(serving: &Serving) -> io::Result<()> {
    let deadline = Instant::now() + Duration::from_millis(500);
    loop {
        match serving.unmount() {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(50));
            }
            outcome => return outcome,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A detached mount was said to leave "1 changes" behind when nothing was missing.
    #[test]
    fn what_is_missing_is_told_apart() {
        let check = |last, applied, durable, part: Option<&str>| {
            let said = missing(Sequence(last), Sequence(applied), Sequence(durable));
            let fits = match (&said, part) {
                (Some(said), Some(part)) => said.contains(part),
                (said, part) => said.is_none() && part.is_none(),
            };
            assert!(fits, "{said:?}, not {part:?}");
        };
        check(7, 7, 7, None);
        check(7, 7, 5, Some("has everything; the last 2"));
        check(7, 4, 3, Some("3 changes did not get there"));
        check(0, 0, 0, None);
    }
}
