//! What is owed, and not in the set any more.

use std::os::fd::AsFd;

use super::super::super::CopyError;
use super::super::super::sink::{Entry, StampedSink};
use super::super::LiveCopy;
use super::super::files::Place;
use crate::packet::LaneItem;

impl<S: StampedSink> LiveCopy<S> {
    /// Whether the rules leave out an object where it is now, as far as that is known: by its only name.
    pub(super) fn is_out(&self, place: &Place) -> bool {
        let Some(matcher) = &self.preamble.rules else { return false };
        if place.listed.file_type == libc::S_IFDIR {
            let dir = self.eyes.open_directory(&place.listed.handle).ok();
            let path = dir.and_then(|dir| self.eyes.path_of(dir.as_fd()));
            return path.is_some_and(|path| matcher.directory(&path).is_none());
        }
        self.eyes.only_name_of(&place.listed.handle).is_some_and(|path| {
            let at = path.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
            let (dir, name) = path.split_at(at);
            matcher.directory(dir).is_none_or(|rules| !matcher.has_file(&rules, name))
        })
    }

    /// Its content is none of the target's any more: the listing of its directory takes its name.
    pub(super) fn say_left(&mut self, place: &Place) -> Result<(), CopyError> {
        let slot = self.sink.reserve()?;
        let mut batch = vec![Entry::of(LaneItem::Leave { object: place.listed.object })];
        // Where it was refused the target hears of it in a moment.
        let _ = self.sink.push(slot, &mut batch, || true);
        Ok(())
    }
}
