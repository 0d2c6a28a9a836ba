//! Markers of one replica: between the session that comes upon one and whoever runs commands for them, in a process
//! of its own. This daemon runs nothing.
//!
//! ```text
//!  session ── begin ──> due ── attend ──> standin markers run ── /bin/sh -c COMMAND
//!     │ holds the stream                                              │
//!     └── outcome, or the time is over <── done ──────────────────────┘
//! ```
//! The stream is held for the time that whoever attends has named, and that is bounded; where nobody attends it is
//! not held at all.

use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::clock;
use crate::control::{MarkerDone, MarkerDue};
use crate::limits::{MARKER_ATTENDED, MARKER_HOLD_MAX};
use crate::packet::{MarkerEnd, MarkerName, Position};

/// How often whoever waits looks whether he is still wanted.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// See the module.
#[derive(Debug, Default)]
pub struct Markers {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    given: u64,
    attended: Option<Attended>,
    due: Option<Due>,
    /// The last one that has ended: it may come again, when the source has not heard of its end.
    last: Option<(Position, Outcome)>,
}

#[derive(Clone, Copy, Debug)]
struct Attended {
    until: Instant,
    hold: Duration,
}

#[derive(Debug)]
struct Due {
    number: u64,
    name: MarkerName,
    position: Position,
    until: Instant,
    hold: Duration,
    is_taken: bool,
    outcome: Option<Outcome>,
}

/// What became of a marker, in a word and a line.
pub type Outcome = (MarkerEnd, String);

/// What a session has to do about a marker.
#[derive(Debug, PartialEq, Eq)]
pub enum Begun {
    /// Go on.
    Over(Outcome),
    /// Hold the stream until [`Markers::outcome`] says how it ended.
    Held { number: u64, hold: Duration },
}

impl Markers {
    /// A session comes upon one; it is the next packet of the replica, which is good.
    pub fn begin(&self, name: &MarkerName, position: Position) -> Begun {
        let (mut state, now) = (self.state.lock(), clock::now());
        if let Some((_, outcome)) = state.last.as_ref().filter(|(last, _)| *last == position) {
            return Begun::Over(outcome.clone());
        }
        // The session that came upon it first has lost its connection; the command runs.
        if let Some(due) = state.due.as_ref().filter(|due| due.position == position) {
            return Begun::Held { number: due.number, hold: due.hold };
        }
        let Some(Attended { hold, .. }) = state.attended.filter(|attended| now < attended.until) else {
            let outcome = (MarkerEnd::NoCommand, "nobody runs a command for markers there".to_owned());
            return Begun::Over(outcome);
        };
        state.given += 1;
        let (number, name, until) = (state.given, name.clone(), now + hold);
        state.due = Some(Due { number, name, position, until, hold, is_taken: false, outcome: None });
        self.changed.notify_all();
        Begun::Held { number, hold }
    }

    /// A command runs for a marker whose session is gone: nothing may pass. One that nobody has taken is given up.
    pub fn runs(&self) -> bool {
        let mut state = self.state.lock();
        state.due.take_if(|due| !due.is_taken);
        state.due.as_ref().is_some_and(|due| due.outcome.is_none() && clock::now() < due.until)
    }

    /// How it ended, or that its time is over; `None`: it goes on.
    pub fn outcome(&self, number: u64) -> Option<Outcome> {
        let mut state = self.state.lock();
        let due = state.due.as_ref().filter(|due| due.number == number);
        let Some(due) = due else { return Some((MarkerEnd::TimedOut, "it is not known any more".into())) };
        let outcome = match &due.outcome {
            Some(outcome) => outcome.clone(),
            None if clock::now() < due.until => return None,
            None => {
                let after = due.hold.as_secs_f64();
                (MarkerEnd::TimedOut, format!("its command was not through after {after} s"))
            }
        };
        state.last = Some((due.position, outcome.clone()));
        state.due = None;
        Some(outcome)
    }

    /// Waits for the next marker, after telling how the last one ended. `None`: `give_up` said so, or `patience` is
    /// over: ask again.
    pub fn attend(
        &self,
        hold: Duration,
        done: Option<MarkerDone>,
        patience: Duration,
        give_up: impl Fn() -> bool,
    ) -> Option<MarkerDue> {
        let (hold, until) = (hold.min(MARKER_HOLD_MAX), clock::now() + patience);
        let mut state = self.state.lock();
        if let Some(done) = done {
            state.done(done);
        }
        loop {
            let now = clock::now();
            state.attended = Some(Attended { until: now + MARKER_ATTENDED, hold });
            if let Some(due) = state.due.as_mut().filter(|due| !due.is_taken) {
                due.is_taken = true;
                return Some(MarkerDue {
                    number: due.number,
                    name: due.name.as_str().to_owned(),
                    position: due.position.sequence,
                    epoch: due.position.epoch.number,
                    left_ms: due.until.saturating_duration_since(now).as_millis() as u64,
                });
            }
            if now >= until || give_up() {
                return None;
            }
            self.changed.wait_for(&mut state, LOOK_EVERY);
        }
    }
}

impl State {
    /// Of one that was given up it is too late.
    fn done(&mut self, done: MarkerDone) {
        if let Some(due) = self.due.as_mut().filter(|due| due.number == done.number) {
            due.outcome = Some((done.end, done.text));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Sequence;

    const HOLD: Duration = Duration::from_secs(30);
    const SHORT: Duration = Duration::ZERO;

    fn at(sequence: u64) -> Position {
        Position { sequence: Sequence(sequence), ..Position::default() }
    }

    fn name() -> MarkerName {
        MarkerName::new("m").unwrap()
    }

    fn attend(markers: &Markers, hold: Duration, done: Option<MarkerDone>) -> Option<MarkerDue> {
        markers.attend(hold, done, SHORT, || false)
    }

    #[test]
    fn nobody_is_waited_for_who_does_not_attend() {
        let markers = Markers::default();
        let Begun::Over((end, _)) = markers.begin(&name(), at(5)) else { panic!("it is held") };
        assert_eq!(end, MarkerEnd::NoCommand);
    }

    #[test]
    fn a_marker_is_held_until_its_command_is_through() {
        let markers = Markers::default();
        assert_eq!(attend(&markers, HOLD, None), None);
        let Begun::Held { number, hold } = markers.begin(&name(), at(5)) else { panic!("it is not held") };
        assert_eq!((hold, markers.outcome(number)), (HOLD, None));
        let due = attend(&markers, HOLD, None).expect("it is due");
        assert_eq!((due.number, due.name.as_str(), due.position), (number, "m", Sequence(5)));
        assert_eq!(attend(&markers, HOLD, None), None, "it is taken once");
        // The session lost its connection, and comes upon it again.
        assert_eq!(markers.begin(&name(), at(5)), Begun::Held { number, hold: HOLD });
        let other = MarkerDone { number: number + 1, end: MarkerEnd::Failed, text: "other".into() };
        attend(&markers, HOLD, Some(other));
        assert_eq!(markers.outcome(number), None, "of another one");
        let done = MarkerDone { number, end: MarkerEnd::Done, text: "well".into() };
        attend(&markers, HOLD, Some(done));
        let outcome = (MarkerEnd::Done, "well".to_owned());
        assert_eq!(markers.outcome(number), Some(outcome.clone()));
        // The source has not heard of it, and sends it again: its command does not run twice.
        assert_eq!(markers.begin(&name(), at(5)), Begun::Over(outcome));
        assert!(matches!(markers.begin(&name(), at(6)), Begun::Held { .. }));
    }

    /// The next session let everything pass, and the command was told to have seen the state of its marker.
    #[test]
    fn a_command_outlives_the_session_that_came_upon_it() {
        let markers = Markers::default();
        attend(&markers, HOLD, None);
        assert!(matches!(markers.begin(&name(), at(5)), Begun::Held { .. }));
        assert!(!markers.runs(), "nobody has taken it");
        let Begun::Held { number, .. } = markers.begin(&name(), at(5)) else { panic!("it is not held") };
        attend(&markers, HOLD, None).expect("it is due");
        assert!(markers.runs());
        attend(&markers, HOLD, Some(MarkerDone { number, end: MarkerEnd::Done, text: String::new() }));
        assert!(!markers.runs());
        // It comes again to the next session.
        let Begun::Held { number: again, .. } = markers.begin(&name(), at(5)) else { panic!("not held") };
        assert_eq!((again, markers.outcome(again)), (number, Some((MarkerEnd::Done, String::new()))));
    }

    #[test]
    fn a_command_that_hangs_holds_for_its_time_at_most() {
        let markers = Markers::default();
        attend(&markers, Duration::from_millis(20), None);
        let Begun::Held { number, .. } = markers.begin(&name(), at(5)) else { panic!("it is not held") };
        std::thread::sleep(Duration::from_millis(30));
        assert_eq!(markers.outcome(number).map(|(end, _)| end), Some(MarkerEnd::TimedOut));
        let late = MarkerDone { number, end: MarkerEnd::Done, text: "late".into() };
        attend(&markers, HOLD, Some(late));
        let Begun::Over((end, _)) = markers.begin(&name(), at(5)) else { panic!("it is held again") };
        assert_eq!(end, MarkerEnd::TimedOut, "what was given up stays so");
        // Nobody holds longer than the bound, whatever he asks for.
        attend(&markers, 10 * MARKER_HOLD_MAX, None);
        let Begun::Held { hold, .. } = markers.begin(&name(), at(7)) else { panic!("it is not held") };
        assert_eq!(hold, MARKER_HOLD_MAX);
    }
}
