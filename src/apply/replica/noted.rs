//! What a person wants to know of a name in limbo, and its place there does not tell: one file a batch,
//! `LIMBO/noted/BATCH`, of `NAME NUL PATH NUL WHY NUL`. Best effort: on a full disk a copy goes on
//! without, and then an orphan has its name alone.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags};

use crate::limits::NOTED_LEN_MAX;
use crate::packet::Name;

const NOTED: &str = "noted";

/// Why a name had to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The source has no such name.
    NotOnSource,
    /// The source has something else of that name, or it lay where a directory was to move.
    InTheWay,
    /// It is no part of the set any more.
    OutOfTheSet,
}

/// What was noted of one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::apply) struct Note {
    pub(in crate::apply) path: Option<PathBuf>,
    pub(in crate::apply) why: Why,
}

/// Notes that one of these names goes to the batch. `path`: in the replica, where it is known.
pub(in crate::apply) fn add(limbo: &File, batch: &str, name: &Name, path: Option<&Path>, why: Why) {
    let path = path.map_or(&b""[..], |path| path.as_os_str().as_bytes());
    let why: &[u8] = match why {
        Why::NotOnSource => b"gone",
        Why::InTheWay => b"way",
        Why::OutOfTheSet => b"out",
    };
    let line = [name.as_bytes(), b"\0", path, b"\0", why, b"\0"].concat();
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE;
    if let Some(mut file) = open(limbo, batch, flags)
        && let Err(error) = file.write_all(&line)
    {
        log::debug!("where {name:?} was is not noted: {error}");
    }
}

/// Of one batch; nothing where it cannot be read.
pub(in crate::apply) fn read(limbo: &File, batch: &str) -> HashMap<Name, Note> {
    let mut bytes = Vec::new();
    if let Some(file) = open(limbo, batch, OFlags::RDONLY)
        && let Err(error) = file.take(NOTED_LEN_MAX).read_to_end(&mut bytes)
    {
        log::debug!("what was noted of {batch}: {error}");
    }
    let parts: Vec<&[u8]> = bytes.split(|byte| *byte == 0).collect();
    let note = |part: &[&[u8]]| {
        let path = (!part[1].is_empty()).then(|| PathBuf::from(std::ffi::OsStr::from_bytes(part[1])));
        let why = match part[2] {
            b"gone" => Why::NotOnSource,
            b"out" => Why::OutOfTheSet,
            _ => Why::InTheWay,
        };
        Some((Name::new(part[0]).ok()?, Note { path, why }))
    };
    parts.chunks_exact(3).filter_map(note).collect()
}

/// The batch is gone.
pub(in crate::apply) fn forget(limbo: &File, batch: &str) {
    if let (Some(dir), Ok(name)) = (directory(limbo), Name::new(batch.as_bytes())) {
        let _ = rustix::fs::unlinkat(&dir, name.as_bytes(), AtFlags::empty());
    }
}

fn open(limbo: &File, batch: &str, flags: OFlags) -> Option<File> {
    let name = Name::new(batch.as_bytes()).ok()?;
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    if flags.contains(OFlags::CREATE) {
        let _ = rustix::fs::mkdirat(limbo, NOTED, Mode::RWXU);
    }
    rustix::fs::openat(&directory(limbo)?, name.as_bytes(), flags, mode).ok().map(File::from)
}

fn directory(limbo: &File) -> Option<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(limbo, NOTED, flags, Mode::empty()).ok().map(File::from)
}
