//! Which metrics there are, and what of a status each of them is.
//!
//! Base units. What is not known is not there: neither 0 nor -1. Labels are names of daemons and sets, hosts
//! and the beginnings of ids: no file name, and as many as there are connections and replicas.

use serde::Serialize;

use super::text::{Family, Kind, Label, Sample};
use crate::control::{
    Answer, ConnectionState, ConnectionStatus, Daemon, FsyncStatus, Lag, MirrorStatus, Phase, ReplicaStatus,
    Role, SourceStatus, Status, TargetKind, TargetStatus,
};
use crate::packet::DataState;
use crate::source_side::NotServed;
use crate::words::Target;

/// Letters of a connection's UUID that commands take for it.
const UUID_SHOWN: usize = 8;

/// Values with the labels that each has beside those of what it is of.
type Values = Vec<(Vec<Label>, f64)>;

/// One metric of something that a status has.
struct Metric<T> {
    name: &'static str,
    kind: Kind,
    help: &'static str,
    samples: fn(&T) -> Values,
}

const fn gauge<T>(name: &'static str, help: &'static str, samples: fn(&T) -> Values) -> Metric<T> {
    Metric { name, kind: Kind::Gauge, help, samples }
}

const fn counter<T>(name: &'static str, help: &'static str, samples: fn(&T) -> Values) -> Metric<T> {
    Metric { name, kind: Kind::Counter, help, samples }
}

const UP: (&str, &str) = ("standin_up", "Whether the daemon answers; 0 for one that was killed or hangs.");

const NOT_SERVED: (&str, &str) =
    ("standin_set_not_served", "1: the set was served, and no daemon does (label `ended`: how that ended).");

const OF_DAEMON: &[Metric<Status>] = &[
    gauge("standin_info", "Always 1: the version of the daemon.", |status| {
        vec![(vec![("version", status.version.clone())], 1.0)]
    }),
    gauge(
        "standin_severity",
        "The worst finding of `standin status`: 0 ok, 1 warning, 2 critical.",
        |status| one(status.severity().exit_code()),
    ),
    gauge("standin_serving", "Whether it is neither starting nor stopping.", |status| {
        yes(status.phase == Phase::Serving)
    }),
    gauge("standin_start_time_seconds", "When the daemon started, since 1970.", |status| {
        seconds(status.since_unix_ms)
    }),
    counter("standin_cpu_seconds_total", "Processor time of the daemon.", |status| {
        one(status.process.cpu_seconds)
    }),
    gauge("standin_resident_memory_bytes", "Memory of the daemon that is resident.", |status| {
        some(Some(status.process.memory_bytes).filter(|bytes| *bytes > 0))
    }),
];

const OF_SOURCE: &[Metric<SourceStatus>] = &[
    counter("standin_captured_packets_total", "Changes that were captured.", |source| {
        some(Some(source.queue.captured_packets))
    }),
    counter("standin_captured_bytes_total", "Content that was captured.", |source| {
        some(Some(source.queue.captured_bytes))
    }),
    gauge("standin_position", "The last position that was given to a change.", |source| {
        some(Some(source.last.0))
    }),
    gauge("standin_queue_packets", "Changes in the queue.", |source| some(Some(source.queue.packets))),
    gauge("standin_queue_bytes", "What the queue holds, bookkeeping too.", |source| {
        some(Some(source.queue.bytes))
    }),
    gauge("standin_queue_limit_bytes", "What the queue may hold.", |source| {
        some(Some(source.queue.limit_bytes))
    }),
    gauge("standin_queue_disk_packets", "Changes of the queue that are on disk.", |source| {
        some(source.queue.disk.map(|disk| disk.packets))
    }),
    gauge("standin_queue_disk_bytes", "What the queue on disk holds.", |source| {
        some(source.queue.disk.map(|disk| disk.bytes))
    }),
    gauge("standin_queue_disk_limit_bytes", "What it may hold, as its disk is now.", |source| {
        some(source.queue.disk.map(|disk| disk.limit_bytes))
    }),
    gauge("standin_queue_disk_alert", "1 where it is half full.", |source| {
        some(source.queue.disk.map(|disk| u64::from(disk.alert)))
    }),
    gauge("standin_queue_disk_failed", "1 where its disk takes nothing.", |source| {
        some(source.queue.disk.map(|disk| u64::from(disk.trouble.is_some())))
    }),
    gauge("standin_queue_writers_waiting", "Writers that wait for room in the queue.", |source| {
        some(Some(source.queue.writers_waiting))
    }),
    counter("standin_queue_waits_total", "How often writers had to wait for room.", |source| {
        some(Some(source.queue.waits))
    }),
    counter("standin_queue_waited_seconds_total", "How long writers have waited for room.", |source| {
        seconds(source.queue.waited_ms)
    }),
    gauge("standin_map_used_ratio", "How full the map of changes is: 1 is everything.", |source| {
        let fill = |percent: f64, is_coarse| if is_coarse { 1.0 } else { percent / 100.0 };
        let active = source.map.iter().filter(|generation| generation.active);
        active.map(|generation| (vec![], fill(generation.percent, generation.is_coarse))).collect()
    }),
    gauge("standin_fsync_waiting", "Syncs of programs that wait for targets.", |source| match source.fsync {
        FsyncStatus::Target { waiting, .. } => some(Some(waiting)),
        FsyncStatus::Local => vec![],
    }),
    counter("standin_fsync_timed_out_total", "Syncs whose time was over.", |source| match source.fsync {
        FsyncStatus::Target { timed_out, .. } => some(Some(timed_out)),
        FsyncStatus::Local => vec![],
    }),
    gauge("standin_fsync_degraded", "Whether syncs return with the local disk alone.", |source| match source
        .fsync
    {
        FsyncStatus::Target { degraded_since_unix_ms, .. } => yes(degraded_since_unix_ms.is_some()),
        FsyncStatus::Local => vec![],
    }),
];

const OF_CONNECTION: &[Metric<ConnectionStatus>] = &[
    gauge("standin_connection_state", "1 for the state that the connection is in.", |connection| {
        use ConnectionState::{Error, Paused, Scheduled, ScheduledAfterError, Started, Stopped};
        states(connection.state, &[Stopped, Started, Paused, Scheduled, ScheduledAfterError, Error])
    }),
    gauge("standin_connection_up", "Whether there is a network connection.", |connection| {
        yes(connection.link.is_some())
    }),
    gauge("standin_connection_failed_attempts", "Attempts to connect that failed in a row.", |connection| {
        one(connection.attempts)
    }),
    gauge("standin_connection_queued_packets", "Changes not yet applied by the target.", |connection| {
        some(Some(connection.queued.packets))
    }),
    gauge("standin_connection_queued_bytes", "Bytes of them.", |connection| {
        some(Some(connection.queued.bytes))
    }),
    counter("standin_connection_payload_bytes_total", "Content sent since it is compressed.", |connection| {
        some(connection.compression.as_ref().map(|of| of.payload_bytes))
    }),
    counter("standin_connection_payload_wire_bytes_total", "What that was on the wire.", |connection| {
        some(connection.compression.as_ref().map(|of| of.wire_bytes))
    }),
    counter("standin_connection_sent_packets_total", "Changes that were sent.", |connection| {
        some(Some(connection.sent.packets))
    }),
    counter("standin_connection_sent_bytes_total", "Bytes of them.", |connection| {
        some(Some(connection.sent.bytes))
    }),
    counter(
        "standin_connection_resent_bytes_total",
        "Bytes sent again after a reconnection.",
        |connection| some(Some(connection.resent.bytes)),
    ),
];

/// Of connections with a replica behind them.
const OF_REPLICATING: &[Metric<ConnectionStatus>] = &[
    gauge("standin_connection_data", "1 for the state that the replica's data is in.", |connection| {
        states(connection.data, &DATA)
    }),
    gauge(
        "standin_connection_lag_known",
        "Whether it is known how far the replica is behind.",
        |connection| yes(connection.lag_applied.is_some()),
    ),
    gauge(
        "standin_connection_lag_seconds",
        "Age of the oldest change that the target lacks.",
        |connection| lags(connection, |lag| lag.seconds),
    ),
    gauge("standin_connection_lag_packets", "Changes that the target lacks.", |connection| {
        lags(connection, |lag| lag.packets as f64)
    }),
    gauge("standin_connection_lag_bytes", "Bytes of them.", |connection| {
        lags(connection, |lag| lag.bytes as f64)
    }),
    gauge("standin_connection_applied_position", "The target has applied all up to here.", |connection| {
        some(Some(connection.applied.0))
    }),
    gauge(
        "standin_connection_durable_position",
        "The target has all up to here on its disk.",
        |connection| some(Some(connection.durable.0)),
    ),
    gauge("standin_connection_needs_copy", "Whether the queue has nothing for the target.", |connection| {
        yes(connection.needs_copy)
    }),
    gauge(
        "standin_connection_blocked",
        "Whether an op cannot be performed and all behind it wait.",
        |connection| yes(connection.retrying.is_some()),
    ),
    gauge("standin_connection_aside_objects", "Objects that the target has set aside.", |connection| {
        some(Some(connection.aside.total))
    }),
    gauge("standin_connection_left_out_objects", "Objects that the last copy left out.", |connection| {
        some(Some(connection.left_out.count))
    }),
    gauge("standin_connection_rtt_seconds", "Round trip on the link.", |connection| {
        let link = connection.link.iter();
        link.map(|link| (vec![], link.rtt_ms / 1000.0)).collect()
    }),
    counter(
        "standin_connection_link_sent_bytes_total",
        "Bytes on the wire of this link, sent.",
        |connection| some(connection.link.map(|link| link.udp_sent_bytes)),
    ),
    counter("standin_connection_link_received_bytes_total", "The same, received.", |connection| {
        some(connection.link.map(|link| link.udp_received_bytes))
    }),
    counter("standin_connection_link_lost_packets_total", "Datagrams that were lost.", |connection| {
        some(connection.link.map(|link| link.udp_lost_packets))
    }),
    gauge("standin_mirror_running", "Whether a copy or verification runs.", |connection| {
        use MirrorStatus::{Complete, Idle, Stopped};
        yes(!matches!(connection.mirror, Idle | Stopped | Complete))
    }),
    gauge("standin_mirror_done_bytes", "What the copy has done, or the last one did.", |connection| {
        some(connection.progress.as_ref().map(|progress| progress.bytes_done))
    }),
    gauge("standin_mirror_total_bytes", "What it has to do, once that is counted.", |connection| {
        let counted = connection.progress.as_ref().filter(|progress| progress.is_counted);
        some(counted.and_then(|progress| progress.bytes_total))
    }),
    gauge("standin_mirror_eta_seconds", "Time to go.", |connection| {
        some(connection.progress.as_ref().and_then(|progress| progress.eta_seconds))
    }),
    gauge(
        "standin_verified_timestamp_seconds",
        "When the last verification came to its end.",
        |connection| connection.verified.as_ref().map_or(vec![], |verified| seconds(verified.at_unix_ms)),
    ),
    gauge(
        "standin_verified_differences",
        "Objects that it found missing, extra or different.",
        |connection| {
            let counts = connection.verified.as_ref().map(|verified| &verified.counts);
            some(counts.map(|counts| counts.missing + counts.extra + counts.different))
        },
    ),
];

const OF_TARGET: &[Metric<TargetStatus>] =
    &[counter("standin_target_refused_total", "Connections that were turned away.", |target| {
        some(Some(target.refused))
    })];

const OF_REPLICA: &[Metric<ReplicaStatus>] = &[
    gauge("standin_replica_connected", "Whether its source is connected.", |replica| {
        yes(replica.connected.is_some())
    }),
    gauge("standin_replica_data", "1 for the state that its data is in.", |replica| {
        states(replica.data, &DATA)
    }),
    gauge(
        "standin_replica_as_of_timestamp_seconds",
        "It has everything up to this moment of its source's clock.",
        |replica| replica.as_of_unix_ms.map_or(vec![], seconds),
    ),
    gauge(
        "standin_replica_heard_timestamp_seconds",
        "When its source said last, by its clock, what it had given out.",
        |replica| replica.heard_unix_ms.map_or(vec![], seconds),
    ),
    gauge("standin_replica_applied_position", "It has everything up to here.", |replica| {
        some(Some(replica.applied.0))
    }),
    gauge("standin_replica_durable_position", "It has everything up to here on the disk.", |replica| {
        some(Some(replica.durable.0))
    }),
    gauge(
        "standin_replica_given_out_position",
        "What its source had given out when it was heard last.",
        |replica| some(replica.given_out.map(|position| position.0)),
    ),
    gauge(
        "standin_replica_blocked",
        "Whether an op cannot be performed and all behind it wait.",
        |replica| yes(replica.retrying.is_some()),
    ),
    gauge("standin_replica_aside_objects", "Objects that were set aside.", |replica| {
        some(Some(replica.aside.total))
    }),
    gauge("standin_replica_usable", "Whether the replica can be opened.", |replica| {
        yes(replica.problem.is_none())
    }),
];

const DATA: [DataState; 3] = [DataState::Empty, DataState::Good, DataState::Bad];

/// All that the daemons of a run directory say of themselves, and sets that none serves; families without a sample are
/// not there.
pub(super) fn families(daemons: &[Daemon], absent: &[NotServed]) -> Vec<Family> {
    let answers: Vec<&Status> = daemons.iter().filter_map(status_of).collect();
    let sources = || answers.iter().filter_map(|status| Some((daemon_label(status), status.source()?)));
    let connections = || {
        answers.iter().flat_map(|status| {
            let labels = |connection| connection_labels(daemon_label(status), connection);
            status.connections().iter().map(move |connection| (labels(connection), connection))
        })
    };
    let targets = || answers.iter().filter_map(|status| Some((daemon_label(status), target_of(status)?)));
    let replicas = targets().flat_map(|(daemon, target)| {
        let labels = move |replica: &ReplicaStatus| vec![daemon.clone(), ("set", replica.name.clone())];
        target.replicas.iter().map(move |replica| (labels(replica), replica))
    });
    let mut found = vec![up(daemons), not_served(absent)];
    let statuses = answers.iter().map(|status| (daemon_labels(status), *status));
    found.extend(of_all(OF_DAEMON, statuses));
    found.extend(of_all(OF_SOURCE, sources().map(|(daemon, source)| (vec![daemon], source))));
    found.extend(of_all(OF_CONNECTION, connections()));
    let replicating = connections().filter(|(_, connection)| connection.kind != TargetKind::Null);
    found.extend(of_all(OF_REPLICATING, replicating));
    found.extend(of_all(OF_TARGET, targets().map(|(daemon, target)| (vec![daemon], target))));
    found.extend(of_all(OF_REPLICA, replicas));
    found.retain(|family| !family.samples.is_empty());
    found
}

fn status_of(daemon: &Daemon) -> Option<&Status> {
    match &daemon.answer {
        Answer::Status(status) => Some(status),
        Answer::Dead | Answer::None(_) => None,
    }
}

fn target_of(status: &Status) -> Option<&TargetStatus> {
    match &status.role {
        Role::Target { target } => Some(target),
        Role::Source(_) => None,
    }
}

fn up(daemons: &[Daemon]) -> Family {
    let sample = |daemon: &Daemon| Sample {
        labels: vec![("daemon", daemon.name.clone())],
        value: f64::from(u8::from(status_of(daemon).is_some())),
    };
    let (name, help) = UP;
    Family { name, kind: Kind::Gauge, help, samples: daemons.iter().map(sample).collect() }
}

fn not_served(absent: &[NotServed]) -> Family {
    let sample = |one: &NotServed| Sample {
        labels: vec![("set", one.name.clone()), ("ended", word(&one.ended))],
        value: 1.0,
    };
    let (name, help) = NOT_SERVED;
    Family { name, kind: Kind::Gauge, help, samples: absent.iter().map(sample).collect() }
}

fn of_all<'a, T: 'a>(
    metrics: &[Metric<T>],
    things: impl Iterator<Item = (Vec<Label>, &'a T)>,
) -> Vec<Family> {
    let things: Vec<_> = things.collect();
    let family = |metric: &Metric<T>| {
        let of_one = |(labels, thing): &(Vec<Label>, &T)| {
            let with = |(more, value): (Vec<Label>, f64)| Sample {
                labels: labels.iter().cloned().chain(more).collect(),
                value,
            };
            (metric.samples)(thing).into_iter().map(with).collect::<Vec<_>>()
        };
        let samples = things.iter().flat_map(of_one).collect();
        Family { name: metric.name, kind: metric.kind, help: metric.help, samples }
    };
    metrics.iter().map(family).collect()
}

fn daemon_label(status: &Status) -> Label {
    ("daemon", status.name.clone())
}

fn daemon_labels(status: &Status) -> Vec<Label> {
    let role = match status.role {
        Role::Source(_) => "source",
        Role::Target { .. } => "target",
    };
    vec![daemon_label(status), ("role", role.into())]
}

fn connection_labels(daemon: Label, connection: &ConnectionStatus) -> Vec<Label> {
    let uuid = connection.uuid.chars().take(UUID_SHOWN).collect();
    let target = Target::plain(&connection.target).to_owned();
    vec![daemon, ("connection", uuid), ("target", target)]
}

fn one(value: impl Into<f64>) -> Values {
    vec![(vec![], value.into())]
}

fn yes(is_so: bool) -> Values {
    one(u8::from(is_so))
}

/// Counts beyond 2^53 lose their last digits, as every value of Prometheus does.
fn some(count: Option<u64>) -> Values {
    count.into_iter().map(|count| (vec![], count as f64)).collect()
}

fn seconds(milliseconds: u64) -> Values {
    one(milliseconds as f64 / 1000.0)
}

fn states<T: PartialEq + Serialize>(now: T, all: &[T]) -> Values {
    let sample = |state: &T| (vec![("state", word(state))], f64::from(u8::from(*state == now)));
    all.iter().map(sample).collect()
}

/// As the status's JSON says it.
fn word(state: &impl Serialize) -> String {
    let value = serde_json::to_value(state).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
}

fn lags(connection: &ConnectionStatus, of: fn(Lag) -> f64) -> Values {
    let until = [("applied", connection.lag_applied), ("durable", connection.lag_durable)];
    let known = until.into_iter().filter_map(|(until, lag)| Some((until, lag?)));
    known.map(|(until, lag)| (vec![("until", until.into())], of(lag))).collect()
}

/// Every metric that there is.
#[cfg(test)]
pub(super) fn names() -> Vec<(&'static str, Kind)> {
    fn of<T>(metrics: &[Metric<T>]) -> impl Iterator<Item = (&'static str, Kind)> {
        metrics.iter().map(|metric| (metric.name, metric.kind))
    }
    let all = [(UP.0, Kind::Gauge), (NOT_SERVED.0, Kind::Gauge)]
        .into_iter()
        .chain(of(OF_DAEMON))
        .chain(of(OF_SOURCE));
    let all = all.chain(of(OF_CONNECTION)).chain(of(OF_REPLICATING));
    all.chain(of(OF_TARGET)).chain(of(OF_REPLICA)).collect()
}
