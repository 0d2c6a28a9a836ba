//! What is told of a change where the set has rules: it as it is, in parts, or nothing.
//!
//! | before | after | told |
//! |---|---|---|
//! | in the set | in the set | the op; of a directory below which other names belong to the set than before: it goes and comes |
//! | in | out | the name goes; a directory with all below it |
//! | out | in | the name comes: of an object that was staged (`Volume::stage`), or the replica is bad, and a copy brings it |
//! | out | out | the time of directories that are in the set |
//!
//! A file with several names is in the set with one of them. Where nobody can tell, a change of it goes to
//! whoever knows it ([`ToWhom`]).

use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;

use super::super::members::Member;
use super::super::objects::Node;
use super::Change;
use crate::packet::{Birth, Entry, LINKS_UNKNOWN, ObjectId, Op, Replaced, Timestamp, ToWhom};
use crate::queue::Draft;
use crate::sets::{DirRules, Matcher};

fn links_told(links: u32) -> u32 {
    if links == 0 { 0 } else { LINKS_UNKNOWN }
}

/// A name that moves, with what it holds.
#[derive(Clone, Copy)]
struct Moves<'a> {
    object: ObjectId,
    from: &'a Entry,
    to: &'a Entry,
    is_directory: bool,
    was_in: bool,
    is_in: bool,
    /// Other names below it belong to the set than before.
    is_other_below: bool,
}

impl Moves<'_> {
    fn stays(&self) -> bool {
        self.was_in && self.is_in && !self.is_other_below
    }

    fn goes(&self) -> bool {
        self.was_in && !self.stays()
    }

    fn comes(&self) -> bool {
        self.is_in && !self.stays()
    }
}

impl Change<'_> {
    pub(super) fn tell_members(&mut self, matcher: &Matcher, op: &Op, payload: Bytes) {
        match op {
            Op::Create { at, dir_mtime, birth, .. } => {
                self.tell_of_name(matcher, op, (at, *dir_mtime), *birth == Birth::Directory);
            }
            Op::Link { at, dir_mtime, object, .. } => {
                self.tell_of_name(matcher, op, (at, *dir_mtime), false);
                if self.has(matcher, at, false) {
                    self.is_staged(*object);
                }
            }
            Op::Unlink { at, dir_mtime, object, links } => {
                let (at, dir_mtime, object) = (at.clone(), *dir_mtime, *object);
                self.name_is_gone(&at, object, *links);
                let op = Op::Unlink { at: at.clone(), dir_mtime, object, links: links_told(*links) };
                self.tell_of_name(matcher, &op, (&at, dir_mtime), false);
            }
            Op::RemoveDirectory { at, dir_mtime, .. } => {
                self.tell_of_name(matcher, op, (at, *dir_mtime), true);
            }
            Op::Rename { .. } => self.tell_rename(matcher, op),
            Op::Exchange { .. } => self.tell_exchange(matcher, op),
            Op::Write { object, .. }
            | Op::Resize { object, .. }
            | Op::Reserve { object, .. }
            | Op::SetAttributes { object, .. }
            | Op::SetXattr { object, .. }
            | Op::RemoveXattr { object, .. } => match self.member(matcher, *object) {
                Member::In => self.queue(op, payload, ToWhom::AllOf),
                Member::Unknown => self.queue(op, payload, ToWhom::WhoKnows),
                Member::Out => {}
            },
            Op::Barrier { .. }
            | Op::Stage { .. }
            | Op::Place { .. }
            | Op::Leave { .. }
            | Op::Unstage { .. }
            | Op::Keep { .. } => {
                self.queue(op, payload, ToWhom::AllOf);
            }
        }
    }

    /// Of a set without rules.
    pub(super) fn tell_all(&mut self, op: &Op, payload: Bytes) {
        match op {
            Op::Unlink { at, object, links, .. } => self.name_is_gone(at, *object, *links),
            Op::Rename { to, replaced: Some(Replaced { object, links }), .. } => {
                self.name_is_gone(to, *object, *links);
            }
            _ => {}
        }
        self.queue(op, payload, self.to_whom(op));
    }

    /// A file that is open and has lost its name may have others outside of the directory alone: a copy does not come
    /// upon it, so that a target need not have it.
    fn to_whom(&self, op: &Op) -> ToWhom {
        let (Op::Write { object, .. }
        | Op::Resize { object, .. }
        | Op::Reserve { object, .. }
        | Op::SetAttributes { object, .. }
        | Op::SetXattr { object, .. }
        | Op::RemoveXattr { object, .. }) = op
        else {
            return ToWhom::AllOf;
        };
        let node = self.objects.node(*object).filter(|node| !node.is_directory());
        match node.is_some_and(|node| node.place.lock().parent.is_none()) {
            true => ToWhom::WhoKnows,
            false => ToWhom::AllOf,
        }
    }

    pub(super) fn queue(&mut self, op: &Op, payload: Bytes, to_whom: ToWhom) {
        let kept = self.volume.kept(op);
        let draft = Draft::to(&self.path(), kept.as_ref().unwrap_or(op), payload, to_whom);
        self.volume.changes.queue.append(&mut self.room, draft);
    }

    fn tell_of_name(&mut self, matcher: &Matcher, op: &Op, at: (&Entry, Timestamp), is_directory: bool) {
        match self.has(matcher, at.0, is_directory) {
            true => self.queue(op, Bytes::new(), ToWhom::AllOf),
            false => self.tell_time(matcher, at.0.dir, at.1),
        }
    }

    /// A change of a name that is out has changed the time of a directory that is in.
    fn tell_time(&mut self, matcher: &Matcher, dir: ObjectId, mtime: Timestamp) {
        let is_in = self.touched_dir(dir).is_none_or(|dir| self.volume.has_directory(matcher, dir));
        if is_in {
            let op = Op::SetAttributes { object: dir, mode: None, owner: None, mtime: Some(mtime) };
            self.queue(&op, Bytes::new(), ToWhom::AllOf);
        }
    }

    fn touched_dir(&self, dir: ObjectId) -> Option<&Node> {
        self.touched.names.iter().map(|(node, _)| &***node).find(|node| node.object == dir)
    }

    fn has(&self, matcher: &Matcher, at: &Entry, is_directory: bool) -> bool {
        let dir = self.touched_dir(at.dir);
        dir.is_none_or(|dir| self.volume.has_name(matcher, dir, at.name.as_bytes(), is_directory))
    }

    fn member(&self, matcher: &Matcher, object: ObjectId) -> Member {
        let node = self.objects.node(object).or_else(|| self.touched_dir(object));
        node.map_or(Member::Unknown, |node| self.volume.member(matcher, node))
    }

    fn tell_rename(&mut self, matcher: &Matcher, op: &Op) {
        let Op::Rename { from, from_mtime, to, to_mtime, object, replaced, whiteout, .. } = op else {
            return;
        };
        let moves = self.moves(matcher, *object, from, to);
        if let Some(Replaced { object, links }) = replaced {
            self.name_is_gone(to, *object, *links);
        }
        let replaced =
            replaced.map(|Replaced { object, links }| Replaced { object, links: links_told(links) });
        let whiteout = whiteout.as_ref().filter(|_| self.has(matcher, from, false));
        if moves.stays() {
            let mut op = op.clone();
            if let Op::Rename { whiteout: told, replaced: taken, .. } = &mut op {
                (*told, *taken) = (whiteout.cloned(), replaced);
            }
            self.queue(&op, Bytes::new(), ToWhom::AllOf);
        } else {
            self.tell_gone(moves, *from_mtime);
            self.tell_time(matcher, from.dir, *from_mtime);
            self.tell_come(moves, *to_mtime, replaced);
            self.tell_time(matcher, to.dir, *to_mtime);
            if let Some(whiteout) = whiteout {
                let op = Op::Create {
                    at: from.clone(),
                    dir_mtime: *from_mtime,
                    object: whiteout.object,
                    birth: Birth::CharDevice { major: 0, minor: 0 },
                    attributes: whiteout.attributes,
                    xattrs: Vec::new(),
                };
                self.queue(&op, Bytes::new(), ToWhom::AllOf);
            }
        }
    }

    fn tell_exchange(&mut self, matcher: &Matcher, op: &Op) {
        let Op::Exchange {
            left,
            left_mtime,
            left_object,
            left_object_mtime,
            right,
            right_mtime,
            right_object,
            right_object_mtime,
        } = op
        else {
            return;
        };
        let one = self.moves(matcher, *left_object, left, right);
        let other = self.moves(matcher, *right_object, right, left);
        if one.stays() && other.stays() {
            self.queue(op, Bytes::new(), ToWhom::AllOf);
            return;
        }
        self.tell_gone(one, *left_mtime);
        self.tell_gone(other, *right_mtime);
        for (moves, from_mtime, to_mtime, object_mtime) in [
            (one, *left_mtime, *right_mtime, *left_object_mtime),
            (other, *right_mtime, *left_mtime, *right_object_mtime),
        ] {
            if moves.stays() {
                let op = Op::Rename {
                    from: moves.from.clone(),
                    from_mtime,
                    to: moves.to.clone(),
                    to_mtime,
                    object: moves.object,
                    object_mtime,
                    replaced: None,
                    whiteout: None,
                };
                self.queue(&op, Bytes::new(), ToWhom::AllOf);
            }
        }
        self.tell_come(one, *right_mtime, None);
        self.tell_come(other, *left_mtime, None);
        self.tell_time(matcher, left.dir, *left_mtime);
        self.tell_time(matcher, right.dir, *right_mtime);
    }

    fn moves<'a>(&self, matcher: &Matcher, object: ObjectId, from: &'a Entry, to: &'a Entry) -> Moves<'a> {
        let is_directory = self.objects.node(object).is_some_and(Node::is_directory);
        let (was_in, is_in) = (self.has(matcher, from, is_directory), self.has(matcher, to, is_directory));
        let is_other_below = is_directory
            && was_in
            && is_in
            && self.rules_below(matcher, from) != self.rules_below(matcher, to);
        Moves { object, from, to, is_directory, was_in, is_in, is_other_below }
    }

    fn tell_gone(&mut self, moves: Moves<'_>, dir_mtime: Timestamp) {
        if !moves.goes() {
            return;
        }
        let (at, object) = (moves.from.clone(), moves.object);
        let op = match moves.is_directory {
            true => Op::Leave { at, dir_mtime, object },
            false => {
                let links = self.objects.node(object).map(|node| self.volume.links(node));
                let is_only = matches!(links, Some(Ok(1)));
                if is_only {
                    // Targets forget it, also where somebody else is about to give it a name.
                    self.is_staged(object);
                }
                Op::Unlink { at, dir_mtime, object, links: if is_only { 0 } else { LINKS_UNKNOWN } }
            }
        };
        self.queue(&op, Bytes::new(), ToWhom::AllOf);
    }

    fn tell_come(&mut self, moves: Moves<'_>, dir_mtime: Timestamp, replaced: Option<Replaced>) {
        if !moves.comes() {
            return;
        }
        let (object, at) = (moves.object, moves.to.clone());
        let op = Op::Place { object, at, dir_mtime, replaced };
        if self.is_staged(object) {
            self.queue(&op, Bytes::new(), ToWhom::AllOf);
            return;
        }
        let volume = self.volume;
        let name = moves.to.name.as_os_str().to_string_lossy().into_owned();
        volume.divergence().arrives(&name, || {
            self.queue(&op, Bytes::new(), ToWhom::AllOf);
            self.told()
        });
    }

    fn rules_below(&self, matcher: &Matcher, at: &Entry) -> Option<DirRules> {
        let dir = self.volume.dir_rules(matcher, self.touched_dir(at.dir)?)?;
        matcher.enter(dir.as_deref()?, at.name.as_bytes())
    }

    /// Whether it was told beforehand; from now on its name says where it belongs.
    fn is_staged(&self, object: ObjectId) -> bool {
        self.objects.node(object).is_some_and(|node| node.is_staged.swap(false, Relaxed))
    }

    /// By a name that is gone nobody can tell whether an object belongs to the set.
    fn name_is_gone(&self, at: &Entry, object: ObjectId, links: u32) {
        let Some(node) = self.objects.node(object) else { return };
        if links == 0 {
            node.is_staged.store(false, Relaxed);
        } else if let Some(dir) = self.touched_dir(at.dir) {
            node.forget_place(dir.id, at.name.as_bytes());
        }
    }
}
