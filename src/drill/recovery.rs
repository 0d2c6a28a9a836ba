//! The end of what a drill has made: of one that ends, and of one whose command has died.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use super::driver::Cloning;
use super::group;
use super::journal::{Journal, Record, wait_for_end};
use super::limits::{LATE_MAX, SWEPT, TRIED_EVERY};
use super::plan::Verdict;
use super::report::Report;
use crate::control::{CloneStatus, unix_ms};
use crate::failure::Failure;

/// The clone of a drill, and nobody else's of the same name.
pub(super) fn find(cloning: &dyn Cloning, report: &Report) -> Result<Option<CloneStatus>, Failure> {
    let found = cloning.find(&report.name)?;
    Ok(found.filter(|clone| clone.directory.as_deref() == Some(Path::new(&report.clone.directory))))
}

/// Removes the clone of a drill. One that is being removed already is waited for, or that is tried again.
pub(super) fn remove(cloning: &dyn Cloning, report: &Report) -> Result<(), String> {
    let failed = |failure: Failure| {
        format!("the clone {} could not be removed: {}", report.clone.directory, failure.what)
    };
    if find(cloning, report).map_err(failed)?.is_none() {
        return Ok(());
    }
    let removed = cloning.remove(&report.name);
    match find(cloning, report).map_err(failed)? {
        None => Ok(()),
        Some(_) => Err(match removed {
            Err(failure) => failed(failure),
            Ok(()) => format!("the clone {} is still there", report.clone.directory),
        }),
    }
}

/// Cleans up after a drill whose command has died; its report says that it was interrupted, unless it had ended
/// before. `cloning` is `None` where no daemon has the replica any more, and nobody can be asked.
///
/// Errors: what is left; the next command tries again.
pub fn recover(
    journal: &Journal,
    mut record: Record,
    cloning: Option<&dyn Cloning>,
) -> Result<Report, String> {
    if let Some((pid, begun)) = record.process {
        wait_for_end(pid, begun)?;
    }
    group::remove(&record.report.name)?;
    let was_answered = record.is_begun || !record.report.steps.is_empty();
    let report = &mut record.report;
    if journal.has(report.number).map_err(|error| format!("its report cannot be read: {error}"))? {
        journal.close(report.number).map_err(|error| format!("its record cannot be removed: {error}"))?;
        return Ok(record.report);
    }
    if let Some(cloning) = cloning.filter(|_| !report.clone.kept) {
        if !was_answered {
            wait_for_late(cloning, report)?;
        }
        remove(cloning, report)?;
        // Where somebody stands in with the replica its daemon shows no clones.
        if !is_gone(Path::new(&report.clone.directory)) {
            return Err(format!(
                "the clone {} is still there, and the daemon of the replica does not know of it",
                report.clone.directory
            ));
        }
    }
    if report.verdict.is_none() {
        report.verdict = Some(Verdict::Interrupted);
        report.ended_unix_ms = unix_ms(SystemTime::now());
    }
    report.left = None;
    journal.keep(report).map_err(|error| format!("its report cannot be written: {error}"))?;
    Ok(record.report)
}

/// A clone that the daemon was asked for by who has died may still be waiting for its moment, and is in no list yet.
fn wait_for_late(cloning: &dyn Cloning, report: &Report) -> Result<(), String> {
    let begun = Duration::from_millis(unix_ms(SystemTime::now()).saturating_sub(report.started_unix_ms));
    // Counted from now where the clock was set back.
    let deadline = Instant::now() + LATE_MAX.saturating_sub(begun);
    while find(cloning, report).map_err(|failure| failure.what)?.is_none() {
        if Instant::now() >= deadline {
            return Ok(());
        }
        std::thread::sleep(TRIED_EVERY);
    }
    Ok(())
}

/// Removes clones of drills that were interrupted when nobody could be asked for them.
///
/// Errors: what is left.
pub fn sweep(journal: &Journal, cloning: &dyn Cloning) -> Result<(), String> {
    let last = journal.last(SWEPT).map_err(|error| format!("the reports cannot be read: {error}"))?;
    let is_open = |report: &&Report| report.verdict == Some(Verdict::Interrupted) && !report.clone.kept;
    last.iter().filter(is_open).try_for_each(|report| remove(cloning, report))
}

/// Whether nothing has this name.
pub fn is_gone(path: &Path) -> bool {
    path.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}
