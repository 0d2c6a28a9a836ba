//! The source: applications write, persons command, the link takes frames; what the driver does to
//! what is around it.

use std::rc::Rc;

use super::*;
use crate::failpoint;

impl World {
    pub(super) fn write(&mut self) -> Checked {
        self.lull = self.lull.saturating_sub(1);
        let writes = self.source.serves() && !self.calm && self.lull == 0;
        self.applications().writes_between_looks = writes;
        if !writes {
            return Ok(());
        }
        self.person_says_what_is_kept();
        for _ in 0..=self.random.below(3) {
            if !self.source.has_room() {
                self.note("a writer waits for room".into());
                self.source.wait_for_room();
                return self.hear(News::Waits);
            }
            self.applications.lock().change(&mut self.random);
        }
        self.hear_applications();
        Ok(())
    }

    fn person_says_what_is_kept(&mut self) {
        let mut applications = self.applications.lock();
        if !applications.removals.turn() {
            return;
        }
        let keeping = applications.removals.keeping.clone();
        drop(applications);
        self.desk.keep_removed(keeping.is_some());
        self.seen.said_what_is_kept += 1;
        self.note(format!("person: what is removed: {keeping:?}"));
    }

    /// Into the trace, what they did since this was asked last.
    pub(super) fn hear_applications(&mut self) {
        let said = std::mem::take(&mut self.applications().said);
        said.into_iter().for_each(|line| self.note(line));
    }

    pub(super) fn command(&mut self, command: Command) -> Checked {
        let before = self.before();
        let outcome = self.source.driver.command(command);
        self.note(format!("person: {command:?} {outcome:?}"));
        self.follow(&before)
    }

    pub(super) fn schedule(&mut self, event: Event) -> Checked {
        let before = self.before();
        self.note(format!("schedule: {event:?}"));
        self.source.driver.schedule(event);
        self.follow(&before)
    }

    /// What the driver wants of the network and of the tree.
    pub(super) fn effects(&mut self) {
        while let Some(effect) = self.source.desk.next_effect() {
            match effect {
                Effect::Dialled(sending) => {
                    self.note(format!("link {}: dialled", sending.link));
                    self.wires.insert(sending.link, Wire::new());
                    self.source.sending = Some(sending);
                }
                Effect::Said(link, message) => {
                    if let Some(wire) = self.wires.get_mut(&link) {
                        wire.send_to_target(&message);
                    }
                }
                Effect::FeedStarted(link) => {
                    let sending = self.source.sending.as_mut().filter(|sending| sending.link == link);
                    sending.into_iter().for_each(|sending| sending.feed_runs = true);
                }
                Effect::Walk(order, outcome) => {
                    self.seen.copies += 1;
                    self.see_owed(order.owed.as_ref());
                    let chance = (&mut self.random, self.planted);
                    let walker = Walker::new(self.applications.clone(), *order, outcome, chance);
                    // One whose link is gone ends with its next step, which nobody would hear of.
                    self.seen.copies_cut_off += u64::from(self.source.walker.replace(walker).is_some());
                }
                Effect::Closed(link) => self.close_source(link),
            }
        }
    }

    fn see_owed(&mut self, owed: Option<&OwedOrder>) {
        let Some(owed) = owed else { return };
        self.seen.minicopies += 1;
        self.seen.by_left += u64::from(self.source.driver.goes_by_left());
        match &owed.first {
            FirstOwed::Known(owed) => {
                let mut inodes: Vec<u64> = {
                    let backing = &self.applications().backing;
                    owed.objects.iter().map(|object| backing.in_model(object.id).inode).collect()
                };
                inodes.sort_unstable();
                self.seen.minicopies_of_nothing += u64::from(inodes.is_empty());
                self.note(format!("a copy of what is owed: {inodes:?}"));
            }
            FirstOwed::ByTime { since, .. } => {
                self.seen.searches += 1;
                self.note(format!("a copy of what has changed since {:?}", since()));
            }
        }
        if self.planted == Some(Planted::ForgetsAtTheBeginning) {
            self.source.driver.pretend_base(self.source.queue.last().sequence);
        }
    }

    pub(super) fn close_source(&mut self, link: u32) {
        let Some(mut sending) = self.source.sending.take_if(|sending| sending.link == link) else { return };
        self.note(format!("link {link}: closed"));
        // As the thread of a link ends: nobody is to hear it.
        sending.tell(SourceEvent::Lost { by: LostBy::Network, reason: "closed".into() });
        if self.planted == Some(Planted::StopsWithoutClosing) && self.random.one_in(2) {
            return;
        }
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
        self.wires.get_mut(&self.source.link()?)
    }

    pub(super) fn walker_turns(&mut self) {
        for _ in 0..=self.random.below(8) {
            let Some(walker) = &mut self.source.walker else { break };
            let (turn, is_minicopy) = (walker.turn(), walker.is_minicopy);
            self.seen.doubts += std::mem::take(&mut walker.doubts);
            match turn {
                Turn::GoesOn => continue,
                Turn::Complete { wrote } => {
                    self.seen.copies_under_load += u64::from(wrote);
                    self.seen.minicopies_over += u64::from(is_minicopy);
                    self.note("the walk of the copy is over".into());
                }
                Turn::CutOff => {
                    self.seen.copies_cut_off += 1;
                    self.seen.minicopies_cut_off += u64::from(is_minicopy);
                    self.note("the walk of the copy is cut off".into());
                }
            }
            self.source.walker = None;
        }
        let again = std::mem::take(&mut self.applications().listed_again);
        self.seen.listed_again += again;
        let holes = std::mem::take(&mut self.applications().holes);
        self.seen.holes += holes;
        self.hear_applications();
    }

    /// The link takes frames from the feed.
    pub(super) fn pump(&mut self) -> Checked {
        let Some(sending) = &mut self.source.sending else { return Ok(()) };
        let Some(wire) = self.wires.get_mut(&sending.link) else { return Ok(()) };
        if wire.under_way() > WINDOW_MAX {
            return Ok(());
        }
        if self.planted == Some(Planted::SendsWhilePaused) {
            sending.force_flow();
        }
        let max_bytes = self.random.below(6000) as usize + 1;
        let frames = sending.next_frames(max_bytes);
        frames.iter().for_each(|frame| wire.send_frame(frame));
        if frames.is_empty() {
            return Ok(());
        }
        let link = sending.link;
        self.note(format!("link {link}: {} frames sent", frames.len()));
        match self.source.driver.machine().state() {
            State::Started(Link::Streaming | Link::Copying) => Ok(()),
            other => Err(format!("something is sent in {other:?}")),
        }
    }

    /// The process dies and comes again, or a person starts the protection anew.
    pub(super) fn restart_source(&mut self, how: &str) -> Checked {
        self.note(format!("the source restarts: {how}"));
        let silence = self.silence();
        if let Some(sending) = self.source.sending.take()
            && let Some(wire) = self.wires.get_mut(&sending.link)
        {
            wire.cut();
            wire.source = End::Closed;
            wire.target.notices(clock::now() + silence);
        }
        let forks = self.planted == Some(Planted::ChainIsNotChecked) && !self.calm;
        if !(forks && self.fork()) {
            self.incarnations += 1;
            let epoch = Epoch { number: 1, writer: 2 };
            let origin = Position::origin(epoch, Incarnation(self.incarnations));
            let serves_at = clock::now() + Duration::from_millis(self.random.below(3000));
            let left = (how == STOPS).then(|| self.leave_queue()).flatten();
            let outlives = how == DIES && self.dies_under_its_mount();
            let sequence = left.as_ref().map_or(Sequence(0), Left::last);
            self.marks.begin_run(origin.incarnation);
            self.new_source((Position { sequence, ..origin }, left), serves_at, outlives);
        }
        self.begin_source()
    }

    /// Whether the mount is there all the time. Then the process may die in the midst of a change.
    fn dies_under_its_mount(&mut self) -> bool {
        if !self.applications().marking.is_kept() || self.death_random.one_in(4) {
            return false;
        }
        self.seen.outlived += 1;
        for _ in 0..self.death_random.below(6) {
            let marks_late = self.planted == Some(Planted::MarksAfterTheChange);
            self.applications.lock().change_untold(&mut self.death_random, marks_late);
        }
        true
    }

    /// It ends in an orderly way; then something may change while nobody captures it.
    fn leave_queue(&mut self) -> Option<Left> {
        let moment = self.applications().model.clock();
        // What is planned of the target's disk is not of this one.
        let left = failpoint::with(Rc::new(|_| Ok(())), || self.source.leave(Mark::of(moment)))?;
        self.seen.left_queues += 1;
        for _ in 0..self.left_random.below(6) {
            self.applications.lock().change_unseen(&mut self.left_random);
        }
        let is_late = self.planted == Some(Planted::LeftAsOfTheStart);
        let left = if is_late { left.dated(self.applications().model.clock()) } else { left };
        self.note(format!("packets up to {} are left in the queue", left.last()));
        Some(left)
    }

    fn new_source(&mut self, (at, left): (Position, Option<Left>), serves_at: Instant, is_same_mount: bool) {
        let (clock, map) = {
            let mut applications = self.applications();
            applications.marking.begins_anew(at, is_same_mount);
            (applications.model.clock(), applications.marking.map())
        };
        let start = Start {
            limit: self.queue_limit,
            at,
            clock,
            marks: self.marks.clone(),
            when_full: self.when_full,
            serves_at,
            kept: self.source.driver.kept(),
            disk: self.queue_disk,
            planted: self.planted.and_then(Planted::in_queue),
            map,
            left,
        };
        (self.disk_failed, self.moment) = (false, None);
        let desk = &self.desk;
        self.source = failpoint::with(Rc::new(|_| Ok(())), || Source::new(start, desk));
        let queue = self.source.queue.clone();
        self.applications().are_served_by(queue);
    }

    /// The driver of a new process begins.
    pub(super) fn begin_source(&mut self) -> Checked {
        let before = self.before();
        self.source.driver.act();
        self.follow(&before)
    }

    /// The source goes on from an older position as if nothing had come after it, and writes at once.
    pub(super) fn fork(&mut self) -> bool {
        let Some(applied) = self.last_applied.filter(|applied| applied.sequence.0 > 2) else { return false };
        let back = Sequence(applied.sequence.0 - 2);
        let older =
            |(position, _): &(&Position, &_)| position.same_history(&applied) && position.sequence == back;
        let position = self.applications().history.iter().find(older).map(|(position, _)| *position);
        let Some(position) = position else { return false };
        self.applications().go_back_to(&position);
        self.new_source((position, None), clock::now(), false);
        for _ in 0..30 {
            self.applications.lock().change(&mut self.random);
        }
        true
    }
}
