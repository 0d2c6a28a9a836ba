//! `standin connection schedule`: when a connection sends.

use serde_json::json;

use super::super::args::{Common, OneConnection};
use super::super::find::find_role;
use super::super::{Outcome, output};
use super::{chosen, meant};
use crate::control::{ConnectionChange, ConnectionStatus, RoleName, ScheduleStatus};
use crate::words::{Order, SchedulePlan};

pub(super) fn change(order: Order<SchedulePlan>) -> ConnectionChange {
    ConnectionChange::Schedule { order }
}

pub(super) fn show(common: &Common, one: &OneConnection) -> Outcome {
    let (set, which) = meant(one)?;
    let status = find_role(common, set.as_deref(), RoleName::Source)?.status;
    let connections = chosen(status.connections(), which.as_deref())?;
    if common.json {
        let schedules = connections.iter().map(|connection| {
            json!({ "id": connection.id, "target": connection.target, "schedule": connection.schedule })
        });
        output::json(&json!({ "connections": schedules.collect::<Vec<_>>() }));
    } else {
        let texts: Vec<String> = connections.iter().map(|connection| text(connection)).collect();
        output::text(&texts.join("\n"));
    }
    Ok(0)
}

/// What holds, why, and what comes next.
pub(super) fn text(connection: &ConnectionStatus) -> String {
    let label = format!("Connection {} ({})", connection.id, connection.target);
    let Some(ScheduleStatus { plan, from, why, next, .. }) = &connection.schedule else {
        return format!("{label} has no schedule: changes are sent as they come.");
    };
    let next = if next.is_empty() { String::new() } else { format!("\n  next      {next}") };
    format!("{label} has a schedule.\n  schedule  {plan} ({from})\n  now       {why}{next}")
}
