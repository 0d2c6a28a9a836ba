//! Checks before a mount goes up. Each stands for a way in which data would be missed, hidden or
//! destroyed; nothing here changes anything on disk.
//!
//! ```text
//! standing_mount ──> (caller detaches a dead one) ──> check
//! ```

mod claims;
mod elsewhere;
mod facts;
mod holdings;
mod mounts;
mod paths;
mod queue;
#[cfg(test)]
mod tests;
mod users;

pub use claims::{Claim, Role, check_outside, open_directory};
pub use elsewhere::{Elsewhere, Way, Ways};
pub use facts::{FsFacts, existing_ancestor, kernel_version, open_dev_fuse};
pub use mounts::{FS_TYPE, Location, Mount, MountTable, Pulse, pulse};
pub use paths::{Relation, is_within, relation, resolve, resolve_own};
pub use queue::{beside_queue, check_again as check_places_again};
pub use users::{Use, UseKind, User, Users, open_writers, users_of};

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::failure::Failure;
use crate::sys::{self, MountOptions};
use crate::words::{ProtectOptions, RESERVED_NAME, Target};

/// Nothing stands in the way of the mount.
#[derive(Clone, Debug)]
pub struct Preflight {
    /// About the file system of the protected tree.
    pub facts: FsFacts,
    /// Mounts below the tree that the new one hides (allowed by `--hide-nested`).
    pub hidden: Vec<PathBuf>,
    /// Writers past the mount (allowed by `--force`).
    pub writers: Vec<Use>,
    /// Other ways to the tree, past the mount.
    pub ways: Ways,
    /// What a person should know, in whole sentences; the above included.
    pub warnings: Vec<String>,
}

/// A mount that a killed daemon left: it answers `ENOTCONN` until it is detached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadMount {
    pub point: PathBuf,
}

const NOTHING_DONE: &str = "Nothing was mounted or written.";

/// Looks whether this product is already mounted at, above or below the directory (resolved).
/// A dead mount exactly there is given back: detach it (`umount -l`) before [`check`].
///
/// Errors: a living or hung mount there; any mount of this product above or below.
pub fn standing_mount(directory: &Path) -> Result<Option<DeadMount>, Failure> {
    if directory == Path::new("/") {
        check_directory(directory)?;
    }
    let mounts = MountTable::read().map_err(|error| unreadable("/proc/self/mountinfo", &error))?;
    let shown = directory.display();
    for mount in mounts.standin() {
        let point = mount.point.display();
        if mount.point == directory {
            continue;
        }
        let place = match () {
            _ if directory.starts_with(&mount.point) => "inside",
            _ if mount.point.starts_with(directory) => "around",
            _ => continue,
        };
        return Err(Failure::new(
            format!("{shown} is {place} {point}, which standin already protects."),
            NOTHING_DONE,
            format!(
                "Stop the protection of {point} first (standin stop {point}), or choose another directory."
            ),
        ));
    }
    if !mounts.at(directory).is_some_and(Mount::is_standin) {
        return Ok(None);
    }
    let pulse = pulse(directory);
    if let (Pulse::Hung, Some(failure)) = (pulse, undead()) {
        return Err(failure);
    }
    let ending = match pulse {
        Pulse::Dead => return Ok(Some(DeadMount { point: directory.to_owned() })),
        Pulse::Alive => "is already protected by standin",
        Pulse::Hung => "is already protected by a standin daemon that does not answer",
    };
    Err(Failure::new(
        format!("{shown} {ending}."),
        "The running protection goes on as before.",
        format!("See `standin status {shown}`; `standin stop {shown}` ends it."),
    ))
}

/// A daemon that was killed, and that a disk keeps from ending, has what it had: whoever comes next cannot.
pub fn undead() -> Option<Failure> {
    let sys::Undead { pid, thread } = sys::undead()?;
    Some(
        Failure::new(
            format!(
                "A standin process of this host (pid {pid}) was ended and keeps what it had: a thread of it ({thread}) \
                 waits for a disk that does not answer."
            ),
            "Nothing was mounted or written; nothing is replicated meanwhile.",
            "See which disk hangs (dmesg) and mend it: that process ends when the disk answers. Start again then.",
        )
        .passing(),
    )
}

/// All checks, in the order in which a person would fix what they find. Dead mounts are gone.
pub fn check(options: &ProtectOptions) -> Result<Preflight, Failure> {
    check_but(options, None)
}

/// Statistics are written into nobody's tree: neither what another daemon replicates, nor its replicas.
pub fn check_statistics(file: &Path) -> Result<(), Failure> {
    check_outside(&existing_ancestor(file.parent().unwrap_or(file)))
}

/// What is known of a tree whose mount is taken over: all was checked before it was made, and nothing is looked at
/// that would ask its daemon. `under`: the directory itself, which is on the mount with this number.
pub fn surmise(tree: &Path, under: &Path, mount: u64) -> Result<Preflight, Failure> {
    let facts = FsFacts::of(under).map_err(|error| unreadable(&tree.display().to_string(), &error))?;
    let ways = Ways::under(tree, mount).map_err(|error| unreadable("/proc/self/mountinfo", &error))?;
    let warnings = fs_warnings(tree, &facts);
    Ok(Preflight { facts, hidden: Vec::new(), writers: Vec::new(), ways, warnings })
}

/// As [`check`], but for files that this process has open: it lets them go before the mount.
pub fn check_but(options: &ProtectOptions, lets_go: Option<u32>) -> Result<Preflight, Failure> {
    check_root_user(rustix::process::geteuid().as_raw())?;
    open_dev_fuse().map_err(|error| {
        Failure::new(
            format!("/dev/fuse cannot be used: {error}."),
            NOTHING_DONE,
            "Load the kernel module (modprobe fuse); in a container, pass the device in.",
        )
    })?;
    check_directory(&options.directory)?;
    check_directory(options.tree())?;
    let mounts = MountTable::read().map_err(|error| unreadable("/proc/self/mountinfo", &error))?;
    let mounts = mounts.uncovered(&options.directory, options.tree());
    check_places(options, &mounts)?;
    let shared = queue::check(options)?;
    options.statistics.as_ref().map_or(Ok(()), |to| check_statistics(&to.path))?;
    for target in &options.targets {
        check_target(target)?;
    }
    let tree = options.tree();
    let mut facts = FsFacts::of(tree).map_err(|error| unreadable(&tree.display().to_string(), &error))?;
    // As it is below a cover.
    let is_read_only = |mount: &Mount| !mount.options.only(MountOptions::READ_ONLY).is_empty();
    facts.read_only &= mounts.holding(tree).is_none_or(is_read_only);
    check_handles(tree, &facts, &options.targets)?;
    let mut warnings = fs_warnings(tree, &facts);
    warnings.extend(shared);
    let hidden = check_nested(options, &mounts, &facts)?;
    if !hidden.is_empty() {
        warnings.push(format!("Hidden by the mount, and not replicated: {}.", list(&hidden)));
    }
    if tree.join(RESERVED_NAME).symlink_metadata().is_ok_and(|meta| !is_limbo(&meta)) {
        warnings.push(format!(
            "{RESERVED_NAME} at the top of {} is not shown by the mount, and not replicated: that name is standin's own. If it is \
             yours, give it another one.",
            tree.display()
        ));
    }
    let writers = check_users(options, lets_go, &mut warnings)?;
    let ways = Ways::to(tree, &mounts).map_err(|error| unreadable("/proc/self/mountinfo", &error))?;
    warnings.extend(elsewhere_warning(&ways.look().map_err(|error| unreadable("/proc", &error))?));
    Ok(Preflight { facts, hidden, writers, ways, warnings })
}

/// As a target makes it in a replica that is a mount point: that directory was, or is, one.
fn is_limbo(meta: &fs::Metadata) -> bool {
    meta.is_dir() && (meta.uid(), meta.mode() & 0o7777) == (0, 0o700)
}

/// Only root can mount for all users, keep owners and open by handle.
pub fn check_root_user(uid: u32) -> Result<(), Failure> {
    match uid {
        0 => Ok(()),
        uid => Err(Failure::new(
            format!("Protecting a directory needs root; this is user {uid}."),
            NOTHING_DONE,
            "Start it as root, for example with sudo or as a systemd service.",
        )),
    }
}

/// A directory that exists and is not `/`.
pub fn check_directory(dir: &Path) -> Result<(), Failure> {
    let shown = dir.display();
    if dir == Path::new("/") {
        return Err(Failure::new(
            "/ cannot be protected: the system, and this daemon itself, live in it.",
            NOTHING_DONE,
            "Choose the directories that hold the data, as /srv or /home.",
        ));
    }
    match fs::symlink_metadata(dir) {
        Ok(meta) if meta.is_dir() => Ok(()),
        Ok(_) => Err(Failure::new(
            format!("{shown} is no directory."),
            NOTHING_DONE,
            "Name the directory that it is in: standin protects whole directories.",
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Failure::new(
            format!("{shown} does not exist."),
            NOTHING_DONE,
            format!("Check the spelling, or create it: mkdir {shown}"),
        )),
        Err(error) => Err(unreadable(&shown.to_string(), &error)),
    }
}

/// The places of a set and what they are called in messages.
struct Place<'a> {
    what: &'static str,
    path: &'a Path,
}

/// No two of: tree, mount point, replicas, state, may lie in each other where one would eat or
/// replicate the other.
pub fn check_places(options: &ProtectOptions, mounts: &MountTable) -> Result<(), Failure> {
    let tree = Place { what: "the protected directory", path: options.tree() };
    if let Some(backing) = &options.backing {
        let mount_point = Place { what: "the mount point", path: &options.directory };
        refuse_contact(&Place { what: "the backing directory", path: backing }, &mount_point, mounts)?;
    }
    let mut own = vec![
        Place { what: "the state directory", path: &options.state },
        Place { what: "the run directory", path: &options.run },
    ];
    let queue = options.queue_disk.as_ref().and_then(|disk| disk.parent.as_deref());
    own.extend(queue.map(|path| Place { what: "the directory for the queue", path }));
    let statistics = options.statistics.as_ref();
    own.extend(statistics.map(|to| Place { what: "the file for the statistics", path: &to.path }));
    for place in &own {
        refuse_inside(place, &tree, mounts)?;
        refuse_inside(place, &Place { what: "the mount point", path: &options.directory }, mounts)?;
    }
    let replicas: Vec<Place<'_>> = options
        .targets
        .iter()
        .filter_map(|target| match target {
            Target::Local(path) => Some(Place { what: "the replica", path }),
            Target::Null | Target::Remote { .. } => None,
        })
        .collect();
    for (at, replica) in replicas.iter().enumerate() {
        refuse_contact(replica, &tree, mounts)?;
        refuse_contact(replica, &Place { what: "the mount point", path: &options.directory }, mounts)?;
        own.iter().try_for_each(|place| refuse_inside(place, replica, mounts))?;
        for other in &replicas[at + 1..] {
            refuse_contact(replica, &Place { what: "another replica", path: other.path }, mounts)?;
        }
    }
    if let Some(queue) = options.queue_directory() {
        let queue = Place { what: "the directory of the queue", path: &queue };
        refuse_contact(&queue, &tree, mounts)?;
        refuse_contact(&queue, &Place { what: "the mount point", path: &options.directory }, mounts)?;
        replicas.iter().try_for_each(|replica| refuse_contact(&queue, replica, mounts))?;
    }
    Ok(())
}

fn refuse_inside(inner: &Place<'_>, outer: &Place<'_>, mounts: &MountTable) -> Result<(), Failure> {
    match relation(inner.path, outer.path, mounts) {
        Relation::Apart | Relation::Around => Ok(()),
        Relation::Same => Err(contact(inner, "is", outer)),
        Relation::Inside => Err(contact(inner, "is inside", outer)),
    }
}

fn refuse_contact(first: &Place<'_>, second: &Place<'_>, mounts: &MountTable) -> Result<(), Failure> {
    match relation(first.path, second.path, mounts) {
        Relation::Apart => Ok(()),
        Relation::Same => Err(contact(first, "is", second)),
        Relation::Inside => Err(contact(first, "is inside", second)),
        Relation::Around => Err(contact(second, "is inside", first)),
    }
}

fn contact(first: &Place<'_>, verb: &str, second: &Place<'_>) -> Failure {
    let named = |place: &Place<'_>| format!("{} ({})", place.what, place.path.display());
    let mut what = format!("{} {verb} {}.", named(first), named(second));
    what[..1].make_ascii_uppercase();
    Failure::new(
        what,
        NOTHING_DONE,
        "Choose places that do not lie in each other; symlinks and bind mounts count.",
    )
}

/// What can be known of a target before it is opened; its identity is the applier's to check.
pub fn check_target(target: &Target) -> Result<(), Failure> {
    let replica = match target {
        // What a target on another host says is known only once it is connected.
        Target::Null | Target::Remote { .. } => return Ok(()),
        Target::Local(replica) => replica,
    };
    let shown = replica.display();
    match fs::metadata(replica) {
        Ok(meta) if meta.is_dir() => Ok(()),
        Ok(_) => Err(Failure::new(
            format!("The replica {shown} is no directory."),
            "The file was not touched, and nothing was mounted.",
            "Name a directory, or a path that does not exist yet.",
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let parent = replica.parent().unwrap_or(Path::new("/"));
            check_directory_or_root(parent).map_err(|_| {
                Failure::new(
                    format!("The replica {shown} cannot be created: {} is no directory.", parent.display()),
                    NOTHING_DONE,
                    "Create the parent directory first; if it is on another disk, mount that.",
                )
            })
        }
        Err(error) => Err(unreadable(&shown.to_string(), &error)),
    }
}

/// What can be known of a target that comes to those that are there, while the directory is protected.
pub fn check_addition(options: &ProtectOptions, target: &Target) -> Result<(), Failure> {
    let mounts = MountTable::read().map_err(|error| unreadable("/proc/self/mountinfo", &error))?;
    // A cover goes when something is mounted there.
    let mounts = mounts.uncovered(&options.directory, options.tree());
    check_places(options, &mounts)?;
    check_target(target)
}

/// A copy names objects by file handles; capture alone does without.
pub fn check_handles(tree: &Path, facts: &FsFacts, targets: &[Target]) -> Result<(), Failure> {
    if facts.handles || targets.iter().all(|target| matches!(target, Target::Null)) {
        return Ok(());
    }
    Err(Failure::new(
        format!(
            "The file system of {} ({}) has no file handles: it cannot be replicated.",
            tree.display(),
            facts.fs_type
        ),
        NOTHING_DONE,
        "Protect a directory on ext4, XFS, btrfs or another file system with file handles; of an overlay, \
         the volume with the data (or mount it with index=on,nfs_export=on).",
    ))
}

fn check_directory_or_root(dir: &Path) -> Result<(), Failure> {
    if dir == Path::new("/") { Ok(()) } else { check_directory(dir) }
}

/// Mounts and subvolumes below the tree: a mount over it hides them, and they are not replicated.
pub fn check_nested(
    options: &ProtectOptions,
    mounts: &MountTable,
    facts: &FsFacts,
) -> Result<Vec<PathBuf>, Failure> {
    let mut nested = nested_in(options.tree(), mounts, facts);
    if options.backing.is_some() {
        nested.extend(mounts.below(&options.directory).into_iter().map(|mount| mount.point.clone()));
    }
    if nested.is_empty() || options.hide_nested {
        return Ok(nested);
    }
    Err(Failure::new(
        format!(
            "Other file systems lie below {}; they would be hidden and not replicated: {}.",
            options.tree().display(),
            list(&nested)
        ),
        NOTHING_DONE,
        "Unmount them, protect each by itself, or start with --hide-nested.",
    ))
}

/// Mounts below a directory, and on btrfs also subvolumes that are reached without a mount.
pub fn nested_in(tree: &Path, mounts: &MountTable, facts: &FsFacts) -> Vec<PathBuf> {
    let mut nested: Vec<PathBuf> = mounts.below(tree).into_iter().map(|mount| mount.point.clone()).collect();
    if facts.fs_type == "btrfs" {
        let device = fs::symlink_metadata(tree).map(|meta| meta.dev()).unwrap_or(0);
        find_subvolumes(tree, device, mounts, &mut nested);
    }
    nested.sort();
    nested.dedup();
    nested
}

/// A subvolume's root has inode 256 and a device number of its own.
fn find_subvolumes(tree: &Path, device: u64, mounts: &MountTable, found: &mut Vec<PathBuf>) {
    const SUBVOLUME_ROOT: u64 = 256;
    let mut todo = vec![tree.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) || mounts.at(&path).is_some() {
                continue;
            }
            match fs::symlink_metadata(&path) {
                Ok(meta) if meta.ino() == SUBVOLUME_ROOT && meta.dev() != device => found.push(path),
                Ok(_) => todo.push(path),
                Err(_) => {}
            }
        }
    }
}

/// How long a program that is ending, or is becoming another one (between fork and exec), may have a file open still.
const LINGERS: Duration = Duration::from_secs(1);

/// Files that are open for writing keep being written past the mount, unseen.
pub fn check_users(
    options: &ProtectOptions,
    lets_go: Option<u32>,
    warnings: &mut Vec<String>,
) -> Result<Vec<Use>, Failure> {
    let tree = options.tree();
    let look = || -> Result<_, Failure> {
        let mut users = users_of(tree).map_err(|error| unreadable("/proc", &error))?;
        users.uses.retain(|entry| !matches!(entry.user, User::Process { pid, .. } if Some(pid) == lets_go));
        let writers = open_writers(&users);
        Ok((users, writers))
    };
    let (mut users, mut writers) = look()?;
    let until = Instant::now() + LINGERS;
    while !writers.is_empty() && !options.force && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(50));
        (users, writers) = look()?;
    }
    if !writers.is_empty() && !options.force {
        return Err(Failure::new(
            format!(
                "Files in {} are open for writing past the mount: {}.",
                tree.display(),
                list_uses(&writers)
            ),
            NOTHING_DONE,
            "Stop these programs and start them again when the mount is up; \
             --force starts anyway, and what they write is not replicated.",
        ));
    }
    if !writers.is_empty() {
        warnings.push(format!("Writes past the mount are not replicated: {}.", list_uses(&writers)));
    }
    let idle: Vec<Use> = users
        .others()
        .filter(|entry| matches!(entry.kind, UseKind::WorkingDirectory | UseKind::Root))
        .cloned()
        .collect();
    if !idle.is_empty() {
        warnings.push(format!(
            "Programs that stand in the directory go on seeing it without the mount, what they write by \
             relative paths is not replicated: {}.",
            list_uses(&idle)
        ));
    }
    Ok(writers)
}

/// Names the ways to the tree that a mount over it does not close.
pub fn elsewhere_warning(ways: &[Elsewhere]) -> Option<String> {
    let listed = cut(ways.iter().map(Elsewhere::to_string).collect());
    (!ways.is_empty()).then(|| {
        format!(
            "The directory is open past the mount, and what is written there is not replicated: {listed}."
        )
    })
}

/// What this file system withholds from the replication, in whole sentences.
pub fn fs_warnings(tree: &Path, facts: &FsFacts) -> Vec<String> {
    let shown = tree.display();
    let mut warnings = Vec::new();
    if !facts.handles {
        warnings.push(format!(
            "The file system of {shown} ({}) has no file handles: every object in use costs a descriptor.",
            facts.fs_type
        ));
    }
    if facts.read_only {
        warnings.push(format!("The file system of {shown} is mounted read-only."));
    }
    if facts.errors > 0 {
        warnings.push(format!(
            "The file system of {shown} has met errors in itself ({}) since it was last checked: what a damaged directory \
             does not list any more is taken for deleted. Check it first (e2fsck -f, unmounted).",
            facts.errors
        ));
    }
    if !facts.trusted_xattrs {
        warnings.push(format!(
            "The file system of {shown} ({}) holds no trusted.* attributes: the identity is kept in the state directory.",
            facts.fs_type
        ));
    }
    warnings
}

fn list(paths: &[PathBuf]) -> String {
    cut(paths.iter().map(|path| path.display().to_string()).collect())
}

/// As in "cat (pid 7) has open for writing /srv/x".
pub fn list_uses(uses: &[Use]) -> String {
    cut(uses.iter().map(Use::to_string).collect())
}

/// The first ten and how many more.
fn cut(mut items: Vec<String>) -> String {
    const SHOWN: usize = 10;
    let more = items.len().saturating_sub(SHOWN);
    items.truncate(SHOWN);
    let text = items.join(", ");
    if more > 0 { format!("{text} and {more} more") } else { text }
}

fn unreadable(what: &str, error: &io::Error) -> Failure {
    Failure::new(
        format!("{what} cannot be read: {error}."),
        NOTHING_DONE,
        "Check its permissions and its file system.",
    )
}
