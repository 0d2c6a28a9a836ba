//! The source: applications write, the driver does what the machine says, the link takes frames.

use super::*;

impl World {
    pub(super) fn write(&mut self) -> Checked {
        self.lull = self.lull.saturating_sub(1);
        if self.source.is_quiet || self.calm || self.lull > 0 {
            return Ok(());
        }
        for _ in 0..=self.random.below(3) {
            if !self.source.has_room() {
                if self.source.queue.stats().packets > 0 {
                    self.note("a writer waits for room".into());
                    self.event(Event::QueueFull)?;
                }
                return Ok(());
            }
            if let Some((op, payload)) = self.model.change(&mut self.random) {
                self.capture(op, payload);
            }
        }
        Ok(())
    }

    pub(super) fn capture(&mut self, op: Op, payload: Vec<u8>) {
        let position = self.source.capture(&op, payload);
        self.history.insert(position, self.model.tree.clone());
        let name = match &op {
            Op::Create { at, .. } | Op::Unlink { at, .. } | Op::Link { at, .. } => disk::shown(&at.name),
            Op::Rename { from, to, .. } => {
                format!("{} to {}", disk::shown(&from.name), disk::shown(&to.name))
            }
            _ => String::new(),
        };
        self.note(format!("packet {}: {} {name}", position.sequence, op.name()));
    }

    pub(super) fn event(&mut self, event: Event) -> Checked {
        self.source.machine.handle_event(clock::now(), event);
        self.follow()
    }

    pub(super) fn command(&mut self, command: Command) -> Checked {
        let outcome = self.source.machine.handle_command(clock::now(), command);
        self.note(format!("person: {command:?} {outcome:?}"));
        self.follow()
    }

    /// Does what the machine says.
    pub(super) fn follow(&mut self) -> Checked {
        while let Some(action) = self.source.machine.poll_action() {
            self.note(format!("source: {action:?}"));
            match action {
                Action::Dial { .. } => {
                    self.links += 1;
                    self.wires.insert(self.links, Wire::new());
                    let through = clock::now() + Duration::from_millis(self.random.below(60));
                    self.source.dial(self.links, through);
                }
                Action::Greet => {
                    let hello = self.source.hello();
                    if let Some(wire) = self.source_wire() {
                        wire.send_to_target(&hello);
                    }
                }
                Action::AwaitCopy { flow } => {
                    self.seen.copies += 1;
                    let tree = self.model.tree.clone();
                    let sending = self.source.sending.as_mut().ok_or("a copy without a link")?;
                    sending.copy = Some(Copy::new(tree));
                    sending.set_flow(flow);
                }
                Action::Stream { after, flow } => self.stream(after, flow)?,
                Action::SetFlow(_) if self.planted == Some(Planted::SendsWhilePaused) => {}
                Action::SetFlow(flow) => {
                    if let Some(sending) = &mut self.source.sending {
                        sending.set_flow(flow);
                    }
                }
                Action::Close { .. } => self.close_source(),
                Action::LetGo => {
                    self.seen.let_go += 1;
                    self.source.let_go();
                }
                Action::End => {}
            }
        }
        Ok(())
    }

    pub(super) fn stream(&mut self, after: Position, flow: Flow) -> Checked {
        let was_quiet = std::mem::replace(&mut self.source.is_quiet, false);
        let sent_upto = self.source.sent_upto;
        if !was_quiet && after.sequence < self.source.acknowledged {
            return Err("more is sent again than was in flight".into());
        }
        self.seen.resumed += u64::from(!was_quiet);
        self.seen.resent += sent_upto.0.saturating_sub(after.sequence.0);
        let at = |sequence| {
            let same = |position: &&Position| position.sequence == sequence && position.same_history(&after);
            self.history.keys().find(same).copied()
        };
        let planted = match self.planted {
            Some(Planted::ResumesTooEarly) => at(Sequence(after.sequence.0.saturating_sub(1))),
            Some(Planted::ResumesTooLate) if !was_quiet => at(after.sequence.next()),
            Some(Planted::ForgetsWhatWasInFlight) if sent_upto > after.sequence => at(sent_upto),
            _ => None,
        };
        let sending = self.source.sending.as_mut().ok_or("a stream without a link")?;
        sending.set_flow(flow);
        sending.start(planted.unwrap_or(after), sent_upto);
        Ok(())
    }

    pub(super) fn close_source(&mut self) {
        if self.planted == Some(Planted::StopsWithoutClosing) && self.random.one_in(2) {
            return;
        }
        let Some(link) = self.source.close() else { return };
        let late = self.random.below(50);
        let silence = self.silence();
        if let Some(wire) = self.wires.get_mut(&link) {
            wire.source = End::Closed;
            let at = if wire.is_cut { silence } else { Duration::from_millis(late) };
            wire.target.notices(clock::now() + at);
        }
    }

    /// After what time a side notices that the other is gone.
    pub(super) fn silence(&mut self) -> Duration {
        match self.random.below(3) {
            0 => Duration::ZERO,
            1 => Duration::from_millis(self.random.below(2000)),
            _ => SILENCE,
        }
    }

    pub(super) fn source_wire(&mut self) -> Option<&mut Wire> {
        self.wires.get_mut(&self.source.sending.as_ref()?.link)
    }

    /// The link takes frames from the feed.
    pub(super) fn pump(&mut self) -> Checked {
        let at = self.source.queue.last();
        let Some(sending) = &mut self.source.sending else { return Ok(()) };
        let Some(wire) = self.wires.get_mut(&sending.link) else { return Ok(()) };
        if sending.dialing.is_some() || wire.under_way() > WINDOW_MAX {
            return Ok(());
        }
        let max_bytes = self.random.below(6000) as usize + 1;
        let frames = sending.next_frames(at, max_bytes);
        frames.iter().for_each(|frame| wire.send_frame(frame));
        if frames.is_empty() {
            return Ok(());
        }
        let link = sending.link;
        self.note(format!("link {link}: {} frames sent", frames.len()));
        match self.source.machine.state() {
            State::Started(Link::Streaming | Link::Copying) => Ok(()),
            other => Err(format!("something is sent in {other:?}")),
        }
    }

    pub(super) fn message_for_source(&mut self) -> Checked {
        let Some(message) = self.source_wire().and_then(Wire::deliver_to_source) else { return Ok(()) };
        match message {
            TargetMessage::Welcome { proof, .. } => self.welcome(proof),
            TargetMessage::Refused { reason } => {
                let jitter = self.jitter();
                self.event(Event::Refused { reason: reason.to_text(), jitter })
            }
            TargetMessage::Acknowledge { received, applied, durable } => {
                let applied = match self.planted {
                    Some(Planted::TrimsAtReceived) => received,
                    _ => applied,
                };
                self.note(format!("acknowledged: applied {applied}, durable {durable}"));
                self.source.acknowledged(applied, durable)
            }
            TargetMessage::Wanted { objects, .. } => {
                let copy = self.source.sending.as_mut().and_then(|sending| sending.copy.as_mut());
                if let Some(copy) = copy {
                    copy.wanted(objects);
                }
                Ok(())
            }
            TargetMessage::Resynchronised { end, .. } => self.resynchronised(end),
            TargetMessage::Retrying { .. } => {
                self.seen.retried += 1;
                Ok(())
            }
            TargetMessage::Recovered { .. } | TargetMessage::About { .. } => Ok(()),
        }
    }

    pub(super) fn welcome(&mut self, proof: ReplicaProof) -> Checked {
        let held = self.source.held();
        self.note(format!(
            "welcome: {:?}, applied {}, durable {}; held {} to {}, {} acknowledged",
            proof.data, proof.applied, proof.durable, held.oldest, held.last, held.acknowledged
        ));
        self.is_due(decide(&held, &proof))?;
        let had = self.source.machine.let_go().is_some();
        self.event(Event::Welcome { proof, held })?;
        if !had && self.source.machine.let_go().is_some() {
            self.note("the source has let the target go".into());
        }
        Ok(())
    }

    /// A copy is due where the histories are not whole, and only there.
    pub(super) fn is_due(&self, decision: Decision) -> Checked {
        let own = self.source.start.incarnation.0;
        let link = self.source.sending.as_ref().map_or(0, |sending| sending.link);
        let (broken, in_line_with) = self.promised.get(&link).copied().unwrap_or_default();
        let whole = broken.is_none() && in_line_with == Some(own);
        match decision {
            Decision::Resume { .. } if whole => Ok(()),
            Decision::Resume { .. } => {
                Err(format!("resumed, although a copy is needed: {broken:?}, in line with {in_line_with:?}"))
            }
            Decision::Copy(_) if !whole => Ok(()),
            // Nobody is sent anything any more: the queue has let go.
            Decision::Copy(Gap::Trimmed { .. }) if self.source.machine.let_go().is_some() => Ok(()),
            Decision::Copy(gap) => Err(format!("a copy is wanted, and both histories are whole: {gap}")),
        }
    }

    pub(super) fn resynchronised(&mut self, end: ItemNumber) -> Checked {
        let Some(sending) = &mut self.source.sending else { return Ok(()) };
        if sending.copy.as_ref().and_then(|copy| copy.end) != Some(end) {
            return Ok(());
        }
        let after = sending.stands_at();
        if let Some(wire) = self.source_wire() {
            wire.send_to_target(&SourceMessage::StreamFrom { after });
        }
        self.event(Event::InLine { after })
    }

    /// The process dies and comes again, or a person starts the protection anew.
    pub(super) fn restart_source(&mut self, how: &str) -> Checked {
        self.note(format!("the source restarts: {how}"));
        let silence = self.silence();
        if let Some(link) = self.source.close()
            && let Some(wire) = self.wires.get_mut(&link)
        {
            wire.cut();
            wire.source = End::Closed;
            wire.target.notices(clock::now() + silence);
        }
        let forked = self.planted == Some(Planted::ChainIsNotChecked) && self.fork();
        if !forked {
            self.incarnations += 1;
            let epoch = Epoch { number: 1, writer: 2 };
            let origin = Position::origin(epoch, Incarnation(self.incarnations));
            self.history.insert(origin, self.model.tree.clone());
            self.source = Source::new(self.queue_limit, origin, clock::now());
        }
        self.follow()
    }

    /// The source goes on from an older position as if nothing had come after it, and writes at once.
    pub(super) fn fork(&mut self) -> bool {
        let Some(applied) = self.last_applied.filter(|applied| applied.sequence.0 > 2) else { return false };
        let back = Sequence(applied.sequence.0 - 2);
        let older =
            |(position, _): &(&Position, &Tree)| position.same_history(&applied) && position.sequence == back;
        let Some((position, tree)) = self.history.iter().find(older) else { return false };
        let position = *position;
        self.model.tree = tree.clone();
        self.source = Source::new(self.queue_limit, position, clock::now());
        self.source.is_quiet = false;
        for _ in 0..30 {
            if let Some((op, payload)) = self.model.change(&mut self.random)
                && self.source.has_room()
            {
                self.capture(op, payload);
            }
        }
        true
    }
}
