//! What a monitor says of itself at its start, and in a dry run.

use std::fmt::Write as _;

use serde::Serialize;

use crate::monitor::plan::Need;
use crate::monitor::probe::Probe;
use crate::monitor::{Auto, Options};

/// What is watched, for scripts.
#[derive(Serialize)]
pub(super) struct Watched<'a> {
    set: &'a str,
    probes: Vec<String>,
    own: Vec<String>,
    need: Need,
    interval_ms: u64,
    misses: u32,
    timeout_ms: u64,
    worst_case_ms: u64,
    fence: Option<&'a str>,
    failover: Option<Vec<String>>,
}

impl<'a> Watched<'a> {
    pub fn of(options: &'a Options) -> Watched<'a> {
        let plan = options.plan();
        let texts = |probes: &[Probe]| probes.iter().map(ToString::to_string).collect();
        let auto = options.auto.as_ref();
        let words =
            |auto: &Auto| auto.failover.iter().map(|word| word.to_string_lossy().into_owned()).collect();
        Watched {
            set: &options.set,
            probes: texts(&options.probes),
            own: texts(&options.own),
            need: options.need,
            interval_ms: plan.interval_ms,
            misses: plan.misses,
            timeout_ms: plan.timeout_ms(),
            worst_case_ms: plan.worst_case_ms(),
            fence: auto.map(|auto| auto.fence.as_str()),
            failover: auto.map(words),
        }
    }

    pub fn text(&self) -> String {
        let seconds = |ms: u64| format!("{:.1} s", ms as f64 / 1000.0);
        let mut text = format!("{}  watched by {}\n", self.set, self.probes.join(", "));
        let mut line = |name: &str, value: &str| {
            let _ = writeln!(text, "  {name:<10} {value}");
        };
        let silent = match (self.probes.len(), self.need) {
            (1, _) => "it is silent",
            (_, Need::All) => "all are silent",
            (_, Need::One) => "one is silent",
        };
        line(
            "red",
            &format!(
                "when {silent} for {}, asked every {}; {} after the last answer at the latest",
                seconds(self.timeout_ms),
                seconds(self.interval_ms),
                seconds(self.worst_case_ms)
            ),
        );
        match self.own.is_empty() {
            true => line("note", "no --self: a host that has lost its own network takes its source for gone"),
            false => line("own", &format!("nothing is concluded while {} is silent", self.own.join(", "))),
        }
        match (&self.fence, &self.failover) {
            (Some(fence), Some(failover)) => {
                line("at red", &format!("the failover's look, then {fence}"));
                line("", &format!("then standin {} --yes", failover.join(" ")));
            }
            _ => line("at red", "a person is called: the event source_red"),
        }
        text
    }
}
