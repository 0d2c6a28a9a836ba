//! What a switch of roles says: what is to be typed on both hosts, and how it went.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::super::args::Common;
use super::cover;
use crate::control::{Answer, Role, daemons};
use crate::failover::switch::{Stage, Switch, When};
use crate::units;
use crate::words::Target;

/// What is typed on the target's host. Where this host can be its target in turn, that is named.
pub(super) fn there(common: &Common, switch: &Switch, target: &Target) -> String {
    let repset = match target {
        Target::Remote { repset, .. } => repset.as_str(),
        Target::Local(_) | Target::Null => &switch.set,
    };
    let back = other_end(common, &switch.tree).map_or_else(String::new, |back| format!(" --to {back}"));
    format!("standin failover {repset} --at {} --yes{back}", switch.at.display())
}

/// The same where the replica's directory is that of programs: the mount would be in the way of a target daemon.
pub(super) fn there_in_place(common: &Common, switch: &Switch) -> String {
    let (at, back) = (switch.at.display(), other_end(common, &switch.tree));
    let back = back.map_or_else(String::new, |back| format!(" --to {back}"));
    format!("standin stop serve; standin failover {at} --at {at} --yes{back}")
}

/// What is typed here afterwards, so that this directory becomes the replica; nothing where it is one.
fn here(common: &Common, switch: &Switch) -> Vec<String> {
    if other_end(common, &switch.tree).is_some() {
        return Vec::new();
    }
    let parent = switch.tree.parent().unwrap_or(Path::new("/"));
    let name = switch.tree.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    vec![format!("standin serve --root {} --adopt", parent.display()), format!("standin invite {name}")]
}

/// What is typed on the other host then, where it serves the set.
fn then_there(switch: &Switch) -> [String; 2] {
    let target = this_host(":7447", &switch.tree.file_name().unwrap_or_default().to_string_lossy());
    [
        format!("standin pair {target} < token"),
        format!("standin connection add {target} {}", switch.at.display()),
    ]
}

fn this_host(port: &str, replica: &str) -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("standin://{}{port}/{replica}", host.trim())
}

/// How the other host names this directory as a target, where a target daemon of this host has it as a replica: by this
/// host's name, under which the other one may not know it.
pub(in crate::cli) fn other_end(common: &Common, tree: &Path) -> Option<String> {
    let has_it = |daemon: crate::control::Daemon| {
        let Answer::Status(status) = daemon.answer else { return None };
        let Role::Target { target } = status.role else { return None };
        let replica = target.replicas.iter().find(|replica| replica.directory == tree)?.name.clone();
        Some((target.listening, replica))
    };
    let (listening, replica) = daemons(&common.asked_dir()).ok()?.into_iter().find_map(has_it)?;
    let port = listening.rsplit(':').next()?;
    Some(this_host(&format!(":{port}"), &replica))
}

pub(in crate::cli) fn changes(count: u64) -> String {
    format!("{} change{}", units::count(count), if count == 1 { "" } else { "s" })
}

pub(super) fn document(common: &Common, state: &Path, switch: &Switch) -> serde_json::Value {
    let target: Option<Target> = switch.target.parse().ok();
    json!({
        "switch": switch,
        "there": target.map(|target| there(common, switch, &target)),
        "there_in_place": there_in_place(common, switch),
        "here": here(common, switch),
        "cover": cover(state, switch).map(|cover| json!({
            "at": cover.at.display().to_string(),
            "since_unix_ms": cover.since_unix_ms,
            "gap_us": cover.gap_us,
        })),
    })
}

pub(super) fn kept_out(state: &Path, switch: &Switch) -> String {
    let at = switch.at.display();
    match cover(state, switch) {
        Some(cover) => {
            let gap = cover.gap_us.map_or_else(String::new, |us| {
                let gap = units::duration(Duration::from_micros(us));
                format!(
                    " Nothing stood there for {gap}: what was opened in it is still written to, and is lost."
                )
            });
            format!(
                "{at} is covered: reads go on, writes fail (EROFS), until this host serves it again, or it becomes the \
                 replica.{gap}"
            )
        }
        None => format!(
            "Programs must not write in {at} any more: it goes to nobody, and is overwritten when this directory becomes \
             the replica."
        ),
    }
}

/// For people.
pub(super) fn text(common: &Common, state: &Path, switch: &Switch) -> String {
    let said =
        |ms: Option<u64>| ms.map_or_else(|| "?".into(), |ms| units::duration(Duration::from_millis(ms)));
    let mut text = String::new();
    match (switch.stage, switch.epoch) {
        (Stage::Taken, Some(epoch)) => {
            let _ = writeln!(
                text,
                "Switched: '{}' is written at {} in epoch {epoch}.",
                switch.set, switch.target
            );
            if let Some(position) = switch.position {
                let sent = switch.began_at.map(|began| changes(position.saturating_sub(began)));
                let sent =
                    sent.map_or_else(String::new, |sent| format!("; {sent} sent since the command began"));
                let _ = writeln!(text, "  position   after change {position}{sent}");
            }
            let _ = writeln!(text, "  drained    {}, while programs worked", said(switch.drained_ms));
            let _ = writeln!(text, "  no mount   for {}, neither here nor there", said(switch.frozen_ms));
            for run in &switch.commands {
                let when = match run.when {
                    When::Before => "before",
                    When::After => "afterwards",
                };
                let how = run.fault().unwrap_or_else(|| "done".into());
                let _ = writeln!(text, "  {when:<10} {}: {how}, {}", run.command, said(Some(run.length_ms)));
                let output = run.ended.as_ref().map(|ended| ended.output.trim_end()).unwrap_or_default();
                output.lines().for_each(|line| text.push_str(&format!("             {line}\n")));
            }
            let _ = writeln!(text, "{}", kept_out(state, switch));
            match here(common, switch) {
                lines if lines.is_empty() => {
                    let _ = writeln!(
                        text,
                        "This directory is a replica of a target daemon here: nothing is typed here."
                    );
                }
                lines => {
                    let _ = writeln!(text, "To make this directory its replica, here:");
                    lines.iter().for_each(|line| text.push_str(&format!("  {line}\n")));
                    let _ = writeln!(text, "Then there, while programs work, with the token:");
                    then_there(switch).iter().for_each(|line| text.push_str(&format!("  {line}\n")));
                }
            }
        }
        _ => {
            let _ = writeln!(
                text,
                "Handed over, and nobody has taken over yet: {} has everything. The same command goes on waiting; to \
                 take it back, start the protection of {} again: nothing was raised.",
                switch.target,
                switch.at.display()
            );
        }
    }
    text
}
