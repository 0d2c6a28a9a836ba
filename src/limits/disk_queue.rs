//! Bounds of the part of the queue that lies on disk, and of the disk that it lies on by default.

use std::time::Duration;

/// A segment of the queue on disk, in bytes, where the limit allows it: few files for a long outage, and soon
/// free again behind a target that catches up.
pub const QUEUE_SEGMENT: u64 = 64 << 20;

/// A limit is at least so many segments: they are only given back as a whole.
pub const QUEUE_SEGMENTS_MIN: u64 = 8;

/// Least limit of the queue on disk, in bytes: a segment takes any packet (a const assertion of
/// `queue::segment`).
pub const QUEUE_DISK_MIN: u64 = QUEUE_SEGMENTS_MIN * (4 << 20);

/// The queue leaves so many bytes of its disk free: others need some of it.
pub const QUEUE_DISK_FLOOR: u64 = 50 << 20;

/// From this part of its memory on a queue writes to disk, until half of that is left, in eighths: programs that
/// write in one burst need the rest, of which a mount keeps up to half of the smallest queue for requests under way.
pub const QUEUE_SPILL_EIGHTHS: usize = 3;

/// What is written to a segment at once, in bytes, where one packet is not more.
pub const QUEUE_SPILL_BATCH: usize = 1 << 20;

/// What is read of a segment at once, in bytes, where one packet is not more.
pub const QUEUE_READ_BATCH: usize = 1 << 20;

/// What a connection has of the queue on disk in memory, in bytes, ahead of what it has sent: eight batches of
/// its link, read while those go.
pub const QUEUE_WINDOW: usize = 4 << 20;

/// Free segments that stay, preallocated, for the next ones.
pub const QUEUE_SPARE_SEGMENTS: usize = 1;

/// A disk that failed, or was full, is tried again this often.
pub const QUEUE_DISK_RETRY: Duration = Duration::from_millis(250);

/// How often it is looked how much room there is on the disk.
pub const QUEUE_DISK_LOOK: Duration = Duration::from_secs(1);

/// Looks of a connection in a row (every 500 ms) that find writers waiting, before a full queue is one whose
/// disk takes what it can: what writes faster than that for a moment does not cost a target its place. Of one whose disk
/// takes nothing a target that is not there is let go with the first writer that waits.
pub const QUEUE_FULL_LOOKS_DISK: u32 = 10;

/// The same of a queue without a disk, or with one that takes nothing, and a target that is there.
pub const QUEUE_FULL_LOOKS: u32 = 2;

/// No call of a program waits longer for room in the queue because of a target that is there, unless a person wants it
/// so: the target is let go.
pub const WRITERS_WAIT_MAX: Duration = Duration::from_secs(5);

/// A queue has to be nearly empty for so long before what a backlog took of memory is given back
/// ([`BACKLOG_GIVEN_BACK`](super::BACKLOG_GIVEN_BACK)): what is still under way to a target is let go of meanwhile.
pub const BACKLOG_SETTLES: Duration = Duration::from_secs(1);

/// With less free than this, in bytes, the disk of the state directory is full to the queue, and soon to what is noted.
pub const STATE_BYTES_MIN: u64 = QUEUE_DISK_FLOOR;

/// With less free than this, in bytes, a queue beside the state holds next to nothing: a part of its disk stays free.
pub const STATE_BYTES_FEW: u64 = 256 << 20;

/// Least inodes that the disk of the state directory has to have free.
pub const STATE_INODES_MIN: u64 = 1000;
