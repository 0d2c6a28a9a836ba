//! Bounds of a comparison of a replica with its source.

use super::*;

/// Listings that a comparison has sent and that the target has not answered.
pub const CHECK_LISTINGS_IN_FLIGHT: usize = 64;

/// The same of what was put off, where each answer waits for all that is queued: listings, and the entries in them
/// (200 bytes each).
pub const CHECK_LISTINGS_LATE: usize = 192;
pub const CHECK_ENTRIES_LATE: usize = 32 * LISTING_ENTRIES_MAX;

/// And hashes: of 2 GiB of files that are written without rest, of 8 GiB of others.
pub const HASHES_LATE: usize = 8192;

/// Hashes that are taken at a time of a file that changes while it is read: for the last of several looks its writers
/// are held up, which is 256 KiB from memory.
pub const HASHES_OF_BUSY: usize = 4;

/// Answers of a target that its comparison has not taken up yet: one to each of these, and doubts beside them.
pub const CHECK_ANSWERS_MAX: usize = 2 * HASHES_LATE;

/// What a comparison puts off at most, in objects (300 bytes each); what is more waits at its place.
pub const CHECKED_LATER_MAX: usize = 16_384;

/// Objects whose last change is known by its packet, twice as many at most: 6 MiB.
pub const RECENT_CHANGES_MAX: usize = 100_000;

/// Lane items of a comparison that wait for the link, and their bytes, listed entries at so many: what waits for one
/// packet waits together.
pub const STAMPED_CHECKS_MAX: usize = HASHES_LATE + 1024;
pub const STAMPED_CHECK_BYTES_MAX: usize = 16 << 20;
pub const LISTED_COST: usize = 200;

/// Differences of one comparison that are named, and their bytes; the others are counted. A person reads
/// no more, and what is repaired after more than that is repaired as a whole.
pub const DIFFERENCES_NAMED_MAX: usize = 16_384;
pub const DIFFERENCES_LEN_MAX: usize = 2 << 20;

/// Those that wait at the target to be sent, in bytes, those that go with one answer, and with every how
/// many answers to hashes some go: with all answers under way they are less than [`CONTROL_OUT_BYTES_MAX`].
/// At the end they go in messages of the same size.
pub const DIFFERENCES_WAITING_MAX: usize = 256 << 10;
pub const DIFFERENCES_LEN_CUT: usize = 4 << 10;
pub const DIFFERENCES_PER_HASHES: u64 = 64;

/// What an answer to hashes, and what a wanted object in one to a listing takes.
const HASHED_LEN: usize = 24;
const WANTED_LEN: usize = 16;

const _: () = assert!(
    (DIFFERENCES_LEN_CUT + PATH_LEN_MAX)
        * (HASHES_LATE / DIFFERENCES_PER_HASHES as usize + CHECK_LISTINGS_LATE)
        + HASHES_LATE * HASHED_LEN
        + CHECK_ENTRIES_LATE * WANTED_LEN
        + DIFFERENCES_WAITING_MAX
        <= CONTROL_OUT_BYTES_MAX
);
const _: () = assert!(HASHES_LATE + CHECK_LISTINGS_LATE < CHECK_ANSWERS_MAX);
const _: () = assert!(HASHES_IN_FLIGHT <= HASHES_LATE && CHECK_LISTINGS_IN_FLIGHT <= CHECK_LISTINGS_LATE);
const _: () = assert!(HASHES_OF_BUSY <= HASHES_OF_CHECK);

/// A hole of so many bytes is told as one: a comparison waits for the answer, which costs as much as the hashes of a
/// shorter one.
pub const HOLE_LEAST: u64 = 64 * HASHES_MAX as u64 * HASH_BLOCK;
