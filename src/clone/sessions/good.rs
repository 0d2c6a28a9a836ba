//! The last good state of a replica, kept while the replica is bad: a session that is not copied.
//!
//! ```text
//!  good ── a copy begins, or a change comes that no packet tells ──> bad, and 'last-good' preserves
//!                                                                      │            │ clone copy
//!                                            good again: given up <────┘            └──> an ordinary clone
//! ```
//! Begun and given up by the applier's thread, which waits for nobody.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use super::{Moment, Refusal, Sessions, Stop, because};
use crate::clone::limits::SESSIONS_MAX;
use crate::clone::machine::{Force, State};
use crate::clone::session::{Barrier, Session, Shown, now_ms};

/// As people know it; where that is taken, with a number.
const NAME: &str = "last-good";

/// When a session that nobody has asked for is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keeps {
    UntilGood,
    /// When somebody says so.
    Asked,
}

impl Sessions {
    /// Whether the last good state is to be kept while the replica is bad.
    pub fn keep_good(&self, is_wanted: bool) {
        self.wants_good.store(is_wanted, SeqCst);
    }

    /// It is to be, and none is.
    pub fn lacks_good(&self) -> bool {
        self.wants_good.load(SeqCst) && self.last_good().is_none_or(|kept| kept.state == State::Failed)
    }

    /// Perhaps one is kept.
    #[inline]
    pub fn has_good(&self) -> bool {
        self.has_good.load(SeqCst)
    }

    /// The newest that is kept, or has failed.
    pub fn last_good(&self) -> Option<Shown> {
        let kept = self.list().into_iter().filter(|shown| shown.keeps_good);
        kept.max_by_key(|shown| shown.barrier.as_ref().map(|barrier| barrier.at_ms))
    }

    /// The replica is good, in this moment for the last time. What cannot be kept is said in the log, and
    /// keeps nothing up.
    pub fn good_ends(&self, moment: Moment) {
        match self.begin_good(moment) {
            Ok(session) => {
                log::info!("the replica as of {} is kept as clone '{}'", moment.position, session.name)
            }
            Err(why) => log::warn!("the last good state of the replica is not kept: {why}"),
        }
    }

    fn begin_good(&self, moment: Moment) -> Result<Arc<Session>, Refusal> {
        let session = self.begin_by_itself(NAME, Keeps::UntilGood, moment, None)?;
        self.has_good.store(true, SeqCst);
        Ok(session)
    }

    /// Begins a session that nobody has asked for, under this name or one with a number behind it.
    pub(super) fn begin_by_itself(
        &self,
        name: &str,
        keeps: Keeps,
        moment: Moment,
        room_max: Option<u64>,
    ) -> Result<Arc<Session>, Refusal> {
        let name = self.free_name(name)?;
        let mut record = self.record_of(None, room_max)?;
        (record.keeps_good, record.keeps_adopted) = (keeps == Keeps::UntilGood, keeps == Keeps::Asked);
        let session = Session::create(&self.places.state, &self.places.limbo, &name, record)
            .map_err(because("the session cannot be made"))?;
        let Moment { position, is_bad, fence, objects } = moment;
        session.begins(Barrier { position, at_ms: now_ms(), is_bad }, fence, objects);
        if let Err(error) = session.change(|_| ()) {
            self.discard(&session);
            return Err(because("the session cannot be noted")(error));
        }
        self.all.lock().insert(name, session.clone());
        self.look_who_preserves();
        Ok(session)
    }

    fn free_name(&self, name: &str) -> Result<String, Refusal> {
        let all = self.all.lock();
        if all.len() >= SESSIONS_MAX {
            return Err(Refusal::Because(format!("there are {SESSIONS_MAX} clones of this replica already")));
        }
        let names = std::iter::once(name.to_owned()).chain((2..).map(|number| format!("{name}-{number}")));
        let mut free = names.filter(|name| !all.contains_key(name));
        free.next().ok_or_else(|| Refusal::Because("no name is free".into()))
    }

    /// The replica is good again: nothing is preserved any more, and a thread gives back what it took.
    pub fn is_good_again(&self) {
        self.has_good.store(false, SeqCst);
        let all: Vec<Arc<Session>> = self.all.lock().values().cloned().collect();
        let kept: Vec<String> = all
            .iter()
            .filter(|session| session.lets_go_of_good())
            .map(|session| session.name.clone())
            .collect();
        if kept.is_empty() {
            return;
        }
        self.look_who_preserves();
        if cfg!(test) {
            return self.give_up(&kept);
        }
        let itself = self.itself.clone();
        let give_up = move || {
            if let Some(sessions) = itself.upgrade() {
                sessions.give_up(&kept);
            }
        };
        // Without a thread the next start gives it up.
        if let Err(error) = std::thread::Builder::new().name("clone".into()).spawn(give_up) {
            log::warn!("no thread could be started: {error}");
        }
    }

    fn give_up(&self, names: &[String]) {
        for name in names {
            match self.stop(name, Stop { force: Force::Yes, removes: false }) {
                Ok(_) | Err(Refusal::Unknown) => {}
                Err(why) => log::warn!("clone '{name}' is not given up yet: {why}"),
            }
        }
    }
}
