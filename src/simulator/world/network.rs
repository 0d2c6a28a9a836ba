//! The network: bytes and messages arrive, links are cut.

use super::*;

impl World {
    pub(super) fn stream_arrives(&mut self) -> Checked {
        let links: Vec<u32> = self.wires.keys().copied().collect();
        let Some(link) = self.random.pick(&links).copied() else { return Ok(()) };
        let Some(wire) = self.wires.get_mut(&link) else { return Ok(()) };
        wire.deliver_stream(&mut self.random).map(drop)
    }

    pub(super) fn message_for_target(&mut self) -> Checked {
        let links: Vec<u32> = self.wires.keys().copied().collect();
        let Some(link) = self.random.pick(&links).copied() else { return Ok(()) };
        if !self.target.is_up() {
            return Ok(());
        }
        let message = self.wires.get_mut(&link).and_then(Wire::deliver_to_target);
        match message {
            None => Ok(()),
            Some(message @ SourceMessage::Hello { .. }) => self.greeted(link, message),
            Some(message) => {
                if self.target.serves(link) {
                    self.target.hear(message);
                }
                Ok(())
            }
        }
    }

    pub(super) fn greeted(&mut self, link: u32, hello: SourceMessage) -> Checked {
        greeting(hello)?;
        if !self.calm && self.random.one_in(12) {
            self.note(format!("link {link}: refused"));
            self.seen.refused += 1;
            let reason = Text::from_str_cut("not now");
            if let Some(wire) = self.wires.get_mut(&link) {
                wire.send_to_source(&TargetMessage::Refused { reason });
                wire.target = End::Closed;
                wire.source.notices(clock::now() + Duration::from_millis(50));
            }
            return Ok(());
        }
        self.seen.took_over += u64::from(self.target.live_link().is_some());
        if let Some(early) = self.target.greeted(link) {
            self.welcomed.push(link);
            self.promised.insert(link, (self.broken, self.in_line_with));
            if let Some(wire) = self.wires.get_mut(&link) {
                wire.send_to_source(&early);
            }
        }
        Ok(())
    }

    pub(super) fn cut(&mut self) {
        let links: Vec<u32> = self.wires.keys().copied().collect();
        let Some(link) = self.random.pick(&links).copied() else { return };
        let (source, target) = (self.silence(), self.silence());
        self.note(format!("link {link}: cut; noticed after {source:?} and {target:?}"));
        if let Some(wire) = self.wires.get_mut(&link) {
            wire.cut();
            wire.source.notices(clock::now() + source);
            wire.target.notices(clock::now() + target);
        }
    }
}
