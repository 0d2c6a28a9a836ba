//! The states of a connection.
//!
//! ```text
//!               criterion met                      pause
//!  Scheduled ──────────────────> Started ──────────────────────> Paused
//!      ^  ^ ────────────────────    │  ^ <──────────────────────   │
//!      │    criterion over     │    │  │          resume           │
//!      │                       │    │  └────────────┐              │ refused, lost,
//!      │ over, and the last    │    │ refused, lost,│ welcome      │ needs a copy
//!      │ session had failed    │    v needs a copy  │              │
//!      └────────────────────── Error <──────────────┼──────────────┘
//!                             (back-off, dial) ─────┘ (as Paused, if it was)
//!
//!  stop: from any state to Stopped; start: from there to Started, or to Scheduled.
//!  disconnect: from any state to Gone.
//! ```

use std::time::Instant;

/// Where a connection stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// By a person. No network connection; the queue holds what changes.
    Stopped,
    /// No network connection until the criteria of the schedule are met.
    Scheduled { failed: Option<Fault>, flow: Flow },
    /// Changes are sent as soon as possible.
    Started(Link),
    /// By a person. The network connection is up (or dialled for the first time), nothing is sent.
    Paused(Link),
    /// The session failed; the queue holds what changes, and it is tried again.
    Error { fault: Fault, repair: Repair, flow: Flow },
    /// Disconnected.
    Gone,
}

/// How far the network connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    Dialing,
    /// The target's word on what it holds is awaited.
    Greeting,
    /// The replica has to be brought into line by a copy.
    Copying,
    Streaming,
}

/// How far the way out of an error has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repair {
    Waiting {
        until: Instant,
    },
    Dialing,
    Greeting,
    /// The network connection is up, and no use: the replica needs a copy.
    Connected,
}

/// Whether packets may go while the stream runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    Send,
    Hold,
}

/// Why a session failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub kind: FaultKind,
    /// One line for people.
    pub reason: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// Never reached, or broken off.
    Lost,
    /// One side does not take the other: a person has to act.
    Refused,
    /// The replica cannot be brought into line while applications write: a person has to act.
    NeedsCopy,
}

/// Whether a schedule lets the connection run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    Open,
    Closed,
}

impl State {
    /// The state as a bit mask for scripts: 0 stopped, 1 started, 2 paused, 4 scheduled, 8 error.
    pub fn bits(&self) -> u8 {
        match self {
            State::Stopped | State::Gone => 0,
            State::Started(_) => 1,
            State::Paused(_) => 2,
            State::Scheduled { failed: None, .. } => 4,
            State::Scheduled { failed: Some(_), .. } => 4 | 8,
            State::Error { .. } => 8,
        }
    }

    /// Whether there is a network connection, or an attempt at one.
    pub fn has_link(&self) -> bool {
        match self {
            State::Started(_) | State::Paused(_) => true,
            State::Error { repair, .. } => match repair {
                Repair::Waiting { .. } => false,
                Repair::Dialing | Repair::Greeting | Repair::Connected => true,
            },
            State::Stopped | State::Scheduled { .. } | State::Gone => false,
        }
    }
}

/// Running, as far as a person lets it.
pub(super) fn started(link: Link, flow: Flow) -> State {
    match flow {
        Flow::Send => State::Started(link),
        Flow::Hold => State::Paused(link),
    }
}
