//! Where a packet stands in the history of its replication set.

use std::fmt;

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// Number of a packet within one history, counted from 1. 0 stands for "before the first packet".
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Sequence(pub u64);

impl Sequence {
    /// The number of the packet that comes right after this one.
    pub fn next(self) -> Sequence {
        // Saturates: a peer may name any number.
        Sequence(self.0.saturating_add(1))
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Who may write. The number is raised at every change of role; two epochs with one
/// number and different writers are split brain.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize,
)]
pub struct Epoch {
    pub number: u32,
    /// Random id of the host that writes in this epoch.
    pub writer: u64,
}

impl Epoch {
    /// Number of the epoch in which a set begins.
    pub const FIRST: u32 = 1;

    /// For people: the number, and which of two writers.
    pub fn writing(self) -> String {
        format!("{} (writer {:016x})", self.number, self.writer)
    }
}

/// Random number drawn at every start of a source that cannot prove the tail of its history.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Incarnation(pub u64);

/// Running hash over all packet headers up to and including a position: two histories
/// that split are never taken for one.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Chain(pub u64);

/// Position of a packet: which history (epoch, incarnation), which number in it, and the
/// proof that everything before was the same (chain).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Encode, Decode, Serialize, Deserialize)]
pub struct Position {
    pub epoch: Epoch,
    pub incarnation: Incarnation,
    pub sequence: Sequence,
    pub chain: Chain,
}

impl Position {
    /// The position before the first packet of a new history.
    pub fn origin(epoch: Epoch, incarnation: Incarnation) -> Position {
        let mut seed = [0u8; 20];
        seed[..4].copy_from_slice(&epoch.number.to_le_bytes());
        seed[4..12].copy_from_slice(&epoch.writer.to_le_bytes());
        seed[12..].copy_from_slice(&incarnation.0.to_le_bytes());
        Position { epoch, incarnation, sequence: Sequence(0), chain: Chain(xxh3_64(&seed)) }
    }

    /// The position of the packet after this one, whose header has this [`HeaderDigest`].
    pub fn next(&self, digest: HeaderDigest) -> Position {
        Position {
            epoch: self.epoch,
            incarnation: self.incarnation,
            sequence: self.sequence.next(),
            chain: Chain(xxh3_64_with_seed(&digest.0.to_le_bytes(), self.chain.0)),
        }
    }

    /// Same epoch and incarnation: sequence numbers can be compared.
    pub fn same_history(&self, other: &Position) -> bool {
        self.epoch == other.epoch && self.incarnation == other.incarnation
    }

    /// It comes right after another, in the same history.
    pub fn follows(&self, before: &Position) -> bool {
        self.same_history(before) && before.sequence.0.checked_add(1) == Some(self.sequence.0)
    }

    /// It comes after another, in the same history.
    pub fn is_ahead_of(&self, other: &Position) -> bool {
        self.same_history(other) && self.sequence > other.sequence
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:08x}:{}", self.epoch.number, self.incarnation.0 as u32, self.sequence)
    }
}

/// Hash of one packet's header and payload length, computed before the queue's lock is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderDigest(pub u64);

impl HeaderDigest {
    /// Digest of an encoded header and the length in bytes of the payload behind it.
    pub fn of(header: &[u8], payload_len: usize) -> HeaderDigest {
        HeaderDigest(xxh3_64_with_seed(header, payload_len as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histories_that_split_never_meet_again() {
        let origin = Position::origin(Epoch { number: 1, writer: 7 }, Incarnation(3));
        let same = HeaderDigest::of(b"same", 0);
        let left = origin.next(HeaderDigest::of(b"left", 0)).next(same);
        let right = origin.next(HeaderDigest::of(b"right", 0)).next(same);
        assert_eq!(left.sequence, right.sequence);
        assert_ne!(left.chain, right.chain);
        assert!(left.same_history(&right));
    }

    #[test]
    fn payload_length_is_part_of_the_chain() {
        assert_ne!(HeaderDigest::of(b"x", 0), HeaderDigest::of(b"x", 1));
    }

    #[test]
    fn another_incarnation_starts_another_chain() {
        let epoch = Epoch { number: 1, writer: 7 };
        let one = Position::origin(epoch, Incarnation(1));
        let two = Position::origin(epoch, Incarnation(2));
        assert_ne!(one.chain, two.chain);
        assert!(!one.same_history(&two));
    }
}
