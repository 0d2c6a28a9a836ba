//! `standin connection schedule`: when a connection sends.

use serde_json::json;

use super::Shown;
use crate::control::{ConnectionChange, ConnectionStatus, ScheduleStatus};
use crate::words::{Order, SchedulePlan};

pub(super) fn change(order: Order<SchedulePlan>) -> ConnectionChange {
    ConnectionChange::Schedule { order }
}

pub(super) const SHOWN: Shown =
    Shown { member: "schedule", value: |connection| json!(connection.schedule), text };

/// What holds, why, and what comes next.
pub(super) fn text(connection: &ConnectionStatus) -> String {
    let label = format!("Connection {} ({})", connection.id, connection.target);
    let Some(ScheduleStatus { plan, from, why, next, .. }) = &connection.schedule else {
        return format!("{label} has no schedule: changes are sent as they come.");
    };
    let next = if next.is_empty() { String::new() } else { format!("\n  next      {next}") };
    format!("{label} has a schedule.\n  schedule  {plan} ({from})\n  now       {why}{next}")
}
