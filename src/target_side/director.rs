//! The director of a target daemon: the one owner of its life.
//!
//! ```text
//!  signals, control socket ── Event ──> Director ──> Board: what everybody else reads
//!
//!  Serving ── stop, signal ──> Stopping (sessions end, each with a durable point)
//! ```
//! Sessions, replicas and the book of pairings have owners of their own, which never wait for it.
//! An invitation goes straight to the book: the listener redeems it there for strangers, so that the
//! book has to be whole by itself, and a stop does not wait for its disk.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::RwLock;

use super::TargetServer;
use crate::control::{Phase, Reply, StopReport};
use crate::limits::DIRECTOR_EVENTS_MAX;

/// What comes to a director.
pub enum Event {
    /// To stop.
    Signal,
    Stop {
        answer: Reply<StopReport>,
    },
}

/// The last word of the director.
pub struct Board(RwLock<Phase>);

impl Board {
    pub fn phase(&self) -> Phase {
        *self.0.read()
    }
}

/// See the module.
pub struct Director {
    server: TargetServer,
    board: Arc<Board>,
    inbox: Receiver<Event>,
}

/// Where the daemon is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Serving,
    Stopping,
}

impl Director {
    /// Of a server that serves.
    pub fn new(server: TargetServer) -> (Director, Arc<Board>, Sender<Event>) {
        let (told, inbox) = bounded(DIRECTOR_EVENTS_MAX);
        let board = Arc::new(Board(RwLock::new(Phase::Serving)));
        (Director { server, board: board.clone(), inbox }, board, told)
    }

    /// Until nobody is served any more: sessions have ended, each with a durable point.
    pub fn run(self) {
        let mut life = Life::Serving;
        while life == Life::Serving
            && let Ok(event) = self.inbox.recv()
        {
            life = self.apply(event);
        }
        drop(self.server);
    }

    fn apply(&self, event: Event) -> Life {
        *self.board.0.write() = Phase::Stopping;
        match event {
            Event::Signal => {}
            Event::Stop { answer } => answer.give(nothing_left()),
        }
        Life::Stopping
    }
}

/// A target has nothing to send.
pub fn nothing_left() -> StopReport {
    StopReport { drained: true, left: Vec::new() }
}
