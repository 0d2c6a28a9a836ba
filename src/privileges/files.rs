//! Files: a target daemon may reach its replicas and its own state, and nothing else (landlock(7)).
//!
//! ```text
//!  confined: link, control, pairing, apply, sync ── a job ──> unconfined: a few threads that open
//!                                                 <── fd ────  objects by file handle, and link them
//! ```
//! The kernel judges a file by the directories above it. An object that was opened by its file
//! handle may have none yet, as far as the kernel knows, and is refused (measured on Linux 6.18: each
//! file that is not in the cache). The few calls that go by handle are therefore made by threads
//! that were started before; they get numbers from the target's own index, never a name.

use std::io;
use std::path::PathBuf;
use std::sync::OnceLock;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetError,
};

use crate::sys::boot_id;

/// Threads that are not confined: the disks of several replicas do not wait for each other.
const OPENERS: usize = 4;

/// Renames between directories and truncation are judged from here on (Linux 6.2); before, all
/// renames out of a directory would fail.
const OLDEST: ABI = ABI::V3;
const NEWEST: ABI = ABI::V5;

type Job = Box<dyn FnOnce() + Send>;

static UNCONFINED: OnceLock<Sender<Job>> = OnceLock::new();

/// Where a target daemon may reach. All directories exist.
#[derive(Clone, Debug)]
pub struct Reach {
    /// Parent of the replicas.
    pub root: PathBuf,
    /// Index, positions, pairings.
    pub state: PathBuf,
    /// What the host's daemons have recorded (which targets it has, what was handed over); only read.
    pub records: PathBuf,
    /// Its control socket.
    pub run: PathBuf,
    /// Directory of its statistics.
    pub statistics: Option<PathBuf>,
    /// Block devices may be made in `root`.
    pub device: bool,
}

/// How far the kernel keeps this process to its places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Confinement {
    Confined,
    /// Why it does not.
    None(String),
}

/// Confines this thread and those that it starts later, for good.
///
/// Errors: a place cannot be opened, or the kernel can confine and refuses to.
pub fn confine(reach: &Reach) -> io::Result<Confinement> {
    // Needed when a replica is opened; read now, while it can be read.
    boot_id()?;
    let ruleset = match Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(OLDEST))
    {
        Ok(ruleset) => ruleset.set_compatibility(CompatLevel::BestEffort),
        Err(_) => return Ok(Confinement::None("this kernel has no landlock of version 3 or later".into())),
    };
    let created = ruleset.handle_access(AccessFs::from_all(NEWEST)).and_then(Ruleset::create);
    let created = add_rules(created.map_err(refused)?, reach)?;
    if UNCONFINED.get().is_none() {
        let _ = UNCONFINED.set(start_openers()?);
    }
    created.restrict_self().map_err(refused)?;
    Ok(Confinement::Confined)
}

fn add_rules(created: RulesetCreated, reach: &Reach) -> io::Result<RulesetCreated> {
    let all = AccessFs::from_all(NEWEST);
    let mut replicas = all & !(AccessFs::Execute | AccessFs::IoctlDev);
    if !reach.device {
        replicas.remove(AccessFs::MakeBlock);
    }
    let own = AccessFs::ReadFile | AccessFs::ReadDir | AccessFs::WriteFile | AccessFs::Truncate;
    let own = own | AccessFs::MakeReg | AccessFs::MakeDir | AccessFs::RemoveFile | AccessFs::RemoveDir;
    let sockets = AccessFs::ReadDir | AccessFs::MakeSock | AccessFs::RemoveFile;
    let lines = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::Truncate;
    let lines = lines | AccessFs::MakeReg | AccessFs::RemoveFile;
    let places: [(PathBuf, BitFlags<AccessFs>); 4] = [
        (reach.root.clone(), replicas),
        (reach.state.clone(), own),
        (reach.records.clone(), AccessFs::ReadFile | AccessFs::ReadDir),
        (reach.run.clone(), sockets),
    ];
    let statistics = reach.statistics.iter().map(|place| (place.clone(), lines));
    places.into_iter().chain(statistics).try_fold(created, |created, (place, rights)| {
        let place = PathFd::new(place).map_err(io::Error::other)?;
        created.add_rule(PathBeneath::new(place, rights)).map_err(refused)
    })
}

fn refused(error: RulesetError) -> io::Error {
    io::Error::other(error)
}

fn start_openers() -> io::Result<Sender<Job>> {
    let (jobs, inbox): (Sender<Job>, Receiver<Job>) = unbounded();
    for number in 0..OPENERS {
        let inbox = inbox.clone();
        let name = format!("handles-{number}");
        std::thread::Builder::new().name(name).spawn(move || inbox.iter().for_each(|job| job()))?;
    }
    Ok(jobs)
}

/// Whether [`unconfined`] goes to another thread.
pub fn is_confined() -> bool {
    UNCONFINED.get().is_some()
}

/// Has a call by file handle made where it can be; on this thread where nothing is confined.
pub fn unconfined<T: Send + 'static>(call: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    let Some(jobs) = UNCONFINED.get() else { return call() };
    let (answer, outcome) = bounded(1);
    let gone = || io::Error::other("the threads that open objects by handle are gone");
    jobs.send(Box::new(move || drop(answer.send(call())))).map_err(|_| gone())?;
    outcome.recv().map_err(|_| gone())?
}
