//! The judge: compares two directory trees in everything that the product promises to keep.
//!
//! Works by descriptors, so paths may be longer than `PATH_MAX` and names any bytes. Never
//! compared, because never equal: ctime, birth time, atime, inode numbers, order of names, and
//! the product's own `trusted.standin.*` attributes.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{CString, OsStr};
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Advice, AtFlags, Dir, FileType, Mode, OFlags, SeekFrom, Stat, StatxAttributes, StatxFlags};

/// Attributes of the product itself on both roots.
const OWN_XATTRS: &[u8] = b"trusted.standin.";
/// What XFS shows of its ACLs beside the ACLs themselves.
const XFS_ACL_ALIASES: &[u8] = b"trusted.SGI_ACL_";
/// Bytes compared at once.
const CHUNK: usize = 256 * 1024;
/// Files up to this size are compared byte by byte: what the kernel says about holes proves nothing.
const WHOLE_MAX: u64 = 64 << 20;
/// Longest page of any processor that Linux runs on, in bytes.
const PAGE_MAX: u64 = 64 << 10;
/// Differences that an assertion prints.
const SHOWN: usize = 20;

/// What differs. `Display` has the detail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    MissingOnRight,
    MissingOnLeft,
    Type,
    Mode,
    Owner,
    LinkCount,
    Size,
    ModificationTime,
    DeviceNumber,
    SymlinkTarget,
    Xattr,
    Content,
    Holes,
    HardLinkGroup,
}

/// One difference, with the path below the roots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    pub path: PathBuf,
    pub kind: Kind,
    pub detail: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {:?}: {}", self.path, self.kind, self.detail)
    }
}

/// What a comparison leaves out.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Names at the top that are no part of the trees (`lost+found`).
    pub skip_at_root: Vec<Vec<u8>>,
    /// A stretch where one side has a hole and the other has zeros counts only if longer than
    /// this many bytes. ext4 turns up to 32 KiB around a write into a reserved range into zeros,
    /// as its writeback pleases.
    pub hole_slack: u64,
    /// Hole maps are compared only between file systems of one type; with this never.
    pub ignore_holes: bool,
    /// The trees were made one after the other.
    pub ignore_times: bool,
}

/// How much a comparison has seen; a comparison of two empty trees proves nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    pub objects: usize,
    pub bytes: u64,
}

/// Panics with the first differences if the trees differ. Gives what was compared.
#[track_caller]
pub fn assert_same(left: &Path, right: &Path) -> Seen {
    assert_same_by(left, right, &Rules::default())
}

/// As [`assert_same`], by own rules.
#[track_caller]
pub fn assert_same_by(left: &Path, right: &Path, rules: &Rules) -> Seen {
    let (differences, seen) = compare(left, right, rules)
        .unwrap_or_else(|error| panic!("compare {} with {}: {error}", left.display(), right.display()));
    if !differences.is_empty() {
        let shown: Vec<String> = differences.iter().take(SHOWN).map(|d| format!("  {d}")).collect();
        panic!(
            "{} differences between {} (left) and {} (right), {} objects:\n{}",
            differences.len(),
            left.display(),
            right.display(),
            seen.objects,
            shown.join("\n")
        );
    }
    seen
}

/// All differences between two trees, in order of paths. Both must be at rest; their file systems
/// are synced first, so that hole maps do not depend on what is still in memory.
///
/// Errors: whatever the file systems answer; a tree that cannot be read is no equal tree.
pub fn compare(left: &Path, right: &Path, rules: &Rules) -> io::Result<(Vec<Difference>, Seen)> {
    let open = |path: &Path| rustix::fs::open(path, DIRECTORY, Mode::empty());
    let (left, right) = (open(left)?, open(right)?);
    rustix::fs::syncfs(&left)?;
    rustix::fs::syncfs(&right)?;
    let same_type = rustix::fs::fstatfs(&left)?.f_type == rustix::fs::fstatfs(&right)?.f_type;
    let mut walk = Walk {
        rules,
        same_type,
        path: PathBuf::new(),
        found: Vec::new(),
        seen: Seen::default(),
        pairs: HashMap::new(),
        pairs_back: HashMap::new(),
    };
    walk.object(&Side::root(&left)?, &Side::root(&right)?)?;
    walk.found.sort_by(|a, b| (&a.path, a.kind).cmp(&(&b.path, b.kind)));
    Ok((walk.found, walk.seen))
}

const DIRECTORY: OFlags =
    OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC).union(OFlags::NOATIME);
const FILE: OFlags = OFlags::NOFOLLOW.union(OFlags::CLOEXEC).union(OFlags::NOATIME).union(OFlags::NONBLOCK);

/// An inode: device and number.
type Inode = (u64, u64);

/// One object on one side: where it is found, and its attributes.
struct Side<'a> {
    dir: BorrowedFd<'a>,
    name: CString,
    stat: Stat,
}

impl<'a> Side<'a> {
    fn root(dir: &'a OwnedFd) -> io::Result<Side<'a>> {
        Side::at(dir.as_fd(), c".".into())
    }

    fn at(dir: BorrowedFd<'a>, name: CString) -> io::Result<Side<'a>> {
        let stat = rustix::fs::statat(dir, &name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(Side { dir, name, stat })
    }

    fn open(&self, flags: OFlags) -> io::Result<OwnedFd> {
        Ok(rustix::fs::openat(self.dir, &self.name, flags, Mode::empty())?)
    }

    fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }

    fn inode(&self) -> Inode {
        (self.stat.st_dev, self.stat.st_ino)
    }

    /// All attributes but the product's own, and flags; ACLs are among them in the kernel's format.
    fn xattrs(&self) -> io::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
        let fd = self.open(OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC)?;
        // The link in /proc leads to the object itself, a symlink too.
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        let mut names = vec![0; 64 * 1024];
        let len = match rustix::fs::listxattr(&path, &mut names[..]) {
            Err(rustix::io::Errno::OPNOTSUPP) => 0,
            result => result?,
        };
        let mut xattrs = BTreeMap::new();
        for name in names[..len].split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
            if name.starts_with(OWN_XATTRS) || name.starts_with(XFS_ACL_ALIASES) {
                continue;
            }
            let mut value = vec![0; 64 * 1024];
            let len = rustix::fs::getxattr(&path, OsStr::from_bytes(name), &mut value[..])?;
            value.truncate(len);
            xattrs.insert(name.to_vec(), value);
        }
        let carried = StatxAttributes::IMMUTABLE | StatxAttributes::APPEND | StatxAttributes::NODUMP;
        let status = rustix::fs::statx(&fd, c"", AtFlags::EMPTY_PATH, StatxFlags::TYPE)?;
        let flags = status.stx_attributes & carried;
        if !flags.is_empty() {
            xattrs.insert(b"flags".to_vec(), format!("{flags:?}").into_bytes());
        }
        Ok(xattrs)
    }
}

struct Walk<'a> {
    rules: &'a Rules,
    same_type: bool,
    path: PathBuf,
    found: Vec<Difference>,
    seen: Seen,
    /// Inodes of the left with that of the right that stands for it, and where that was seen.
    pairs: HashMap<Inode, (Inode, PathBuf)>,
    pairs_back: HashMap<Inode, (Inode, PathBuf)>,
}

impl Walk<'_> {
    fn report(&mut self, kind: Kind, detail: String) {
        self.found.push(Difference { path: self.path.clone(), kind, detail });
    }

    fn expect<T: PartialEq + fmt::Debug>(&mut self, kind: Kind, left: T, right: T) {
        if left != right {
            self.report(kind, format!("{left:?} | {right:?}"));
        }
    }

    fn object(&mut self, left: &Side, right: &Side) -> io::Result<()> {
        self.seen.objects += 1;
        if left.kind() != right.kind() {
            self.report(Kind::Type, format!("{:?} | {:?}", left.kind(), right.kind()));
            return Ok(());
        }
        self.attributes(left, right);
        self.xattrs(left, right)?;
        match left.kind() {
            FileType::Directory => self.directory(left, right),
            _ if !self.first_of_its_group(left, right) => Ok(()),
            FileType::RegularFile => self.content(left, right),
            FileType::Symlink => {
                let target = |side: &Side| rustix::fs::readlinkat(side.dir, &side.name, Vec::new());
                self.expect(Kind::SymlinkTarget, target(left)?, target(right)?);
                Ok(())
            }
            FileType::CharacterDevice | FileType::BlockDevice => {
                self.expect(Kind::DeviceNumber, left.stat.st_rdev, right.stat.st_rdev);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn attributes(&mut self, left: &Side, right: &Side) {
        let (l, r) = (&left.stat, &right.stat);
        let octal = |mode: u32| format!("{:04o}", mode & 0o7777);
        self.expect(Kind::Mode, octal(l.st_mode), octal(r.st_mode));
        self.expect(Kind::Owner, (l.st_uid, l.st_gid), (r.st_uid, r.st_gid));
        if !self.rules.ignore_times {
            self.expect(Kind::ModificationTime, (l.st_mtime, l.st_mtime_nsec), (r.st_mtime, r.st_mtime_nsec));
        }
        let directory = left.kind() == FileType::Directory;
        if !directory || self.same_type {
            self.expect(Kind::LinkCount, l.st_nlink, r.st_nlink);
        }
        if !directory {
            self.expect(Kind::Size, l.st_size, r.st_size);
        }
    }

    fn xattrs(&mut self, left: &Side, right: &Side) -> io::Result<()> {
        let (l, r) = (left.xattrs()?, right.xattrs()?);
        let names: BTreeSet<&Vec<u8>> = l.keys().chain(r.keys()).collect();
        for name in names {
            if l.get(name) != r.get(name) {
                let show =
                    |value: Option<&Vec<u8>>| value.map(|v| v[..v.len().min(40)].escape_ascii().to_string());
                let detail =
                    format!("{}: {:?} | {:?}", name.escape_ascii(), show(l.get(name)), show(r.get(name)));
                self.report(Kind::Xattr, detail);
            }
        }
        Ok(())
    }

    fn directory(&mut self, left: &Side, right: &Side) -> io::Result<()> {
        let (left_dir, right_dir) = (left.open(DIRECTORY)?, right.open(DIRECTORY)?);
        let (left_names, right_names) = (self.names(&left_dir)?, self.names(&right_dir)?);
        for name in left_names.union(&right_names) {
            self.path.push(OsStr::from_bytes(name.to_bytes()));
            match (left_names.contains(name), right_names.contains(name)) {
                (true, false) => self.report(Kind::MissingOnRight, "only on the left".into()),
                (false, true) => self.report(Kind::MissingOnLeft, "only on the right".into()),
                _ => {
                    let left = Side::at(left_dir.as_fd(), name.clone())?;
                    self.object(&left, &Side::at(right_dir.as_fd(), name.clone())?)?;
                }
            }
            self.path.pop();
        }
        Ok(())
    }

    fn names(&self, dir: &OwnedFd) -> io::Result<BTreeSet<CString>> {
        let mut names = BTreeSet::new();
        for entry in Dir::read_from(dir)? {
            let entry = entry?;
            let name = entry.file_name();
            let skipped = self.path.as_os_str().is_empty()
                && self.rules.skip_at_root.iter().any(|skip| skip == name.to_bytes());
            if name != c"." && name != c".." && !skipped {
                names.insert(name.to_owned());
            }
        }
        Ok(names)
    }

    /// Checks that names that are one object on one side are one on the other. False if this pair
    /// was met under another name: its content needs no second look.
    fn first_of_its_group(&mut self, left: &Side, right: &Side) -> bool {
        if left.stat.st_nlink < 2 && right.stat.st_nlink < 2 {
            return true;
        }
        let (l, r) = (left.inode(), right.inode());
        let known = self.pairs.get(&l).cloned();
        let known_back = self.pairs_back.get(&r).cloned();
        self.pairs.entry(l).or_insert_with(|| (r, self.path.clone()));
        self.pairs_back.entry(r).or_insert_with(|| (l, self.path.clone()));
        match (known, known_back) {
            (None, None) => true,
            (Some((other, _)), Some(_)) if other == r => false,
            (Some((_, first)), _) => {
                self.report(
                    Kind::HardLinkGroup,
                    format!("on the left the object of {first:?}, on the right not"),
                );
                true
            }
            (None, Some((_, first))) => {
                self.report(
                    Kind::HardLinkGroup,
                    format!("on the right the object of {first:?}, on the left not"),
                );
                true
            }
        }
    }

    fn content(&mut self, left: &Side, right: &Side) -> io::Result<()> {
        let (left, right) = (File::from(left.open(FILE)?), File::from(right.open(FILE)?));
        // What one side has beyond the end of the other is a difference of size, not more.
        let size = left.metadata()?.len().min(right.metadata()?.len());
        let (left_map, right_map) = (data_map(&left, size)?, data_map(&right, size)?);
        if self.same_type && !self.rules.ignore_holes {
            self.holes(&left_map, &right_map);
        }
        let compared = if size <= WHOLE_MAX { vec![(0, size)] } else { union(&left_map, &right_map) };
        for (start, end) in compared {
            self.seen.bytes += end - start;
            if let Some(at) = first_difference(&left, &right, start, end)? {
                self.report(Kind::Content, format!("first at byte {at} of {size}"));
                return Ok(());
            }
        }
        Ok(())
    }

    fn holes(&mut self, left: &[Range], right: &[Range]) {
        let longest = disagreements(left, right).into_iter().max_by_key(|(start, end)| end - start);
        if let Some((start, end)) = longest.filter(|(start, end)| end - start > self.rules.hole_slack) {
            let count = (left.len(), right.len());
            self.report(
                Kind::Holes,
                format!("data on one side only, longest {start}..{end}; {count:?} ranges"),
            );
        }
    }
}

/// A range of bytes, end exclusive.
type Range = (u64, u64);

/// Where a file has data below `size`. Pages of a reserved range that were only read count as data while they
/// are in memory, so they are dropped first.
fn data_map(file: &File, size: u64) -> io::Result<Vec<Range>> {
    rustix::fs::fadvise(file, 0, None, Advice::DontNeed)?;
    let mut map = Vec::new();
    let mut at = 0;
    loop {
        let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Err(rustix::io::Errno::NXIO) => return Ok(map),
            result => result?,
        };
        if start >= size {
            return Ok(map);
        }
        // With blocks smaller than a page the hole may begin where the data does; then nobody says
        // how far it reaches.
        at = match rustix::fs::seek(file, SeekFrom::Hole(start))? {
            end if end > start => end,
            _ => (start / PAGE_MAX + 1) * PAGE_MAX,
        };
        map.push((start, at.min(size)));
    }
}

/// Ranges that are in either list. Both are sorted.
fn union(left: &[Range], right: &[Range]) -> Vec<Range> {
    let mut all: Vec<Range> = left.iter().chain(right).copied().collect();
    all.sort_unstable();
    let mut merged: Vec<Range> = Vec::new();
    for (start, end) in all {
        match merged.last_mut() {
            Some(last) if start <= last.1 => last.1 = last.1.max(end),
            _ => merged.push((start, end)),
        }
    }
    merged
}

/// Ranges that are in exactly one of two lists of separate, sorted ranges.
fn disagreements(left: &[Range], right: &[Range]) -> Vec<Range> {
    let mut edges: Vec<u64> = left.iter().chain(right).flat_map(|&(start, end)| [start, end]).collect();
    edges.sort_unstable();
    // Every edge flips one side: between an odd and the next edge exactly one side has data.
    edges.chunks_exact(2).map(|edge| (edge[0], edge[1])).filter(|(start, end)| start < end).collect()
}

/// The first byte of a range at which two files differ.
fn first_difference(left: &File, right: &File, mut start: u64, end: u64) -> io::Result<Option<u64>> {
    let mut buffers = (vec![0; CHUNK], vec![0; CHUNK]);
    while start < end {
        let len = CHUNK.min((end - start) as usize);
        left.read_exact_at(&mut buffers.0[..len], start)?;
        right.read_exact_at(&mut buffers.1[..len], start)?;
        if buffers.0[..len] != buffers.1[..len] {
            let at = (0..len).find(|&i| buffers.0[i] != buffers.1[i]).unwrap_or(0);
            return Ok(Some(start + at as u64));
        }
        start += len as u64;
    }
    Ok(None)
}
