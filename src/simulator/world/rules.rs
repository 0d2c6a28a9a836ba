//! The rules that hold after every step.

use super::*;
use crate::packet::Incarnation;
use crate::source_side::Reached;
use crate::words::Target as TargetName;

impl World {
    pub(super) fn check(&mut self) -> Checked {
        if self.target.take_sync_failure() {
            self.seen.syncs_failed += 1;
            self.broken = Some(SYNC_FAILED);
        }
        let machine = self.source.driver.machine();
        let (state, link) = (machine.state(), self.source.link());
        if state.has_link() != link.is_some() {
            return Err(format!("a link in a state that has none, or none where one is: {state:?}"));
        }
        for (other, wire) in &self.wires {
            if !wire.source.is_closed() && Some(*other) != link {
                return Err(format!("link {other} is left open in {state:?}"));
            }
        }
        let last = self.source.queue.last();
        if machine.let_go().is_some() && self.source.queue.oldest() != last.sequence.next() {
            let oldest = self.source.queue.oldest();
            return Err(format!("packets from {oldest} on are held for a target that was let go"));
        }
        if machine.is_away() && self.source.is_held_up() {
            return Err(format!("a writer waits for a target that is not there: {state:?}"));
        }
        if self.source.queue.lost().is_some() && !self.disk_failed {
            return Err("the disk of the queue lost something, and never failed".into());
        }
        let own = self.source.start;
        if let Some(applied) = self.last_applied
            && applied.same_history(&own)
            && self.broken.is_none()
            && machine.let_go().is_none()
            && !hears::copies(state)
            && self.in_line_with == Some(own.incarnation.0)
            && self.source.queue.lost().is_none_or(|lost| lost <= applied.sequence)
            && self.source.queue.oldest() > applied.sequence.next()
        {
            return Err(format!(
                "the queue begins with {}, applied is {applied}",
                self.source.queue.oldest()
            ));
        }
        Ok(())
    }

    /// What is noted of the target.
    pub(super) fn reached(&self) -> Option<Reached> {
        self.marks.reached(&TargetName::Null.to_string())
    }

    /// Takes a moment now and then, and notes it once the target has everything as of it.
    pub(super) fn mark(&mut self) {
        let run = self.source.start.incarnation;
        if let Some((sequence, mark)) = self.moment.take() {
            if !self.source.driver.is_in_line() || self.source.driver.durable() < sequence {
                self.moment = Some((sequence, mark));
                return;
            }
            let runs: Vec<Incarnation> = (1..=self.incarnations).map(Incarnation).collect();
            let mark = mark.reached(Reached { run, sequence });
            self.marks.set(&BTreeMap::from([(TargetName::Null.to_string(), mark)]), &runs);
        }
        if self.random.one_in(3) {
            let mark = Mark::of(self.applications().model.clock());
            self.moment = Some((self.source.queue.last().sequence, mark));
        }
    }

    /// The replica is what it says: the source as of *applied*.
    pub(super) fn check_replica(&mut self) -> Checked {
        let own = self.source.start;
        let (acknowledged, durable) = (self.source.driver.acknowledged(), self.source.driver.durable());
        let Some(applier) = self.target.applier() else { return Ok(()) };
        let now = applier.acknowledged();
        let (data, bad_by) = (applier.replica().data().state, applier.proof().bad_by);
        let in_doubt = applier.replica().in_doubt();
        if applier.is_copying() {
            if data == DataState::Good {
                return Err("the replica calls itself good while it is copied to".into());
            }
            if now.applied.same_history(&own) && acknowledged > now.applied.sequence {
                return Err(format!("{acknowledged} is acknowledged, {} applied by a copy", now.applied));
            }
        }
        if data != DataState::Good {
            self.see_bad_replica(now.applied, bad_by);
            return Ok(());
        }
        match (self.bad_by.take(), self.broken) {
            (Some(BadBy::Aside), _) => return Err("good without a copy, although objects are aside".into()),
            (Some(BadBy::Relief), Some(why)) => {
                return Err(format!("good after files were emptied, although {why}"));
            }
            _ => {}
        }
        let was_bad = std::mem::take(&mut self.was_bad);
        if was_bad {
            // Only the end of a copy makes it good.
            (self.broken, self.in_line_with) = (None, Some(now.applied.incarnation.0));
            self.seen.healed += u64::from(std::mem::take(&mut self.was_aside));
        } else if let Some(why) = self.broken {
            return Err(format!("the replica calls itself good, although {why}"));
        }
        if !self.applications.lock().history.contains_key(&now.applied) {
            return Err(format!("applied is {}, which was never given out", now.applied));
        }
        if now.durable.same_history(&now.applied) && now.durable.sequence > now.applied.sequence {
            return Err(format!("durable is {}, applied {}", now.durable, now.applied));
        }
        if let Some(before) = self.last_applied
            && before.same_history(&now.applied)
            && now.applied.sequence < before.sequence
            && self.broken.is_none()
        {
            return Err(format!("applied went back from {before} to {}", now.applied));
        }
        if self.broken.is_none()
            && self.in_line_with == Some(own.incarnation.0)
            && now.applied.same_history(&own)
        {
            if acknowledged > now.applied.sequence {
                return Err(format!("{acknowledged} is acknowledged, {} applied", now.applied));
            }
            if durable > now.durable.sequence {
                return Err(format!("durable was {durable}, and is {}", now.durable));
            }
        }
        let moved = self.last_applied != Some(now.applied);
        self.seen.applied += u64::from(moved);
        let since = self.last_applied.replace(now.applied);
        let since = since.filter(|since| !was_bad && since.same_history(&now.applied));
        if moved && !in_doubt {
            self.check_kept(since, now.applied)?;
        }
        if !in_doubt && (was_bad || moved && self.random.one_in(3)) {
            return self.check_index().and_then(|()| self.compare(Times::Pending));
        }
        Ok(())
    }

    /// Whoever looks whether the replica is still there finds all of it.
    fn check_index(&mut self) -> Checked {
        let applier = self.target.applier().expect("a target that runs");
        applier.missing().map_or(Ok(()), |missing| Err(format!("of a good replica: {missing}")))
    }

    fn check_kept(&mut self, since: Option<Position>, now: Position) -> Checked {
        let applications = self.applications.lock();
        let checked = self.kept.check(&self.target.places, &applications.removals, (since.as_ref(), &now));
        self.seen.kept = self.seen.kept.max(checked.map_err(|wrong| format!("as of {now}: {wrong}"))?);
        Ok(())
    }

    fn see_bad_replica(&mut self, applied: Position, bad_by: BadBy) {
        self.was_bad = true;
        self.seen.relieved += u64::from(bad_by == BadBy::Relief && self.bad_by != Some(bad_by));
        let was_owed = matches!(self.bad_by.replace(bad_by), Some(BadBy::Anything | BadBy::Owed));
        if was_owed && matches!(bad_by, BadBy::Aside | BadBy::Relief) {
            // Only the end of a copy that left something out comes here.
            (self.broken, self.in_line_with) = (None, Some(applied.incarnation.0));
        }
        match bad_by {
            // A copy brings it into line, or has begun to.
            BadBy::Anything | BadBy::Owed => self.in_line_with = None,
            // It follows the stream.
            BadBy::Aside | BadBy::Relief => self.last_applied = Some(applied),
        }
        self.was_aside |= bad_by == BadBy::Aside;
    }

    /// Nobody works on the replica: where it is shown as good it is the source as of *applied*,
    /// times and all.
    pub(super) fn compare_at_rest(&mut self) -> Checked {
        let Some(applier) = self.target.applier() else { return Ok(()) };
        match applier.replica().data_shown().state {
            DataState::Good => self.compare(Times::Settled),
            DataState::Empty | DataState::Bad => Ok(()),
        }
    }

    pub(super) fn compare(&mut self, times: Times) -> Checked {
        let Some(applied) = self.last_applied else { return Err("there is no replica".into()) };
        self.seen.compared += 1;
        let applications = self.applications.lock();
        let tree = applications.history.get(&applied).ok_or("a position that was never given out")?;
        let outside = self.snapshots.links();
        disk::compare(tree, &self.target.places.root, (times, applications.removals.more()), &outside)
            .map_err(|difference| format!("as of {applied}: {difference}"))
    }
}
