//! What a person wants of a connection, whatever stands in the way: kept over a restart of the daemon.

use serde::{Deserialize, Serialize};

/// See the module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Wish {
    pub sending: Sending,
    pub copies: Copies,
    /// Of what is stopped nothing is queued either: it is marked.
    pub unqueued: bool,
}

/// Whether changes are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sending {
    #[default]
    Now,
    Paused,
    Stopped,
}

/// When a target that needs a copy is copied to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Copies {
    #[default]
    ByThemselves,
    /// Not before a person starts one.
    Stopped,
}
