//! When it sends: brings its schedule to the machine, and what people say of it to the schedule.

use std::time::{Duration, Instant, SystemTime};

use super::super::surroundings::Surroundings;
use super::super::{Scheduled, Settings};
use super::Driver;
use crate::clock;
use crate::connection::{Event, KeptSchedule, Look, NotNow, Scheduler, Sending, State, Turn, Window};
use crate::control::unix_ms;
use crate::limits::DURABLE_INTERVAL;
use crate::packet::Sequence;
use crate::source_side::Terms;
use crate::sys::utc_offset;
use crate::words::{Order, Own, SchedulePlan, Waiting};

/// What was queued less long ago is under way.
const UNDER_WAY: Duration = Duration::from_secs(1);

/// Longer than a target takes to make durable what it has: a session does not wait for it for ever.
const DURABLE_PATIENCE: Duration = Duration::from_secs(10);

const _: () = assert!(DURABLE_PATIENCE.as_secs() >= 4 * DURABLE_INTERVAL.as_secs());

/// Its schedule, and what people have said of it while it ran.
pub(super) struct Timing {
    pub(super) scheduler: Scheduler,
    pub(super) own: Own<SchedulePlan>,
    /// The last position when this session began to flow.
    queued: Option<Sequence>,
    taken: Option<Taken>,
}

/// The target of this session had whatever was queued.
#[derive(Clone, Copy)]
struct Taken {
    upto: Sequence,
    at: Instant,
}

impl Timing {
    pub(super) fn new(settings: &Settings) -> Timing {
        let own = settings.kept.schedule.clone();
        let plan = own.or(&settings.terms.schedule).map(|(plan, _)| plan);
        let now_s = wall_s();
        let mut scheduler = Scheduler::new(plan, !own.is_off, settings.kept.sessions, now_s);
        scheduler.tick(
            &Look {
                now_s,
                now: clock::now(),
                queue: Waiting { limit: u64::MAX, ..Waiting::default() },
                is_let_go: false,
                sent: 0,
                is_empty: false,
                is_stopped: settings.kept.wish.sending == Sending::Stopped,
            },
            &utc_offset,
        );
        Timing { scheduler, own, queued: None, taken: None }
    }

    pub(super) fn window(&self) -> Window {
        if self.scheduler.is_open() { Window::Open } else { Window::Closed }
    }
}

impl<S: Surroundings> Driver<S> {
    pub(super) fn tick_schedule(&mut self) {
        self.look_what_is_taken();
        let turn = self.timing.scheduler.tick(&self.schedule_look(), &utc_offset);
        if let Some(turn) = turn {
            (self.timing.queued, self.timing.taken) = (None, None);
            self.happened(match turn {
                Turn::Met => Event::CriterionMet,
                Turn::Over => Event::CriterionOver,
            });
        }
        if self.timing.scheduler.plan().is_some() {
            self.update(|report| report.schedule = self.scheduled());
        }
    }

    /// What everyone may know of it.
    pub(in crate::source_side::connection) fn scheduled(&self) -> Option<Scheduled> {
        let (_, origin) = self.timing.own.or(&self.settings.terms.schedule)?;
        Some(Scheduled { scheduler: self.timing.scheduler.clone(), origin })
    }

    pub(in crate::source_side::connection) fn schedule_own(&self) -> Own<SchedulePlan> {
        self.timing.own.clone()
    }

    pub(in crate::source_side::connection) fn sessions_kept(&self) -> KeptSchedule {
        self.timing.scheduler.kept()
    }

    pub(super) fn order_schedule(&mut self, order: Order<SchedulePlan>) {
        self.timing.own.follow(order);
        self.follow_schedule();
    }

    /// What was typed or stands in the file is another one.
    pub(super) fn follow_terms(&mut self, terms: Terms) {
        self.settings.terms = terms;
        self.follow_schedule();
        self.tick_limit();
        self.tick_compression();
    }

    fn follow_schedule(&mut self) {
        let plan = self.timing.own.or(&self.settings.terms.schedule).map(|(plan, _)| plan);
        self.timing.scheduler.follow(plan, !self.timing.own.is_off, wall_s());
        self.tick_schedule();
    }

    /// A session by hand, of one that waits for its schedule.
    pub(super) fn begin_by_hand(&mut self) -> Result<(), NotNow> {
        if matches!(self.machine.state(), State::Scheduled { .. }) {
            let look = self.schedule_look();
            let begun = self.timing.scheduler.begin_by_hand(&look, &utc_offset);
            begun.map_err(|_| NotNow::OutsideWindow)?;
            self.happened(Event::CriterionMet);
        }
        Ok(())
    }

    /// What was queued when it began to flow has to arrive; what comes meanwhile keeps no session from its end.
    fn look_what_is_taken(&mut self) {
        if !self.machine.is_streaming() {
            (self.timing.queued, self.timing.taken) = (None, None);
            return;
        }
        let queued = *self.timing.queued.get_or_insert_with(|| self.queue.last().sequence);
        let behind = self.queue.behind(self.acknowledged).unwrap_or_default();
        let is_under_way = |since: Instant| since.elapsed() < UNDER_WAY;
        self.timing.taken = match self.timing.taken {
            Some(taken) => Some(taken),
            None if self.acknowledged >= queued && behind.since.is_none_or(is_under_way) => {
                Some(Taken { upto: self.acknowledged, at: clock::now() })
            }
            None => None,
        };
    }

    /// Also on its disk: it hears of nothing before the next session.
    fn has_all(&self) -> bool {
        let durable =
            self.session.as_ref().and_then(|session| session.acknowledged).map(|(_, durable)| durable);
        self.timing.taken.is_some_and(|Taken { upto, at }| {
            durable >= Some(upto) || clock::now().saturating_duration_since(at) >= DURABLE_PATIENCE
        })
    }

    fn schedule_look(&self) -> Look {
        use std::sync::atomic::Ordering::Relaxed;

        let behind = self.queue.behind(self.acknowledged).unwrap_or_default();
        let sent = &self.sent;
        Look {
            now_s: wall_s(),
            now: clock::now(),
            queue: Waiting { bytes: behind.bytes, held: behind.held, limit: self.queue.limit() as u64 },
            is_let_go: self.machine.let_go().is_some(),
            sent: sent.bytes.load(Relaxed) + sent.item_bytes.load(Relaxed) + sent.bytes_again.load(Relaxed),
            is_empty: self.machine.is_streaming() && self.has_all(),
            is_stopped: *self.machine.state() == State::Stopped,
        }
    }
}

pub(super) fn wall_s() -> i64 {
    (unix_ms(SystemTime::now()) / 1000) as i64
}
