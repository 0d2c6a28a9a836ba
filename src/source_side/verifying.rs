//! `standin verify`: compares the replica of a connection with the directory, for the caller who waits.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::commands;
use super::connection::{Connection, Outcome, Suspects, Verified};
use super::desk::Desk;
use crate::control::{Caller, Found, MirrorStatus, VerifyReport, VerifyRequest};
use crate::failure::Failure;
use crate::limits::CONTROL_RESPONSE_LEN_MAX;
use crate::packet::{BlockHash, DifferenceKind, ObjectId};
use crate::resync::CheckOrder;
use crate::words::HashKind;

/// How often it is looked whether anybody still waits.
const LOOK_EVERY: Duration = Duration::from_millis(200);

const UNTOUCHED: &str = "Nothing was changed.";

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
        Some(path) => below(&desk.ground.options.directory, path)?,
    };
    let kind = if request.audit { HashKind::Audit } else { HashKind::Fast };
    let content = (request.checksum || request.audit).then(|| BlockHash::draw(kind));
    Ok(CheckOrder { content, below, rate: request.rate })
}

/// The path below the directory; `None`: the directory itself.
fn below(directory: &Path, path: &Path) -> Result<Option<PathBuf>, Failure> {
    let relative = match path.is_absolute() {
        true => path.strip_prefix(directory).ok(),
        false => Some(path),
    };
    let parts = relative.map(|path| {
        path.components().filter(|part| *part != Component::CurDir).collect::<Vec<Component<'_>>>()
    });
    match parts {
        Some(parts) if parts.iter().all(|part| matches!(part, Component::Normal(_))) => {
            let path: PathBuf = parts.iter().collect();
            Ok((!parts.is_empty()).then_some(path))
        }
        _ => Err(Failure::new(
            format!("{} is not in {}.", path.display(), directory.display()),
            UNTOUCHED,
            "Name a directory in it, without `..`.",
        )),
    }
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
    let begun = connection.repair(suspects(found)).recv();
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

/// Where not all is known by name, everything is suspect.
fn suspects(Verified { counts, found, .. }: &Verified) -> Suspects {
    let names = |kind| found.iter().filter(|found| found.kind == kind).count() as u64;
    let differ =
        found.iter().filter(|found| !matches!(found.kind, DifferenceKind::Missing | DifferenceKind::Extra));
    let objects: HashSet<ObjectId> = differ.filter_map(|found| found.object).collect();
    let all = counts.missing + counts.extra + counts.different;
    let named = names(DifferenceKind::Missing) + names(DifferenceKind::Extra) + objects.len() as u64;
    if named < all { Suspects::All } else { Suspects::These(Arc::new(objects)) }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(path: &str, expected: Option<Option<&str>>) {
        let found = below(Path::new("/srv/web"), Path::new(path)).ok();
        assert_eq!(found, expected.map(|path| path.map(PathBuf::from)), "{path}");
    }

    #[test]
    fn a_path_is_below_the_directory() {
        check("a/b", Some(Some("a/b")));
        check("./a/./b/", Some(Some("a/b")));
        check("/srv/web/a", Some(Some("a")));
        check("/srv/web", Some(None));
        check(".", Some(None));
        check("/srv/webs/a", None);
        check("/etc", None);
        check("../a", None);
        check("a/../../b", None);
        check("a/..", None);
    }
}
