//! The machine row by row, a random walk with the rules that always hold, the handshake's cases; schedules.

mod handshake;
mod schedule;
mod table;
mod walk;

use std::time::{Duration, Instant};

use super::*;
use crate::packet::{BadBy, Chain, DataState, Epoch, Incarnation, Position, ReplicaProof, Sequence};
use crate::words::WhenFull;

/// A position of this source's history.
pub fn at(sequence: u64) -> Position {
    Position {
        epoch: Epoch { number: 1, writer: 7 },
        incarnation: Incarnation(9),
        sequence: Sequence(sequence),
        chain: Chain(sequence * 31),
    }
}

pub fn proof(data: DataState, applied: Position) -> ReplicaProof {
    ReplicaProof { data, bad_by: BadBy::Anything, applied, durable: applied, received: applied, process: 1 }
}

/// A queue from packet 41 to 60, for a target that has acknowledged 40.
pub fn held() -> Held {
    Held { last: at(60), oldest: Sequence(41), acknowledged: Sequence(40) }
}

pub fn good() -> Event {
    Event::Welcome { proof: proof(DataState::Good, at(50)), held: held() }
}

pub fn empty() -> Event {
    Event::Welcome { proof: proof(DataState::Empty, Position::default()), held: held() }
}

pub fn lost() -> Event {
    Event::Lost { reason: "cut".into(), jitter: Jitter(0) }
}

pub fn refused() -> Event {
    Event::Refused { reason: "a stranger".into(), jitter: Jitter(0) }
}

/// What was to be done since the last call.
pub fn actions(machine: &mut Machine) -> Vec<Action> {
    std::iter::from_fn(|| machine.poll_action()).collect()
}

/// Attempts double their pause up to a minute, and never all come at once.
#[test]
fn the_pace_grows_and_is_bounded() {
    let ms = |kind, attempts, jitter| delay(kind, attempts, Jitter(jitter)).as_millis();
    let lost: Vec<_> = (1..11).map(|attempts| ms(FaultKind::Lost, attempts, 0)).collect();
    assert_eq!(lost, [250, 500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]);
    let refused: Vec<_> = (1..7).map(|attempts| ms(FaultKind::Refused, attempts, 0)).collect();
    assert_eq!(refused, [2500, 5000, 10_000, 20_000, 30_000, 30_000]);
    assert_eq!(ms(FaultKind::Lost, 1, u16::MAX), 499);
    assert_eq!(ms(FaultKind::Lost, u32::MAX, u16::MAX), 59_999);
}

#[test]
fn a_timeout_that_comes_early_does_nothing() {
    let now = Instant::now();
    let mut machine = Machine::new(now, Window::Open);
    machine.handle_event(now, lost());
    actions(&mut machine);
    let due = machine.poll_timeout().expect("it waits");
    machine.handle_timeout(due - Duration::from_millis(1));
    assert_eq!(actions(&mut machine), []);
    machine.handle_timeout(due);
    assert_eq!(actions(&mut machine), [Action::Dial { attempt: 1 }]);
    assert_eq!(machine.poll_timeout(), None);
}

/// It was said for ever to be what it had been before, and no other attempt was made.
#[test]
fn a_target_that_says_nothing_is_dialled_anew() {
    let now = Instant::now();
    let jitter = || Jitter(0);
    let at = |seconds| now + Duration::from_secs(seconds);
    for before in [0, 1] {
        let mut machine = Machine::new(now, Window::Open);
        (0..before).for_each(|_| machine.handle_event(now, lost()));
        machine.handle_timeout(at(1));
        assert!(!machine.handle_silence(at(500), jitter), "it is not connected");
        machine.handle_event(at(500), Event::Up);
        assert!(!machine.handle_silence(at(509), jitter));
        assert!(machine.handle_silence(at(511), jitter) && !machine.handle_silence(at(512), jitter));
        assert!(machine.reason().contains("does not say what it holds"), "{}", machine.reason());
        assert_eq!((machine.attempts(), machine.poll_timeout()), (before, None));
        actions(&mut machine);
        assert!(machine.handle_silence(at(620), jitter));
        assert!(machine.reason().contains("for 2 min"), "{}", machine.reason());
        assert_eq!((machine.attempts(), machine.state().bits()), (before + 1, 8));
        assert!(matches!(&actions(&mut machine)[..], [Action::Close { .. }]));
        machine.handle_timeout(machine.poll_timeout().expect("it waits"));
        machine.handle_event(at(700), Event::Up);
        machine.handle_event(at(701), good());
        assert!(!machine.handle_silence(at(9000), jitter) && machine.is_streaming());
    }
}

/// Attempts are counted until the target answers; the time of a state does not begin anew with them.
#[test]
fn a_target_that_stays_away_is_one_error() {
    let began = Instant::now();
    let mut machine = Machine::new(began, Window::Open);
    machine.handle_event(began, lost());
    for attempt in 1..20 {
        let due = machine.poll_timeout().expect("it waits");
        machine.handle_timeout(due);
        machine.handle_event(due, lost());
        assert_eq!((machine.attempts(), machine.since()), (attempt + 1, began));
        assert_eq!(machine.reason(), "cut");
    }
    let due = machine.poll_timeout().expect("it waits");
    machine.handle_timeout(due);
    machine.handle_event(due, Event::Up);
    assert_eq!(machine.state().bits(), 8);
    machine.handle_event(due, empty());
    assert_eq!((machine.attempts(), machine.since(), machine.state().bits()), (20, due, 1));
    machine.handle_event(due, Event::InLine { after: at(50), copy: "a minicopy" });
    assert_eq!(machine.attempts(), 0);
}

/// `connection start` answered with the failure before it, as if it had failed already.
#[test]
fn a_start_by_hand_says_that_it_connects() {
    let now = Instant::now();
    let mut machine = Machine::new(now, Window::Open);
    machine.handle_event(now, lost());
    for stage in ["waiting", "dialing"] {
        assert_eq!(machine.handle_command(now, Command::Start), Ok(()));
        assert_eq!(machine.reason(), "connecting; the last attempt failed: cut", "{stage}");
        assert_eq!(machine.state().bits(), 8, "nothing is sent yet");
    }
    assert_eq!(machine.handle_command(now, Command::Pause), Ok(()));
    assert!(machine.reason().starts_with("connecting"), "{}", machine.reason());
    machine.handle_event(now, refused());
    assert_eq!(machine.reason(), "a stranger");
}

/// After a stop what the target had said before counted as if nothing had happened.
#[test]
fn a_refusal_is_remembered_until_the_target_answers() {
    let now = Instant::now();
    let mut machine = Machine::new(now, Window::Open);
    for event in [Event::Up, good()] {
        machine.handle_event(now, event);
    }
    assert_eq!(machine.refusal(), None);
    machine.handle_event(now, refused());
    machine.handle_event(now, lost());
    assert_eq!(machine.handle_command(now, Command::Stop), Ok(()));
    assert_eq!(machine.refusal(), Some(FaultKind::Refused));
    assert_eq!(machine.reason(), "stopped by hand; before that it was refused: a stranger");
    assert_eq!(machine.handle_command(now, Command::Start), Ok(()));
    machine.handle_event(now, lost());
    assert_eq!(machine.refusal(), Some(FaultKind::Refused), "it did not answer");
    machine.handle_timeout(machine.poll_timeout().unwrap());
    for event in [Event::Up, good()] {
        machine.handle_event(now, event);
    }
    assert_eq!((machine.refusal(), machine.is_streaming()), (None, true));
}

/// A target whose copies fail at once was dialled, and walked for, several times a second.
#[test]
fn copies_that_fail_at_once_come_ever_more_seldom() {
    let mut now = Instant::now();
    let mut machine = Machine::new(now, Window::Open);
    let mut fails_after = |machine: &mut Machine, how_long: u64| {
        machine.handle_event(now, Event::Up);
        machine.handle_event(now, empty());
        now += Duration::from_secs(how_long);
        machine.handle_event(now, lost());
        let due = machine.poll_timeout().expect("it waits");
        let waits = due - now;
        now = due;
        machine.handle_timeout(now);
        waits.as_millis()
    };
    let waits: Vec<_> = (0..4).map(|_| fails_after(&mut machine, 0)).collect();
    assert_eq!(waits, [250, 500, 1000, 2000]);
    assert_eq!(fails_after(&mut machine, 3600), 250, "a copy that ran for long is begun again soon");
}

/// With `block` writers wait for a target that is away, and for nobody that a person holds back.
#[test]
fn a_full_queue_may_wait_for_who_is_away() {
    let now = Instant::now();
    let machine = || Machine::new(now, Window::Open).when_full(WhenFull::Block);
    let mut away = machine();
    away.handle_event(now, lost());
    away.handle_event(now, Event::QueueFull);
    assert_eq!(away.let_go(), None);
    let mut stopped = machine();
    stopped.handle_command(now, Command::Stop).unwrap();
    stopped.handle_event(now, Event::QueueFull);
    assert!(stopped.let_go().is_some());
    let holds_up = || Event::HoldsUp { reason: "its disk is full".into(), jitter: Jitter(0) };
    let mut there = machine();
    there.handle_event(now, Event::Up);
    there.handle_event(now, empty());
    there.handle_event(now, holds_up());
    assert_eq!(there.let_go(), None);
    let mut there = there.when_full(WhenFull::Resync);
    there.handle_event(now, holds_up());
    assert!(there.let_go().is_some());
}

/// Whoever reads the status an hour later asks what it was.
#[test]
fn why_a_target_was_let_go_is_said_until_it_is_in_line() {
    let now = Instant::now();
    let mut machine = Machine::new(now, Window::Open);
    machine.handle_event(now, Event::Up);
    machine.handle_event(now, good());
    machine.handle_event(now, Event::HoldsUp { reason: "its disk is full".into(), jitter: Jitter(0) });
    assert!(machine.let_go().is_some_and(|why| why.contains("its disk is full")), "{:?}", machine.let_go());
    machine.handle_timeout(machine.poll_timeout().unwrap());
    machine.handle_event(now, Event::Up);
    machine.handle_event(now, good());
    assert_eq!(*machine.state(), State::Started(Link::Copying));
    assert!(machine.reason().contains("its disk is full"), "{}", machine.reason());
}

/// A step that is not drawn is a fault of the program, and said to be one.
#[test]
fn states_only_go_where_a_way_leads() {
    let error = |repair| {
        let fault = Fault { kind: FaultKind::Lost, reason: "cut".into() };
        State::Error { fault, repair, flow: Flow::Send }
    };
    let cases = [
        (State::Gone, State::Stopped, "nothing follows"),
        (State::Started(Link::Dialing), State::Started(Link::Streaming), "no such way"),
        (State::Started(Link::Streaming), State::Started(Link::Greeting), "no such way"),
        (State::Started(Link::Streaming), State::Started(Link::Copying), ""),
        (State::Started(Link::Copying), State::Paused(Link::Streaming), "no such way"),
        (State::Started(Link::Streaming), error(Repair::Greeting), "no such way"),
        (State::Stopped, error(Repair::Dialing), "no such way"),
        (error(Repair::Dialing), State::Started(Link::Streaming), "no such way"),
        (error(Repair::Greeting), State::Started(Link::Copying), ""),
        (State::Started(Link::Greeting), State::Started(Link::Copying), ""),
    ];
    for (state, next, part) in cases {
        let said = state.may_become(&next).err().unwrap_or_default();
        assert!(said.contains(part) && said.is_empty() == part.is_empty(), "{state} -> {next}: '{said}'");
    }
}
