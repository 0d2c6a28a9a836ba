//! Where a source is in its life, with what it has there.
//!
//! ```text
//!                             HandingOver ── the rest is sent ──> Over (as another program)
//!                             upgrade ^ │ not in time
//!               in line, served       │ v  stop, signal              unmounted
//!  Starting ────────────────────> Serving ──────────────> Stopping ───────────> Draining ──> Over
//!     │                            │  ^ <──── busy ──────────┘                     ^           ^
//!     │ failed, interrupted        │  unmounted by somebody else                   │           │
//!     │                            └───────────────────────────────────────────────┘           │
//!     └────────────────────────────────────────────────────────────────────────────────────────┘
//! ```

use crossbeam_channel::Sender;

use super::haste::Haste;
use super::mark::Mark;
use super::rounds::Rounds;
use super::upgrade::Successor;
use crate::control::{Phase, Reply, StopMode, StopReport};
use crate::failure::Failure;
use crate::intercept::Serving;

/// See the module.
pub enum Life {
    /// Targets are reached and brought into line.
    Starting {
        interrupt: Sender<()>,
    },
    /// `alive`: the mount was there at this moment.
    Serving {
        serving: Serving,
        alive: Mark,
        rounds: Rounds,
    },
    /// Changes are held, and the rest is sent: another program is about to go on.
    HandingOver {
        asked: HandOver,
        serving: Serving,
        alive: Mark,
        rounds: Rounds,
    },
    /// The mount is being taken away.
    Stopping {
        stop: Stop,
        rounds: Rounds,
    },
    /// The mount is gone, and what is queued is sent, until that is done or `haste` is made.
    Draining {
        ending: Ending,
        rounds: Rounds,
        haste: Haste,
        /// Whoever made it waits for the end.
        hasty: Vec<StopAsker>,
    },
    Over {
        outcome: Result<Ended, Failure>,
        rounds: Option<Rounds>,
        stopped: Option<StopReport>,
    },
}

/// How a protection ended that was told to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Complete,
    /// Changes did not get to every target; which ones was said.
    LeftBehind,
}

/// What this process is about to become, and whoever waits for it.
pub struct HandOver {
    pub successor: Box<Successor>,
    /// Told only that it is not so.
    pub answer: Reply<Failure>,
    /// How often what others put into the stream is sent, too.
    pub rounds_left: u32,
}

/// A stop, and whoever asked for it.
pub struct Stop {
    pub mode: StopMode,
    /// `None`: a signal did.
    pub asker: Option<StopAsker>,
}

/// Where the outcome of a stop goes.
pub type StopAsker = Reply<Result<StopReport, Failure>>;

/// Why the mount is gone.
pub enum Ending {
    Stopped(Stop),
    UnmountedByOthers,
}

/// A [`Life`] without what it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Starting,
    Serving,
    HandingOver,
    Stopping,
    Draining,
    Over,
}

impl Life {
    pub fn stage(&self) -> Stage {
        match self {
            Life::Starting { .. } => Stage::Starting,
            Life::Serving { .. } => Stage::Serving,
            Life::HandingOver { .. } => Stage::HandingOver,
            Life::Stopping { .. } => Stage::Stopping,
            Life::Draining { .. } => Stage::Draining,
            Life::Over { .. } => Stage::Over,
        }
    }

    /// What is looked after, where there is a mount or was one.
    pub fn rounds(&self) -> Option<&Rounds> {
        match self {
            Life::Starting { .. } => None,
            Life::Serving { rounds, .. }
            | Life::HandingOver { rounds, .. }
            | Life::Stopping { rounds, .. }
            | Life::Draining { rounds, .. } => Some(rounds),
            Life::Over { rounds, .. } => rounds.as_ref(),
        }
    }

    /// It ends before anything was served.
    pub fn failed(failure: Failure) -> Life {
        Life::Over { outcome: Err(failure), rounds: None, stopped: None }
    }
}

impl Stage {
    pub fn phase(self) -> Phase {
        match self {
            Stage::Starting => Phase::Starting,
            // Reads go on, and the mount stays.
            Stage::Serving | Stage::HandingOver => Phase::Serving,
            Stage::Draining => Phase::Draining,
            Stage::Stopping => Phase::Stopping,
            Stage::Over => Phase::Ending,
        }
    }

    /// The drawing above. A fault of the program ends any life.
    pub fn may_become(self, next: Stage) -> bool {
        match self {
            _ if self == next => true,
            Stage::Starting => matches!(next, Stage::Serving | Stage::Over),
            Stage::Serving => {
                matches!(next, Stage::HandingOver | Stage::Stopping | Stage::Draining | Stage::Over)
            }
            Stage::HandingOver => matches!(next, Stage::Serving | Stage::Over),
            Stage::Stopping => matches!(next, Stage::Serving | Stage::Draining | Stage::Over),
            Stage::Draining => next == Stage::Over,
            Stage::Over => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_follows_the_end_and_nobody_is_served_twice_without_a_stop() {
        use Stage::{Draining, HandingOver, Over, Serving, Starting, Stopping};
        let all = [Starting, Serving, HandingOver, Stopping, Draining, Over];
        let ways = [
            (Starting, vec![Serving, Over]),
            (Serving, vec![HandingOver, Stopping, Draining, Over]),
            (HandingOver, vec![Serving, Over]),
            (Stopping, vec![Serving, Draining, Over]),
            (Draining, vec![Over]),
            (Over, vec![]),
        ];
        for (from, to) in ways {
            for next in all {
                assert_eq!(from.may_become(next), next == from || to.contains(&next), "{from:?} {next:?}");
            }
        }
    }
}
