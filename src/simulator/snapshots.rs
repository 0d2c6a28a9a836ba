//! A person who links what is in the replica elsewhere, as snapshots of hard links do: such a name is no name of the
//! replica's, and whatever counts links there counts it.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::random::Random;

/// How many names each inode has outside of the replica.
pub type Outside = HashMap<u64, u32>;

/// Names at a time.
const NAMES_MAX: usize = 8;

/// See the module.
pub struct Snapshots {
    random: Random,
    /// In some runs nobody makes any.
    are_made: bool,
    place: PathBuf,
    names: Vec<PathBuf>,
    made: u64,
}

impl Snapshots {
    /// Beside the replica.
    pub fn new(mut random: Random, root: &Path) -> Snapshots {
        let place = root.with_file_name("snapshots");
        fs::create_dir(&place).unwrap();
        Snapshots { are_made: random.one_in(2), random, place, names: Vec::new(), made: 0 }
    }

    /// `true`: something is linked that was not.
    pub fn turn(&mut self, root: &Path) -> bool {
        if !self.are_made || !self.random.one_in(25) {
            return false;
        }
        if self.names.len() >= NAMES_MAX || self.random.one_in(4) {
            if !self.names.is_empty() {
                let gone = self.random.below(self.names.len() as u64) as usize;
                fs::remove_file(self.names.swap_remove(gone)).unwrap();
            }
            return false;
        }
        let mut files = Vec::new();
        collect(root, &mut files);
        let Some(file) = self.random.pick(&files) else { return false };
        self.made += 1;
        let name = self.place.join(self.made.to_string());
        let is_linked = fs::hard_link(file, &name).is_ok();
        self.names.extend(is_linked.then_some(name));
        is_linked
    }

    pub fn links(&self) -> Outside {
        let mut links = Outside::new();
        for name in &self.names {
            *links.entry(fs::symlink_metadata(name).unwrap().ino()).or_default() += 1;
        }
        links
    }
}

/// All that is no directory, in the order of names.
fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> = fs::read_dir(dir).unwrap().map(Result::unwrap).collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        match entry.file_type().unwrap().is_dir() {
            true => collect(&entry.path(), files),
            false => files.push(entry.path()),
        }
    }
}
