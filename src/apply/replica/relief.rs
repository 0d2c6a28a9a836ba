//! Room on a full replica: files that later packets remove are emptied ahead of their turn.
//!
//! ```text
//!  op ── no room ──> Retry(Full) ──> the source looks into its queue for what lets content go
//!                                       │ Relief: these objects
//!  good ── relieve ──> bad (relief): emptied, their writes are left out, all else goes on
//!    ^                    │ each was removed, or cut down to nothing
//!    └── recover ─────────┘
//! ```
//! Which files were emptied stands in the record of the slot ([`super::progress`]), before the first of
//! them is touched. Then the replica is the source again, and says so.

use rustix::fs::{FileType, Stat};

use super::{Replica, incomplete};
use crate::apply::fault::Fault;
use crate::apply::inode;
use crate::clone::guard;
use crate::limits::{PAYLOAD_LEN_MAX, RELIEVED_MAX};
use crate::packet::{BadBy, ObjectId};

/// Free space above which a file system is not what has no room for the bytes of one op.
const ROOM: u64 = 4 << 20;

const _: () = assert!(ROOM as usize >= 2 * PAYLOAD_LEN_MAX);

/// What came of an attempt to make room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relief {
    Some,
    Nothing,
}

impl Replica {
    /// Empties files that later packets remove, or cut down to nothing, to make room now: the largest
    /// of them. What somebody else has a link to stays; and where inodes are what is missing, all of
    /// them: emptying frees none.
    ///
    /// Errors: nothing was emptied that is not noted.
    pub fn relieve(&mut self, objects: &[ObjectId]) -> Result<Relief, Fault> {
        if self.lacks_inodes() {
            return Ok(Relief::Nothing);
        }
        let mut large: Vec<(i64, ObjectId)> = Vec::new();
        for &object in objects {
            let Ok(file) = self.object(object) else { continue };
            let stat = inode::stat(&*file)?;
            if is_file(&stat) && stat.st_nlink == 1 && stat.st_blocks > 0 && !self.is_relieved(object) {
                large.push((stat.st_blocks, object));
            }
        }
        large.sort_unstable_by_key(|&(blocks, _)| std::cmp::Reverse(blocks));
        large.truncate(RELIEVED_MAX.saturating_sub(self.progress.relieved().len()));
        if large.is_empty() {
            return Ok(Relief::Nothing);
        }
        let files: Vec<ObjectId> = large.into_iter().map(|(_, object)| object).collect();
        self.progress.relieve(&self.root, &files).map_err(Fault::own("position slot"))?;
        for object in files {
            let file = self.writable(object)?;
            guard::resizing(&file, 0);
            rustix::fs::ftruncate(&*file, 0).map_err(Fault::system("truncate"))?;
        }
        Ok(Relief::Some)
    }

    /// There is room for bytes and none for another object.
    fn lacks_inodes(&self) -> bool {
        rustix::fs::fstatvfs(&self.root).is_ok_and(|space| {
            let room = space.f_bavail.saturating_mul(space.f_frsize);
            // Where inodes are not counted (btrfs) there are 0 of 0.
            space.f_files > 0 && space.f_ffree == 0 && room > ROOM
        })
    }

    /// What a fault says to a person: "no space" where inodes are meant sends people to `df`, which
    /// shows space.
    pub(in crate::apply) fn explain(&self, fault: &Fault) -> String {
        match fault.errno() {
            Some(libc::ENOSPC) if self.lacks_inodes() => format!("{fault}, of inodes (df -i)"),
            _ => fault.to_string(),
        }
    }

    /// Its content is left out until it is removed or cut down to nothing.
    pub(in crate::apply) fn is_relieved(&self, object: ObjectId) -> bool {
        self.progress.relieved().contains(&object)
    }

    /// A file that was emptied is gone, or empty on the source too.
    pub(in crate::apply) fn relief_is_over(&mut self, object: ObjectId) -> Result<(), Fault> {
        match self.is_relieved(object) {
            true => self.progress.relief_is_over(object).map_err(Fault::own("position slot")),
            false => Ok(()),
        }
    }

    /// A copy begins: what is empty is no proof of anything.
    pub(in crate::apply) fn relieved_is_lost(&mut self) -> Result<(), Fault> {
        let mut there = Vec::new();
        for object in self.progress.relieved().iter().copied().collect::<Vec<_>>() {
            if self.handle(object)?.is_some() {
                there.push(object);
            }
        }
        match there.is_empty() {
            true => Ok(()),
            false => incomplete::remember(self.state(), &there),
        }
    }

    /// Where nothing but files that were emptied made it bad, and they are gone, it is the source as
    /// of *applied* again.
    pub(in crate::apply) fn recover_from_relief(&mut self) -> Result<(), Fault> {
        // An op that was begun may be done, in part, and is not what *applied* says.
        let is_over = self.progress.bad_by() == Some(BadBy::Relief)
            && self.progress.relieved().is_empty()
            && !self.in_doubt();
        if is_over { self.mark_good() } else { Ok(()) }
    }
}

fn is_file(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}
