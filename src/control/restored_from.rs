//! Who reads a replica back, as a target tells it.

use serde::{Deserialize, Serialize};

/// A replica is being restored from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoredFrom {
    /// Of the host that restores.
    pub fingerprint: String,
    pub address: String,
    pub since_unix_ms: u64,
    /// Files whose content was given to it, and bytes of content.
    pub files_sent: u64,
    pub bytes_sent: u64,
}
