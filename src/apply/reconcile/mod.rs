//! The target's half of a resynchronisation: makes the replica equal to what lane items list.
//!
//! ```text
//!  Begin ──> Root ──> Listing* ────────────────> OpenContent Content* CloseContent ──> End
//!  bad       bind     each entry: keep, claim,   bytes, then attributes                limbo resolved,
//!                     adopt or make it;                                                times, durable,
//!                     answer what is wanted                                            good, answer
//! ```
//! The source changes meanwhile, and its packets come among the items, in one order (`packets`):
//!
//! ```text
//!  packet ── what it has come to is made true ── of something seen ──> done
//!              │ content of what was not seen       │ of something not seen, or not here
//!              v                                    v
//!            not taken: its listing asks for it   Doubt: this directory is listed again, from its
//!                                                 first chunk on; no end counts before
//! ```
//! *Seen* is what a listing has shown or a packet has made ([`Claims`]). A listed directory has exactly
//! the names of the source, and what is seen its attributes; each packet keeps both true, or has the
//! directory listed again ([`Directories`]).
//! An object is found by its id first, wherever it lies in the replica or in limbo, by its name
//! only then; two ids never share one inode ([`Claims`]). Nothing is deleted before the end: what
//! is in the way or was not listed goes to limbo ([`Limbo`]), from where later listings claim it.
//! A killed or interrupted copy leaves the replica marked bad, and another one goes on from there.
//! What one object's fault prevents is left out, named and counted ([`left_out`]): the replica stays
//! bad for it and for nothing else. What the source cannot read stays here as it is. Every step can be
//! repeated: after a [`Fault`] the same item may be handed in again.

mod asked;
mod beginning;
pub(super) mod beside;
mod blocks;
mod check;
mod claims;
mod content;
mod end;
mod entry;
mod keep;
mod left_out;
mod linked_out;
mod listed;
mod listing;
mod lost;
mod lying;
mod names;
mod orphans;
mod outside;
mod packets;
mod part;
mod places;
pub mod planted;
mod removed;
mod ruled;
mod rules;
mod stayed;
mod table;
mod unsettled;
mod vouched;

use bytes::Bytes;

use self::asked::Asked;
use self::beginning::Owes;
use self::beside::Beside;
use self::blocks::ByBlocks;
use self::check::Check;
use self::claims::Claims;
use self::content::OpenFile;
use self::linked_out::LinkCounts;
use self::listed::Directories;
use self::listing::{Chunk, Listing};
use self::outside::Outside;
use self::removed::Removed;
use self::ruled::Ruled;
pub(super) use self::ruled::rules_kept;
pub use self::rules::{Existing, LinkedOut, NameMatch, Rules, Strays};
use self::stayed::Stayed;
use self::unsettled::Unsettled;
use self::vouched::Vouching;
use super::fault::Fault;
use super::replica::{Incomplete, Limbo, Replica, incomplete};
use crate::packet::{
    Birth, ItemHeader, ItemNumber, Keeping, LaneItem, LeftOut, ObjectId, Op, Position, TargetMessage,
};
use crate::sys::FileHandle;

/// The first word to a copy ([`TargetMessage::Doubt`]).
const TAKEN_UP: TargetMessage = TargetMessage::Doubt { directories: Vec::new() };

/// Files of a session in the replica's state directory.
const CLAIMS: &str = "claims";
const ASKED: &str = "asked";
const NAMES: &str = "names";
const DIRECTORIES: &str = "directories";
const LINKS: &str = "links";

/// See the module. It lives as long as the connection.
#[derive(Default)]
pub struct Reconcile {
    rules: Rules,
    stage: Stage,
    /// What stayed as it was in the copy that ended last.
    kept: u64,
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
    /// None: a good replica is compared.
    Checking(Box<Check>),
    /// It could not be compared any further: what is still under way is of no use.
    CheckOver { untold: Option<Box<TargetMessage>> },
}

/// What a resynchronisation keeps track of from its beginning.
struct Opening {
    claims: Claims,
    limbo: Limbo,
    /// Root and limbo: directories that are no object of any directory.
    own: [FileHandle; 2],
    asked: Asked,
    directories: Directories,
    incomplete: Incomplete,
    vouching: Option<Vouching>,
}

/// A resynchronisation that has its root directory.
struct Session {
    rules: Rules,
    ruled: Ruled,
    claims: Claims,
    limbo: Limbo,
    /// [`Opening::own`].
    own: [FileHandle; 2],
    root: ObjectId,
    listing: Option<Listing>,
    directories: Directories,
    asked: Asked,
    open: Option<OpenFile>,
    beside: Beside,
    /// Content is compared before it is sent.
    by_blocks: Option<ByBlocks>,
    incomplete: Incomplete,
    /// Of a copy of what is owed.
    vouching: Option<Vouching>,
    unsettled: Unsettled,
    /// By either side.
    left_out: LeftOut,
    /// Of it, since what is performed now began: what does not come again with it.
    left_for_good: LeftOut,
    /// What hits one object has been waited for: it is left out.
    is_lenient: bool,
    /// The object whose attributes come one by one has no ACL here, and the source has one.
    without_acl: Option<ObjectId>,
    /// All names of the replica were looked at, so that the kernel knows where objects are.
    has_searched: bool,
    /// How often everything was asked for once more.
    listed_again: u32,
    kept: u64,
    /// Where what was removed on the source is kept.
    keeping: Option<Keeping>,
    /// A packet has left something in its place that the source does not have.
    has_kept_in_place: bool,
    stayed: Stayed,
    outside: Outside,
    removed: Removed,
    links: LinkCounts,
    /// Where the source has said what becomes of what it does not list.
    orphans: Option<orphans::Asked>,
}

impl Session {
    fn answer_chunk(
        &mut self,
        replica: &mut Replica,
        number: ItemNumber,
        chunk: Chunk<'_>,
    ) -> Result<Vec<TargetMessage>, Fault> {
        let objects = self.take_chunk(replica, chunk)?;
        let wanted = TargetMessage::Wanted { listing: number, objects };
        Ok(self.take_old(number).into_iter().chain([wanted]).collect())
    }
}

impl Reconcile {
    /// Sets what counts for what no copy has brought.
    pub fn with_rules(rules: Rules) -> Reconcile {
        Reconcile { rules, ..Reconcile::default() }
    }

    /// How many names kept what they held in the copy that ended last, by the rules.
    pub fn kept(&self) -> u64 {
        self.kept
    }

    /// What is still to come of a copy, for who looks why one does not end.
    #[cfg(test)]
    pub fn awaited(&self) -> String {
        match &self.stage {
            Stage::Rooted(session) => format!(
                "{}, a listing: {}, a content: {}, waiting: {:?}, listed again: {}",
                session.directories.awaited(),
                session.listing.is_some(),
                session.open.is_some(),
                session.incomplete.waiting().unwrap_or_default(),
                session.listed_again
            ),
            Stage::Resting | Stage::Begun(_) | Stage::Checking(_) | Stage::CheckOver { .. } => {
                "nothing".into()
            }
        }
    }

    /// Whether a resynchronisation has begun and not ended.
    pub fn is_running(&self) -> bool {
        match self.stage {
            Stage::Resting | Stage::Checking(_) | Stage::CheckOver { .. } => false,
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
        if let Stage::Rooted(session) = &mut self.stage {
            session.take_in_for(replica, &item.item)?;
        }
        let before = match &mut self.stage {
            Stage::Rooted(session) => session.begin_to_leave_out(),
            Stage::Resting | Stage::Begun(_) | Stage::Checking(_) | Stage::CheckOver { .. } => {
                LeftOut::default()
            }
        };
        let done = self.perform(replica, position, item, payload).and_then(|answers| {
            self.note_doubts(replica)?;
            Ok(answers)
        });
        if done.is_err()
            && let Stage::Rooted(session) = &mut self.stage
        {
            session.comes_again(before);
        }
        done
    }

    fn perform(
        &mut self,
        replica: &mut Replica,
        position: Position,
        header: &ItemHeader,
        payload: &Bytes,
    ) -> Result<Vec<TargetMessage>, Fault> {
        let ItemHeader { number, item } = header;
        replica.set_hint(&[]);
        if let Some(answers) = self.compare(replica, position, header, payload) {
            return Ok(answers);
        }
        match item {
            LaneItem::Begin => return self.begin(replica, position, Owes::Everything),
            &LaneItem::BeginOwed { percent_max, compares } => {
                return self.begin(replica, position, Owes::What { percent_max, compares });
            }
            LaneItem::Afresh => return self.afresh(replica).map(|()| Vec::new()),
            LaneItem::Root { object, .. } => self.take_root(replica, *object)?,
            _ => {}
        }
        let session = self.stage.session()?;
        session.must_fit(item)?;
        match item {
            LaneItem::Begin
            | LaneItem::BeginOwed { .. }
            | LaneItem::Afresh
            | LaneItem::Rules { .. }
            | LaneItem::Within { .. } => {}
            LaneItem::CheckBegin { .. } | LaneItem::CheckStop => {
                return Err(Fault::Refused("an item of a comparison in a copy"));
            }
            LaneItem::Root { .. } => return session.make_root(replica, item),
            LaneItem::Listing { dir, dir_mtime, entries, unlisted, first, last } => {
                let (dir, dir_mtime, unlisted) = (*dir, *dir_mtime, unlisted.as_ref());
                let chunk = Chunk { dir, dir_mtime, entries, unlisted, is_first: *first, is_last: *last };
                return session.answer_chunk(replica, *number, chunk);
            }
            LaneItem::NotListed { dir } => session.drop_listing(*dir)?,
            LaneItem::NamesMatch => session.rules.name_match = NameMatch::Compare,
            LaneItem::OrphanRules { .. } | LaneItem::Keeping { .. } => session.treat_strays(item)?,
            LaneItem::Owed { .. }
            | LaneItem::ByBlocks { .. }
            | LaneItem::Hashes { .. }
            | LaneItem::Hole { .. }
            | LaneItem::OpenBlocks { .. }
            | LaneItem::CloseSame { .. } => return session.take_blocks(replica, header),
            LaneItem::OpenContent { object } => session.open_content(replica, *object)?,
            LaneItem::Content { object, hole, offset } => {
                let done = session.write_content(replica, *object, *hole, *offset, payload);
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
            LaneItem::End => return self.end(replica, position, *number),
        }
        Ok(Vec::new())
    }

    /// Answers nothing where something is still to come.
    fn end(
        &mut self,
        replica: &mut Replica,
        position: Position,
        end: ItemNumber,
    ) -> Result<Vec<TargetMessage>, Fault> {
        let Stage::Rooted(session) = &mut self.stage else { return Ok(Vec::new()) };
        let Some(orphans) = session.end(replica, position)? else { return Ok(Vec::new()) };
        let left_out = std::mem::take(&mut session.left_out);
        let counts = session.orphans.is_some().then_some(TargetMessage::Orphans(orphans));
        self.kept = session.kept;
        self.stage = Stage::Resting;
        if left_out.is_empty() {
            incomplete::forget(replica.state());
        }
        let end = TargetMessage::Resynchronised { end, orphans: orphans.moved, left_out };
        Ok(counts.into_iter().chain([end]).collect())
    }

    /// Whether packets are performed here, and not one by one as they were on the source.
    pub fn takes_packets(&self) -> bool {
        match self.stage {
            Stage::Resting | Stage::Begun(_) | Stage::Checking(_) | Stage::CheckOver { .. } => false,
            Stage::Rooted(_) => true,
        }
    }

    /// Performs a packet on a replica that is not good yet. Nothing is done where none is being made.
    ///
    /// Errors: faults of the whole replica, and times that cannot be set; it may be handed in again.
    pub fn handle_packet(&mut self, replica: &mut Replica, op: &Op, payload: &[u8]) -> Result<(), Fault> {
        let Stage::Rooted(session) = &mut self.stage else { return Ok(()) };
        session.take_in_before_packet(replica)?;
        let before = session.begin_to_leave_out();
        let done = session.converge(replica, op, payload).and_then(|()| session.note_doubts(replica));
        if done.is_err() {
            session.comes_again(before);
        }
        done
    }

    fn note_doubts(&mut self, replica: &mut Replica) -> Result<(), Fault> {
        match &mut self.stage {
            Stage::Rooted(session) => session.note_doubts(replica),
            Stage::Resting | Stage::Begun(_) | Stage::Checking(_) | Stage::CheckOver { .. } => Ok(()),
        }
    }

    /// What the source has to hear of what was performed: directories that are to be listed again.
    pub fn take_doubts(&mut self) -> Option<TargetMessage> {
        let directories = match &mut self.stage {
            Stage::Rooted(session) if !session.may_tell_doubts() => return None,
            Stage::Rooted(session) => session.directories.take_unsent(),
            Stage::Checking(check) => check.take_doubts(),
            Stage::CheckOver { untold } => return untold.take().map(|said| *said),
            Stage::Resting | Stage::Begun(_) => return None,
        };
        (!directories.is_empty()).then_some(TargetMessage::Doubt { directories })
    }

    /// The connection is gone: what was copied whole need not be copied again. The replica stays
    /// bad.
    pub fn interrupt(&mut self, replica: &mut Replica) -> Result<(), Fault> {
        match std::mem::take(&mut self.stage) {
            Stage::Rooted(mut session) => {
                let taken = session.take_in(replica);
                // What one file lacks keeps no other from being complete.
                session.settle(replica).and(taken)
            }
            Stage::Resting | Stage::Begun(_) | Stage::Checking(_) | Stage::CheckOver { .. } => Ok(()),
        }
    }

    /// Content that came before could not be written so far.
    pub fn has_unwritten(&self) -> bool {
        matches!(&self.stage, Stage::Rooted(session) if session.beside.has_unwritten())
    }

    /// What has come of files so far is written.
    ///
    /// Errors: as those of content; it may be called again.
    pub fn take_in(&mut self, replica: &mut Replica) -> Result<(), Fault> {
        match &mut self.stage {
            Stage::Rooted(session) => session.take_in(replica),
            Stage::Resting | Stage::Begun(_) | Stage::Checking(_) | Stage::CheckOver { .. } => Ok(()),
        }
    }

    /// See [`Session::hear_of_sync`].
    pub fn hear_of_sync(&mut self, replica: &mut Replica) -> Result<(), Fault> {
        match &mut self.stage {
            Stage::Rooted(session) => session.hear_of_sync(replica),
            Stage::Resting | Stage::Begun(_) | Stage::Checking(_) | Stage::CheckOver { .. } => Ok(()),
        }
    }

    /// A sync failed: what was copied and not settled is remembered as incomplete, and copied again.
    pub fn give_up(&mut self) {
        self.stage = Stage::Resting;
    }
}

impl Stage {
    /// Errors: none is under way, or not so far.
    fn session(&mut self) -> Result<&mut Session, Fault> {
        match self {
            Stage::Resting | Stage::Checking(_) | Stage::CheckOver { .. } => {
                Err(Fault::Refused("a lane item before the first one"))
            }
            Stage::Begun(_) => Err(Fault::Refused("a lane item before the root directory")),
            Stage::Rooted(session) => Ok(session),
        }
    }
}

impl Session {
    fn rooted(
        opening: Opening,
        root: ObjectId,
        rules: Rules,
        (stayed, removed): (Stayed, Removed),
    ) -> Session {
        let Opening { claims, limbo, own, asked, directories, incomplete, vouching } = opening;
        Session {
            rules,
            ruled: Ruled::default(),
            claims,
            limbo,
            own,
            root,
            listing: None,
            directories,
            asked,
            open: None,
            beside: Beside::default(),
            by_blocks: None,
            incomplete,
            vouching,
            unsettled: Unsettled::default(),
            left_out: LeftOut::default(),
            left_for_good: LeftOut::default(),
            is_lenient: false,
            without_acl: None,
            has_searched: false,
            listed_again: 0,
            kept: 0,
            keeping: None,
            has_kept_in_place: false,
            stayed,
            outside: Outside::default(),
            removed,
            links: LinkCounts::default(),
            orphans: None,
        }
    }

    /// Answers a root directory.
    fn make_root(&mut self, replica: &mut Replica, item: &LaneItem) -> Result<Vec<TargetMessage>, Fault> {
        let LaneItem::Root { attributes, xattrs, .. } = item else { return Ok(Vec::new()) };
        let attributes = replica.policy().attributes(&Birth::Directory, attributes);
        let root = replica.root().try_clone().map_err(Fault::system("root"))?;
        let xattrs = replica.policy().xattrs(xattrs);
        self.make_attributes(replica, (self.root, &root), &attributes, &xattrs).map(|()| vec![TAKEN_UP])
    }
}
