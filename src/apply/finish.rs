//! Finishing without a source: the op that a killed target had begun is performed, and the times that
//! are pending are set. Then the replica is at rest: the source as of *applied*, whole.
//!
//! Only a good replica comes to rest so: of a bad one a resynchronisation compares everything, and
//! the mtime of what it has copied in part must not look as if it were complete.

use super::applier::Applier;
use super::next_frame::follows;
use super::replica::Replica;
use crate::packet::{DataState, FrameHeader};

impl Applier {
    /// An applier for a replica that was just opened: at rest, if that can be had.
    pub fn at_rest(replica: Replica) -> Applier {
        let mut applier = Applier::new(replica);
        applier.come_to_rest();
        applier
    }

    /// Finishes what was begun and sets pending times; what keeps it from that is logged and shown
    /// ([`Replica::data_shown`]). To be called again later then.
    pub fn come_to_rest(&mut self) {
        let _watch = self.watch();
        let unrest = self.try_to_rest().err();
        self.replica.rests_but_for(unrest);
    }

    /// Whether there is nothing to be done for the replica while nobody sends.
    pub fn is_at_rest(&self) -> bool {
        let replica = &self.replica;
        replica.data().state != DataState::Good
            || replica.sync_failed()
            || !replica.in_doubt()
                && replica.next_deadline().is_none()
                && replica.applied() == replica.durable()
    }

    fn try_to_rest(&mut self) -> Result<(), String> {
        if self.replica.data().state != DataState::Good || self.replica.sync_failed() {
            return Ok(());
        }
        self.finish_begun()?;
        self.replica
            .settle_times()
            .map_err(|fault| format!("the times of the last changes cannot be set: {fault}"))
    }

    fn finish_begun(&mut self) -> Result<(), String> {
        if !self.replica.in_doubt() {
            return Ok(());
        }
        let position = self.replica.begun();
        let begun = |op: &str| format!("packet {}{op} was begun when the target stopped", position.sequence);
        let lost = |why: &str| format!("{}, and {why}: only its source can finish it", begun(""));
        let noted = self.replica.noted(position).map_err(|error| lost(&error.to_string()))?;
        let (frame, allow) = noted.ok_or_else(|| lost("there is no record of it"))?;
        let FrameHeader::Packet(packet) = &frame.header else { return Err(lost("its record is no packet")) };
        follows(&self.replica.applied(), &position, frame.digest)
            .map_err(|error| lost(&error.to_string()))?;
        let usual = self.replica.policy().allow();
        self.replica.set_allow(allow);
        let done = self.perform(&frame, packet);
        self.replica.set_allow(usual);
        let op = format!(" ({})", packet.op.name());
        done.map_err(|fault| format!("{} and cannot be finished now: {fault}", begun(&op)))?;
        log::info!("{} and is finished", begun(&op));
        Ok(())
    }
}
