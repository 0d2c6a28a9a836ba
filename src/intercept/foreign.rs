//! What others did to objects past the mount, noticed where they are looked at anyway.
//!
//! Each node remembers the change time that the last op on it left, or the first look at it. A
//! later one that no op explains is somebody else's. An object that is met for the first time has
//! to be older than the mount, or than the last op on an object that was forgotten meanwhile.
//! Nothing is watched: what nobody looks at through the mount is not noticed.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use rustix::fs::Stat;

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

    /// Whether somebody else changed it. Another name outside of the tree is nobody's change.
    fn speaks_against(&self, stat: &Stat) -> bool {
        let Some(before) = *self.0.lock() else { return false };
        if before.changed == changed(stat) {
            return false;
        }
        let now = Look::of(stat);
        now.links == before.links || now.rest != before.rest
    }
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

    /// Times that are still to come are an old clock's.
    fn speaks_against(&self, stat: &Stat) -> bool {
        let changed = changed(stat);
        changed > self.0.load(Relaxed) && changed <= now()
    }
}

fn changed(stat: &Stat) -> i64 {
    stat.st_ctime.saturating_mul(1_000_000_000).saturating_add(stat.st_ctime_nsec as i64)
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
        if node.is_new && self.objects.newest.speaks_against(stat) {
            self.somebody_else(node);
        }
        self.seen(node, stat, again);
    }

    /// An object was looked at, without its locks: an op may be half-way through it. What is seen
    /// counts only where it is the same while nothing works on it.
    pub(super) fn seen(&self, node: &Node, stat: &Stat, again: impl FnOnce() -> Option<Stat>) {
        if node.left.agrees(stat) {
            return;
        }
        let names = if node.is_directory() { node.names.try_lock() } else { None };
        if let Some(_state) = node.state.try_lock()
            && (names.is_some() || !node.is_directory())
            && let Some(stat) = again()
        {
            self.seen_alone(node, &stat);
        }
    }

    /// An object was looked at under the locks that its changes need.
    fn seen_alone(&self, node: &Node, stat: &Stat) {
        if node.left.speaks_against(stat) && !node.is_nameless.load(Relaxed) {
            self.somebody_else(node);
        }
        node.left.learn(stat);
    }

    /// An op is about to change an object whose lock it holds: what others did is seen now or never.
    pub(super) fn begin_change(&self, node: &Node, fd: impl AsFd) {
        // Names in a directory may change meanwhile: they have a lock of their own.
        if !node.is_directory()
            && let Ok(stat) = rustix::fs::fstat(fd)
        {
            self.seen_alone(node, &stat);
        }
        node.left.forget();
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
        if let Some(_state) = dir.state.try_lock()
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
        let state = dir.state.try_lock();
        match rustix::fs::fstat(fd) {
            Ok(stat) if state.is_some() => dir.left.learn(&stat),
            Ok(_) | Err(_) => dir.left.forget(),
        }
    }

    fn somebody_else(&self, node: &Node) {
        let path = self.path(node);
        let shown =
            if path.is_empty() { "the directory itself".into() } else { String::from_utf8_lossy(&path) };
        let what = if node.file_type == libc::S_IFDIR {
            "names in it, or attributes"
        } else {
            "content or attributes"
        };
        self.divergence().note(&format!("{shown}: {what} were changed past the mount"));
    }
}
