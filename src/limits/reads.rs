//! Bounds of what is read of a file at once.

use super::*;

/// A long file is read in stretches that begin and end at multiples of so many bytes: as large as a page of the page
/// cache gets. One of which a part is read goes from memory with all of it, and the rest is read from the disk again:
/// of 1 GiB in pieces of 256 KiB 1.34 GiB, of 64 KiB 1.58 GiB, where the kernel reads 8 MiB ahead.
pub const READ_AHEAD: u64 = 2 << 20;
const _: () = assert!(READ_AHEAD > CONTENT_CHUNK as u64);

/// Bytes that are read at once to be hashed: see [`READ_AHEAD`].
pub const HASHED_AT_ONCE: u64 = HASHES_OF_CHECK as u64 * HASH_BLOCK;
