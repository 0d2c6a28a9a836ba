//! `standin verify`: compares the replica of a connection with the directory, for the caller who waits.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::RecvTimeoutError;

use super::commands;
use super::connection::{Connection, Report, Suspects, Verified};
use super::desk::Desk;
use super::ground::Ground;
use super::part::{self, UNTOUCHED};
use super::sync::lacks_comparison;
use crate::control::{Caller, ConnectionState, Found, MirrorStatus, VerifyReport, VerifyRequest};
use crate::failure::Failure;
use crate::limits::CONTROL_RESPONSE_LEN_MAX;
use crate::packet::BlockHash;
use crate::resync::CheckOrder;
use crate::units;
use crate::words::HashKind;

/// How often one comparison is begun again because of a copy that came in between.
const VERIFY_TRIES_MAX: u32 = 16;

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
    let since = Instant::now();
    let limit = request.timeout_ms.map(Duration::from_millis);
    let waiting = Waiting { connection: &connection, ground: &desk.ground, caller, since, limit };
    let found = waiting.compared(&order)?;
    let after = match request.repair && !found.counts.is_identical() {
        true => Some(waiting.repaired(&found, order)?),
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
    Ok(CheckOrder { content, below, rate: request.rate, ..CheckOrder::default() })
}

/// Who waits, for what, since when and for how long at most.
struct Waiting<'a> {
    connection: &'a Arc<Connection>,
    ground: &'a Ground,
    caller: &'a Caller<'a>,
    since: Instant,
    limit: Option<Duration>,
}

impl Waiting<'_> {
    /// A copy under way makes the replica good; then it can be compared.
    fn for_mirror(&self) -> Result<(), Failure> {
        loop {
            let report = self.connection.wait(Instant::now() + LOOK_EVERY, |report| !is_copied(report));
            if !is_copied(&report) {
                return Ok(());
            }
            if let Some(why) = report.held_back() {
                return Err(not_done(self.connection, &format!("its copy is not through, and {why}")));
            }
            if let Some(why) = self.is_over() {
                return Err(not_done(self.connection, &format!("its copy is not through, and {why}")));
            }
        }
    }

    /// What comes into the set meanwhile is copied first.
    fn compared(&self, order: &CheckOrder) -> Result<Verified, Failure> {
        let mut tries = VERIFY_TRIES_MAX;
        loop {
            self.for_mirror()?;
            tries -= 1;
            let done = self.run(order.clone());
            if done.is_ok() || self.is_over().is_some() || !self.is_awaited() {
                return done;
            }
            if tries == 0 {
                let why = self
                    .ground
                    .volume
                    .divergence()
                    .planned()
                    .unwrap_or_else(|| "its replica is copied to".into());
                return Err(not_done(self.connection, &format!("{why}, and so again and again")));
            }
            // Also where the target has heard of it before it was asked, and has ended the connection.
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn is_awaited(&self) -> bool {
        let report = self.connection.report();
        let goes_on = matches!(report.state, ConnectionState::Started | ConnectionState::Error);
        let lacks = || lacks_comparison(&report, self.ground).is_some_and(|lack| lack.is_awaited);
        is_copied(&report) || goes_on && lacks()
    }

    fn run(&self, order: CheckOrder) -> Result<Verified, Failure> {
        let outcome = self.connection.verify(order);
        let mut stopped = None;
        let verified = loop {
            match outcome.recv_timeout(LOOK_EVERY) {
                Ok(outcome) => break outcome,
                Err(RecvTimeoutError::Disconnected) => {
                    break Err("the connection is not there any more".into());
                }
                Err(RecvTimeoutError::Timeout) if stopped.is_some() => {}
                Err(RecvTimeoutError::Timeout) => {
                    stopped = self.is_over();
                    if stopped.is_some() {
                        self.connection.stop_verifying();
                    }
                }
            }
        };
        verified.map_err(|why| not_done(self.connection, &stopped.unwrap_or(why)))
    }

    /// Has a copy mend what was found, and compares again.
    fn repaired(&self, found: &Verified, order: CheckOrder) -> Result<Verified, Failure> {
        let failed = |why: &str| {
            Failure::new(
                format!(
                    "Connection {} ({}) could not be repaired: {why}.",
                    self.connection.id, self.connection.target
                ),
                "What differs is mended by the next copy, except for content whose size and time are equal.",
                "See `standin status`.",
            )
        };
        // Programs may have moved meanwhile what differs: what was not copied is compared again, too.
        let part = order.below.clone().or_else(|| found.part());
        let begun = self.connection.repair(Suspects::found(found), part).recv();
        begun.unwrap_or_else(|_| Err("it is not there any more".into())).map_err(|why| failed(&why))?;
        loop {
            let report = self.connection.wait(Instant::now() + LOOK_EVERY, |report| report.streaming);
            match (report.streaming, report.held_back()) {
                (true, _) => return self.compared(&order),
                (false, Some(why)) => return Err(failed(why)),
                (false, None) => {
                    if let Some(why) = self.is_over() {
                        return Err(failed(&why));
                    }
                }
            }
        }
    }

    /// Why it is waited no longer. What is compared goes behind the packets that were written before: where
    /// more is written than the target applies, that is what it waits for.
    fn is_over(&self) -> Option<String> {
        if self.caller.is_gone() {
            return Some("nobody waits for it any more".into());
        }
        let limit = self.limit.filter(|limit| self.since.elapsed() >= *limit)?;
        let behind = self.ground.queue.behind(self.connection.report().applied).unwrap_or_default();
        let waits = match behind.packets {
            0 => String::new(),
            packets => format!(
                "; its target has yet to apply {} packets ({}), and what is compared waits behind them",
                units::count(packets),
                units::size(behind.bytes)
            ),
        };
        Some(format!("it has not ended within {}{waits}", units::duration(limit)))
    }
}

fn is_copied(report: &Report) -> bool {
    matches!(report.mirror_shown(), MirrorStatus::Calculating | MirrorStatus::Mirroring { .. })
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
