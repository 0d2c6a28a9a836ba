//! One session: what it is, what it has preserved, and what of that survives a restart.
//!
//! ```text
//!  state/clones/NAME/session.json   what it is: replaced whole, durably
//!  state/clones/NAME/records        log of what was preserved; without it nothing was
//!  limbo/clones/NAME/blocks, kept   blocks of files; objects that have no other name
//!  PARENT/.DIR.standin-clone        the copy, until it is complete: then DIR
//! ```
//! A session that is being made has a record without a position: it was never answered, and is removed.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::guard::look;
use super::limits::REASON_LEN_MAX;
use super::looks::Looks;
use super::machine::{Force, Kind, Refused, State, Trigger, is_ready, is_unit_ready, step};
use super::preserved::{NameHeld, Preserved, Ranges, open_directory};
use super::removal;
use crate::packet::{Epoch, Position};
use crate::place::Place;
use crate::store;
use crate::sys::{FileHandle, boot_id};

/// What a session is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Barrier {
    pub position: Position,
    /// When it began, milliseconds since 1970.
    pub at_ms: u64,
    /// It was no consistent state of its source.
    pub is_bad: bool,
}

/// What is kept of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) kind: Kind,
    pub(super) state: State,
    /// Empty as long as it is copied nowhere.
    #[serde(with = "path_text")]
    pub(super) dir: PathBuf,
    /// It is not copied before somebody asks.
    #[serde(default)]
    pub(super) is_lazy: bool,
    /// The daemon has begun it, before the replica became bad; it goes when the replica is good again.
    #[serde(default)]
    pub(super) keeps_good: bool,
    /// The daemon has begun it, before what only this host had was overwritten.
    #[serde(default)]
    pub(super) keeps_adopted: bool,
    pub(super) barrier: Option<Barrier>,
    /// What it lacks is in the page cache of this boot.
    pub(super) boot: u128,
    pub(super) place: Place,
    /// Whoever stands in for the source writes past the applier.
    pub(super) fence: Option<Epoch>,
    pub(super) room_max: Option<u64>,
    /// All is copied and synced; what is left is to give it its name.
    pub(super) is_copied: bool,
    /// Handle of the copy's root, once it is there: kind, and bytes.
    pub(super) root: Option<(i32, Vec<u8>)>,
    /// What its directory holds is no state of anything.
    pub(super) is_inconsistent: bool,
    /// The directory goes with it.
    pub(super) removes: bool,
    /// It was ended before it was complete: there is nothing of it to be kept.
    #[serde(default)]
    pub(super) was_incomplete: bool,
    /// That the replica had at the barrier, about.
    #[serde(default)]
    pub(super) objects_all: u64,
    pub(super) reason: Option<String>,
}

/// Paths in documents need not be UTF-8.
mod path_text {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    use std::path::{Path, PathBuf};

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(path: &Path, to: S) -> Result<S::Ok, S::Error> {
        path.as_os_str().as_bytes().serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<PathBuf, D::Error> {
        Ok(std::ffi::OsString::from_vec(Vec::deserialize(from)?).into())
    }
}

/// What became of the directory of a session that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It stands for itself.
    Kept,
    Removed,
    /// A removal had begun before somebody wanted to keep it: what is left of it stays.
    KeptInPart,
    /// It was not where it had been made.
    NotThere,
    /// There was none that was complete, and nothing of it is left.
    NeverComplete,
}

/// A session, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    pub name: String,
    pub kind: Kind,
    pub state: State,
    /// `None`: it is not copied before somebody asks.
    pub dir: Option<PathBuf>,
    pub barrier: Option<Barrier>,
    /// The daemon has begun it, before the replica became bad.
    pub keeps_good: bool,
    /// The daemon has begun it, before what only this host had was overwritten.
    pub keeps_adopted: bool,
    /// The directory may be used.
    pub is_ready: bool,
    pub is_unit_ready: bool,
    pub is_inconsistent: bool,
    pub reason: Option<String>,
    /// Objects and bytes that are copied.
    pub objects: u64,
    pub bytes: u64,
    /// Objects that the replica had at the barrier, about.
    pub objects_all: u64,
    /// Bytes that the area takes.
    pub room: u64,
    /// The longest time that the preserving before one change took, in microseconds.
    pub longest_hold_us: u64,
    /// It is no more.
    pub end: Option<End>,
}

/// See the module.
pub(super) struct Session {
    pub(super) name: String,
    /// Of its own, in the state of the replica.
    state: PathBuf,
    record: Mutex<Record>,
    /// `None`: nothing is preserved any more, or never was.
    preserved: Mutex<Option<Preserved>>,
    /// Why it has failed, before that is on the disk.
    broken: Mutex<Option<String>>,
    /// Its copy is to stop.
    pub(super) stops: AtomicBool,
    /// Whoever holds it ends the session.
    pub(super) ending: Mutex<()>,
    pub(super) objects: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) objects_all: AtomicU64,
    longest_hold_us: AtomicU64,
}

impl Session {
    /// Makes the places of a session that has no barrier yet.
    pub(super) fn create(state: &Path, limbo: &File, name: &str, record: Record) -> io::Result<Arc<Session>> {
        let all = state.join("clones");
        store::own_directory(&all, 0o700, store::Symlink::Own)?;
        let own = all.join(name);
        std::fs::create_dir(&own)?;
        let made = || -> io::Result<Preserved> {
            store::replace_json(&own.join(DOCUMENT), &record)?;
            let area = make_area(limbo, name)?;
            Preserved::create(&own.join(RECORDS), &area, record.room_max)
        };
        match made() {
            Ok(preserved) => Ok(Arc::new(Self::with(name, own, record, Some(preserved)))),
            Err(error) => {
                let _ = std::fs::remove_dir_all(&own);
                Err(error)
            }
        }
    }

    /// A session of an older process; `None`: it was never begun.
    ///
    /// Errors: it is damaged.
    pub(super) fn open(
        state: &Path,
        limbo: &File,
        name: &str,
        now: (&Place, Option<Epoch>),
    ) -> io::Result<Option<Arc<Session>>> {
        let own = state.join("clones").join(name);
        let Some(record) = store::read_json::<Record>(&own.join(DOCUMENT))? else { return Ok(None) };
        if record.barrier.is_none() {
            return Ok(None);
        }
        let needs_preserved = record.state == State::Synchronizing && !record.is_copied;
        if !needs_preserved {
            return Ok(Some(Arc::new(Self::with(name, own, record, None))));
        }
        let preserved = still_whole(&record, now).and_then(|()| {
            let open = || {
                let area = open_directory(&open_directory(limbo, AREAS)?, name)?;
                Preserved::open(&own.join(RECORDS), &area, record.room_max)
            };
            open().map_err(|error| format!("what was preserved for it cannot be read: {error}"))
        });
        let (preserved, why) = match preserved {
            Ok(preserved) => (Some(preserved), None),
            Err(why) => (None, Some(why)),
        };
        let session = Self::with(name, own, record, preserved);
        if let Some(why) = why {
            session.fail(&why);
        }
        Ok(Some(Arc::new(session)))
    }

    fn with(name: &str, state: PathBuf, record: Record, preserved: Option<Preserved>) -> Session {
        let objects_all = record.objects_all;
        Session {
            name: name.to_owned(),
            state,
            record: Mutex::new(record),
            preserved: Mutex::new(preserved),
            broken: Mutex::default(),
            stops: AtomicBool::new(false),
            ending: Mutex::default(),
            objects: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            objects_all: AtomicU64::new(objects_all),
            longest_hold_us: AtomicU64::new(0),
        }
    }

    pub(super) fn record(&self) -> Record {
        self.record.lock().clone()
    }

    /// Persist, then publish.
    pub(super) fn change(&self, change: impl FnOnce(&mut Record)) -> io::Result<()> {
        self.change_held(&mut self.record.lock(), change)
    }

    fn change_held(&self, record: &mut Record, change: impl FnOnce(&mut Record)) -> io::Result<()> {
        let mut next = record.clone();
        change(&mut next);
        store::replace_json(&self.state.join(DOCUMENT), &next)?;
        *record = next;
        Ok(())
    }

    /// The one place where the state changes: looked at and changed under one lock. `with` sees what it was.
    ///
    /// A session that is being ended cannot fail any more: what cannot be given back yet is tried again.
    ///
    /// Errors: the machine refuses it (inner), the disk (outer); nothing has changed.
    pub(super) fn goto(
        &self,
        trigger: Trigger,
        force: Force,
        with: impl FnOnce(&mut Record),
    ) -> io::Result<Result<(), Refused>> {
        let mut record = self.record.lock();
        let before = self.state_of(&record);
        if (before, trigger) == (State::TerminationInProgress, Trigger::UnrecoverableError) {
            return Ok(Ok(()));
        }
        let next = match step(Some(before), trigger, record.kind, force) {
            Ok(next) => next,
            Err(refused) => return Ok(Err(refused)),
        };
        let Some(state) = next.state else { return Ok(Ok(())) };
        self.change_held(&mut record, |record| {
            with(record);
            record.state = state;
            record.is_inconsistent |= next.is_inconsistent;
        })?;
        log::info!("clone '{}': {before} -> {state} ({})", self.name, trigger.word());
        Ok(Ok(()))
    }

    /// The barrier is known from now on; not on the disk yet.
    pub(super) fn begins(&self, barrier: Barrier, fence: Option<Epoch>, objects_all: u64) {
        let mut record = self.record.lock();
        (record.barrier, record.fence, record.objects_all) = (Some(barrier), fence, objects_all);
        self.objects_all.store(objects_all, Relaxed);
    }

    /// The replica's fence was raised, and nobody has written past the applier for it. The process that ends before this is
    /// noted leaves a session that has failed for the next one.
    pub(super) fn fence_raised(&self, from: Option<Epoch>, to: Option<Epoch>) {
        let record = &mut *self.record.lock();
        if record.fence == from
            && record.barrier.is_some()
            && self.preserves()
            && let Err(error) = self.change_held(record, |record| record.fence = to)
        {
            log::warn!("clone '{}' ends with this process: its record cannot be written: {error}", self.name);
        }
    }

    pub(super) fn state(&self) -> State {
        self.state_of(&self.record.lock())
    }

    /// Somebody ends it, or the process ends: its worker leaves it alone.
    pub(super) fn is_ending(&self) -> bool {
        self.stops.load(SeqCst) || self.record.lock().state == State::TerminationInProgress
    }

    fn state_of(&self, record: &Record) -> State {
        // What is broken is failed from the moment on, whatever the disk says yet.
        match record.state {
            State::Synchronizing if self.broken.lock().is_some() => State::Failed,
            state => state,
        }
    }

    /// It cannot become what it was to be. Without its log no later process takes it for whole, which needs no
    /// room on the disk.
    pub(super) fn fail(&self, why: &str) {
        let mut preserved = self.preserved.lock();
        *preserved = None;
        let log = self.state.join(RECORDS);
        if let Err(error) = std::fs::remove_file(&log)
            && error.kind() != io::ErrorKind::NotFound
        {
            log::error!("{}: cannot be removed: {error}", log.display());
            let _ = std::fs::write(&log, "");
        }
        let mut broken = self.broken.lock();
        if broken.is_none() {
            log::error!("clone '{}' has failed: {why}", self.name);
            *broken = Some(why.chars().take(REASON_LEN_MAX).collect());
        }
    }

    /// Whether changes are to be preserved.
    pub(super) fn preserves(&self) -> bool {
        self.preserved.lock().is_some()
    }

    /// Nothing is preserved any more.
    pub(super) fn let_go(&self) {
        *self.preserved.lock() = None;
    }

    /// It becomes this directory, which nothing was said of so far.
    ///
    /// Errors: it preserves nothing any more (inner), the disk (outer); nothing has changed.
    pub(super) fn be_copied_to(&self, dir: &Path) -> io::Result<Result<(), State>> {
        let mut record = self.record.lock();
        let state = self.state_of(&record);
        if state != State::Synchronizing || !self.preserves() {
            return Ok(Err(state));
        }
        self.change_held(&mut record, |record| {
            (record.is_lazy, record.keeps_good, record.dir) = (false, false, dir.to_owned());
        })?;
        Ok(Ok(()))
    }

    /// Of one that keeps the last good state: nothing is preserved any more. `false`: it is another one.
    pub(super) fn lets_go_of_good(&self) -> bool {
        let record = self.record.lock();
        if record.keeps_good {
            self.let_go();
        }
        record.keeps_good
    }

    pub(super) fn shown(&self) -> Shown {
        let record = self.record();
        let room = self.preserved.lock().as_ref().map_or(0, Preserved::room);
        let state = self.state();
        Shown {
            name: self.name.clone(),
            kind: record.kind,
            state,
            // There is no view of one that is not complete, and one that is being ended may be going.
            is_ready: is_ready(state, record.kind)
                && !matches!(state, State::Synchronizing | State::TerminationInProgress),
            is_unit_ready: is_unit_ready(state),
            dir: (!record.is_lazy).then_some(record.dir),
            keeps_good: record.keeps_good,
            keeps_adopted: record.keeps_adopted,
            barrier: record.barrier,
            is_inconsistent: record.is_inconsistent,
            reason: self.broken.lock().clone().or(record.reason),
            objects: self.objects.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            objects_all: self.objects_all.load(Relaxed),
            room,
            longest_hold_us: self.longest_hold_us.load(Relaxed),
            end: None,
        }
    }

    /// Removes its area, and what else it has on the disk but for its record.
    pub(super) fn give_back(&self, limbo: &File) -> io::Result<()> {
        self.let_go();
        let areas = match open_directory(limbo, AREAS) {
            Ok(areas) => areas,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        remove_below(&areas, &self.name)?;
        match std::fs::remove_file(self.state.join(RECORDS)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Removes its record: it is no more.
    pub(super) fn forget(&self) -> io::Result<()> {
        match std::fs::remove_dir_all(&self.state) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    // ---- before a change ----

    fn preserve(&self, preserve: impl FnOnce(&mut Preserved) -> Result<(), String>) -> Result<(), String> {
        let begun = Instant::now();
        let mut preserved = self.preserved.lock();
        let done = preserved.as_mut().map_or(Ok(()), preserve);
        let took = begun.elapsed().as_micros() as u64;
        if took > self.longest_hold_us.load(Relaxed) {
            self.longest_hold_us.store(took, Relaxed);
        }
        done
    }

    pub(super) fn name(&self, dir: BorrowedFd<'_>, name: &[u8]) -> Result<(), String> {
        let of = handle_of(dir)?;
        let held = match look(dir, name) {
            Ok(held) => held,
            // Somebody's mount: nobody takes it away.
            Err(error) if Errno::from_io_error(&error) == Some(Errno::XDEV) => return Ok(()),
            Err(error) => return Err(format!("what a name holds cannot be seen: {error}")),
        };
        let held = held.as_ref().map(|(handle, file)| (*handle, file.as_fd()));
        self.preserve(|preserved| preserved.name((of, dir), name, held))
    }

    pub(super) fn attributes(&self, object: BorrowedFd<'_>) -> Result<(), String> {
        let of = handle_of(object)?;
        self.preserve(|preserved| preserved.attributes(of, object))
    }

    pub(super) fn born(&self, object: BorrowedFd<'_>) -> Result<(), String> {
        let of = handle_of(object)?;
        self.preserve(|preserved| preserved.born(of))
    }

    pub(super) fn content(&self, file: &File, range: (u64, u64)) -> Result<(), String> {
        let of = handle_of(file.as_fd())?;
        self.preserve(|preserved| preserved.content(of, file, range))
    }

    pub(super) fn keeps(&self, object: &FileHandle) -> bool {
        self.preserved.lock().as_ref().is_some_and(|preserved| preserved.keeps(object).unwrap_or(false))
    }

    pub(super) fn keep(&self, object: FileHandle, file: &File) -> Result<(), String> {
        self.preserve(|preserved| match preserved.wants(&object) {
            true => preserved.keep(object, file),
            false => {
                preserved.forget_born(&object);
                Ok(())
            }
        })
    }

    // ---- for the copy ----

    /// What a name held, if something was noted of it.
    ///
    /// Errors: the session has failed.
    pub(super) fn held(&self, dir: &FileHandle, name: &[u8]) -> Result<Option<Option<FileHandle>>, String> {
        self.read(|preserved| preserved.held(dir, name))
    }

    pub(super) fn names_held(&self, dir: &FileHandle) -> Result<Vec<NameHeld>, String> {
        self.read(|preserved| preserved.names_held(dir))
    }

    pub(super) fn looks_of(&self, object: &FileHandle) -> Result<Option<Arc<Looks>>, String> {
        self.read(|preserved| preserved.looks_of(object))
    }

    pub(super) fn content_of(&self, object: &FileHandle) -> Result<(Ranges, Option<File>), String> {
        self.read(|preserved| preserved.content_of(object))?
            .map_err(|error| format!("what was preserved cannot be read: {error}"))
    }

    fn read<T>(&self, read: impl FnOnce(&Preserved) -> T) -> Result<T, String> {
        let preserved = self.preserved.lock();
        preserved.as_ref().map(read).ok_or_else(|| "what was preserved is gone".to_owned())
    }
}

/// File of a session's state directory: what it is.
pub(super) const DOCUMENT: &str = "session.json";
pub(super) const RECORDS: &str = "records";
/// Of limbo: the areas of all sessions.
pub const AREAS: &str = "clones";

fn handle_of(fd: BorrowedFd<'_>) -> Result<FileHandle, String> {
    FileHandle::of(fd).map_err(|error| format!("no file handle: {error}"))
}

/// Whether what an older process has preserved is all that had to be.
fn still_whole(record: &Record, (place, fence): (&Place, Option<Epoch>)) -> Result<(), String> {
    let boot = boot_id().map_err(|error| format!("which boot this is cannot be told: {error}"))?;
    if boot != record.boot {
        return Err("the machine was started anew before it was complete".into());
    }
    if let Some(why) = place.differs_from(&record.place) {
        return Err(format!("the replica is not the one that it was: {why}"));
    }
    if fence != record.fence {
        return Err("the replica was stood in with meanwhile, and written past standin".into());
    }
    Ok(())
}

fn make_area(limbo: &File, name: &str) -> io::Result<File> {
    let make = |parent: &File, name: &str| match rustix::fs::mkdirat(parent, name, rustix::fs::Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => open_directory(parent, name),
        Err(error) => Err(error.into()),
    };
    let areas = make(limbo, AREAS)?;
    // Of a session that was never begun, or whose removal was cut off.
    remove_below(&areas, name)?;
    make(&areas, name)
}

/// Removes a directory with all below it, if it is there.
pub(super) fn remove_below(parent: &File, name: &str) -> io::Result<()> {
    removal::remove(parent, name.as_bytes())
}

/// Milliseconds since 1970.
pub(super) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
