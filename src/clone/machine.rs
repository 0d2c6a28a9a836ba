//! Which command is legal in which state of a clone session; pure.
//!
//! ```text
//!         start                copy_complete (copy)
//!  none ────────> SYNCHRONIZING ───────────────────────────> SPLIT <──┐ swap (mirror)
//!                   │  ^     │ copy_complete (mirror)        ^ │ │ └──┘
//!                   │  │     └──────────> SYNCHRONIZED ──────┘ │ │ restore
//!                   │  │                   │     activate      │ v
//!                   │  └── restart ────────┼───────────────────┤ REST-IN-PROG ── restore_complete ──> SPLIT
//!                   │ stop (force)         │ stop              │ stop  │ stop (force)
//!                   └──────────────────────┴──> TERM-IN-PROG <─┴───────┘
//!  any ── unrecoverable_error ──> FAILED ── stop ─┘   └── cleanup_complete ──> none
//! ```
//! A test reads the table that this is made from: whatever is no row of it is refused.

use std::fmt;

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Synchronizing,
    Synchronized,
    Split,
    RestoreInProgress,
    TerminationInProgress,
    Failed,
}

impl State {
    pub const ALL: [State; 6] = [
        State::Synchronizing,
        State::Synchronized,
        State::Split,
        State::RestoreInProgress,
        State::TerminationInProgress,
        State::Failed,
    ];

    /// As people know it.
    pub fn word(self) -> &'static str {
        match self {
            State::Synchronizing => "SYNCHRONIZING",
            State::Synchronized => "SYNCHRONIZED",
            State::Split => "SPLIT",
            State::RestoreInProgress => "REST-IN-PROG",
            State::TerminationInProgress => "TERM-IN-PROG",
            State::Failed => "FAILED",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// As of its start.
    Copy,
    /// As of its activation.
    Mirror,
}

impl Kind {
    pub fn word(self) -> &'static str {
        match self {
            Kind::Copy => "copy",
            Kind::Mirror => "mirror",
        }
    }
}

/// What a person asks for, or what has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    Start,
    CopyComplete,
    Activate,
    Restart,
    Restore,
    RestoreComplete,
    Swap,
    Stop,
    CleanupComplete,
    UnrecoverableError,
}

impl Trigger {
    pub const ALL: [Trigger; 10] = [
        Trigger::Start,
        Trigger::CopyComplete,
        Trigger::Activate,
        Trigger::Restart,
        Trigger::Restore,
        Trigger::RestoreComplete,
        Trigger::Swap,
        Trigger::Stop,
        Trigger::CleanupComplete,
        Trigger::UnrecoverableError,
    ];

    pub fn word(self) -> &'static str {
        match self {
            Trigger::Start => "start",
            Trigger::CopyComplete => "copy_complete",
            Trigger::Activate => "activate",
            Trigger::Restart => "restart",
            Trigger::Restore => "restore",
            Trigger::RestoreComplete => "restore_complete",
            Trigger::Swap => "swap",
            Trigger::Stop => "stop",
            Trigger::CleanupComplete => "cleanup_complete",
            Trigger::UnrecoverableError => "unrecoverable_error",
        }
    }
}

/// Whether a person insists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Force {
    No,
    Yes,
}

/// Where a step leads. `None`: there is no session any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Next {
    pub state: Option<State>,
    /// What the clone, or in a restore the unit, is left with is no state of anything.
    pub is_inconsistent: bool,
}

/// Why there is no such step; nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    NoSuchStep { from: Option<State>, trigger: Trigger, kind: Kind },
    NeedsForce { from: State, trigger: Trigger },
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::NoSuchStep { from: None, trigger, .. } => {
                write!(f, "there is no such session: nothing to {}", trigger.word())
            }
            Refused::NoSuchStep { from: Some(from), trigger, kind } => {
                write!(f, "'{}' is not possible in state {from} (kind {})", trigger.word(), kind.word())
            }
            Refused::NeedsForce { from, trigger } => {
                write!(
                    f,
                    "'{}' in state {from} leaves something incomplete: it needs --force",
                    trigger.word()
                )
            }
        }
    }
}

/// What follows from a trigger in a state.
pub fn step(from: Option<State>, trigger: Trigger, kind: Kind, force: Force) -> Result<Next, Refused> {
    use State::{Failed, RestoreInProgress, Split, Synchronized, Synchronizing, TerminationInProgress};
    let refused = Refused::NoSuchStep { from, trigger, kind };
    let to = |state| Ok(Next { state: Some(state), is_inconsistent: false });
    let Some(state) = from else {
        return if trigger == Trigger::Start { to(Synchronizing) } else { Err(refused) };
    };
    match (trigger, state, kind) {
        (Trigger::UnrecoverableError, ..) => to(Failed),
        (Trigger::CopyComplete, Synchronizing, Kind::Copy) => to(Split),
        (Trigger::CopyComplete, Synchronizing, Kind::Mirror) => to(Synchronized),
        (Trigger::Activate, Synchronized, Kind::Mirror) => to(Split),
        (Trigger::Restart, Split, _) => to(Synchronizing),
        (Trigger::Restore, Split, _) => to(RestoreInProgress),
        (Trigger::RestoreComplete, RestoreInProgress, _) => to(Split),
        (Trigger::Swap, Split, Kind::Mirror) => to(Split),
        (Trigger::Stop, Synchronized | Split | Failed, _) => to(TerminationInProgress),
        (Trigger::Stop, Synchronizing | RestoreInProgress, _) => match force {
            Force::No => Err(Refused::NeedsForce { from: state, trigger }),
            Force::Yes => Ok(Next { state: Some(TerminationInProgress), is_inconsistent: true }),
        },
        (Trigger::CleanupComplete, TerminationInProgress, _) => {
            Ok(Next { state: None, is_inconsistent: false })
        }
        (
            Trigger::Start
            | Trigger::CopyComplete
            | Trigger::Activate
            | Trigger::Restart
            | Trigger::Restore
            | Trigger::RestoreComplete
            | Trigger::Swap
            | Trigger::Stop
            | Trigger::CleanupComplete,
            ..,
        ) => Err(refused),
    }
}

/// Whether the clone may be used, as the table says: one of kind copy at once where it has a view (this
/// version has none: before SPLIT nothing is there to be used).
pub fn is_ready(state: State, kind: Kind) -> bool {
    match (state, kind) {
        (State::Synchronizing, Kind::Mirror) | (State::Synchronized | State::Failed, _) => false,
        (State::Synchronizing, Kind::Copy)
        | (State::Split | State::RestoreInProgress | State::TerminationInProgress, _) => true,
    }
}

/// Whether the unit may be used.
pub fn is_unit_ready(state: State) -> bool {
    state != State::RestoreInProgress
}
