//! Times that the replica's file system cannot hold (fractions of a second, years far away) are no
//! difference; what it makes of each it is asked, on a file without a name, and nothing is guessed: a time
//! that is cut must not hide that another one is wrong.

use std::fs::File;

use crate::apply::fault::Fault;
use crate::apply::inode;
use crate::apply::replica::Replica;
use crate::packet::Timestamp;

/// See the module.
#[derive(Default)]
pub(super) struct TimesAsHeld {
    /// Made when it is first needed: most replicas hold every time.
    file: Option<File>,
}

impl TimesAsHeld {
    /// Whether an object that was given `wanted` has `held`. Where it cannot be asked it has not: a
    /// difference too many is looked at by somebody.
    pub(super) fn makes(&mut self, replica: &Replica, wanted: Timestamp, held: Timestamp) -> bool {
        match self.of(replica, wanted) {
            Ok(made) => made == held,
            Err(fault) => {
                log::warn!("what the replica's file system makes of a time cannot be told: {fault}");
                false
            }
        }
    }

    fn of(&mut self, replica: &Replica, wanted: Timestamp) -> Result<Timestamp, Fault> {
        let file = match self.file.take() {
            Some(file) => file,
            None => replica.file_without_name().map_err(Fault::own("a file to try times on"))?,
        };
        let file = self.file.insert(file);
        inode::set_mtime(&*file, wanted)?;
        Ok(inode::mtime(&inode::stat(&*file)?))
    }
}
