//! The order in which locks are taken on the source, and that each thread keeps it.
//!
//! ```text
//!  tree ──> directories, by id ──> objects, by id ──> queue
//! ```
//! Threads that keep one order never wait for each other in a ring. A build with debug assertions knows
//! of each thread what it holds: what is waited for out of order panics with both names, whether
//! or not another thread is in the way at that moment. In a release build all of it is nothing.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use parking_lot::{Condvar, Mutex, MutexGuard};

/// In the order in which they are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    Tree,
    Directory(u64),
    Object(u64),
    /// Its room and its tail: never one under the other.
    Queue,
}

impl fmt::Display for Rank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rank::Tree => f.write_str("the tree"),
            Rank::Directory(id) => write!(f, "directory {id}"),
            Rank::Object(id) => write!(f, "object {id}"),
            Rank::Queue => f.write_str("the queue"),
        }
    }
}

/// A lock's own rank.
pub struct Ranked {
    #[cfg(debug_assertions)]
    rank: Rank,
}

/// The lock is held by this thread for as long as this lives.
pub struct Held {
    #[cfg(debug_assertions)]
    rank: Rank,
    /// Of this thread alone.
    _thread: PhantomData<*const ()>,
}

impl Ranked {
    #[cfg_attr(not(debug_assertions), allow(unused_variables))]
    pub const fn new(rank: Rank) -> Ranked {
        Ranked {
            #[cfg(debug_assertions)]
            rank,
        }
    }

    /// Before the lock is waited for.
    #[inline]
    #[must_use]
    pub fn wait(&self) -> Held {
        #[cfg(debug_assertions)]
        kept::assert_order(self.rank);
        self.held()
    }

    /// The lock was had without waiting: that is allowed in any order.
    #[inline]
    #[must_use]
    pub fn had(&self) -> Held {
        self.held()
    }

    /// Before the lock of a directory is waited for inside of another one that is locked, in whatever
    /// order: whoever has the whole tree may.
    #[inline]
    #[must_use]
    pub fn wait_inside(&self) -> Held {
        #[cfg(debug_assertions)]
        kept::assert_inside(self.rank);
        self.held()
    }

    #[inline]
    fn held(&self) -> Held {
        #[cfg(debug_assertions)]
        kept::push(self.rank);
        Held {
            #[cfg(debug_assertions)]
            rank: self.rank,
            _thread: PhantomData,
        }
    }
}

#[cfg(debug_assertions)]
impl Drop for Held {
    fn drop(&mut self) {
        kept::pop(self.rank);
    }
}

/// A mutex that has a rank.
pub struct RankedMutex<T> {
    lock: Mutex<T>,
    rank: Ranked,
}

/// What such a lock protects, for as long as it is held.
pub struct Guard<'a, T> {
    guard: MutexGuard<'a, T>,
    _held: Held,
}

impl<T> RankedMutex<T> {
    pub fn new(rank: Rank, value: T) -> RankedMutex<T> {
        RankedMutex { lock: Mutex::new(value), rank: Ranked::new(rank) }
    }

    #[inline]
    pub fn lock(&self) -> Guard<'_, T> {
        self.lock_by(Ranked::wait, Mutex::lock)
    }

    #[inline]
    pub fn try_lock(&self) -> Option<Guard<'_, T>> {
        self.lock.try_lock().map(|guard| Guard { guard, _held: self.rank.had() })
    }

    /// Taken in the way that is given, with the rule of [`Ranked`] that is given.
    #[inline]
    pub fn lock_by<'a>(
        &'a self,
        rule: impl FnOnce(&Ranked) -> Held,
        lock: impl FnOnce(&'a Mutex<T>) -> MutexGuard<'a, T>,
    ) -> Guard<'a, T> {
        let _held = rule(&self.rank);
        Guard { guard: lock(&self.lock), _held }
    }
}

impl<T> Guard<'_, T> {
    /// Lets the lock go until it is woken: nothing else may be held.
    pub fn wait_for(&mut self, news: &Condvar) {
        news.wait(&mut self.guard);
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> DerefMut for Guard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

/// Before anything that may take long or needs other threads of this process: a sync, a wait for the
/// network, a word to the kernel that it answers with requests.
#[inline]
#[cfg_attr(not(debug_assertions), allow(unused_variables))]
pub fn assert_none_held(what: &str) {
    #[cfg(debug_assertions)]
    kept::assert_none(what);
}

#[cfg(debug_assertions)]
mod kept {
    use std::cell::RefCell;

    use super::Rank;

    thread_local! {
        static KEPT: RefCell<Vec<Rank>> = const { RefCell::new(Vec::new()) };
    }

    pub fn assert_order(next: Rank) {
        KEPT.with_borrow(|kept| {
            let before = kept.iter().find(|held| **held >= next);
            assert!(before.is_none(), "{next} is waited for under {}, out of order", shown(before));
        });
    }

    pub fn assert_inside(next: Rank) {
        KEPT.with_borrow(|kept| {
            let whole = kept.contains(&Rank::Tree) && !kept.contains(&next);
            let later = kept.iter().find(|held| !matches!(held, Rank::Tree | Rank::Directory(_)));
            assert!(whole && later.is_none(), "{next} is waited for inside of what is locked: {kept:?}");
        });
    }

    pub fn assert_none(what: &str) {
        KEPT.with_borrow(|kept| assert!(kept.is_empty(), "{what} under {}", shown(kept.first())));
    }

    pub fn push(rank: Rank) {
        KEPT.with_borrow_mut(|kept| kept.push(rank));
    }

    pub fn pop(rank: Rank) {
        let gone = KEPT.with_borrow_mut(|kept| {
            let at = kept.iter().rposition(|held| *held == rank);
            at.map(|at| kept.swap_remove(at))
        });
        assert_eq!(gone, Some(rank), "a lock is let go that this thread does not hold");
    }

    fn shown(held: Option<&Rank>) -> String {
        held.map_or_else(|| "nothing".into(), Rank::to_string)
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::Rank::{Directory, Object, Queue, Tree};
    use super::*;

    const ALL: [Rank; 6] = [Tree, Directory(3), Directory(5), Object(1), Object(4), Queue];

    fn waits(rank: Rank) -> Held {
        Ranked::new(rank).wait()
    }

    #[track_caller]
    fn panics<T>(what: impl FnOnce() -> T, says: &[&str]) {
        let panic = catch_unwind(AssertUnwindSafe(what)).err().expect("it is out of order");
        let said = panic.downcast_ref::<String>().expect("a message");
        says.iter().for_each(|word| assert!(said.contains(word), "no '{word}' in: {said}"));
    }

    #[test]
    fn locks_are_taken_in_order_and_let_go_in_any() {
        let mut held: Vec<Held> = ALL.into_iter().map(waits).collect();
        while held.len() > 1 {
            drop(held.swap_remove(1));
        }
        drop(held);
        assert_none_held("a sync");
    }

    #[test]
    fn whatever_is_out_of_order_panics_with_both_names() {
        for (at, first) in ALL.into_iter().enumerate() {
            for next in ALL[..=at].iter().copied() {
                let _first = waits(first);
                panics(|| waits(next), &[&format!("{next} is waited for under {first}")]);
            }
        }
        assert_none_held("a sync");
    }

    /// What is had at once waits for nobody; what is waited for after it may.
    #[test]
    fn a_try_has_no_order_but_counts_as_held() {
        let _object = waits(Object(4));
        let tried = Ranked::new(Directory(3)).had();
        panics(|| waits(Directory(5)), &["directory 5", "object 4"]);
        drop(tried);
        let _other = Ranked::new(Object(6)).had();
        panics(|| waits(Object(5)), &["object 5", "object 6"]);
        drop(waits(Queue));
    }

    #[test]
    fn inside_of_a_directory_only_with_the_tree_and_before_objects() {
        let inside = |id| Ranked::new(Directory(id)).wait_inside();
        let dir = waits(Directory(5));
        panics(|| inside(3), &["directory 3", "inside"]);
        drop(dir);
        let (_tree, _dir) = (waits(Tree), waits(Directory(5)));
        panics(|| inside(5), &["directory 5"]);
        let within = inside(3);
        let _object = waits(Object(1));
        drop(within);
        panics(|| inside(3), &["directory 3", "Object(1)"]);
    }

    #[test]
    fn nothing_slow_happens_under_a_lock() {
        for rank in ALL {
            let _held = waits(rank);
            panics(|| assert_none_held("a sync"), &["a sync under", &rank.to_string()]);
        }
        assert_none_held("a sync");
    }

    /// What another thread holds is its own affair.
    #[test]
    fn each_thread_has_its_own() {
        let _held = waits(Queue);
        std::thread::scope(|scope| scope.spawn(|| drop(waits(Tree))).join()).expect("it holds nothing");
    }
}
