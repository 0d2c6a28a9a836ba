//! Imitates the walk of a copy: the lane items that make a target equal to a quiet tree, through
//! the product's lane, with the target's answers as the driver hands them on.

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use crossbeam_channel::{Sender, TryRecvError};

use super::model::{ROOT, Tree, object};
use crate::limits::LISTINGS_IN_FLIGHT;
use crate::packet::*;
use crate::random::Random;
use crate::resync::{CopyError, CopyReport, Gone, ItemSink};
use crate::source_side::{WalkOrder, Walked};

pub struct Walker {
    tree: Tree,
    order: WalkOrder,
    outcome: Sender<Walked>,
    items: VecDeque<(LaneItem, Bytes)>,
    /// Listings that the target has not answered.
    open: BTreeSet<ItemNumber>,
    asked: BTreeSet<u64>,
    /// It has come to its end, and nobody knows yet.
    report: Option<CopyReport>,
}

impl Walker {
    pub fn new(tree: Tree, order: WalkOrder, outcome: Sender<Walked>) -> Walker {
        let root = &tree.nodes[&ROOT];
        let xattrs = Vec::new();
        let root = LaneItem::Root { object: object(ROOT), attributes: root.attributes, xattrs };
        let mut items = VecDeque::from([(LaneItem::Begin, Bytes::new()), (root, Bytes::new())]);
        let mut dirs = VecDeque::from([ROOT]);
        while let Some(dir) = dirs.pop_front() {
            items.push_back((listing(&tree, dir), Bytes::new()));
            let inner = tree.nodes[&dir].entries.values().copied();
            dirs.extend(inner.filter(|inode| tree.nodes[inode].birth == Birth::Directory));
        }
        let (open, asked) = (BTreeSet::new(), BTreeSet::new());
        Walker { tree, order, outcome, items, open, asked, report: None }
    }

    /// Goes on for as long as it need not wait; answers whether it is over. Its end goes out before
    /// anybody knows of it.
    pub fn turn(&mut self, random: &mut Random) -> bool {
        let walked = match self.report {
            Some(report) if random.one_in(6) => Ok(report),
            Some(_) => return false,
            None => match self.walk() {
                Ok(()) => return false,
                Err(error) => Err(error),
            },
        };
        let _ = self.outcome.send(walked);
        true
    }

    fn walk(&mut self) -> Result<(), CopyError> {
        self.take_answers()?;
        while self.order.sink.has_room() {
            let all_answered = self.open.is_empty();
            match self.items.front() {
                None if all_answered => {
                    let end = self.send(LaneItem::End, Bytes::new())?;
                    self.report = Some(CopyReport { end: Some(end), ..CopyReport::default() });
                    return Ok(());
                }
                None => return Ok(()),
                Some((LaneItem::Listing { .. }, _)) if self.open.len() == LISTINGS_IN_FLIGHT => return Ok(()),
                Some(_) => {}
            }
            if let Some((item, payload)) = self.items.pop_front() {
                let is_listing = matches!(item, LaneItem::Listing { .. });
                let number = self.send(item, payload)?;
                if is_listing {
                    self.open.insert(number);
                }
            }
        }
        Ok(())
    }

    fn send(&mut self, item: LaneItem, payload: Bytes) -> Result<ItemNumber, CopyError> {
        self.order.sink.send(item, payload).map_err(|Gone| CopyError::Gone)
    }

    fn take_answers(&mut self) -> Result<(), CopyError> {
        loop {
            let wanted = match self.order.answers.try_recv() {
                Ok(wanted) => wanted,
                Err(TryRecvError::Empty) => return Ok(()),
                Err(TryRecvError::Disconnected) => return Err(CopyError::Gone),
            };
            if !self.open.remove(&wanted.listing) {
                return Err(CopyError::Answer("it answers what was not listed".into()));
            }
            for id in wanted.objects {
                if self.asked.insert(id.inode) {
                    self.send_content(id);
                }
            }
        }
    }

    fn send_content(&mut self, id: ObjectId) {
        let node = self.tree.nodes[&id.inode].clone();
        self.items.push_back((LaneItem::OpenContent { object: id }, Bytes::new()));
        if !node.content.is_empty() {
            let content = Bytes::from(node.content.clone());
            self.items.push_back((LaneItem::Content { object: id, hole: 0, offset: 0 }, content));
        }
        let size = node.content.len() as u64;
        let xattrs = xattrs_of(&self.tree, id.inode);
        let close = LaneItem::CloseContent { object: id, hole: 0, size, attributes: node.attributes, xattrs };
        self.items.push_back((close, Bytes::new()));
    }
}

fn listing(tree: &Tree, dir: u64) -> LaneItem {
    let node = &tree.nodes[&dir];
    let entries = node.entries.iter().map(|(name, inode)| {
        let held = &tree.nodes[inode];
        ListedObject {
            name: name.clone(),
            object: object(*inode),
            birth: held.birth.clone(),
            attributes: held.attributes,
            xattrs: xattrs_of(tree, *inode),
            large_xattrs: false,
            size: held.content.len() as u64,
            links: held.links,
            suspect: true,
        }
    });
    let (dir_mtime, entries) = (node.attributes.mtime, entries.collect());
    LaneItem::Listing { dir: object(dir), dir_mtime, entries, unlisted: None, first: true, last: true }
}

fn xattrs_of(tree: &Tree, inode: u64) -> Vec<Xattr> {
    let xattrs = tree.nodes[&inode].xattrs.iter();
    xattrs.map(|(name, value)| Xattr { name: Bounded(name.clone()), value: Bounded(value.clone()) }).collect()
}
