//! A target whose disk is full: what is emptied there to make room, and when.

use super::super::surroundings::Surroundings;
use super::Driver;
use crate::clock;
use crate::limits::{RELIEF_AFTER, RELIEF_OBJECTS_MAX};
use crate::packet::{Sequence, SourceMessage};
use crate::queue::Reader;
use crate::source_side::relief;

impl<S: Surroundings> Driver<S> {
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
