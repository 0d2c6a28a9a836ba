//! Durable points and the state of the data: what of a replica is proved, and how it comes to be.

#[cfg(test)]
mod hold;

use std::fs::File;
use std::io;

#[cfg(test)]
pub use self::hold::Hold;
use super::Replica;
use super::progress::DataStatus;
use crate::apply::fault::Fault;
use crate::failpoint;
use crate::packet::{BadBy, DataState, Position, ReplicaProof, SetId};

/// A durable point that was begun: [`DurablePoint::sync`] may run on another thread while the
/// applier goes on; then [`Replica::finish_durable`].
pub struct DurablePoint {
    /// Counts the points of a replica: a later one says more than an earlier one.
    number: u64,
    position: Position,
    root: File,
    index: File,
    #[cfg(test)]
    hold: std::sync::Arc<Hold>,
}

/// How many durable points were begun, and the last one that was proved.
#[derive(Default)]
pub(super) struct Points {
    begun: u64,
    proved: u64,
}

impl DurablePoint {
    /// Everything up to here becomes durable.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Syncs the replica's file system and the index. Blocks for as long as the disk needs.
    ///
    /// Errors: the system's; what was written is then in doubt ([`Replica::finish_durable`]).
    pub fn sync(&self) -> io::Result<()> {
        #[cfg(test)]
        self.hold.wait()?;
        failpoint::at("sync")?;
        rustix::fs::syncfs(&self.root)?;
        self.index.sync_data()
    }
}

/// Of what was written before: [`SyncOfFiles::run`] may run on another thread while the applier goes on.
pub(in crate::apply) struct SyncOfFiles {
    root: File,
    #[cfg(test)]
    hold: std::sync::Arc<Hold>,
}

impl SyncOfFiles {
    /// Blocks for as long as the disk needs.
    ///
    /// Errors: the system's; what was written is then in doubt ([`Replica::sync_has_failed`]).
    pub(in crate::apply) fn run(&self) -> io::Result<()> {
        #[cfg(test)]
        self.hold.wait()?;
        Ok(rustix::fs::syncfs(&self.root)?)
    }
}

const SYNC_FAILED: &str = "a sync of the replica failed: what was written may not be there";

impl Replica {
    /// What the handshake tells the source. `received` is what this process has received.
    pub fn proof(&self, received: Position) -> ReplicaProof {
        ReplicaProof {
            data: self.data().state,
            bad_by: if self.sync_failed {
                BadBy::Anything
            } else {
                self.progress.bad_by().unwrap_or_default()
            },
            applied: self.progress.applied(),
            durable: self.progress.durable(),
            received,
            process: self.progress.process(),
        }
    }

    pub fn set(&self) -> SetId {
        self.progress.set()
    }

    pub fn applied(&self) -> Position {
        self.progress.applied()
    }

    pub fn durable(&self) -> Position {
        self.progress.durable()
    }

    /// What kind of bad the data is, if it is.
    pub(in crate::apply) fn bad_by(&self) -> Option<BadBy> {
        self.progress.bad_by()
    }

    /// State of the data, since when and why.
    pub fn data(&self) -> DataStatus {
        let data = self.progress.data();
        match self.sync_failed && data.state != DataState::Bad {
            // The disk does not take the note.
            true => DataStatus { state: DataState::Bad, reason: Some(SYNC_FAILED.into()), ..data },
            false => data,
        }
    }

    /// What a process that is killed now leaves says that a sync failed, if one did.
    #[cfg(test)]
    pub fn has_noted(&self) -> bool {
        !self.sync_failed || self.progress.bad_by() == Some(BadBy::Anything)
    }

    /// Marks the data bad, durably, before the first byte that makes it true is written.
    pub fn mark_bad(&mut self, reason: &str) -> Result<(), Fault> {
        self.mark_bad_by(reason, BadBy::Anything)
    }

    /// [`Replica::mark_bad`], where the stream may go on.
    pub(in crate::apply) fn mark_bad_by(&mut self, reason: &str, by: BadBy) -> Result<(), Fault> {
        #[cfg(test)]
        self.hold.write()?;
        self.progress.mark_bad(&self.root, reason, by).map_err(Fault::own("mark the replica bad"))
    }

    /// Goes on after this position, of whatever history: a resynchronisation is valid from here.
    pub fn adopt(&mut self, position: Position) -> Result<(), Fault> {
        self.log_times()?;
        self.progress.adopt(position).map_err(Fault::own("adopt a position"))
    }

    /// A copy begins, and packets go on after this position.
    pub(in crate::apply) fn begin_copy(&mut self, position: Position) -> Result<(), Fault> {
        self.log_times()?;
        self.progress.begin_copy(position).map_err(Fault::own("adopt a position"))
    }

    /// A copy has begun and not ended: what is applied is no state of the source, and its position
    /// nothing to call durable.
    pub(in crate::apply) fn is_half_copied(&self) -> bool {
        self.progress.is_half_copied()
    }

    /// The replica is the source as of the applied position: durable, with everything in it, when
    /// it returns.
    pub fn mark_good(&mut self) -> Result<(), Fault> {
        self.durable_point_as(DataState::Good)?;
        assert_eq!(self.durable(), self.applied(), "a replica is called good before it is durable");
        assert_eq!(self.progress.data().state, DataState::Good, "a replica that is good is noted as bad");
        self.nothing_is_aside();
        Ok(())
    }

    /// As [`Replica::mark_good`], but for what was left out: the data stays bad for this reason, and
    /// packets go on.
    pub fn mark_in_line(&mut self, reason: &str) -> Result<(), Fault> {
        self.durable_point_as(DataState::Bad)?;
        assert_eq!(self.durable(), self.applied(), "a replica is called in line before it is durable");
        self.nothing_is_aside();
        self.progress.mark_in_line(reason).map_err(Fault::own("say what was left out"))
    }

    /// To sync the replica's file system, not the index, on another thread.
    pub(in crate::apply) fn begin_sync_of_files(&self) -> io::Result<SyncOfFiles> {
        Ok(SyncOfFiles {
            root: self.root.try_clone()?,
            #[cfg(test)]
            hold: self.hold.clone(),
        })
    }

    /// Makes everything applied so far durable.
    pub fn durable_point(&mut self) -> Result<(), Fault> {
        self.durable_point_as(self.progress.data().state)
    }

    /// First part of a durable point: sets pending times and notes the applied position.
    pub fn begin_durable(&mut self) -> Result<DurablePoint, Fault> {
        self.begin_durable_as(self.progress.data().state)
    }

    /// Last part. A failed sync marks the data bad: the kernel may have dropped what it could not
    /// write, and a second sync would say that all is well.
    pub fn finish_durable(&mut self, point: &DurablePoint, synced: io::Result<()>) -> Result<(), Fault> {
        let data = self.progress.data().state;
        self.finish_durable_as(point, synced, data)
    }

    fn durable_point_as(&mut self, data: DataState) -> Result<(), Fault> {
        let point = self.begin_durable_as(data)?;
        let synced = point.sync();
        self.finish_durable_as(&point, synced, data)
    }

    /// Notes that a sync failed, and gives the fault to answer. What was written since the last
    /// one may be gone, and neither a later sync nor size and mtime of a file would show it: until a
    /// resynchronisation begins nothing is durable any more, and that one copies all content.
    pub(in crate::apply) fn sync_has_failed(&mut self, error: io::Error) -> Fault {
        self.sync_failed = true;
        if let Err(fault) = self.note_failed_sync() {
            log::warn!("the failed sync ({error}) could not be noted on disk, it is tried again: {fault}");
        }
        Fault::SyncFailed(error)
    }

    /// Notes a failed sync on the disk, where that could not be done at once. Nothing is done where
    /// none failed or it is noted.
    ///
    /// Errors: the system's; the replica stays bad for as long as this process lives.
    pub fn note_failed_sync(&mut self) -> Result<(), Fault> {
        if self.sync_failed && self.progress.bad_by() != Some(BadBy::Anything) {
            self.mark_bad(SYNC_FAILED)?;
        }
        if self.sync_failed && !self.index.is_empty() { self.forget_all() } else { Ok(()) }
    }

    /// A sync has failed, and no resynchronisation has begun since.
    pub fn sync_failed(&self) -> bool {
        self.sync_failed
    }

    /// A resynchronisation begins: nothing that is there counts as copied.
    pub(in crate::apply) fn begin_after_failed_sync(&mut self) -> Result<(), Fault> {
        if self.sync_failed {
            self.forget_all()?;
            self.sync_failed = false;
        }
        Ok(())
    }

    fn begin_durable_as(&mut self, data: DataState) -> Result<DurablePoint, Fault> {
        if self.sync_failed {
            return Err(Fault::Refused("a durable point after a sync that failed"));
        }
        self.settle_times()?;
        let position = self.progress.applied();
        self.progress.announce(&self.root, position, data).map_err(Fault::own("identity of the replica"))?;
        let root = self.root.try_clone().map_err(Fault::own("root"))?;
        let index = self.index.sync_handle().map_err(Fault::own("object index"))?;
        assert!(self.points.proved <= self.points.begun, "more durable points are proved than were begun");
        self.points.begun += 1;
        Ok(DurablePoint {
            number: self.points.begun,
            position,
            root,
            index,
            #[cfg(test)]
            hold: self.hold.clone(),
        })
    }

    fn finish_durable_as(
        &mut self,
        point: &DurablePoint,
        synced: io::Result<()>,
        data: DataState,
    ) -> Result<(), Fault> {
        if let Err(error) = synced {
            return Err(self.sync_has_failed(error));
        }
        assert!(point.number <= self.points.begun, "a durable point of another replica");
        if point.number < self.points.proved || point.position.is_ahead_of(&self.applied()) {
            // The end of a copy made more durable while this point was being synced, or took its
            // place.
            return Ok(());
        }
        assert!(point.number > 0, "a durable point that was not begun");
        self.points.proved = point.number;
        self.progress.prove_durable(point.position, data).map_err(Fault::own("position slot"))
    }
}
