//! What a copy looks at, and what it sends.

use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::limits::BY_BLOCKS_FROM;

/// How a copy finds what a target lacks. Every rule that differs is a question here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CopyMode {
    /// The content of every file is sent
    Full,
    /// What differs in size, modification time or attributes: the content of files whose size or time
    /// differ is sent, of those of 1 MiB and more only blocks that differ
    #[default]
    Differences,
    /// The same, of files of any size only blocks that differ
    #[value(name = "differences+checksum")]
    DifferencesChecksum,
    /// The content of every file is compared, whatever size and time say: only blocks that differ are sent
    Checksum,
}

/// How blocks are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HashKind {
    /// By hashes against chance.
    #[default]
    Fast,
    /// By hashes that nobody finds two contents for.
    Audit,
}

impl CopyMode {
    /// Size and modification time do not say that a file has the content of the source's.
    pub fn suspects_everything(self) -> bool {
        match self {
            CopyMode::Full | CopyMode::Checksum => true,
            CopyMode::Differences | CopyMode::DifferencesChecksum => false,
        }
    }

    /// Of files that have so many bytes on both sides only blocks that differ are sent; `None`: of no file.
    pub fn blocks_from(self) -> Option<u64> {
        match self {
            CopyMode::Full => None,
            CopyMode::Differences => Some(BY_BLOCKS_FROM),
            CopyMode::DifferencesChecksum | CopyMode::Checksum => Some(1),
        }
    }

    /// It was asked for because of the hashes.
    pub fn is_by_checksum(self) -> bool {
        match self {
            CopyMode::Full | CopyMode::Differences => false,
            CopyMode::DifferencesChecksum | CopyMode::Checksum => true,
        }
    }
}

impl fmt::Display for CopyMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CopyMode::Full => "full",
            CopyMode::Differences => "differences",
            CopyMode::DifferencesChecksum => "differences+checksum",
            CopyMode::Checksum => "checksum",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_typed_as_it_is_shown() {
        for &mode in CopyMode::value_variants() {
            assert_eq!(CopyMode::from_str(&mode.to_string(), false), Ok(mode));
        }
        assert!(CopyMode::from_str("checksums", false).is_err());
    }
}
