//! Holding changes until the targets have everything. Plain steps, on the thread that does what takes long.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::AS_BEFORE;
use super::look::followers;
use crate::clock::steady_ms;
use crate::control::WaitFor;
use crate::failure::Failure;
use crate::limits::CONTROL_ANSWER;
use crate::packet::Position;
use crate::source_side::board::Board;
use crate::source_side::connection::{Connection, Report};
use crate::source_side::director::Event;
use crate::source_side::durability::HeldBarriers;
use crate::source_side::flush::Held as HeldFlushes;
use crate::source_side::ground::Ground;
use crate::source_side::mark::Mark;
use crate::source_side::sync;
use crate::units;

/// See the module.
pub struct Hold {
    pub ground: Arc<Ground>,
    pub board: Arc<Board>,
    pub director: Sender<Event>,
    pub patience: Duration,
    pub until: Instant,
    /// What is held already, where something was put into the stream since.
    pub again: Option<Gates>,
}

/// Nothing is changed, and nothing comes into the queue but what the director puts there, until it is dropped.
pub struct Gates {
    _changes: Sender<()>,
    _barriers: Option<HeldBarriers>,
    _flushes: HeldFlushes,
    /// Up to when targets that have everything had everything.
    pub mark: Mark,
    /// See [`steady_ms`].
    pub since_ms: u64,
    /// What had been appended before.
    before: u64,
}

/// The targets that follow have everything.
pub struct Held {
    pub gates: Gates,
    /// That is everything up to here.
    pub last: Position,
    pub followers: Vec<Arc<Connection>>,
    /// Packets that they got since changes were held.
    pub sent: u64,
    /// How it is done once more.
    pub patience: Duration,
    pub until: Instant,
}

impl Hold {
    /// Errors: it took too long; nothing is held any more.
    pub fn run(mut self) -> Result<Held, Failure> {
        let gates = match self.again.take() {
            Some(gates) => gates,
            None => self.close()?,
        };
        let followers = followers(&self.board.read().connections);
        let upto = sync::barrier(&self.ground, &self.director, WaitFor::Durable, CONTROL_ANSWER)?;
        for connection in &followers {
            let has_all = |report: &Report| sync::has(report, upto.of(report), WaitFor::Durable);
            let report = connection.wait(self.until, has_all);
            if !has_all(&report) {
                return Err(self.late(&format!("{} has not got the rest", connection.target)));
            }
        }
        let last = self.ground.queue.last();
        let sent = last.sequence.0.saturating_sub(gates.before);
        Ok(Held { gates, last, followers, sent, patience: self.patience, until: self.until })
    }

    fn close(&self) -> Result<Gates, Failure> {
        let posted = self.board.read();
        // What mappings hold stays with the kernel; the less there is, the less the next program gets at once.
        if !sync::flush_mapped(&posted, Some(self.until), || false)? {
            return Err(self.late("writes through shared mappings are not flushed"));
        }
        let flusher = posted.flusher.as_ref().ok_or_else(|| self.late("it does not serve"))?;
        let flushes = flusher.hold();
        let before = self.least_applied();
        let since_ms = steady_ms();
        let changes = self.hold_changes()?;
        let barriers = self.ground.durability.as_ref().map(|durability| durability.hold_barriers());
        let mark = Mark::now();
        Ok(Gates { _changes: changes, _barriers: barriers, _flushes: flushes, mark, since_ms, before })
    }

    /// What every follower has by now.
    fn least_applied(&self) -> u64 {
        let applied = followers(&self.board.read().connections);
        let applied = applied.iter().map(|connection| connection.report().applied.0);
        applied.min().unwrap_or(self.ground.queue.last().sequence.0)
    }

    /// Until what is given is dropped. The thread that has the lock waits for that, and for nothing else.
    fn hold_changes(&self) -> Result<Sender<()>, Failure> {
        let (release, released) = bounded::<()>(0);
        let (hold, held) = bounded(1);
        let volume = self.ground.volume.clone();
        let keep = move || volume.while_nothing_changes(|| wait_for_release(&hold, &released));
        std::thread::Builder::new().name("hold".into()).spawn(keep).map_err(|error| {
            Failure::new(format!("Changes cannot be held: {error}."), AS_BEFORE, "Try again.").passing()
        })?;
        match held.recv_deadline(self.until) {
            Ok(()) => Ok(release),
            Err(_) => Err(self.late("a change of a program does not end")),
        }
    }

    fn late(&self, what: &str) -> Failure {
        Failure::new(
            format!(
                "Programs would have to wait for longer than {}: {what}.",
                units::duration(self.patience)
            ),
            AS_BEFORE,
            "Try again when less is written, or give more time with --pause.",
        )
        .passing()
    }
}

fn wait_for_release(hold: &Sender<()>, released: &Receiver<()>) {
    if hold.send(()).is_ok() {
        let _ = released.recv();
    }
}
