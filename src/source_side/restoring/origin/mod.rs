//! Where a restoration comes from: a replica on this host, or one that a target shows.

mod local;
mod remote;

use self::local::Local;
use self::remote::Remote;
use super::{RestoreOptions, UNTOUCHED};
use crate::failure::Failure;
use crate::link::{FrameReceiver, TargetEvent};
use crate::packet::{OfCopy, Position, SetId};
use crate::words::Target;

/// See the module. Its replica is at rest, and nobody else has it, as long as this lives.
pub enum Origin {
    Local(Box<Local>),
    Remote(Box<Remote>),
}

impl Origin {
    /// Errors: nothing is given, and why.
    pub fn reach(options: &RestoreOptions) -> Result<Origin, Failure> {
        match &options.from {
            Target::Local(path) => Local::open(path, options).map(Box::new).map(Origin::Local),
            Target::Remote { repset, .. } => Remote::reach(repset, options).map(Box::new).map(Origin::Remote),
            Target::Null => Err(Failure::new("null: holds nothing.", UNTOUCHED, "Name a replica.")),
        }
    }

    /// Whose replica it is.
    pub fn set(&self) -> SetId {
        match self {
            Origin::Local(local) => local.set,
            Origin::Remote(remote) => remote.set,
        }
    }

    /// The packets up to here are in it; `None` where nobody can say.
    pub fn applied(&self) -> Option<Position> {
        match self {
            Origin::Local(local) => local.applied,
            Origin::Remote(remote) => Some(remote.applied),
        }
    }

    /// What it cannot have had beside plain data, in words.
    pub fn allowed(&self) -> String {
        match self {
            Origin::Local(_) => String::new(),
            Origin::Remote(remote) => remote.allowed.clone(),
        }
    }

    pub fn frames(&self) -> FrameReceiver {
        match self {
            Origin::Local(local) => local.frames(),
            Origin::Remote(remote) => remote.frames(),
        }
    }

    pub fn say(&self, said: OfCopy) {
        match self {
            Origin::Local(local) => local.say(said),
            Origin::Remote(remote) => remote.say(said),
        }
    }

    /// That the other side is gone, once.
    pub fn next_event(&self) -> Option<TargetEvent> {
        match self {
            Origin::Local(local) => local.next_event(),
            Origin::Remote(remote) => remote.next_event(),
        }
    }

    /// Lets go of it.
    pub fn close(self) {
        match self {
            Origin::Local(local) => local.close(),
            Origin::Remote(remote) => remote.close(),
        }
    }
}
