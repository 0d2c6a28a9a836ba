//! Which process of this host works on which tree: no two on one tree, nor on trees that lie in
//! each other.
//!
//! A daemon keeps, for each of its trees, an open directory and beside it a nameless file (a memfd)
//! that says what the directory is to it. Others find both below `/proc/PID/fd`, whatever state and
//! run directories they have, through which mount, under which name and from which mount namespace
//! the tree is reached. Nothing has to be cleaned up: what a killed process claimed is free.
//!
//! ```text
//!  say it (memfd) ── look at everybody else's ── one of them in, around or at the tree: take it back
//! ```
//! Whoever comes at the same moment sees the other, too: both are refused rather than none. A
//! process of another PID namespace that this one cannot see is not found.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{MemfdFlags, Mode, OFlags};

use crate::failure::Failure;
use crate::sys::{FileHandle, open_by_handle};

/// Name of the nameless file, and how `/proc/PID/fd` shows it.
const NAME: &str = "standin-claim";
const SHOWN: &str = "/memfd:standin-claim (deleted)";

/// Longest text of a claim that is read, in bytes: a path and a few words.
const TEXT_LEN_MAX: u64 = 8192;

/// Deepest directory whose way up is looked at; deeper ones are only compared with what is at
/// them. Far more than paths can have.
const CLIMB_MAX: usize = 100_000;

/// What a tree is to its process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Source,
    Replica,
    ServeRoot,
    Restored,
    /// A replica that is served in its source's place.
    StandIn,
    /// A source whose mount is kept for the next daemon.
    Kept,
}

impl Role {
    fn word(self) -> &'static str {
        match self {
            Role::Source => "source",
            Role::Replica => "replica",
            Role::ServeRoot => "serve",
            Role::Restored => "restored",
            Role::StandIn => "stand-in",
            Role::Kept => "kept",
        }
    }

    /// Whether both may have their trees: a target lets a replica of its go to whoever stands in with it.
    fn lets(self, other: Role, contact: Contact) -> bool {
        match (self, other) {
            (Role::StandIn, Role::ServeRoot) => contact == Contact::Inside,
            (Role::ServeRoot, Role::StandIn) => contact == Contact::Around,
            _ => false,
        }
    }

    fn parse(word: &str) -> Option<Role> {
        let all = [Role::Source, Role::Replica, Role::ServeRoot, Role::Restored, Role::StandIn, Role::Kept];
        all.into_iter().find(|role| role.word() == word)
    }
}

/// A tree that this process works on, for as long as this lives.
pub struct Claim {
    _note: File,
    _tree: OwnedFd,
}

impl Claim {
    /// Takes the tree behind a directory's descriptor (not `O_PATH`); `path` is what people call
    /// it, `set` the replication set, empty where it is for all.
    ///
    /// Errors: somebody has it, or something in it or around it, with the name of who.
    pub fn take(role: Role, set: &str, path: &Path, tree: OwnedFd) -> Result<Claim, Failure> {
        Claim::take_from(None, role, set, path, tree)
    }

    /// As [`Claim::take`]; the process that has [kept](Claim::keep) it does not count.
    pub fn take_from(
        keeper: Option<u32>,
        role: Role,
        set: &str,
        path: &Path,
        tree: OwnedFd,
    ) -> Result<Claim, Failure> {
        let note = publish(role, set, path, &tree).map_err(|error| unknown(path, &error))?;
        let own = note.metadata().map_err(|error| unknown(path, &error))?;
        let counts = |other: &Holder, contact| {
            let is_keeper = other.role == Role::Kept && Some(other.pid) == keeper;
            !is_keeper && !role.lets(other.role, contact)
        };
        let found =
            find(&tree, Some((own.dev(), own.ino())), counts).map_err(|error| unknown(path, &error))?;
        match found {
            Some((holder, contact)) => Err(refusal(path, &holder, contact)),
            None => Ok(Claim { _note: note, _tree: tree }),
        }
    }

    /// Keeps a tree for the next daemon, beside the one that has taken it.
    pub fn keep(set: &str, path: &Path, tree: OwnedFd) -> io::Result<Claim> {
        Ok(Claim { _note: publish(Role::Kept, set, path, &tree)?, _tree: tree })
    }
}

/// Refuses a place that is, or lies in, a tree that somebody works on; what lies below the place
/// does not matter.
pub fn check_outside(place: &Path) -> Result<(), Failure> {
    let found = open_directory(place)
        .and_then(|dir| find(&dir, None, |_, contact| contact != Contact::Around))
        .map_err(|error| unknown(place, &error))?;
    match found {
        Some((holder, contact)) => Err(refusal(place, &holder, contact)),
        None => Ok(()),
    }
}

/// A directory, opened so that it can be claimed.
pub fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// How a tree lies to another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Contact {
    Same,
    Inside,
    Around,
}

/// Who has a tree.
struct Holder {
    pid: u32,
    role: Role,
    set: String,
    path: PathBuf,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Holder { pid, role, set, .. } = self;
        match role {
            Role::Source => write!(f, "the protection of '{set}' (pid {pid})"),
            Role::Replica => write!(f, "the protection of '{set}' (pid {pid}) as its replica"),
            Role::ServeRoot => write!(f, "`standin serve` (pid {pid}) for its replicas"),
            Role::Restored => write!(f, "`standin restore` (pid {pid}) for '{set}'"),
            Role::StandIn => write!(f, "the stand-in for '{set}' (pid {pid})"),
            Role::Kept => write!(f, "the mount of '{set}', which `standin hold-mount` (pid {pid}) keeps"),
        }
    }
}

fn refusal(path: &Path, holder: &Holder, contact: Contact) -> Failure {
    let (shown, theirs) = (path.display(), holder.path.display());
    let what = match contact {
        Contact::Same if path == holder.path => format!("{shown} is used by {holder}."),
        Contact::Same => format!("{shown} is {theirs}, which is used by {holder}."),
        Contact::Inside => format!("{shown} is inside {theirs}, which is used by {holder}."),
        Contact::Around => format!("{shown} is around {theirs}, which is used by {holder}."),
    };
    let next = match holder.role {
        _ if holder.pid == std::process::id() => {
            "Choose places that do not lie in each other; symlinks and bind mounts count."
        }
        Role::Kept => {
            "Start that protection again with the command that it was started with, or have its mount end \
             (`standin stop`); or choose another directory."
        }
        _ => "Stop that one first, or choose another directory; bind mounts and other names do not help.",
    };
    Failure::new(what, "Nothing was mounted or written; the other one goes on as before.", next)
}

fn unknown(path: &Path, error: &io::Error) -> Failure {
    Failure::new(
        format!("It cannot be found out who works on {}: {error}.", path.display()),
        "Nothing was mounted or written.",
        "Check its permissions, and those of /proc.",
    )
}

/// ```text
/// role \n set \n number of the tree's descriptor \n path
/// ```
fn publish(role: Role, set: &str, path: &Path, tree: &OwnedFd) -> io::Result<File> {
    let mut note = File::from(rustix::fs::memfd_create(NAME, MemfdFlags::CLOEXEC)?);
    let mut text = format!("{}\n{set}\n{}\n", role.word(), tree.as_raw_fd()).into_bytes();
    text.extend_from_slice(path.as_os_str().as_bytes());
    assert!(text.len() as u64 <= TEXT_LEN_MAX, "a claim of {} bytes, which nobody reads whole", text.len());
    // In one piece: whoever finds it half written would overlook it.
    note.write_all(&text)?;
    Ok(note)
}

/// The first claim that the tree touches in a way that counts. `own` is left out: a note by its
/// device and inode.
fn find(
    tree: &OwnedFd,
    own: Option<(u64, u64)>,
    counts: impl Fn(&Holder, Contact) -> bool,
) -> io::Result<Option<(Holder, Contact)>> {
    for entry in fs::read_dir("/proc")? {
        let pid = entry.ok().and_then(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let Some(pid) = pid else { continue };
        for (note, text) in notes_of(pid) {
            if Some(note) != own
                && let Some((holder, theirs)) = parse(pid, &text)
                && let Some(contact) = contact(tree, &theirs)?.filter(|contact| counts(&holder, *contact))
            {
                return Ok(Some((holder, contact)));
            }
        }
    }
    Ok(None)
}

/// The claims of a process, each with device and inode of its note. Only root's count: a user must
/// not keep a directory from being protected.
fn notes_of(pid: u32) -> Vec<((u64, u64), Vec<u8>)> {
    let mut notes = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
        let path = entry.path();
        if fs::read_link(&path).map_or(true, |link| link != Path::new(SHOWN)) {
            continue;
        }
        let mut text = Vec::new();
        let read = File::open(&path).and_then(|file| {
            let meta = file.metadata()?;
            file.take(TEXT_LEN_MAX).read_to_end(&mut text)?;
            Ok(meta)
        });
        if let Ok(meta) = read
            && meta.uid() == 0
        {
            notes.push(((meta.dev(), meta.ino()), text));
        }
    }
    notes
}

/// Who it is, and the directory itself; `None` where the process has just ended.
fn parse(pid: u32, text: &[u8]) -> Option<(Holder, OwnedFd)> {
    let mut lines = text.splitn(4, |byte| *byte == b'\n');
    let mut word = || std::str::from_utf8(lines.next()?).ok();
    let (role, set) = (Role::parse(word()?)?, word()?.to_owned());
    let descriptor: u32 = word()?.parse().ok()?;
    let path = PathBuf::from(std::ffi::OsString::from_vec(lines.next()?.to_owned()));
    let theirs = open_directory(Path::new(&format!("/proc/{pid}/fd/{descriptor}"))).ok()?;
    Some((Holder { pid, role, set, path }, theirs))
}

/// How `ours` lies to `theirs`; `None`: apart.
fn contact(ours: &OwnedFd, theirs: &OwnedFd) -> io::Result<Option<Contact>> {
    let (our_id, their_id) = (identity(ours)?, identity(theirs)?);
    if our_id == their_id {
        return Ok(Some(Contact::Same));
    }
    // Trees on different file systems share nothing.
    if our_id.0 != their_id.0 {
        return Ok(None);
    }
    Ok(match () {
        () if is_below(ours, theirs, their_id) => Some(Contact::Inside),
        () if is_below(theirs, ours, our_id) => Some(Contact::Around),
        () => None,
    })
}

fn identity(dir: &OwnedFd) -> io::Result<(u64, u64)> {
    let stat = rustix::fs::fstat(dir)?;
    Ok((stat.st_dev, stat.st_ino))
}

/// Climbs from `inner` through the mount of `outer`: there the way up leads through `outer` if
/// it lies above, whatever is bound where; what that mount does not show has no way up.
fn is_below(inner: &OwnedFd, outer: &OwnedFd, outer_id: (u64, u64)) -> bool {
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    let opened =
        FileHandle::of(inner.as_fd()).and_then(|handle| open_by_handle(outer.as_fd(), &handle, flags));
    let Ok(mut dir) = opened else { return false };
    let Ok(mut at) = identity(&dir) else { return false };
    for _ in 0..CLIMB_MAX {
        let above = rustix::fs::openat(&dir, c"..", OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
        let Ok(above) = above else { return false };
        match identity(&above) {
            Ok(id) if id == outer_id => return true,
            Ok(id) if id != at => (dir, at) = (above, id),
            // The root, or an error.
            Ok(_) | Err(_) => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Ground(tempfile::TempDir);

    impl Ground {
        fn new() -> Ground {
            assert!(rustix::process::geteuid().is_root(), "this test needs root");
            let ground = Ground(tempfile::tempdir().unwrap());
            fs::create_dir_all(ground.path("tree/sub/deep")).unwrap();
            fs::create_dir_all(ground.path("tree2")).unwrap();
            ground
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn claim(&self, name: &str) -> Result<Claim, Failure> {
            let path = self.path(name);
            Claim::take(Role::Source, "a set", &path, open_directory(&path).unwrap())
        }

        #[track_caller]
        fn refused(&self, name: &str, part: &str) {
            let part = format!("{} {part}", self.path(name).display());
            let failure = self.claim(name).err().unwrap_or_else(|| panic!("{name} was given away"));
            assert!(failure.what.contains(&part) && failure.what.contains("'a set'"), "{failure}");
        }
    }

    /// Two daemons on one tree, or on trees in each other, overwrote acknowledged writes: the lock
    /// was on the name of a set.
    #[test]
    fn a_tree_is_claimed_with_all_above_and_below_it() {
        let ground = Ground::new();
        let held = ground.claim("tree/sub").unwrap();
        ground.refused("tree/sub", "is used by");
        ground.refused("tree/sub/deep", "is inside");
        ground.refused("tree", "is around");
        drop(ground.claim("tree2").unwrap());
        let deep = ground.path("tree/sub/deep");
        assert!(check_outside(&deep).is_err());
        check_outside(&ground.path("tree")).unwrap();
        drop(held);
        drop(ground.claim("tree").unwrap());
        check_outside(&deep).unwrap();
    }

    #[test]
    fn other_names_of_a_tree_do_not_help() {
        let ground = Ground::new();
        let held = ground.claim("tree/sub").unwrap();
        fs::rename(ground.path("tree"), ground.path("tree2/moved")).unwrap();
        ground.refused("tree2/moved/sub", "is ");
        ground.refused("tree2", "is around");
        // A bind mount shows nothing of what lies above it.
        let bind = ground.path("bind");
        fs::create_dir(&bind).unwrap();
        rustix::mount::mount_bind(ground.path("tree2/moved/sub/deep"), &bind).unwrap();
        let outcome = ground.claim("bind");
        rustix::mount::unmount(&bind, rustix::mount::UnmountFlags::DETACH).unwrap();
        assert!(outcome.is_err_and(|failure| failure.what.contains("is inside")));
        drop(held);
    }

    /// A child that dies without a word leaves nothing behind; while it lives it is named.
    #[test]
    fn a_claim_dies_with_its_process() {
        let ground = Ground::new();
        let tree = open_directory(&ground.path("tree")).unwrap();
        let note = File::from(rustix::fs::memfd_create(NAME, MemfdFlags::CLOEXEC).unwrap());
        (&note).write_all(b"replica\na set\n1\n/somewhere").unwrap();
        let mut child =
            std::process::Command::new("sleep").arg("60").stdin(note).stdout(tree).spawn().unwrap();
        let failure = ground.claim("tree/sub").err().expect("the child has it");
        assert!(failure.what.contains(&format!("pid {}", child.id())), "{failure}");
        child.kill().unwrap();
        child.wait().unwrap();
        ground.claim("tree/sub").unwrap();
    }
}
