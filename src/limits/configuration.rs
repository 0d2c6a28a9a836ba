//! Of files of options.

/// Longest file of options, in bytes: four times what as many rules take as a set may have, each as long as it may be.
pub const CONFIGURATION_LEN_MAX: u64 = 1 << 20;
