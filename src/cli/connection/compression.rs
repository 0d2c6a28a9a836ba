//! `standin connection compression`: how short a connection makes what it sends.

use serde_json::json;

use super::super::status::compression_words;
use super::Shown;
use crate::control::ConnectionStatus;

pub(super) const SHOWN: Shown =
    Shown { member: "compression", value: |connection| json!(connection.compression), text };

/// What holds, and what it has saved.
pub(super) fn text(connection: &ConnectionStatus) -> String {
    let label = format!("Connection {} ({})", connection.id, connection.target);
    match &connection.compression {
        None => format!("{label} compresses nothing."),
        Some(of) => format!(
            "{label} has a level of compression.\n  level     {} ({}, {})\n  now       {}",
            of.level,
            of.method,
            of.from,
            compression_words(of)
        ),
    }
}
