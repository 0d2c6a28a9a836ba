//! The threads that copy, one a session.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use rustix::fs::{CWD, RenameFlags};

use super::Sessions;
use super::directory::{is_own, open, partial, remove_own};
use crate::clone::copy::{Copier, Stopped, Turn};
use crate::clone::machine::{Force, State, Trigger};
use crate::clone::session::{Record, Session};
use crate::sys::FileHandle;

impl Sessions {
    /// Gives the sessions of an older process their threads. Not before this process has the privileges that
    /// it keeps.
    pub fn resume(&self) {
        if !self.is_resuming.swap(false, SeqCst) {
            return;
        }
        self.is_asked.store(self.wanted.lock().is_some(), SeqCst);
        let all: Vec<Arc<Session>> = self.all.lock().values().cloned().collect();
        for session in all {
            let record = session.record();
            let needs_work = match record.state {
                State::Synchronizing => !record.is_lazy,
                State::TerminationInProgress => true,
                State::Synchronized | State::Split | State::RestoreInProgress | State::Failed => false,
            };
            if needs_work {
                self.work(&session);
            }
        }
    }

    /// Nothing is copied from now on: somebody else changes the replica, and preserves nothing. What is being removed is
    /// waited for by nobody.
    pub fn end_copies(&self) {
        let names: Vec<String> = {
            let workers = self.workers.lock();
            self.is_over.store(true, SeqCst);
            workers.keys().cloned().collect()
        };
        let all: Vec<Arc<Session>> = self.all.lock().values().cloned().collect();
        all.iter().for_each(|session| session.stops.store(true, SeqCst));
        let is_removed = |name: &String| {
            all.iter().any(|session| session.name == *name && session.state() == State::TerminationInProgress)
        };
        names.iter().filter(|name| !is_removed(name)).for_each(|name| self.join(name));
    }

    /// A thread does what is to be done for a session, if none does yet.
    pub(super) fn work(&self, session: &Arc<Session>) {
        if cfg!(test) {
            // Tests do it themselves, step by step.
            return;
        }
        let mut workers = self.workers.lock();
        if self.is_over.load(SeqCst) {
            return;
        }
        if workers.get(&session.name).is_some_and(|worker| !worker.is_finished()) {
            return;
        }
        let (itself, own) = (self.itself.clone(), session.clone());
        let (replica, limbo) = (self.places.root.try_clone(), self.places.limbo.try_clone());
        let limbo_is_inside = self.places.limbo_is_inside();
        let work = move || {
            let (Ok(replica), Ok(limbo)) = (replica, limbo) else { return };
            let ended = own.record().state == State::TerminationInProgress;
            if !ended {
                run(&own, replica, &limbo, limbo_is_inside);
            }
            if let Some(sessions) = itself.upgrade() {
                sessions.look_who_preserves();
                if ended {
                    sessions.try_to_end(&own);
                }
            }
        };
        match std::thread::Builder::new().name("clone".into()).spawn(work) {
            Ok(thread) => _ = workers.insert(session.name.clone(), thread),
            Err(error) => session.fail(&format!("no thread could be started: {error}")),
        }
    }

    /// The copy of a session, for tests that make each step themselves.
    #[cfg(test)]
    pub(crate) fn copier(&self, name: &str) -> Result<TestCopy, String> {
        let session = self.all.lock().get(name).cloned().ok_or("no such session")?;
        let replica = self.places.root.try_clone().map_err(|error| error.to_string())?;
        let copier =
            begin(&session, replica, self.places.limbo_is_inside()).map_err(|error| error.to_string())?;
        let limbo = self.places.limbo.try_clone().map_err(|error| error.to_string())?;
        Ok(TestCopy { session, copier, limbo })
    }

    /// A worker that comes to grief while its session is being ended, or was.
    #[cfg(test)]
    pub(crate) fn fail_worker(&self, name: &str) {
        let session = self.all.lock().get(name).cloned();
        if let Some(session) = session {
            has_failed(&session, &self.places.limbo, "for a test");
        }
    }

    #[cfg(test)]
    pub(crate) fn settle(&self) {
        self.look_who_preserves();
    }
}

/// A copy that is made step by step.
#[cfg(test)]
pub(crate) struct TestCopy {
    session: Arc<Session>,
    copier: Copier,
    limbo: fs::File,
}

#[cfg(test)]
impl TestCopy {
    pub(crate) fn turn(&mut self) -> Result<Turn, String> {
        let turn = self.copier.turn().map_err(|why| why.to_string())?;
        if turn == Turn::Complete {
            complete(&self.session, &self.limbo)?;
        }
        Ok(turn)
    }
}

/// Until it is complete, has failed, or was told to stop.
fn run(session: &Arc<Session>, replica: fs::File, limbo: &fs::File, limbo_is_inside: bool) {
    let why = match copied(session, replica, limbo_is_inside) {
        Ok(()) => match complete(session, limbo) {
            Ok(()) => return,
            Err(why) => why,
        },
        Err(Stopped::Told) => return,
        Err(Stopped::Failed(why)) => why,
    };
    // Whoever ends it takes away what it works with.
    if !session.is_ending() {
        has_failed(session, limbo, &why);
    }
}

fn copied(session: &Arc<Session>, replica: fs::File, limbo_is_inside: bool) -> Result<(), Stopped> {
    if session.record().is_copied {
        return Ok(());
    }
    let mut copier = begin(session, replica, limbo_is_inside)?;
    while copier.turn()? == Turn::More {}
    Ok(())
}

/// A copy of everything; what an older process has copied goes first.
fn begin(session: &Arc<Session>, replica: fs::File, limbo_is_inside: bool) -> Result<Copier, Stopped> {
    let record = session.record();
    if !session.preserves() {
        let why = session.shown().reason.unwrap_or_else(|| "what was preserved is gone".into());
        return Err(Stopped::Failed(why));
    }
    let failed = |what: &'static str| move |error: io::Error| Stopped::Failed(format!("{what}: {error}"));
    let partial = partial(&record.dir);
    remove_own(&partial, &record).map_err(failed("what was copied before cannot be removed"))?;
    // Of a process that was killed before it could note that it is its own: empty then.
    let _ = fs::remove_dir(&partial);
    fs::create_dir(&partial).map_err(failed("the copy's directory cannot be made"))?;
    let root = open(&partial).map_err(failed("the copy's directory cannot be opened"))?;
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    root.set_permissions(private).map_err(failed("the copy's directory cannot be made"))?;
    let handle = FileHandle::of(root.as_fd()).map_err(failed("its file system has no file handles"))?;
    let noted = Some((handle.kind(), handle.as_bytes().to_vec()));
    session.change(|record| record.root = noted).map_err(failed("the session cannot be noted"))?;
    session.objects.store(0, SeqCst);
    session.bytes.store(0, SeqCst);
    Copier::new(session.clone(), replica, root, limbo_is_inside).map_err(failed("the copy cannot begin"))
}

/// All is copied and on the disk: the copy gets its name, and stands for itself.
fn complete(session: &Session, limbo: &fs::File) -> Result<(), String> {
    let failed = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
    if !session.record().is_copied {
        // Failed in the last moment, it is not complete.
        if !session.preserves() {
            return Err(session.shown().reason.unwrap_or_default());
        }
        session.change(|record| record.is_copied = true).map_err(failed("the session cannot be noted"))?;
        session.let_go();
    }
    give_name(&session.record()).map_err(failed("the copy cannot be given its name"))?;
    let done = session
        .goto(Trigger::CopyComplete, Force::No, |_| ())
        .map_err(failed("the session cannot be noted"))?;
    done.map_err(|refused| refused.to_string())?;
    if let Err(error) = session.give_back(limbo) {
        log::warn!("the area of clone '{}' is not given back yet: {error}", session.name);
    }
    Ok(())
}

fn give_name(record: &Record) -> io::Result<()> {
    let partial = partial(&record.dir);
    if is_own(&partial, record)? {
        rustix::fs::renameat_with(CWD, &partial, CWD, &record.dir, RenameFlags::NOREPLACE)?;
    } else if !is_own(&record.dir, record)? {
        return Err(io::Error::new(io::ErrorKind::NotFound, "somebody has moved or removed it"));
    }
    match record.dir.parent() {
        Some(parent) => fs::File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

/// What it took is given back at once; what it was and why it failed stays to be seen.
fn has_failed(session: &Session, limbo: &fs::File, why: &str) {
    session.fail(why);
    // First: the disk may be full.
    let given = session.give_back(limbo).and_then(|()| {
        let record = session.record();
        remove_own(&partial(&record.dir), &record)?;
        // It may have had its name already.
        remove_own(&record.dir, &record)
    });
    if let Err(error) = given {
        log::warn!("what clone '{}' took is not given back yet: {error}", session.name);
    }
    let reason = session.shown().reason;
    let noted = session.goto(Trigger::UnrecoverableError, Force::Yes, |record| record.reason = reason);
    if let Err(error) = noted {
        log::warn!("that clone '{}' has failed cannot be noted: {error}", session.name);
    }
}
