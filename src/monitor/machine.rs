//! Decides from what probes say, and nothing else: no clock, no I/O.
//!
//! ```text
//!             an answer                       silence: a quarter of the time-out
//!  GREEN <───────────────── YELLOW <──────────────────────────────────── GREEN
//!    ^                        │  the time-out is over, enough attempts have failed, and the own network is there
//!    └────── an answer ──────RED
//!  BLIND from anywhere: the own network is gone, or no probe can tell. When it sees again the countdown begins anew.
//! ```
//! Silence counts only where it was listened to: an attempt has to be made, and to come to its end. A host that has
//! slept, or did not come round to this process, has listened to nothing: the countdown begins anew. All times are
//! milliseconds of one clock that nobody sets and that counts sleep.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::plan::{Need, Plan};

/// How the source is, as far as it can be told from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    Green,
    Yellow,
    Red,
    /// Nothing is concluded.
    Blind,
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Health::Green => "green",
            Health::Yellow => "yellow",
            Health::Red => "red",
            Health::Blind => "blind",
        })
    }
}

/// Of one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    There,
    Silent,
    /// It cannot be told, and that is not the source's fault.
    Unknown,
}

/// One of the probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    Probe(usize),
    Own(usize),
}

#[derive(Clone, Copy, Debug)]
struct Line {
    /// The countdown runs from here.
    since_ms: u64,
    /// There was an answer since the countdown began anew.
    heard: bool,
    /// Attempts that failed since.
    silent: u32,
    unknown: bool,
    /// Its silence says nothing before.
    settled_ms: u64,
    attempts: Attempts,
}

/// When the next one is made, and the one that is under way.
#[derive(Clone, Copy, Debug)]
struct Attempts {
    next_ms: u64,
    /// When it was begun; what it does not hear counts.
    asked: Option<(u64, bool)>,
}

/// See the module.
#[derive(Debug)]
pub struct Machine {
    plan: Plan,
    lines: Vec<Line>,
    /// With whether the last attempt has failed.
    own: Vec<(Attempts, bool)>,
    now_ms: u64,
    health: Health,
    /// Since when the silence is long enough for red; then the own network is asked.
    doubt_ms: Option<u64>,
    /// When the attempt began that showed it last.
    sight_ms: Option<u64>,
    /// An answer came since this machine was made.
    ever_heard: bool,
}

impl Machine {
    pub fn new(plan: Plan, now_ms: u64) -> Machine {
        assert!(!plan.probes.is_empty() && plan.misses >= 2 && plan.interval_ms > 0, "{plan:?}");
        let attempts = Attempts { next_ms: now_ms, asked: None };
        let line =
            Line { since_ms: now_ms, heard: false, silent: 0, unknown: false, settled_ms: 0, attempts };
        Machine {
            lines: vec![line; plan.probes.len()],
            own: vec![(attempts, false); plan.own.len()],
            plan,
            now_ms,
            health: Health::Yellow,
            doubt_ms: None,
            sight_ms: None,
            ever_heard: false,
        }
    }

    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    pub fn health(&self) -> Health {
        self.health
    }

    /// The source has answered since this machine was made.
    pub fn ever_heard(&self) -> bool {
        self.ever_heard
    }

    /// Until it could be red at the earliest; `None` where nothing is concluded.
    pub fn time_to_fail_ms(&self) -> Option<u64> {
        let left = (self.run_from()? + self.plan.timeout_ms()).saturating_sub(self.now_ms);
        (self.health != Health::Blind).then_some(left)
    }

    /// Since when there is silence; `None` where no probe can tell.
    pub fn silent_since_ms(&self) -> Option<u64> {
        self.run_from()
    }

    /// Attempts to be made now; they count as begun.
    pub fn due(&mut self, now_ms: u64) -> Vec<Who> {
        self.pass(now_ms);
        let interval = self.plan.interval_ms;
        let mut due = Vec::new();
        for (number, line) in self.lines.iter_mut().enumerate() {
            due.extend(line.attempts.begin(now_ms, interval).then_some(Who::Probe(number)));
        }
        // Who doubts does not wait.
        let doubts = self.doubt_ms.is_some_and(|doubt| self.sight_ms.is_none_or(|sight| sight < doubt));
        for (number, (attempts, _)) in self.own.iter_mut().enumerate() {
            if doubts {
                attempts.next_ms = attempts.next_ms.min(now_ms);
            }
            due.extend(attempts.begin(now_ms, interval).then_some(Who::Own(number)));
        }
        due
    }

    /// What came of an attempt.
    pub fn heard(&mut self, who: Who, answer: Answer, now_ms: u64) {
        self.pass(now_ms);
        match who {
            Who::Probe(number) => self.of_source(number, answer),
            Who::Own(number) => self.of_own(number, answer),
        }
        self.decide();
    }

    /// The time.
    pub fn tick(&mut self, now_ms: u64) {
        self.pass(now_ms);
        self.decide();
    }

    fn pass(&mut self, now_ms: u64) {
        let passed = now_ms.saturating_sub(self.now_ms);
        self.now_ms = self.now_ms.max(now_ms);
        if passed > self.plan.slept_ms() {
            self.begin_anew();
        }
    }

    /// Nothing that was not heard until now counts.
    fn begin_anew(&mut self) {
        let now = self.now_ms;
        for (line, asks) in self.lines.iter_mut().zip(&self.plan.probes) {
            (line.since_ms, line.heard, line.silent) = (now, false, 0);
            line.settled_ms = now + asks.settles_ms;
            line.attempts.forget(now);
        }
        for (attempts, _) in &mut self.own {
            attempts.forget(now);
        }
        (self.doubt_ms, self.sight_ms) = (None, None);
    }

    fn of_source(&mut self, number: usize, answer: Answer) {
        let now = self.now_ms;
        let line = &mut self.lines[number];
        let counts = line.attempts.end();
        let is_silent = answer == Answer::Silent && now >= line.settled_ms;
        match answer {
            Answer::There => {
                (line.since_ms, line.heard, line.silent, line.unknown) = (now, true, 0, false);
                line.settled_ms = 0;
                self.ever_heard = true;
                self.doubt_ms = None;
            }
            Answer::Silent if !counts => {}
            Answer::Silent if is_silent => {
                if line.unknown {
                    (line.since_ms, line.heard, line.silent) = (now, false, 0);
                }
                line.unknown = false;
                line.silent += 1;
            }
            Answer::Silent | Answer::Unknown => line.unknown = true,
        }
    }

    fn of_own(&mut self, number: usize, answer: Answer) {
        let (attempts, is_lost) = &mut self.own[number];
        let began = attempts.asked.map(|(began, _)| began);
        let counts = attempts.end();
        match answer {
            Answer::There if counts => {
                *is_lost = false;
                self.sight_ms = self.sight_ms.max(began);
            }
            Answer::Silent | Answer::Unknown if counts => *is_lost = true,
            // It says how it was before.
            Answer::There | Answer::Silent | Answer::Unknown => {}
        }
    }

    fn is_lost(&self) -> bool {
        !self.own.is_empty() && self.own.iter().all(|(_, is_lost)| *is_lost)
    }

    fn decide(&mut self) {
        let is_lost = self.is_lost();
        if is_lost {
            self.hold_countdown();
        }
        let silent_long = !is_lost && self.is_silent();
        let telling = self.lines.iter().filter(|line| !line.unknown).count();
        self.health = match () {
            () if silent_long && (self.health == Health::Red || self.is_sure()) => Health::Red,
            () if silent_long => Health::Yellow,
            // An answer that came is one, whatever else is gone.
            () if telling > 0 && self.is_fresh() => Health::Green,
            () if is_lost || telling == 0 => Health::Blind,
            // One that would have to be silent, too, cannot tell.
            () if self.plan.need == Need::All && telling < self.lines.len() => Health::Blind,
            () => Health::Yellow,
        };
        if !silent_long {
            self.doubt_ms = None;
        }
    }

    /// While nothing is seen: what is silent now is counted from when it sees again.
    fn hold_countdown(&mut self) {
        let now = self.now_ms;
        for (line, asks) in self.lines.iter_mut().zip(&self.plan.probes) {
            if line.is_fresh(now, &self.plan) {
                continue;
            }
            (line.since_ms, line.silent, line.heard) = (now, 0, false);
            line.settled_ms = now + asks.settles_ms;
            line.attempts.disregard();
        }
    }

    /// The own network was there behind the time-out.
    fn is_sure(&mut self) -> bool {
        let doubt = *self.doubt_ms.get_or_insert(self.now_ms);
        self.own.is_empty() || self.sight_ms.is_some_and(|sight| sight >= doubt)
    }

    fn is_silent(&self) -> bool {
        let (timeout, needed) = (self.plan.timeout_ms(), self.plan.needed());
        let is_over = |line: &Line| {
            !line.unknown && line.silent >= needed && self.now_ms.saturating_sub(line.since_ms) >= timeout
        };
        match self.plan.need {
            Need::All => self.lines.iter().all(is_over),
            Need::One => self.lines.iter().any(is_over),
        }
    }

    /// Answers come as they should.
    fn is_fresh(&self) -> bool {
        let is_fresh = |line: &Line| line.is_fresh(self.now_ms, &self.plan);
        let mut telling = self.lines.iter().filter(|line| !line.unknown);
        match self.plan.need {
            Need::All => telling.any(is_fresh),
            Need::One => telling.all(is_fresh),
        }
    }

    /// From where the countdown runs.
    fn run_from(&self) -> Option<u64> {
        let telling = self.lines.iter().filter(|line| !line.unknown).map(|line| line.since_ms);
        match self.plan.need {
            Need::All => telling.max(),
            Need::One => telling.min(),
        }
    }
}

impl Line {
    /// An answer that is late is no failure yet.
    fn is_fresh(&self, now_ms: u64, plan: &Plan) -> bool {
        let age = now_ms.saturating_sub(self.since_ms);
        let within =
            if self.silent == 0 { plan.yellow_ms().max(2 * plan.interval_ms) } else { plan.yellow_ms() };
        self.heard && age < within
    }
}

impl Attempts {
    fn begin(&mut self, now_ms: u64, interval_ms: u64) -> bool {
        if self.asked.is_some() || now_ms < self.next_ms {
            return false;
        }
        self.asked = Some((now_ms, true));
        self.next_ms = now_ms + interval_ms;
        true
    }

    /// Whether what it did not hear counts.
    fn end(&mut self) -> bool {
        self.asked.take().is_some_and(|(_, counts)| counts)
    }

    /// One that is under way does not count, and the next is made at once.
    fn forget(&mut self, now_ms: u64) {
        self.next_ms = now_ms;
        self.disregard();
    }

    /// One that is under way does not count.
    fn disregard(&mut self) {
        if let Some((_, counts)) = &mut self.asked {
            *counts = false;
        }
    }
}
