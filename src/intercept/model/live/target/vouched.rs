//! A target that vouches for what it has: only what is owed is shown to it.

use super::*;

impl Target {
    /// It has all that packets have told so far.
    pub fn is_up_to_date(&mut self) {
        self.is_good = true;
    }

    /// Only what is owed makes it good.
    pub fn lacks_what_is_owed(&self) -> bool {
        self.is_good || self.is_bad_by_owed
    }

    pub(super) fn begin_owed(&mut self) {
        assert!(self.lacks_what_is_owed(), "what is owed does not do");
        self.begin();
        (self.vouches, self.is_bad_by_owed) = (true, true);
    }

    /// Listed, made by a packet, or vouched for.
    pub(super) fn is_seen(&self, id: ObjectId) -> bool {
        self.seen.contains(&id) || self.vouches && self.index.contains_key(&id)
    }

    pub(super) fn is_listed(&self, id: ObjectId) -> bool {
        self.listed.contains(&id) || self.vouches && !self.unlisted.contains(&id)
    }

    /// The source shows an object for the first time.
    pub(super) fn shows(&mut self, id: ObjectId, is_new: bool) {
        if self.vouches && is_new {
            self.unlisted.insert(id);
        }
    }

    pub(super) fn call(&mut self, number: ItemNumber, objects: &[ObjectId]) {
        let here: Vec<ObjectId> = objects.iter().copied().filter(|id| self.index.contains_key(id)).collect();
        for &id in &here {
            self.incomplete.insert(id);
            self.asked.insert(id);
            self.called.insert(id);
        }
        self.says.push(Answer::Wanted(Wanted { listing: number, objects: here }));
    }

    pub(super) fn open_blocks(&mut self, object: ObjectId) {
        let is_due = self.asked.contains(&object) && self.called.contains(&object);
        let inode = self.alive(object).filter(|_| is_due);
        self.open = inode.map(|inode| Open { object, inode, reached: None });
    }

    pub(super) fn dress(&mut self, item: &LaneItem, payload: &Bytes) {
        match item {
            LaneItem::Xattrs { object, names, .. } => {
                let Some(thing) = self.seen(*object) else { return };
                thing.xattrs.retain(|name, _| names.iter().any(|kept| kept.0 == *name));
            }
            LaneItem::Xattr { object, name } => {
                let Some(thing) = self.seen(*object) else { return };
                thing.xattrs.insert(name.0.clone(), payload.to_vec());
            }
            LaneItem::Attributes { object, attributes } => {
                let Some(thing) = self.seen(*object) else { return };
                thing.attributes = *attributes;
            }
            _ => {}
        }
    }
}
