//! Names of one directory that were listed.

use std::path::Path;

use xxhash_rust::xxh3::xxh3_128;

use super::table::Table;
use crate::apply::fault::Fault;
use crate::limits::LISTED_NAMES_IN_MEMORY;
use crate::packet::Name;

/// 128 bits of hash stand for a name.
pub(super) struct Names(Table<()>);

impl Names {
    /// None yet; `path` is where many of them would go.
    pub(super) fn none(path: &Path) -> Names {
        Names(Table::start(path, LISTED_NAMES_IN_MEMORY))
    }

    pub(super) fn insert(&mut self, name: &Name) -> Result<(), Fault> {
        self.0.get_or_insert(xxh3_128(name.as_bytes()), ()).map_err(failed)
    }

    pub(super) fn remove(&mut self, name: &Name) -> Result<(), Fault> {
        self.0.remove(xxh3_128(name.as_bytes())).map(drop).map_err(failed)
    }

    pub(super) fn contains(&self, name: &Name) -> Result<bool, Fault> {
        Ok(self.0.get(xxh3_128(name.as_bytes())).map_err(failed)?.is_some())
    }
}

fn failed(error: std::io::Error) -> Fault {
    Fault::Own { what: "list of names", error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_names_than_memory_takes_are_all_known() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("names");
        let mut names = Names::none(&path);
        let name = |number: usize| Name::new(number.to_string().as_bytes()).unwrap();
        let count = LISTED_NAMES_IN_MEMORY + 5000;
        (0..count).for_each(|number| names.insert(&name(number)).unwrap());
        assert!(path.exists());
        assert!((0..count).all(|number| names.contains(&name(number)).unwrap()));
        assert!((count..count + 5000).all(|number| !names.contains(&name(number)).unwrap()));
        drop(names);
        assert!(!path.exists());
    }
}
