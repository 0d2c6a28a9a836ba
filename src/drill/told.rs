//! What the commands of a drill are told of it; and those of them that run on the host: hooks, before its clean-up and
//! after it.

use std::collections::BTreeMap;

use super::driver::Drill;
use super::inside::Bad;
use super::plan::Verdict;
use super::report::Report;
use crate::commands::{Ended, Runner, environment};

impl Report {
    /// Of each command inside.
    pub fn environment(&self) -> BTreeMap<String, String> {
        environment(&of_drill(self))
    }
}

impl Drill<'_> {
    /// Runs a hook. What the verdict is without the rest of the drill, and what is known so far, it is told.
    pub(super) fn hook(&self, verdict: Verdict, command: &str, last: &mut Option<Ended>) -> Result<(), Bad> {
        let failed = |error: std::io::Error| Bad::Failed(format!("it could not be run: {error}"));
        let report = &self.record.report;
        let mut told = of_drill(report).to_vec();
        told.extend([
            ("STANDIN_DRILL_VERDICT", verdict.to_string()),
            ("STANDIN_DRILL_NUMBER", report.number.to_string()),
            ("STANDIN_DRILL_CLONE", report.clone.directory.clone()),
            ("STANDIN_DRILL_REPORT", self.journal.running_path().display().to_string()),
        ]);
        let mut runner = Runner::start().map_err(failed)?;
        let ended = runner.run(command, self.request.timeout, &told, &self.stops).map_err(failed)?;
        let ended = ended.ok_or(Bad::Interrupted)?;
        let is_success = ended.is_success();
        *last = Some(ended);
        if is_success { Ok(()) } else { Err(Bad::Failed(String::new())) }
    }
}

fn of_drill(report: &Report) -> [(&'static str, String); 6] {
    let point = report.point.as_ref().map(|point| point.packet.to_string());
    let age = report.point.as_ref().and_then(|point| point.age_ms);
    let age = age.map(|age| format!("{:.1}", age as f64 / 1000.0));
    [
        ("STANDIN_DRILL", "1".into()),
        ("STANDIN_DRILL_NAME", report.name.clone()),
        ("STANDIN_DRILL_SET", report.set.clone()),
        ("STANDIN_DRILL_PATH", report.at.clone()),
        ("STANDIN_DRILL_POSITION", point.unwrap_or_default()),
        ("STANDIN_DRILL_AGE", age.unwrap_or_default()),
    ]
}
