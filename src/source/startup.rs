//! The start: checks, state, targets, the first copy, the mount.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::{Condvar, Mutex};
use rustix::fs::{Mode, OFlags};
use rustix::mount::OpenTreeFlags;

use super::connection::{Connection, Settings, Watch};
use super::daemon::{Daemon, Life, SyncNotes};
use super::durability::TargetDurability;
use super::embedded::Embedded;
use super::flush::Flusher;
use super::identity::Found;
use super::mark::{Clock, ClockWatch, Mark, PageCache};
use super::mount_options::{BackingMount, OptionsWatch};
use super::mount_watch::MountWatch;
use super::options::{ProtectOptions, Target};
use super::remote::{Paired, Route};
use super::state::{SetState, StateError, Stranger};
use super::writeback::WritebackWatch;
use super::{first_copy, identity, state};
use crate::control::{Phase, ProcessMeter, Server, StopMode};
use crate::failure::Failure;
use crate::intercept::{Divergence, DurabilityGate, Mount, Serving, Volume};
use crate::limits::BACKLOG_GIVEN_BACK;
use crate::link::Identity;
use crate::open_files;
use crate::packet::{Incarnation, Position};
use crate::preflight::{self, Claim, DeadMount, MountTable, Preflight, Role};
use crate::privileges::{self, PROTECT};
use crate::queue::Queue;
use crate::resync::CopyReport;
use crate::store;
use crate::sys::{MountOptions, set_mount_options};

pub(super) const NOTHING_MOUNTED: &str = "Nothing is mounted; the directory is as it was.";

/// Protects a directory until it is told to stop; returns after the unmount.
///
/// Errors: whatever keeps the directory from being mounted or served, with what was left as it was.
pub fn run(options: ProtectOptions) -> Result<(), Failure> {
    open_files::raise()?;
    give_up_privileges()?;
    if let Some(dead) = preflight::standing_mount(&options.directory)? {
        replace_dead_mount(&dead)?;
    }
    let checked = preflight::check(&options)?;
    checked.warnings.iter().for_each(|warning| eprintln!("note: {warning}"));
    let signals = super::stop_signals().map_err(|error| io_failure("signals cannot be caught", &error))?;
    let daemon = Arc::new(prepare(options, checked)?);
    let server = Server::start(&daemon.options.socket(), daemon.clone())?;
    let outcome = protect(&daemon, signals);
    daemon.let_go();
    // Last: whoever waits for the end takes the hang-up for it, and may unmount the replica's
    // disk or start again at once.
    drop(server);
    outcome
}

/// What is kept is needed until the end, for the unmount too: so it is before everything else, and
/// no thread has more.
fn give_up_privileges() -> Result<(), Failure> {
    // Blocks that are reserved for a group are not for all programs on the mount.
    if let Err(error) = rustix::thread::set_thread_groups(&[]) {
        log::info!("this process keeps the groups that it was started with: {error}");
    }
    let missing = privileges::give_up(PROTECT)
        .map_err(|error| io_failure("the privileges that are not needed cannot be given up", &error))?;
    if !missing.is_empty() {
        log::info!("this process was started without some capabilities that it may need: {missing:?}");
    }
    Ok(())
}

/// Detaches what a killed daemon left, so that the directory under it can be reached.
fn replace_dead_mount(dead: &DeadMount) -> Result<(), Failure> {
    let shown = dead.point.display();
    rustix::mount::unmount(&dead.point, rustix::mount::UnmountFlags::DETACH).map_err(|error| {
        Failure::new(
            format!("The dead mount of a killed daemon on {shown} cannot be detached: {error}."),
            "It is as it was.",
            format!("Detach it by hand: umount -l {shown}"),
        )
    })?;
    eprintln!("note: replaced the dead mount that a killed daemon left on {shown}.");
    Ok(())
}

/// Everything that exists before the mount: state, volume, targets, connections.
fn prepare(options: ProtectOptions, checked: Preflight) -> Result<Daemon, Failure> {
    let table =
        MountTable::read().map_err(|error| io_failure("the table of mounts cannot be read", &error))?;
    let backing_mount = BackingMount::holding(options.tree(), &table);
    let Backing { view, directory: backing } = open_backing(options.tree())?;
    let claim = claim_places(&options, &backing)?;
    let stranger = if options.adopt_source { Stranger::Adopt } else { Stranger::Refuse };
    let found = Found::at(&backing)
        .map_err(|error| io_failure(&format!("{} cannot be read", options.tree().display()), &error))?;
    let mut set = SetState::open(&options.set_state(), options.tree(), &found, stranger)
        .map_err(|error| no_state(&options, &error))?;
    set.begin(page_cache(options.tree()), &Clock::now());
    let record = set.record.clone();
    let origin = Position::origin(record.epoch, Incarnation(store::random_u64()));
    let queue = Queue::new(options.queue_memory, origin);
    let duplicate =
        backing.try_clone().map_err(|error| io_failure("a descriptor cannot be duplicated", &error))?;
    let volume = Volume::new(duplicate, queue.clone(), record.birth_epoch()).map_err(|error| {
        io_failure("the backing directory cannot be used", &std::io::Error::from_raw_os_error(error.errno))
    })?;
    let durability = start_durability(&options, &queue, volume.divergence())?;
    let own = own_identity(&options)?;
    let knows = Knows { queue: &queue, divergence: volume.divergence(), durability: durability.as_ref() };
    let connections = connect(&options, &knows, &set, own.as_ref())?;
    // Only now is anything written about this set: a refused start leaves no trace.
    identity::write(&backing, record.set)
        .map_err(|error| io_failure("the backing directory cannot be marked", &error))?;
    set.save().map_err(|error| io_failure("the set's state cannot be written", &error))?;
    Ok(Daemon {
        options,
        volume: Arc::new(volume),
        queue,
        backing,
        claim: Mutex::new(Some(claim)),
        view,
        backing_mount,
        started: SystemTime::now(),
        meter: ProcessMeter::open(),
        state: Mutex::new(set),
        fingerprint: own.map(|identity| identity.fingerprint()),
        connections: Mutex::new(connections.into_iter().map(Arc::new).collect()),
        durability,
        flusher: OnceLock::new(),
        life: Mutex::new(Life { phase: Phase::Starting, serving: None, stopped: None }),
        life_changed: Condvar::new(),
        last_barrier: Mutex::new(None),
        mount_lost: Mutex::default(),
        options_trouble: Mutex::default(),
        ways: checked.ways,
        warnings: checked.warnings,
    })
}

/// Of the mount under the one that is to come: that one, and the daemon's own view, are new ones.
fn page_cache(tree: &Path) -> Option<PageCache> {
    let opened = preflight::open_directory(tree).and_then(PageCache::of);
    opened.inspect_err(|error| log::warn!("{} says no mount: {error}", tree.display())).ok()
}

/// The tree for this daemon alone, and the mount point in nobody's.
fn claim_places(options: &ProtectOptions, backing: &OwnedFd) -> Result<Claim, Failure> {
    let duplicate =
        backing.try_clone().map_err(|error| io_failure("a descriptor cannot be duplicated", &error))?;
    // Before the own claim, which may hold the mount point.
    preflight::check_outside(&options.directory)?;
    Claim::take(Role::Source, &options.name, options.tree(), duplicate)
}

fn no_state(options: &ProtectOptions, error: &StateError) -> Failure {
    let (name, state) = (&options.name, options.set_state());
    match error {
        StateError::Io(error) => {
            io_failure(&format!("the state in {} cannot be used", state.display()), error)
        }
        StateError::InUse => Failure::new(
            format!("Another daemon uses the state of '{name}' in {}.", state.display()),
            NOTHING_MOUNTED,
            "Choose another name with --name, or another state directory with --state.",
        ),
        StateError::NotTheSource(why) => Failure::new(
            format!(
                "{} is not the directory that '{name}' protected before: {why}.",
                options.tree().display()
            ),
            "Nothing is mounted; the directory and the replicas are as they were.",
            "If its disk is not mounted, mount it. If this directory takes the other one's place (restored from \
             a backup, moved to another disk), start with --adopt-source: everything is compared, and what it \
             lacks goes from the replicas.",
        ),
        StateError::OtherTree(tree) => Failure::new(
            format!("The name '{name}' belongs to another directory, {}.", tree.display()),
            "Nothing is mounted; that directory's state and replica are as they were.",
            format!(
                "Choose another name with --name. If {} is gone for good, remove {}.",
                tree.display(),
                state.display()
            ),
        ),
    }
}

/// This host's key, where other hosts have to know it.
fn own_identity(options: &ProtectOptions) -> Result<Option<Arc<Identity>>, Failure> {
    if !options.targets.iter().any(|target| matches!(target, Target::Remote { .. })) {
        return Ok(None);
    }
    Identity::load_or_create(&options.state).map(|identity| Some(Arc::new(identity))).map_err(|error| {
        io_failure(&format!("this host's key in {} cannot be used", options.state.display()), &error)
    })
}

fn no_identity() -> Failure {
    Failure::new("This host has no key.", NOTHING_MOUNTED, "Start again.")
}

/// How the daemon reaches the protected tree.
struct Backing {
    /// A mount of its own: no mount above or below it is ever seen through it, ours neither.
    view: OwnedFd,
    directory: OwnedFd,
}

fn open_backing(tree: &Path) -> Result<Backing, Failure> {
    let open = || -> rustix::io::Result<Backing> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let view = rustix::mount::open_tree(rustix::fs::CWD, tree, flags)?;
        let writable = (MountOptions::READ_ONLY, MountOptions::default());
        if let Err(error) = set_mount_options(&view, Path::new(""), writable.0, writable.1) {
            log::info!("the daemon's own mount of {}: {error}", tree.display());
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(&view, ".", flags, Mode::empty())?;
        Ok(Backing { view, directory })
    };
    open().map_err(|error| io_failure(&format!("{} cannot be opened", tree.display()), &error.into()))
}

fn start_durability(
    options: &ProtectOptions,
    queue: &Arc<Queue>,
    divergence: &Arc<Divergence>,
) -> Result<Option<Arc<TargetDurability>>, Failure> {
    let targets = options.targets.iter().filter(|target| !matches!(target, Target::Null)).count();
    let start = |rule| TargetDurability::start(rule, queue.clone(), targets, divergence.clone());
    options.fsync.map(start).transpose().map_err(|error| io_failure("syncs have no timer thread", &error))
}

/// Tells `--fsync=target` how the next real target stands.
fn watch(durability: Option<&Arc<TargetDurability>>, target: usize) -> Option<Watch> {
    let durability = durability?.clone();
    Some(Box::new(move |standing| durability.stands(target, standing)))
}

/// What connections share with the rest of the source.
struct Knows<'a> {
    queue: &'a Arc<Queue>,
    divergence: &'a Arc<Divergence>,
    durability: Option<&'a Arc<TargetDurability>>,
}

fn connect(
    options: &ProtectOptions,
    knows: &Knows<'_>,
    set: &SetState,
    identity: Option<&Arc<Identity>>,
) -> Result<Vec<Connection>, Failure> {
    let mut connections = Vec::new();
    let mut real_targets = 0..;
    for (index, target) in options.targets.iter().enumerate() {
        let id = index as u32 + 1;
        let mut embedded = None;
        let route = match target {
            Target::Null => {
                connections.push(Connection::null(id));
                continue;
            }
            Target::Local(path) => {
                let state = options.set_state().join(format!("replica-{}", state::directory_name(path)));
                let target = Embedded::start(path, &state, set.record.set, options)?;
                Route::Fixed(embedded.insert(target).dial())
            }
            Target::Remote { .. } => {
                let identity = identity.ok_or_else(no_identity)?;
                Route::Paired(Paired::new(target, &options.state, identity.clone())?)
            }
        };
        let settings = Settings {
            id,
            target: target.clone(),
            set: set.record.set,
            set_name: match target {
                Target::Remote { repset, .. } => repset.clone(),
                Target::Local(_) | Target::Null => options.name.clone(),
            },
            birth_epoch: set.record.birth_epoch(),
            watch: real_targets.next().and_then(|target| watch(knows.durability, target)),
            divergence: knows.divergence.clone(),
        };
        let connection = Connection::start(settings, route, knows.queue.clone(), embedded)
            .map_err(|error| io_failure("a connection has no thread", &error))?;
        connections.push(connection);
    }
    Ok(connections)
}

/// From the first copy to the end of protection.
fn protect(daemon: &Arc<Daemon>, mut signals: super::StopSignals) -> Result<(), Failure> {
    if let Some(why) = &daemon.state.lock().record.diverged {
        eprintln!("note: source and replicas differed before ({why}): everything is compared.");
    }
    first_copy::wait_for_targets(daemon, &mut signals)?;
    let began = Instant::now();
    let (mount, copied) = first_copy::bring_into_line(daemon, &mut signals)?;
    daemon.forget_divergence();
    let (point, lag) = (daemon.options.directory.clone(), daemon.options.mmap_lag);
    let flusher = Flusher::start(point, daemon.volume.clone(), lag)
        .map_err(|error| io_failure("the helper that flushes shared mappings does not start", &error))?;
    daemon.volume.watch_for_others();
    let serving = mount.serve().map_err(|error| io_failure("the mount cannot be served", &error))?;
    let _ = daemon.flusher.set(flusher);
    daemon.life.lock().serving = Some(serving);
    daemon.set_phase(Phase::Serving);
    ready(daemon, &copied, began.elapsed());
    serve(daemon, signals)
}

/// Mounts over the directory; calls wait until it is served.
pub(super) fn mount(daemon: &Daemon) -> Result<Mount, Failure> {
    let name = daemon.options.tree().display().to_string();
    let gate = daemon.durability.clone().map(|durability| Arc::new(durability) as Arc<dyn DurabilityGate>);
    // As it is now: the copy before may have taken long.
    let table =
        MountTable::read().map_err(|error| io_failure("the table of mounts cannot be read", &error))?;
    let backing = daemon.backing_mount.as_ref().map(|backing| backing.look_again(&table));
    let options = backing.map(|backing| backing.options).unwrap_or_default();
    Mount::new(daemon.volume.clone(), &daemon.options.directory, &name, options, gate).map_err(|error| {
        Failure::new(
            format!("{} cannot be mounted: {error}.", daemon.options.directory.display()),
            "The directory is as it was; what was copied to the replica stays, marked bad.",
            "See `standin doctor`.",
        )
    })
}

/// One line for people and scripts: the mount is up.
fn ready(daemon: &Daemon, copied: &[CopyReport], took: Duration) {
    let targets: Vec<String> = daemon.options.targets.iter().map(Target::to_string).collect();
    let targets = if targets.is_empty() { "null:".to_owned() } else { targets.join(" ") };
    let files: u64 = copied.iter().map(|report| report.copied).sum();
    let first_copy = match copied.is_empty() {
        true => "capture only, nothing is replicated".to_owned(),
        false => {
            format!("first copy complete in {:.1} s ({files} files sent after the mount)", took.as_secs_f64())
        }
    };
    for (target, left_out) in left_out(daemon) {
        eprintln!("warning: {target}: {left_out}. The replica stays marked bad; everything else is in line.");
    }
    let line =
        format!("ready {} -> {targets}; profile default; {first_copy}\n", daemon.options.directory.display());
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
}

/// What the copies of the start left out, by target.
fn left_out(daemon: &Daemon) -> Vec<(String, String)> {
    let reports = daemon.connections().into_iter().map(|connection| {
        let left_out = connection.report().left_out;
        (!left_out.is_empty()).then(|| (connection.target.to_string(), left_out.summary()))
    });
    reports.flatten().collect()
}

/// The allocator keeps what a long queue held; `backlog` is the most that it held since then.
fn give_back_after_backlog(daemon: &Daemon, backlog: &mut u64) {
    let held = daemon.queue.stats().bytes;
    *backlog = held.max(*backlog);
    if *backlog >= BACKLOG_GIVEN_BACK && held < BACKLOG_GIVEN_BACK / 16 {
        crate::sys::give_back_memory();
        *backlog = 0;
    }
}

/// Until a signal or a command ends it.
fn serve(daemon: &Arc<Daemon>, mut signals: super::StopSignals) -> Result<(), Failure> {
    let watch = MountWatch::begin(&daemon.options.directory);
    let mut options = watch_options(daemon);
    let _writeback = WritebackWatch::begin(daemon)
        .map_err(|error| io_failure("the disk of the directory cannot be watched", &error))?;
    let mut alive = Mark::now();
    let mut noted = SyncNotes::default();
    let mut tries = 0;
    let mut next_note = Instant::now() + NOTE_EVERY;
    let mut next_look = Instant::now();
    let mut clock = ClockWatch::begin();
    let mut backlog = 0;
    loop {
        {
            let mut life = daemon.life.lock();
            if life.stopped.is_none() {
                daemon.life_changed.wait_for(&mut life, Duration::from_millis(100));
            }
            if let Some(report) = &life.stopped {
                farewell(daemon, report);
                return Ok(());
            }
            let looked = Mark::now();
            if life.phase == Phase::Serving && life.serving.as_ref().is_some_and(|serving| serving.ended()) {
                drop(life);
                return unmounted_by_others(daemon, alive);
            }
            alive = looked;
        }
        give_back_after_backlog(daemon, &mut backlog);
        if clock.was_set() {
            daemon.clock_was_set(&mut noted);
        }
        if signals.pending() {
            tries += 1;
            let mode = if tries > 1 { StopMode::Now } else { StopMode::Orderly };
            if let Err(failure) = daemon.stop_serving(mode) {
                eprintln!("{failure}");
            }
        }
        if Instant::now() >= next_look {
            // Held meanwhile: a mount that a stop takes away is not lost.
            let life = daemon.life.lock();
            if life.phase == Phase::Serving
                && let Ok(table) = MountTable::read()
            {
                watch.look(&table, &daemon.mount_lost);
                options.look(&table, &daemon.view, &daemon.options_trouble);
            }
            drop(life);
            next_look = Instant::now() + LOOK_EVERY;
        }
        if Instant::now() >= next_note {
            daemon.note_synced(&mut noted);
            next_note = Instant::now() + NOTE_EVERY;
        }
    }
}

/// How often it is noted until when targets had everything.
const NOTE_EVERY: Duration = Duration::from_secs(5);

/// How often it is looked whether programs still reach the mount.
const LOOK_EVERY: Duration = Duration::from_secs(1);

fn watch_options(daemon: &Daemon) -> OptionsWatch {
    let device = daemon.life.lock().serving.as_ref().map(Serving::device).unwrap_or_default();
    OptionsWatch::begin(&daemon.options.directory, device, daemon.backing_mount.clone())
}

fn farewell(daemon: &Daemon, report: &crate::control::StopReport) {
    let shown = daemon.options.directory.display();
    eprintln!("{shown} is no longer protected.");
    if !report.drained {
        report.left.iter().for_each(|line| eprintln!("warning: {line}; the next start copies them."));
    }
}

/// A stop like any other: what is queued is sent. `alive`: the mount was there at this moment.
fn unmounted_by_others(daemon: &Daemon, alive: Mark) -> Result<(), Failure> {
    let what = format!(
        "{} was unmounted by somebody else: it is no longer protected.",
        daemon.options.directory.display()
    );
    log::warn!("{what}");
    let report = daemon.stop_without_mount(alive);
    if report.drained {
        eprintln!("{what} All targets have everything that was written to it.");
        return Ok(());
    }
    Err(Failure::new(
        format!("{what} Left behind: {}.", report.left.join("; ")),
        "The data in the directory is complete.",
        "Start the protection again: what a target lacks, and what changes meanwhile, is found and copied.",
    ))
}

pub(super) fn io_failure(what: &str, error: &std::io::Error) -> Failure {
    let mut what = format!("{what}: {error}.");
    if let Some(first) = what.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    Failure::new(what, NOTHING_MOUNTED, "Mend this and start again.")
}
