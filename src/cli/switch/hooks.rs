//! The commands that a person has named for a switch of roles.
//!
//! ```text
//! drained ── confirmed ── before (--pre) ── drained again ── the mount goes ── handed over ── taken ── after (--post)
//!                           └ where it fails all is as it was
//! ```

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use clap::Args;

use super::{AS_BEFORE, unnoted};
use crate::commands::Runner;
use crate::control::unix_ms;
use crate::failover::switch::{CommandRun, Switch, When};
use crate::failure::Failure;
use crate::units::parse_duration;

#[derive(Clone, Debug, Args)]
pub struct Hooks {
    /// Run by a shell when the target has everything, before the mount goes, as to stop what works on the data; where it
    /// fails all is as it was
    #[arg(long, value_name = "COMMAND")]
    pre: Option<String>,
    /// Run by a shell when the other host has taken over
    #[arg(long, value_name = "COMMAND")]
    post: Option<String>,
    /// Each of the two is killed after this time, as in 30s, 5m
    #[arg(long, value_name = "T", value_parser = parse_duration, default_value = "1m")]
    timeout: Duration,
}

impl Hooks {
    pub(super) fn has_before(&self) -> bool {
        self.pre.is_some()
    }

    /// Notes what came of it.
    ///
    /// Errors: it has failed, or cannot be noted.
    pub(super) fn before(&self, state: &Path, switch: Switch) -> Result<Switch, Failure> {
        let Some(command) = &self.pre else { return Ok(switch) };
        let switch = run(command, self.timeout, When::Before, switch);
        switch.note(state).map_err(|error| has_run(&switch, unnoted(state, &error)))?;
        match switch.command(When::Before).and_then(CommandRun::fault) {
            None => Ok(switch),
            Some(why) => Err(Failure::new(
                format!("The command before the change (--pre) {why}."),
                AS_BEFORE,
                "Mend what it says, undo what it has done, and give the same command again.",
            )),
        }
    }

    /// What came of it is in the report.
    pub(super) fn after(&self, switch: Switch) -> Switch {
        match &self.post {
            Some(command) => run(command, self.timeout, When::After, switch),
            None => switch,
        }
    }
}

/// Of what goes wrong later: what the command has stopped, nobody starts again.
pub(super) fn has_run(switch: &Switch, failure: Failure) -> Failure {
    match switch.command(When::Before) {
        Some(_) => {
            let next = format!(
                "{} The command before the change (--pre) has run: undo what it has done.",
                failure.next
            );
            Failure { next, ..failure }
        }
        None => failure,
    }
}

fn run(command: &str, timeout: Duration, when: When, switch: Switch) -> Switch {
    let (began, started) = (Instant::now(), SystemTime::now());
    // A signal from a terminal ends this process, and the runner with it.
    let (_nobody, never) = crossbeam_channel::bounded(0);
    let ran =
        Runner::start().and_then(|mut runner| runner.run(command, timeout, &environment(&switch), &never));
    let (ended, problem) = match ran {
        Ok(ended) => (ended, None),
        Err(error) => (None, Some(error.to_string())),
    };
    let run = CommandRun {
        when,
        command: command.to_owned(),
        started_unix_ms: unix_ms(started),
        length_ms: began.elapsed().as_millis() as u64,
        ended,
        problem,
    };
    // One that goes on waiting has the one before in its note.
    let others = switch.commands.iter().filter(|other| other.when != when).cloned();
    Switch { commands: others.chain([run]).collect(), ..switch }
}

fn environment(switch: &Switch) -> Vec<(&'static str, String)> {
    let number = |number: Option<u64>| number.map_or_else(String::new, |number| number.to_string());
    vec![
        ("STANDIN_SWITCH_SET", switch.set.clone()),
        ("STANDIN_SWITCH_AT", switch.at.display().to_string()),
        ("STANDIN_SWITCH_TREE", switch.tree.display().to_string()),
        ("STANDIN_SWITCH_TARGET", switch.target.clone()),
        ("STANDIN_SWITCH_POSITION", number(switch.position)),
        ("STANDIN_SWITCH_EPOCH", number(switch.epoch.map(u64::from))),
    ]
}
