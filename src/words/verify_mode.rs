//! What a verification compares.

use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// How thoroughly a replica is compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VerifyMode {
    /// Names, sizes, times and attributes
    #[default]
    Attributes,
    /// Content too, by hashes of its blocks
    Checksum,
    /// Content too, by a hash that stands up to whoever chose the content
    Audit,
}

impl fmt::Display for VerifyMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            VerifyMode::Attributes => "attributes",
            VerifyMode::Checksum => "checksum",
            VerifyMode::Audit => "audit",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_typed_as_it_is_shown() {
        for &mode in VerifyMode::value_variants() {
            assert_eq!(VerifyMode::from_str(&mode.to_string(), false), Ok(mode));
        }
    }
}
