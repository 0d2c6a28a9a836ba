//! What counts of what a target has.

use super::super::surroundings::Surroundings;
use super::Driver;
use crate::packet::{DataState, ReplicaProof};

/// What counts of what a target has, until it is in line again.
///
/// ```text
///            less is durable there than was     the copy afresh is taken up
///  AsNoted ──────────────────────────────────> Nothing ──────────────────────> SinceAfresh
///     ^                                           ^                                 │
///     │ in line                                   └── not of this run any more ─────┤
///     └─────────────────────────────────────────────────────────────────────────────┘
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    AsNoted,
    /// An older image of it was put back: no time says what it has.
    Nothing,
    /// It has forgotten everything; what it has since came from copies of this run.
    SinceAfresh,
}

impl<S: Surroundings> Driver<S> {
    /// What counts of what a target has that says this of itself.
    pub(super) fn trust_after(&self, has_less: bool, is_ours: bool, proof: &ReplicaProof) -> Trust {
        let has_moved_on = || self.settings.restored_at.is_some_and(|at| !is_ours && proof.applied != at);
        let was_farther =
            || self.settings.marks.were_farther(&self.settings.target.to_string(), &proof.durable);
        let is_behind = || {
            let merge = self.merge.as_ref();
            merge.is_some_and(|merge| merge.is_behind(&proof.applied, self.start.incarnation))
        };
        match self.trust {
            _ if has_less => Trust::Nothing,
            // What it had is gone as a whole, and nothing of it is taken for anything.
            trust if proof.data == DataState::Empty => trust,
            // Others have sent to it since the directory was restored from it, or it was set back.
            Trust::AsNoted if self.is_restored && has_moved_on() => Trust::Nothing,
            Trust::AsNoted if was_farther() => Trust::Nothing,
            // It has what this source has sent in a time that it does not remember.
            Trust::AsNoted if is_behind() => Trust::Nothing,
            Trust::SinceAfresh if !is_ours => Trust::Nothing,
            trust => trust,
        }
    }
}
