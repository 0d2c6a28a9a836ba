//! When a connection sends, where a person has given it a schedule. Pure: told what time it is and how its queue
//! stands, about once a second.
//!
//! ```text
//!              a time is due, the queue is long, or by hand (in the window)
//!   waiting ──────────────────────────────────────────────────────────────> session
//!      ^                                                                       │
//!      └───────────────────────────────────────────────────────────────────────┘
//!        the window ends, it is empty, it took long enough, it sent enough; stopped by hand
//! ```
//! - Times that passed while none could begin (outside of the window, the daemon was not there) are one, and begin
//!   a session as soon as one may. Those that pass within a session are served by it, those of a connection that
//!   was stopped by hand by nobody.
//! - While the queue is as long as it says, one session follows the other.
//! - A clock that was set forward is as if time had passed. What it says after it was set back by up to
//!   [`SET_BACK_MAX`] begins nothing again; further back, it counts as it is from then on.
//! - How long a session lasts is told by a clock that nobody sets; over a restart by the one on the wall.

mod outlook;

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

pub use self::outlook::Outlook;
use crate::words::{SchedulePlan, Span, Waiting, Zone, wall};

/// A clock is set right by less every now and then.
const SET_BACK_MAX: i64 = 3600;

/// See the module.
#[derive(Clone, Debug)]
pub struct Scheduler {
    plan: Option<SchedulePlan>,
    is_on: bool,
    /// Times up to here have begun what they begin.
    served_s: i64,
    session: Option<Session>,
    last_end: Option<Ended>,
    is_stopped: bool,
    looked: Option<Instant>,
    /// What the last turn said.
    was_open: bool,
}

/// What is to stay over a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KeptSchedule {
    pub served_s: Option<i64>,
    session: Option<KeptSession>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct KeptSession {
    by: Begun,
    began_s: i64,
}

#[derive(Clone, Debug)]
struct Session {
    by: Begun,
    began_s: i64,
    lasted: Duration,
    /// Sent by the connection before it.
    sent_before: u64,
}

/// What began a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Begun {
    AtTime,
    ByQueue,
    ByHand,
}

/// What ended one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Window,
    Empty,
    Time,
    Bytes,
    ByHand,
}

/// How things stand.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// By the clock on the wall, seconds since 1970.
    pub now_s: i64,
    pub now: Instant,
    /// What the target lacks of the queue.
    pub queue: Waiting,
    /// The queue was full, and holds nothing for it: that counts as full.
    pub is_let_go: bool,
    /// Since the daemon began.
    pub sent: u64,
    /// The target has whatever was queued a moment ago, as a rule on its disk, and no copy runs.
    pub is_empty: bool,
    /// By hand.
    pub is_stopped: bool,
}

/// What is to become of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    Met,
    Over,
}

/// Outside of the window, nothing is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutsideWindow;

impl Scheduler {
    /// `now_s`: times up to then have begun what they begin, where nothing is known of that.
    pub fn new(plan: Option<SchedulePlan>, is_on: bool, kept: KeptSchedule, now_s: i64) -> Scheduler {
        let session = kept.session.map(|KeptSession { by, began_s }| Session {
            by,
            began_s,
            lasted: Duration::from_secs(now_s.saturating_sub(began_s).max(0) as u64),
            sent_before: 0,
        });
        let mut scheduler = Scheduler {
            plan,
            is_on,
            served_s: kept.served_s.unwrap_or(now_s),
            session: session.filter(|_| plan.is_some()),
            last_end: None,
            is_stopped: false,
            looked: None,
            was_open: true,
        };
        scheduler.was_open = scheduler.is_open();
        scheduler
    }

    /// Follows this one from now on; what runs ends, unless it would begin by this one too.
    pub fn follow(&mut self, plan: Option<SchedulePlan>, is_on: bool, now_s: i64) {
        if self.plan != plan {
            (self.served_s, self.session, self.last_end) = (now_s, None, None);
        }
        (self.plan, self.is_on) = (plan, is_on);
    }

    /// Time has passed.
    pub fn tick(&mut self, look: &Look, zone: Zone<'_>) -> Option<Turn> {
        self.mind_the_clocks(look);
        if let Some(plan) = self.in_force() {
            self.decide(&plan, look, zone);
        }
        let is_open = self.is_open();
        match (std::mem::replace(&mut self.was_open, is_open), is_open) {
            (false, true) => Some(Turn::Met),
            (true, false) => Some(Turn::Over),
            (true, true) | (false, false) => None,
        }
    }

    /// A person wants a session now: it is open then.
    pub fn begin_by_hand(&mut self, look: &Look, zone: Zone<'_>) -> Result<(), OutsideWindow> {
        if let Some(plan) = self.in_force()
            && self.session.is_none()
        {
            if !is_in_window(&plan, look.now_s, zone) {
                return Err(OutsideWindow);
            }
            self.is_stopped = false;
            self.begin(Begun::ByHand, look);
        }
        self.was_open = true;
        Ok(())
    }

    /// Whether the connection may run.
    pub fn is_open(&self) -> bool {
        self.in_force().is_none() || self.session.is_some()
    }

    pub fn plan(&self) -> Option<&SchedulePlan> {
        self.plan.as_ref()
    }

    pub fn is_on(&self) -> bool {
        self.is_on
    }

    pub fn kept(&self) -> KeptSchedule {
        let session = self
            .session
            .as_ref()
            .map(|Session { by, began_s, .. }| KeptSession { by: *by, began_s: *began_s });
        KeptSchedule { served_s: self.plan.map(|_| self.served_s), session }
    }

    fn in_force(&self) -> Option<SchedulePlan> {
        self.plan.filter(|_| self.is_on)
    }

    fn mind_the_clocks(&mut self, look: &Look) {
        if self.served_s - look.now_s > SET_BACK_MAX {
            self.served_s = look.now_s;
        }
        let passed = self
            .looked
            .replace(look.now)
            .map_or(Duration::ZERO, |before| look.now.saturating_duration_since(before));
        if let Some(session) = &mut self.session {
            session.lasted += passed;
        }
    }

    fn decide(&mut self, plan: &SchedulePlan, look: &Look, zone: Zone<'_>) {
        let due = self.due(plan, look.now_s, zone);
        self.is_stopped = look.is_stopped;
        let end = match &self.session {
            _ if look.is_stopped => Some(Ended::ByHand),
            _ if !is_in_window(plan, look.now_s, zone) => Some(Ended::Window),
            Some(session) => session.end(plan, look),
            None => None,
        };
        if let Some(end) = end {
            if self.session.take().is_some() {
                self.last_end = Some(end);
            }
            if end != Ended::Window {
                self.serve(due);
            }
            return;
        }
        self.serve(due);
        let is_long = || plan.queue.is_some_and(|level| look.is_let_go || level.is_reached(&look.queue));
        let begins = match () {
            () if self.session.is_some() => None,
            () if due.is_some() => Some(Begun::AtTime),
            () if is_long() => Some(Begun::ByQueue),
            () => None,
        };
        if let Some(by) = begins {
            self.begin(by, look);
        }
    }

    /// The last time that has begun nothing yet.
    fn due(&self, plan: &SchedulePlan, now_s: i64, zone: Zone<'_>) -> Option<i64> {
        let last = plan.times.and_then(|times| times.last_before(now_s, zone));
        last.filter(|point| *point > self.served_s)
    }

    fn serve(&mut self, due: Option<i64>) {
        self.served_s = due.unwrap_or(self.served_s);
    }

    fn begin(&mut self, by: Begun, look: &Look) {
        self.session =
            Some(Session { by, began_s: look.now_s, lasted: Duration::ZERO, sent_before: look.sent });
    }
}

impl Session {
    fn end(&self, plan: &SchedulePlan, look: &Look) -> Option<Ended> {
        let sent = look.sent.saturating_sub(self.sent_before);
        let is_over = [
            (Ended::Time, plan.stop_after_s.is_some_and(|after| self.lasted.as_secs() >= after)),
            (Ended::Bytes, plan.stop_bytes.is_some_and(|bytes| sent >= bytes)),
            (Ended::Empty, plan.stop_empty && look.is_empty),
        ];
        is_over.into_iter().find_map(|(end, is_so)| is_so.then_some(end))
    }
}

fn is_in_window(plan: &SchedulePlan, now_s: i64, zone: Zone<'_>) -> bool {
    plan.window.is_none_or(|window| holds(window, now_s, zone))
}

fn holds(window: Span, at: i64, zone: Zone<'_>) -> bool {
    window.begun(wall(at, zone)).is_some()
}
