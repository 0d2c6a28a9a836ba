//! What travels when a replica is compared with its source and not changed.

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

use super::bounded::Bounded;
use super::op::ObjectId;
use crate::limits::PATH_LEN_MAX;
use crate::store::random_u64;
use crate::words::HashKind;

/// How blocks of content are hashed: with a key that is drawn for each comparison.
#[derive(Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum BlockHash {
    /// xxh3, 128 bits, its secret made of the key: against chance, and whoever does not know the key.
    Fast { key: [u8; 32] },
    /// Keyed blake3, cut to 128 bits: against whoever chose the content, too.
    Audit { key: [u8; 32] },
}

impl BlockHash {
    /// With a key that nobody knows.
    pub fn draw(kind: HashKind) -> BlockHash {
        let mut key = [0; 32];
        key.chunks_mut(8).for_each(|part| part.copy_from_slice(&random_u64().to_le_bytes()));
        match kind {
            HashKind::Fast => BlockHash::Fast { key },
            HashKind::Audit => BlockHash::Audit { key },
        }
    }
}

/// The key is nobody's business.
impl std::fmt::Debug for BlockHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            BlockHash::Fast { .. } => "fast",
            BlockHash::Audit { .. } => "audit",
        })
    }
}

/// What a replica has otherwise than its source.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum DifferenceKind {
    /// The replica has nothing of this name.
    Missing,
    /// The source has nothing of this name.
    Extra,
    /// It is of another kind: a directory instead of a file, another device, another target of a symlink.
    Type,
    /// The name holds another object than on the source: another file of the same kind, or one that the
    /// replica does not know.
    Object,
    Size,
    Content,
    Mode,
    Owner,
    Mtime,
    Xattr,
    /// The replica's cannot be read.
    Unreadable,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Difference {
    pub kind: DifferenceKind,
    /// The source's object; of an extra name nothing.
    pub object: Option<ObjectId>,
    /// Where it lies in the replica, relative to its root. The end of a very long one is cut.
    pub path: Bounded<PATH_LEN_MAX>,
    /// Bytes of content that differ, in whole blocks, or are missing or too many.
    pub bytes: u64,
}

/// What a comparison came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct CheckCounts {
    /// Objects that both sides have.
    pub compared: u64,
    /// Names that the replica has not.
    pub missing: u64,
    /// Names that only the replica has; what is below a directory does not count.
    pub extra: u64,
    /// Objects that differ.
    pub different: u64,
    /// Bytes of content that were compared.
    pub bytes_compared: u64,
    /// Bytes of content that differ, are missing or are too many.
    pub bytes_out_of_step: u64,
}

impl CheckCounts {
    pub fn is_identical(&self) -> bool {
        (self.missing, self.extra, self.different) == (0, 0, 0)
    }

    /// So many bytes of content more. Sizes are what anybody says, up to 2^63 - 1 a file.
    pub fn compared(&mut self, bytes: u64) {
        self.bytes_compared = self.bytes_compared.saturating_add(bytes);
    }

    /// So many bytes of content more differ.
    pub fn out_of_step(&mut self, bytes: u64) {
        self.bytes_out_of_step = self.bytes_out_of_step.saturating_add(bytes);
    }
}
