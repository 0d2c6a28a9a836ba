//! What the source knows that its stream does not tell: a change that was made and could not be
//! captured, or one that was captured and that its own disk did not take.
//!
//! Noting it is all that a room has to do. The rest follows by itself: the status is critical, no
//! replica counts as good and its target is told so, no waiting call is complete, until every target was
//! compared with everything; no sync counts a target before that one was. What the disk lost stays: a copy
//! would take it from the targets, too.

use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use crate::limits::ARRIVALS_MAX;
use crate::packet::Sequence;

/// `linux/magic.h`.
const BTRFS_SUPER_MAGIC: i64 = 0x9123_683e;

/// See the module.
#[derive(Default)]
pub struct Divergence {
    noted: Mutex<Noted>,
    disk: OnceLock<String>,
    touched: OnceLock<String>,
}

#[derive(Default)]
struct Noted {
    /// The first change that could not be captured and that not every target was compared for, and how many
    /// there had been with the last such one.
    uncaptured: Option<(Arc<str>, u64)>,
    /// The last one of the others.
    planned: Option<Arc<str>>,
    count: u64,
    /// The last ones that a copy under way brings, in order: see [`Divergence::covered`].
    arrivals: VecDeque<Arrival>,
}

struct Arrival {
    count: u64,
    /// The packet that tells its name, or one behind it. Not given out yet: `None`.
    at: Option<Sequence>,
}

impl Divergence {
    /// Notes it, with one line for people; the first reason stays. Any lock may be held.
    pub fn note(&self, why: &str) {
        log::error!("a change could not be captured, everything has to be compared again: {why}");
        self.add_uncaptured(why);
    }

    /// Notes that other names belong to the set than what the targets have: a copy brings them.
    pub fn compare(&self, why: &str) {
        log::info!("everything is compared: {why}");
        let mut noted = self.noted.lock();
        noted.count += 1;
        noted.planned = Some(why.into());
    }

    /// Notes that something has come into the set with more than its packets tell. The name is told by the
    /// packets of `tell`, which gives the last one: a copy under way, which takes it up, brings the rest.
    pub fn arrives(&self, what: &str, tell: impl FnOnce() -> Sequence) {
        log::info!("something came into the set, and a copy brings it: {what}");
        let count = {
            let mut noted = self.noted.lock();
            noted.count += 1;
            noted.planned = Some(format!("something came into the set: {what}").into());
            if noted.arrivals.len() >= ARRIVALS_MAX {
                noted.arrivals.pop_front();
            }
            let count = noted.count;
            noted.arrivals.push_back(Arrival { count, at: None });
            count
        };
        let at = tell();
        let mut noted = self.noted.lock();
        if let Ok(index) = noted.arrivals.binary_search_by_key(&count, |arrival| arrival.count) {
            noted.arrivals[index].at = Some(at);
        }
    }

    fn add_uncaptured(&self, why: &str) {
        let mut noted = self.noted.lock();
        noted.count += 1;
        let count = noted.count;
        noted.uncaptured.get_or_insert_with(|| (why.into(), count)).1 = count;
    }

    /// Why nothing that was known of targets before counts any more, if a change is missed.
    pub fn uncaptured(&self) -> Option<Arc<str>> {
        self.noted.lock().uncaptured.as_ref().map(|(why, _)| why.clone())
    }

    /// How many there were, ever.
    pub fn count(&self) -> u64 {
        self.noted.lock().count
    }

    /// How many there were with the last one that was not captured.
    pub fn uncaptured_count(&self) -> Option<u64> {
        self.noted.lock().uncaptured.as_ref().map(|&(_, count)| count)
    }

    /// Whether a change is missed that a copy which began with the first `covers` did not find.
    pub fn misses(&self, covers: u64) -> bool {
        self.disk.get().is_some() || self.uncaptured_count().is_some_and(|count| count > covers)
    }

    /// Why the targets lack something that no change of theirs was missed for: the last of it.
    pub fn planned(&self) -> Option<Arc<str>> {
        self.noted.lock().planned.clone()
    }

    /// Whether all that came behind the first `covers` have come into the set, with nothing else.
    pub fn are_arrivals(&self, covers: u64) -> bool {
        let noted = self.noted.lock();
        let behind = noted.arrivals.iter().filter(|arrival| arrival.count > covers).count() as u64;
        behind == noted.count.saturating_sub(covers)
    }

    /// How many a copy covers that began with the first `covers`, and whose target had performed the packets up
    /// to here before it ended: what comes into the set meanwhile is a name that it asks for.
    pub fn covered(&self, covers: u64, upto: Sequence) -> u64 {
        let noted = self.noted.lock();
        let mut behind = noted.arrivals.iter().skip_while(|arrival| arrival.count <= covers);
        let mut covered = covers;
        while let Some(arrival) = behind.next()
            && arrival.count == covered + 1
            && arrival.at.is_some_and(|at| at <= upto)
        {
            covered += 1;
        }
        covered
    }

    /// Every target was compared with everything, for the first `count` of them.
    pub fn is_mended(&self, count: u64) {
        let mut noted = self.noted.lock();
        if self.disk.get().is_some() {
            return;
        }
        noted.uncaptured.take_if(|(_, upto)| *upto <= count);
        if noted.count == count {
            noted.planned = None;
            noted.arrivals.clear();
        }
    }

    /// Notes the outcome of a sync of the directory's own disk, `of` what: where the disk refuses what
    /// the kernel has acknowledged, the kernel drops it from its cache. The replicas have it then.
    pub fn note_sync(&self, of: &str, synced: BorrowedFd<'_>, outcome: &io::Result<()>) {
        let Err(error) = outcome else { return };
        if is_loss(error, synced) && self.disk.set(format!("{of}: {error}")).is_ok() {
            let why = format!("the directory's disk lost writes, {of}: {error}");
            log::error!("{why}; the replicas have them, everything has to be compared");
            self.add_uncaptured(&why);
        }
    }

    /// The first loss of [`Divergence::note_sync`].
    pub fn lost_by_disk(&self) -> Option<&str> {
        self.disk.get().map(String::as_str)
    }

    /// Notes an object whose change time moved without anything else: nearly always a hard link
    /// outside of the tree. The first one stays.
    pub fn note_touch(&self, path: &str) {
        if self.touched.set(path.to_owned()).is_ok() {
            log::info!("{path}: its change time moved past the mount, and nothing else");
        }
    }

    /// The first object of [`Divergence::note_touch`].
    pub fn touched(&self) -> Option<&str> {
        self.touched.get().map(String::as_str)
    }

    /// Why the targets may miss a change, if they may.
    pub fn why(&self) -> Option<Arc<str>> {
        let noted = self.noted.lock();
        let uncaptured = noted.uncaptured.as_ref().map(|(why, _)| why.clone());
        uncaptured.or_else(|| noted.planned.clone())
    }
}

/// Whether a failed sync means that something was dropped. A full btrfs may have no room for the
/// record of the sync itself and keeps the data.
fn is_loss(error: &io::Error, synced: BorrowedFd<'_>) -> bool {
    let is_btrfs = || rustix::fs::fstatfs(synced).is_ok_and(|stat| stat.f_type == BTRFS_SUPER_MAGIC);
    match error.raw_os_error() {
        Some(libc::EIO) => true,
        Some(libc::ENOSPC | libc::EDQUOT) => !is_btrfs(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrives(divergence: &Divergence, what: &str, at: u64) {
        divergence.arrives(what, || Sequence(at));
    }

    /// A copy brings what comes while it runs, as far as its target had heard of it.
    #[test]
    fn a_copy_covers_what_has_come_before_its_end() {
        let divergence = Divergence::default();
        divergence.compare("rules");
        arrives(&divergence, "a", 10);
        arrives(&divergence, "b", 20);
        assert!(!divergence.are_arrivals(0), "rules were changed behind");
        assert!(divergence.are_arrivals(1) && divergence.are_arrivals(2) && divergence.are_arrivals(3));
        let covered = |covers, upto| divergence.covered(covers, Sequence(upto));
        assert_eq!([covered(0, 99), covered(1, 9), covered(1, 10), covered(1, 99)], [0, 1, 2, 3]);
        arrives(&divergence, "c", 30);
        divergence.note("a fault");
        arrives(&divergence, "d", 40);
        assert!(!divergence.are_arrivals(1) && divergence.are_arrivals(5));
        assert_eq!([covered(1, 99), covered(5, 99)], [4, 6]);
        // Its packet has no position yet: a copy that ends now may not have it.
        divergence.arrives("e", || {
            assert_eq!((divergence.covered(5, Sequence(99)), divergence.count()), (6, 7));
            Sequence(50)
        });
        assert_eq!(divergence.covered(5, Sequence(99)), 7);
        for at in 0..=ARRIVALS_MAX as u64 {
            arrives(&divergence, "many", 100 + at);
        }
        assert!(divergence.are_arrivals(8) && !divergence.are_arrivals(6));
        assert_eq!(divergence.covered(6, Sequence(u64::MAX)), 6, "one was forgotten: it is compared again");
    }

    /// What comes into the set all the time keeps no fault, and no older name.
    #[test]
    fn each_is_mended_by_itself() {
        let divergence = Divergence::default();
        let said = |why: Option<Arc<str>>| why.map(|why| why.to_string());
        divergence.note("a fault");
        arrives(&divergence, "a", 1);
        divergence.note("another fault");
        arrives(&divergence, "b", 2);
        assert!(divergence.misses(2) && !divergence.misses(3));
        divergence.is_mended(2);
        assert_eq!(said(divergence.uncaptured()).as_deref(), Some("a fault"));
        divergence.is_mended(3);
        assert_eq!(divergence.uncaptured(), None);
        assert_eq!(said(divergence.why()).as_deref(), Some("something came into the set: b"));
        divergence.is_mended(4);
        assert_eq!(divergence.why(), None);
    }
}
