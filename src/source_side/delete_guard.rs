//! Mass deletions are asked for before they are sent: `rm -rf` in the wrong place, or what wipes a disk,
//! must not take the copy along within the same minute.
//!
//! ```text
//!  feed, packet by packet ── lets_pass ── more than so many percent of the files within a minute? ──> asks
//!                                                                                                     │
//!  driver: the connection pauses, packets wait in the queue ── a person accepts what is queued ───────┘
//! ```
//! A file is gone with its last name, also where another one takes its place. What was made within the
//! same minute is not missed (temporary files), and a file that such a one replaces is another version of
//! it (an editor saves). How many files there are is known once the target has been in line in this run.
//! Copies are not asked for: what they find in the way, or missing on the source, is moved aside, and
//! nothing of it deleted.

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::limits::{DELETE_GUARD_BORN_MAX, DELETE_GUARD_FILES_MIN, DELETE_GUARD_WINDOW};
use crate::packet::{Birth, ObjectId, Op, Replaced, Sequence, decode_packet_header};
use crate::queue::Packet;
use crate::words::DeleteLimit;

#[cfg(test)]
mod tests;

/// See the module. Of one connection, for all its sessions.
pub struct DeleteGuard {
    limit: DeleteLimit,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Files that the target has, by what was sent; `None` until it was in line.
    files: Option<u64>,
    /// Everything up to here was counted: it may be sent again.
    counted: Sequence,
    /// A person lets all go up to here.
    accepted: Sequence,
    recent: Recent,
    asks: Option<Asked>,
}

/// What was made and went within a minute, by the clock of its capture.
#[derive(Default)]
struct Recent {
    born: VecDeque<(Instant, ObjectId)>,
    alive: HashSet<ObjectId>,
    /// Files that are older, by the second.
    gone: VecDeque<(Instant, u64)>,
    gone_files: u64,
}

/// What waits for a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    pub gone: u64,
    pub of: u64,
    /// The packet that would be one too many.
    pub at: Sequence,
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Asked { gone, of, .. } = self;
        write!(
            f,
            "more than {gone} of {of} files would be deleted within a minute: `standin connection resume \
             --accept-deletes` lets them go"
        )
    }
}

/// Deletions within so long are one number.
const TOGETHER: Duration = Duration::from_secs(1);

/// What an op does to the number of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Born(ObjectId),
    /// `by`: what takes its place.
    Gone {
        file: ObjectId,
        by: Option<ObjectId>,
    },
}

impl DeleteGuard {
    pub fn new(limit: DeleteLimit) -> DeleteGuard {
        DeleteGuard { limit, state: Mutex::default() }
    }

    /// The target is in line, with so many files.
    pub fn knows(&self, files: u64) {
        self.state.lock().files = Some(files);
    }

    /// Counts a packet that is sent next; `false`: it is not to be sent before a person says so.
    pub fn lets_pass(&self, packet: &Packet) -> bool {
        let DeleteLimit::Percent(percent) = self.limit else { return true };
        let mut state = self.state.lock();
        let sequence = packet.position.sequence;
        if state.files.is_none() || sequence <= state.counted {
            return true;
        }
        if state.asks.is_some() {
            return false;
        }
        if let Some(change) = change_of(packet) {
            let is_accepted = sequence <= state.accepted;
            let misses = state.recent.misses(packet.queued_at, change) && !is_accepted;
            let files = state.files.unwrap_or_default();
            let of = (files + state.recent.gone_files).saturating_sub(state.recent.alive.len() as u64);
            let gone = state.recent.gone_files + u64::from(misses);
            if misses && of > DELETE_GUARD_FILES_MIN && gone * 100 > of * u64::from(percent) {
                state.asks = Some(Asked { gone, of, at: sequence });
                return false;
            }
            state.recent.take(packet.queued_at, change, misses);
            state.files = Some(match change {
                Change::Born(_) => files + 1,
                Change::Gone { .. } => files.saturating_sub(1),
            });
        }
        state.counted = sequence;
        true
    }

    /// What it asks for, if it does.
    pub fn asks(&self) -> Option<Asked> {
        self.state.lock().asks
    }

    /// A person lets everything go up to here, and nothing that comes later.
    pub fn accept(&self, upto: Sequence) {
        let mut state = self.state.lock();
        if state.asks.take().is_some() {
            state.accepted = upto;
            (state.recent.gone, state.recent.gone_files) = (VecDeque::new(), 0);
        }
    }

    /// What it asked for is not to be sent any more: a copy comes in its place.
    pub fn forget(&self) {
        self.state.lock().asks = None;
    }
}

impl Recent {
    /// Whether a file that is older than the window is gone after this.
    fn misses(&mut self, now: Instant, change: Change) -> bool {
        self.pass(now);
        match change {
            Change::Born(_) => false,
            Change::Gone { file, by } => {
                !self.alive.contains(&file) && by.is_none_or(|by| !self.alive.contains(&by))
            }
        }
    }

    fn take(&mut self, now: Instant, change: Change, misses: bool) {
        match change {
            Change::Born(file) if self.born.len() < DELETE_GUARD_BORN_MAX => {
                self.born.push_back((now, file));
                self.alive.insert(file);
            }
            Change::Born(_) => {}
            Change::Gone { file, .. } => _ = self.alive.remove(&file),
        }
        if misses {
            self.gone_files += 1;
            match self.gone.back_mut() {
                Some((since, files)) if now.saturating_duration_since(*since) < TOGETHER => *files += 1,
                _ => self.gone.push_back((now, 1)),
            }
        }
    }

    /// What is older than the window is of no interest.
    fn pass(&mut self, now: Instant) {
        let is_over = |then: &Instant| now.saturating_duration_since(*then) >= DELETE_GUARD_WINDOW;
        while let Some(file) = take_first(&mut self.born, is_over) {
            self.alive.remove(&file);
        }
        while let Some(files) = take_first(&mut self.gone, is_over) {
            self.gone_files -= files;
        }
    }
}

fn take_first<T>(line: &mut VecDeque<(Instant, T)>, is_over: impl Fn(&Instant) -> bool) -> Option<T> {
    line.front().filter(|(then, _)| is_over(then))?;
    line.pop_front().map(|(_, first)| first)
}

fn change_of(packet: &Packet) -> Option<Change> {
    if !packet.changes_files {
        return None;
    }
    match decode_packet_header(&packet.header).ok()?.op {
        Op::Create { birth: Birth::File, object, .. } => Some(Change::Born(object)),
        Op::Unlink { object, links: 0, .. } => Some(Change::Gone { file: object, by: None }),
        Op::Rename { object, replaced: Some(Replaced { object: file, links: 0 }), .. } => {
            Some(Change::Gone { file, by: Some(object) })
        }
        _ => None,
    }
}
