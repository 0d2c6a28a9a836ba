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
    ("paused copying", &["up", "empty", "pause"]),
    ("paused streaming", &["up", "empty", "in line", "pause"]),
    ("waiting", &["up", "empty", "in line", "lost"]),
    ("redialing", &["up", "empty", "in line", "lost", "timeout"]),
    ("regreeting", &["up", "empty", "in line", "lost", "timeout", "up"]),
    ("waiting on hold", &["up", "empty", "in line", "pause", "lost"]),
    ("redialing on hold", &["up", "empty", "in line", "pause", "lost", "timeout"]),
    ("regreeting on hold", &["up", "empty", "in line", "pause", "lost", "timeout", "up"]),
    ("stopped", &["up", "empty", "in line", "stop"]),
    ("scheduled", &["up", "empty", "in line", "over"]),
    ("scheduled on hold", &["up", "empty", "in line", "pause", "over"]),
    ("scheduled failed", &["up", "empty", "in line", "lost", "over"]),
    ("gone", &["disconnect"]),
];

/// How to get into each state in which the queue holds nothing for the target. Each meets what the same
/// state without `let go` meets, and stays so, but for [`row_let_go`].
const STATES_LET_GO: &[(&str, &[&str])] = &[
    ("dialing let go", &["stop", "full", "start"]),
    ("greeting let go", &["stop", "full", "start", "up"]),
    ("paused dialing let go", &["stop", "full", "start", "pause"]),
    ("paused greeting let go", &["stop", "full", "start", "pause", "up"]),
    ("waiting let go", &["up", "empty", "in line", "lost", "full"]),
    ("redialing let go", &["lost", "full", "timeout"]),
    ("regreeting let go", &["lost", "full", "timeout", "up"]),
    ("waiting on hold let go", &["lost", "full", "pause"]),
    ("redialing on hold let go", &["lost", "full", "timeout", "pause"]),
    ("regreeting on hold let go", &["lost", "full", "timeout", "up", "pause"]),
    ("stopped let go", &["up", "empty", "in line", "stop", "full"]),
    ("paused pending let go", &["pause", "up", "empty"]),
    ("pending let go", &["up", "empty", "stop mirror", "up", "empty"]),
    ("scheduled let go", &["up", "empty", "in line", "over", "full"]),
    ("scheduled on hold let go", &["up", "empty", "in line", "pause", "over", "full"]),
    ("scheduled failed let go", &["lost", "full", "over"]),
];

/// Everything that can happen.
const HAPPENINGS: &[&str] = &[
    "start",
    "stop",
    "pause",
    "resume",
    "disconnect",
    "start mirror",
    "mirror part",
    "stop mirror",
    "stop replication",
    "start replication",
    "up",
    "good",
    "empty",
    "in line",
    "refused",
    "lost",
    "out of line",
    "full",
    "holds up",
    "unreadable",
    "many deletes",
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
    (&["dialing", "greeting", "streaming"], "stop", "stopped", &["close"]),
    (&["paused dialing", "paused greeting", "paused streaming"], "stop", "stopped", &["close"]),
    (&["copying", "paused copying"], "stop", "stopped let go", &["close", "let go"]),
    (&["redialing", "regreeting", "redialing on hold", "regreeting on hold"], "stop", "stopped", &["close"]),
    (
        &["waiting", "waiting on hold", "scheduled", "scheduled on hold", "scheduled failed"],
        "stop",
        "stopped",
        &[],
    ),
    (&["dialing"], "pause", "paused dialing", &["hold"]),
    (&["greeting"], "pause", "paused greeting", &["hold"]),
    (&["copying"], "pause", "paused copying", &["hold"]),
    (&["streaming"], "pause", "paused streaming", &["hold"]),
    (&["waiting"], "pause", "waiting on hold", &[]),
    (&["redialing"], "pause", "redialing on hold", &[]),
    (&["regreeting"], "pause", "regreeting on hold", &[]),
    (&["stopped"], "pause", "refused: stopped", &[]),
    (&["scheduled", "scheduled on hold", "scheduled failed"], "pause", "refused: scheduled", &[]),
    (&["paused dialing"], "resume", "dialing", &["send"]),
    (&["paused greeting"], "resume", "greeting", &["send"]),
    (&["paused copying"], "resume", "copying", &["send"]),
    (&["paused streaming"], "resume", "streaming", &["send"]),
    (&["waiting on hold"], "resume", "waiting", &[]),
    (&["redialing on hold"], "resume", "redialing", &[]),
    (&["regreeting on hold"], "resume", "regreeting", &[]),
    (&["scheduled on hold"], "resume", "scheduled", &[]),
    (&["stopped"], "resume", "refused: stopped", &[]),
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
    (&["gone"], "start", "refused: gone", &[]),
    (&["gone"], "stop", "refused: gone", &[]),
    (&["gone"], "pause", "refused: gone", &[]),
    (&["gone"], "resume", "refused: gone", &[]),
    (&["gone"], "disconnect", "refused: gone", &[]),
    // A person, of copies.
    (&["gone"], "start mirror", "refused: gone", &[]),
    (&["stopped"], "start mirror", "refused: stopped", &[]),
    (&["scheduled", "scheduled on hold", "scheduled failed"], "start mirror", "refused: scheduled", &[]),
    (&["copying", "paused copying"], "start mirror", "refused: runs", &[]),
    (
        &["paused dialing", "paused greeting", "paused streaming", "paused pending let go"],
        "start mirror",
        "refused: paused",
        &[],
    ),
    (&["dialing", "greeting"], "start mirror", "refused: not connected", &[]),
    (&["waiting", "redialing", "regreeting"], "start mirror", "refused: not connected", &[]),
    (
        &["waiting on hold", "redialing on hold", "regreeting on hold"],
        "start mirror",
        "refused: not connected",
        &[],
    ),
    (&["streaming"], "start mirror", "dialing let go", &["close", "let go", "dial"]),
    (&["pending let go"], "start mirror", "copying", &["await copy send"]),
    (&["gone"], "mirror part", "refused: gone", &[]),
    (&["stopped"], "mirror part", "refused: stopped", &[]),
    (&["scheduled", "scheduled on hold", "scheduled failed"], "mirror part", "refused: scheduled", &[]),
    (&["copying", "paused copying"], "mirror part", "refused: runs", &[]),
    (
        &["paused dialing", "paused greeting", "paused streaming", "paused pending let go"],
        "mirror part",
        "refused: paused",
        &[],
    ),
    (&["dialing", "greeting"], "mirror part", "refused: not connected", &[]),
    (&["waiting", "redialing", "regreeting"], "mirror part", "refused: not connected", &[]),
    (
        &["waiting on hold", "redialing on hold", "regreeting on hold"],
        "mirror part",
        "refused: not connected",
        &[],
    ),
    (&["pending let go"], "mirror part", "refused: needs all", &[]),
    (&["streaming"], "mirror part", "copying", &[]),
    (&["gone"], "stop mirror", "refused: gone", &[]),
    (&["copying"], "stop mirror", "dialing let go", &["close", "let go", "dial"]),
    (&["paused copying"], "stop mirror", "paused dialing let go", &["close", "let go", "dial"]),
    (&["dialing", "greeting", "streaming"], "stop mirror", "refused: no mirror", &[]),
    (&["paused dialing", "paused greeting", "paused streaming"], "stop mirror", "refused: no mirror", &[]),
    (&["waiting", "redialing", "regreeting"], "stop mirror", "refused: no mirror", &[]),
    (
        &["waiting on hold", "redialing on hold", "regreeting on hold"],
        "stop mirror",
        "refused: no mirror",
        &[],
    ),
    (&["stopped"], "stop mirror", "refused: no mirror", &[]),
    (&["scheduled", "scheduled on hold", "scheduled failed"], "stop mirror", "refused: no mirror", &[]),
    (&["gone"], "stop replication", "refused: gone", &[]),
    (&["gone"], "start replication", "refused: gone", &[]),
    (&["stopped", "waiting", "waiting on hold"], "stop replication", "stopped let go", &["let go"]),
    (
        &["scheduled", "scheduled on hold", "scheduled failed"],
        "stop replication",
        "stopped let go",
        &["let go"],
    ),
    (
        &["dialing", "greeting", "copying", "streaming"],
        "stop replication",
        "stopped let go",
        &["close", "let go"],
    ),
    (
        &["paused dialing", "paused greeting", "paused copying", "paused streaming"],
        "stop replication",
        "stopped let go",
        &["close", "let go"],
    ),
    (&["redialing", "regreeting"], "stop replication", "stopped let go", &["close", "let go"]),
    (
        &["redialing on hold", "regreeting on hold"],
        "stop replication",
        "stopped let go",
        &["close", "let go"],
    ),
    (&["pending let go", "paused pending let go"], "stop replication", "stopped let go", &["close"]),
    // Needs a copy, and none begins.
    (&["paused pending let go"], "start", "copying", &["await copy send"]),
    (&["paused pending let go"], "resume", "copying", &["await copy send"]),
    (&["pending let go"], "pause", "paused pending let go", &[]),
    (&["pending let go", "paused pending let go"], "stop", "stopped let go", &["close"]),
    (&["pending let go", "paused pending let go"], "disconnect", "gone", &["close", "end"]),
    (&["pending let go"], "lost", "waiting let go", &["close"]),
    (&["pending let go"], "refused", "waiting let go", &["close"]),
    (&["paused pending let go"], "lost", "waiting on hold let go", &["close"]),
    (&["paused pending let go"], "refused", "waiting on hold let go", &["close"]),
    (&["pending let go"], "over", "scheduled let go", &["close"]),
    (&["paused pending let go"], "over", "scheduled on hold let go", &["close"]),
    // The link.
    (&["dialing"], "up", "greeting", &["greet"]),
    (&["paused dialing"], "up", "paused greeting", &["greet"]),
    (&["redialing"], "up", "regreeting", &["greet"]),
    (&["redialing on hold"], "up", "regreeting on hold", &["greet"]),
    (&["greeting", "regreeting"], "good", "streaming", &["stream send"]),
    (&["paused greeting", "regreeting on hold"], "good", "paused streaming", &["stream hold"]),
    (&["greeting", "regreeting"], "empty", "copying", &["let go", "await copy send"]),
    (&["paused greeting", "regreeting on hold"], "empty", "paused pending let go", &["let go"]),
    (&["copying"], "in line", "streaming", &["stream send"]),
    (&["paused copying"], "in line", "paused streaming", &["stream hold"]),
    (&["dialing", "greeting", "streaming", "redialing", "regreeting"], "lost", "waiting", &["close"]),
    (&["dialing", "greeting", "streaming", "redialing", "regreeting"], "refused", "waiting", &["close"]),
    (&ON_HOLD, "lost", "waiting on hold", &["close"]),
    (&ON_HOLD, "refused", "waiting on hold", &["close"]),
    (&["copying"], "lost", "waiting let go", &["close", "let go"]),
    (&["copying"], "refused", "waiting let go", &["close", "let go"]),
    (&["paused copying"], "lost", "waiting on hold let go", &["close", "let go"]),
    (&["paused copying"], "refused", "waiting on hold let go", &["close", "let go"]),
    // Something that only a copy brings into line again.
    (&["streaming"], "out of line", "waiting let go", &["close", "let go"]),
    (&["paused streaming"], "out of line", "waiting on hold let go", &["close", "let go"]),
    (&["copying"], "out of line", "waiting let go", &["close", "let go"]),
    (&["paused copying"], "out of line", "waiting on hold let go", &["close", "let go"]),
    // What a person is asked about waits.
    (&["copying"], "many deletes", "paused copying", &["hold"]),
    (&["streaming"], "many deletes", "paused streaming", &["hold"]),
    (&["dialing"], "many deletes", "paused dialing", &["hold"]),
    (&["greeting"], "many deletes", "paused greeting", &["hold"]),
    (&["pending let go"], "many deletes", "paused pending let go", &[]),
    (&["waiting"], "many deletes", "waiting on hold", &[]),
    (&["redialing"], "many deletes", "redialing on hold", &[]),
    (&["regreeting"], "many deletes", "regreeting on hold", &[]),
    // The queue: what is away or held back is let go.
    (&["stopped"], "full", "stopped let go", &["let go"]),
    (&["scheduled"], "full", "scheduled let go", &["let go"]),
    (&["scheduled on hold"], "full", "scheduled on hold let go", &["let go"]),
    (&["scheduled failed"], "full", "scheduled failed let go", &["let go"]),
    (&["paused copying", "paused streaming"], "full", "paused dialing let go", &["close", "let go", "dial"]),
    (&["paused dialing"], "full", "paused dialing let go", &["let go"]),
    (&["paused greeting"], "full", "paused greeting let go", &["let go"]),
    (&["waiting on hold"], "full", "waiting on hold let go", &["let go"]),
    (&["redialing on hold"], "full", "redialing on hold let go", &["let go"]),
    (&["regreeting on hold"], "full", "regreeting on hold let go", &["let go"]),
    (&["dialing"], "full", "dialing let go", &["let go"]),
    (&["greeting"], "full", "greeting let go", &["let go"]),
    (&["waiting"], "full", "waiting let go", &["let go"]),
    (&["redialing"], "full", "redialing let go", &["let go"]),
    (&["regreeting"], "full", "regreeting let go", &["let go"]),
    // What is there, and takes nothing, is let go as well; what a person holds back is by then.
    (&["streaming", "copying"], "holds up", "waiting let go", &["close", "let go"]),
    // What it held cannot be read.
    (&["streaming", "copying"], "unreadable", "waiting let go", &["close", "let go"]),
    (&["paused streaming", "paused copying"], "unreadable", "waiting on hold let go", &["close", "let go"]),
    (&["stopped"], "unreadable", "stopped let go", &["let go"]),
    (&["scheduled"], "unreadable", "scheduled let go", &["let go"]),
    (&["scheduled on hold"], "unreadable", "scheduled on hold let go", &["let go"]),
    (&["scheduled failed"], "unreadable", "scheduled failed let go", &["let go"]),
    (&["paused dialing"], "unreadable", "paused dialing let go", &["let go"]),
    (&["paused greeting"], "unreadable", "paused greeting let go", &["let go"]),
    (&["waiting on hold"], "unreadable", "waiting on hold let go", &["let go"]),
    (&["redialing on hold"], "unreadable", "redialing on hold let go", &["let go"]),
    (&["regreeting on hold"], "unreadable", "regreeting on hold let go", &["let go"]),
    (&["dialing"], "unreadable", "dialing let go", &["let go"]),
    (&["greeting"], "unreadable", "greeting let go", &["let go"]),
    (&["waiting"], "unreadable", "waiting let go", &["let go"]),
    (&["redialing"], "unreadable", "redialing let go", &["let go"]),
    (&["regreeting"], "unreadable", "regreeting let go", &["let go"]),
    // The schedule.
    (&["scheduled", "scheduled failed"], "met", "dialing", &["dial"]),
    (&["scheduled on hold"], "met", "paused dialing", &["dial"]),
    (&["dialing", "greeting", "streaming"], "over", "scheduled", &["close"]),
    (&["copying"], "over", "scheduled let go", &["close", "let go"]),
    (&["paused dialing", "paused greeting", "paused streaming"], "over", "scheduled on hold", &["close"]),
    (&["paused copying"], "over", "scheduled on hold let go", &["close", "let go"]),
    (&["waiting", "waiting on hold"], "over", "scheduled failed", &[]),
    (
        &["redialing", "regreeting", "redialing on hold", "regreeting on hold"],
        "over",
        "scheduled failed",
        &["close"],
    ),
    // The clock.
    (&["waiting"], "timeout", "redialing", &["dial"]),
    (&["waiting on hold"], "timeout", "redialing on hold", &["dial"]),
];

/// A person has paused it, and there is a network connection or an attempt at one.
const ON_HOLD: [&str; 5] =
    ["paused dialing", "paused greeting", "paused streaming", "redialing on hold", "regreeting on hold"];

/// What happens in a state, and whether anything does.
fn row(state: &str, what: &str) -> (String, Vec<&'static str>) {
    let rows: Vec<&Row> =
        TABLE.iter().filter(|(from, when, ..)| from.contains(&state) && *when == what).collect();
    match rows[..] {
        [] => (state.to_owned(), Vec::new()),
        [(_, _, next, done)] => ((*next).to_owned(), done.to_vec()),
        _ => panic!("{state}, {what}: two rows"),
    }
}

/// The way on of a target that was let go is a copy, whatever it has.
fn row_let_go(state: &str, what: &str) -> (String, Vec<&'static str>) {
    let state = state.trim_end_matches(" let go");
    match (state, what) {
        ("greeting" | "regreeting", "good" | "empty") => ("copying".into(), vec!["await copy send"]),
        ("paused greeting" | "regreeting on hold", "good" | "empty") => {
            ("paused pending let go".into(), Vec::new())
        }
        // What is due is given up.
        (_, "full" | "unreadable" | "stop mirror") => (format!("{state} let go"), Vec::new()),
        _ => {
            let (next, mut done) = row(state, what);
            done.retain(|action| *action != "let go");
            let ends = next == "gone" || next.starts_with("refused");
            (if ends { next } else { format!("{} let go", next.trim_end_matches(" let go")) }, done)
        }
    }
}

fn happen(machine: &mut Machine, now: &mut Instant, what: &str) -> Result<(), NotNow> {
    let event = match what {
        "start" => return machine.handle_command(*now, Command::Start),
        "stop" => return machine.handle_command(*now, Command::Stop),
        "pause" => return machine.handle_command(*now, Command::Pause),
        "resume" => return machine.handle_command(*now, Command::Resume),
        "disconnect" => return machine.handle_command(*now, Command::Disconnect),
        "start mirror" => return machine.handle_command(*now, Command::StartMirror),
        "mirror part" => return machine.handle_command(*now, Command::MirrorPart),
        "stop replication" => return machine.handle_command(*now, Command::StopReplication),
        "start replication" => return machine.handle_command(*now, Command::StartReplication),
        "stop mirror" => return machine.handle_command(*now, Command::StopMirror),
        "timeout" => {
            *now += Duration::from_secs(60);
            machine.handle_timeout(*now);
            return Ok(());
        }
        "up" => Event::Up,
        "good" => good(),
        "empty" => empty(),
        "in line" => Event::InLine { after: at(50), copy: "a copy of everything" },
        "refused" => refused(),
        "lost" => lost(),
        "out of line" => Event::OutOfLine { reason: "a change was not captured".into(), jitter: Jitter(0) },
        "full" => Event::QueueFull,
        "holds up" => Event::HoldsUp { reason: "its disk is full".into(), jitter: Jitter(0) },
        "unreadable" => Event::QueueLost { reason: "a segment is damaged".into(), jitter: Jitter(0) },
        "many deletes" => Event::ManyDeletes { reason: "1200 of 2000 files would go".into() },
        "met" => Event::CriterionMet,
        "over" => Event::CriterionOver,
        other => panic!("nothing is called {other}"),
    };
    machine.handle_event(*now, event);
    Ok(())
}

/// A machine in a state of the table.
fn machine_in(state: &str) -> (Machine, Instant) {
    let (_, way) =
        STATES.iter().chain(STATES_LET_GO).find(|(name, _)| *name == state).expect("a state of the table");
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
    let link = |link: &Link| match link {
        Link::Dialing => "dialing",
        Link::Greeting => "greeting",
        Link::Pending => "pending",
        Link::Copying => "copying",
        Link::Streaming => "streaming",
    };
    let on_hold = |flow: &Flow| if *flow == Flow::Hold { " on hold" } else { "" };
    let name = match machine.state() {
        State::Stopped => "stopped".into(),
        State::Scheduled { failed: Some(_), .. } => "scheduled failed".into(),
        State::Scheduled { failed: None, flow } => format!("scheduled{}", on_hold(flow)),
        State::Started(at) => link(at).into(),
        State::Paused(at) => format!("paused {}", link(at)),
        State::Error { repair, flow, .. } => {
            let at = match repair {
                Repair::Waiting { .. } => "waiting",
                Repair::Dialing => "redialing",
                Repair::Greeting => "regreeting",
            };
            at.to_owned() + on_hold(flow)
        }
        State::Gone => return "gone".into(),
    };
    if machine.let_go().is_some() { name + " let go" } else { name }
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
    let known = |state: &str| STATES.iter().any(|(name, _)| *name == state);
    for (from, what, ..) in TABLE {
        assert!(HAPPENINGS.contains(what), "{what}");
        from.iter().for_each(|state| assert!(known(state) || state.contains("pending"), "{state}"));
    }
    for (state, _) in STATES.iter().chain(STATES_LET_GO) {
        for what in HAPPENINGS {
            let has_rows = known(state) || state.contains("pending");
            let (next, done) = if has_rows { row(state, what) } else { row_let_go(state, what) };
            let (mut machine, mut now) = machine_in(state);
            let refused = match happen(&mut machine, &mut now, what) {
                Ok(()) => name(&machine),
                Err(why) => {
                    assert_eq!(name(&machine), *state, "{what} was refused, and the state is another");
                    let why = match why {
                        NotNow::Stopped => "stopped",
                        NotNow::OutsideWindow => "outside of its window",
                        NotNow::Scheduled => "scheduled",
                        NotNow::Deletes => "deletions",
                        NotNow::Missing => "missing",
                        NotNow::Gone => "gone",
                        NotNow::Paused => "paused",
                        NotNow::NotConnected => "not connected",
                        NotNow::MirrorRuns => "runs",
                        NotNow::NoMirror => "no mirror",
                        NotNow::NeedsAll => "needs all",
                        NotNow::Verifies => "verifies",
                        NotNow::SendsLeft => "sends what was left",
                        NotNow::NeedsFull(_) => "needs full",
                        NotNow::NothingInDoubt => "nothing in doubt",
                    };
                    format!("refused: {why}")
                }
            };
            let did = names(&actions(&mut machine));
            assert_eq!((refused, did), (next, done), "{state}, then {what}");
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
        ("waiting let go", 8),
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
        ("streaming", "in line after a copy of everything"),
        ("paused streaming", "paused by hand"),
        ("waiting", "cut"),
        ("redialing", "cut"),
        ("waiting let go", "cut (the queue became full while it was away"),
        ("stopped", "stopped by hand"),
        ("stopped let go", "the queue became full while it was stopped"),
        ("paused pending let go", "none begins until `standin connection resume`"),
        ("pending let go", "none begins until `standin mirror start`"),
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

/// It has two switches: whether changes are sent, and whether they are queued.
#[test]
fn replication_is_stopped_and_started_by_hand() {
    let mut now = Instant::now();
    let mut machine = Machine::new(now, Window::Open);
    let mut go = |machine: &mut Machine, all: &[&str]| {
        all.iter().for_each(|what| happen(machine, &mut now, what).unwrap());
        name(machine)
    };
    assert_eq!(go(&mut machine, &["up", "empty", "in line", "start replication"]), "streaming");
    assert_eq!(go(&mut machine, &["stop", "start replication"]), "stopped", "that was not what was stopped");
    assert_eq!(go(&mut machine, &["stop replication", "stop replication", "stop"]), "stopped let go");
    assert!(machine.is_unqueued() && machine.reason().contains("not queued"), "{}", machine.reason());
    let mut again = Machine::wished(Instant::now(), Window::Open, machine.wish(), false);
    assert_eq!((name(&again).as_str(), again.wish()), ("stopped let go", machine.wish()));
    for (machine, what) in [(&mut machine, "start replication"), (&mut again, "start")] {
        assert_eq!(go(machine, &[what, "up", "good"]), "copying");
        assert!(!machine.wish().unqueued && !machine.reason().contains("not queued"), "{}", machine.reason());
    }
}

/// A full queue made of what a person had paused something that they had stopped: `resume` was refused.
#[test]
fn what_was_paused_stays_paused_when_the_queue_is_full() {
    let mut now = Instant::now();
    let mut machine = Machine::new(now, Window::Open);
    for what in ["up", "empty", "in line", "pause", "full", "up", "good"] {
        happen(&mut machine, &mut now, what).unwrap();
        assert_ne!(*machine.state(), State::Stopped, "{what}");
    }
    assert_eq!((name(&machine).as_str(), machine.wish().sending), ("paused pending let go", Sending::Paused));
    happen(&mut machine, &mut now, "full").unwrap();
    happen(&mut machine, &mut now, "resume").unwrap();
    assert_eq!(name(&machine), "copying");
}

/// What a person wanted before the daemon ended is so when it is there again.
#[test]
fn a_wish_stays_over_a_restart() {
    let cases = [
        (Sending::Now, Copies::ByThemselves, &["dial"][..], "dialing", "copying"),
        (Sending::Now, Copies::Stopped, &["dial"], "dialing", "pending let go"),
        (Sending::Paused, Copies::ByThemselves, &["dial"], "paused dialing", "paused pending let go"),
        (Sending::Paused, Copies::Stopped, &["dial"], "paused dialing", "paused pending let go"),
        (Sending::Stopped, Copies::ByThemselves, &["let go"], "stopped let go", "stopped let go"),
        (Sending::Stopped, Copies::Stopped, &["let go"], "stopped let go", "stopped let go"),
    ];
    for (sending, copies, does, begins, connected) in cases {
        let (wish, mut now) = (Wish { sending, copies, unqueued: false }, Instant::now());
        let mut machine = Machine::wished(now, Window::Open, wish, false);
        let begun = (names(&actions(&mut machine)), name(&machine));
        assert_eq!((begun.0.as_slice(), begun.1.as_str()), (does, begins), "{wish:?}");
        for what in ["up", "empty"] {
            happen(&mut machine, &mut now, what).unwrap();
        }
        assert_eq!((name(&machine).as_str(), machine.wish()), (connected, wish));
    }
}

/// Nothing brings a copy about that a person has stopped, but their own word.
#[test]
fn a_stopped_mirror_begins_by_hand_alone() {
    let mut now = Instant::now();
    let mut machine = Machine::new(now, Window::Open);
    for what in ["up", "empty", "stop mirror", "up", "empty", "full", "lost", "timeout", "up", "good"] {
        happen(&mut machine, &mut now, what).unwrap();
    }
    actions(&mut machine);
    for what in ["pause", "resume", "stop", "start", "up", "good", "out of line"] {
        happen(&mut machine, &mut now, what).unwrap();
        assert!(!names(&actions(&mut machine)).contains(&"await copy send"), "{what}");
    }
    assert_eq!((name(&machine).as_str(), machine.wish().copies), ("pending let go", Copies::Stopped));
    happen(&mut machine, &mut now, "stop mirror").unwrap();
    happen(&mut machine, &mut now, "start mirror").unwrap();
    assert_eq!((name(&machine).as_str(), machine.wish()), ("copying", Wish::default()));
    for what in ["in line", "start mirror", "up", "good"] {
        happen(&mut machine, &mut now, what).unwrap();
    }
    assert_eq!(name(&machine), "copying", "one more, although it is in line");
}

/// After its network connection had broken off once, a paused connection only said that it had resumed.
#[test]
fn why_it_is_paused_is_kept_over_a_lost_connection() {
    for (what, part) in [("many deletes", "1200 of 2000 files would go"), ("pause", "paused by hand")] {
        let (mut machine, mut now) = machine_in("streaming");
        for what in [what, "lost", "timeout", "up", "good"] {
            happen(&mut machine, &mut now, what).unwrap();
        }
        assert_eq!(name(&machine), "paused streaming");
        assert!(machine.reason().contains(part), "{}", machine.reason());
        happen(&mut machine, &mut now, "resume").unwrap();
        for what in ["lost", "timeout", "up", "good"] {
            happen(&mut machine, &mut now, what).unwrap();
        }
        assert!(machine.reason().contains("resumed after packet"), "{}", machine.reason());
        // What it is paused for later is another reason, also where a pause was refused before.
        happen(&mut machine, &mut now, "stop").unwrap();
        happen(&mut machine, &mut now, "pause").unwrap_err();
        for what in ["start", "up", "good", "many deletes", "lost", "timeout", "up", "good"] {
            happen(&mut machine, &mut now, what).unwrap();
        }
        assert!(machine.reason().contains("1200 of 2000 files would go"), "{}", machine.reason());
    }
}
