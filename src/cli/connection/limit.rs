//! `standin connection limit`: how fast a connection sends.

use serde_json::json;

use super::super::args::{Common, OneConnection};
use super::super::find::find_role;
use super::super::status::limit_words;
use super::super::{Outcome, output};
use super::{chosen, meant};
use crate::control::{ConnectionStatus, RoleName};

pub(super) fn show(common: &Common, one: &OneConnection) -> Outcome {
    let (set, which) = meant(one)?;
    let status = find_role(common, set.as_deref(), RoleName::Source)?.status;
    let connections = chosen(status.connections(), which.as_deref())?;
    if common.json {
        let limits = connections
            .iter()
            .map(|connection| json!({ "id": connection.id, "target": connection.target, "limit": connection.limit }));
        output::json(&json!({ "connections": limits.collect::<Vec<_>>() }));
    } else {
        let texts: Vec<String> = connections.iter().map(|connection| text(connection)).collect();
        output::text(&texts.join("\n"));
    }
    Ok(0)
}

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
