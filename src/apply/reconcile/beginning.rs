//! How a resynchronisation begins: the replica is bad, what it has counts or does not, and its root
//! directory has its id.

use std::fs::File;
use std::os::fd::AsFd;

use super::asked::Asked;
use super::claims::Claims;
use super::listed::Directories;
use super::packets::is_of_one;
use super::removed::Removed;
use super::vouched::{self, Vouching};
use super::{ASKED, CLAIMS, DIRECTORIES, Existing, Opening, Reconcile, Session, Stage, Stayed};
use crate::apply::fault::Fault;
use crate::apply::replica::{Incomplete, Limbo, Replica};
use crate::packet::{DataState, ObjectId, Position, Sequence, TargetMessage};
use crate::sys::FileHandle;

/// What the source has to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owes {
    Everything,
    /// What has changed since the replica was good. What was deleted goes, up to so many percent of all.
    What {
        percent_max: Option<u8>,
        /// What is shown is looked at, whatever is known of it.
        compares: bool,
    },
}

impl Reconcile {
    pub(super) fn begin(
        &mut self,
        replica: &mut Replica,
        position: Position,
        owes: Owes,
    ) -> Result<Vec<TargetMessage>, Fault> {
        if position.sequence == Sequence(u64::MAX) {
            return Err(Fault::Refused("a position that no history comes to"));
        }
        let follows_cut = replica.data().state != DataState::Good;
        match owes {
            Owes::Everything => replica.mark_bad("a resynchronisation has begun and not ended")?,
            Owes::What { .. } if self.rules.existing != Existing::Replace || self.rules.suspects_all => {
                return Err(Fault::Refused("a copy of what is owed by rules of another one"));
            }
            Owes::What { compares, .. } => vouched::mark_bad(replica, compares)?,
        }
        self.interrupt(replica)?;
        replica.begin_after_failed_sync()?;
        replica.relieved_is_lost()?;
        settle_times(replica, &owes)?;
        replica.times_are_shown_again();
        replica.begin_copy(position)?;
        // Somebody may have removed what waited.
        replica.places_are_others();
        let incomplete = Incomplete::open(replica)?;
        let mut directories = Directories::start(&replica.state().join(DIRECTORIES));
        let vouching = match owes {
            Owes::Everything => None,
            Owes::What { percent_max, compares } => {
                vouched::must_know_something(replica)?;
                directories.vouch();
                Some(Vouching::start(replica.state(), percent_max, (compares, follows_cut)))
            }
        };
        let handle_of = |dir: &File| FileHandle::of(dir.as_fd()).map_err(Fault::system("file handle"));
        self.stage = Stage::Begun(Box::new(Opening {
            own: [handle_of(replica.root())?, handle_of(replica.limbo())?],
            claims: Claims::start(&replica.state().join(CLAIMS)),
            limbo: Limbo::open(replica.root(), replica.limbo())?,
            asked: Asked::start(&replica.state().join(ASKED)),
            directories,
            incomplete,
            vouching,
        }));
        Ok(Vec::new())
    }

    /// Nothing that is there is known any more: what is copied from now on is, over lost connections too.
    pub(super) fn afresh(&self, replica: &mut Replica) -> Result<(), Fault> {
        match self.stage {
            Stage::Begun(ref opening) if opening.vouching.is_some() => {
                Err(Fault::Refused("a copy of what is owed in which nothing counts"))
            }
            Stage::Begun(_) => replica.forget_all(),
            Stage::Resting | Stage::Rooted(_) | Stage::Checking(_) | Stage::CheckOver { .. } => {
                Err(Fault::Refused("a copy is begun afresh in the middle of it"))
            }
        }
    }

    /// The root directory has its id. It may come again where its attributes could not be set.
    pub(super) fn take_root(&mut self, replica: &mut Replica, object: ObjectId) -> Result<(), Fault> {
        let claims = match &mut self.stage {
            Stage::Resting | Stage::Checking(_) | Stage::CheckOver { .. } => {
                return Err(Fault::Refused("a lane item before the first one"));
            }
            Stage::Begun(opening) => &mut opening.claims,
            Stage::Rooted(session) => &mut session.claims,
        };
        let handle = replica.bind_root(object)?;
        if !claims.claim(&handle, object)? {
            return Err(Fault::Refused("two root directories in one resynchronisation"));
        }
        self.stage = match std::mem::take(&mut self.stage) {
            Stage::Begun(opening) => {
                let known = (Stayed::start(replica.state()), Removed::start(replica.state()));
                Stage::Rooted(Box::new(Session::rooted(*opening, object, self.rules, known)))
            }
            as_it_is => as_it_is,
        };
        Ok(())
    }
}

/// What cannot be set of one object keeps no copy from its beginning: one of everything lists it again, and after one of
/// what is owed it is tried once more, and named.
fn settle_times(replica: &mut Replica, owes: &Owes) -> Result<(), Fault> {
    let mut unset = Vec::new();
    replica.settle_times_or(|replica, id, fault| {
        if !is_of_one(replica, &fault) {
            return Err(fault);
        }
        if matches!(owes, Owes::What { .. }) {
            unset.push((id, replica.pending_time(id), replica.pending_flags(id)));
        }
        Ok(())
    })?;
    for (id, mtime, flags) in unset {
        mtime.map_or(Ok(()), |mtime| replica.set_mtime_later(id, mtime))?;
        flags.map_or(Ok(()), |flags| replica.set_flags_later(id, flags))?;
    }
    replica.log_times()
}
