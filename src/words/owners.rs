//! How owners of files are told.

use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// By what a replica's files get their owners, and their ACLs their users and groups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OwnedBy {
    /// The same numbers as here
    #[default]
    Number,
    /// The numbers that the users and groups of the same names have there; the same numbers where there are none
    Name,
}

impl fmt::Display for OwnedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            OwnedBy::Number => "number",
            OwnedBy::Name => "name",
        })
    }
}
