//! The source's driver: messages arrive for it, it hears one thing after the other, and what it
//! makes of them is looked at.

use super::*;

/// What a driver was before it heard something.
pub(super) struct Before {
    reason: String,
    has_let_go: bool,
    streams: bool,
    copies: bool,
    acknowledged: Sequence,
    sent_upto: Sequence,
    /// The link whose target it waited for to say what it holds.
    greets: Option<u32>,
    /// Whose packets go, and whether they are left of a run before.
    run: Incarnation,
    has_left: bool,
}

impl World {
    pub(super) fn before(&self) -> Before {
        let (driver, machine) = (&self.source.driver, self.source.driver.machine());
        let greets = matches!(
            machine.state(),
            State::Started(Link::Greeting)
                | State::Paused(Link::Greeting)
                | State::Error { repair: Repair::Greeting, .. }
        );
        Before {
            reason: machine.reason().to_owned(),
            has_let_go: machine.let_go().is_some(),
            streams: machine.is_streaming(),
            copies: copies(machine.state()),
            acknowledged: driver.acknowledged(),
            sent_upto: driver.sent_upto(),
            greets: self.source.link().filter(|_| greets),
            run: driver.run_of_history(),
            has_left: driver.has_left(),
        }
    }

    pub(super) fn hear(&mut self, news: News) -> Checked {
        let before = self.before();
        let is_welcome =
            matches!(&news, News::Link(Some(SourceEvent::Message(TargetMessage::Welcome { .. }))));
        self.source.driver.hear(news);
        self.follow(&before)?;
        match before.greets {
            Some(link) if is_welcome && !before.has_let_go => self.is_due(link, &before),
            Some(_) if is_welcome && self.source.driver.machine().is_streaming() => {
                Err("resumed, although the target was let go".into())
            }
            _ => Ok(()),
        }
    }

    /// Does what the driver wants, and looks at what it did.
    pub(super) fn follow(&mut self, before: &Before) -> Checked {
        self.effects();
        let machine = self.source.driver.machine();
        let is_let_go = machine.let_go().is_some() && !before.has_let_go;
        if is_let_go && before.copies && self.planted == Some(Planted::HoldsForACutCopy) {
            self.source.queue.attach(|_| {});
        }
        self.seen.let_go += u64::from(is_let_go);
        let machine = self.source.driver.machine();
        let streams = machine.is_streaming() && !before.streams;
        if machine.reason() != before.reason {
            self.note(format!("source: {}", self.source.driver.machine().reason()));
        }
        self.mark();
        if streams { self.stream_starts(before) } else { Ok(()) }
    }

    fn stream_starts(&mut self, before: &Before) -> Checked {
        let after = self.source.driver.stands_at().ok_or("a stream without a link")?.sequence;
        if before.copies {
            self.seen.back_after_let_go += 1;
            return Ok(());
        }
        if after < before.acknowledged {
            return Err("more is sent again than was in flight".into());
        }
        self.seen.resumed += 1;
        self.seen.resumed_left += u64::from(self.source.driver.has_left());
        self.seen.resent += before.sent_upto.0.saturating_sub(after.0);
        Ok(())
    }

    /// A copy is due where the histories are not whole, and only there.
    fn is_due(&self, link: u32, before: &Before) -> Checked {
        let own = before.run.0;
        let (broken, in_line_with) = self.promised.get(&link).copied().unwrap_or_default();
        let whole = broken.is_none() && in_line_with == Some(own) && !self.has_lost_what_is_needed();
        let machine = self.source.driver.machine();
        match machine.state() {
            State::Started(Link::Streaming) | State::Paused(Link::Streaming) if !whole => {
                Err(format!("resumed, although a copy is needed: {broken:?}, in line with {in_line_with:?}"))
            }
            // All that was left is there.
            State::Started(_) | State::Paused(_) if before.has_left && !self.source.driver.has_left() => {
                Ok(())
            }
            state if whole && (copies(state) || machine.is_pending()) => {
                Err(format!("a copy is wanted, and both histories are whole: {}", machine.reason()))
            }
            _ => Ok(()),
        }
    }

    /// The disk of the queue failed: what the target needs next is not there any more.
    fn has_lost_what_is_needed(&self) -> bool {
        let queue = &self.source.queue;
        let is_needed = |applied: Position| queue.oldest() > applied.sequence.next();
        queue.lost().is_some() && self.last_applied.is_some_and(is_needed)
    }

    /// The driver hears one of what waits for it.
    pub(super) fn driver_turn(&mut self) -> Checked {
        let (events, walked) = (self.source.driver.events(), self.source.driver.walked());
        let walk_first = events.is_empty() || (!walked.is_empty() && self.random.one_in(2));
        if walk_first && let Ok(outcome) = walked.try_recv() {
            return self.hear(News::Walked(outcome));
        }
        match events.try_recv() {
            Ok(event) => self.hear(News::Link(Some(event))),
            Err(_) => Ok(()),
        }
    }

    /// The driver hears everything that its link has for it.
    fn driver_catches_up(&mut self) -> Checked {
        while let Ok(event) = self.source.driver.events().try_recv() {
            self.hear(News::Link(Some(event)))?;
        }
        Ok(())
    }

    pub(super) fn message_for_source(&mut self) -> Checked {
        if self.source.sending.as_ref().is_none_or(|sending| sending.is_over) {
            return Ok(());
        }
        let Some(message) = self.source_wire().and_then(Wire::deliver_to_source) else { return Ok(()) };
        let message = self.tampered(message);
        match &message {
            TargetMessage::Welcome { proof, .. } => self.note(format!(
                "welcome: {:?}, applied {}, durable {}",
                proof.data, proof.applied, proof.durable
            )),
            TargetMessage::Acknowledge { applied, durable, .. } => {
                self.note(format!("acknowledged: applied {applied}, durable {durable}"));
            }
            TargetMessage::Retrying { .. } => self.seen.retried += 1,
            TargetMessage::Data { state, reason, aside } => {
                self.note(format!("data: {state:?}, {aside} aside: {}", reason.to_text()));
                self.seen.aside += aside.min(&1);
            }
            _ => {}
        }
        if let TargetMessage::Acknowledge { applied, .. } = &message
            && self.planted == Some(Planted::BelievesOldAcknowledgement)
            && copies(self.source.driver.machine().state())
            && self.source.driver.said().is_none()
        {
            let last = self.source.queue.last().sequence;
            self.source.driver.believe((*applied).min(last));
        }
        if self.lies && !self.calm && self.lie(&message)? {
            return Ok(());
        }
        self.tell_source(SourceEvent::Message(message));
        if self.random.one_in(4) { Ok(()) } else { self.driver_turn() }
    }

    pub(super) fn tell_source(&mut self, event: SourceEvent) {
        if let Some(sending) = &mut self.source.sending {
            sending.tell(event);
        }
    }

    /// Planted bugs of the source, as if it took the target's word for another.
    fn tampered(&self, mut message: TargetMessage) -> TargetMessage {
        match (&mut message, self.planted) {
            (TargetMessage::Welcome { proof, .. }, Some(planted)) => {
                let applied = proof.applied;
                let sent_upto = self.source.driver.sent_upto();
                let sequence = match planted {
                    Planted::ResumesTooEarly => Sequence(applied.sequence.0.saturating_sub(1)),
                    Planted::ResumesTooLate => applied.sequence.next(),
                    Planted::ForgetsWhatWasInFlight => applied.sequence.max(sent_upto),
                    _ => return message,
                };
                let same = |at: &&Position| at.sequence == sequence && at.same_history(&applied);
                proof.applied = self.applications().history.keys().find(same).copied().unwrap_or(applied);
            }
            (TargetMessage::Acknowledge { received, applied, .. }, Some(Planted::TrimsAtReceived)) => {
                *applied = *received;
            }
            _ => {}
        }
        message
    }

    /// The target says instead what no sound target says: the driver must end the session and
    /// believe none of it. Answers whether there was something to lie about.
    fn lie(&mut self, message: &TargetMessage) -> Result<bool, String> {
        let link = self.source.link();
        self.driver_catches_up()?;
        if self.source.link() != link {
            // What it said before was enough.
            return Ok(true);
        }
        let Some(lies) = self.lies_for(message) else { return Ok(false) };
        self.lies = false;
        self.seen.lied += 1;
        let acknowledged = self.source.driver.acknowledged();
        lies.into_iter().for_each(|lie| self.tell_source(SourceEvent::Message(lie)));
        self.driver_catches_up()?;
        if self.planted == Some(Planted::BelievesWhatWasNotSent) {
            return Ok(true);
        }
        if self.source.link() == link {
            return Err("a lie does not end the session".into());
        }
        let is_acknowledgement = matches!(message, TargetMessage::Acknowledge { .. });
        if is_acknowledgement && self.source.driver.acknowledged() != acknowledged {
            return Err("a lie was believed".into());
        }
        Ok(true)
    }

    fn lies_for(&mut self, message: &TargetMessage) -> Option<Vec<TargetMessage>> {
        match message {
            TargetMessage::Welcome { .. } => {
                self.note("the target lies: it greets twice".into());
                Some(vec![message.clone(), message.clone()])
            }
            TargetMessage::Acknowledge { received, durable, .. } => {
                let said = self.source.driver.said()?;
                let sent = self.source.driver.stands_at()?.sequence;
                let (applied, durable) = match self.random.below(3) {
                    0 if said.0 > 0 => (Sequence(said.0 - 1), Sequence(0)),
                    1 => (said, said.next()),
                    _ => (Sequence(sent.0 + 1 + self.random.below(3)), *durable),
                };
                self.note(format!("the target lies: applied {applied} of {sent}, durable {durable}"));
                if applied > sent && self.planted == Some(Planted::BelievesWhatWasNotSent) {
                    self.source.driver.believe(applied.min(self.source.queue.last().sequence));
                    return Some(Vec::new());
                }
                Some(vec![TargetMessage::Acknowledge { received: *received, applied, durable }])
            }
            _ => None,
        }
    }
}

/// It brings the target into line by a copy.
pub(super) fn copies(state: &State) -> bool {
    matches!(state, State::Started(Link::Copying) | State::Paused(Link::Copying))
}
