//! Where an object was last seen.

use std::sync::Arc;

use super::objects::{Node, NodeId};
use crate::sets::DirRules;

/// Last known name, for the path that travels with packets.
#[derive(Default)]
pub struct Place {
    pub parent: Option<NodeId>,
    pub name: Box<[u8]>,
    /// Path as of this tree generation.
    pub path: Option<(u64, Arc<[u8]>)>,
    /// Of a directory: what the rules of the set say of it.
    pub rules: Option<(RulesAsOf, Option<Arc<DirRules>>)>,
}

/// What rules were read by, and of which tree: by others they mean nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RulesAsOf {
    pub tree_generation: u64,
    /// Address of the matcher, which whoever asks holds.
    pub matcher: usize,
}

impl Node {
    pub fn set_place(&self, parent: NodeId, name: &[u8]) {
        let mut place = self.place.lock();
        if place.parent != Some(parent) || *place.name != *name {
            *place = Place { parent: Some(parent), name: name.into(), path: None, rules: None };
        }
    }

    /// It may still have other names.
    pub fn forget_place(&self, parent: NodeId, name: &[u8]) {
        let mut place = self.place.lock();
        if place.parent == Some(parent) && *place.name == *name {
            *place = Place::default();
        }
    }
}
