//! Clocks that are set, restarts, and what people want.

use super::*;

#[test]
fn clocks_may_be_set() {
    let (drain, none) = (Drain(5 * MINUTE), Drain(100 * DAY));
    let daily = "at=22:00";
    check(
        "forward by hours",
        daily,
        MONDAY,
        &[drain, Set(11 * HOUR), Pass(HOUR)],
        "+01 23:00:30 -01 23:05:30",
    );
    check(
        "forward by days is once",
        daily,
        MONDAY,
        &[drain, Set(5 * DAY), Pass(DAY)],
        "+06 12:00:30 -06 12:05:30 +06 22:00 -06 22:05",
    );
    let back = [drain, Pass(11 * HOUR), Set(-3 * HOUR), Pass(3 * HOUR)];
    check("back by hours", daily, MONDAY, &back, "+01 22:00 -01 22:05 +01 22:00 -01 22:05");
    let back = [drain, Pass(11 * HOUR), Set(-3 * DAY), Pass(DAY)];
    check("back by days", daily, MONDAY, &back, "+01 22:00 -01 22:05 +29 22:00 -29 22:05");
    let right = [drain, Pass(10 * HOUR + 10 * MINUTE), Set(-20 * MINUTE), Pass(HOUR)];
    check("set right", daily, MONDAY, &right, "+01 22:00 -01 22:05");
    let within = [none, Pass(10 * HOUR + 10 * MINUTE), Set(5 * HOUR), Pass(HOUR)];
    check("within a session", "at=22:00,stop-after=30m", MONDAY, &within, "+01 22:00 -02 03:30");
    let within = [none, Pass(10 * HOUR + 10 * MINUTE), Set(-5 * DAY), Pass(HOUR)];
    check("within one, back", "at=22:00,stop-after=30m", MONDAY, &within, "+01 22:00 -26 22:30");
    let out = [none, Pass(11 * HOUR), Set(10 * HOUR), Pass(HOUR)];
    check("out of the window", "at=22:00,window=22:00-06:00", MONDAY, &out, "+01 22:00 -02 09:00:30");
    let held = [none, Pass(2 * MINUTE), Set(-1), Pass(MINUTE)];
    check_by(1, "a leap second", "at=01:00,stop-after=1m", LEAP, &held, "+01 01:00 -01 01:01");
    let twice = [none, Pass(MINUTE), Set(-1), Pass(2 * MINUTE)];
    check_by(1, "the second comes twice", "at=01:00,stop-after=1m", LEAP, &twice, "+01 01:00 -01 01:00:59");
}

#[test]
fn a_restart_in_the_middle_goes_on() {
    let none = Drain(100 * DAY);
    let plan = "at=13:00,stop-after=1h";
    check(
        "a session goes on",
        plan,
        MONDAY,
        &[none, Pass(80 * MINUTE), Restart, Pass(2 * HOUR)],
        "+01 13:00 -01 14:00:30",
    );
    check(
        "down for its rest",
        plan,
        MONDAY,
        &[none, Pass(80 * MINUTE), Set(2 * HOUR), Restart, Pass(HOUR)],
        "+01 13:00 -01 15:20:30",
    );
    check(
        "begins nothing again",
        plan,
        MONDAY,
        &[Drain(0), Pass(80 * MINUTE), Restart, Pass(2 * HOUR)],
        "+01 13:00 -01 13:00:30",
    );
    check(
        "what was missed",
        plan,
        MONDAY,
        &[Drain(0), Set(80 * MINUTE), Restart, Pass(HOUR)],
        "+01 13:20:30 -01 13:21",
    );
    check(
        "days away",
        plan,
        MONDAY,
        &[Drain(0), Set(5 * DAY), Restart, Pass(30 * MINUTE)],
        "+06 12:00:30 -06 12:01",
    );
    check(
        "bytes count anew",
        "at=13:00,stop-bytes=6000",
        MONDAY,
        &[none, Send(10), Pass(65 * MINUTE), Restart, Pass(HOUR)],
        "+01 13:00 -01 13:15",
    );
    check(
        "clock set back meanwhile",
        plan,
        MONDAY,
        &[none, Pass(80 * MINUTE), Set(-DAY), Restart, Pass(2 * HOUR)],
        "+01 13:00 -30 14:20:30",
    );
}

#[test]
fn people_decide() {
    let none = Drain(100 * DAY);
    check(
        "stopped",
        "at=13:00",
        MONDAY,
        &[none, Pass(80 * MINUTE), Stop(true), Pass(HOUR)],
        "+01 13:00 -01 13:20:30",
    );
    check(
        "nobody serves what passes",
        "at=13:00",
        MONDAY,
        &[none, Stop(true), Pass(2 * HOUR), Stop(false), Pass(HOUR)],
        "",
    );
    check(
        "stopped, and again",
        "at=13:00",
        MONDAY,
        &[Drain(MINUTE), Stop(true), Pass(2 * HOUR), Stop(false), Pass(DAY)],
        "+02 13:00 -02 13:01",
    );
    check("by hand", "at=22:00", MONDAY, &[Drain(MINUTE), Hand, Pass(HOUR)], "+01 12:00 -01 12:01");
    check(
        "by hand within one",
        "at=13:00,stop-after=1h",
        MONDAY,
        &[none, Pass(80 * MINUTE), Hand, Pass(HOUR)],
        "+01 13:00 +01 13:20 -01 14:00",
    );
    check(
        "switched off",
        "at=22:00,window=22:00-23:00",
        MONDAY,
        &[none, Switch(false), Pass(2 * DAY)],
        "+01 12:00:30",
    );
    check(
        "and on",
        "at=22:00",
        MONDAY,
        &[none, Switch(false), Pass(HOUR), Switch(true), Pass(HOUR)],
        "+01 12:00:30 -01 13:00:30",
    );
    check(
        "another one",
        "at=13:00",
        MONDAY,
        &[none, Pass(80 * MINUTE), Plan("at=14:00"), Pass(2 * HOUR)],
        "+01 13:00 -01 13:20:30 +01 14:00",
    );
    check("none any more", "at=22:00", MONDAY, &[none, Pass(HOUR), Plan("")], "");
}
