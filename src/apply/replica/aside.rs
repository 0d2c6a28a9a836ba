//! Objects that a replica lacks although its stream goes on: they were set aside.
//!
//! A fault of one object that does not go away must not hold up all others. The replica is marked
//! bad, durably, before the next packet passes; the object is listed with its reason; what could not
//! be done to its content is remembered, so that the next copy never takes its size and time for a
//! proof. Only the end of a copy takes an object from the list.

use std::collections::HashSet;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::incomplete;
use super::{Replica, path_of, remove_quietly};
use crate::apply::fault::{Concern, Fault};
use crate::limits::ASIDE_LISTED_MAX;
use crate::packet::{BadBy, DataState, ObjectId, printable};
use crate::store::{read_json, replace_json};

/// An object that was set aside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetAside {
    pub object: ObjectId,
    /// Where the source has it, as far as is known.
    pub path: String,
    /// What could not be done.
    pub op: String,
    pub reason: String,
    /// Milliseconds since 1970.
    pub since_ms: u64,
}

/// What of it others may see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AsideView {
    /// Objects that were set aside; after a restart those that are listed.
    pub total: u64,
    /// The first of them.
    pub listed: Arc<Vec<SetAside>>,
}

/// See the module.
pub(super) struct Aside {
    path: PathBuf,
    /// On disk, in the replica's state directory.
    listed: Arc<Vec<SetAside>>,
    /// Beyond those that are listed.
    more: u64,
    /// Files whose content is remembered as incomplete already.
    lost: HashSet<ObjectId>,
    /// What has not got its time since the last copy began; at most [`ASIDE_LISTED_MAX`].
    untimed: HashSet<ObjectId>,
}

impl Aside {
    /// `data`: of the replica. What is listed for a good one is over.
    pub(super) fn open(path: PathBuf, data: DataState) -> Aside {
        let listed = match data {
            DataState::Bad => read_json(&path).unwrap_or_else(|error| {
                log::warn!("{}: {error}; the replica stays bad, without the names", path.display());
                None
            }),
            DataState::Good | DataState::Empty => None,
        };
        let listed: Vec<SetAside> = listed.unwrap_or_default();
        Aside { path, listed: Arc::new(listed), more: 0, lost: HashSet::new(), untimed: HashSet::new() }
    }

    fn view(&self) -> AsideView {
        AsideView { total: self.listed.len() as u64 + self.more, listed: self.listed.clone() }
    }

    fn contains(&self, object: ObjectId) -> bool {
        self.listed.iter().any(|aside| aside.object == object)
    }

    fn is_full(&self) -> bool {
        self.listed.len() >= ASIDE_LISTED_MAX
    }

    /// Persist, then publish.
    fn add(&mut self, aside: SetAside) -> io::Result<()> {
        if self.is_full() {
            self.more += 1;
            return Ok(());
        }
        let mut listed = Vec::clone(&self.listed);
        listed.push(aside);
        replace_json(&self.path, &listed)?;
        self.listed = Arc::new(listed);
        Ok(())
    }

    fn clear(&mut self) {
        (self.listed, self.more) = (Arc::default(), 0);
        self.lost.clear();
        self.untimed.clear();
        remove_quietly(&self.path);
    }
}

impl Replica {
    /// Objects that were set aside.
    pub fn aside(&self) -> AsideView {
        self.aside.view()
    }

    /// One of these objects was set aside.
    pub(in crate::apply) fn is_any_aside(&self, objects: &[ObjectId]) -> bool {
        objects.iter().any(|&object| self.aside.contains(object))
    }

    /// A fault of an object that is aside already; or of one more where so many are that no list has
    /// them: it is counted, and nobody would know it again.
    pub(super) fn goes_aside_with_others(&mut self, object: ObjectId, fault: &Fault) -> bool {
        if self.aside.contains(object) {
            return true;
        }
        let goes = self.aside.is_full() && matches!(self.concern(fault), Concern::Object(_));
        self.aside.more += u64::from(goes);
        goes
    }

    /// An object stays without its time. Beyond so many nobody knows which.
    pub(super) fn goes_without_its_time(&mut self, object: ObjectId) {
        if self.aside.untimed.len() < ASIDE_LISTED_MAX {
            self.aside.untimed.insert(object);
        }
    }

    /// An object has its time after all.
    pub(super) fn has_its_time(&mut self, object: ObjectId) {
        self.aside.untimed.remove(&object);
    }

    /// A copy begins: it shows every time again.
    pub(in crate::apply) fn times_are_shown_again(&mut self) {
        self.aside.untimed.clear();
    }

    /// Objects that were shown a time by this copy and have not got it.
    pub(in crate::apply) fn untimed(&self) -> impl Iterator<Item = ObjectId> {
        self.aside.untimed.iter().copied()
    }

    /// Sets an object aside: the replica is bad, durably, when this returns.
    ///
    /// Errors: it could not be noted; nothing may pass.
    pub(in crate::apply) fn set_aside(
        &mut self,
        object: ObjectId,
        op: &'static str,
        fault: &Fault,
    ) -> Result<(), Fault> {
        let path = match self.hint.as_slice() {
            b"" => self.place_of(object).unwrap_or_else(|| format!("object {object}")),
            path => printable(path),
        };
        let reason = fault.to_string();
        self.mark_bad_by(&format!("objects are set aside, first {path}: {reason}"), BadBy::Aside)?;
        let data = self.progress.data().state;
        assert_eq!(data, DataState::Bad, "an object is set aside of a replica that is called good");
        if self.aside.contains(object) {
            return Ok(());
        }
        log::error!("{path} is set aside ({op}): {reason}; everything else goes on");
        let entry = SetAside { object, path, op: op.to_owned(), reason, since_ms: now_ms() };
        self.aside.add(entry).map_err(Fault::own("list of objects that are set aside"))
    }

    /// Where an object lies in the replica, for people.
    fn place_of(&mut self, object: ObjectId) -> Option<String> {
        let file = self.object(object).ok()?;
        let place = path_of(file.as_fd()).ok()?;
        let root = path_of(self.root.as_fd()).ok()?;
        Some(printable(place.strip_prefix(root).ok()?.as_os_str().as_bytes()))
    }

    /// The content of a file is not what the source has: the next copy copies it, whatever its size
    /// and time say.
    pub(in crate::apply) fn content_is_lost(&mut self, object: ObjectId) -> Result<(), Fault> {
        if self.aside.lost.contains(&object) || self.handle(object)?.is_none() {
            return Ok(());
        }
        incomplete::remember(self.state(), &[object])?;
        if self.aside.lost.len() < ASIDE_LISTED_MAX {
            self.aside.lost.insert(object);
        }
        Ok(())
    }

    /// The end of a copy: nothing is aside any more.
    pub(super) fn nothing_is_aside(&mut self) {
        self.aside.clear();
    }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
