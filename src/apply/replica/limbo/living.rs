//! Names in limbo of what lives on in the replica, or is kept for some days: they go. What has all its names in limbo
//! keeps them, also where some of them are orphans already: a copy that was killed had moved them. Where the next
//! copy has linked such an object back by a name that still waited, it is no orphan by its others.

use std::collections::HashMap;
use std::fs::File;

use rustix::fs::{AtFlags, Stat};

use super::{Limbo, ORPHANS, below, is_directory};
use crate::apply::fault::Fault;
use crate::apply::replica::trees::{self, unlink_flagged};
use crate::limits::{LINKED_IN_MEMORY, LINKED_PARTS_MAX};
use crate::packet::Name;

impl Limbo {
    /// Unlinks, in all that waits, every name of what has one in the replica as well.
    pub(super) fn drop_living(&self, mount: &File, limbo: &File) -> Result<(), Fault> {
        let place = Name::new(ORPHANS.as_bytes()).expect("a constant is a name");
        let moved = trees::open(limbo, &place).map_err(Fault::system("look into limbo"))?;
        drop_living(mount, &self.waiting, moved.as_ref(), LINKED_IN_MEMORY)
    }
}

/// Unlinks, in a whole tree, every name of a non-directory that has one outside of it, and of what was `moved`. The
/// last name of an object is never taken.
///
/// So many objects are looked at together; where there are more, it is gone through again for each part of them.
pub(super) fn drop_living(
    mount: &File,
    top: &File,
    moved: Option<&File>,
    together: usize,
) -> Result<(), Fault> {
    let (mut part, mut parts) = (0, 1);
    while part < parts {
        let mut names = Names::of_part(part, parts, together);
        match names.count(mount, top)? {
            true => {
                if let Some(moved) = moved
                    && names.lives_any()
                {
                    names.count_moved(mount, moved)?;
                    // Before those that wait, by which a copy that is killed here is brought back to them.
                    if names.counted.values().any(|count| count.moved > 0 && count.lives()) {
                        names.drop_living(mount, moved, |count| &mut count.moved)?;
                    }
                }
                names.drop_living(mount, top, |count| &mut count.names)?;
                part += 1;
            }
            // What was gone through has no name here that goes: once more is no harm.
            false => (part, parts) = (0, parts * 2),
        }
    }
    Ok(())
}

/// Of a part of the objects, how many names each has in the tree.
pub(super) struct Names {
    part: u64,
    parts: u64,
    together: usize,
    counted: HashMap<(u64, u64), Count>,
}

#[derive(Default)]
struct Count {
    /// In limbo, not moved yet.
    names: u64,
    moved: u64,
    /// Anywhere.
    links: u64,
}

impl Count {
    fn lives(&self) -> bool {
        self.links > self.names + self.moved
    }
}

impl Names {
    pub(super) fn of_part(part: u64, parts: u64, together: usize) -> Names {
        Names { part, parts, together, counted: HashMap::new() }
    }

    /// It is of this part, and has names that were not counted.
    pub(super) fn is_elsewhere(&self, status: &Stat) -> bool {
        has_several(status) && self.counted.get(&inode_of(status)).is_some_and(Count::lives)
    }

    /// `false`: there are more objects than are looked at together.
    pub(super) fn count(&mut self, mount: &File, top: &File) -> Result<bool, Fault> {
        let mut has_room = true;
        below(mount, top, |_, _, _, status| {
            let inode = inode_of(&status);
            if !has_several(&status) || !self.is_of_part(inode) {
                return Ok(());
            }
            let is_known = self.counted.contains_key(&inode);
            if is_known || self.counted.len() < self.together || self.parts == LINKED_PARTS_MAX {
                let count = self.counted.entry(inode).or_default();
                count.names += 1;
                count.links = links(&status);
            } else {
                has_room = false;
            }
            Ok(())
        })?;
        Ok(has_room)
    }

    /// Unlinks, in a whole tree, every name of what was counted.
    pub(super) fn drop_counted(&self, mount: &File, top: &File) -> Result<(), Fault> {
        below(mount, top, |dir, name, _, status| {
            if has_several(&status)
                && self.counted.contains_key(&inode_of(&status))
                && let Err(error) = unlink_flagged(dir, name, AtFlags::empty())
            {
                log::warn!("{name:?}, which is not on the source, cannot be removed: {error}");
            }
            Ok(())
        })
    }

    fn lives_any(&self) -> bool {
        self.counted.values().any(Count::lives)
    }

    fn count_moved(&mut self, mount: &File, moved: &File) -> Result<(), Fault> {
        below(mount, moved, |_, _, _, status| {
            if let Some(count) = self.counted.get_mut(&inode_of(&status)) {
                count.moved += 1;
            }
            Ok(())
        })
    }

    /// `of`: which names these are.
    fn drop_living(
        &mut self,
        mount: &File,
        top: &File,
        of: impl Fn(&mut Count) -> &mut u64,
    ) -> Result<(), Fault> {
        below(mount, top, |dir, name, _, status| {
            let Some(count) = self.counted.get_mut(&inode_of(&status)) else { return Ok(()) };
            count.links = links(&status);
            if has_several(&status) && count.lives() {
                match unlink_flagged(dir, name, AtFlags::empty()) {
                    Ok(()) => {
                        let left = of(count);
                        *left = left.saturating_sub(1);
                        count.links -= 1;
                    }
                    // What cannot be unlinked (used, a mount) is an orphan.
                    Err(error) => {
                        log::warn!("{name:?}, which is not on the source, cannot be removed: {error}");
                    }
                }
            }
            Ok(())
        })
    }

    fn is_of_part(&self, (device, inode): (u64, u64)) -> bool {
        // Numbers of inodes are often multiples of something.
        let mixed = (device ^ inode).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        mixed % self.parts == self.part
    }
}

pub(super) fn has_several(status: &Stat) -> bool {
    !is_directory(status) && status.st_nlink > 1
}

// These numbers have other widths on other processors.
#[allow(clippy::unnecessary_cast)]
fn links(status: &Stat) -> u64 {
    status.st_nlink as u64
}

#[allow(clippy::unnecessary_cast)]
fn inode_of(status: &Stat) -> (u64, u64) {
    (status.st_dev as u64, status.st_ino as u64)
}

#[cfg(test)]
mod tests;
