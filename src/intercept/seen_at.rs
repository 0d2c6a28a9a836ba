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
    /// Of a directory, as of this tree generation: what the rules of the set say of it.
    pub rules: Option<(u64, Option<Arc<DirRules>>)>,
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
