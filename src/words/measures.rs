//! What is counted, as a status shows it.

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
}
