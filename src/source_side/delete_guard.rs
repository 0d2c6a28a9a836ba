//! Mass deletions are asked for before they are sent: `rm -rf` in the wrong place, or what wipes a disk,
//! must not take the copy along within the same minute.
//!
//! ```text
//!  feed, packet by packet ── lets_pass ── more than so many percent of the names within a minute? ──> asks
//!                                                                                                     │
//!  driver: the connection pauses, packets wait in the queue ── a person accepts what is queued ───────┘
//! ```
//! What is counted, on both sides, are names of whatever is no directory: a name that goes is a deletion,
//! whatever other names its object has. One that came within the same minute is not missed (temporary files),
//! and makes up for one other: where its object takes the place of another, that has a new version (an editor
//! saves). So no more names are lost within a minute than are counted. How many there are is known once the
//! target has been in line in this run. Before a copy of everything, or of what has changed while nothing was captured, the
//! names of the source are counted ([`DeleteGuard::expects`]); what a copy finds in the way, or missing on the source, is
//! moved aside, and nothing of it deleted.
//!
//! Whoever wants to act on a packet before its turn ([`super::relief`]) asks first, for each in its order, as
//! the feed does: a packet counts once, whoever comes with it first.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::limits::{DELETE_GUARD_BORN_MAX, DELETE_GUARD_FILES_MIN, DELETE_GUARD_WINDOW};
use crate::packet::{Keeping, ObjectId, Op, Replaced, Sequence, decode_packet_header};
use crate::queue::Packet;
use crate::resync::NamesHad;
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
    /// Names that the target has, by what was counted; `None` until it was in line.
    names: Option<u64>,
    /// About so many, as it is kept over a restart.
    noted: Option<u64>,
    /// Everything up to here was counted: it may be sent again.
    counted: Sequence,
    /// A person lets all go up to here.
    accepted: Sequence,
    /// And what of that the next copy finds missing, which comes in its place.
    is_copy_accepted: bool,
    recent: Recent,
    asks: Option<Asked>,
}

/// What came and went within a minute, by the clock of its capture.
#[derive(Default)]
struct Recent {
    born: VecDeque<(Instant, ObjectId)>,
    newborn: HashMap<ObjectId, Newborn>,
    /// Of all objects.
    newborn_left: u64,
    /// Names that were there before, by the second.
    gone: VecDeque<(Instant, u64)>,
    gone_names: u64,
}

/// Names that an object got within the minute. The oldest one is made up for first, so that it is the first
/// one to be forgotten too.
#[derive(Default)]
struct Newborn {
    left: u32,
    spent: u32,
}

/// What waits for a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    pub gone: u64,
    pub of: u64,
    /// The packet that would be one too many.
    pub at: Sequence,
    /// They are gone from the directory, before a copy.
    #[serde(default)]
    pub by_copy: bool,
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Asked { gone, of, by_copy, .. } = self;
        if *by_copy {
            return write!(
                f,
                "{gone} of {of} files are gone from the directory since its target was in line: `standin connection resume \
                 --accept-deletes` has them go there, too, aside"
            );
        }
        write!(
            f,
            "more than {gone} of {of} files would be deleted within a minute: `standin connection resume \
             --accept-deletes` lets them go"
        )
    }
}

/// Deletions within so long are one number.
const TOGETHER: Duration = Duration::from_secs(1);

/// What an op does to the number of names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Change {
    born: Option<ObjectId>,
    gone: Option<Gone>,
}

/// A name goes. A newborn name of one of these makes up for it, of the first one that has any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Gone([Option<ObjectId>; 2]);

impl DeleteGuard {
    /// `noted`, `asks`: what [`DeleteGuard::noted`] and [`DeleteGuard::asks`] gave in the run before. Nobody has
    /// answered since.
    pub fn new(limit: DeleteLimit, noted: Option<u64>, asks: Option<Asked>) -> DeleteGuard {
        // Before a copy it is counted again, and may be otherwise by then.
        let asks = asks.filter(|asks| limit != DeleteLimit::Off && !asks.by_copy);
        DeleteGuard { limit, state: Mutex::new(State { noted, asks, ..State::default() }) }
    }

    /// The target is in line, with so many names of what is no directory; it was sent everything up to here.
    pub fn knows(&self, names: u64, upto: Sequence) {
        let mut state = self.state.lock();
        state.names = Some(names);
        state.is_copy_accepted = false;
        state.counted = state.counted.max(upto);
    }

    /// As [`DeleteGuard::knows`], by a copy that has not looked at all names.
    pub fn knows_the_rest(&self, upto: Sequence) {
        let mut state = self.state.lock();
        state.names = state.names.or(state.noted);
        state.is_copy_accepted = false;
        state.counted = state.counted.max(upto);
    }

    /// How many names there are, about: it changes seldom.
    pub fn noted(&self) -> Option<u64> {
        let mut state = self.state.lock();
        if let Some(names) = state.names
            && state.noted.is_none_or(|noted| noted.abs_diff(names) > noted / 10)
        {
            state.noted = Some(names);
        }
        state.noted
    }

    /// Counts a packet whose turn comes next, for who sends it or acts on it; `false`: not before a person
    /// says so.
    pub fn lets_pass(&self, packet: &Packet) -> bool {
        let DeleteLimit::Percent(percent) = self.limit else { return true };
        let mut state = self.state.lock();
        let sequence = packet.position.sequence;
        if sequence <= state.counted {
            return true;
        }
        if state.asks.is_some() {
            return false;
        }
        let Some(names) = state.names else { return true };
        if let Some(change) = change_of(packet) {
            let is_accepted = sequence <= state.accepted;
            let of = state.recent.names_before(packet.queued_at, names);
            let misses = state.recent.misses(change) && !is_accepted;
            let gone = state.recent.gone_names + u64::from(misses);
            if misses && of > DELETE_GUARD_FILES_MIN && gone * 100 > of * u64::from(percent) {
                state.asks = Some(Asked { gone, of, at: sequence, by_copy: false });
                return false;
            }
            state.recent.take(packet.queued_at, change, misses);
            let after = names + u64::from(change.born.is_some());
            state.names = Some(after.saturating_sub(u64::from(change.gone.is_some())));
        }
        state.counted = sequence;
        true
    }

    /// How many names a copy is to find, as far as that is known and nobody has accepted less.
    pub fn expects(&self) -> Option<NamesHad> {
        let DeleteLimit::Percent(percent) = self.limit else { return None };
        let state = self.state.lock();
        let names = state.names.or(state.noted).filter(|names| *names > DELETE_GUARD_FILES_MIN)?;
        (!state.is_copy_accepted).then_some(NamesHad { names, percent })
    }

    /// A copy has found fewer.
    pub fn ask_of_copy(&self, gone: u64, of: u64) -> Asked {
        *self.state.lock().asks.insert(Asked { gone, of, at: Sequence(0), by_copy: true })
    }

    /// What it asks for, if it does.
    pub fn asks(&self) -> Option<Asked> {
        self.state.lock().asks
    }

    /// A person lets everything go up to here, and nothing that comes later: before a copy what was counted, over a
    /// restart too.
    pub fn accept(&self, upto: Sequence) {
        let mut state = self.state.lock();
        match state.asks.take() {
            Some(Asked { gone, of, by_copy: true, .. }) => {
                let left = Some(of.saturating_sub(gone));
                (state.names, state.noted) = (left, left);
            }
            Some(Asked { by_copy: false, .. }) => {
                (state.accepted, state.is_copy_accepted) = (upto, true);
                (state.recent.gone, state.recent.gone_names) = (VecDeque::new(), 0);
            }
            None => {}
        }
    }

    /// What it asked for is not to be sent any more: a copy, which a person has let begin, comes in its place.
    pub fn forget(&self) {
        self.state.lock().asks = None;
    }
}

impl Gone {
    /// What keeps other names needs its own newborn one for them (dpkg keeps the old version by a link, until
    /// the new one is in its place). An empty directory does not say that it is one: it counts.
    fn in_favour_of(by: ObjectId, Replaced { object, links }: Replaced) -> Gone {
        match links {
            0 => Gone([Some(object), Some(by)]),
            _ => Gone([Some(by), Some(object)]),
        }
    }
}

impl Recent {
    /// How many of these names are older than the window, with those that have gone within it.
    fn names_before(&mut self, now: Instant, names: u64) -> u64 {
        self.pass(now);
        (names + self.gone_names).saturating_sub(self.newborn_left)
    }

    /// Whether a name that is older than the window is gone after this, and none made up for it.
    fn misses(&self, change: Change) -> bool {
        change.gone.is_some_and(|gone| self.makes_up_for(gone).is_none())
    }

    /// What has a newborn name in place of one that goes.
    fn makes_up_for(&self, Gone(objects): Gone) -> Option<ObjectId> {
        let has_left = |object: &ObjectId| self.newborn.get(object).is_some_and(|names| names.left > 0);
        objects.into_iter().flatten().find(has_left)
    }

    /// `misses`: the name that goes counts; else a newborn one is spent, if there is one.
    fn take(&mut self, now: Instant, Change { born, gone }: Change, misses: bool) {
        if let Some(object) = gone.and_then(|gone| self.makes_up_for(gone)) {
            self.spend(object);
        }
        if misses {
            self.gone_names += 1;
            match self.gone.back_mut() {
                Some((since, names)) if now.saturating_duration_since(*since) < TOGETHER => *names += 1,
                _ => self.gone.push_back((now, 1)),
            }
        }
        if let Some(object) = born.filter(|_| self.born.len() < DELETE_GUARD_BORN_MAX) {
            self.born.push_back((now, object));
            self.newborn.entry(object).or_default().left += 1;
            self.newborn_left += 1;
        }
    }

    fn spend(&mut self, object: ObjectId) {
        let names = self.newborn.entry(object).or_default();
        (names.left, names.spent) = (names.left - 1, names.spent + 1);
        self.newborn_left -= 1;
    }

    /// What is older than the window is of no interest.
    fn pass(&mut self, now: Instant) {
        let is_over = |then: &Instant| now.saturating_duration_since(*then) >= DELETE_GUARD_WINDOW;
        while let Some(object) = take_first(&mut self.born, is_over) {
            self.grows_up(object);
        }
        while let Some(names) = take_first(&mut self.gone, is_over) {
            self.gone_names -= names;
        }
    }

    /// The oldest of its newborn names is none any more.
    fn grows_up(&mut self, object: ObjectId) {
        let Entry::Occupied(mut entry) = self.newborn.entry(object) else { return };
        let names = entry.get_mut();
        match names.spent {
            0 => (names.left, self.newborn_left) = (names.left - 1, self.newborn_left - 1),
            _ => names.spent -= 1,
        }
        if names.left + names.spent == 0 {
            entry.remove();
        }
    }
}

fn take_first<T>(line: &mut VecDeque<(Instant, T)>, is_over: impl Fn(&Instant) -> bool) -> Option<T> {
    line.front().filter(|(then, _)| is_over(then))?;
    line.pop_front().map(|(_, first)| first)
}

fn change_of(packet: &Packet) -> Option<Change> {
    if !packet.changes_names {
        return None;
    }
    let (born, gone) = match decode_packet_header(&packet.header).ok()?.op {
        Op::Create { object, .. } | Op::Link { object, .. } => (Some(object), None),
        Op::Unlink { object, .. } | Op::Keep { object, keeping: Keeping::Aside { .. }, .. } => {
            (None, Some(Gone([Some(object), None])))
        }
        Op::Place { object, replaced, .. } => {
            (Some(object), replaced.map(|replaced| Gone::in_favour_of(object, replaced)))
        }
        Op::Rename { object, replaced, whiteout, .. } => (
            whiteout.map(|whiteout| whiteout.object),
            replaced.map(|replaced| Gone::in_favour_of(object, replaced)),
        ),
        _ => return None,
    };
    Some(Change { born, gone })
}
