//! The loads: what an application does, timed, and checked for having been done.
//!
//! ```text
//! prepare ──> perform (timed) ──> [the replica follows] ──> check ──> clear
//! ```
//! Blocks carry stamps ([`super::content`]); a line is checked where its bytes have to have
//! arrived: in the backing directory and on the replica.

mod commits;
mod compile;
mod data;
mod pace;
mod programs;
mod small;
#[cfg(test)]
mod tests;
mod tree;
mod writers;

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use super::Settings;
use super::cold::{Cooling, cool};
use super::error::Result;
use super::line::Line;
use super::place::Place;

pub use data::write_pages;
pub use pace::{Cpus, Done, Pace};
pub use programs::{is_installed, run};
pub use small::{check_files, create_files, names};

/// One line at one place in one round.
pub struct Load<'a> {
    pub settings: &'a Settings,
    pub place: &'a Place,
    /// A plain directory that all places share.
    pub root: &'a Path,
    /// Number in the stamps; no two runs have the same.
    pub run: u64,
    pub stop: &'a AtomicBool,
}

impl Load<'_> {
    /// Makes what the line needs. Answers how the caches were emptied, where they have to be.
    pub fn prepare(&self, line: Line) -> Result<Option<Cooling>> {
        match line {
            Line::Write1M
            | Line::Write128K
            | Line::Write4K
            | Line::Write4KByTwo
            | Line::Write4KByFour
            | Line::Append4K
            | Line::Fsync4K
            | Line::CommitCalls => {}
            Line::Random4K | Line::WarmReadRw | Line::WarmReadRo => self.prepare_big()?,
            Line::ColdRead => {
                self.prepare_big()?;
                return cool(self.place, data::BIG).map(Some);
            }
            Line::Create => self.prepare_no_files()?,
            Line::Stat | Line::Open | Line::Unlink => self.prepare_files()?,
            Line::Sqlite => self.prepare_commits()?,
            Line::GitStatus => self.prepare_repository()?,
            Line::Unpack => self.prepare_no_tree()?,
            Line::RemoveTree | Line::CopyTree => self.prepare_tree()?,
            Line::Compile => self.prepare_compile()?,
        }
        Ok(None)
    }

    pub fn perform(&self, line: Line) -> Result<Done> {
        match line {
            Line::Write1M => self.write_sequential(1 << 20),
            Line::Write128K => self.write_sequential(128 << 10),
            Line::Write4K => self.write_sequential(4 << 10),
            Line::Write4KByTwo => self.write_together(2),
            Line::Write4KByFour => self.write_together(4),
            Line::Append4K => self.append(),
            Line::Random4K => self.write_random(),
            Line::Fsync4K => self.append_synced(),
            Line::Create => self.create(),
            Line::Stat => self.stat(),
            Line::Open => self.open(),
            Line::Unlink => self.unlink(),
            Line::ColdRead => self.read_cold(),
            Line::WarmReadRw => self.read_warm(data::Handle::ReadWrite),
            Line::WarmReadRo => self.read_warm(data::Handle::ReadOnly),
            Line::CommitCalls => self.commit_calls(),
            Line::Sqlite => self.commit_rows(),
            Line::GitStatus => self.git_status(),
            Line::Unpack => self.unpack(),
            Line::RemoveTree => self.remove_tree(),
            Line::CopyTree => self.copy_tree(),
            Line::Compile => self.compile(),
        }
    }

    /// Reads are checked while they are made.
    ///
    /// Errors: what was written is not there.
    pub fn check(&self, line: Line, done: &Done) -> Result<()> {
        match line {
            Line::Write1M => self.check_sequential(1 << 20, done.work),
            Line::Write128K => self.check_sequential(128 << 10, done.work),
            Line::Write4K | Line::Append4K => self.check_sequential(4 << 10, done.work),
            Line::Write4KByTwo => self.check_together(2, done.work),
            Line::Write4KByFour => self.check_together(4, done.work),
            Line::Random4K => self.check_random(done),
            Line::Fsync4K => self.check_appended(done),
            Line::Create => self.check_created(),
            Line::Unlink => self.check_unlinked(),
            Line::CommitCalls => self.check_commit_calls(done.work),
            Line::Sqlite => self.check_rows(),
            Line::Unpack => self.check_tree(tree::TREE),
            Line::RemoveTree => self.check_no_tree(),
            Line::CopyTree => self.check_tree(tree::COPY),
            Line::Compile => self.check_compiled(),
            Line::Stat
            | Line::Open
            | Line::ColdRead
            | Line::WarmReadRw
            | Line::WarmReadRo
            | Line::GitStatus => Ok(()),
        }
    }

    /// Removes what no other line needs.
    pub fn clear(&self, line: Line) -> Result<()> {
        match line {
            Line::Write1M | Line::Write128K | Line::Write4K | Line::Append4K | Line::Fsync4K => {
                self.clear_sequential()
            }
            Line::Write4KByTwo => self.clear_together(2),
            Line::Write4KByFour => self.clear_together(4),
            Line::CommitCalls => self.clear_commit_calls(),
            Line::Sqlite => self.clear_rows(),
            Line::CopyTree => self.remove(tree::COPY),
            Line::Random4K
            | Line::Create
            | Line::Stat
            | Line::Open
            | Line::Unlink
            | Line::ColdRead
            | Line::WarmReadRw
            | Line::WarmReadRo
            | Line::GitStatus
            | Line::Unpack
            | Line::RemoveTree
            | Line::Compile => Ok(()),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.dir.join(name)
    }

    fn pace(&self) -> Pace<'_> {
        Pace::start(self.stop)
    }
}
