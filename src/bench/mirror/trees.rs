//! What is copied: many small files, and a large one whose blocks change.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::super::content::Block;
use super::super::error::{Context, Error, Result};
use super::super::load::{check_files, create_files, names, write_pages};
use super::super::place::Workshop;
use super::{MirrorSizes, Tree};

/// Files in one directory.
const FILES_PER_DIRECTORY: u64 = 1000;

const LARGE: &str = "large";

/// Number in the stamps of the large file as it is at first; each change has the next one.
const FIRST: u64 = 1;

const PAGE: u64 = 4096;

/// A page is changed in one of a hundred blocks of this length, in bytes.
const BLOCK: u64 = 64 << 10;
const BLOCKS_PER_CHANGE: u64 = 100;

/// Pages of the large file that are looked at.
const PAGES_CHECKED: u64 = 512;

/// Both trees, side by side.
pub struct Trees {
    small: PathBuf,
    large: PathBuf,
    sizes: MirrorSizes,
    /// How often the large file has changed; each time other pages of the same blocks.
    changes: Vec<u64>,
}

impl Trees {
    pub fn make(workshop: &Workshop, sizes: MirrorSizes, stop: &AtomicBool) -> Result<Trees> {
        let (small, large) = (workshop.make("copied-small")?, workshop.make("copied-large")?);
        let trees = Trees { small, large, sizes, changes: Vec::new() };
        let go_on = || if stop.load(Ordering::Relaxed) { Err(Error::Interrupted) } else { Ok(()) };
        let names = names(FILES_PER_DIRECTORY);
        for directory in 0..trees.directories() {
            let path = trees.small.join(directory.to_string());
            fs::create_dir(&path).at(&path)?;
            create_files(&path, directory, &names, go_on)?;
        }
        write_pages(&trees.large.join(LARGE), FIRST, sizes.large, go_on)?;
        let root = fs::File::open(&trees.small).at(&trees.small)?;
        rustix::fs::syncfs(&root).at(&trees.small)?;
        Ok(trees)
    }

    pub fn of(&self, tree: Tree) -> &Path {
        match tree {
            Tree::Small => &self.small,
            Tree::Large => &self.large,
        }
    }

    pub fn files(&self) -> u64 {
        self.directories() * FILES_PER_DIRECTORY
    }

    pub fn changed_blocks(&self) -> u64 {
        changed_pages(self.sizes.large, 0).count() as u64
    }

    /// Another page of one block in a hundred of the large file.
    pub fn change(&mut self, round: u64) -> Result<()> {
        let path = self.large.join(LARGE);
        let file = OpenOptions::new().write(true).open(&path).at(&path)?;
        let mut block = Block::new(PAGE as usize);
        for offset in changed_pages(self.sizes.large, round) {
            file.write_all_at(block.stamped(FIRST + 1 + round, offset), offset).at(&path)?;
        }
        file.sync_all().at(&path)?;
        self.changes.push(round);
        Ok(())
    }

    /// Whether a replica holds what it has to.
    pub fn check(&self, tree: Tree, replica: &Path) -> Result<()> {
        match tree {
            Tree::Small => (0..self.directories()).try_for_each(|directory| {
                check_files(&replica.join(directory.to_string()), directory, FILES_PER_DIRECTORY)
            }),
            Tree::Large => self.check_large(&replica.join(LARGE)),
        }
    }

    fn check_large(&self, path: &Path) -> Result<()> {
        let mut block = Block::new(PAGE as usize);
        let found = fs::metadata(path).at(path)?.len();
        if found != self.sizes.large {
            return Err(Error::Wrong(format!("{} has {found} bytes", path.display())));
        }
        if let Some(&round) = self.changes.last() {
            block.check(path, FIRST + 1 + round, changed_pages(self.sizes.large, round))?;
        }
        // The last page of a block is changed by no round.
        let step = (self.sizes.large / BLOCK).div_ceil(PAGES_CHECKED).max(1) * BLOCK;
        block.check(path, FIRST, (BLOCK - PAGE..self.sizes.large).step_by(step as usize))
    }

    fn directories(&self) -> u64 {
        (self.sizes.files / FILES_PER_DIRECTORY).max(1)
    }
}

/// Offsets of the pages that a round changes: never the last one of a block.
fn changed_pages(large: u64, round: u64) -> impl Iterator<Item = u64> {
    let page = round % (BLOCK / PAGE - 1) * PAGE;
    (0..large).step_by((BLOCK * BLOCKS_PER_CHANGE) as usize).map(move |block| block + page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_block_in_a_hundred_changes_and_never_its_last_page() {
        for round in 0..40 {
            let pages: Vec<u64> = changed_pages(1 << 30, round).collect();
            assert_eq!(pages.len() as u64, (1u64 << 30).div_ceil(BLOCK * BLOCKS_PER_CHANGE));
            assert!(pages.iter().all(|page| page % BLOCK < BLOCK - PAGE), "{round}");
        }
    }

    #[test]
    fn what_was_not_copied_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let workshop = Workshop::new(dir.path()).unwrap();
        let sizes = MirrorSizes { files: 1000, large: 8 << 20 };
        let mut trees = Trees::make(&workshop, sizes, &AtomicBool::new(false)).unwrap();
        let replica = dir.path().join("replica");
        fs::create_dir(&replica).unwrap();
        let copy = || fs::copy(trees.large.join(LARGE), replica.join(LARGE)).unwrap();
        assert!(trees.check(Tree::Large, &replica).is_err(), "nothing is there");
        copy();
        trees.check(Tree::Large, &replica).unwrap();
        assert!(trees.check(Tree::Small, &replica).is_err());
        trees.check(Tree::Small, &trees.small).unwrap();
        trees.change(3).unwrap();
        assert!(trees.check(Tree::Large, &replica).is_err(), "its old content");
    }
}
