//! The machine against scripts of what may happen.

mod walk;

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::TargetDurability;
use super::machine::{Action, Machine, Standing, Ticket, Trouble, Verdict};
use crate::intercept::{Divergence, DurabilityGate, Fence, Fenced};
use crate::packet::{Epoch, Incarnation, Position, Sequence};
use crate::queue::Queue;
use crate::words::{Late, Needs, Rule};

const TIMEOUT: Duration = Duration::from_secs(30);

/// A machine, its time, and what it did.
struct Bench {
    machine: Machine,
    start: Instant,
    now: Instant,
}

impl Bench {
    fn new(needs: Needs, late: Late, targets: usize) -> Bench {
        let start = Instant::now();
        let machine = Machine::new(Rule { needs, timeout: TIMEOUT, late }, targets);
        let mut bench = Bench { machine, start, now: start };
        (0..targets).for_each(|target| bench.stands(target, 0));
        bench
    }

    /// Seconds since the start.
    fn at(&mut self, seconds: u64) {
        self.now = self.start + Duration::from_secs(seconds);
        self.machine.handle_timeout(self.now);
    }

    fn sync(&mut self, position: u64) -> Ticket {
        self.machine.handle_sync(self.now, Sequence(position))
    }

    /// A sync whose local part is done at once.
    fn synced(&mut self, position: u64) -> Ticket {
        let ticket = self.sync(position);
        self.machine.handle_local(ticket);
        ticket
    }

    fn stands(&mut self, target: usize, durable: u64) {
        let standing = Standing { in_line: true, durable: Sequence(durable), covers: 0 };
        self.machine.handle_standing(self.now, target, standing);
    }

    fn lost(&mut self, target: usize, durable: u64) {
        let standing = Standing { in_line: false, durable: Sequence(durable), covers: 0 };
        self.machine.handle_standing(self.now, target, standing);
    }

    fn barrier(&mut self, position: u64) {
        self.machine.handle_barrier(self.now, Sequence(position));
    }

    #[track_caller]
    fn does(&mut self, expected: &[Action]) {
        let did: Vec<Action> = std::iter::from_fn(|| self.machine.poll_action()).collect();
        assert_eq!(did, expected);
    }
}

fn answer(ticket: Ticket, verdict: Verdict) -> Action {
    Action::Answer { ticket, verdict }
}

#[test]
fn a_sync_returns_when_both_disks_have_it() {
    let mut bench = Bench::new(Needs::All, Late::Fail, 1);
    let local_first = bench.synced(5);
    bench.does(&[Action::Barrier]);
    bench.barrier(6);
    bench.stands(0, 4);
    bench.does(&[]);
    bench.stands(0, 6);
    bench.does(&[answer(local_first, Verdict::Durable)]);

    let target_first = bench.sync(8);
    bench.does(&[Action::Barrier]);
    bench.barrier(9);
    bench.stands(0, 9);
    bench.does(&[]);
    bench.machine.handle_local(target_first);
    bench.does(&[answer(target_first, Verdict::Durable)]);
    assert_eq!((bench.machine.waiting(), bench.machine.poll_timeout()), (0, None));
}

/// The word of a target that was disconnected is not waited for; without any target nothing is
/// ever durable on one.
#[test]
fn a_target_that_is_gone_does_not_count() {
    for needs in [Needs::All, Needs::Any] {
        let mut bench = Bench::new(needs, Late::Fail, 2);
        let ticket = bench.synced(5);
        bench.does(&[Action::Barrier]);
        bench.barrier(6);
        bench.machine.handle_gone(bench.now, 1);
        bench.does(&[]);
        bench.stands(0, 6);
        bench.does(&[answer(ticket, Verdict::Durable)]);
        bench.machine.handle_gone(bench.now, 0);
        let ticket = bench.synced(1);
        bench.does(&[Action::Barrier]);
        bench.at(60);
        bench.does(&[answer(ticket, Verdict::TimedOut)]);
    }
}

#[test]
fn a_sync_of_what_is_durable_sends_nothing() {
    let mut bench = Bench::new(Needs::All, Late::Fail, 1);
    bench.stands(0, 7);
    let ticket = bench.synced(7);
    bench.does(&[answer(ticket, Verdict::Durable)]);
}

#[test]
fn syncs_share_the_next_barrier() {
    let mut bench = Bench::new(Needs::All, Late::Fail, 1);
    let first = bench.synced(1);
    bench.does(&[Action::Barrier]);
    let early = bench.synced(1);
    bench.barrier(2);
    let (second, third) = (bench.synced(5), bench.synced(7));
    bench.does(&[]);
    bench.stands(0, 2);
    let first_two = [answer(first, Verdict::Durable), answer(early, Verdict::Durable)];
    bench.does(&[first_two[0], first_two[1], Action::Barrier]);
    bench.barrier(8);
    bench.stands(0, 8);
    bench.does(&[answer(second, Verdict::Durable), answer(third, Verdict::Durable)]);
}

#[test]
fn an_acknowledgement_may_come_before_its_barrier_is_known() {
    let mut bench = Bench::new(Needs::All, Late::Fail, 1);
    let first = bench.synced(1);
    bench.does(&[Action::Barrier]);
    let second = bench.synced(3);
    bench.stands(0, 2);
    bench.does(&[answer(first, Verdict::Durable)]);
    bench.barrier(2);
    bench.does(&[Action::Barrier]);
    bench.barrier(4);
    bench.stands(0, 4);
    bench.does(&[answer(second, Verdict::Durable)]);
}

#[test]
fn all_targets_or_any() {
    for (needs, after_one) in [(Needs::Any, true), (Needs::All, false)] {
        let mut bench = Bench::new(needs, Late::Fail, 2);
        let ticket = bench.synced(5);
        bench.does(&[Action::Barrier]);
        bench.barrier(6);
        bench.stands(1, 6);
        assert_eq!(bench.machine.waiting() == 0, after_one, "{needs:?}");
        bench.stands(0, 6);
        bench.does(&[answer(ticket, Verdict::Durable)]);
    }
}

/// Its first copy may take hours.
#[test]
fn a_target_that_comes_counts_as_soon_as_it_is_in_line() {
    let mut bench = Bench::new(Needs::All, Late::Fail, 1);
    let added = bench.machine.add();
    bench.lost(added, 0);
    let ticket = bench.synced(5);
    bench.does(&[Action::Barrier]);
    bench.barrier(6);
    bench.stands(0, 6);
    bench.does(&[answer(ticket, Verdict::Durable)]);
    bench.stands(added, 6);
    let ticket = bench.synced(7);
    bench.does(&[Action::Barrier]);
    bench.barrier(8);
    bench.stands(0, 8);
    bench.lost(added, 6);
    bench.does(&[]);
    bench.stands(added, 8);
    bench.does(&[answer(ticket, Verdict::Durable)]);
    bench.machine.handle_gone(bench.now, added);
    let ticket = bench.synced(9);
    bench.does(&[Action::Barrier]);
    bench.barrier(10);
    bench.stands(0, 10);
    bench.does(&[answer(ticket, Verdict::Durable)]);
}

#[test]
fn a_target_out_of_line_does_not_count_whatever_it_had() {
    let mut bench = Bench::new(Needs::All, Late::Fail, 1);
    bench.stands(0, 9);
    bench.lost(0, 9);
    let ticket = bench.synced(5);
    bench.does(&[Action::Barrier]);
    bench.barrier(10);
    bench.lost(0, 10);
    bench.does(&[]);
    bench.stands(0, 10);
    bench.does(&[answer(ticket, Verdict::Durable)]);
}

#[test]
fn a_late_sync_fails_and_the_trouble_ends_with_the_next_round_trip() {
    let mut bench = Bench::new(Needs::All, Late::Fail, 1);
    let first = bench.synced(1);
    bench.does(&[Action::Barrier]);
    bench.barrier(2);
    bench.at(10);
    let second = bench.synced(3);
    bench.at(29);
    bench.does(&[]);
    assert_eq!(bench.machine.poll_timeout(), Some(bench.start + TIMEOUT));
    bench.at(30);
    bench.does(&[answer(first, Verdict::TimedOut)]);
    let failing = Some(Trouble::Failing { since: bench.now });
    assert_eq!((bench.machine.trouble(), bench.machine.timed_out()), (failing, 1));
    bench.at(35);
    bench.stands(0, 2);
    // 35 s for a barrier is no proof that syncs go through again.
    bench.does(&[Action::Barrier]);
    assert_eq!(bench.machine.trouble(), failing);
    bench.barrier(4);
    bench.at(36);
    bench.stands(0, 4);
    bench.does(&[answer(second, Verdict::Durable)]);
    assert_eq!(bench.machine.trouble(), None);
}

#[test]
fn with_degrade_all_go_on_and_later_ones_do_not_wait() {
    let mut bench = Bench::new(Needs::All, Late::Degrade, 1);
    let first = bench.synced(1);
    bench.does(&[Action::Barrier]);
    bench.barrier(2);
    bench.at(20);
    let (second, local_not_done) = (bench.synced(3), bench.sync(4));
    bench.at(31);
    bench.does(&[answer(first, Verdict::LocalOnly), answer(second, Verdict::LocalOnly)]);
    bench.machine.handle_local(local_not_done);
    bench.does(&[answer(local_not_done, Verdict::LocalOnly)]);
    assert_eq!(bench.machine.trouble(), Some(Trouble::Degraded { since: bench.now }));
    let later = bench.synced(5);
    bench.does(&[answer(later, Verdict::LocalOnly)]);
    // The old barrier comes late: a new one is the probe, and only that ends it.
    bench.at(90);
    bench.stands(0, 2);
    bench.does(&[Action::Barrier]);
    bench.barrier(6);
    bench.at(91);
    bench.lost(0, 6);
    let still = bench.synced(6);
    bench.does(&[answer(still, Verdict::LocalOnly)]);
    bench.stands(0, 6);
    assert_eq!(bench.machine.trouble(), None);
    let waits = bench.synced(7);
    bench.does(&[Action::Barrier]);
    bench.barrier(8);
    bench.stands(0, 8);
    bench.does(&[answer(waits, Verdict::Durable)]);
}

#[test]
fn the_end_leaves_nobody_waiting() {
    for (late, verdict) in [(Late::Fail, Verdict::Ended), (Late::Degrade, Verdict::LocalOnly)] {
        let mut bench = Bench::new(Needs::All, late, 1);
        let (one, other) = (bench.synced(1), bench.sync(2));
        bench.does(&[Action::Barrier]);
        bench.machine.handle_no_barrier();
        bench.machine.handle_end();
        bench.machine.handle_local(other);
        bench.does(&[answer(one, verdict), answer(other, verdict)]);
        let later = bench.synced(3);
        bench.does(&[answer(later, verdict)]);
        assert_eq!((bench.machine.waiting(), bench.machine.timed_out()), (0, 0));
    }
}

#[test]
fn a_failed_local_sync_is_out_of_the_list() {
    let mut bench = Bench::new(Needs::All, Late::Fail, 1);
    let ticket = bench.sync(1);
    bench.machine.handle_local_failure(ticket);
    bench.does(&[Action::Barrier]);
    bench.barrier(2);
    bench.stands(0, 2);
    bench.at(40);
    bench.does(&[]);
}

/// A sync was called durable by targets that may miss a change.
#[test]
fn targets_of_a_diverged_source_count_for_nothing() {
    for (late, good) in [(Late::Fail, false), (Late::Degrade, true)] {
        let origin = Position::origin(Epoch { number: 1, writer: 2 }, Incarnation(3));
        let rule = Rule { needs: Needs::All, timeout: Duration::from_millis(50), late };
        let divergence = Arc::new(Divergence::default());
        let known = (divergence.clone(), Arc::default());
        let durability = TargetDurability::start(rule, Queue::new(1 << 20, origin), 1, known).unwrap();
        let stands = |covers| {
            durability.stands(0, Some(Standing { in_line: true, durable: Sequence(9), covers }));
        };
        stands(0);
        let sync = || {
            let (answer, answered) = crossbeam_channel::bounded(1);
            let local = durability.enter(Box::new(move |outcome| answer.send(outcome).unwrap()));
            local(Ok(()));
            answered.recv_timeout(Duration::from_secs(60)).unwrap()
        };
        assert!(sync().is_ok());
        for covers in 1..3 {
            if covers == 1 {
                divergence.note("write: I/O error")
            } else {
                divergence.compare("other rules")
            }
            assert_eq!(sync().is_ok(), good, "{late:?}");
            // As soon as a copy has brought it, whoever takes notice of that later.
            stands(covers);
            assert!(sync().is_ok());
        }
        // What the disk has lost comes by no copy: nobody waits.
        let (file, late_ones) = (tempfile::tempfile().unwrap(), durability.snapshot().timed_out);
        divergence.note_sync("a file", file.as_fd(), &Err(io::Error::from_raw_os_error(libc::EIO)));
        assert_eq!((sync().is_ok(), durability.snapshot().timed_out), (good, late_ones), "{late:?}");
        durability.end();
    }
}

/// Syncs that only the local disk had were called durable by a directory that is overwritten by who stands in.
#[test]
fn the_local_disk_alone_counts_for_nothing_once_the_set_is_written_elsewhere() {
    let origin = Position::origin(Epoch { number: 1, writer: 2 }, Incarnation(3));
    let rule = Rule { needs: Needs::All, timeout: Duration::from_millis(1), late: Late::Degrade };
    let fence = Arc::new(Fence::default());
    let known = (Arc::default(), fence.clone());
    let durability = TargetDurability::start(rule, Queue::new(1 << 20, origin), 1, known).unwrap();
    let sync = || {
        let (answer, answered) = crossbeam_channel::bounded(1);
        let local = durability.enter(Box::new(move |outcome| answer.send(outcome).unwrap()));
        local(Ok(()));
        answered.recv_timeout(TIMEOUT).unwrap()
    };
    assert!(sync().is_ok(), "the target is late, and the local disk counts");
    fence.raise(Fenced { epoch: Epoch { number: 2, writer: 9 }, told_by: "a target".into() });
    assert!(sync().is_err());
    durability.end();
    assert!(sync().is_err());
}
