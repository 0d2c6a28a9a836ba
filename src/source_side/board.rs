//! What the director lets everybody know.

use std::sync::Arc;

use parking_lot::RwLock;

use super::connection::Connection;
use super::flush::Flusher;
use crate::control::{Phase, StopReport};

/// The last word of the director: read without waiting for whatever it does.
pub struct Board(RwLock<Arc<Posted>>);

/// Who may write on it.
pub struct Poster(Arc<Board>);

/// How the daemon is.
pub struct Posted {
    pub phase: Phase,
    pub connections: Vec<Arc<Connection>>,
    /// There as soon as the mount serves.
    pub flusher: Option<Arc<Flusher>>,
    /// What stands in the way between programs and the mount, if something does.
    pub mount_lost: Option<String>,
    /// Why the mount lacks options of the backing's, if it does.
    pub options_trouble: Option<String>,
    /// A stop ended; what it left.
    pub stopped: Option<StopReport>,
}

impl Board {
    /// Of a daemon that begins.
    pub fn new(connections: Vec<Arc<Connection>>) -> (Arc<Board>, Poster) {
        let posted = Posted {
            phase: Phase::Starting,
            connections,
            flusher: None,
            mount_lost: None,
            options_trouble: None,
            stopped: None,
        };
        let board = Arc::new(Board(RwLock::new(Arc::new(posted))));
        (board.clone(), Poster(board))
    }

    pub fn read(&self) -> Arc<Posted> {
        self.0.read().clone()
    }
}

impl Poster {
    pub fn post(&mut self, posted: Posted) {
        // What stood there is dropped when the lock is free again.
        let _before = std::mem::replace(&mut *self.0.0.write(), Arc::new(posted));
    }
}
