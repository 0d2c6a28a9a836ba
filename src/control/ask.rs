//! How a thread asks a daemon's director: one event with a place for the answer, and a bound on the
//! wait for it.

use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};

use crate::failure::Failure;

/// Where an answer goes. Whoever waits for it may be gone.
pub struct Reply<T>(Sender<T>);

impl<T> Reply<T> {
    pub fn give(self, answer: T) {
        let _ = self.0.send(answer);
    }
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoAnswer {
    /// Not in time: what was asked for may still be done.
    Late,
    /// The daemon is at its end.
    Over,
    /// Whoever asked is gone.
    Unwanted,
}

/// A question that was put.
pub struct Asked<T>(crossbeam_channel::Receiver<T>);

/// Puts a question to a director, which takes it in at most after `patience`.
pub fn ask<E, T>(
    director: &Sender<E>,
    patience: Duration,
    question: impl FnOnce(Reply<T>) -> E,
) -> Result<Asked<T>, NoAnswer> {
    let (answer, answered) = bounded(1);
    match director.send_timeout(question(Reply(answer)), patience) {
        Ok(()) => Ok(Asked(answered)),
        Err(error) if error.is_timeout() => Err(NoAnswer::Late),
        Err(_) => Err(NoAnswer::Over),
    }
}

impl<T> Asked<T> {
    pub fn within(self, patience: Duration) -> Result<T, NoAnswer> {
        self.0.recv_timeout(patience).map_err(NoAnswer::from)
    }

    /// However long it takes; `is_over` is looked at every `slice`.
    pub fn unless(self, slice: Duration, is_over: impl Fn() -> bool) -> Result<T, NoAnswer> {
        loop {
            match self.0.recv_deadline(Instant::now() + slice) {
                Err(RecvTimeoutError::Timeout) if is_over() => return Err(NoAnswer::Unwanted),
                Err(RecvTimeoutError::Timeout) => {}
                outcome => return outcome.map_err(NoAnswer::from),
            }
        }
    }
}

impl From<RecvTimeoutError> for NoAnswer {
    fn from(error: RecvTimeoutError) -> NoAnswer {
        match error {
            RecvTimeoutError::Timeout => NoAnswer::Late,
            RecvTimeoutError::Disconnected => NoAnswer::Over,
        }
    }
}

impl From<NoAnswer> for Failure {
    fn from(why: NoAnswer) -> Failure {
        match why {
            NoAnswer::Late => Failure::new(
                "The daemon does not come to it at this moment.",
                "What was asked for may still be done.",
                "See `standin status`, and ask again.",
            ),
            NoAnswer::Over | NoAnswer::Unwanted => {
                Failure::new("The daemon is stopping.", "Nothing was changed.", "")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn an_answer_comes_or_why_not() {
        let (director, inbox) = bounded::<Reply<u32>>(1);
        let put = || ask(&director, LONG, |reply| reply);
        let asked = put().expect("room");
        inbox.recv().expect("a question").give(7);
        assert_eq!(asked.within(LONG), Ok(7));
        let asked = put().expect("room");
        assert_eq!(asked.within(Duration::ZERO), Err(NoAnswer::Late), "nobody looked at it");
        let full = ask(&director, Duration::ZERO, |reply| reply).err();
        assert_eq!(full, Some(NoAnswer::Late));
        // Whoever asked is gone: that is no matter.
        inbox.recv().expect("a question").give(8);
        let asked = put().expect("room");
        assert_eq!(asked.unless(Duration::ZERO, || true), Err(NoAnswer::Unwanted));
        drop(inbox.recv());
        let asked = put().expect("room");
        drop(inbox.recv().expect("a question"));
        assert_eq!(asked.unless(LONG, || true), Err(NoAnswer::Over), "it was thrown away");
        drop(inbox);
        assert_eq!(put().err(), Some(NoAnswer::Over));
    }
}
