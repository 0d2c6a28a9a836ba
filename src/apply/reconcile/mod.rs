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
//! Every step can be repeated: after a [`Fault`] the same item may be handed in again.

mod asked;
mod claims;
mod content;
mod entry;
mod incomplete;
mod limbo;
mod names;

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::{Mode, OFlags};

use self::asked::Asked;
use self::claims::Claims;
use self::content::{OpenFile, Unsettled};
use self::incomplete::Incomplete;
pub(super) use self::limbo::Limbo;
use self::names::Names;
use super::fault::Fault;
use super::inode;
use super::replica::Replica;
use crate::limits::LISTING_ENTRIES_MAX;
use crate::packet::{
    Attributes, Birth, ItemNumber, LaneItem, ListedObject, Name, ObjectId, Position, Sequence, TargetMessage,
    Timestamp, Xattr,
};
use crate::sys::FileHandle;

/// Files of a session in the replica's state directory.
const CLAIMS: &str = "claims";
const ASKED: &str = "asked";
const NAMES: &str = "names";
pub(super) const INCOMPLETE: &str = "incomplete";

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
    session: Option<Session>,
}

/// One resynchronisation under way.
struct Session {
    name_match: NameMatch,
    claims: Claims,
    limbo: Limbo,
    /// Root and limbo: directories that are no object of any directory.
    own: [FileHandle; 2],
    root: Option<ObjectId>,
    listing: Option<Listing>,
    asked: Asked,
    open: Option<OpenFile>,
    incomplete: Incomplete,
    unsettled: Unsettled,
}

/// The directory whose chunks arrive.
struct Listing {
    dir: ObjectId,
    file: Arc<File>,
    names: Names,
}

impl Reconcile {
    pub fn new() -> Reconcile {
        Reconcile::default()
    }

    /// Sets what counts for files that are known by their name only.
    pub fn with_name_match(name_match: NameMatch) -> Reconcile {
        Reconcile { name_match, session: None }
    }

    /// Whether a resynchronisation has begun and not ended.
    pub fn is_running(&self) -> bool {
        self.session.is_some()
    }

    /// Performs one item, stamped "after `position`", and gives the answers to it.
    ///
    /// Errors: [`Fault`]; nothing is skipped, and the item may be handed in again.
    pub fn handle_item(
        &mut self,
        replica: &mut Replica,
        position: Position,
        number: ItemNumber,
        item: LaneItem,
        payload: &Bytes,
    ) -> Result<Vec<TargetMessage>, Fault> {
        replica.set_hint(&[]);
        if let LaneItem::Begin = item {
            self.begin(replica)?;
            return Ok(Vec::new());
        }
        let session = self.session.as_mut().ok_or(Fault::Refused("a lane item before the first one"))?;
        match item {
            LaneItem::Begin => {}
            LaneItem::Root { object, attributes, xattrs } => {
                session.take_root(replica, object, &attributes, &xattrs)?
            }
            LaneItem::Listing { dir, dir_mtime, entries, last } => {
                let mut objects = Vec::new();
                let mut done = session.take_listing(replica, dir, &entries, &mut objects);
                if done.is_ok() && last {
                    done = session.close_listing(replica, dir_mtime);
                }
                if let Err(fault) = done {
                    // Nobody was told: they will be wanted again when the item is.
                    objects.iter().try_for_each(|&object| session.asked.forget(object))?;
                    return Err(fault);
                }
                return Ok(vec![TargetMessage::Wanted { listing: number, objects }]);
            }
            LaneItem::OpenContent { object } => session.open_content(replica, object)?,
            LaneItem::Content { object, offset } => session.write_content(object, offset, payload)?,
            LaneItem::CloseContent { object, size, attributes, xattrs } => {
                session.close_content(replica, object, size, &attributes, &xattrs)?
            }
            LaneItem::End => {
                let orphans = session.end(replica, position)?;
                self.session = None;
                [CLAIMS, ASKED, INCOMPLETE].iter().for_each(|name| remove(&replica.state().join(name)));
                return Ok(vec![TargetMessage::Resynchronised { end: number, orphans }]);
            }
        }
        Ok(Vec::new())
    }

    /// The connection is gone: what was copied whole need not be copied again. The replica stays
    /// bad.
    pub fn interrupt(&mut self, replica: &mut Replica) -> Result<(), Fault> {
        match self.session.take() {
            Some(mut session) => session.settle(replica),
            None => Ok(()),
        }
    }

    /// A sync failed: what was copied and not settled is not called good by another one; it is
    /// remembered as incomplete, and copied again.
    pub fn give_up(&mut self) {
        self.session = None;
    }

    fn begin(&mut self, replica: &mut Replica) -> Result<(), Fault> {
        replica.mark_bad("a resynchronisation has begun and not ended")?;
        self.interrupt(replica)?;
        replica.begin_after_failed_sync()?;
        replica.relieved_is_lost()?;
        replica.settle_times()?;
        let handle_of = |dir: &File| FileHandle::of(dir.as_fd()).map_err(Fault::system("file handle"));
        self.session = Some(Session {
            own: [handle_of(replica.root())?, handle_of(replica.limbo())?],
            name_match: self.name_match,
            claims: Claims::start(&replica.state().join(CLAIMS))?,
            limbo: Limbo::open(replica.limbo())?,
            root: None,
            listing: None,
            asked: Asked::start(&replica.state().join(ASKED))?,
            open: None,
            incomplete: Incomplete::open(&replica.state().join(INCOMPLETE), replica)?,
            unsettled: Unsettled::default(),
        });
        Ok(())
    }
}

impl Session {
    fn take_root(
        &mut self,
        replica: &mut Replica,
        object: ObjectId,
        attributes: &Attributes,
        xattrs: &[Xattr],
    ) -> Result<(), Fault> {
        let handle = replica.bind_root(object)?;
        if !self.claims.claim(&handle, object)? {
            return Err(Fault::Refused("two root directories in one resynchronisation"));
        }
        self.root = Some(object);
        let attributes = replica.policy.attributes(&Birth::Directory, attributes);
        inode::make_attributes(replica.root(), &attributes, &replica.policy.xattrs(xattrs))
    }

    /// Makes the entries of a chunk what they are; adds the files whose content is wanted.
    fn take_listing(
        &mut self,
        replica: &mut Replica,
        dir: ObjectId,
        entries: &[ListedObject],
        wanted: &mut Vec<ObjectId>,
    ) -> Result<(), Fault> {
        if entries.len() > LISTING_ENTRIES_MAX {
            return Err(Fault::Refused("a listing of more entries than one may have"));
        }
        if self.root.is_none() {
            return Err(Fault::Refused("a listing before the root directory"));
        }
        if self.listing.as_ref().is_some_and(|listing| listing.dir != dir) {
            return Err(Fault::Refused("a listing inside the listing of another directory"));
        }
        let mut listing = match self.listing.take() {
            Some(listing) => listing,
            None => {
                let names = Names::none(&replica.state().join(NAMES));
                Listing { dir, file: replica.directory(dir)?, names }
            }
        };
        let done = entries.iter().try_for_each(|entry| {
            listing.names.insert(&entry.name)?;
            let entry = replica.policy.listed(entry);
            if self.reconcile(replica, &listing.file, &entry)? {
                wanted.push(entry.object);
            }
            Ok(())
        });
        self.listing = Some(listing);
        done
    }

    /// After the last chunk: what was not listed goes to limbo, and the directory gets its time.
    fn close_listing(&mut self, replica: &mut Replica, mtime: Timestamp) -> Result<(), Fault> {
        let Some(listing) = &self.listing else { return Ok(()) };
        let [_, limbo] = self.own;
        // Taken away while it is read: each name that stays is still met exactly once.
        for entry in read_directory(&listing.file)? {
            let entry = entry.map_err(Fault::system("list a directory"))?;
            // `.` and `..` are no names.
            let Ok(name) = Name::new(entry.file_name().to_bytes()) else { continue };
            // Where the replica is a mount point, limbo lies in it.
            if !listing.names.contains(&name)? && replica.name_holds(&listing.file, &name)? != Some(limbo) {
                self.limbo.take(&listing.file, &name)?;
            }
        }
        if inode::mtime(&inode::stat(&listing.file)?) != mtime {
            replica.set_mtime_later(listing.dir, mtime)?;
        }
        self.listing = None;
        Ok(())
    }

    /// Everything was sent: settles what is open, makes it durable, and declares it good.
    fn end(&mut self, replica: &mut Replica, position: Position) -> Result<u64, Fault> {
        let unfinished = self.listing.is_some() || self.open.is_some() || self.asked.missing() > 0;
        if self.root.is_none() || unfinished {
            return Err(Fault::Refused("the end of a resynchronisation before everything was sent"));
        }
        if position.sequence == Sequence(u64::MAX) {
            return Err(Fault::Refused("a position that no history comes to"));
        }
        self.settle(replica)?;
        // Before limbo is looked through: there a further name would let the last one go.
        replica.empty_nameless()?;
        let orphans = self.limbo.resolve(replica.root(), replica.limbo())?;
        self.forget_the_gone(replica)?;
        replica.settle_times()?;
        replica.adopt(position)?;
        replica.mark_good()?;
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

/// Takes a file of the session away, best effort: a left-over one does no harm.
fn remove(path: &Path) {
    if let Err(error) = std::fs::remove_file(path)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        log::warn!("{}: cannot be removed: {error}", path.display());
    }
}

/// Opens a directory for listing; the descriptor may be `O_PATH`.
fn read_directory(dir: impl AsFd) -> Result<rustix::fs::Dir, Fault> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd =
        rustix::fs::openat(dir, c".", flags, Mode::empty()).map_err(Fault::system("open a directory"))?;
    rustix::fs::Dir::new(fd).map_err(Fault::system("open a directory"))
}
