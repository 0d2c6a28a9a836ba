//! What a simulator asks of a driver, and what only it does to one.

use std::sync::Arc;

use super::super::{Report, Settings, Shared, Told};
use super::{Driver, News, Surroundings};
use crate::connection::{Event, Machine};
use crate::packet::{Incarnation, Position, Sequence};
use crate::queue::Queue;
use crate::source_side::backlog::Leaves;
use crate::source_side::feed::Sent;

impl<S: Surroundings> Driver<S> {
    /// A driver that nobody else holds.
    pub(crate) fn alone(mut settings: Settings, around: S, queue: Arc<Queue>) -> Driver<S> {
        let shared = Shared::new(Report::new("connecting"));
        let attached = shared.attach_to(&queue, &mut settings.left);
        Driver::new(settings, around, queue, attached, shared, Arc::new(Sent::default()))
    }

    pub(crate) fn captured(&mut self) {
        self.hear(News::Told(Told::Captured));
    }

    /// What a schedule says.
    pub(crate) fn schedule(&mut self, event: Event) {
        self.happened(event);
        self.act();
    }

    pub(crate) fn machine(&self) -> &Machine {
        &self.machine
    }

    /// What may be sent after a restart.
    pub(crate) fn leaves(&self) -> Leaves {
        self.leaves_behind()
    }

    /// The run whose packets go.
    pub(crate) fn run_of_history(&self) -> Incarnation {
        self.last_of_history().incarnation
    }

    /// What the run before this one has queued goes first.
    pub(crate) fn has_left(&self) -> bool {
        self.wall().is_some()
    }

    /// Applied, as the target acknowledged it.
    pub(crate) fn acknowledged(&self) -> Sequence {
        self.acknowledged
    }

    /// Durable, as everyone is told.
    pub(crate) fn durable(&self) -> Sequence {
        self.shared.report.lock().durable
    }

    /// Up to where the target has everything on its disk, for the map.
    pub(crate) fn base(&self) -> Option<Sequence> {
        self.shared.report.lock().base
    }

    /// What it lacks is told by marks that have outlived their daemon.
    pub(crate) fn goes_by_left(&self) -> bool {
        self.lacks.goes_by_left()
    }

    pub(crate) fn pretend_base(&mut self, base: Sequence) {
        self.lacks.pretend_base(base);
    }

    /// Whether everyone is told that the target is in line.
    pub(crate) fn is_in_line(&self) -> bool {
        self.shared.report.lock().standing().in_line
    }

    /// The last packet that any session has sent.
    pub(crate) fn sent_upto(&self) -> Sequence {
        self.stands_at().map_or(self.sent_upto, |at| self.sent_upto.max(at.sequence))
    }

    /// The last position that this session has sent, or that its stream starts after.
    pub(crate) fn stands_at(&self) -> Option<Position> {
        self.session.as_ref().map(|session| session.stream.at())
    }

    /// What this session's target acknowledged last as applied, where packets flow.
    pub(crate) fn said(&self) -> Option<Sequence> {
        let session = self.session.as_ref()?;
        session.acknowledged.map(|(applied, _)| applied)
    }

    /// Takes an acknowledgement for true without a look at it.
    pub(crate) fn believe(&mut self, applied: Sequence) {
        self.applied(applied, Sequence(0));
    }
}
