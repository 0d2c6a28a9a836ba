//! What the source knows that its stream does not tell: a change that was made and could not be
//! captured.
//!
//! Noting it is all that a room has to do. The rest follows by itself: the status is critical, no
//! replica counts as good and its target is told so, no waiting call is complete, no sync counts
//! targets, and the next start compares everything.

use std::sync::OnceLock;

/// See the module. Set once, for good: only a start that compares everything takes it back.
#[derive(Default)]
pub struct Divergence {
    why: OnceLock<String>,
    touched: OnceLock<String>,
}

impl Divergence {
    /// Notes it, with one line for people; the first reason stays. Any lock may be held.
    pub fn note(&self, why: &str) {
        log::error!("a change could not be captured, everything has to be compared again: {why}");
        let _ = self.why.set(why.to_owned());
    }

    /// Notes an object whose change time moved without anything else: nearly always a hard link
    /// outside of the tree. The first one stays.
    pub fn note_touch(&self, path: &str) {
        if self.touched.set(path.to_owned()).is_ok() {
            log::info!("{path}: its change time moved past the mount, and nothing else");
        }
    }

    /// The first object of [`Divergence::note_touch`].
    pub fn touched(&self) -> Option<&str> {
        self.touched.get().map(String::as_str)
    }

    /// Why the targets may miss a change, if they may.
    pub fn why(&self) -> Option<&str> {
        self.why.get().map(String::as_str)
    }
}
