//! Who has the mount, by what a holder hears; pure.
//!
//! ```text
//!            its daemon is gone               a daemon asks for it
//!   Served ─────────────────────> Waiting ─────────────────────> Asked
//!     ^                            ^   │                          │  │
//!     │                            └───┼── that one is gone ──────┘  │ it serves
//!     │                                └── nobody in time ──> over   │
//!     └──────────────────────────────────────────────────────────────┘
//! ```

use std::time::{Duration, Instant};

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Served,
    /// Calls of programs wait since then.
    Waiting {
        since: Instant,
    },
    /// They do still, and a daemon prepares to serve.
    Asked {
        since: Instant,
        asked: Instant,
    },
}

/// How long calls wait.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For a daemon to be started.
    pub nobody: Duration,
    /// For one that was, however it goes on; not less than the other.
    pub asked: Duration,
}

impl State {
    /// The daemon, or the one that prepares, is gone.
    pub fn gone(self, now: Instant) -> State {
        match self {
            State::Served => State::Waiting { since: now },
            State::Waiting { since } | State::Asked { since, .. } => State::Waiting { since },
        }
    }

    /// A daemon asks for the mount. `None`: another one has it, or is about to.
    pub fn asked(self, now: Instant) -> Option<State> {
        match self {
            State::Waiting { since } => Some(State::Asked { since, asked: now }),
            State::Served | State::Asked { .. } => None,
        }
    }

    pub fn serves(self) -> State {
        State::Served
    }

    /// When the holder lets go, if nothing happens before.
    pub fn deadline(self, patience: Patience) -> Option<Instant> {
        match self {
            State::Served => None,
            State::Waiting { since } => Some(since + patience.nobody),
            State::Asked { since, asked } => Some((since + patience.nobody).max(asked + patience.asked)),
        }
    }

    /// How long nobody has served.
    pub fn paused(self, now: Instant) -> Duration {
        match self {
            State::Served => Duration::ZERO,
            State::Waiting { since } | State::Asked { since, .. } => now - since,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_wait_for_one_daemon_at_a_time_and_not_for_ever() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let patience = Patience { nobody: Duration::from_secs(30), asked: Duration::from_secs(60) };
        let state = State::Served;
        assert_eq!((state.deadline(patience), state.asked(at(1))), (None, None));
        let state = state.gone(at(10));
        assert_eq!(state.deadline(patience), Some(at(40)));
        let asked = state.asked(at(12)).unwrap();
        assert_eq!((asked.deadline(patience), asked.paused(at(13))), (Some(at(72)), Duration::from_secs(3)));
        assert_eq!(asked.asked(at(13)), None, "two at once");
        // One that cannot start does not make calls wait longer.
        let state = asked.gone(at(20));
        assert_eq!((state, state.deadline(patience)), (State::Waiting { since: at(10) }, Some(at(40))));
        let state = state.asked(at(21)).unwrap().serves();
        assert_eq!((state.deadline(patience), state.paused(at(30))), (None, Duration::ZERO));
        assert_eq!(state.gone(at(50)).deadline(patience), Some(at(80)));
    }
}
