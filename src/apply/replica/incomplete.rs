//! Files whose content may not be what their id says, although size and mtime could: those that
//! were adopted by name, those that a copy was cut off in, those that a packet has changed which the
//! copy had not looked at, and those of which an op was given up.
//! On disk, so that a killed target knows them; files written in the same tick of the clock have the
//! same mtime.

use std::io;
use std::path::Path;

use super::Replica;
use super::index::Index;
use crate::apply::fault::Fault;
use crate::packet::ObjectId;
use crate::store::random_u64;
use crate::sys::FileHandle;

/// In the replica's state directory.
const FILE: &str = "incomplete";

pub(in crate::apply) struct Incomplete {
    list: Index,
    /// Of what this session does not ask for any more; the next one does.
    left: FileHandle,
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
                log::warn!("{}: {error}; all content is copied again", path.display());
                replica.forget_all()?;
                std::fs::remove_file(&path).and_then(|()| Index::open(&path))
            }
            opened => opened,
        };
        let left = random_u64();
        Ok(Incomplete { list: list.map_err(failed)?, left: mark(left), marks: left })
    }

    /// From now on the content is in doubt.
    pub(in crate::apply) fn add(&mut self, id: ObjectId) -> Result<(), Fault> {
        let mark = self.next_mark();
        self.list.get_or_insert(id, mark).map(drop).map_err(failed)
    }

    fn next_mark(&mut self) -> FileHandle {
        self.marks = self.marks.wrapping_add(1);
        mark(self.marks)
    }

    /// It stays in doubt after this session.
    pub(in crate::apply) fn leave(&mut self, id: ObjectId) -> Result<(), Fault> {
        self.list.insert(id, self.left).map_err(failed)
    }

    /// The content is what the source has, and its mtime says so; or it is gone.
    pub(in crate::apply) fn remove(&mut self, id: ObjectId) -> Result<(), Fault> {
        if self.list.is_empty() {
            return Ok(());
        }
        self.list.remove(id).map(drop).map_err(failed)
    }

    pub(in crate::apply) fn lack(&self, id: ObjectId) -> Result<Option<Lack>, Fault> {
        if self.list.is_empty() {
            return Ok(None);
        }
        Ok(self.list.get(id).map_err(failed)?.map(|mark| self.lack_of(&mark)))
    }

    /// Files whose content is still to come.
    pub(in crate::apply) fn waiting(&self) -> Result<Vec<ObjectId>, Fault> {
        let mut found = Vec::new();
        let visit = |id, mark| {
            found.extend((self.lack_of(&mark) == Lack::Content).then_some(id));
            Ok(())
        };
        self.list.for_each(visit).map_err(failed)?;
        Ok(found)
    }

    fn lack_of(&self, mark: &FileHandle) -> Lack {
        if *mark == self.left { Lack::Left } else { Lack::Content }
    }
}

/// Adds files for good: durable when it returns.
pub(super) fn remember(state: &Path, ids: &[ObjectId]) -> Result<(), Fault> {
    let add = || {
        let mut list = Index::open(&state.join(FILE))?;
        let mut has_new = false;
        for &id in ids {
            if list.get(id)?.is_none() {
                list.insert(id, mark(random_u64()))?;
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
}

fn mark(number: u64) -> FileHandle {
    FileHandle::from_parts(0, &number.to_le_bytes()).expect("8 bytes fit into a handle")
}

fn failed(error: io::Error) -> Fault {
    Fault::Own { what: "list of incomplete files", error }
}
