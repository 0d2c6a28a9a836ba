//! What a copy has to show: all, or where that is known, what has changed since the target was in line.
//!
//! ```text
//!  was in line in this run, base known to the map ──> the map's marks since the base
//!  had everything up to a position of an earlier run, whose marks the mount has kept ──> those, and this run's
//!  had everything in an earlier run, by a clock ──> what has changed since that moment, found by change times,
//!  that fits and a record that knows its place       and the map's marks of this run
//!  else, or where a person or a doubt wants it ──> everything
//! ```
//! The *base* of a target is a position up to which it has everything on its disk. It stands still while
//! the target is not in line: a copy that is cut off is followed by one of the same, and of what came since.

use std::sync::{Arc, OnceLock};

use super::super::Settings;
use super::super::surroundings::{FirstOwed, OwedOrder, Surroundings};
use super::{Driver, Trust};
use crate::limits::MINICOPY_ATTEMPTS_MAX;
use crate::packet::{BadBy, DataState, Position, ReplicaProof, Sequence, Timestamp};
use crate::resync::{Owed, WhatIsOwed};
use crate::source_side::mark::{Clock, EVERYTHING, Marks};
use crate::words::{CopyMode, OrphanRules};

/// What is known of what a target lacks.
#[derive(Debug, Default)]
pub(super) struct Lacks {
    /// Of this run.
    base: Option<Sequence>,
    /// It was not in line in this run: what it lacks since an earlier one, once that is found.
    before: Option<Arc<OnceLock<Owed>>>,
    /// The same by marks that have outlived their daemon: nothing has changed that they do not tell.
    left: Option<Arc<Owed>>,
    /// What the target said of itself when it was connected last.
    proof: Option<ReplicaProof>,
    /// Why everything has to be looked at, where somebody has a reason.
    wants_everything: Option<&'static str>,
}

/// Why a copy looks at everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Everything {
    /// Somebody has a reason.
    Wanted(&'static str),
    /// The target has said nothing yet.
    Unheard,
    /// Its replica is not what it was, and what was applied since.
    NotWhole,
    /// It has another way to be made.
    Mode(CopyMode),
    Suspects,
    /// Less is durable there than was.
    WentBack,
    Restored,
    /// What a directory that was moved while nothing was captured has of the set hangs on where it was.
    Rules,
    Uncaptured,
    /// Copies of what is owed have, again and again.
    Failed,
    /// Nothing says up to where it had everything.
    NoBase,
    Unmarked,
    /// More was marked than the map has room for.
    MapFull,
    /// It does not go on where this source was.
    OtherHistory,
    /// What only the target has is not moved aside.
    Orphans,
    /// What is removed stays there.
    KeepsRemoved,
}

impl Lacks {
    /// At the start of a run, which has given out nothing behind this.
    pub(super) fn at_start(start: Sequence, settings: &Settings) -> Lacks {
        let before = is_noted(settings).is_some().then(Arc::default);
        let base = before.is_some().then_some(start);
        // What a comparison has found, and nobody has mended, is not of any change.
        let differs = settings.kept.verified.as_ref().is_some_and(|last| !last.counts.is_identical());
        let wants_everything = match () {
            () if settings.touched => Some("something may have been changed past the mount before the start"),
            () if differs => Some("the last comparison has found what differs, and nothing has mended it"),
            // What the disk has lost has no change time: it is known by its ids, and found by a look at everything.
            () if settings.merge.is_some() => {
                Some("this host has lost power: its disk may have lost changes")
            }
            () => None,
        };
        let left = before.as_ref().and_then(|_| left_marked(start, settings));
        Lacks { base, before, left, proof: None, wants_everything }
    }

    pub(super) fn base(&self) -> Option<Sequence> {
        self.base
    }

    /// What the target has said of itself, where it was not brought into line since.
    pub(super) fn proof(&self) -> Option<ReplicaProof> {
        self.proof
    }

    pub(super) fn welcome(&mut self, proof: ReplicaProof) {
        self.proof = Some(proof);
    }

    #[cfg(test)]
    pub(super) fn goes_by_left(&self) -> bool {
        self.left.is_some()
    }

    /// It has nothing to be brought but what is queued.
    pub(super) fn is_in_line(&self) -> bool {
        self.base.is_some() && self.before.is_none() && self.wants_everything.is_none()
    }

    /// It has had everything in an earlier run, by a mark that was noted since the start.
    pub(super) fn is_noted(&mut self, start: Sequence) {
        self.before.get_or_insert_default();
        self.base.get_or_insert(start);
    }

    /// It follows the stream from here on, without a copy: of a run that goes on behind its start.
    pub(super) fn goes_on(&mut self, after: Sequence, start: Sequence) {
        if after >= start && self.wants_everything.is_none() {
            (self.before, self.left) = (None, None);
            self.base = self.base.max(Some(after));
        }
    }

    pub(super) fn everything(&mut self, why: &'static str) {
        self.wants_everything = Some(why);
    }

    /// A planted bug: it is taken for what has everything up to here.
    #[cfg(test)]
    pub(super) fn pretend_base(&mut self, base: Sequence) {
        self.base = self.base.map(|_| base);
    }

    /// It has everything up to here on its disk, and nothing of it is in doubt. `None`: something is.
    pub(super) fn in_line(&mut self, base: Option<Sequence>) {
        *self = Lacks { base, ..Lacks::default() };
    }

    /// While it follows the stream.
    pub(super) fn durable(&mut self, durable: Sequence) {
        if self.before.is_none() {
            self.base = self.base.map(|base| base.max(durable));
        }
    }
}

impl<S: Surroundings> Driver<S> {
    /// One waits to begin, or what the target has it had in an earlier run, and nothing has compared it since. A run that
    /// goes on under another program follows the stream as before.
    pub(in crate::source_side::connection) fn lacks_copy(&self) -> bool {
        let is_asked = self.guard_asks().is_some_and(|asked| asked.by_copy);
        self.copy.is_awaited() || is_asked || self.lacks.before.is_some() && !self.settings.goes_on
    }

    /// Errors: everything, and why.
    pub(super) fn owed(&self) -> Result<OwedOrder, Everything> {
        self.owed_to(self.lacks.proof.as_ref().ok_or(Everything::Unheard)?)
    }

    /// To a target that says this of itself. Errors as [`Driver::owed`].
    pub(super) fn owed_to(&self, proof: &ReplicaProof) -> Result<OwedOrder, Everything> {
        self.why_everything(proof).map_or(Ok(()), Err)?;
        let base = self.lacks.base.ok_or(Everything::NoBase)?;
        let map = self.settings.map.clone().ok_or(Everything::Unmarked)?;
        let now: WhatIsOwed = match self.lacks.left.clone() {
            Some(left) => Arc::new(move || Some((*left).clone().and(map.changed_since(base)?.into()))),
            None => Arc::new(move || map.changed_since(base).map(Owed::from)),
        };
        let known = || Ok(FirstOwed::Known(Arc::new(now().ok_or(Everything::MapFull)?)));
        let first = match &self.lacks.before {
            None if self.continues(base, &proof.applied) => known()?,
            None => return Err(Everything::OtherHistory),
            Some(found) => {
                self.continues_from_before(base, &proof.applied)?;
                if self.lacks.left.is_some() { known()? } else { self.by_time(found)? }
            }
        };
        // What was removed while nothing was captured was no change of this stream: nothing is deleted for it.
        let is_unseen = matches!(first, FirstOwed::ByTime { .. });
        let percent_max = if is_unseen { Some(0) } else { self.percent_max() };
        Ok(OwedOrder { first, now, percent_max })
    }

    /// Whatever is marked.
    fn why_everything(&self, proof: &ReplicaProof) -> Option<Everything> {
        let (covers, attempts) = {
            let report = self.shared.report.lock();
            (report.covers, report.copy_attempts)
        };
        match () {
            () if self.lacks.wants_everything.is_some() => {
                self.lacks.wants_everything.map(Everything::Wanted)
            }
            () if !is_whole(proof) => Some(Everything::NotWhole),
            () if self.copy_mode != CopyMode::default() => Some(Everything::Mode(self.copy_mode)),
            () if self.suspects != Default::default() => Some(Everything::Suspects),
            () if self.trust != Trust::AsNoted => Some(Everything::WentBack),
            () if self.is_restored => Some(Everything::Restored),
            () if self.settings.divergence.count() > covers => Some(Everything::Uncaptured),
            // Whatever makes it fail again and again, a copy of everything does without it.
            () if attempts >= MINICOPY_ATTEMPTS_MAX => Some(Everything::Failed),
            () => None,
        }
    }

    /// Errors: why what it has, and what it lacks since an earlier run, is not all there is.
    fn continues_from_before(&self, base: Sequence, applied: &Position) -> Result<(), Everything> {
        let is_of_this_run = applied.same_history(&self.queue.last());
        let (marks, target) = (&self.settings.marks, self.settings.target.to_string());
        let is_known = match is_of_this_run {
            // Away while the daemon became another program, which knows of no packet before its start.
            true if applied.sequence < self.start.sequence => marks.leads_to(&target, applied),
            // By a copy of this run that was cut off.
            true => self.continues(base, applied),
            false => marks.leads_to(&target, applied),
        };
        // What stays where it is, and what is deleted, is counted by copies of everything.
        let orphans = self.copy_orphans.unwrap_or(self.settings.orphans);
        match () {
            () if !is_known => Err(Everything::OtherHistory),
            // What is moved in this run, and has other names in the set then, is told as what comes into it.
            () if !self.around.rules().is_none_or(|set| set.rules().are_alike_everywhere()) => {
                Err(Everything::Rules)
            }
            () if orphans != OrphanRules::default() => Err(Everything::Orphans),
            () if self.around.keeps_removed() => Err(Everything::KeepsRemoved),
            () => Ok(()),
        }
    }

    /// Errors: the clock says nothing.
    fn by_time(&self, found: &Arc<OnceLock<Owed>>) -> Result<FirstOwed, Everything> {
        is_noted(&self.settings).ok_or(Everything::NoBase)?;
        let (marks, target) = (self.settings.marks.clone(), self.settings.target.to_string());
        let since = move || noted_moment(&marks, &target);
        Ok(FirstOwed::ByTime { since: Arc::new(since), found: found.clone() })
    }

    /// What it has applied is of this very memory: nothing that the base lacks, and nothing that was never sent. A
    /// source that was set back with its memory, as a virtual machine, does not know what it has sent since.
    fn continues(&self, base: Sequence, applied: &Position) -> bool {
        let last = self.queue.last();
        let is_split = applied.sequence == last.sequence && applied.chain != last.chain;
        let sent = self.session.as_ref().map_or(Sequence(0), |session| session.stream.at().sequence);
        let was_sent = applied.sequence <= self.sent_upto.max(sent).min(last.sequence);
        applied.same_history(&last) && applied.sequence >= base && was_sent && !is_split
    }
}

/// What daemons before have marked since the target had everything, where the mount has outlived them. Of a connection
/// that was there when this one began to mark.
fn left_marked(start: Sequence, settings: &Settings) -> Option<Arc<Owed>> {
    let map = settings.map.as_ref().filter(|map| map.began_at() == start)?;
    let changed = settings.marks.left_on(map, &settings.target.to_string())?;
    Some(Arc::new(changed.into()))
}

/// Whether a replica is what it was, and what was applied since.
fn is_whole(proof: &ReplicaProof) -> bool {
    match (proof.data, proof.bad_by) {
        (DataState::Good, _) | (DataState::Bad, BadBy::Owed) => true,
        (DataState::Bad, BadBy::Anything | BadBy::Aside | BadBy::Relief) | (DataState::Empty, _) => false,
    }
}

impl Everything {
    pub(super) fn why(self) -> &'static str {
        match self {
            Everything::Wanted(why) => why,
            Everything::Unheard => "its target has said nothing yet",
            Everything::NotWhole => "its target says that the replica is no consistent copy",
            Everything::Mode(CopyMode::Full) => "the next copy sends everything",
            Everything::Mode(_) => "the next copy is one by checksum",
            Everything::Suspects => "the content of files is in doubt",
            Everything::WentBack => "the target has less than it had said to have",
            Everything::Restored => "the directory was restored from it",
            Everything::Rules => "what a moved directory has of the set hangs on where it was, by its rules",
            Everything::Uncaptured => "something came into the set, or was changed, that no packet tells",
            Everything::Failed => "copies of what is owed have failed again and again",
            Everything::NoBase => "nothing that counts says up to where it had everything",
            Everything::Unmarked => "nothing is marked",
            Everything::MapFull => "more was changed than the map has room for",
            Everything::OtherHistory => "what it holds does not go on where this source was",
            Everything::Orphans => "what only the target has is to be kept or deleted",
            Everything::KeepsRemoved => "the set keeps on targets what is deleted",
        }
    }
}

/// The moment up to which the target had everything, where change times say what has changed since.
fn is_noted(settings: &Settings) -> Option<Timestamp> {
    noted_moment(&settings.marks, &settings.target.to_string())
}

fn noted_moment(marks: &Marks, target: &str) -> Option<Timestamp> {
    Some(marks.suspect_since(target, &Clock::now())).filter(|&since| since != EVERYTHING)
}
