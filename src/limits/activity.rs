//! Bounds of the activity log.

use std::time::Duration;

/// Records of one generation, 64 bytes each: 4 MiB on disk, two of them for a while. So many files of before can be
/// written to within one generation; what is born in it needs none.
pub const ACTIVITY_RECORDS: u32 = if cfg!(test) { 64 } else { 1 << 16 };

/// How long a change waits for its record before the log is given up: longer than a busy disk takes for a sync, and
/// shorter than what people take for dead.
pub const ACTIVITY_PATIENCE: Duration = Duration::from_secs(10);

/// How often the ceiling is looked at while packets flow.
pub const ACTIVITY_LOOK_EVERY: Duration = Duration::from_millis(100);

/// By so many packets at least the ceiling is raised while they flow.
pub const ACTIVITY_CEILING_STEP: u64 = 32;

/// How often a generation is begun while something is hot. Each costs a sync of the source's file system, which
/// writes back after 30 s anyway, and a record for each file that is written to all the time.
const ACTIVITY_GENERATION: Duration = Duration::from_secs(60);

/// `ACTIVITY_GENERATION`, or what `STANDIN_ACTIVITY_EVERY_MS` says: tests do not wait so long.
pub fn activity_generation() -> Duration {
    let set = std::env::var("STANDIN_ACTIVITY_EVERY_MS").ok().and_then(|text| text.parse().ok());
    set.map_or(ACTIVITY_GENERATION, Duration::from_millis)
}

/// How often the log's keeper looks whether something passed it by, and whether it is half full.
pub const ACTIVITY_KEEPER_LOOKS: Duration = Duration::from_millis(200);
