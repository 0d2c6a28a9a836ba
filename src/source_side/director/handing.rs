//! The daemon becomes another program: changes are held, and what the next one needs to know is left.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::{Director, Question, not_serving};
use crate::control::unix_ms;
use crate::failure::Failure;
use crate::intercept::{Handover, Serving};
use crate::limits::UPGRADE_ROUNDS_MAX;
use crate::source_side::connection::Connection;
use crate::source_side::hands::Job;
use crate::source_side::life::{Ended, HandOver, Life};
use crate::source_side::mark::Reached;
use crate::source_side::rounds::Rounds;
use crate::source_side::rules;
use crate::source_side::settling::Disk;
use crate::source_side::upgrade::{AS_BEFORE, Gates, Held, Hold, Successor, goes_on};

impl Director {
    /// Holds changes; whoever asked is told only what went wrong.
    pub(super) fn begin_handover(&mut self, life: Life, question: Question) -> Life {
        let Question::HandOver { successor, patience, answer } = question else { return life };
        let Life::Serving { serving, alive, rounds } = life else {
            answer.give(not_serving(&self.ground, life.stage()));
            return life;
        };
        self.hold(None, patience, Instant::now() + patience);
        let asked = HandOver { successor, answer, rounds_left: UPGRADE_ROUNDS_MAX };
        Life::HandingOver { asked, serving, alive, rounds }
    }

    fn hold(&self, again: Option<Gates>, patience: Duration, until: Instant) {
        let (ground, board, director) = (self.ground.clone(), self.board.clone(), self.itself.clone());
        self.hands.give(Job::Hold(Box::new(Hold { ground, board, director, patience, until, again })));
    }

    /// Nothing is put into the stream any more: all that does so is held, or is this very thread.
    pub(super) fn held(&mut self, life: Life, held: Result<Held, Failure>) -> Life {
        let Life::HandingOver { mut asked, serving, alive, rounds } = life else {
            panic!("nobody gave the hands this to do in {:?}", life.stage())
        };
        let held = match held.and_then(|held| self.may_go(&asked.successor, &serving).map(|()| held)) {
            Ok(held) => held,
            Err(failure) => {
                asked.answer.give(failure);
                return Life::Serving { serving, alive, rounds };
            }
        };
        if held.last != self.ground.queue.last() {
            // A barrier of somebody who waits.
            if asked.rounds_left == 0 {
                asked.answer.give(disturbed());
                return Life::Serving { serving, alive, rounds };
            }
            asked.rounds_left -= 1;
            self.hold(Some(held.gates), held.patience, held.until);
            return Life::HandingOver { asked, serving, alive, rounds };
        }
        self.hand_over(*asked.successor, held, serving, rounds)
    }

    fn may_go(&self, successor: &Successor, serving: &Serving) -> Result<(), Failure> {
        let why = match () {
            () if self.signals.pending => "it was told to stop",
            () if serving.ended() => "the mount is gone",
            () if !successor.giving.is_held() => "the holder of the mount is gone",
            () if !successor.program.is_unchanged() => "the program's file is another one by now",
            () => return Ok(()),
        };
        Err(Failure::new(format!("The daemon becomes no other program: {why}."), AS_BEFORE, "Try again."))
    }

    /// From here on there is no way back but this very program anew.
    fn hand_over(&mut self, successor: Successor, held: Held, serving: Serving, rounds: Rounds) -> Life {
        let Held { gates, last, followers, sent, .. } = held;
        self.note_handover(&gates, &followers);
        let position = goes_on(&self.ground, &self.connections, self.recorder.record()).then_some(last);
        successor.giving.leave(&Handover {
            process: std::process::id(),
            program: std::os::fd::AsRawFd::as_raw_fd(&successor.own),
            from: env!("CARGO_PKG_VERSION").into(),
            held_since_ms: gates.since_ms,
            position,
            terms: rules::terms_in_force(&self.ground),
            sent,
            at_unix_ms: unix_ms(SystemTime::now()),
        });
        // Until this process is another program.
        std::mem::forget(gates);
        serving.leave();
        self.successor = Some(successor);
        Life::Over { outcome: Ok(Ended::Complete), rounds: Some(rounds), stopped: None }
    }

    /// On disk before it counts, for a start that does not find what is left.
    fn note_handover(&mut self, gates: &Gates, followers: &[Arc<Connection>]) {
        let divergence = self.ground.volume.divergence();
        if let Some(why) = divergence.uncaptured() {
            self.recorder.note_divergence(&why);
        }
        if divergence.touched().is_some() {
            self.recorder.note_touched(true);
        }
        let kept = self.connections.iter();
        drop(self.recorder.keep(kept.map(|at| (at.target.to_string(), at.kept()))));
        let run = self.ground.queue.last().incarnation;
        let reached = followers.iter().map(|connection| {
            (connection.target.to_string(), Reached { run, sequence: connection.report().durable })
        });
        // The page cache stays with the directory: nothing says that it is on the disk.
        self.recorder.note_end(reached, Some(gates.mark.clone()), (Disk::Unknown, None), |_| Ok(()));
    }
}

fn disturbed() -> Failure {
    Failure::new(
        "Commands that wait for the targets come all the time (wait-sync, marker, file).",
        AS_BEFORE,
        "Try again when they have ended.",
    )
    .passing()
}
