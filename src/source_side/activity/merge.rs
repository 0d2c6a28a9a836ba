//! What a power loss has left in doubt, of what the log of before says.

use std::collections::HashSet;
use std::sync::Arc;

use crate::activity::{HotObject, Known};
use crate::packet::{Incarnation, ObjectId, Position, Timestamp};
use crate::source_side::mark::{CLOCK_SLACK, Reached};

/// What is in doubt on the targets since the host has lost power.
#[derive(Debug, Default)]
pub struct Merge {
    /// Content of these.
    pub hot: Arc<HashSet<ObjectId>>,
    /// Whatever was born, or has changed, at this moment or later.
    pub since: Timestamp,
    ceilings: Vec<Reached>,
    /// Of this source, before this one.
    runs: Vec<Incarnation>,
}

impl Merge {
    pub fn of(known: &Known, ceilings: &[Reached], runs: &[Incarnation]) -> Merge {
        let seconds = known.since.seconds.saturating_sub(CLOCK_SLACK.as_secs() as i64);
        Merge {
            hot: Arc::new(known.hot.iter().map(|HotObject { id, .. }| *id).collect()),
            since: Timestamp { seconds, ..known.since },
            ceilings: ceilings.to_vec(),
            runs: runs.to_vec(),
        }
    }

    /// A target that has applied this has more than the log knows of, as of a run or of a position in one: the log,
    /// and with it the whole host, was put back to an earlier state of itself. `own`: the run that asks.
    pub fn is_behind(&self, applied: &Position, own: Incarnation) -> bool {
        let is_above =
            |ceiling: &Reached| ceiling.run == applied.incarnation && applied.sequence > ceiling.sequence;
        let is_known = applied.incarnation == own || self.runs.contains(&applied.incarnation);
        !is_known || self.ceilings.iter().any(is_above)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Sequence;

    /// A whole machine that was put back to a snapshot of itself, with its log, took what it had changed since for
    /// what the target has.
    #[test]
    fn a_target_that_has_more_than_the_log_knows_of_is_not_believed() {
        let ceiling = |run, sequence| Reached { run: Incarnation(run), sequence: Sequence(sequence) };
        let runs = [3, 4, 5].map(Incarnation);
        let merge = Merge::of(&Known::default(), &[ceiling(4, 50), ceiling(5, 20)], &runs);
        for (run, sequence, is_behind) in [
            (5, 20, false),
            (5, 21, true),
            (4, 50, false),
            (4, 51, true),
            // It ended in order: what it had is on the disk.
            (3, 900, false),
            // The one that asks.
            (6, 900, false),
            // One that this source does not remember.
            (7, 1, true),
        ] {
            let incarnation = Incarnation(run);
            let applied = Position { incarnation, sequence: Sequence(sequence), ..Position::default() };
            assert_eq!(merge.is_behind(&applied, Incarnation(6)), is_behind, "{run} {sequence}");
        }
    }

    #[test]
    fn a_moment_that_is_in_doubt_is_before_what_the_log_says() {
        let since = Timestamp { seconds: 1000, nanoseconds: 5 };
        let merge = Merge::of(&Known { since, ..Known::default() }, &[], &[]);
        assert!(merge.since <= Timestamp { seconds: 998, nanoseconds: 5 }, "{:?}", merge.since);
    }
}
