//! What an earlier run of the source has queued for a target, and left: it goes first, and alone.

use std::sync::atomic::Ordering::Relaxed;

use super::super::Report;
use super::super::surroundings::Surroundings;
use super::Driver;
use crate::connection::Event;
use crate::packet::{Position, ReplicaProof, Sequence};
use crate::source_side::backlog::{Leaves, LeftBehind};

/// With the last of it.
const WHAT_FOLLOWS: &str =
    "what was queued before the last stop is there; what has changed since is looked for";

/// What is known before the target has answered.
pub(super) fn begin_report(report: &mut Report, base: Option<Sequence>, left: Option<&LeftBehind>) {
    report.base = base;
    if let Some(left) = left {
        (report.applied, report.durable) = (left.applied, left.durable);
    }
}

impl<S: Surroundings> Driver<S> {
    /// The last position of the history that packets are sent of.
    pub(super) fn last_of_history(&self) -> Position {
        self.left.as_ref().map_or_else(|| self.queue.last(), |left| left.upto)
    }

    /// Up to where packets may go.
    pub(super) fn wall(&self) -> Option<Sequence> {
        self.left.as_ref().map(|left| left.upto.sequence)
    }

    /// As it is told to everybody: more is still to come behind the last of it.
    pub(super) fn shown(&self, reached: Sequence) -> Sequence {
        self.wall().map_or(reached, |wall| reached.min(Sequence(wall.0.saturating_sub(1))))
    }

    /// What the target says of itself may be all of it already.
    pub(super) fn left_is_proved(&mut self, proof: &ReplicaProof) {
        let has_all = |left: &mut LeftBehind| proof.applied == left.upto && proof.durable == left.upto;
        if let Some(left) = self.left.take_if(has_all) {
            self.note_left(left);
            self.forget_left();
        }
    }

    /// A copy comes in its place, if it is not all there: over the session that is open, perhaps.
    pub(super) fn forget_left(&mut self) {
        self.left = None;
        self.session.iter().for_each(|session| session.stream.stop_behind(None));
    }

    /// So much is durable there.
    pub(super) fn left_is_durable(&mut self, durable: Sequence) {
        let Some(left) = self.left.take_if(|left| durable >= left.upto.sequence) else { return };
        self.note_left(left);
        if self.shared.drains.load(Relaxed) {
            // A copy that the stop cuts off would leave a bad replica: the next start makes it.
            return;
        }
        log::info!("connection {} to {}: {WHAT_FOLLOWS}", self.settings.id, self.settings.target);
        self.happened(Event::SetChanged { reason: WHAT_FOLLOWS.into() });
    }

    fn note_left(&mut self, left: LeftBehind) {
        if self.settings.marks.have_forgotten() {
            return;
        }
        self.lacks.is_noted(self.start.sequence);
        self.settings.marks.advance(&self.settings.target.to_string(), left.mark.clone());
        self.update(|report| report.has_come = Some(left.mark));
    }

    /// What may be sent after another restart.
    pub(in super::super) fn leaves_behind(&self) -> Leaves {
        let applied = self.acknowledged;
        match &self.left {
            // What has changed since its moment nothing tells any more.
            Some(_) if self.settings.marks.have_forgotten() => Leaves::Nothing,
            Some(left) => Leaves::Older(LeftBehind { applied, ..left.clone() }),
            None if self.cursor.is_none() || !self.copy.is_resting() => Leaves::Nothing,
            None if self.machine.let_go().is_none() && self.lacks.is_in_line() => Leaves::All,
            None => Leaves::Nothing,
        }
    }
}
