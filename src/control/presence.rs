//! Words about files: whether they are on the targets as they are now.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::orphans::PathText;
use super::status::Amount;
use crate::packet::Sequence;

/// Which files, and how long the targets may take to answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilesRequest {
    /// Absolute, or relative to the protected directory; [`FILES_ASKED_MAX`](crate::limits::FILES_ASKED_MAX) at most.
    pub paths: Vec<PathText>,
    /// On the targets' disks, not only applied.
    pub durable: bool,
    /// Without one the daemon waits until the caller goes away.
    pub timeout_ms: Option<u64>,
}

/// How one file stands: everything that was done to it before it was asked about, and that a program was told is
/// done, is at or before `as_of`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileReport {
    #[serde(with = "super::path_text")]
    pub path: PathBuf,
    /// Name of the replication set; empty where it is of none.
    pub set: String,
    pub kind: FileKind,
    /// The worst of the targets'.
    pub verdict: Verdict,
    /// Position on the source; on a target what is applied there.
    pub as_of: Option<Sequence>,
    pub as_of_unix_ms: u64,
    /// The file's own change time (ctime), where there is one.
    pub changed_unix_ms: Option<u64>,
    /// What else a person should know; may be empty.
    pub note: String,
    pub targets: Vec<FileOnTarget>,
}

/// What lies at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileKind {
    File,
    /// With all that lies below.
    Directory,
    /// It itself: it is not followed.
    Symlink,
    Special,
    /// Nothing, now.
    Gone,
    /// The rules of the set leave it out.
    LeftOut,
    /// It could not be looked at, or is of no set.
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    There,
    NotThere,
    /// Nobody here can tell.
    Unknown,
}

impl Verdict {
    pub fn exit_code(self) -> u8 {
        self as u8
    }
}

/// How one target stands to a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileOnTarget {
    /// Number of the connection; none on the target itself.
    pub connection: Option<u32>,
    pub target: String,
    pub state: FileState,
    pub verdict: Verdict,
    /// Positions that the target has.
    pub applied: Sequence,
    pub durable: Sequence,
    /// What lies between that and the position that was asked for; absent where that is not known.
    pub lacks: Option<Amount>,
    /// Since when it is so: of what it lacks the oldest, of a target that is away since when.
    pub since_unix_ms: Option<u64>,
    /// What it waits for, or why nobody knows, in words.
    pub why: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileState {
    Durable,
    /// In the target's page cache.
    Applied,
    /// Packets are on their way.
    Behind,
    /// The target cannot perform the op at the head of the line.
    Retrying,
    /// No connection.
    Away,
    /// A person, or a schedule, holds the connection back.
    HeldBack,
    /// A copy brings it.
    Resynchronising,
    /// The target could not keep it in line, and goes on without it.
    SetAside,
    /// The last copy could not bring it.
    LeftOut,
    /// The rules of the set leave it out.
    Excluded,
    /// Changes may have got past the mount.
    Unprotected,
    /// Writes through shared mappings could not be looked at.
    Unflushed,
    /// The replica is bad, and nobody knows whether for this file.
    Doubtful,
}

impl FileState {
    /// What it says of the file; `durable`: it is to be on disk.
    pub fn verdict(self, durable: bool) -> Verdict {
        match self {
            FileState::Durable => Verdict::There,
            FileState::Applied if durable => Verdict::NotThere,
            FileState::Applied => Verdict::There,
            FileState::Behind
            | FileState::Retrying
            | FileState::Away
            | FileState::HeldBack
            | FileState::Resynchronising
            | FileState::SetAside
            | FileState::LeftOut
            | FileState::Excluded => Verdict::NotThere,
            FileState::Unprotected | FileState::Unflushed | FileState::Doubtful => Verdict::Unknown,
        }
    }
}
