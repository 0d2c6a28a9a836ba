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

/// Those of all sets, in order of their files. Of a file that is wrong, and to who may not read the reports, nothing is
/// said: `standin config check` does, and the drill itself.
pub fn expected(common: &Common) -> Vec<Expected> {
    let names = Sets::of_drills(&common.state_dir()).names().unwrap_or_default();
    let meant = |name: String| {
        let run = config::drill_of_file(common, &name).ok()?;
        let set = run.set.map_or_else(|| OsString::from(&name), Into::into);
        Some((name, set.to_string_lossy().into_owned(), run.expect_every?))
    };
    let meant: Vec<_> = names.into_iter().filter_map(meant).collect();
    if meant.is_empty() {
        return Vec::new();
    }
    let mut reports = match Journal::of_existing(&common.state_dir()) {
        Some(journal) => match journal.last(EXPECTED_LOOKED) {
            Ok(reports) => reports,
            Err(_) => return Vec::new(),
        },
        None => Vec::new(),
    };
    reports.reverse();
    let now = unix_ms(SystemTime::now());
    meant.iter().map(|(name, set, every)| Expected::of(name, set, *every, &reports, now)).collect()
}
