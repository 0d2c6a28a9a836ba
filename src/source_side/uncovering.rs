//! A directory that was handed over, and is served again: its cover is lifted, unless it is known that somebody else
//! writes the set now. A start that comes to nothing puts it back.
//!
//! ```text
//!  asked who writes ── looked at through the cover ── mount, beneath it ── lifted: programs have the mount
//!                  └─ lifted already: the replica itself is opened, or the data cannot be reached past the cover
//! ```

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::asking::who_writes;
use super::record::{FencedRecord, SetRecord};
use super::standing_in::{self, fenced_off, note_taken_over};
use super::startup::{io_failure, paired_identity};
use crate::apply::fence_of;
use crate::control::unix_ms;
use crate::cover::{Cover, Standing};
use crate::failure::Failure;
use crate::packet::Meeting;
use crate::preflight::MountTable;
use crate::store;
use crate::sys::{FileHandle, open_by_handle};
use crate::words::ProtectOptions;

/// A cover that goes, or is gone already.
pub struct Lifted {
    cover: Cover,
    set_state: PathBuf,
}

/// Before anything is looked at. The cover stays until the mount is there where all that is looked at until then is the same
/// through it; else it is lifted. `None`: there is none.
///
/// Errors: somebody else writes the set, and the cover stays; it cannot be lifted.
pub fn uncover(options: &ProtectOptions) -> Result<Option<Lifted>, Failure> {
    let is_over = |cover: &Cover| {
        [&cover.at, &cover.tree].iter().any(|place| **place == options.directory || *place == options.tree())
    };
    let Some((name, cover)) = Cover::all(&options.state).into_iter().find(|(_, cover)| is_over(cover)) else {
        return Ok(None);
    };
    let set_state = options.state.join(name);
    let failed = |error: &io::Error| failed(&cover, error);
    if cover.stands().map_err(|error| failed(&error))? == Standing::OnTop {
        let is_same_source = set_state == options.set_state() && options.stand_in.is_none();
        if is_same_source && !options.start_unconfirmed {
            refuse_taken_over(options)?;
        }
        // What else is in the way is found while nobody can write.
        standing_in::check(options)?;
        paired_identity(options)?;
        if can_stay(options, &cover).map_err(|error| failed(&error))? {
            return Ok(Some(Lifted { cover, set_state }));
        }
    }
    match cover.lift(&set_state).map_err(|error| failed(&error))? {
        Standing::OnTop => Ok(Some(Lifted { cover, set_state })),
        Standing::Beneath | Standing::Gone | Standing::GoneByStart => Ok(None),
    }
}

/// Programs would write what nobody gets, until a target says so: they are asked before.
fn refuse_taken_over(options: &ProtectOptions) -> Result<(), Failure> {
    let path = options.set_state().join("set.json");
    let record: Option<SetRecord> = store::read_json(&path)
        .map_err(|error| io_failure(&format!("{} cannot be read", path.display()), &error))?;
    let Some(record) = record else { return Ok(()) };
    if let Some(fenced) = &record.fenced {
        return Err(fenced_off(options, fenced, record.epoch));
    }
    let asked = who_writes(&options.state, (record.set, &record.history()), options.targets.iter());
    let Some((Meeting::StoodInFor, other)) = asked else { return Ok(()) };
    let Some(epoch) = other.history.last() else { return Ok(()) };
    note_taken_over(&options.set_state(), epoch, &other.met)?;
    let since_unix_ms = unix_ms(std::time::SystemTime::now());
    Err(fenced_off(options, &FencedRecord { epoch, told_by: other.met, since_unix_ms }, record.epoch))
}

/// Whether nothing is written by a path that leads through it.
fn can_stay(options: &ProtectOptions, cover: &Cover) -> io::Result<bool> {
    let table = MountTable::read()?;
    // Of a start that was killed between its mount and the lifting: that goes first.
    let hides_a_mount = table.standin().any(|mount| mount.point == cover.at);
    if cover.at != options.directory || cover.tree != options.tree() || hides_a_mount {
        return Ok(false);
    }
    if options.directory != options.tree() {
        return Ok(true);
    }
    let is_replica = options.stand_in.is_some() || fence_of(File::open(options.tree())?)?.is_some();
    let table = table.uncovered(&options.directory, options.tree());
    Ok(!is_replica && under_cover(options.tree(), &table).is_ok())
}

/// The directory on the mount that is below its cover: `uncovered` is without that.
///
/// Errors: the system's; `NotFound` where it is a mount's root itself, to which no path leads.
pub fn under_cover(tree: &Path, uncovered: &MountTable) -> io::Result<OwnedFd> {
    let seen = File::open(tree)?;
    let parent = File::open(tree.parent().ok_or(io::ErrorKind::NotFound)?)?;
    let [covered, beside] = [&seen, &parent].map(rustix::fs::fstat);
    if covered?.st_dev != beside?.st_dev {
        return Err(io::ErrorKind::NotFound.into());
    }
    let flags = libc::O_RDONLY | libc::O_DIRECTORY;
    let under = open_by_handle(parent.as_fd(), &FileHandle::of(seen.as_fd())?, flags)?;
    let mount = uncovered.holding(tree).map(|mount| mount.id);
    match mount.is_some() && mount == mount_id(&under) {
        true => Ok(under),
        false => Err(io::ErrorKind::NotFound.into()),
    }
}

fn mount_id(fd: impl AsFd) -> Option<u64> {
    use rustix::fs::{AtFlags, StatxFlags, statx};
    let status = statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID).ok()?;
    Some(status.stx_mnt_id)
}

/// What stands over this directory now, if it is the cover of a set of this host: what takes it away.
pub fn lifting(state: &Path, directory: &Path) -> Option<impl Fn() -> io::Result<()>> {
    let is_on_top =
        |cover: &Cover| cover.at == directory && cover.stands().is_ok_and(|how| how == Standing::OnTop);
    let (name, cover) = Cover::all(state).into_iter().find(|(_, cover)| is_on_top(cover))?;
    let set_state = state.join(name);
    Some(move || cover.lift(&set_state).map(drop))
}

fn failed(cover: &Cover, error: &io::Error) -> Failure {
    io_failure(&format!("the cover of {}", cover.at.display()), error)
}

impl Lifted {
    /// The directory is not served after all.
    pub fn put_back(self) {
        if self.cover.stands().is_ok_and(|how| how == Standing::OnTop) {
            return;
        }
        if let Err(error) = self.cover.put_back(&self.set_state) {
            let at = self.cover.at.display();
            aside!("warning: {at} was covered before this start, and cannot be covered again: {error}.");
        }
    }
}
