//! The copy of a connection: one attempt at a time, a new one with each network connection.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::CopyOrder;
use super::surroundings::{Surroundings, WalkOrder, Walked};
use crate::limits::LISTINGS_IN_FLIGHT;
use crate::packet::{ItemNumber, LeftOut};
use crate::resync::{CopyProgress, CopyReport, Wanted};
use crate::source::feed::LaneSink;
use crate::source::mark::{Clock, EVERYTHING, Mark};

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
        around: &mut impl Surroundings,
        from_nothing: Option<&Mark>,
        birth_epoch: u32,
        sink: LaneSink,
    ) -> Result<Attempt, String> {
        self.attempts += 1;
        let failed = |error: std::io::Error| format!("the copy cannot begin: {error}");
        let backing = self.order.backing.try_clone().map_err(failed)?;
        let progress = Arc::new(CopyProgress::new());
        let (wanted, answers) = bounded(LISTINGS_IN_FLIGHT);
        let to_nothing = from_nothing.is_some();
        let from_nothing = from_nothing.map_or(EVERYTHING, |mark| mark.suspect_since(&Clock::now()));
        let suspect_since = from_nothing.max(self.order.suspect_since);
        let order = WalkOrder {
            backing,
            birth_epoch,
            suspect_since,
            ends: self.order.ends,
            to_nothing,
            sink,
            answers,
            progress: progress.clone(),
        };
        let ended = around.walk(order).map_err(failed)?;
        Ok(Attempt { wanted, progress, ended, waits_for: None, said: None })
    }

    pub(super) fn walked(&mut self, report: CopyReport) {
        self.walked = report;
    }
}

/// An attempt under way. Dropped, its copy ends at its next item.
pub(super) struct Attempt {
    pub(super) wanted: Sender<Wanted>,
    pub(super) progress: Arc<CopyProgress>,
    pub(super) ended: Receiver<Walked>,
    /// The walk has ended; the target's word on this item makes the copy complete.
    pub(super) waits_for: Option<ItemNumber>,
    /// The target's last word. It may come before the end of the walk is known here.
    pub(super) said: Option<EndSaid>,
}

/// What a target says at the end of a copy.
#[derive(Clone)]
pub(super) struct EndSaid {
    /// The end that it has.
    pub(super) end: ItemNumber,
    /// How many objects it has beside the copy.
    pub(super) orphans: u64,
    pub(super) left_out: LeftOut,
}
