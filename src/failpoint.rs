//! Places where a disk can fail or a process die. In the product they are nothing; in tests a
//! simulator decides, on its own thread, what happens at each.

/// A place between two steps of what the applier does.
///
/// Errors: in tests what the simulator lets fail here; in the product never.
#[cfg(not(test))]
#[inline]
pub fn at(_place: &'static str) -> std::io::Result<()> {
    Ok(())
}

#[cfg(test)]
pub use simulated::{Hook, at, set, with};

#[cfg(test)]
mod simulated {
    use std::cell::RefCell;
    use std::io;
    use std::rc::Rc;

    /// Answers what happens at a place; it may unwind: then the process is dead.
    pub type Hook = Rc<dyn Fn(&'static str) -> io::Result<()>>;

    thread_local! {
        static HOOK: RefCell<Option<Hook>> = const { RefCell::new(None) };
    }

    pub fn at(place: &'static str) -> io::Result<()> {
        let hook = HOOK.with_borrow(Clone::clone);
        hook.map_or(Ok(()), |hook| hook(place))
    }

    /// While this is done, on this thread.
    pub fn with<R>(hook: Hook, act: impl FnOnce() -> R) -> R {
        let before = HOOK.replace(Some(hook));
        let done = act();
        HOOK.set(before);
        done
    }

    /// For this thread.
    pub fn set(hook: Option<Hook>) {
        HOOK.set(hook);
    }
}
