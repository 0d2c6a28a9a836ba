//! Every bound of the product, with its reason and, for a number, how it was found.

use std::time::Duration;

/// Longest name of a directory entry, in bytes (Linux `NAME_MAX`).
pub const NAME_LEN_MAX: usize = 255;

/// Longest path that travels with a packet as a cross-check, in bytes (Linux `PATH_MAX`).
/// A deeper object travels without a path: its id is enough.
pub const PATH_LEN_MAX: usize = 4096;

/// Longest symlink target, in bytes: what the kernel's VFS accepts.
pub const SYMLINK_LEN_MAX: usize = 4096;

/// Longest extended-attribute name, in bytes (Linux `XATTR_NAME_MAX`).
pub const XATTR_NAME_LEN_MAX: usize = 255;

/// Longest extended-attribute value, in bytes (Linux `XATTR_SIZE_MAX`).
pub const XATTR_VALUE_LEN_MAX: usize = 65_536;

/// Longest list of attribute names of one object, in bytes (Linux `XATTR_LIST_MAX`).
pub const XATTR_LIST_LEN_MAX: usize = 65_536;

/// Longest header of a packet or lane item, in bytes. An object with many large
/// extended attributes is the longest case; a listing is cut well below it.
pub const HEADER_LEN_MAX: usize = 1 << 20;

/// Longest payload of a packet or lane item, in bytes: one FUSE write request
/// ([`FUSE_WRITE_LEN_MAX`]) is never split.
pub const PAYLOAD_LEN_MAX: usize = 1 << 20;

/// Longest message on the control stream, in bytes.
pub const CONTROL_LEN_MAX: usize = 256 * 1024;

/// Largest write request taken from the kernel, in bytes. Larger requests measured no gain.
pub const FUSE_WRITE_LEN_MAX: u32 = 1 << 20;

/// Entries in one listing item of a directory. Bounds the header to well under
/// [`HEADER_LEN_MAX`] for ordinary objects; the encoder also cuts by bytes.
pub const LISTING_ENTRIES_MAX: usize = 1024;

/// Bytes after which a listing item is cut.
pub const LISTING_LEN_CUT: usize = 256 * 1024;

/// Listings that a copy has sent and that the target has not answered: hides the round trip, and
/// bounds the files that wait to be asked for (each listing has at most [`LISTING_ENTRIES_MAX`]).
pub const LISTINGS_IN_FLIGHT: usize = 8;

/// Content of a file travels in pieces of this many bytes in the lane: small enough that packets,
/// which share the stream, never wait long behind one.
pub const CONTENT_CHUNK: usize = 256 << 10;

/// Memory level of the queue, in bytes: as in the product whose queue this follows.
pub const QUEUE_MEMORY: usize = 128 << 20;

/// Least memory level that can be configured, in bytes.
pub const QUEUE_MEMORY_MIN: usize = 32 << 20;

/// What one packet costs in the queue beside its header and payload, in bytes.
pub const QUEUE_PACKET_COST: usize = 160;

/// Bytes of free payload buffers that the pool keeps for reuse. Fresh memory costs
/// 0.58 s/GiB in page faults, more than the write itself.
pub const POOL_FREE_MAX: usize = 16 << 20;

/// Bytes received and not yet applied on a target: receiving runs ahead of applying by this much.
pub const RECEIVE_WINDOW: usize = 16 << 20;

/// After this much rest the target sets the times that are still pending.
pub const PENDING_TIMES_REST: Duration = Duration::from_millis(100);

/// Objects with pending times before they are set at once, so that the table stays small.
pub const PENDING_TIMES_MAX: usize = 16_384;

/// Bytes of the log of pending times after which they are set at once: many changes of one
/// object add to the log, not to the table.
pub const PENDING_TIMES_LOG_MAX: u64 = 1 << 20;

/// A target makes a durable point at least this often while ops arrive.
pub const DURABLE_INTERVAL: Duration = Duration::from_secs(2);

/// Heartbeat interval, and how many may be missed before a connection counts as lost.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(3);
pub const HEARTBEATS_MISSED: u32 = 3;

/// How long an orderly stop drains the queue before it gives up waiting.
pub const STOP_DRAIN: Duration = Duration::from_secs(30);

/// An op that the target cannot perform is tried again after this long, doubling up to the maximum.
pub const APPLY_RETRY_MIN: Duration = Duration::from_millis(100);
pub const APPLY_RETRY_MAX: Duration = Duration::from_secs(5);

/// Descriptors of objects that the source keeps open at once (`O_PATH`), below a hard
/// limit of open files that can be as low as 20,000.
pub const SOURCE_DESCRIPTORS: usize = 4096;

/// Descriptors of objects that a target keeps open at once.
pub const TARGET_DESCRIPTORS: usize = 512;

/// How long the kernel may cache names and attributes: all changes come through the mount.
pub const KERNEL_CACHE_TTL: Duration = Duration::from_secs(86_400);

const _: () = assert!(PAYLOAD_LEN_MAX >= FUSE_WRITE_LEN_MAX as usize);
const _: () = assert!(PAYLOAD_LEN_MAX >= XATTR_VALUE_LEN_MAX);
const _: () = assert!(PAYLOAD_LEN_MAX >= CONTENT_CHUNK);
const _: () = assert!(CONTROL_LEN_MAX > 2 * 16 * LISTING_ENTRIES_MAX);
const _: () = assert!(LISTING_LEN_CUT + 2 * XATTR_LIST_LEN_MAX < HEADER_LEN_MAX);
const _: () = assert!(QUEUE_MEMORY >= QUEUE_MEMORY_MIN);
