//! The cover of a directory that nobody replicates any more, because its set was handed over: a read-only mount of its
//! data in the place where programs had them. Writers get `EROFS`, reads go on.
//!
//! ```text
//!  noted ── slipped beneath the mount ── the mount goes: the cover stands ── lifted, by whoever serves it next
//!    │                                      │                                  └ taken away first, then forgotten
//!    └ killed here: nothing stands          └ older kernels: put over right after, and the gap is noted
//! ```
//! A mount lasts until the host is started anew; the note of it lasts longer, and says so then. Killed at any moment
//! there is never a cover without a note.

mod handed;
#[cfg(test)]
mod tests;

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use rustix::mount::{MoveMountFlags, OpenTreeFlags, UnmountFlags};
use serde::{Deserialize, Serialize};

use crate::control::unix_ms;
use crate::preflight::{Mount, MountTable};
use crate::store;
use crate::sys::{MountOptions, Seal, boot_id, seal_tree};
use crate::words::{is_set_name, shown};

pub use handed::{Written, doubt_uncovered, is_handed_over, note_handed_over, note_written, written};

const FILE: &str = "cover.json";

/// What is kept of a cover, with the set that was handed over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cover {
    /// Where programs had the data.
    #[serde(with = "crate::control::path_text")]
    pub at: PathBuf,
    /// Where the data are; often the same.
    #[serde(with = "crate::control::path_text")]
    pub tree: PathBuf,
    /// What is seen at `at` where it stands.
    device: u64,
    inode: u64,
    /// Random id of the boot, in hexadecimal digits.
    boot: String,
    pub since_unix_ms: u64,
    /// For how long programs could write with nothing in the mount's place; `None`: at no moment.
    pub gap_us: Option<u64>,
    /// It is known that somebody else writes the set now.
    pub taken_over: bool,
}

/// Whether it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Programs see it.
    OnTop,
    /// Below another mount, which hides it.
    Beneath,
    /// Somebody has taken it away, or it was never put there.
    Gone,
    /// The host was started since.
    GoneByStart,
}

/// A cover that is noted and made, and not in its place yet.
pub struct Ready {
    cover: Cover,
    set_state: PathBuf,
    /// `None`: it is beneath the mount already, since a hand-over that came to nothing.
    mount: Option<OwnedFd>,
}

impl Ready {
    /// `under`: the directory with the data, on the mount where everybody has it. `set_state`: where what is known of the
    /// set is kept.
    pub fn new(set_state: &Path, at: &Path, tree: &Path, under: impl AsFd) -> io::Result<Ready> {
        let seen = rustix::fs::fstat(&under)?;
        let cover = Cover {
            at: at.to_owned(),
            tree: tree.to_owned(),
            device: seen.st_dev,
            inode: seen.st_ino,
            boot: this_boot()?,
            since_unix_ms: unix_ms(SystemTime::now()),
            gap_us: None,
            taken_over: false,
        };
        if let Some(left) = Cover::noted(set_state)?
            && left.at == cover.at
            && left.stands()? == Standing::Beneath
        {
            return Ok(Ready { cover: left, set_state: set_state.to_owned(), mount: None });
        }
        let flags =
            OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
        let mount = rustix::mount::open_tree(under, "", flags)?;
        seal_tree(&mount, Seal::ReadOnly)?;
        store::replace_json(&set_state.join(FILE), &cover)?;
        Ok(Ready { cover, set_state: set_state.to_owned(), mount: Some(mount) })
    }

    /// Puts it beneath the mount that is there, so that nothing is ever without one. Answers whether that went: it takes
    /// Linux 6.5.
    pub fn slip_beneath(&mut self) -> bool {
        let Some(mount) = &self.mount else { return true };
        match put(mount, &self.cover.at, MoveMountFlags::MOVE_MOUNT_BENEATH) {
            Ok(()) => self.mount = None,
            Err(error) => log::info!("the cover cannot be slipped beneath a mount: {error}"),
        }
        self.mount.is_none()
    }

    /// Where it is not beneath: puts it over the directory, whose mount went after `before`.
    pub fn put_over(mut self, before: Instant) -> io::Result<()> {
        let Some(mount) = &self.mount else { return Ok(()) };
        put(mount, &self.cover.at, MoveMountFlags::empty())?;
        self.cover.gap_us = Some(before.elapsed().as_micros() as u64);
        store::replace_json(&self.set_state.join(FILE), &self.cover)
    }

    /// It is not wanted any more; what is beneath the mount stays there, and is known.
    pub fn give_up(self) {
        if self.mount.is_some() {
            forget(&self.set_state);
        }
    }
}

impl Cover {
    /// What is noted beside this set.
    pub fn noted(set_state: &Path) -> io::Result<Option<Cover>> {
        store::read_json(&set_state.join(FILE))
    }

    /// Somebody else writes the set from now on.
    pub fn note_taken_over(set_state: &Path) -> io::Result<()> {
        match Cover::noted(set_state)? {
            Some(cover) if !cover.taken_over => {
                store::replace_json(&set_state.join(FILE), &Cover { taken_over: true, ..cover })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Of all sets of a state directory, by their names; what cannot be read is left out.
    pub fn all(state: &Path) -> Vec<(String, Cover)> {
        let entries = fs::read_dir(state).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let mut all: Vec<_> = names
            .filter(|name| is_set_name(name))
            .filter_map(|name| Some((name.clone(), Cover::noted(&state.join(&name)).ok()??)))
            .collect();
        all.sort_by(|one, other| one.0.cmp(&other.0));
        all
    }

    /// Asks nobody but the kernel: a mount that does not answer holds nobody up.
    pub fn stands(&self) -> io::Result<Standing> {
        if self.boot != this_boot()? {
            return Ok(Standing::GoneByStart);
        }
        let table = MountTable::read()?;
        let is_sealed = |mount: &&Mount| {
            let is_read_only = !mount.options.only(MountOptions::READ_ONLY).is_empty();
            mount.point == self.at && is_read_only && !mount.is_standin()
        };
        let Some(top) = table.at(&self.at) else { return Ok(Standing::Gone) };
        if is_sealed(&top) {
            let seen = fs::symlink_metadata(&self.at)?;
            let is_it = (seen.dev(), seen.ino()) == (self.device, self.inode);
            return Ok(if is_it { Standing::OnTop } else { Standing::Gone });
        }
        Ok(if table.all().any(|mount| is_sealed(&mount)) { Standing::Beneath } else { Standing::Gone })
    }

    /// Takes it away, where programs see it, and forgets it; one that is beneath a mount stays, and stays known.
    /// Answers how it stood.
    pub fn lift(&self, set_state: &Path) -> io::Result<Standing> {
        let standing = self.stands()?;
        match standing {
            Standing::Beneath => return Ok(standing),
            // Whoever reads a file there goes on with it.
            Standing::OnTop => {
                rustix::mount::unmount(&self.at, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH)?;
            }
            Standing::Gone | Standing::GoneByStart => {}
        }
        forget(set_state);
        Ok(standing)
    }

    /// Puts one that was lifted over the directory again.
    pub fn put_back(&self, set_state: &Path) -> io::Result<()> {
        let under = fs::File::open(&self.tree)?;
        let ready = Ready::new(set_state, &self.at, &self.tree, &under)?;
        let (since_unix_ms, taken_over) = (self.since_unix_ms, self.taken_over);
        let cover = Cover { since_unix_ms, taken_over, ..ready.cover.clone() };
        Ready { cover, ..ready }.put_over(Instant::now())
    }

    /// In one line, as it stands.
    pub fn words(&self) -> String {
        let at = self.at.display();
        let since = Duration::from_millis(self.since_unix_ms).as_secs() as i64;
        let since = shown(since, &crate::sys::utc_offset);
        match self.stands() {
            Ok(Standing::Beneath) => {
                format!(
                    "a cover is beneath the mount on {at}, since {since}: it is taken away when that is unmounted"
                )
            }
            Ok(Standing::OnTop) => {
                format!(
                    "{at} is covered since {since}: its set was handed over, reads go on and writes fail (EROFS)"
                )
            }
            Ok(Standing::GoneByStart) => format!(
                "{at} was covered until this host was started: its set was handed over at {since}, and what programs \
                 write there goes to nobody"
            ),
            Ok(Standing::Gone) => format!(
                "{at} was covered, and somebody has taken the cover away: its set was handed over at {since}, and what \
                 programs write there goes to nobody"
            ),
            Err(error) => format!("whether {at} is still covered cannot be read: {error}"),
        }
    }
}

fn put(mount: &OwnedFd, at: &Path, how: MoveMountFlags) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | how;
    Ok(rustix::mount::move_mount(mount, "", rustix::fs::CWD, at, flags)?)
}

fn forget(set_state: &Path) {
    if let Err(error) = fs::remove_file(set_state.join(FILE))
        && error.kind() != io::ErrorKind::NotFound
    {
        log::warn!("the note of a cover in {} stays: {error}", set_state.display());
    }
}

fn this_boot() -> io::Result<String> {
    boot_id().map(|boot| format!("{boot:032x}"))
}
