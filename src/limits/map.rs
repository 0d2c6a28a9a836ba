//! Of what is marked as changed.

/// What one bit of the map tells apart in a file, in bytes: a database page changed is a block sent, and a
/// terabyte of changes are 2 MiB of bits.
pub const MAP_REGION: u64 = if cfg!(test) { 1 << 9 } else { 64 << 10 };

/// A generation of the map, in bytes: 131,072 slots, each for an object or for 4 MiB of a file that have
/// changed since a target was last up to date.
pub const MAP_SIZE: usize = if cfg!(test) { 1 << 16 } else { 8 << 20 };

/// The least and the most of it: 1,024 slots, and what makes a generation cost a moment to begin.
pub const MAP_SIZE_MIN: usize = 64 << 10;
pub const MAP_SIZE_MAX: usize = 1 << 30;

/// Generations that can be kept for the next daemon: one for each target that is away, and those of daemons that
/// were killed before every target was in line again. Where there are as many, the last one goes on.
pub const MAP_GENERATIONS_MAX: usize = 32;

/// Of those, what is left of daemons before: more of them, and what they have marked is found by change times.
pub const MAP_LEFT_MAX: usize = 16;

/// A change of more chunks (of 64 regions: 4 GiB) marks the file from there on: nobody waits for a loop.
pub const MAP_RANGE_CHUNKS_MAX: u64 = 1024;
