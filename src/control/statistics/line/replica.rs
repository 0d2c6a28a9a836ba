//! Of a target: a line of one replica.

use serde::Serialize;

use super::super::pace::Seen;
use super::{Facts, One};
use crate::control::status::{Phase, ReplicaStatus};
use crate::packet::DataState;

#[derive(Serialize)]
pub struct Replica<'a> {
    set: &'a str,
    connected: bool,
    usable: bool,
    data: DataState,
    data_since_unix_ms: u64,
    blocked: bool,
    aside_objects: u64,
    applied_position: u64,
    durable_position: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    given_out_position: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    beyond_packets: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    as_of_unix_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    heard_unix_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    clock_ahead_seconds: Option<f64>,
}

pub fn one(phase: Phase, of: &ReplicaStatus) -> One<'_> {
    let is_connected = of.connected.is_some();
    let facts = Replica {
        set: &of.name,
        connected: is_connected,
        usable: of.problem.is_none(),
        data: of.data,
        data_since_unix_ms: of.since_unix_ms,
        blocked: of.retrying.is_some(),
        aside_objects: of.aside.total,
        applied_position: of.applied.0,
        durable_position: of.durable.0,
        given_out_position: of.given_out.map(|position| position.0),
        beyond_packets: of.beyond,
        as_of_unix_ms: of.as_of_unix_ms,
        heard_unix_ms: of.heard_unix_ms,
        clock_ahead_seconds: of.clock_ahead_ms.map(|ms| ms as f64 / 1000.0),
    };
    let marks = vec![
        phase as u64,
        u64::from(is_connected)
            | u64::from(of.problem.is_some()) << 1
            | u64::from(of.retrying.is_some()) << 2,
        of.data as u64,
        of.since_unix_ms,
        of.applied.0,
        of.durable.0,
        of.aside.total,
    ];
    // A copy runs, or is about to: what it brings is counted by the source.
    let is_copied = is_connected && of.data == DataState::Bad && !of.in_line;
    let lacks = of.durable < of.applied || is_connected && of.beyond.is_some_and(|beyond| beyond > 0);
    One {
        id: &of.name,
        seen: Seen { busy: is_copied || lacks, marks: ("", marks) },
        facts: Facts::Replica(facts),
    }
}
