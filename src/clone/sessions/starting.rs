//! The start of a session: what is asked for is looked at, and the applier's thread gives the moment.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Instant;

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};

use super::directory::check_directory;
use super::{Refusal, Sessions, Start, Wanted, because};
use crate::clone::limits::{BARRIER_PATIENCE, BARRIER_POLL, SESSIONS_MAX};
use crate::clone::machine::{Force, Kind, State, Trigger, step};
use crate::clone::session::{Record, Session, Shown};
use crate::place::Place;
use crate::sys::boot_id;
use crate::words::is_set_name;

impl Sessions {
    /// Begins a session; `nudge` has the applier look for what waits, if nobody else works on it.
    ///
    /// Errors: nothing has begun, and nothing is left of it.
    pub fn start(&self, start: &Start, nudge: impl Fn()) -> Result<Shown, Refusal> {
        let _turn = self.starting.lock();
        step(None, Trigger::Start, Kind::Copy, Force::No).map_err(Refusal::Machine)?;
        self.check(start)?;
        let record = self.record_of(start.dir.as_deref(), start.room_max)?;
        let session = Session::create(&self.places.state, &self.places.limbo, &start.name, record)
            .map_err(because("the session cannot be made"))?;
        let begun = self.wait_for_barrier(&session, start.accepts_bad, nudge);
        let begun =
            begun.and_then(|()| session.change(|_| ()).map_err(because("the session cannot be noted")));
        if let Err(why) = begun {
            self.discard(&session);
            return Err(why);
        }
        if start.dir.is_some() {
            self.work(&session);
        }
        Ok(session.shown())
    }

    fn check(&self, start: &Start) -> Result<(), Refusal> {
        let refuse = |why: String| Err(Refusal::Because(why));
        if !is_set_name(&start.name) {
            return refuse(format!(
                "'{}' cannot name a clone: letters, digits and any of - _ . @ +, 64 at most",
                start.name
            ));
        }
        let all = self.all.lock();
        if all.contains_key(&start.name) {
            return refuse(format!("there is a clone '{}' already", start.name));
        }
        if all.len() >= SESSIONS_MAX {
            return refuse(format!(
                "there are {SESSIONS_MAX} clones of this replica already, which is the most"
            ));
        }
        drop(all);
        start.dir.as_deref().map_or(Ok(()), |dir| self.check_place(dir, &start.keeps_off))
    }

    pub(super) fn check_place(&self, dir: &Path, keeps_off: &[PathBuf]) -> Result<(), Refusal> {
        let records: Vec<(String, Record)> =
            self.all.lock().iter().map(|(name, session)| (name.clone(), session.record())).collect();
        let of_others = || records.iter().filter(|(_, record)| !record.is_lazy);
        if let Some((other, _)) = of_others().find(|(_, record)| record.dir == dir) {
            return Err(Refusal::Because(format!("{} is the directory of clone '{other}'", dir.display())));
        }
        let own = of_others().map(|(_, record)| record.dir.clone());
        let keeps_off: Vec<PathBuf> = own.chain(keeps_off.iter().cloned()).collect();
        check_directory(&self.places, &keeps_off, dir).map_err(Refusal::Because)
    }

    pub(super) fn record_of(&self, dir: Option<&Path>, room_max: Option<u64>) -> Result<Record, Refusal> {
        Ok(Record {
            kind: Kind::Copy,
            state: State::Synchronizing,
            dir: dir.unwrap_or(Path::new("")).to_owned(),
            is_lazy: dir.is_none(),
            keeps_good: false,
            keeps_adopted: false,
            barrier: None,
            boot: boot_id().map_err(because("which boot this is cannot be told"))?,
            place: Place::of(self.places.root.as_fd()),
            fence: None,
            room_max,
            is_copied: false,
            root: None,
            is_inconsistent: false,
            removes: false,
            was_incomplete: false,
            objects_all: 0,
            reason: None,
        })
    }

    fn wait_for_barrier(
        &self,
        session: &Arc<Session>,
        accepts_bad: bool,
        nudge: impl Fn(),
    ) -> Result<(), Refusal> {
        let (answer, answered) = bounded(1);
        *self.wanted.lock() = Some(Wanted { session: session.clone(), accepts_bad, answer });
        self.is_asked.store(true, SeqCst);
        let deadline = Instant::now() + BARRIER_PATIENCE;
        loop {
            nudge();
            if let Some(outcome) = heard(&answered)? {
                return outcome.map_err(Refusal::Because);
            }
            if Instant::now() >= deadline && self.take_wanted().is_some() {
                return Err(Refusal::Because(
                    "no moment between two packets has come: an op is being tried again, `standin status` says which".into(),
                ));
            }
        }
    }
}

/// What the applier's thread has said, if it has within a moment.
fn heard(answered: &Receiver<Result<(), String>>) -> Result<Option<Result<(), String>>, Refusal> {
    match answered.recv_timeout(BARRIER_POLL) {
        Ok(outcome) => Ok(Some(outcome)),
        Err(RecvTimeoutError::Timeout) => Ok(None),
        Err(RecvTimeoutError::Disconnected) => Err(Refusal::Because("the replica is being closed".into())),
    }
}
