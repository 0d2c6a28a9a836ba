//! What the target daemon of this host hears of a source.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use super::acting::is_served;
use super::probe::{Heard, silent, there, unknown};
use crate::control::{
    Answer as Given, CallSource, CalledSource, Client, ClientError, Phase, ReplicaStatus, Role, Status,
    daemons, unix_ms,
};
use crate::limits::{CALLED_SOURCE_ANSWERS, RECONNECT_DELAY_MAX};
use crate::units;

/// A link that was lost is dialled again within this time, and the handshake behind it.
pub(super) const RETURNS_WITHIN: Duration = RECONNECT_DELAY_MAX.saturating_add(Duration::from_secs(5));

/// Whoever asks, again and again.
pub(super) struct Link {
    set: String,
    run: PathBuf,
    /// Of the target daemon that has the replica.
    socket: Option<PathBuf>,
    /// The daemon that has it, and since when it is known here.
    known: Option<(u32, Instant)>,
    /// The process of the daemon that had the source connected.
    met: Option<u32>,
    /// When a source came last that was not taken in.
    turned_away_ms: Option<u64>,
}

impl Link {
    pub fn new(set: &str, run: &Path) -> Link {
        let (set, run) = (set.to_owned(), run.to_owned());
        Link { set, run, socket: None, known: None, met: None, turned_away_ms: None }
    }

    /// One attempt.
    pub fn ask(&mut self) -> Heard {
        let (socket, status) = match self.target() {
            Ok(found) => found,
            Err(why) => {
                self.socket = None;
                return unknown(why);
            }
        };
        let Some(replica) = replica(&status, &self.set) else {
            self.socket = None;
            return unknown(format!("the target daemon has no replica of {}", self.set));
        };
        let came_ms = replica.turned_away.as_ref().map(|came| came.at_unix_ms);
        let came_again = came_ms.is_some() && self.turned_away_ms.replace(came_ms.unwrap_or(0)) != came_ms;
        match &replica.connected {
            Some(_) => {
                self.met = Some(status.pid);
                call(&socket, &self.set)
            }
            // Of another version: it lives.
            None if came_again && came_ms.is_some_and(is_recent) => there(),
            None if is_served(&self.run, &self.set) => unknown("this host writes the set itself"),
            None => not_connected(status.phase, replica.problem.as_deref(), self.serves_for(&status)),
        }
    }

    /// By this host's clock, or by what was seen of it where that was set; `None`: the source has come to it.
    fn serves_for(&mut self, status: &Status) -> Option<Duration> {
        if self.met == Some(status.pid) {
            return None;
        }
        let (_, since) = match self.known {
            Some(known @ (pid, _)) if pid == status.pid => known,
            Some(_) | None => *self.known.insert((status.pid, Instant::now())),
        };
        let up = Duration::from_millis(status.now_unix_ms.saturating_sub(status.since_unix_ms));
        Some(up.max(since.elapsed()))
    }

    /// The daemon that has the replica, and what it says.
    ///
    /// Errors: there is none, or it does not answer.
    fn target(&mut self) -> Result<(PathBuf, Status), String> {
        if let Some(socket) = &self.socket {
            let status = Client::connect(socket).and_then(|mut client| client.status());
            return match status {
                Ok(status) => Ok((socket.clone(), status)),
                Err(error) => Err(format!("the target daemon gives no answer: {error}")),
            };
        }
        let all = daemons(&self.run).map_err(|error| format!("{}: {error}", self.run.display()))?;
        let mut silent = None;
        for daemon in all {
            match daemon.answer {
                Given::Status(status) if replica(&status, &self.set).is_some() => {
                    self.socket = Some(daemon.socket.clone());
                    return Ok((daemon.socket, *status));
                }
                Given::Status(status) if status.source().is_some() && status.name == self.set => {
                    return Err("this host writes the set itself".into());
                }
                Given::Status(_) => {}
                Given::Dead => silent = silent.or(Some(format!("the daemon {} was killed", daemon.name))),
                Given::None(error) => silent = Some(format!("the daemon {}: {error}", daemon.name)),
            }
        }
        let none = || format!("no target daemon of this host has a replica of {}", self.set);
        Err(silent.map_or_else(none, |silent| format!("{}; {silent}", none())))
    }
}

fn replica<'a>(status: &'a Status, set: &str) -> Option<&'a ReplicaStatus> {
    let Role::Target { target } = &status.role else { return None };
    target.replicas.iter().find(|replica| replica.name == set)
}

fn is_recent(came_ms: u64) -> bool {
    unix_ms(SystemTime::now()).saturating_sub(came_ms) < RETURNS_WITHIN.as_millis() as u64
}

/// One that is connected may have died just now, or hang.
fn call(socket: &Path, set: &str) -> Heard {
    let call = CallSource { replica: set.to_owned(), end_silent_for_ms: None };
    match Client::connect(socket).and_then(|mut client| client.call_source(call)) {
        Ok(Some(CalledSource { answered: true, .. })) => there(),
        Ok(Some(_)) => silent(format!(
            "it is connected, was called, and gave no sign of life within {:.0} s",
            CALLED_SOURCE_ANSWERS.as_secs_f64()
        )),
        Ok(None) => silent("its connection has just ended"),
        Err(ClientError::Failure(failure)) => unknown(failure.what),
        Err(error) => unknown(format!("the target daemon gives no answer: {error}")),
    }
}

fn not_connected(phase: Phase, problem: Option<&str>, serves_for: Option<Duration>) -> Heard {
    if phase != Phase::Serving {
        return unknown("the target daemon does not serve");
    }
    if let Some(problem) = problem {
        return unknown(format!("the replica cannot be opened: {problem}"));
    }
    match serves_for.filter(|up| *up < RETURNS_WITHIN) {
        Some(up) => unknown(format!(
            "the target daemon serves for {}, and its source has not come yet",
            units::duration(up)
        )),
        None => silent("it is not connected"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitor::machine::Answer;

    #[test]
    fn a_source_that_has_not_come_yet_is_not_silent() {
        let answer = |phase, problem, seconds: Option<u64>| {
            not_connected(phase, problem, seconds.map(Duration::from_secs)).answer
        };
        assert_eq!(answer(Phase::Serving, None, Some(60)), Answer::Unknown);
        assert_eq!(answer(Phase::Serving, None, Some(66)), Answer::Silent);
        assert_eq!(answer(Phase::Serving, None, None), Answer::Silent, "it had come");
        assert_eq!(answer(Phase::Serving, Some("its disk is away"), None), Answer::Unknown);
        assert_eq!(answer(Phase::Starting, None, None), Answer::Unknown);
    }
}
