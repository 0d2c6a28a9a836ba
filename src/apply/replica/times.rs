//! Pending times: physical changes disturb mtimes, so the recorded ones are set afterwards.
//!
//! What is pending is also in a small log beside the index (records of 32 bytes: id, seconds,
//! nanoseconds, crc32c), all those of an op at once, before the applied position advances: a killed
//! target sets the times of ops that it will not see again.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::Instant;

use crate::clock;
use crate::limits::{PENDING_TIMES_LOG_MAX, PENDING_TIMES_MAX, PENDING_TIMES_REST};
use crate::packet::{ObjectId, Timestamp};

const RECORD_LEN: usize = 32;

/// See the module.
pub struct Times {
    pending: HashMap<ObjectId, Timestamp>,
    log: File,
    log_len: u64,
    /// Records that the log does not have yet.
    unlogged: Vec<u8>,
    last_added: Instant,
}

impl Times {
    /// Opens the log; what a killed process left pending is pending again where `valid`, else
    /// dropped (after a power loss times are compared, not remembered).
    pub fn open(path: &Path, valid: bool) -> io::Result<Times> {
        let log =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        let (pending, unlogged, last_added) = (HashMap::new(), Vec::new(), clock::now());
        let mut times = Times { pending, log, log_len: 0, unlogged, last_added };
        if !valid {
            times.clear()?;
            return Ok(times);
        }
        let len = times.log.metadata()?.len().min(2 * PENDING_TIMES_LOG_MAX);
        let mut bytes = vec![0; len as usize];
        times.log.read_exact_at(&mut bytes, 0)?;
        for (id, mtime) in bytes.as_chunks::<RECORD_LEN>().0.iter().map_while(decode) {
            times.pending.insert(id, mtime);
            times.log_len += RECORD_LEN as u64;
        }
        Ok(times)
    }

    /// A killed process knows it after [`Times::log`].
    pub fn add(&mut self, id: ObjectId, mtime: Timestamp) {
        self.last_added = clock::now();
        if self.pending.insert(id, mtime) != Some(mtime) {
            self.unlogged.extend_from_slice(&encode(id, mtime));
        }
    }

    /// Writes down what was added since.
    pub fn log(&mut self) -> io::Result<()> {
        if self.unlogged.is_empty() {
            return Ok(());
        }
        assert!(self.log_len.is_multiple_of(RECORD_LEN as u64), "a record of a time is torn by the next one");
        self.log.write_all_at(&self.unlogged, self.log_len)?;
        self.log_len += self.unlogged.len() as u64;
        self.unlogged.clear();
        Ok(())
    }

    /// The log still has it, which is harmless: the object is not found when times are set, or has
    /// this time, or a later entry says another.
    pub fn forget(&mut self, id: ObjectId) {
        self.pending.remove(&id);
    }

    /// The time that an object still has to get.
    pub fn of(&self, id: ObjectId) -> Option<Timestamp> {
        self.pending.get(&id).copied()
    }

    pub fn is_full(&self) -> bool {
        self.pending.len() >= PENDING_TIMES_MAX || self.log_len >= PENDING_TIMES_LOG_MAX
    }

    pub fn pending(&self) -> Vec<(ObjectId, Timestamp)> {
        self.pending.iter().map(|(&id, &mtime)| (id, mtime)).collect()
    }

    pub fn clear(&mut self) -> io::Result<()> {
        self.pending.clear();
        self.unlogged.clear();
        if self.log_len > 0 || self.log.metadata()?.len() > 0 {
            self.log.set_len(0)?;
        }
        self.log_len = 0;
        Ok(())
    }

    pub fn next_deadline(&self) -> Option<Instant> {
        (!self.pending.is_empty()).then(|| self.last_added + PENDING_TIMES_REST)
    }
}

fn encode(id: ObjectId, mtime: Timestamp) -> [u8; RECORD_LEN] {
    let mut raw = [0; RECORD_LEN];
    raw[..4].copy_from_slice(&id.birth_epoch.to_le_bytes());
    raw[4..8].copy_from_slice(&id.generation.to_le_bytes());
    raw[8..16].copy_from_slice(&id.inode.to_le_bytes());
    raw[16..24].copy_from_slice(&mtime.seconds.to_le_bytes());
    raw[24..28].copy_from_slice(&mtime.nanoseconds.to_le_bytes());
    let crc = crc32c::crc32c(&raw[..28]);
    raw[28..].copy_from_slice(&crc.to_le_bytes());
    raw
}

/// `None` ends the log: a record that was never written whole.
fn decode(raw: &[u8; RECORD_LEN]) -> Option<(ObjectId, Timestamp)> {
    let u32_at = |at: usize| u32::from_le_bytes(raw[at..at + 4].try_into().expect("4 bytes"));
    let u64_at = |at: usize| u64::from_le_bytes(raw[at..at + 8].try_into().expect("8 bytes"));
    if u32_at(28) != crc32c::crc32c(&raw[..28]) {
        return None;
    }
    let id = ObjectId { birth_epoch: u32_at(0), generation: u32_at(4), inode: u64_at(8) };
    Some((id, Timestamp { seconds: u64_at(16) as i64, nanoseconds: u32_at(24) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A full disk did not take the record of a time; tried again, the time was taken for recorded, and
    /// a killed target never set it.
    #[test]
    fn a_time_that_was_not_recorded_is_recorded_the_next_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("times");
        let (id, mtime) = (ObjectId::default(), Timestamp { seconds: 7, nanoseconds: 8 });
        let mut times = Times::open(&path, true).unwrap();
        let log = std::mem::replace(&mut times.log, File::open(&path).unwrap());
        times.add(id, mtime);
        assert!(times.log().is_err());
        times.log = log;
        times.add(id, mtime);
        times.log().unwrap();
        drop(times);
        assert_eq!(Times::open(&path, true).unwrap().pending(), [(id, mtime)]);
    }
}
