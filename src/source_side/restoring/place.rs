//! The directory that is restored: that it may be, that nobody else works on it, and where what belongs to
//! the restoration lies.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::mark::{self, Bring, Marked, working_state};
use super::{RestoreOptions, UNTOUCHED};
use crate::apply::{OpenError, Places, are_passing, set_of};
use crate::failure::Failure;
use crate::packet::{Position, SetId};
use crate::preflight::{
    Claim, MountTable, Relation, Role, existing_ancestor, list_uses, open_directory, open_writers, relation,
    users_of,
};
use crate::source_side::embedded::ON_A_DISK;
use crate::words::{RESERVED_NAME, Target};

/// A directory in the way of whose restoration nothing stands, as far as this host knows.
pub struct Place {
    exists: bool,
}

/// It is this process's.
pub struct Taken {
    root: File,
    path: PathBuf,
    _claim: Claim,
}

impl Place {
    /// Looks at it; nothing is changed.
    pub fn look(options: &RestoreOptions) -> Result<Place, Failure> {
        check_contacts(options)?;
        check_mounts(options)?;
        let exists = match fs::symlink_metadata(&options.to) {
            Ok(meta) if meta.is_dir() => true,
            Ok(_) => return Err(refused(options, "is no directory", "Choose another place.")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(unreadable(options, &error)),
        };
        check_handles(options)?;
        let place = Place { exists };
        match exists {
            true => place.check_content(options)?,
            false => check_parent(options)?,
        }
        Ok(place)
    }

    fn check_content(&self, options: &RestoreOptions) -> Result<(), Failure> {
        let failed = |error: io::Error| unreadable(options, &error);
        let root = open_directory(&options.to).map_err(failed)?;
        let (from, shown) = (options.from.to_string(), options.to.display());
        match mark::of(&root).map_err(failed)? {
            Some(before) if before == from => return check_writers(options),
            Some(before) => {
                return Err(Failure::new(
                    format!("{shown} is half restored from {before}."),
                    UNTOUCHED,
                    format!("Restore that to its end, or empty the directory and remove it: {shown}."),
                ));
            }
            None => {}
        }
        if is_empty(&options.to).map_err(failed)? {
            return Ok(());
        }
        if !options.may_find_something() {
            return Err(refused(
                options,
                "is not empty",
                "Choose an empty or missing directory. Into this one: --overwrite makes it what the replica is, and \
                 moves what the replica lacks aside; --missing-only adds what is missing; --newer-only takes what is \
                 newer in the replica.",
            ));
        }
        check_writers(options)
    }

    /// Makes it where it is missing, and keeps everybody else away.
    pub fn take(self, options: &RestoreOptions) -> Result<Taken, Failure> {
        if !self.exists {
            fs::create_dir(&options.to).map_err(|error| unreadable(options, &error))?;
        }
        let opened = open_directory(&options.to).and_then(|root| Ok((root.try_clone()?, root)));
        let (root, claimed) = opened.map_err(|error| unreadable(options, &error))?;
        let claim = Claim::take(Role::Restored, &options.name, &options.to, claimed)?;
        Ok(Taken { root: root.into(), path: options.to.clone(), _claim: claim })
    }
}

impl Taken {
    pub fn root(&self) -> &File {
        &self.root
    }

    /// A replica is none that could be restored into: it would be taken for what it is not.
    pub fn refuse_replica(&self, options: &RestoreOptions, set: SetId) -> Result<(), Failure> {
        match set_of(&self.root, None) {
            Ok(None) => Ok(()),
            Ok(Some(found)) if found == mark::while_restoring(set) => Ok(()),
            Ok(Some(_)) => Err(refused(
                options,
                "is a replica",
                "Restore into another directory; a replica is brought into line by the protection of its source.",
            )),
            Err(error) => Err(unreadable(options, &error)),
        }
    }

    /// Marks it as incomplete. `applied`: as of which the replica is given.
    pub fn begin(
        &self,
        options: &RestoreOptions,
        applied: Option<Position>,
    ) -> Result<(Marked, Bring), Failure> {
        let (root, from) = (self.root.try_clone(), options.from.to_string());
        root.and_then(|root| {
            Marked::put(root, &options.set_state(), (&from, applied, options.believes), &options.to)
        })
        .map_err(|error| {
            Failure::new(
                format!("{} cannot be marked as incomplete: {error}.", options.to.display()),
                UNTOUCHED,
                "Mend this and start again.",
            )
        })
    }

    /// What is in the way waits beside it, or in it where it is a mount point.
    pub fn places(&self, set_state: &Path) -> Places {
        let mut places = Places::beside(&self.path, &working_state(set_state));
        let device = |path: &Path| fs::metadata(path).map(|meta| meta.dev()).ok();
        if self.path.parent().and_then(device) != device(&self.path) {
            places.limbo = self.path.join(".standin.restore");
        }
        places
    }
}

/// What is on another file system is not the directory's: it is neither moved nor deleted with it.
fn check_mounts(options: &RestoreOptions) -> Result<(), Failure> {
    let mounts = MountTable::read().map_err(|error| unreadable(options, &error))?;
    match mounts.below(&options.to).first() {
        None => Ok(()),
        Some(mount) => Err(refused(
            options,
            &format!("has a mount below it, {}", mount.point.display()),
            "Unmount it, or choose another directory.",
        )),
    }
}

fn check_contacts(options: &RestoreOptions) -> Result<(), Failure> {
    let to = &options.to;
    if to == Path::new("/") {
        return Err(refused(options, "is the system's own root", "Choose a directory of its own."));
    }
    if let Some(limbo) = to.ancestors().find(|path| is_limbo(path)) {
        return Err(refused(
            options,
            &format!("is in {}, where copies to a replica keep what they move aside", limbo.display()),
            "Choose a directory of its own.",
        ));
    }
    let mounts = MountTable::read().map_err(|error| unreadable(options, &error))?;
    for mount in mounts.standin() {
        if to.starts_with(&mount.point) || mount.point.starts_with(to) {
            return Err(refused(
                options,
                &format!("is at, in or around {}, which standin protects", mount.point.display()),
                "Stop the protection first (standin stop), or choose another directory.",
            ));
        }
    }
    let mut others = vec![("the state directory", &options.state), ("the run directory", &options.run)];
    if let Target::Local(replica) = &options.from {
        others.push(("the replica", replica));
    }
    for (what, path) in others {
        let how = match relation(to, path, &mounts) {
            Relation::Apart => continue,
            Relation::Same => "is",
            Relation::Inside => "is inside",
            Relation::Around => "is around",
        };
        let what = format!("{how} {what}, {}", path.display());
        return Err(refused(
            options,
            &what,
            "Choose a directory of its own; symlinks and bind mounts count.",
        ));
    }
    Ok(())
}

/// The place of a replica beside it, or in it.
fn is_limbo(path: &Path) -> bool {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return false };
    let replica = name.strip_prefix('.').and_then(|name| name.strip_suffix(".standin"));
    let is_replica = |name: &str| path.with_file_name(name).is_dir() && path.is_dir();
    name == RESERVED_NAME || replica.is_some_and(is_replica)
}

/// Before anything is marked: a restoration finds its own objects again by their handles.
fn check_handles(options: &RestoreOptions) -> Result<(), Failure> {
    let passing = File::open(existing_ancestor(&options.to)).and_then(|dir| are_passing(&dir));
    match passing.map_err(|error| unreadable(options, &error))? {
        None => Ok(()),
        Some(why) => {
            let what = format!("cannot be restored into: {}", OpenError::NoIdentities(why));
            Err(refused(options, &what, ON_A_DISK))
        }
    }
}

fn check_parent(options: &RestoreOptions) -> Result<(), Failure> {
    match options.to.parent().map(fs::metadata) {
        Some(Ok(meta)) if meta.is_dir() => Ok(()),
        _ => Err(refused(
            options,
            "cannot be made: what it would be in is no directory",
            "Make that first; if it is on another disk, mount it.",
        )),
    }
}

/// Whoever writes now would write into what is replaced.
fn check_writers(options: &RestoreOptions) -> Result<(), Failure> {
    let users = users_of(&options.to).map_err(|error| unreadable(options, &error))?;
    let writers = open_writers(&users);
    if writers.is_empty() || options.force {
        return Ok(());
    }
    Err(refused(
        options,
        &format!("has files that are open for writing: {}", list_uses(&writers)),
        "End these programs first, or go on all the same with --force.",
    ))
}

fn is_empty(dir: &Path) -> io::Result<bool> {
    let names = fs::read_dir(dir)?.collect::<io::Result<Vec<_>>>()?;
    // What mkfs makes in the root of ext file systems.
    let counts = |entry: &fs::DirEntry| entry.file_name() != "lost+found";
    Ok(!names.iter().any(counts))
}

fn refused(options: &RestoreOptions, what: &str, next: &str) -> Failure {
    Failure::new(format!("{} {what}.", options.to.display()), UNTOUCHED, next)
}

fn unreadable(options: &RestoreOptions, error: &io::Error) -> Failure {
    refused(options, &format!("cannot be used: {error}"), "Check the path, its permissions and its disk.")
}
