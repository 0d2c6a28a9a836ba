//! `standin verify`: compares the replica of a connection with the directory, for the caller who waits.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::commands;
use super::connection::{Connection, Outcome, Suspects, Verified};
use super::desk::Desk;
use super::part::{self, UNTOUCHED};
use crate::control::{Caller, Found, MirrorStatus, VerifyReport, VerifyRequest};
use crate::failure::Failure;
use crate::limits::CONTROL_RESPONSE_LEN_MAX;
use crate::packet::BlockHash;
use crate::resync::CheckOrder;
use crate::words::HashKind;

/// How often it is looked whether anybody still waits.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// See the module. Returns when it is over, or nobody waits any more.
///
/// Errors: it could not be done, and why.
pub fn verify(desk: &Desk, request: &VerifyRequest, caller: &Caller<'_>) -> Result<VerifyReport, Failure> {
    let connections = desk.board.read().connections.clone();
    let connection = commands::meant(&connections, request.which.as_deref())?;
    if connection.is_null() {
        return Err(Failure::new(
            "The target null: has no replica that could be compared.",
            UNTOUCHED,
            "Name another connection.",
        ));
    }
    let order = order(desk, request)?;
    wait_for_mirror(&connection, caller)?;
    let found = run(&connection, order.clone(), caller)?;
    let after = match request.repair && !found.counts.is_identical() {
        true => Some(repaired(&connection, &found, order, caller)?),
        false => None,
    };
    Ok(report(&desk.ground.options.directory, &connection, &found, after.as_ref()))
}

fn order(desk: &Desk, request: &VerifyRequest) -> Result<CheckOrder, Failure> {
    let below = match &request.path {
        None => None,
        Some(path) => part::find(&desk.ground, path)?,
    };
    let kind = if request.audit { HashKind::Audit } else { HashKind::Fast };
    let content = (request.checksum || request.audit).then(|| BlockHash::draw(kind));
    Ok(CheckOrder { content, below, rate: request.rate })
}

/// A copy under way makes the replica good; then it can be compared.
fn wait_for_mirror(connection: &Connection, caller: &Caller<'_>) -> Result<(), Failure> {
    loop {
        let runs = |mirror: &MirrorStatus| {
            matches!(mirror, MirrorStatus::Calculating | MirrorStatus::Mirroring { .. })
        };
        let report = connection.wait(Instant::now() + LOOK_EVERY, |report| !runs(&report.mirror));
        if !runs(&report.mirror) {
            return Ok(());
        }
        if let Some(why) = report.held_back() {
            return Err(not_done(connection, &format!("its copy is not through, and {why}")));
        }
        if caller.is_gone() {
            return Err(not_done(connection, "nobody waits for it any more"));
        }
    }
}

fn run(connection: &Arc<Connection>, order: CheckOrder, caller: &Caller<'_>) -> Result<Verified, Failure> {
    let outcome = connection.verify(order);
    let verified = wait(&outcome, || caller.is_gone().then(|| connection.stop_verifying()));
    verified.map_err(|why| not_done(connection, &why))
}

/// Has a copy mend what was found, and compares again.
fn repaired(
    connection: &Arc<Connection>,
    found: &Verified,
    order: CheckOrder,
    caller: &Caller<'_>,
) -> Result<Verified, Failure> {
    let failed = |why: &str| {
        Failure::new(
            format!("Connection {} ({}) could not be repaired: {why}.", connection.id, connection.target),
            "What differs is mended by the next copy, except for content whose size and time are equal.",
            "See `standin status`.",
        )
    };
    let begun = connection.repair(Suspects::found(found), order.below.clone()).recv();
    begun.unwrap_or_else(|_| Err("it is not there any more".into())).map_err(|why| failed(&why))?;
    loop {
        let report = connection.wait(Instant::now() + LOOK_EVERY, |report| report.streaming);
        match (report.streaming, report.held_back()) {
            (true, _) => return run(connection, order, caller),
            (false, Some(why)) => return Err(failed(why)),
            (false, None) if caller.is_gone() => return Err(failed("nobody waits for it any more")),
            (false, None) => {}
        }
    }
}

fn wait(outcome: &Receiver<Outcome>, look: impl Fn() -> Option<()>) -> Outcome {
    loop {
        match outcome.recv_timeout(LOOK_EVERY) {
            Ok(outcome) => return outcome,
            Err(RecvTimeoutError::Disconnected) => return Err("the connection is not there any more".into()),
            Err(RecvTimeoutError::Timeout) => drop(look()),
        }
    }
}

fn not_done(connection: &Connection, why: &str) -> Failure {
    Failure::new(
        format!("Connection {} ({}) could not be verified: {why}.", connection.id, connection.target),
        "Nothing was changed, and nothing is known of its replica.",
        "See `standin status`.",
    )
}

/// What was found, and what it is after a repair.
fn report(
    directory: &Path,
    connection: &Connection,
    before: &Verified,
    after: Option<&Verified>,
) -> VerifyReport {
    let Verified { counts, unread, from, upto, took, .. } = after.unwrap_or(before);
    // What a repair has not mended is what counts.
    let found =
        after.filter(|after| !after.counts.is_identical()).map_or(&before.found, |after| &after.found);
    let mut len = 0;
    let differences = found.iter().map(|difference| Found {
        kind: difference.kind,
        path: directory.join(OsStr::from_bytes(&difference.path.0)),
        bytes: difference.bytes,
    });
    // The others are counted.
    let differences = differences.take_while(|found| {
        len += serde_json::to_string(found).map_or(0, |text| text.len() + 1);
        len <= CONTROL_RESPONSE_LEN_MAX / 2
    });
    VerifyReport {
        connection: connection.id,
        target: connection.target.to_string(),
        identical: counts.is_identical() && *unread == 0,
        counts: *counts,
        before_repair: after.map(|_| before.counts),
        unread: *unread,
        from: *from,
        upto: *upto,
        took_ms: took.as_millis() as u64,
        differences: differences.collect(),
    }
}
