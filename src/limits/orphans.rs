//! Bounds of what copies move aside.

/// Files with several names whose names are counted together: 12 MiB.
pub const LINKED_IN_MEMORY: usize = 200_000;

/// Parts of such files that are counted one after the other: thirteen thousand million.
pub const LINKED_PARTS_MAX: u64 = 1 << 16;

/// Bytes of a file that are copied between two looks whether the process is to stop, and that are synced together: with
/// what a slow disk takes in a second. A copy of all of a large file held the stream up, and a stop.
pub const KEPT_PIECE: u64 = if cfg!(test) { 1 << 20 } else { 64 << 20 };
