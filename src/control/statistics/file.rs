//! The file that lines are appended to. It is opened for each batch of them and closed again, so that whoever moves it
//! away (logrotate), unmounts its disk or puts another one there has to tell nobody.
//!
//! ```text
//!  web.jsonl ──too long──> web.jsonl.1 ──> web.jsonl.2 ──> web.jsonl.3 ──> gone
//! ```
//! Several daemons may have one file: it is locked (flock) while something is appended or renamed. Nothing of it
//! follows a symbolic link, or goes to a place where others may write.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, fchmod, fchown, fstat, openat, openat2,
    renameat, statat, unlinkat,
};
use rustix::io::Errno;

use crate::failpoint;
use crate::locked::Locked;
use crate::words::StatisticsTo;

/// Of a file that is made; one that takes the place of another gets mode and group of that.
const MODE: Mode = Mode::from_raw_mode(0o640);

/// How long another daemon may have the file locked, which takes it a few calls.
const LOCKED_FOR: Duration = Duration::from_millis(500);

/// How often a file may be another one than the one that was opened, or be too long, before it is given up.
const ATTEMPTS: u32 = 8;

/// Appends whole lines: all of them, or none.
///
/// Errors: the system's, and `PermissionDenied` where it may not be written there; nothing was appended.
pub fn append(to: &StatisticsTo, lines: &[u8]) -> io::Result<()> {
    let (dir, name) = (directory(&to.path)?, name_of(&to.path)?);
    let mut before = None;
    for _ in 0..ATTEMPTS {
        let file = match open(&dir, name, before.as_ref()) {
            // Another daemon has made it at the same moment.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            opened => opened?,
        };
        let Some(file) = Locked::within(file, LOCKED_FOR)? else {
            return Err(io::Error::other("another process has it locked"));
        };
        let found = fstat(&*file)?;
        // It was moved away before it was locked.
        if !has_name(&dir, name, &found)? {
            continue;
        }
        let len = found.st_size as u64;
        if len == 0 || len.saturating_add(lines.len() as u64) <= to.size {
            return write(&file, len, lines);
        }
        rotate(&dir, name, to.keep)?;
        before = Some(found);
    }
    Err(io::Error::other("it is another file each time that it is opened"))
}

/// Why nothing is written there, whatever else is so; `None` where nothing speaks against it, and where there is no
/// such directory yet.
pub fn refusal(path: &Path) -> Option<String> {
    let look = || -> io::Result<()> {
        let (dir, name) = (directory(path)?, name_of(path)?);
        must_be_own_file(&statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW)?)
    };
    look()
        .err()
        .filter(|error| error.kind() == io::ErrorKind::PermissionDenied)
        .map(|error| error.to_string())
}

/// Whoever may write to the directory could put another file in the place of one of its names.
fn directory(path: &Path) -> io::Result<OwnedFd> {
    let dir = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir =
        openat2(CWD, dir, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS).map_err(|errno| match errno {
            Errno::LOOP => refused("a symbolic link is on the way to it"),
            Errno::NOTDIR => refused("what it would be in is no directory"),
            errno => errno.into(),
        })?;
    let found = fstat(&dir)?;
    if !is_own(found.st_uid) {
        return Err(refused(&format!("its directory belongs to user {}", found.st_uid)));
    }
    // With an access control list the bits of the group are its mask: the list may have others.
    if found.st_mode & 0o022 != 0 {
        let mode = found.st_mode & 0o7777;
        return Err(refused(&format!("others may write to its directory (mode {mode:04o})")));
    }
    Ok(dir)
}

fn name_of(path: &Path) -> io::Result<&OsStr> {
    path.file_name().ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

/// The file of this name, or a new one.
fn open(dir: &OwnedFd, name: &OsStr, before: Option<&Stat>) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let flags = flags | OFlags::CLOEXEC;
    let file = match openat(dir, name, flags, Mode::empty()) {
        Err(Errno::NOENT) => create(dir, name, flags, before)?,
        Err(Errno::LOOP) => return Err(refused("it is a symbolic link")),
        opened => File::from(opened?),
    };
    must_be_own_file(&fstat(&file)?)?;
    Ok(file)
}

fn create(dir: &OwnedFd, name: &OsStr, flags: OFlags, before: Option<&Stat>) -> io::Result<File> {
    let file = File::from(openat(dir, name, flags | OFlags::CREATE | OFlags::EXCL, Mode::RUSR | Mode::WUSR)?);
    if let Some(before) = before {
        // Where it cannot be given away, root alone reads it.
        let _ = fchown(&file, None, Some(Gid::from_raw(before.st_gid)));
    }
    fchmod(&file, before.map_or(MODE, |before| Mode::from_raw_mode(before.st_mode)))?;
    Ok(file)
}

fn must_be_own_file(found: &Stat) -> io::Result<()> {
    match FileType::from_raw_mode(found.st_mode) {
        FileType::RegularFile if found.st_nlink > 1 => Err(refused("it has another name (a hard link)")),
        FileType::RegularFile if is_own(found.st_uid) => Ok(()),
        FileType::RegularFile => Err(refused(&format!("it belongs to user {}", found.st_uid))),
        FileType::Symlink => Err(refused("it is a symbolic link")),
        _ => Err(refused("it is no regular file")),
    }
}

fn is_own(uid: u32) -> bool {
    uid == 0 || uid == rustix::process::geteuid().as_raw()
}

fn refused(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, why)
}

fn has_name(dir: &OwnedFd, name: &OsStr, own: &Stat) -> io::Result<bool> {
    match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(found) => Ok((found.st_dev, found.st_ino) == (own.st_dev, own.st_ino)),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// What has the name goes out of it, the oldest file for good.
fn rotate(dir: &OwnedFd, name: &OsStr, keep: u32) -> io::Result<()> {
    failpoint::at("statistics rotate")?;
    if keep <= 1 {
        return Ok(unlinkat(dir, name, AtFlags::empty())?);
    }
    for number in (1..keep).rev() {
        match renameat(dir, numbered(name, number - 1), dir, numbered(name, number)) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// The name of the file that many before this one.
fn numbered(name: &OsStr, number: u32) -> OsString {
    let mut name = name.to_owned();
    if number > 0 {
        name.push(format!(".{number}"));
    }
    name
}

/// `len`: of the file, which is locked.
fn write(file: &File, len: u64, lines: &[u8]) -> io::Result<()> {
    let mut last = [b'\n'];
    if len > 0 {
        file.read_exact_at(&mut last, len - 1)?;
    }
    // A line that a crash has torn is no part of the next one.
    let torn: &[u8] = if last == *b"\n" { b"" } else { b"\n" };
    let mut appended = file;
    let outcome = appended.write_all(&[torn, lines].concat());
    // Of a disk that is full there may be a part of it.
    outcome.and_then(|()| failpoint::at("statistics written")).inspect_err(|_| drop(file.set_len(len)))
}
