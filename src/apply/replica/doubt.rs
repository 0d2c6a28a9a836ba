//! The op in doubt: begun, and not known to be performed.
//!
//! ```text
//!  begin: the op itself (begun), then its position (page) ── perform ── applied_is
//!                                                          in doubt
//! ```
//! All of it survives the death of the process, and none of it a power loss. What the next process
//! cannot finish keeps the replica from rest, for a reason that people are told.

use std::io;

use super::Replica;
use super::progress::{DataStatus, now_ms};
use crate::apply::fault::Fault;
use crate::packet::{DataState, Frame, PacketHeader, Position};
use crate::words::Allow;

impl Replica {
    /// Writes down that an op is performed from now on. Where it was begun before it may be done, in
    /// part or in full.
    pub(in crate::apply) fn begin(&mut self, frame: &Frame, packet: &PacketHeader) -> Result<(), Fault> {
        let allow = self.policy.allow();
        self.begun.note(frame, packet, allow).map_err(Fault::own("record of what is begun"))?;
        self.progress.begin(frame.position).map_err(Fault::own("positions"))
    }

    /// The op last begun.
    pub(in crate::apply) fn begun(&self) -> Position {
        self.progress.begun()
    }

    /// Records that everything up to here is performed. Errors: the op stays in doubt.
    pub(in crate::apply) fn applied_is(&mut self, position: Position) -> Result<(), Fault> {
        self.log_times()?;
        self.progress.applied_is(position).map_err(Fault::own("positions"))
    }

    /// The op after *applied* was begun and is not known to be performed.
    pub fn in_doubt(&self) -> bool {
        let (begun, applied) = (self.progress.begun(), self.progress.applied());
        begun.follows(&applied)
    }

    /// The op that was noted at this position, and what its source was allowed; `None` where there is
    /// no whole record of it.
    pub(in crate::apply) fn noted(&mut self, position: Position) -> io::Result<Option<(Frame, Allow)>> {
        self.begun.read(position)
    }

    /// It is the source as of *applied*, whole, or not for this reason.
    pub(in crate::apply) fn rests_but_for(&mut self, why: Option<String>) {
        let before = self.unrest.take();
        self.unrest = why.map(|why| {
            if before.as_ref().and_then(|before| before.reason.as_deref()) != Some(&why) {
                log::error!("the replica is not whole: {why}");
            }
            let since_ms = before.map_or(now_ms(), |before| before.since_ms);
            DataStatus { state: DataState::Bad, in_line: false, since_ms, reason: Some(why) }
        });
    }

    /// [`Replica::data`] as people are told it: a good replica with half of a change in it is no copy
    /// as of any moment until that is finished.
    pub fn data_shown(&self) -> DataStatus {
        let data = self.data();
        match &self.unrest {
            Some(unrest) if data.state == DataState::Good => unrest.clone(),
            Some(_) | None => data,
        }
    }

    /// As if an op had been begun.
    #[cfg(test)]
    pub fn pretend_begun(&mut self, position: Position) {
        self.progress.begin(position).expect("a disk with room");
    }

    /// As if the record of *applied* were this.
    #[cfg(test)]
    pub fn pretend_applied(&mut self, applied: Position) {
        self.progress.pretend_applied(applied).expect("a disk with room");
    }
}
