//! Descriptors of objects that were used lately, in bounded number (second chance). Each replica has some of
//! its own, and may have more while the others of its process leave them.

use std::collections::HashMap;
use std::fs::File;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

use crate::open_files;
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

/// Those of all replicas of this process.
static SHARED: LazyLock<Shared> = LazyLock::new(|| Shared::new(open_files::for_copies()));

/// Descriptors that several may take for a while: so many are left.
pub struct Shared(AtomicUsize);

impl Shared {
    pub const fn new(count: usize) -> Shared {
        Shared(AtomicUsize::new(count))
    }

    /// Takes as many as there are, at most so many.
    fn take_up_to(&self, count: usize) -> usize {
        let less = |left: usize| Some(left.saturating_sub(count));
        let before = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        before.unwrap_or_else(|left| left).min(count)
    }

    pub fn of_process() -> &'static Shared {
        &SHARED
    }

    fn take(&self) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }

    fn give_back(&self, count: usize) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    fn left(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// At most `limit` descriptors, `own` of them whatever others take; the one that was not used for longest, roughly, gives way.
pub struct Descriptors {
    /// So many are not shared.
    own: usize,
    limit: usize,
    shared: &'static Shared,
    /// Taken of them for what is its own: many replicas have no more in all than one.
    reserved: usize,
    /// Taken of them beside that.
    taken: usize,
    held: Vec<Held>,
    at: HashMap<ObjectId, usize>,
    hand: usize,
}

impl Descriptors {
    pub fn new(own: usize, limit: usize, shared: &'static Shared) -> Descriptors {
        let (own, held, at) = (own.max(1), Vec::new(), HashMap::new());
        let reserved = shared.take_up_to(own);
        Descriptors { own, limit: limit.max(own), shared, reserved, taken: 0, held, at, hand: 0 }
    }

    /// So many it can hold, as long as others take no more of the shared.
    pub fn most(&self) -> usize {
        (self.own + self.taken + self.shared.left()).min(self.limit)
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
        if self.has_room() {
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
        self.give_back();
    }

    /// Closes every descriptor that can write: a program of the replica cannot be run, nor a
    /// file system be made read-only, while one is open.
    pub fn close_writers(&mut self) {
        self.held.retain(|held| held.access == Access::Path);
        self.at = self.held.iter().enumerate().map(|(at, held)| (held.id, at)).collect();
        self.hand = 0;
        self.give_back();
    }

    pub fn clear(&mut self) {
        self.held.clear();
        self.at.clear();
        self.give_back();
    }

    /// Takes one of the shared where it has none of its own left.
    fn has_room(&mut self) -> bool {
        let held = self.held.len();
        if held < self.own + self.taken {
            return true;
        }
        let more = held < self.limit && self.shared.take();
        self.taken += usize::from(more);
        more
    }

    /// What it holds no more of the shared is the others'.
    fn give_back(&mut self) {
        let needed = self.held.len().saturating_sub(self.own);
        self.shared.give_back(self.taken.saturating_sub(needed));
        self.taken = self.taken.min(needed);
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

impl Drop for Descriptors {
    fn drop(&mut self) {
        self.shared.give_back(self.reserved + self.taken);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(inode: u64) -> ObjectId {
        ObjectId { birth_epoch: 1, generation: 1, inode }
    }

    static NONE: Shared = Shared::new(0);

    #[test]
    fn what_one_takes_of_the_shared_it_gives_back() {
        static SHARED: Shared = Shared::new(8 + 8 + 5);
        let left = || SHARED.0.load(Ordering::Relaxed);
        let file = Arc::new(File::open("/dev/null").unwrap());
        let fill = |descriptors: &mut Descriptors, access| {
            let kept = (0..100)
                .filter(|&inode| descriptors.keep(id(inode), access, Came::Known, file.clone()).is_none());
            (kept.count(), descriptors.held.len())
        };
        let (mut first, mut second) = (Descriptors::new(8, 11, &SHARED), Descriptors::new(8, 11, &SHARED));
        // None is left for a third one: it has its own all the same, and nothing to give back.
        assert_eq!(left(), 5);
        let third = {
            let taken = SHARED.take_up_to(5);
            let third = Descriptors::new(8, 11, &SHARED);
            assert_eq!((taken, third.most(), left()), (5, 8, 0));
            SHARED.give_back(taken);
            third
        };
        drop(third);
        assert_eq!((fill(&mut first, Access::Write), left()), ((11, 11), 2));
        assert_eq!((fill(&mut second, Access::Path), left()), ((10, 10), 0));
        // What is kept anew in a place takes no other one.
        first.forget(id(99));
        assert_eq!(left(), 1);
        first.close_writers();
        assert_eq!(left(), 3);
        assert_eq!((fill(&mut first, Access::Write), left()), ((11, 11), 0));
        first.clear();
        assert_eq!((fill(&mut first, Access::Path), left()), ((11, 11), 0));
        drop(second);
        assert_eq!(left(), 8 + 2);
        drop(first);
        assert_eq!(left(), 8 + 8 + 5);
    }

    #[test]
    fn the_number_is_bounded_and_the_used_one_stays() {
        let file = Arc::new(File::open("/dev/null").unwrap());
        let mut descriptors = Descriptors::new(8, 8, &NONE);
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
