//! What lies beside a replica, for the control socket: counted, named, and removed.
//!
//! On the thread of whoever asks, and beside the sessions: see [`crate::apply::Orphans`].

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::apply::{OrphanListing, Orphans, Removed, WhichOrphans, Why};
use crate::control::{OrphanStatus, OrphansRequest, PathText, RemoveOrphans, RemovedOrphans, ReplicaOrphans};
use crate::failure::Failure;
use crate::limits::ORPHANS_LISTED_MAX;

/// How long a session is waited for that may be ending, and how often it is looked.
const SESSION_ENDS_WITHIN: Duration = Duration::from_secs(3);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What is asked for of one replica. `go_on`: whoever asks is still there.
///
/// Errors: the disk cannot be read.
pub fn answer(
    (name, directory): (&str, &Path),
    request: &OrphansRequest,
    go_on: &dyn Fn() -> bool,
) -> Result<ReplicaOrphans, Failure> {
    let done = || -> io::Result<ReplicaOrphans> {
        let Some(orphans) = Orphans::of(directory)? else {
            let nothing = request.remove.as_ref().map(|_| Removed::default());
            return Ok(status((name, directory), OrphanListing::default(), nothing));
        };
        let which = request.remove.as_ref().map(|remove| meant(directory, remove));
        let removed = which.map(|which| remove(&orphans, &which, go_on)).transpose()?;
        if removed.as_ref().is_some_and(|removed| removed.is_busy) {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        if let Some(removed) = &removed {
            note(directory, removed);
        }
        Ok(status((name, directory), orphans.list(ORPHANS_LISTED_MAX, go_on)?, removed))
    };
    done().map_err(|error| match error.kind() {
        io::ErrorKind::ResourceBusy => busy(directory),
        _ => Failure::new(
            format!("What lies beside {} cannot be read: {error}.", directory.display()),
            "What was removed until then is gone.",
            "Mend this and try again.",
        ),
    })
}

/// Who works with what is meant may be about to end: a connection that was just stopped.
fn remove(orphans: &Orphans, which: &WhichOrphans, go_on: &dyn Fn() -> bool) -> io::Result<Removed> {
    let deadline = Instant::now() + SESSION_ENDS_WITHIN;
    loop {
        let removed = orphans.remove(which, go_on)?;
        if !removed.is_busy || Instant::now() >= deadline || !go_on() {
            return Ok(removed);
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

fn busy(directory: &Path) -> Failure {
    Failure::new(
        format!("A copy to {} is under way, and works with what it has moved aside.", directory.display()),
        "Nothing was removed.",
        "Stop the connection on the source first (standin connection stop), and start it again afterwards.",
    )
}

/// There is no such replica here.
pub fn unknown(name: &str) -> Failure {
    Failure::new(
        format!("This daemon holds no replica of the set '{name}'."),
        "Nothing was removed.",
        "`standin orphans list` shows the replicas of all daemons of this host.",
    )
}

fn meant(directory: &Path, remove: &RemoveOrphans) -> WhichOrphans {
    let within = |PathText(path): &PathText| -> PathBuf {
        path.strip_prefix(directory).unwrap_or(path).components().collect()
    };
    match remove {
        RemoveOrphans::All => WhichOrphans::All,
        RemoveOrphans::OlderThan { ms } => WhichOrphans::OlderThan(Duration::from_millis(*ms)),
        RemoveOrphans::Paths { paths } => WhichOrphans::Paths(paths.iter().map(within).collect()),
        RemoveOrphans::Waiting => WhichOrphans::Waiting,
    }
}

fn note(directory: &Path, removed: &Removed) {
    let Removed { count, amount, failed, first_failure, .. } = removed;
    log::info!(
        "{}: {count} orphans were removed as asked, {} objects of {} bytes",
        directory.display(),
        amount.objects,
        amount.bytes
    );
    if let Some(why) = first_failure {
        log::warn!("{}: {failed} objects could not be removed, first {why}", directory.display());
    }
}

fn status(
    (name, directory): (&str, &Path),
    listing: OrphanListing,
    removed: Option<Removed>,
) -> ReplicaOrphans {
    let OrphanListing { count, total, first, waiting } = listing;
    let orphans = first.into_iter().map(|orphan| OrphanStatus {
        path: orphan.path,
        place: orphan.place,
        why: orphan.why.map_or("", why_word).to_owned(),
        since_unix_ms: orphan.since.as_millis() as u64,
        objects: orphan.amount.objects,
        bytes: orphan.amount.bytes,
    });
    ReplicaOrphans {
        name: name.to_owned(),
        directory: directory.to_owned(),
        count,
        objects: total.objects,
        bytes: total.bytes,
        waiting_objects: waiting.objects,
        waiting_bytes: waiting.bytes,
        orphans: orphans.collect(),
        removed: removed.map(|removed| RemovedOrphans {
            count: removed.count,
            objects: removed.amount.objects,
            bytes: removed.amount.bytes,
            failed: removed.failed,
            first_failure: removed.first_failure,
        }),
    }
}

fn why_word(why: Why) -> &'static str {
    match why {
        Why::NotOnSource => "the source did not have it",
        Why::InTheWay => "something else had its place",
        Why::OutOfTheSet => "it is no part of the set any more",
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use rustix::fs::FlockOperation;

    use super::*;

    /// Whoever stops a connection and removes what its copy has moved aside does not meet the end of that copy.
    #[test]
    fn a_session_that_ends_is_waited_for() {
        let place = tempfile::tempdir().expect("a directory");
        let (replica, batch) = (place.path().join("r"), place.path().join(".r.standin/resync/1-2"));
        fs::create_dir_all(&replica).expect("a directory");
        fs::create_dir_all(&batch).expect("a directory");
        fs::write(batch.join("file"), "moved aside").expect("a file");
        let request = OrphansRequest { replica: None, remove: Some(RemoveOrphans::Waiting) };
        let session = File::open(batch.parent().expect("a parent")).expect("a directory");
        rustix::fs::flock(&session, FlockOperation::LockExclusive).expect("a lock");
        let answered = |go_on: &dyn Fn() -> bool| answer(("r", &replica), &request, go_on);
        let refused = answered(&|| false).expect_err("a session works on it");
        assert!(refused.to_string().contains("is under way"), "{refused}");
        let mut session = Some(session);
        let looks = std::cell::RefCell::new(0);
        let removed = {
            let session = std::cell::RefCell::new(&mut session);
            answered(&|| {
                *looks.borrow_mut() += 1;
                // It ends while it is waited for.
                drop(session.borrow_mut().take());
                true
            })
        };
        let removed = removed.expect("removed").removed.expect("an outcome");
        assert_eq!((removed.count, removed.failed), (1, 0));
        assert!(*looks.borrow() > 0 && !batch.join("file").exists());
    }
}
