//! Sources of an epoch before the one that the replica was stood in for in are kept out. The fence lies in the
//! slot and in the root's own mark: each says it where the other one is lost, and nothing ever lowers it.

use super::Replica;
use crate::apply::fault::Fault;
use crate::failpoint;
use crate::packet::Epoch;

impl Replica {
    /// The epoch in which it was stood in for; `None`: it never was.
    pub fn fence(&self) -> Option<Epoch> {
        self.progress.fence()
    }

    /// Keeps out who writes in earlier epochs than this; durable when it returns.
    pub fn raise_fence(&mut self, epoch: Epoch) -> Result<(), Fault> {
        failpoint::at("fence").map_err(Fault::own("fence"))?;
        self.progress.raise_fence(&self.root, epoch).map_err(Fault::own("fence"))
    }
}
