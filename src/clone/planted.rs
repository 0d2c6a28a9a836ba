//! Rules that are left out on purpose: the model of a source has to find each of them.

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// Content is preserved when it has been changed.
    AfterTheChange,
    /// Nothing is preserved before what a copy brings, or a packet does on a replica that is not good.
    NotWhileConverging,
    /// Content behind the end as of the barrier is preserved as well, and belongs to the clone.
    AboveTheOldSize,
    /// What a truncation cuts off is not preserved.
    NotBeforeTruncation,
    /// A name's second change is preserved again.
    NameTwice,
    /// An object that loses its last name is not kept.
    LastNameIsLost,
    /// The mtime and mode that an object gets later are those of the clone.
    NotBeforeAttributes,
    /// What an older process has preserved is forgotten.
    ForgetsAtRestart,
}

#[cfg(test)]
impl Planted {
    pub const ALL: [Planted; 8] = [
        Planted::AfterTheChange,
        Planted::NotWhileConverging,
        Planted::AboveTheOldSize,
        Planted::NotBeforeTruncation,
        Planted::NameTwice,
        Planted::LastNameIsLost,
        Planted::NotBeforeAttributes,
        Planted::ForgetsAtRestart,
    ];
}

#[cfg(not(test))]
#[inline]
pub fn is(_: Planted) -> bool {
    false
}

#[cfg(test)]
pub use simulated::{is, set};

#[cfg(test)]
mod simulated {
    use std::cell::Cell;

    use super::Planted;

    thread_local! {
        static PLANTED: Cell<Option<Planted>> = const { Cell::new(None) };
    }

    /// For this thread.
    pub fn set(planted: Option<Planted>) {
        PLANTED.set(planted);
    }

    pub fn is(planted: Planted) -> bool {
        PLANTED.get() == Some(planted)
    }
}
