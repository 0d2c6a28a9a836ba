//! What a source keeps on disk about a set: its id, who writes, how it was left.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::packet::{Epoch, SetId, Timestamp};
use crate::store;

/// Clocks of a file system tick coarser than the system's: what happened this long before a
/// moment still counts as after it.
const CLOCK_SLACK: Duration = Duration::from_secs(2);

/// The document `set.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SetRecord {
    pub set: SetId,
    pub epoch: Epoch,
    /// The protected tree, for people and against mix-ups.
    #[serde(with = "crate::control::path_text")]
    pub tree: PathBuf,
    /// For each target, as it was typed: it had everything that happened before this moment.
    pub synced_as_of: BTreeMap<String, Timestamp>,
    /// The last run ended in an orderly way with every target up to date.
    pub stopped_cleanly: bool,
    /// Why everything has to be compared, whatever the times say: a change could not be captured.
    #[serde(default)]
    pub diverged: Option<String>,
}

/// The record of a set and where it lies.
pub struct SetState {
    path: PathBuf,
    pub record: SetRecord,
    /// Locked while this daemon runs: two daemons would write one record.
    lock: Option<File>,
}

/// Why there is no state to work with.
#[derive(Debug)]
pub enum StateError {
    /// A daemon that runs has locked it.
    InUse,
    /// The name belongs to another tree, and this one does not say that it is the same set.
    OtherTree(PathBuf),
    Io(io::Error),
}

impl From<io::Error> for StateError {
    fn from(error: io::Error) -> StateError {
        StateError::Io(error)
    }
}

impl SetState {
    /// Reads the record, or makes one for a set that is protected for the first time. `known` is
    /// the id that the backing directory carries, if any.
    ///
    /// Errors: another daemon has it; the name was given to another tree, whose replica would be
    /// overwritten with this one.
    pub fn open(dir: &Path, tree: &Path, known: Option<SetId>) -> Result<SetState, StateError> {
        std::fs::create_dir_all(dir)?;
        let lock = File::create(dir.join("lock"))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => StateError::InUse,
            TryLockError::Error(error) => StateError::Io(error),
        })?;
        let path = dir.join("set.json");
        let record = store::read_json::<SetRecord>(&path)?;
        if let Some(record) = &record
            && record.tree != tree
            && known != Some(record.set)
        {
            return Err(StateError::OtherTree(record.tree.clone()));
        }
        let record = record.filter(|record| known.is_none_or(|set| set == record.set));
        let mut record = record.unwrap_or_else(|| SetRecord {
            set: known.unwrap_or_else(|| SetId(store::random_u128())),
            epoch: Epoch { number: 1, writer: store::random_u64() },
            tree: tree.to_owned(),
            synced_as_of: BTreeMap::new(),
            stopped_cleanly: false,
            diverged: None,
        });
        record.tree = tree.to_owned();
        Ok(SetState { path, record, lock: Some(lock) })
    }

    /// Nothing is written any more: another daemon may take over.
    pub fn unlock(&mut self) {
        self.lock = None;
    }

    /// Makes the record durable.
    pub fn save(&self) -> io::Result<()> {
        store::replace_json(&self.path, &self.record)
    }

    /// Notes that no time says what a target has; answers whether that is new.
    pub fn diverge(&mut self, why: &str) -> bool {
        let is_new = self.record.diverged.is_none() || !self.record.synced_as_of.is_empty();
        self.record.diverged.get_or_insert_with(|| why.to_owned());
        self.record.synced_as_of.clear();
        self.record.stopped_cleanly = false;
        is_new
    }

    /// What changed at this moment or later may be missing on the target although size and
    /// mtime are the same. A target that was never in sync gets the beginning of time.
    pub fn suspect_since(&self, target: &str) -> Timestamp {
        self.record
            .synced_as_of
            .get(target)
            .copied()
            .unwrap_or(Timestamp { seconds: i64::MIN, nanoseconds: 0 })
    }
}

/// This moment as a bound for change times, on the safe side.
pub fn now_with_slack() -> Timestamp {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(CLOCK_SLACK);
    Timestamp { seconds: now.as_secs() as i64, nanoseconds: now.subsec_nanos() }
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;

    /// A second directory with the same last name took over the first one's set: its replica was
    /// overwritten with other content, without a word.
    #[test]
    fn a_name_stays_with_its_tree() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Path::new(std::ffi::OsStr::from_bytes(b"/srv/\xff/data"));
        let mut state = SetState::open(dir.path(), tree, None).unwrap();
        let set = state.record.set;
        state.save().unwrap();
        assert!(matches!(SetState::open(dir.path(), tree, None), Err(StateError::InUse)));
        state.unlock();
        let other = Path::new("/home/data");
        let refused = SetState::open(dir.path(), other, None);
        assert!(matches!(refused, Err(StateError::OtherTree(first)) if first == tree));
        let refused = SetState::open(dir.path(), other, Some(SetId(7)));
        assert!(matches!(refused, Err(StateError::OtherTree(_))));
        // The tree itself, emptied and without its mark; the tree at another place, with its mark.
        for (place, known) in [(tree, None), (other, Some(set))] {
            let mut state = SetState::open(dir.path(), place, known).unwrap();
            assert_eq!(state.record.set, set);
            state.unlock();
        }
    }

    /// A change that could not be captured was forgotten with the process: the next start believed
    /// the times, and the replica stayed without it for good.
    #[test]
    fn after_a_divergence_no_time_is_believed() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Path::new("/srv/data");
        let mut state = SetState::open(dir.path(), tree, None).unwrap();
        let moment = Timestamp { seconds: 7, nanoseconds: 0 };
        state.record.synced_as_of.insert("local:/r".into(), moment);
        assert_eq!(state.suspect_since("local:/r"), moment);
        assert!(state.diverge("write: I/O error"));
        assert!(!state.diverge("another"), "once is enough");
        state.save().unwrap();
        state.unlock();
        let state = SetState::open(dir.path(), tree, None).unwrap();
        assert_eq!(state.suspect_since("local:/r").seconds, i64::MIN);
        assert_eq!(state.record.diverged.as_deref(), Some("write: I/O error"));
    }

    /// Records from before this was noted are read as they are.
    #[test]
    fn a_record_without_the_mark_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Path::new("/srv/data");
        let state = SetState::open(dir.path(), tree, None).unwrap();
        let text = serde_json::to_string(&state.record).unwrap();
        let old = text.replace(",\"diverged\":null", "");
        assert_ne!(old, text);
        std::fs::write(dir.path().join("set.json"), old).unwrap();
        drop(state);
        assert_eq!(SetState::open(dir.path(), tree, None).unwrap().record.diverged, None);
    }
}
