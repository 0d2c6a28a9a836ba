//! `standin connection start|stop|pause|resume|disconnect`: what a person wants of one connection.

use std::sync::Arc;

use super::connection::{Connection, Report};
use super::daemon::Daemon;
use super::status::connection_status;
use crate::connection::{Command, NotNow};
use crate::control::{ChangedConnection, ConnectionChange, Phase};
use crate::failure::Failure;

const UNTOUCHED: &str = "Nothing was changed.";

impl Daemon {
    /// Blocks until it is so.
    pub fn change_connection(
        &self,
        change: ConnectionChange,
        which: Option<&str>,
    ) -> Result<ChangedConnection, Failure> {
        let phase = self.phase();
        if phase != Phase::Serving {
            let (now, next) = match phase {
                Phase::Starting => ("still brings its targets into line", "Wait until it says `ready`."),
                Phase::Serving | Phase::Draining | Phase::Stopping => ("is stopping", ""),
            };
            let directory = self.options.directory.display();
            return Err(Failure::new(format!("The daemon of {directory} {now}."), UNTOUCHED, next));
        }
        let connection = self.meant(which)?;
        let before = connection_status(&connection, self);
        let outcome = match (connection.is_null(), command(change)) {
            (true, Command::Disconnect) => Ok(()),
            (true, Command::Start | Command::Stop | Command::Pause | Command::Resume) => {
                return Err(Failure::new(
                    "The target null: captures and sends nothing: there is nothing to start or stop.",
                    UNTOUCHED,
                    "`standin connection disconnect` takes it away.",
                ));
            }
            (false, command) => connection.command(command),
        };
        outcome.map_err(|why| not_now(connection.id, &connection.report(), why))?;
        let connection = match change {
            ConnectionChange::Disconnect => {
                self.connections.lock().retain(|other| other.id != connection.id);
                connection.end();
                before
            }
            ConnectionChange::Start
            | ConnectionChange::Stop
            | ConnectionChange::Pause
            | ConnectionChange::Resume => connection_status(&connection, self),
        };
        Ok(ChangedConnection { change, connection, queue: self.queue.stats() })
    }

    /// The connection of this number, UUID (or its beginning) or target.
    fn meant(&self, which: Option<&str>) -> Result<Arc<Connection>, Failure> {
        let connections = self.connections();
        let fits = |connection: &&Arc<Connection>| {
            which.is_none_or(|which| {
                connection.id.to_string() == which
                    || which.len() >= 8 && connection.uuid.starts_with(which)
                    || connection.target.to_string() == which
            })
        };
        let mut meant = connections.iter().filter(fits);
        match (meant.next(), meant.next()) {
            (Some(only), None) => Ok(only.clone()),
            (None, _) if connections.is_empty() => Err(none_left()),
            (None, _) => Err(Failure::new(
                format!("There is no connection '{}'.", which.unwrap_or_default()),
                UNTOUCHED,
                format!("These are there:{}", lines(&connections)),
            )),
            (Some(_), Some(_)) => Err(Failure::new(
                format!("Several connections are there:{}", lines(&connections)),
                UNTOUCHED,
                "Say which one is meant, by its number, UUID or target.",
            )),
        }
    }
}

/// What a person has to do before anything comes through to a connection that is held back.
pub fn way_on(id: u32, report: &Report) -> String {
    match report.held_back() {
        Some(_) if report.needs_copy.is_some() => report.reason.clone(),
        Some(why) => {
            let word = if report.streaming { "resume" } else { "start" };
            format!("{why}: `standin connection {word} {id}`")
        }
        None => report.reason.clone(),
    }
}

pub fn none_left() -> Failure {
    Failure::new(
        "There is no connection: nothing is replicated.",
        UNTOUCHED,
        "Stop the protection, and start it with --to TARGET.",
    )
}

fn command(change: ConnectionChange) -> Command {
    match change {
        ConnectionChange::Start => Command::Start,
        ConnectionChange::Stop => Command::Stop,
        ConnectionChange::Pause => Command::Pause,
        ConnectionChange::Resume => Command::Resume,
        ConnectionChange::Disconnect => Command::Disconnect,
    }
}

fn lines(connections: &[Arc<Connection>]) -> String {
    let line = |connection: &Arc<Connection>| {
        format!("\n    {}  {}  {}", connection.id, connection.uuid, connection.target)
    };
    connections.iter().map(line).collect()
}

fn not_now(id: u32, report: &Report, why: NotNow) -> Failure {
    let (what, next) = match why {
        NotNow::Stopped => ("is stopped".to_owned(), format!("`standin connection start {id}` starts it.")),
        NotNow::Scheduled => (
            "waits for its schedule and has no network connection".to_owned(),
            format!("`standin connection stop {id}` keeps it from starting."),
        ),
        NotNow::NeedsCopy => (
            format!("cannot go on: {}", report.reason),
            "`standin stop`, then `standin protect` as before: it copies what differs.".to_owned(),
        ),
        NotNow::Gone => {
            ("is not there any more".to_owned(), "`standin connection list` shows the rest.".into())
        }
    };
    Failure::new(format!("Connection {id} {what}."), UNTOUCHED, next)
}
