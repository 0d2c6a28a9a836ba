//! A target whose disk is full: what is emptied there to make room, and when. A queue that is full because of a target: one
//! that is not there is let go at once, one that is there when programs wait for long.

use std::time::Duration;

use super::super::surroundings::Surroundings;
use super::Driver;
use crate::clock;
use crate::connection::{Event, Jitter};
use crate::control::Retrying;
use crate::limits::{
    QUEUE_FULL_LOOKS, QUEUE_FULL_LOOKS_DISK, RELIEF_AFTER, RELIEF_OBJECTS_MAX, WRITERS_WAIT_MAX,
};
use crate::packet::{Sequence, SourceMessage};
use crate::queue::Reader;
use crate::source_side::relief;

impl<S: Surroundings> Driver<S> {
    /// Programs wait for room that nobody is about to make: it is let go of. Of a disk that takes what memory holds they
    /// wait for that, and not for the target ([`QUEUE_FULL_LOOKS_DISK`]).
    pub(super) fn let_go_of_who_is_away(&mut self) {
        let Some(cursor) = self.cursor.filter(|_| self.machine.is_away()) else { return };
        if self.queue.waits_for(cursor).is_some() && !self.queue.disk_follows() {
            self.happened(Event::QueueFull);
        }
    }

    pub(super) fn look_at_queue(&mut self) {
        let Some(cursor) = self.cursor else { return };
        if let Some(why) = self.queue.lost_for(cursor) {
            let jitter = Jitter(self.around.random() as u16);
            self.happened(Event::QueueLost { reason: why.to_string(), jitter });
        }
        // A queue that is full for a moment, with what is still under way, is none.
        let waited = self.queue.waits_for(cursor);
        self.full_looks = if waited.is_some() { self.full_looks + 1 } else { 0 };
        let looks = if self.queue.disk_follows() { QUEUE_FULL_LOOKS_DISK } else { QUEUE_FULL_LOOKS };
        if self.full_looks >= looks {
            self.happened(Event::QueueFull);
            self.let_go_of_who_holds_up(waited.unwrap_or_default());
        }
    }

    /// Programs wait for room, the first of them for so long: the target gets the rest by the map. One that only is slower
    /// than they write slows them down, as long as no call takes too long. What would make room on a full disk may
    /// still come to one that is not copied to. A marker holds the stream for its time.
    fn let_go_of_who_holds_up(&mut self, waited: Duration) {
        let is_over = waited >= WRITERS_WAIT_MAX;
        let retrying = self.shared.report.lock().retrying.clone();
        let reason = match retrying {
            Some(Retrying { marker: true, .. }) => return,
            Some(Retrying { op, reason, .. }) if is_over || !self.copy.is_resting() => {
                format!("its target cannot perform {op}: {reason}")
            }
            _ if !is_over => return,
            _ => "its target does not take what is sent as fast as programs write".to_owned(),
        };
        let reason = format!("the queue became full, and programs waited: {reason}");
        let jitter = Jitter(self.around.random() as u16);
        self.happened(Event::HoldsUp { reason, jitter });
    }

    /// What stands on a full target is a good copy as of a moment, until something is taken from it to
    /// make room: not at once, unless programs would wait soon.
    pub(super) fn target_is_full(&mut self, from: Sequence) {
        let since = *self.full_since.get_or_insert_with(clock::now);
        if self.queue.stats().is_half_full() || clock::now().saturating_duration_since(since) >= RELIEF_AFTER
        {
            self.relieve(from);
        }
    }

    /// A full target may have files that are gone here: their removal waits in the queue.
    /// The first ones need not do, and stay in the queue until their turn comes: then the next ones.
    ///
    /// Once a person is to be asked about what is queued nothing is emptied before they say so: what is not
    /// meant can be copied back from there.
    fn relieve(&mut self, from: Sequence) {
        if self.guard.asks().is_some() {
            return;
        }
        let from = from.max(self.acknowledged.next());
        let packets = self.relief_reader.get_or_insert_with(|| Reader::of(&self.queue));
        let (mut objects, mut upto) = relief::look(packets, from.max(self.relief_told.next()), &self.guard);
        if objects.is_empty() && self.relief_told >= from && !packets.awaits_more() {
            (objects, upto) = relief::look(packets, from, &self.guard);
        }
        if self.guard.asks().is_some() {
            return self.ask_about_deletes();
        }
        self.relief_told = upto;
        for objects in objects.chunks(RELIEF_OBJECTS_MAX) {
            self.send(SourceMessage::Relief { objects: objects.to_vec() });
        }
    }
}
