//! Every state meets everything that can happen. What is not in the table changes nothing.

use super::*;

/// How to get into each state: what happens after a start with an open window.
const STATES: &[(&str, &[&str])] = &[
    ("dialing", &[]),
    ("greeting", &["up"]),
    ("copying", &["up", "empty"]),
    ("streaming", &["up", "empty", "in line"]),
    ("paused dialing", &["pause"]),
    ("paused greeting", &["pause", "up"]),
    ("paused copying", &["pause", "up", "empty"]),
    ("paused streaming", &["up", "empty", "in line", "pause"]),
    ("waiting", &["up", "empty", "in line", "lost"]),
    ("redialing", &["up", "empty", "in line", "lost", "timeout"]),
    ("regreeting", &["up", "empty", "in line", "lost", "timeout", "up"]),
    ("waiting on hold", &["up", "empty", "in line", "pause", "lost"]),
    ("redialing on hold", &["up", "empty", "in line", "pause", "lost", "timeout"]),
    ("regreeting on hold", &["up", "empty", "in line", "pause", "lost", "timeout", "up"]),
    ("needs copy", &["up", "empty", "in line", "lost", "timeout", "up", "empty"]),
    ("needs copy waiting", &["up", "empty", "in line", "lost", "timeout", "up", "empty", "lost"]),
    (
        "needs copy redialing",
        &["up", "empty", "in line", "lost", "timeout", "up", "empty", "lost", "timeout"],
    ),
    (
        "needs copy regreeting",
        &["up", "empty", "in line", "lost", "timeout", "up", "empty", "lost", "timeout", "up"],
    ),
    ("stopped", &["up", "empty", "in line", "stop"]),
    ("stopped let go", &["up", "empty", "in line", "stop", "full"]),
    ("scheduled", &["up", "empty", "in line", "over"]),
    ("scheduled on hold", &["up", "empty", "in line", "pause", "over"]),
    ("scheduled failed", &["up", "empty", "in line", "lost", "over"]),
    ("scheduled let go", &["up", "empty", "in line", "over", "full"]),
    ("gone", &["disconnect"]),
];

/// Everything that can happen.
const HAPPENINGS: &[&str] = &[
    "start",
    "stop",
    "pause",
    "resume",
    "disconnect",
    "up",
    "good",
    "empty",
    "in line",
    "refused",
    "lost",
    "full",
    "met",
    "over",
    "timeout",
];

/// In these states, when this happens: the next state, and what is done.
type Row = (&'static [&'static str], &'static str, &'static str, &'static [&'static str]);

const TABLE: &[Row] = &[
    // A person.
    (&["stopped"], "start", "dialing", &["dial"]),
    (&["scheduled", "scheduled on hold", "scheduled failed"], "start", "dialing", &["dial"]),
    (&["waiting", "waiting on hold"], "start", "redialing", &["dial"]),
    (&["redialing on hold"], "start", "redialing", &[]),
    (&["regreeting on hold"], "start", "regreeting", &[]),
    (&["paused dialing"], "start", "dialing", &["send"]),
    (&["paused greeting"], "start", "greeting", &["send"]),
    (&["paused copying"], "start", "copying", &["send"]),
    (&["paused streaming"], "start", "streaming", &["send"]),
    (
        &["stopped let go", "scheduled let go", "needs copy", "needs copy waiting"],
        "start",
        "refused: copy",
        &[],
    ),
    (&["dialing", "greeting", "copying", "streaming"], "stop", "stopped", &["close"]),
    (
        &["paused dialing", "paused greeting", "paused copying", "paused streaming"],
        "stop",
        "stopped",
        &["close"],
    ),
    (&["redialing", "regreeting", "redialing on hold", "regreeting on hold"], "stop", "stopped", &["close"]),
    (
        &["waiting", "waiting on hold", "scheduled", "scheduled on hold", "scheduled failed"],
        "stop",
        "stopped",
        &[],
    ),
    (&["needs copy"], "stop", "stopped let go", &["close"]),
    (&["needs copy waiting", "scheduled let go"], "stop", "stopped let go", &[]),
    (&["dialing"], "pause", "paused dialing", &["hold"]),
    (&["greeting"], "pause", "paused greeting", &["hold"]),
    (&["copying"], "pause", "paused copying", &["hold"]),
    (&["streaming"], "pause", "paused streaming", &["hold"]),
    (&["waiting"], "pause", "waiting on hold", &[]),
    (&["redialing"], "pause", "redialing on hold", &[]),
    (&["regreeting"], "pause", "regreeting on hold", &[]),
    (&["stopped"], "pause", "refused: stopped", &[]),
    (
        &["scheduled", "scheduled on hold", "scheduled failed", "scheduled let go"],
        "pause",
        "refused: scheduled",
        &[],
    ),
    (&["stopped let go", "needs copy", "needs copy waiting"], "pause", "refused: copy", &[]),
    (&["paused dialing"], "resume", "dialing", &["send"]),
    (&["paused greeting"], "resume", "greeting", &["send"]),
    (&["paused copying"], "resume", "copying", &["send"]),
    (&["paused streaming"], "resume", "streaming", &["send"]),
    (&["waiting on hold"], "resume", "waiting", &[]),
    (&["redialing on hold"], "resume", "redialing", &[]),
    (&["regreeting on hold"], "resume", "regreeting", &[]),
    (&["scheduled on hold"], "resume", "scheduled", &[]),
    (&["stopped"], "resume", "refused: stopped", &[]),
    (&["stopped let go", "needs copy", "needs copy waiting"], "resume", "refused: copy", &[]),
    (&["dialing", "greeting", "copying", "streaming"], "disconnect", "gone", &["close", "let go", "end"]),
    (
        &["paused dialing", "paused greeting", "paused copying", "paused streaming"],
        "disconnect",
        "gone",
        &["close", "let go", "end"],
    ),
    (
        &["redialing", "regreeting", "redialing on hold", "regreeting on hold"],
        "disconnect",
        "gone",
        &["close", "let go", "end"],
    ),
    (
        &["waiting", "waiting on hold", "stopped", "scheduled", "scheduled on hold", "scheduled failed"],
        "disconnect",
        "gone",
        &["let go", "end"],
    ),
    (&["needs copy"], "disconnect", "gone", &["close", "end"]),
    (&["needs copy waiting", "stopped let go", "scheduled let go"], "disconnect", "gone", &["end"]),
    (&["gone"], "start", "refused: gone", &[]),
    (&["gone"], "stop", "refused: gone", &[]),
    (&["gone"], "pause", "refused: gone", &[]),
    (&["gone"], "resume", "refused: gone", &[]),
    (&["gone"], "disconnect", "refused: gone", &[]),
    // The link.
    (&["dialing"], "up", "greeting", &["greet"]),
    (&["paused dialing"], "up", "paused greeting", &["greet"]),
    (&["redialing"], "up", "regreeting", &["greet"]),
    (&["redialing on hold"], "up", "regreeting on hold", &["greet"]),
    (&["greeting", "regreeting"], "good", "streaming", &["stream send"]),
    (&["paused greeting", "regreeting on hold"], "good", "paused streaming", &["stream hold"]),
    (&["greeting"], "empty", "copying", &["await copy send"]),
    (&["paused greeting"], "empty", "paused copying", &["await copy hold"]),
    (&["regreeting"], "empty", "needs copy", &["let go"]),
    (&["regreeting on hold"], "empty", "needs copy", &["let go"]),
    (&["copying"], "in line", "streaming", &["stream send"]),
    (&["paused copying"], "in line", "paused streaming", &["stream hold"]),
    (
        &["dialing", "greeting", "copying", "streaming", "redialing", "regreeting"],
        "lost",
        "waiting",
        &["close"],
    ),
    (
        &["dialing", "greeting", "copying", "streaming", "redialing", "regreeting"],
        "refused",
        "waiting",
        &["close"],
    ),
    (
        &[
            "paused dialing",
            "paused greeting",
            "paused copying",
            "paused streaming",
            "redialing on hold",
            "regreeting on hold",
        ],
        "lost",
        "waiting on hold",
        &["close"],
    ),
    (
        &[
            "paused dialing",
            "paused greeting",
            "paused copying",
            "paused streaming",
            "redialing on hold",
            "regreeting on hold",
        ],
        "refused",
        "waiting on hold",
        &["close"],
    ),
    (&["needs copy"], "lost", "needs copy waiting", &["close"]),
    (&["needs copy"], "refused", "needs copy waiting", &["close"]),
    // What is not in the queue any more cannot be asked for.
    (&["needs copy redialing", "needs copy regreeting"], "start", "refused: copy", &[]),
    (&["needs copy redialing", "needs copy regreeting"], "pause", "refused: copy", &[]),
    (&["needs copy redialing", "needs copy regreeting"], "resume", "refused: copy", &[]),
    (&["needs copy redialing", "needs copy regreeting"], "stop", "stopped let go", &["close"]),
    (&["needs copy redialing", "needs copy regreeting"], "disconnect", "gone", &["close", "end"]),
    (&["needs copy redialing", "needs copy regreeting"], "lost", "needs copy waiting", &["close"]),
    (&["needs copy redialing", "needs copy regreeting"], "refused", "needs copy waiting", &["close"]),
    (&["needs copy redialing", "needs copy regreeting"], "over", "scheduled let go", &["close"]),
    (&["needs copy redialing"], "up", "needs copy regreeting", &["greet"]),
    (&["needs copy regreeting"], "good", "needs copy", &[]),
    (&["needs copy regreeting"], "empty", "needs copy", &[]),
    // The queue: only what a person or a schedule holds back is let go.
    (&["stopped"], "full", "stopped let go", &["let go"]),
    (&["scheduled", "scheduled on hold", "scheduled failed"], "full", "scheduled let go", &["let go"]),
    (
        &["paused dialing", "paused greeting", "paused copying", "paused streaming"],
        "full",
        "stopped let go",
        &["close", "let go"],
    ),
    (&["waiting on hold"], "full", "stopped let go", &["let go"]),
    (&["redialing on hold", "regreeting on hold"], "full", "stopped let go", &["close", "let go"]),
    // The schedule.
    (&["scheduled", "scheduled failed"], "met", "dialing", &["dial"]),
    (&["scheduled on hold"], "met", "paused dialing", &["dial"]),
    (&["dialing", "greeting", "copying", "streaming"], "over", "scheduled", &["close"]),
    (
        &["paused dialing", "paused greeting", "paused copying", "paused streaming"],
        "over",
        "scheduled on hold",
        &["close"],
    ),
    (&["waiting", "waiting on hold"], "over", "scheduled failed", &[]),
    (
        &["redialing", "regreeting", "redialing on hold", "regreeting on hold"],
        "over",
        "scheduled failed",
        &["close"],
    ),
    (&["needs copy"], "over", "scheduled let go", &["close"]),
    (&["needs copy waiting"], "over", "scheduled let go", &[]),
    // The clock.
    (&["waiting"], "timeout", "redialing", &["dial"]),
    (&["waiting on hold"], "timeout", "redialing on hold", &["dial"]),
    (&["needs copy waiting"], "timeout", "needs copy redialing", &["dial"]),
];

fn happen(machine: &mut Machine, now: &mut Instant, what: &str) -> Result<(), NotNow> {
    let event = match what {
        "start" => return machine.handle_command(*now, Command::Start),
        "stop" => return machine.handle_command(*now, Command::Stop),
        "pause" => return machine.handle_command(*now, Command::Pause),
        "resume" => return machine.handle_command(*now, Command::Resume),
        "disconnect" => return machine.handle_command(*now, Command::Disconnect),
        "timeout" => {
            *now += Duration::from_secs(60);
            machine.handle_timeout(*now);
            return Ok(());
        }
        "up" => Event::Up,
        "good" => good(),
        "empty" => empty(),
        "in line" => Event::InLine { after: at(50) },
        "refused" => refused(),
        "lost" => lost(),
        "full" => Event::QueueFull,
        "met" => Event::CriterionMet,
        "over" => Event::CriterionOver,
        other => panic!("nothing is called {other}"),
    };
    machine.handle_event(*now, event);
    Ok(())
}

/// A machine in a state of the table.
fn machine_in(state: &str) -> (Machine, Instant) {
    let (_, way) = STATES.iter().find(|(name, _)| *name == state).expect("a state of the table");
    let mut now = Instant::now();
    let mut machine = Machine::new(now, Window::Open);
    for what in *way {
        happen(&mut machine, &mut now, what).expect("the way is open");
    }
    assert_eq!(name(&machine), state, "the way to it");
    actions(&mut machine);
    (machine, now)
}

/// The table's name of the state that a machine is in.
fn name(machine: &Machine) -> String {
    let let_go = machine.let_go().is_some();
    let link = |link: &Link| match link {
        Link::Dialing(_) => "dialing",
        Link::Greeting(_) => "greeting",
        Link::Copying => "copying",
        Link::Streaming => "streaming",
    };
    let on_hold = |flow: &Flow| if *flow == Flow::Hold { " on hold" } else { "" };
    match machine.state() {
        State::Stopped { .. } if let_go => "stopped let go".into(),
        State::Stopped { .. } => "stopped".into(),
        State::Scheduled { .. } if let_go => "scheduled let go".into(),
        State::Scheduled { failed: Some(_), .. } => "scheduled failed".into(),
        State::Scheduled { failed: None, flow, .. } => format!("scheduled{}", on_hold(flow)),
        State::Started(at) => link(at).into(),
        State::Paused(at) => format!("paused {}", link(at)),
        State::Error { repair, flow, .. } => {
            let at = match repair {
                Repair::Waiting { .. } => "waiting",
                Repair::Dialing => "redialing",
                Repair::Greeting => "regreeting",
                Repair::Connected => "",
            };
            if let_go { format!("needs copy {at}").trim().to_owned() } else { at.to_owned() + on_hold(flow) }
        }
        State::Gone { .. } => "gone".into(),
    }
}

fn names(done: &[Action]) -> Vec<&'static str> {
    let name = |action: &Action| match action {
        Action::Dial { .. } => "dial",
        Action::Greet => "greet",
        Action::AwaitCopy { flow: Flow::Send } => "await copy send",
        Action::AwaitCopy { flow: Flow::Hold } => "await copy hold",
        Action::Stream { after, flow } => {
            assert_eq!(*after, at(50), "after what the target has applied");
            if *flow == Flow::Send { "stream send" } else { "stream hold" }
        }
        Action::SetFlow(Flow::Send) => "send",
        Action::SetFlow(Flow::Hold) => "hold",
        Action::Close { .. } => "close",
        Action::LetGo => "let go",
        Action::End => "end",
    };
    done.iter().map(name).collect()
}

#[test]
fn every_state_meets_everything() {
    let states: Vec<&str> = STATES.iter().map(|(name, _)| *name).collect();
    for (from, what, ..) in TABLE {
        assert!(HAPPENINGS.contains(what), "{what}");
        from.iter().for_each(|state| assert!(states.contains(state), "{state}"));
    }
    for state in states {
        for what in HAPPENINGS {
            let rows: Vec<&Row> =
                TABLE.iter().filter(|(from, when, ..)| from.contains(&state) && when == what).collect();
            let (next, done) = match rows[..] {
                [] => (state, &[][..]),
                [(_, _, next, done)] => (*next, *done),
                _ => panic!("{state}, {what}: two rows"),
            };
            let (mut machine, mut now) = machine_in(state);
            let refused = match happen(&mut machine, &mut now, what) {
                Ok(()) => name(&machine),
                Err(why) => {
                    assert_eq!(name(&machine), state, "{what} was refused, and the state is another");
                    let why = match why {
                        NotNow::Stopped => "stopped",
                        NotNow::Scheduled => "scheduled",
                        NotNow::NeedsCopy => "copy",
                        NotNow::Gone => "gone",
                    };
                    format!("refused: {why}")
                }
            };
            let did = names(&actions(&mut machine));
            assert_eq!((refused.as_str(), &did[..]), (next, done), "{state}, then {what}");
        }
    }
}

/// As scripts see it; only a scheduled connection whose last session failed has two bits.
#[test]
fn states_have_their_bits() {
    for (state, bits) in [
        ("stopped", 0),
        ("stopped let go", 0),
        ("gone", 0),
        ("dialing", 1),
        ("streaming", 1),
        ("paused streaming", 2),
        ("scheduled", 4),
        ("scheduled failed", 12),
        ("waiting", 8),
        ("redialing on hold", 8),
        ("needs copy", 8),
    ] {
        assert_eq!(machine_in(state).0.state().bits(), bits, "{state}");
    }
}

/// The reason says what a person needs: why it failed, and what to do.
#[test]
fn reasons_are_kept() {
    for (state, part) in [
        ("dialing", "connecting"),
        ("copying", "nothing was copied there yet"),
        ("streaming", "in line after a copy"),
        ("paused streaming", "paused by hand"),
        ("waiting", "cut"),
        ("redialing", "cut"),
        ("needs copy", "stop and start the protection"),
        ("needs copy waiting", "stop and start the protection"),
        ("stopped", "stopped by hand"),
        ("stopped let go", "the queue became full while it was stopped"),
        ("scheduled failed", "cut"),
    ] {
        let machine = machine_in(state).0;
        assert!(machine.reason().contains(part), "{state}: {}", machine.reason());
    }
}

/// A schedule that is closed at the start, and one that closes while a person has it stopped.
#[test]
fn a_start_waits_for_its_schedule() {
    let now = Instant::now();
    let mut machine = Machine::new(now, Window::Closed);
    assert_eq!(name(&machine), "scheduled");
    machine.handle_event(now, Event::CriterionMet);
    assert_eq!(name(&machine), "dialing");
    machine.handle_command(now, Command::Stop).unwrap();
    machine.handle_event(now, Event::CriterionOver);
    assert_eq!(name(&machine), "stopped");
    machine.handle_command(now, Command::Start).unwrap();
    assert_eq!(name(&machine), "scheduled");
    assert_eq!(names(&actions(&mut machine)), ["dial", "close"]);
}
