//! What a source keeps on disk about a set: its id, who writes, how it was left.

use std::collections::BTreeMap;
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
    pub tree: PathBuf,
    /// For each target, as it was typed: it had everything that happened before this moment.
    pub synced_as_of: BTreeMap<String, Timestamp>,
    /// The last run ended in an orderly way with every target up to date.
    pub stopped_cleanly: bool,
}

/// The record of a set and where it lies.
pub struct SetState {
    path: PathBuf,
    pub record: SetRecord,
}

impl SetState {
    /// Reads the record, or makes one for a set that is protected for the first time. `known` is
    /// the id that the backing directory carries, if any.
    pub fn open(dir: &Path, tree: &Path, known: Option<SetId>) -> io::Result<SetState> {
        std::fs::create_dir_all(dir)?;
        let path = dir.join("set.json");
        let record =
            store::read_json::<SetRecord>(&path)?.filter(|record| known.is_none_or(|set| set == record.set));
        let record = record.unwrap_or_else(|| SetRecord {
            set: known.unwrap_or_else(|| SetId(store::random_u128())),
            epoch: Epoch { number: 1, writer: store::random_u64() },
            tree: tree.to_owned(),
            synced_as_of: BTreeMap::new(),
            stopped_cleanly: false,
        });
        Ok(SetState { path, record })
    }

    /// Makes the record durable.
    pub fn save(&self) -> io::Result<()> {
        store::replace_json(&self.path, &self.record)
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
