//! A planned change of roles, as far as the host does it that is written on: everything is sent while programs work,
//! the mount goes, the last of it is sent, and the host of the target takes over.
//!
//! ```text
//!  look ── drain (programs work) ── stop (frozen from here on) ── handed over ── taken
//!    └──────┴ all is as it was, and replicating    │                  │            └ by a higher epoch: over
//!                                                  │                  └ noted: the same command goes on waiting
//!                                                  └ something is left behind: not handed over, start it again
//! ```
//! Nobody is kept out before the target's host has raised the epoch: until then the protection can be started
//! again as if nothing had been.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::commands::Ended;
use crate::packet::{DataState, Incarnation};
use crate::store::{self, Symlink};

/// What is kept of one that is under way, and of the last one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Switch {
    pub set: String,
    /// Who takes over, as it was typed.
    pub target: String,
    /// Where programs had the data here.
    #[serde(with = "crate::control::path_text")]
    pub at: PathBuf,
    #[serde(with = "crate::control::path_text")]
    pub tree: PathBuf,
    pub by: String,
    pub started_unix_ms: u64,
    pub stage: Stage,
    /// The run of the source that has handed over.
    pub run: Option<Incarnation>,
    /// How long sending everything took while programs worked.
    pub drained_ms: Option<u64>,
    /// From when on programs could not write here.
    pub frozen_unix_ms: Option<u64>,
    /// Until it was seen that the target's host had taken over.
    pub frozen_ms: Option<u64>,
    pub epoch: Option<u32>,
    /// The last change that the target had when the command began.
    #[serde(default)]
    pub began_at: Option<u64>,
    /// The last change that the target's host has gone on from.
    #[serde(default)]
    pub position: Option<u64>,
    /// What a person has named to be run, as far as it was.
    #[serde(default)]
    pub commands: Vec<CommandRun>,
}

/// A command for a shell that was run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandRun {
    pub when: When,
    pub command: String,
    pub started_unix_ms: u64,
    pub length_ms: u64,
    pub ended: Option<Ended>,
    /// Why it could not be run.
    pub problem: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// The target has everything, and the mount is still there.
    Before,
    /// The other host has taken over.
    After,
}

impl CommandRun {
    /// Why it is no success.
    pub fn fault(&self) -> Option<String> {
        match (&self.ended, &self.problem) {
            (Some(ended), _) if ended.is_success() => None,
            (Some(ended), _) => Some(format!("has failed{}", ended.words())),
            (None, Some(problem)) => Some(format!("could not be run: {problem}")),
            (None, None) => Some("was interrupted".into()),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    Draining,
    /// Killed here it is not known what the target has.
    Stopping,
    /// The target has everything, and nobody writes.
    HandedOver,
    Taken,
}

/// Whether somebody has protected the directory since a note was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// It is protected now.
    Served,
    /// It was: what was handed over is not all any more.
    WasServed,
    Nothing,
}

/// What follows from the note that an earlier command has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    Begin,
    /// Everything is at the target.
    GoOnWaiting,
    /// Nobody knows what the target has.
    StartAgainFirst,
}

pub fn next(left: Option<Stage>, since: Since) -> Next {
    match (left, since) {
        (_, Since::Served) => Next::Begin,
        (Some(Stage::HandedOver), Since::Nothing) => Next::GoOnWaiting,
        (Some(Stage::HandedOver), Since::WasServed)
        | (
            None | Some(Stage::Draining | Stage::Stopping | Stage::Taken),
            Since::WasServed | Since::Nothing,
        ) => Next::StartAgainFirst,
    }
}

/// A connection, as far as it can be handed over to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub target: String,
    pub is_remote: bool,
    pub data: DataState,
}

/// Who takes over: the one that is meant, or the only one there is.
///
/// Errors: in one line, why nobody does.
pub fn taker(candidates: &[Candidate], wanted: Option<&str>) -> Result<String, String> {
    let is_meant = |one: &&Candidate| wanted.map_or(one.is_remote, |wanted| one.target == wanted);
    let meant: Vec<&Candidate> = candidates.iter().filter(is_meant).collect();
    match (meant.as_slice(), wanted) {
        ([], Some(wanted)) => Err(format!("{wanted} is no target of it")),
        ([], None) => Err("it has no target on another host".into()),
        ([one], _) if !one.is_remote => Err(format!("{} is on this host", one.target)),
        ([one], _) if one.data != DataState::Good => {
            Err(format!("the replica at {} is no consistent copy (yet)", one.target))
        }
        ([one], _) => Ok(one.target.clone()),
        (_, _) => Err("it has several targets: say which one takes over (--target)".into()),
    }
}

fn path(state: &Path, set: &str) -> PathBuf {
    state.join(".failovers").join(format!("{set}.switch"))
}

impl Switch {
    pub fn command(&self, when: When) -> Option<&CommandRun> {
        self.commands.iter().find(|one| one.when == when)
    }

    /// What was left by an earlier one.
    pub fn left(state: &Path, set: &str) -> io::Result<Option<Switch>> {
        store::read_json(&path(state, set))
    }

    /// Durable when it returns.
    pub fn note(&self, state: &Path) -> io::Result<()> {
        store::own_directory(&state.join(".failovers"), 0o700, Symlink::Own)?;
        store::replace_json(&path(state, &self.set), self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_handed_over_is_waited_for() {
        use Stage::{Draining, HandedOver, Stopping, Taken};
        for left in [None, Some(Draining), Some(Stopping), Some(HandedOver), Some(Taken)] {
            assert_eq!(next(left, Since::Served), Next::Begin, "{left:?}");
            assert_eq!(next(left, Since::WasServed), Next::StartAgainFirst, "{left:?}");
            let expected = if left == Some(HandedOver) { Next::GoOnWaiting } else { Next::StartAgainFirst };
            assert_eq!(next(left, Since::Nothing), expected, "{left:?}");
        }
    }

    #[test]
    fn the_one_that_is_meant_takes_over() {
        let candidate = |target: &str, is_remote, data| Candidate { target: target.into(), is_remote, data };
        let (one, other) =
            (candidate("one", true, DataState::Good), candidate("other", true, DataState::Good));
        let (here, bad) = (candidate("here", false, DataState::Good), candidate("bad", true, DataState::Bad));
        for (candidates, wanted, expected) in [
            (vec![one.clone()], None, Ok("one")),
            (vec![one.clone(), here.clone()], None, Ok("one")),
            (vec![one.clone(), other.clone()], None, Err("several targets")),
            (vec![one.clone(), other.clone()], Some("other"), Ok("other")),
            (vec![one.clone()], Some("other"), Err("no target of it")),
            (vec![], None, Err("no target on another host")),
            (vec![here.clone()], None, Err("no target on another host")),
            (vec![here], Some("here"), Err("on this host")),
            (vec![bad.clone()], None, Err("no consistent copy")),
            (vec![one, bad], Some("bad"), Err("no consistent copy")),
        ] {
            let found = taker(&candidates, wanted);
            match expected {
                Ok(target) => assert_eq!(found.as_deref(), Ok(target), "{candidates:?}"),
                Err(why) => assert!(found.as_ref().is_err_and(|said| said.contains(why)), "{found:?}"),
            }
        }
    }
}
