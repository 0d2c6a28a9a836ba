//! Who may write a replica: nobody of an epoch before the one that it was stood in for in.
//!
//! ```text
//!  source's epoch      the fence of the replica      the source is
//!  any                 none                          taken in: nobody ever stood in
//!  lower number        N                             stood in for
//!  N, same writer      N                             taken in
//!  N, other writer     N                             one of two that stood in: a person decides
//!  higher number       N                             taken in, and its epoch is the fence from then on
//! ```

use std::fmt;

use super::message::ReplicaProof;
use super::position::Epoch;
use crate::limits::EPOCHS_RAISED_MAX;

/// Why a source may not write where it could write before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeptOut {
    /// The set is written in a higher epoch.
    StoodInFor { own: Epoch, known: Epoch },
    /// Two hosts have stood in, and neither goes on from what the other one has: split brain.
    TwoWriters { own: Epoch, known: Epoch },
}

impl Epoch {
    /// Whether who writes in this epoch is kept out by one that is known; see the module.
    pub fn kept_out_by(self, known: Option<Epoch>) -> Option<KeptOut> {
        let known = known?;
        if self.number < known.number {
            return Some(KeptOut::StoodInFor { own: self, known });
        }
        let is_split = self.number == known.number && self.writer != known.writer;
        is_split.then_some(KeptOut::TwoWriters { own: self, known })
    }

    /// Whether who writes in this epoch has to stop: somebody writes in a higher one, and that is one that a change
    /// of roles leads to.
    pub fn is_outranked_by(self, known: Epoch) -> bool {
        known.number > self.number && known.number - self.number <= EPOCHS_RAISED_MAX
    }

    /// Whether it is to be the fence where another one, or none, has been.
    pub fn raises(self, known: Option<Epoch>) -> bool {
        // The first epoch is nobody's stand-in: a source that has lost its state is in it again, as another
        // writer.
        self.number > known.map_or(Epoch::FIRST, |known| known.number)
    }
}

impl ReplicaProof {
    /// The epoch of a stand-in, where what a target holds is of one.
    pub fn stood_in(&self) -> Option<Epoch> {
        let epochs = [self.applied.epoch, self.durable.epoch];
        epochs.into_iter().filter(|epoch| epoch.number > Epoch::FIRST).max_by_key(|epoch| epoch.number)
    }
}

impl fmt::Display for KeptOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeptOut::StoodInFor { own, known } => write!(
                f,
                "this source was stood in for: the set is written in epoch {} now and this source is of epoch {}; \
                 nothing was overwritten. Stop it, and let the stand-in bring its directory into line (standin \
                 serve --adopt on its host); then it can be started with --stand-in",
                known.number, own.number
            ),
            KeptOut::TwoWriters { own, known } => write!(
                f,
                "split brain: two hosts have stood in for the set and have written since, this one in epoch {}, the \
                 other one in epoch {}; nothing is overwritten by either: a person names the one to keep, there \
                 (standin roles keep)",
                own.writing(),
                known.writing()
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lower_epoch_and_a_second_writer_are_kept_out() {
        let epoch = |number, writer| Epoch { number, writer };
        let split = |own, known| KeptOut::TwoWriters { own, known };
        let late = |own, known| KeptOut::StoodInFor { own, known };
        let (first, other) = (epoch(1, 7), epoch(1, 8));
        let (second, rival, third) = (epoch(2, 9), epoch(2, 10), epoch(3, 7));
        for (own, known, kept_out, raises) in [
            (first, None, None, false),
            (second, None, None, true),
            (first, Some(second), Some(late(first, second)), false),
            (other, Some(second), Some(late(other, second)), false),
            (second, Some(second), None, false),
            (rival, Some(second), Some(split(rival, second)), false),
            (third, Some(second), None, true),
            (second, Some(third), Some(late(second, third)), false),
        ] {
            assert_eq!(own.kept_out_by(known), kept_out, "{own:?} where {known:?} is known");
            assert_eq!(own.raises(known), raises, "{own:?} where {known:?} is known");
            let outranked = known.is_some_and(|known| own.is_outranked_by(known));
            let stood_in_for = matches!(kept_out, Some(KeptOut::StoodInFor { .. }));
            assert_eq!(outranked, stood_in_for, "{own:?} where {known:?} is known");
        }
        assert!(second.is_outranked_by(epoch(2 + EPOCHS_RAISED_MAX, 1)));
        assert!(!second.is_outranked_by(epoch(3 + EPOCHS_RAISED_MAX, 1)), "one that a peer made up");
        assert!(!first.is_outranked_by(Epoch::default()), "one that is not known");
    }

    #[test]
    fn what_is_said_fits_into_one_line_of_a_message() {
        let (own, known) = (Epoch { number: u32::MAX, writer: 1 }, Epoch { number: u32::MAX, writer: 2 });
        for kept_out in [KeptOut::StoodInFor { own, known }, KeptOut::TwoWriters { own, known }] {
            let line = kept_out.to_string();
            assert!(line.len() < 1000 && !line.contains('\n'), "{line}");
        }
    }
}
