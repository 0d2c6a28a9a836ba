//! `--fsync=target`: a sync of an application returns when the targets have it on their disks.
//!
//! ```text
//!  fuse thread: enter ──> machine ── barrier ──> queue ──> target ── durable acknowledgement
//!  sync thread: local disk done ──> │                                      │
//!  timer thread: deadlines ───────> machine <── connection thread: stands ─┘
//!                                   └── answers, from whichever thread was last
//! ```
//! No thread waits for the network: a sync is an entry in a list. What a sync asks for is
//! everything that was captured when it came; the kernel has sent dirty pages of the file before.

mod machine;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

use crate::intercept::{Divergence, DurabilityGate, Fence, SyncAnswer};
use crate::packet::{Op, Sequence};
use crate::queue::{Draft, Queue};
use crate::words::{Late, Needs, Rule};
use machine::{Action, Machine, Ticket};
pub use machine::{Standing, Trouble, Verdict};

/// Room for the header of a barrier.
const BARRIER_ROOM: usize = 64;

/// See the module.
pub struct TargetDurability {
    rule: Rule,
    queue: Arc<Queue>,
    /// What a target has is worth nothing where a change is in no packet.
    divergence: Arc<Divergence>,
    /// What targets do not have they never get once somebody else writes the set.
    fence: Arc<Fence>,
    list: Mutex<List>,
    /// The timer sleeps without an end, or the end has come.
    earlier: Condvar,
    barriers: Mutex<Barriers>,
}

/// A leaf lock but for the queue's tail.
#[derive(Default)]
struct Barriers {
    are_held: bool,
    is_owed: bool,
}

/// While it lives syncs put nothing into the queue, and wait.
pub struct HeldBarriers(Arc<TargetDurability>);

impl Drop for HeldBarriers {
    fn drop(&mut self) {
        let was = std::mem::take(&mut *self.0.barriers.lock());
        if was.is_owed {
            self.0.perform(Due::Barrier);
        }
    }
}

/// A leaf lock: nothing is taken under it, no answer is given under it.
struct List {
    machine: Machine,
    answers: HashMap<Ticket, SyncAnswer>,
    /// The timer sleeps until somebody wakes it.
    timer_sleeps: bool,
    ended: bool,
}

/// What the status says of it.
#[derive(Clone, Copy, Debug)]
pub struct Snapshot {
    pub rule: Rule,
    pub waiting: usize,
    pub timed_out: u64,
    pub trouble: Option<(TroubleKind, SystemTime)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TroubleKind {
    Failing,
    Degraded,
}

impl TargetDurability {
    /// `targets` is how many real ones there are: at least one. A thread watches deadlines until
    /// [`TargetDurability::end`].
    pub fn start(
        rule: Rule,
        queue: Arc<Queue>,
        targets: usize,
        (divergence, fence): (Arc<Divergence>, Arc<Fence>),
    ) -> io::Result<Arc<TargetDurability>> {
        let machine = Machine::new(rule, targets);
        let list = List { machine, answers: HashMap::new(), timer_sleeps: false, ended: false };
        let durability = Arc::new(TargetDurability {
            rule,
            queue,
            divergence,
            fence,
            list: Mutex::new(list),
            earlier: Condvar::new(),
            barriers: Mutex::default(),
        });
        let timer = durability.clone();
        std::thread::Builder::new().name("sync-timer".into()).spawn(move || timer.watch_deadlines())?;
        Ok(durability)
    }

    /// Another target while the others go on: see [`Machine::add`].
    pub fn add(&self) -> usize {
        self.with(|list| list.machine.add())
    }

    /// How a target stands now; called whenever that changes. `None`: it was disconnected.
    pub fn stands(&self, target: usize, standing: Option<Standing>) {
        let now = Instant::now();
        self.with(|list| match standing {
            Some(standing) => list.machine.handle_standing(now, target, standing),
            None => list.machine.handle_gone(now, target),
        });
    }

    /// From here on the queue gets nothing of its own accord, until what is given is dropped.
    pub fn hold_barriers(self: &Arc<Self>) -> HeldBarriers {
        self.barriers.lock().are_held = true;
        HeldBarriers(self.clone())
    }

    /// Answers everybody who waits: with an error, or by the local disk alone where that was
    /// allowed (`--fsync-degrade`). Whoever comes later gets the same.
    pub fn end(&self) {
        self.with(|list| {
            list.ended = true;
            list.machine.handle_end();
        });
        self.earlier.notify_all();
    }

    pub fn snapshot(&self) -> Snapshot {
        let list = self.list.lock();
        let trouble = list.machine.trouble().map(|trouble| {
            let (kind, since) = match trouble {
                Trouble::Failing { since } => (TroubleKind::Failing, since),
                Trouble::Degraded { since } => (TroubleKind::Degraded, since),
            };
            (kind, SystemTime::now() - since.elapsed())
        });
        let machine = &list.machine;
        Snapshot { rule: self.rule, waiting: machine.waiting(), timed_out: machine.timed_out(), trouble }
    }

    /// Changes the list, then does what follows from it, without the lock.
    fn with<T>(&self, change: impl FnOnce(&mut List) -> T) -> T {
        let mut list = self.list.lock();
        let before = list.machine.trouble();
        // What the disk has lost no copy brings: nobody waits for that.
        let is_lost = self.divergence.lost_by_disk().is_some();
        list.machine.untold = if is_lost { 0 } else { self.divergence.count() };
        let value = change(&mut list);
        let wake_timer = list.timer_sleeps && list.machine.poll_timeout().is_some();
        list.timer_sleeps &= !wake_timer;
        let mut due = Vec::new();
        while let Some(action) = list.machine.poll_action() {
            due.push(match action {
                Action::Barrier => Due::Barrier,
                Action::Answer { ticket, verdict } => match list.answers.remove(&ticket) {
                    Some(answer) => Due::Answer(answer, verdict),
                    None => continue,
                },
            });
        }
        let after = list.machine.trouble();
        drop(list);
        if wake_timer {
            self.earlier.notify_all();
        }
        self.tell(before, after);
        due.into_iter().for_each(|due| self.perform(due));
        value
    }

    fn perform(&self, due: Due) {
        match due {
            Due::Answer(answer, verdict) => answer(outcome(self.as_things_are(verdict))),
            Due::Barrier => {
                let mut barriers = self.barriers.lock();
                if barriers.are_held {
                    barriers.is_owed = true;
                    return;
                }
                let appended = self.append_barrier();
                drop(barriers);
                match appended {
                    Some(position) => {
                        self.with(|list| list.machine.handle_barrier(Instant::now(), position));
                    }
                    None => self.with(|list| list.machine.handle_no_barrier()),
                }
            }
        }
    }

    /// What the directory's own disk has lost no target's word makes good. The local disk alone counts as long as it is
    /// the set's.
    fn as_things_are(&self, verdict: Verdict) -> Verdict {
        let verdict = match (verdict, self.rule.late) {
            (Verdict::Durable, Late::Fail) if self.divergence.lost_by_disk().is_some() => Verdict::TimedOut,
            (Verdict::Durable, Late::Degrade) if self.divergence.lost_by_disk().is_some() => {
                Verdict::LocalOnly
            }
            (verdict, _) => verdict,
        };
        match verdict {
            Verdict::LocalOnly if self.fence.raised().is_some() => Verdict::TimedOut,
            verdict => verdict,
        }
    }

    /// Never waits for room in the queue: there is one barrier at a time.
    fn append_barrier(&self) -> Option<Sequence> {
        let mut room = self.queue.reserve_beyond(BARRIER_ROOM).ok()?;
        let draft = Draft::new(b"", &Op::Barrier { durable: true, name: None }, Bytes::new());
        Some(self.queue.append(&mut room, draft).sequence)
    }

    fn tell(&self, before: Option<Trouble>, after: Option<Trouble>) {
        let timeout = self.rule.timeout;
        match (before, after) {
            (None, Some(Trouble::Failing { .. })) => {
                log::error!("the targets did not make a sync durable within {timeout:?}: it failed");
            }
            (None, Some(Trouble::Degraded { .. })) => log::error!(
                "the targets did not make a sync durable within {timeout:?}: syncs return with the local disk \
                 alone until they do"
            ),
            (Some(_), None) => log::warn!("the targets make syncs durable again"),
            (None, None) | (Some(_), Some(_)) => {}
        }
    }

    fn watch_deadlines(&self) {
        loop {
            {
                let mut list = self.list.lock();
                if list.ended {
                    return;
                }
                match list.machine.poll_timeout() {
                    // Most syncs are over long before: the timer is not woken for each of them.
                    Some(at) => drop(self.earlier.wait_until(&mut list, at)),
                    None => {
                        list.timer_sleeps = true;
                        self.earlier.wait(&mut list);
                        list.timer_sleeps = false;
                    }
                }
            }
            self.with(|list| list.machine.handle_timeout(Instant::now()));
        }
    }

    fn local_sync_ended(&self, ticket: Ticket, local: io::Result<()>) {
        match local {
            Ok(()) => self.with(|list| list.machine.handle_local(ticket)),
            Err(error) => {
                let answer = self.with(|list| {
                    list.machine.handle_local_failure(ticket);
                    list.answers.remove(&ticket)
                });
                if let Some(answer) = answer {
                    answer(Err(error));
                }
            }
        }
    }
}

/// What is done once the list is unlocked.
enum Due {
    Answer(SyncAnswer, Verdict),
    Barrier,
}

impl DurabilityGate for Arc<TargetDurability> {
    fn enter(&self, answer: SyncAnswer) -> SyncAnswer {
        let position = self.queue.last().sequence;
        let ticket = self.with(|list| {
            let ticket = list.machine.handle_sync(Instant::now(), position);
            let other = list.answers.insert(ticket, answer);
            assert!(other.is_none(), "two syncs wait under one number");
            ticket
        });
        let durability = self.clone();
        Box::new(move |local| durability.local_sync_ended(ticket, local))
    }
}

fn outcome(verdict: Verdict) -> io::Result<()> {
    match verdict {
        Verdict::Durable | Verdict::LocalOnly => Ok(()),
        Verdict::TimedOut | Verdict::Ended => Err(io::Error::from_raw_os_error(libc::EIO)),
    }
}

impl Rule {
    /// How long at most, what then: in words.
    pub fn in_words(&self) -> String {
        let targets = match self.needs {
            Needs::All => "all targets",
            Needs::Any => "any target",
        };
        let late = match self.late {
            Late::Fail => "then they fail",
            Late::Degrade => "then the local disk counts alone",
        };
        format!("syncs wait for {targets}, {} s at most; {late}", Duration::as_secs_f64(&self.timeout))
    }
}
