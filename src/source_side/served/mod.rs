//! What is kept of the last time that a set was served, for whoever finds that nobody serves it: since when, how its
//! connections were, and how that ended. A daemon that was killed has written no end.
//!
//! `served.json` in the set's state: written when the mount comes up, when a connection is another way than before, and
//! at the end. In between its time of change is moved on, without a sync: it was served until then at the least.

mod absent;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use serde::{Deserialize, Serialize};

use self::absent::Note;
pub use self::absent::{Ended as LastEnded, NotServed, not_served, take_out};
use super::board::Board;
use super::connection::Connection;
use super::ground::Ground;
use crate::control::{ConnectionState, StopReport, unix_ms};
use crate::packet::DataState;
use crate::service_manager;
use crate::store;

const FILE: &str = "served.json";

/// How often it is looked whether a connection is another way.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// How a connection was when it was seen last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastSeen {
    /// As it was typed.
    pub target: String,
    pub state: ConnectionState,
    pub data: DataState,
    /// Why it is in this state; may be empty.
    pub reason: String,
}

/// How the protection ended that was told to, or was not needed any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    Stopped,
    /// Somebody else took the mount away.
    Unmounted,
}

/// The end of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    pub at_unix_ms: u64,
    pub how: How,
    /// What targets lack, in words.
    pub left: Vec<String>,
}

/// Keeps the note as long as the mount is there.
pub struct Book {
    path: PathBuf,
    note: Note,
    board: Arc<Board>,
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Book {
    /// The set is served from here on. Where its state takes no note a later look writes it.
    ///
    /// Errors: no thread can be started.
    pub fn begin(ground: &Ground, board: &Arc<Board>) -> io::Result<Book> {
        let path = note_path(&ground.options.set_state());
        let note = Note {
            run: ground.options.run.clone(),
            directory: ground.options.directory.clone(),
            since_unix_ms: unix_ms(SystemTime::now()),
            unit: service_manager::unit(),
            connections: seen(&board.read().connections),
            ended: None,
            taken_out: false,
        };
        let is_written = write(&path, &note);
        let (end, ended) = bounded(0);
        let mut watch = Watch { path: path.clone(), note: note.clone(), is_written };
        let watched = board.clone();
        let look = move || watch.run(&watched, &ended);
        let thread = std::thread::Builder::new().name("served".into()).spawn(look)?;
        Ok(Book { path, note, board: board.clone(), end: Some(end), thread: Some(thread) })
    }

    /// Nothing is served any more, in order.
    pub fn close(mut self, how: How, report: &StopReport) {
        self.end = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the thread that notes how the set is served panicked");
        }
        let end = End { at_unix_ms: unix_ms(SystemTime::now()), how, left: report.left.clone() };
        let connections = seen(&self.board.read().connections);
        write(&self.path, &Note { connections, ended: Some(end), ..self.note.clone() });
    }
}

/// What the thread has.
struct Watch {
    path: PathBuf,
    note: Note,
    is_written: bool,
}

impl Watch {
    fn run(&mut self, board: &Board, ended: &Receiver<()>) {
        while ended.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
            let connections = seen(&board.read().connections);
            if self.is_written && connections == self.note.connections {
                move_on(&self.path);
            } else {
                self.note.connections = connections;
                self.is_written = write(&self.path, &self.note);
            }
        }
    }
}

fn seen(connections: &[Arc<Connection>]) -> Vec<LastSeen> {
    let one = |connection: &Arc<Connection>| {
        let report = connection.report();
        let target = connection.target.to_string();
        LastSeen { target, state: report.state, data: report.data, reason: report.reason }
    };
    connections.iter().map(one).collect()
}

fn note_path(set_state: &Path) -> PathBuf {
    set_state.join(FILE)
}

fn write(path: &Path, note: &Note) -> bool {
    let written = store::replace_json(path, note);
    if let Err(error) = &written {
        log::warn!("how the set is served cannot be noted in {}: {error}", path.display());
    }
    written.is_ok()
}

/// It is no loss where that fails: the note is older then than it could be.
fn move_on(path: &Path) {
    if let Ok(file) = File::open(path) {
        let _ = file.set_modified(SystemTime::now());
    }
}
