//! The comparison of a connection: one at a time, beside packets, never beside a copy.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, never};

use super::surroundings::Walked;
use crate::control::MirrorStatus;
use crate::limits::{DIFFERENCES_LEN_MAX, DIFFERENCES_NAMED_MAX, LIVE_ANSWERS_MAX};
use crate::packet::{CheckCounts, Difference, ItemNumber, Sequence};
use crate::resync::{Answer, CopyProgress};

/// What a comparison came to.
#[derive(Clone, Debug)]
pub struct Verified {
    pub counts: CheckCounts,
    /// Differences by name, in the order in which they were found; perhaps not all.
    pub found: Vec<Difference>,
    /// Objects that the source could not read.
    pub unread: u64,
    /// The first and the last position as of which something was compared.
    pub from: Sequence,
    pub upto: Sequence,
    pub took: Duration,
}

/// How a comparison ended; or why there is no result.
pub type Outcome = Result<Verified, String>;

/// See the module. Dropped, its walk ends at its next item.
///
/// ```text
///  Runs ── the target has its end ──> over
///    └── stopped, or it cannot go on ──> Ends ── the target has nothing more to say of it ──> over
/// ```
/// What the target has said before it heard of the end is not taken for what the next one is told.
pub(super) enum Checking {
    Runs(Box<Running>),
    Ends,
}

pub(super) struct Running {
    answers: Sender<Answer>,
    ended: Receiver<Walked>,
    reply: Sender<Outcome>,
    /// What the connection said of its copy before.
    pub(super) before: (MirrorStatus, Option<Arc<CopyProgress>>),
    found: Vec<Difference>,
    found_len: usize,
    said: Option<(ItemNumber, CheckCounts)>,
    from: Sequence,
    since: Instant,
}

impl Checking {
    /// `walk` begins the walk that hears the answers.
    ///
    /// Errors: it cannot begin; whoever waits has the reply back.
    pub(super) fn begin(
        from: Sequence,
        before: (MirrorStatus, Option<Arc<CopyProgress>>),
        reply: Sender<Outcome>,
        walk: impl FnOnce(Receiver<Answer>) -> std::io::Result<Receiver<Walked>>,
    ) -> Result<Checking, (std::io::Error, Sender<Outcome>)> {
        let (answers, heard) = bounded(LIVE_ANSWERS_MAX);
        let ended = match walk(heard) {
            Ok(ended) => ended,
            Err(error) => return Err((error, reply)),
        };
        let (found, said, since) = (Vec::new(), None, Instant::now());
        let running = Running { answers, ended, reply, before, found, found_len: 0, said, from, since };
        Ok(Checking::Runs(Box::new(running)))
    }

    /// The end of the walk that is under way.
    pub(super) fn ended(&self) -> Receiver<Walked> {
        match self {
            Checking::Runs(running) => running.ended.clone(),
            Checking::Ends => never(),
        }
    }

    pub(super) fn running(&mut self) -> Option<&mut Running> {
        match self {
            Checking::Runs(running) => Some(running),
            Checking::Ends => None,
        }
    }
}

impl Running {
    /// Passes on what the target says. `false`: it says more than it was asked.
    pub(super) fn answer(&self, answer: Answer) -> bool {
        !matches!(self.answers.try_send(answer), Err(crossbeam_channel::TrySendError::Full(_)))
    }

    /// `false`: it names more than it may.
    pub(super) fn hear_of(&mut self, found: Vec<Difference>) -> bool {
        self.found_len += found.iter().map(|difference| difference.path.0.len()).sum::<usize>();
        self.found.extend(found);
        self.found.len() <= DIFFERENCES_NAMED_MAX && self.found_len <= 2 * DIFFERENCES_LEN_MAX
    }

    pub(super) fn hear_end(&mut self, end: ItemNumber, counts: CheckCounts) -> bool {
        self.said = Some((end, counts));
        self.answer(Answer::Complete(end))
    }

    /// The walk is over with this end; the result, where the target has it.
    pub(super) fn result(
        &mut self,
        end: Option<ItemNumber>,
        unread: u64,
        upto: Sequence,
    ) -> Option<Verified> {
        let (_, counts) = self.said.filter(|(said, _)| Some(*said) == end)?;
        let (found, took) = (std::mem::take(&mut self.found), self.since.elapsed());
        Some(Verified { counts, found, unread, from: self.from, upto, took })
    }

    /// Whoever waits for it hears it, if somebody still does.
    pub(super) fn end(self, outcome: Outcome) {
        let _ = self.reply.send(outcome);
    }
}
