//! Words about markers: named barriers in the stream of a set.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::packet::{MarkerEnd, Sequence};

/// A marker that is to be put into the stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MarkerRequest {
    /// Checked by whoever reads it.
    pub name: String,
    pub wait: MarkerWait,
    /// Without one the daemon waits until the caller goes away.
    pub timeout_ms: Option<u64>,
}

/// What is waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MarkerWait {
    /// It has its place in the stream.
    #[default]
    Queued,
    /// All targets have passed it, and what they run for it is through.
    Executed,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MarkerReport {
    pub name: String,
    pub set: String,
    /// Everything that was done before the request is before it.
    pub position: Sequence,
    /// What was waited for is so, and went well on all targets.
    pub complete: bool,
    pub waited_ms: u64,
    pub targets: Vec<MarkedTarget>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MarkedTarget {
    pub connection: u32,
    pub target: String,
    /// Absent: it is not there yet, or nobody knows.
    pub end: Option<MarkerEnd>,
    pub text: String,
}

/// Of whoever runs commands for markers of a replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttendRequest {
    /// Name of the replication set.
    pub set: String,
    /// How long the stream is held for one at most.
    pub hold_ms: u64,
    /// How the last one has ended.
    pub done: Option<MarkerDone>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MarkerDone {
    pub number: u64,
    pub end: MarkerEnd,
    /// One line about it.
    pub text: String,
}

/// A marker that the stream is held at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MarkerDue {
    pub number: u64,
    pub name: String,
    pub position: Sequence,
    pub epoch: u32,
    pub left_ms: u64,
}

/// What there is to do for whoever attends; nothing after a while: he asks again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attending {
    #[serde(with = "super::path_text")]
    pub replica: PathBuf,
    pub due: Option<MarkerDue>,
}
