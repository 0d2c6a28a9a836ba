//! Bounds of what copies move aside.

/// Files with several names whose names are counted together: 12 MiB.
pub const LINKED_IN_MEMORY: usize = 200_000;

/// Parts of such files that are counted one after the other: thirteen thousand million.
pub const LINKED_PARTS_MAX: u64 = 1 << 16;
