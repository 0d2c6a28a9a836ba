//! Of files of options.

use std::time::Duration;

/// Longest file of options, in bytes: four times what as many rules take as a set may have, each as long as it may be.
pub const CONFIGURATION_LEN_MAX: u64 = 1 << 20;

/// Faults of one file that are listed: more than a person mends at once. A file of the longest length can have as many as
/// it has bytes.
pub const FAULTS_MAX: usize = 50;

/// Characters of what is said of one fault: a key or a value in it may be as long as the file.
pub const FAULT_LEN_MAX: usize = 400;

/// Symbolic links on the way to a file, as many as the kernel follows.
pub const CONFIGURATION_LINKS_MAX: usize = 40;

/// So long one process waits for another that works with the same file: a write and two syncs on a disk that is busy. A
/// process that is stopped in the middle keeps others out no longer.
pub const REPLACED_WITHIN: Duration = Duration::from_secs(20);
