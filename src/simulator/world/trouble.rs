//! What goes wrong, what a person does about it, and the calm at the end.

use super::*;

/// Both sides come together within so many.
const CALM_STEPS: u32 = 20_000;

impl World {
    pub(super) fn trouble(&mut self) -> Checked {
        if self.random.one_in(6) {
            self.lull = self.random.below(40);
        }
        match self.random.below(37) {
            0..5 => self.cut(),
            5 => self.network_is_up = !self.network_is_up,
            6 | 7 => self.network_is_up = true,
            8 if self.target.is_up() => self.target_dies(Loss::Process)?,
            9..14 => {
                let steps = self.random.below(12);
                self.target.plan(Some(steps), 0, false);
            }
            14 if self.target.is_up() => {
                let everything = self.random.one_in(3);
                self.target_dies(Loss::Power { everything })?;
            }
            15..18 => {
                let faults = self.random.below(6) as u32 + 1;
                self.target.plan(None, faults, false);
            }
            18 => self.target.plan(None, 0, true),
            19 | 20 => self.target.save_state(),
            21 if self.target.set_state_back() => {
                self.note("the target's state directory is set back".into());
                self.seen.set_back += 1;
                self.broken = Some("the state directory was set back");
                self.target_is_gone();
            }
            22 if self.random.one_in(2) => self.restart_source(DIES)?,
            23..25 => {
                self.seen.paused += 1;
                self.command(Command::Pause)?;
            }
            25..28 => self.command(Command::Resume)?,
            28 => {
                self.seen.stopped += 1;
                let is_short = self.random.one_in(2);
                self.command(if is_short { Command::Stop } else { Command::StopReplication })?;
            }
            29..32 => self.command(Command::Start)?,
            35 if self.random.one_in(3) => self.command(Command::StopMirror)?,
            35 => self.command(Command::StartMirror)?,
            32 => self.schedule(Event::CriterionOver)?,
            33 => self.schedule(Event::CriterionMet)?,
            34 => self.lies = true,
            36 if self.random.one_in(2) => {
                let attempts = self.random.below(4) as u32 + 1;
                self.target.damage_object(attempts);
            }
            _ => {}
        }
        Ok(())
    }

    /// What was stopped, paused or lost is looked after.
    pub(super) fn person_mends(&mut self) -> Checked {
        self.network_is_up = true;
        let machine = self.source.driver.machine();
        match machine.state() {
            State::Gone => self.restart_source("it is gone"),
            State::Scheduled { .. } => self.schedule(Event::CriterionMet),
            State::Stopped => self.command(Command::Start),
            State::Paused(_) | State::Error { flow: Flow::Hold, .. } => self.command(Command::Resume),
            // Tries again at once.
            State::Error { .. } => self.command(Command::Start),
            State::Started(Link::Pending) => self.command(Command::StartMirror),
            State::Started(_) => Ok(()),
        }
    }

    pub(super) fn target_is_gone(&mut self) {
        self.welcomed.clear();
        for wire in self.wires.values_mut() {
            wire.cut();
            wire.inbox.clear();
            wire.target = End::Closed;
            wire.source.notices(clock::now());
        }
    }

    /// Nothing fails any more: both sides come together.
    pub(super) fn calm(&mut self) -> Checked {
        self.note("calm".into());
        self.calm = true;
        self.network_is_up = true;
        self.target.plan(None, 0, false);
        self.target.damage_object(0);
        let (mut barrier, mut rests) = (None, 1 + self.stop_random.below(3));
        for _ in 0..CALM_STEPS {
            match self.source.driver.machine().state() {
                State::Started(Link::Dialing | Link::Greeting | Link::Copying | Link::Streaming)
                | State::Error { flow: Flow::Send, .. } => {}
                State::Error { .. }
                | State::Gone
                | State::Scheduled { .. }
                | State::Stopped
                | State::Started(Link::Pending)
                | State::Paused(_) => self.person_mends()?,
            }
            self.step()?;
            if barrier != Some(self.source.start) && self.source.serves() && self.source.has_room() {
                self.applications().capture(&Op::Barrier { durable: true, name: None }, Vec::new());
                self.hear_applications();
                barrier = Some(self.source.start);
            }
            if barrier == Some(self.source.start) && self.is_converged() {
                match self.target.applier().map(|applier| applier.proof()) {
                    Some(proof) if proof.data == DataState::Good => {
                        self.compare(Times::Settled)?;
                        if rests == 0 {
                            return Ok(());
                        }
                        (rests, barrier) = (rests - 1, None);
                        self.stop_at_rest()?;
                    }
                    // A copy heals it, some time.
                    Some(proof) if proof.bad_by == BadBy::Aside => {
                        let time = self.random.below(5000);
                        self.pass(Duration::from_millis(time))?;
                    }
                    other => return Err(format!("they have come together, and the replica is {other:?}")),
                }
            }
        }
        let machine = self.source.driver.machine();
        let awaited = self.target.applier().map(|applier| applier.awaited());
        let (state, reason) = (machine.state(), machine.reason());
        Err(format!("they do not come together: {state:?}, {reason}; the target awaits {awaited:?}"))
    }

    /// The target is let go; nothing changes meanwhile, or some, and then its disk or its process may fail once more.
    fn stop_at_rest(&mut self) -> Checked {
        self.note("all is there".into());
        for _ in 0..2 {
            let (base, last) = (self.source.driver.base(), self.source.queue.last());
            let reached = self.reached();
            self.applications().marking.look(base, reached, last);
        }
        self.command(Command::StopReplication)?;
        if self.stop_random.one_in(3) {
            return Ok(());
        }
        for _ in 0..self.stop_random.below(40) {
            self.applications.lock().change(&mut self.stop_random);
        }
        self.hear_applications();
        match self.stop_random.below(4) {
            0 => self.target.plan(None, self.stop_random.below(6) as u32 + 1, false),
            1 => self.target.plan(Some(self.stop_random.below(60)), 0, false),
            2 => self.target.damage_object(self.stop_random.below(4) as u32 + 1),
            _ => {}
        }
        Ok(())
    }

    pub(super) fn is_converged(&mut self) -> bool {
        let last = self.source.queue.last();
        let driver = &self.source.driver;
        let acknowledged = driver.acknowledged() == last.sequence && driver.durable() == last.sequence;
        acknowledged
            && driver.machine().is_streaming()
            && self.target.applier().is_some_and(|applier| {
                applier.replica().applied() == last && applier.next_deadline().is_none()
            })
    }
}
