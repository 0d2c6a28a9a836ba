//! What a paired host may do with a replication set on a target.

use serde::{Deserialize, Serialize};

/// See the module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Right {
    /// Send it, and read back what it has sent.
    #[default]
    Send,
    /// Read it back, and nothing else.
    Restore,
}

impl Right {
    /// As in "it may send 'web'".
    pub fn verb(self) -> &'static str {
        match self {
            Right::Send => "send",
            Right::Restore => "restore from",
        }
    }
}
