//! The mount itself: how it comes up, serves, and goes.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fuser::{BackgroundSession, Config, Session, SessionACL};
use parking_lot::Mutex;

use super::fuse::{Adapter, KernelCache};
use super::gate::DurabilityGate;
use super::handshake::{self, Answered, Arrivals, Prepared};
use super::mounting::{self, ConnectionNumber, Control};
use super::pages::Pages;
use super::serve::{Cache, Serve};
use super::volume::Volume;
use crate::limits::READ_AHEAD_KIB;
use crate::sys::MountOptions;
use crate::words::Profile;

/// Threads that serve requests: as many as CPUs, and enough that slow reads from disk leave some.
const THREADS_MIN: usize = 4;

/// Where the kernel gathers writes: 4 KiB writes of 256 MiB cost 9 µs each with 1 percent, 3 with 5 and
/// 2 with 20; what waits when the queue is full is this much of a fifth of the memory.
const UNWRITTEN_SHARE: u8 = 10;

/// Bytes that the kernel may have unwritten of a mount where it gathers writes: [`UNWRITTEN_SHARE`] of
/// what it may have in all, and that is a share of the memory unless it is set as bytes.
pub fn unwritten_max() -> u64 {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    // The first number: that of `meminfo` is all memory, in KiB.
    let number =
        |text: String| text.split(|c: char| !c.is_ascii_digit()).find_map(|word| word.parse::<u64>().ok());
    let share = number(read("/proc/sys/vm/dirty_ratio")).unwrap_or(20);
    let bytes = number(read("/proc/sys/vm/dirty_bytes")).filter(|bytes| *bytes > 0);
    let all = bytes.unwrap_or(number(read("/proc/meminfo")).unwrap_or(0) * 1024 / 100 * share);
    all / 100 * u64::from(UNWRITTEN_SHARE)
}

/// Why a mount did not come up.
#[derive(Debug)]
pub enum MountError {
    /// The kernel lacks something that correctness needs.
    Kernel(String),
    Io(io::Error),
}

impl std::fmt::Display for MountError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            MountError::Kernel(what) => write!(f, "the kernel's FUSE lacks {what}"),
            MountError::Io(error) => write!(f, "{error}"),
        }
    }
}

/// What stands where a mount comes.
#[derive(Clone, Copy)]
pub enum Place<'a> {
    /// The directory itself.
    Over,
    /// Something that programs see until the mount is there, and that this takes away.
    Beneath(&'a dyn Fn() -> io::Result<()>),
}

/// A mount that is up and answers nothing yet: calls on it wait. Dropping it unmounts.
pub struct Mount {
    session: Option<Begun>,
    mount_point: PathBuf,
    connection: ConnectionNumber,
    /// This process has mounted it.
    is_ours: bool,
}

/// A session that answers nothing yet.
enum Begun {
    /// It has the connection for itself.
    Alone(Box<Session<Adapter>>),
    /// Another process has it, too.
    Held { prepared: Box<Prepared>, device: OwnedFd, arrivals: Arc<Arrivals> },
}

/// A mount that serves. Dropping it detaches the mount.
pub struct Serving {
    session: Option<BackgroundSession>,
    mount_point: PathBuf,
    connection: ConnectionNumber,
    control: Option<Control>,
}

/// A connection to the kernel that a daemon has left.
pub struct Connection {
    pub device: OwnedFd,
    /// How the kernel began it.
    pub init: Vec<u8>,
    /// Its number, as in its device.
    pub number: u32,
}

impl Mount {
    /// Mounts over a directory, as its `place` has it. `name` is shown as the source of the mount. Without a gate syncs
    /// return when the local disk has everything.
    pub fn new(
        volume: Arc<Volume>,
        mount_point: &Path,
        name: &str,
        (options, place): (MountOptions, Place<'_>),
        gate: Option<Arc<dyn DurabilityGate>>,
    ) -> Result<Mount, MountError> {
        let ready = Ready::for_volume(volume, gate);
        let device = match place {
            Place::Over => mounting::mount(mount_point, name, options),
            Place::Beneath(lift) => mounting::mount_beneath(mount_point, name, options, lift),
        };
        let device = device.map_err(MountError::Io)?;
        let mounted = mounting::connection_at(mount_point)
            .map_err(MountError::Io)
            .and_then(|connection| ready.begin(device, mount_point, connection));
        mounted.inspect_err(|_| {
            let _ = mounting::detach(mount_point);
        })
    }

    /// Goes on with a mount whose daemon is gone: calls that it has not answered are asked again. The volume
    /// stands on what that daemon has noted.
    pub fn take_over(
        volume: Arc<Volume>,
        mount_point: &Path,
        connection: Connection,
        gate: Option<Arc<dyn DurabilityGate>>,
    ) -> Result<Mount, MountError> {
        Ready::for_volume(volume, gate).go_on(mount_point, connection)
    }

    /// The connection to the kernel, for whoever keeps it beyond this process; `None`: nobody can.
    pub fn device(&self) -> Option<BorrowedFd<'_>> {
        match self.session.as_ref()? {
            Begun::Alone(_) => None,
            Begun::Held { device, .. } => Some(device.as_fd()),
        }
    }

    /// Starts to answer.
    pub fn serve(mut self) -> io::Result<Serving> {
        let session = match self.session.take().expect("a mount serves once") {
            Begun::Alone(session) => session.spawn()?,
            Begun::Held { prepared, device, arrivals } => {
                prepared.serve(device.as_fd(), serving_threads(), &arrivals)?
            }
        };
        let (mount_point, connection) = (self.mount_point.clone(), self.connection);
        let control = Control::of(connection);
        let control = control.inspect_err(|error| log::warn!("the connection has no control: {error}"));
        Ok(Serving { session: Some(session), mount_point, connection, control: control.ok() })
    }
}

/// All that a session needs but its connection.
struct Ready {
    adapter: Adapter,
    cache: Arc<KernelCache>,
    missing: Arc<Mutex<Option<String>>>,
    arrivals: Arc<Arrivals>,
    volume: Arc<Volume>,
    config: Config,
}

/// Of a connection that has had its first answer, which sets all of this to what the kernel begins with.
fn tune(connection: ConnectionNumber, profile: Profile) {
    if let Err(error) = mounting::read_ahead(connection, READ_AHEAD_KIB) {
        log::info!("long reads are slower than they could be: {error}");
    }
    if profile.gathers()
        && let Err(error) = mounting::set_unwritten_share(connection, UNWRITTEN_SHARE)
    {
        log::info!("programs may have less unwritten than would be good: {error}");
    }
}

fn serving_threads() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from).max(THREADS_MIN)
}

impl Ready {
    fn for_volume(volume: Arc<Volume>, gate: Option<Arc<dyn DurabilityGate>>) -> Ready {
        let threads = serving_threads();
        let mut config = Config::default();
        config.n_threads = Some(threads);
        let missing = Arc::new(Mutex::new(None));
        let cache = Arc::new(KernelCache::default());
        // Not for longer than the mount: the cache keeps its connection to the kernel.
        let pages = Arc::downgrade(&cache);
        volume.write_back_by(move |id| {
            if let Some(cache) = pages.upgrade() {
                cache.write_back(id, 0..i64::MAX as u64);
            }
        });
        let serve = Serve::new(volume.clone(), threads, gate, cache.clone());
        let arrivals = Arc::new(Arrivals::default());
        let adapter = Adapter::new(serve, missing.clone(), arrivals.clone());
        Ready { adapter, cache, missing, arrivals, volume, config }
    }

    fn begin(
        self,
        device: OwnedFd,
        mount_point: &Path,
        connection: ConnectionNumber,
    ) -> Result<Mount, MountError> {
        let pages = self.pages(&device, connection)?;
        let volume = self.volume.clone();
        volume.is_mounted(mount_point, connection.number());
        let Some(standing) = volume.standing() else {
            let Ready { adapter, cache, missing, config, .. } = self;
            let why = |error| missing.lock().take().map_or(MountError::Io(error), MountError::Kernel);
            let session = Session::from_fd(adapter, device, SessionACL::All, config).map_err(why)?;
            cache.connect(session.notifier(), pages, connection);
            tune(connection, volume.profile);
            let (session, mount_point) = (Some(Begun::Alone(Box::new(session))), mount_point.to_owned());
            return Ok(Mount { session, mount_point, connection, is_ours: true });
        };
        let init = handshake::read_init(&device).map_err(MountError::Io)?;
        if !handshake::asks_again(&init) {
            return Err(MountError::Kernel("RESEND (Linux 6.9), which --holder needs".into()));
        }
        let session = self.hold((device, &init), Answered::Now, pages, connection)?;
        tune(connection, volume.profile);
        standing.note_connection(&init, connection.number());
        Ok(Mount { session: Some(session), mount_point: mount_point.to_owned(), connection, is_ours: true })
    }

    fn go_on(self, mount_point: &Path, of_before: Connection) -> Result<Mount, MountError> {
        let Connection { device, init, number } = of_before;
        let connection = ConnectionNumber::new(number);
        let pages = self.pages(&device, connection)?;
        self.volume.is_mounted(mount_point, number);
        let session = self.hold((device, &init), Answered::Before, pages, connection)?;
        if let Begun::Held { device, .. } = &session {
            handshake::ask_again(device.as_fd()).map_err(MountError::Io)?;
        }
        Ok(Mount { session: Some(session), mount_point: mount_point.to_owned(), connection, is_ours: false })
    }

    fn hold(
        self,
        (device, init): (OwnedFd, &[u8]),
        answered: Answered,
        pages: Pages,
        connection: ConnectionNumber,
    ) -> Result<Begun, MountError> {
        let Ready { adapter, cache, missing, arrivals, config, .. } = self;
        let why = |error| missing.lock().take().map_or(MountError::Io(error), MountError::Kernel);
        let prepared = handshake::session(adapter, device.as_fd(), init, answered, config).map_err(why)?;
        cache.connect(prepared.session.notifier(), pages, connection);
        Ok(Begun::Held { prepared: Box::new(prepared), device, arrivals })
    }

    fn pages(&self, device: &OwnedFd, connection: ConnectionNumber) -> Result<Pages, MountError> {
        let holder = self.volume.standing().and_then(|standing| standing.keeper());
        let device = device.try_clone().map_err(MountError::Io)?;
        Ok(Pages::new(device, connection, holder))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // One that was taken over and never served goes to who comes next.
        if !self.is_ours {
            return;
        }
        // Calls that wait on a mount that never served get an error; a detached one goes with them.
        if self.session.is_some()
            && let Err(error) = mounting::detach(&self.mount_point)
        {
            log::error!("{} could not be unmounted: {error}", self.mount_point.display());
        }
    }
}

impl Serving {
    /// Unmounts if nothing here uses the mount (`EBUSY` otherwise). Another mount namespace may
    /// have it still: then requests go on coming until [`Control::abort`].
    ///
    /// Errors: `EINVAL` also where what is mounted there is not ours.
    pub fn unmount(&self) -> io::Result<()> {
        self.check_on_top()?;
        mounting::unmount(&self.mount_point)
    }

    /// Whether nothing here uses the mount (`EBUSY` otherwise). It stays.
    pub fn check_idle(&self) -> io::Result<()> {
        self.check_on_top()?;
        let outcome = mounting::mark_expired(&self.mount_point);
        // Whoever looks at it takes the mark away again.
        self.check_on_top()?;
        outcome
    }

    /// Takes the mount away from its users: open files go on working until the process ends.
    pub fn detach(&self) -> io::Result<()> {
        self.check_on_top()?;
        mounting::detach(&self.mount_point)
    }

    /// Reaches its connection to the kernel, whoever has the mount; `None` where the kernel gave none.
    pub fn control(&self) -> Option<&Control> {
        self.control.as_ref()
    }

    /// Whether the connection to the kernel is over, and the last request was answered: nobody has
    /// the mount any more, or the connection was ended.
    pub fn ended(&self) -> bool {
        self.session.as_ref().is_none_or(|session| session.guard.is_finished())
    }

    /// What mount tables show as its device (`major:minor`).
    pub fn device(&self) -> String {
        self.connection.device()
    }

    /// Goes without taking anything away: whoever else has the connection goes on with it.
    pub fn leave(self) {
        std::mem::forget(self);
    }

    fn check_on_top(&self) -> io::Result<()> {
        match mounting::connection_at(&self.mount_point) {
            Ok(connection) if connection == self.connection => Ok(()),
            Ok(_) | Err(_) => Err(io::Error::from_raw_os_error(libc::EINVAL)),
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        match self.session.take() {
            Some(session) if session.guard.is_finished() => {
                if let Err(error) = session.join() {
                    log::warn!("the FUSE session ended with an error: {error}");
                }
            }
            _ => _ = self.detach(),
        }
    }
}
