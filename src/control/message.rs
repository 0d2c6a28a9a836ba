//! Requests and responses, each one JSON document on a line of its own.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::status::Status;
use crate::failure::Failure;
use crate::packet::Sequence;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "request")]
pub enum Request {
    Status,
    WaitSync {
        durable: bool,
        /// Without one the daemon waits until the caller goes away.
        timeout_ms: Option<u64>,
    },
    Stop {
        mode: StopMode,
    },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "response")]
pub enum Response {
    Status { status: Box<Status> },
    WaitSync { report: SyncReport },
    Stop { report: StopReport },
    Failure { failure: Failure },
}

/// A parsed `wait_sync` request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitSync {
    pub wait_for: WaitFor,
    pub timeout: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitFor {
    Applied,
    Durable,
}

/// What `wait-sync` found, at the latest at its time-out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SyncReport {
    /// All targets have everything up to `upto`.
    pub complete: bool,
    /// The last position at the moment of the request.
    pub upto: Sequence,
    pub waited_ms: u64,
    pub connections: Vec<SyncedConnection>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SyncedConnection {
    pub id: u32,
    pub target: String,
    pub complete: bool,
    pub applied: Sequence,
    pub durable: Sequence,
    /// What it still waits for, in words; empty when complete.
    pub waits_for: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopMode {
    /// Drain, then unmount; a busy mount is an error and goes on serving.
    Orderly,
    /// Detach at once, whatever is queued or busy.
    Now,
}

/// How a stop ended; the mount is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopReport {
    /// Nothing was left in the queue.
    pub drained: bool,
    /// What was left, per target, in words; empty when drained.
    pub left: Vec<String>,
}
