//! How far a replica is, what of that can be proved after a crash, and whether its data is good.
//!
//! ```text
//!             killed process            power loss, other boot, other mount
//! applied     page (in the page cache)  = durable
//! begun       page                      = durable
//! durable     slot file                 slot file, or the root's xattr where that is behind
//! data state  slot file                 slot file; bad where changes were not yet durable
//! ```
//! The slot is marked `dirty`, durably, before the first op after a durable point: after a power
//! loss a replica at rest is still good, one in motion is not until it was merged: brought what its source
//! has marked as changed since the durable point (OpenVMS: minimerge).

use std::collections::HashSet;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, StatxFlags};
use serde::{Deserialize, Serialize};

use super::identity::{Identity, Keeper};
use super::page::{PageCache, Positions, Which};
use super::slot::SlotFile;
use crate::limits::RELIEVED_NAMED_MAX;
use crate::packet::{BadBy, DataState, Epoch, ObjectId, Position, SetId};
use crate::place::Place;
use crate::store::random_u64;
use crate::sys::boot_id;
use crate::words::{OF_THE_DISK, RESERVED_NAME};

/// Longest reason that is kept, in characters.
const REASON_LEN_MAX: usize = 300;

/// Why a directory cannot be (or stay) the replica of a set. Nothing in it was touched.
#[derive(Debug)]
pub enum OpenError {
    NotADirectory,
    /// Files of unknown origin are in it: they would be taken for the copy, or be lost.
    NotEmptyWithoutIdentity,
    /// A replica was here, by what its state says, and the directory is another one and empty: the
    /// mount point of a disk that is missing, perhaps.
    Missing,
    /// It is the replica of another set.
    OtherSet {
        found: SetId,
    },
    /// Another process has it open.
    InUse,
    /// The file system has no file handles (overlayfs): objects cannot be found again.
    NoFileHandles,
    /// Its file handles do not find an object again, for this reason.
    NoIdentities(&'static str),
    /// Objects cannot be moved between the replica and its limbo.
    LimboElsewhere,
    Io(&'static str, io::Error),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::NotADirectory => write!(f, "not a directory"),
            OpenError::NotEmptyWithoutIdentity => {
                write!(f, "the directory is not empty and is no replica: it was left untouched")
            }
            OpenError::Missing => write!(f, "the replica is not there any more"),
            OpenError::OtherSet { found } => write!(f, "the directory is the replica of set {found}"),
            OpenError::InUse => write!(f, "another process has the replica open"),
            OpenError::NoFileHandles => write!(f, "the file system has no file handles"),
            OpenError::NoIdentities(why) => {
                write!(f, "objects cannot be found again on its file system: {why}")
            }
            OpenError::LimboElsewhere => {
                write!(f, "the place for temporary files is on another file system than the replica")
            }
            OpenError::Io(what, error) => write!(f, "{what}: {error}"),
        }
    }
}

impl std::error::Error for OpenError {}

/// What to do with a directory that has content and no identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strange {
    Refuse,
    /// It becomes the replica, bad until a resynchronisation has compared everything.
    Adopt,
}

/// What the slot file keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    set: SetId,
    durable: Position,
    data: DataState,
    /// Since when the data is in this state, milliseconds since 1970.
    since_ms: u64,
    /// Why it is bad.
    reason: Option<String>,
    /// What kind of bad it is.
    #[serde(default)]
    bad_by: BadBy,
    /// Files that were emptied to make room: their content is left out until they are removed.
    #[serde(default)]
    relieved: Vec<ObjectId>,
    /// There were more of them than are named: the process that emptied them knows which.
    #[serde(default)]
    relieved_more: bool,
    /// Ops after `durable` may be in the page cache.
    dirty: bool,
    /// A copy has begun and not ended: *applied* is its position, and no state of the source.
    #[serde(default)]
    half_copied: bool,
    /// Which directory this is said of; `None` in records from before it was noted.
    #[serde(default)]
    place: Option<Place>,
    /// It was stood in for in this epoch: sources of earlier ones are kept out.
    #[serde(default)]
    fence: Option<Epoch>,
    /// The directory was marked as this replica: without a mark it is not there.
    #[serde(default = "was_marked_before")]
    marked: bool,
}

/// In records from before it was noted.
fn was_marked_before() -> bool {
    true
}

impl Record {
    /// Something was copied there, or began to be.
    fn has_content(&self) -> bool {
        self.data != DataState::Empty || self.durable != Position::default()
    }
}

/// State of the data, with since when and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DataStatus {
    pub state: DataState,
    /// Milliseconds since 1970.
    pub since_ms: u64,
    /// Why it is bad.
    pub reason: Option<String>,
    /// It is bad for nothing but objects that a copy left out.
    pub in_line: bool,
}

/// Of which set, and of which directory, the slot of a replica's state speaks. Nothing is changed.
pub fn known_of(state: &Path) -> io::Result<Option<(SetId, Option<Place>)>> {
    let record = SlotFile::<Record>::read(&state.join("slot"))?;
    Ok(record.map(|record| (record.set, record.place)))
}

/// Whether a directory was marked as the replica of this state. Where the state cannot tell, it was.
pub fn was_marked(state: &Path) -> bool {
    match SlotFile::<Record>::read(&state.join("slot")) {
        Ok(record) => record.is_some_and(|record| record.marked),
        // There is none, or it was not even begun.
        Err(error) => !matches!(
            error.kind(),
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::UnexpectedEof
        ),
    }
}

/// What the slot of a replica's state says while nobody has it open; see [`resting`].
#[derive(Clone, Debug)]
pub struct Resting {
    pub set: SetId,
    pub durable: Position,
    pub data: DataState,
    /// Why it is bad.
    pub reason: Option<String>,
    /// In which it was stood in for.
    pub fence: Option<Epoch>,
}

/// How a replica was left. Nothing is changed.
pub fn resting(state: &Path) -> io::Result<Option<Resting>> {
    let record = SlotFile::<Record>::read(&state.join("slot"))?;
    let resting =
        |Record { set, durable, data, reason, fence, .. }| Resting { set, durable, data, reason, fence };
    Ok(record.map(resting))
}

/// See the module.
pub struct Progress {
    positions: Positions,
    slot: SlotFile<Record>,
    record: Record,
    keeper: Keeper,
    /// What the root says is durable: ahead of the record while a durable point is under way.
    announced: Position,
    /// All files that are emptied, those too that the record does not name.
    relieved: HashSet<ObjectId>,
    same_page_cache: bool,
    /// What was noted of objects is of another directory than this one.
    is_elsewhere: bool,
    process: u64,
}

impl Progress {
    /// Checks whose replica it is and works out what can be proved.
    pub fn open(root: &File, state: &Path, set: SetId, strange: Strange) -> Result<Progress, OpenError> {
        let io = |what| move |error| OpenError::Io(what, error);
        let mut positions =
            Positions::open(&state.join("progress")).map_err(io("positions"))?.ok_or(OpenError::InUse)?;
        let (keeper, identity) = Keeper::find(root, state).map_err(io("identity of the replica"))?;
        let adopted = check_identity(root, set, identity, strange)?;
        let (mut slot, record) =
            SlotFile::<Record>::open(&state.join("slot")).map_err(io("position slot"))?;
        let cache = page_cache(root, state).map_err(io("boot and mount"))?;
        let record = record.filter(|record| record.set == set);
        if identity.is_none()
            && strange == Strange::Refuse
            && record.as_ref().is_some_and(Record::has_content)
        {
            return Err(OpenError::Missing);
        }
        let place = Place::of(root.as_fd());
        let noted = record.as_ref().and_then(|record| record.place.as_ref());
        let elsewhere = noted.and_then(|noted| place.differs_from(noted));
        let applied = positions
            .belongs_to(cache)
            .then(|| positions.load(Which::Applied))
            .flatten()
            .filter(|_| record.is_some());
        let before = record.as_ref().map(|record| record.durable);
        let mut proved = prove(set, record.clone(), identity, applied);
        // Whatever else is lost or was set back: each of both says it alone.
        proved.fence = highest_fence(record.as_ref(), identity);
        if adopted {
            proved = bad(proved, "its content was there before and was not compared yet", BadBy::Anything);
        }
        if let Some(why) = elsewhere.filter(|_| proved.has_content()) {
            proved = bad(proved, &format!("it was moved or restored: {why} than before"), BadBy::Anything);
        }
        proved.place = Some(place);
        proved.marked = identity.is_some();
        // The page counts only together with the replica and the slot it was stored for, and not where it
        // is behind what is durable: it was set back.
        let counts = applied.is_some_and(|applied| !proved.durable.is_ahead_of(&applied));
        let same_page_cache =
            counts && identity.is_some() && before == Some(proved.durable) && elsewhere.is_none();
        if record.as_ref() != Some(&proved) {
            slot.write(&proved).map_err(io("position slot"))?;
        }
        if !same_page_cache {
            positions.start(cache, proved.durable).map_err(io("positions"))?;
        }
        let process = random_u64();
        let mut progress = Progress {
            positions,
            slot,
            announced: proved.durable,
            relieved: proved.relieved.iter().copied().collect(),
            record: proved,
            keeper,
            same_page_cache,
            is_elsewhere: elsewhere.is_some(),
            process,
        };
        progress.write_identity(root).map_err(io("identity of the replica"))?;
        if identity.is_none() {
            // Before anything is noted of it: without this mark it would be missed.
            root.sync_all().map_err(io("identity of the replica"))?;
            let record = Record { marked: true, ..progress.record.clone() };
            progress.write_record(record).map_err(io("position slot"))?;
        }
        Ok(progress)
    }

    pub fn set(&self) -> SetId {
        self.record.set
    }

    /// Everything up to here is performed, as far as can be proved.
    pub fn applied(&self) -> Position {
        self.positions.load(Which::Applied).unwrap_or(self.record.durable)
    }

    /// The op last begun. Where it is the one after [`Progress::applied`], it is in doubt.
    pub fn begun(&self) -> Position {
        self.positions.load(Which::Begun).unwrap_or(self.record.durable)
    }

    pub fn durable(&self) -> Position {
        self.record.durable
    }

    pub fn data(&self) -> DataStatus {
        let Record { data, since_ms, ref reason, .. } = self.record;
        let in_line = self.bad_by() == Some(BadBy::Aside);
        DataStatus { state: data, since_ms, reason: reason.clone(), in_line }
    }

    /// Why it is bad, if it is.
    pub fn bad_by(&self) -> Option<BadBy> {
        (self.record.data == DataState::Bad).then_some(self.record.bad_by)
    }

    /// Random id of this process's opening of the replica.
    pub fn process(&self) -> u64 {
        self.process
    }

    /// Whether what was written before this process started, and never synced, is still there.
    pub fn same_page_cache(&self) -> bool {
        self.same_page_cache
    }

    /// What was noted of objects, by their handles, is of another directory than this one.
    pub fn is_elsewhere(&self) -> bool {
        self.is_elsewhere
    }

    /// Records that the op at this position, the one after *applied*, is being performed from now on.
    pub fn begin(&mut self, position: Position) -> io::Result<()> {
        assert!(position.follows(&self.applied()), "only the next packet is begun");
        self.be_dirty()?;
        self.positions.store(Which::Begun, position)
    }

    fn be_dirty(&mut self) -> io::Result<()> {
        if !self.record.dirty {
            self.write_record(Record { dirty: true, ..self.record.clone() })?;
        }
        Ok(())
    }

    /// Records that the op that was begun is performed. Errors: it stays in doubt.
    pub fn applied_is(&mut self, position: Position) -> io::Result<()> {
        assert_eq!(position, self.begun(), "only what was begun is applied");
        self.positions.store(Which::Applied, position)?;
        assert!(!self.record.durable.is_ahead_of(&position), "more is durable than is applied");
        Ok(())
    }

    /// As if the record of *applied* were this.
    #[cfg(test)]
    pub fn pretend_applied(&mut self, position: Position) -> io::Result<()> {
        self.positions.store(Which::Applied, position)
    }

    /// Takes a position of another history or a later one: a resynchronisation made it true. A source
    /// that names an earlier one takes back what was proved of later ones.
    pub fn adopt(&mut self, position: Position) -> io::Result<()> {
        assert_ne!(position.sequence.0, u64::MAX, "a position is adopted that no packet follows");
        self.be_dirty()?;
        if self.record.durable.is_ahead_of(&position) {
            self.write_record(Record { durable: position, ..self.record.clone() })?;
            self.announced = position;
        }
        // In this order: nothing is performed, so it must never look as if it were begun.
        self.positions.store(Which::Applied, position)?;
        self.positions.store(Which::Begun, position)
    }

    /// A copy goes on from here: what is applied from now on proves nothing before it has ended.
    pub fn begin_copy(&mut self, position: Position) -> io::Result<()> {
        assert_eq!(self.record.data, DataState::Bad, "a copy begins on a replica that is not bad");
        if !self.record.half_copied {
            self.write_record(Record { half_copied: true, ..self.record.clone() })?;
        }
        self.adopt(position)
    }

    /// A copy has begun and not ended, in this process or an earlier one.
    pub fn is_half_copied(&self) -> bool {
        self.record.half_copied
    }

    /// The replica is bad from now on for nothing but what was left out of a copy.
    pub fn mark_in_line(&mut self, reason: &str) -> io::Result<()> {
        assert_eq!(self.record.data, DataState::Bad, "a replica lacks something and was not bad before");
        let record = Record { data: DataState::Empty, half_copied: false, ..self.record.clone() };
        let record = without_relieved(record);
        self.write_record(bad(record, reason, BadBy::Aside))?;
        self.relieved.clear();
        Ok(())
    }

    /// Marks the data bad; durable when it returns. The first reason stays, of the worst kind.
    pub fn mark_bad(&mut self, root: &File, reason: &str, by: BadBy) -> io::Result<()> {
        let record = bad(self.record.clone(), reason, by);
        if record == self.record {
            return Ok(());
        }
        self.write_record(record)?;
        // The slot is the proof; the root's mark speaks only where the state directory is lost.
        if let Err(error) = self.write_identity(root).and_then(|()| root.sync_all()) {
            log::warn!("the replica's own mark 'bad' could not be written: {error}");
        }
        Ok(())
    }

    /// Marks the data bad by files that are going to be emptied; durable when it returns, in place: a
    /// full disk takes it. The record names as many as it has room for; that the others are known to
    /// this process alone it says too, and without the process everything is compared.
    pub fn relieve(&mut self, root: &File, files: &[ObjectId]) -> io::Result<()> {
        let reason = "the disk is full: files are emptied that the source has removed since";
        let mut record = bad(self.record.clone(), reason, BadBy::Relief);
        let named = files.len().min(RELIEVED_NAMED_MAX.saturating_sub(record.relieved.len()));
        record.relieved.extend(&files[..named]);
        record.relieved_more |= named < files.len();
        if record != self.record {
            self.write_record(record)?;
        }
        self.relieved.extend(files);
        if let Err(error) = self.write_identity(root) {
            log::warn!("the replica's own mark 'bad' could not be written: {error}");
        }
        Ok(())
    }

    /// A file that was emptied is gone, or empty on the source too.
    pub fn relief_is_over(&mut self, file: ObjectId) -> io::Result<()> {
        let is_last = self.relieved.len() == 1 && self.relieved.contains(&file);
        let mut record = self.record.clone();
        record.relieved.retain(|&relieved| relieved != file);
        record.relieved_more &= !is_last;
        if record != self.record {
            self.write_record(record)?;
        }
        self.relieved.remove(&file);
        Ok(())
    }

    pub fn relieved(&self) -> &HashSet<ObjectId> {
        &self.relieved
    }

    /// First half of a durable point, before the sync: the root says what is being made durable.
    pub fn announce(&mut self, root: &File, durable: Position, data: DataState) -> io::Result<()> {
        assert!(!durable.is_ahead_of(&self.applied()), "what is not applied is announced as durable");
        self.announced = durable;
        let Record { set, fence, .. } = self.record;
        self.keeper.write(root, Identity { set, durable, data, fence })
    }

    /// Second half, after the sync of everything up to `durable`: the proof.
    pub fn prove_durable(&mut self, durable: Position, data: DataState) -> io::Result<()> {
        let applied = self.applied();
        assert!(!durable.is_ahead_of(&applied), "nothing is durable that is not applied");
        let dirty = self.begun() != durable || applied != durable;
        let mut record = Record { durable, dirty, ..self.record.clone() };
        if data != record.data {
            (record.data, record.since_ms, record.reason) = (data, now_ms(), None);
            record = Record { bad_by: BadBy::default(), half_copied: false, ..record };
            record = without_relieved(record);
        }
        if record != self.record {
            self.write_record(record)?;
        }
        if data == DataState::Good {
            self.relieved.clear();
        }
        Ok(())
    }

    /// The epoch in which it was stood in for.
    pub fn fence(&self) -> Option<Epoch> {
        self.record.fence
    }

    /// Keeps out who writes in earlier epochs than this; durable when it returns.
    pub fn raise_fence(&mut self, root: &File, epoch: Epoch) -> io::Result<()> {
        assert!(epoch.raises(self.record.fence), "the fence of a replica is only ever raised");
        self.write_record(Record { fence: Some(epoch), ..self.record.clone() })?;
        self.write_identity(root)?;
        root.sync_all()
    }

    /// The index is lost: nothing of the replica can be named any more.
    pub(super) fn lose(&mut self, reason: &str) -> Result<(), OpenError> {
        if self.record.data == DataState::Empty {
            return Ok(());
        }
        let record = bad(self.record.clone(), reason, BadBy::Anything);
        self.write_record(record).map_err(|error| OpenError::Io("position slot", error))
    }

    /// Persist, then publish.
    fn write_record(&mut self, record: Record) -> io::Result<()> {
        self.slot.write(&record)?;
        self.record = record;
        Ok(())
    }

    fn write_identity(&self, root: &File) -> io::Result<()> {
        // Never less than the point under way will prove: that would look set back.
        let Record { set, data, fence, .. } = self.record;
        self.keeper.write(root, Identity { set, durable: self.announced, data, fence })
    }
}

/// Gives whether content of unknown origin is adopted.
fn check_identity(
    root: &File,
    set: SetId,
    identity: Option<Identity>,
    strange: Strange,
) -> Result<bool, OpenError> {
    match identity {
        Some(identity) if identity.set == set => Ok(false),
        Some(identity) => Err(OpenError::OtherSet { found: identity.set }),
        None if is_empty(root).map_err(|error| OpenError::Io("list the replica", error))? => Ok(false),
        None if strange == Strange::Adopt => Ok(true),
        None => Err(OpenError::NotEmptyWithoutIdentity),
    }
}

/// What is true of a replica, from what slot, root and page say.
///
/// `applied` is given where the page still counts.
fn prove(
    set: SetId,
    record: Option<Record>,
    identity: Option<Identity>,
    applied: Option<Position>,
) -> Record {
    let fresh = Record {
        set,
        durable: Position::default(),
        data: DataState::Empty,
        since_ms: now_ms(),
        reason: None,
        bad_by: BadBy::default(),
        relieved: Vec::new(),
        relieved_more: false,
        dirty: false,
        half_copied: false,
        marked: false,
        place: None,
        fence: None,
    };
    let (record, identity) = match (record, identity) {
        // An empty directory, and whatever the state directory knew of another one is void.
        (_, None) => return fresh,
        (None, Some(identity)) if identity.data == DataState::Empty => return fresh,
        (None, Some(_)) => return bad(fresh, "the state directory of the replica is lost", BadBy::Anything),
        (Some(record), Some(identity)) => (record, identity),
    };
    let reached = applied.unwrap_or(record.durable);
    let ahead = identity.durable.is_ahead_of(&reached);
    let is_elsewhere = !identity.durable.same_history(&record.durable);
    if is_elsewhere && !record.dirty || record.durable.is_ahead_of(&identity.durable) {
        let durable = identity.durable;
        return bad(
            Record { durable, ..record },
            "the replica was set back to an older state",
            BadBy::Anything,
        );
    }
    // Only the end of a copy goes over to another history, and what is copied is bad.
    if is_elsewhere && record.data == DataState::Good || ahead && (applied.is_some() || !record.dirty) {
        return bad(record, "the state directory was set back to an older state", BadBy::Anything);
    }
    if identity.data == DataState::Bad && record.data != DataState::Bad {
        return bad(record, "the replica was marked bad", BadBy::Anything);
    }
    if record.dirty && applied.is_none() {
        // Of a state of its source what has changed since may be there or not, and the source knows what that is.
        let by = if record.data == DataState::Good { BadBy::Owed } else { BadBy::Anything };
        return bad(record, "the target lost power, or its disk, before the last changes were durable", by);
    }
    if record.relieved_more {
        let reason = "the target stopped while many files were emptied to make room";
        return bad(Record { relieved_more: false, ..record }, reason, BadBy::Anything);
    }
    record
}

fn highest_fence(record: Option<&Record>, identity: Option<Identity>) -> Option<Epoch> {
    let both = [record.and_then(|record| record.fence), identity.and_then(|identity| identity.fence)];
    both.into_iter().flatten().max_by_key(|fence| fence.number)
}

/// Nothing of the replica is emptied any more.
fn without_relieved(record: Record) -> Record {
    Record { relieved: Vec::new(), relieved_more: false, ..record }
}

/// A record that is bad already changes only for the worse.
fn bad(record: Record, reason: &str, by: BadBy) -> Record {
    let is_bad = record.data == DataState::Bad;
    let is_as_bad = match record.bad_by {
        BadBy::Anything => true,
        BadBy::Aside => matches!(by, BadBy::Aside | BadBy::Relief),
        BadBy::Relief => by == BadBy::Relief,
        BadBy::Owed => by == BadBy::Owed,
    };
    if is_bad && is_as_bad {
        return record;
    }
    // What is owed together with anything else is known to nobody.
    let is_of_both = is_bad && (by == BadBy::Owed || record.bad_by == BadBy::Owed);
    let by = if is_of_both { BadBy::Anything } else { by };
    let reason = reason.chars().take(REASON_LEN_MAX).collect();
    Record { data: DataState::Bad, since_ms: now_ms(), reason: Some(reason), bad_by: by, ..record }
}

pub(super) fn is_empty(root: &File) -> io::Result<bool> {
    for entry in rustix::fs::Dir::read_from(root)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        let is_of_the_place = [RESERVED_NAME, OF_THE_DISK].iter().any(|own| own.as_bytes() == name);
        if !matches!(name, b"." | b"..") && !is_of_the_place {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Of the replica and of what is known of it: a disk that loses what was not synced takes the notes of the other with it.
fn page_cache(root: &File, state: &Path) -> io::Result<PageCache> {
    let (replica, notes) = (mount_id(root)?, mount_id(&File::open(state)?)?);
    Ok(PageCache { boot: boot_id()?, mount: replica ^ notes.rotate_left(32) })
}

/// 0 where the kernel has none.
fn mount_id(dir: &File) -> io::Result<u64> {
    /// `STATX_MNT_ID_UNIQUE` (`linux/stat.h`, since 6.8): never given twice in one boot.
    const MNT_ID_UNIQUE: StatxFlags = StatxFlags::from_bits_retain(0x4000);
    let status = rustix::fs::statx(dir, c"", AtFlags::EMPTY_PATH, MNT_ID_UNIQUE)?;
    Ok(if status.stx_mask & MNT_ID_UNIQUE.bits() != 0 { status.stx_mnt_id } else { 0 })
}

pub(super) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
