//! Bounds of this room, each with its reason.

use std::time::Duration;

/// Sessions of one replica: each preserves for itself, and so many cost a change so many copies.
pub const SESSIONS_MAX: usize = 32;

/// What is preserved of content at once, in bytes: a page of a database, and of the page cache.
pub(super) const BLOCK: u64 = if cfg!(test) { 512 } else { 4096 };

/// Things that one session remembers in memory (names, attributes, ranges, births): some hundred bytes each, so
/// that a session takes less than a gibibyte; then it fails.
pub(super) const REMEMBERED_MAX: usize = 4 << 20;

/// Room that stays free on the disk of the replica, as a part of it and at most: what a session preserves must
/// not take the room of what the replica itself needs next.
pub(super) const FLOOR_PART: u64 = 20;
pub(super) const FLOOR_MAX: u64 = 1 << 30;

/// So many bytes are preserved between two looks at the free room.
pub(super) const LOOK_AT_ROOM_EVERY: u64 = 1 << 20;

/// Bytes that are copied, or shared with a file, at once: a packet that changes the same file waits for one of
/// these at most.
pub(super) const CHUNK: u64 = 1 << 20;

/// How long a start waits for a moment between two packets: an op that is being tried again holds it up.
pub(super) const BARRIER_PATIENCE: Duration = Duration::from_secs(10);

/// How often it looks whether anybody works on the replica.
pub(super) const BARRIER_POLL: Duration = Duration::from_millis(20);

/// Longest reason that is kept, in characters.
pub(super) const REASON_LEN_MAX: usize = 300;

/// Longest record, in bytes: an object with as many attributes as the kernel lists, of the largest size each
/// file system here takes in one inode.
pub(super) const RECORD_LEN_MAX: usize = 64 << 20;
