//! What is counted, as a status shows it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What the queue holds and did; bytes include the cost of bookkeeping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueStats {
    pub packets: u64,
    pub bytes: u64,
    pub limit_bytes: u64,
    /// Writers that wait for room at this moment.
    pub writers_waiting: u64,
    /// Times a writer had to wait since the start.
    pub waits: u64,
    /// Time writers have spent waiting for room since the start, milliseconds.
    pub waited_ms: u64,
    /// Packets and payload bytes captured since the start.
    pub captured_packets: u64,
    pub captured_bytes: u64,
    /// The part on disk, where the queue has one.
    pub disk: Option<DiskQueueStats>,
}

/// What of the queue lies on disk: what memory has no room for, and some target has not applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskQueueStats {
    pub packets: u64,
    /// Of the segments that are in use, what is in them.
    pub bytes: u64,
    /// What the files of all segments take of the disk.
    pub file_bytes: u64,
    /// What they may take, as the limit and the free space of the disk are now.
    pub limit_bytes: u64,
    /// Half of that is in use.
    pub alert: bool,
    /// Why it takes nothing at this moment.
    pub trouble: Option<DiskTrouble>,
}

/// Why the disk of the queue takes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskTrouble {
    /// Its limit is reached.
    AtLimit,
    /// The disk has no more to give.
    NoSpace,
    Failed {
        errno: i32,
    },
}

impl fmt::Display for DiskTrouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DiskTrouble::AtLimit => write!(f, "it is at its limit"),
            DiskTrouble::NoSpace => write!(f, "its disk has no room"),
            DiskTrouble::Failed { errno } => {
                write!(f, "its disk fails: {}", std::io::Error::from_raw_os_error(*errno))
            }
        }
    }
}

impl QueueStats {
    /// Whether little is left before writers wait: where there is a disk that takes something, of that.
    pub fn is_half_full(&self) -> bool {
        match &self.disk {
            Some(DiskQueueStats { trouble: None, alert, .. }) => *alert,
            Some(_) | None => self.limit_bytes > 0 && self.bytes * 2 >= self.limit_bytes,
        }
    }

    /// Bytes that it still takes.
    pub fn room(&self) -> u64 {
        let disk = match &self.disk {
            Some(DiskQueueStats { trouble: None, bytes, limit_bytes, .. }) => {
                limit_bytes.saturating_sub(*bytes)
            }
            Some(_) | None => 0,
        };
        self.limit_bytes.saturating_sub(self.bytes) + disk
    }
}
