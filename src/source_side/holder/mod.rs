//! A mount that outlives its daemon (`--holder`): a process of its own keeps what goes with the daemon otherwise, and
//! the next daemon takes it.
//!
//! ```text
//!   daemon ── places, memory ──> holder ── the connection to the kernel, the daemon's view of the tree, the directory
//!     │  └─── files that lose their names ──^   under the mount, the memory of what the kernel has, such files
//!     X killed                              │
//!               calls wait                  │ waiting.rs: who has it
//!   next daemon ── which protection it is ──┘
//!     ^──────────── all of it ──────────────┘
//! ```
//! The holder is started before the daemon gives up privileges, has none itself, and can be found once there is a
//! mount. It ends with the mount, when it is told to, and when nobody has come for `--takeover-timeout`: then calls
//! fail, as they would have at once without it.

mod handing;
mod process;
mod protocol;
mod waiting;

use std::ffi::OsStr;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, StatxFlags};
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

pub use handing::Giving;
pub use process::hold;
use process::{connect, which};
pub use protocol::VERSION as PROTOCOL;
use protocol::{Answer, Said, receive, send};

use super::startup::{NOTHING_MOUNTED, io_failure};
use crate::clock;
use crate::control::HolderStatus;
use crate::failure::Failure;
use crate::intercept::{self, KeepsFiles, Memory, NodeId, Standing, Upgraded};
use crate::limits::{HOLDER_MESSAGE_PATIENCE, HOLDER_SAY_PATIENCE};
use crate::sys::peer_of;
use crate::units;
use crate::words::{Profile, ProtectOptions};

/// Name of the hidden subcommand that the holder runs.
pub const HOLDER_COMMAND: &str = "hold-mount";

/// The daemon's end.
pub struct Holder {
    link: Arc<Link>,
    pub standing: Arc<Standing>,
    /// Of a mount that was taken over: since when nobody served.
    paused_since: Option<Instant>,
    has_served: AtomicBool,
    /// The program that this process was before, until this one serves.
    given_by: Arc<Mutex<Option<OwnedFd>>>,
}

/// What a daemon that is gone has left.
pub struct Left {
    pub connection: intercept::Connection,
    /// Its view of the tree.
    pub view: OwnedFd,
    /// The directory under the mount.
    pub under: OwnedFd,
    /// What it has marked as changed, if it kept that.
    pub marks: Option<OwnedFd>,
    /// The process that had it all.
    pub holder: u32,
}

impl Left {
    /// Number of the mount that the directory is on, as in mount tables.
    pub fn mount_under(&self) -> io::Result<u64> {
        let status = rustix::fs::statx(&self.under, c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?;
        Ok(status.stx_mnt_id)
    }
}

/// Where a set's holder is found.
fn place_of(run: &Path, name: &str) -> PathBuf {
    run.join(format!("{name}.holder"))
}

impl Holder {
    /// Starts a process, where the options want one.
    pub fn start(options: &ProtectOptions) -> Result<Option<Holder>, Failure> {
        if !options.holder {
            return Ok(None);
        }
        check_options(options)?;
        let start = || -> io::Result<Holder> {
            let (ours, theirs) =
                socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
            // This very program, even when its file was replaced meanwhile.
            let mut command = Command::new("/proc/self/exe");
            std::os::unix::process::CommandExt::arg0(&mut command, "standin");
            command.args([HOLDER_COMMAND, &options.name]).current_dir("/");
            command.stdin(Stdio::from(theirs)).stdout(Stdio::null()).stderr(Stdio::null());
            let pid = Pid::from_child(&command.spawn()?);
            protocol::limit_waits(&ours, HOLDER_MESSAGE_PATIENCE)?;
            let begin = Said::Begin {
                which: which(options),
                socket: place_of(&options.run, &options.name).as_os_str().as_bytes().to_vec(),
                patience_ms: options.takeover_timeout.as_millis() as u64,
            };
            send(&ours, &begin, &[])?;
            let link = Arc::new(Link::new(ours, pid)?);
            let standing = Arc::new(Standing::begin(Box::new(KeptBy(link.clone())))?);
            let has_served = AtomicBool::new(false);
            Ok(Holder { link, standing, paused_since: None, has_served, given_by: Arc::default() })
        };
        start().map(Some).map_err(|error| io_failure("the holder of the mount does not start", &error))
    }

    /// Asks for the mount of a daemon that is gone. `None`: there is none, or its daemon lives.
    ///
    /// Errors: it is another protection's, or cannot be taken.
    pub fn seek(options: &ProtectOptions) -> Result<Option<(Holder, Left)>, Failure> {
        if options.stand_in.is_some() {
            return Ok(None);
        }
        let path = place_of(&options.run, &options.name);
        let failed = |error| io_failure(&format!("the holder at {} does not answer", path.display()), &error);
        let Some(socket) = connect(&path).map_err(failed)? else { return Ok(None) };
        let now = Instant::now();
        let answered = send(&socket, &Said::TakeOver(which(options)), &[]).and_then(|()| receive(&socket));
        let answer = match answered {
            // It was ending when it was reached: its end resets what waits to be taken in.
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => None,
            answered => answered.map_err(failed)?,
        };
        match answer {
            Some((Answer::Given { files, paused_ms }, all)) => {
                let since = now.checked_sub(Duration::from_millis(paused_ms)).unwrap_or(now);
                take(socket, files, all, since).map(Some).map_err(failed)
            }
            Some((Answer::Refused(why), _)) => Err(refused(options, &why)),
            Some(_) | None => Ok(None),
        }
    }

    /// What there is before the mount, and what is marked where; it replaces what was said before.
    pub fn places(
        &self,
        view: BorrowedFd<'_>,
        under: BorrowedFd<'_>,
        marks: Option<BorrowedFd<'_>>,
    ) -> Result<(), Failure> {
        let Memory { head, nodes, handles } = self.standing.memory();
        let all: Vec<_> = [view, under, head, nodes, handles].into_iter().chain(marks).collect();
        send(&self.link.socket, &Said::Places, &all).map_err(|error| lost(&error))
    }

    /// It is mounted, and outlives this process from here on.
    pub fn mounted(&self, device: BorrowedFd<'_>) -> Result<(), Failure> {
        send(&self.link.socket, &Said::Mounted, &[device]).map_err(|error| lost(&error))?;
        match receive::<Answer>(&self.link.socket).map_err(|error| lost(&error))? {
            Some((Answer::Holding, _)) => Ok(()),
            Some((Answer::Refused(why), _)) => Err(lost(&io::Error::other(why))),
            other => Err(lost(&io::Error::other(format!("it says {other:?}")))),
        }
    }

    /// Programs are served.
    pub fn serving(&self, directory: &Path) {
        if let Some(since) = self.paused_since {
            self.has_taken_over(since, directory);
        }
        self.has_served.store(true, Relaxed);
        drop(self.given_by.lock().take());
        self.link.say(&Said::Serving, &[]);
    }

    fn has_taken_over(&self, since: Instant, directory: &Path) {
        let (shown, own) = (directory.display(), env!("CARGO_PKG_VERSION"));
        let Some(upgraded) = self.standing.note_upgraded(clock::steady_ms()) else {
            let pause = since.elapsed();
            self.standing.note_takeover(pause);
            return log::warn!("{shown}: taken over from a daemon that had ended; calls waited {pause:.1?}");
        };
        let Upgraded { from, pause_ms, failed, .. } = upgraded;
        match failed {
            None => log::warn!("{shown}: version {own} goes on for {from}; changes waited {pause_ms} ms"),
            Some(why) => log::error!(
                "{shown}: the program that was to go on did not come to serve ({why}): version {own} goes on; changes \
                 waited {pause_ms} ms"
            ),
        }
    }

    /// There is nothing to hold any more.
    pub fn over(&self) {
        self.link.say(&Said::Over, &[]);
    }

    /// Notices that it is gone, before it is needed.
    pub fn look(&self) {
        self.link.look();
    }

    /// Programs have, or had, the mount.
    pub fn is_needed(&self) -> bool {
        self.paused_since.is_some() || self.has_served.load(Relaxed)
    }

    pub fn status(&self) -> HolderStatus {
        let (takeovers, pause) = self.standing.takeovers();
        let kept = !self.link.is_lost.load(Relaxed);
        let upgrade = self.upgrade_status();
        HolderStatus { kept, takeovers, longest_pause_ms: pause.as_millis() as u64, upgrade }
    }
}

/// A mount that waits for a daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    pub name: String,
    pub directory: PathBuf,
    /// Until the holder lets go.
    left: Duration,
    is_asked: bool,
}

impl Waiting {
    /// In a few words, behind the name.
    pub fn words(&self) -> String {
        match self.is_asked {
            true => "no daemon yet; one was started, and takes the mount over from standin hold-mount".into(),
            false => format!(
                "no daemon; standin hold-mount keeps the mount for the next one, for {} more",
                units::duration(Duration::from_secs(self.left.as_secs()))
            ),
        }
    }

    /// What a command says that wanted a daemon.
    pub fn failure(&self) -> Failure {
        let (name, directory) = (&self.name, self.directory.display());
        Failure::new(
            format!(
                "No daemon serves {name} at this moment: {}. Calls on {directory} wait for it.",
                self.words()
            ),
            "Nothing was changed.",
            format!(
                "Start the protection with the command that it was started with; or have the mount end, with errors \
                 for programs: standin stop {name}"
            ),
        )
    }
}

/// The mount that waits for a daemon, if it does: of the set with this name.
pub fn waits(run: &Path, name: &str) -> Option<Waiting> {
    let ask = || -> io::Result<Option<Waiting>> {
        let Some(socket) = connect(&place_of(run, name))? else { return Ok(None) };
        protocol::limit_waits(&socket, HOLDER_SAY_PATIENCE)?;
        send(&socket, &Said::HowLong, &[])?;
        Ok(match receive::<Answer>(&socket)? {
            Some((Answer::Waits { directory, left_ms, is_asked }, _)) => Some(Waiting {
                name: name.to_owned(),
                directory: PathBuf::from(OsStr::from_bytes(&directory)),
                left: Duration::from_millis(left_ms),
                is_asked,
            }),
            Some(_) | None => None,
        })
    };
    ask().ok().flatten()
}

/// As [`waits`], of the mount on this directory.
pub fn waits_at(run: &Path, directory: &Path) -> Option<Waiting> {
    let entries = std::fs::read_dir(run).ok()?.flatten().map(|entry| entry.path());
    let mut holders = entries.filter(|path| path.extension().is_some_and(|kind| kind == "holder"));
    holders.find_map(|path| {
        let waiting = waits(run, path.file_stem()?.to_str()?)?;
        (waiting.directory == directory).then_some(waiting)
    })
}

/// Has the holder let go whose daemon is gone: of the set with this name or directory, or without one the only one.
/// Gives the directory; `None`: there is no such holder, or several, or the daemon lives.
///
/// Errors: it does not answer.
pub fn give_up(run: &Path, set: Option<&Path>) -> io::Result<Option<PathBuf>> {
    let mut waiting = Vec::new();
    for entry in std::fs::read_dir(run)? {
        let path = entry?.path();
        if path.extension().is_none_or(|kind| kind != "holder") {
            continue;
        }
        let Some(socket) = connect(&path)? else { continue };
        send(&socket, &Said::AreYouAlone, &[])?;
        if let Some((Answer::Alone { directory }, _)) = receive::<Answer>(&socket)? {
            waiting.push((path, PathBuf::from(OsStr::from_bytes(&directory))));
        }
    }
    let is_meant = |path: &Path, directory: &Path| match set {
        Some(set) => path.file_stem() == Some(set.as_os_str()) || set == directory,
        None => true,
    };
    waiting.retain(|(path, directory)| is_meant(path, directory));
    let [(path, directory)] = &waiting[..] else { return Ok(None) };
    let Some(socket) = connect(path)? else { return Ok(None) };
    send(&socket, &Said::GiveUp, &[])?;
    match receive::<Answer>(&socket)? {
        Some((Answer::GaveUp, _)) => Ok(Some(directory.clone())),
        _ => Ok(None),
    }
}

fn take(socket: OwnedFd, files: u32, all: Vec<OwnedFd>, since: Instant) -> io::Result<(Holder, Left)> {
    let strange = |_| io::Error::other("it does not give what it should");
    let mut all = all;
    // A daemon of before kept none.
    let marks = if all.len() == 7 { all.pop() } else { None };
    let [device, view, under, head, nodes, handles] = <[OwnedFd; 6]>::try_from(all).map_err(strange)?;
    let mut kept = Vec::new();
    for _ in 0..files {
        match receive::<Answer>(&socket)? {
            Some((Answer::Kept(id), along)) => {
                kept.extend(along.into_iter().next().map(|file| (NodeId(id), file)));
            }
            _ => return Err(io::Error::other("it does not give all files")),
        }
    }
    let peer = peer_of(socket.as_fd())?.pid;
    let link = Arc::new(Link::new(socket, Pid::from_raw(peer).ok_or_else(|| strange(Vec::new()))?)?);
    let keeper = Box::new(KeptBy(link.clone()));
    let standing = Arc::new(Standing::take(Memory { head, nodes, handles }, kept, keeper)?);
    let (init, number) = standing.connection();
    let connection = intercept::Connection { device, init, number };
    let given_by = Arc::new(Mutex::new(handing::program_before(&standing)));
    let has_served = AtomicBool::new(false);
    Ok((
        Holder { link, standing, paused_since: Some(since), has_served, given_by },
        Left { connection, view, under, marks, holder: peer as u32 },
    ))
}

/// The way to the holder.
struct Link {
    socket: OwnedFd,
    /// The holder itself.
    process: OwnedFd,
    is_lost: AtomicBool,
}

impl Link {
    fn new(socket: OwnedFd, holder: Pid) -> io::Result<Link> {
        let process = pidfd_open(holder, PidfdFlags::empty())?;
        Ok(Link { socket, process, is_lost: AtomicBool::new(false) })
    }

    /// A holder that does not take it is done without from then on: it must not keep programs waiting again, and does
    /// not have all that the next daemon would need.
    fn say(&self, said: &Said, along: &[BorrowedFd<'_>]) {
        if self.is_lost.load(Relaxed) {
            return;
        }
        let heard = protocol::limit_sends(&self.socket, HOLDER_SAY_PATIENCE)
            .and_then(|()| send(&self.socket, said, along));
        if let Err(error) = heard {
            self.lose(&error);
        }
    }

    fn look(&self) {
        if !self.is_lost.load(Relaxed) && has_hung_up(self.socket.as_fd()) {
            self.lose(&io::ErrorKind::UnexpectedEof.into());
        }
    }

    /// One that was only stopped sees that its daemon lives and has done without it, and goes.
    fn lose(&self, error: &io::Error) {
        if !self.is_lost.swap(true, Relaxed) {
            let _ = rustix::net::shutdown(&self.socket, Shutdown::Both);
            log::error!("the holder of the mount is gone ({error}): the mount ends with this daemon");
        }
    }
}

fn has_hung_up(socket: BorrowedFd<'_>) -> bool {
    let mut polled = [PollFd::new(&socket, PollFlags::empty())];
    poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
}

struct KeptBy(Arc<Link>);

impl KeepsFiles for KeptBy {
    fn keep(&self, node: NodeId, file: BorrowedFd<'_>) {
        self.0.say(&Said::Keep(node.0), &[file]);
    }

    fn let_go(&self, node: NodeId) {
        self.0.say(&Said::LetGo(node.0), &[]);
    }

    fn process(&self) -> Option<OwnedFd> {
        if self.0.is_lost.load(Relaxed) {
            return None;
        }
        self.0.process.try_clone().ok()
    }
}

/// Errors: what the holder cannot do yet.
fn check_options(options: &ProtectOptions) -> Result<(), Failure> {
    let what = match () {
        () if options.stand_in.is_some() => "--stand-in",
        () if options.profile == Profile::Batch => "--profile batch",
        () => return Ok(()),
    };
    Err(Failure::new(
        format!("--holder and {what} do not go together in this version."),
        NOTHING_MOUNTED,
        "Leave one of them out.",
    ))
}

fn refused(options: &ProtectOptions, why: &str) -> Failure {
    let directory = options.directory.display();
    Failure::new(
        format!(
            "The mount of a daemon that has ended waits on {directory}, and cannot be taken over: {why}."
        ),
        "Calls of programs on it go on waiting.",
        format!(
            "Start the protection as it was started before; or have the mount end, with errors for programs \
             (standin stop {}), and start again.",
            options.name
        ),
    )
}

fn lost(error: &io::Error) -> Failure {
    io_failure("the holder of the mount does not do its work", error)
}
