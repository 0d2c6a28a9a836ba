//! One small document in a file of two slots: a crash in the middle of a write leaves the other.
//!
//! ```text
//! slot (4 KiB, two of them): 0 4 crc32c of what follows | 4 4 length | 8 8 generation | 16 JSON
//! ```
//! The newer whole slot counts; writing goes to the older one and ends with `fdatasync` (0.4 ms).

use std::fs::{File, OpenOptions};
use std::io;
use std::marker::PhantomData;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::failpoint;

const SLOT_LEN: usize = 4096;
const HEAD_LEN: usize = 16;

/// See the module.
pub struct SlotFile<T> {
    file: File,
    generation: u64,
    content: PhantomData<fn(T) -> T>,
}

impl<T: Serialize + DeserializeOwned> SlotFile<T> {
    /// Opens the file, or makes it; gives the newest whole document, if there is one.
    pub fn open(path: &Path) -> io::Result<(SlotFile<T>, Option<T>)> {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        if file.metadata()?.len() < 2 * SLOT_LEN as u64 {
            // Written, not only extended: later syncs have no metadata to write.
            file.write_all_at(&[0; 2 * SLOT_LEN], 0)?;
            file.sync_all()?;
            File::open(path.parent().ok_or(io::ErrorKind::InvalidInput)?)?.sync_all()?;
        }
        let (generation, document) = newest(&file)?;
        Ok((SlotFile { file, generation, content: PhantomData }, document))
    }

    /// The newest whole document of a file that is there. Nothing is changed.
    pub fn read(path: &Path) -> io::Result<Option<T>> {
        Ok(newest(&File::open(path)?)?.1)
    }

    /// Replaces the document; durable when it returns.
    ///
    /// Errors: the system's; the old document is still there.
    pub fn write(&mut self, document: &T) -> io::Result<()> {
        let json = serde_json::to_vec(document)?;
        if json.len() > SLOT_LEN - HEAD_LEN {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "document longer than its slot"));
        }
        let generation = self.generation + 1;
        let mut raw = [0; SLOT_LEN];
        raw[4..8].copy_from_slice(&(json.len() as u32).to_le_bytes());
        raw[8..16].copy_from_slice(&generation.to_le_bytes());
        raw[HEAD_LEN..HEAD_LEN + json.len()].copy_from_slice(&json);
        let crc = crc32c::crc32c(&raw[4..]);
        raw[..4].copy_from_slice(&crc.to_le_bytes());
        failpoint::at("slot")?;
        self.file.write_all_at(&raw, (generation % 2) * SLOT_LEN as u64)?;
        self.file.sync_data()?;
        self.generation = generation;
        Ok(())
    }
}

fn newest<T: DeserializeOwned>(file: &File) -> io::Result<(u64, Option<T>)> {
    let mut newest = (0, None);
    for at in [0, SLOT_LEN as u64] {
        let mut raw = [0; SLOT_LEN];
        file.read_exact_at(&mut raw, at)?;
        if let Some((generation, document)) = decode(&raw)
            && generation > newest.0
        {
            newest = (generation, Some(document));
        }
    }
    Ok(newest)
}

fn decode<T: DeserializeOwned>(raw: &[u8; SLOT_LEN]) -> Option<(u64, T)> {
    let u32_at = |at: usize| u32::from_le_bytes(raw[at..at + 4].try_into().expect("4 bytes"));
    let generation = u64::from_le_bytes(raw[8..16].try_into().expect("8 bytes"));
    if u32_at(0) != crc32c::crc32c(&raw[4..]) {
        return None;
    }
    let json = raw[HEAD_LEN..].get(..u32_at(4) as usize)?;
    Some((generation, serde_json::from_slice(json).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_write_leaves_the_document_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("slot");
        let (mut slot, none) = SlotFile::<String>::open(&path).unwrap();
        assert_eq!(none, None);
        for text in ["first", "second", "third"] {
            slot.write(&text.to_owned()).unwrap();
            assert_eq!(SlotFile::<String>::open(&path).unwrap().1.as_deref(), Some(text));
        }
        slot.file.write_all_at(b"torn", (slot.generation % 2) * SLOT_LEN as u64 + 20).unwrap();
        let (mut slot, found) = SlotFile::<String>::open(&path).unwrap();
        assert_eq!(found.as_deref(), Some("second"));
        slot.write(&"fourth".to_owned()).unwrap();
        assert_eq!(SlotFile::<String>::open(&path).unwrap().1.as_deref(), Some("fourth"));
    }
}
