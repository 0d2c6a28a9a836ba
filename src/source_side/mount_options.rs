//! The options of mounts: what the backing's own mount forbids, ours forbids too, also when that is
//! changed later; and how ours keeps access times, the daemon's view of the backing does too.
//!
//! ```text
//!  mount of the backing ── nosuid, nodev, noexec, nosymfollow, ro, access times ──> our mount
//!                               (whenever they change there)                           │
//!  the daemon's view of the backing <── access times (whenever they differ) ───────────┘
//! ```
//! What an administrator forbids on our mount by a remount stays forbidden, whatever the backing's
//! allows later: the stricter of both. How access times are kept follows the backing's last change.
//! The view is never read-only by itself: what was accepted before a remount can still be written.

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::CWD;

use crate::preflight::{Mount, MountTable};
use crate::sys::{MountOptions, set_mount_options};

/// The mount that a tree is on, and the options that it had.
#[derive(Clone, Debug)]
pub struct BackingMount {
    id: u64,
    device: String,
    pub options: MountOptions,
}

impl BackingMount {
    /// Of the mount that holds this path (no symlinks); `None` where it cannot be seen.
    pub fn holding(tree: &Path, table: &MountTable) -> Option<BackingMount> {
        let mount = table.holding(tree)?;
        Some(BackingMount { id: mount.id, device: mount.device.clone(), options: mount.options })
    }

    /// Of the mount with this number.
    pub fn numbered(id: u64, table: &MountTable) -> Option<BackingMount> {
        let mount = table.by_id(id)?;
        Some(BackingMount { id, device: mount.device.clone(), options: mount.options })
    }

    /// With the options that it has now.
    pub fn look_again(&self, table: &MountTable) -> BackingMount {
        let options = self.now(table).map_or(self.options, |mount| mount.options);
        BackingMount { options, ..self.clone() }
    }

    /// As it is now. An id may have been given to another mount meanwhile.
    fn now<'a>(&self, table: &'a MountTable) -> Option<&'a Mount> {
        table.by_id(self.id).filter(|mount| mount.device == self.device)
    }
}

/// Keeps the three in line; looks when it is told to.
pub struct OptionsWatch {
    directory: PathBuf,
    /// Device of our mount (`major:minor`).
    own_device: String,
    /// With the options that ours has taken over.
    backing: Option<BackingMount>,
    /// What is forbidden here and was not there: an administrator's own.
    forbidden_here: MountOptions,
    /// How the view keeps access times.
    view: MountOptions,
    trouble: Option<String>,
}

impl OptionsWatch {
    /// Of a mount that came up with the options of the backing's.
    pub fn begin(directory: &Path, own_device: String, backing: Option<BackingMount>) -> OptionsWatch {
        let view = backing.as_ref().map(|backing| backing.options).unwrap_or_default();
        let forbidden_here = MountOptions::default();
        OptionsWatch {
            directory: directory.to_owned(),
            own_device,
            backing,
            forbidden_here,
            view,
            trouble: None,
        }
    }

    /// Takes over what has changed. What cannot be taken over is tried again at the next look.
    pub fn look(&mut self, table: &MountTable, view: impl AsFd) {
        let Some(own) = table.at(&self.directory).filter(|own| own.device == self.own_device) else { return };
        let outcome = self.follow_backing(table, own.options);
        self.tell(&outcome);
        let own = outcome.unwrap_or(own.options);
        self.follow_own(own, view);
    }

    /// Gives the options that our mount has now.
    fn follow_backing(&mut self, table: &MountTable, mut own: MountOptions) -> Result<MountOptions, Refused> {
        let Some(backing) = &mut self.backing else { return Ok(own) };
        let Some(now) = backing.now(table).map(|mount| mount.options) else { return Ok(own) };
        let own_ways = own.without(MountOptions::ACCESS_TIMES);
        // What both forbid was forbidden by one of them before.
        let by_hand = own_ways.without(backing.options).with(self.forbidden_here.only(own_ways));
        self.forbidden_here = by_hand;
        let changed = now.differing(backing.options);
        // Apart: only this one can be refused, while files are open for writing.
        let read_only = changed.only(MountOptions::READ_ONLY);
        for part in [changed.without(MountOptions::READ_ONLY), read_only] {
            if part.is_empty() {
                continue;
            }
            let wanted = now.only(part);
            let stricter = now.with(by_hand);
            set_mount_options(CWD, &self.directory, part, stricter)
                .map_err(|error| Refused { wanted, error })?;
            let own_now = own.without(part).with(stricter.only(part));
            if own_now != own {
                log::info!(
                    "{} is mounted {} now, after its backing",
                    self.directory.display(),
                    own_now.in_words()
                );
            }
            backing.options = backing.options.without(part).with(wanted);
            own = own_now;
        }
        Ok(own)
    }

    fn follow_own(&mut self, own: MountOptions, view: impl AsFd) {
        let mask = MountOptions::ACCESS_TIMES;
        if own.only(mask) == self.view.only(mask) {
            return;
        }
        match set_mount_options(view, Path::new(""), mask, own) {
            Ok(()) => self.view = own,
            Err(error) => log::debug!("access times of the backing: {error}"),
        }
    }

    /// What could not be taken over at the last look, and why.
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    fn tell(&mut self, outcome: &Result<MountOptions, Refused>) {
        let text = outcome.as_ref().err().map(|refused| {
            format!(
                "The mount of the backing of {} was remounted {}, and this one cannot follow yet ({}): it does \
                 when no file is open for writing any more.",
                self.directory.display(),
                refused.wanted.in_words(),
                refused.error
            )
        });
        if self.trouble != text {
            text.iter().for_each(|text| log::warn!("{text}"));
            self.trouble = text;
        }
    }
}

/// What was to be taken over and could not.
struct Refused {
    wanted: MountOptions,
    error: io::Error,
}
