//! A root of the drill's own: the host's root file system and the mounts that programs are in, and no other mount of
//! the host. A mount namespace begins as a copy of the host's, and each mount in it keeps a file system alive that the
//! host unmounts meanwhile: so the copy is left again at once.
//!
//! ```text
//!  unshare ─> private ─> hold a copy of each mount that stays ─> pivot ─> let go of the old root, with all below it
//! ```

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, OpenTreeFlags, UnmountFlags};

use super::mounts::{attach, because, open};
use crate::preflight::{Mount, MountTable};

/// Programs, and what they are set up with: mounts at and below these stay.
const PROGRAMS: [&str; 12] =
    ["/bin", "/etc", "/gnu", "/lib", "/lib32", "/lib64", "/libx32", "/nix", "/opt", "/sbin", "/snap", "/usr"];

/// A mount at one of these stays; not those below, where containers and data have theirs.
const ALONE: [&str; 6] = ["/home", "/root", "/var", "/var/cache", "/var/lib", "/var/log"];

/// The drill has its own of these.
const OWN: [&str; 6] = ["/dev", "/proc", "/run", "/sys", "/tmp", "/var/tmp"];

/// What becomes of the host's mounts.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Choice {
    /// Where those are that stay, the outer ones first; the root is not named.
    pub stay: Vec<PathBuf>,
    /// Where those were that go, the outermost of them.
    pub go: Vec<PathBuf>,
}

/// `asked` are places whose mounts stay, too; none of a protected directory does.
pub(super) fn choose(table: &MountTable, asked: &[PathBuf]) -> Choice {
    let is_own = |mount: &Mount| OWN.iter().any(|own| mount.point.starts_with(own));
    let mut mounts: Vec<&Mount> = table.below(Path::new("/")).into_iter().filter(|m| !is_own(m)).collect();
    mounts.sort_by(|a, b| a.point.cmp(&b.point));
    let mut choice = Choice::default();
    for mount in mounts {
        if choice.go.iter().any(|gone| mount.point.starts_with(gone)) {
            continue;
        }
        let list = if stays(mount, asked) { &mut choice.stay } else { &mut choice.go };
        list.push(mount.point.clone());
    }
    choice
}

fn stays(mount: &Mount, asked: &[PathBuf]) -> bool {
    let point = mount.point.as_path();
    if mount.is_standin() {
        return false;
    }
    if asked.iter().any(|asked| asked.starts_with(point) || point.starts_with(asked)) {
        return true;
    }
    // A daemon serves them: its end must be seen. And looking at one that is mounted on demand would mount it.
    if mount.fs_type.starts_with("fuse") || mount.fs_type == "autofs" {
        return false;
    }
    PROGRAMS.iter().any(|place| point.starts_with(place))
        || ALONE.iter().any(|place| point == Path::new(place))
}

/// The mounts of the host that are held until [`leave`] has its own root.
pub(super) struct Held {
    root: OwnedFd,
    stay: Vec<(PathBuf, OwnedFd)>,
}

/// Takes hold of what stays. From here on nothing is passed on to the host, or comes in from it.
pub(super) fn hold(asked: &[PathBuf]) -> Result<(Held, Choice), String> {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).map_err(because("the mounts cannot be made private"))?;
    let table = MountTable::read().map_err(because("the mounts cannot be read"))?;
    let choice = choose(&table, asked);
    let root = alone(Path::new("/")).map_err(because("the root file system"))?;
    let mut stay = Vec::new();
    for point in &choice.stay {
        stay.push((point.clone(), alone(point).map_err(because(point.display()))?));
    }
    Ok((Held { root, stay }, choice))
}

/// A mount like the one at this path, without those below it, that is nowhere yet.
pub(super) fn alone(at: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let flags = flags | OpenTreeFlags::AT_SYMLINK_NOFOLLOW | OpenTreeFlags::AT_NO_AUTOMOUNT;
    rustix::mount::open_tree(CWD, at, flags)
}

/// Makes what is held the root of this process, and lets go of everything else.
pub(super) fn leave(held: Held) -> Result<(), String> {
    let old = open(Path::new("/"))?;
    // Only a mount can become the root. This one is covered with it for a moment.
    attach(&held.root, Path::new("/proc")).map_err(because("no root of its own"))?;
    swap(&old, &held.root).map_err(because("the host's root cannot be left"))?;
    for (point, mount) in &held.stay {
        match attach(mount, point) {
            // Somebody has removed or replaced the directory under it.
            Ok(()) | Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(error) => return Err(because(point.display())(error)),
        }
    }
    Ok(())
}

fn swap(old: &OwnedFd, new: &OwnedFd) -> io::Result<()> {
    rustix::process::fchdir(new)?;
    // The old one is over the new one then, at the same place (pivot_root(2), "NOTES").
    rustix::process::pivot_root(".", ".")?;
    rustix::process::fchdir(old)?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    Ok(rustix::process::chdir("/")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(lines: &[(u64, u64, &str, &str)]) -> MountTable {
        let text: String = lines
            .iter()
            .map(|(id, parent, point, kind)| {
                format!("{id} {parent} 0:{id} / {point} rw - {kind} source rw\n")
            })
            .collect();
        MountTable::parse(text.as_bytes())
    }

    #[test]
    fn of_the_host_stays_what_programs_are_in() {
        let table = table(&[
            (1, 0, "/", "ext4"),
            (2, 1, "/proc", "proc"),
            (3, 1, "/run", "tmpfs"),
            (4, 3, "/run/user/0/doc", "fuse.portal"),
            (5, 1, "/usr", "ext4"),
            (6, 5, "/usr/local", "nfs4"),
            (7, 5, "/usr/share/remote", "fuse.sshfs"),
            (8, 1, "/var", "xfs"),
            (9, 8, "/var/lib/containers/one/merged", "overlay"),
            (10, 1, "/srv", "xfs"),
            (11, 10, "/srv/web", "fuse.standin"),
            (12, 1, "/data", "xfs"),
            (13, 12, "/data/tools", "xfs"),
            (14, 12, "/data/own", "fuse.standin"),
            (15, 1, "/mnt/backup", "btrfs"),
            (16, 1, "/opt", "ext4"),
            // Over the one before it: this one is what is seen.
            (17, 16, "/opt", "fuse.sshfs"),
            (18, 1, "/users", "autofs"),
            (19, 1, "/etc/resolv.conf", "ext4"),
            (20, 1, "/tmp", "tmpfs"),
            (21, 8, "/var/tmp", "tmpfs"),
        ]);
        let asked = |places: &[&str]| {
            let choice = choose(&table, &places.iter().map(PathBuf::from).collect::<Vec<_>>());
            let text = |all: Vec<PathBuf>| {
                all.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" ")
            };
            (text(choice.stay), text(choice.go))
        };
        let pair = |stay: &str, go: &str| (stay.to_owned(), go.to_owned());
        assert_eq!(
            asked(&[]),
            pair(
                "/etc/resolv.conf /usr /usr/local /var",
                "/data /mnt/backup /opt /srv /users /usr/share/remote /var/lib/containers/one/merged"
            )
        );
        assert_eq!(
            asked(&["/data/tools/bin", "/opt"]),
            pair(
                "/data /data/tools /etc/resolv.conf /opt /usr /usr/local /var",
                "/data/own /mnt/backup /srv /users /usr/share/remote /var/lib/containers/one/merged"
            )
        );
        assert_eq!(
            asked(&["/srv"]).1,
            "/data /mnt/backup /opt /srv/web /users /usr/share/remote /var/lib/containers/one/merged"
        );
    }
}
