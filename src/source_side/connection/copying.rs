//! The copy of a connection: one attempt at a time, a new one with each network connection whose
//! target is not in line.

use std::path::PathBuf;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, bounded, never};

use super::surroundings::{Surroundings, WalkOrder, Walked};
use crate::control::Rung;
use crate::limits::LIVE_ANSWERS_MAX;
use crate::packet::{ItemNumber, LeftOut, Sequence};
use crate::resync::{Answer, CopyProgress};

/// Where the copy of a connection stands.
///
/// ```text
///           not in line           programs are captured
///  Resting ─────────────> Awaited ─────────────────────> Runs
///     ^                     │ connection lost             │ in line, connection lost
///     └─────────────────────┴─────────────────────────────┘
/// ```
pub(super) enum Copying {
    Resting,
    /// It begins as soon as nothing gets past the mount any more.
    Awaited,
    Runs(Attempt),
}

impl Copying {
    pub(super) fn is_awaited(&self) -> bool {
        matches!(self, Copying::Awaited)
    }

    pub(super) fn is_resting(&self) -> bool {
        matches!(self, Copying::Resting)
    }

    /// Its items have nowhere to go any more, or are all there.
    pub(super) fn end(&mut self) {
        *self = Copying::Resting;
    }

    /// The attempt under way.
    pub(super) fn attempt(&mut self) -> Option<&mut Attempt> {
        match self {
            Copying::Runs(attempt) => Some(attempt),
            Copying::Resting | Copying::Awaited => None,
        }
    }

    /// How much the attempt under way looks at.
    pub(super) fn rung(&self) -> Option<Rung> {
        match self {
            Copying::Runs(attempt) => Some(attempt.rung),
            Copying::Resting | Copying::Awaited => None,
        }
    }

    /// The end of the walk that is under way.
    pub(super) fn ended(&self) -> Receiver<Walked> {
        match self {
            Copying::Runs(attempt) if !attempt.is_walked => attempt.ended.clone(),
            Copying::Runs(_) | Copying::Resting | Copying::Awaited => never(),
        }
    }
}

/// An attempt under way. Dropped, its copy ends at its next item.
pub(super) struct Attempt {
    answers: Sender<Answer>,
    ended: Receiver<Walked>,
    progress: Arc<CopyProgress>,
    /// Changes that could not be captured, before it began: it finds what they did.
    pub(super) covers: u64,
    /// The target forgets what it had, once it has taken the copy up.
    pub(super) is_afresh: bool,
    /// It is of what lies there alone, over a session whose packets flow already.
    pub(super) part: Option<PathBuf>,
    /// Before it begins it is looked for what has changed.
    pub(super) searches: bool,
    /// The target has answered: what it says since then is of the history that the copy began with.
    pub(super) is_heard: bool,
    /// It sends everything, and another one after it need not.
    pub(super) is_full: bool,
    /// How much it looks at.
    pub(super) rung: Rung,
    /// The target's last word.
    said: Option<EndSaid>,
    /// The walk is over, with this end where it came to one. Without, the link is about to say why.
    is_walked: bool,
    end: Option<ItemNumber>,
}

impl Attempt {
    /// Errors: it cannot begin.
    pub(super) fn begin(
        around: &mut impl Surroundings,
        (covers, is_afresh): (u64, bool),
        order: impl FnOnce(Receiver<Answer>, Arc<CopyProgress>) -> WalkOrder,
    ) -> std::io::Result<Attempt> {
        let progress = Arc::new(CopyProgress::new());
        let (answers, heard) = bounded(LIVE_ANSWERS_MAX);
        let ended = around.walk(order(heard, progress.clone()))?;
        Ok(Attempt {
            answers,
            ended,
            progress,
            covers,
            is_afresh,
            part: None,
            searches: false,
            is_heard: false,
            is_full: false,
            rung: Rung::Differences,
            said: None,
            is_walked: false,
            end: None,
        })
    }

    pub(super) fn progress(&self) -> Arc<CopyProgress> {
        self.progress.clone()
    }

    /// Passes on what the target says. `false`: it says more than it was asked.
    pub(super) fn answer(&self, answer: Answer) -> bool {
        !matches!(self.answers.try_send(answer), Err(crossbeam_channel::TrySendError::Full(_)))
    }

    /// The target's word on an end. `false`: as [`Attempt::answer`].
    pub(super) fn hear_end(&mut self, said: EndSaid) -> bool {
        let is_taken = self.answer(Answer::Complete(said.end));
        self.progress.set_orphans(said.orphans);
        self.said = Some(said);
        is_taken
    }

    /// The walk is over, with an end that the target has, or cut off.
    pub(super) fn walked(&mut self, end: Option<ItemNumber>) {
        assert!(!self.is_walked, "a walk ends twice");
        (self.is_walked, self.end) = (true, end);
    }

    /// What the target said of this copy, where the walk is over and the target has its end.
    pub(super) fn complete(&self) -> Option<EndSaid> {
        let end = self.end?;
        self.said.clone().filter(|said| said.end == end)
    }
}

/// What a target says at the end of a copy.
#[derive(Clone)]
pub(super) struct EndSaid {
    /// The end that it has.
    pub(super) end: ItemNumber,
    /// What it had performed before, at least.
    pub(super) applied: Sequence,
    /// How many objects it has beside the copy.
    pub(super) orphans: u64,
    pub(super) left_out: LeftOut,
}
