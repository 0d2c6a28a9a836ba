//! Time passes: what is due happens, and each side learns what it could not know before.

use super::*;

impl World {
    pub(super) fn pass(&mut self, time: Duration) -> Checked {
        let now = clock::now() + time;
        clock::set(Some(now));
        if self.source.driver.due().is_some_and(|at| at <= now) {
            self.hear(News::Due)?;
        }
        if self.source.serves_at.take_if(|at| *at <= now).is_some() {
            self.note("the mount serves".into());
            let before = self.before();
            self.source.driver.captured();
            self.follow(&before)?;
        }
        while self.source.look_at <= now {
            self.source.look_at += LOOK_EVERY;
            self.source.has_room();
            self.hear(News::Look)?;
        }
        if self.target.down_until.is_some_and(|at| at <= now) {
            let step = self.target.start()?;
            self.note("the target starts".into());
            let died = matches!(step, Step::Died);
            self.seen.in_doubt += u64::from(std::mem::take(&mut self.target.was_in_doubt));
            self.after(step)?;
            if !died {
                self.compare_at_rest()?;
            }
        }
        self.dialled(now);
        self.notices(now);
        Ok(())
    }

    pub(super) fn dialled(&mut self, now: Instant) {
        let reached = self.network_is_up && self.target.is_up();
        let Some(sending) = &mut self.source.sending else { return };
        if sending.dialing.is_none_or(|at| at > now) {
            return;
        }
        sending.dialing = None;
        sending.tell(match reached {
            true => SourceEvent::Up,
            false => SourceEvent::Lost { by: LostBy::Network, reason: "nobody answers".into() },
        });
    }

    pub(super) fn notices(&mut self, now: Instant) {
        let due =
            |end: fn(&Wire) -> End| move |(link, wire): (&u32, &Wire)| end(wire).is_due(now).then_some(*link);
        let at_target: Vec<u32> = self.wires.iter().filter_map(due(|wire| wire.target)).collect();
        for link in at_target {
            if self.target.serves(link) {
                self.target.link_is_gone(now);
            }
            self.target.forget_waiting(link);
            if let Some(wire) = self.wires.get_mut(&link) {
                wire.target = End::Closed;
            }
        }
        let at_source: Vec<u32> = self.wires.iter().filter_map(due(|wire| wire.source)).collect();
        for link in at_source {
            let own = self.source.link() == Some(link);
            let Some(wire) = self.wires.get_mut(&link) else { continue };
            if wire.says_something() {
                continue;
            }
            if own {
                self.tell_source(SourceEvent::Lost {
                    by: LostBy::Network,
                    reason: "the link is gone".into(),
                });
            } else {
                wire.source = End::Closed;
            }
        }
        let live = self.target.live_link();
        self.wires
            .retain(|link, wire| !wire.source.is_closed() || !wire.target.is_closed() || live == Some(*link));
    }
}
