//! Directories of a session: which are listed, and which are in doubt.
//!
//! ```text
//!  never listed ── last chunk, or made by a packet ──> listed
//!                                                        │ a packet met what no listing has shown
//!                    ┌──── again, meanwhile ───┐         v
//!                    └──────────────────────> asked <────┘
//!                                               │ first chunk
//!                    listed <── last chunk ── answering
//! ```
//! A directory that was never listed is in no doubt: its listing comes anyhow.

use std::path::Path;

use super::planted::{self, Planted};
use super::table::{Kept, Table, key_of};
use crate::apply::fault::Fault;
use crate::limits::{DIRECTORIES_IN_MEMORY, DOUBTS_MAX};
use crate::packet::ObjectId;
use crate::sys::FileHandle;

pub(super) struct Directories {
    known: Table<Directory>,
    doubts: u64,
    /// Doubts that the source was not told of yet.
    unsent: Vec<ObjectId>,
    /// What nothing is known of counts as listed.
    vouches: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Directory {
    is_listed: bool,
    /// Its listing has come in this session, or a packet has made it.
    is_walked: bool,
    /// The source was asked for a listing of it, in the answer to another one.
    is_wanted: bool,
    doubt: Option<Doubt>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doubt {
    Asked,
    Answering,
}

impl Directories {
    pub(super) fn start(path: &Path) -> Directories {
        let known = Table::start(path, DIRECTORIES_IN_MEMORY);
        Directories { known, doubts: 0, unsent: Vec::new(), vouches: false }
    }

    /// All that are here count as listed, but those that are said not to be; a listing answers with those.
    pub(super) fn vouch(&mut self) {
        self.vouches = true;
    }

    /// Its listing has come in this session, or a packet has made it.
    pub(super) fn is_walked(&self, id: ObjectId) -> Result<bool, Fault> {
        Ok(self.known.get(key_of(id)).map_err(failed)?.is_some_and(|known| known.is_walked))
    }

    /// It has none of its names, or not all.
    pub(super) fn unlist(&mut self, id: ObjectId) -> Result<(), Fault> {
        let before = self.get(id)?;
        if before.is_listed { self.put(id, Directory { is_listed: false, ..before }) } else { Ok(()) }
    }

    /// What it holds here is not known any more. `is_open`: its listing is under way.
    pub(super) fn doubt(&mut self, id: ObjectId, is_open: bool) -> Result<(), Fault> {
        if planted::is(Planted::NoDoubt) {
            return Ok(());
        }
        let before = self.get(id)?;
        let comes_anyhow = !(before.is_listed || is_open || before.doubt.is_some());
        if comes_anyhow || before.doubt == Some(Doubt::Asked) {
            return Ok(());
        }
        self.ask(id)
    }

    /// Asks for a listing, in any case.
    pub(super) fn ask(&mut self, id: ObjectId) -> Result<(), Fault> {
        let before = self.get(id)?;
        self.put(id, Directory { doubt: Some(Doubt::Asked), ..before })?;
        self.unsent.push(id);
        Ok(())
    }

    /// Its first chunk has come.
    pub(super) fn begins(&mut self, id: ObjectId) -> Result<(), Fault> {
        let before = self.get(id)?;
        match before.doubt {
            Some(_) => self.put(id, Directory { doubt: Some(Doubt::Answering), ..before }),
            None => Ok(()),
        }
    }

    /// Its last chunk has come.
    pub(super) fn ends(&mut self, id: ObjectId) -> Result<(), Fault> {
        let doubt = self.get(id)?.doubt.filter(|doubt| *doubt == Doubt::Asked);
        self.put(id, Directory { is_listed: true, is_walked: true, is_wanted: false, doubt })
    }

    /// Its last chunk has come, and not all names: whoever doubts it has it listed again.
    pub(super) fn ends_in_part(&mut self, id: ObjectId) -> Result<(), Fault> {
        let before = self.get(id)?;
        let doubt = before.doubt.map(|_| Doubt::Asked);
        if doubt == before.doubt { Ok(()) } else { self.put(id, Directory { doubt, ..before }) }
    }

    /// It was made by a packet: all names in it come by packets.
    pub(super) fn is_new(&mut self, id: ObjectId) -> Result<(), Fault> {
        self.put(id, Directory { is_listed: true, is_walked: true, is_wanted: false, doubt: None })
    }

    /// The listing that is under way was asked for: the source goes only where it is asked to.
    pub(super) fn is_asked_for(&self, id: ObjectId) -> Result<bool, Fault> {
        let known = self.get(id)?;
        Ok(self.vouches || known.doubt.is_some() || known.is_wanted)
    }

    /// Whether the source is to list it, because an answer has shown it; it is asked once.
    pub(super) fn want(&mut self, id: ObjectId) -> Result<bool, Fault> {
        let before = self.get(id)?;
        if before.is_listed || before.is_wanted {
            return Ok(false);
        }
        self.put(id, Directory { is_wanted: true, ..before })?;
        Ok(true)
    }

    /// Nobody was told that it is wanted, or the source has none to list.
    pub(super) fn unwant(&mut self, id: ObjectId) -> Result<(), Fault> {
        let before = self.get(id)?;
        if before.is_wanted { self.put(id, Directory { is_wanted: false, ..before }) } else { Ok(()) }
    }

    /// No listing of it comes.
    pub(super) fn drop_doubt(&mut self, id: ObjectId) -> Result<(), Fault> {
        let before = self.get(id)?;
        if before.doubt.is_none() && !before.is_wanted {
            return Ok(());
        }
        self.put(id, Directory { doubt: None, is_wanted: false, ..before })
    }

    /// As if it had never been here. A doubt stays: the source answers it, and ends again behind that.
    pub(super) fn forget(&mut self, id: ObjectId) -> Result<(), Fault> {
        match self.get(id)?.doubt {
            Some(doubt) => self.put(id, Directory { doubt: Some(doubt), ..Directory::default() }),
            None => self.known.remove(key_of(id)).map(drop).map_err(failed),
        }
    }

    /// Everything is to be listed again.
    pub(super) fn restart(&mut self) {
        assert_eq!(self.doubts, 0, "everything is listed again while something is in doubt");
        self.known.clear();
        self.vouches = false;
    }

    pub(super) fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    #[cfg(test)]
    pub(super) fn awaited(&self) -> String {
        let all = self.known.in_memory();
        let doubted: Vec<_> = all.iter().filter(|(_, known)| known.doubt.is_some()).collect();
        format!("{} doubts, not told: {:?}, told: {doubted:?}", self.doubts, self.unsent)
    }

    pub(super) fn has_doubts(&self) -> bool {
        self.doubts > 0
    }

    /// Doubts that the source has to hear of, in messages of the size that one may have.
    pub(super) fn take_unsent(&mut self) -> Vec<ObjectId> {
        let count = self.unsent.len().min(DOUBTS_MAX);
        self.unsent.drain(..count).collect()
    }

    fn get(&self, id: ObjectId) -> Result<Directory, Fault> {
        Ok(self
            .known
            .get(key_of(id))
            .map_err(failed)?
            .unwrap_or(Directory { is_listed: self.vouches, ..Directory::default() }))
    }

    fn put(&mut self, id: ObjectId, directory: Directory) -> Result<(), Fault> {
        let before = self.get(id)?;
        self.known.insert(key_of(id), directory).map_err(failed)?;
        self.doubts += u64::from(directory.doubt.is_some());
        self.doubts -= u64::from(before.doubt.is_some());
        Ok(())
    }
}

impl Kept for Directory {
    fn to_handle(self) -> FileHandle {
        let doubt = match self.doubt {
            None => 0,
            Some(Doubt::Asked) => 1,
            Some(Doubt::Answering) => 2,
        };
        let bits = i32::from(self.is_listed)
            | i32::from(self.is_wanted) << 1
            | i32::from(self.is_walked) << 2
            | doubt << 3;
        FileHandle::from_parts(bits, &[]).expect("nothing fits into a handle")
    }

    fn from_handle(handle: &FileHandle) -> Option<Directory> {
        let bits = handle.kind();
        let doubt = match bits >> 3 {
            0 => None,
            1 => Some(Doubt::Asked),
            2 => Some(Doubt::Answering),
            _ => return None,
        };
        let (is_listed, is_wanted, is_walked) = (bits & 1 != 0, bits & 2 != 0, bits & 4 != 0);
        Some(Directory { is_listed, is_walked, is_wanted, doubt })
    }
}

fn failed(error: std::io::Error) -> Fault {
    Fault::Own { what: "list of directories", error }
}
