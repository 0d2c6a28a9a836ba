//! Whether the last copy has left names in the replica that its source does not have.

use super::{Replica, remove_quietly};
use crate::apply::fault::Fault;
use crate::store;

/// In the replica's state directory: it is there, or not.
const FILE: &str = "kept";

/// [`Replica::keeps_orphans`] of a process before this one.
pub(super) fn keeps(state: &std::path::Path) -> bool {
    state.join(FILE).exists()
}

impl Replica {
    /// It has names that its source has not, because that was asked for.
    pub fn keeps_orphans(&self) -> bool {
        self.keeps_orphans
    }

    /// The copy that ends has left some, or none.
    pub(in crate::apply) fn keep_orphans(&mut self, keeps: bool) -> Result<(), Fault> {
        let path = self.state.join(FILE);
        match keeps {
            true if !self.keeps_orphans => {
                store::replace(&path, b"").map_err(Fault::own("note of kept orphans"))?;
            }
            true => {}
            false => remove_quietly(&path),
        }
        self.keeps_orphans = keeps;
        Ok(())
    }
}
