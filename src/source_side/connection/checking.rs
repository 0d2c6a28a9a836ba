//! The comparison of a connection: one at a time, beside packets, never beside a copy.

use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded, never};

use super::surroundings::Walked;
use super::verified::Verified;
use crate::control::MirrorStatus;
use crate::limits::{CHECK_ANSWERS_MAX, DIFFERENCES_LEN_MAX, DIFFERENCES_NAMED_MAX};
use crate::packet::{BlockHash, CheckCounts, Difference, ItemNumber, Sequence};
use crate::resync::{Answer, CheckOrder, CopyProgress};
use crate::source_side::kept::WhatVerified;
use crate::words::VerifyMode;

/// How a comparison ended; or why there is no result.
pub type Outcome = Result<Verified, String>;

/// A comparison that is asked for, and who waits for it.
pub(crate) struct CheckWish {
    pub(super) order: CheckOrder,
    /// The moment, in seconds since 1970, up to which it makes all that were due by themselves.
    pub(super) serves_s: Option<i64>,
    pub(super) reply: Sender<Outcome>,
}

/// See the module. Dropped, its walk ends at its next item.
///
/// ```text
///  Runs ── the target has its end ──> over
///    └── stopped, or it cannot go on ──> Ends ── the target has nothing more to say of it ──> over
/// ```
/// What the target has said before it heard of the end is not taken for what the next one is told. Its
/// last word may be heard before the end of the walk that asked for it: then nothing is waited for.
pub(super) enum Checking {
    Runs(Box<Running>),
    Ends,
}

pub(super) struct Running {
    answers: Sender<Answer>,
    ended: Receiver<Walked>,
    reply: Sender<Outcome>,
    pub(super) what: WhatVerified,
    pub(super) serves_s: Option<i64>,
    /// What the connection said of its copy before.
    pub(super) before: (MirrorStatus, Option<Arc<CopyProgress>>),
    found: Vec<Difference>,
    found_len: usize,
    said: Option<(ItemNumber, CheckCounts)>,
    /// A mirror begins with it.
    pub(super) is_mirror: bool,
    /// The target has nothing more to say of it.
    is_stopped: bool,
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
        CheckWish { order, serves_s, reply }: CheckWish,
        walk: impl FnOnce(CheckOrder, Receiver<Answer>) -> std::io::Result<Receiver<Walked>>,
    ) -> Result<Checking, (std::io::Error, Sender<Outcome>)> {
        let what = what_of(&order);
        let (answers, heard) = bounded(CHECK_ANSWERS_MAX);
        let ended = match walk(order, heard) {
            Ok(ended) => ended,
            Err(error) => return Err((error, reply)),
        };
        let (found, found_len, said, is_stopped) = (Vec::new(), 0, None, false);
        let since = Instant::now();
        let running = Running {
            answers,
            ended,
            reply,
            what,
            serves_s,
            before,
            found,
            found_len,
            said,
            is_mirror: false,
            is_stopped,
            from,
            since,
        };
        Ok(Checking::Runs(Box::new(running)))
    }

    pub(super) fn of_a_mirror(mut self) -> Checking {
        self.running().into_iter().for_each(|running| running.is_mirror = true);
        self
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

    /// The target has nothing more to say of it; what is left of it.
    pub(super) fn stopped(self) -> Option<Checking> {
        match self {
            Checking::Runs(mut running) => {
                running.is_stopped = true;
                Some(Checking::Runs(running))
            }
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
        Some(Verified { mode: self.what.mode, counts, found, unread, from: self.from, upto, took })
    }

    /// The walk has failed, and told the target so, whatever that has said of an end.
    pub(super) fn failed(&mut self) {
        self.said = None;
    }

    /// Whoever waits for it hears it, if somebody still does. What is left of it: the target's last word. There is none
    /// behind its word on the end: a walk that hears that tells it nothing.
    pub(super) fn end(self, outcome: Outcome) -> Option<Checking> {
        let waits = outcome.is_err() && !self.is_stopped && self.said.is_none();
        let _ = self.reply.send(outcome);
        waits.then_some(Checking::Ends)
    }
}

fn what_of(order: &CheckOrder) -> WhatVerified {
    let mode = match order.content {
        None => VerifyMode::Attributes,
        Some(BlockHash::Fast { .. }) => VerifyMode::Checksum,
        Some(BlockHash::Audit { .. }) => VerifyMode::Audit,
    };
    WhatVerified { mode, below: order.below.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begun() -> Checking {
        let (reply, _) = bounded(1);
        let wish = CheckWish { order: CheckOrder::default(), serves_s: None, reply };
        Checking::begin(Sequence(0), (MirrorStatus::Complete, None), wish, |_, _| Ok(never()))
            .unwrap_or_else(|(error, _)| panic!("{error}"))
    }

    fn ended(checking: Checking) -> Option<Checking> {
        match checking {
            Checking::Runs(running) => running.end(Err("its path is not there".into())),
            Checking::Ends => panic!("it does not run"),
        }
    }

    /// The target's last word came before the end of the walk, and was waited for until a reconnection.
    #[test]
    fn the_last_word_of_a_target_may_come_before_the_end() {
        let left = ended(begun()).expect("the target's word is waited for");
        assert!(left.stopped().is_none());
        let runs = begun().stopped().expect("it runs until its walk has ended");
        assert!(ended(runs).is_none());
    }

    /// One that was cut off between the target's word on its end and the end of its walk was waited for until a
    /// reconnection.
    #[test]
    fn nothing_is_waited_for_behind_the_end() {
        let mut over = begun();
        let running = over.running().expect("it runs");
        running.hear_end(ItemNumber(3), CheckCounts::default());
        assert!(ended(over).is_none());
        let mut failed = begun();
        let running = failed.running().expect("it runs");
        running.hear_end(ItemNumber(3), CheckCounts::default());
        running.failed();
        assert!(matches!(ended(failed), Some(Checking::Ends)));
    }
}
