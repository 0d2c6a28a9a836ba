//! Words about clones of a replica.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClonesRequest {
    /// Name of the replication set; without it every replica is meant.
    pub replica: Option<String>,
    pub what: CloneRequest,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CloneRequest {
    List,
    Start {
        name: String,
        /// Without one it is not copied before somebody asks.
        #[serde(default, with = "super::path_text::optional")]
        to: Option<PathBuf>,
        accept_bad_data: bool,
        /// Bytes that its area may take.
        area_limit: Option<u64>,
    },
    /// One that was not copied so far becomes a directory.
    Copy {
        name: String,
        #[serde(with = "super::path_text")]
        to: PathBuf,
    },
    Stop {
        name: String,
        force: bool,
        /// Its directory goes, too.
        remove: bool,
    },
}

/// Clones of one replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaClones {
    /// Of the replication set.
    pub name: String,
    #[serde(with = "super::path_text")]
    pub directory: PathBuf,
    /// All of them; after a command the one that it was about.
    pub clones: Vec<CloneStatus>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloneStatus {
    pub name: String,
    /// `copy`.
    pub kind: String,
    /// SYNCHRONIZING, SPLIT, FAILED, TERM-IN-PROG.
    pub state: String,
    /// `null`: it is not copied before somebody asks.
    #[serde(default, with = "super::path_text::optional")]
    pub directory: Option<PathBuf>,
    /// The daemon has begun it, before the replica became bad; it goes when the replica is good again.
    #[serde(default)]
    pub keeps_good: bool,
    /// The directory is there, complete, and needs no daemon.
    pub usable: bool,
    /// Sequence number of the last packet that it has.
    pub position: u64,
    /// When it began: it is the replica as of this moment.
    pub started_unix_ms: u64,
    /// The replica was no consistent state of its source.
    pub bad_data: bool,
    /// It was stopped before it was complete.
    pub inconsistent: bool,
    /// Why it has failed.
    pub reason: Option<String>,
    pub objects_copied: u64,
    /// That the replica had, about.
    pub objects_total: u64,
    pub bytes_copied: u64,
    /// What is preserved for it, on the disk of the replica and in the state directory.
    pub area_bytes: u64,
    /// The longest time that one change of the replica has waited for it.
    pub longest_hold_us: u64,
    /// What became of its directory, once it is stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<CloneEnd>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CloneEnd {
    /// It is an ordinary directory.
    Kept,
    Removed,
    /// Of an older removal that was not gone on with.
    KeptInPart,
    /// It was not there any more.
    NotThere,
    /// It never was complete; nothing is left.
    NeverComplete,
}
