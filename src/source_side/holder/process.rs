//! The holder itself: a process that has descriptors, and does nothing with them.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen, socket_with,
};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::protocol::{Answer, Said, VERSION, Which, limit_waits, receive, send};
use super::waiting::{Patience, State};
use crate::limits::{DAEMON_GONE_MAX, HOLDER_MESSAGE_PATIENCE, TAKEOVER_START_MAX};
use crate::preflight::Claim;
use crate::privileges;
use crate::signals::outlast_stops;
use crate::sys::{is_ready_within, peer_of, replace_descriptor};

/// Holds what the daemon gives that is at the other end of standard input, until the mount is gone, nobody comes for
/// it in time, or it is told to let go.
///
/// Errors: the system's, before anything is held.
pub fn hold() -> io::Result<()> {
    let _ = rustix::process::setsid();
    // Whoever ends it takes the files from all programs.
    outlast_stops()?;
    privileges::give_up(privileges::HOLDER)?;
    let link = io::stdin().as_fd().try_clone_to_owned()?;
    let Some((Said::Begin { which, socket, patience_ms }, _)) = receive::<Said>(&link)? else {
        return Err(io::Error::other("the daemon that has started it says nothing"));
    };
    let nobody = Duration::from_millis(patience_ms);
    let patience = Patience { nobody, asked: TAKEOVER_START_MAX.max(nobody) };
    let path = PathBuf::from(OsStr::from_bytes(&socket));
    let daemon = process_of(&link);
    let mut holding = Holding {
        which,
        path,
        patience,
        state: State::Served,
        link: Some(link),
        daemon,
        hands_over: false,
        claim: None,
        places: Vec::new(),
        device: None,
        files: HashMap::new(),
        closer: Closer::start(),
        listener: None,
    };
    // Its own copy is what counts: the end of the daemon closes the other.
    replace_descriptor(io::stdin().as_fd(), fs::File::open("/dev/null")?.as_fd())?;
    holding.run();
    Ok(())
}

/// Files that wait to be closed.
const CLOSING_MAX: usize = 256;
/// More words than a socket has room for.
const WORDS_MAX: usize = 1024;

/// Why a holder ends.
enum Over {
    Told,
    MountGone,
    /// Nobody came in time.
    Late,
}

struct Holding {
    which: Which,
    path: PathBuf,
    patience: Patience,
    state: State,
    /// To the daemon, or to the one that prepares.
    link: Option<OwnedFd>,
    /// That one itself, as a descriptor of a process.
    daemon: Option<OwnedFd>,
    /// Its process goes on as another program, which asks for the mount.
    hands_over: bool,
    /// On the directory under the mount: while nobody serves it, too, it is not free.
    claim: Option<Claim>,
    /// View, directory, memory: head, nodes, handles.
    places: Vec<OwnedFd>,
    /// The connection to the kernel, once there is a mount.
    device: Option<OwnedFd>,
    /// Open, and without a name.
    files: HashMap<u64, OwnedFd>,
    closer: Closer,
    listener: Option<OwnedFd>,
}

/// With the last descriptor of a file without a name its blocks go, which takes the time that its disk takes: neither a
/// daemon nor a caller waits for that.
struct Closer(Option<SyncSender<OwnedFd>>);

impl Closer {
    fn start() -> Closer {
        let (sender, files) = sync_channel(CLOSING_MAX);
        let close = move || files.iter().for_each(drop);
        Closer(std::thread::Builder::new().name("closer".into()).spawn(close).ok().map(|_| sender))
    }

    fn close(&self, file: OwnedFd) {
        // Beyond that it is closed here, as without the thread: descriptors are not without a bound.
        if let Some(closer) = &self.0 {
            drop(closer.try_send(file));
        }
    }
}

impl Holding {
    fn run(&mut self) {
        let over = loop {
            if let Some(over) = self.step() {
                break over;
            }
        };
        if self.listener.is_some() {
            let _ = fs::remove_file(&self.path);
        }
        let directory = String::from_utf8_lossy(&self.which.directory).into_owned();
        match over {
            Over::Told | Over::MountGone => {}
            Over::Late => tell(&format!(
                "{directory}: no daemon came for {} s: calls of programs on it fail from now on. What they have \
                 written is in the directory; start the protection again",
                self.patience.nobody.as_secs()
            )),
        }
    }

    fn step(&mut self) -> Option<Over> {
        let now = Instant::now();
        let left = self.state.deadline(self.patience).map(|deadline| deadline.saturating_duration_since(now));
        if left.is_some_and(|left| left.is_zero()) {
            return Some(Over::Late);
        }
        let [linked, called, unmounted] = self.wait(left);
        if unmounted && self.state != State::Served {
            return Some(Over::MountGone);
        }
        // All of it: behind the last word of a daemon that is gone comes its end, and whoever calls must not be told
        // that it lives. One that lives may have more and more to say, and keeps no caller out.
        let mut linked = linked;
        for _ in 0..WORDS_MAX {
            if !linked {
                break;
            }
            if let Some(over) = self.hear() {
                return Some(over);
            }
            linked = self.is_linked();
        }
        if called {
            return self.answer_call();
        }
        None
    }

    /// What has something to say: the daemon, a caller, the kernel that the mount is gone.
    fn wait(&self, left: Option<Duration>) -> [bool; 3] {
        let ends: [Option<BorrowedFd<'_>>; 3] = [
            self.link.as_ref().map(AsFd::as_fd),
            self.listener.as_ref().map(AsFd::as_fd),
            // While a daemon serves, it is the one to say that the mount is gone.
            self.device.as_ref().filter(|_| self.state != State::Served).map(AsFd::as_fd),
        ];
        let mut polled: Vec<PollFd<'_>> = Vec::new();
        for (at, end) in ends.iter().enumerate() {
            // Nothing but the end of a connection to the kernel is of interest.
            let flags = if at == 2 { PollFlags::empty() } else { PollFlags::IN };
            polled.extend(end.map(|end| PollFd::from_borrowed_fd(end, flags)));
        }
        let timeout = left.map(|left| Timespec {
            tv_sec: left.as_secs() as i64,
            tv_nsec: i64::from(left.subsec_nanos()) as _,
        });
        if poll(&mut polled, timeout.as_ref()).is_err() {
            return [false; 3];
        }
        let mut happened = polled.iter().map(|end| !end.revents().is_empty());
        ends.map(|end| end.is_some() && happened.next().unwrap_or(false))
    }

    /// The daemon has more to say at this moment.
    fn is_linked(&self) -> bool {
        let Some(link) = &self.link else { return false };
        let mut polled = [PollFd::new(link, PollFlags::IN)];
        poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
    }

    /// The daemon, or the one that prepares, has said something or is gone.
    fn hear(&mut self) -> Option<Over> {
        let link = self.link.as_ref()?;
        let (said, mut along) = match receive::<Said>(link) {
            Ok(Some(said)) => said,
            Ok(None) | Err(_) => {
                self.link = None;
                // Without a mount there is nothing to hold, and a daemon that lives goes on without its holder.
                let is_another = std::mem::take(&mut self.hands_over);
                if self.device.is_none() || !is_another && self.daemon.as_ref().is_some_and(lives_on) {
                    return Some(Over::Told);
                }
                self.state = self.state.gone(Instant::now());
                return None;
            }
        };
        match said {
            Said::Places => self.places = along,
            Said::Mounted => {
                self.device = along.pop();
                let answer = match self.listen() {
                    Ok(()) => Answer::Holding,
                    Err(error) => Answer::Refused(error.to_string()),
                };
                let _ = send(self.link.as_ref()?, &answer, &[]);
            }
            Said::Keep(id) => drop(along.pop().map(|file| self.files.insert(id, file))),
            Said::LetGo(id) => self.files.remove(&id).into_iter().for_each(|file| self.closer.close(file)),
            Said::Serving => {
                self.state = self.state.serves();
                self.hands_over = false;
            }
            Said::HandsOver => self.hands_over = true,
            Said::Over => return Some(Over::Told),
            Said::Begin { .. } | Said::TakeOver(_) | Said::AreYouAlone | Said::GiveUp => {}
            Said::HowLong | Said::Speaks => {}
        }
        None
    }

    fn listen(&mut self) -> io::Result<()> {
        // Of a holder that was killed: a living one would have been asked.
        let _ = fs::remove_file(&self.path);
        let flags = SocketFlags::CLOEXEC;
        let listener = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        bind(&listener, &SocketAddrUnix::new(self.path.as_path())?)?;
        fs::set_permissions(&self.path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        listen(&listener, 4)?;
        self.listener = Some(listener);
        let [_, under, ..] = &self.places[..] else { return Err(io::Error::other("it lacks the directory")) };
        let directory = Path::new(OsStr::from_bytes(&self.which.directory));
        self.claim = Some(Claim::keep(&self.which.set, directory, under.try_clone()?)?);
        Ok(())
    }

    /// Only root is heard, and only what it says at once.
    fn answer_call(&mut self) -> Option<Over> {
        let caller = accept_with(self.listener.as_ref()?, SocketFlags::CLOEXEC).ok()?;
        limit_waits(&caller, HOLDER_MESSAGE_PATIENCE).ok()?;
        if peer_of(caller.as_fd()).map_or(true, |peer| peer.uid != 0) {
            return None;
        }
        let (said, _) = receive::<Said>(&caller).ok()??;
        match said {
            Said::TakeOver(which) => {
                self.take_over(caller, &which);
                None
            }
            Said::AreYouAlone => {
                let directory = self.which.directory.clone();
                let is_alone = matches!(self.state, State::Waiting { .. });
                let answer = if is_alone { Answer::Alone { directory } } else { self.alive() };
                let _ = send(&caller, &answer, &[]);
                None
            }
            Said::HowLong => {
                let answer = match self.state.deadline(self.patience) {
                    None => self.alive(),
                    Some(deadline) => Answer::Waits {
                        directory: self.which.directory.clone(),
                        left_ms: deadline.saturating_duration_since(Instant::now()).as_millis() as u64,
                        is_asked: matches!(self.state, State::Asked { .. }),
                    },
                };
                let _ = send(&caller, &answer, &[]);
                None
            }
            Said::Speaks => {
                let _ = send(&caller, &Answer::Speaks, &[]);
                None
            }
            Said::GiveUp if self.state == State::Served => {
                let _ = send(&caller, &self.alive(), &[]);
                None
            }
            Said::GiveUp => {
                let _ = send(&caller, &Answer::GaveUp, &[]);
                Some(Over::Told)
            }
            _ => None,
        }
    }

    fn alive(&self) -> Answer {
        let peer = self.link.as_ref().and_then(|link| peer_of(link.as_fd()).ok());
        Answer::Alive { pid: peer.map_or(0, |peer| peer.pid) }
    }

    fn take_over(&mut self, caller: OwnedFd, which: &Which) {
        let now = Instant::now();
        let refusal = self.which.differs_from(which);
        let asked = self.state.asked(now);
        let answer = match (asked, refusal) {
            (None, _) => Some(self.alive()),
            (Some(_), Some(why)) => Some(Answer::Refused(why.to_owned())),
            (Some(_), None) => None,
        };
        if let Some(answer) = answer {
            let _ = send(&caller, &answer, &[]);
            return;
        }
        match self.give(&caller) {
            Ok(()) => {
                self.daemon = process_of(&caller);
                self.link = Some(caller);
                self.state = asked.unwrap_or(self.state);
            }
            Err(error) => tell(&format!("what is held could not be given to a daemon: {error}")),
        }
    }

    fn give(&self, caller: &OwnedFd) -> io::Result<()> {
        let device = self.device.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        let all: Vec<BorrowedFd<'_>> = std::iter::once(device).chain(&self.places).map(AsFd::as_fd).collect();
        let paused_ms = self.state.paused(Instant::now()).as_millis() as u64;
        send(caller, &Answer::Given { files: self.files.len() as u32, paused_ms }, &all)?;
        self.files.iter().try_for_each(|(id, file)| send(caller, &Answer::Kept(*id), &[file.as_fd()]))
    }
}

/// Who is at the other end of a link.
fn process_of(link: &OwnedFd) -> Option<OwnedFd> {
    let pid = Pid::from_raw(peer_of(link.as_fd()).ok()?.pid)?;
    pidfd_open(pid, PidfdFlags::empty()).ok()
}

/// Whether a process that has hung up is there still, and stays.
fn lives_on(process: &OwnedFd) -> bool {
    is_ready_within(process, DAEMON_GONE_MAX).is_ok_and(|has_ended| !has_ended)
}

/// To the log of the kernel, from where it goes to that of the system: the terminal, or the pipe, is the daemon's,
/// and goes with it.
fn tell(what: &str) {
    let log = fs::OpenOptions::new().write(true).open("/dev/kmsg");
    let _ = log.and_then(|mut log| log.write_all(format!("<4>standin: {what}\n").as_bytes()));
}

/// A connection to the holder at this place; `None`: there is none.
pub(super) fn connect(path: &Path) -> io::Result<Option<OwnedFd>> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    limit_waits(&socket, HOLDER_MESSAGE_PATIENCE)?;
    let address = match SocketAddrUnix::new(path) {
        // Too long for a socket: there is none.
        Err(rustix::io::Errno::NAMETOOLONG) => return Ok(None),
        address => address?,
    };
    match rustix::net::connect(&socket, &address) {
        Ok(()) => Ok(Some(socket)),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::CONNREFUSED | rustix::io::Errno::NOTDIR) => {
            Ok(None)
        }
        Err(errno) => Err(errno.into()),
    }
}

/// This version's.
pub(super) fn which(options: &crate::words::ProtectOptions) -> Which {
    let bytes = |path: &Path| path.as_os_str().as_bytes().to_vec();
    Which {
        version: VERSION,
        set: options.name.clone(),
        directory: bytes(&options.directory),
        backing: options.backing.as_deref().map(bytes),
        state: bytes(&options.state),
        profile: options.profile.to_string(),
    }
}
