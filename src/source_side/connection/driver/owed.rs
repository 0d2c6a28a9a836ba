//! What a copy has to show: all, or where that is known, what has changed since the target was in line.
//!
//! ```text
//!  was in line in this run, base known to the map ──> the map's marks since the base
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
    /// What the target said of itself when it was connected last.
    proof: Option<ReplicaProof>,
    /// Somebody has a reason to have everything looked at.
    wants_everything: bool,
}

impl Lacks {
    /// At the start of a run, which has given out nothing behind this.
    pub(super) fn at_start(start: Sequence, settings: &Settings) -> Lacks {
        let before = is_noted(settings).is_some().then(Arc::default);
        let base = before.is_some().then_some(start);
        // What a comparison has found, and nobody has mended, is not of any change.
        let differs = settings.kept.verified.as_ref().is_some_and(|last| !last.counts.is_identical());
        // What the disk has lost has no change time: it is known by its ids, and found by a look at everything.
        let wants_everything = settings.touched || differs || settings.merge.is_some();
        Lacks { base, before, proof: None, wants_everything }
    }

    pub(super) fn base(&self) -> Option<Sequence> {
        self.base
    }

    pub(super) fn welcome(&mut self, proof: ReplicaProof) {
        self.proof = Some(proof);
    }

    /// It follows the stream from here on, without a copy: of a run that goes on behind its start.
    pub(super) fn goes_on(&mut self, after: Sequence, start: Sequence) {
        if start > Sequence(0) && after >= start && !self.wants_everything {
            self.before = None;
            self.base = self.base.max(Some(after));
        }
    }

    pub(super) fn everything(&mut self) {
        self.wants_everything = true;
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

    /// Whether its replica is what it was, and what was applied since.
    fn is_whole(&self) -> bool {
        let is_whole = |proof: &ReplicaProof| match (proof.data, proof.bad_by) {
            (DataState::Good, _) | (DataState::Bad, BadBy::Owed) => true,
            (DataState::Bad, BadBy::Anything | BadBy::Aside | BadBy::Relief) | (DataState::Empty, _) => false,
        };
        !self.wants_everything && self.proof.as_ref().is_some_and(is_whole)
    }
}

impl<S: Surroundings> Driver<S> {
    /// `None`: everything.
    pub(super) fn owed(&self) -> Option<OwedOrder> {
        let settings = &self.settings;
        let is_plain = self.copy_mode == CopyMode::default()
            && self.suspects == Default::default()
            && self.trust == Trust::AsNoted
            && !(self.is_restored || self.around.has_rules());
        let misses_some = settings.divergence.count() > self.shared.report.lock().covers;
        let (true, base, proof) = (self.lacks.is_whole(), self.lacks.base?, self.lacks.proof?) else {
            return None;
        };
        if !is_plain || misses_some {
            return None;
        }
        // Whatever makes it fail again and again, a copy of everything does without it.
        if self.shared.report.lock().copy_attempts >= MINICOPY_ATTEMPTS_MAX {
            return None;
        }
        let map = settings.map.clone()?;
        let now: WhatIsOwed = Arc::new(move || map.changed_since(base).map(Owed::from));
        let first = match &self.lacks.before {
            None if self.continues(base, &proof.applied) => FirstOwed::Known(Arc::new(now()?)),
            None => return None,
            Some(found) => self.owed_since_before(base, &proof.applied, found)?,
        };
        // What was removed while nothing was captured was no change of this stream: nothing is deleted for it.
        let percent_max = if self.lacks.before.is_some() { Some(0) } else { self.percent_max() };
        Some(OwedOrder { first, now, percent_max })
    }

    fn owed_since_before(
        &self,
        base: Sequence,
        applied: &Position,
        found: &Arc<OnceLock<Owed>>,
    ) -> Option<FirstOwed> {
        let is_of_this_run = applied.same_history(&self.queue.last());
        let (marks, target) = (self.settings.marks.clone(), self.settings.target.to_string());
        let is_known = match is_of_this_run {
            // Away while the daemon became another program, which knows of no packet before its start.
            true if applied.sequence < self.start.sequence => marks.leads_to(&target, applied),
            // By a copy of this run that was cut off.
            true => self.continues(base, applied),
            false => marks.leads_to(&target, applied),
        };
        // What stays where it is, and what is deleted, is counted by copies of everything.
        let orphans = self.copy_orphans.unwrap_or(self.settings.orphans);
        let is_plain = orphans == OrphanRules::default() && !self.around.keeps_removed();
        is_noted(&self.settings).filter(|_| is_known && is_plain)?;
        let since = move || noted_moment(&marks, &target);
        Some(FirstOwed::ByTime { since: Arc::new(since), found: found.clone() })
    }

    /// What it has applied is of this very memory: nothing that the base lacks, and nothing that was never sent. A
    /// source that was set back with its memory, as a virtual machine, does not know what it has sent since.
    fn continues(&self, base: Sequence, applied: &Position) -> bool {
        let last = self.queue.last();
        let is_split = applied.sequence == last.sequence && applied.chain != last.chain;
        let was_sent = applied.sequence <= self.sent_upto.min(last.sequence);
        applied.same_history(&last) && applied.sequence >= base && was_sent && !is_split
    }
}

/// The moment up to which the target had everything, where change times say what has changed since.
fn is_noted(settings: &Settings) -> Option<Timestamp> {
    noted_moment(&settings.marks, &settings.target.to_string())
}

fn noted_moment(marks: &Marks, target: &str) -> Option<Timestamp> {
    Some(marks.suspect_since(target, &Clock::now())).filter(|&since| since != EVERYTHING)
}
