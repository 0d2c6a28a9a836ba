//! What follows from the target's word at the handshake: the stream resumes, or the target has to
//! be copied to, or neither is possible.

use std::fmt;

use crate::packet::{BadBy, DataState, Position, ReplicaProof, Sequence};

/// What the source can still send to a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// The last position that was given out.
    pub last: Position,
    /// The oldest packet that the queue holds; the one after the last where it holds none.
    pub oldest: Sequence,
    /// What this target has acknowledged as applied: what the queue no longer holds for it.
    pub acknowledged: Sequence,
}

/// The way on after a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Packets go from the one after this position: the target has all before it, once.
    Resume { after: Position },
    /// Only a copy makes the replica this source's.
    Copy(Gap),
}

/// Why the queue is no way to bring a replica into line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gap {
    /// Nothing was ever copied there.
    Empty,
    /// The target itself says that it is no consistent copy.
    Bad,
    /// What it applied last is of another history: of an earlier run, or of another writer.
    OtherHistory,
    /// It has what this source never gave out under these numbers.
    Ahead,
    /// What comes next for it is not in the queue any more.
    Trimmed { next: Sequence, oldest: Sequence },
    /// It lacks what it had said to have.
    WentBack { acknowledged: Sequence, applied: Sequence },
}

/// Decides by what both sides can prove. What a target has *received* and not applied went with the
/// session before, so the way on is always after *applied*: nothing is done twice or left out.
pub fn decide(held: &Held, proof: &ReplicaProof) -> Decision {
    let Held { last, oldest, acknowledged } = *held;
    let applied = proof.applied;
    assert!(
        acknowledged <= last.sequence,
        "packet {acknowledged} is acknowledged, and {last} is the last one"
    );
    match proof.data {
        DataState::Empty => return Decision::Copy(Gap::Empty),
        DataState::Bad => match proof.bad_by {
            BadBy::Anything | BadBy::Owed => return Decision::Copy(Gap::Bad),
            // It follows the stream with what it has; a new run of the source copies.
            BadBy::Aside | BadBy::Relief => {}
        },
        DataState::Good => {}
    }
    if !applied.same_history(&last) {
        return Decision::Copy(Gap::OtherHistory);
    }
    let split = applied.sequence == last.sequence && applied.chain != last.chain;
    if applied.sequence > last.sequence || split {
        return Decision::Copy(Gap::Ahead);
    }
    if applied.sequence < acknowledged {
        return Decision::Copy(Gap::WentBack { acknowledged, applied: applied.sequence });
    }
    let next = applied.sequence.next();
    if next < oldest {
        return Decision::Copy(Gap::Trimmed { next, oldest });
    }
    Decision::Resume { after: applied }
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Gap::Empty => f.write_str("nothing was copied there yet"),
            Gap::Bad => f.write_str("the target says that it is no consistent copy"),
            Gap::OtherHistory => f.write_str("what it holds is of another run of the protection"),
            Gap::Ahead => f.write_str("it holds changes that this source never sent"),
            Gap::Trimmed { next, oldest } => {
                write!(f, "it needs packet {next}, and the queue begins with {oldest}")
            }
            Gap::WentBack { acknowledged, applied } => {
                write!(f, "it had said to have packet {acknowledged}, and is back at {applied}")
            }
        }
    }
}
