//! Whether a frame comes next: right after what was applied last, of the same history. The order itself
//! was decided in the source's queue (`queue::Queue::append`); here it is checked.

use std::fmt;

use crate::packet::{HeaderDigest, Position, Sequence};

/// Why a frame does not come next. `applied` is what was applied last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrderError {
    OtherHistory {
        applied: Position,
        found: Position,
    },
    AlreadyApplied {
        applied: Position,
        found: Position,
    },
    Gap {
        applied: Position,
        found: Position,
    },
    /// The right number, but the headers before it were not the same.
    Chain {
        applied: Position,
        found: Position,
    },
}

impl fmt::Display for OrderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OrderError::OtherHistory { applied, found } => {
                write!(f, "packet {found} is of another history than {applied}")
            }
            OrderError::AlreadyApplied { applied, found } => {
                write!(f, "packet {found} came again, {applied} is applied")
            }
            OrderError::Gap { applied, found } => {
                write!(f, "packets between {applied} and {found} are missing")
            }
            OrderError::Chain { applied, found } => {
                write!(f, "packet {found} does not follow {applied}: the chain of headers differs")
            }
        }
    }
}

impl std::error::Error for OrderError {}

/// Refuses everything but the packet right after `applied`.
pub(super) fn follows(applied: &Position, found: &Position, digest: HeaderDigest) -> Result<(), OrderError> {
    let (applied, found) = (*applied, *found);
    if !found.same_history(&applied) {
        return Err(OrderError::OtherHistory { applied, found });
    }
    if found.sequence <= applied.sequence {
        return Err(OrderError::AlreadyApplied { applied, found });
    }
    // No history comes near the last number; after it there would be no next.
    if found.sequence.0 == u64::MAX || !found.follows(&applied) {
        return Err(OrderError::Gap { applied, found });
    }
    if found != applied.next(digest) {
        return Err(OrderError::Chain { applied, found });
    }
    Ok(())
}

/// A skip record starts right after `applied` and ends at or after its start.
pub(super) fn skips(applied: &Position, first: Sequence, last: &Position) -> Result<(), OrderError> {
    let (applied, found) = (*applied, *last);
    if !found.same_history(&applied) {
        return Err(OrderError::OtherHistory { applied, found });
    }
    if first <= applied.sequence || found.sequence < first {
        return Err(OrderError::AlreadyApplied { applied, found });
    }
    if found.sequence.0 == u64::MAX || first != applied.sequence.next() {
        return Err(OrderError::Gap { applied, found });
    }
    Ok(())
}
