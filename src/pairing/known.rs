//! The source's record of its targets: which key each must show.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::store;
use crate::words::Fingerprint;

/// Name of the document in the state directory.
const FILE: &str = "targets.json";

/// A target that this host is paired with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownTarget {
    pub fingerprint: Fingerprint,
    pub since_unix_ms: u64,
}

/// The document. Targets are named as they are typed: `standin://host:port/repset`.
pub struct Known {
    path: PathBuf,
}

impl Known {
    pub fn in_state(state: &Path) -> Known {
        Known { path: state.join(FILE) }
    }

    /// Read anew each time: a pairing counts at once, for a running daemon too.
    pub fn get(&self, target: &str) -> io::Result<Option<KnownTarget>> {
        Ok(self.read()?.remove(target))
    }

    /// Whether a key is one of these targets'.
    pub fn has_key(&self, key: &Fingerprint) -> io::Result<bool> {
        Ok(self.read()?.values().any(|known| known.fingerprint == *key))
    }

    /// All of them, as they were typed.
    pub fn targets(&self) -> io::Result<Vec<String>> {
        Ok(self.read()?.into_keys().collect())
    }

    /// Adds or replaces a target; durable when it returns.
    pub fn put(&self, target: &str, known: KnownTarget) -> io::Result<()> {
        let dir = self.path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        let lock = std::fs::File::open(dir)?;
        lock.lock()?;
        let mut all = self.read()?;
        all.insert(target.to_owned(), known);
        store::replace_json(&self.path, &all)
    }

    fn read(&self) -> io::Result<BTreeMap<String, KnownTarget>> {
        Ok(store::read_json(&self.path)?.unwrap_or_default())
    }
}
