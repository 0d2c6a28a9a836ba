//! What copies have moved aside, beside a replica: shown to a person, and removed when he says so.
//!
//! ```text
//!  LIMBO/resync/BATCH/NAME            waits: a copy is under way, and may want it back
//!        │ the end of the copy
//!        v
//!  LIMBO/orphans/SECONDS-BATCH/NAME   an orphan: no object of the replica any more
//!  LIMBO/noted/BATCH                  which path each NAME had, and why it had to go
//! ```
//! Needs no replica that is open, and takes no lock: a copy adds whole batches, by one rename each, and
//! never looks at them again. What waits may be removed, too, while no session works on the replica (a lock
//! on the directory says so): to the next copy it is as if somebody had removed it from the replica, and it
//! is sent again where the source has it. Nothing is reached but by
//! one checked name at a time ([`trees`]), so no symlink or mount leads out of the place.

#[cfg(test)]
mod tests;

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

pub use super::replica::Why;
pub use super::replica::trees::Amount;
use super::replica::trees::{self, Failed, Linked, measure, take_away};
use super::replica::{ORPHANS, Places, WAITING, noted};
use crate::packet::Name;

/// The place beside one replica.
pub struct Orphans {
    limbo: File,
}

/// One name that was moved aside, with all below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Orphan {
    /// Below the directory of the orphans.
    pub place: PathBuf,
    /// In the replica, as far as it was noted.
    pub path: Option<PathBuf>,
    pub why: Option<Why>,
    /// Since 1970.
    pub since: Duration,
    pub amount: Amount,
}

/// All of it, and what waits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    pub count: u64,
    pub total: Amount,
    /// The first of them, as many as were asked for.
    pub first: Vec<Orphan>,
    /// What a copy that has not ended has moved aside.
    pub waiting: Amount,
}

/// What is to be removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    All,
    OlderThan(Duration),
    /// What had these paths in the replica, or paths below them; or lies at these places.
    Paths(Vec<PathBuf>),
    /// What waits, and no orphans.
    Waiting,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Names that were moved aside, and are gone with all below.
    pub count: u64,
    pub amount: Amount,
    /// Objects that could not be removed, and why the first of them.
    pub failed: u64,
    pub first_failure: Option<String>,
    /// Whoever asked went away meanwhile.
    pub is_cut_off: bool,
    /// A session works on the replica: what waits was left alone.
    pub is_busy: bool,
}

impl Orphans {
    /// `None`: nothing was ever moved aside there.
    ///
    /// Errors: of the disk.
    pub fn of(replica: &Path) -> io::Result<Option<Orphans>> {
        let limbo = Places::limbo_of(replica);
        let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW;
        match File::options().read(true).custom_flags(flags).open(limbo) {
            Ok(limbo) => Ok(Some(Orphans { limbo })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Counts what is there, and names `first` of it.
    ///
    /// Errors: of the disk.
    pub fn list(&self, first: usize, go_on: &dyn Fn() -> bool) -> io::Result<Listing> {
        let (mut listing, mut linked) = (Listing::default(), Linked::default());
        self.each_orphan(|batch, orphan| {
            let mut orphan = orphan;
            orphan.amount = measure(&self.limbo, &batch.dir, &batch.name, &mut linked, go_on)?;
            listing.count += 1;
            listing.total.add(orphan.amount);
            if listing.first.len() < first {
                listing.first.push(orphan);
            }
            Ok(go_on())
        })?;
        self.each_waiting(|batch| {
            listing.waiting.add(measure(&self.limbo, &batch.dir, &batch.name, &mut linked, go_on)?);
            Ok(go_on())
        })?;
        Ok(listing)
    }

    /// Removes what is meant, until it is done or `go_on` says no.
    ///
    /// Errors: of the disk; what cannot be removed is counted.
    pub fn remove(&self, which: &Which, go_on: &dyn Fn() -> bool) -> io::Result<Removed> {
        let mut removed = Removed::default();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut take = |at: &At| {
            let failed = take_away(&self.limbo, &at.dir, &at.name, &mut removed.amount, go_on)?;
            removed.note(failed);
            removed.is_cut_off = !go_on();
            Ok(!removed.is_cut_off)
        };
        match which {
            Which::Waiting => {
                let Some(_nobody_works) = self.while_nobody_works()? else {
                    return Ok(Removed { is_busy: true, ..Removed::default() });
                };
                self.each_waiting(|at| take(&at))?;
            }
            Which::All | Which::OlderThan(_) | Which::Paths(_) => {
                self.each_orphan(|at, orphan| if which.means(&orphan, now) { take(&at) } else { Ok(true) })?;
                self.drop_empty_batches()?;
            }
        }
        Ok(removed)
    }

    fn each_orphan(&self, mut each: impl FnMut(At, Orphan) -> io::Result<bool>) -> io::Result<()> {
        let Some(orphans) = open_below(&self.limbo, ORPHANS)? else { return Ok(()) };
        for batch in trees::directories(&orphans)? {
            let Some(dir) = trees::open(&orphans, &batch)? else { continue };
            let text = String::from_utf8_lossy(batch.as_bytes()).into_owned();
            let (seconds, number) = text.split_once('-').unwrap_or((&text, ""));
            let since = Duration::from_secs(seconds.parse().unwrap_or_default());
            let notes = noted::read(&self.limbo, number);
            for name in trees::names(&dir)? {
                let place = Path::new(&text).join(name.as_os_str());
                let note = notes.get(&name).cloned();
                let (path, why) = note.map_or((None, None), |note| (note.path, Some(note.why)));
                let orphan = Orphan { place, path, why, since, amount: Amount::default() };
                let dir = dir.try_clone()?;
                if !each(At { dir, name }, orphan)? {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn each_waiting(&self, mut each: impl FnMut(At) -> io::Result<bool>) -> io::Result<()> {
        let Some(waiting) = open_below(&self.limbo, WAITING)? else { return Ok(()) };
        for batch in trees::directories(&waiting)? {
            let Some(dir) = trees::open(&waiting, &batch)? else { continue };
            for name in trees::names(&dir)? {
                if !each(At { dir: dir.try_clone()?, name })? {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// As long as the file is held. `None`: a session works on what waits.
    fn while_nobody_works(&self) -> io::Result<Option<File>> {
        let Some(waiting) = open_below(&self.limbo, WAITING)? else {
            return self.limbo.try_clone().map(Some);
        };
        match rustix::fs::flock(&waiting, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(waiting)),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Those of the orphans alone: a copy goes on with the last one of those that wait.
    fn drop_empty_batches(&self) -> io::Result<()> {
        let Some(orphans) = open_below(&self.limbo, ORPHANS)? else { return Ok(()) };
        for batch in trees::directories(&orphans)? {
            if trees::drop_if_empty(&orphans, &batch)? {
                let text = String::from_utf8_lossy(batch.as_bytes());
                noted::forget(&self.limbo, text.split_once('-').map_or("", |(_, number)| number));
            }
        }
        Ok(())
    }
}

/// A name in a directory of a batch.
struct At {
    dir: File,
    name: Name,
}

impl Which {
    fn means(&self, orphan: &Orphan, now: Duration) -> bool {
        match self {
            Which::All => true,
            Which::OlderThan(age) => now.saturating_sub(orphan.since) >= *age,
            Which::Paths(paths) => paths.iter().any(|wanted| {
                orphan.place == *wanted || orphan.path.as_ref().is_some_and(|path| path.starts_with(wanted))
            }),
            Which::Waiting => false,
        }
    }
}

impl Removed {
    fn note(&mut self, failed: Failed) {
        self.count += u64::from(failed.count == 0);
        self.failed += failed.count;
        self.first_failure = self.first_failure.take().or(failed.first);
    }
}

/// Removes a name in a directory with all below it, whatever flags keep it; nothing on another mount.
///
/// Errors: the system's, with the name of the first that stays.
pub fn remove_whole(dir: &File, name: &OsStr) -> io::Result<()> {
    let name = Name::new(name.as_bytes()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let failed = take_away(dir, dir, &name, &mut Amount::default(), &|| true)?;
    match failed.first {
        Some(first) => Err(io::Error::other(format!("{} objects stay: {first}", failed.count))),
        None => Ok(()),
    }
}

fn open_below(limbo: &File, name: &str) -> io::Result<Option<File>> {
    let name = Name::new(name.as_bytes()).expect("a constant is a name");
    trees::open(limbo, &name)
}
