//! The states of a connection.
//!
//! ```text
//!               criterion met                      pause
//!  Scheduled ──────────────────> Started ──────────────────────> Paused
//!      ^  ^ ────────────────────    │  ^ <──────────────────────   │
//!      │    criterion over     │    │  │          resume           │
//!      │                       │    │  └────────────┐              │
//!      │ over, and the last    │    │ refused, lost │ welcome      │ refused, lost
//!      │ session had failed    │    v               │              │
//!      └────────────────────── Error <──────────────┼──────────────┘
//!                             (back-off, dial) ─────┘ (as Paused, if it was)
//!
//!  stop: from any state to Stopped; start: from there to Started, or to Scheduled. disconnect: from
//!  any state to Gone.
//!
//!  within Started and Paused:          copies come by themselves, and it is not paused
//!    Dialing ──> Greeting ─┬──> Pending ──────────────────────────> Copying ──> Streaming
//!       ^                  ├──────────────────────────────────────────^  │         ^  │
//!       │                  └─────────────────────────────────────────────┼─────────┘  │
//!       └─── a mirror is started or stopped; the queue is full while it is paused ────┘
//! ```
//! From Streaming to Copying and back goes a mirror of a part, over the same network connection.
//!
//! The steps that there are stand in [`State::may_become`]. The criteria of Scheduled are those of
//! [`super::schedule`].

use std::fmt;
use std::time::Instant;

/// Where a connection stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// By a person. No network connection.
    Stopped,
    /// No network connection until the criteria of the schedule are met.
    Scheduled { failed: Option<Fault>, flow: Flow },
    /// Changes are sent as soon as possible.
    Started(Link),
    /// By a person, or to ask one. The network connection is up (or dialled for the first time), nothing is sent.
    Paused(Link),
    /// The session failed; it is tried again.
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
    /// The replica needs a copy, and none begins before a person lets it: nothing is sent, and the queue
    /// holds nothing for it.
    Pending,
    /// The replica is brought into line by a copy, while packets go.
    Copying,
    Streaming,
}

/// How far the way out of an error has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repair {
    Waiting { until: Instant },
    Dialing,
    Greeting,
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
    /// The set is written in a higher epoch: this source was stood in for, and writes nowhere.
    KeptOut,
    /// Somebody is about to stand in for this source, and may not come through with it.
    Undecided,
}

/// Whether a schedule lets the connection run: always, where there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    Open,
    Closed,
}

impl State {
    /// What of it people see: 0 stopped, 1 started, 2 paused, 4 scheduled, 8 error, as in the status.
    /// The time of a state counts from a step that changes this.
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
                Repair::Dialing | Repair::Greeting => true,
            },
            State::Stopped | State::Scheduled { .. } | State::Gone => false,
        }
    }

    /// What a person wants of the stream, whatever stands in the way.
    pub fn flow(&self) -> Flow {
        match self {
            State::Paused(_) => Flow::Hold,
            State::Error { flow, .. } | State::Scheduled { flow, .. } => *flow,
            State::Started(_) | State::Stopped | State::Gone => Flow::Send,
        }
    }

    /// Errors: the rule that a step to `next` breaks.
    pub(super) fn may_become(&self, next: &State) -> Result<(), &'static str> {
        let is_way = match (self, next) {
            (State::Gone, _) => return Err("nothing follows the end of a connection"),
            (_, State::Gone | State::Stopped) => true,
            // Paused: since before the start of the daemon.
            (State::Stopped, State::Started(Link::Dialing) | State::Paused(Link::Dialing)) => true,
            (State::Stopped, State::Scheduled { .. }) => true,
            (State::Scheduled { .. }, State::Scheduled { .. }) => true,
            (State::Scheduled { .. }, State::Started(link) | State::Paused(link)) => *link == Link::Dialing,
            (State::Started(link), State::Started(next)) | (State::Paused(link), State::Paused(next)) => {
                link.may_become(*next)
            }
            (State::Started(link), State::Paused(next)) | (State::Paused(link), State::Started(next)) => {
                link == next
            }
            (State::Started(_) | State::Paused(_) | State::Error { .. }, State::Scheduled { .. }) => true,
            (State::Started(_) | State::Paused(_), State::Error { repair, .. }) => {
                matches!(repair, Repair::Waiting { .. })
            }
            (State::Error { repair, .. }, State::Error { repair: next, .. }) => repair.may_become(*next),
            (State::Error { repair, .. }, State::Started(link) | State::Paused(link)) => {
                *repair == Repair::Greeting && Link::Greeting.may_become(*link)
            }
            (State::Stopped, State::Paused(_) | State::Started(_) | State::Error { .. })
            | (State::Scheduled { .. }, State::Error { .. }) => false,
        };
        if is_way { Ok(()) } else { Err("there is no such way") }
    }
}

/// For the log.
impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            State::Stopped => "stopped",
            State::Scheduled { .. } => "scheduled",
            State::Started(link) => return write!(f, "started, {link:?}"),
            State::Paused(link) => return write!(f, "paused, {link:?}"),
            State::Error { repair: Repair::Waiting { .. }, .. } => "error, waiting",
            State::Error { repair, .. } => return write!(f, "error, {repair:?}"),
            State::Gone => "gone",
        };
        f.write_str(name)
    }
}

impl Link {
    /// Packets go, or may.
    pub fn has_stream(self) -> bool {
        matches!(self, Link::Copying | Link::Streaming)
    }

    fn may_become(self, next: Link) -> bool {
        match self {
            Link::Dialing => next == Link::Greeting,
            Link::Greeting => matches!(next, Link::Pending | Link::Copying | Link::Streaming),
            // The same again: what it waits for has changed.
            Link::Pending => matches!(next, Link::Pending | Link::Copying),
            // A copy is begun or given up by hand, or nothing is held for it any more.
            Link::Copying => matches!(next, Link::Streaming | Link::Dialing),
            // A part is copied over the same network connection.
            Link::Streaming => matches!(next, Link::Dialing | Link::Copying),
        }
    }
}

impl Repair {
    /// The same again: what a person wants of the stream has changed.
    fn may_become(self, next: Repair) -> bool {
        match self {
            _ if self == next => true,
            Repair::Waiting { .. } => next == Repair::Dialing,
            Repair::Dialing => matches!(next, Repair::Greeting | Repair::Waiting { .. }),
            Repair::Greeting => matches!(next, Repair::Waiting { .. }),
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
