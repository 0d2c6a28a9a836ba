//! The sessions of one replica: begun, listed, ended; and the threads that copy.
//!
//! ```text
//!  start (a person's thread) ── wanted ──> the applier's thread, between two packets: the barrier
//!        <────────────────────── answer ──      │ from here on changes are preserved
//!        │ record, durably                      v
//!        └── worker ── copy ── its name ── SPLIT        stop ── TERM-IN-PROG ── what it took is given back
//! ```

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;

use crossbeam_channel::Sender;
use parking_lot::{Mutex, RwLock};

use super::guard::{Watch, Watching};
use super::machine::{Force, Refused};
use super::session::{Barrier, Session, Shown, now_ms};
use crate::packet::{Epoch, Position};
use crate::place::Place;

mod adopted;
mod directory;
mod ending;
mod good;
mod lazy;
mod starting;
mod work;

pub use self::adopted::{LOST_WRITES, is_taken_out, lost_writes_of, note_taken_out};
#[cfg(test)]
pub(crate) use self::work::TestCopy;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Start {
    pub name: String,
    /// `None`: it is not copied before somebody asks.
    pub dir: Option<PathBuf>,
    /// Also of a replica that is no consistent state of its source.
    pub accepts_bad: bool,
    /// Bytes that its area may take; `None`: as the disk has room.
    pub room_max: Option<u64>,
    /// Directories of this daemon in which it must not lie.
    pub keeps_off: Vec<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stop {
    pub force: Force,
    /// The directory goes as well.
    pub removes: bool,
}

/// Why something was not done, in one line; nothing was changed.
#[derive(Debug)]
pub enum Refusal {
    Machine(Refused),
    Because(String),
    /// No such session.
    Unknown,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Machine(refused) => refused.fmt(f),
            Refusal::Because(why) => f.write_str(why),
            Refusal::Unknown => f.write_str("there is no such clone"),
        }
    }
}

fn because(what: &str) -> impl Fn(io::Error) -> Refusal + '_ {
    move |error| Refusal::Because(format!("{what}: {error}"))
}

/// What the replica is between two packets.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    pub position: Position,
    pub is_bad: bool,
    pub fence: Option<Epoch>,
    /// That the replica knows.
    pub objects: u64,
}

/// A session that waits for its barrier.
pub struct Wanted {
    session: Arc<Session>,
    pub accepts_bad: bool,
    answer: Sender<Result<(), String>>,
}

/// See the module.
pub struct Sessions {
    places: Places,
    all: Mutex<BTreeMap<String, Arc<Session>>>,
    /// Those that preserve; looked at before each frame.
    watching: RwLock<Watching>,
    is_watching: AtomicBool,
    /// One start at a time.
    starting: Mutex<()>,
    wanted: Mutex<Option<Wanted>>,
    /// Something waits for the applier's thread.
    is_asked: AtomicBool,
    /// Sessions of an older process wait for their threads.
    is_resuming: AtomicBool,
    /// The replica is nobody's of this process any more.
    is_over: AtomicBool,
    /// The last good state is kept while the replica is bad.
    wants_good: AtomicBool,
    /// Perhaps one is kept.
    has_good: AtomicBool,
    /// Bytes that may be taken by what a directory had.
    lost_writes_max: Mutex<Option<u64>>,
    workers: Mutex<HashMap<String, JoinHandle<()>>>,
    itself: Weak<Sessions>,
}

/// Where the replica is, and what belongs to it.
pub struct Places {
    /// Open for reading.
    pub root: File,
    pub limbo: File,
    pub root_path: PathBuf,
    pub limbo_path: PathBuf,
    pub state: PathBuf,
}

impl Places {
    fn limbo_is_inside(&self) -> bool {
        self.limbo_path.starts_with(&self.root_path)
    }
}

impl Sessions {
    /// Those that an older process has left. A session that cannot be gone on with has failed; nothing keeps
    /// a replica from being opened.
    pub fn load(places: Places, fence: Option<Epoch>) -> Arc<Sessions> {
        let found = load_all(&places, fence);
        let is_resuming = !found.is_empty();
        let has_good = found.values().any(|session| session.record().keeps_good);
        let sessions = Arc::new_cyclic(|itself| Sessions {
            places,
            all: Mutex::new(found),
            watching: RwLock::new(Vec::new().into()),
            is_watching: AtomicBool::new(false),
            starting: Mutex::default(),
            wanted: Mutex::default(),
            is_asked: AtomicBool::new(is_resuming),
            is_resuming: AtomicBool::new(is_resuming),
            is_over: AtomicBool::new(false),
            wants_good: AtomicBool::new(false),
            has_good: AtomicBool::new(has_good),
            lost_writes_max: Mutex::default(),
            workers: Mutex::default(),
            itself: itself.clone(),
        });
        sessions.look_who_preserves();
        sessions
    }

    /// The changes of this thread are preserved as long as the value lives.
    #[inline]
    pub fn watch(&self) -> Option<Watch> {
        self.is_watching.load(Relaxed).then(|| Watch::of(self.watching.read().clone()))
    }

    /// Whether anything waits for the applier.
    #[inline]
    pub fn is_asked(&self) -> bool {
        self.is_asked.load(Relaxed)
    }

    fn look_who_preserves(&self) {
        let all = self.all.lock();
        let preserving: Vec<_> = all.values().filter(|session| session.preserves()).cloned().collect();
        self.is_watching.store(!preserving.is_empty(), SeqCst);
        *self.watching.write() = preserving.into();
    }

    // ---- on the applier's thread ----

    /// The session that waits for a barrier, if one does.
    pub fn take_wanted(&self) -> Option<Wanted> {
        let wanted = self.wanted.lock().take();
        self.is_asked.store(self.is_resuming.load(SeqCst), SeqCst);
        wanted
    }

    /// This is the moment between two packets. From here on changes are preserved.
    pub fn begin(&self, wanted: Wanted, moment: Result<Moment, String>) {
        let begun = moment.map(|moment| {
            let session = &wanted.session;
            let Moment { position, is_bad, fence, objects } = moment;
            session.begins(Barrier { position, at_ms: now_ms(), is_bad }, fence, objects);
            self.all.lock().insert(session.name.clone(), session.clone());
            self.look_who_preserves();
        });
        let _ = wanted.answer.send(begun);
    }

    // ---- for people ----

    fn discard(&self, session: &Session) {
        self.all.lock().remove(&session.name);
        session.let_go();
        self.look_who_preserves();
        let gone = session.give_back(&self.places.limbo).and_then(|()| session.forget());
        if let Err(error) = gone {
            log::warn!("clone '{}', which was not begun, has left something: {error}", session.name);
        }
    }

    /// The replica's fence was raised, and nobody has written past the applier for it: what is kept goes on.
    pub fn fence_raised(&self, from: Option<Epoch>, to: Option<Epoch>) {
        let all: Vec<Arc<Session>> = self.all.lock().values().cloned().collect();
        all.iter().for_each(|session| session.fence_raised(from, to));
    }

    pub fn list(&self) -> Vec<Shown> {
        self.all.lock().values().map(|session| session.shown()).collect()
    }
}

impl Drop for Sessions {
    fn drop(&mut self) {
        self.end_copies();
    }
}

fn load_all(places: &Places, fence: Option<Epoch>) -> BTreeMap<String, Arc<Session>> {
    let (mut found, place) = (BTreeMap::new(), Place::of(places.root.as_fd()));
    for name in names_in(&places.state.join("clones")) {
        match Session::open(&places.state, &places.limbo, &name, (&place, fence)) {
            Ok(Some(session)) => _ = found.insert(name, session),
            Ok(None) => {
                log::info!("clone '{name}' had not begun when the daemon was stopped");
                drop_unbegun(places, &name);
            }
            Err(error) => log::error!("the record of clone '{name}' cannot be read: {error}"),
        }
    }
    found
}

fn drop_unbegun(places: &Places, name: &str) {
    let area = super::preserved::open_directory(&places.limbo, super::session::AREAS)
        .and_then(|areas| super::session::remove_below(&areas, name));
    let own = std::fs::remove_dir_all(places.state.join("clones").join(name));
    for error in [area.err(), own.err()].into_iter().flatten() {
        if error.kind() != io::ErrorKind::NotFound {
            log::warn!("clone '{name}', which had not begun, has left something: {error}");
        }
    }
}

fn names_in(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}
