//! What a copy has to show: all, or where that is known, what has changed since the target was in line.
//!
//! ```text
//!  of this run, base known to the map ──> the map's marks since the base
//!  else, or where a person or a doubt wants it ──> everything
//! ```
//! The *base* of a target is a position up to which it has everything on its disk. It stands still while
//! the target is not in line: a copy that is cut off is followed by one of the same, and of what came since.

use std::sync::Arc;

use super::super::surroundings::{OwedOrder, Surroundings};
use super::{Driver, Trust};
use crate::limits::MINICOPY_ATTEMPTS_MAX;
use crate::packet::{BadBy, DataState, Position, ReplicaProof, Sequence};
use crate::resync::Owed;
use crate::words::CopyMode;

/// What is known of what a target lacks.
#[derive(Debug, Default)]
pub(super) struct Lacks {
    /// Of this run.
    base: Option<Sequence>,
    /// What the target said of itself when it was connected last.
    proof: Option<ReplicaProof>,
    /// Somebody has a reason to have everything looked at.
    wants_everything: bool,
}

impl Lacks {
    pub(super) fn of(wants_everything: bool) -> Lacks {
        Lacks { wants_everything, ..Lacks::default() }
    }

    pub(super) fn base(&self) -> Option<Sequence> {
        self.base
    }

    pub(super) fn welcome(&mut self, proof: ReplicaProof) {
        self.proof = Some(proof);
    }

    pub(super) fn everything(&mut self) {
        self.wants_everything = true;
    }

    /// It has everything up to here on its disk, and nothing of it is in doubt. `None`: something is.
    pub(super) fn in_line(&mut self, base: Option<Sequence>) {
        *self = Lacks { base, proof: None, wants_everything: false };
    }

    /// While it follows the stream.
    pub(super) fn durable(&mut self, durable: Sequence) {
        self.base = self.base.map(|base| base.max(durable));
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
        if !is_plain || misses_some || !self.continues(base, &proof.applied) {
            return None;
        }
        // Whatever makes it fail again and again, a copy of everything does without it.
        if self.shared.report.lock().copy_attempts >= MINICOPY_ATTEMPTS_MAX {
            return None;
        }
        let map = settings.map.clone()?;
        let now = move || map.changed_since(base).map(Owed::from);
        let owed = Arc::new(now()?);
        Some(OwedOrder { owed, now: Arc::new(now), percent_max: self.percent_max() })
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
