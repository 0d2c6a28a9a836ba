//! The target daemon's answer to `standin status`.

use std::time::SystemTime;

use super::daemon::Daemon;
use super::replicas::Shown;
use super::{KnownAge, View};
use crate::apply::AsideView;
use crate::clone;
use crate::control::{
    AsideStatus, ClockSet, LastGood, LostWrites, ReplicaStatus, Role, SetAside, Status, TargetStatus, unix_ms,
};
use crate::packet::{DataState, Position, Sequence, WithheldCounts};
use crate::pairing::Grant;
use crate::privileges::Confinement;

pub fn status(daemon: &Daemon) -> Status {
    Status {
        role: Role::Target { target: target(daemon) },
        name: daemon.options.name.clone(),
        directory: daemon.options.root.clone(),
        fingerprint: daemon.identity.fingerprint().to_string(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        process: daemon.meter.read(),
        since_unix_ms: unix_ms(daemon.started),
        now_unix_ms: unix_ms(SystemTime::now()),
        phase: daemon.phase(),
        alerts: daemon.file.alert(&daemon.options).into_iter().collect(),
    }
}

fn target(daemon: &Daemon) -> TargetStatus {
    let grants = daemon.book.grants();
    let mut replicas: Vec<ReplicaStatus> =
        daemon.store.show().into_iter().map(|shown| opened(daemon, shown, &grants)).collect();
    let mut waiting: Vec<&str> = grants.iter().map(|grant| grant.set_name.as_str()).collect();
    waiting.sort_unstable();
    waiting.dedup();
    waiting.retain(|name| !replicas.iter().any(|replica| replica.name == *name));
    replicas.extend(waiting.into_iter().map(|name| empty(daemon, name, &grants)));
    replicas.sort_by(|left, right| left.name.cmp(&right.name));
    let refusals = daemon.refusals();
    TargetStatus {
        listening: daemon.listening.to_string(),
        refused: refusals.count,
        last_refused: refusals.last,
        not_confined: match &daemon.confinement {
            Confinement::Confined => None,
            Confinement::None(why) => Some(why.clone()),
        },
        replicas,
    }
}

/// A set that is paired and whose source has not come yet.
fn empty(daemon: &Daemon, name: &str, grants: &[Grant]) -> ReplicaStatus {
    ReplicaStatus {
        name: name.to_owned(),
        directory: daemon.store.directory(name),
        set_id: String::new(),
        sources: sources(name, grants),
        connected: None,
        restored_from: None,
        data: DataState::Empty,
        reason: String::new(),
        in_line: false,
        since_unix_ms: unix_ms(daemon.started),
        applied: Sequence(0),
        durable: Sequence(0),
        retrying: None,
        aside: AsideStatus::default(),
        withheld: WithheldCounts::default(),
        as_of_unix_ms: None,
        given_out: None,
        heard_unix_ms: None,
        beyond: None,
        clock_ahead_ms: None,
        clock_set: None,
        last_good: None,
        lost_writes: None,
        turned_away: daemon.store.last_turned_away(name),
        problem: None,
    }
}

fn opened(daemon: &Daemon, shown: Shown, grants: &[Grant]) -> ReplicaStatus {
    let mut status = ReplicaStatus {
        set_id: shown.set.to_string(),
        problem: shown.problem,
        turned_away: shown.turned_away,
        connected: shown.connected,
        restored_from: shown.restored_from,
        ..empty(daemon, &shown.name, grants)
    };
    let mut applied = Position::default();
    if let Some(view) = shown.view {
        applied = view.applied;
        tell_age(&view, &mut status);
        status.data = view.data.state;
        status.reason = view.data.reason.unwrap_or_default();
        status.in_line = view.data.in_line;
        status.since_unix_ms = view.data.since_ms;
        (status.applied, status.durable) = (view.applied.sequence, view.durable.sequence);
        status.retrying = view.retrying;
        status.aside = aside(&view.aside);
        status.withheld = view.withheld.counts();
        status.last_good = view.last_good.and_then(last_good);
    }
    let units = daemon.store.units();
    let unit = units.iter().find(|unit| unit.name == status.name);
    let kept = unit.and_then(|unit| unit.clones.lost_writes());
    status.lost_writes = kept.and_then(|kept| lost_writes(kept, status.data, applied));
    status
}

fn last_good(kept: clone::Shown) -> Option<LastGood> {
    let barrier = kept.barrier?;
    Some(LastGood {
        clone: kept.name,
        position: barrier.position.sequence,
        since_unix_ms: barrier.at_ms,
        area_bytes: kept.room,
        failed: kept.reason,
    })
}

/// `applied`: by the replica, of whose packets the first comes behind the copy.
fn lost_writes(kept: clone::Shown, data: DataState, applied: Position) -> Option<LostWrites> {
    let barrier = kept.barrier?;
    let copy_ended = data == DataState::Good && applied.epoch.number > barrier.position.epoch.number;
    Some(LostWrites {
        clone: kept.name,
        since_unix_ms: barrier.at_ms,
        area_bytes: kept.room,
        copy_ended,
        failed: kept.reason,
    })
}

fn tell_age(view: &View, status: &mut ReplicaStatus) {
    let View { age, applied, durable, data, .. } = view;
    let known = KnownAge::of(age, data.state, applied, durable);
    status.as_of_unix_ms = known.as_of_unix_ms;
    status.clock_ahead_ms = known.clock_ahead_ms;
    status.clock_set = age.clock_set.map(|set| ClockSet { at_unix_ms: set.at_ms, by_ms: set.by_ms });
    status.given_out = known.given_out;
    status.heard_unix_ms = known.heard_unix_ms;
    status.beyond = known.beyond;
}

fn sources(name: &str, grants: &[Grant]) -> Vec<String> {
    grants.iter().filter(|grant| grant.set_name == name).map(|grant| grant.peer.to_string()).collect()
}

fn aside(view: &AsideView) -> AsideStatus {
    let objects = view.listed.iter().map(|aside| SetAside {
        path: aside.path.clone(),
        op: aside.op.clone(),
        reason: aside.reason.clone(),
        since_unix_ms: aside.since_ms,
    });
    AsideStatus { total: view.total, objects: objects.collect() }
}
