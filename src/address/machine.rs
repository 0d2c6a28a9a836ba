//! When an address is taken, announced and given back. Pure.

use std::time::Duration;

/// After an address was found to be somebody else's, or could not be had.
const TRY_EVERY: Duration = Duration::from_secs(2);
/// After it was taken: who has not heard it the first time hears it then, and from then on each [`AGAIN_EVERY`].
const AGAIN_AFTER: [Duration; 4] =
    [Duration::from_secs(1), Duration::from_secs(3), Duration::from_secs(10), Duration::from_secs(60)];
const AGAIN_EVERY: Duration = Duration::from_secs(60);
/// A socket that is not there for so long: the daemon was stopped, and does not become another program.
const ABSENT_MAX: Duration = Duration::from_secs(3);

/// What is known of the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    Serves,
    /// It is being stopped.
    Stops,
    /// Another host writes the set.
    StoodInFor,
    /// Its socket is not there.
    Absent,
    /// It was killed, or does not answer.
    Silent,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    Nothing,
    /// [`Machine::took`] says what has come of it.
    Take,
    Announce,
    GiveBack(Why),
}

/// Why an address is given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    Stopped,
    StoodInFor,
    Silent,
}

impl Why {
    pub fn word(self) -> &'static str {
        match self {
            Why::Stopped => "the protection was stopped",
            Why::StoodInFor => "another host writes the set",
            Why::Silent => "the daemon was killed, or does not answer",
        }
    }
}

/// See the module. Times are those of one clock that only goes forward.
#[derive(Debug)]
pub struct Machine {
    /// How long a daemon may be silent.
    grace: Duration,
    state: State,
    /// The first of the words that say that the daemon is not there, in a row.
    missing_since: Option<Duration>,
    try_at: Duration,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Free,
    Held {
        since: Duration,
        announced: usize,
    },
    /// Until it was given back.
    Leaving(Why),
}

impl State {
    fn held(now: Duration) -> State {
        State::Held { since: now, announced: 0 }
    }
}

impl Machine {
    /// `held`: the host has it already, as after a kill of the process before this one.
    pub fn new(grace: Duration, held: bool, now: Duration) -> Machine {
        let state = if held { State::held(now) } else { State::Free };
        Machine { grace, state, missing_since: None, try_at: Duration::ZERO }
    }

    /// Whether the host has it.
    pub fn holds(&self) -> bool {
        !matches!(self.state, State::Free)
    }

    pub fn step(&mut self, now: Duration, word: Word) -> Act {
        if !matches!(word, Word::Absent | Word::Silent) {
            self.missing_since = None;
        }
        match (&mut self.state, word) {
            (State::Free, Word::Serves) if now >= self.try_at => Act::Take,
            (State::Free, _) => Act::Nothing,
            (State::Leaving(_), Word::Serves) => {
                self.state = State::held(now);
                Act::Announce
            }
            (State::Leaving(why), _) => Act::GiveBack(*why),
            (State::Held { since, announced }, Word::Serves) => {
                let is_due = now.saturating_sub(*since) >= due(*announced);
                *announced += usize::from(is_due);
                if is_due { Act::Announce } else { Act::Nothing }
            }
            (State::Held { .. }, Word::Stops) => self.leave(Why::Stopped),
            (State::Held { .. }, Word::StoodInFor) => self.leave(Why::StoodInFor),
            (State::Held { .. }, Word::Absent | Word::Silent) => self.miss(now, word),
        }
    }

    fn miss(&mut self, now: Duration, word: Word) -> Act {
        let missing = now.saturating_sub(*self.missing_since.get_or_insert(now));
        let (patience, why) = match word {
            Word::Absent => (ABSENT_MAX.min(self.grace), Why::Stopped),
            _ => (self.grace, Why::Silent),
        };
        if missing >= patience { self.leave(why) } else { Act::Nothing }
    }

    fn leave(&mut self, why: Why) -> Act {
        self.state = State::Leaving(why);
        Act::GiveBack(why)
    }

    /// What has come of [`Act::Take`].
    pub fn took(&mut self, now: Duration, is_held: bool) {
        self.state = if is_held { State::held(now) } else { State::Free };
        self.try_at = now + TRY_EVERY;
    }

    /// [`Act::GiveBack`] was done; until then each step asks for it. Or somebody else has taken it from the interface, or
    /// that is gone: where the daemon serves it is taken anew.
    pub fn is_gone(&mut self) {
        self.state = State::Free;
    }
}

/// When, from the taking on, the announcement of this number is due.
fn due(number: usize) -> Duration {
    let last = AGAIN_AFTER.len() - 1;
    match AGAIN_AFTER.get(number) {
        Some(after) => *after,
        None => AGAIN_AFTER[last] + AGAIN_EVERY * (number - last) as u32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(30);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn holding() -> Machine {
        let mut machine = Machine::new(GRACE, false, at(0));
        assert_eq!(machine.step(at(0), Word::Serves), Act::Take);
        machine.took(at(0), true);
        machine
    }

    #[test]
    fn it_is_taken_when_the_daemon_serves_and_tried_again() {
        let mut machine = Machine::new(GRACE, false, at(0));
        for word in [Word::Absent, Word::Silent, Word::Stops, Word::StoodInFor] {
            assert_eq!(machine.step(at(100), word), Act::Nothing, "{word:?}");
        }
        assert_eq!(machine.step(at(100), Word::Serves), Act::Take);
        machine.took(at(100), false);
        assert!(!machine.holds());
        assert_eq!(machine.step(at(101), Word::Serves), Act::Nothing);
        assert_eq!(machine.step(at(102), Word::Serves), Act::Take);
        machine.took(at(102), true);
        assert!(machine.holds());
    }

    #[test]
    fn it_is_announced_again_and_again() {
        let mut machine = holding();
        let heard: Vec<u64> =
            (0..=240).filter(|second| machine.step(at(*second), Word::Serves) == Act::Announce).collect();
        assert_eq!(heard, [1, 3, 10, 60, 120, 180, 240]);
    }

    #[test]
    fn what_somebody_took_away_is_taken_anew() {
        let mut machine = holding();
        assert_eq!(machine.step(at(20), Word::Serves), Act::Announce);
        machine.is_gone();
        assert!(!machine.holds());
        assert_eq!(machine.step(at(21), Word::Silent), Act::Nothing);
        assert_eq!(machine.step(at(22), Word::Serves), Act::Take);
    }

    #[test]
    fn it_is_given_back_at_once_or_after_a_while() {
        for (word, after, why) in [
            (Word::Stops, 0, Why::Stopped),
            (Word::StoodInFor, 0, Why::StoodInFor),
            (Word::Absent, 3, Why::Stopped),
            (Word::Silent, 30, Why::Silent),
        ] {
            let mut machine = holding();
            let given_back = (0..100).find(|second| machine.step(at(*second), word) == Act::GiveBack(why));
            assert_eq!(given_back, Some(after), "{word:?}");
            // It is tried again until it is done; one that serves again keeps what it has still.
            assert_eq!(machine.step(at(200), word), Act::GiveBack(why));
            let mut again = Machine { ..machine };
            assert_eq!(again.step(at(201), Word::Serves), Act::Announce);
            assert_eq!(again.step(at(201), Word::Serves), Act::Nothing);
            assert!(machine.holds() && again.holds());
            machine.is_gone();
            assert!(!machine.holds());
            assert_eq!(machine.step(at(202), word), Act::Nothing);
        }
    }

    /// A daemon that becomes another program, or is started again at once, keeps its clients.
    #[test]
    fn a_daemon_that_comes_back_in_time_loses_nothing() {
        let mut machine = holding();
        for second in 0..200 {
            let word = match second % 20 {
                0..2 => Word::Absent,
                2..19 => Word::Silent,
                _ => Word::Serves,
            };
            assert!(!matches!(machine.step(at(second), word), Act::GiveBack(_)), "{second}");
        }
    }

    #[test]
    fn what_the_host_has_already_is_held_or_given_back() {
        let mut kept = Machine::new(GRACE, true, at(0));
        assert_eq!(kept.step(at(1), Word::Serves), Act::Announce);
        let mut late = Machine::new(GRACE, true, at(0));
        assert_eq!(late.step(at(0), Word::StoodInFor), Act::GiveBack(Why::StoodInFor));
    }
}
