//! The daemon's end of the socket: one thread accepts, one thread serves each caller.
//!
//! Who is served is said by `access`: by the mode of the socket (`door`) and, checked again for every caller before
//! it takes a place, by its credentials as the kernel states them.

use std::collections::HashMap;
use std::fs::{self, File, Permissions, TryLockError};
use std::io::{self, BufReader, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use log::{debug, warn};
use parking_lot::{Condvar, Mutex};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::access::{Access, Rights};
use super::clones::{ClonesRequest, ReplicaClones};
use super::configuration::{ConfigurationReport, ReloadReport};
use super::deed::Deed;
use super::door;
use super::markers::{AttendRequest, Attending, MarkerReport, MarkerRequest};
use super::message::{
    CallSource, CalledSource, ChangedConnection, ConnectionChange, Invite, Invited, Paired, Request,
    Response, Revoke, RulesReport, StopMode, StopReport, SyncReport, VerifyReport, VerifyRequest, WaitFor,
    WaitSync,
};
use super::orphans::{OrphansRequest, ReplicaOrphans};
use super::presence::{FileReport, FilesRequest};
use super::recorder::Recorder;
use super::request::{Line, read_request};
use super::resync::ResyncReport;
use super::statistics::Statistics;
use super::status::Status;
use super::upgrade::{UpgradeLook, UpgradeRequest};
use crate::failure::Failure;
use crate::limits::{CONTROL_ANSWER, CONTROL_CALLERS_MAX, CONTROL_IDLE, CONTROL_LOOKING_MAX};
use crate::store::{Symlink, own_directory};
use crate::sys::{Peer, peer_of, proc_path};
use crate::words::{SOCKET_SUFFIX, StatisticsTo};

/// How long a server that is dropped waits for answers that are being written.
const FAREWELL: Duration = Duration::from_secs(2);

/// How long a start waits for another one that makes its socket: that takes a few calls.
const TURN_MAX: Duration = Duration::from_secs(2);
const TURN_POLL: Duration = Duration::from_millis(10);

/// Of callers that are refused one in this time becomes an event: a flood of them leaves the others in the book for
/// hours.
const REFUSALS_TOLD_EVERY: Duration = Duration::from_secs(60);

/// What the daemon does for callers. Each call comes on a thread of its own and may block;
/// long ones ask [`Caller::is_gone`] now and then.
pub trait Handler: Send + Sync {
    fn status(&self) -> Status;

    /// Where its statistics are written.
    fn statistics(&self) -> Option<StatisticsTo> {
        None
    }

    /// Blocks until all targets have what was written before the call, or until the time-out:
    /// that is no failure, the report says what lacks. A failure says that waiting is useless.
    fn wait_sync(&self, wait: WaitSync, caller: &Caller<'_>) -> Result<SyncReport, Failure>;

    /// Blocks until the targets have what was done to these files before the call, or until the time-out: that is
    /// no failure, the report says what lacks.
    fn files(&self, _: &FilesRequest, _: &Caller<'_>) -> Result<Vec<FileReport>, Failure> {
        Err(no_source("what a file is like now its source knows"))
    }

    /// Puts a barrier with a name into the stream; blocks until what is waited for is so, or the time-out.
    fn marker(&self, _: &MarkerRequest, _: &Caller<'_>) -> Result<MarkerReport, Failure> {
        Err(no_source("markers are made by its sources"))
    }

    /// Blocks until there is a marker that something is to be run for, or for a while.
    fn attend(&self, _: &AttendRequest, _: &Caller<'_>) -> Result<Attending, Failure> {
        Err(no_target())
    }

    /// Blocks until the mount is gone. A failure (a busy mount, with its users) says that the
    /// daemon goes on serving. The server must live until this has returned.
    fn stop(&self, mode: StopMode, caller: &Caller<'_>) -> Result<StopReport, Failure>;

    /// Becomes another program: comes back only where it does not, or was asked only what would be.
    fn upgrade(&self, _: &UpgradeRequest, _: &Caller<'_>) -> Result<UpgradeLook, Failure> {
        Err(Failure::new(
            "This daemon holds replicas: it has no mount that programs work in.",
            "Nothing was changed.",
            "Stop it and start the new version; its sources go on by themselves.",
        ))
    }

    /// Blocks until it is so. `which` is a number, a UUID or a target; without it the only
    /// connection is meant.
    fn connection(&self, _: ConnectionChange, _which: Option<&str>) -> Result<ChangedConnection, Failure> {
        Err(no_source("connections are made by its sources"))
    }

    /// Blocks until it is over, or nobody waits any more. A failure says that nothing was found out.
    fn verify(&self, _: &VerifyRequest, _: &Caller<'_>) -> Result<VerifyReport, Failure> {
        Err(no_source("a replica is compared by its source"))
    }

    /// What a resynchronisation of each target would take; blocks for a bounded time.
    fn foresee(&self, _: &Caller<'_>) -> Result<ResyncReport, Failure> {
        Err(no_source("what a resynchronisation takes is known to its sources"))
    }

    /// Shows or removes what lies beside replicas; blocks until it is done, or nobody waits any more.
    fn orphans(&self, _: &OrphansRequest, _: &Caller<'_>) -> Result<Vec<ReplicaOrphans>, Failure> {
        Err(no_target())
    }

    /// Whether the source of a replica is heard now; `None`: none works on it. Blocks for seconds at most.
    fn call_source(&self, _: &CallSource) -> Result<Option<CalledSource>, Failure> {
        Err(no_target())
    }

    /// Begins, lists and ends copies of replicas as of one moment; blocks until it is so.
    fn clones(&self, _: &ClonesRequest) -> Result<Vec<ReplicaClones>, Failure> {
        Err(no_target())
    }

    /// Reads the file of the set, and follows it.
    fn rules(&self) -> Result<RulesReport, Failure> {
        Err(no_source("the rules of a set are its source's"))
    }

    /// Reads its files anew: all of them count from then on, or nothing is changed.
    fn reload(&self) -> Result<ReloadReport, Failure>;

    /// What its options are, and what its files say now.
    fn configuration(&self) -> ConfigurationReport;

    /// Only targets invite.
    fn invite(&self, _invite: &Invite) -> Result<Invited, Failure> {
        Err(no_target())
    }

    fn pairings(&self) -> Result<Vec<Paired>, Failure> {
        Err(no_target())
    }

    /// Cuts connections that live, too; gives what was revoked.
    fn revoke(&self, _revoke: &Revoke) -> Result<Vec<Paired>, Failure> {
        Err(no_target())
    }
}

fn no_source(why: &str) -> Failure {
    let next = "Ask the daemon of `standin protect`, on the source.";
    Failure::new(format!("This daemon is a target: {why}."), "Nothing was changed.", next)
}

fn no_target() -> Failure {
    Failure::new("This daemon is no target.", "Nothing was changed.", "Ask the daemon of `standin serve`.")
}

/// Who asks.
pub struct Caller<'a> {
    stream: &'a UnixStream,
    closing: &'a AtomicBool,
    pub pid: i32,
    pub uid: u32,
    access: Access,
}

impl Caller<'_> {
    /// Nobody waits for the answer any more, or the server is closing.
    pub fn is_gone(&self) -> bool {
        let mut fds = [PollFd::new(self.stream, PollFlags::empty())];
        let polled = poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
        // A caller that has only closed its sending side still reads: that is no hang-up.
        let hung_up = polled.is_ok() && fds[0].revents().intersects(PollFlags::HUP | PollFlags::ERR);
        hung_up || self.closing.load(SeqCst)
    }
}

/// A socket that is being served. Dropping it takes the socket away, ends idle callers and gives
/// answers under way a moment to get out.
pub struct Server {
    path: PathBuf,
    /// Device and inode of the socket file: a file of somebody else's is never removed.
    identity: (u64, u64),
    shared: Arc<Shared>,
    accepting: Option<std::thread::JoinHandle<()>>,
    recording: Option<std::thread::JoinHandle<()>>,
}

struct Shared {
    listener: UnixListener,
    handler: Arc<dyn Handler>,
    recorder: Arc<Recorder>,
    rights: Rights,
    /// When a caller was refused that was told of as an event; others come in floods.
    refused: Mutex<Option<Instant>>,
    closing: AtomicBool,
    callers: Mutex<HashMap<u64, Guest>>,
    caller_left: Condvar,
}

/// Who has a place.
struct Guest {
    stream: UnixStream,
    access: Access,
}

/// Whether there is a place for one more who may so much, beside those that are there.
fn has_place(access: Access, there: impl Iterator<Item = Access>) -> bool {
    let (mut all, mut looking) = (0, 0);
    there.for_each(|one| {
        all += 1;
        looking += usize::from(one == Access::Looking);
    });
    all < CONTROL_CALLERS_MAX && (access == Access::All || looking < CONTROL_LOOKING_MAX)
}

impl Server {
    /// Creates the socket (and its directory, if missing) and serves it. A socket file that
    /// nobody listens on is replaced.
    ///
    /// Errors: a living daemon has this socket; the file is no socket; the directory cannot be
    /// written.
    pub fn start(path: &Path, handler: Arc<dyn Handler>) -> Result<Server, Failure> {
        let rights = Rights::of_process();
        let listener = listen(path, &rights)?;
        let start = || -> io::Result<Server> {
            let meta = fs::symlink_metadata(path)?;
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let name = name.strip_suffix(SOCKET_SUFFIX).unwrap_or(&name);
            let statistics = handler.statistics().map(Statistics::start).transpose()?;
            let recorder = Arc::new(Recorder::new(name.to_owned(), statistics));
            let shared = Arc::new(Shared {
                listener,
                handler: handler.clone(),
                recorder: recorder.clone(),
                rights,
                refused: Mutex::default(),
                closing: AtomicBool::new(false),
                callers: Mutex::default(),
                caller_left: Condvar::new(),
            });
            let accepting = std::thread::Builder::new().name("control".into()).spawn({
                let shared = shared.clone();
                move || shared.accept_all()
            })?;
            let identity = (meta.dev(), meta.ino());
            let recording = Some(recorder.start(handler)?);
            Ok(Server { path: path.into(), identity, shared, accepting: Some(accepting), recording })
        };
        start().map_err(|error| no_socket(path, &error.to_string()))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let current = fs::symlink_metadata(&self.path).map(|meta| (meta.dev(), meta.ino()));
        if current.is_ok_and(|current| current == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
        self.shared.recorder.close();
        self.shared.close();
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
        self.shared.wait_for_callers(FAREWELL);
        // A look at a disk that hangs must not keep a daemon from its end.
        let until = Instant::now() + FAREWELL;
        while self.recording.as_ref().is_some_and(|recording| !recording.is_finished())
            && Instant::now() < until
        {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.shared.recorder.end_statistics(until);
    }
}

/// Binds the socket under a lock on its directory, so that of two daemons that start at once
/// neither removes the other's fresh socket as stale.
fn listen(path: &Path, rights: &Rights) -> Result<UnixListener, Failure> {
    let io = |error: io::Error| no_socket(path, &error.to_string());
    let (Some(run), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(no_socket(path, "it is no path of a file"));
    };
    let dir = own_directory(run, 0o755, Symlink::Own).map_err(io)?;
    wait_for_turn(&dir, run).map_err(io)?;
    // Through the descriptor: the path of a socket must not be longer than 107 bytes.
    let short = proc_path(dir.as_fd()).join(name);
    remove_stale(path, &short)?;
    let listener = UnixListener::bind(&short).map_err(io)?;
    fs::set_permissions(&short, Permissions::from_mode(0o600)).map_err(io)?;
    if let Err(error) = door::open_to(&short, rights.groups()) {
        warn!("{}: only root may ask: its directory takes no access list ({error})", path.display());
    }
    Ok(listener)
}

/// One daemon at a time looks whose a socket is. Whoever may open the directory can keep it locked: not for long.
pub(super) fn wait_for_turn(dir: &File, run: &Path) -> io::Result<()> {
    let until = Instant::now() + TURN_MAX;
    loop {
        match dir.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) if Instant::now() >= until => {
                warn!("somebody keeps {} locked: it is not waited for any longer", run.display());
                return Ok(());
            }
            Err(TryLockError::WouldBlock) => std::thread::sleep(TURN_POLL),
        }
    }
}

fn remove_stale(path: &Path, short: &Path) -> Result<(), Failure> {
    let meta = match fs::symlink_metadata(short) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(|error| no_socket(path, &error.to_string()))?,
    };
    if !meta.file_type().is_socket() {
        return Err(no_socket(path, "a file that is no socket is in its place"));
    }
    match UnixStream::connect(short) {
        Ok(_) => Err(Failure::new(
            format!("Another daemon is running with the control socket {}.", path.display()),
            "That daemon goes on.",
            "Stop it, or choose another name (--name) or run directory (--run).",
        )),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            debug!("{}: replacing a socket that a killed daemon left", path.display());
            fs::remove_file(short).map_err(|error| no_socket(path, &error.to_string()))
        }
        Err(error) => Err(no_socket(path, &error.to_string())),
    }
}

fn no_socket(path: &Path, why: &str) -> Failure {
    Failure::new(
        format!("The control socket {} cannot be created: {why}.", path.display()),
        "Nothing was mounted.",
        "Make its directory writable for this user, or choose another one with --run.",
    )
}

impl Shared {
    fn accept_all(self: Arc<Self>) {
        for number in 0.. {
            match self.listener.accept() {
                _ if self.closing.load(SeqCst) => return,
                Ok((stream, _)) => self.clone().welcome(number, stream),
                Err(error) => {
                    // Out of descriptors, most likely: the callers wait in the backlog.
                    warn!("control socket: {error}");
                    std::thread::sleep(Duration::from_millis(200));
                }
            }
        }
    }

    fn welcome(self: Arc<Self>, number: u64, stream: UnixStream) {
        if let Err(error) = self.clone().start_caller(number, stream) {
            warn!("control socket: a caller could not be served: {error}");
            self.leave(number);
        }
    }

    fn start_caller(self: Arc<Self>, number: u64, mut stream: UnixStream) -> io::Result<()> {
        stream.set_read_timeout(Some(CONTROL_IDLE))?;
        stream.set_write_timeout(Some(CONTROL_ANSWER))?;
        let peer = peer_of(stream.as_fd())?;
        let access = self.rights.of(&peer);
        if access == Access::Nothing {
            // Whoever does not read why is no concern of anybody's.
            let _ = answer(&mut stream, &Response::Failure { failure: self.rights.shut_out(peer.uid) });
            return Ok(());
        }
        {
            let mut callers = self.callers.lock();
            if !has_place(access, callers.values().map(|guest| guest.access)) {
                drop(callers);
                return answer(
                    &mut stream,
                    &failure("The daemon serves as many callers as it can.", "Try again later."),
                );
            }
            callers.insert(number, Guest { stream: stream.try_clone()?, access });
        }
        std::thread::Builder::new().name(format!("control-{number}")).spawn(move || {
            if let Err(error) = self.serve(stream, &peer, access) {
                debug!("control socket: caller {number}: {error}");
            }
            self.leave(number);
        })?;
        Ok(())
    }

    fn leave(&self, number: u64) {
        self.callers.lock().remove(&number);
        self.caller_left.notify_all();
    }

    /// Answers requests until the caller has no more.
    fn serve(&self, mut stream: UnixStream, peer: &Peer, access: Access) -> io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        while let Some(line) = read_request(&mut reader)? {
            let response = match line {
                Line::TooLong => failure("The request is too long.", "Send one JSON document a line."),
                Line::Request(bytes) => {
                    let (pid, uid, closing) = (peer.pid, peer.uid, &self.closing);
                    let caller = Caller { stream: &stream, closing, pid, uid, access };
                    self.respond_whatever_comes(&bytes, &caller)
                }
            };
            answer(&mut stream, &response)?;
        }
        Ok(())
    }

    /// A defect in the answer to one request ends this answer alone: nobody waits for ever.
    fn respond_whatever_comes(&self, line: &[u8], caller: &Caller<'_>) -> Response {
        let answered = catch_unwind(AssertUnwindSafe(|| self.respond(line, caller)));
        answered.unwrap_or_else(|_| {
            log::error!("control socket: a request ended in a panic: {}", String::from_utf8_lossy(line));
            Response::Failure {
                failure: Failure::new(
                    "The daemon has come upon a defect of its own while it did this; its log says which.",
                    "It goes on; what was asked for may be done in part.",
                    "See with `standin status` how things are, and report what the log says.",
                ),
            }
        })
    }

    fn respond(&self, line: &[u8], caller: &Caller<'_>) -> Response {
        let request: Request = match serde_json::from_slice(line) {
            Ok(request) => request,
            Err(error) => {
                return failure(
                    &format!("The daemon does not understand the request: {error}."),
                    "Use a command of the daemon's own version.",
                );
            }
        };
        let (deed, who) = (Deed::of(&request), self.rights.user(caller.uid));
        if let Err(failure) = caller.access.may(&deed, &who) {
            let response = Response::Failure { failure };
            if self.is_first_refusal() {
                self.recorder.command(&who, caller.pid, deed.words(), Some(&response));
            }
            return response;
        }
        let words = match deed {
            Deed::Does(words) => words,
            Deed::Looks | Deed::Serves(_) => return self.perform(request, caller),
        };
        if matches!(request, Request::Stop { .. } | Request::Upgrade { .. }) {
            // Afterwards nobody may be there to tell it.
            self.recorder.command(&who, caller.pid, &words, None);
            return self.perform(request, caller);
        }
        let response = self.perform(request, caller);
        self.recorder.command(&who, caller.pid, &words, Some(&response));
        response
    }

    /// In a while: whoever may only look must not fill the book of events.
    fn is_first_refusal(&self) -> bool {
        let mut refused = self.refused.lock();
        let is_first = refused.is_none_or(|at| at.elapsed() >= REFUSALS_TOLD_EVERY);
        if is_first {
            *refused = Some(Instant::now());
        }
        is_first
    }

    fn perform(&self, request: Request, caller: &Caller<'_>) -> Response {
        let result = match request {
            Request::Status => {
                Ok(Response::Status { status: Box::new(self.recorder.status(&*self.handler)) })
            }
            Request::WaitSync { durable, timeout_ms } => {
                let wait_for = if durable { WaitFor::Durable } else { WaitFor::Applied };
                let wait = WaitSync { wait_for, timeout: timeout_ms.map(Duration::from_millis) };
                self.handler.wait_sync(wait, caller).map(|report| Response::WaitSync { report })
            }
            Request::Files { files } => {
                self.handler.files(&files, caller).map(|files| Response::Files { files })
            }
            Request::Marker { marker } => {
                self.handler.marker(&marker, caller).map(|report| Response::Marker { report })
            }
            Request::Attend { attend } => {
                self.handler.attend(&attend, caller).map(|attending| Response::Attend { attending })
            }
            Request::Upgrade { upgrade } => {
                self.handler.upgrade(&upgrade, caller).map(|look| Response::Upgrade { look })
            }
            Request::Connection { change, which } => self
                .handler
                .connection(change, which.as_deref())
                .map(|changed| Response::Connection { changed: Box::new(changed) }),
            Request::Verify { verify } => self
                .handler
                .verify(&verify, caller)
                .map(|report| Response::Verify { report: Box::new(report) }),
            Request::Foresee => self.handler.foresee(caller).map(|report| Response::Foresee { report }),
            Request::Orphans { orphans } => {
                self.handler.orphans(&orphans, caller).map(|replicas| Response::Orphans { replicas })
            }
            Request::CallSource { call } => {
                self.handler.call_source(&call).map(|called| Response::CallSource { called })
            }
            Request::Clones { clones } => {
                self.handler.clones(&clones).map(|replicas| Response::Clones { replicas })
            }
            Request::Rules => self.handler.rules().map(|report| Response::Rules { report }),
            Request::Reload => self.handler.reload().map(|report| Response::Reload { report }),
            Request::Configuration => Ok(Response::Configuration { report: self.handler.configuration() }),
            Request::Invite { invite } => {
                self.handler.invite(&invite).map(|invited| Response::Invite { invited })
            }
            Request::Pairings => self.handler.pairings().map(|pairings| Response::Pairings { pairings }),
            Request::Revoke { revoke } => {
                self.handler.revoke(&revoke).map(|revoked| Response::Revoke { revoked })
            }
            Request::Events { run, after } => {
                Ok(Response::Events { page: Box::new(self.recorder.page(&run, after)) })
            }
            Request::History => Ok(Response::History { connections: self.recorder.history() }),
            Request::Stop { mode } => self.handler.stop(mode, caller).map(|report| Response::Stop { report }),
        };
        result.unwrap_or_else(|failure| Response::Failure { failure })
    }

    fn close(&self) {
        self.closing.store(true, SeqCst);
        // Wakes the thread in accept(2).
        let _ = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
        for guest in self.callers.lock().values() {
            let _ = guest.stream.shutdown(Shutdown::Read);
        }
    }

    fn wait_for_callers(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        let mut callers = self.callers.lock();
        while !callers.is_empty() {
            if self.caller_left.wait_until(&mut callers, deadline).timed_out() {
                warn!("control socket: {} callers were left without an answer", callers.len());
                return;
            }
        }
    }
}

fn answer(stream: &mut UnixStream, response: &Response) -> io::Result<()> {
    let mut line = serde_json::to_vec(response)?;
    line.push(b'\n');
    stream.write_all(&line)
}

fn failure(what: &str, next: &str) -> Response {
    Response::Failure { failure: Failure::new(what, "The daemon goes on as before.", next) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_only_look_leaves_places_for_others() {
        use Access::{All, Looking};
        let there = |looking, all| std::iter::repeat_n(Looking, looking).chain(std::iter::repeat_n(All, all));
        let (most, half) = (CONTROL_CALLERS_MAX, CONTROL_LOOKING_MAX);
        let table = [
            (Looking, half - 1, 0, true),
            (Looking, half, 0, false),
            (All, half, 0, true),
            (All, half, most - half - 1, true),
            (All, half, most - half, false),
            (All, 0, most - 1, true),
            (Looking, 0, most - 1, true),
            (Looking, 0, most, false),
            (All, 0, most, false),
        ];
        for (access, looking, all, expected) in table {
            assert_eq!(has_place(access, there(looking, all)), expected, "{access:?} {looking} {all}");
        }
    }
}
