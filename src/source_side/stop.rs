//! The end of protection: unmount, drain, and what is left. Plain steps, on the thread that does what
//! takes long.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::backlog::{self, Leaves, LeftQueue};
use super::board::Board;
use super::connection::{Connection, Report};
use super::covering::Covering;
use super::director::Event;
use super::flush::Flusher;
use super::ground::Ground;
use super::haste::Haste;
use super::keepers::keepers;
use super::life::Ended;
use super::mark::Mark;
use super::settling::{Disk, disk_after};
use super::{sync, writeback};
use crate::control::{StopMode, StopReport, WaitFor};
use crate::cover::Ready;
use crate::failure::Failure;
use crate::intercept::{Control, Serving};
use crate::limits::{CONTROL_ANSWER, STOP_DRAIN};
use crate::packet::{DataState, Sequence};
use crate::preflight::{list_uses, users_of};

/// Of what is kept for a target.
pub const SENT_LATER: &str = "; sent after the next start";

/// How long a stop waits for dirty pages of shared mappings.
const FLUSH_PATIENCE: Duration = Duration::from_secs(5);

/// How long the kernel needs to end a connection that nobody has any more.
const UNMOUNT_SETTLES: Duration = Duration::from_millis(500);

/// How long requests under way are waited for when the connection was ended.
const LAST_REQUESTS: Duration = Duration::from_secs(10);

/// Takes the mount away.
pub struct Unmount {
    pub ground: Arc<Ground>,
    pub board: Arc<Board>,
    pub flusher: Arc<Flusher>,
    pub serving: Serving,
    pub mode: StopMode,
}

/// The mount is in use, and is as it was.
pub struct Busy {
    pub serving: Serving,
    /// It was there at this moment.
    pub alive: Mark,
    pub failure: Failure,
}

impl Unmount {
    /// Gives the moment before the mount went. With [`StopMode::Orderly`] a busy mount is an error
    /// that names its users, and the daemon goes on serving.
    pub fn run(self) -> Result<Mark, Box<Busy>> {
        self.last_flush();
        let held = self.flusher.hold();
        // Before the mount goes: what is written in the bare directory afterwards counts as later.
        let mark = Mark::now();
        if let Err(error) = self.take_away() {
            let failure = self.busy(&error);
            return Err(Box::new(Busy { serving: self.serving, alive: mark, failure }));
        }
        held.mount_is_gone();
        Ok(mark)
    }

    /// What shared mappings hold at this moment goes along; a flush that hangs is not waited for.
    fn last_flush(&self) {
        match sync::flush_mapped(&self.board.read(), Some(Instant::now() + FLUSH_PATIENCE), || false) {
            Ok(true) => {}
            Ok(false) => log::warn!("writes through shared mappings were not flushed in time"),
            Err(failure) => log::warn!("{failure}"),
        }
    }

    /// Errors: the mount is busy, and is as it was.
    fn take_away(&self) -> io::Result<()> {
        let serving = &self.serving;
        let cover = self.covering().slip_beneath()?;
        let before = Instant::now();
        match (unmount(serving), self.mode) {
            (Ok(()), _) => {}
            (Err(error), StopMode::Now) => {
                // Not a mount: somebody else took it away.
                if let Err(second) = serving.detach()
                    && second.raw_os_error() != Some(libc::EINVAL)
                {
                    log::warn!("the mount could not be detached: {second} (before: {error})");
                }
                return Ok(());
            }
            // Somebody else took it away from here, and others have it.
            (Err(error), StopMode::Orderly | StopMode::Covered) if is_elsewhere(serving, &error) => {}
            (Err(error), StopMode::Orderly | StopMode::Covered) => {
                cover.into_iter().for_each(Ready::give_up);
                return Err(error);
            }
        }
        self.covering().mount_is_gone(cover, before);
        self.end_everywhere();
        Ok(())
    }

    fn covering(&self) -> Covering<'_> {
        Covering { ground: &self.ground, serving: &self.serving, mode: self.mode }
    }

    /// A container that was started meanwhile has the mount too, and would keep it for as long as it
    /// lives. What programs there write after the stop is refused, not taken and lost.
    fn end_everywhere(&self) {
        let serving = &self.serving;
        if ended_within(serving, UNMOUNT_SETTLES) {
            return;
        }
        let Some(control) = serving.control() else {
            return log::error!("the mount cannot be ended for others, it ends with this process");
        };
        // Its number may be another mount's by now.
        if control.is_connected() {
            self.end_for_others(control);
        }
        if !ended_within(serving, LAST_REQUESTS) {
            log::warn!("requests of programs are still under way");
        }
    }

    fn end_for_others(&self, control: &Control) {
        let keepers = keepers(&self.serving.device());
        if !keepers.is_empty() {
            aside!(
                "warning: {} was also mounted elsewhere, and ends there too (programs get errors): {}.",
                self.ground.options.directory.display(),
                keepers.join(", ")
            );
        }
        if let Err(error) = control.abort() {
            log::error!("the mount cannot be ended for others, it ends with this process: {error}");
        }
    }

    fn busy(&self, error: &io::Error) -> Failure {
        if let Some(lost) = &self.board.read().mount_lost {
            return Failure::new(
                lost.as_str(),
                "The daemon goes on with the files that are still open.",
                "End the programs that have files open, or `standin stop --now`.",
            );
        }
        let directory = &self.ground.options.directory;
        let users = users_of(directory).map(|users| list_uses(&users.uses)).unwrap_or_default();
        let shown = directory.display();
        let users = if users.is_empty() { "its users could not be found".to_owned() } else { users };
        Failure::new(
            format!("{shown} cannot be unmounted ({error}): {users}."),
            "The directory is still mounted and protected.",
            "End these programs and stop again; a second signal, or `standin stop --now`, detaches it from them.",
        )
    }
}

/// Sends what is queued, when the mount is gone.
pub struct Drain {
    pub ground: Arc<Ground>,
    pub board: Arc<Board>,
    pub director: Sender<Event>,
    pub mode: StopMode,
    /// Once it is made, nothing is waited for any more.
    pub haste: Haste,
    /// What happened after it counts as later.
    pub mark: Mark,
    /// What somebody else unmounted, and what flushes it.
    pub gone: Option<(Serving, Arc<Flusher>)>,
}

/// How the directory was left.
pub struct Drained {
    pub report: StopReport,
    pub ended: Ended,
    /// Up to when every target had everything, if they had.
    pub mark: Option<Mark>,
    pub disk: Disk,
    /// What is sent after the next start.
    pub left: Option<LeftQueue>,
}

/// What a replica lacks that has every change: it follows the stream, and is bad.
fn lacks_objects(report: &Report) -> Option<String> {
    let objects = |count: u64| if count == 1 { "1 object".to_owned() } else { format!("{count} objects") };
    match report.data {
        DataState::Bad if report.aside.total > 0 => {
            Some(format!("{} set aside there, the replica is bad", objects(report.aside.total)))
        }
        DataState::Bad if report.left_out.count > 0 => {
            Some(format!("{} left out of the copy, the replica is bad", objects(report.left_out.count)))
        }
        DataState::Bad if report.is_unheard() => Some("it has not answered since the start".to_owned()),
        DataState::Bad => {
            Some("the copy to it was not complete, the replica is bad until the next one is".to_owned())
        }
        DataState::Empty => Some("nothing was copied to it".to_owned()),
        // Its copy waits for a person's word: no packet tells what that was to bring.
        DataState::Good => {
            let asked = report.kept.asked.filter(|asked| asked.by_copy);
            asked.map(|asked| format!("what has changed since it was in line is not there: {asked}"))
        }
    }
}

impl Drain {
    /// Has everything made durable on the targets, as far as they do it in time.
    pub fn run(mut self) -> Drained {
        if let Some((serving, flusher)) = self.gone.take() {
            drop(serving);
            flusher.hold().mount_is_gone();
        }
        self.board.read().connections.iter().for_each(|connection| connection.drains());
        // With programs that still write there is no end of changes to be settled.
        let settling = (self.mode != StopMode::Now).then(|| self.settle()).flatten();
        let (upto, patience) = match self.mode {
            StopMode::Orderly | StopMode::Covered => {
                let upto = sync::barrier(&self.ground, &self.director, WaitFor::Durable, CONTROL_ANSWER);
                (upto.ok(), STOP_DRAIN)
            }
            StopMode::Now => (Some(sync::Upto::queued(&self.ground.queue)), Duration::ZERO),
        };
        let deadline = Instant::now() + patience;
        let places = (&*self.ground, &*self.board);
        let is_hasty = || self.haste.is_made();
        let drained = upto.is_some_and(|upto| {
            sync::wait_for(places, upto, (WaitFor::Durable, false), Some(deadline), is_hasty)
        });
        let (queue, not_kept) = match self.leave(is_hasty) {
            Ok(queue) => (queue, None),
            Err(why) => (None, Some(why)),
        };
        let left = self.left(queue.as_ref(), not_kept.as_deref());
        let drained = drained && left.is_empty();
        let disk = settling.map_or(Disk::Unknown, |settling| disk_after(&settling, deadline, is_hasty));
        let ended = self.ended();
        let mark = drained.then_some(self.mark);
        Drained { report: StopReport { drained, left }, ended, mark, disk, left: queue }
    }

    /// Puts on disk what is queued, where packets are all that a target lacks.
    ///
    /// Errors: why it cannot be kept.
    fn leave(&self, is_hasty: impl Fn() -> bool) -> Result<Option<LeftQueue>, String> {
        if self.mode != StopMode::Orderly || is_hasty() || self.uncompared().is_some() {
            return Ok(None);
        }
        let connections = self.board.read().connections.clone();
        backlog::leave(&self.ground, &connections, &self.mark, is_hasty)
            .inspect_err(|why| log::warn!("what is queued is not kept for the next start: {why}"))
    }

    /// What is only not on a target's disk yet counts where it was waited for.
    fn ended(&self) -> Ended {
        let last = self.ground.queue.last_change();
        let lacks = |connection: &Arc<Connection>| {
            let report = connection.report();
            let is_late = self.mode != StopMode::Now && report.durable < last;
            !connection.is_null() && (report.applied < last || is_late || lacks_objects(&report).is_some())
        };
        let is_behind = self.board.read().connections.iter().any(lacks);
        match is_behind || self.uncompared().is_some() {
            true => Ended::LeftBehind,
            false => Ended::Complete,
        }
    }

    /// What packets do not tell, and not every target has.
    fn uncompared(&self) -> Option<Arc<str>> {
        if let Some(why) = self.ground.volume.divergence().uncaptured() {
            return Some(why);
        }
        let posted = self.board.read();
        let connections = posted.connections.iter().filter(|connection| !connection.is_null());
        let lacks = |connection: &Arc<Connection>| sync::lacks_comparison(&connection.report(), &self.ground);
        connections.filter_map(lacks).map(|lack| lack.why).next()
    }

    /// What targets lack, in words.
    fn left(&self, queue: Option<&LeftQueue>, not_kept: Option<&str>) -> Vec<String> {
        let is_kept = |target: &str| queue.is_some_and(|queue| queue.targets.contains_key(target));
        let mut left = Vec::new();
        for connection in &self.board.read().connections {
            let report = connection.report();
            if connection.is_null() {
                continue;
            }
            // Of one that was not in line in this run nothing is known of before.
            let begins = match report.leaves {
                Leaves::Older(_) => Sequence(0),
                Leaves::All | Leaves::Nothing => self.ground.queue.began(),
            };
            let (applied, durable) = (report.applied.max(begins), report.durable.max(begins));
            if let Some(what) = missing(self.ground.queue.last_change(), applied, durable) {
                let why = report.held_back().map(|why| format!(" ({why})")).unwrap_or_default();
                let target = connection.target.to_string();
                let then = match not_kept.filter(|_| report.leaves != Leaves::Nothing) {
                    _ if is_kept(&target) => SENT_LATER.to_owned(),
                    Some(why) => format!("; its queue is not kept: {why}"),
                    None => String::new(),
                };
                left.push(format!("{target}: {what}{why}{then}"));
            }
            left.extend(lacks_objects(&report).map(|what| format!("{}: {what}", connection.target)));
        }
        if let Some(why) = self.uncompared() {
            let what = match self.ground.volume.divergence().uncaptured() {
                Some(_) => "a change that could not be captured ",
                None => "",
            };
            left.push(format!("all targets: {what}({why}); everything is compared"));
        }
        left
    }

    /// Begins a sync of the backing file system, on a thread of its own: it may take long, or hang.
    fn settle(&self) -> Option<Receiver<io::Result<()>>> {
        let backing = self.ground.backing.try_clone().ok()?;
        let divergence = self.ground.volume.divergence().clone();
        let (done, outcome) = bounded(1);
        let sync = move || drop(done.send(writeback::sync(&backing, &divergence)));
        std::thread::Builder::new().name("settle".into()).spawn(sync).ok()?;
        Some(outcome)
    }
}

/// What a target lacks of everything up to `last`; `None` if nothing.
fn missing(last: Sequence, applied: Sequence, durable: Sequence) -> Option<String> {
    match (last.0.saturating_sub(applied.0), last.0.saturating_sub(durable.0)) {
        (0, 0) => None,
        (0, unsynced) => {
            Some(format!("it has everything; the last {} may not be on its disk yet", changes(unsynced)))
        }
        (absent, _) => Some(format!("{} did not get there", changes(absent))),
    }
}

fn changes(count: u64) -> String {
    format!("{count} change{}", if count == 1 { "" } else { "s" })
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

/// Programs that just ended may still hold the mount.
fn unmount(serving: &Serving) -> io::Result<()> {
    patiently(|| serving.unmount())
}

/// For a moment, while the mount is busy.
pub(super) fn patiently(deed: impl Fn() -> io::Result<()>) -> io::Result<()> {
    let deadline = Instant::now() + Duration::from_millis(500);
    loop {
        match deed() {
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
