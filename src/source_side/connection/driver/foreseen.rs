//! What a resynchronisation would take if it began now, as far as this side can tell: by what decides it when it does
//! begin, and nothing is changed.

use std::sync::Arc;

use super::super::surroundings::{FirstOwed, OwedOrder, Surroundings};
use super::super::{Report, Suspects};
use super::Driver;
use super::owed::Everything;
use super::rung::{NOTHING_YET, not_by_the_map};
use crate::connection::{FaultKind, NotNow};
use crate::control::Rung;
use crate::packet::{BadBy, Chain, DataState, Position, ReplicaProof, Sequence};
use crate::resync::Owed;
use crate::source_side::mark::EVERYTHING;
use crate::words::CopyMode;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreseen {
    /// `None`: there would be none.
    pub rung: Option<Rung>,
    pub why: String,
    /// What has to be so at the target, where that is not known now.
    pub assumes: String,
    pub is_running: bool,
    /// The target has everything up to here.
    pub since: Option<Sequence>,
    /// Of [`Rung::Owed`], as far as it is known.
    pub owed: Option<Arc<Owed>>,
    /// It is looked for, by change times, what is owed beside that.
    pub is_searched: bool,
    /// Names of whatever is no directory, about.
    pub names: Option<u64>,
}

impl<S: Surroundings> Driver<S> {
    pub(super) fn foresee(&self) -> Foreseen {
        let report = self.shared.report.lock().clone();
        let foreseen = match self.why_none(&report) {
            Some(why) => Foreseen::of(None, why),
            None => self.foresee_one(&report),
        };
        let names = self.guard_noted();
        match foreseen.rung {
            Some(_) if !foreseen.is_running => Foreseen { assumes: self.assumed(&report), names, ..foreseen },
            _ => Foreseen { names, ..foreseen },
        }
    }

    fn why_none(&self, report: &Report) -> Option<String> {
        if let Some(why) = self.settings.divergence.lost_by_disk() {
            return Some(format!(
                "the disk of the directory lost writes that it has ({why}): nothing is copied"
            ));
        }
        let is_kept_out = report.refusal == Some(FaultKind::KeptOut);
        is_kept_out.then(|| format!("somebody else writes the set: {}", report.reason))
    }

    fn foresee_one(&self, report: &Report) -> Foreseen {
        if let Some(rung) = self.copy.rung() {
            let taken = report.resync.as_ref().map(|resync| resync.why.clone());
            let why = taken.unwrap_or_else(|| self.machine.reason().to_owned());
            return Foreseen { is_running: true, since: report.base, ..Foreseen::of(Some(rung), why) };
        }
        if let Some(asked) = self.guard_asks().filter(|asked| asked.by_copy) {
            return self.by_copy(report, &asked.to_string());
        }
        let goes_on = report.heard || self.settings.goes_on;
        match self.machine.let_go() {
            None if self.left.is_some() => self.by_left(),
            Some(why) => self.by_copy(report, why),
            None if self.machine.is_streaming() => match self.why_mended(report) {
                Some(why) => self.of_everything(report, why),
                None => self.by_queue(report.applied),
            },
            None if goes_on => self.by_queue(self.acknowledged),
            // Of another run of this source.
            None => self.by_copy(report, "nothing was sent to it since the start of the protection"),
        }
    }

    /// The stream runs, and a copy has to come all the same.
    fn why_mended(&self, report: &Report) -> Option<String> {
        let divergence = &self.settings.divergence;
        match () {
            () if divergence.count() > report.covers => {
                let why = divergence.why().or_else(|| divergence.planned()).unwrap_or_default();
                Some(format!("no packet tells of it: {why}"))
            }
            () if report.aside.total > 0 => Some("objects are set aside there, and are tried again".into()),
            () if !report.left_out.is_empty() => {
                Some("the last copy left objects out, which are tried again".into())
            }
            () if report.data == DataState::Bad && report.retrying.is_none() => {
                Some(format!("its target calls the replica bad: {}", report.data_reason))
            }
            () => None,
        }
    }

    pub(super) fn by_left(&self) -> Foreseen {
        let why = "what was queued before the last stop; then, by a minicopy, what has changed since";
        Foreseen { since: Some(self.acknowledged), ..Foreseen::of(Some(Rung::Queue), why.into()) }
    }

    pub(super) fn by_queue(&self, since: Sequence) -> Foreseen {
        let (rung, why) = match self.queue.last().sequence > since {
            true => (Rung::Queue, "the queue holds all that it lacks"),
            false if self.wished.is_some() => (
                Rung::Nothing,
                "it has everything, as far as is known: a mirror that was started by hand compares it",
            ),
            false => (Rung::Nothing, "it has everything"),
        };
        Foreseen { since: Some(since), ..Foreseen::of(Some(rung), why.into()) }
    }

    fn by_copy(&self, report: &Report, why: &str) -> Foreseen {
        if report.data == DataState::Empty {
            return Foreseen::of(Some(Rung::Full), NOTHING_YET.into());
        }
        let presumed = self.presumed(report).ok_or(Everything::NoBase);
        let owed = presumed.and_then(|presumed| self.owed_to(&presumed));
        match owed {
            Ok(order) => of_owed(order, self.lacks.base(), why),
            Err(everything) => self.of_everything(report, not_by_the_map(why, everything)),
        }
    }

    fn of_everything(&self, report: &Report, why: String) -> Foreseen {
        Foreseen::of(Some(self.rung_of_everything(report.data == DataState::Empty)), why)
    }

    /// Of a copy that does not go by what is owed.
    pub(super) fn rung_of_everything(&self, is_empty: bool) -> Rung {
        let is_all_suspect = self.suspects == Suspects::All || self.suspect_since() == EVERYTHING;
        match self.copy_mode {
            _ if is_empty => Rung::Full,
            CopyMode::Differences | CopyMode::DifferencesChecksum if is_all_suspect => Rung::Checksum,
            mode => Rung::of(mode),
        }
    }

    /// What the target would say of itself; `None`: nobody knows.
    fn presumed(&self, report: &Report) -> Option<ReplicaProof> {
        let is_heard_now = self.session.as_ref().is_some_and(|session| session.welcomed);
        match () {
            () if is_heard_now && !self.machine.is_streaming() => self.lacks.proof(),
            () if report.heard => Some(self.as_it_was(report)),
            () => self.as_noted(),
        }
    }

    /// What a copy of what is in doubt would bring, where one can be made.
    ///
    /// Errors: why not.
    pub(super) fn in_doubt(&self) -> Result<(), NotNow> {
        let report = self.shared.report.lock().clone();
        // What a power loss has left in doubt the activity log tells.
        if self.merge.is_some() {
            return Ok(());
        }
        let presumed = self.presumed(&report).ok_or(Everything::NoBase);
        let order = presumed.and_then(|presumed| self.owed_to(&presumed));
        match order.map_err(|everything| NotNow::NeedsFull(everything.why()))?.first {
            FirstOwed::Known(owed) if owed.objects.is_empty() => Err(NotNow::NothingInDoubt),
            FirstOwed::Known(_) | FirstOwed::ByTime { .. } => Ok(()),
        }
    }

    /// Of one that was connected in this run, where nothing has happened to it since.
    fn as_it_was(&self, report: &Report) -> ReplicaProof {
        let (said, last) = (self.lacks.proof(), self.queue.last());
        let applied = match said.as_ref().map(|said| said.applied) {
            Some(applied) if self.acknowledged <= self.start.sequence => applied,
            _ => {
                let sequence = self.acknowledged;
                let chain = if sequence == last.sequence { last.chain } else { Chain::default() };
                Position { sequence, chain, ..last }
            }
        };
        let is_called_bad = report.data == DataState::Bad && !report.data_reason.is_empty();
        let (data, bad_by) = match said {
            // One that was cut off.
            _ if report.copy_attempts > 0 && report.is_minicopy => (DataState::Bad, BadBy::Owed),
            _ if report.copy_attempts > 0 => (DataState::Bad, BadBy::Anything),
            _ if report.aside.total > 0 || is_called_bad => (DataState::Bad, BadBy::Aside),
            Some(said) => (said.data, said.bad_by),
            // It was brought into line since.
            None => (DataState::Good, BadBy::default()),
        };
        ReplicaProof { data, bad_by, applied, durable: applied, ..ReplicaProof::default() }
    }

    /// Of one that has not answered in this run, where it is as it was noted last.
    fn as_noted(&self) -> Option<ReplicaProof> {
        let reached = self.settings.marks.reached(&self.settings.target.to_string())?;
        let applied =
            Position { incarnation: reached.run, sequence: reached.sequence, ..Position::default() };
        Some(ReplicaProof { data: DataState::Good, applied, durable: applied, ..ReplicaProof::default() })
    }

    fn assumed(&self, report: &Report) -> String {
        let is_heard_now = self.session.as_ref().is_some_and(|session| session.welcomed);
        match report.refusal {
            _ if is_heard_now => "",
            Some(_) => "its target takes this source in again, which it refused",
            None if report.heard => "its target has what it said to have when it was connected last",
            None => "its target, which has not answered since the start, has what was noted of it",
        }
        .to_owned()
    }
}

impl Foreseen {
    fn of(rung: Option<Rung>, why: String) -> Foreseen {
        Foreseen {
            rung,
            why,
            assumes: String::new(),
            is_running: false,
            since: None,
            owed: None,
            is_searched: false,
            names: None,
        }
    }

    /// Of one that nobody answers for.
    pub fn none(why: &str) -> Foreseen {
        Foreseen::of(None, why.into())
    }
}

fn of_owed(order: OwedOrder, since: Option<Sequence>, why: &str) -> Foreseen {
    let OwedOrder { first, now, .. } = order;
    let (owed, is_searched) = match first {
        FirstOwed::Known(owed) => (Some(owed), false),
        FirstOwed::ByTime { found, .. } => match (found.get().cloned(), now()) {
            (Some(found), Some(now)) => (Some(Arc::new(found.and(now))), false),
            (_, now) => (now.map(Arc::new), true),
        },
    };
    Foreseen { since, owed, is_searched, ..Foreseen::of(Some(Rung::Owed), why.into()) }
}
