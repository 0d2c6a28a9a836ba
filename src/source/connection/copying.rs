//! The copy of a connection: one attempt at a time, a new one with each network connection.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::CopyOrder;
use crate::limits::LISTINGS_IN_FLIGHT;
use crate::packet::{ItemNumber, Timestamp};
use crate::resync::{CopyError, CopyProgress, CopyReport, FirstCopy, ItemSink, Wanted};

/// An order, and what was tried for it.
pub(super) struct Pending {
    pub(super) order: CopyOrder,
    attempts: u32,
    /// What the walk of the last attempt found, where it came to its end.
    walked: CopyReport,
}

impl Pending {
    pub(super) fn new(order: CopyOrder) -> Pending {
        Pending { order, attempts: 0, walked: CopyReport::default() }
    }

    pub(super) fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Answers whoever ordered it.
    pub(super) fn answer(self, outcome: Result<CopyReport, String>) {
        let _ = self.order.done.send(outcome);
    }

    /// The target is in line although this attempt was cut off: its last word was lost.
    pub(super) fn came_true(self) {
        let walked = self.walked;
        self.answer(Ok(walked));
    }

    /// Begins an attempt. Where there was nothing on the target before copies of this connection
    /// began, at `from_nothing`, every file there was copied by one of them: what has not changed
    /// since then is as the target says.
    ///
    /// Errors: one line.
    pub(super) fn attempt(
        &mut self,
        from_nothing: Option<Timestamp>,
        birth_epoch: u32,
        sink: impl ItemSink + Send + 'static,
    ) -> Result<Attempt, String> {
        self.attempts += 1;
        let failed = |error: std::io::Error| format!("the copy cannot begin: {error}");
        let backing = self.order.backing.try_clone().map_err(failed)?;
        let progress = Arc::new(CopyProgress::new());
        let (wanted, answers) = bounded(LISTINGS_IN_FLIGHT);
        let (outcome, ended) = bounded(1);
        let suspect_since =
            from_nothing.map_or(self.order.suspect_since, |since| since.max(self.order.suspect_since));
        let suspect_since = Some(suspect_since);
        let copy = FirstCopy::new(backing, birth_epoch, suspect_since, sink, answers, progress.clone());
        let copy = if self.order.ends { copy } else { copy.without_end() };
        std::thread::Builder::new()
            .name("copy".into())
            .spawn(move || drop(outcome.send(copy.run())))
            .map_err(failed)?;
        Ok(Attempt { wanted, progress, ended, waits_for: None })
    }

    pub(super) fn walked(&mut self, report: CopyReport) {
        self.walked = report;
    }
}

/// An attempt under way, on a thread of its own. Dropped, its copy ends at its next item.
pub(super) struct Attempt {
    pub(super) wanted: Sender<Wanted>,
    pub(super) progress: Arc<CopyProgress>,
    pub(super) ended: Receiver<Result<CopyReport, CopyError>>,
    /// The walk has ended; the target's word on this item makes the copy complete.
    pub(super) waits_for: Option<ItemNumber>,
}
