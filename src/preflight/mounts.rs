//! The mounts of a namespace, as `/proc/PID/mountinfo` states them (`proc_pid_mountinfo(5)`).
//! Reading it touches no mount: a hung one hangs nobody here.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};
use std::sync::mpsc;

use rustix::io::Errno;

use crate::limits::MOUNT_PROBE;
use crate::sys::MountOptions;

/// File-system type under which this product's mounts appear.
pub const FS_TYPE: &str = "fuse.standin";

/// One line of mountinfo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    pub id: u64,
    pub parent: u64,
    /// Device number of the file system, as `major:minor`.
    pub device: String,
    /// Which directory of the file system is mounted.
    pub root: PathBuf,
    /// Where it is mounted.
    pub point: PathBuf,
    pub fs_type: String,
    pub source: String,
    /// Number of the group of mounts that get what is mounted on any of them.
    pub shared: Option<u64>,
    /// Number of the group that this mount gets it from.
    pub master: Option<u64>,
    pub options: MountOptions,
}

impl Mount {
    pub fn is_standin(&self) -> bool {
        self.fs_type == FS_TYPE
    }
}

/// An object's place in its file system: the same for all mounts of it, bind mounts too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    device: String,
    path: PathBuf,
}

impl Location {
    /// The path in its file system.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Equal, or below.
    pub fn is_within(&self, outer: &Location) -> bool {
        self.device == outer.device && self.path.starts_with(&outer.path)
    }
}

/// All mounts of one namespace.
#[derive(Clone, Debug, Default)]
pub struct MountTable {
    mounts: Vec<Mount>,
    /// What is seen there is a cover, which is not in the table.
    covered: Option<PathBuf>,
    /// Number of that mount.
    cover: Option<u64>,
}

impl MountTable {
    /// The mounts that this process sees.
    pub fn read() -> io::Result<MountTable> {
        Self::read_from(Path::new("/proc/self/mountinfo"))
    }

    pub fn read_from(mountinfo: &Path) -> io::Result<MountTable> {
        fs::read(mountinfo).map(|bytes| Self::parse(&bytes))
    }

    /// Lines that are no mount are left out.
    pub fn parse(mountinfo: &[u8]) -> MountTable {
        let mounts = mountinfo.split(|byte| *byte == b'\n').filter_map(parse_line).collect();
        MountTable { mounts, covered: None, cover: None }
    }

    pub fn all(&self) -> impl Iterator<Item = &Mount> {
        self.mounts.iter()
    }

    pub fn by_id(&self, id: u64) -> Option<&Mount> {
        self.mounts.iter().find(|mount| mount.id == id)
    }

    /// The mount that is on top at exactly this path. The path has no symlinks.
    pub fn at(&self, path: &Path) -> Option<&Mount> {
        self.holding(path).filter(|mount| mount.point == path)
    }

    /// The mount that holds this path. The path is absolute and has no symlinks.
    pub fn holding(&self, path: &Path) -> Option<&Mount> {
        let mut mount = self.on_top(self.root()?);
        let mut prefix = PathBuf::new();
        for component in path.components() {
            prefix.push(component);
            let child = self.mounts.iter().rfind(|child| child.parent == mount.id && child.point == prefix);
            if let Some(child) = child.filter(|child| child.id != mount.id) {
                mount = self.on_top(child);
            }
        }
        Some(mount)
    }

    /// Without what covers this place, read-only and for itself, and is what the tree is: it is lifted when something is
    /// mounted there.
    pub fn uncovered(self, at: &Path, tree: &Path) -> MountTable {
        let is_sealed = |mount: &&Mount| {
            let is_read_only = !mount.options.only(MountOptions::READ_ONLY).is_empty();
            is_read_only && !mount.is_standin() && (mount.shared, mount.master) == (None, None)
        };
        let Some(cover) = self.at(at).filter(is_sealed) else { return self };
        let (id, shows) = (cover.id, cover.location(at));
        let mut without = self.clone();
        without.mounts.retain(|mount| mount.id != id);
        if shows != without.location(tree) {
            return self;
        }
        (without.covered, without.cover) = (Some(at.to_owned()).filter(|at| at != tree), Some(id));
        without
    }

    /// The mount that [`MountTable::uncovered`] has left out.
    pub(super) fn cover(&self) -> Option<u64> {
        self.cover
    }

    /// Whether what is seen at this path is not what will be there.
    pub(super) fn is_covered(&self, path: &Path) -> bool {
        self.covered.as_deref() == Some(path)
    }

    /// All visible mounts strictly below a directory.
    pub fn below(&self, dir: &Path) -> Vec<&Mount> {
        let is_below = |mount: &&Mount| mount.point != dir && mount.point.starts_with(dir);
        self.mounts.iter().filter(is_below).filter(|mount| self.at(&mount.point) == Some(mount)).collect()
    }

    /// The mounts of this product.
    pub fn standin(&self) -> impl Iterator<Item = &Mount> {
        self.mounts.iter().filter(|mount| mount.is_standin())
    }

    /// The mounts of a file system, by its device number (`major:minor`).
    pub fn of_device<'a>(&'a self, device: &'a str) -> impl Iterator<Item = &'a Mount> {
        self.mounts.iter().filter(move |mount| mount.device == device)
    }

    /// Where a path really is. The path has no symlinks; it need not exist.
    pub fn location(&self, path: &Path) -> Option<Location> {
        self.holding(path)?.location(path)
    }

    /// The mount at `/`: the one whose parent is not to be seen from here.
    fn root(&self) -> Option<&Mount> {
        let at_root = |mount: &&Mount| mount.point == Path::new("/");
        let orphan = |mount: &&Mount| mount.parent == mount.id || self.by_id(mount.parent).is_none();
        let mut roots = self.mounts.iter().filter(at_root);
        roots.clone().find(orphan).or_else(|| roots.next())
    }

    /// The last of the mounts that lie over each other at one place.
    fn on_top<'a>(&'a self, mut mount: &'a Mount) -> &'a Mount {
        let over = |below: &Mount| {
            self.mounts
                .iter()
                .find(|over| over.parent == below.id && over.point == below.point && over.id != below.id)
        };
        for _ in 0..self.mounts.len() {
            match over(mount) {
                Some(next) => mount = next,
                None => break,
            }
        }
        mount
    }
}

impl Mount {
    /// Where a path below this mount's point really is.
    pub fn location(&self, path: &Path) -> Option<Location> {
        let rest = path.strip_prefix(&self.point).ok()?;
        let mut inside = self.root.clone();
        inside.extend(rest.components().filter(|part| matches!(part, Component::Normal(_))));
        Some(Location { device: self.device.clone(), path: inside })
    }
}

/// ```text
/// 36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
/// id parent device root point options optional... - type source super-options
/// ```
fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let number = |field: &[u8]| std::str::from_utf8(field).ok()?.parse().ok();
    let id = number(fields.next()?)?;
    let parent = number(fields.next()?)?;
    let device = text(fields.next()?);
    let root = path(fields.next()?);
    let point = path(fields.next()?);
    let options = text(fields.next()?);
    let (mut shared, mut master) = (None, None);
    for field in fields.by_ref().take_while(|field| *field != b"-") {
        shared = shared.or(field.strip_prefix(b"shared:").and_then(number));
        master = master.or(field.strip_prefix(b"master:").and_then(number));
    }
    let mut tail = fields;
    let fs_type = text(tail.next()?);
    let source = text(&unescape(tail.next()?));
    let options = MountOptions::parse(&options, &text(tail.next().unwrap_or_default()));
    Some(Mount { id, parent, device, root, point, fs_type, source, shared, master, options })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn path(field: &[u8]) -> PathBuf {
    PathBuf::from(OsString::from_vec(unescape(field)))
}

/// Undoes the kernel's `\040` for space, tab, newline and backslash.
pub(super) fn unescape(field: &[u8]) -> Vec<u8> {
    let octal = |three: &[u8]| {
        let digits = std::str::from_utf8(three).ok()?;
        u8::from_str_radix(digits, 8).ok()
    };
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        match tail.get(..3).and_then(octal).filter(|_| *first == b'\\') {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    bytes
}

/// How a mount answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pulse {
    Alive,
    /// Its daemon is gone: everything below answers `ENOTCONN`.
    Dead,
    /// No answer in time.
    Hung,
}

/// Asks a mount's root for its pulse, on a thread of its own because a hung daemon never answers.
pub fn pulse(point: &Path) -> Pulse {
    let (sender, receiver) = mpsc::channel();
    let path = point.to_owned();
    let asked = std::thread::Builder::new().name("mount-probe".into()).spawn(move || {
        let _ = sender.send(rustix::fs::statfs(path.as_os_str().as_bytes()).map(drop));
    });
    match asked.map(|_| receiver.recv_timeout(MOUNT_PROBE)) {
        // The other: it ended while it was asked.
        Ok(Ok(Err(Errno::NOTCONN | Errno::CONNABORTED))) => Pulse::Dead,
        Ok(Ok(_)) => Pulse::Alive,
        Ok(Err(_)) | Err(_) => Pulse::Hung,
    }
}
