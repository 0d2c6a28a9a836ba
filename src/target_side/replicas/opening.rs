//! A replica is opened: made where there was none, refused where it is missing or another source's.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::{Held, Open, STANDS_IN, Store, is_wanted};
use crate::apply::{Applier, OpenError, Places, Replica};
use crate::packet::SetId;
use crate::store;
use crate::target_side::seat::View;
use crate::target_side::uncovering::covered;

/// The document that says whose a replica is.
#[derive(Serialize, Deserialize)]
pub(super) struct Owner {
    pub(super) set: SetId,
}

impl Store {
    /// Opens a replica that is not open yet; nobody who only looks waits meanwhile.
    pub(super) fn have_open(&self, name: &str, set: SetId) -> Result<(), String> {
        let _turn = self.opening.lock();
        self.forget_moved(name)?;
        match self.held.lock().get(name) {
            Some(Held::Open(_)) => return Ok(()),
            Some(Held::Closed { .. }) | None => {}
        }
        let opened = self.open_replica(name, set);
        self.keep(name, set, opened)
    }

    /// What could not be opened stays as it is known, with the reason.
    fn keep(&self, name: &str, set: SetId, opened: Result<Open, String>) -> Result<(), String> {
        let mut held = self.held.lock();
        match opened {
            Ok(open) => {
                let before = held.insert(name.to_owned(), Held::Open(open));
                assert!(!matches!(before, Some(Held::Open(_))), "the replica {name} is opened twice");
                Ok(())
            }
            Err(why) => {
                if let Some(Held::Closed { set: own, problem }) = held.get_mut(name)
                    && *own == set
                {
                    problem.clone_from(&why);
                }
                Err(why)
            }
        }
    }

    /// A replica that is not where it was opened is opened anew, or found missing.
    fn forget_moved(&self, name: &str) -> Result<(), String> {
        let mut held = self.held.lock();
        let Some(Held::Open(open)) = held.get(name) else { return Ok(()) };
        match &open.live {
            _ if open.is_in_place() => {}
            Some(live) => {
                live.end(MOVED);
                return Err(MOVED.to_owned());
            }
            None => {
                let closed = Held::Closed { set: open.set, problem: MOVED.to_owned() };
                drop(held.insert(name.to_owned(), closed));
            }
        }
        Ok(())
    }

    /// Errors: one line for both sides.
    pub(super) fn open_replica(&self, name: &str, set: SetId) -> Result<Open, String> {
        let (root, state) = (self.directory(name), self.options.own_state().join(name));
        if is_wanted(&state) {
            return Err(STANDS_IN.to_owned());
        }
        let shown = root.display();
        let failed = |what: &str, error: &io::Error| format!("the replica {shown} {what}: {error}");
        let owner_path = state.join("set.json");
        let owner: Option<Owner> =
            store::read_json(&owner_path).map_err(|error| failed("has no readable owner", &error))?;
        match &owner {
            Some(owner) if owner.set != set => return Err(self.other_set(name, owner.set, set)),
            Some(_) if !root.exists() && !self.options.adopt => return Err(missing(&root)),
            Some(_) | None => {}
        }
        if let Err(error) = fs::create_dir(&root)
            && error.kind() != io::ErrorKind::AlreadyExists
        {
            return Err(failed("cannot be made", &error));
        }
        if let Some(why) = covered(&self.options.state, &root) {
            return Err(why);
        }
        let places = Places::beside(&root, &state);
        let replica = match self.options.adopt {
            true => Replica::open_or_adopt(&places, set),
            false => Replica::open(&places, set),
        };
        let replica = replica.map_err(|error| self.refused(name, set, &error))?;
        if owner.is_none() {
            store::replace_json(&owner_path, &Owner { set })
                .map_err(|error| failed("cannot be given an owner", &error))?;
        }
        let applier = Applier::at_rest(replica.allow(self.options.allow));
        let view = Arc::new(Mutex::new(View::of(&applier)));
        let clones = applier.clones();
        clones.keep_good(self.options.keep_good);
        clones.lost_writes_may_take(self.options.lost_writes);
        Ok(Open { set, applier: Arc::new(Mutex::new(applier)), clones, view, live: None })
    }

    fn refused(&self, name: &str, set: SetId, error: &OpenError) -> String {
        let shown = self.directory(name);
        let shown = shown.display();
        match error {
            OpenError::OtherSet { found } => self.other_set(name, *found, set),
            OpenError::Missing => missing(&self.directory(name)),
            OpenError::NotEmptyWithoutIdentity => format!(
                "{shown} on the target cannot be the replica: {error}; start `standin serve` with --adopt to \
                 take it over"
            ),
            _ => format!("{shown} on the target cannot be the replica: {error}"),
        }
    }

    pub(super) fn other_set(&self, name: &str, found: SetId, asked: SetId) -> String {
        format!(
            "'{name}' on this target is the replica of another source's set ({found}), not of this one \
             ({asked}): choose another name, or, where this directory was restored from a copy of that one, \
             start `standin protect` with --adopt-source"
        )
    }
}

const MOVED: &str = "the directory of the replica is not where it was: it is opened anew";

/// A replica that is known, and not there.
pub(super) fn missing(root: &Path) -> String {
    format!(
        "the replica {} on the target is not there any more: mount its file system there, or, if it was removed \
         on purpose, start `standin serve` with --adopt",
        root.display()
    )
}
