//! Files whose content may not be what their id says, although size and mtime could: those that
//! were adopted by name, those that a copy was cut off in, those that a packet has changed which the
//! copy had not looked at, and those of which an op was given up.
//! On disk, so that a killed target knows them; files written in the same tick of the clock have the
//! same mtime.
//!
//! ```text
//! incomplete       an index: many of them, and what is remembered for good
//! incomplete-log   the few of a copy that is under way: records of 32 bytes, appended, the last one of an id
//!                  counts
//!    0  4  crc32c of bytes 4..32; a record whose crc is wrong (torn) was never written
//!    4  1  1 it is incomplete, 2 it is not
//!    5  3  zero
//!    8  8  mark
//!   16 16  object id: birth epoch, generation, inode
//! ```
//! A copy adds each file that it makes and takes it off again: in an index these were a sixth of its calls.

mod log;

use std::collections::HashMap;
use std::io;
use std::path::Path;

use self::log::Log;
use super::Replica;
use super::index::Index;
use crate::apply::fault::Fault;
use crate::failpoint;
use crate::limits::INCOMPLETE_IN_MEMORY;
use crate::packet::ObjectId;
use crate::store::random_u64;
use crate::sys::FileHandle;

/// In the replica's state directory.
const FILE: &str = "incomplete";
const LOG: &str = "incomplete-log";

pub(in crate::apply) struct Incomplete {
    list: Index,
    log: Log,
    /// What the log says.
    few: HashMap<ObjectId, u64>,
    /// Of what this session does not ask for any more; the next one does.
    left: u64,
    /// Of everything else, counted: no mark is [`Incomplete::left`] of this session or of another one.
    marks: u64,
}

/// What a file on the list waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::apply) enum Lack {
    Content,
    /// Nothing more in this session: the source cannot read it, or it cannot be written here.
    Left,
}

impl Incomplete {
    /// Opens the list. Where it is damaged every id is forgotten: then all content is wanted.
    pub(in crate::apply) fn open(replica: &mut Replica) -> Result<Incomplete, Fault> {
        let path = replica.state().join(FILE);
        let list = match Index::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                ::log::warn!("{}: {error}; all content is copied again", path.display());
                replica.forget_all()?;
                std::fs::remove_file(&path).and_then(|()| Index::open(&path))
            }
            opened => opened,
        };
        let (log, few) = Log::open(replica.state()).map_err(failed)?;
        let left = random_u64();
        Ok(Incomplete { list: list.map_err(failed)?, log, few, left, marks: left })
    }

    /// From now on the content is in doubt. On disk when it returns.
    pub(in crate::apply) fn add(&mut self, id: ObjectId) -> Result<(), Fault> {
        self.add_soon(id)?;
        self.write()
    }

    /// [`Incomplete::add`], but it is on disk after [`Incomplete::write`], before which nothing of its content may be
    /// touched.
    pub(in crate::apply) fn add_soon(&mut self, id: ObjectId) -> Result<(), Fault> {
        if self.mark(id)?.is_some() {
            return Ok(());
        }
        self.marks = self.marks.wrapping_add(1);
        self.set(id, self.marks)
    }

    /// It stays in doubt after this session.
    pub(in crate::apply) fn leave(&mut self, id: ObjectId) -> Result<(), Fault> {
        self.set(id, self.left)?;
        self.write()
    }

    fn set(&mut self, id: ObjectId, mark: u64) -> Result<(), Fault> {
        if self.few.len() >= INCOMPLETE_IN_MEMORY {
            self.move_to_list()?;
        }
        self.few.insert(id, mark);
        self.log.push(id, Some(mark));
        Ok(())
    }

    /// A kill in the middle leaves some in both, and a power loss as many as there were.
    fn move_to_list(&mut self) -> Result<(), Fault> {
        for (&id, &mark) in &self.few {
            self.list.insert(id, on_list(mark)).map_err(failed)?;
        }
        self.list.sync().map_err(failed)?;
        self.few.clear();
        self.log.replace(&self.few).map_err(failed)
    }

    /// The content is what the source has, and its mtime says so; or it is gone. On disk soon: after a kill before
    /// that, its content comes once more.
    pub(in crate::apply) fn remove(&mut self, id: ObjectId) -> Result<(), Fault> {
        if self.few.remove(&id).is_some() {
            self.log.push(id, None);
        }
        if self.list.is_empty() {
            return Ok(());
        }
        self.list.remove(id).map(drop).map_err(failed)
    }

    /// What was said since the last one is on disk when it returns.
    pub(in crate::apply) fn write(&mut self) -> Result<(), Fault> {
        failpoint::at("incomplete").and_then(|()| self.log.write(&self.few)).map_err(failed)
    }

    pub(in crate::apply) fn lack(&self, id: ObjectId) -> Result<Option<Lack>, Fault> {
        Ok(self.mark(id)?.map(|mark| self.lack_of(mark)))
    }

    fn mark(&self, id: ObjectId) -> Result<Option<u64>, Fault> {
        match self.few.get(&id) {
            Some(&mark) => Ok(Some(mark)),
            None if self.list.is_empty() => Ok(None),
            None => Ok(self.list.get(id).map_err(failed)?.map(|handle| mark_on_list(&handle))),
        }
    }

    /// Files whose content is still to come.
    pub(in crate::apply) fn waiting(&self) -> Result<Vec<ObjectId>, Fault> {
        let few = self.few.iter().filter(|&(_, &mark)| self.lack_of(mark) == Lack::Content);
        let mut found: Vec<ObjectId> = few.map(|(&id, _)| id).collect();
        let visit = |id, handle| {
            let is_waiting = self.lack_of(mark_on_list(&handle)) == Lack::Content;
            found.extend((is_waiting && !self.few.contains_key(&id)).then_some(id));
            Ok(())
        };
        self.list.for_each(visit).map_err(failed)?;
        Ok(found)
    }

    fn lack_of(&self, mark: u64) -> Lack {
        if mark == self.left { Lack::Left } else { Lack::Content }
    }
}

impl Drop for Incomplete {
    fn drop(&mut self) {
        if let Err(error) = self.log.write(&self.few) {
            ::log::debug!("some content will be copied once more: {error}");
        }
    }
}

/// Adds files for good: durable when it returns.
pub(super) fn remember(state: &Path, ids: &[ObjectId]) -> Result<(), Fault> {
    let add = || {
        let mut list = Index::open(&state.join(FILE))?;
        let mut has_new = false;
        for &id in ids {
            if list.get(id)?.is_none() {
                list.insert(id, on_list(random_u64()))?;
                has_new = true;
            }
        }
        if has_new { list.sync() } else { Ok(()) }
    };
    match add() {
        // The next copy finds it damaged, and takes nothing for copied.
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(()),
        done => done.map_err(failed),
    }
}

/// All content is what the source has: the list goes.
pub(in crate::apply) fn forget(state: &Path) {
    super::remove_quietly(&state.join(FILE));
    super::remove_quietly(&state.join(LOG));
}

fn on_list(mark: u64) -> FileHandle {
    FileHandle::from_parts(0, &mark.to_le_bytes()).expect("8 bytes fit into a handle")
}

fn mark_on_list(handle: &FileHandle) -> u64 {
    handle.as_bytes().try_into().map_or(0, u64::from_le_bytes)
}

fn failed(error: io::Error) -> Fault {
    Fault::Own { what: "list of incomplete files", error }
}

#[cfg(test)]
mod tests;
