//! Words about what copies have moved aside.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What is to be shown, or removed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrphansRequest {
    /// Name of the replication set; without it every replica is meant.
    pub replica: Option<String>,
    /// `None`: nothing, they are shown.
    pub remove: Option<RemoveOrphans>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RemoveOrphans {
    All,
    OlderThan {
        ms: u64,
    },
    /// What had these paths, absolute or in the replica, or lay below; or the places that the list gives.
    Paths {
        paths: Vec<PathText>,
    },
    /// What a copy under way has moved aside, and may still want.
    Waiting,
}

/// A path in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PathText(#[serde(with = "super::path_text")] pub PathBuf);

/// What lies beside one replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaOrphans {
    /// Of the replication set.
    pub name: String,
    #[serde(with = "super::path_text")]
    pub directory: PathBuf,
    /// Orphans: names that were moved aside. What was removed is not counted any more.
    pub count: u64,
    /// All that they hold, themselves too.
    pub objects: u64,
    /// Of the disk.
    pub bytes: u64,
    /// What a copy that has not ended has moved aside.
    pub waiting_objects: u64,
    pub waiting_bytes: u64,
    /// The first of them.
    pub orphans: Vec<OrphanStatus>,
    /// Where something was to be removed.
    pub removed: Option<RemovedOrphans>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrphanStatus {
    /// In the replica; absent where it was not noted.
    #[serde(with = "super::path_text::optional")]
    pub path: Option<PathBuf>,
    /// Below `orphans` beside the replica.
    #[serde(with = "super::path_text")]
    pub place: PathBuf,
    pub why: String,
    pub since_unix_ms: u64,
    pub objects: u64,
    pub bytes: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemovedOrphans {
    pub count: u64,
    pub objects: u64,
    /// That the disk has again.
    pub bytes: u64,
    /// Objects that could not be removed.
    pub failed: u64,
    pub first_failure: Option<String>,
}
