//! Marks that outlive their daemon, and those of daemons before.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

#[cfg(test)]
use super::Planted;
use super::memory::Kept;
use super::table::{Head, Table};
use super::{Changed, Fill, Generation, Map, changed};
use crate::limits::MAP_LEFT_MAX;
use crate::packet::{Incarnation, Sequence};

impl Map {
    /// As [`Map::new`], of a run whose marks are kept for the next daemon, beside those that are there. What other
    /// programs had marked in this very run is some of them.
    ///
    /// Errors: there is no memory for a generation.
    pub fn kept(kept: Kept, bytes: usize, run: Incarnation, begins_at: Sequence) -> io::Result<Map> {
        let mut left: Vec<Arc<Generation>> = kept
            .left()
            .into_iter()
            .map(|memory| Arc::new(Generation { table: Table::left(memory) }))
            .collect();
        left.sort_by_key(|generation| generation.table.head().number);
        let too_many = left.len().saturating_sub(MAP_LEFT_MAX);
        left.drain(..too_many).for_each(|generation| generation.is_over());
        let heads = || left.iter().map(|generation| generation.table.head());
        let head = Head {
            run,
            number: heads().next_back().map_or(1, |last| last.number + 1),
            begins_run: heads().all(|head| head.run != run),
        };
        let current = Generation::begin(kept.take()?, head);
        Ok(Map::of(bytes, (current, begins_at), Some(kept), left))
    }

    /// Of marks that outlive this process, for whoever keeps them.
    pub fn memory(&self) -> Option<BorrowedFd<'_>> {
        self.kept.as_ref().map(Kept::memory)
    }

    /// What a target lacks that has everything up to a position of an earlier run, of what daemons before have marked.
    /// `runs`: this one and those before it, the oldest first. `None`: it is not known, or too much.
    pub fn left_since(&self, runs: &[Incarnation], (run, has): (Incarnation, Sequence)) -> Option<Changed> {
        let left = self.left.lock().clone();
        let of = |run: Incarnation| left.iter().filter(move |generation| generation.table.head().run == run);
        let mut needed: Vec<&Arc<Generation>> = Vec::new();
        #[cfg(test)]
        if let Some(planted) = self.planted {
            return self.left_wrongly(&left, planted);
        }
        let first = runs.iter().position(|&known| known == run)?;
        let begins = of(run).collect::<Vec<_>>();
        let at = begins.iter().rposition(|one| one.table.begins_at().is_some_and(|begins| begins <= has))?;
        needed.extend(&begins[at..]);
        for &since in runs[first + 1..].iter().filter(|&&run| run != self.run || of(run).next().is_some()) {
            // All of it: what is marked in the midst of a run says nothing of its beginning.
            of(since).next().filter(|generation| generation.table.head().begins_run)?;
            needed.extend(of(since));
        }
        changed(needed.into_iter())
    }

    #[cfg(test)]
    fn left_wrongly(&self, left: &[Arc<Generation>], planted: Planted) -> Option<Changed> {
        let last = left.last()?.table.head().run;
        let is_taken =
            |one: &&Arc<Generation>| planted == Planted::RunsWithHoles || one.table.head().run == last;
        changed(left.iter().filter(is_taken))
    }

    /// No target lacks anything of what daemons before have marked.
    pub fn forget_left(&self) {
        self.left.lock().drain(..).for_each(|generation| generation.is_over());
    }

    /// As [`Map::fill`], of what daemons before have marked.
    pub fn fill_left(&self) -> Vec<Fill> {
        self.left.lock().iter().map(|generation| generation.fill(self.bytes)).collect()
    }

    #[cfg(test)]
    pub fn plant(&mut self, planted: Option<Planted>) {
        self.planted = planted;
    }
}
