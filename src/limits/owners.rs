//! Bounds of owners that are told by name.

/// Bytes of a name of a user or a group: as the kernel's headers have it.
pub const OWNER_NAME_LEN_MAX: usize = 256;

/// Names in one frame: 64 KiB of the longest.
pub const OWNER_NAMES_AT_ONCE: usize = 250;

/// Users, and groups, that one connection tells by name, 16 bytes each; what is more goes by number.
pub const OWNER_NAMES_MAX: usize = 100_000;
