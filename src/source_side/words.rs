//! What the daemon says on its terminal when it begins and ends to protect.

use std::io::Write;
use std::sync::Arc;

use super::connection::Connection;
use super::ground::Ground;
use super::life::Ended;
use super::stop::SENT_LATER;
use crate::control::StopReport;
use crate::failure::Failure;
use crate::words::Target;

/// One line for people and scripts: the mount is up, and what targets lack is copied.
pub fn ready(ground: &Ground, connections: &[Arc<Connection>]) {
    let targets: Vec<String> = ground.options.targets.iter().map(Target::to_string).collect();
    let targets = if targets.is_empty() { "null:".to_owned() } else { targets.join(" ") };
    let mirror = match connections.iter().filter(|connection| !connection.is_null()).count() {
        0 => "capture only, nothing is replicated",
        _ => "what targets lack is copied, see `standin status`",
    };
    let (directory, profile) = (ground.options.directory.display(), ground.options.profile);
    let line = format!("ready {directory} -> {targets}; profile {profile}; {mirror}\n");
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
}

/// A stop ended.
pub fn farewell(ground: &Ground, report: &StopReport) {
    let shown = ground.options.directory.display();
    aside!("{shown} is no longer protected.");
    if !report.drained {
        let then = |line: &str| if line.ends_with(SENT_LATER) { "" } else { "; the next start copies them" };
        report.left.iter().for_each(|line| aside!("warning: {line}{}.", then(line)));
    }
}

/// Somebody else took the mount away, and what was queued was sent.
pub fn unmounted_by_others(ground: &Ground, report: &StopReport) -> Ended {
    let what = unmounted(ground);
    if report.drained {
        aside!("{what} All targets have everything that was written to it.");
        return Ended::Complete;
    }
    let failure = Failure::new(
        format!("{what} Left behind: {}.", report.left.join("; ")),
        "The data in the directory is complete.",
        "Start the protection again: what a target lacks, and what changes meanwhile, is found and copied.",
    );
    aside!("standin: {failure}");
    Ended::LeftBehind
}

pub fn unmounted(ground: &Ground) -> String {
    let directory = ground.options.directory.display();
    format!("{directory} was unmounted by somebody else: it is no longer protected.")
}
