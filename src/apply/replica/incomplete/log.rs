//! What is said of a few files, appended: see [`super`].

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::LOG;
use crate::apply::replica::remove_quietly;
use crate::limits::INCOMPLETE_LOG_MAX;
use crate::packet::ObjectId;

pub(super) const RECORD_LEN: usize = 32;

/// See [`super`].
pub(super) struct Log {
    path: PathBuf,
    file: File,
    /// Of what is written.
    pub(super) len: u64,
    pub(super) unwritten: Vec<u8>,
}

impl Log {
    pub(super) fn open(state: &Path) -> io::Result<(Log, HashMap<ObjectId, u64>)> {
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

    pub(super) fn push(&mut self, id: ObjectId, mark: Option<u64>) {
        self.unwritten.extend(bytes_of(id, mark));
    }

    /// `few`: what it says as a whole.
    pub(super) fn write(&mut self, few: &HashMap<ObjectId, u64>) -> io::Result<()> {
        if self.unwritten.is_empty() {
            return Ok(());
        }
        if self.len > INCOMPLETE_LOG_MAX && self.len > 8 * (few.len() * RECORD_LEN) as u64 {
            return self.replace(few);
        }
        self.file.write_all_at(&self.unwritten, self.len)?;
        self.len += self.unwritten.len() as u64;
        self.unwritten.clear();
        Ok(())
    }

    /// Another one that says as much: killed in the middle, it is the one or the other.
    pub(super) fn replace(&mut self, few: &HashMap<ObjectId, u64>) -> io::Result<()> {
        let temporary = self.path.with_extension("new");
        remove_quietly(&temporary);
        let fresh = file(&temporary)?;
        let bytes: Vec<u8> = few.iter().flat_map(|(&id, &mark)| bytes_of(id, Some(mark))).collect();
        fresh.write_all_at(&bytes, 0)?;
        // On some file systems a power loss leaves one of no length else.
        fresh.sync_data()?;
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
