use std::collections::BTreeSet;

use super::families::{families, names};
use super::text::{Family, Kind, exposition};
use crate::cli::status::not_served::tests::sample;
use crate::control::tests::{sample_connection, sample_source, sample_status};
use crate::control::{
    Answer, ConnectionStatus, Daemon, Lag, Role, SourceStatus, Status, TargetKind, TargetStatus,
};
use crate::packet::DataState;
use crate::source_side::LastEnded;

const PAGE: &str = include_str!("../../../docs/monitoring.md");
const RULES: &str = include_str!("../../../packaging/prometheus/standin.rules.yml");

fn daemon(status: Status) -> Daemon {
    Daemon { name: status.name.clone(), socket: "s".into(), answer: Answer::Status(Box::new(status)) }
}

fn source(connection: ConnectionStatus) -> Daemon {
    let source = SourceStatus { connections: vec![connection], ..sample_source() };
    daemon(Status { role: Role::Source(source), ..sample_status() })
}

fn lines(daemons: &[Daemon]) -> Vec<String> {
    exposition(&families(daemons, &[])).lines().map(str::to_owned).collect()
}

fn of<'a>(lines: &'a [String], name: &str) -> Vec<&'a str> {
    let is_it = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{'));
    lines.iter().map(String::as_str).filter(is_it).collect()
}

#[test]
fn a_connection_in_line_is_told_with_its_lag() {
    let lag = Some(Lag { seconds: 0.5, packets: 3, bytes: 4096 });
    let lines = lines(&[source(ConnectionStatus { lag_applied: lag, ..sample_connection() })]);
    let labels = r#"daemon="web",connection="c0ffee",target="local""#;
    for line in [
        r#"standin_up{daemon="web"} 1"#.to_owned(),
        r#"standin_severity{daemon="web",role="source"} 0"#.to_owned(),
        r#"standin_start_time_seconds{daemon="web",role="source"} 1000"#.to_owned(),
        r#"standin_queue_limit_bytes{daemon="web"} 134217728"#.to_owned(),
        format!("standin_connection_lag_known{{{labels}}} 1"),
        format!("standin_connection_lag_seconds{{{labels},until=\"applied\"}} 0.5"),
        format!("standin_connection_lag_seconds{{{labels},until=\"durable\"}} 0"),
        format!("standin_connection_state{{{labels},state=\"started\"}} 1"),
        format!("standin_connection_state{{{labels},state=\"error\"}} 0"),
        format!("standin_connection_data{{{labels},state=\"good\"}} 1"),
    ] {
        assert!(lines.contains(&line), "{line}\n{}", lines.join("\n"));
    }
    assert!(!lines.join("\n").contains("/srv"), "a directory of the host: {}", lines.join("\n"));
}

#[test]
fn what_is_not_known_is_not_there() {
    let bad = ConnectionStatus {
        data: DataState::Bad,
        lag_applied: None,
        lag_durable: None,
        ..sample_connection()
    };
    let lines = lines(&[source(bad)]);
    assert!(of(&lines, "standin_connection_lag_known")[0].ends_with(" 0"));
    for name in
        ["standin_connection_lag_seconds", "standin_verified_timestamp_seconds", "standin_mirror_eta_seconds"]
    {
        assert_eq!(of(&lines, name), Vec::<&str>::new());
        assert!(!lines.iter().any(|line| line.contains(&format!("{name} "))), "a family without a sample");
    }
}

#[test]
fn a_connection_that_only_counts_has_no_replica() {
    let null = ConnectionStatus { kind: TargetKind::Null, target: "null:".into(), ..sample_connection() };
    let lines = lines(&[source(null)]);
    assert!(of(&lines, "standin_connection_state")[0].contains(r#"target="null:""#));
    for name in ["standin_connection_data", "standin_connection_lag_known", "standin_connection_lag_seconds"]
    {
        assert_eq!(of(&lines, name), Vec::<&str>::new());
    }
}

#[test]
fn a_daemon_that_was_killed_is_down() {
    let dead = Daemon { name: "mail".into(), socket: "s".into(), answer: Answer::Dead };
    let target = Role::Target { target: TargetStatus::default() };
    let serving = daemon(Status { name: "serve".into(), role: target, ..sample_status() });
    let lines = lines(&[dead, serving]);
    assert_eq!(
        of(&lines, "standin_up"),
        [r#"standin_up{daemon="mail"} 0"#, r#"standin_up{daemon="serve"} 1"#]
    );
    assert_eq!(of(&lines, "standin_severity").len(), 1);
    assert_eq!(
        of(&lines, "standin_target_refused_total"),
        [r#"standin_target_refused_total{daemon="serve"} 0"#]
    );
}

/// Conventions of Prometheus: counters end in `_total`, nothing else does.
#[test]
fn names_say_what_they_are() {
    let all = names();
    let unique: BTreeSet<_> = all.iter().map(|(name, _)| name).collect();
    assert_eq!(unique.len(), all.len(), "a name is there twice");
    for (name, kind) in all {
        assert_eq!(name.ends_with("_total"), kind == Kind::Counter, "{name}");
    }
}

#[test]
fn every_metric_is_in_the_docs_and_no_other() {
    let documented: BTreeSet<&str> = words(PAGE).collect();
    let there: BTreeSet<&str> = names().into_iter().map(|(name, _)| name).collect();
    assert_eq!(documented, there);
}

#[test]
fn alerts_are_of_metrics_that_exist() {
    let there: BTreeSet<&str> = names().into_iter().map(|(name, _)| name).collect();
    let used: BTreeSet<&str> = words(RULES).collect();
    assert!(used.len() > 5 && used.is_subset(&there), "{:?}", used.difference(&there));
}

/// Names of metrics in a text.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    text.split(move |letter| !is_part(letter)).filter(|word| word.starts_with("standin_"))
}

#[test]
fn a_set_that_no_daemon_serves_is_a_sample() {
    let absent = [sample(LastEnded::Killed)];
    let text = exposition(&families(&[], &absent));
    assert!(text.contains(r#"standin_set_not_served{set="web",ended="killed"} 1"#), "{text}");
    assert!(!exposition(&families(&[source(sample_connection())], &[])).contains("not_served"));
}

#[test]
fn as_json_every_sample_has_its_labels() {
    let families: Vec<Family> = families(&[source(sample_connection())], &[]);
    let value = serde_json::to_value(&families).unwrap();
    let up = value.as_array().unwrap().iter().find(|family| family["name"] == "standin_up").unwrap();
    assert_eq!(up["type"], "gauge");
    assert_eq!(up["samples"], serde_json::json!([{ "labels": { "daemon": "web" }, "value": 1.0 }]));
}
