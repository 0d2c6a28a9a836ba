//! What was queued at an orderly stop, and goes to its targets after the next start, in its order.
//!
//! ```text
//!  stop:   drain ── not all is there ──> the queue to disk ──> set.json: segments, and for each target
//!                                                              {applied, up to, as of which moment}
//!  start:  queue with these segments ──> a connection that begins behind what its target has applied
//!          what was queued ──> all is there: noted for that moment ──> what has changed since, by time ──> packets
//!                              the replica is a prefix of the source all the while
//! ```
//! A run that was killed leaves none, nor does one whose disk may lack what it had changed: what its targets lack
//! is found by time, as ever, and so it is where something of a backlog cannot be read.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::connection::Connection;
use super::ground::Ground;
use super::mark::{Mark, Reached};
use crate::packet::{Epoch, Incarnation, Position, Sequence};
use crate::queue::Backlog;

/// As the record of the set has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftQueue {
    /// Where the segments are.
    #[serde(with = "crate::control::path_text")]
    pub directory: PathBuf,
    pub queue: Backlog,
    /// By target, as it was typed.
    pub targets: BTreeMap<String, LeftBehind>,
}

/// What waits for one target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftBehind {
    /// It has said to have this.
    pub applied: Sequence,
    /// It has said to have this on its disk: with less it was set back.
    #[serde(default)]
    pub durable: Sequence,
    /// The last packet that is its.
    pub upto: Position,
    /// With that it has everything as of this moment.
    pub mark: Mark,
}

/// Whether what a connection has not sent may be sent after a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leaves {
    /// It has no way on but a copy.
    Nothing,
    /// All that is queued.
    All,
    /// Of a run before this one, still.
    Older(LeftBehind),
}

/// How long a stop waits for the disk of the queue.
const WRITTEN_MAX: Duration = Duration::from_secs(30);

impl LeftQueue {
    /// The position of a run that goes on behind it, if that can.
    pub fn origin(&self, epoch: Epoch, run: Incarnation) -> Option<Position> {
        let is_of_epoch = |left: &LeftBehind| left.upto.epoch == epoch;
        let is_wanted = !self.targets.is_empty() && self.targets.values().all(is_of_epoch);
        let sequence = self.queue.last().sequence;
        is_wanted.then(|| Position { sequence, ..Position::origin(epoch, run) })
    }
}

/// Puts on disk what some target has not applied and may get after the next start. `mark`: nothing has changed since
/// that moment. `None`: there is nothing, or no disk for it.
///
/// Errors: why it cannot be kept.
pub fn leave(
    ground: &Ground,
    connections: &[Arc<Connection>],
    mark: &Mark,
    give_up: impl Fn() -> bool,
) -> Result<Option<LeftQueue>, String> {
    let last = ground.queue.last_change();
    let waits = |connection: &Arc<Connection>| {
        let report = connection.report();
        let left = match report.leaves {
            Leaves::All if report.applied < last => None,
            Leaves::Older(left) => Some(LeftBehind { durable: report.durable, ..left }),
            Leaves::All | Leaves::Nothing => return None,
        };
        Some((connection.target.to_string(), (report.applied, report.durable), left))
    };
    let waiting: Vec<_> = connections.iter().filter_map(waits).collect();
    let Some(directory) = ground.options.queue_directory().filter(|_| !waiting.is_empty()) else {
        return Ok(None);
    };
    // Where nobody gets what this run has queued, none of it stays.
    let older: Option<Vec<Sequence>> =
        waiting.iter().map(|(.., left)| left.as_ref().map(|left| left.upto.sequence)).collect();
    let upto = older.and_then(|older| older.into_iter().max());
    let queue = ground.queue.leave_backlog(upto, Instant::now() + WRITTEN_MAX, give_up)?;
    // As it is by now: what has been acknowledged meanwhile is not there any more.
    let waiting: Vec<_> = connections.iter().filter_map(waits).collect();
    let is_older = upto.is_some();
    let upto = queue.last();
    let mark = mark.clone().reached(Reached { run: upto.incarnation, sequence: upto.sequence });
    // Who has come into line since has packets that are not among these.
    let waiting = waiting.into_iter().filter(|(.., left)| left.is_some() || !is_older);
    let targets: BTreeMap<String, LeftBehind> = waiting
        .map(|(target, (applied, durable), left)| {
            (target, left.unwrap_or_else(|| LeftBehind { applied, durable, upto, mark: mark.clone() }))
        })
        .collect();
    Ok((!targets.is_empty()).then_some(LeftQueue { directory, queue, targets }))
}
