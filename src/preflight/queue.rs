//! The directory for the part of the queue that is on disk.
//!
//! What it must not lie in is checked with the other places.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::Access;

use super::{NOTHING_DONE, check_outside, existing_ancestor};
use crate::failure::Failure;
use crate::words::{ProtectOptions, Target};

/// Whether segments can be made there; what a person should know is given back. A directory that was named has to be
/// there: where its disk is not mounted, the disk below would be filled.
pub fn check(options: &ProtectOptions) -> Result<Option<String>, Failure> {
    let Some(parent) = options.queue_disk.as_ref().and_then(|disk| disk.parent.as_ref()) else {
        return Ok(None);
    };
    check_parent(parent)?;
    // It is in nobody else's tree either: what another daemon replicates, or holds as a replica.
    check_outside(parent)?;
    Ok(beside_queue(options).map(|other| {
        format!(
            "The queue on disk ({}) and {} lie on one disk: of it a quarter stays free (4 GiB at most), and what the queue takes is room \
             that others lack.",
            parent.display(),
            other.display()
        )
    }))
}

/// As at any start, where the mount of a daemon that has ended is taken over: nothing on it is looked at. Whoever names
/// other places now, or has not mounted their disks, is told so, too.
pub fn check_again(options: &ProtectOptions) -> Result<(), Failure> {
    let queue = options.queue_disk.as_ref().and_then(|disk| disk.parent.as_deref());
    let statistics = options.statistics.as_ref().map(|to| to.path.as_path());
    let named = [
        (queue, "the directory for the queue", "--queue-dir"),
        (statistics, "the file for the statistics", "--statistics"),
    ];
    let replicas = options.targets.iter().filter_map(|target| match target {
        Target::Local(path) => Some((path.as_path(), "the replica")),
        Target::Null | Target::Remote { .. } => None,
    });
    let trees = std::iter::once((options.directory.as_path(), "the protected directory"));
    let trees: Vec<_> = trees.chain([(options.tree(), "the protected directory")]).chain(replicas).collect();
    for (path, what, option) in named {
        let Some(path) = path else { continue };
        if let Some((_, tree)) = trees.iter().find(|(tree, _)| path.starts_with(tree)) {
            return Err(Failure::new(
                format!("{}, {what}, is in {tree}.", path.display()),
                NOTHING_DONE,
                format!("Name another place with {option}."),
            ));
        }
    }
    queue.map_or(Ok(()), check_parent)
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

/// The protected directory, or a replica on this host, whose file system the queue would fill.
pub fn beside_queue(options: &ProtectOptions) -> Option<&Path> {
    let device = |path: &Path| fs::metadata(existing_ancestor(path)).map(|meta| meta.dev()).ok();
    let own = device(&options.queue_directory()?)?;
    let replicas = options.targets.iter().filter_map(|target| match target {
        Target::Local(replica) => Some(replica.as_path()),
        Target::Null | Target::Remote { .. } => None,
    });
    std::iter::once(options.tree()).chain(replicas).find(|other| device(other) == Some(own))
}
