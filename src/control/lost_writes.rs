//! What is said of lost writes in a status.

use serde::{Deserialize, Serialize};

/// What a directory had when it became the replica of who stood in for its host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostWrites {
    /// Name of the clone.
    pub clone: String,
    /// When the directory became the replica.
    pub since_unix_ms: u64,
    /// That what is preserved takes.
    pub area_bytes: u64,
    /// The copy is over that has overwritten it.
    pub copy_ended: bool,
    /// Why it is no use.
    pub failed: Option<String>,
}
