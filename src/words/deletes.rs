//! What a removal on a source means for its targets.

use std::fmt;

use super::names::is_set_name;
use crate::limits::KEEP_DAYS_MAX;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Deletes {
    /// It is removed there, too.
    #[default]
    Follow,
    /// It stays there, and gives way to whatever needs its name.
    Ignore,
    /// Files are moved aside there, and removed later.
    Keep(KeepDeleted),
}

/// Where to, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeepDeleted {
    dir: String,
    days: u16,
}

impl KeepDeleted {
    /// `dir`: a plain name, of a directory in the place beside the replica.
    ///
    /// Errors: why it makes no sense.
    pub fn new(dir: String, days: u16) -> Result<KeepDeleted, String> {
        match () {
            () if !is_set_name(&dir) => Err(format!("'{dir}' is no plain name of a directory")),
            () if !(1..=KEEP_DAYS_MAX).contains(&days) => {
                Err(format!("what is deleted is kept for 1 to {KEEP_DAYS_MAX} days"))
            }
            () => Ok(KeepDeleted { dir, days }),
        }
    }

    pub fn dir(&self) -> &str {
        &self.dir
    }

    pub fn days(&self) -> u16 {
        self.days
    }
}

impl fmt::Display for Deletes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Deletes::Follow => f.write_str("replicated"),
            Deletes::Ignore => f.write_str("ignored"),
            Deletes::Keep(KeepDeleted { dir, days }) => write!(f, "kept in {dir} for {days} days"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_no_sense_is_refused() {
        let keep = |dir: &str, days| KeepDeleted::new(dir.to_owned(), days);
        for (dir, days) in [("trash", 0), ("trash", KEEP_DAYS_MAX + 1), ("", 1), ("a/b", 1), ("..", 1)] {
            keep(dir, days).unwrap_err();
        }
        let kept = keep("trash", 30).unwrap();
        assert_eq!(Deletes::Keep(kept).to_string(), "kept in trash for 30 days");
    }
}
