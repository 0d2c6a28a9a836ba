//! A part of the set, as a person names it: a path in the protected directory.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Stat, fstat, openat2};
use rustix::io::Errno;

use super::ground::Ground;
use crate::control::FileKind;
use crate::failure::Failure;
use crate::sets::Matcher;

pub const UNTOUCHED: &str = "Nothing was changed.";

/// The path below the directory; `None`: the directory itself.
///
/// Errors: it is not in the directory, nothing is there, or the rules of the set leave it out.
pub fn find(ground: &Ground, path: &Path) -> Result<Option<PathBuf>, Failure> {
    let directory = &ground.options.directory;
    let Some(below) = below(directory, path)? else { return Ok(None) };
    let shown = directory.join(&below);
    let found = open(ground, &below).and_then(fstat).map_err(|error| not_there(&shown, error.into()))?;
    let is_directory = FileType::from_raw_mode(found.st_mode) == FileType::Directory;
    match ground.volume.matcher() {
        Some(matcher) if !has(&matcher, &below, is_directory) => Err(Failure::new(
            format!("The rules of the set leave {} out.", shown.display()),
            UNTOUCHED,
            "`standin set show` has the rules.",
        )),
        _ => Ok(Some(below)),
    }
}

/// What lies at a path, looked at past the mount without following a symlink.
pub enum Looked {
    /// Not in the directory.
    Outside(Failure),
    /// In the way is a symlink, another file system, an error.
    Unseen {
        below: PathBuf,
        why: String,
    },
    /// The rules of the set leave it out.
    Excluded {
        below: PathBuf,
    },
    Gone {
        below: PathBuf,
    },
    There {
        below: PathBuf,
        kind: FileKind,
        changed: SystemTime,
    },
}

impl Looked {
    /// The path below the directory, of what can be of the set.
    pub fn below(&self) -> Option<&Path> {
        match self {
            Looked::Outside(_) | Looked::Unseen { .. } => None,
            Looked::Excluded { below } | Looked::Gone { below } | Looked::There { below, .. } => Some(below),
        }
    }

    pub fn is_of_the_set(&self) -> bool {
        matches!(self, Looked::Gone { .. } | Looked::There { .. })
    }
}

/// See [`Looked`].
pub fn look(ground: &Ground, path: &Path) -> Looked {
    let below = match below(&ground.options.directory, path) {
        Ok(below) => below.unwrap_or_default(),
        Err(failure) => return Looked::Outside(failure),
    };
    let opened = if below.as_os_str().is_empty() { Path::new(".") } else { &below };
    let found = match open(ground, opened).and_then(fstat) {
        Ok(found) => Some(found),
        Err(Errno::NOENT | Errno::NOTDIR) => None,
        Err(error) => {
            let shown = ground.options.directory.join(&below);
            let why = not_there(&shown, error.into()).what;
            return Looked::Unseen { below, why };
        }
    };
    let kind = found.as_ref().map(|found| kind(FileType::from_raw_mode(found.st_mode)));
    let is_excluded = |matcher: &Matcher| {
        !below.as_os_str().is_empty() && !has(matcher, &below, kind == Some(FileKind::Directory))
    };
    match (kind, found) {
        _ if ground.volume.matcher().is_some_and(|matcher| is_excluded(&matcher)) => {
            Looked::Excluded { below }
        }
        (Some(kind), Some(found)) => Looked::There { below, kind, changed: changed(&found) },
        _ => Looked::Gone { below },
    }
}

fn open(ground: &Ground, below: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    openat2(&ground.backing, below, flags, Mode::empty(), resolve)
}

fn kind(file_type: FileType) -> FileKind {
    match file_type {
        FileType::RegularFile => FileKind::File,
        FileType::Directory => FileKind::Directory,
        FileType::Symlink => FileKind::Symlink,
        _ => FileKind::Special,
    }
}

/// What is before 1970 counts as of then.
fn changed(found: &Stat) -> SystemTime {
    let since = Duration::new(u64::try_from(found.st_ctime).unwrap_or(0), found.st_ctime_nsec as u32);
    UNIX_EPOCH + since
}

fn not_there(shown: &Path, error: io::Error) -> Failure {
    let why = match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENOTDIR) => "There is nothing at".to_owned(),
        Some(libc::ELOOP) => "A symlink is on the way to".to_owned(),
        Some(libc::EXDEV) => "Another file system is mounted on the way to".to_owned(),
        _ => format!("It cannot be looked at ({error}):"),
    };
    Failure::new(
        format!("{why} {}.", shown.display()),
        UNTOUCHED,
        "Name a file or a directory of the protected one.",
    )
}

fn has(matcher: &Matcher, path: &Path, is_directory: bool) -> bool {
    let mut rules = matcher.root();
    let mut parts = path.iter().peekable();
    while let Some(part) = parts.next() {
        let part = part.as_bytes();
        if parts.peek().is_none() {
            return matcher.has(&rules, part, is_directory);
        }
        match matcher.enter(&rules, part) {
            Some(inside) => rules = inside,
            None => return false,
        }
    }
    true
}

/// The path below the directory; `None`: the directory itself.
fn below(directory: &Path, path: &Path) -> Result<Option<PathBuf>, Failure> {
    let relative = match path.is_absolute() {
        true => path.strip_prefix(directory).ok(),
        false => Some(path),
    };
    let parts = relative.map(|path| {
        path.components().filter(|part| *part != Component::CurDir).collect::<Vec<Component<'_>>>()
    });
    match parts {
        Some(parts) if parts.iter().all(|part| matches!(part, Component::Normal(_))) => {
            let path: PathBuf = parts.iter().collect::<PathBuf>();
            Ok((!parts.is_empty()).then_some(path))
        }
        _ => Err(Failure::new(
            format!("{} is not in {}.", path.display(), directory.display()),
            UNTOUCHED,
            "Name a file or a directory in it, without `..`.",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sets::Rules;

    #[track_caller]
    fn check(path: &str, expected: Option<Option<&str>>) {
        let found = below(Path::new("/srv/web"), Path::new(path)).ok();
        assert_eq!(found, expected.map(|path| path.map(PathBuf::from)), "{path}");
    }

    #[test]
    fn a_path_is_below_the_directory() {
        check("a/b", Some(Some("a/b")));
        check("./a/./b/", Some(Some("a/b")));
        check("/srv/web/a", Some(Some("a")));
        check("/srv/web", Some(None));
        check(".", Some(None));
        check("/srv/webs/a", None);
        check("/etc", None);
        check("../a", None);
        check("a/../../b", None);
        check("a/..", None);
    }

    #[test]
    fn rules_say_whether_a_path_is_of_the_set() {
        let rules = Rules::from_wire(&[rule("/cache"), rule("*.tmp")]).unwrap();
        let matcher = Matcher::new(&rules).unwrap();
        for (path, is_of_it) in [
            ("a", true),
            ("a/b", true),
            ("cache", false),
            ("cache/a", false),
            ("a/b.tmp", false),
            ("a/cache", true),
        ] {
            assert_eq!(has(&matcher, Path::new(path), false), is_of_it, "{path}");
        }
    }

    fn rule(pattern: &str) -> crate::packet::SetRule {
        let pattern = crate::packet::Bounded(pattern.as_bytes().to_vec());
        crate::packet::SetRule { includes: false, is_recursive: true, pattern }
    }
}
