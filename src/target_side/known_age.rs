//! How old a replica is, as far as it is known: also of one that no daemon has open.

use std::path::Path;

use super::moment::{Age, kept};
use crate::packet::{DataState, Position, Sequence};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownAge {
    /// It has everything up to this moment of the source's clock.
    pub as_of_unix_ms: Option<u64>,
    /// How far that clock was ahead of this host's.
    pub clock_ahead_ms: Option<i64>,
    /// What the source had given out when it was heard last, and when that was by its clock.
    pub given_out: Option<Sequence>,
    pub heard_unix_ms: Option<u64>,
    /// How many changes of that are not here.
    pub beyond: Option<u64>,
}

impl KnownAge {
    pub(super) fn of(age: &Age, data: DataState, applied: &Position, durable: &Position) -> KnownAge {
        // Numbers of another run of the source say nothing of this one's.
        let heard = age.heard.filter(|heard| heard.position.same_history(applied));
        let given_out = heard.map(|heard| heard.position.sequence);
        KnownAge {
            as_of_unix_ms: age.as_of(data, applied, durable),
            clock_ahead_ms: age.ahead_ms,
            given_out,
            heard_unix_ms: heard.map(|heard| heard.at_ms),
            beyond: given_out.map(|given_out| given_out.0.saturating_sub(applied.sequence.0)),
        }
    }
}

/// `state`: what is kept of the replica, which is as `data` says and has these positions.
pub fn known_age(state: &Path, data: DataState, applied: &Position, durable: &Position) -> KnownAge {
    KnownAge::of(&kept(state), data, applied, durable)
}
