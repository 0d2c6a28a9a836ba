//! `docs/status-json.md` and `docs/bench-json.md` against the documents themselves: every field is
//! there, and no other.

use std::collections::BTreeSet;

use serde_json::Value;

use super::output::Printed;
use super::resync::tests::foreseen;
use super::status::Document;
use super::status::not_served::{Absent, tests::sample};
use crate::control::statistics_of;
use crate::control::tests::{sample_connection, sample_source, sample_status};
use crate::control::{
    Alert, AsideStatus, Bounds, ClockSet, CompressionStatus, ConnectedSource, ConnectionStatus, FsyncStatus,
    GenerationStatus, HolderStatus, Lag, LastGood, LeftOutStatus, LimitStatus, LinkStatus, LostWrites,
    MirrorProgress, MirrorStatus, ReplicaStatus, RestoredFrom, ResyncForeseen, ResyncReport, ResyncStatus,
    Retrying, Role, Rung, ScheduleStatus, SetAside, Severity, SourceStatus, Status, TargetStatus, TurnedAway,
    UpgradeStatus, VerifiedStatus,
};
use crate::drill::expected::Expected;
use crate::drill::last::{Last, Standing};
use crate::events::Code;
use crate::monitor::machine::Health;
use crate::monitor::outage::Outage;
use crate::monitor::plan::Need;
use crate::monitor::shown::{Life, Monitored, Probed, Shown};
use crate::packet::{CheckCounts, DataState, OrphanCounts, Sequence, WithheldCounts};
use crate::source_side::LastEnded;
use crate::words::{Compression, DiskQueueStats, DiskTrouble, Origin, QueueStats, VerifyMode};

const STATUS_PAGE: &str = include_str!("../../docs/status-json.md");

const MONITORING_PAGE: &str = include_str!("../../docs/monitoring.md");

const BENCH_PAGE: &str = include_str!("../../docs/bench-json.md");

/// Paths of fields: `connections[].lag_applied.seconds`.
type Fields = BTreeSet<String>;

#[test]
fn each_field_of_a_source_is_documented() {
    assert_status_documented(Role::Source(full_source()), "A source");
}

#[test]
fn each_field_of_a_target_is_documented() {
    assert_status_documented(Role::Target { target: full_target() }, "A target");
}

#[test]
fn each_field_of_a_benchmark_is_documented() {
    let printed = serde_json::to_value(Printed::new(crate::bench::tests::full_report())).unwrap();
    assert_documented(documented(BENCH_PAGE, "A benchmark"), present(&printed));
}

#[test]
fn each_field_of_an_evaluation_is_documented() {
    let (bytes_per_second, seconds) = (Some(1), Some(Bounds::exactly(1)));
    let connections = vec![ResyncForeseen { bytes_per_second, seconds, ..foreseen(Some(Rung::Owed)) }];
    let report = ResyncReport { name: "web".into(), history: "1.2".into(), last: Sequence(9), connections };
    let printed = serde_json::to_value(Printed::new(report)).unwrap();
    assert_documented(documented(STATUS_PAGE, "An evaluation"), present(&printed));
}

/// The lines of `--statistics`, of a source and of a target.
#[test]
fn each_field_of_statistics_is_documented() {
    let mut fields = Fields::new();
    for role in [Role::Source(full_source()), Role::Target { target: full_target() }] {
        let lines = statistics_of(&full(role));
        lines.iter().for_each(|line| collect(line, "", &mut fields));
    }
    assert_documented(documented(MONITORING_PAGE, "Statistics in a file"), fields);
}

/// What is there with one role is not there with the other, but for what all have.
#[test]
fn a_role_has_no_fields_of_the_other() {
    let source = present(&printed(Role::Source(full_source())));
    let target = present(&printed(Role::Target { target: full_target() }));
    let both: Fields = source.intersection(&target).cloned().collect();
    assert_eq!(both, documented(STATUS_PAGE, "Every daemon"));
}

#[test]
fn every_document_says_its_format_first() {
    let text = serde_json::to_string(&Printed::new(serde_json::json!({ "error": "x" }))).unwrap();
    assert_eq!(text, r#"{"format":1,"error":"x"}"#);
    let status = serde_json::to_string(&Printed::new(Document::new(&sample_status()))).unwrap();
    assert!(status.starts_with(r#"{"format":1,"#), "{status}");
}

#[test]
fn either_role_comes_back_from_its_json() {
    for role in [Role::Source(full_source()), Role::Target { target: full_target() }] {
        let status = full(role);
        let text = serde_json::to_string(&status).unwrap();
        assert_eq!(serde_json::from_str::<Status>(&text).unwrap(), status);
    }
}

#[track_caller]
fn assert_status_documented(role: Role, section: &str) {
    let mut documented = documented(STATUS_PAGE, "Every daemon");
    documented.extend(self::documented(STATUS_PAGE, section));
    assert_documented(documented, present(&printed(role)));
}

#[track_caller]
fn assert_documented(documented: Fields, present: Fields) {
    let missing: Vec<&String> = present.difference(&documented).collect();
    let stale: Vec<&String> = documented.difference(&present).collect();
    assert!(missing.is_empty() && stale.is_empty(), "not documented: {missing:?}; not there: {stale:?}");
}

/// As `standin status --json` prints it.
fn printed(role: Role) -> Value {
    let (monitors, drills) = match role {
        Role::Source(_) => (Vec::new(), vec![full_expected()]),
        Role::Target { .. } => (vec![full_monitored()], vec![full_expected()]),
    };
    let absent =
        Absent { not_served: vec![sample(LastEnded::Stopped)], not_served_unknown: Some("denied".into()) };
    let status = full(role);
    let document = Document::new(&status).with(monitors, drills).beside(absent);
    serde_json::to_value(Printed::new(document)).unwrap()
}

fn full_expected() -> Expected {
    let last = Last { set: "web".into(), standing: Standing::Overdue, drill: Some(1), age_ms: Some(2) };
    Expected { file: "web".into(), expect_every_ms: Some(1), reason: "a word".into(), last }
}

fn full_monitored() -> Monitored {
    let probe = Probed {
        probe: "link".into(),
        own: false,
        answer: Some("silent".into()),
        why: "it is not connected".into(),
    };
    let shown = Shown {
        set: "web".into(),
        pid: 1,
        version: "0.1.0".into(),
        health: Health::Red,
        since_unix_ms: 1,
        silent_ms: Some(1),
        time_to_fail_ms: Some(0),
        timeout_ms: 1,
        worst_case_ms: 1,
        need: Need::All,
        probes: vec![probe],
        auto: true,
        outage: Some(Outage::left_to_a_person(1, "the fence command has failed")),
        at_unix_ms: 1,
        beat_ms: 1,
        boot: "aa11".into(),
    };
    Monitored { life: Life::Alive, shown }
}

fn present(document: &Value) -> Fields {
    let mut fields = Fields::new();
    collect(document, "", &mut fields);
    fields
}

/// Nothing may be empty: what it would have inside would be compared with nothing.
fn collect(value: &Value, at: &str, fields: &mut Fields) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                let path = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
                collect(value, &path, fields);
                fields.insert(path);
            }
        }
        Value::Array(items) => {
            assert!(!items.is_empty(), "{at} is empty");
            items.iter().for_each(|item| collect(item, &format!("{at}[]"), fields));
        }
        Value::Null => panic!("{at} is null"),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Of one section of the page. The first column of a table has names; below a heading that has
/// names itself they are fields of each of those.
fn documented(page: &str, section: &str) -> Fields {
    let heading = format!("## {section}");
    let lines = page.lines().skip_while(|line| **line != heading).skip(1);
    let (mut fields, mut inside) = (Fields::new(), vec![String::new()]);
    for line in lines.take_while(|line| !line.starts_with("## ")) {
        if let Some(heading) = line.strip_prefix("### ") {
            inside = names(heading).map(|name| format!("{name}.")).collect();
        } else if let Some(row) = line.strip_prefix("| ") {
            for name in names(row.split('|').next().unwrap_or_default()) {
                for inside in &inside {
                    assert!(fields.insert(format!("{inside}{name}")), "{inside}{name} stands there twice");
                }
            }
        }
    }
    assert!(!fields.is_empty(), "{section} has no fields");
    fields
}

fn names(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// With an alert, so that there are findings.
fn full(role: Role) -> Status {
    let alert = Alert { severity: Severity::Warning, code: Code::StartNote, text: "text".into() };
    Status { role, alerts: vec![alert], ..sample_status() }
}

fn full_source() -> SourceStatus {
    let fsync = FsyncStatus::Target {
        rule: "all".into(),
        timeout_ms: 30_000,
        waiting: 1,
        timed_out: 1,
        failing_since_unix_ms: Some(1),
        degraded_since_unix_ms: Some(1),
    };
    let rules = vec!["exclude *.tmp".into()];
    let generation = GenerationStatus {
        id: 1,
        since: Some(Sequence(1)),
        bytes: 1,
        percent: 1.0,
        is_coarse: false,
        active: true,
        kept: true,
        earlier: false,
    };
    let (connections, map) = (vec![full_connection()], vec![generation]);
    let disk = Some(DiskQueueStats { trouble: Some(DiskTrouble::AtLimit), ..DiskQueueStats::default() });
    let queue = QueueStats { disk, ..sample_source().queue };
    let upgrade = Some(UpgradeStatus { failed: Some("it ended".into()), ..UpgradeStatus::default() });
    let holder = HolderStatus { upgrade, ..HolderStatus::default() };
    SourceStatus { connections, fsync, map, rules, queue, holder, ..sample_source() }
}

fn full_connection() -> ConnectionStatus {
    ConnectionStatus {
        retry_unix_ms: Some(1),
        aside: full_aside(),
        left_out: LeftOutStatus { count: 1, objects: vec!["a: cannot be read".into()] },
        orphans: Some(OrphanCounts::default()),
        mirror: MirrorStatus::Mirroring { percent: 50.0 },
        progress: Some(MirrorProgress {
            path: Some("dir".into()),
            files_total: Some(1),
            bytes_total: Some(1),
            is_counted: true,
            eta_seconds: Some(1),
            rate_limit: Some(1),
            ..MirrorProgress::default()
        }),
        resync: Some(full_resync()),
        verified: Some(VerifiedStatus {
            at_unix_ms: 1,
            mode: VerifyMode::default(),
            path: Some("a".into()),
            history: "1.1".into(),
            upto: Sequence(1),
            unread: 0,
            counts: CheckCounts::default(),
        }),
        lag_applied: Some(Lag::default()),
        lag_durable: Some(Lag::default()),
        link: Some(LinkStatus::default()),
        retrying: Some(full_retrying()),
        schedule: Some(ScheduleStatus {
            plan: "at=22:00,every=1d".into(),
            from: Origin::Command,
            on: true,
            open: false,
            why: "nothing has begun a session yet".into(),
            next_unix_ms: Some(1),
            next: "a session begins at 2026-11-27 22:00".into(),
        }),
        limit: Some(LimitStatus {
            plan: "1M".into(),
            from: Origin::File,
            on: true,
            rate: Some(1 << 20),
            next_unix_ms: Some(1),
            next_rate: Some(1),
            queue_grows: Some(1),
            queue_full_seconds: Some(1),
        }),
        compression: Some(CompressionStatus {
            level: Compression::Good,
            method: "zstd 1".into(),
            from: Origin::File,
            on: true,
            taken: Some(true),
            payload_bytes: 2,
            wire_bytes: 1,
        }),
        ..sample_connection()
    }
}

pub(super) fn full_resync() -> ResyncStatus {
    ResyncStatus {
        rung: Rung::Owed,
        why: "the queue became full".into(),
        running: true,
        since: Some(Sequence(7)),
        searched: false,
        packets: Bounds::exactly(0),
        objects: Bounds::exactly(3),
        bytes: Bounds { at_least: 1 << 20, at_most: Some(2 << 20) },
    }
}

pub(super) fn full_target() -> TargetStatus {
    TargetStatus {
        listening: "[::]:7447".into(),
        refused: 1,
        last_refused: Some("refused a connection".into()),
        not_confined: Some("no Landlock".into()),
        replicas: vec![full_replica()],
    }
}

fn full_replica() -> ReplicaStatus {
    ReplicaStatus {
        name: "web".into(),
        directory: "/backup/web".into(),
        set_id: "0123456789abcdef0123456789abcdef".into(),
        sources: vec!["aa11".into()],
        connected: Some(ConnectedSource {
            fingerprint: "aa11".into(),
            address: "192.0.2.1:5".into(),
            since_unix_ms: 1,
        }),
        restored_from: Some(RestoredFrom {
            fingerprint: "cc33".into(),
            address: "192.0.2.3:5".into(),
            since_unix_ms: 1,
            files_sent: 1,
            bytes_sent: 1,
        }),
        data: DataState::Bad,
        reason: "a copy runs".into(),
        in_line: false,
        since_unix_ms: 1,
        applied: Sequence(1),
        durable: Sequence(1),
        retrying: Some(full_retrying()),
        aside: full_aside(),
        withheld: WithheldCounts::default(),
        as_of_unix_ms: Some(1),
        given_out: Some(Sequence(1)),
        heard_unix_ms: Some(1),
        beyond: Some(1),
        clock_ahead_ms: Some(-1),
        clock_set: Some(ClockSet { at_unix_ms: 1, by_ms: -1 }),
        last_good: Some(LastGood {
            clone: "last-good".into(),
            position: Sequence(1),
            since_unix_ms: 1,
            area_bytes: 1,
            failed: Some("its area is full".into()),
        }),
        lost_writes: Some(LostWrites {
            clone: "lost-writes".into(),
            since_unix_ms: 1,
            area_bytes: 1,
            copy_ended: true,
            failed: Some("its area is full".into()),
        }),
        turned_away: Some(TurnedAway { reason: "it speaks version 4".into(), at_unix_ms: 1 }),
        problem: Some("It cannot be opened".into()),
    }
}

fn full_aside() -> AsideStatus {
    let object =
        SetAside { path: "a".into(), op: "write a".into(), reason: "immutable".into(), since_unix_ms: 1 };
    AsideStatus { total: 1, objects: vec![object] }
}

fn full_retrying() -> Retrying {
    Retrying {
        op: "write a".into(),
        reason: "disk full".into(),
        since_unix_ms: 1,
        attempts: 1,
        marker: false,
    }
}
