//! Every bound of the product, with its reason and, for a number, how it was found.

use std::time::Duration;

mod activity;
mod comparison;
mod configuration;
mod descriptors;
mod disk_queue;
mod holder;
mod map;
mod orphans;
mod owners;
mod questions;
mod reads;
mod roles;
mod upgrade;
pub use activity::*;
pub use comparison::*;
pub use configuration::*;
pub use descriptors::*;
pub use disk_queue::*;
pub use holder::*;
pub use map::*;
pub use orphans::*;
pub use owners::*;
pub use questions::*;
pub use reads::*;
pub use roles::*;
pub use upgrade::*;

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

/// Longest message on the control stream, in bytes: the answer to a listing in which every file
/// is wanted, four times over.
pub const CONTROL_LEN_MAX: usize = 64 * 1024;

/// Largest write request taken from the kernel, in bytes. Larger requests measured no gain.
pub const FUSE_WRITE_LEN_MAX: u32 = 1 << 20;

/// Moments of the source that a target remembers until it has their positions: two a second, those of two hours.
/// Of a longer lag every second one is enough, and so on: 800 KiB.
pub const MOMENTS_MAX: usize = if cfg!(test) { 256 } else { 1 << 14 };

/// A copy of what changed is begun so often before one of everything is: a connection may be lost some times.
pub const MINICOPY_ATTEMPTS_MAX: u32 = 8;

/// What is found by change times after a start: so many objects, else a copy of everything, which needs no list
/// of them.
pub const BY_TIME_OBJECTS_MAX: usize = 1 << 18;

/// Directories that such a search has been in, at least 9 bytes each.
pub const BY_TIME_DIRECTORIES_MAX: usize = 4 << 20;

/// How often what programs have moved meanwhile is searched. Each time what was moved within a shorter one:
/// whoever is not done by then is moved faster than it is read.
pub const BY_TIME_ROUNDS_MAX: u32 = 64;

/// How far the kernel reads ahead on a mount, at least, in KiB. Of 128 (the kernel's own), 256, 512,
/// 1024, 2048: 1.8, 2.5, 2.3, 2.5, 2.7 GB/s from a disk image in memory; a page fault of a mapping reads
/// so much too, wherever it is.
pub const READ_AHEAD_KIB: u64 = 256;

/// Directories up to this size, in bytes, are listed by the kernel from its memory: some hundred names,
/// which it has read with their attributes at once. Of larger ones it reads most names alone, and would
/// ask for the attributes of each when it lists them again.
pub const KEPT_LISTING_SIZE_MAX: u64 = 16 << 10;

/// Entries in one listing item of a directory. Bounds the header to well under
/// [`HEADER_LEN_MAX`] for ordinary objects; the encoder also cuts by bytes.
pub const LISTING_ENTRIES_MAX: usize = 1024;

/// Names of one directory that a target keeps in memory while it is listed; further ones go to disk.
pub const LISTED_NAMES_IN_MEMORY: usize = 65_536;

/// What a target keeps in memory of a copy: inodes and the ids that they stand for, and files whose
/// content it has asked for; further ones go to disk. 4 and 1 MiB: seven eighths of a power of two
/// is what a table takes before it doubles. Sources that wait for nothing have at most
/// [`LISTINGS_IN_FLIGHT`] listings of files asked for, and those with several names.
pub const CLAIMS_IN_MEMORY: usize = 7 << 14;
pub const ASKED_IN_MEMORY: usize = 7 << 12;

/// Files with several names whose names a restoration counts in memory, 4 MiB; further ones go to disk.
pub const LINK_COUNTS_IN_MEMORY: usize = 7 << 14;

/// Directories that a target remembers of a copy in memory, 1 MiB; further ones go to disk.
pub const DIRECTORIES_IN_MEMORY: usize = 7 << 12;

/// How often a target asks for everything once more, at the end of one copy, because content has not
/// come that it waits for. No honest source needs it once.
pub const LISTED_AGAIN_MAX: u32 = 3;

/// Directories that a copy has moved, kept in memory where the set has rules; with more of them what the rules
/// leave out is moved aside everywhere. 3 MiB.
pub const MOVED_DIRECTORIES_MAX: usize = 50_000;

/// Bytes of the paths at which they were; of one whose path is not kept what the rules leave out is moved aside.
pub const MOVED_PATHS_MAX: usize = 4 << 20;
/// Objects below a directory that leaves a set, kept in memory while the index is read for their ids: 3 MiB.
pub const LEAVING_IN_MEMORY: usize = 65_536;
/// Objects that a source has told of before they get a name in its set, directories in limbo that were looked at, and
/// directories that came into the set and wait for their listing: of more than these nothing is remembered, and more
/// is looked at again, or asked for. 3 MiB.
pub const STAGED_KNOWN_MAX: usize = 16_384;
pub const BATCHES_KNOWN_MAX: usize = 16_384;
pub const CAME_IN_MAX: usize = 16_384;
/// Rules of a set: each is tried for each name, on the source in the path of every change.
pub const SET_RULES_MAX: usize = 256;
/// Bytes of the pattern of a rule.
pub const SET_PATTERN_LEN_MAX: usize = 1024;
/// A file that comes into a set by a rename or a link, and has more bytes, is copied afterwards, and the replica
/// is bad until then; the others go ahead of their name, while the call waits.
pub const STAGED_LEN_MAX: u64 = 64 << 20;

/// Bytes after which a listing item is cut.
pub const LISTING_LEN_CUT: usize = 256 * 1024;

/// Listings that a copy has sent and that the target has not answered: hides the round trip, and
/// bounds the files that wait to be asked for (each listing has at most [`LISTING_ENTRIES_MAX`]).
pub const LISTINGS_IN_FLIGHT: usize = 8;

/// The same of a copy that runs while applications write: listings of small directories, and entries
/// (files whose content may be asked for, and directories) in all of them. What the target makes for them it
/// still has open when the content comes ([`COPY_DESCRIPTORS`]).
pub const LIVE_LISTINGS_IN_FLIGHT: usize = 256;
pub const LIVE_ENTRIES_IN_FLIGHT: usize = 2 * LISTING_ENTRIES_MAX;

/// Directories that a target doubts and that wait to be listed again: 8 MiB. One that doubts more
/// of them at a time is better off with a new copy.
pub const DOUBTS_WAITING_MAX: usize = 1 << 18;

/// Answers of a target that its copy has not taken up yet: two to a listing, one to hashes, and doubts
/// beside them.
pub const LIVE_ANSWERS_MAX: usize = 8 * LIVE_LISTINGS_IN_FLIGHT;

/// Extended attributes of one object, names and values in bytes, that travel with its listing or
/// its content; above it each attribute is an item of its own, and memory holds one at a time. An
/// object may have thousands of 64 KiB. Only a few in a million objects have more than a disk block
/// of them.
pub const XATTRS_INLINE_MAX: usize = 16 << 10;

/// Objects that a copy has left out and that are named, with their reasons; the others are counted.
/// They travel in one control message ([`CONTROL_LEN_MAX`], 1,024 bytes each).
pub const LEFT_OUT_NAMED_MAX: usize = 16;

/// Content of a file travels in pieces of this many bytes in the lane: small enough that packets,
/// which share the stream, never wait long behind one.
pub const CONTENT_CHUNK: usize = 256 << 10;

/// Content is compared in blocks of so many bytes; in unit tests of so few that small files have several.
pub const HASH_BLOCK: u64 = if cfg!(test) { 1 << 9 } else { 64 << 10 };

/// Hashes of blocks in one item, and what a comparison takes of them at a time: while a target reads what
/// they are of, a packet behind them waits, as behind four pieces of content.
pub const HASHES_MAX: usize = 64;
pub const HASHES_OF_CHECK: usize = 16;

/// Hashes that a comparison has sent and that the target has not answered, in items and in bytes of
/// content: both sides read meanwhile, and a packet waits for the target's reading at most. Of small files
/// so many go while a target that is a second behind answers (of 128 a second 128 files were compared).
pub const HASHES_IN_FLIGHT: usize = 768;
pub const HASHED_BYTES_IN_FLIGHT: u64 = 8 << 20;

/// How large a tree is, is counted beside a copy that has run so long: a shorter one is over sooner.
pub const COUNTED_FROM: Duration = Duration::from_secs(1);

/// Directories that wait to be counted: with their handles 20 MiB at most. Where there are more, the count says
/// "at least" to the end.
pub const COUNTED_WAITING_MAX: usize = 100_000;

/// What a file costs a copy beside its content, as bytes of it: for what is shown alone.
pub const FILE_WEIGHT: u64 = 16 << 10;

/// Files of a copy whose blocks are compared at a time: as many as hashes are under way. A target keeps
/// the inode of each.
pub const COMPARED_FILES_MAX: usize = HASHES_IN_FLIGHT;

/// A copy by differences compares the blocks of wanted files that are at least so many bytes long on both
/// sides: of shorter ones the content is sent sooner than it is asked for.
pub const BY_BLOCKS_FROM: u64 = 1 << 20;

/// Memory level of the queue, in bytes: as in the product whose queue this follows.
pub const QUEUE_MEMORY: usize = 128 << 20;

/// Least room of a queue that can be configured, in bytes.
pub const QUEUE_MEMORY_MIN: usize = 32 << 20;

/// What one packet costs in the queue beside its header and the buffer of its payload, in bytes.
pub const QUEUE_PACKET_COST: usize = 448;

/// The queue notes this often when a packet was queued, for what is applied and not durable yet:
/// the durable lag is stated to within it.
pub const QUEUE_MARK_EVERY: Duration = Duration::from_millis(10);

/// Notes of that kind; above it they become coarser, by a thousandth of the oldest age.
pub const QUEUE_MARKS_MAX: usize = 4096;

/// Once the queue has held so many bytes and is nearly empty again, freed memory goes back to the
/// system: 40 to 110 MiB stayed with a daemon at rest.
pub const BACKLOG_GIVEN_BACK: u64 = 16 << 20;

/// Bytes of free payload buffers that the pool keeps for reuse. Fresh memory costs
/// 0.58 s/GiB in page faults, more than the write itself.
pub const POOL_FREE_MAX: usize = 16 << 20;

/// As [`POOL_FREE_MAX`], for what a target receives: the sources choose how much of it is used, and
/// a buffer that is applied is the next to be filled.
pub const RECEIVE_POOL_FREE_MAX: usize = 4 << 20;

/// Bytes received and not yet applied on a target: receiving runs ahead of applying by this much.
/// With [`STREAM_WINDOW`] and [`RECEIVE_POOL_FREE_MAX`] half of the 64 MiB that a peer may cost:
/// the heap keeps as much again when sizes change.
pub const RECEIVE_WINDOW: usize = 12 << 20;

/// Writes of whole pages, at least this many bytes, leave nothing in the target's page cache.
/// Shorter ones are often followed by others nearby. In a virtual machine whose free memory goes
/// back to the host, 1 GiB into fresh page cache took 1.3 to 2.4 s, this way .5 s.
pub const UNCACHED_WRITE_MIN: usize = 128 << 10;

/// After this much rest the target sets the times that are still pending.
pub const PENDING_TIMES_REST: Duration = Duration::from_millis(100);

/// Objects with pending times before they are set at once, so that the table stays small.
pub const PENDING_TIMES_MAX: usize = 16_384;

/// Bytes of the log of pending times after which they are set at once: many changes of one
/// object add to the log, not to the table.
pub const PENDING_TIMES_LOG_MAX: u64 = 1 << 20;

/// What has come into a set lately, with content that a copy brings: so many does a copy under way bring along,
/// and what else comes asks for another one.
pub const ARRIVALS_MAX: usize = 4096;

/// Files that a copy has not completed, in memory and in a log: 2 MiB of memory, then in an index. In unit tests few, so
/// that many a copy has more.
pub const INCOMPLETE_IN_MEMORY: usize = if cfg!(test) { 6 } else { 32_768 };

/// Bytes of that log after which it is written anew, where most of it counts no more.
pub const INCOMPLETE_LOG_MAX: u64 = if cfg!(test) { 512 } else { 4 << 20 };

/// A file of at most so many bytes is filled on a thread beside what a copy does next: longer ones are better written as
/// they come.
pub const BESIDE_BYTES_MAX: usize = 64 << 10;

/// Files that wait for it; their bytes are 16 MiB at most.
pub const BESIDE_FILES_MAX: usize = if cfg!(test) { 5 } else { 256 };

/// Files that are filled in their place after a packet, before any is filled beside: before a packet all are waited for.
pub const BESIDE_AFTER: u32 = if cfg!(test) { 1 } else { 32 };

/// Files that are handed over at once: to wake the thread for each costs as much as what it does.
pub const BESIDE_BATCH: usize = if cfg!(test) { 2 } else { 16 };

/// Bytes of files that were copied, after which a sync begins that has to come before their mtimes are set.
pub const UNSETTLED_BYTES_MAX: u64 = 1 << 29;

/// Levels that a target goes up at a time from a directory whose path is longer than the kernel
/// tells: a power of two, and `../` for each has to be shorter than `PATH_MAX`.
pub const CLIMB_LEVELS: usize = 256;

/// For so long a target takes the paths of a replica and its limbo for what they were.
pub const GROUNDS_FRESH: Duration = Duration::from_millis(10);

/// Names that a target remembers of objects with such paths: at most 5 MiB.
pub const SEEN_NAMES_MAX: usize = 16_384;

/// Frames that came together for which a directory is asked once where it lies: two calls of the
/// kernel less for each of many names in it.
pub const PLACED_FRAMES_MAX: u32 = 64;

/// Bytes that a target keeps for the op that it performs, with its payload; a longer record (many
/// large extended attributes) takes what it needs.
pub const BEGUN_ROOM: u64 = PAYLOAD_LEN_MAX as u64 + (64 << 10);

/// Deletions are asked about of a replica with more files than this, by their names: a few files are quickly
/// more than half of them, and quickly brought back.
pub const DELETE_GUARD_FILES_MIN: u64 = 1000;

/// Deletions count together for so long.
pub const DELETE_GUARD_WINDOW: Duration = Duration::from_secs(60);

/// Names made within that time that are known by the ids of their objects, some 100 bytes each: of those
/// beyond, a temporary one that goes again counts as a deletion.
pub const DELETE_GUARD_BORN_MAX: usize = 100_000;

/// Runs of a source that its record names, 20 bytes each: a replica that is of an older one counts as set
/// back.
pub const RUNS_KEPT: usize = 256;

/// How often a target looks after replicas that no source works on.
pub const REST_INTERVAL: Duration = Duration::from_secs(2);

/// How long a target daemon may take to let go of a replica that somebody wants to stand in with: some
/// [`REST_INTERVAL`]s, and a sync of a slow disk.
pub const REPLICA_LET_GO_PATIENCE: Duration = Duration::from_secs(20);

/// How often it is tried meanwhile: an open that fails costs next to nothing.
pub const REPLICA_LET_GO_POLL: Duration = Duration::from_millis(100);

/// How often a target looks whether a replica that its source works on is still there, as nobody can
/// be kept from removing it.
pub const PRESENCE_INTERVAL: Duration = Duration::from_secs(10);

/// For how many objects it looks then: it holds up what comes meanwhile, by a seek for each that the kernel
/// does not remember.
pub const PRESENCE_LOOKS_RUNNING: usize = 8;

/// For how many when a source comes: of a replica that lacks one object in twenty this says so 96
/// times in 100.
pub const PRESENCE_LOOKS: usize = 64;

/// A target makes a durable point at least this often while ops arrive.
pub const DURABLE_INTERVAL: Duration = Duration::from_secs(2);

/// Heartbeat interval, and how many may be missed before a connection counts as lost.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(3);
pub const HEARTBEATS_MISSED: u32 = 3;

/// Shortest and longest heartbeat interval that a source may ask for.
pub const HEARTBEAT_INTERVAL_MIN: Duration = Duration::from_millis(10);
pub const HEARTBEAT_INTERVAL_MAX: Duration = Duration::from_secs(60);

/// A connection attempt that is not through after this long has failed; a listener drops a
/// peer that takes longer.
pub const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);

/// A look-up of a target's address that is not through after this long has failed: twice what a
/// resolver takes by itself (two attempts at each of three servers, 5 s each, resolv.conf(5)).
pub const LOOKUP_TIME_MAX: Duration = Duration::from_secs(60);

/// How long the end of a connection waits for the last control messages to arrive.
pub const CLOSE_FLUSH: Duration = Duration::from_secs(2);

/// Handshakes under way at a listener. Above the first number a peer must prove its address
/// first (a retry costs it a round trip and us no memory), above the second it is refused.
pub const HANDSHAKES_UNPROVEN: usize = 16;
pub const HANDSHAKES_MAX: usize = 64;

/// Of them, those from one address that has been proven (of IPv6: one network of 64 bits): one
/// host that begins handshakes and ends none does not keep the others out. Many sources behind one
/// address are usual, too.
pub const HANDSHAKES_PER_ADDRESS_MAX: usize = 48;

/// Connections to one listener at a time, and those of one key among them: one source cannot take
/// the room of all others. Each may hold [`RECEIVE_WINDOW`] and [`STREAM_WINDOW`] once it is welcomed
/// to a replica, which one connection at a time is, and next to nothing before.
pub const LINKS_MAX: usize = 64;
pub const LINKS_PER_KEY_MAX: usize = 32;

/// Bytes of a stream under way: sent and not yet read by the peer's link thread. 1 Gbit/s at
/// a round trip of 130 ms; memory for it is used only while the network needs it.
pub const STREAM_WINDOW: u32 = 16 << 20;

/// Least send window, in bytes: measured, smaller ones cost throughput on any path.
pub const SEND_WINDOW_MIN: u64 = 2 << 20;

/// Bytes that may be sent before the first acknowledgement. More than ten jumbo datagrams
/// (after which the peer acknowledges at once), so that a burst after rest never waits.
pub const INITIAL_WINDOW: u64 = 128 * 1024;

/// Least limit of a connection, bytes a second: ten datagrams, of which heartbeats have one, and a handshake takes
/// half a second.
pub const LIMIT_RATE_MIN: u64 = 16 << 10;

/// Rules of a limit: each minute of a week is looked at by all of them when the next change is shown.
pub const LIMIT_RULES_MAX: usize = 32;

/// Least bytes of frames that are taken at once, and that are under way, where a limit makes that little: a
/// block, and what the network takes in a round trip of half a second at the least rate.
pub const LIMITED_BATCH_MIN: usize = 16 << 10;
pub const LIMITED_WINDOW_MIN: u64 = 64 << 10;

/// Bytes of frames that are taken from the feed at once.
pub const FEED_BATCH: usize = 512 * 1024;

/// The same of a link within one process: they are performed before more is taken, and what is queued
/// meanwhile goes with the next ones.
pub const DIRECT_BATCH: usize = 256 * 1024;

/// Messages that wait at one end of such a link; as [`CONTROL_OUT_BYTES_MAX`].
pub const DIRECT_MESSAGES_MAX: usize = 30_000;

/// After frames a link looks for more by itself in so long, and is woken only for what comes after a
/// rest: to wake a thread costs whoever writes as much as his packet does. A lone append never waits
/// for it, one right behind another at most so long.
pub const FRAMES_TOGETHER: Duration = Duration::from_millis(1);

/// Largest UDP payload: Ethernet jumbo frames (9,000) less IPv6 and UDP headers.
pub const UDP_PAYLOAD_MAX: u16 = 8952;

/// Bytes that the kernel takes in one segmented send; above it, it answers EMSGSIZE.
pub const UDP_SEND_MAX: usize = 65_507;

/// Socket buffers, in bytes: a burst of one round trip while the link thread is not scheduled.
pub const SOCKET_BUFFER: usize = 4 << 20;

/// Bytes of control messages that wait to be sent; a peer that lets more pile up has stopped
/// reading. 120,000 acknowledgements, or all answers of a comparison.
pub const CONTROL_OUT_BYTES_MAX: usize = 4 << 20;

/// Control messages received and not yet taken, and their bytes; above either the control stream
/// is not read.
pub const CONTROL_IN_MAX: usize = 256;
pub const CONTROL_IN_BYTES_MAX: usize = 1 << 20;

/// Bytes of a connection that the peer may send unasked: all that a listener holds for a peer
/// that has not been welcomed, and for control and heartbeats ever. Above [`CONTROL_LEN_MAX`].
pub const STRANGER_WINDOW: u32 = 128 << 10;

/// What a received frame costs beside its header and payload, in bytes.
pub const FRAME_COST: usize = 512;

/// Memory of a decoded header for each of its bytes: a list of the smallest extended attributes
/// (17 bytes each on the wire, 80 to 112 in memory) is the worst case.
pub const HEADER_COST: usize = 7;

/// Threads that wait for room in the queue in place of writers: one would do for the order, a few
/// keep a slow disk from holding up the others.
pub const PARKING_WORKERS: usize = 8;

/// Bytes of writes that wait for room in the queue: 256 of the largest, tens of thousands of those
/// that databases make. And those of one user other than root: four such users fit beside each
/// other. Beyond it a write is taken up to its next page only, which the caller sees as a short
/// write.
pub const PARKED_BYTES_MAX: usize = 256 << 20;
pub const PARKED_BYTES_PER_USER: usize = 64 << 20;

/// How long an orderly stop drains the queue before it gives up waiting.
pub const STOP_DRAIN: Duration = Duration::from_secs(30);

/// An op that the target cannot perform is tried again after this long, doubling up to the maximum.
pub const APPLY_RETRY_MIN: Duration = Duration::from_millis(100);
pub const APPLY_RETRY_MAX: Duration = Duration::from_secs(5);

/// A fault of one object that lasts this long sets it aside: a lease is broken, a backup is over,
/// somebody puts back what was moved. Long enough for a person to notice nothing, short enough that
/// no queue fills.
pub const SET_ASIDE_AFTER: Duration = Duration::from_secs(30);

/// The same for a replica that is bad by an object that was set aside before: there is less to lose,
/// and many of a kind often follow.
pub const SET_ASIDE_NEXT_AFTER: Duration = Duration::from_secs(1);

/// Objects that are listed by name when they are set aside; further ones are counted. Rewritten with
/// each of them, and sent to a source that connects.
pub const ASIDE_LISTED_MAX: usize = 100;

/// Directories of a copy whose kept orphans are counted each: one of more than these that is listed twice counts
/// twice.
pub const KEPT_DIRECTORIES_MAX: usize = 10_000;

/// Orphans that a daemon names in one answer; all are counted. With the longest paths they come to half of
/// what an answer may be long.
pub const ORPHANS_LISTED_MAX: usize = 200;

/// Days for which targets keep what was removed on the source, at most: ten years.
pub const KEEP_DAYS_MAX: u16 = 3650;

/// How long a target removes what it has kept for as long as was asked, before it looks at the stream again;
/// every [`PRESENCE_INTERVAL`].
pub const OVERDUE_BURST: Duration = Duration::from_millis(100);

/// Directories of one directory that are remembered while it is emptied; then it is read once more. 256 KiB of
/// the longest names for each level, and one reading for a thousand removals.
pub const EMPTIED_AT_ONCE_MAX: usize = 1_000;

/// Bytes that are read of what a copy noted of one batch that it moved aside: 100,000 names.
pub const NOTED_LEN_MAX: u64 = 16 << 20;

const _: () = assert!(ORPHANS_LISTED_MAX * 2 * 4096 <= CONTROL_RESPONSE_LEN_MAX / 2);

/// Files that a full target has emptied and not seen removed yet. Kept in memory, 32 bytes each at
/// most; with one block each they were 1 GiB, far more than what the op that waits needs.
pub const RELIEVED_MAX: usize = 1 << 18;

/// Those of them that a killed target still knows: the slot of its position has room for so many.
/// Where there were more, it compares everything.
pub const RELIEVED_NAMED_MAX: usize = 16;

/// How long a full target is left alone, while its copy is good and the queue not half full: somebody
/// may make room. Emptied files are missed by whoever opens the copy meanwhile: a database on it does
/// not start without a log that its source has recycled since.
pub const RELIEF_AFTER: Duration = Duration::from_secs(8);

/// Objects in one message about what makes room, well below [`CONTROL_LEN_MAX`]; and those that are
/// looked for at once: while the target is full, the next ones follow, and in the end all again.
pub const RELIEF_OBJECTS_MAX: usize = 2048;
pub const RELIEF_FOUND_MAX: usize = 16_384;

/// A copy that lasted so long before it failed is begun again soon; one that fails sooner, at the pace
/// of attempts.
pub const RESYNC_PROVEN: Duration = Duration::from_secs(60);

/// A target that follows the stream and lacks objects is brought into line by a copy after so long; each
/// further one twice as late as the one before, up to a bound: each looks at every file.
pub const HEAL_AFTER: Duration = Duration::from_secs(30);
pub const HEAL_AFTER_MAX: Duration = Duration::from_secs(3600);

/// At most once in so much time, also where a copy takes none; else so many times as long lies between two as one takes.
pub const HEAL_EVERY: Duration = Duration::from_secs(300);
pub const HEAL_SHARE: u32 = 100;

/// Directories in one message of doubts, well below [`CONTROL_LEN_MAX`].
pub const DOUBTS_MAX: usize = 2048;

/// Files that one item of a copy of what is owed calls: 32 KiB of ids, and its answer fits into a message.
pub const OWED_CALLED_MAX: usize = 2048;

/// Objects that packets come to, and that are not there, while a part is copied: with more, everything is looked at.
pub const MISSED_MAX: usize = 1024;

/// Such items that wait for their answers: a million files are called before any packet. Their answers are
/// heard one by one, and together with those of listings and hashes never come to [`LIVE_ANSWERS_MAX`].
pub const OWED_CALLS_IN_FLIGHT: usize = 512;

/// How long the kernel may cache names and attributes: all changes come through the mount.
pub const KERNEL_CACHE_TTL: Duration = Duration::from_secs(86_400);

/// Callers that a daemon's control socket serves at once: far above what people and a
/// monitoring system need, and a bound on its threads.
pub const CONTROL_CALLERS_MAX: usize = 32;

/// Longest request on the control socket, in bytes.
pub const CONTROL_REQUEST_LEN_MAX: usize = 16 * 1024;

/// Longest response on the control socket, in bytes: a status with thousands of alerts.
pub const CONTROL_RESPONSE_LEN_MAX: usize = 4 << 20;

/// What may wait for a daemon's director: of each caller at most two, beside a signal and the
/// director's own work.
pub const DIRECTOR_EVENTS_MAX: usize = 2 * CONTROL_CALLERS_MAX + 8;

/// A caller of the control socket that says nothing for this long is hung up on.
pub const CONTROL_IDLE: Duration = Duration::from_secs(60);

/// How long a command waits for a daemon's answer to what needs no waiting.
pub const CONTROL_ANSWER: Duration = Duration::from_secs(5);

/// How long the sizes of files are looked at that a copy would bring, before it is said by their marks alone how much that is at
/// most: a look takes 2 µs where the inode is in memory, and some milliseconds where a disk turns.
pub const WEIGHED_MAX: Duration = Duration::from_secs(5);

/// The same, beside such a copy: what is owed is in memory twice for so long.
pub const EXPECTED_MAX: Duration = Duration::from_millis(500);

/// A target further behind than this is a warning for monitoring systems.
pub const LAG_WARNING: Duration = Duration::from_secs(60);

/// How long a question about a mount may take before the mount counts as hung.
pub const MOUNT_PROBE: Duration = Duration::from_secs(3);

const _: () = assert!(PAYLOAD_LEN_MAX >= FUSE_WRITE_LEN_MAX as usize);
const _: () = assert!(PAYLOAD_LEN_MAX >= XATTR_VALUE_LEN_MAX);
const _: () = assert!(PAYLOAD_LEN_MAX >= CONTENT_CHUNK);
const _: () = assert!(CONTROL_LEN_MAX > 2 * 16 * LISTING_ENTRIES_MAX);
const _: () = assert!(ASKED_IN_MEMORY >= LISTINGS_IN_FLIGHT * LISTING_ENTRIES_MAX);
const _: () = assert!(CONTROL_LEN_MAX >= 24 * RELIEF_OBJECTS_MAX);
const _: () = assert!(CONTROL_LEN_MAX >= 24 * DOUBTS_MAX);
const _: () = assert!(HASHES_MAX <= u64::BITS as usize && HASHES_OF_CHECK <= HASHES_MAX);
const _: () = assert!(CONTROL_LEN_MAX >= DIFFERENCES_LEN_CUT + 2 * PATH_LEN_MAX);
const _: () = assert!(HASHES_IN_FLIGHT + 2 * LIVE_LISTINGS_IN_FLIGHT < LIVE_ANSWERS_MAX);
const _: () = assert!(OWED_CALLS_IN_FLIGHT + 3 * LIVE_LISTINGS_IN_FLIGHT < LIVE_ANSWERS_MAX);
// A copy of what is owed has hashes under way, too.
const _: () =
    assert!(OWED_CALLS_IN_FLIGHT + HASHES_IN_FLIGHT + 2 * LIVE_LISTINGS_IN_FLIGHT < LIVE_ANSWERS_MAX);
const _: () = assert!(CONTROL_LEN_MAX >= 24 * OWED_CALLED_MAX);
const _: () = assert!(
    LISTING_LEN_CUT + XATTRS_INLINE_MAX + 2 * SYMLINK_LEN_MAX + LISTING_ENTRIES_MAX * (NAME_LEN_MAX + 8)
        < HEADER_LEN_MAX
);
const _: () = assert!(16 * XATTR_LIST_LEN_MAX / 3 < HEADER_LEN_MAX);
const _: () = assert!(LEFT_OUT_NAMED_MAX * 1040 < CONTROL_LEN_MAX);
const _: () = assert!(RECEIVE_WINDOW >= HEADER_COST * HEADER_LEN_MAX + PAYLOAD_LEN_MAX + FRAME_COST);
const _: () = assert!(STRANGER_WINDOW as usize > CONTROL_LEN_MAX);
const _: () = assert!(INITIAL_WINDOW > 11 * UDP_PAYLOAD_MAX as u64);
const _: () = assert!(QUEUE_MEMORY >= QUEUE_MEMORY_MIN);
const _: () = assert!(CLIMB_LEVELS.is_power_of_two() && 3 * CLIMB_LEVELS < PATH_LEN_MAX);

/// Lane items among packets that wait for the link, and bytes of their payloads; a mirror never fills
/// memory. The link takes 512 KiB at a time ([`FEED_BATCH`]), which are up to 170 small files of three items
/// each; the bytes are half a [`STREAM_WINDOW`]. A batch that is taken may pass both by itself.
pub const STAMPED_ITEMS_MAX: usize = 256;
pub const STAMPED_BYTES_MAX: usize = 8 << 20;

/// While packets and content both wait, one item of content goes behind so many packets.
pub const PACKETS_PER_CONTENT: u32 = 5;
/// Or where they had so many times its bytes; this much is saved up at most.
pub const CONTENT_CREDIT_MAX: usize = 512 << 10;
/// What an item counts for beside its payload, in bytes.
pub const ITEM_COST: usize = 128;

/// A target acknowledges after this much rest, or after this many packets, or this long after the
/// first of them: each acknowledgement is a datagram of its own, and until it comes the source
/// states the packets as lag and holds them (256 packets of 1 MiB are more than its whole queue).
pub const ACKNOWLEDGE_DELAY: Duration = Duration::from_millis(1);
pub const ACKNOWLEDGE_PACKETS: u64 = 256;
pub const ACKNOWLEDGE_LATEST: Duration = Duration::from_millis(20);

/// Waiting time before a lost connection is dialled again: doubles up to the maximum.
pub const RECONNECT_DELAY_MIN: Duration = Duration::from_millis(250);
pub const RECONNECT_DELAY_MAX: Duration = Duration::from_secs(60);

/// The same after a refusal: it takes a person to mend it, and a stranger that asks on is noise.
pub const RECONNECT_REFUSED_MIN: Duration = Duration::from_secs(5);

/// How soon a copy that is held, or goes slower than it could, takes notice of what it is told. A person does
/// not see a twentieth of a second.
pub const COPY_PACE_LOOK: Duration = Duration::from_millis(50);

/// Runs of a source that one first copy may take before everything is sent again: a number in the record of
/// the set for each. Nobody restarts a source so often in one copy, unless it fails at once each time.
pub const FIRST_COPY_RUNS_MAX: usize = 64;

/// How long to wait before attempt number `attempts` + 1 at an op that cannot be performed.
pub fn apply_retry_delay(attempts: u32) -> Duration {
    APPLY_RETRY_MIN.saturating_mul(1 << attempts.saturating_sub(1).min(10)).min(APPLY_RETRY_MAX)
}

/// [`SET_ASIDE_AFTER`], or what `STANDIN_SET_ASIDE_AFTER_MS` says: tests do not wait so long.
pub fn set_aside_after() -> Duration {
    let set = std::env::var("STANDIN_SET_ASIDE_AFTER_MS").ok().and_then(|text| text.parse().ok());
    set.map_or(SET_ASIDE_AFTER, Duration::from_millis)
}

/// How often a source syncs its own disk, to be told of writes that the disk has refused: the kernel
/// writes back after 30 s by itself, so that this adds next to nothing to what is written.
const SOURCE_SYNC_EVERY: Duration = Duration::from_secs(60);

/// `SOURCE_SYNC_EVERY`, or what `STANDIN_SOURCE_SYNC_EVERY_MS` says: tests do not wait so long.
pub fn source_sync_every() -> Duration {
    let set = std::env::var("STANDIN_SOURCE_SYNC_EVERY_MS").ok().and_then(|text| text.parse().ok());
    set.map_or(SOURCE_SYNC_EVERY, Duration::from_millis)
}

/// Connections of one source, as far as they are added while it runs.
pub const CONNECTIONS_MAX: usize = 32;

/// How long `protect` waits for its targets before it gives up.
pub const CONNECT_PATIENCE: Duration = Duration::from_secs(15);

/// How long a target that is connected may take to say what it holds until that is said, and until it is dialled anew. It
/// opens the replica meanwhile, which is not lost with a network connection; many attempts at one that hangs
/// would each leave a thread there.
pub const GREETING_PATIENCE: Duration = Duration::from_secs(10);
pub const GREETING_MAX: Duration = Duration::from_secs(120);
// Whoever gives up waiting for it says why.
const _: () = assert!(GREETING_PATIENCE.as_secs() < CONNECT_PATIENCE.as_secs());

/// UDP port where a target listens unless it says otherwise.
pub const PORT: u16 = 7447;

/// Longest message of the pairing exchange, in bytes: a name, a token's number and a proof.
pub const PAIRING_LEN_MAX: usize = 2048;

/// Pairing attempts that a listener takes in a second, all strangers together: a person makes
/// one, and a guess at a token has one chance in 2^128.
pub const PAIRING_ATTEMPTS_PER_SECOND: u32 = 10;

/// How long an invitation is good unless it says otherwise, and the longest it can be.
pub const INVITATION_TIME: Duration = Duration::from_secs(3600);
pub const INVITATION_TIME_MAX: Duration = Duration::from_secs(7 * 86_400);

/// Invitations that are open or used at a time, and pairings, that a target keeps.
pub const INVITATIONS_MAX: usize = 256;
pub const PAIRINGS_MAX: usize = 1024;
