//! What a removal means for the targets, as it is typed.

use clap::Args;

use crate::words::{Deletes, KeepDeleted};

#[derive(Clone, Debug, Args)]
pub struct DeletesAsked {
    /// What is deleted stays on the targets, and gives way to whatever needs its name [default: as the file of the
    /// set says]
    #[arg(long, conflicts_with = "keep_deleted")]
    ignore_deletes: bool,
    /// Files that are deleted are moved on the targets to a directory of this name, in deleted beside the replica
    #[arg(long, value_name = "NAME")]
    keep_deleted: Option<String>,
    /// With --keep-deleted: for so many days
    #[arg(long, value_name = "DAYS", default_value_t = 30, requires = "keep_deleted")]
    keep_days: u16,
}

impl DeletesAsked {
    /// `None`: nothing was typed.
    ///
    /// Errors: why it makes no sense.
    pub fn asked(&self) -> Result<Option<Deletes>, String> {
        match &self.keep_deleted {
            Some(dir) => {
                let keep = KeepDeleted::new(dir.clone(), self.keep_days);
                keep.map(|keep| Some(Deletes::Keep(keep))).map_err(|why| format!("{why}."))
            }
            None => Ok(self.ignore_deletes.then_some(Deletes::Ignore)),
        }
    }
}
