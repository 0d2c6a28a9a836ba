//! A comparison: a good replica beside what its source lists, packet by packet as it is. Nothing of the
//! replica is changed, and nothing of its state: packets are performed strictly, acknowledged, and made
//! durable as ever.
//!
//! ```text
//!  CheckBegin ── Root ── Listing* ──> Wanted: files to be hashed, directories to be listed
//!                  │         └── Hashes* ──> Hashed
//!                  │   Xattrs Xattr* Attributes        packets: names set and taken, what was moved
//!                  └──────────────── End ──> Checked                 └──> Doubt: listed again
//! ```
//! Each item shows the source exactly as of its stamp, and comes when the replica has applied exactly up to
//! there. What packets do between two chunks of a directory is followed as in a copy: names that they set
//! are not extra, and what they move out of what was not listed yet into what was is listed there once more.
//! What cannot be compared ends the comparison, with a word; it never holds up a packet.

mod compare;
mod content;
mod findings;
mod packets;
mod stage;
mod times;

use std::fs::File;
use std::sync::Arc;

use self::content::OpenContent;
use self::findings::{Findings, Where};
use self::times::TimesAsHeld;
use super::listed::Directories;
use super::listing::Chunk;
use super::names::Names;
use super::ruled::Ruled;
use super::table::{Table, key_of};
use super::{CLAIMS, DIRECTORIES, NAMES};
use crate::apply::fault::Fault;
use crate::apply::replica::{Replica, read_directory};
use crate::blocks::Hasher;
use crate::limits::{CLAIMS_IN_MEMORY, DIFFERENCES_PER_HASHES, LISTING_ENTRIES_MAX};
use crate::packet::{
    BlockHash, CheckCounts, DataState, DifferenceKind, ItemHeader, ItemNumber, Keeping, LaneItem, Name,
    ObjectId, Position, TargetMessage, Unlisted,
};

/// See the module.
pub(super) struct Check {
    /// Content is compared.
    hasher: Option<Hasher>,
    /// The directory whose chunks arrive.
    listing: Option<Listing>,
    directories: Directories,
    /// Objects that were compared, or made by packets since it began.
    seen: Table<()>,
    findings: Findings,
    times: TimesAsHeld,
    counts: CheckCounts,
    content: Option<OpenContent>,
    ruled: Ruled,
    /// Names that the source does not have are no difference: it may have removed them.
    keeps_in_place: bool,
}

struct Listing {
    dir: ObjectId,
    file: Arc<File>,
    /// Names that were listed, or set by packets since the first chunk.
    names: Names,
    /// The source could not list it to its end: nothing of it is extra.
    is_cut_off: bool,
    /// It shows some names of it, and says nothing of the rest.
    is_in_part: bool,
}

/// How a comparison goes on behind an item.
enum Went {
    On(Vec<TargetMessage>),
    Over(Vec<TargetMessage>),
}

impl Check {
    fn begin(replica: &Replica, content: Option<&BlockHash>) -> Check {
        let state = replica.state();
        Check {
            hasher: content.map(Hasher::new),
            listing: None,
            directories: Directories::start(&state.join(DIRECTORIES)),
            seen: Table::start(&state.join(CLAIMS), CLAIMS_IN_MEMORY),
            findings: Findings::default(),
            times: TimesAsHeld::default(),
            counts: CheckCounts::default(),
            content: None,
            ruled: Ruled::default(),
            keeps_in_place: false,
        }
    }

    /// Compares the replica with an item, stamped "after `position`".
    ///
    /// Errors: why it cannot be compared.
    fn take(
        &mut self,
        replica: &mut Replica,
        position: Position,
        ItemHeader { number, item }: &ItemHeader,
        payload: &[u8],
    ) -> Result<Went, Fault> {
        if replica.data().state != DataState::Good {
            return Err(Fault::Refused("a comparison of a replica that is not good"));
        }
        if position != replica.applied() {
            return Err(Fault::Refused("a comparison with another position than the replica's"));
        }
        self.take_rules(item)?;
        let answer = match item {
            LaneItem::Root { object, attributes, xattrs } => {
                self.root(replica, *object, attributes, xattrs)?;
                None
            }
            LaneItem::Listing { dir, dir_mtime, entries, unlisted, first, last } => {
                let (dir, dir_mtime, unlisted) = (*dir, *dir_mtime, unlisted.as_ref());
                let chunk = Chunk { dir, dir_mtime, entries, unlisted, is_first: *first, is_last: *last };
                let objects = self.chunk(replica, chunk)?;
                Some(TargetMessage::Wanted { listing: *number, objects })
            }
            LaneItem::NotListed { dir } => {
                self.listing.take_if(|listing| listing.dir == *dir);
                self.directories.drop_doubt(*dir)?;
                None
            }
            LaneItem::Hashes { .. } | LaneItem::Hole { .. } => {
                Some(TargetMessage::Hashed { item: *number, differing: self.take_content(replica, item)? })
            }
            LaneItem::Xattrs { object, attributes: _, names } => {
                self.xattr_names(replica, *object, names)?;
                None
            }
            LaneItem::Xattr { object, name } => {
                self.xattr(replica, *object, name, payload)?;
                None
            }
            // They were compared with the listing; what the source cannot read it counts itself.
            LaneItem::Attributes { .. } | LaneItem::Leave { .. } | LaneItem::LeftOut { .. } => None,
            LaneItem::Rules { .. } | LaneItem::Within { .. } | LaneItem::Keeping { .. } => None,
            LaneItem::End if self.directories.has_doubts() => None,
            LaneItem::End => {
                let mut answers = self.end(replica)?;
                answers.push(TargetMessage::Checked { end: *number, counts: self.counts });
                return Ok(Went::Over(answers));
            }
            LaneItem::Begin
            | LaneItem::BeginOwed { .. }
            | LaneItem::Owed { .. }
            | LaneItem::Afresh
            | LaneItem::NamesMatch
            | LaneItem::OrphanRules { .. }
            | LaneItem::ByBlocks { .. }
            | LaneItem::OpenBlocks { .. }
            | LaneItem::CloseSame { .. }
            | LaneItem::CheckBegin { .. }
            | LaneItem::CheckStop
            | LaneItem::OpenContent { .. }
            | LaneItem::Content { .. }
            | LaneItem::CloseContent { .. } => {
                return Err(Fault::Refused("an item of a copy in a comparison"));
            }
        };
        Ok(Went::On(self.with_findings(*number, answer)))
    }

    fn take_rules(&mut self, item: &LaneItem) -> Result<(), Fault> {
        if let LaneItem::Keeping { keeping } = item {
            self.keeps_in_place = *keeping == Keeping::InPlace;
        }
        self.ruled.take(item)
    }

    /// What was found goes with answers, to hashes with every so many.
    fn with_findings(&mut self, number: ItemNumber, answer: Option<TargetMessage>) -> Vec<TargetMessage> {
        let is_due = match &answer {
            Some(TargetMessage::Hashed { .. }) => number.0.is_multiple_of(DIFFERENCES_PER_HASHES),
            answer => answer.is_some(),
        };
        let found = is_due.then(|| self.findings.take()).flatten();
        found.into_iter().chain(answer).collect()
    }

    /// What the source is to list again.
    pub(super) fn take_doubts(&mut self) -> Vec<ObjectId> {
        self.directories.take_unsent()
    }

    fn chunk(&mut self, replica: &mut Replica, chunk: Chunk<'_>) -> Result<Vec<ObjectId>, Fault> {
        if chunk.entries.len() > LISTING_ENTRIES_MAX {
            return Err(Fault::Refused("a listing of more entries than one may have"));
        }
        if chunk.is_first && !self.open_listing(replica, chunk.dir)? {
            return Ok(Vec::new());
        }
        let Some(listing) = self.listing.as_mut().filter(|listing| listing.dir == chunk.dir) else {
            return Ok(Vec::new());
        };
        let file = listing.file.clone();
        listing.take_unlisted(chunk.unlisted)?;
        let mut wanted = Vec::new();
        for entry in chunk.entries {
            self.told(chunk.dir, &entry.name)?;
            let entry = replica.policy().listed(entry).into_owned();
            if self.entry(replica, (chunk.dir, &file), &entry)? {
                wanted.push(entry.object);
            }
        }
        if chunk.is_last {
            self.close_listing(replica)?;
        }
        Ok(wanted)
    }

    /// `false`: the replica has no such directory, which was found where its name was listed.
    fn open_listing(&mut self, replica: &mut Replica, dir: ObjectId) -> Result<bool, Fault> {
        self.listing = None;
        let file = match replica.directory(dir) {
            Ok(file) => file,
            Err(Fault::MissingObject(_) | Fault::Outside { .. }) => {
                self.directories.drop_doubt(dir)?;
                return Ok(false);
            }
            Err(fault) => return Err(fault),
        };
        self.directories.begins(dir)?;
        let names = Names::none(&replica.state().join(NAMES));
        self.listing = Some(Listing { dir, file, names, is_cut_off: false, is_in_part: false });
        Ok(true)
    }

    fn close_listing(&mut self, replica: &mut Replica) -> Result<(), Fault> {
        let Some(listing) = self.listing.take() else { return Ok(()) };
        for entry in read_directory(&listing.file)? {
            let entry = entry.map_err(Fault::system("list a directory"))?;
            let Ok(name) = Name::new(entry.file_name().to_bytes()) else { continue };
            if !listing.is_cut_off
                && !self.keeps_in_place
                && !listing.names.contains(&name)?
                && !self.ruled.leaves_out(listing.dir, &listing.file, &name)
            {
                self.extra(replica, &listing, &name)?;
            }
        }
        match listing.is_in_part {
            true => self.directories.ends_in_part(listing.dir),
            false => self.directories.ends(listing.dir),
        }
    }

    fn extra(&mut self, replica: &Replica, listing: &Listing, name: &Name) -> Result<(), Fault> {
        if replica.is_of_the_place(&listing.file, name)? {
            return Ok(());
        }
        let at = Where { dir: listing.dir, file: &listing.file, name: Some(name) };
        if self.findings.is_new(at)? {
            self.counts.extra += 1;
            let bytes = compare::size_of(&listing.file, name);
            self.note(replica, DifferenceKind::Extra, None, at, bytes);
        }
        Ok(())
    }

    /// Counts bytes and names what was found; objects and names are counted where they are found.
    fn note(
        &mut self,
        replica: &Replica,
        kind: DifferenceKind,
        object: Option<ObjectId>,
        at: Where<'_>,
        bytes: u64,
    ) {
        self.counts.out_of_step(bytes);
        self.findings.add(replica, kind, object, at, bytes);
    }

    fn end(&mut self, replica: &mut Replica) -> Result<Vec<TargetMessage>, Fault> {
        if self.listing.is_some() {
            return Err(Fault::Refused("the end of a comparison in the middle of a listing"));
        }
        self.close_content(replica)?;
        Ok(std::iter::from_fn(|| self.findings.take()).collect())
    }

    fn is_seen(&self, object: ObjectId) -> Result<bool, Fault> {
        Ok(self.seen.get(key_of(object)).map_err(Fault::own("objects that were compared"))?.is_some())
    }

    fn see(&mut self, object: ObjectId) -> Result<(), Fault> {
        self.seen.insert(key_of(object), ()).map_err(Fault::own("objects that were compared"))
    }
}

impl Listing {
    fn take_unlisted(&mut self, unlisted: Option<&Unlisted>) -> Result<(), Fault> {
        match unlisted {
            Some(Unlisted::TheRest) => self.is_cut_off = true,
            Some(Unlisted::NotShown) => (self.is_cut_off, self.is_in_part) = (true, true),
            Some(Unlisted::These(names)) => names.iter().try_for_each(|name| self.names.insert(name))?,
            None => {}
        }
        Ok(())
    }
}
