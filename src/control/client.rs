//! The command's end of the socket: one request at a time, every answer within a time-out.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use super::clones::{ClonesRequest, ReplicaClones};
use super::configuration::{ConfigurationReport, ReloadReport};
use super::markers::{AttendRequest, Attending, MarkerReport, MarkerRequest};
use super::message::{
    CallSource, CalledSource, ChangedConnection, ConnectionChange, Invite, Invited, Paired, Request,
    Response, Revoke, RulesReport, StopMode, StopReport, SyncReport, VerifyReport, VerifyRequest, WaitFor,
    WaitSync,
};
use super::orphans::{OrphansRequest, ReplicaOrphans};
use super::presence::{FileReport, FilesRequest};
use super::resync::ResyncReport;
use super::status::Status;
use super::upgrade::{UpgradeLook, UpgradeRequest};
use crate::events::{Page, Series};
use crate::failure::Failure;
use crate::limits::{
    CALLED_SOURCE_ANSWERS, CLOSE_FLUSH, CONNECT_PATIENCE, CONTROL_ANSWER, CONTROL_RESPONSE_LEN_MAX,
    WEIGHED_MAX,
};
use crate::sys::proc_path;

/// A connection to a daemon's control socket.
pub struct Client {
    reader: BufReader<UnixStream>,
}

/// Why a daemon gave no answer, or which it gave instead.
#[derive(Debug)]
pub enum ClientError {
    /// There is no such socket.
    Absent,
    /// The socket is there, its daemon is not.
    Dead,
    /// The file permissions keep this user out.
    Denied,
    /// No answer came in time: the daemon hangs or is stopped.
    Mute,
    /// The daemon hung up in the middle, or speaks another language.
    Broken(String),
    /// The daemon's own words.
    Failure(Failure),
}

impl Client {
    pub fn connect(socket: &Path) -> Result<Client, ClientError> {
        let stream = connect_short(socket).map_err(ClientError::from)?;
        stream.set_write_timeout(Some(CONTROL_ANSWER)).map_err(ClientError::from)?;
        Ok(Client { reader: BufReader::new(stream) })
    }

    pub fn status(&mut self) -> Result<Status, ClientError> {
        match self.ask(&Request::Status, Some(CONTROL_ANSWER))? {
            Response::Status { status } => Ok(*status),
            other => Err(unexpected(&other)),
        }
    }

    /// Blocks as long as the daemon does; without a time-out, for ever.
    pub fn wait_sync(&mut self, wait: WaitSync) -> Result<SyncReport, ClientError> {
        let request = Request::WaitSync {
            durable: wait.wait_for == WaitFor::Durable,
            timeout_ms: wait.timeout.map(|timeout| timeout.as_millis() as u64),
        };
        match self.ask(&request, wait.timeout.map(|timeout| timeout.saturating_add(CONTROL_ANSWER)))? {
            Response::WaitSync { report } => Ok(report),
            other => Err(unexpected(&other)),
        }
    }

    /// Blocks as long as the daemon does; without a time-out, for ever.
    pub fn files(&mut self, files: FilesRequest) -> Result<Vec<FileReport>, ClientError> {
        let timeout = files.timeout_ms.map(Duration::from_millis);
        let patience = timeout.map(|timeout| timeout.saturating_add(CONTROL_ANSWER));
        match self.ask(&Request::Files { files }, patience)? {
            Response::Files { files } => Ok(files),
            other => Err(unexpected(&other)),
        }
    }

    /// As [`Client::files`].
    pub fn marker(&mut self, marker: MarkerRequest) -> Result<MarkerReport, ClientError> {
        let timeout = marker.timeout_ms.map(Duration::from_millis);
        let patience = timeout.map(|timeout| timeout.saturating_add(2 * CONTROL_ANSWER));
        match self.ask(&Request::Marker { marker }, patience)? {
            Response::Marker { report } => Ok(report),
            other => Err(unexpected(&other)),
        }
    }

    /// Blocks until there is something to do, for half the time of an answer at most.
    pub fn attend(&mut self, attend: AttendRequest) -> Result<Attending, ClientError> {
        match self.ask(&Request::Attend { attend }, Some(CONTROL_ANSWER))? {
            Response::Attend { attending } => Ok(attending),
            other => Err(unexpected(&other)),
        }
    }

    /// Blocks until the mount is gone, `patience` at most.
    pub fn stop(&mut self, mode: StopMode, patience: Duration) -> Result<StopReport, ClientError> {
        match self.ask(&Request::Stop { mode }, Some(patience))? {
            Response::Stop { report } => Ok(report),
            other => Err(unexpected(&other)),
        }
    }

    /// Blocks for `patience` at most. [`ClientError::Broken`]: the daemon has hung up, and is another program by now,
    /// or dead.
    pub fn upgrade(
        &mut self,
        upgrade: UpgradeRequest,
        patience: Duration,
    ) -> Result<UpgradeLook, ClientError> {
        match self.ask(&Request::Upgrade { upgrade }, Some(patience))? {
            Response::Upgrade { look } => Ok(look),
            other => Err(unexpected(&other)),
        }
    }

    /// Blocks until it is so: the end of a network connection takes seconds at most.
    pub fn connection(
        &mut self,
        change: ConnectionChange,
        which: Option<String>,
    ) -> Result<ChangedConnection, ClientError> {
        let answers = match change {
            ConnectionChange::Add { .. } => CONNECT_PATIENCE + 4 * CONTROL_ANSWER,
            _ => CONTROL_ANSWER,
        };
        let patience = answers + 4 * CLOSE_FLUSH;
        match self.ask(&Request::Connection { change, which }, Some(patience))? {
            Response::Connection { changed } => Ok(*changed),
            other => Err(unexpected(&other)),
        }
    }

    /// Blocks until it is over, however long that takes.
    pub fn verify(&mut self, verify: VerifyRequest) -> Result<VerifyReport, ClientError> {
        match self.ask(&Request::Verify { verify }, None)? {
            Response::Verify { report } => Ok(*report),
            other => Err(unexpected(&other)),
        }
    }

    /// Blocks while what is owed is weighed.
    pub fn foresee(&mut self) -> Result<ResyncReport, ClientError> {
        match self.ask(&Request::Foresee, Some(WEIGHED_MAX + 2 * CONTROL_ANSWER))? {
            Response::Foresee { report } => Ok(report),
            other => Err(unexpected(&other)),
        }
    }

    /// Blocks until it is over: counting and removing takes what the disk takes.
    pub fn orphans(&mut self, orphans: OrphansRequest) -> Result<Vec<ReplicaOrphans>, ClientError> {
        match self.ask(&Request::Orphans { orphans }, None)? {
            Response::Orphans { replicas } => Ok(replicas),
            other => Err(unexpected(&other)),
        }
    }

    /// Blocks until the source is heard, or counts as silent.
    pub fn call_source(&mut self, call: CallSource) -> Result<Option<CalledSource>, ClientError> {
        let patience = CONTROL_ANSWER + CALLED_SOURCE_ANSWERS;
        match self.ask(&Request::CallSource { call }, Some(patience))? {
            Response::CallSource { called } => Ok(called),
            other => Err(unexpected(&other)),
        }
    }

    /// Blocks until it is so: a start waits for a moment between two packets, a stop for what is removed.
    pub fn clones(&mut self, clones: ClonesRequest) -> Result<Vec<ReplicaClones>, ClientError> {
        match self.ask(&Request::Clones { clones }, None)? {
            Response::Clones { replicas } => Ok(replicas),
            other => Err(unexpected(&other)),
        }
    }

    /// Blocks until the daemon follows the file of its set.
    pub fn rules(&mut self) -> Result<RulesReport, ClientError> {
        match self.ask(&Request::Rules, Some(CONTROL_ANSWER))? {
            Response::Rules { report } => Ok(report),
            other => Err(unexpected(&other)),
        }
    }

    /// Blocks until the daemon has read its files.
    pub fn reload(&mut self) -> Result<ReloadReport, ClientError> {
        match self.ask(&Request::Reload, Some(CONTROL_ANSWER))? {
            Response::Reload { report } => Ok(report),
            other => Err(unexpected(&other)),
        }
    }

    /// As [`Client::reload`], and nothing is changed.
    pub fn configuration(&mut self) -> Result<ConfigurationReport, ClientError> {
        match self.ask(&Request::Configuration, Some(CONTROL_ANSWER))? {
            Response::Configuration { report } => Ok(report),
            other => Err(unexpected(&other)),
        }
    }

    pub fn invite(&mut self, invite: Invite) -> Result<Invited, ClientError> {
        match self.ask(&Request::Invite { invite }, Some(CONTROL_ANSWER))? {
            Response::Invite { invited } => Ok(invited),
            other => Err(unexpected(&other)),
        }
    }

    pub fn pairings(&mut self) -> Result<Vec<Paired>, ClientError> {
        match self.ask(&Request::Pairings, Some(CONTROL_ANSWER))? {
            Response::Pairings { pairings } => Ok(pairings),
            other => Err(unexpected(&other)),
        }
    }

    pub fn revoke(&mut self, revoke: Revoke) -> Result<Vec<Paired>, ClientError> {
        match self.ask(&Request::Revoke { revoke }, Some(CONTROL_ANSWER))? {
            Response::Revoke { revoked } => Ok(revoked),
            other => Err(unexpected(&other)),
        }
    }

    /// Everything behind a number of a run, as one page.
    pub fn events(&mut self, run: &str, after: u64) -> Result<Page, ClientError> {
        let mut all = self.events_page(run, after)?;
        while all.more {
            let page = self.events_page(&all.run, all.next)?;
            all.records.extend(page.records);
            all = Page { records: all.records, lost: all.lost + page.lost, ..page };
        }
        Ok(all)
    }

    fn events_page(&mut self, run: &str, after: u64) -> Result<Page, ClientError> {
        match self.ask(&Request::Events { run: run.to_owned(), after }, Some(CONTROL_ANSWER))? {
            Response::Events { page } => Ok(*page),
            other => Err(unexpected(&other)),
        }
    }

    pub fn history(&mut self) -> Result<Vec<Series>, ClientError> {
        match self.ask(&Request::History, Some(CONTROL_ANSWER))? {
            Response::History { connections } => Ok(connections),
            other => Err(unexpected(&other)),
        }
    }

    /// Blocks until the daemon hangs up, `patience` at most; whether it did.
    pub fn wait_for_end(&mut self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        loop {
            // A time-out of nothing would be none at all.
            let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            if self.reader.get_ref().set_read_timeout(Some(left)).is_err() {
                return false;
            }
            match self.reader.fill_buf() {
                // A signal, or this process was stopped for a while: the kernel does not go on with a time-out.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                said => return matches!(said, Ok([])),
            }
        }
    }

    fn ask(&mut self, request: &Request, patience: Option<Duration>) -> Result<Response, ClientError> {
        let broken = |error: serde_json::Error| ClientError::Broken(error.to_string());
        let mut line = serde_json::to_vec(request).map_err(broken)?;
        line.push(b'\n');
        self.reader.get_ref().set_read_timeout(patience)?;
        match self.reader.get_mut().write_all(&line) {
            // A daemon that serves as many callers as it can has said so and hung up.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            written => written?,
        }
        let mut answer = Vec::new();
        (&mut self.reader).take(CONTROL_RESPONSE_LEN_MAX as u64 + 1).read_until(b'\n', &mut answer)?;
        match answer.last() {
            Some(b'\n') => match serde_json::from_slice(&answer).map_err(broken)? {
                Response::Failure { failure } => Err(ClientError::Failure(failure)),
                response => Ok(response),
            },
            _ if answer.len() > CONTROL_RESPONSE_LEN_MAX => {
                Err(ClientError::Broken("its answer is too long".into()))
            }
            _ => Err(ClientError::Broken("it hung up without an answer".into())),
        }
    }
}

/// Through a descriptor of the directory: the path of a socket must not be longer than 107 bytes.
fn connect_short(socket: &Path) -> io::Result<UnixStream> {
    let (Some(run), Some(name)) = (socket.parent(), socket.file_name()) else {
        return Err(io::ErrorKind::NotFound.into());
    };
    let dir = File::open(run)?;
    UnixStream::connect(proc_path(dir.as_fd()).join(name))
}

fn unexpected(response: &Response) -> ClientError {
    let name = match response {
        Response::Status { .. } => "status",
        Response::WaitSync { .. } => "wait_sync",
        Response::Files { .. } => "files",
        Response::Marker { .. } => "marker",
        Response::Attend { .. } => "attend",
        Response::Stop { .. } => "stop",
        Response::Upgrade { .. } => "upgrade",
        Response::Connection { .. } => "connection",
        Response::Verify { .. } => "verify",
        Response::Foresee { .. } => "foresee",
        Response::Orphans { .. } => "orphans",
        Response::CallSource { .. } => "call_source",
        Response::Clones { .. } => "clones",
        Response::Rules { .. } => "rules",
        Response::Reload { .. } => "reload",
        Response::Configuration { .. } => "configuration",
        Response::Invite { .. } => "invite",
        Response::Pairings { .. } => "pairings",
        Response::Revoke { .. } => "revoke",
        Response::Events { .. } => "events",
        Response::History { .. } => "history",
        Response::Failure { .. } => "failure",
    };
    ClientError::Broken(format!("it answered another question ({name})"))
}

impl From<io::Error> for ClientError {
    fn from(error: io::Error) -> ClientError {
        match error.kind() {
            io::ErrorKind::NotFound => ClientError::Absent,
            io::ErrorKind::ConnectionRefused => ClientError::Dead,
            io::ErrorKind::PermissionDenied => ClientError::Denied,
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ClientError::Mute,
            _ => ClientError::Broken(error.to_string()),
        }
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientError::Absent => f.write_str("there is no such daemon"),
            ClientError::Dead => f.write_str("its daemon is not running any more"),
            ClientError::Denied => f.write_str("this user may not talk to it"),
            ClientError::Mute => f.write_str("it does not answer"),
            ClientError::Broken(why) => f.write_str(why),
            ClientError::Failure(failure) => failure.fmt(f),
        }
    }
}
