//! What a line says, and when there is one.

mod file;
mod thread;

use serde_json::{Value, json};

use super::pace::{Activity, IDLE_EVERY, Pace, Seen};
use super::*;
use crate::control::tests::{sample_connection, sample_source, sample_status, source_of};
use crate::control::{
    Amount, CompressionStatus, ConnectedSource, ConnectionState, ConnectionStatus, Lag, LimitStatus,
    LinkStatus, MirrorProgress, MirrorStatus, ReplicaStatus, Role, SourceStatus, TargetKind, TargetStatus,
    VerifiedStatus,
};
use crate::packet::{CheckCounts, DataState, Sequence};
use crate::words::{Compression, DiskQueueStats, Origin, QueueStats, VerifyMode};

fn source(connection: ConnectionStatus) -> Status {
    let source = SourceStatus { connections: vec![connection], ..sample_source() };
    Status { role: Role::Source(source), now_unix_ms: 1_774_921_999_042, ..sample_status() }
}

fn values(status: &Status, rates: &[Option<Sample>]) -> Vec<Value> {
    let line = |facts| serde_json::to_value(Line::new(status, Activity::Active, 7, facts)).unwrap();
    line::all(status, rates).into_iter().map(|one| line(one.facts)).collect()
}

/// As they are written, with all that there can be.
pub(crate) fn statistics_of(status: &Status) -> Vec<Value> {
    let rates = vec![Some(Sample::default()); status.connections().len()];
    values(status, &rates)
}

/// A connection of which everything is known.
fn full() -> Status {
    let lag = Some(Lag { seconds: 0.25, packets: 3, bytes: 4096 });
    let counts = CheckCounts { missing: 1, extra: 2, different: 3, ..CheckCounts::default() };
    let mut status = source(ConnectionStatus {
        lag_applied: lag,
        lag_durable: lag,
        queued: Amount { packets: 3, bytes: 4096 },
        resent: Amount { packets: 1, bytes: 10 },
        mirror: MirrorStatus::Mirroring { percent: 50.0 },
        progress: Some(progress()),
        verified: Some(VerifiedStatus {
            at_unix_ms: 5,
            mode: VerifyMode::default(),
            path: Some("secret".into()),
            history: "1.1".into(),
            upto: Sequence(1),
            unread: 0,
            counts,
        }),
        link: Some(LinkStatus {
            connected_unix_ms: 4,
            rtt_ms: 1.5,
            udp_sent_bytes: 6000,
            udp_received_bytes: 70,
            udp_lost_packets: 1,
            udp_payload_max: 1200,
        }),
        limit: Some(LimitStatus {
            plan: "1M".into(),
            from: Origin::File,
            on: true,
            rate: Some(1 << 20),
            next_unix_ms: None,
            next_rate: None,
            queue_grows: None,
            queue_full_seconds: None,
        }),
        compression: Some(CompressionStatus {
            level: Compression::Good,
            method: "zstd 1".into(),
            from: Origin::File,
            on: true,
            taken: Some(true),
            payload_bytes: 20,
            wire_bytes: 10,
        }),
        ..sample_connection()
    });
    let disk = Some(DiskQueueStats { packets: 2, bytes: 3000, ..DiskQueueStats::default() });
    let source = source_of(&mut status);
    source.queue = QueueStats { packets: 5, bytes: 2000, disk, ..source.queue };
    status
}

fn progress() -> MirrorProgress {
    MirrorProgress {
        files_done: 3,
        files_total: Some(10),
        bytes_done: 100,
        bytes_skipped: 200,
        bytes_compared: 50,
        bytes_total: Some(1000),
        is_counted: true,
        bytes_per_second: 12.6,
        eta_seconds: Some(70),
        current: "secret".into(),
        ..MirrorProgress::default()
    }
}

/// Names and words are promises.
const FULL: &str = r#"{"format":1,"time":"2026-03-31T01:53:19.042Z","at_unix_ms":1774921999042,"daemon":"web",
"phase":"serving","activity":"active","dropped_lines":7,"of":"connection","connection":"c0ffee","target":"local",
"state":"started","state_since_unix_ms":1000000,"failed_attempts":0,"data":"good","needs_copy":false,
"blocked":false,"aside_objects":0,"left_out_objects":0,"queued_packets":3,"queued_bytes":4096,"queue_packets":5,
"queue_memory_bytes":2000,"queue_disk_packets":2,"queue_disk_bytes":3000,"captured_packets":42,
"captured_bytes":4096,"captured_bytes_per_second":2000,"sent_packets":42,"sent_bytes":5000,
"sent_bytes_per_second":1000,"resent_packets":1,"resent_bytes":10,"payload_bytes":20,"payload_wire_bytes":10,
"limit_bytes_per_second":1048576,"position":42,"applied_position":42,"durable_position":42,
"lag_applied_seconds":0.25,"lag_applied_packets":3,"lag_applied_bytes":4096,"lag_durable_seconds":0.25,
"lag_durable_packets":3,"lag_durable_bytes":4096,"mirror":"mirroring","mirror_sent_bytes":100,
"mirror_skipped_bytes":200,"mirror_compared_bytes":50,"mirror_done_files":3,"mirror_remaining_bytes":700,
"mirror_remaining_files":7,"mirror_remaining_seconds":70,"mirror_bytes_per_second":13,"connected_unix_ms":4,
"rtt_seconds":0.0015,"link_sent_bytes":6000,"link_received_bytes":70,"link_lost_packets":1,"verified_unix_ms":5,
"verified_differences":6}"#;

#[test]
fn a_line_says_all_that_is_known() {
    let rate = Sample { sent_rate: 1000.4, captured_rate: 2000.0, ..Sample::default() };
    let (status, expected) = (full(), FULL.replace('\n', ""));
    let one = line::all(&status, &[Some(rate)]).remove(0);
    let line = Line::new(&status, Activity::Active, 7, one.facts);
    assert_eq!(serde_json::to_string(&line).unwrap(), expected);
}

#[test]
fn a_replica_has_a_line_of_its_own() {
    let target =
        Role::Target { target: TargetStatus { replicas: vec![replica()], ..TargetStatus::default() } };
    let status = Status { role: target, name: "serve".into(), now_unix_ms: 0, ..sample_status() };
    let one = line::all(&status, &[]).remove(0);
    let line = Line::new(&status, Activity::Idle, 0, one.facts);
    let expected = r#"{"format":1,"time":"1970-01-01T00:00:00.000Z","at_unix_ms":0,"daemon":"serve",
"phase":"serving","activity":"idle","dropped_lines":0,"of":"replica","set":"web","connected":true,"usable":true,
"data":"good","data_since_unix_ms":9,"blocked":false,"aside_objects":0,"applied_position":7,"durable_position":7,
"given_out_position":7,"beyond_packets":0,"as_of_unix_ms":8,"heard_unix_ms":8,"clock_ahead_seconds":-0.25}"#;
    assert_eq!(serde_json::to_string(&line).unwrap(), expected.replace('\n', ""));
    let seen = |change: fn(&mut ReplicaStatus)| {
        let mut replica = replica();
        change(&mut replica);
        let target =
            Role::Target { target: TargetStatus { replicas: vec![replica], ..TargetStatus::default() } };
        line::all(&Status { role: target, ..sample_status() }, &[]).remove(0).seen
    };
    let idle = seen(|_| {});
    assert!(!idle.busy);
    assert!(seen(|replica| replica.beyond = Some(1)).busy);
    assert!(seen(|replica| replica.durable = Sequence(6)).busy);
    assert!(seen(|replica| replica.data = DataState::Bad).busy, "a copy runs");
    let left_out = seen(|replica| (replica.data, replica.in_line) = (DataState::Bad, true));
    assert!(!left_out.busy && left_out.marks != idle.marks);
    assert!(!seen(|replica| (replica.data, replica.connected) = (DataState::Bad, None)).busy);
    assert!(!seen(|replica| (replica.beyond, replica.connected) = (Some(1), None)).busy);
    assert!(seen(|replica| replica.connected = None).marks != idle.marks);
    assert_eq!(seen(|replica| replica.heard_unix_ms = Some(9)), idle, "a heartbeat is nothing");
}

fn replica() -> ReplicaStatus {
    let source =
        ConnectedSource { fingerprint: "aa".into(), address: "192.0.2.1:5".into(), since_unix_ms: 1 };
    ReplicaStatus {
        name: "web".into(),
        directory: "/secret".into(),
        set_id: "01".into(),
        sources: vec!["aa".into()],
        connected: Some(source),
        restored_from: None,
        data: DataState::Good,
        reason: "secret".into(),
        in_line: false,
        since_unix_ms: 9,
        applied: Sequence(7),
        durable: Sequence(7),
        retrying: None,
        aside: Default::default(),
        withheld: Default::default(),
        as_of_unix_ms: Some(8),
        given_out: Some(Sequence(7)),
        heard_unix_ms: Some(8),
        beyond: Some(0),
        clock_ahead_ms: Some(-250),
        clock_set: None,
        last_good: None,
        lost_writes: None,
        turned_away: None,
        problem: None,
    }
}

#[test]
fn what_is_not_known_is_not_there() {
    let bad = ConnectionStatus {
        data: DataState::Bad,
        lag_applied: None,
        lag_durable: None,
        mirror: MirrorStatus::Calculating,
        progress: Some(MirrorProgress {
            bytes_total: Some(5),
            files_total: Some(5),
            ..MirrorProgress::default()
        }),
        ..sample_connection()
    };
    let [line] = &values(&source(bad), &[])[..] else { panic!("one connection") };
    let has = |name: &str| line.get(name).is_some();
    assert!(has("data") && has("applied_position") && has("mirror_sent_bytes"), "{line}");
    for name in
        ["lag_", "_per_second", "queue_disk", "payload", "link_", "rtt", "verified", "mirror_remaining"]
    {
        let there = line.as_object().unwrap().keys().filter(|key| key.contains(name));
        let there: Vec<&String> = there.filter(|key| *key != "mirror_bytes_per_second").collect();
        assert!(there.is_empty(), "{there:?}");
    }
    let progress = Some(MirrorProgress { bytes_total: Some(5), ..MirrorProgress::default() });
    let over = ConnectionStatus { mirror: MirrorStatus::Complete, progress, ..sample_connection() };
    assert_eq!(
        values(&source(over), &[])[0]["mirror_remaining_bytes"],
        0,
        "it is over, whatever was counted"
    );
    let null = ConnectionStatus { kind: TargetKind::Null, target: "null:".into(), ..sample_connection() };
    let line = &values(&source(null), &[])[0];
    assert_eq!((&line["target"], &line["sent_bytes"]), (&json!("null:"), &json!(5000)));
    for name in ["data", "applied_position", "durable_position", "lag_applied_seconds"] {
        assert!(line.get(name).is_none(), "{name}: there is no replica");
    }
}

/// What is to be sent when, by second; `.` is a second without a line.
#[test]
fn a_line_comes_each_second_while_something_is_done_and_each_minute_else() {
    let told = |seen: &[(bool, u64)], seconds: u64| -> String {
        let mut pace = Pace::default();
        let line = |second: u64| {
            let at = seen.get(second as usize).unwrap_or(seen.last().unwrap());
            let seen = Seen { busy: at.0, marks: ("", vec![at.1]) };
            match pace.look(Duration::from_secs(second), "c", seen) {
                Some(Activity::Active) => 'a',
                Some(Activity::Idle) => 'i',
                None => '.',
            }
        };
        (0..seconds).map(line).collect()
    };
    assert_eq!(told(&[(false, 0)], 3), "i..", "the first look is told");
    assert_eq!(told(&[(true, 0)], 3), "aaa", "it is busy");
    assert_eq!(told(&[(true, 0), (false, 0)], 4), "ai..", "it becomes idle: once");
    assert_eq!(told(&[(false, 0), (false, 1), (false, 1), (false, 1)], 4), "iai.", "something has changed");
    assert_eq!(told(&[(false, 0), (false, 1), (false, 2), (false, 2)], 4), "iaai");
    let minutes = told(&[(false, 0)], 3 * IDLE_EVERY.as_secs());
    let at: Vec<usize> = minutes.match_indices('i').map(|(at, _)| at).collect();
    assert_eq!(at, [0, 60, 120]);
    let mut pace = Pace::default();
    let seen = || Seen { busy: false, marks: ("", vec![0]) };
    let mut look = |id: &str| pace.look(Duration::ZERO, id, seen()).is_some();
    assert_eq!([look("a"), look("b"), look("a")], [true, true, false], "each by itself");
    pace.retain(|id| id == "b");
    assert!(pace.look(Duration::ZERO, "a", seen()).is_some(), "it has come back");
}

#[test]
fn a_connection_is_active_while_anything_of_it_moves() {
    let of = |connection: ConnectionStatus| {
        let status = source(connection);
        let mut all = line::all(&status, &[]);
        all.remove(0).seen
    };
    let idle = of(sample_connection());
    assert!(!idle.busy);
    let lag = Some(Lag { packets: 1, ..Lag::default() });
    let busy: [fn(&mut ConnectionStatus); 5] = [
        |connection| connection.queued.packets = 1,
        |connection| connection.lag_applied = Some(Lag { packets: 1, ..Lag::default() }),
        |connection| connection.mirror = MirrorStatus::Mirroring { percent: 1.0 },
        |connection| connection.mirror = MirrorStatus::Calculating,
        |connection| connection.mirror = MirrorStatus::Verifying,
    ];
    for (at, change) in busy.into_iter().enumerate() {
        let mut connection = sample_connection();
        change(&mut connection);
        assert!(of(connection).busy, "{at}");
    }
    assert!(of(ConnectionStatus { lag_durable: lag, ..sample_connection() }).busy);
    for mirror in [MirrorStatus::Paused, MirrorStatus::Stopped, MirrorStatus::Idle] {
        let seen = of(ConnectionStatus { mirror, ..sample_connection() });
        assert!(!seen.busy && seen.marks != idle.marks, "{mirror:?} is a change, and nothing to do");
    }
    let moved: [fn(&mut ConnectionStatus); 7] = [
        |connection| connection.sent.bytes += 1,
        |connection| connection.resent.packets += 1,
        |connection| connection.applied = Sequence(43),
        |connection| connection.durable = Sequence(43),
        |connection| connection.state = ConnectionState::Paused,
        |connection| connection.data = DataState::Bad,
        |connection| connection.link = Some(LinkStatus::default()),
    ];
    for (at, change) in moved.into_iter().enumerate() {
        let mut connection = sample_connection();
        change(&mut connection);
        let seen = of(connection);
        assert!(!seen.busy && seen.marks != idle.marks, "{at}");
    }
}
