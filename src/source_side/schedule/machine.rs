//! When the next verification is due. Pure: what time it is, and what the clocks on the wall say, is told.

use crate::words::{VerifyPlan, Zone};

/// Between two tries of one that could not be made.
const RETRY_EVERY: i64 = 60;

/// Of one connection.
#[derive(Default)]
pub(super) struct Schedule {
    tried: Option<i64>,
    /// When the clock was first found to be set back behind what is served.
    set_back: Option<i64>,
}

impl Schedule {
    /// Whether it is to be made now, and the moment that it was due at; several that were missed are one.
    /// `served`: up to when all were made, `now`: both in seconds since 1970.
    pub(super) fn due(&mut self, plan: &VerifyPlan, served: i64, now: i64, zone: Zone<'_>) -> Option<i64> {
        // A clock that was set back brings neither many at once nor none for long.
        self.tried = self.tried.filter(|tried| *tried <= now);
        self.set_back = (served > now).then(|| self.set_back.map_or(now, |since| since.min(now)));
        let served = self.set_back.unwrap_or(served);
        let point = last_before(plan, served, now, zone).filter(|point| *point > served)?;
        if self.tried.is_some_and(|tried| now - tried < RETRY_EVERY) {
            return None;
        }
        self.tried = Some(now);
        Some(point)
    }
}

/// The last moment up to `now` at which one is due.
fn last_before(plan: &VerifyPlan, served: i64, now: i64, zone: Zone<'_>) -> Option<i64> {
    let every = plan.every_s() as i64;
    match plan.times() {
        Some(times) => times.last_before(now, zone),
        None => Some(served + (now - served) / every * every),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::words::{DAY, VerifyMode};

    const HOUR: i64 = 3600;
    /// 2024-03-31 01:00 UTC: 02:00 becomes 03:00.
    const SPRING: i64 = 1_711_846_800;
    /// 2024-10-27 01:00 UTC: 03:00 becomes 02:00.
    const AUTUMN: i64 = 1_729_990_800;

    fn berlin(at: i64) -> i64 {
        if (SPRING..AUTUMN).contains(&at) { 2 * HOUR } else { HOUR }
    }

    fn plan(every: i64, at: Option<&str>) -> VerifyPlan {
        let at = at.map(|at| at.parse().unwrap());
        VerifyPlan::new(Duration::from_secs(every as u64), at, VerifyMode::default()).unwrap()
    }

    /// All that are made from one moment to another by a daemon that looks every minute.
    fn made(plan: &VerifyPlan, from: i64, to: i64) -> Vec<i64> {
        let (mut schedule, mut served, mut made) = (Schedule::default(), from, Vec::new());
        for now in (from..to).step_by(60) {
            if let Some(point) = schedule.due(plan, served, now, &berlin) {
                made.push(now);
                served = point;
            }
        }
        made
    }

    #[test]
    fn it_comes_at_its_time_of_day() {
        // 2024-01-01 00:00 UTC.
        let new_year = 1_704_067_200;
        let daily = made(&plan(DAY, Some("03:00")), new_year, new_year + 3 * DAY);
        assert_eq!(daily, [0, 1, 2].map(|day| new_year + day * DAY + 2 * HOUR));
        let often = made(&plan(6 * HOUR, Some("21:00")), new_year, new_year + DAY);
        assert_eq!(often, [2, 8, 14, 20].map(|hour| new_year + hour * HOUR));
        let weekly = made(&plan(7 * DAY, Some("03:00")), new_year, new_year + 28 * DAY);
        assert_eq!(weekly.len(), 4);
        assert!(weekly.windows(2).all(|two| two[1] - two[0] == 7 * DAY));
    }

    /// 02:30 is not shown on one day and twice on another: it comes once on each.
    #[test]
    fn summer_time_neither_takes_nor_adds_one() {
        let half_past_two = plan(DAY, Some("02:30"));
        let spring = made(&half_past_two, SPRING - 2 * DAY, SPRING + 2 * DAY);
        let half = HOUR / 2;
        let winter = [SPRING - 2 * DAY + half, SPRING - DAY + half];
        let summer = [SPRING + DAY - half, SPRING + 2 * DAY - half];
        assert_eq!(spring, [&winter[..], &[SPRING + half], &summer].concat());
        let autumn = made(&half_past_two, AUTUMN - 2 * DAY, AUTUMN + 2 * DAY);
        assert_eq!(autumn[autumn.len() - 2..], [AUTUMN - half, AUTUMN + DAY + half]);
        assert_eq!(autumn.len(), 3);
        for change in [SPRING, AUTUMN] {
            let hourly = made(&plan(HOUR, Some("00:00")), change - DAY, change + DAY).len() as i64;
            // The hour that is shown twice is one.
            assert!((46..=48).contains(&hourly), "{hourly}");
        }
    }

    #[test]
    fn what_was_missed_comes_once() {
        let daily = plan(DAY, Some("03:00"));
        let mut schedule = Schedule::default();
        let now = SPRING + 100 * DAY + 5 * HOUR;
        let point = schedule.due(&daily, SPRING, now, &berlin).unwrap();
        assert_eq!(schedule.due(&daily, point, now + 1, &berlin), None);
        let plain = plan(36 * HOUR, None);
        let point = Schedule::default().due(&plain, SPRING, now, &berlin).unwrap();
        assert_eq!(point, SPRING + 66 * 36 * HOUR);
        assert_eq!(Schedule::default().due(&plain, point, now, &berlin), None);
    }

    #[test]
    fn one_that_cannot_be_made_is_tried_again_later() {
        let (plain, mut schedule) = (plan(HOUR, None), Schedule::default());
        let tries = (0..300).filter(|now| schedule.due(&plain, -HOUR, *now, &berlin).is_some());
        assert_eq!(tries.collect::<Vec<_>>(), [0, 60, 120, 180, 240]);
    }

    #[test]
    fn a_clock_that_was_set_back_does_not_stop_it() {
        let plain = plan(HOUR, None);
        let mut schedule = Schedule::default();
        assert!(schedule.due(&plain, 0, 100 * DAY, &berlin).is_some());
        let served = 100 * DAY;
        assert_eq!(schedule.due(&plain, served, DAY, &berlin), None);
        let daily = plan(DAY, Some("12:00"));
        let later =
            (DAY..3 * DAY).step_by(60).find(|now| schedule.due(&daily, served, *now, &berlin).is_some());
        assert_eq!(later, Some(DAY + 11 * HOUR));
    }
}
