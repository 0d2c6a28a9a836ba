//! What begins and ends a session.

use super::*;

#[test]
fn times_begin_sessions() {
    let drain = Drain(5 * MINUTE);
    let check = |name, plan, from, steps: &[Do], expected| check(name, plan, from, steps, expected);
    check("daily", "at=22:00", MONDAY, &[drain, Pass(2 * DAY)], "+01 22:00 -01 22:05 +02 22:00 -02 22:05");
    check("at midnight", "at=00:00", MONDAY, &[drain, Pass(DAY)], "+02 00:00 -02 00:05");
    check("over midnight", "at=23:58", MONDAY, &[drain, Pass(DAY)], "+01 23:58 -02 00:03");
    let four = "+01 18:00 -01 18:05 +02 00:00 -02 00:05 +02 06:00 -02 06:05 +02 12:00";
    check("four a day", "every=6h", MONDAY, &[drain, Pass(DAY)], four);
    check("the minute it is set", "at=12:00", MONDAY, &[drain, Pass(HOUR)], "");
    let weekly = "+02 03:00 -02 03:05 +09 03:00 -09 03:05";
    check("a week", "at=2024-07-02 03:00,every=7d", MONDAY, &[drain, Pass(9 * DAY)], weekly);
    check("once", "at=2024-07-03 03:00", MONDAY, &[drain, Pass(5 * DAY)], "+03 03:00 -03 03:05");
    check("once, past", "at=2024-06-03 03:00", MONDAY, &[drain, Pass(DAY)], "");
    let month = "+31 23:00 -31 23:05 +01 23:00 -01 23:05";
    check("ends of months", "at=23:00", MONDAY + 30 * DAY, &[drain, Pass(2 * DAY)], month);
    let leap_day = "+28 23:00 -28 23:05 +29 23:00 -29 23:05 +01 23:00 -01 23:05";
    check("a leap year", "at=23:00", 1_709_118_000, &[drain, Pass(3 * DAY)], leap_day);
    let weekend = "+06 03:00 -06 03:05 +13 03:00 -13 03:05";
    check("Saturdays", "at=2024-07-06 03:00,every=7d", MONDAY, &[drain, Pass(14 * DAY)], weekend);
    let served = "+01 18:00 -02 13:00";
    let long = [Drain(19 * HOUR), Pass(DAY + HOUR)];
    check("times within a session are served", "every=6h", MONDAY, &long, served);
}

#[test]
fn summer_time_neither_takes_nor_adds_a_session() {
    let (spring, autumn, two) = (SPRING - DAY, AUTUMN - DAY, [Drain(5 * MINUTE), Pass(2 * DAY)]);
    // 02:30 is not shown on that day: it is meant as an hour later.
    let late = "+31 03:30 -31 03:35 +01 02:30 -01 02:35";
    check("left out", "at=02:30", spring + HOUR, &two, late);
    let once = "+27 02:30 -27 02:35 +28 02:30 -28 02:35";
    check("shown twice", "at=02:30", autumn + HOUR, &two, once);
    let same = "+31 22:00 -31 22:05 +01 22:00 -01 22:05";
    check("days that are shorter", "at=22:00,every=1d", SPRING, &two, same);
    let same = "+27 22:00 -27 22:05 +28 22:00 -28 22:05";
    check("days that are longer", "at=22:00,every=1d", AUTUMN, &two, same);
    let hours = [Drain(5 * MINUTE), Pass(4 * HOUR)];
    let hourly = "+31 01:00 -31 01:05 +31 03:00 -31 03:05 +31 04:00 -31 04:05 +31 05:00 -31 05:05";
    check("hours that are left out", "every=1h", SPRING - HOUR - MINUTE, &hours, hourly);
    let hourly = "+27 02:00 -27 02:05 +27 03:00 -27 03:05 +27 04:00 -27 04:05";
    check("hours that are shown twice", "every=1h", AUTUMN - HOUR - MINUTE, &hours, hourly);
    let short = [Queue(100), Pass(DAY)];
    check(
        "a window that loses an hour",
        "queue=50%,stop-empty=no,window=01:00-04:00",
        SPRING - 2 * HOUR,
        &short,
        "+31 01:00 -31 04:00 +01 01:00",
    );
    check(
        "a window that begins in it",
        "queue=50%,stop-empty=no,window=02:30-04:00",
        SPRING - 2 * HOUR,
        &short,
        "+31 03:00 -31 04:00",
    );
    check(
        "a window that gains one",
        "queue=50%,stop-empty=no,window=01:00-04:00",
        AUTUMN - 3 * HOUR,
        &short,
        "+27 01:00 -27 04:00",
    );
    let twice = "+27 02:15 -27 02:45 +27 02:15 -27 02:45";
    check(
        "a window that comes twice",
        "queue=50%,stop-empty=no,window=02:15-02:45",
        AUTUMN - 3 * HOUR,
        &short,
        twice,
    );
}

#[test]
fn the_queue_begins_sessions() {
    let drain = Drain(5 * MINUTE);
    check(
        "by part",
        "queue=50%",
        MONDAY,
        &[drain, Queue(49), Pass(HOUR), Queue(50), Pass(MINUTE), Queue(0), Pass(HOUR)],
        "+01 13:00:30 -01 13:05:30",
    );
    check(
        "by size",
        "queue=40",
        MONDAY,
        &[drain, Queue(40), Pass(MINUTE), Queue(0), Pass(HOUR)],
        "+01 12:00:30 -01 12:05:30",
    );
    check("at once", "queue=1%", MONDAY, &[Pass(HOUR), Queue(1), Pass(HOUR)], "+01 13:00:30");
    check(
        "one that was let go",
        "queue=50%",
        MONDAY,
        &[drain, LetGo(true), Pass(MINUTE), LetGo(false), Pass(HOUR)],
        "+01 12:00:30 -01 12:05:30",
    );
    let again = "+01 12:00:30 -01 12:10:30 +01 12:11 -01 12:21 +01 12:21:30";
    check(
        "again while it is long",
        "queue=50%,stop-after=10m",
        MONDAY,
        &[Queue(80), Pass(22 * MINUTE)],
        again,
    );
    check(
        "time first",
        "at=12:30,queue=50%",
        MONDAY,
        &[drain, Pass(35 * MINUTE), Queue(60), Pass(MINUTE), Queue(0), Pass(HOUR)],
        "+01 12:30 -01 12:35 +01 12:35:30 -01 12:40:30",
    );
    check(
        "queue first",
        "at=12:30,queue=50%",
        MONDAY,
        &[Drain(HOUR), Queue(60), Pass(MINUTE), Queue(0), Pass(5 * HOUR)],
        "+01 12:00:30 -01 13:00:30",
    );
    check(
        "both at once",
        "at=12:30,queue=50%",
        MONDAY,
        &[drain, Pass(1770), Queue(60), Pass(30), Queue(0), Pass(HOUR)],
        "+01 12:30 -01 12:35",
    );
}

#[test]
fn sessions_end() {
    let none = Drain(100 * DAY);
    check("empty", "at=13:00", MONDAY, &[Drain(90), Pass(2 * HOUR)], "+01 13:00 -01 13:01:30");
    check("after a time", "at=13:00,stop-after=45m", MONDAY, &[none, Pass(2 * HOUR)], "+01 13:00 -01 13:45");
    check(
        "after so much",
        "at=13:00,stop-bytes=6000",
        MONDAY,
        &[none, Send(10), Pass(2 * HOUR)],
        "+01 13:00 -01 13:10",
    );
    check(
        "time before bytes",
        "at=13:00,stop-bytes=6000,stop-after=5m",
        MONDAY,
        &[none, Send(10), Pass(2 * HOUR)],
        "+01 13:00 -01 13:05",
    );
    check(
        "bytes before time",
        "at=13:00,stop-bytes=6000,stop-after=5h",
        MONDAY,
        &[none, Send(10), Pass(2 * HOUR)],
        "+01 13:00 -01 13:10",
    );
    check(
        "empty before both",
        "at=13:00,stop-bytes=6000,stop-after=5h",
        MONDAY,
        &[Drain(MINUTE), Send(10), Pass(2 * HOUR)],
        "+01 13:00 -01 13:01",
    );
    check(
        "empty, and goes on",
        "at=13:00,stop-empty=no,stop-after=1h",
        MONDAY,
        &[Drain(0), Pass(3 * HOUR)],
        "+01 13:00 -01 14:00",
    );
    check("never", "at=13:00,stop-empty=no", MONDAY, &[Drain(0), Pass(3 * DAY)], "+01 13:00");
}

#[test]
fn a_window_overrides_all() {
    let night = "window=22:00-06:00";
    let check = |name, plan: &str, steps: &[Do], expected| {
        check(name, &format!("{plan}{night}"), MONDAY, steps, expected)
    };
    let none = Drain(100 * DAY);
    check("alone it begins nothing", "", &[Queue(100), Pass(3 * DAY)], "");
    check("by hand in it", "", &[none, Pass(11 * HOUR), Hand, Pass(DAY)], "+01 23:00 -02 06:00");
    check("by hand beside it", "", &[none, Hand, Pass(DAY)], "refused");
    check("a time beside it waits", "at=13:00,every=1d,", &[Drain(MINUTE), Pass(DAY)], "+01 22:00 -01 22:01");
    check(
        "several are one",
        "every=1h,stop-empty=no,stop-after=10m,",
        &[none, Pass(10 * HOUR + 30 * MINUTE)],
        "+01 22:00 -01 22:10",
    );
    check("the queue waits", "queue=50%,", &[none, Queue(90), Pass(DAY)], "+01 22:00 -02 06:00");
    check("it ends a session", "at=05:30,", &[none, Pass(DAY)], "+02 05:30 -02 06:00");
    check(
        "two midnights",
        "at=22:00,stop-empty=no,",
        &[none, Pass(2 * DAY)],
        "+01 22:00 -02 06:00 +02 22:00 -03 06:00",
    );
    check(
        "let go beside it",
        "queue=50%,",
        &[Drain(MINUTE), LetGo(true), Pass(10 * HOUR), LetGo(false), Pass(HOUR)],
        "+01 22:00 -01 22:01",
    );
}
