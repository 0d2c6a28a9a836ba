//! What a log gives back of what was written: whole, torn, damaged, full, failing; and a model of a host that loses
//! power.

mod failing;
mod losses;
mod model;
mod planted;
mod record;

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::ceiling::Ceiling;
use super::*;
use crate::limits::{ACTIVITY_CEILING_STEP, ACTIVITY_RECORDS};
use crate::packet::{Incarnation, ObjectId, Sequence, Timestamp};
use crate::sys::FileHandle;

const RUN: Incarnation = Incarnation(5);

fn object(inode: u64) -> HotObject {
    let id = ObjectId { birth_epoch: 1, generation: inode as u32 ^ 9, inode };
    let handle = FileHandle::from_parts(1, &inode.to_le_bytes());
    HotObject { id, handle }
}

#[test]
fn the_ceiling_stands_at_what_went_out_while_nothing_flows() {
    let mut ceiling = Ceiling::at(Sequence(10));
    assert_eq!(ceiling.look(Sequence(10)), None);
    assert_eq!(ceiling.is_asked(Sequence(10)), None, "it may go");
    assert_eq!(ceiling.is_asked(Sequence(11)), Some(Sequence(11 + ACTIVITY_CEILING_STEP)));
    assert!(ceiling.flows());
    assert_eq!(ceiling.look(Sequence(12)), None, "there is enough");
    // Two looks' worth of what flows, and not every packet waits.
    assert_eq!(ceiling.look(Sequence(1012)), Some(Sequence(1012 + 2000)));
    assert_eq!(ceiling.look(Sequence(1013)), None);
    assert_eq!(ceiling.look(Sequence(1013)), Some(Sequence(1013)), "at rest it is exact");
    assert!(!ceiling.flows());
    assert_eq!(ceiling.upto(), Sequence(1013));
}

/// A log in a directory, with what stands around it.
struct Kept {
    dir: tempfile::TempDir,
    log: Arc<ActivityLog>,
    last: Arc<AtomicU64>,
    leave: Arc<AtomicU64>,
    /// On the source's disk.
    marked: Arc<AtomicU64>,
    revoked: Arc<AtomicBool>,
    /// The source's disk takes nothing.
    refuses: Arc<AtomicBool>,
}

impl Kept {
    fn begin() -> Kept {
        Kept::begin_owing(tempfile::tempdir().unwrap(), None)
    }

    fn begin_owing(dir: tempfile::TempDir, carried: Option<&Known>) -> Kept {
        let (last, leave, revoked) =
            (Arc::new(AtomicU64::new(4)), Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let marked = Arc::new(AtomicU64::new(0));
        let (of_last, of_leave) = (last.clone(), leave.clone());
        let (of_revoked, of_marked) = (revoked.clone(), marked.clone());
        let refuses = Arc::new(AtomicBool::new(false));
        let of_refuses = refuses.clone();
        let outside = Outside {
            last: Box::new(move || Sequence(of_last.load(SeqCst))),
            leave: Box::new(move |upto| of_leave.store(upto.0, SeqCst)),
            mark: Box::new(move |generation| {
                of_marked.store(generation, SeqCst);
                Ok(())
            }),
            revoke: Box::new(move || {
                if of_refuses.load(SeqCst) {
                    return Err(std::io::Error::from_raw_os_error(libc::ENOSPC));
                }
                of_revoked.store(true, SeqCst);
                Ok(())
            }),
        };
        let log = ActivityLog::begin(dir.path(), (RUN, 9), carried, Sequence(4), outside).unwrap();
        Kept { dir, log, last, leave, marked, revoked, refuses }
    }

    fn heat(&self, inode: u64) -> AtomicU64 {
        let noted = AtomicU64::new(0);
        self.log.heat(&noted, object(inode));
        assert!(self.log.is_hot(&noted));
        noted
    }

    /// As a start after a power loss at this moment finds it.
    fn found(&self) -> Found {
        self.found_with(self.marked.load(SeqCst))
    }

    /// As [`Kept::found`], with this generation on the source's disk.
    fn found_with(&self, generation: u64) -> Found {
        let marked = Marked { log: 9, generation };
        look(self.dir.path(), Some(RUN), (!self.revoked.load(SeqCst)).then_some(marked))
    }

    fn next_generation(&self, is_proof: bool) {
        assert!(self.log.rotate(self.log.prepare().unwrap()));
        self.settle(is_proof);
    }

    fn settle(&self, is_proof: bool) {
        // A sync has ended.
        self.log.mark().unwrap();
        self.log.settle(is_proof);
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.log.end();
    }
}

fn inodes(known: &Known) -> Vec<u64> {
    let mut inodes: Vec<u64> = known.hot.iter().map(|object| object.id.inode).collect();
    inodes.sort_unstable();
    inodes
}

fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let since = Instant::now();
    while !is_so() {
        assert!(since.elapsed() < Duration::from_secs(60), "{what} never came");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn what_is_hot_is_found_once_the_log_is_whole() {
    let kept = Kept::begin();
    let noted = kept.heat(20);
    assert!(kept.found().all.unwrap_err().contains("before the start"), "nothing was synced yet");
    kept.settle(true);
    let known = kept.found().all.unwrap();
    assert_eq!(inodes(&known), [20]);
    assert_eq!(known.hot[0], object(20), "with its handle");
    let at = |log, generation| Some(Marked { log, generation });
    assert!(look(kept.dir.path(), Some(Incarnation(6)), at(9, 1)).all.is_err(), "another run has come since");
    assert!(look(kept.dir.path(), Some(RUN), at(8, 1)).all.is_err(), "the mark of another run's");
    assert!(look(kept.dir.path(), Some(RUN), None).all.is_err(), "it was taken back");
    // A further change of it costs nothing; in the next generation it is noted again.
    let commits = kept.log.fill().commits;
    kept.log.heat(&noted, object(20));
    kept.log.heat(&AtomicU64::new(0), object(20));
    assert_eq!(kept.log.fill().commits, commits);
    let prepared = kept.log.prepare().unwrap();
    assert!(kept.log.rotate(prepared));
    assert!(!kept.log.is_hot(&noted));
    kept.heat(21);
    assert_eq!(inodes(&kept.found().all.unwrap()), [20, 21], "the older one counts until a sync has ended");
    kept.settle(true);
    assert_eq!(inodes(&kept.found().all.unwrap()), [21]);
}

/// The disk of the directory, or that of the log, was put back: what one has the other does not speak of.
#[test]
fn disks_that_are_not_of_one_time_are_no_log() {
    let kept = Kept::begin();
    kept.settle(true);
    kept.next_generation(true);
    kept.found_with(2).all.unwrap();
    for generation in [0, 1, 3, u64::MAX] {
        assert!(kept.found_with(generation).all.unwrap_err().contains("of one time"), "{generation}");
    }
    // Between a sync and the end of the generation before both speak of what is kept.
    assert!(kept.log.rotate(kept.log.prepare().unwrap()));
    assert!([2, 3].into_iter().all(|generation| kept.found_with(generation).all.is_ok()));
    let owing = Kept::begin_owing(tempfile::tempdir().unwrap(), Some(&Known::default()));
    owing.settle(true);
    assert!(owing.found_with(0).all.is_err(), "of no generation, though something of none is owed");
    owing.found_with(1).all.unwrap();
}

#[test]
fn what_is_born_is_hot_by_its_time() {
    let kept = Kept::begin();
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    let at = |seconds: i64| Timestamp { seconds, nanoseconds: 0 };
    for (changed, is_hot) in [(at(now.tv_sec + 1), true), (at(now.tv_sec - 1), false)] {
        let noted = AtomicU64::new(0);
        kept.log.born(&noted, changed);
        assert_eq!(kept.log.is_hot(&noted), is_hot);
        kept.settle(true);
        assert_eq!(kept.found().all.unwrap().since <= changed, is_hot, "a start finds it by that");
    }
}

#[test]
fn what_passed_it_by_makes_it_no_proof() {
    let kept = Kept::begin();
    kept.settle(true);
    kept.log.doubt("the clock was set");
    assert_eq!(kept.found().all.unwrap_err(), "the clock was set");
    kept.next_generation(false);
    assert_eq!(kept.found().all.unwrap_err(), "the clock was set");
    assert_eq!(kept.log.fill().why, "the clock was set");
    kept.next_generation(true);
    kept.found().all.unwrap();
    assert!(kept.log.fill().is_whole);
}

/// Of so many no proof is needed; programs go on at once, and the next generation is one again.
#[test]
fn a_full_log_says_so_first_and_becomes_whole_again() {
    let kept = Kept::begin();
    kept.settle(true);
    let mut inode = 100;
    while kept.log.fill().standing == Standing::Kept {
        assert!(inode < 200 + u64::from(ACTIVITY_RECORDS), "it never becomes full");
        kept.heat(inode);
        inode += 1;
    }
    assert!(kept.found().all.unwrap_err().contains("room"));
    assert!(kept.log.is_hot(&AtomicU64::new(0)), "everything passes");
    eventually("the way for packets", || kept.leave.load(SeqCst) == u64::MAX);
    kept.settle(true);
    assert!(kept.found().all.is_err(), "a sync alone does not mend it");
    kept.next_generation(true);
    assert_eq!(inodes(&kept.found().all.unwrap()), Vec::<u64>::new());
    kept.heat(7);
    assert_eq!(inodes(&kept.found().all.unwrap()), [7]);
}

/// A disk that is gone kept a program waiting, or its log was believed although changes had passed it.
#[test]
fn packets_wait_for_the_ceiling_and_are_found_below_it() {
    let kept = Kept::begin();
    kept.settle(true);
    assert_eq!(kept.leave.load(SeqCst), 4);
    kept.last.store(5, SeqCst);
    kept.log.ask();
    eventually("the ceiling", || kept.leave.load(SeqCst) >= 5);
    assert!(kept.found().all.unwrap().ceiling >= Sequence(5));
    eventually("rest", || kept.leave.load(SeqCst) == 5);
    eventually("rest on disk", || kept.found().all.unwrap().ceiling == Sequence(5));
    kept.next_generation(true);
    assert_eq!(kept.found().all.unwrap().ceiling, Sequence(5), "a generation has its own");
}

#[test]
fn what_is_owed_still_is_carried_over_runs() {
    let first = Kept::begin();
    first.settle(true);
    first.heat(30);
    let known = first.found().all.unwrap();
    let dir = tempfile::tempdir().unwrap();
    copy(first.dir.path(), dir.path());
    let second = Kept::begin_owing(dir, Some(&known));
    second.heat(31);
    let found = second.found();
    assert!(found.all.is_err(), "what was changed in between is on no disk");
    assert_eq!(inodes(&found.carried.unwrap()), [30], "what was owed is, also after a kill");
    second.settle(true);
    let all = second.found().all.unwrap();
    assert_eq!((inodes(&all), all.since), (vec![30, 31], known.since));
    second.next_generation(true);
    assert_eq!(inodes(&second.found().all.unwrap()), [30]);
    second.log.forget_carried();
    assert!(second.found().carried.is_err());
    assert_eq!(inodes(&second.found().all.unwrap()), Vec::<u64>::new());
    let left: Vec<_> = fs::read_dir(second.dir.path()).unwrap().collect();
    assert_eq!(left.len(), 2, "a document and a generation: {left:?}");
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// Threads that touch cold objects while generations change: whatever is changed is found at every moment.
#[test]
fn many_threads_are_hot_before_they_go_on() {
    let kept = Kept::begin();
    kept.settle(true);
    let changed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let (kept, changed) = (&kept, &changed);
            scope.spawn(move || {
                for round in 0..12 {
                    // Another generation may begin right behind it: the guard looks once more.
                    kept.log.heat(&AtomicU64::new(0), object(1000 * thread + round));
                    changed.lock().unwrap().push(1000 * thread + round);
                }
            });
        }
        for _ in 0..3 {
            // Nothing is given up: no sync was made.
            let prepared = kept.log.prepare().unwrap();
            assert!(kept.log.rotate(prepared));
        }
    });
    let mut expected = changed.into_inner().unwrap();
    expected.sort_unstable();
    assert_eq!(inodes(&kept.found().all.unwrap()), expected);
    let fill = kept.log.fill();
    assert!(fill.commits <= fill.records && fill.waits >= 48, "{fill:?}");
}
