//! What a copy looks at, and what it sends.

use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// How a copy finds what a target lacks. Every rule that differs is a question here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CopyMode {
    /// The content of every file is sent
    Full,
    /// Files whose size, modification time, owner, mode or extended attributes differ: their content is sent
    #[default]
    Differences,
    /// The same files: only those of their blocks are sent that differ
    #[value(name = "differences+checksum", skip)]
    DifferencesChecksum,
    /// Every file is compared block by block: only blocks that differ are sent
    #[value(skip)]
    Checksum,
}

impl CopyMode {
    /// Size and modification time do not say that a file has the content of the source's.
    pub fn suspects_everything(self) -> bool {
        match self {
            CopyMode::Full | CopyMode::Checksum => true,
            CopyMode::Differences | CopyMode::DifferencesChecksum => false,
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
    fn what_cannot_be_done_yet_cannot_be_asked_for() {
        let named = |mode: CopyMode| CopyMode::from_str(&mode.to_string(), false);
        assert_eq!(named(CopyMode::Full), Ok(CopyMode::Full));
        assert_eq!(named(CopyMode::Differences), Ok(CopyMode::Differences));
        assert!(named(CopyMode::DifferencesChecksum).is_err() && named(CopyMode::Checksum).is_err());
    }
}
