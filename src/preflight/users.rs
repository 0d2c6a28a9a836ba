//! Who uses a directory tree at this moment: open files, mappings, working directories, and the
//! kernel itself (loop devices, swap). Found by place in the file system, so that bind mounts and
//! containers do not hide anyone.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::mounts::{Location, MountTable, unescape};
use crate::packet::printable;

/// One use of the tree.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Use {
    pub user: User,
    pub kind: UseKind,
    /// As the user sees it.
    pub path: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum User {
    Process {
        pid: u32,
        command: String,
    },
    /// A loop device or the swap of the kernel.
    Kernel {
        name: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum UseKind {
    /// A regular file, open for writing.
    Writing,
    /// A file mapped shared and writable; its descriptor may be closed.
    Mapping,
    /// A file or directory that is open, but not for writing.
    Open,
    WorkingDirectory,
    Root,
}

impl Use {
    /// Can change file contents past a mount that comes later.
    pub fn is_writer(&self) -> bool {
        matches!(self.kind, UseKind::Writing | UseKind::Mapping)
    }
}

impl fmt::Display for Use {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = match self.kind {
            UseKind::Writing => "has open for writing",
            UseKind::Mapping => "has mapped for writing",
            UseKind::Open => "has open",
            UseKind::WorkingDirectory => "works in",
            UseKind::Root => "has as its root",
        };
        write!(f, "{} {verb} {}", self.user, printable(self.path.as_os_str().as_bytes()))
    }
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            User::Process { pid, command } => write!(f, "{} (pid {pid})", printable(command.as_bytes())),
            User::Kernel { name } => f.write_str(name),
        }
    }
}

/// What a scan found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Users {
    pub uses: Vec<Use>,
    /// Processes that this user may not look into.
    pub unreadable: u32,
}

impl Users {
    pub fn writers(&self) -> impl Iterator<Item = &Use> {
        self.uses.iter().filter(|entry| entry.is_writer())
    }

    pub fn others(&self) -> impl Iterator<Item = &Use> {
        self.uses.iter().filter(|entry| !entry.is_writer())
    }
}

/// All users of a tree, this process left out. `tree` has no symlinks. Touches no file of the
/// tree: also good for a mount that is being served.
pub fn users_of(tree: &Path) -> io::Result<Users> {
    let own = MountTable::read()?;
    let place = own.location(tree).ok_or(io::ErrorKind::NotFound)?;
    let mut scan = Scan { place, own, foreign: HashMap::new(), uses: BTreeSet::new(), unreadable: 0 };
    scan.kernel();
    for entry in fs::read_dir("/proc")? {
        let pid = entry.ok().and_then(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        if let Some(pid) = pid.filter(|pid| *pid != std::process::id()) {
            scan.process(pid);
        }
    }
    Ok(Users { uses: scan.uses.into_iter().collect(), unreadable: scan.unreadable })
}

struct Scan {
    place: Location,
    own: MountTable,
    /// Mount tables of other namespaces, by the namespace's link.
    foreign: HashMap<PathBuf, MountTable>,
    uses: BTreeSet<Use>,
    unreadable: u32,
}

impl Scan {
    fn process(&mut self, pid: u32) {
        let proc = PathBuf::from(format!("/proc/{pid}"));
        let Ok(namespace) = fs::read_link(proc.join("ns/mnt")) else {
            // A process that has just ended is no loss; one of another user is.
            self.unreadable += u32::from(proc.exists() && fs::read_link(proc.join("exe")).is_err_and(denied));
            return;
        };
        let mounts = self.mounts_of(&proc, namespace);
        let mut found = Vec::new();
        self.descriptors(&proc, &mounts, &mut found);
        self.mappings(&proc, &mounts, &mut found);
        for (link, kind) in [("cwd", UseKind::WorkingDirectory), ("root", UseKind::Root)] {
            if let Ok(path) = fs::read_link(proc.join(link)) {
                // The path of a process in a chroot is relative to our root: no mount id needed.
                if self.holds(mounts.location(&path)) {
                    found.push((kind, path));
                }
            }
        }
        if !found.is_empty() {
            let user = User::Process { pid, command: command_of(&proc) };
            self.uses.extend(found.into_iter().map(|(kind, path)| Use { user: user.clone(), kind, path }));
        }
    }

    /// The mounts as this process sees them.
    fn mounts_of(&mut self, proc: &Path, namespace: PathBuf) -> MountTable {
        if fs::read_link("/proc/self/ns/mnt").is_ok_and(|own| own == namespace) {
            return self.own.clone();
        }
        let read = || MountTable::read_from(&proc.join("mountinfo")).unwrap_or_default();
        self.foreign.entry(namespace).or_insert_with(read).clone()
    }

    fn holds(&self, location: Option<Location>) -> bool {
        location.is_some_and(|location| location.is_within(&self.place))
    }

    fn descriptors(&self, proc: &Path, mounts: &MountTable, found: &mut Vec<(UseKind, PathBuf)>) {
        let Ok(entries) = fs::read_dir(proc.join("fd")) else { return };
        for entry in entries.flatten() {
            let Ok(path) = fs::read_link(entry.path()) else { continue };
            if !path.is_absolute() || path.starts_with("/dev") || path.starts_with("/proc") {
                continue;
            }
            let info = fs::read_to_string(proc.join("fdinfo").join(entry.file_name())).unwrap_or_default();
            let Some(info) = DescriptorInfo::parse(&info) else { continue };
            let mount = mounts.by_id(info.mount_id);
            if self.holds(mount.and_then(|mount| mount.location(&path))) {
                found.push((info.kind(), path));
            }
        }
    }

    fn mappings(&self, proc: &Path, mounts: &MountTable, found: &mut Vec<(UseKind, PathBuf)>) {
        let maps = fs::read(proc.join("maps")).unwrap_or_default();
        let paths: BTreeSet<PathBuf> =
            maps.split(|byte| *byte == b'\n').filter_map(shared_writable_mapping).collect();
        for path in paths {
            if self.holds(mounts.location(&path)) {
                found.push((UseKind::Mapping, path));
            }
        }
    }

    /// Loop devices and swap write to their files past every mount, too.
    fn kernel(&mut self) {
        let mut files: BTreeMap<String, PathBuf> = BTreeMap::new();
        for entry in fs::read_dir("/sys/block").into_iter().flatten().flatten() {
            let device = entry.path();
            let read_only = fs::read(device.join("ro")).is_ok_and(|ro| ro.starts_with(b"1"));
            if let Ok(mut file) = fs::read(device.join("loop/backing_file"))
                && !read_only
            {
                file.truncate(file.trim_ascii_end().len());
                let name = format!("loop device {}", entry.file_name().to_string_lossy());
                files.insert(name, OsString::from_vec(file).into());
            }
        }
        for line in fs::read("/proc/swaps").unwrap_or_default().split(|byte| *byte == b'\n').skip(1) {
            if let Some(field) =
                line.split(|byte| *byte == b' ').next().filter(|field| field.starts_with(b"/"))
            {
                let path = PathBuf::from(OsString::from_vec(unescape(field)));
                files.insert(format!("swap on {}", path.display()), path);
            }
        }
        for (name, path) in files {
            if self.holds(self.own.location(&path)) {
                self.uses.insert(Use { user: User::Kernel { name }, kind: UseKind::Writing, path });
            }
        }
    }
}

fn denied(error: io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}

/// What `/proc/PID/fdinfo/N` says of a descriptor.
#[derive(Debug, PartialEq, Eq)]
struct DescriptorInfo {
    flags: i32,
    mount_id: u64,
}

impl DescriptorInfo {
    fn parse(text: &str) -> Option<DescriptorInfo> {
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let flags = i32::from_str_radix(field("flags:")?, 8).ok()?;
        Some(DescriptorInfo { flags, mount_id: field("mnt_id:")?.parse().ok()? })
    }

    fn kind(&self) -> UseKind {
        let writable = matches!(self.flags & libc::O_ACCMODE, libc::O_WRONLY | libc::O_RDWR);
        if writable && self.flags & libc::O_PATH == 0 { UseKind::Writing } else { UseKind::Open }
    }
}

/// The file of a line of `/proc/PID/maps`, if stores into it reach the file:
/// `7f00-7f01 rw-s 00000000 08:01 1234    /path`.
fn shared_writable_mapping(line: &[u8]) -> Option<PathBuf> {
    let mut fields = line.splitn(6, |byte| *byte == b' ');
    let permissions = fields.nth(1)?;
    if permissions.get(1) != Some(&b'w') || permissions.get(3) != Some(&b's') {
        return None;
    }
    let path = fields.nth(3)?.trim_ascii_start();
    path.starts_with(b"/").then(|| PathBuf::from(OsString::from_vec(unescape_newlines(path))))
}

/// In maps only a newline is escaped (as `\012`), a backslash stands for itself.
fn unescape_newlines(path: &[u8]) -> Vec<u8> {
    let mut bytes = path.to_vec();
    while let Some(at) = bytes.windows(4).position(|four| four == br"\012") {
        bytes.splice(at..at + 4, [b'\n']);
    }
    bytes
}

pub(super) fn command_of(proc: &Path) -> String {
    let name = fs::read(proc.join("comm")).unwrap_or_default();
    match String::from_utf8_lossy(name.trim_ascii_end()).into_owned() {
        name if name.is_empty() => "a process".into(),
        name => name,
    }
}

/// Leaves only what can really change the content of the tree's files: regular files that still
/// have a name. Looks at the files: not for a mount that is being served.
pub fn open_writers(users: &Users) -> Vec<Use> {
    users.writers().filter(|entry| still_counts(entry)).cloned().collect()
}

fn still_counts(entry: &Use) -> bool {
    let User::Process { pid, .. } = entry.user else { return true };
    let gone = entry.path.as_os_str().as_bytes().ends_with(b" (deleted)");
    if entry.kind == UseKind::Mapping {
        return !gone;
    }
    // The path may be of another namespace, and the name may end like that: the kernel knows.
    let through_process =
        PathBuf::from(format!("/proc/{pid}/root")).join(entry.path.strip_prefix("/").unwrap_or(&entry.path));
    match fs::symlink_metadata(&through_process).or_else(|_| fs::symlink_metadata(&entry.path)) {
        Ok(meta) => meta.is_file() && meta.nlink() > 0,
        Err(_) => !gone,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_told_apart() {
        let kind = |flags: &str| {
            let text = format!("pos:\t0\nflags:\t{flags}\nmnt_id:\t29\nino:\t5\n");
            let info = DescriptorInfo::parse(&text).unwrap();
            assert_eq!(info.mount_id, 29);
            info.kind()
        };
        assert_eq!(kind("0100000"), UseKind::Open);
        assert_eq!(kind("0100001"), UseKind::Writing);
        assert_eq!(kind("02100002"), UseKind::Writing);
        assert_eq!(kind("012000002"), UseKind::Open, "O_PATH moves no data");
        assert_eq!(DescriptorInfo::parse("pos:\t0\n"), None);
    }

    #[test]
    fn only_shared_writable_mappings_count() {
        let check = |line: &str, path: Option<&str>| {
            assert_eq!(shared_writable_mapping(line.as_bytes()), path.map(PathBuf::from), "{line}");
        };
        check("7f1c-7f1d rw-s 00001000 08:01 42                         /srv/a b", Some("/srv/a b"));
        check("7f1c-7f1d rw-s 00001000 08:01 42                         /srv/a\\012b", Some("/srv/a\nb"));
        check("7f1c-7f1d r--s 00001000 08:01 42                         /srv/a", None);
        check("7f1c-7f1d rw-p 00001000 08:01 42                         /srv/a", None);
        check("7f1c-7f1d rw-s 00000000 00:01 7                          anon_inode:[x]", None);
        check("7f1c-7f1d rw-s 00000000 00:00 0 ", None);
        check("", None);
    }
}
