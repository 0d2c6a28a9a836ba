//! What is kept of drills, shown.

use serde_json::json;

use super::{FAILED, UNTOUCHED, no_state, open, recover, turn};
use crate::cli::args::Common;
use crate::cli::{Outcome, output};
use crate::drill::Verdict;
use crate::drill::journal::{Journal, Record};
use crate::drill::report::Report;
use crate::failure::Failure;

pub(super) fn list(common: &Common) -> Outcome {
    let journal = open(common)?;
    let running = catch_up(&journal)?;
    let all = journal.all().map_err(|error| no_state(&error))?;
    let is_whole = all.iter().all(|kept| kept.is_linked);
    if common.json {
        let drills: Vec<_> =
            all.iter().map(|kept| json!({ "linked": kept.is_linked, "report": kept.report })).collect();
        output::json(&json!({ "drills": drills, "running": running.map(|record| record.report) }));
    } else {
        let mut text: String =
            all.iter().map(|kept| kept.report.line() + mark(kept.is_linked) + "\n").collect();
        text.extend(running.map(|record| record.report.line() + "\n"));
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
                eprintln!("standin: {failure}");
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

pub(super) fn report(common: &Common, number: Option<u64>) -> Outcome {
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
    show(common, &kept.report);
    if !kept.is_linked && !common.json {
        output::text(mark(false).trim());
    }
    Ok(if kept.is_linked { 0 } else { FAILED })
}

pub(super) fn show(common: &Common, report: &Report) {
    if common.json {
        output::json(&json!({ "report": report }));
    } else {
        output::text(&report.text());
    }
}
