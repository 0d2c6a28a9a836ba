//! Becoming another program, as it is asked for.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpgradeRequest {
    /// Absolute.
    #[serde(with = "super::path_text")]
    pub program: PathBuf,
    /// How long programs may have to wait until the rest is sent.
    pub patience_ms: u64,
    /// Also where targets lack something.
    pub anyway: bool,
    /// Nothing is changed.
    pub dry_run: bool,
}

/// What is the case before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpgradeLook {
    /// Versions.
    pub from: String,
    pub to: String,
    /// What targets would lack then, in words: a copy brings it afterwards.
    pub lacking: Vec<String>,
}
