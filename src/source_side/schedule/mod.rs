//! Verifications that come by themselves: as `--verify-every` says, or the file of the set. Whether that file could
//! be followed as it is now is looked after here, too.
//!
//! ```text
//!  --verify-every, sets/NAME.toml ── plan ──> machine (pure) ── due ──> Connection::verify ── what it found
//! ```
//! One at a time. What cannot be made now (a copy runs, the target is away, another one runs) is tried again.

mod machine;

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use self::machine::Schedule;
use super::board::Board;
use super::connection::{Connection, Outcome};
use super::ground::Ground;
use crate::control::{MirrorStatus, unix_ms};
use crate::packet::BlockHash;
use crate::resync::CheckOrder;
use crate::sys::utc_offset;
use crate::words::{HashKind, VerifyMode, VerifyPlan};

/// How often it is looked whether one is due.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Makes them until it is dropped.
pub struct PlannedChecks {
    _end: Sender<()>,
}

struct Planner {
    ground: Arc<Ground>,
    board: Arc<Board>,
    schedules: HashMap<u32, Schedule>,
    plan: Option<VerifyPlan>,
}

impl PlannedChecks {
    pub fn begin(ground: &Arc<Ground>, board: &Arc<Board>) -> io::Result<PlannedChecks> {
        let (end, ended) = bounded(0);
        let (ground, board) = (ground.clone(), board.clone());
        let mut planner = Planner { ground, board, schedules: HashMap::new(), plan: None };
        std::thread::Builder::new().name("schedule".into()).spawn(move || planner.run(&ended))?;
        Ok(PlannedChecks { _end: end })
    }
}

impl Planner {
    fn run(&mut self, ended: &Receiver<()>) {
        while ended.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
            self.learn();
            let Some(plan) = self.plan else { continue };
            let posted = self.board.read();
            for connection in posted.connections.iter().filter(|connection| !connection.is_null()) {
                self.look(&plan, connection, ended);
            }
        }
    }

    /// What was typed goes before what stands in the file, as that was read last.
    fn learn(&mut self) {
        self.plan = self.ground.options.verify.or(self.ground.followed.terms().verify);
        self.ground.followed.look();
    }

    fn look(&mut self, plan: &VerifyPlan, connection: &Arc<Connection>, ended: &Receiver<()>) {
        let now = (unix_ms(std::time::SystemTime::now()) / 1000) as i64;
        let Some(served) = connection.kept().checks_served_s else { return };
        let schedule = self.schedules.entry(connection.id).or_default();
        let Some(point) = schedule.due(plan, served, now, &utc_offset) else { return };
        if copies(connection) {
            log::debug!("connection {}: its verification waits for a copy", connection.id);
            return;
        }
        let outcome = connection.verify_for(order(plan), Some(point));
        say(connection, wait(connection, &outcome, ended));
    }
}

fn copies(connection: &Connection) -> bool {
    matches!(
        connection.report().mirror,
        MirrorStatus::Calculating | MirrorStatus::Mirroring { .. } | MirrorStatus::Verifying
    )
}

fn order(plan: &VerifyPlan) -> CheckOrder {
    let kind = match plan.mode {
        VerifyMode::Attributes => None,
        VerifyMode::Checksum => Some(HashKind::Fast),
        VerifyMode::Audit => Some(HashKind::Audit),
    };
    CheckOrder { content: kind.map(BlockHash::draw), ..CheckOrder::default() }
}

/// `None`: the protection ends.
fn wait(connection: &Connection, outcome: &Receiver<Outcome>, ended: &Receiver<()>) -> Option<Outcome> {
    crossbeam_channel::select! {
        recv(outcome) -> outcome => outcome.ok(),
        recv(ended) -> _ => {
            connection.stop_verifying();
            None
        }
    }
}

fn say(connection: &Connection, outcome: Option<Outcome>) {
    let (id, target) = (connection.id, &connection.target);
    match outcome {
        None => {}
        Some(Ok(verified)) if verified.counts.is_identical() => {
            log::info!(
                "connection {id} to {target}: verified, {} objects are identical",
                verified.counts.compared
            );
        }
        Some(Ok(verified)) => {
            let counts = verified.counts;
            log::error!(
                "connection {id} to {target}: its replica differs: {} missing, {} extra, {} different; `standin \
                 verify --repair` mends it",
                counts.missing,
                counts.extra,
                counts.different
            );
        }
        Some(Err(why)) => log::info!("connection {id} to {target}: not verified now, tried again: {why}"),
    }
}
