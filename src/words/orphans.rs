//! What copies do with what a replica has and its directory has not.

use std::fmt;
use std::time::Duration;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// Which of the three.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrphanChoice {
    /// It is moved beside the replica
    #[default]
    Aside,
    /// It stays where it is, and gives way to whatever needs its name
    Keep,
    /// It is deleted; where that is more than --delete-guard lets go, it is moved aside
    Delete,
}

/// All of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OrphanRules {
    pub choice: OrphanChoice,
    /// What was modified within so many milliseconds stays.
    pub age_ms: u64,
}

impl OrphanRules {
    pub fn new(choice: OrphanChoice, age: Option<Duration>) -> OrphanRules {
        let age = age.unwrap_or_default().as_millis();
        OrphanRules { choice, age_ms: u64::try_from(age).unwrap_or(u64::MAX) }
    }
}

impl fmt::Display for OrphanChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            OrphanChoice::Aside => "aside",
            OrphanChoice::Keep => "keep",
            OrphanChoice::Delete => "delete",
        })
    }
}
