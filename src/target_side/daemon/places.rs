//! The directories that a target daemon works in: they are there, and its alone.

use std::path::Path;

use super::{ServeOptions, UNTOUCHED, failed};
use crate::failure::Failure;
use crate::locked::Locked;
use crate::preflight::{Claim, MountTable, Role, check_statistics, is_within, open_directory};
use crate::store::{Symlink, own_directory};

pub(super) fn check_places(options: &ServeOptions) -> Result<(), Failure> {
    let root = &options.root;
    if !root.is_dir() {
        return Err(Failure::new(
            format!("{} is no directory: the replicas have no place.", root.display()),
            UNTOUCHED,
            format!("Mount its file system, or create it: mkdir {}", root.display()),
        ));
    }
    if root == Path::new("/") || options.state.starts_with(root) || options.run.starts_with(root) {
        return Err(Failure::new(
            format!("State, sockets and system cannot lie below {}, among the replicas.", root.display()),
            UNTOUCHED,
            "Choose another --root, or other places with --state and --run.",
        ));
    }
    let Some(to) = &options.statistics else { return Ok(()) };
    let mounts = MountTable::read().map_err(|error| failed("/proc/self/mountinfo cannot be read", &error))?;
    if is_within(&to.path, root, &mounts) {
        return Err(Failure::new(
            format!(
                "The statistics cannot lie below {}, among the replicas ({}).",
                root.display(),
                to.path.display()
            ),
            UNTOUCHED,
            "Choose another file with --statistics.",
        ));
    }
    check_statistics(&to.path)
}

pub(super) fn claim_root(options: &ServeOptions) -> Result<Claim, Failure> {
    let shown = options.root.display();
    let root = open_directory(&options.root)
        .map_err(|error| failed(&format!("{shown} cannot be opened"), &error))?;
    Claim::take(Role::ServeRoot, "", &options.root, root)
}

pub(super) fn lock_state(own: &Path) -> Result<Locked, Failure> {
    let lock = own_directory(own, 0o700, Symlink::Own)
        .map_err(|error| failed(&format!("{} cannot be opened", own.display()), &error))?;
    match Locked::now(lock) {
        Ok(Some(lock)) => Ok(lock),
        Ok(None) | Err(_) => Err(Failure::new(
            format!("Another `standin serve` uses the state in {}.", own.display()),
            "That daemon goes on.",
            "Stop it, or choose another state directory with --state.",
        )),
    }
}
