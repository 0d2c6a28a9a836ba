//! What clocks on the wall show, and what comes again at their times. Pure: the place is told as a [`Zone`].
//!
//! A time of day is meant as clocks on the wall show it. On the day on which they leave it out, it is meant as
//! much later; on the day on which they show it twice, it is the first of the two.

use std::fmt;
use std::str::FromStr;

/// Seconds of a day.
pub const DAY: i64 = 86_400;

/// What is meant by minutes on the wall goes from minute to minute.
const MINUTE: i64 = 60;

/// Seconds that clocks on the wall are ahead of UTC at a moment in seconds since 1970.
pub type Zone<'a> = &'a dyn Fn(i64) -> i64;

/// What clocks on the wall show at a moment, in seconds since they showed the beginning of 1970.
pub fn wall(at: i64, zone: Zone<'_>) -> i64 {
    at + zone(at)
}

/// When clocks on the wall show this for the first time; `wall` in seconds since they showed the beginning of
/// 1970.
pub fn moment(wall: i64, zone: Zone<'_>) -> i64 {
    // Clocks are set at most once in two days, and never by a day.
    let (before, after) = (zone(wall - DAY), zone(wall + DAY));
    let shown = [wall - before.max(after), wall - before.min(after)];
    let shows = |at: &i64| at + zone(*at) == wall;
    // Left out: as if clocks had gone on as before.
    shown.into_iter().find(shows).unwrap_or(wall - before)
}

/// The first full minute after `at` for which `differs` holds, within so many days.
pub fn first_minute(at: i64, days: i64, differs: impl Fn(i64) -> bool) -> Option<i64> {
    let begin = at.div_euclid(MINUTE) * MINUTE + MINUTE;
    (begin..=begin + days * DAY).step_by(MINUTE as usize).find(|minute| differs(*minute))
}

/// `2026-11-27 22:00`, as clocks on the wall show it.
pub fn shown(at: i64, zone: Zone<'_>) -> String {
    let wall = wall(at, zone);
    let minutes = wall.rem_euclid(DAY) / MINUTE;
    format!("{} {}", Date(wall.div_euclid(DAY)), TimeOfDay(minutes as u16))
}

/// Times that come again and again, or once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recurring {
    pub at: TimeOfDay,
    /// Not before this day.
    pub from: Option<Date>,
    /// Seconds: whole days, or what goes into a day without a rest. `None`: once, on that day.
    pub every_s: Option<u32>,
}

impl Recurring {
    /// Whether times of day come again at such an interval.
    pub fn fits(every_s: u64) -> bool {
        every_s > 0 && (every_s.is_multiple_of(DAY as u64) || (DAY as u64).is_multiple_of(every_s))
    }

    /// The last one up to `now`.
    pub fn last_before(&self, now: i64, zone: Zone<'_>) -> Option<i64> {
        let today = wall(now, zone).div_euclid(DAY);
        self.around(today, zone).filter(|point| *point <= now).max()
    }

    /// The first one after `now`.
    pub fn next_after(&self, now: i64, zone: Zone<'_>) -> Option<i64> {
        let today = wall(now, zone).div_euclid(DAY).max(self.first_day());
        self.around(today, zone).filter(|point| *point > now).min()
    }

    fn first_day(&self) -> i64 {
        self.from.map_or(i64::MIN, |Date(day)| day)
    }

    /// Those of the days around one: at least one before it, and one after it.
    fn around<'a>(&self, today: i64, zone: Zone<'a>) -> impl Iterator<Item = i64> + use<'a> {
        let (at, every) = (self.at.seconds(), self.every_s.map_or(DAY, i64::from));
        let (days, each_day) = ((every / DAY).max(1), (DAY / every).max(1));
        let (is_once, first_day) = (self.every_s.is_none(), self.first_day());
        let anchor = self.from.map_or(0, |Date(day)| day);
        let first = self.from.map_or(i64::MIN, |Date(day)| day * DAY + at);
        let listed = if is_once { anchor..=anchor } else { today - days..=today + days };
        listed
            .filter(move |day| *day >= first_day && (day - anchor).rem_euclid(days) == 0)
            .flat_map(move |day| {
                (0..each_day).map(move |turn| day * DAY + (at + turn * every).rem_euclid(DAY))
            })
            .filter(move |wall| *wall >= first)
            .map(move |wall| moment(wall, zone))
    }
}

/// A time of day where the daemon is, in minutes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimeOfDay(u16);

impl TimeOfDay {
    /// From midnight.
    pub fn seconds(self) -> i64 {
        i64::from(self.0) * MINUTE
    }
}

impl FromStr for TimeOfDay {
    type Err = String;

    fn from_str(text: &str) -> Result<TimeOfDay, String> {
        let wrong = || format!("'{text}' is no time of day: write it as 03:00");
        let (hours, minutes) = text.split_once(':').ok_or_else(wrong)?;
        let number = |text: &str, below| plain_number(text, 2).filter(|number| *number < below);
        let (hours, minutes) = number(hours, 24).zip(number(minutes, 60)).ok_or_else(wrong)?;
        Ok(TimeOfDay((hours * 60 + minutes) as u16))
    }
}

impl fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.0 / 60, self.0 % 60)
    }
}

/// A day of the calendar, counted from the first of 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Date(i64);

impl Date {
    /// Days since the first of 1970.
    pub fn since_1970(days: i64) -> Date {
        Date(days)
    }

    /// Monday is 0.
    pub fn weekday(day: i64) -> u8 {
        (day + 3).rem_euclid(7) as u8
    }

    /// Proleptic Gregorian calendar: days from civil, <http://howardhinnant.github.io/date_algorithms.html>.
    fn of(year: i64, month: i64, day: i64) -> Date {
        let year = if month <= 2 { year - 1 } else { year };
        let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
        let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
        Date(era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468)
    }

    /// Year, month, day: civil from days, of the same place.
    fn parts(self) -> (i64, i64, i64) {
        let days = self.0 + 719_468;
        let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
        let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year + year / 4 - year / 100);
        let shifted = (5 * of_year + 2) / 153;
        let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
        (year + era * 400 + i64::from(month <= 2), month, of_year - (153 * shifted + 2) / 5 + 1)
    }
}

impl FromStr for Date {
    type Err = String;

    fn from_str(text: &str) -> Result<Date, String> {
        let wrong = || format!("'{text}' is no date: write it as 2026-12-31");
        let mut parts = text.split('-');
        let mut number = |len| parts.next().and_then(|part| plain_number(part, len)).ok_or_else(wrong);
        let (year, month, day) = (number(4)?, number(2)?, number(2)?);
        let date = Date::of(year, month, day);
        let is_one =
            parts.next().is_none() && (1..=12).contains(&month) && date.parts() == (year, month, day);
        is_one.then_some(date).ok_or_else(wrong)
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = self.parts();
        write!(f, "{year:04}-{month:02}-{day:02}")
    }
}

fn plain_number(text: &str, len: usize) -> Option<i64> {
    let is_plain = text.len() == len && text.bytes().all(|byte| byte.is_ascii_digit());
    is_plain.then(|| text.parse().ok()).flatten()
}

/// Part of a day, from one time up to another one; it may cross midnight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub from: TimeOfDay,
    pub to: TimeOfDay,
}

impl Span {
    /// Whether clocks on the wall that show this show a time in it, and on which day it began.
    pub fn begun(&self, wall: i64) -> Option<i64> {
        let (day, second) = (wall.div_euclid(DAY), wall.rem_euclid(DAY));
        let (from, to) = (self.from.seconds(), self.to.seconds());
        match from < to {
            true => (from..to).contains(&second).then_some(day),
            false if second >= from => Some(day),
            false => (second < to).then_some(day - 1),
        }
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Span, String> {
        let wrong = || format!("'{text}' is no part of a day: write it as 22:00-06:00");
        let (from, to) = text.split_once('-').ok_or_else(wrong)?;
        let to = if to == "24:00" { "00:00" } else { to };
        let span = Span { from: from.parse()?, to: to.parse()? };
        if span.from == span.to && span.from != TimeOfDay::default() {
            return Err(format!("'{text}' begins when it ends: write a whole day as 00:00-24:00"));
        }
        Ok(span)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to == TimeOfDay::default() {
            true => write!(f, "{}-24:00", self.from),
            false => write!(f, "{}-{}", self.from, self.to),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (text, days) in [
            ("1970-01-01", 0),
            ("1970-02-28", 58),
            ("2000-02-29", 11_016),
            ("2000-03-01", 11_017),
            ("2024-12-31", 20_088),
        ] {
            let date: Date = text.parse().unwrap();
            assert_eq!((date, date.to_string().as_str()), (Date(days), text));
        }
        assert_eq!((0..800_000).find(|day| Date(*day).to_string().parse() != Ok(Date(*day))), None);
        for text in ["2025-02-29", "2025-13-01", "2025-00-10", "2025-1-1", "2025-01-00", "2025-01-01-1", ""] {
            text.parse::<Date>().unwrap_err();
        }
        // 1970-01-01 was a Thursday.
        assert_eq!((Date::weekday(0), Date::weekday(4), Date::weekday(-4)), (3, 0, 6));
        assert_eq!(shown(1_700_000_000, &|_| 3600), "2023-11-14 23:13");
    }

    #[test]
    fn times_of_day_are_plain() {
        for at in ["3:00", "24:00", "03:60", "0300", "+3:00", "03:00:00", ""] {
            assert!(at.parse::<TimeOfDay>().is_err(), "{at}");
        }
    }

    #[test]
    fn a_part_of_a_day_may_cross_midnight() {
        let at = |hours: i64| hours * 3600;
        for (text, inside, outside) in [
            ("22:00-06:00", &[22, 23, 24, 29][..], &[6, 21, 30][..]),
            ("08:00-17:00", &[8, 16], &[7, 17, 24]),
            ("00:00-24:00", &[0, 12, 23], &[]),
            ("18:00-24:00", &[18, 23], &[0, 17, 24]),
        ] {
            let span: Span = text.parse().unwrap();
            assert_eq!(span.to_string(), text);
            assert!(inside.iter().all(|hour| span.begun(at(*hour)).is_some()), "{text}");
            assert!(outside.iter().all(|hour| span.begun(at(*hour)).is_none()), "{text}");
        }
        let night: Span = "22:00-06:00".parse().unwrap();
        assert_eq!((night.begun(at(23)), night.begun(at(24 + 5))), (Some(0), Some(0)));
        for text in ["22:00", "22:00-22:00", "22-06", "22:00-25:00"] {
            text.parse::<Span>().unwrap_err();
        }
    }

    #[test]
    fn what_comes_once_comes_on_its_day() {
        let from = Some("1970-01-03".parse().unwrap());
        let once = Recurring { at: "01:00".parse().unwrap(), from, every_s: None };
        let utc = |_| 0;
        let point = 2 * DAY + 3600;
        assert_eq!((once.next_after(0, &utc), once.last_before(0, &utc)), (Some(point), None));
        assert_eq!((once.next_after(point, &utc), once.last_before(9 * DAY, &utc)), (None, Some(point)));
        let often = Recurring { every_s: Some(6 * 3600), ..once };
        assert_eq!(often.next_after(-90 * DAY, &utc), Some(point));
        assert_eq!(often.next_after(point, &utc), Some(point + 6 * 3600));
    }
}
