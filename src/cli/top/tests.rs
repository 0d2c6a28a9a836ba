//! Pictures of every state in two sizes, and what keys do.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::{Color, Modifier};

use super::draw::draw;
use super::host::{Answer, Known, Look, Said};
use super::keys::Key;
use super::rows::Row;
use super::screen::{Act, Mode, Screen};
use crate::cli::status::not_served::tests::sample as sample_absent;
use crate::cli::tests::sample_replica;
use crate::control::tests::{sample_status, source_of};
use crate::control::{
    Amount, ConnectionChange, ConnectionState, Lag, MirrorProgress, MirrorStatus, Role, Status, TargetStatus,
};
use crate::events::{About, Code, Event, Record, Sample, Series, Severity, What};
use crate::packet::DataState;
use crate::source_side::LastEnded;
use crate::words::Order;

const NOW: u64 = 1_700_000_000_000;
const SIZES: [(u16, u16); 2] = [(80, 24), (200, 60)];

fn known(status: Status) -> Known {
    let mut known = Known::default();
    known.answer = Answer::Status(Arc::new(status));
    known
}

fn look(daemons: Vec<(&str, Known)>) -> Look {
    let daemons = daemons.into_iter().map(|(name, known)| (name.to_owned(), known)).collect();
    Look { now_unix_ms: NOW, run: "/run/standin".into(), daemons, absent: Vec::new(), said: None }
}

fn picture(look: &Look, screen: &mut Screen, (width, height): (u16, u16)) -> (String, Terminal<TestBackend>) {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, look, screen)).unwrap();
    let buffer = terminal.backend().buffer();
    let line = |y: u16| -> String { (0..width).map(|x| buffer[(x, y)].symbol()).collect() };
    let lines: Vec<String> = (0..height).map(|y| line(y).trim_end().to_owned()).collect();
    (lines.join("\n"), terminal)
}

/// Both sizes have all of it.
#[track_caller]
fn shows(look: &Look, screen: &mut Screen, parts: &[&str]) {
    for size in SIZES {
        let (text, _) = picture(look, screen, size);
        for part in parts {
            assert!(text.contains(part), "no '{part}' in {size:?}:\n{text}");
        }
    }
}

fn screen() -> Screen {
    Screen::new(false, false)
}

fn changed(change: impl FnOnce(&mut Status)) -> Look {
    let mut status = sample_status();
    change(&mut status);
    look(vec![("web", known(status))])
}

#[test]
fn each_state_is_to_be_seen() {
    shows(
        &look(Vec::new()),
        &mut screen(),
        &["no daemon runs (none in /run/standin)", "standin protect", "q end"],
    );
    let well = changed(|_| {});
    shows(
        &well,
        &mut screen(),
        &[
            "1 daemon: all is well",
            "web",
            "1 local:/srv/replica",
            "started",
            "good",
            "nothing",
            "applied     42",
        ],
    );
    let states = [
        (ConnectionState::Stopped, "stopped"),
        (ConnectionState::Paused, "paused"),
        (ConnectionState::Scheduled, "scheduled"),
        (ConnectionState::ScheduledAfterError, "sched. (error)"),
        (ConnectionState::Error, "error"),
    ];
    for (state, word) in states {
        let look = changed(|status| source_of(status).connections[0].state = state);
        shows(&look, &mut screen(), &[word]);
    }
    let copies = changed(|status| {
        let one = &mut source_of(status).connections[0];
        (one.data, one.lag_applied) = (DataState::Bad, None);
        one.mirror = MirrorStatus::Mirroring { percent: 50.0 };
        one.progress = Some(MirrorProgress {
            mode: "full".into(),
            files_done: 7,
            eta_seconds: Some(90),
            ..MirrorProgress::default()
        });
    });
    shows(
        &copies,
        &mut screen(),
        &["mirroring 50.0 %", "bad", "unknown", "████░", "50 %", "1 min 30 s to go"],
    );
    let lags = changed(|status| {
        let one = &mut source_of(status).connections[0];
        one.lag_applied = Some(Lag { seconds: 90.0, packets: 9, bytes: 1 << 20 });
        one.queued = Amount { packets: 9, bytes: 1 << 20 };
    });
    shows(&lags, &mut screen(), &["1 min 30 s", "1 MiB", "WARNING"]);
    let bare = changed(|status| source_of(status).connections.clear());
    shows(&bare, &mut screen(), &["no connection"]);
}

#[test]
fn daemons_that_say_nothing_are_to_be_seen() {
    let mut dead = Known::default();
    dead.answer = Answer::Dead;
    let mut denied = Known::default();
    denied.answer = Answer::Failed("this user may not talk to it".into());
    let mut mute = known(sample_status());
    mute.asked = Instant::now().checked_sub(Duration::from_secs(12));
    let look = look(vec![("a", dead), ("b", denied), ("c", Known::default()), ("d", mute)]);
    let mut screen = screen();
    screen.press(&look.rows(), Key::Down);
    let parts = ["4 daemons: 3 critical", "X a", "was killed", "is asked", "mute 12 s"];
    shows(&look, &mut screen, &parts);
    shows(&look, &mut screen, &["this user may not talk to it"]);
}

#[test]
fn sets_that_no_daemon_serves_are_to_be_seen() {
    let mut dead = Known::default();
    dead.answer = Answer::Dead;
    let mut look = look(vec![("web", dead)]);
    look.absent = vec![sample_absent(LastEnded::Killed)];
    assert_eq!(look.rows().len(), 1, "what is known of a killed one stands once");
    let parts =
        ["1 daemon, 1 set not served: 1 critical", "X web", "/srv/web", "was killed", "systemctl start"];
    shows(&look, &mut screen(), &parts);
    look.daemons.clear();
    look.absent = vec![sample_absent(LastEnded::Stopped)];
    shows(&look, &mut screen(), &["1 set not served: 1 with a warning", "! web", "it was stopped"]);
}

#[test]
fn a_target_shows_its_replicas() {
    let mut good = sample_replica();
    (good.name, good.data, good.as_of_unix_ms) = ("shop".into(), DataState::Good, Some(NOW - 5000));
    let target = TargetStatus { replicas: vec![sample_replica(), good], ..TargetStatus::default() };
    let status = Status { role: Role::Target { target }, now_unix_ms: NOW, ..sample_status() };
    let look = look(vec![("serve", known(status))]);
    shows(&look, &mut screen(), &["/backup/web", "no source", "bad", "shop", "5.0 s"]);
    let rows = look.rows();
    assert_eq!(rows.len(), 2);
    assert!(rows.iter().all(|row| row.uuid().is_none()));
}

fn sample(at: u64, lag: Option<f32>, queued_bytes: u64) -> Sample {
    Sample { at_unix_ms: at, lag_seconds: lag, queued_bytes, captured_rate: 2048.0, ..Sample::default() }
}

#[test]
fn curves_and_what_the_queue_has_left() {
    let mut one = known(sample_status());
    // A MiB a second for a minute, of a queue that takes 128.
    let seconds = (0..60).map(|at| sample(NOW - 60_000 + at * 1000, Some(at as f32), at << 20)).collect();
    let minutes = vec![sample(NOW - 3_600_000, None, 0)];
    one.past = vec![Series { connection: "c0ffee".into(), seconds, minutes, ..Series::default() }];
    let look = look(vec![("web", one)]);
    let parts = ["15 minutes (d: 24 hours)", "59.0 s, at most 59.0 s", "2 KiB/s", "full in 2 min 8 s"];
    shows(&look, &mut screen(), &parts);
    let mut by_day = screen();
    assert_eq!(by_day.press(&look.rows(), Key::Char('d')), Act::Nothing);
    shows(&look, &mut by_day, &["24 hours (d: 15 minutes)", "unknown, at most unknown"]);
    let mut plain = Screen::new(true, true);
    for size in SIZES {
        let (text, terminal) = picture(&look, &mut plain, size);
        assert!(text.is_ascii(), "{text}");
        let cells = &terminal.backend().buffer().content;
        assert!(cells.iter().all(|cell| cell.fg == Color::Reset && cell.bg == Color::Reset));
    }
}

#[test]
fn events_are_shown_the_last_one_first() {
    let event = |text: &str, at: u64| Event {
        id: at,
        code: Code::MirrorEnded,
        severity: Severity::Critical,
        about: About::default(),
        text: text.into(),
        next: String::new(),
        first_unix_ms: at,
        last_unix_ms: at,
        count: 1,
        ended_unix_ms: None,
    };
    let mut one = known(sample_status());
    let record =
        |number, what, text: &str| Record { number, what, event: event(text, NOW - 9000 + number * 1000) };
    one.records = vec![record(1, What::Begin, "The link is cut."), record(2, What::End, "The link is back.")];
    let look = look(vec![("web", one)]);
    shows(&look, &mut screen(), &["CRITICAL The link is cut.", "over     The link is back."]);
    let (text, _) = picture(&look, &mut screen(), SIZES[0]);
    assert!(text.find("is back") < text.find("is cut"), "{text}");
}

fn many(count: usize) -> Look {
    let names: Vec<String> = (0..count).map(|at| format!("set{at:02}")).collect();
    look(names.iter().map(|name| (name.as_str(), known(sample_status()))).collect())
}

#[test]
fn the_chosen_line_stays_in_sight() {
    let look = many(40);
    let (rows, mut screen) = (look.rows(), screen());
    for at in 0..40 {
        let (text, terminal) = picture(&look, &mut screen, SIZES[0]);
        let buffer = terminal.backend().buffer();
        let chosen = (0..24).filter(|y| buffer[(2, *y)].modifier.contains(Modifier::REVERSED)).count();
        assert_eq!((chosen, screen.at(&rows)), (1, at), "{text}");
        assert!(text.contains(&format!("set{at:02}")) && text.contains("of 40"), "{text}");
        screen.press(&rows, Key::Down);
    }
    assert_eq!(screen.at(&rows), 39);
    screen.press(&rows, Key::First);
    assert_eq!(screen.at(&rows), 0);
    // One that goes is not held on to, nor is anything drawn that is not there.
    screen.press(&rows, Key::Last);
    let fewer = many(2);
    picture(&fewer, &mut screen, SIZES[0]);
    assert_eq!(screen.at(&fewer.rows()), 0);
}

#[test]
fn any_size_is_drawn() {
    let look = many(5);
    for width in 1..100 {
        for height in 1..45 {
            picture(&look, &mut screen(), (width, height));
        }
    }
}

fn rows_of(state: ConnectionState) -> Vec<Row> {
    changed(|status| source_of(status).connections[0].state = state).rows()
}

#[test]
fn what_changes_something_is_asked_once() {
    use ConnectionState::{Error, Paused, Started, Stopped};
    let table = [
        ('p', Started, Some(ConnectionChange::Pause)),
        ('p', Error, None),
        ('r', Paused, Some(ConnectionChange::Resume)),
        ('r', Stopped, Some(ConnectionChange::Start)),
        ('r', Started, None),
        ('t', Error, Some(ConnectionChange::Start)),
        ('t', Started, None),
    ];
    for (key, state, change) in table {
        let (rows, mut screen) = (rows_of(state), screen());
        assert_eq!(screen.press(&rows, Key::Char(key)), Act::Nothing);
        let Some(change) = change else {
            assert!(screen.mode == Mode::Look && screen.hint.is_some(), "{key} {state:?}");
            continue;
        };
        let Mode::Ask(deed) = screen.mode.clone() else { panic!("{key} {state:?} asks nothing") };
        assert_eq!((&deed.change, deed.uuid.as_str(), deed.daemon.as_str()), (&change, "c0ffee", "web"));
        // Anything but yes is no; a further yes means nothing.
        for no in [Key::Enter, Key::Char('n'), Key::Escape, Key::Down] {
            screen.mode = Mode::Ask(deed.clone());
            assert_eq!(screen.press(&rows, no), Act::Nothing);
            assert_eq!(screen.press(&rows, Key::Char('y')), Act::Nothing);
        }
        screen.mode = Mode::Ask(deed.clone());
        assert_eq!(screen.press(&rows, Key::Char('y')), Act::Do(deed));
        assert_eq!(screen.mode, Mode::Look);
    }
}

#[test]
fn a_limit_is_typed_and_asked() {
    let (rows, mut screen) = (rows_of(ConnectionState::Started), screen());
    let press = |screen: &mut Screen, keys: &str| {
        keys.chars().for_each(|char| assert_eq!(screen.press(&rows, Key::Char(char)), Act::Nothing));
        assert_eq!(screen.press(&rows, Key::Enter), Act::Nothing);
    };
    press(&mut screen, "lq");
    assert!(
        matches!(&screen.mode, Mode::Type { text, wrong: Some(_), .. } if text == "q"),
        "{:?}",
        screen.mode
    );
    screen.press(&rows, Key::Back);
    press(&mut screen, "1M");
    let Mode::Ask(deed) = screen.mode.clone() else { panic!("{:?}", screen.mode) };
    let ConnectionChange::Limit { order: Order::Set(plan) } = &deed.change else { panic!("{deed:?}") };
    assert_eq!(*plan, "1M".parse().unwrap());
    assert!(deed.question.contains("to 1M?"), "{}", deed.question);
    assert_eq!(screen.press(&rows, Key::Char('y')), Act::Do(deed));
    press(&mut screen, "lclear");
    assert!(
        matches!(&screen.mode, Mode::Ask(deed) if deed.change == ConnectionChange::Limit { order: Order::Clear })
    );
    assert_eq!(screen.press(&rows, Key::Interrupt), Act::Quit);
}

#[test]
fn questions_help_and_answers_are_on_the_last_line() {
    let mut look = changed(|_| {});
    let mut screen = screen();
    screen.press(&look.rows(), Key::Char('p'));
    let question = "Pause connection 1 of web (local:/srv/replica)? y: yes";
    shows(&look, &mut screen, &[question]);
    screen.press(&look.rows(), Key::Char('n'));
    shows(&look, &mut screen, &["Nothing was changed."]);
    screen.press(&look.rows(), Key::Char('?'));
    shows(&look, &mut screen, &["another line of the table", "any key: back"]);
    screen.press(&look.rows(), Key::Char('x'));
    let said =
        |at_unix_ms| Some(Said { text: "Connection 1 is paused".into(), is_failure: false, at_unix_ms });
    look.said = said(NOW - 1000);
    shows(&look, &mut screen, &["Connection 1 is paused"]);
    let long = Said { text: "many words ".repeat(30), is_failure: true, at_unix_ms: NOW };
    look.said = Some(long);
    for (width, height) in SIZES {
        let (text, _) = picture(&look, &mut screen, (width, height));
        assert_eq!(
            text.lines().filter(|line| line.contains("many words")).count(),
            if width == 80 { 3 } else { 2 }
        );
    }
    look.said = said(NOW - 60_000);
    shows(&look, &mut screen, &["q end"]);
}
