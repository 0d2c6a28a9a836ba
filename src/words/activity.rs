//! Whether it is noted whose content is being changed.

use std::fmt;

use clap::ValueEnum;

/// What a power loss of the source's host costs, and what that costs before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ActivityLogging {
    /// The first change of a file's content waits for a note on disk; after a power loss the content of these files
    /// alone is compared
    Strict,
    /// Nothing is noted: after a power loss all content is compared
    #[default]
    Lazy,
}

impl fmt::Display for ActivityLogging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ActivityLogging::Strict => "strict",
            ActivityLogging::Lazy => "lazy",
        })
    }
}
