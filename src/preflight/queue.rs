//! The directory for the part of the queue that is on disk.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::Access;

use super::{NOTHING_DONE, existing_ancestor};
use crate::failure::Failure;
use crate::words::{ProtectOptions, Target};

/// Whether segments can be made there; what a person should know is given back. A directory that was named has to be
/// there: where its disk is not mounted, the disk below would be filled.
pub fn check(options: &ProtectOptions) -> Result<Option<String>, Failure> {
    let Some(parent) = options.queue_disk.as_ref().and_then(|disk| disk.parent.as_ref()) else {
        return Ok(None);
    };
    check_parent(parent)?;
    Ok(replica_beside(options, parent).map(|replica| {
        format!(
            "The queue on disk ({}) and the replica {} lie on one disk: a queue that grows takes room from the replica.",
            parent.display(),
            replica.display()
        )
    }))
}

fn check_parent(parent: &Path) -> Result<(), Failure> {
    let shown = parent.display();
    let refuse = |what: String, next: &str| Err(Failure::new(what, NOTHING_DONE, next));
    match fs::metadata(parent) {
        Ok(meta) if !meta.is_dir() => refuse(
            format!("{shown} is no directory: the queue cannot lie in it."),
            "Name a directory with --queue-dir.",
        ),
        Ok(_) => match rustix::fs::access(parent, Access::WRITE_OK | Access::EXEC_OK) {
            Ok(()) => Ok(()),
            Err(error) => refuse(
                format!("Nothing can be written in {shown}, the directory for the queue: {error}."),
                "Choose a directory on a disk that takes writes.",
            ),
        },
        Err(error) => refuse(
            format!("{shown}, the directory for the queue, cannot be used: {error}."),
            "Create it, or mount its disk: it is not created by itself.",
        ),
    }
}

/// A replica on this host whose file system the queue would fill.
fn replica_beside<'a>(options: &'a ProtectOptions, parent: &Path) -> Option<&'a PathBuf> {
    let device = |path: &Path| fs::metadata(existing_ancestor(path)).map(|meta| meta.dev()).ok();
    let own = device(parent)?;
    options.targets.iter().find_map(|target| match target {
        Target::Local(replica) if device(replica) == Some(own) => Some(replica),
        Target::Local(_) | Target::Null | Target::Remote { .. } => None,
    })
}
