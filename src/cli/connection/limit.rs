//! `standin connection limit`: how fast a connection sends.

use serde_json::json;

use super::super::status::limit_words;
use super::Shown;
use crate::control::ConnectionStatus;

pub(super) const SHOWN: Shown = Shown { member: "limit", value: |connection| json!(connection.limit), text };

/// What holds now, and what comes next.
pub(super) fn text(connection: &ConnectionStatus) -> String {
    let label = format!("Connection {} ({})", connection.id, connection.target);
    match &connection.limit {
        None => format!("{label} has no limit: it sends as fast as it goes."),
        Some(limit) => {
            format!(
                "{label} has a limit.\n  limit     {} ({})\n  now       {}",
                limit.plan,
                limit.from,
                limit_words(limit)
            )
        }
    }
}
