//! `standin clone rotate`: a further clone of a series is made, and the old ones go.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use clap::Args;
use serde::Serialize;
use serde_json::json;

use super::{FAILED, Meant, UNTOUCHED, absolute, only_one, replicas_of, stopped, text, wait};
use crate::cli::args::Common;
use crate::cli::{Outcome, output};
use crate::control::{CloneRequest, CloneStatus, ReplicaClones, unix_ms};
use crate::failure::Failure;
use crate::units::{parse_duration, parse_size};
use crate::words::{SET_NAME_LEN_MAX, is_set_name, shown};

#[derive(Debug, Args)]
pub(super) struct Rotate {
    /// Name of the series: its clones are named SERIES.YYYYMMDD-hhmmss, of universal time
    series: String,
    /// The directory in which they lie, which is there: for a target that `standin serve` holds below its --root
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// So many of them stay, the new one among them
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u8).range(1..=30))]
    keep: u8,
    /// Those that began longer ago go as well, as in 30d; never the new one
    #[arg(long, value_name = "T", value_parser = parse_duration)]
    keep_for: Option<Duration>,
    /// Name of a replication set, or the directory of its replica [default: the only one]
    #[arg(long, value_name = "SET")]
    set: Option<PathBuf>,
    /// What is preserved for it may take this room, as in 10G; then it fails [default: while the disk has some]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    area_limit: Option<u64>,
}

/// One that should have gone.
#[derive(Debug, Serialize)]
struct NotRemoved {
    name: String,
    reason: String,
}

pub(super) fn run(common: &Common, args: &Rotate) -> Outcome {
    let name = format!("{}.{}", args.series, stamp(unix_ms(SystemTime::now())));
    if !is_set_name(&name) {
        let longest = SET_NAME_LEN_MAX + args.series.len() - name.len();
        return Err(Failure::new(
            format!(
                "'{}' cannot name clones: letters, digits and any of - _ . @ +, at most {longest}.",
                args.series
            ),
            UNTOUCHED,
            "Choose another name.",
        ));
    }
    let dir = absolute(&args.to)?;
    let holder = only_one(replicas_of(&common.asked_dir(), args.set.as_deref())?)?;
    let there = of_series(&args.series, holder.ask(CloneRequest::List)?);
    if let Some(runs) = there.iter().find(|clone| clone.state == "SYNCHRONIZING") {
        return Err(Failure::new(
            format!("A clone of that series is being made: {}.", runs.name),
            UNTOUCHED,
            format!("Wait until it is complete, or give it up: `standin clone stop {} --force`.", runs.name),
        ));
    }
    // One that failed is none, and takes the place of another.
    let failed = there.iter().filter(|clone| clone.state == "FAILED");
    let (mut removed, mut left) = remove(&holder, failed.map(|clone| clone.name.as_str()));
    let to = Some(dir.join(&name));
    let what =
        CloneRequest::Start { name: name.clone(), to, accept_bad_data: false, area_limit: args.area_limit };
    holder.ask(what)?;
    let made = wait(&holder, &name)?;
    let is_made = made.iter().flat_map(|replica| &replica.clones).any(|clone| clone.usable);
    if is_made {
        let there = of_series(&args.series, holder.ask(CloneRequest::List)?);
        let old = old(&there, &name, usize::from(args.keep), began_before(args.keep_for));
        let (went, stayed) = remove(&holder, old.into_iter());
        removed.extend(went);
        left.extend(stayed);
    }
    show(common, &made, &removed, &left);
    Ok(if is_made && left.is_empty() { 0 } else { FAILED })
}

/// `YYYYMMDD-hhmmss`, of universal time.
fn stamp(unix_ms: u64) -> String {
    let at = (unix_ms / 1000) as i64;
    format!("{}{:02}", shown(at, &|_| 0).replace(['-', ':'], "").replace(' ', "-"), at % 60)
}

/// Clones that have such a name.
fn of_series(series: &str, replicas: Vec<ReplicaClones>) -> Vec<CloneStatus> {
    let is_stamp = |text: &str| {
        let is_digits =
            |text: &str, count| text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
        text.split_once('-').is_some_and(|(day, time)| is_digits(day, 8) && is_digits(time, 6))
    };
    let is_one = |clone: &CloneStatus| {
        clone.name.strip_prefix(series).and_then(|rest| rest.strip_prefix('.')).is_some_and(is_stamp)
    };
    replicas.into_iter().flat_map(|replica| replica.clones).filter(is_one).collect()
}

/// As the daemon counts, in milliseconds since 1970; 0: none began before.
fn began_before(keep_for: Option<Duration>) -> u64 {
    keep_for.map_or(0, |age| unix_ms(SystemTime::now()).saturating_sub(age.as_millis() as u64))
}

/// Names of complete ones that go: all but `keep` of them, and those that began before a time. `new` stays.
fn old<'a>(there: &'a [CloneStatus], new: &str, keep: usize, before: u64) -> Vec<&'a str> {
    let mut others: Vec<&CloneStatus> =
        there.iter().filter(|clone| clone.usable && clone.name != new).collect();
    others.sort_by_key(|clone| (clone.started_unix_ms, &clone.name));
    let too_many = others.len().saturating_sub(keep - 1);
    let goes =
        others.iter().enumerate().filter(|(at, clone)| *at < too_many || clone.started_unix_ms < before);
    goes.map(|(_, clone)| clone.name.as_str()).collect()
}

fn remove<'a>(holder: &Meant, names: impl Iterator<Item = &'a str>) -> (Vec<CloneStatus>, Vec<NotRemoved>) {
    let (mut removed, mut left) = (Vec::new(), Vec::new());
    for name in names {
        match holder.ask(CloneRequest::Stop { name: name.into(), force: false, remove: true }) {
            Ok(ended) => removed.extend(ended.into_iter().flat_map(|replica| replica.clones)),
            Err(failure) => left.push(NotRemoved { name: name.into(), reason: failure.what }),
        }
    }
    (removed, left)
}

fn show(common: &Common, made: &[ReplicaClones], removed: &[CloneStatus], left: &[NotRemoved]) {
    if common.json {
        output::json(&json!({ "replicas": made, "removed": removed, "not_removed": left }));
        return;
    }
    let mut all: String = made.iter().map(text).collect();
    all.extend(removed.iter().map(stopped));
    all.extend(left.iter().map(|one| format!("NOT removed: {}. {}\n", one.name, one.reason)));
    output::text(&all);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clone(name: &str, started: u64, state: &str) -> CloneStatus {
        let json = json!({
            "name": name, "kind": "copy", "state": state, "directory": format!("/clones/{name}"),
            "usable": state == "SPLIT", "position": 7, "started_unix_ms": started, "bad_data": false,
            "inconsistent": false, "reason": null, "objects_copied": 0, "objects_total": 0, "bytes_copied": 0,
            "area_bytes": 0, "longest_hold_us": 0,
        });
        serde_json::from_value(json).expect("a clone")
    }

    #[test]
    fn names_are_told_by_their_times() {
        assert_eq!(stamp(1_795_994_521_999), "20261129-232201");
        assert_eq!(stamp(0), "19700101-000000");
        assert_eq!(stamp(59_999), "19700101-000059");
        let all = [
            "day.20261129-232201",
            "day.2026112-2322011",
            "day.x",
            "day",
            "days.20261129-232201",
            "20261129-232201",
        ];
        let clones = all.iter().map(|name| clone(name, 1, "SPLIT")).collect();
        let replica = ReplicaClones { name: "web".into(), directory: "/web".into(), clones };
        let names: Vec<String> =
            of_series("day", vec![replica]).into_iter().map(|clone| clone.name).collect();
        assert_eq!(names, ["day.20261129-232201"]);
    }

    #[test]
    fn the_oldest_go_and_never_the_new_one() {
        let there = [
            clone("d", 40, "SPLIT"),
            clone("a", 10, "SPLIT"),
            clone("f", 5, "FAILED"),
            clone("c", 30, "SPLIT"),
            clone("b", 20, "SPLIT"),
        ];
        assert_eq!(old(&there, "d", 9, 0), [""; 0]);
        assert_eq!(old(&there, "d", 4, 0), [""; 0]);
        assert_eq!(old(&there, "d", 3, 0), ["a"]);
        assert_eq!(old(&there, "d", 1, 0), ["a", "b", "c"]);
        assert_eq!(old(&there, "d", 9, 25), ["a", "b"]);
        assert_eq!(old(&there, "d", 9, 1000), ["a", "b", "c"]);
        // The clock was set back: what began now seems to be the oldest.
        assert_eq!(old(&there, "a", 2, 0), ["b", "c"]);
    }
}
