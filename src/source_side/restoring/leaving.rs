//! The end of a restoration: the directory is whole, and what it carries is what its protection needs.
//!
//! ```text
//!  the set's label ── record: this directory, this target, as of now ── marks and working state go
//! ```
//! In this order: whoever is killed in between restores again, and nothing is sent.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{Timespec, Timestamps, UTIME_OMIT};
use rustix::io::Errno;

use super::mark::Marked;
use super::place::Taken;
use super::{Name, Orphans, RestoreOptions};
use crate::apply::{IDENTITY_XATTR, Places, remove_whole};
use crate::failure::Failure;
use crate::packet::{Position, SetId, Timestamp};
use crate::source_side::identity::{self, Found};
use crate::source_side::mark::Mark;

/// A directory that has everything.
pub struct Leaving<'a> {
    pub options: &'a RestoreOptions,
    pub place: &'a Taken,
    pub places: &'a Places,
    pub set: SetId,
    /// As of which the replica was given; `None` where nobody can say.
    pub replica_at: Option<Position>,
    /// Of earlier restorations: they stay.
    pub orphans_before: Vec<OsString>,
}

/// What was moved aside so far.
pub fn orphans_in(places: &Places) -> Vec<OsString> {
    let entries = fs::read_dir(places.limbo.join("orphans")).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name()).collect()
}

/// Errors: the directory has everything, and is still marked.
pub fn leave(leaving: Leaving<'_>, name: Name, marked: Marked) -> Result<(), Failure> {
    leaving.leave(name, marked).map_err(|error| {
        Failure::new(
            format!("The restoration of {} cannot be ended: {error}.", leaving.options.to.display()),
            "All of it was restored; it is still marked as incomplete.",
            "Mend this and give the same command again: nothing is sent twice.",
        )
    })
}

impl Leaving<'_> {
    fn leave(&self, name: Name, marked: Marked) -> io::Result<()> {
        let root = self.place.root();
        let before = root.metadata()?;
        let mark = match self.options.takes_all() {
            true => Some(Mark::of(self.after_everything()?)),
            false => None,
        };
        self.clear_limbo()?;
        match rustix::fs::fremovexattr(root, IDENTITY_XATTR) {
            Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error.into()),
        }
        if name.is_the_sets() {
            identity::write(root, self.set)?;
        }
        let mtime = Timespec { tv_sec: before.mtime(), tv_nsec: before.mtime_nsec() };
        let unchanged = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
        let times = Timestamps { last_access: unchanged, last_modification: mtime };
        rustix::fs::futimens(root, &times)?;
        rustix::fs::syncfs(root)?;
        let is_the_sets = name.is_the_sets();
        if is_the_sets {
            let (tree, from) = (&self.options.to, self.options.from.to_string());
            name.state.done(self.set, tree, &Found::at(root)?, &from, mark.zip(self.replica_at))?;
        }
        marked.take_away()?;
        if is_the_sets { Ok(()) } else { fs::remove_dir_all(self.options.set_state()) }
    }

    /// A moment by the clock of the directory's own file system: everything that was restored has an
    /// earlier change time, and whatever changes from now on a later one, or this.
    fn after_everything(&self) -> io::Result<Timestamp> {
        let mut last = self.tick()?;
        let everything = last;
        while last <= everything {
            std::thread::sleep(Duration::from_millis(1));
            last = self.tick()?;
        }
        Ok(last)
    }

    /// The change time of something that is made now.
    fn tick(&self) -> io::Result<Timestamp> {
        let path = self.places.limbo.join("tick");
        let made = File::create(&path)?.metadata()?;
        fs::remove_file(&path)?;
        Ok(Timestamp { seconds: made.ctime(), nanoseconds: made.ctime_nsec() as u32 })
    }

    /// Nothing of the restoration stays beside the directory, but what was there and had to go aside.
    fn clear_limbo(&self) -> io::Result<()> {
        let limbo = &self.places.limbo;
        let orphans = limbo.join("orphans");
        if self.options.orphans == Orphans::Delete {
            self.delete_orphans(&orphans)?;
        }
        let keeps = holds_something(&orphans)?;
        let dir = File::open(limbo)?;
        for entry in fs::read_dir(limbo)? {
            let entry = entry?;
            if keeps && (entry.path() == orphans || entry.file_name() == "noted") {
                continue;
            }
            remove_whole(&dir, &entry.file_name())?;
        }
        if !keeps {
            fs::remove_dir(limbo)?;
        }
        Ok(())
    }

    fn delete_orphans(&self, orphans: &Path) -> io::Result<()> {
        let dir = match File::open(orphans) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            dir => dir?,
        };
        for entry in fs::read_dir(orphans)? {
            let name = entry?.file_name();
            if !self.orphans_before.contains(&name) {
                remove_whole(&dir, &name)?;
            }
        }
        Ok(())
    }
}

fn holds_something(dir: &Path) -> io::Result<bool> {
    match fs::read_dir(dir) {
        Ok(mut entries) => Ok(entries.next().is_some()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
