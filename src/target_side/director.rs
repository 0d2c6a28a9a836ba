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
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use parking_lot::RwLock;

use super::TargetServer;
use crate::control::{Phase, Reply, StopReport};
use crate::limits::DIRECTOR_EVENTS_MAX;
use crate::service_manager::ServiceManager;

/// How often a service manager may want to hear that it goes on.
const ALIVE_EVERY: Duration = Duration::from_secs(1);

/// What sessions need at most to make what they have durable.
const SESSIONS_END: Duration = Duration::from_secs(60);

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
        let mut manager = ServiceManager::of_process();
        manager.status(&format!("replicas are served at {}", self.server.address()));
        manager.ready();
        let mut life = Life::Serving;
        while life == Life::Serving
            && let Some(event) = self.next(&mut manager)
        {
            life = self.apply(event);
        }
        manager.stopping(SESSIONS_END);
        drop(self.server);
    }

    /// `None`: nobody is there who could say anything any more.
    fn next(&self, manager: &mut ServiceManager) -> Option<Event> {
        while manager.listens() {
            manager.alive(Instant::now());
            match self.inbox.recv_timeout(ALIVE_EVERY) {
                Ok(event) => return Some(event),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
        self.inbox.recv().ok()
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
