//! Places where another thread's change may come in between. In the product they are nothing; in
//! tests a model decides there which thread goes on, so that a seed replays every order of events.

/// A place in the middle of a change.
#[cfg(not(test))]
#[inline]
pub fn turn() {}

/// Takes a lock that others may hold.
#[cfg(not(test))]
#[inline]
pub fn taken<T>(_try_lock: impl Fn() -> Option<T>, lock: impl FnOnce() -> T) -> T {
    lock()
}

#[cfg(test)]
pub use modelled::{Turns, set, taken, turn};

#[cfg(test)]
mod modelled {
    use std::cell::RefCell;
    use std::rc::Rc;

    /// Who decides for this thread.
    pub trait Turns {
        /// Another thread may go on.
        fn turn(&self);
        /// This thread cannot go on before another one does.
        fn blocked(&self);
    }

    thread_local! {
        static TURNS: RefCell<Option<Rc<dyn Turns>>> = const { RefCell::new(None) };
    }

    /// For this thread.
    pub fn set(turns: Option<Rc<dyn Turns>>) {
        TURNS.set(turns);
    }

    pub fn turn() {
        if let Some(turns) = TURNS.with_borrow(Clone::clone) {
            turns.turn();
        }
    }

    pub fn taken<T>(try_lock: impl Fn() -> Option<T>, lock: impl FnOnce() -> T) -> T {
        let Some(turns) = TURNS.with_borrow(Clone::clone) else { return lock() };
        turns.turn();
        loop {
            match try_lock() {
                Some(guard) => return guard,
                None => turns.blocked(),
            }
        }
    }
}
