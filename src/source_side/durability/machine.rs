//! When a sync of an application may return: pure, no clock, no lock, no I/O.
//!
//! ```text
//!              handle_sync                 rule holds, or deadline, or end
//!  application ───────────> local and target ──────────────────────────> local (verdict is known)
//!                                │ handle_local                              │ handle_local
//!                                v                                           v
//!                             target ─── rule holds, deadline, end ───> answered
//! ```
//! At most one barrier is on its way: syncs that come meanwhile share the next one.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use crate::packet::Sequence;
use crate::words::{Late, Needs, Rule};

/// What is known of a target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Connected, the replica good, the stream flowing: only then its word counts.
    pub in_line: bool,
    /// It has made everything up to here durable.
    pub durable: Sequence,
    /// Of what no packet tells ([`crate::intercept::Divergence`]) copies have brought so much.
    pub covers: u64,
}

/// One sync of an application; counted from 1, later ones have later deadlines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// What an application is told once its local sync has succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The targets have it.
    Durable,
    /// The local disk has it, and that counts at this moment.
    LocalOnly,
    /// The targets did not say so in time.
    TimedOut,
    /// The protection ended before they did.
    Ended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Answer {
        ticket: Ticket,
        verdict: Verdict,
    },
    /// Put a durable barrier into the stream and give its position to [`Machine::handle_barrier`].
    Barrier,
}

/// The targets do not keep up, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Syncs get errors.
    Failing { since: Instant },
    /// Syncs are answered when the local disk has them.
    Degraded { since: Instant },
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    position: Sequence,
    deadline: Instant,
    stage: Stage,
}

/// What a sync still waits for.
#[derive(Clone, Copy, Debug)]
enum Stage {
    LocalAndTarget,
    Target,
    Local(Verdict),
}

#[derive(Clone, Copy, Debug)]
enum Barrier {
    None,
    /// The driver was told to send one.
    Asked,
    UnderWay {
        position: Sequence,
        since: Instant,
    },
}

/// See the module.
pub struct Machine {
    rule: Rule,
    /// `None`: it was disconnected and does not count any more.
    targets: Vec<Option<Standing>>,
    /// So much there is that no packet tells: a target without it has made nothing durable that counts.
    pub untold: u64,
    waiting: BTreeMap<Ticket, Waiting>,
    last_ticket: u64,
    barrier: Barrier,
    trouble: Option<Trouble>,
    ended: bool,
    timed_out: u64,
    actions: VecDeque<Action>,
}

impl Machine {
    /// `targets` is how many there are: at least one.
    pub fn new(rule: Rule, targets: usize) -> Machine {
        assert!(targets > 0, "a rule about no target would hold at once");
        Machine {
            rule,
            targets: vec![Some(Standing::default()); targets],
            untold: 0,
            waiting: BTreeMap::new(),
            last_ticket: 0,
            barrier: Barrier::None,
            trouble: None,
            ended: false,
            timed_out: 0,
            actions: VecDeque::new(),
        }
    }

    /// An application asks for everything up to `position`; its local sync begins now.
    pub fn handle_sync(&mut self, now: Instant, position: Sequence) -> Ticket {
        self.last_ticket += 1;
        let ticket = Ticket(self.last_ticket);
        let stage = match self.early_verdict(position) {
            Some(verdict) => Stage::Local(verdict),
            None => Stage::LocalAndTarget,
        };
        let deadline = self.waiting.last_key_value().map(|(_, last)| last.deadline);
        assert!(
            deadline.is_none_or(|last| last <= now + self.rule.timeout),
            "a later sync has an earlier deadline"
        );
        self.waiting.insert(ticket, Waiting { position, deadline: now + self.rule.timeout, stage });
        if matches!(stage, Stage::LocalAndTarget) {
            self.want_barrier();
        }
        ticket
    }

    /// The local disk has what this sync asked for.
    pub fn handle_local(&mut self, ticket: Ticket) {
        let Some(waiting) = self.waiting.get_mut(&ticket) else { return };
        match waiting.stage {
            Stage::LocalAndTarget => waiting.stage = Stage::Target,
            Stage::Target => {}
            Stage::Local(verdict) => {
                self.waiting.remove(&ticket);
                self.actions.push_back(Action::Answer { ticket, verdict });
            }
        }
    }

    /// The local disk failed: whoever saw it answers.
    pub fn handle_local_failure(&mut self, ticket: Ticket) {
        self.waiting.remove(&ticket);
    }

    /// The barrier that was asked for has this position.
    pub fn handle_barrier(&mut self, now: Instant, position: Sequence) {
        assert!(
            matches!(self.barrier, Barrier::Asked),
            "a barrier that was not asked for: {:?}",
            self.barrier
        );
        self.barrier = Barrier::UnderWay { position, since: now };
        self.settle(now);
    }

    /// No barrier could be sent: the queue is closed, the end is near.
    pub fn handle_no_barrier(&mut self) {
        self.barrier = Barrier::None;
    }

    pub fn handle_standing(&mut self, now: Instant, target: usize, standing: Standing) {
        assert!(target < self.targets.len(), "a target that does not count says what is durable");
        if self.targets[target].is_none() && !standing.in_line {
            return;
        }
        self.targets[target] = Some(standing);
        self.settle(now);
    }

    /// Another target: it counts as soon as it is in line, and nobody waits for its first copy.
    pub fn add(&mut self) -> usize {
        self.targets.push(None);
        self.targets.len() - 1
    }

    /// A target was disconnected: the others decide. Without any, nothing is ever durable on one.
    pub fn handle_gone(&mut self, now: Instant, target: usize) {
        assert!(target < self.targets.len(), "a target goes that does not count");
        self.targets[target] = None;
        self.settle(now);
    }

    /// Time has passed: see [`Machine::poll_timeout`].
    pub fn handle_timeout(&mut self, now: Instant) {
        let late = self.undecided().any(|waiting| waiting.deadline <= now);
        if !late {
            return;
        }
        match self.rule.late {
            Late::Fail => {
                self.trouble.get_or_insert(Trouble::Failing { since: now });
                self.decide(Verdict::TimedOut, |waiting| waiting.deadline <= now);
            }
            Late::Degrade => {
                self.trouble.get_or_insert(Trouble::Degraded { since: now });
                self.decide(Verdict::LocalOnly, |_| true);
            }
        }
        assert!(self.undecided().all(|waiting| waiting.deadline > now), "a sync waits beyond its time");
    }

    /// The protection ends: nobody waits any more, and nobody who comes later.
    pub fn handle_end(&mut self) {
        self.ended = true;
        self.decide(self.verdict_at_end(), |_| true);
        assert_eq!(self.waiting(), 0, "syncs wait for targets after the end");
    }

    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`Machine::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        // Tickets are given in the order of their deadlines.
        self.undecided().next().map(|waiting| waiting.deadline)
    }

    pub fn trouble(&self) -> Option<Trouble> {
        self.trouble
    }

    /// Syncs that wait for targets at this moment.
    pub fn waiting(&self) -> usize {
        self.undecided().count()
    }

    /// Syncs whose time was over, since the start.
    pub fn timed_out(&self) -> u64 {
        self.timed_out
    }

    fn undecided(&self) -> impl Iterator<Item = &Waiting> {
        self.waiting.values().filter(|waiting| !matches!(waiting.stage, Stage::Local(_)))
    }

    fn early_verdict(&self, position: Sequence) -> Option<Verdict> {
        if self.ended {
            return Some(self.verdict_at_end());
        }
        match self.trouble {
            Some(Trouble::Degraded { .. }) => Some(Verdict::LocalOnly),
            _ if self.has(position) => Some(Verdict::Durable),
            Some(Trouble::Failing { .. }) | None => None,
        }
    }

    fn verdict_at_end(&self) -> Verdict {
        match self.rule.late {
            Late::Fail => Verdict::Ended,
            Late::Degrade => Verdict::LocalOnly,
        }
    }

    /// Whether as many targets as needed have everything up to here.
    fn has(&self, position: Sequence) -> bool {
        let mut targets = self.targets.iter().flatten().peekable();
        let has =
            |target: &Standing| target.in_line && target.durable >= position && target.covers >= self.untold;
        match self.rule.needs {
            Needs::Any => targets.any(has),
            Needs::All => targets.peek().is_some() && targets.all(has),
        }
    }

    /// Something is durable that was not: answers what waited for it, sends the next barrier.
    fn settle(&mut self, now: Instant) {
        let reached: Vec<Ticket> = self
            .waiting
            .iter()
            .filter(|(_, waiting)| !matches!(waiting.stage, Stage::Local(_)) && self.has(waiting.position))
            .map(|(&ticket, _)| ticket)
            .collect();
        self.decide_these(&reached, Verdict::Durable);
        if let Barrier::UnderWay { position, since } = self.barrier
            && self.has(position)
        {
            self.barrier = Barrier::None;
            self.barrier_came(now.saturating_duration_since(since));
        }
    }

    /// A round trip within the time-out shows that syncs would go through: trouble is over.
    fn barrier_came(&mut self, took: Duration) {
        let was_in_trouble = self.trouble.is_some();
        if took < self.rule.timeout {
            self.trouble = None;
        }
        let probe = was_in_trouble && self.trouble.is_some();
        if probe || self.undecided().next().is_some() {
            self.want_barrier();
        }
    }

    fn want_barrier(&mut self) {
        if matches!(self.barrier, Barrier::None) && !self.ended {
            self.barrier = Barrier::Asked;
            self.actions.push_back(Action::Barrier);
        }
    }

    fn decide(&mut self, verdict: Verdict, which: impl Fn(&Waiting) -> bool) {
        let tickets: Vec<Ticket> = self
            .waiting
            .iter()
            .filter(|(_, waiting)| !matches!(waiting.stage, Stage::Local(_)) && which(waiting))
            .map(|(&ticket, _)| ticket)
            .collect();
        if verdict != Verdict::Durable && !self.ended {
            self.timed_out += tickets.len() as u64;
        }
        self.decide_these(&tickets, verdict);
    }

    fn decide_these(&mut self, tickets: &[Ticket], verdict: Verdict) {
        for &ticket in tickets {
            let Some(waiting) = self.waiting.get_mut(&ticket) else { continue };
            match waiting.stage {
                Stage::LocalAndTarget => waiting.stage = Stage::Local(verdict),
                Stage::Target => {
                    self.waiting.remove(&ticket);
                    self.actions.push_back(Action::Answer { ticket, verdict });
                }
                Stage::Local(_) => {}
            }
        }
    }
}
