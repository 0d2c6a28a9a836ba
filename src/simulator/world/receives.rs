//! The target: sessions begin, do what comes next, end; the process dies.

use super::*;

impl World {
    pub(super) fn target_turn(&mut self) -> Checked {
        if !self.target.is_up() {
            return Ok(());
        }
        if let Some(link) = self.target.next_waiting() {
            let welcomed = self.welcomed.contains(&link);
            self.target.begin_session(welcomed);
            self.note(format!("target: a session on link {link}"));
            self.send_of_target(link);
        }
        let Some(link) = self.target.live_link() else { return Ok(()) };
        let received = self.received(link);
        let step = self.target.turn(received)?;
        self.send_of_target(link);
        self.after(step)
    }

    pub(super) fn received(&mut self, link: u32) -> Received {
        let closed = || Received::Closed { reason: "the link is gone".into() };
        let Some(wire) = self.wires.get_mut(&link) else { return closed() };
        if let End::NoticesAt(at) = wire.target {
            self.target.link_is_gone(at);
        }
        match wire.inbox.pop_front() {
            Some(mut frame) => {
                if self.planted == Some(Planted::ChainIsNotChecked)
                    && matches!(frame.header, FrameHeader::Packet(_))
                    && let Some(applier) = self.target.applier()
                {
                    frame.position.chain = applier.replica().applied().next(frame.digest).chain;
                }
                Received::Frame(frame)
            }
            None if wire.target.is_closed() => closed(),
            None => Received::Idle,
        }
    }

    pub(super) fn send_of_target(&mut self, link: u32) {
        for mut message in self.target.take_messages() {
            let Some(wire) = self.wires.get_mut(&link) else { return };
            if let TargetMessage::Acknowledge { received, applied, .. } = &mut message
                && self.planted == Some(Planted::AcknowledgesBeforeApply)
                && let Some(frame) = wire.inbox.back()
                && frame.position.sequence > *applied
            {
                (*received, *applied) = (frame.position.sequence, frame.position.sequence);
            }
            if let TargetMessage::Welcome { .. } = message {
                self.promised.insert(link, (self.broken, self.in_line_with));
            }
            wire.send_to_source(&message);
        }
    }

    pub(super) fn sync_ends(&mut self) -> Checked {
        if !self.target.syncs() {
            return Ok(());
        }
        let step = self.target.sync_ends()?;
        self.after(step)
    }

    pub(super) fn after(&mut self, step: Step) -> Checked {
        match step {
            Step::Done => self.check_replica(),
            Step::Died => {
                self.seen.deaths_within += 1;
                self.target_dies(Loss::Process)
            }
            Step::Ended { link, reason } => {
                self.note(format!("target: the session on link {link} is over: {reason}"));
                let misplaced = ["came again", "are missing", "does not follow", "of another history"];
                if misplaced.iter().any(|part| reason.contains(part)) {
                    return Err(format!("packets arrive out of place: {reason}"));
                }
                let ended = self.target.end_session()?;
                if let Some(wire) = self.wires.get_mut(&link) {
                    wire.target = End::Closed;
                    wire.source.notices(clock::now() + Duration::from_millis(20));
                }
                match ended {
                    Step::Died => self.after(Step::Died),
                    _ => {
                        self.check_replica()?;
                        self.compare_at_rest()
                    }
                }
            }
        }
    }

    pub(super) fn target_dies(&mut self, loss: Loss) -> Checked {
        self.seen.deaths += 1;
        let back = clock::now() + Duration::from_millis(self.random.below(3000));
        let lost = self.target.die(loss, back);
        self.note(format!("the target dies: {loss:?}, lost {lost}"));
        if let Loss::Power { .. } = loss {
            self.seen.power_losses += 1;
            self.kept.forget();
        }
        if self.target.forgets_failed_sync && self.broken == Some(SYNC_FAILED) {
            self.broken = None;
        }
        if lost {
            self.broken = Some("the target lost power in motion");
            self.last_applied = None;
        }
        self.welcomed.clear();
        let links: Vec<u32> = self.wires.keys().copied().collect();
        for link in links {
            let silence = self.silence();
            if let Some(wire) = self.wires.get_mut(&link) {
                wire.cut();
                wire.inbox.clear();
                wire.target = End::Closed;
                wire.source.notices(clock::now() + silence);
            }
        }
        Ok(())
    }
}
