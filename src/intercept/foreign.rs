//! What others did to objects past the mount, noticed where they are looked at anyway.
//!
//! Each node remembers the change time that the last op on it left, or the first look at it. A
//! later one that no op explains is somebody else's. An object that is met for the first time has
//! to be older than the mount, or than the last op on an object that was forgotten meanwhile.
//! Nothing is watched: what nobody looks at through the mount is not noticed.
//!
//! A change time alone is weak: it moves as well when a hard link outside of the tree is made or
//! removed (every rotation of a backup by hard links), and by `chattr`. Only a time of content, a
//! size, an owner or mode, or a birth after the start shows that the replica lacks something.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use rustix::fs::{AtFlags, Stat, StatxFlags};

use super::change::turns::turn;
use super::objects::{Node, Pinned};
use super::volume::Volume;

/// How an op, or the first look, left an object. A leaf lock.
#[derive(Default)]
pub struct Left(Mutex<Option<Look>>);

#[derive(Clone, Copy)]
struct Look {
    /// Change time, nanoseconds since 1970.
    changed: i64,
    links: u32,
    /// Hash of what else a change time stands for, names of the object aside.
    rest: u32,
}

impl Look {
    fn of(stat: &Stat) -> Look {
        let facts = [
            stat.st_mtime.to_le_bytes(),
            (stat.st_mtime_nsec as i64).to_le_bytes(),
            stat.st_size.to_le_bytes(),
            (u64::from(stat.st_mode) << 32).to_le_bytes(),
            (u64::from(stat.st_uid) << 32 | u64::from(stat.st_gid)).to_le_bytes(),
        ];
        let rest = xxhash_rust::xxh3::xxh3_64(facts.as_flattened()) as u32;
        Look { changed: changed(stat), links: stat.st_nlink as u32, rest }
    }
}

impl Left {
    /// This is how the object is now, and how it has to be.
    pub fn learn(&self, stat: &Stat) {
        *self.0.lock() = Some(Look::of(stat));
    }

    /// An op is about to change the object: what is seen next is right.
    pub fn forget(&self) {
        *self.0.lock() = None;
    }

    fn agrees(&self, stat: &Stat) -> bool {
        self.changed() == Some(changed(stat))
    }

    fn changed(&self) -> Option<i64> {
        self.0.lock().map(|look| look.changed)
    }

    /// What speaks for somebody else's change. Another name outside of the tree is none.
    fn evidence(&self, stat: &Stat) -> Evidence {
        let Some(before) = *self.0.lock() else { return Evidence::None };
        let now = Look::of(stat);
        match () {
            () if before.changed == now.changed => Evidence::None,
            () if before.rest != now.rest => Evidence::Change,
            () if before.links != now.links => Evidence::None,
            () => Evidence::Touch,
        }
    }
}

/// What was seen of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Evidence {
    None,
    /// A change time that nothing explains, and nothing else.
    Touch,
    /// The replica lacks something.
    Change,
}

/// The latest change time that an object may have that is met for the first time.
pub struct Newest(AtomicI64);

impl Default for Newest {
    fn default() -> Newest {
        Newest(AtomicI64::new(i64::MAX))
    }
}

impl Newest {
    /// From now on what is new is made through the mount.
    pub fn begin(&self) {
        self.0.store(now(), Relaxed);
    }

    /// A node goes: its object may be met again.
    pub fn forgotten(&self, left: &Left) {
        self.0.fetch_max(left.changed().unwrap_or_else(now), Relaxed);
    }

    /// `born`: when the object was made, where its file system knows that. Times that are still to
    /// come are an old clock's.
    fn evidence(&self, stat: &Stat, born: impl FnOnce() -> Option<i64>) -> Evidence {
        let newest = self.0.load(Relaxed);
        let is_new = |moment: i64| moment > newest && moment <= now();
        match () {
            () if !is_new(changed(stat)) => Evidence::None,
            () if is_new(nanoseconds(stat.st_mtime, stat.st_mtime_nsec as i64)) => Evidence::Change,
            () if born().is_some_and(is_new) => Evidence::Change,
            () => Evidence::Touch,
        }
    }
}

/// Change time, nanoseconds since 1970.
pub fn changed(stat: &Stat) -> i64 {
    nanoseconds(stat.st_ctime, stat.st_ctime_nsec as i64)
}

/// Nanoseconds since 1970.
fn nanoseconds(seconds: i64, nanoseconds: i64) -> i64 {
    seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds)
}

fn born(fd: impl AsFd) -> Option<i64> {
    let seen = rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::BTIME).ok()?;
    let knows = StatxFlags::from_bits_retain(seen.stx_mask).contains(StatxFlags::BTIME);
    knows.then(|| nanoseconds(seen.stx_btime.tv_sec, i64::from(seen.stx_btime.tv_nsec)))
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

impl Volume {
    /// The mount serves: whatever changes without it from now on is noticed where it is seen.
    pub fn watch_for_others(&self) {
        self.objects.newest.begin();
        if let Ok(node) = self.node(super::NodeId::ROOT)
            && let Ok(fd) = self.descriptors.of(&node)
            && let Ok(stat) = rustix::fs::fstat(&*fd)
        {
            node.left.learn(&stat);
        }
    }

    /// A name was looked up. `again` looks once more.
    pub(super) fn found(&self, node: &Pinned<'_>, stat: &Stat, again: impl FnOnce() -> Option<Stat>) {
        if node.is_new {
            let born = || born(&*self.descriptors.of(node).ok()?);
            self.weigh(node, self.objects.newest.evidence(stat, born));
        }
        self.seen(node, stat, again);
    }

    /// An object was looked at, without its locks: an op may be half-way through it. What is seen
    /// counts only where it is the same while nothing works on it.
    pub(super) fn seen(&self, node: &Node, stat: &Stat, again: impl FnOnce() -> Option<Stat>) {
        if node.left.agrees(stat) {
            return;
        }
        let names = if node.is_directory() { node.names.try_look() } else { None };
        if let Some(_state) = node.state.try_look()
            && (names.is_some() || !node.is_directory())
            && let Some(stat) = again()
        {
            self.seen_alone(node, &stat);
        }
    }

    /// An object was met past the mount, and its locks are held, as of a directory that of its names: as
    /// if the kernel had met it, somebody else's change is told from one of an op from here on.
    pub(super) fn met(&self, node: &Arc<Node>) {
        if node.left.changed().is_none()
            && let Ok(fd) = self.descriptors.of(node)
            && let Ok(stat) = rustix::fs::fstat(&*fd)
        {
            turn();
            node.left.learn(&stat);
        }
    }

    /// An object was looked at under the locks that its changes need.
    fn seen_alone(&self, node: &Node, stat: &Stat) {
        if !node.is_nameless.load(Relaxed) {
            self.weigh(node, node.left.evidence(stat));
        }
        node.left.learn(stat);
    }

    /// An op is about to change an object whose lock it holds: what others did is seen now or never.
    /// Gives what it is before, where that was looked at.
    pub(super) fn begin_change(&self, node: &Node, fd: impl AsFd) -> Option<Stat> {
        // Names in a directory may change meanwhile: they have a lock of their own.
        let before = if node.is_directory() { None } else { rustix::fs::fstat(fd).ok() };
        before.iter().for_each(|stat| self.seen_alone(node, stat));
        node.left.forget();
        before
    }

    /// The op has left it like this.
    pub(super) fn end_change(&self, node: &Node, stat: &Stat) {
        match node.is_directory() {
            true => node.left.forget(),
            false => node.left.learn(stat),
        }
    }

    /// A directory, under its own lock, before names in it are looked up or changed.
    pub(super) fn seen_names(&self, dir: &Node, fd: impl AsFd) {
        // An op on its attributes may be half-way.
        if let Some(_state) = dir.state.try_look()
            && let Ok(stat) = rustix::fs::fstat(fd)
        {
            self.seen_alone(dir, &stat);
        }
    }

    /// An op is about to change names in a directory whose lock it holds.
    pub(super) fn begin_names(&self, dir: &Node, fd: impl AsFd) {
        self.seen_names(dir, fd);
        dir.left.forget();
    }

    /// The op has changed them.
    pub(super) fn end_names(&self, dir: &Node, fd: impl AsFd) {
        let state = dir.state.try_look();
        match rustix::fs::fstat(fd) {
            Ok(stat) if state.is_some() => dir.left.learn(&stat),
            Ok(_) | Err(_) => dir.left.forget(),
        }
    }

    fn weigh(&self, node: &Node, evidence: Evidence) {
        if evidence == Evidence::None {
            return;
        }
        let path = self.path(node);
        let shown =
            if path.is_empty() { "the directory itself".into() } else { String::from_utf8_lossy(&path) };
        if evidence == Evidence::Touch {
            return self.divergence().note_touch(&shown);
        }
        let what = if node.file_type == libc::S_IFDIR {
            "names in it, or attributes"
        } else {
            "content or attributes"
        };
        self.divergence().note(&format!("{shown}: {what} were changed past the mount"));
    }
}
