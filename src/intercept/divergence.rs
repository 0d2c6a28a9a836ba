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
}

impl Divergence {
    /// Notes it, with one line for people; the first reason stays. Any lock may be held.
    pub fn note(&self, why: &str) {
        log::error!("a change could not be captured, everything has to be compared again: {why}");
        let _ = self.why.set(why.to_owned());
    }

    /// Why the targets may miss a change, if they may.
    pub fn why(&self) -> Option<&str> {
        self.why.get().map(String::as_str)
    }
}
