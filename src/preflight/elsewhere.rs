//! Where else a tree can be reached than under the mount that goes over it: bind mounts of it or of
//! a part of it (as containers have them), other mounts of its file system, and mount namespaces
//! that do not get the new mount. What is written there is not seen.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::mounts::{Location, Mount, MountTable};
use super::users::{User, command_of};

/// Another way to the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elsewhere {
    /// Somebody of another mount namespace, and how many more there are; `None`: this one.
    pub who: Option<(User, usize)>,
    pub way: Way,
    /// Where it is mounted or can be reached, as that namespace names it.
    pub point: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// The tree, or this directory of it, is mounted there by itself: somebody is meant to use it.
    Mount(PathBuf),
    /// A mount of more of the file system shows the tree, too.
    Path,
}

impl fmt::Display for Elsewhere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let point = self.point.display();
        match &self.way {
            Way::Mount(what) => write!(f, "{} is mounted on {point}", what.display())?,
            Way::Path => write!(f, "it can be reached as {point}")?,
        }
        match &self.who {
            Some((user, 0)) => write!(f, " for {user}"),
            Some((user, more)) => write!(f, " for {user} and {more} more"),
            None => Ok(()),
        }
    }
}

/// A tree as it was before a mount over it.
#[derive(Clone, Debug)]
pub struct Ways {
    tree: PathBuf,
    place: Location,
    /// The mount that has the tree, which the new one goes onto, and who gets what is mounted there.
    under: u64,
    peers: Option<u64>,
    /// What stands over the place until the new one is there.
    cover: Option<u64>,
}

impl Ways {
    /// `tree` has no symlinks, and nothing of this product is mounted over it in `own`, the mounts of this process.
    pub fn to(tree: &Path, own: &MountTable) -> io::Result<Ways> {
        let under = own.holding(tree).ok_or(io::ErrorKind::NotFound)?;
        let place = under.location(tree).ok_or(io::ErrorKind::NotFound)?;
        let (under, peers, cover) = (under.id, under.shared, own.cover());
        Ok(Ways { tree: tree.to_owned(), place, under, peers, cover })
    }

    /// As [`Ways::to`], of a tree that is on the mount with this number, whatever is mounted over it.
    pub fn under(tree: &Path, mount: u64) -> io::Result<Ways> {
        let own = MountTable::read()?;
        let under = own.by_id(mount).ok_or(io::ErrorKind::NotFound)?;
        let place = under.location(tree).ok_or(io::ErrorKind::NotFound)?;
        Ok(Ways { tree: tree.to_owned(), place, under: under.id, peers: under.shared, cover: None })
    }

    /// All other ways that there are now. Touches no mount and no file of the tree.
    pub fn look(&self) -> io::Result<Vec<Elsewhere>> {
        let own = MountTable::read()?;
        let mut found: Vec<Elsewhere> =
            self.in_table(&own).into_iter().map(|(way, point)| Elsewhere { who: None, way, point }).collect();
        for (pid, others) in namespaces()? {
            let proc = PathBuf::from(format!("/proc/{pid}"));
            let Ok(mounts) = MountTable::read_from(&proc.join("mountinfo")) else { continue };
            for (way, point) in self.in_table(&mounts) {
                let user = User::Process { pid, command: command_of(&proc) };
                found.push(Elsewhere { who: Some((user, others)), way, point });
            }
        }
        Ok(found)
    }

    fn in_table(&self, mounts: &MountTable) -> Vec<(Way, PathBuf)> {
        mounts
            .all()
            .filter(|mount| mount.id != self.under && Some(mount.id) != self.cover)
            .filter_map(|mount| self.way(mount, mounts))
            .collect()
    }

    /// How this mount leads to the tree, if it does and what is mounted over the tree does not
    /// come between.
    fn way(&self, mount: &Mount, mounts: &MountTable) -> Option<(Way, PathBuf)> {
        let root = mount.location(&mount.point)?;
        if root.is_within(&self.place) {
            let covered = root == self.place && self.gets_what_is_mounted(mount);
            let is_seen = mounts.at(&mount.point) == Some(mount) && !covered;
            let inside = root.path().strip_prefix(self.place.path()).ok()?;
            let what = if inside == Path::new("") { self.tree.clone() } else { self.tree.join(inside) };
            return is_seen.then(|| (Way::Mount(what), mount.point.clone()));
        }
        if !self.place.is_within(&root) || self.gets_what_is_mounted(mount) {
            return None;
        }
        let point = mount.point.join(self.place.path().strip_prefix(root.path()).ok()?);
        (mounts.holding(&point) == Some(mount)).then_some((Way::Path, point))
    }

    /// The kernel mounts there, too, what is mounted on the tree (`mount_namespaces(7)`).
    fn gets_what_is_mounted(&self, mount: &Mount) -> bool {
        self.peers.is_some() && (mount.shared == self.peers || mount.master == self.peers)
    }
}

/// One process of each mount namespace but this one, and how many more it has.
fn namespaces() -> io::Result<BTreeMap<u32, usize>> {
    let own = fs::read_link("/proc/self/ns/mnt")?;
    let mut first: BTreeMap<PathBuf, (u32, usize)> = BTreeMap::new();
    for entry in fs::read_dir("/proc")? {
        let pid = entry.ok().and_then(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let Some(pid) = pid else { continue };
        match fs::read_link(format!("/proc/{pid}/ns/mnt")) {
            Ok(namespace) if namespace != own => {
                first.entry(namespace).and_modify(|seen| seen.1 += 1).or_insert((pid, 0));
            }
            Ok(_) | Err(_) => {}
        }
    }
    Ok(first.into_values().collect())
}
