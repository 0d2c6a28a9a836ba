//! What the product keeps for itself: directories that are its own, random ids, and documents that
//! are replaced whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::limits::REPLACED_WITHIN;

/// Whether the path of an own directory may be a symbolic link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Symlink {
    /// One that root or this user has made.
    Own,
    /// The place is in a directory that others may write to.
    Never,
}

/// Makes a directory where the product keeps what is its own (mode `mode`, parents too), or takes
/// the one that is there; gives it, open for reading.
///
/// Errors: the system's; somebody else made it, may write to it, or put a link in its place. Then
/// nothing was done to it.
pub fn own_directory(path: &Path, mode: u32, symlink: Symlink) -> io::Result<File> {
    if let Some(parent) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(mode).create(parent)?;
    }
    match fs::DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let link = fs::symlink_metadata(path)?;
    let mut flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    if link.is_symlink() {
        if symlink == Symlink::Never {
            return Err(not_own(path, "it is a symbolic link"));
        }
        if !is_own(link.uid()) {
            return Err(not_own(path, &format!("it is a symbolic link of user {}", link.uid())));
        }
        flags -= OFlags::NOFOLLOW;
    }
    let dir = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    let found = dir.metadata()?;
    if !is_own(found.uid()) {
        return Err(not_own(path, &format!("it belongs to user {}", found.uid())));
    }
    // A group of root's own is nobody else; in a sticky directory nobody moves what is not his.
    let (is_sticky, is_of_root) = (found.mode() & 0o1000 != 0, found.gid() == 0);
    let by_others = found.mode() & 0o002 != 0 && (symlink == Symlink::Never || !is_sticky);
    let by_group = found.mode() & 0o020 != 0 && !is_of_root && !is_sticky;
    if by_others || by_group {
        return Err(not_own(path, &format!("others may write to it (mode {:04o})", found.mode() & 0o7777)));
    }
    Ok(dir)
}

fn is_own(uid: u32) -> bool {
    uid == 0 || uid == rustix::process::geteuid().as_raw()
}

fn not_own(path: &Path, why: &str) -> io::Error {
    let text = format!(
        "{} cannot be used: {why}; it was left as it is. Remove it, or make it a directory of root that nobody \
         else may write to",
        path.display()
    );
    io::Error::new(io::ErrorKind::PermissionDenied, text)
}

/// A random number from the kernel.
///
/// Panics only where the kernel has no random numbers, which no supported one lacks.
pub fn random_u64() -> u64 {
    getrandom::u64().expect("the kernel gives random numbers")
}

/// A random number of 128 bits from the kernel.
pub fn random_u128() -> u128 {
    u128::from(random_u64()) << 64 | u128::from(random_u64())
}

/// Replaces a file by these bytes, durably: a crash leaves the old content or the new one.
/// Mode 0600.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace_with(path, bytes, 0o600)
}

/// [`replace`]; owner, group and mode of what is there stay.
pub fn replace_in_kind(path: &Path, bytes: &[u8]) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(found) => replace_as(path, bytes, 0o600, Some(&found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => replace(path, bytes),
        Err(error) => Err(error),
    }
}

/// [`replace`] with what others may read.
pub fn replace_for_all(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace_with(path, bytes, 0o644)
}

fn replace_with(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    replace_as(path, bytes, mode, None)
}

fn replace_as(path: &Path, bytes: &[u8], mode: u32, like: Option<&fs::Metadata>) -> io::Result<()> {
    let dir = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    let mut file = only_writer(&temporary, mode)?;
    file.write_all(bytes)?;
    if let Some(like) = like {
        std::os::unix::fs::fchown(&file, Some(like.uid()), Some(like.gid()))?;
        file.set_permissions(like.permissions())?;
    }
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(dir)?.sync_all()
}

/// A new file of this name, which nobody else writes to or renames for as long as it is open and has the name: whoever
/// wants the same waits. What a crash left is in the way; whatever it is, nothing is written into it.
///
/// Errors: the system's; somebody else has it for too long.
fn only_writer(temporary: &Path, mode: u32) -> io::Result<File> {
    let until = Instant::now() + REPLACED_WITHIN;
    loop {
        match OpenOptions::new().write(true).create_new(true).mode(mode).open(temporary) {
            // Between the two somebody may have taken it for a leftover.
            Ok(file) if is_locked(&file)? && has_name(&file, temporary)? => return Ok(file),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => take_away(temporary)?,
            Err(error) => return Err(error),
        }
        if Instant::now() >= until {
            let text = format!("another process has been writing {} for long", temporary.display());
            return Err(io::Error::new(io::ErrorKind::TimedOut, text));
        }
        std::thread::sleep(LOOKED_EVERY);
    }
}

/// How often it is looked whether another process has done with a file.
const LOOKED_EVERY: Duration = Duration::from_millis(2);

/// Takes away what lies there, unless somebody is writing it.
fn take_away(temporary: &Path) -> io::Result<()> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    match rustix::fs::open(temporary, flags, Mode::empty()) {
        Ok(file) => {
            let file = File::from(file);
            if is_locked(&file)? && has_name(&file, temporary)? {
                fs::remove_file(temporary)?;
            }
            Ok(())
        }
        Err(Errno::NOENT) => Ok(()),
        // A link, or what cannot be opened at all.
        Err(_) => fs::remove_file(temporary),
    }
}

/// `false`: somebody else has it.
fn is_locked(file: &File) -> io::Result<bool> {
    match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn has_name(file: &File, path: &Path) -> io::Result<bool> {
    let own = file.metadata()?;
    match fs::symlink_metadata(path) {
        Ok(found) => Ok((found.dev(), found.ino()) == (own.dev(), own.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// [`replace`] with a JSON document.
pub fn replace_json<T: serde::Serialize>(path: &Path, value: &T) -> io::Result<()> {
    replace(path, &serde_json::to_vec_pretty(value)?)
}

/// A JSON document; `None` where the file does not exist.
pub fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Beside a replica in a directory that others may write to, somebody could have made the place
    /// for what has no name there, and read it or have it written elsewhere.
    #[test]
    fn a_planted_directory_is_refused() {
        use std::os::unix::fs::{PermissionsExt, chown, symlink};
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let refused = |name: &str, symlink: Symlink| {
            own_directory(&path(name), 0o700, symlink).err().map(|error| error.to_string())
        };
        for links in [Symlink::Own, Symlink::Never] {
            assert_eq!(refused("made/below", links), None);
            assert_eq!(fs::metadata(path("made/below")).unwrap().mode() & 0o7777, 0o700);
        }
        fs::create_dir(path("theirs")).unwrap();
        chown(path("theirs"), Some(1234), None).unwrap();
        assert!(refused("theirs", Symlink::Own).unwrap().contains("belongs to user 1234"));
        for mode in [0o777, 0o770] {
            fs::create_dir_all(path("open")).unwrap();
            chown(path("open"), None, Some(1234)).unwrap();
            fs::set_permissions(path("open"), fs::Permissions::from_mode(mode)).unwrap();
            assert!(refused("open", Symlink::Never).unwrap().contains("others may write"), "{mode:o}");
        }
        symlink("made", path("link")).unwrap();
        assert!(refused("link", Symlink::Never).unwrap().contains("symbolic link"));
        assert_eq!(refused("link", Symlink::Own), None);
        std::os::unix::fs::lchown(path("link"), Some(1234), None).unwrap();
        assert!(refused("link", Symlink::Own).unwrap().contains("link of user 1234"));
        fs::write(path("file"), "").unwrap();
        assert!(refused("file", Symlink::Own).is_some());
    }

    #[test]
    fn a_planted_temporary_file_is_not_written_through() {
        let dir = tempfile::tempdir().unwrap();
        let (path, canary) = (dir.path().join("x.json"), dir.path().join("canary"));
        fs::write(&canary, "untouched").unwrap();
        std::os::unix::fs::symlink(&canary, dir.path().join("x.json.new")).unwrap();
        replace_json(&path, &1).unwrap();
        assert_eq!(fs::read_to_string(&canary).unwrap(), "untouched");
        assert_eq!(read_json::<u8>(&path).unwrap(), Some(1));
        assert!(!fs::symlink_metadata(&path).unwrap().is_symlink());
    }

    /// One has removed what another one was writing, and that one has put a third one's half in its place.
    #[test]
    fn who_replaces_one_file_at_once_loses_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.json");
        let write = |number: u8| {
            for _ in 0..40 {
                replace_json(&path, &vec![number; 1 + 3000 * usize::from(number)]).unwrap();
                let found = read_json::<Vec<u8>>(&path).unwrap().unwrap();
                assert_eq!(found, vec![found[0]; 1 + 3000 * usize::from(found[0])]);
            }
        };
        std::thread::scope(|scope| (0..4).for_each(|number| drop(scope.spawn(move || write(number)))));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_document_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.json");
        assert_eq!(read_json::<Vec<u8>>(&path).unwrap(), None);
        replace_json(&path, &vec![1u8, 2]).unwrap();
        replace_json(&path, &vec![3u8]).unwrap();
        assert_eq!(read_json::<Vec<u8>>(&path).unwrap(), Some(vec![3]));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
