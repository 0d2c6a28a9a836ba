//! The start and the end of the daemon around its director: checks, state, targets.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;
use rustix::fs::{Mode, OFlags};
use rustix::mount::OpenTreeFlags;

use super::activity::{self, Merge};
use super::backlog::LeftQueue;
use super::connection::{Connection, Watch};
use super::desk::Desk;
use super::director::{Director, Event, Run};
use super::durability::TargetDurability;
use super::first_mark::FirstMark;
use super::ground::Ground;
use super::holder::{Giving, Holder, Left, waits_at};
use super::identity::{self, Found, Stamp};
use super::joining::{Enlisted, Joining, route};
use super::life::Ended;
use super::mark::{Clock, Mark, Marks, PageCache};
use super::mount_options::BackingMount;
use super::record::{SetRecord, SetState, StateError, Stranger};
use super::reload::{self, Followed};
use super::remote::Paired;
use super::restoring::refuse_unfinished;
use super::roles::Roles;
use super::standing_in::{self, Following, StandIn, Unfollowed};
use super::terms::Terms;
use super::uncovering::{Lifted, lifting, uncover, under_cover};
use super::upgrade;
use crate::apply::fence_of;
use crate::control::{ProcessMeter, Server};
use crate::cover::note_written;
use crate::failure::Failure;
use crate::intercept::Volume;
use crate::link::Identity;
use crate::map::{Kept, Map};
use crate::open_files;
use crate::packet::{Ids, Incarnation, Position};
use crate::preflight::{self, Claim, DeadMount, MountTable, Preflight, Role};
use crate::privileges::{self, PROTECT};
use crate::queue::{CursorId, DiskPlace, Queue, remove_left};
use crate::store;
use crate::sys::{MountOptions, proc_path, set_mount_options};
use crate::words::{ProtectOptions, Target};

pub(super) const NOTHING_MOUNTED: &str = "Nothing is mounted; the directory is as it was.";

/// Protects a directory until it is told to stop; returns after the unmount.
///
/// Errors: whatever keeps the directory from being mounted or served, with what was left as it was.
pub fn run(options: ProtectOptions) -> Result<Ended, Failure> {
    run_followed(options, &mut Unfollowed)
}

/// As [`run`], of a directory that is served in its source's place: with who follows the beginning of that.
pub fn run_followed(options: ProtectOptions, follower: &mut dyn Following) -> Result<Ended, Failure> {
    open_files::raise()?;
    let (holder, left) = match Holder::seek(&options)? {
        Some((holder, left)) => (Some(holder), Some(left)),
        None => (Holder::start(&options)?, None),
    };
    let giving = holder.as_ref().map(Holder::giving);
    if giving.as_ref().is_some_and(Giving::is_given_on) {
        upgrade::reap();
    }
    let mut lifted = None;
    let outcome = give_up_privileges().and_then(|()| protect(options, follower, (holder, left), &mut lifted));
    if let (Err(_), Some(lifted)) = (&outcome, lifted) {
        lifted.put_back();
    }
    match (outcome, giving) {
        (Err(failure), Some(giving)) => match giving.given_by() {
            Some(program) => Err(upgrade::give_back(&giving, &program, &failure)),
            None => Err(failure),
        },
        (outcome, _) => outcome,
    }
}

/// `lifted`: the cover that is there, or was, as long as nothing was served in its place.
fn protect(
    options: ProtectOptions,
    follower: &mut dyn Following,
    (holder, left): (Option<Holder>, Option<Left>),
    lifted: &mut Option<Lifted>,
) -> Result<Ended, Failure> {
    // Before it is seen that nobody has a file open for writing.
    let unwritten_at = Mark::now();
    let checked = check(&options, left.as_ref(), lifted)?;
    checked.warnings.iter().for_each(|warning| aside!("note: {warning}"));
    let signals =
        crate::signals::stop_signals().map_err(|error| io_failure("signals cannot be caught", &error))?;
    let Prepared { ground, connections, set, marks, claim, stand_in } =
        prepare(options, checked, unwritten_at, follower, (holder, left.as_ref()))?;
    if let (Some(holder), Some(_)) = (&ground.holder, &left) {
        holder.take_position();
    }
    let started = |error| io_failure("the daemon has no threads", &error);
    let director = Director::new(ground.clone(), connections, set, marks, left).map_err(started)?;
    let (board, address) = (director.board(), director.address());
    let desk = Desk { ground: ground.clone(), board: board.clone(), director: address.clone() };
    let server = Server::start(&ground.options.socket(), Arc::new(desk))?;
    let reloads = (ground.clone(), board.clone());
    signals
        .forward_and_reload(
            move || address.send(Event::Signal).is_ok(),
            move || reload::by_signal(&reloads.0, &reloads.1),
        )
        .map_err(started)?;
    let Run { outcome, set, successor } = director.run();
    if board.read().flusher.is_some() {
        *lifted = None;
    }
    if let Some(successor) = successor {
        // What waits, waits for the next program: nothing of it is ended here.
        return Err(upgrade::succeed(&successor, board.read().connections.clone()));
    }
    ground.durability.iter().for_each(|durability| durability.end());
    board.read().connections.iter().for_each(|connection| connection.end());
    ground.queue.close();
    ground.queue.end_disk();
    // After a fault the mount is there for the next daemon.
    if let Some(holder) = ground.holder.iter().find(|holder| outcome.is_ok() || !holder.is_needed()) {
        holder.over();
    }
    // From here on nothing of the replicas and of the state is in use.
    drop((set, stand_in, claim));
    // Last: whoever waits for the end takes the hang-up for it, and may unmount the replica's
    // disk or start again at once.
    drop(server);
    outcome
}

/// Nothing stands in the way of a mount, or of going on with the one that is `left`.
fn check(
    options: &ProtectOptions,
    left: Option<&Left>,
    lifted: &mut Option<Lifted>,
) -> Result<Preflight, Failure> {
    if let Some(left) = left {
        // Programs wait for this start: what is missing may come back before they are let go.
        preflight::check_places_again(options).map_err(Failure::passing)?;
        let mount = left.mount_under().map_err(|error| io_failure("the directory says no mount", &error))?;
        return preflight::surmise(options.tree(), &proc_path(left.under.as_fd()), mount);
    }
    let standing = preflight::standing_mount(&options.directory);
    // Of another set: this one would have got it.
    let standing = standing
        .map_err(|failure| waits_at(&options.run, &options.directory).map_or(failure, |one| one.failure()));
    if let Some(dead) = standing? {
        replace_dead_mount(&dead)?;
    }
    *lifted = uncover(options)?;
    // A cover that hid one is lifted.
    if let Some(dead) = preflight::standing_mount(&options.directory)? {
        replace_dead_mount(&dead)?;
    }
    standing_in::check(options)
}

/// Everything that exists before the mount.
struct Prepared {
    ground: Arc<Ground>,
    connections: Vec<Arc<Connection>>,
    set: SetState,
    marks: Arc<Marks>,
    /// On the backing directory.
    claim: Claim,
    /// Where the directory is a replica that is served in its source's place.
    stand_in: Option<StandIn>,
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
    aside!("note: replaced the dead mount that a killed daemon left on {shown}.");
    Ok(())
}

/// State, volume, targets, connections.
fn prepare(
    options: ProtectOptions,
    checked: Preflight,
    unwritten_at: Mark,
    follower: &mut dyn Following,
    (holder, left): (Option<Holder>, Option<&Left>),
) -> Result<Prepared, Failure> {
    let (Backing { view, directory: backing, under, mount: backing_mount }, claim, found, mut set) =
        open_tree(&options, left)?;
    let options = with_added(options, &mut set)?;
    let own = paired_identity(&options)?;
    let uncovered = uncovered(&options, left);
    let stand_in = StandIn::begin(&uncovered, &mut set, follower)?;
    let goes_on = goes_on(&options, &set.record, holder.as_ref(), left);
    let run = goes_on.map_or_else(|| Incarnation(store::random_u64()), |position| position.incarnation);
    let (owed, merge) = begin_run(&options, (&backing, &under), &mut set, run);
    let roles = roles(&options, &set.record, stand_in.as_ref());
    let record = set.record.clone();
    let (backlog, origin) = begins_behind(&uncovered, &mut set.record, (goes_on, run));
    let (queue, keeper) = open_queue(&uncovered, origin, backlog.as_ref())?;
    let ids = stand_in.as_ref().map_or_else(|| record.birth_epoch().into(), |stand_in| stand_in.ids.clone());
    let map = open_map(&options, queue.last(), holder.as_ref(), left);
    tell_places(holder.as_ref(), left, (&view, &under, &map))?;
    let volume = open_volume(&options, &backing, &queue, ids.clone(), (holder.as_ref(), map))?;
    super::rules::begin(&options, &mut set.record, &volume)?;
    let durability = start_durability(&options, &queue, &volume)?;
    let joining = Joining {
        set: record.set,
        queue: queue.clone(),
        volume: volume.clone(),
        backing: duplicate(&backing)?,
        durability: durability.clone(),
        unwritten_at,
        marks: marks_of(&set.record),
        ids,
        merge: merge.clone(),
        roles: roles.clone(),
        goes_on: goes_on.is_some(),
        left: Mutex::new(backlog.map(|backlog| backlog.targets).unwrap_or_default()),
        one: Default::default(),
        last_id: Default::default(),
    };
    let connections = connect_marked(&options, &joining, (&mut set, &found), (own.as_ref(), keeper))?;
    disconnect_others(&options, &mut set);
    mark_directory(&mut set, &options, &backing, found.stamp)?;
    activity::begin(&options, run, (&backing, &queue, &volume), owed.as_ref());
    let ground = Arc::new(Ground {
        followed: Followed::new(options.configuration.clone()),
        options,
        set: record.set,
        volume,
        queue,
        backing,
        view,
        under,
        backing_mount,
        started: SystemTime::now(),
        meter: ProcessMeter::open(),
        fingerprint: own.map(|identity| identity.fingerprint().into()).unwrap_or_default(),
        durability,
        roles,
        holder,
        merge,
        joining,
        ways: checked.ways,
        warnings: checked.warnings,
    });
    Ok(Prepared { marks: ground.joining.marks.clone(), ground, connections, set, claim, stand_in })
}

/// Before a target can answer.
fn marks_of(record: &SetRecord) -> Arc<Marks> {
    let marks = Arc::new(Marks::default());
    marks.set(&record.marks, &record.runs);
    marks
}

/// Only now is anything written about this set, but for its id ([`FirstMark`]): a refused start leaves no trace.
fn mark_directory(
    set: &mut SetState,
    options: &ProtectOptions,
    backing: &OwnedFd,
    has: Option<Stamp>,
) -> Result<(), Failure> {
    note_written(&options.set_state(), options.tree(), set.record.epoch.number)
        .map_err(|error| io_failure("that programs write here cannot be noted", &error))?;
    identity::write(backing, set.record.set)
        .map_err(|error| io_failure("the backing directory cannot be marked", &error))?;
    stamp_run(set, backing, has)
}

/// The tree for this daemon alone, and what is known of it.
fn open_tree(
    options: &ProtectOptions,
    left: Option<&Left>,
) -> Result<(Backing, Claim, Found, SetState), Failure> {
    let tree = options.tree();
    let backing = left.map_or_else(|| open_backing(options), go_on_with)?;
    let claim = claim_places(options, &backing.directory, left)?;
    refuse_unfinished(tree, &backing.directory, &options.set_state())?;
    let stranger = if options.adopt_source { Stranger::Adopt } else { Stranger::Refuse };
    let found = Found::at(&backing.directory)
        .map_err(|error| io_failure(&format!("{} cannot be read", tree.display()), &error))?;
    let set = SetState::open(&options.set_state(), tree, &found, stranger)
        .map_err(|error| no_state(options, &error))?;
    Ok((backing, claim, found, set))
}

/// Behind which position this daemon goes on as the run of before: of one that has become this program and left it,
/// and only where everything else is as it left it, too.
fn goes_on(
    options: &ProtectOptions,
    record: &SetRecord,
    holder: Option<&Holder>,
    left: Option<&Left>,
) -> Option<Position> {
    let position = left.and(holder)?.position_left(super::rules::terms(options))?;
    let is_of_last = record.runs.last() == Some(&position.incarnation) && record.epoch == position.epoch;
    is_of_last.then_some(position)
}

/// Of this run, too: what it writes is told from what others have.
fn roles(options: &ProtectOptions, record: &SetRecord, stand_in: Option<&StandIn>) -> Arc<Roles> {
    let replica = stand_in.map(|stand_in| stand_in.state.clone());
    let mut roles = Roles::new(record.history(), replica, record.other_writer.clone());
    (roles.runs, roles.overwrites) = (record.runs.clone(), options.overwrite_further);
    Arc::new(roles)
}

/// Targets of before that are named no more.
fn disconnect_others(options: &ProtectOptions, set: &mut SetState) {
    for target in set.record.disconnect_all_but(&options.targets) {
        aside!(
            "note: {target} is named by no --to any more: nothing is sent there; its replica stays as it is."
        );
    }
}

fn open_volume(
    options: &ProtectOptions,
    backing: &OwnedFd,
    queue: &Arc<Queue>,
    ids: Ids,
    (holder, map): (Option<&Holder>, Map),
) -> Result<Arc<Volume>, Failure> {
    let volume = Volume::new(duplicate(backing)?, queue.clone(), ids).map_err(|error| {
        io_failure("the backing directory cannot be used", &std::io::Error::from_raw_os_error(error.errno))
    })?;
    let volume = volume.by(options.profile).marking(Arc::new(map));
    Ok(Arc::new(match holder {
        Some(holder) => volume.standing_on(holder.standing.clone()),
        None => volume,
    }))
}

/// For a mount that outlives its daemon marks do so, too, beside those that are `left`.
fn open_map(options: &ProtectOptions, begins: Position, holder: Option<&Holder>, left: Option<&Left>) -> Map {
    let (bytes, own) = (options.map_size, || Map::new(options.map_size, begins.sequence));
    if holder.is_none() {
        return own();
    }
    let left = left.and_then(|left| left.marks.as_ref()).map(|marks| {
        let kept = marks.try_clone().and_then(|marks| Kept::open(marks, bytes));
        kept.inspect_err(|error| log::info!("what the daemon before has marked is not used: {error}"))
    });
    let kept = left.and_then(Result::ok).map_or_else(|| Kept::create(bytes), Ok);
    kept.and_then(|kept| Map::kept(kept, bytes, begins.incarnation, begins.sequence)).unwrap_or_else(
        |error| {
            log::warn!("what is marked as changed does not outlive this daemon: {error}");
            own()
        },
    )
}

/// A version without marks that left the mount gets it back, if this one comes to nothing, with what it knows: it is told
/// when programs are served.
fn tell_places(
    holder: Option<&Holder>,
    left: Option<&Left>,
    (view, under, map): (&OwnedFd, &OwnedFd, &Map),
) -> Result<(), Failure> {
    match holder.filter(|_| left.is_none_or(|left| left.marks.is_some())) {
        Some(holder) => holder.places(view.as_fd(), under.as_fd(), map.memory()),
        None => Ok(()),
    }
}

/// Gives what is in doubt on targets since a power loss, beside what change times tell.
fn begin_run(
    options: &ProtectOptions,
    (backing, under): (&OwnedFd, &OwnedFd),
    set: &mut SetState,
    run: Incarnation,
) -> (Option<crate::activity::Known>, Option<Arc<Merge>>) {
    let left = activity::left(options, backing, &set.record);
    let owed = set.begin(run, page_cache(options.tree(), under), &Clock::now(), &left);
    let merge = owed.as_ref().and_then(|known| set.record.merge_of(known));
    (owed, merge)
}

/// For looks at the tree by its path: a mount that waits for this very daemon may cover it.
fn uncovered(options: &ProtectOptions, left: Option<&Left>) -> ProtectOptions {
    let under = left.map(|left| proc_path(left.under.as_fd()));
    ProtectOptions { backing: under.or_else(|| options.backing.clone()), ..options.clone() }
}

/// Where a run begins, and behind what of the last one: of a run that goes on, where that ended. What was left is taken up
/// once, when the mount is there: a start that fails leaves it, a run that is killed does not.
fn begins_behind(
    options: &ProtectOptions,
    record: &mut SetRecord,
    (goes_on, run): (Option<Position>, Incarnation),
) -> (Option<LeftQueue>, Position) {
    let origin = goes_on.unwrap_or(Position::origin(record.epoch, run));
    let Some(left) = record.left.clone() else { return (None, origin) };
    let own = options.queue_disk.as_ref().and(options.queue_directory());
    let behind = left.origin(record.epoch, run).filter(|_| own.as_ref() == Some(&left.directory));
    match behind.filter(|_| goes_on.is_none()) {
        Some(behind) => (Some(left), behind),
        None => {
            record.left = None;
            log::warn!("what was queued before the last stop is not used: it comes by a copy");
            remove_left(&left.directory);
            (None, origin)
        }
    }
}

/// What memory has no room for goes to the disk from here on. Gives the reader that keeps what the last run has left
/// there, until the others are there.
fn open_queue(
    options: &ProtectOptions,
    origin: Position,
    left: Option<&LeftQueue>,
) -> Result<(Arc<Queue>, Option<CursorId>), Failure> {
    let (Some(disk), Some(directory)) = (&options.queue_disk, options.queue_directory()) else {
        // Of a daemon that had one, and was killed.
        remove_left(&options.set_state().join("queue"));
        return Ok((Queue::new(options.queue_memory, origin), None));
    };
    let failed = |error: io::Error| {
        // Of a daemon that a disk keeps from ending.
        let undead = (error.kind() == io::ErrorKind::WouldBlock).then(preflight::undead).flatten();
        let what = format!("the queue in {} cannot be used", directory.display());
        undead.unwrap_or_else(|| io_failure(&what, &error))
    };
    let place = DiskPlace::new(directory.clone(), disk.limit);
    let place = if preflight::beside_queue(options).is_some() { place.beside_others() } else { place };
    let memory = options.queue_memory;
    let (queue, keeper) = match left {
        Some(left) => Queue::with_backlog(memory, origin, place, &left.queue)
            .map(|(queue, keeper)| (queue, Some(keeper))),
        None => Queue::with_disk(memory, origin, place).map(|queue| (queue, None)),
    }
    .map_err(failed)?;
    queue.work_with_disk().map_err(failed)?;
    Ok((queue, keeper))
}

/// Until the directory carries the stamp of this run, the one that it has is known, too: also where it cannot
/// get one (its disk is full, or may only be read). Of one that never had any nothing is known before it has.
fn stamp_run(set: &mut SetState, backing: &OwnedFd, has: Option<Stamp>) -> Result<(), Failure> {
    let stamp = Stamp::new();
    set.record.stamps = has.into_iter().flat_map(|has| [has, stamp]).collect();
    set.save().map_err(|error| io_failure("the set's state cannot be written", &error))?;
    match identity::stamp(backing, stamp) {
        Ok(()) => set.record.stamps = vec![stamp],
        Err(error) => log::warn!("the directory could not be stamped: {error}"),
    }
    Ok(())
}

/// Of the mount under the one that is to come: that one, and the daemon's own view, are new ones.
fn page_cache(tree: &Path, under: &OwnedFd) -> Option<PageCache> {
    PageCache::of(under).inspect_err(|error| log::warn!("{} says no mount: {error}", tree.display())).ok()
}

/// The tree for this daemon alone, and the mount point in nobody's.
fn claim_places(options: &ProtectOptions, backing: &OwnedFd, left: Option<&Left>) -> Result<Claim, Failure> {
    // Before the own claim, which may hold the mount point; of a mount that is there all was checked.
    if left.is_none() {
        preflight::check_outside(mount_point(options))?;
    }
    let was_stood_in = fence_of(backing).is_ok_and(|fence| fence.is_some());
    let role = if options.stand_in.is_some() || was_stood_in { Role::StandIn } else { Role::Source };
    let keeper = left.map(|left| left.holder);
    Claim::take_from(keeper, role, &options.name, options.tree(), duplicate(backing)?)
}

/// Where the mount point is: through a cover the data are seen in its place.
fn mount_point(options: &ProtectOptions) -> &Path {
    let directory = &*options.directory;
    let is_covered = directory != options.tree() && lifting(&options.state, directory).is_some();
    directory.parent().filter(|_| is_covered).unwrap_or(directory)
}

fn no_state(options: &ProtectOptions, error: &StateError) -> Failure {
    let (name, state) = (&options.name, options.set_state());
    match error {
        StateError::Io(error) => {
            io_failure(&format!("the state in {} cannot be used", state.display()), error)
        }
        StateError::InUse => preflight::undead().unwrap_or_else(|| {
            Failure::new(
                format!("Another daemon uses the state of '{name}' in {}.", state.display()),
                NOTHING_MOUNTED,
                "Choose another name with --name, or another state directory with --state.",
            )
        }),
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

/// As [`own_identity`], where all targets know it.
pub(super) fn paired_identity(options: &ProtectOptions) -> Result<Option<Arc<Identity>>, Failure> {
    let own = own_identity(options)?;
    must_be_paired(options, own.as_ref())?;
    Ok(own)
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

/// Before an epoch is raised, which nobody takes back.
fn must_be_paired(options: &ProtectOptions, own: Option<&Arc<Identity>>) -> Result<(), Failure> {
    for target in options.targets.iter().filter(|target| matches!(target, Target::Remote { .. })) {
        Paired::new(target, &options.state, own.ok_or_else(no_identity)?.clone())?;
    }
    Ok(())
}

/// Targets that a person has added while the directory was protected before are its targets.
fn with_added(mut options: ProtectOptions, set: &mut SetState) -> Result<ProtectOptions, Failure> {
    for target in set.record.added_beside(&options.targets) {
        aside!("note: {target} was added while it ran: what changes is sent there, too.");
        options.targets.push(target.clone());
        preflight::check_addition(&options, &target)?;
    }
    Ok(options)
}

/// [`connect`], and the id of a new set is noted before.
fn connect_marked(
    options: &ProtectOptions,
    joining: &Joining,
    (set, found): (&mut SetState, &Found),
    own: (Option<&Arc<Identity>>, Option<CursorId>),
) -> Result<Vec<Arc<Connection>>, Failure> {
    let mark = FirstMark::note(set, &joining.backing, found)?;
    connect(options, joining, set, own).inspect_err(|_| mark.refused(set, &joining.backing, options))
}

/// Connects to all targets that are named. `keeper`: has kept for them what the last run has left.
fn connect(
    options: &ProtectOptions,
    joining: &Joining,
    set: &mut SetState,
    (identity, keeper): (Option<&Arc<Identity>>, Option<CursorId>),
) -> Result<Vec<Arc<Connection>>, Failure> {
    let terms = Terms::at_start(options);
    let mut connections = Vec::new();
    let mut real_targets = 0..;
    for (index, target) in options.targets.iter().enumerate() {
        let known = Enlisted::named(index as u32 + 1, &mut set.record, target);
        if *target == Target::Null {
            connections.push(Arc::new(Connection::null(known.id, known.uuid)));
            continue;
        }
        let (route, embedded) = route(options, joining.set, &known, target, identity)?;
        let watch = real_targets.next().and_then(|target| watch(joining.durability.as_ref(), target));
        let settings = joining.settings(options, target, known, terms.clone(), watch);
        connections.push(Arc::new(joining.start(settings, route, embedded)?));
    }
    joining.left.lock().clear();
    keeper.into_iter().for_each(|keeper| joining.queue.detach(keeper));
    Ok(connections)
}

/// Tells `--fsync=target` how the next real target stands.
fn watch(durability: Option<&Arc<TargetDurability>>, target: usize) -> Option<Watch> {
    let durability = durability?.clone();
    Some(Box::new(move |standing| durability.stands(target, standing)))
}

pub(super) fn no_identity() -> Failure {
    Failure::new("This host has no key.", NOTHING_MOUNTED, "Start again.")
}

/// How the daemon reaches the protected tree.
struct Backing {
    /// A mount of its own: no mount above or below it is ever seen through it, ours neither.
    view: OwnedFd,
    directory: OwnedFd,
    /// The tree on the mount where everybody sees it, ours not yet over it.
    under: OwnedFd,
    mount: Option<BackingMount>,
}

/// The view of a daemon that is gone: nobody gets another one past the mount.
fn go_on_with(left: &Left) -> Result<Backing, Failure> {
    let open = || -> std::io::Result<Backing> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(&left.view, ".", flags, Mode::empty())?;
        let mount = BackingMount::numbered(left.mount_under()?, &MountTable::read()?);
        Ok(Backing { view: left.view.try_clone()?, directory, under: left.under.try_clone()?, mount })
    };
    open().map_err(|error| io_failure("the directory under the mount cannot be opened", &error))
}

fn open_backing(options: &ProtectOptions) -> Result<Backing, Failure> {
    let tree = options.tree();
    let table =
        MountTable::read().map_err(|error| io_failure("the table of mounts cannot be read", &error))?;
    let is_covered = tree == options.directory && lifting(&options.state, tree).is_some();
    let table = if is_covered { table.uncovered(tree, tree) } else { table };
    let open = || -> std::io::Result<Backing> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let under = match is_covered {
            true => under_cover(tree, &table)?,
            false => rustix::fs::open(tree, flags, Mode::empty())?,
        };
        let clone =
            OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
        let view = rustix::mount::open_tree(&under, "", clone)?;
        let writable = (MountOptions::READ_ONLY, MountOptions::default());
        if let Err(error) = set_mount_options(&view, Path::new(""), writable.0, writable.1) {
            log::info!("the daemon's own mount of {}: {error}", tree.display());
        }
        let directory = rustix::fs::openat(&view, ".", flags, Mode::empty())?;
        let mount = BackingMount::holding(tree, &table);
        Ok(Backing { view, directory, under, mount })
    };
    open().map_err(|error| io_failure(&format!("{} cannot be opened", tree.display()), &error))
}

fn start_durability(
    options: &ProtectOptions,
    queue: &Arc<Queue>,
    volume: &Volume,
) -> Result<Option<Arc<TargetDurability>>, Failure> {
    let targets = options.targets.iter().filter(|target| !matches!(target, Target::Null)).count();
    let start = |rule| {
        let known = (volume.divergence().clone(), volume.fence().clone());
        TargetDurability::start(rule, queue.clone(), targets, known)
    };
    options.fsync.map(start).transpose().map_err(|error| io_failure("syncs have no timer thread", &error))
}

pub(super) fn duplicate(descriptor: &OwnedFd) -> Result<OwnedFd, Failure> {
    descriptor.try_clone().map_err(|error| io_failure("a descriptor cannot be duplicated", &error))
}

pub(super) fn io_failure(what: &str, error: &std::io::Error) -> Failure {
    let mut what = format!("{what}: {error}.");
    if let Some(first) = what.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    let next = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "Make room and start again.",
        _ => "Mend this and start again.",
    };
    Failure::new(what, NOTHING_MOUNTED, next)
}
