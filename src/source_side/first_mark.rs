//! Which set a directory is of, noted before any target is claimed in its name.
//!
//! ```text
//!  the directory's mark ──> targets are claimed ──> the record of the set
//!  (or, without xattrs, the record)
//! ```
//! The id of a set that is protected for the first time is a random one. Where a start died, or failed, behind its first
//! target, that replica was one of a set that never was, and was refused to every start after it. So the next start finds
//! the same id. One that was refused before it has claimed anything leaves no trace.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;

use super::embedded::replica_state;
use super::identity::{self, Found, Label, Raw};
use super::record::SetState;
use super::startup::io_failure;
use crate::apply::set_of;
use crate::failure::Failure;
use crate::packet::SetId;
use crate::words::{ProtectOptions, Target};

/// What a start has noted of a new set.
pub struct FirstMark {
    set: SetId,
    before: Before,
}

enum Before {
    /// The set is known, or the directory is a copy of another one's, whose mark says so until there is a record.
    Known,
    Mark(Raw),
    NoRecord,
}

impl FirstMark {
    /// Errors: it cannot be noted, and nothing was claimed.
    pub fn note(set: &SetState, backing: &OwnedFd, found: &Found) -> Result<FirstMark, Failure> {
        let id = set.record.set;
        let failed = |error: io::Error| io_failure("the backing directory cannot be marked", &error);
        let before = match (set.is_new(), found.label) {
            (false, _) => Before::Known,
            (true, Label::Set(_)) if found.is_copy => Before::Known,
            // One that begins to stand in has its record, and its epoch, already.
            (true, Label::Impossible) if set.exists() => Before::Known,
            (true, Label::Impossible) => {
                set.save().map_err(|error| io_failure("the set's state cannot be written", &error))?;
                Before::NoRecord
            }
            (true, Label::Set(_) | Label::None) => {
                let before = Raw::of(backing).map_err(failed)?;
                identity::write(backing, id).map_err(failed)?;
                Before::Mark(before)
            }
        };
        Ok(FirstMark { set: id, before })
    }

    /// The start was refused. What it has claimed all the same is of this set from now on.
    pub fn refused(self, set: &SetState, backing: &OwnedFd, options: &ProtectOptions) {
        // What cannot be looked at may be.
        let has_claimed = |target: &Target| match target {
            Target::Local(path) => {
                let found = File::open(path)
                    .and_then(|root| set_of(&root, Some(&replica_state(&options.set_state(), path))));
                found.map_or_else(|error| error.kind() != ErrorKind::NotFound, |of| of == Some(self.set))
            }
            Target::Null | Target::Remote { .. } => false,
        };
        if options.targets.iter().any(has_claimed) {
            return;
        }
        let undone = match &self.before {
            Before::Known => Ok(()),
            Before::Mark(before) => before.restore(backing),
            Before::NoRecord => set.remove(),
        };
        if let Err(error) = undone {
            log::warn!("a start that was refused leaves its mark: {error}");
        }
    }
}
