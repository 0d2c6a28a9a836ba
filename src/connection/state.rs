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
//!  stop, or a queue that is full while a person holds it: from any state to Stopped; start: from
//!  there to Started, or to Scheduled. disconnect: from any state to Gone.
//! ```
//! The steps that there are stand in [`State::may_become`]; what each state says of the past goes
//! with it. Schedules are designed and not built: the product keeps the window open, and nothing gets
//! to Scheduled but in tests.

use std::fmt;
use std::time::Instant;

/// Where a connection stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// By a person. No network connection.
    Stopped { kept: Kept },
    /// No network connection until the criteria of the schedule are met.
    Scheduled { failed: Option<Fault>, flow: Flow, kept: Kept },
    /// Changes are sent as soon as possible.
    Started(Link),
    /// By a person. The network connection is up (or dialled for the first time), nothing is sent.
    Paused(Link),
    /// The session failed; it is tried again.
    Error { fault: Fault, repair: Repair, flow: Flow, kept: Kept },
    /// Disconnected. `why` the queue holds nothing for it.
    Gone { why: String },
}

/// What the queue holds for a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// What changes, until the target has it.
    Changes(Past),
    /// Nothing any more, for this reason, and it never does again: the target needs a copy.
    Nothing { why: String },
}

/// Whether the replica was in line before: from then on applications write, and no copy can be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Past {
    NeverInLine,
    InLine,
}

/// How far the network connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    Dialing(Past),
    /// The target's word on what it holds is awaited.
    Greeting(Past),
    /// The replica has to be brought into line by a copy, for the first time.
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

/// Whether a schedule lets the connection run: always, as nothing sets one yet.
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
            State::Stopped { .. } | State::Gone { .. } => 0,
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
            State::Stopped { .. } | State::Scheduled { .. } | State::Gone { .. } => false,
        }
    }

    /// What a person wants of the stream, whatever stands in the way.
    pub fn flow(&self) -> Flow {
        match self {
            State::Paused(_) => Flow::Hold,
            State::Error { flow, .. } | State::Scheduled { flow, .. } => *flow,
            State::Started(_) | State::Stopped { .. } | State::Gone { .. } => Flow::Send,
        }
    }

    /// What the queue holds for the target.
    pub fn kept(&self) -> Kept {
        match self {
            State::Stopped { kept } | State::Scheduled { kept, .. } | State::Error { kept, .. } => {
                kept.clone()
            }
            State::Started(link) | State::Paused(link) => Kept::Changes(link.past()),
            State::Gone { why } => Kept::Nothing { why: why.clone() },
        }
    }

    /// Why the queue holds nothing for the target any more, if it does not.
    pub fn let_go(&self) -> Option<&str> {
        match self {
            State::Stopped { kept } | State::Scheduled { kept, .. } | State::Error { kept, .. } => {
                kept.let_go()
            }
            State::Started(_) | State::Paused(_) => None,
            State::Gone { why } => Some(why),
        }
    }

    /// Errors: the rule that a step to `next` breaks.
    pub(super) fn may_become(&self, next: &State) -> Result<(), &'static str> {
        let is_way = match (self, next) {
            (State::Gone { .. }, _) => return Err("nothing follows the end of a connection"),
            (_, State::Gone { .. } | State::Stopped { .. }) => true,
            (State::Stopped { .. }, State::Started(Link::Dialing(_)) | State::Scheduled { .. }) => true,
            (State::Scheduled { .. }, State::Scheduled { .. }) => true,
            (State::Scheduled { .. }, State::Started(link) | State::Paused(link)) => {
                matches!(link, Link::Dialing(_))
            }
            (State::Started(link), State::Started(next)) | (State::Paused(link), State::Paused(next)) => {
                link.may_become(*next)
            }
            (State::Started(link), State::Paused(next)) | (State::Paused(link), State::Started(next)) => {
                link == next
            }
            (State::Started(_) | State::Paused(_) | State::Error { .. }, State::Scheduled { .. }) => true,
            (State::Started(link) | State::Paused(link), State::Error { repair, .. }) => match repair {
                Repair::Waiting { .. } => true,
                Repair::Connected => matches!(link, Link::Greeting(_)),
                Repair::Dialing | Repair::Greeting => false,
            },
            (State::Error { repair, .. }, State::Error { repair: next, .. }) => repair.may_become(*next),
            (State::Error { repair, .. }, State::Started(link) | State::Paused(link)) => {
                *repair == Repair::Greeting && matches!(link, Link::Copying | Link::Streaming)
            }
            (State::Stopped { .. }, State::Paused(_) | State::Started(_) | State::Error { .. })
            | (State::Scheduled { .. }, State::Error { .. }) => false,
        };
        match (is_way, self.kept(), next.kept()) {
            (false, ..) => Err("there is no such way"),
            (true, Kept::Nothing { .. }, Kept::Changes(_)) => Err("what was let go never comes back"),
            (true, Kept::Changes(Past::InLine), Kept::Changes(Past::NeverInLine)) => {
                Err("who was in line cannot be copied to again")
            }
            (true, ..) => next.is_sound(),
        }
    }

    /// Errors: the rule that a state breaks by itself.
    fn is_sound(&self) -> Result<(), &'static str> {
        match self {
            State::Error { repair: Repair::Connected, kept: Kept::Changes(_), .. } => {
                Err("a network connection of use is no error")
            }
            State::Error { .. }
            | State::Stopped { .. }
            | State::Scheduled { .. }
            | State::Started(_)
            | State::Paused(_)
            | State::Gone { .. } => Ok(()),
        }
    }
}

/// For the log.
impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            State::Stopped { .. } => "stopped",
            State::Scheduled { .. } => "scheduled",
            State::Started(link) => return write!(f, "started, {link:?}"),
            State::Paused(link) => return write!(f, "paused, {link:?}"),
            State::Error { repair: Repair::Waiting { .. }, .. } => "error, waiting",
            State::Error { repair, .. } => return write!(f, "error, {repair:?}"),
            State::Gone { .. } => "gone",
        };
        f.write_str(name)
    }
}

impl Kept {
    pub fn let_go(&self) -> Option<&str> {
        match self {
            Kept::Changes(_) => None,
            Kept::Nothing { why } => Some(why),
        }
    }
}

impl Link {
    fn past(self) -> Past {
        match self {
            Link::Dialing(past) | Link::Greeting(past) => past,
            Link::Copying => Past::NeverInLine,
            Link::Streaming => Past::InLine,
        }
    }

    fn may_become(self, next: Link) -> bool {
        match self {
            Link::Dialing(_) => matches!(next, Link::Greeting(_)),
            Link::Greeting(_) => matches!(next, Link::Copying | Link::Streaming),
            Link::Copying => next == Link::Streaming,
            Link::Streaming => false,
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
            Repair::Greeting => matches!(next, Repair::Connected | Repair::Waiting { .. }),
            Repair::Connected => matches!(next, Repair::Waiting { .. }),
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
