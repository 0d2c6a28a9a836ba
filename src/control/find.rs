//! Which daemons there are: by the socket files of a run directory, never by looking at mounts.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::client::{Client, ClientError};
use super::status::Status;
use crate::events::Heard;
use crate::words::SOCKET_SUFFIX;

/// A socket file and what came back from it.
pub struct Daemon {
    /// Name of the set.
    pub name: String,
    pub socket: PathBuf,
    pub answer: Answer,
}

pub enum Answer {
    Status(Box<Status>),
    /// Killed: the socket file is all that is left.
    Dead,
    /// Alive, or not ours to ask.
    None(ClientError),
}

/// Asks every daemon of a run directory at once, in order of their names. A directory that does
/// not exist has none.
pub fn daemons(run: &Path) -> io::Result<Vec<Daemon>> {
    Ok(at_once(sockets(run)?, ask))
}

/// What every daemon of a run directory has to tell from its `place` (run, number) on; at once.
///
/// Errors: the directory cannot be read; a daemon is not this user's to ask, which says nothing of the daemon.
pub fn heard(
    run: &Path,
    place: impl Fn(&str) -> (String, u64) + Sync,
) -> io::Result<BTreeMap<String, Heard>> {
    let hear = |name: String, socket: PathBuf| {
        let (of, after) = place(&name);
        let answer = match Client::connect(&socket).and_then(|mut client| client.events(&of, after)) {
            Ok(page) => Heard::Page(page),
            Err(ClientError::Absent) => return None,
            Err(ClientError::Dead) => Heard::Gone,
            Err(ClientError::Denied) => {
                let text = format!("this user may not ask the daemon {name}");
                return Some(Err(io::Error::new(io::ErrorKind::PermissionDenied, text)));
            }
            Err(error) => Heard::Mute(error.to_string()),
        };
        Some(Ok((name, answer)))
    };
    at_once(sockets(run)?, hear).into_iter().collect()
}

/// Sockets of a run directory with the names of their daemons, in order.
///
/// Errors: the directory cannot be read; one that does not exist has none.
pub fn sockets(run: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let entries = match fs::read_dir(run) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut sockets = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let name =
            path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(SOCKET_SUFFIX));
        if let Some(name) = name {
            sockets.push((name.to_owned(), path.clone()));
        }
    }
    sockets.sort();
    Ok(sockets)
}

fn at_once<T: Send>(
    sockets: Vec<(String, PathBuf)>,
    ask: impl Fn(String, PathBuf) -> Option<T> + Sync,
) -> Vec<T> {
    let ask = &ask;
    std::thread::scope(|scope| {
        let asked: Vec<_> =
            sockets.into_iter().map(|(name, socket)| scope.spawn(move || ask(name, socket))).collect();
        asked.into_iter().filter_map(|thread| thread.join().ok().flatten()).collect()
    })
}

/// `None` where the socket went away meanwhile.
fn ask(name: String, socket: PathBuf) -> Option<Daemon> {
    let answer = match Client::connect(&socket).and_then(|mut client| client.status()) {
        Ok(status) => Answer::Status(Box::new(status)),
        Err(ClientError::Absent) => return None,
        Err(ClientError::Dead) => Answer::Dead,
        Err(error) => Answer::None(error),
    };
    Some(Daemon { name, socket, answer })
}
