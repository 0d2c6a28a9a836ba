//! Where statistics are written, as it was asked for.

use std::path::PathBuf;

/// How long the file becomes unless it is said otherwise: of one connection that is never idle 6 hours.
pub const STATISTICS_SIZE: u64 = 16 << 20;
/// The least: some hundred lines.
pub const STATISTICS_SIZE_MIN: u64 = 64 << 10;
/// How many there are, the one that is written among them, unless it is said otherwise; and at most.
pub const STATISTICS_KEEP: u32 = 4;
pub const STATISTICS_KEEP_MAX: u32 = 100;

/// A file of lines, and how much of them is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatisticsTo {
    /// Absolute, and without symbolic links when it was looked at.
    pub path: PathBuf,
    /// Bytes of one file.
    pub size: u64,
    /// Files: that one, and with `.1`, `.2`, ... behind its name those before it.
    pub keep: u32,
}
