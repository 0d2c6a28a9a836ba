//! Drills of this host whose files say how often they are expected to pass.

use std::ffi::OsString;
use std::time::SystemTime;

use crate::cli::args::Common;
use crate::cli::config;
use crate::control::unix_ms;
use crate::drill::expected::Expected;
use crate::drill::journal::Journal;
use crate::drill::limits::EXPECTED_LOOKED;
use crate::sets::Sets;

/// Those of all sets, in order of their files, and files that are wrong: what they were to have done does not take place.
/// To who may not read the reports nothing is said of those.
pub fn expected(common: &Common) -> Vec<Expected> {
    let names = Sets::of_drills(&common.state_dir()).names().unwrap_or_default();
    let (mut meant, mut expected) = (Vec::new(), Vec::new());
    for name in names {
        match config::drill_of_file(common, &name) {
            Ok(run) => {
                let set = run.set.map_or_else(|| OsString::from(&name), Into::into);
                meant.extend(run.expect_every.map(|every| (name, set.to_string_lossy().into_owned(), every)));
            }
            Err(failure) => expected.push(Expected::unusable(&name, failure.what)),
        }
    }
    let mut reports = match Journal::of_existing(&common.state_dir()) {
        Some(journal) if !meant.is_empty() => match journal.last(EXPECTED_LOOKED) {
            Ok(reports) => reports,
            Err(_) => return expected,
        },
        Some(_) | None => Vec::new(),
    };
    reports.reverse();
    let now = unix_ms(SystemTime::now());
    expected.extend(meant.iter().map(|(name, set, every)| Expected::of(name, set, *every, &reports, now)));
    expected.sort_by(|one, other| one.file.cmp(&other.file));
    expected
}
