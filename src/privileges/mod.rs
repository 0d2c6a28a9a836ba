//! What the processes of the product may still do once they run: everything else is given up for
//! good, before the first thread starts that other hosts or programs can talk to.
//!
//! - `capabilities`: which capabilities each process keeps (capabilities(7))
//! - `files`: which files a target may reach (landlock(7))
//! - [`by_handle`]: calls that go by file handle, which a confined thread has made elsewhere
//!
//! Both are of a thread and pass to the threads that it starts: they are given up early, on the
//! main thread. `docs/privileges.md` lists them for people and says why; a test compares.

pub mod by_handle;
mod capabilities;
mod files;
#[cfg(test)]
mod tests;

pub use capabilities::{
    DRILL, FLUSHER, HOLDER, PAGES, PROTECT, PROTECT_START, SERVE, SERVE_START, for_allowed, give_up, holds,
    narrow,
};
pub use files::{Confinement, Reach, confine, is_confined, unconfined};
