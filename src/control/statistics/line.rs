//! What a line says. The names of its fields are a promise, as those of the status: `docs/monitoring.md` has each of
//! them. Base units; what is not known is not there. No name of a file, and no place on a host.

mod replica;

use serde::Serialize;

use self::replica::Replica;
use super::pace::{Activity, Seen};
use crate::control::status::{
    ConnectionState, ConnectionStatus, MirrorStatus, Phase, Role, SourceStatus, Status, TargetKind,
};
use crate::events::Sample;
use crate::packet::DataState;
use crate::words::{DAY, Date, Target};

/// Of the lines; fields may come without another number.
const FORMAT: u32 = 1;

/// One line of the file.
#[derive(Serialize)]
pub struct Line<'a> {
    format: u32,
    time: String,
    at_unix_ms: u64,
    daemon: &'a str,
    phase: Phase,
    activity: Activity,
    dropped_lines: u64,
    #[serde(flatten)]
    facts: Facts<'a>,
}

#[derive(Serialize)]
#[serde(tag = "of", rename_all = "snake_case")]
pub enum Facts<'a> {
    Connection(Box<Connection<'a>>),
    Replica(Replica<'a>),
}

/// Something that can have a line.
pub struct One<'a> {
    pub id: &'a str,
    pub seen: Seen,
    pub facts: Facts<'a>,
}

#[derive(Serialize)]
pub struct Connection<'a> {
    connection: &'a str,
    target: &'a str,
    state: ConnectionState,
    state_since_unix_ms: u64,
    failed_attempts: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<DataState>,
    needs_copy: bool,
    blocked: bool,
    aside_objects: u64,
    left_out_objects: u64,
    queued_packets: u64,
    queued_bytes: u64,
    queue_packets: u64,
    queue_memory_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    queue_disk_packets: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    queue_disk_bytes: Option<u64>,
    captured_packets: u64,
    captured_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    captured_bytes_per_second: Option<u64>,
    sent_packets: u64,
    sent_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    sent_bytes_per_second: Option<u64>,
    resent_packets: u64,
    resent_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_wire_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit_bytes_per_second: Option<u64>,
    position: u64,
    #[serde(flatten)]
    reached: Option<Reached>,
    mirror: &'static str,
    #[serde(flatten)]
    copied: Option<Copied>,
    #[serde(flatten)]
    link: Option<Link>,
    #[serde(flatten)]
    verified: Option<Verified>,
}

/// What is known where there is a replica.
#[derive(Serialize)]
struct Reached {
    applied_position: u64,
    durable_position: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    lag_applied_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lag_applied_packets: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lag_applied_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lag_durable_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lag_durable_packets: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lag_durable_bytes: Option<u64>,
}

/// Of the copy that runs, or of the last one.
#[derive(Serialize)]
struct Copied {
    mirror_sent_bytes: u64,
    mirror_skipped_bytes: u64,
    mirror_compared_bytes: u64,
    mirror_done_files: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    mirror_remaining_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mirror_remaining_files: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mirror_remaining_seconds: Option<u64>,
    mirror_bytes_per_second: u64,
}

#[derive(Serialize)]
struct Link {
    connected_unix_ms: u64,
    rtt_seconds: f64,
    link_sent_bytes: u64,
    link_received_bytes: u64,
    link_lost_packets: u64,
}

#[derive(Serialize)]
struct Verified {
    verified_unix_ms: u64,
    verified_differences: u64,
}

impl<'a> Line<'a> {
    pub fn new(status: &'a Status, activity: Activity, dropped: u64, facts: Facts<'a>) -> Line<'a> {
        Line {
            format: FORMAT,
            time: utc(status.now_unix_ms),
            at_unix_ms: status.now_unix_ms,
            daemon: &status.name,
            phase: status.phase,
            activity,
            dropped_lines: dropped,
            facts,
        }
    }
}

/// All that a daemon has. `rates`: of its connections, in their order.
pub fn all<'a>(status: &'a Status, rates: &[Option<Sample>]) -> Vec<One<'a>> {
    match &status.role {
        Role::Source(source) => {
            let rates = rates.iter().copied().chain(std::iter::repeat(None));
            let one = |(connection, rate)| of_connection(status.phase, source, connection, rate);
            source.connections.iter().zip(rates).map(one).collect()
        }
        Role::Target { target } => {
            target.replicas.iter().map(|replica| replica::one(status.phase, replica)).collect()
        }
    }
}

fn of_connection<'a>(
    phase: Phase,
    source: &'a SourceStatus,
    of: &'a ConnectionStatus,
    rate: Option<Sample>,
) -> One<'a> {
    let (queue, disk) = (&source.queue, source.queue.disk);
    let has_replica = of.kind != TargetKind::Null;
    let facts = Connection {
        connection: &of.uuid,
        target: Target::plain(&of.target),
        state: of.state,
        state_since_unix_ms: of.since_unix_ms,
        failed_attempts: of.attempts,
        data: has_replica.then_some(of.data),
        needs_copy: of.needs_copy,
        blocked: of.retrying.is_some(),
        aside_objects: of.aside.total,
        left_out_objects: of.left_out.count,
        queued_packets: of.queued.packets,
        queued_bytes: of.queued.bytes,
        queue_packets: queue.packets,
        queue_memory_bytes: queue.bytes,
        queue_disk_packets: disk.map(|disk| disk.packets),
        queue_disk_bytes: disk.map(|disk| disk.bytes),
        captured_packets: queue.captured_packets,
        captured_bytes: queue.captured_bytes,
        captured_bytes_per_second: rate.map(|rate| whole(rate.captured_rate)),
        sent_packets: of.sent.packets,
        sent_bytes: of.sent.bytes,
        sent_bytes_per_second: rate.map(|rate| whole(rate.sent_rate)),
        resent_packets: of.resent.packets,
        resent_bytes: of.resent.bytes,
        payload_bytes: of.compression.as_ref().map(|of| of.payload_bytes),
        payload_wire_bytes: of.compression.as_ref().map(|of| of.wire_bytes),
        limit_bytes_per_second: of.limit.as_ref().and_then(|limit| limit.rate),
        position: source.last.0,
        reached: has_replica.then(|| reached(of)),
        mirror: mirror(of.mirror).0,
        copied: copied(of),
        link: of.link.map(|link| Link {
            connected_unix_ms: link.connected_unix_ms,
            rtt_seconds: micros(link.rtt_ms / 1000.0),
            link_sent_bytes: link.udp_sent_bytes,
            link_received_bytes: link.udp_received_bytes,
            link_lost_packets: link.udp_lost_packets,
        }),
        verified: of.verified.as_ref().map(|verified| Verified {
            verified_unix_ms: verified.at_unix_ms,
            verified_differences: verified.counts.missing + verified.counts.extra + verified.counts.different,
        }),
    };
    One { id: &of.uuid, seen: seen(phase, source, of), facts: Facts::Connection(Box::new(facts)) }
}

fn seen(phase: Phase, source: &SourceStatus, of: &ConnectionStatus) -> Seen {
    let lacks = [of.lag_applied, of.lag_durable].into_iter().flatten().any(|lag| lag.packets > 0);
    let progress = of.progress.as_ref();
    let (word, runs) = mirror(of.mirror);
    let marks = vec![
        phase as u64,
        of.state.bits().into(),
        of.data as u64,
        u64::from(of.needs_copy) | u64::from(of.link.is_some()) << 1 | u64::from(of.retrying.is_some()) << 2,
        source.queue.captured_packets,
        of.sent.packets,
        of.sent.bytes,
        of.resent.packets,
        of.applied.0,
        of.durable.0,
        progress.map_or(0, |progress| progress.bytes_done),
        progress.map_or(0, |progress| progress.files_done),
        of.verified.as_ref().map_or(0, |verified| verified.at_unix_ms),
    ];
    Seen { busy: runs || lacks || of.queued.packets > 0, marks: (word, marks) }
}

fn reached(of: &ConnectionStatus) -> Reached {
    let (applied, durable) = (of.lag_applied, of.lag_durable);
    Reached {
        applied_position: of.applied.0,
        durable_position: of.durable.0,
        lag_applied_seconds: applied.map(|lag| micros(lag.seconds)),
        lag_applied_packets: applied.map(|lag| lag.packets),
        lag_applied_bytes: applied.map(|lag| lag.bytes),
        lag_durable_seconds: durable.map(|lag| micros(lag.seconds)),
        lag_durable_packets: durable.map(|lag| lag.packets),
        lag_durable_bytes: durable.map(|lag| lag.bytes),
    }
}

fn copied(of: &ConnectionStatus) -> Option<Copied> {
    let progress = of.progress.as_ref()?;
    let left = |total: Option<u64>, done: u64| match of.mirror {
        MirrorStatus::Complete => Some(0),
        _ => total.filter(|_| progress.is_counted).map(|total| total.saturating_sub(done)),
    };
    Some(Copied {
        mirror_sent_bytes: progress.bytes_done,
        mirror_skipped_bytes: progress.bytes_skipped,
        mirror_compared_bytes: progress.bytes_compared,
        mirror_done_files: progress.files_done,
        mirror_remaining_bytes: left(
            progress.bytes_total,
            progress.bytes_done.saturating_add(progress.bytes_skipped),
        ),
        mirror_remaining_files: left(progress.files_total, progress.files_done),
        mirror_remaining_seconds: progress.eta_seconds,
        mirror_bytes_per_second: progress.bytes_per_second.round() as u64,
    })
}

/// As the status's JSON says it; whether something is being done.
fn mirror(status: MirrorStatus) -> (&'static str, bool) {
    match status {
        MirrorStatus::Idle => ("idle", false),
        MirrorStatus::Calculating => ("calculating", true),
        MirrorStatus::Mirroring { .. } => ("mirroring", true),
        MirrorStatus::Paused => ("paused", false),
        MirrorStatus::Stopped => ("stopped", false),
        MirrorStatus::Verifying => ("verifying", true),
        MirrorStatus::Complete => ("complete", false),
    }
}

/// Bytes of a second.
fn whole(rate: f32) -> u64 {
    rate.round() as u64
}

/// Seconds, of which what is below a microsecond says nothing.
fn micros(seconds: f64) -> f64 {
    (seconds * 1e6).round() / 1e6
}

/// As RFC 3339 writes a time in UTC, with milliseconds.
fn utc(unix_ms: u64) -> String {
    let (seconds, ms) = (unix_ms / 1000, unix_ms % 1000);
    let day = DAY as u64;
    let (date, of_day) = (Date::since_1970((seconds / day) as i64), seconds % day);
    format!("{date}T{:02}:{:02}:{:02}.{ms:03}Z", of_day / 3600, of_day / 60 % 60, of_day % 60)
}
