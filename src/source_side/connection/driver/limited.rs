//! How fast it sends: brings the rate that holds now to its links, and looks whether that is enough.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::super::Throttled;
use super::super::surroundings::Surroundings;
use super::Driver;
use super::scheduled::wall_s;
use crate::clock;
use crate::sys::utc_offset;
use crate::words::{LimitPlan, Order, Origin, Own, Rate, Target};

/// A queue that has grown for less is no sign of anything.
const GROWTH_SEEN: Duration = Duration::from_secs(5);

/// What it has grown by is looked at over this.
const GROWTH_OVER: Duration = Duration::from_secs(30);

/// What people have said of its limit while it ran, and what came of it.
pub(super) struct Limits {
    pub(super) own: Own<LimitPlan>,
    rate: Option<Rate>,
    growth: Growth,
}

impl Limits {
    pub(super) fn new(own: Own<LimitPlan>) -> Limits {
        Limits { own, rate: None, growth: Growth::default() }
    }
}

impl<S: Surroundings> Driver<S> {
    pub(super) fn tick_limit(&mut self) {
        let plan = self.limit_told().filter(|_| !self.limits.own.is_off);
        let rate = plan.and_then(|(plan, _)| plan.rate_at(wall_s(), &utc_offset));
        if rate != self.limits.rate {
            self.limits.rate = rate;
            self.limits.growth = Growth::default();
            self.unpublished = true;
            // A link that waits looks at it anew.
            self.around.limit(rate.map(|Rate(rate)| rate));
        }
        if rate.is_some() && self.machine.is_streaming() {
            let behind = self.queue.behind(self.acknowledged).unwrap_or_default();
            self.limits.growth.note(clock::now(), behind.held);
            self.update(|report| report.limit = self.throttled());
        }
    }

    /// What everyone may know of it.
    pub(in crate::source_side::connection) fn throttled(&self) -> Option<Throttled> {
        let (plan, origin) = self.limit_told()?;
        let (is_on, rate) = (!self.limits.own.is_off, self.limits.rate);
        let grows = self.limits.growth.per_second().filter(|_| rate.is_some());
        Some(Throttled { plan, origin, is_on, rate, grows })
    }

    pub(in crate::source_side::connection) fn limit_own(&self) -> Own<LimitPlan> {
        self.limits.own.clone()
    }

    pub(super) fn order_limit(&mut self, order: Order<LimitPlan>) {
        self.limits.own.follow(order);
        self.tick_limit();
    }

    /// There is no network to a target in this process.
    fn limit_told(&self) -> Option<(LimitPlan, Origin)> {
        match self.settings.target {
            Target::Remote { .. } => self.limits.own.or(&self.settings.terms.limit),
            Target::Local(_) | Target::Null => None,
        }
    }
}

/// Bytes of memory that what a target lacks takes, now and then.
#[derive(Default)]
struct Growth(VecDeque<(Instant, u64)>);

impl Growth {
    fn note(&mut self, now: Instant, bytes: u64) {
        while self.0.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) > GROWTH_OVER) {
            self.0.pop_front();
        }
        self.0.push_back((now, bytes));
    }

    /// Bytes; `None` where it does not grow, or has not been looked at for long enough.
    fn per_second(&self) -> Option<u64> {
        let ((from, before), (to, after)) = (self.0.front()?, self.0.back()?);
        let time = to.saturating_duration_since(*from);
        let grown = after.checked_sub(*before).filter(|grown| *grown > 0 && time >= GROWTH_SEEN)?;
        Some((grown as f64 / time.as_secs_f64()) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_goes_on_growing_is_said() {
        let (began, mut growth) = (Instant::now(), Growth::default());
        let mut note = |seconds: u64, bytes| {
            growth.note(began + Duration::from_secs(seconds), bytes);
            growth.per_second()
        };
        assert_eq!((note(0, 100), note(2, 400), note(6, 700)), (None, None, Some(100)));
        assert_eq!(note(8, 50), None);
        assert_eq!(note(37, 1050), Some(34), "older looks are forgotten");
    }
}
