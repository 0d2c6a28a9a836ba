//! The damage of what a check has read: every bit of some blocks is turned over, once. Nothing else of a file changes but
//! the time of the last change of its inode, which nobody can set.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, Timespec, Timestamps, XattrFlags};
use serde::{Deserialize, Serialize};

use super::reads::open;
use crate::control::path_text;
use crate::drill::damage::{Spot, Target, once};
use crate::xattr::{self, Flags, clear_hindering};

/// The kernel takes it away from whatever is written to, whoever writes.
const CAPABILITY: &str = "security.capability";

/// What was done to a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damaged {
    /// The first of its names that were read.
    #[serde(with = "path_text")]
    pub path: PathBuf,
    pub bytes: u64,
}

/// A name of a file of which nothing was damaged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    #[serde(with = "path_text")]
    pub path: PathBuf,
    pub reason: String,
}

/// What was done to all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Harm {
    pub damaged: Vec<Damaged>,
    pub left_out: Vec<LeftOut>,
}

/// Turns every bit of these blocks over, of a file with several names once. What hinders that (`chattr +i`, `+a`) is taken away
/// for the time, which needs `CAP_LINUX_IMMUTABLE`.
///
/// Errors: the clone cannot be opened.
pub(super) fn damage(at: &Path, targets: &[Target]) -> io::Result<Harm> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(at, flags, Mode::empty())?;
    let mut harm = Harm::default();
    let mut files: BTreeMap<(u64, u64), Vec<&Target>> = BTreeMap::new();
    for target in targets {
        match identify(&root, &target.path) {
            Ok(file) => files.entry(file).or_default().push(target),
            Err(error) => harm.left_out.push(left_out(target, &error)),
        }
    }
    for names in files.into_values() {
        let spots = once(names.iter().flat_map(|name| name.spots.iter().copied()));
        let Some(first) = names.first() else { continue };
        match damage_file(&root, &first.path, &spots) {
            Ok(bytes) => harm.damaged.push(Damaged { path: first.path.clone(), bytes }),
            Err(error) => harm.left_out.extend(names.iter().map(|name| left_out(name, &error))),
        }
    }
    harm.damaged.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(harm)
}

fn left_out(target: &Target, error: &io::Error) -> LeftOut {
    let reason = match error.kind() {
        io::ErrorKind::NotFound => "it is not there any more".to_owned(),
        _ => error.to_string(),
    };
    LeftOut { path: target.path.clone(), reason }
}

/// Which file a name leads to.
fn identify(root: &OwnedFd, path: &Path) -> io::Result<(u64, u64)> {
    let status = rustix::fs::fstat(open(root, path, OFlags::PATH)?)?;
    match FileType::from_raw_mode(status.st_mode) {
        FileType::RegularFile => Ok((status.st_dev, status.st_ino)),
        _ => Err(io::Error::other("it is no file any more")),
    }
}

/// How many bytes of it were damaged; not 0.
fn damage_file(root: &OwnedFd, path: &Path, spots: &[Spot]) -> io::Result<u64> {
    let seen = open(root, path, OFlags::PATH)?;
    let flags = Flags::of(&seen)?;
    let is_lifted = clear_hindering(&seen);
    let done = open(root, path, OFlags::RDWR).and_then(|file| damage_content(&file, spots));
    if is_lifted {
        flags.set(seen.as_fd())?;
    }
    match done {
        Ok(0) => Err(io::Error::other("it is shorter than it was when it was read")),
        done => done,
    }
}

/// What a write changes besides the content is given back.
fn damage_content(file: &File, spots: &[Spot]) -> io::Result<u64> {
    let before = rustix::fs::fstat(file)?;
    let capability = xattr::get(file, CAPABILITY.as_bytes())?;
    let (mut bytes, mut failed) = (0, None);
    for spot in spots {
        match turn_over(file, *spot) {
            Ok(more) => bytes += more,
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    if let Some(value) = capability {
        rustix::fs::fsetxattr(file, CAPABILITY, &value, XattrFlags::empty())?;
    }
    let mode = Mode::from_raw_mode(before.st_mode);
    if Mode::from_raw_mode(rustix::fs::fstat(file)?.st_mode) != mode {
        rustix::fs::fchmod(file, mode)?;
    }
    let time = |seconds, nanoseconds: u64| Timespec { tv_sec: seconds, tv_nsec: nanoseconds as i64 };
    let times = Timestamps {
        last_access: time(before.st_atime, before.st_atime_nsec),
        last_modification: time(before.st_mtime, before.st_mtime_nsec),
    };
    rustix::fs::futimens(file, &times)?;
    file.sync_all()?;
    match failed {
        Some(error) if bytes == 0 => Err(error),
        _ => Ok(bytes),
    }
}

/// Never beyond the end.
fn turn_over(file: &File, spot: Spot) -> io::Result<u64> {
    let mut part = vec![0; spot.length as usize];
    let mut count = 0;
    while count < part.len() {
        match file.read_at(&mut part[count..], spot.offset + count as u64)? {
            0 => break,
            more => count += more,
        }
    }
    part.truncate(count);
    part.iter_mut().for_each(|byte| *byte = !*byte);
    file.write_all_at(&part, spot.offset)?;
    Ok(count as u64)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::fs;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::xattr::{Unflagged, immutable};

    fn target(path: impl AsRef<Path>, spots: &[(u64, u64)]) -> Target {
        let spots = spots.iter().map(|(offset, length)| Spot { offset: *offset, length: *length }).collect();
        Target { path: path.as_ref().into(), spots }
    }

    #[test]
    fn damage_stays_in_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let outside = tempfile::NamedTempFile::new().unwrap();
        fs::write(outside.path(), "outside").unwrap();
        fs::write(dir.path().join("a"), vec![7; 30_000]).unwrap();
        fs::write(dir.path().join("short"), "").unwrap();
        std::os::unix::fs::symlink(outside.path(), dir.path().join("link")).unwrap();
        let targets = [
            target("a", &[(8192, 8192), (24_576, 8192), (90_000, 8192)]),
            target("gone", &[(0, 8192)]),
            target("link", &[(0, 9)]),
            target("../outside", &[(0, 9)]),
            target("short", &[(0, 9)]),
        ];
        let harm = damage(dir.path(), &targets).unwrap();
        assert_eq!(harm.damaged, [Damaged { path: "a".into(), bytes: 8192 + 30_000 - 24_576 }]);
        let left_out: Vec<_> = harm.left_out.iter().map(|one| one.path.to_str().unwrap()).collect();
        assert_eq!(left_out, ["gone", "link", "../outside", "short"], "{harm:?}");
        let content = fs::read(dir.path().join("a")).unwrap();
        let wanted = |at: usize| if (8192..16_384).contains(&at) || at >= 24_576 { !7 } else { 7 };
        assert!(content.iter().enumerate().all(|(at, byte)| *byte == wanted(at)) && content.len() == 30_000);
        assert_eq!(fs::read(outside.path()).unwrap(), b"outside");
    }

    /// Each bit was turned over twice, and nothing was damaged.
    #[test]
    fn a_file_with_two_names_is_damaged_once() {
        let dir = tempfile::tempdir().unwrap();
        let other = Path::new(OsStr::from_bytes(b"no\xfftext"));
        fs::write(dir.path().join("a"), vec![7; 20_000]).unwrap();
        fs::hard_link(dir.path().join("a"), dir.path().join(other)).unwrap();
        let targets = [target("a", &[(8192, 8192)]), target(other, &[(8192, 8192), (16_384, 3616)])];
        let harm = damage(dir.path(), &targets).unwrap();
        assert_eq!(
            harm,
            Harm { damaged: vec![Damaged { path: "a".into(), bytes: 11_808 }], ..Harm::default() }
        );
        let content = fs::read(dir.path().join(other)).unwrap();
        assert!(content.iter().enumerate().all(|(at, byte)| *byte == if at < 8192 { 7 } else { !7 }));
    }

    /// A check that looks at times alone was called proven, and one file that nobody may change ended the proof.
    #[test]
    fn what_is_no_content_stays_as_it_was() {
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let (path, kept) = (dir.path().join("a"), dir.path().join("kept"));
        for path in [&path, &kept] {
            fs::write(path, "content").unwrap();
            rustix::fs::chmod(path, Mode::from_raw_mode(0o4751)).unwrap();
            let time = |tv_sec| Timespec { tv_sec, tv_nsec: 5 };
            let times = Timestamps { last_access: time(1_000), last_modification: time(2_000) };
            rustix::fs::utimensat(rustix::fs::CWD, path, &times, rustix::fs::AtFlags::empty()).unwrap();
        }
        // Version 2, CAP_NET_RAW permitted and effective (capabilities(7)).
        let capability = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        rustix::fs::setxattr(&path, CAPABILITY, &capability, XattrFlags::empty()).unwrap();
        let _unflagged = Unflagged(dir.path().to_owned());
        Flags::IMMUTABLE.set(File::open(&kept).unwrap().as_fd()).unwrap();
        let look = |path: &Path| {
            let (seen, file) = (fs::metadata(path).unwrap(), File::open(path).unwrap());
            let xattrs = xattr::read_replicated(&file).unwrap();
            (seen.mode(), seen.atime(), seen.mtime(), seen.mtime_nsec(), seen.size(), xattrs)
        };
        let before = [&path, &kept].map(|path| look(path));
        let harm = damage(dir.path(), &[target("a", &[(0, 7)]), target("kept", &[(0, 7)])]);
        let after = [&path, &kept].map(|path| look(path));
        let contents = [&path, &kept].map(|path| fs::read(path).unwrap());
        assert_eq!(after, before);
        assert!(before[1].5.iter().any(|xattr| xattr.name.0 == xattr::FLAGS), "{before:?}");
        assert_eq!(harm.unwrap().damaged.len(), 2);
        assert!(contents.iter().all(|content| *content == b"content".map(|byte| !byte)), "{contents:?}");
    }

    #[test]
    fn what_cannot_be_damaged_is_named() {
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let path = |name: &str| dir.path().join(name);
        ["a", "kept"].iter().for_each(|name| fs::write(path(name), "content").unwrap());
        fs::hard_link(path("kept"), path("second")).unwrap();
        // Without the capability that it takes to change that.
        immutable(&path("kept"), true);
        let all = ["a", "kept", "second"].map(|name| target(name, &[(0, 7)]));
        let harm = damage(dir.path(), &all);
        immutable(&path("kept"), false);
        let Harm { damaged, left_out } = harm.unwrap();
        assert_eq!(damaged, [Damaged { path: "a".into(), bytes: 7 }]);
        let named: Vec<_> = left_out.iter().map(|one| one.path.to_str().unwrap()).collect();
        assert_eq!(named, ["kept", "second"]);
        assert!(left_out.iter().all(|one| one.reason.contains("not permitted")), "{left_out:?}");
        assert_eq!(fs::read(path("kept")).unwrap(), b"content");
    }
}
