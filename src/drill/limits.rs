//! Bounds of this room, each with its reason.

use std::time::Duration;

/// How often a readiness probe is tried again, and a clone is asked whether it is complete.
pub(super) const TRIED_EVERY: Duration = Duration::from_millis(200);

/// How often it is looked whether a process has gone that the kernel kills.
pub(super) const LOOKED_EVERY: Duration = Duration::from_millis(20);

/// What a command may take beyond its own time-out until it is given up from outside: killing it and reading
/// its last output.
pub(super) const GRACE: Duration = Duration::from_secs(10);

/// For a failover a drill has this time for its stop commands and its clean-up...
pub(super) const STOPS_WITHIN: Duration = Duration::from_secs(1);

/// ...and this one for its clean-up alone: together less than 5 s.
pub(super) const LEAVES_WITHIN: Duration = Duration::from_millis(3500);

/// How often it is looked how far the replica is behind.
pub(super) const LAG_EVERY: Duration = Duration::from_secs(1);

/// Making the namespaces and mounts: milliseconds; longer only where a host has thousands of mounts.
pub(super) const ISOLATE_MAX: Duration = Duration::from_secs(60);

/// From the beginning of a drill: what a daemon may take until a clone that it was asked for has begun or is given up.
/// It waits 10 s for a moment between two packets.
pub(super) const LATE_MAX: Duration = Duration::from_secs(20);

/// Reports of interrupted drills whose clones are looked for again, from the last one: more than anybody interrupts
/// while the daemon of their replica is away.
pub(super) const SWEPT: usize = 16;

/// Reports that are looked at, from the last one, for how a drill went that is expected now and then: one each hour for a
/// month.
pub const EXPECTED_LOOKED: usize = 720;

/// Entries of a directory that is shown beside a missing part of the data's own path: each is a mount.
pub(super) const BESIDE_MAX: usize = 1000;

/// Checks of one drill.
pub const CHECKS_MAX: usize = 64;

/// What is damaged of a file at once: a page of most databases, whole.
pub(super) const BLOCK: u64 = 8 << 10;

/// Blocks of one file that are damaged for a proof: enough that one of them is in use where most of a file is.
pub(super) const BLOCKS_MAX: u64 = 16;

/// Files that are damaged of what one check has read; and, with it, what is damaged at all (32 MiB for each check).
pub(super) const FILES_MAX: usize = 256;

/// Files that are known at a time of what was opened in a drill that is watched: 100 MiB of memory at most.
pub(super) const WATCHED_MAX: usize = 500_000;

/// What of a file is looked at at a time, whether it lies in memory.
pub(super) const LOOKED_AT: u64 = 1 << 30;

/// Damaged files that a report names.
pub(super) const NAMED_MAX: usize = 20;

/// Going through all files of a clone, and damaging what was read: a million files take a minute on a slow disk.
pub(super) const DAMAGE_MAX: Duration = Duration::from_secs(600);
