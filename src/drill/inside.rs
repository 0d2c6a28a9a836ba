//! What is asked of a drill's first process, and its answers.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, never, select};

use super::isolation::keeper::Keeper;
use super::isolation::{Answer, Harm, Isolation, Request, Seen, Wanted};
use super::limits::{GRACE, ISOLATE_MAX, TRIED_EVERY};
use crate::commands::{Ended, Run};
use crate::failure::Failure;
use crate::sys::Network;

/// Why a step has not ended well.
pub(super) enum Bad {
    Interrupted,
    Failed(String),
}

impl From<Failure> for Bad {
    fn from(failure: Failure) -> Bad {
        Bad::Failed(failure.what)
    }
}

/// Namespaces with the clone in them; dropped, they and everything in them are gone.
pub(super) struct Inside {
    keeper: Keeper,
    /// Somebody asks for its end.
    stops: Receiver<()>,
}

impl Inside {
    /// Without anything in them yet.
    pub(super) fn begin(network: Network, stops: &Receiver<()>) -> Result<Inside, Bad> {
        let keeper = Keeper::start(network);
        let keeper = keeper.map_err(|error| Bad::Failed(format!("no namespaces of its own: {error}")))?;
        Ok(Inside { keeper, stops: stops.clone() })
    }

    pub(super) fn pid(&self) -> u32 {
        self.keeper.pid()
    }

    /// Puts in them what is to be seen. `patience` beyond what that takes by itself.
    pub(super) fn arrange(&mut self, wanted: &Wanted, patience: Duration) -> Result<Isolation, Bad> {
        match self.asked(wanted, ISOLATE_MAX + patience)? {
            Answer::Isolated(isolation) => Ok(isolation),
            other => Err(unasked(other)),
        }
    }

    pub(super) fn run(&mut self, command: &str, timeout: Duration) -> Result<Ended, Bad> {
        match self.asked(&Request::Run(run(command, timeout)), timeout + GRACE)? {
            Answer::Ended(ended) => Ok(ended),
            other => Err(unasked(other)),
        }
    }

    /// Until it succeeds, or the time is over (`false`). `last` is its last run.
    pub(super) fn probe(
        &mut self,
        command: &str,
        timeout: Duration,
        (last, tries): (&mut Option<Ended>, &mut u32),
    ) -> Result<bool, Bad> {
        let deadline = Instant::now() + timeout;
        loop {
            *tries += 1;
            let ended = self.run(command, deadline.saturating_duration_since(Instant::now()))?;
            let is_success = ended.is_success();
            *last = Some(ended);
            match is_success {
                true => return Ok(true),
                false if Instant::now() >= deadline => return Ok(false),
                false => rest(&self.stops)?,
            }
        }
    }

    /// Until somebody asks for its end; an error where it has ended by itself.
    pub(super) fn until_asked(&self) -> Result<(), Bad> {
        let gone = || Bad::Failed("the first process of the drill has ended".into());
        select! {
            recv(self.stops) -> asked => asked.map_err(|_| Bad::Interrupted),
            recv(self.keeper.answers()) -> answer => Err(answer.map_or_else(|_| gone(), unasked)),
        }
    }

    /// What it has read, too. What there is to look at afterwards may be large: `patience` for that.
    pub(super) fn watch(
        &mut self,
        command: &str,
        timeout: Duration,
        patience: Duration,
    ) -> Result<(Ended, Seen), Bad> {
        match self.asked(&Request::Watch(run(command, timeout)), timeout + GRACE + patience)? {
            Answer::Watched(ended, seen) => Ok((ended, seen)),
            other => Err(unasked(other)),
        }
    }

    /// Of what was arranged with damage: what was done.
    pub(super) fn harm(&mut self) -> Result<Harm, Bad> {
        match heard(&self.keeper, &self.stops, ISOLATE_MAX)? {
            Answer::Damaged(harm) => Ok(harm),
            other => Err(unasked(other)),
        }
    }

    fn asked(&mut self, request: &impl serde::Serialize, patience: Duration) -> Result<Answer, Bad> {
        self.keeper.ask(request).map_err(|error| Bad::Failed(format!("it cannot be asked: {error}")))?;
        heard(&self.keeper, &self.stops, patience)
    }
}

fn run(command: &str, timeout: Duration) -> Run {
    Run { command: command.to_owned(), timeout_ms: timeout.as_millis() as u64, input: String::new() }
}

fn unasked(answer: Answer) -> Bad {
    match answer {
        Answer::Refused(why) => Bad::Failed(why),
        Answer::Isolated(_) | Answer::Ended(_) | Answer::Watched(..) | Answer::Damaged(_) => {
            Bad::Failed("it answered what nobody had asked".into())
        }
    }
}

/// A moment, until something is tried again.
pub(super) fn rest(stops: &Receiver<()>) -> Result<(), Bad> {
    match stops.recv_timeout(TRIED_EVERY) {
        Ok(()) => Err(Bad::Interrupted),
        Err(_) => Ok(()),
    }
}

/// What the process says next.
fn heard(keeper: &Keeper, stops: &Receiver<()>, patience: Duration) -> Result<Answer, Bad> {
    // A signal that nobody can send any more is none.
    let nobody = never();
    let mut stops = stops;
    let deadline = Instant::now() + patience;
    loop {
        select! {
            recv(keeper.answers()) -> answer => {
                return answer.map_err(|_| Bad::Failed("the first process of the drill has ended".into()));
            }
            recv(stops) -> asked => match asked {
                Ok(()) => return Err(Bad::Interrupted),
                Err(_) => stops = &nobody,
            },
            default(deadline.saturating_duration_since(Instant::now())) => {
                return Err(Bad::Failed("it gave no answer in time".into()));
            }
        }
    }
}
