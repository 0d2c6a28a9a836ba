//! The end of what a drill has made: of one that ends, and of one whose command has died.

use std::time::{Instant, SystemTime};

use super::driver::Cloning;
use super::journal::{Journal, Record, wait_for_end};
use super::limits::{CLEAN_UP_MAX, TRIED_EVERY};
use super::plan::Verdict;
use super::report::Report;
use crate::control::unix_ms;
use crate::failure::Failure;

/// Removes the clone of a drill, and waits until nothing of it is there.
pub(super) fn remove(cloning: &dyn Cloning, report: &Report) -> Result<(), String> {
    let failed = |failure: Failure| {
        format!("the clone {} could not be removed: {}", report.clone.directory, failure.what)
    };
    let deadline = Instant::now() + CLEAN_UP_MAX;
    loop {
        match cloning.find(&report.name).map_err(failed)? {
            None => return Ok(()),
            Some(clone) if clone.state == "TERM-IN-PROG" => {}
            Some(_) => cloning.remove(&report.name).map_err(failed)?,
        }
        if Instant::now() >= deadline {
            return Err(format!("the clone {} is still being removed", report.clone.directory));
        }
        std::thread::sleep(TRIED_EVERY / 10);
    }
}

/// Cleans up after a drill whose command has died; its report says that it was interrupted, unless it had ended
/// before.
///
/// Errors: what is left; the next command tries again.
pub fn recover(journal: &Journal, mut record: Record, cloning: &dyn Cloning) -> Result<Report, String> {
    if let Some((pid, begun)) = record.process {
        wait_for_end(pid, begun)?;
    }
    let report = &mut record.report;
    if journal.has(report.number).map_err(|error| format!("its report cannot be read: {error}"))? {
        journal.forget_running().map_err(|error| format!("its record cannot be removed: {error}"))?;
        return Ok(record.report);
    }
    let is_wanted = report.clone.kept;
    if !is_wanted {
        remove(cloning, report)?;
    }
    if report.verdict.is_none() {
        report.verdict = Some(Verdict::Interrupted);
        report.ended_unix_ms = unix_ms(SystemTime::now());
    }
    report.left = None;
    journal.keep(report).map_err(|error| format!("its report cannot be written: {error}"))?;
    Ok(record.report)
}
