//! What a session remembers of many things, each by a key of 128 bits: in memory as long as they are
//! few, then on disk, because a source can make them as many as it likes. Of no use after the
//! session: the file is emptied at the start of each.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::apply::replica::{Index, remove_quietly};
use crate::packet::ObjectId;
use crate::sys::FileHandle;

/// What a table holds: on disk it wears the clothes of a handle.
pub(super) trait Kept: Copy + Eq + fmt::Debug {
    fn to_handle(self) -> FileHandle;
    fn from_handle(handle: &FileHandle) -> Option<Self>;
}

/// See the module.
pub(super) struct Table<V> {
    few: HashMap<u128, V>,
    few_max: usize,
    many: Option<Index>,
    path: PathBuf,
}

impl<V: Kept> Table<V> {
    #[cfg(test)]
    pub(super) fn in_memory(&self) -> &HashMap<u128, V> {
        &self.few
    }

    /// Empty; up to `few_max` stay in memory, `path` is where the others go.
    pub(super) fn start(path: &Path, few_max: usize) -> Table<V> {
        remove_quietly(path);
        Table { few: HashMap::new(), few_max, many: None, path: path.to_owned() }
    }

    pub(super) fn get(&self, key: u128) -> io::Result<Option<V>> {
        match (self.few.get(&key), &self.many) {
            (Some(&value), _) => Ok(Some(value)),
            (None, Some(many)) => Ok(many.get(id_of(key))?.and_then(|handle| V::from_handle(&handle))),
            (None, None) => Ok(None),
        }
    }

    pub(super) fn insert(&mut self, key: u128, value: V) -> io::Result<()> {
        if let Some(there) = self.few.get_mut(&key) {
            *there = value;
            return Ok(());
        }
        let has_room = self.few.len() < self.few_max;
        let is_there = |many: &Index| many.get(id_of(key)).map(|found| found.is_some());
        if has_room && !self.many.as_ref().map_or(Ok(false), is_there)? {
            self.few.insert(key, value);
            return Ok(());
        }
        self.on_disk()?.insert(id_of(key), Self::on_disk_as(value))
    }

    /// Puts a value where there is none; gives the one that is there afterwards.
    pub(super) fn get_or_insert(&mut self, key: u128, value: V) -> io::Result<V> {
        if let Some(&there) = self.few.get(&key) {
            return Ok(there);
        }
        if self.few.len() >= self.few_max {
            let there = self.on_disk()?.get_or_insert(id_of(key), Self::on_disk_as(value))?;
            return Ok(V::from_handle(&there).unwrap_or(value));
        }
        match self.get(key)? {
            Some(there) => Ok(there),
            None => self.insert(key, value).map(|()| value),
        }
    }

    pub(super) fn remove(&mut self, key: u128) -> io::Result<Option<V>> {
        match (self.few.remove(&key), &mut self.many) {
            (Some(value), _) => Ok(Some(value)),
            (None, Some(many)) => Ok(many.remove(id_of(key))?.and_then(|handle| V::from_handle(&handle))),
            (None, None) => Ok(None),
        }
    }

    /// Nothing is kept any more.
    pub(super) fn clear(&mut self) {
        if self.many.take().is_some() {
            remove_quietly(&self.path);
        }
        self.few.clear();
    }

    /// What is kept of a value on disk.
    fn on_disk_as(value: V) -> FileHandle {
        let handle = value.to_handle();
        assert_eq!(V::from_handle(&handle), Some(value), "what is kept is another thing when it is read");
        handle
    }

    fn on_disk(&mut self) -> io::Result<&mut Index> {
        let many = match self.many.take() {
            Some(many) => many,
            None => Index::open(&self.path)?,
        };
        Ok(self.many.insert(many))
    }
}

impl<V> Drop for Table<V> {
    fn drop(&mut self) {
        if self.many.is_some() {
            remove_quietly(&self.path);
        }
    }
}

/// Nothing but that the key is there.
impl Kept for () {
    fn to_handle(self) -> FileHandle {
        FileHandle::from_parts(0, &[]).expect("nothing fits into a handle")
    }

    fn from_handle(_: &FileHandle) -> Option<()> {
        Some(())
    }
}

/// The key of an object.
pub(super) fn key_of(id: ObjectId) -> u128 {
    u128::from(id.birth_epoch) << 96 | u128::from(id.generation) << 64 | u128::from(id.inode)
}

fn id_of(key: u128) -> ObjectId {
    ObjectId { birth_epoch: (key >> 96) as u32, generation: (key >> 64) as u32, inode: key as u64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever its memory takes, a table is a map.
    #[test]
    fn random_changes_agree_with_a_map() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("table");
        for few_max in [0, 7, 1000] {
            let mut table: Table<ObjectId> = Table::start(&path, few_max);
            let mut model = HashMap::new();
            let mut random = 0x9e37_79b9_7f4a_7c15u64;
            for step in 0..5000u64 {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let key = u128::from(random >> 33) % 50;
                let value = id_of(u128::from(step));
                match random >> 62 {
                    0 => assert_eq!(table.remove(key).unwrap(), model.remove(&key), "step {step}"),
                    1 => {
                        let there = *model.entry(key).or_insert(value);
                        assert_eq!(table.get_or_insert(key, value).unwrap(), there, "step {step}");
                    }
                    _ => {
                        table.insert(key, value).unwrap();
                        model.insert(key, value);
                    }
                }
                assert_eq!(table.get(key).unwrap(), model.get(&key).copied(), "step {step}");
                assert!(table.few.len() <= few_max);
            }
            assert_eq!(path.exists(), few_max < 50);
            drop(table);
            assert!(!path.exists());
        }
    }
}
