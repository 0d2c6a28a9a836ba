//! Descriptors of objects that were used lately, in bounded number (second chance).

use std::collections::HashMap;
use std::fs::File;
use std::sync::Arc;

use crate::packet::ObjectId;

/// What a descriptor is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// `O_PATH`: names in it, attributes, extended attributes.
    Path,
    /// `O_RDWR`: bytes too.
    Write,
}

/// Whose descriptor it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Came {
    /// Of an object that was just made.
    New,
    /// Of one that was there.
    Known,
}

struct Held {
    id: ObjectId,
    file: Arc<File>,
    access: Access,
    came: Came,
    used: bool,
}

/// A descriptor that gave way to another.
pub struct GaveWay {
    pub id: ObjectId,
    pub file: Arc<File>,
    pub came: Came,
}

/// At most `limit` descriptors; the one that was not used for longest, roughly, gives way.
pub struct Descriptors {
    limit: usize,
    held: Vec<Held>,
    at: HashMap<ObjectId, usize>,
    hand: usize,
}

impl Descriptors {
    pub fn new(limit: usize) -> Descriptors {
        Descriptors { limit: limit.max(1), held: Vec::new(), at: HashMap::new(), hand: 0 }
    }

    /// A descriptor that can do at least this.
    pub fn get(&mut self, id: ObjectId, access: Access) -> Option<Arc<File>> {
        let held = &mut self.held[*self.at.get(&id)?];
        if access == Access::Write && held.access == Access::Path {
            return None;
        }
        held.used = true;
        Some(held.file.clone())
    }

    /// Keeps a descriptor, in place of the one that the object had; answers what another object lost.
    pub fn keep(&mut self, id: ObjectId, access: Access, came: Came, file: Arc<File>) -> Option<GaveWay> {
        let held = Held { id, file, access, came, used: true };
        if let Some(&at) = self.at.get(&id) {
            self.held[at] = held;
            return None;
        }
        if self.held.len() < self.limit {
            self.at.insert(id, self.held.len());
            self.held.push(held);
            return None;
        }
        let at = self.victim();
        self.at.remove(&self.held[at].id);
        self.at.insert(id, at);
        let Held { id, file, came, .. } = std::mem::replace(&mut self.held[at], held);
        Some(GaveWay { id, file, came })
    }

    pub fn forget(&mut self, id: ObjectId) {
        let Some(at) = self.at.remove(&id) else { return };
        self.held.swap_remove(at);
        if let Some(moved) = self.held.get(at) {
            self.at.insert(moved.id, at);
        }
    }

    /// Closes every descriptor that can write: a program of the replica cannot be run, nor a
    /// file system be made read-only, while one is open.
    pub fn close_writers(&mut self) {
        self.held.retain(|held| held.access == Access::Path);
        self.at = self.held.iter().enumerate().map(|(at, held)| (held.id, at)).collect();
        self.hand = 0;
    }

    pub fn clear(&mut self) {
        self.held.clear();
        self.at.clear();
    }

    fn victim(&mut self) -> usize {
        loop {
            self.hand = (self.hand + 1) % self.held.len();
            let held = &mut self.held[self.hand];
            if !std::mem::take(&mut held.used) {
                return self.hand;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(inode: u64) -> ObjectId {
        ObjectId { birth_epoch: 1, generation: 1, inode }
    }

    #[test]
    fn the_number_is_bounded_and_the_used_one_stays() {
        let file = Arc::new(File::open("/dev/null").unwrap());
        let mut descriptors = Descriptors::new(8);
        for inode in 0..100 {
            descriptors.keep(id(inode), Access::Path, Came::Known, file.clone());
            assert!(descriptors.get(id(inode), Access::Path).is_some());
            assert!(descriptors.get(id(inode), Access::Write).is_none());
        }
        assert_eq!(Arc::strong_count(&file), 9);
        descriptors.keep(id(99), Access::Write, Came::New, file.clone());
        assert!(descriptors.get(id(99), Access::Write).is_some());
        descriptors.forget(id(98));
        assert_eq!(Arc::strong_count(&file), 8);
        descriptors.close_writers();
        assert_eq!(Arc::strong_count(&file), 7);
        assert!(descriptors.get(id(97), Access::Path).is_some());
        descriptors.clear();
        assert_eq!(Arc::strong_count(&file), 1);
    }
}
