//! What is kept of drills, shown.

use std::time::{Duration, SystemTime};

use serde_json::json;

use super::{FAILED, UNTOUCHED, no_state, open, recover, turn};
use crate::cli::args::Common;
use crate::cli::{Outcome, output};
use crate::control::{Severity, unix_ms};
use crate::drill::Verdict;
use crate::drill::journal::{Journal, Record};
use crate::drill::last::{self, Last, Standing};
use crate::drill::report::Report;
use crate::failure::Failure;
use crate::units;

pub(super) fn list(common: &Common) -> Outcome {
    let journal = open(common)?;
    let running = catch_up(&journal)?;
    let all = journal.all().map_err(|error| no_state(&error))?;
    let is_whole = all.iter().all(|kept| kept.is_linked);
    if common.json {
        let drills: Vec<_> =
            all.iter().map(|kept| json!({ "linked": kept.is_linked, "report": kept.report })).collect();
        let open = running.as_ref().is_some_and(|record| record.is_open);
        output::json(&json!({
            "drills": drills, "running": running.map(|record| record.report), "open": open,
        }));
    } else {
        let mut text: String =
            all.iter().map(|kept| kept.report.line() + mark(kept.is_linked) + "\n").collect();
        let word = |record: &Record| if record.is_open { "open" } else { "running" };
        text.extend(running.map(|record| record.report.line_of(word(&record)) + "\n"));
        output::text(if text.is_empty() { "There was no drill yet." } else { &text });
    }
    Ok(if is_whole { 0 } else { FAILED })
}

fn mark(is_linked: bool) -> &'static str {
    match is_linked {
        true => "",
        false => "  CHANGED: this report or the one before it is not what was written",
    }
}

/// Cleans up where nobody runs one; else gives the one that runs, or of which something is left: reports are shown also
/// while the daemon of the replica is away.
fn catch_up(journal: &Journal) -> Result<Option<Record>, Failure> {
    match turn(journal)? {
        Some(turn) => match recover(journal, &turn) {
            Ok(()) => Ok(None),
            Err(failure) => {
                output::aside(&failure.to_string());
                let mut record = journal.running().map_err(|error| no_state(&error))?;
                // Nobody runs it.
                if let Some(record) = &mut record {
                    record.report.verdict.get_or_insert(Verdict::Interrupted);
                }
                Ok(record)
            }
        },
        None => journal.running().map_err(|error| no_state(&error)),
    }
}

pub(super) fn report(common: &Common, number: Option<u64>, as_junit: bool) -> Outcome {
    let journal = open(common)?;
    catch_up(&journal)?;
    let mut all = journal.all().map_err(|error| no_state(&error))?;
    let found = match number {
        Some(number) => all.into_iter().find(|kept| kept.report.number == number),
        None => all.pop(),
    };
    let Some(kept) = found else {
        let what = number.map_or_else(
            || "There was no drill yet.".into(),
            |number| format!("There is no drill {number}."),
        );
        return Err(Failure::new(what, UNTOUCHED, "`standin drill list` shows what there is."));
    };
    if as_junit {
        output::text(&kept.report.junit());
    } else {
        show(common, &kept.report);
    }
    if !kept.is_linked && as_junit {
        output::aside(mark(false).trim());
    } else if !kept.is_linked && !common.json {
        output::text(mark(false).trim());
    }
    Ok(if kept.is_linked { 0 } else { FAILED })
}

/// Exit codes as those of `standin status`.
pub(super) fn last(common: &Common, set: Option<&str>, expect_every: Option<Duration>) -> Outcome {
    let journal = open(common)?;
    catch_up(&journal)?;
    let all = journal.all().map_err(|error| no_state(&error))?;
    let is_whole = all.iter().all(|kept| kept.is_linked);
    let reports: Vec<Report> = all.into_iter().map(|kept| kept.report).collect();
    let every_ms = expect_every.map(|every| every.as_millis() as u64);
    let sets = last::last(&reports, set, unix_ms(SystemTime::now()), every_ms);
    if common.json {
        output::json(&json!({ "sets": sets, "linked": is_whole }));
    } else if sets.is_empty() {
        output::text("There was no drill yet.");
    } else {
        let mut text: String = sets.iter().map(last_words).collect();
        text.push_str(mark(is_whole).trim());
        output::text(&text);
    }
    let worst = sets.iter().map(|last| severity(last.standing)).max().unwrap_or(Severity::Warning);
    let of_reports = if is_whole { Severity::Ok } else { Severity::Warning };
    Ok(worst.max(of_reports).exit_code())
}

fn severity(standing: Standing) -> Severity {
    match standing {
        Standing::Passed => Severity::Ok,
        Standing::Never | Standing::Overdue | Standing::Unknown => Severity::Warning,
        Standing::Failed => Severity::Critical,
    }
}

fn last_words(last: &Last) -> String {
    let ago = last
        .age_ms
        .map_or_else(String::new, |age| format!(" {} ago", units::duration(Duration::from_millis(age))));
    let drill = last.drill.map_or_else(String::new, |drill| format!(" (drill {drill})"));
    let standing = match last.standing {
        Standing::Passed => "passed",
        Standing::Overdue => "OVERDUE: passed",
        Standing::Never => "NEVER: no drill has passed or failed",
        Standing::Failed => "FAILED",
        Standing::Unknown => "UNKNOWN",
    };
    format!("{}  {standing}{ago}{drill}\n", last.set)
}

pub(super) fn show(common: &Common, report: &Report) {
    if common.json {
        output::json(&json!({ "report": report }));
    } else {
        output::text(&report.text());
    }
}
