//! Why a command cannot work, in words for the person who typed it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// An error that a person has to deal with: what is wrong, what was left untouched, what to do.
/// Each part is one or more whole sentences without a line break at the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub what: String,
    pub untouched: String,
    pub next: String,
    /// It may go away by itself: the same command is worth another try.
    #[serde(skip)]
    pub passing: bool,
}

impl Failure {
    pub fn new(what: impl Into<String>, untouched: impl Into<String>, next: impl Into<String>) -> Failure {
        Failure { what: what.into(), untouched: untouched.into(), next: next.into(), passing: false }
    }

    pub fn passing(self) -> Failure {
        Failure { passing: true, ..self }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if !self.untouched.is_empty() {
            write!(f, "\n  untouched: {}", self.untouched)?;
        }
        if !self.next.is_empty() {
            write!(f, "\n  to do: {}", self.next)?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}
