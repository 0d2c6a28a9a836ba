//! Files with several names, each of which counts once.

use std::collections::HashSet;

use rustix::fs::{FileType, Stat};

use crate::limits::LINKED_IN_MEMORY;

/// Files with several names that were counted: with more of them than are remembered, each name of one counts.
#[derive(Debug, Default)]
pub(in crate::apply) struct Linked(HashSet<(u64, u64)>);

impl Linked {
    // These numbers have other widths on other processors.
    #[allow(clippy::unnecessary_cast)]
    pub(super) fn is_counted(&mut self, stat: &Stat) -> bool {
        let inode = (stat.st_dev as u64, stat.st_ino as u64);
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory || stat.st_nlink < 2 {
            return false;
        }
        if self.0.len() < LINKED_IN_MEMORY { !self.0.insert(inode) } else { self.0.contains(&inode) }
    }
}
