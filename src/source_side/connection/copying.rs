//! The copy of a connection: one attempt at a time, a new one with each network connection.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, bounded, never};

use super::CopyOrder;
use super::surroundings::{Surroundings, WalkOrder, Walked};
use crate::limits::LISTINGS_IN_FLIGHT;
use crate::packet::{ItemNumber, LeftOut};
use crate::resync::{CopyProgress, CopyReport, Wanted};
use crate::source_side::feed::LaneSink;
use crate::source_side::mark::{Clock, EVERYTHING, Mark};

/// Where the copy of a connection stands.
///
/// ```text
///           order              connected, needs one
///  Nobody's ─────> Wanted ─────────────────────────> Runs
///     ^              ^ <───── connection lost ───────┘ │
///     └──────────────┴── in line, failed, another ─────┘
/// ```
pub(super) enum Copying {
    /// Nobody wants one.
    Nobodys,
    /// It begins with the next network connection whose target needs one.
    Wanted(Pending),
    Runs(Pending, Attempt),
}

/// An order, and what was tried for it.
pub(super) struct Pending {
    order: CopyOrder,
    attempts: u32,
    /// What the walk of the last attempt found, where it came to its end.
    walked: CopyReport,
}

impl Copying {
    pub(super) fn order(order: CopyOrder) -> Copying {
        Copying::Wanted(Pending { order, attempts: 0, walked: CopyReport::default() })
    }

    /// Whether somebody waits for one.
    pub(super) fn is_wanted(&self) -> bool {
        !matches!(self, Copying::Nobodys)
    }

    /// It is over, in whatever way its order is answered.
    pub(super) fn take(&mut self) -> Option<Pending> {
        match std::mem::replace(self, Copying::Nobodys) {
            Copying::Nobodys => None,
            Copying::Wanted(pending) | Copying::Runs(pending, _) => Some(pending),
        }
    }

    /// Its items have nowhere to go any more: it begins anew.
    pub(super) fn cut_off(&mut self) {
        if let Some(pending) = self.take() {
            *self = Copying::Wanted(pending);
        }
    }

    /// Begins an attempt, where one is wanted and none is under way; gives its progress and its
    /// number.
    ///
    /// Errors: one line; it is wanted as before.
    pub(super) fn begin(
        &mut self,
        around: &mut impl Surroundings,
        from_nothing: Option<&Mark>,
        birth_epoch: u32,
        sink: LaneSink,
    ) -> Option<Result<(Arc<CopyProgress>, u32), String>> {
        let Copying::Wanted(pending) = self else { return None };
        let attempt = match pending.attempt(around, from_nothing, birth_epoch, sink) {
            Ok(attempt) => attempt,
            Err(why) => return Some(Err(why)),
        };
        let begun = (attempt.progress.clone(), pending.attempts);
        let pending = self.take()?;
        *self = Copying::Runs(pending, attempt);
        Some(Ok(begun))
    }

    /// The attempt under way.
    pub(super) fn attempt(&mut self) -> Option<&mut Attempt> {
        match self {
            Copying::Runs(_, attempt) => Some(attempt),
            Copying::Nobodys | Copying::Wanted(_) => None,
        }
    }

    /// The end of the walk that is under way.
    pub(super) fn ended(&self) -> Receiver<Walked> {
        match self {
            Copying::Runs(_, Attempt { stage: Stage::Walks(ended), .. }) => ended.clone(),
            Copying::Nobodys | Copying::Wanted(_) | Copying::Runs(..) => never(),
        }
    }

    /// The walk has ended so; with an end, the target's word on it is awaited.
    pub(super) fn walked(&mut self, outcome: &Walked) {
        if let Copying::Runs(pending, attempt) = self {
            assert!(matches!(attempt.stage, Stage::Walks(_)), "a walk ends twice");
            attempt.stage = match outcome {
                Ok(report) => {
                    pending.walked = *report;
                    report.end.map_or(Stage::CutOff, Stage::Walked)
                }
                Err(_) => Stage::CutOff,
            };
        }
    }
}

impl Pending {
    /// Answers whoever ordered it.
    pub(super) fn answer(self, outcome: Result<CopyReport, String>) {
        let _ = self.order.done.send(outcome);
    }

    /// The target is in line although this attempt was cut off: its last word was lost.
    pub(super) fn came_true(self) {
        let walked = self.walked;
        self.answer(Ok(walked));
    }

    /// Where there was nothing on the target before copies of this connection
    /// began, at `from_nothing`, every file there was copied by one of them: what has not changed
    /// since then is as the target says.
    ///
    /// Errors: one line.
    fn attempt(
        &mut self,
        around: &mut impl Surroundings,
        from_nothing: Option<&Mark>,
        birth_epoch: u32,
        sink: LaneSink,
    ) -> Result<Attempt, String> {
        self.attempts += 1;
        assert!(self.walked.end.is_none() || self.order.ends, "a copy that does not end has an end");
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
        Ok(Attempt { wanted, progress, stage: Stage::Walks(ended), said: None })
    }
}

/// An attempt under way. Dropped, its copy ends at its next item.
pub(super) struct Attempt {
    pub(super) wanted: Sender<Wanted>,
    progress: Arc<CopyProgress>,
    stage: Stage,
    /// The target's last word. It may come before the end of the walk is known here.
    said: Option<EndSaid>,
}

/// How far an attempt has come.
enum Stage {
    Walks(Receiver<Walked>),
    /// The target's word on this item makes the copy complete.
    Walked(ItemNumber),
    /// The link is about to say why; the next one begins anew.
    CutOff,
}

impl Attempt {
    pub(super) fn hear(&mut self, said: EndSaid) {
        self.said = Some(said);
    }

    /// What the target said of this copy, where the walk is over and the target has its end.
    pub(super) fn complete(&self) -> Option<EndSaid> {
        let Stage::Walked(end) = self.stage else { return None };
        let said = self.said.clone().filter(|said| said.end == end)?;
        self.progress.set_orphans(said.orphans);
        Some(said)
    }
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
