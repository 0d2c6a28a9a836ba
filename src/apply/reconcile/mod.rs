//! The target's half of a resynchronisation: makes the replica equal to what lane items list.
//!
//! ```text
//!  Begin ──> Root ──> Listing* ────────────────> OpenContent Content* CloseContent ──> End
//!  bad       bind     each entry: keep, claim,   bytes, then attributes                limbo resolved,
//!                     adopt or make it;                                                times, durable,
//!                     answer what is wanted                                            good, answer
//! ```
//! An object is found by its id first, wherever it lies in the replica or in limbo, by its name
//! only then; two ids never share one inode ([`Claims`]). Nothing is deleted before the end: what
//! is in the way or was not listed goes to limbo ([`Limbo`]), from where later listings claim it.
//! A killed or interrupted copy leaves the replica marked bad, and another one goes on from there.
//!
//! What one object's fault prevents is left out, named and counted ([`left_out`]): the replica stays
//! bad for it and for nothing else. What the source cannot read stays here as it is.
//!
//! Every step can be repeated: after a [`Fault`] the same item may be handed in again.

mod asked;
mod claims;
mod content;
mod entry;
mod left_out;
mod names;
mod table;

use std::fs::File;
use std::os::fd::AsFd;
use std::sync::Arc;

use bytes::Bytes;

use self::asked::Asked;
use self::claims::Claims;
use self::content::{OpenFile, Unsettled};
use self::names::Names;
use super::fault::Fault;
use super::inode;
use super::replica::{Incomplete, Limbo, Replica, incomplete, read_directory};
use crate::limits::LISTING_ENTRIES_MAX;
use crate::packet::{
    Attributes, Birth, DataState, ItemHeader, LaneItem, LeftOut, ListedObject, Name, ObjectId, Position,
    Sequence, TargetMessage, Timestamp, Unlisted, Xattr,
};
use crate::sys::FileHandle;

/// Files of a session in the replica's state directory.
const CLAIMS: &str = "claims";
const ASKED: &str = "asked";
const NAMES: &str = "names";

/// What a file of the replica is worth that has the right name and is bound to no id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NameMatch {
    /// Its content is copied: neither name nor times prove what it is.
    #[default]
    Copy,
    /// Size and mtime decide, as for a file that is known by its id. For a directory that a person
    /// says is a copy.
    Compare,
}

/// See the module. It lives as long as the connection.
#[derive(Default)]
pub struct Reconcile {
    name_match: NameMatch,
    stage: Stage,
}

/// How far a resynchronisation has come.
#[derive(Default)]
enum Stage {
    /// None is under way.
    #[default]
    Resting,
    /// The replica is bad, and the root directory is awaited: nothing else has a place to go.
    Begun(Box<Opening>),
    /// It has its root directory, and everything else may come.
    Rooted(Box<Session>),
}

/// What a resynchronisation keeps track of from its beginning.
struct Opening {
    claims: Claims,
    limbo: Limbo,
    /// Root and limbo: directories that are no object of any directory.
    own: [FileHandle; 2],
    asked: Asked,
    incomplete: Incomplete,
}

/// A resynchronisation that has its root directory.
struct Session {
    name_match: NameMatch,
    claims: Claims,
    limbo: Limbo,
    /// [`Opening::own`].
    own: [FileHandle; 2],
    root: ObjectId,
    listing: Option<Listing>,
    asked: Asked,
    open: Option<OpenFile>,
    incomplete: Incomplete,
    unsettled: Unsettled,
    /// By either side.
    left_out: LeftOut,
    /// The object whose attributes come one by one has no ACL here, and the source has one.
    without_acl: Option<ObjectId>,
    /// All names of the replica were looked at, so that the kernel knows where objects are.
    has_searched: bool,
    /// The file whose content is not taken any more.
    leaves: Option<ObjectId>,
}

/// The directory whose chunks arrive.
struct Listing {
    dir: ObjectId,
    file: Arc<File>,
    names: Names,
    /// The source could not list it to its end: no name of it is an orphan.
    is_cut_off: bool,
}

impl Reconcile {
    /// Sets what counts for files that are known by their name only.
    pub fn with_name_match(name_match: NameMatch) -> Reconcile {
        Reconcile { name_match, stage: Stage::Resting }
    }

    /// Whether a resynchronisation has begun and not ended.
    pub fn is_running(&self) -> bool {
        match self.stage {
            Stage::Resting => false,
            Stage::Begun(_) | Stage::Rooted(_) => true,
        }
    }

    /// Performs one item, stamped "after `position`", and gives the answers to it.
    ///
    /// Errors: [`Fault`]; nothing is skipped, and the item may be handed in again.
    pub fn handle_item(
        &mut self,
        replica: &mut Replica,
        position: Position,
        item: &ItemHeader,
        payload: &Bytes,
    ) -> Result<Vec<TargetMessage>, Fault> {
        let before = match &self.stage {
            Stage::Rooted(session) => session.left_out.clone(),
            Stage::Resting | Stage::Begun(_) => LeftOut::default(),
        };
        let done = self.perform(replica, position, item, payload);
        if done.is_err()
            && let Stage::Rooted(session) = &mut self.stage
        {
            // It will be handed in again, and counts once.
            session.left_out = before;
        }
        done
    }

    fn perform(
        &mut self,
        replica: &mut Replica,
        position: Position,
        ItemHeader { number, item }: &ItemHeader,
        payload: &Bytes,
    ) -> Result<Vec<TargetMessage>, Fault> {
        replica.set_hint(&[]);
        match item {
            LaneItem::Begin => return self.begin(replica).map(|()| Vec::new()),
            LaneItem::Root { object, .. } => self.take_root(replica, *object)?,
            _ => {}
        }
        let session = match &mut self.stage {
            Stage::Resting => return Err(Fault::Refused("a lane item before the first one")),
            Stage::Begun(_) => return Err(Fault::Refused("a lane item before the root directory")),
            Stage::Rooted(session) => session,
        };
        match item {
            LaneItem::Begin => {}
            LaneItem::Root { attributes, xattrs, .. } => session.make_root(replica, attributes, xattrs)?,
            LaneItem::Listing { dir, dir_mtime, entries, unlisted, first, last } => {
                let mut objects = Vec::new();
                let mut done = session.take_listing(replica, (*dir, *first), entries, &mut objects);
                if let (true, Some(names)) = (done.is_ok(), unlisted) {
                    done = session.keep_unlisted(names);
                }
                if done.is_ok() && *last {
                    done = session.close_listing(replica, *dir_mtime);
                }
                if let Err(fault) = done {
                    // Nobody was told: they will be wanted again when the item is.
                    objects.iter().try_for_each(|&object| session.asked.forget(object))?;
                    return Err(fault);
                }
                return Ok(vec![TargetMessage::Wanted { listing: *number, objects }]);
            }
            LaneItem::NotListed { dir } => session.drop_listing(*dir),
            LaneItem::OpenContent { object } => session.open_content(replica, *object)?,
            LaneItem::Content { object, .. } | LaneItem::CloseContent { object, .. }
                if session.leaves == Some(*object) => {}
            LaneItem::Content { object, hole, offset } => {
                let done = session.write_content(*object, *hole, *offset, payload);
                session.or_leave_content(replica, *object, done)?
            }
            LaneItem::CloseContent { object, hole, size, attributes, xattrs } => {
                let done = session.close_content(replica, *object, (*hole, *size), attributes, xattrs);
                session.or_leave_content(replica, *object, done)?
            }
            LaneItem::Xattrs { object, attributes, names } => {
                session.open_xattrs(replica, *object, attributes, names)?
            }
            LaneItem::Xattr { object, name } => session.take_xattr(replica, *object, name, payload)?,
            LaneItem::Attributes { object, attributes } => {
                session.close_xattrs(replica, *object, attributes)?
            }
            LaneItem::Leave { object } => session.leave_content(*object)?,
            LaneItem::LeftOut { left_out } => session.left_out.merge(left_out.clone()),
            LaneItem::End => {
                let orphans = session.end(replica, position)?;
                let left_out = std::mem::take(&mut session.left_out);
                self.stage = Stage::Resting;
                if left_out.is_empty() {
                    incomplete::forget(replica.state());
                }
                return Ok(vec![TargetMessage::Resynchronised { end: *number, orphans, left_out }]);
            }
        }
        Ok(Vec::new())
    }

    /// The connection is gone: what was copied whole need not be copied again. The replica stays
    /// bad.
    pub fn interrupt(&mut self, replica: &mut Replica) -> Result<(), Fault> {
        match std::mem::take(&mut self.stage) {
            Stage::Rooted(mut session) => session.settle(replica),
            Stage::Resting | Stage::Begun(_) => Ok(()),
        }
    }

    /// A sync failed: what was copied and not settled is not called good by another one; it is
    /// remembered as incomplete, and copied again.
    pub fn give_up(&mut self) {
        self.stage = Stage::Resting;
    }

    fn begin(&mut self, replica: &mut Replica) -> Result<(), Fault> {
        replica.mark_bad("a resynchronisation has begun and not ended")?;
        self.interrupt(replica)?;
        replica.begin_after_failed_sync()?;
        replica.relieved_is_lost()?;
        // What cannot be set now is listed again.
        replica.settle_times_or(|_, fault| if fault.keeps_out_one() { Ok(()) } else { Err(fault) })?;
        replica.times_are_shown_again();
        let handle_of = |dir: &File| FileHandle::of(dir.as_fd()).map_err(Fault::system("file handle"));
        self.stage = Stage::Begun(Box::new(Opening {
            own: [handle_of(replica.root())?, handle_of(replica.limbo())?],
            claims: Claims::start(&replica.state().join(CLAIMS)),
            limbo: Limbo::open(replica.limbo())?,
            asked: Asked::start(&replica.state().join(ASKED)),
            incomplete: Incomplete::open(replica)?,
        }));
        Ok(())
    }

    /// The root directory has its id. It may come again where its attributes could not be set.
    fn take_root(&mut self, replica: &mut Replica, object: ObjectId) -> Result<(), Fault> {
        let claims = match &mut self.stage {
            Stage::Resting => return Err(Fault::Refused("a lane item before the first one")),
            Stage::Begun(opening) => &mut opening.claims,
            Stage::Rooted(session) => &mut session.claims,
        };
        let handle = replica.bind_root(object)?;
        if !claims.claim(&handle, object)? {
            return Err(Fault::Refused("two root directories in one resynchronisation"));
        }
        self.stage = match std::mem::take(&mut self.stage) {
            Stage::Begun(opening) => {
                Stage::Rooted(Box::new(Session::rooted(*opening, object, self.name_match)))
            }
            as_it_is => as_it_is,
        };
        Ok(())
    }
}

impl Session {
    fn rooted(opening: Opening, root: ObjectId, name_match: NameMatch) -> Session {
        let Opening { claims, limbo, own, asked, incomplete } = opening;
        Session {
            name_match,
            claims,
            limbo,
            own,
            root,
            listing: None,
            asked,
            open: None,
            incomplete,
            unsettled: Unsettled::default(),
            left_out: LeftOut::default(),
            without_acl: None,
            has_searched: false,
            leaves: None,
        }
    }

    fn make_root(
        &mut self,
        replica: &mut Replica,
        attributes: &Attributes,
        xattrs: &[Xattr],
    ) -> Result<(), Fault> {
        let attributes = replica.policy().attributes(&Birth::Directory, attributes);
        let root = replica.root().try_clone().map_err(Fault::system("root"))?;
        self.make_attributes(replica, &root, &attributes, &replica.policy().xattrs(xattrs))
    }

    /// Makes the entries of a chunk what they are; adds the files whose content is wanted.
    fn take_listing(
        &mut self,
        replica: &mut Replica,
        (dir, first): (ObjectId, bool),
        entries: &[ListedObject],
        wanted: &mut Vec<ObjectId>,
    ) -> Result<(), Fault> {
        if entries.len() > LISTING_ENTRIES_MAX {
            return Err(Fault::Refused("a listing of more entries than one may have"));
        }
        if self.is_left_out(replica, dir)? {
            return Ok(());
        }
        let mut listing = self.take_open_listing(replica, dir, first)?;
        let done = entries.iter().try_for_each(|entry| {
            listing.names.insert(&entry.name)?;
            let entry = replica.policy().listed(entry);
            match self.reconcile(replica, &listing.file, &entry) {
                Ok(true) => wanted.push(entry.object),
                Ok(false) => {}
                Err(fault) if fault.keeps_out_one() => {
                    self.leave_name(replica, &listing.file, &entry.name, &fault);
                }
                Err(fault) => return Err(fault),
            }
            Ok(())
        });
        self.listing = Some(listing);
        done
    }

    /// The listing whose chunks arrive, or a new one.
    fn take_open_listing(
        &mut self,
        replica: &mut Replica,
        dir: ObjectId,
        first: bool,
    ) -> Result<Listing, Fault> {
        match (self.listing.take(), first) {
            (Some(listing), _) if listing.dir != dir => {
                self.listing = Some(listing);
                Err(Fault::Refused("a listing inside the listing of another directory"))
            }
            (Some(listing), false) => Ok(listing),
            (None, false) => Err(Fault::Refused("a listing without its beginning")),
            (_, true) => {
                let names = Names::none(&replica.state().join(NAMES));
                Ok(Listing { dir, file: replica.directory(dir)?, names, is_cut_off: false })
            }
        }
    }

    /// Whether a directory was left out, and what is below it with it: it was not listed here.
    fn is_left_out(&self, replica: &Replica, dir: ObjectId) -> Result<bool, Fault> {
        if self.left_out.is_empty() {
            return Ok(false);
        }
        let claimant = match replica.handle(dir)? {
            Some(handle) => self.claims.claimant(&handle).map_err(Fault::system("claims"))?,
            None => None,
        };
        Ok(claimant != Some(dir))
    }

    /// What these names hold cannot be read on the source: it stays.
    fn keep_unlisted(&mut self, names: &Unlisted) -> Result<(), Fault> {
        // None where the directory was left out.
        let Some(listing) = &mut self.listing else { return Ok(()) };
        match names {
            Unlisted::TheRest => listing.is_cut_off = true,
            Unlisted::These(names) => names.iter().try_for_each(|name| listing.names.insert(name))?,
        }
        Ok(())
    }

    /// The directory is not in the set any more.
    fn drop_listing(&mut self, dir: ObjectId) {
        self.listing.take_if(|listing| listing.dir == dir);
    }

    /// A fault of this file alone: the rest of its content is not taken.
    fn or_leave_content(
        &mut self,
        replica: &mut Replica,
        object: ObjectId,
        done: Result<(), Fault>,
    ) -> Result<(), Fault> {
        match done {
            Err(fault) if fault.keeps_out_one() => {
                self.leave_object(replica, object, &fault);
                self.leaves = Some(object);
                self.leave_content(object)
            }
            done => done,
        }
    }

    /// After the last chunk: what was not listed goes to limbo, and the directory gets its time.
    fn close_listing(&mut self, replica: &mut Replica, mtime: Timestamp) -> Result<(), Fault> {
        // None where the directory was left out.
        let Some(listing) = self.listing.take() else { return Ok(()) };
        let done = self.close(replica, &listing, mtime);
        if done.is_err() {
            self.listing = Some(listing);
        }
        done
    }

    fn close(&mut self, replica: &mut Replica, listing: &Listing, mtime: Timestamp) -> Result<(), Fault> {
        let [_, limbo] = self.own;
        // Taken away while it is read: each name that stays is still met exactly once.
        for entry in read_directory(&listing.file)? {
            let entry = entry.map_err(Fault::system("list a directory"))?;
            // `.` and `..` are no names.
            let Ok(name) = Name::new(entry.file_name().to_bytes()) else { continue };
            // Where the replica is a mount point, limbo lies in it.
            if listing.is_cut_off || listing.names.contains(&name)? {
                continue;
            }
            match self.take_orphan(replica, &listing.file, &name, limbo) {
                Err(fault) if fault.keeps_out_one() => {
                    self.leave_name(replica, &listing.file, &name, &fault);
                }
                done => done?,
            }
        }
        if inode::mtime(&inode::stat(&listing.file)?) != mtime {
            replica.set_mtime_later(listing.dir, mtime)?;
        }
        Ok(())
    }

    fn take_orphan(
        &mut self,
        replica: &Replica,
        dir: &File,
        name: &Name,
        limbo: FileHandle,
    ) -> Result<(), Fault> {
        if replica.name_holds(dir, name)? == Some(limbo) {
            return Ok(());
        }
        self.limbo.take(dir, name)
    }

    /// Everything was sent: settles what is open, makes it durable, and declares it good.
    fn end(&mut self, replica: &mut Replica, position: Position) -> Result<u64, Fault> {
        let unfinished = self.listing.is_some() || self.open.is_some() || self.asked.missing() > 0;
        if unfinished {
            return Err(Fault::Refused("the end of a resynchronisation before everything was sent"));
        }
        if position.sequence == Sequence(u64::MAX) {
            return Err(Fault::Refused("a position that no history comes to"));
        }
        self.settle(replica)?;
        assert!(self.unsettled.is_empty(), "a copy ends before its content is on the disk");
        // Before limbo is looked through: there a further name would let the last one go.
        replica.empty_nameless()?;
        let orphans = self.limbo.resolve(replica.root(), replica.limbo())?;
        replica.settle_times_or(|id, fault| {
            if !fault.keeps_out_one() {
                return Err(fault);
            }
            self.left_out.add(&format!("object {id}: the target: {fault}"));
            Ok(())
        })?;
        // Those that were set aside before went without, or while the copy ran.
        replica.untimed().for_each(|id| {
            self.left_out.add(&format!("object {id}: the target: its modification time could not be set"));
        });
        if self.left_out.is_empty() {
            self.forget_the_gone(replica)?;
        }
        replica.adopt(position)?;
        assert_eq!(replica.data().state, DataState::Bad, "a replica is good before its copy has ended");
        match self.left_out.is_empty() {
            true => replica.mark_good()?,
            false => replica.mark_in_line(&self.left_out.summary())?,
        }
        Ok(orphans)
    }

    /// Every object that was listed has a claim: ids without one are gone from the source.
    fn forget_the_gone(&self, replica: &mut Replica) -> Result<(), Fault> {
        let mut gone = Vec::new();
        replica
            .index()
            .for_each(|id, handle| {
                if self.claims.claimant(&handle)? != Some(id) {
                    gone.push(id);
                }
                Ok(())
            })
            .map_err(Fault::own("object index"))?;
        gone.into_iter().try_for_each(|id| replica.forget(id))
    }
}
