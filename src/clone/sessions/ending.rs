//! The end of a session: what it took is given back, as often as that has to be tried.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use super::directory::{is_covered, is_there, may_be_removed, partial, remove_own};
use super::{Refusal, Sessions, Stop, because};
use crate::clone::machine::{Force, State, Trigger, step};
use crate::clone::session::{End, Record, Session, Shown};

impl Sessions {
    /// Ends a session, and gives back what it took; of one that is being ended already, tries that again.
    ///
    /// Errors: it is refused; or it goes on being ended later.
    pub fn stop(&self, name: &str, stop: Stop) -> Result<Shown, Refusal> {
        let session = self.all.lock().get(name).cloned().ok_or(Refusal::Unknown)?;
        let _turn = session.ending.lock();
        if !self.has(&session) {
            return Err(Refusal::Unknown);
        }
        if stop.removes && !session.record().is_lazy {
            may_be_removed(&session.record()).map_err(because("its directory cannot be removed"))?;
        }
        let wanted = |record: &mut Record| {
            if record.state != State::TerminationInProgress {
                record.was_incomplete = record.state != State::Split;
            }
            record.removes = stop.removes;
        };
        let noted = match session.state() {
            State::TerminationInProgress => session.change(wanted).map(Ok),
            _ => session.goto(Trigger::Stop, stop.force, wanted),
        };
        noted.map_err(because("the end of the session cannot be noted"))?.map_err(Refusal::Machine)?;
        session.stops.store(true, SeqCst);
        session.let_go();
        self.look_who_preserves();
        // What its worker still makes belongs to what is given back.
        self.join(name);
        let shown = session.shown();
        let end = self.clean_up(&session).map_err(because(
            "it is being ended, and not all is given back yet (stop it again to try again)",
        ))?;
        Ok(Shown { end: Some(end), ..shown })
    }

    /// Tries again what could not be given back; waits for nobody who does.
    pub fn tend(&self) {
        if self.is_resuming.load(SeqCst) {
            return;
        }
        let all: Vec<Arc<Session>> = self.all.lock().values().cloned().collect();
        for session in all {
            if session.record().state == State::TerminationInProgress {
                self.try_to_end(&session);
            }
        }
    }

    pub(super) fn try_to_end(&self, session: &Session) {
        if let Some(_turn) = session.ending.try_lock()
            && self.has(session)
            && let Err(error) = self.clean_up(session)
        {
            log::warn!("clone '{}' is not cleaned up yet: {error}", session.name);
        }
    }

    fn has(&self, session: &Session) -> bool {
        self.all.lock().get(&session.name).is_some_and(|own| std::ptr::eq(&raw const **own, session))
    }

    pub(super) fn join(&self, name: &str) {
        let worker = self.workers.lock().remove(name);
        if let Some(worker) = worker
            && worker.thread().id() != std::thread::current().id()
            && worker.join().is_err()
        {
            log::error!("the thread that copied '{name}' panicked");
        }
    }

    /// The last step of a session that ends. Whoever calls it holds `ending`, and no worker copies any more.
    fn clean_up(&self, session: &Session) -> io::Result<End> {
        let record = session.record();
        let ended = step(Some(record.state), Trigger::CleanupComplete, record.kind, Force::No);
        if !ended.is_ok_and(|next| next.state.is_none()) {
            return Err(io::Error::other(format!("it is {}, and is not being ended", record.state)));
        }
        session.give_back(&self.places.limbo)?;
        let end = match record.is_lazy {
            true => End::NeverComplete,
            false => {
                remove_own(&partial(&record.dir), &record)?;
                end_directory(session, &record)?
            }
        };
        session.forget()?;
        self.all.lock().remove(&session.name);
        log::info!("clone '{}': {} -> none", session.name, record.state);
        Ok(end)
    }
}

fn end_directory(session: &Session, record: &Record) -> io::Result<End> {
    if record.was_incomplete {
        // It may have had its name already.
        remove_own(&record.dir, record)?;
        // Made, and not noted yet: empty then.
        let _ = std::fs::remove_dir(partial(&record.dir));
        return Ok(End::NeverComplete);
    }
    let is_covered = !record.removes && is_covered(&record.dir);
    if !is_covered && !is_there(&record.dir, record)? {
        return Ok(End::NotThere);
    }
    if !record.removes {
        return Ok(if record.is_inconsistent { End::KeptInPart } else { End::Kept });
    }
    may_be_removed(record)?;
    session.change(|record| record.is_inconsistent = true)?;
    remove_own(&record.dir, record)?;
    Ok(End::Removed)
}
