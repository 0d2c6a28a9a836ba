//! Who follows the beginning of a stand-in: between its steps something may have to be done, and noted.

use std::path::Path;

use crate::apply::Replica;
use crate::failure::Failure;
use crate::packet::{Epoch, Position};
use crate::target_side::{KnownAge, known_age};

/// The replica as it is served.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    pub applied: Position,
    pub age: KnownAge,
}

impl Taken {
    pub(super) fn of(replica: &Replica, state: &Path) -> Taken {
        let (applied, durable) = (replica.applied(), replica.durable());
        Taken { applied, age: known_age(state, replica.data().state, &applied, &durable) }
    }
}

/// Is told of each step, on the thread that performs them.
pub trait Following {
    /// The replica is this process's alone, at rest, durable, and fit to be served. Not where an earlier stand-in
    /// is gone on with.
    ///
    /// Errors: nothing is to be raised. The replica is as it was.
    fn taken(&mut self, taken: &Taken) -> Result<(), Failure>;

    /// From here on no source of a lower epoch is taken in; `goes_on`: since an earlier run.
    fn raised(&mut self, epoch: Epoch, goes_on: bool);
}

/// Nobody does.
pub struct Unfollowed;

impl Following for Unfollowed {
    fn taken(&mut self, _: &Taken) -> Result<(), Failure> {
        Ok(())
    }

    fn raised(&mut self, _: Epoch, _: bool) {}
}
