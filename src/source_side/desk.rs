//! The daemon's end of the control socket. What only reads is answered here, from what the director
//! has posted; what changes something is put to the director, and its answer awaited.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::Sender;

use super::board::Board;
use super::director::{Event, Question};
use super::ground::Ground;
use super::{commands, foreseeing, marking, presence, reload, status, sync, upgrade, verifying};
use crate::control::{
    Caller, ChangedConnection, ClonesRequest, ConfigurationReport, ConnectionChange, FileReport,
    FilesRequest, Handler, MarkerReport, MarkerRequest, OrphansRequest, ReloadReport, ReplicaClones,
    ReplicaOrphans, ResyncReport, RulesReport, Status, StopMode, StopReport, SyncReport, UpgradeLook,
    UpgradeRequest, VerifyReport, VerifyRequest, WaitSync, ask,
};
use crate::failure::Failure;
use crate::limits::CONTROL_ANSWER;
use crate::target_side::{clones, orphans};
use crate::words::{StatisticsTo, Target};

/// See the module.
pub struct Desk {
    pub ground: Arc<Ground>,
    pub board: Arc<Board>,
    pub director: Sender<Event>,
}

impl Handler for Desk {
    fn status(&self) -> Status {
        status::status(&self.ground, &self.board.read())
    }

    fn statistics(&self) -> Option<StatisticsTo> {
        self.ground.options.statistics.clone()
    }

    fn wait_sync(&self, wait: WaitSync, caller: &Caller<'_>) -> Result<SyncReport, Failure> {
        let posted = self.board.read();
        if posted.connections.is_empty() && !self.ground.options.targets.is_empty() {
            return Err(commands::none_left());
        }
        let since = Instant::now();
        let deadline = wait.timeout.map(|timeout| since + timeout);
        let places = (&*self.ground, &*self.board);
        if !sync::flush_mapped(&posted, deadline, || caller.is_gone())? {
            let report = sync::report(places, sync::Upto::queued(&self.ground.queue), wait.wait_for, since);
            return Ok(sync::without_mapped_writes(report));
        }
        let left = |deadline: Instant| deadline.saturating_duration_since(Instant::now());
        let patience = deadline.map_or(CONTROL_ANSWER, |deadline| left(deadline).min(CONTROL_ANSWER));
        let upto = sync::barrier(&self.ground, &self.director, wait.wait_for, patience)?;
        sync::wait_for(places, upto, (wait.wait_for, true), deadline, || caller.is_gone());
        Ok(sync::report(places, upto, wait.wait_for, since))
    }

    fn files(&self, request: &FilesRequest, caller: &Caller<'_>) -> Result<Vec<FileReport>, Failure> {
        presence::files(self, request, caller)
    }

    fn marker(&self, request: &MarkerRequest, caller: &Caller<'_>) -> Result<MarkerReport, Failure> {
        marking::mark(self, request, caller)
    }

    fn stop(&self, mode: StopMode, caller: &Caller<'_>) -> Result<StopReport, Failure> {
        let stopped = || self.board.read().stopped.clone();
        let question = |answer| Event::Asked(Question::Stop { mode, answer });
        let outcome = ask(&self.director, CONTROL_ANSWER, question)
            .and_then(|asked| asked.unless(sync::CALLER_POLL, || stopped().is_some() || caller.is_gone()));
        match (outcome, stopped()) {
            (Ok(outcome), _) => outcome,
            (Err(_), Some(report)) => Ok(report),
            (Err(why), None) => Err(why.into()),
        }
    }

    fn upgrade(&self, request: &UpgradeRequest, caller: &Caller<'_>) -> Result<UpgradeLook, Failure> {
        upgrade::upgrade(self, request, caller)
    }

    fn connection(
        &self,
        change: ConnectionChange,
        which: Option<&str>,
    ) -> Result<ChangedConnection, Failure> {
        commands::change(self, change, which)
    }

    fn verify(&self, request: &VerifyRequest, caller: &Caller<'_>) -> Result<VerifyReport, Failure> {
        verifying::verify(self, request, caller)
    }

    fn rules(&self) -> Result<RulesReport, Failure> {
        Ok(reload::reload(&self.ground, &self.board)?.1)
    }

    fn reload(&self) -> Result<ReloadReport, Failure> {
        Ok(reload::reload(&self.ground, &self.board)?.0)
    }

    fn configuration(&self) -> ConfigurationReport {
        reload::report(&self.ground)
    }

    fn foresee(&self, caller: &Caller<'_>) -> Result<ResyncReport, Failure> {
        foreseeing::foresee(self, caller)
    }

    /// As orphans; of a replica that was not there when the daemon started it knows nothing.
    fn clones(&self, request: &ClonesRequest) -> Result<Vec<ReplicaClones>, Failure> {
        let posted = self.board.read();
        let name = &self.ground.options.name;
        let units: Vec<_> = posted.connections.iter().filter_map(|at| at.unit(name)).collect();
        units.iter().for_each(|unit| unit.clones.resume());
        let options = &self.ground.options;
        let keeps_off: Vec<_> =
            options.backing.iter().chain([&options.directory, &options.state]).cloned().collect();
        clones::answer(&units, &keeps_off, request)
    }

    /// Of replicas within this process; those of other hosts have daemons of their own.
    fn orphans(&self, request: &OrphansRequest, caller: &Caller<'_>) -> Result<Vec<ReplicaOrphans>, Failure> {
        let options = &self.ground.options;
        if let Some(wanted) = request.replica.as_ref().filter(|wanted| **wanted != options.name) {
            return Err(orphans::unknown(wanted));
        }
        let local = |target: &Target| match target {
            Target::Local(path) => Some(path.clone()),
            Target::Null | Target::Remote { .. } => None,
        };
        let of = |path: PathBuf| orphans::answer((&options.name, &path), request, &|| !caller.is_gone());
        let posted = self.board.read();
        posted.connections.iter().map(|connection| &connection.target).filter_map(local).map(of).collect()
    }
}
