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

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::Replica;
use super::index::Index;
use crate::apply::fault::Fault;
use crate::packet::ObjectId;
use crate::store::random_u64;
use crate::sys::FileHandle;

/// In the replica's state directory.
const FILE: &str = "incomplete";
const LOG: &str = "incomplete-log";

/// Files that are in memory, and in the log alone: 2 MiB of memory. In unit tests few, so that many a copy has more.
const FEW_MAX: usize = if cfg!(test) { 6 } else { 32_768 };

/// Bytes of the log after which it is written anew, where most of it counts no more.
const LOG_MAX: u64 = if cfg!(test) { 512 } else { 4 << 20 };

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
                log::warn!("{}: {error}; all content is copied again", path.display());
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
        if self.few.len() >= FEW_MAX {
            self.move_to_list()?;
        }
        self.few.insert(id, mark);
        self.log.push(id, Some(mark));
        Ok(())
    }

    /// A kill in the middle leaves some in both.
    fn move_to_list(&mut self) -> Result<(), Fault> {
        for (&id, &mark) in &self.few {
            self.list.insert(id, on_list(mark)).map_err(failed)?;
        }
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
        self.log.write(&self.few).map_err(failed)
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
        if let Err(fault) = self.write() {
            log::debug!("{fault}: some content will be copied once more");
        }
    }
}

const RECORD_LEN: usize = 32;

/// See the module.
struct Log {
    path: PathBuf,
    file: File,
    /// Of what is written.
    len: u64,
    unwritten: Vec<u8>,
}

impl Log {
    fn open(state: &Path) -> io::Result<(Log, HashMap<ObjectId, u64>)> {
        let path = state.join(LOG);
        let bytes = match std::fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            read => read?,
        };
        let mut few = HashMap::new();
        for (id, mark) in bytes.as_chunks().0.iter().filter_map(record) {
            match mark {
                Some(mark) => few.insert(id, mark),
                None => few.remove(&id),
            };
        }
        let file = file(&path)?;
        let mut log = Log { path, file, len: bytes.len() as u64, unwritten: Vec::new() };
        if log.len > 0 {
            log.replace(&few)?;
        }
        Ok((log, few))
    }

    fn push(&mut self, id: ObjectId, mark: Option<u64>) {
        self.unwritten.extend(bytes_of(id, mark));
    }

    /// `few`: what it says as a whole.
    fn write(&mut self, few: &HashMap<ObjectId, u64>) -> io::Result<()> {
        if self.unwritten.is_empty() {
            return Ok(());
        }
        if self.len > LOG_MAX && self.len > 8 * (few.len() * RECORD_LEN) as u64 {
            return self.replace(few);
        }
        self.file.write_all_at(&self.unwritten, self.len)?;
        self.len += self.unwritten.len() as u64;
        self.unwritten.clear();
        Ok(())
    }

    /// Another one that says as much: killed in the middle, it is the one or the other.
    fn replace(&mut self, few: &HashMap<ObjectId, u64>) -> io::Result<()> {
        let temporary = self.path.with_extension("new");
        super::remove_quietly(&temporary);
        let fresh = file(&temporary)?;
        let bytes: Vec<u8> = few.iter().flat_map(|(&id, &mark)| bytes_of(id, Some(mark))).collect();
        fresh.write_all_at(&bytes, 0)?;
        std::fs::rename(&temporary, &self.path)?;
        (self.file, self.len) = (fresh, bytes.len() as u64);
        self.unwritten.clear();
        Ok(())
    }
}

fn file(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// `None`: it is not incomplete any more.
fn bytes_of(id: ObjectId, mark: Option<u64>) -> [u8; RECORD_LEN] {
    let mut bytes = [0; RECORD_LEN];
    bytes[4] = if mark.is_some() { 1 } else { 2 };
    bytes[8..16].copy_from_slice(&mark.unwrap_or_default().to_le_bytes());
    bytes[16..20].copy_from_slice(&id.birth_epoch.to_le_bytes());
    bytes[20..24].copy_from_slice(&id.generation.to_le_bytes());
    bytes[24..].copy_from_slice(&id.inode.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[4..]);
    bytes[..4].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// `None`: torn.
fn record(bytes: &[u8; RECORD_LEN]) -> Option<(ObjectId, Option<u64>)> {
    let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
    let id = ObjectId { birth_epoch: word(16), generation: word(20), inode: long(24) };
    let mark = match bytes[4] {
        1 => Some(long(8)),
        2 => None,
        _ => return None,
    };
    (crc32c::crc32c(&bytes[4..]) == word(0)).then_some((id, mark))
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
mod tests {
    use super::*;

    fn id(inode: u64) -> ObjectId {
        ObjectId { birth_epoch: 1, generation: 1, inode }
    }

    fn open(state: &Path) -> Incomplete {
        let (log, few) = Log::open(state).unwrap();
        let list = Index::open(&state.join(FILE)).unwrap();
        let left = random_u64();
        Incomplete { list, log, few, left, marks: left }
    }

    /// However many there are and whenever the process dies: what was added and written is on it, what was removed
    /// and written is not.
    #[test]
    fn random_changes_agree_with_a_map_over_kills() {
        let state = tempfile::tempdir().unwrap();
        let mut incomplete = open(state.path());
        let mut model: HashMap<ObjectId, Lack> = HashMap::new();
        let mut random = 0x9e37_79b9_7f4a_7c15u64;
        let (mut most, mut in_list, mut replaced) = (0, false, false);
        for step in 0..20_000u64 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let object = id((random >> 33) % 40);
            let before = incomplete.log.len;
            match random >> 60 {
                0..6 => {
                    incomplete.add_soon(object).unwrap();
                    model.entry(object).or_insert(Lack::Content);
                }
                6 => {
                    incomplete.leave(object).unwrap();
                    model.insert(object, Lack::Left);
                }
                7 if step % 16 == 0 => {
                    incomplete.write().unwrap();
                    // Killed: nothing is written at its end.
                    incomplete.log.unwritten.clear();
                    incomplete = open(state.path());
                    model.values_mut().for_each(|lack| *lack = Lack::Content);
                }
                _ => {
                    incomplete.remove(object).unwrap();
                    model.remove(&object);
                }
            }
            if random >> 50 & 3 == 0 {
                incomplete.write().unwrap();
            }
            replaced |= incomplete.log.len < before;
            assert_eq!(incomplete.lack(object).unwrap(), model.get(&object).copied(), "step {step}");
            most = most.max(model.len());
            in_list |= !incomplete.list.is_empty();
        }
        let mut waiting = incomplete.waiting().unwrap();
        waiting.sort_unstable();
        let mut expected: Vec<_> =
            model.iter().filter(|&(_, &lack)| lack == Lack::Content).map(|(&id, _)| id).collect();
        expected.sort_unstable();
        assert_eq!(waiting, expected);
        assert!(most > FEW_MAX && in_list && replaced, "{most} {in_list} {replaced}");
    }

    #[test]
    fn a_torn_record_hides_no_other_one() {
        let state = tempfile::tempdir().unwrap();
        let mut incomplete = open(state.path());
        for inode in 1..=3 {
            incomplete.add(id(inode)).unwrap();
        }
        drop(incomplete);
        let path = state.path().join(LOG);
        let mut bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes.len(), 3 * RECORD_LEN);
        bytes[RECORD_LEN + 20] ^= 1;
        bytes.extend([7; 5]);
        std::fs::write(&path, bytes).unwrap();
        let incomplete = open(state.path());
        let lacks = [1, 2, 3].map(|inode| incomplete.lack(id(inode)).unwrap());
        assert_eq!(lacks, [Some(Lack::Content), None, Some(Lack::Content)]);
    }

    /// What is kept for good by another one is removed with the rest.
    #[test]
    fn what_is_on_the_list_and_in_the_log_goes_from_both() {
        let state = tempfile::tempdir().unwrap();
        remember(state.path(), &[id(1), id(2)]).unwrap();
        let mut incomplete = open(state.path());
        incomplete.leave(id(1)).unwrap();
        assert_eq!(incomplete.lack(id(1)).unwrap(), Some(Lack::Left));
        assert_eq!(incomplete.waiting().unwrap(), [id(2)]);
        incomplete.remove(id(1)).unwrap();
        drop(incomplete);
        assert_eq!(open(state.path()).waiting().unwrap(), [id(2)]);
    }
}
