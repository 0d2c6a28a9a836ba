//! The lines of the table: a connection, a replica, or a daemon that has neither or does not answer. Pure.

use std::sync::Arc;
use std::time::Duration;

use super::host::{Answer, Known};
use crate::cli::status::not_served::{ended_words, finding};
use crate::cli::status::{data_short, mirror_words, state_word};
use crate::control::{
    ConnectionState, ConnectionStatus, Finding, Lag, MirrorStatus, ReplicaStatus, Role, Severity, Status,
    TargetKind,
};
use crate::source_side::NotServed;
use crate::units;

/// See the module.
#[derive(Clone, Debug)]
pub(in crate::cli) struct Row {
    /// The same as long as it is there.
    pub id: String,
    pub daemon: String,
    pub severity: Severity,
    /// Set, what it is, state, data, behind, queued, sent a second.
    pub cells: [String; COLUMNS],
    pub what: What,
    pub findings: Vec<Finding>,
}

pub(in crate::cli) const COLUMNS: usize = 7;
pub(in crate::cli) const TITLES: [&str; COLUMNS] =
    ["SET", "TARGET/REPLICA", "STATE", "DATA", "BEHIND", "QUEUED", "SENT"];

#[derive(Clone, Debug)]
pub(in crate::cli) enum What {
    Connection(Arc<Status>, usize),
    Replica(Arc<Status>, usize),
    /// With a daemon that has said something, that.
    Daemon(Option<Arc<Status>>),
    /// A set that no daemon serves, with what to do.
    NotServed(String),
}

impl Row {
    pub(in crate::cli) fn of(daemon: &str, known: &Known) -> Vec<Row> {
        let alone = |state: &str, severity, findings| Row {
            id: daemon.to_owned(),
            daemon: daemon.to_owned(),
            severity,
            cells: cells([daemon, "", state, "", "", "", ""]),
            what: What::Daemon(None),
            findings,
        };
        let mut rows = match &known.answer {
            Answer::None => vec![alone("is asked", Severity::Ok, Vec::new())],
            Answer::Dead => vec![alone("was killed", Severity::Critical, Vec::new())],
            Answer::Failed(why) => vec![alone(why, Severity::Critical, Vec::new())],
            Answer::Status(status) => of_status(daemon, known, status),
        };
        if let Some(mute) = known.is_mute_for() {
            for row in &mut rows {
                row.severity = Severity::Critical;
                row.cells[2] = format!("mute {}", units::duration(mute));
            }
        }
        rows
    }

    /// Of a set that no daemon serves.
    pub(in crate::cli) fn not_served(one: &NotServed, now: u64) -> Row {
        let (directory, ended) = (one.directory.display().to_string(), ended_words(one, now));
        Row {
            id: one.name.clone(),
            daemon: one.name.clone(),
            severity: one.severity(),
            cells: cells([&one.name, &directory, &ended, "", "", "", ""]),
            what: What::NotServed(one.next.clone()),
            findings: vec![finding(one.seen())],
        }
    }

    /// The UUID of the connection.
    pub(in crate::cli) fn uuid(&self) -> Option<&str> {
        self.connection().map(|connection| connection.uuid.as_str())
    }

    pub(in crate::cli) fn connection(&self) -> Option<&ConnectionStatus> {
        match &self.what {
            What::Connection(status, at) => status.connections().get(*at),
            What::Replica(..) | What::Daemon(_) | What::NotServed(_) => None,
        }
    }
}

fn cells(words: [&str; COLUMNS]) -> [String; COLUMNS] {
    words.map(str::to_owned)
}

fn of_status(daemon: &str, known: &Known, status: &Arc<Status>) -> Vec<Row> {
    let findings = status.findings();
    let mut rows: Vec<Row> = match &status.role {
        Role::Source(source) => (source.connections.iter().enumerate())
            .map(|(at, one)| {
                let about = |finding: &Finding| {
                    finding.about.connection.as_deref().is_none_or(|uuid| uuid == one.uuid)
                };
                let rate = known.series(&one.uuid, false).last().map(|sample| sample.sent_rate);
                let what = What::Connection(status.clone(), at);
                row(daemon, &one.uuid, connection_cells(daemon, one, rate), what, &findings, about)
            })
            .collect(),
        Role::Target { target } => (target.replicas.iter().enumerate())
            .map(|(at, one)| {
                let about =
                    |finding: &Finding| finding.about.set.as_deref().is_none_or(|set| set == one.name);
                let what = What::Replica(status.clone(), at);
                row(daemon, &one.name, replica_cells(one, status.now_unix_ms), what, &findings, about)
            })
            .collect(),
    };
    if rows.is_empty() {
        let state = match status.role {
            Role::Source(_) => "no connection",
            Role::Target { .. } => "no replica",
        };
        let cells = cells([daemon, &status.directory.display().to_string(), state, "", "", "", ""]);
        rows.push(row(daemon, "", cells, What::Daemon(Some(status.clone())), &findings, |_| true));
    }
    rows
}

fn row(
    daemon: &str,
    id: &str,
    cells: [String; COLUMNS],
    what: What,
    findings: &[Finding],
    about: impl Fn(&Finding) -> bool,
) -> Row {
    let findings: Vec<Finding> = findings.iter().filter(|finding| about(finding)).cloned().collect();
    let severity = findings.iter().map(|finding| finding.severity).max().unwrap_or(Severity::Ok);
    Row { id: format!("{daemon}/{id}"), daemon: daemon.to_owned(), severity, cells, what, findings }
}

fn connection_cells(daemon: &str, one: &ConnectionStatus, rate: Option<f32>) -> [String; COLUMNS] {
    let is_null = one.kind == TargetKind::Null;
    let state = match (&one.mirror, one.state) {
        (MirrorStatus::Idle | MirrorStatus::Complete | MirrorStatus::Stopped, state) => {
            short(state).to_owned()
        }
        (mirror, ConnectionState::Started) => mirror_words(mirror),
        (_, state) => short(state).to_owned(),
    };
    let behind = if is_null { String::new() } else { lag(one.lag_applied) };
    let rate = rate.map_or(String::new(), |rate| format!("{}/s", units::size(rate as u64)));
    let data = if is_null { "" } else { data_short(one.data) };
    let target = format!("{} {}", one.id, one.target);
    [daemon.to_owned(), target, state, data.to_owned(), behind, units::size(one.queued.bytes), rate]
}

fn replica_cells(one: &ReplicaStatus, now: u64) -> [String; COLUMNS] {
    let state = match (&one.problem, &one.connected) {
        (Some(_), _) => "cannot be opened",
        (None, Some(_)) => "connected",
        (None, None) if one.restored_from.is_some() => "restored from",
        (None, None) => "no source",
    };
    let behind = match one.as_of_unix_ms {
        Some(at) => {
            // By the source's clock, whose difference was seen.
            let at = at.saturating_add_signed(-one.clock_ahead_ms.unwrap_or(0));
            units::duration(Duration::from_millis(now.saturating_sub(at)))
        }
        None => "unknown".into(),
    };
    let directory = one.directory.display().to_string();
    [
        one.name.clone(),
        directory,
        state.into(),
        data_short(one.data).into(),
        behind,
        String::new(),
        String::new(),
    ]
}

fn short(state: ConnectionState) -> &'static str {
    match state {
        ConnectionState::ScheduledAfterError => "sched. (error)",
        ConnectionState::Stopped
        | ConnectionState::Started
        | ConnectionState::Paused
        | ConnectionState::Scheduled
        | ConnectionState::Error => state_word(state),
    }
}

fn lag(lag: Option<Lag>) -> String {
    match lag {
        None => "unknown".into(),
        Some(lag) if lag.packets == 0 => "nothing".into(),
        Some(lag) => units::duration(Duration::try_from_secs_f64(lag.seconds).unwrap_or_default()),
    }
}
