//! What a source keeps on disk about a set: its id, who writes, how it was left.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::activity::Merge;
use super::backlog::LeftQueue;
use super::identity::{Found, Label, Stamp};
use super::kept::Kept;
use super::mark::{Clock, EVERYTHING, Mark, PageCache, Reached};
use crate::activity::{Found as LeftLog, Known as LeftHot};
use crate::connection::Wish;
use crate::control::unix_ms;
use crate::limits::RUNS_KEPT;
use crate::locked::{LOOKED_FOR, Locked};
use crate::packet::{Epoch, History, Incarnation, Position, Sequence, SetId};
use crate::place::Place;
use crate::sets::Rules;
use crate::store;
use crate::target_side::OtherWriter;
use crate::words::{OwnedBy, Target};

#[cfg(test)]
mod tests;

/// The document `set.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SetRecord {
    pub set: SetId,
    pub epoch: Epoch,
    /// The protected tree, for people and against mix-ups.
    #[serde(with = "crate::control::path_text")]
    pub tree: PathBuf,
    /// Which directory that was; `None` in records from before it was noted.
    #[serde(default)]
    pub place: Option<Place>,
    /// Epoch of the ids that objects get here: raised beyond the writer's where another directory
    /// takes the tree's place, whose inode numbers may be the same. `None`: the writer's.
    #[serde(default)]
    pub birth_epoch: Option<u32>,
    /// The directory was a copy of this set's when it was protected first.
    #[serde(default)]
    pub copy_of: Option<SetId>,
    /// For each target, as it was typed: it had everything that happened before.
    #[serde(default)]
    pub marks: BTreeMap<String, Mark>,
    /// For each target, as it was typed; those that no start names any more stay.
    #[serde(default)]
    pub connections: BTreeMap<String, ConnectionRecord>,
    /// The runs, the newest last: positions of a target are of one of them.
    #[serde(default)]
    pub runs: Vec<Incarnation>,
    /// The directory carries one of these, as far as it was noted: another one is of an earlier state of its
    /// file system.
    #[serde(default)]
    pub stamps: Vec<Stamp>,
    /// The last run ended in an orderly way, and what it had changed is on this disk.
    #[serde(default)]
    pub settled: bool,
    /// Where the changes of the last run are as long as it has not settled.
    #[serde(default)]
    pub page_cache: Option<PageCache>,
    /// What the last run has queued and not sent.
    #[serde(default)]
    pub left: Option<LeftQueue>,
    /// The host has lost power, and some target was not brought into line since.
    #[serde(default)]
    pub merging: Option<Merging>,
    /// Why everything has to be compared, whatever the times say: a change could not be captured.
    #[serde(default)]
    pub diverged: Option<String>,
    /// Somebody may have changed something past the mount: the next copies look at everything.
    #[serde(default)]
    pub touched: bool,
    /// The rules by which every target was brought into line.
    #[serde(default)]
    pub rules: Rules,
    /// By what their owners were told.
    #[serde(default)]
    pub owners: OwnedBy,
    /// The directory was restored from this target, as it was typed, and the target was not brought into
    /// line since.
    #[serde(default)]
    pub restored_from: Option<String>,
    /// Its replica was given as of this: what it has as of anything else is nothing that is known here.
    #[serde(default)]
    pub restored_at: Option<Position>,
    /// The directory is a replica of the set, and is served in its source's place.
    #[serde(default)]
    pub stands_in: bool,
    /// This host was the set's source before it stood in: it is home.
    #[serde(default)]
    pub came_home: bool,
    /// A target has said that somebody else writes the set: nothing may be changed here before a person says so.
    #[serde(default)]
    pub fenced: Option<FencedRecord>,
    /// The epochs that led to this one.
    #[serde(default)]
    pub history: History,
    /// Somebody else writes the set, too, and a person has to name the one to keep.
    #[serde(default)]
    pub other_writer: Option<OtherWriter>,
}

/// What is kept of a fence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FencedRecord {
    /// In which the set is written.
    pub epoch: Epoch,
    /// The target that said so, as it was typed.
    pub told_by: String,
    pub since_unix_ms: u64,
}

/// What is known of runs that a power loss has ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Merging {
    /// Nothing was sent above these.
    pub ceilings: Vec<Reached>,
}

/// What a replica says of itself to who wants to stand in with it.
pub struct Known {
    pub set: SetId,
    /// The epoch in which it was stood in for before.
    pub fence: Option<Epoch>,
    /// What was written last in it.
    pub applied: Position,
    /// The epochs that led to what is in it.
    pub history: History,
    /// Those of its sources, the oldest first, as the last one has said.
    pub runs: Vec<Incarnation>,
}

/// What stays of a connection over a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionRecord {
    /// 32 hexadecimal digits.
    pub uuid: String,
    /// The target has answered a start before: one that is away does not keep the next from coming up.
    #[serde(default)]
    pub answered: bool,
    /// No start names it any more, or a person has disconnected it.
    #[serde(default)]
    pub disconnected: bool,
    /// A person has added it while the directory was protected; starts need not name it.
    #[serde(default)]
    pub added: bool,
    #[serde(flatten)]
    pub kept: Kept,
}

impl SetRecord {
    /// The connection to this target: as it was, or a new one.
    pub fn connection(&mut self, target: &Target) -> &ConnectionRecord {
        let connection = self.connections.entry(target.to_string()).or_insert_with(ConnectionRecord::new);
        connection.disconnected = false;
        connection
    }

    /// Targets that were added while the directory was protected, beside those that a start names: those are its
    /// own from here on.
    pub fn added_beside(&mut self, named: &[Target]) -> Vec<Target> {
        let is_named = |target: &String| named.iter().any(|named| named.to_string() == *target);
        self.connections
            .iter_mut()
            .filter(|(target, _)| is_named(target))
            .for_each(|(_, known)| known.added = false);
        let added = self.connections.iter().filter(|(_, known)| known.added && !known.disconnected);
        added.filter_map(|(target, _)| target.parse().ok()).collect()
    }

    /// A person has added this target, which has answered unless it waits for its schedule.
    pub fn add(&mut self, target: &Target, uuid: &str, answered: bool) {
        let known = self.connections.entry(target.to_string()).or_insert_with(ConnectionRecord::new);
        (known.uuid, known.added, known.disconnected) = (uuid.to_owned(), true, false);
        known.answered |= answered;
    }

    /// Notes which targets a start does not name any more; gives those that the one before it had.
    pub fn disconnect_all_but(&mut self, named: &[Target]) -> Vec<String> {
        let named: Vec<String> = named.iter().map(Target::to_string).collect();
        let left = self.connections.iter_mut().filter(|(target, _)| !named.contains(target));
        left.filter_map(|(target, connection)| {
            (!std::mem::replace(&mut connection.disconnected, true)).then(|| target.clone())
        })
        .collect()
    }

    /// What a person wants of the connection to this target.
    pub fn wish(&self, target: &Target) -> Wish {
        self.connections.get(&target.to_string()).map(|connection| connection.kept.wish).unwrap_or_default()
    }

    /// Whether this target has answered an earlier start.
    pub fn has_answered(&self, target: &Target) -> bool {
        let target = target.to_string();
        let is_restored = self.restored_from.as_ref() == Some(&target);
        // Records from before it was noted have marks; one that was restored from says nothing by its own.
        !is_restored && self.marks.contains_key(&target)
            || self.connections.get(&target).is_some_and(|connection| connection.answered)
    }

    /// The epochs that led to the one that is written in.
    pub fn history(&self) -> History {
        self.history.clone().of_epoch(self.epoch)
    }

    /// Where the history ends that is written here: what was `applied` before, or all of what the last run here has
    /// written in an epoch of its own. Nobody who has that epoch from here has more.
    pub fn end_of(&self, own: &History, applied: Position) -> Position {
        let written = own.last().filter(|epoch| *epoch == self.epoch && applied.epoch != self.epoch);
        match (written, self.runs.last()) {
            (Some(epoch), Some(run)) => {
                Position { sequence: Sequence(u64::MAX), ..Position::origin(epoch, *run) }
            }
            (None, _) | (_, None) => applied,
        }
    }

    pub fn birth_epoch(&self) -> u32 {
        self.birth_epoch.unwrap_or(self.epoch.number)
    }

    /// Whether the replica is this stand-in's already, and has been nobody else's since. A record that was raised
    /// alone keeps nobody out: its source may have come and gone.
    pub fn goes_on_standing_in(&self, known: &Known) -> bool {
        let is_own = self.stands_in && self.set == known.set && known.fence == Some(self.epoch);
        is_own && self.written_elsewhere(known).is_none()
    }

    /// The epoch in which the set is written elsewhere as far as this host has heard, where nothing of that has come
    /// to the replica.
    pub fn written_elsewhere(&self, known: &Known) -> Option<Epoch> {
        let fenced = self.fenced.as_ref().filter(|_| self.set == known.set)?;
        (fenced.epoch.number > known.fence.map_or(0, |fence| fence.number)).then_some(fenced.epoch)
    }

    /// The highest epoch that is known here of the set.
    pub fn highest_epoch(&self, known: &Known) -> u32 {
        let heard_of = self.fenced.as_ref().map_or(0, |fenced| fenced.epoch.number);
        let fence = known.fence.map_or(0, |fence| fence.number);
        self.epoch.number.max(fence).max(known.applied.epoch.number).max(heard_of)
    }

    /// Notes that no time says what a target has; answers whether that is new.
    pub fn diverge(&mut self, why: &str) -> bool {
        let is_new = self.diverged.is_none() || !self.marks.is_empty();
        self.diverged.get_or_insert_with(|| why.to_owned());
        self.forget_moments();
        self.settled = false;
        is_new
    }

    /// No moment says any more what a target has.
    pub fn forget_moments(&mut self) {
        self.marks.clear();
        (self.restored_from, self.restored_at) = (None, None);
        (self.merging, self.left) = (None, None);
        self.connections.values_mut().for_each(|connection| connection.kept.first_copy = None);
    }

    /// Keeps of what moments say only what the clock bears out.
    fn retain_moments(&mut self, left: &Left, clock: &Clock) {
        let counts = !matches!(left, Left::Unknown);
        self.marks.retain(|_, mark| counts && mark.suspect_since(clock) != EVERYTHING);
        // What a copy had sent of what it was at, and the disk has not, no log knows.
        let is_here = matches!(left, Left::Here { .. });
        for connection in self.connections.values_mut() {
            connection.kept.first_copy.take_if(|copy| !is_here || !copy.counts(clock));
        }
    }

    /// What is in doubt on targets whose marks count, of what the log has told.
    pub fn merge_of(&self, known: &LeftHot) -> Option<Arc<Merge>> {
        let merging = self.merging.as_ref()?;
        Some(Arc::new(Merge::of(known, &merging.ceilings, &self.runs)))
    }

    /// How the last run has left the directory.
    fn left(&mut self, is_here: bool, found: &LeftLog) -> Left {
        let is_merging = self.merging.is_some();
        let carried = || found.carried.as_ref().ok().cloned();
        match is_here {
            true if !is_merging => Left::Here { owed: None },
            true => carried().map_or(Left::Unknown, |known| Left::Here { owed: Some(known) }),
            false => self.left_by_power_loss(found).map_or(Left::Unknown, Left::Logged),
        }
    }

    /// What its log says, if that is all: nobody was seen to write past it.
    fn left_by_power_loss(&mut self, found: &LeftLog) -> Option<LeftHot> {
        let known = match &found.all {
            Err(why) => {
                log::info!("the activity log does not say what a power loss has left: {why}");
                return None;
            }
            Ok(_) if self.touched || self.restored_from.is_some() => return None,
            Ok(known) => known.clone(),
        };
        let run = *self.runs.last()?;
        self.merging.get_or_insert_default().ceilings.push(Reached { run, sequence: known.ceiling });
        // Who is named no more is in line with nothing.
        let connections = &self.connections;
        self.marks.retain(|target, _| connections.get(target).is_some_and(|known| !known.disconnected));
        Some(known)
    }
}

impl ConnectionRecord {
    fn new() -> ConnectionRecord {
        let uuid = format!("{:032x}", store::random_u128());
        ConnectionRecord { uuid, answered: false, disconnected: false, added: false, kept: Kept::default() }
    }
}

/// How a run has left the directory.
enum Left {
    /// As it was shown to targets, but for what was owed then.
    Here {
        owed: Option<LeftHot>,
    },
    /// Behind them in what its log says.
    Logged(LeftHot),
    Unknown,
}

/// The record of a set and where it lies. Dropped, another daemon may take over.
pub struct SetState {
    path: PathBuf,
    pub record: SetRecord,
    /// The name stood for nothing before.
    is_new: bool,
    /// Locked while this daemon runs: two daemons would write one record.
    _lock: Locked,
}

/// Why there is no state to work with.
#[derive(Debug)]
pub enum StateError {
    /// A daemon that runs has locked it.
    InUse,
    /// The name belongs to another tree, and this one does not say that it is the same set.
    OtherTree(PathBuf),
    /// The directory is not the one that the set was made of, and why.
    NotTheSource(&'static str),
    Io(io::Error),
}

impl From<io::Error> for StateError {
    fn from(error: io::Error) -> StateError {
        StateError::Io(error)
    }
}

/// What to do with a directory that is not the one that a set was made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stranger {
    /// It may be the mount point of a disk that is missing: the replica would be emptied.
    Refuse,
    /// It is the set's directory from now on.
    Adopt,
}

const NO_STAND_IN: &str = "it does not stand in";

impl SetState {
    /// Reads the record, or makes one for a set that is protected for the first time. `found` is
    /// what the backing directory says of itself.
    ///
    /// Errors: another daemon has it; the name was given to another tree, whose replica would be
    /// overwritten with this one; the directory is not the one that was protected before.
    pub fn open(dir: &Path, tree: &Path, found: &Found, stranger: Stranger) -> Result<SetState, StateError> {
        let lock = lock(dir)?;
        let path = dir.join("set.json");
        let found_record = store::read_json::<SetRecord>(&path)?;
        let is_new = found_record.is_none();
        let mut record = match found_record {
            Some(record) => taken_up(record, tree, found, stranger)?,
            None => fresh(tree, found, stranger),
        };
        record.tree = tree.to_owned();
        record.place = Some(found.place.clone());
        Ok(SetState { path, record, is_new, _lock: lock })
    }

    /// Takes the record of a set that is there, of which no daemon runs.
    ///
    /// Errors: [`StateError::NotTheSource`]: there is none, or it does not stand in.
    pub fn take(dir: &Path) -> Result<SetState, StateError> {
        let state = SetState::take_ended(dir)?;
        if state.record.stands_in { Ok(state) } else { Err(StateError::NotTheSource(NO_STAND_IN)) }
    }

    /// As [`SetState::take`], of whatever stands in or does not.
    pub fn take_ended(dir: &Path) -> Result<SetState, StateError> {
        let path = dir.join("set.json");
        if !path.exists() {
            return Err(StateError::NotTheSource(NO_STAND_IN));
        }
        let lock = lock(dir)?;
        let record = store::read_json::<SetRecord>(&path)?;
        let record = record.ok_or(StateError::NotTheSource(NO_STAND_IN))?;
        Ok(SetState { path, record, is_new: false, _lock: lock })
    }

    /// A person has kept this history, in this epoch above the others. To be saved.
    pub fn keep(&mut self, epoch: Epoch, history: History) {
        self.record.forget_moments();
        let SetRecord { fenced, .. } = &mut self.record;
        fenced.take_if(|fenced| fenced.epoch.number < epoch.number);
        (self.record.epoch, self.record.history, self.record.other_writer) = (epoch, history, None);
    }

    /// The name stood for nothing before.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// Whether the record is on disk.
    pub fn exists(&self) -> bool {
        self.path.exists()
    }

    /// Takes the record away: the name stands for nothing again.
    ///
    /// Errors: the system's; it may still be there.
    pub fn remove(&self) -> io::Result<()> {
        std::fs::remove_file(&self.path)
    }

    /// Makes the record durable.
    pub fn save(&self) -> io::Result<()> {
        store::replace_json(&self.path, &self.record)
    }

    /// The record is that of a stand-in from now on, in an epoch higher than all that are known; objects are
    /// born in one that none of the replica's was born in. To be saved.
    ///
    /// Errors: the name stands for another set.
    pub fn stand_in(&mut self, known: &Known, newest_birth: u32) -> Result<(), StateError> {
        if !self.is_new && self.record.set != known.set {
            return Err(StateError::OtherTree(self.record.tree.clone()));
        }
        let too_high = || StateError::NotTheSource("no higher epoch is left");
        let number = self.record.highest_epoch(known).checked_add(1).ok_or_else(too_high)?;
        let birth_epoch = number.max(newest_birth.checked_add(1).ok_or_else(too_high)?);
        // Never one that was there before: a host that was set back to an older image raises the same number again.
        let writer = store::random_u64();
        self.record.forget_moments();
        let mut history = known.history.clone();
        history.raise(Epoch { number, writer }, unix_ms(SystemTime::now()), known.applied);
        self.record = SetRecord {
            set: known.set,
            history,
            other_writer: None,
            epoch: Epoch { number, writer },
            birth_epoch: Some(birth_epoch),
            copy_of: None,
            diverged: None,
            stands_in: true,
            // A new record is of a host that only had the replica.
            came_home: !self.is_new && (self.record.came_home || !self.record.stands_in),
            fenced: None,
            runs: known.runs.clone(),
            ..self.record.clone()
        };
        Ok(())
    }

    /// A run begins, with its changes in this page cache. What the marks say counts for it only
    /// if the last run left the directory as it had shown it to its targets. What does not count
    /// now never counts again: the copy that makes it good may be interrupted. Gives what is owed to targets whose
    /// marks count, whatever times say.
    pub fn begin(
        &mut self,
        run: Incarnation,
        page_cache: Option<PageCache>,
        clock: &Clock,
        found: &LeftLog,
    ) -> Option<LeftHot> {
        let cache = self.record.page_cache.take();
        let is_here = self.record.settled || cache.is_some_and(|cache| cache.is_still(page_cache.as_ref()));
        let left = self.record.left(is_here, found);
        self.record.retain_moments(&left, clock);
        // It may hold what the directory's disk has lost.
        if !matches!(left, Left::Here { owed: None }) {
            self.record.left.iter_mut().for_each(|left| left.targets.clear());
        }
        if self.record.marks.is_empty() {
            self.record.merging = None;
        }
        if self.record.runs.last() != Some(&run) {
            self.record.runs.push(run);
        }
        let forgotten = self.record.runs.len().saturating_sub(RUNS_KEPT);
        self.record.runs.drain(..forgotten);
        self.record.settled = false;
        self.record.page_cache = page_cache;
        match left {
            Left::Here { owed } => owed,
            Left::Logged(known) => Some(known),
            Left::Unknown => {
                self.record.merging = None;
                None
            }
        }
        .filter(|_| self.record.merging.is_some())
    }
}

/// The state of a name while a directory is restored under it: nobody else has it meanwhile.
pub struct Restoring {
    dir: PathBuf,
    record: Option<SetRecord>,
    /// By what the owners of what comes are told.
    pub owners: OwnedBy,
    _lock: Locked,
}

impl Restoring {
    /// Takes the state of a name for a set.
    ///
    /// Errors: as [`SetState::open`]; [`StateError::OtherTree`] where the name is another set's.
    pub fn begin(dir: &Path, set: SetId) -> Result<Restoring, StateError> {
        let lock = lock(dir)?;
        let record = store::read_json::<SetRecord>(&dir.join("set.json"))?;
        match record {
            Some(record) if record.set != set => Err(StateError::OtherTree(record.tree)),
            record => {
                let owners = OwnedBy::default();
                Ok(Restoring { dir: dir.to_owned(), record, owners, _lock: lock })
            }
        }
    }

    /// Whether the name stands for a set already.
    pub fn is_known(&self) -> bool {
        self.record.is_some()
    }

    /// The directory is the set's from now on. The target has everything that it has as of the mark, while it
    /// is as of the position; without them everything is to be compared.
    pub fn done(
        self,
        set: SetId,
        tree: &Path,
        found: &Found,
        from: &str,
        mark: Option<(Mark, Position)>,
    ) -> io::Result<()> {
        let (mark, restored_at) = mark.unzip();
        let mut record = self.record.unwrap_or_else(|| SetRecord {
            // Ids of the directory before, which the target knows, are never taken for those of this one.
            birth_epoch: Some((store::random_u64() >> 40) as u32 + 2),
            ..fresh(tree, found, Stranger::Refuse)
        });
        record.forget_moments();
        let record = SetRecord {
            set,
            copy_of: None,
            stamps: Vec::new(),
            tree: tree.to_owned(),
            place: Some(found.place.clone()),
            birth_epoch: Some(record.birth_epoch().saturating_add(1)),
            settled: true,
            page_cache: None,
            merging: None,
            diverged: None,
            touched: false,
            rules: Rules::default(),
            owners: self.owners,
            restored_from: mark.is_some().then(|| from.to_owned()),
            restored_at,
            marks: mark.into_iter().map(|mark| (from.to_owned(), mark)).collect(),
            ..record
        };
        store::replace_json(&self.dir.join("set.json"), &record)
    }
}

fn lock(dir: &Path) -> Result<Locked, StateError> {
    store::own_directory(dir, 0o700, store::Symlink::Own)?;
    Locked::within(File::create(dir.join("lock"))?, LOOKED_FOR)?.ok_or(StateError::InUse)
}

/// A record for a directory that is protected for the first time here. Where it says whose it is,
/// only the state was lost: the set is the same, and nothing is known of its targets. A copy of such a
/// directory is another set, whose targets take it for no other; or it takes the place of the first one,
/// with ids of its own: its inode numbers may be those of other objects there.
fn fresh(tree: &Path, found: &Found, stranger: Stranger) -> SetRecord {
    let original = match found.label {
        Label::Set(set) => Some(set),
        Label::None | Label::Impossible => None,
    };
    let copy_of = original.filter(|_| found.is_copy);
    let record = SetRecord {
        set: original.filter(|_| !found.is_copy).unwrap_or_else(|| SetId(store::random_u128())),
        epoch: Epoch { number: 1, writer: store::random_u64() },
        tree: tree.to_owned(),
        place: None,
        birth_epoch: None,
        copy_of,
        marks: BTreeMap::new(),
        connections: BTreeMap::new(),
        runs: Vec::new(),
        stamps: Vec::new(),
        settled: false,
        page_cache: None,
        left: None,
        merging: None,
        diverged: None,
        touched: false,
        rules: Rules::default(),
        owners: OwnedBy::default(),
        restored_from: None,
        restored_at: None,
        stands_in: false,
        fenced: None,
        history: History::default(),
        came_home: false,
        other_writer: None,
    };
    if stranger == Stranger::Adopt { in_place_of_the_first(record) } else { record }
}

/// A copy of a set's directory takes the place of that one, unless it has become a set of its own. Its
/// objects get ids that no other ones have had.
fn in_place_of_the_first(record: SetRecord) -> SetRecord {
    let is_own = record.connections.values().any(|connection| connection.answered);
    match record.copy_of {
        Some(set) if !is_own => SetRecord {
            set,
            copy_of: None,
            birth_epoch: Some(store::random_u64() as u32 >> 2 | 1 << 30),
            marks: BTreeMap::new(),
            ..record
        },
        Some(_) | None => record,
    }
}

/// What the targets were shown since is not in it.
fn put_back(record: &SetRecord, found: &Found) -> Option<&'static str> {
    let is_known = found.stamp.is_some_and(|stamp| record.stamps.contains(&stamp));
    (!record.stamps.is_empty() && !is_known)
        .then_some("its file system, or what is known of it (--state), was put back to an earlier state")
}

/// The record for the directory that was found: as it is, or with nothing known of it any more
/// where another directory is adopted.
fn taken_up(
    record: SetRecord,
    tree: &Path,
    found: &Found,
    stranger: Stranger,
) -> Result<SetRecord, StateError> {
    let doubt = match (found.label, &record.place) {
        (Label::Set(set), _) if set != record.set => Some("it belongs to another set"),
        // Between the record of a stand-in and the first mount of it the directory carries a replica's mark.
        (Label::None, _) if record.stands_in && found.replica_of == Some(record.set) => None,
        (Label::None, _) => Some("it does not carry the set's mark"),
        (Label::Impossible, None) => (record.tree != tree).then_some("it was never protected"),
        (Label::Set(_), None) => None,
        (Label::Set(_), Some(place)) => found.place.differs_from(place).or_else(|| put_back(&record, found)),
        (Label::Impossible, Some(place)) => found.place.differs_from(place),
    };
    match (doubt, stranger) {
        (None, Stranger::Refuse) => Ok(record),
        (None, Stranger::Adopt) => Ok(in_place_of_the_first(record)),
        (Some(_), Stranger::Refuse) if record.tree != tree => Err(StateError::OtherTree(record.tree)),
        (Some(why), Stranger::Refuse) => Err(StateError::NotTheSource(why)),
        (Some(_), Stranger::Adopt) => {
            let birth_epoch = Some(record.birth_epoch().saturating_add(1));
            let stamps = Vec::new();
            let mut adopted = SetRecord { birth_epoch, settled: false, page_cache: None, stamps, ..record };
            adopted.forget_moments();
            Ok(adopted)
        }
    }
}

/// A directory name for what belongs to the replica at this path: readable, and its own.
pub fn directory_name(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    let bytes = path.as_os_str().as_bytes();
    let name: String = path
        .file_name()
        .map(|name| name.to_string_lossy().chars().filter(char::is_ascii_alphanumeric).take(32).collect())
        .unwrap_or_default();
    format!("{name}-{:016x}", xxhash_rust::xxh3::xxh3_64(bytes))
}
