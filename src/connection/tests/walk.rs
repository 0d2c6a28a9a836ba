//! A random walk: whatever happens in whatever order, some things always hold.

use super::*;
use crate::random::Random;

/// What a driver would have done, and what must never follow.
#[derive(Default)]
struct Watcher {
    has_link: bool,
    /// The target waits for items of a copy.
    copies: bool,
    /// The stream was started.
    streams: bool,
    flow: Option<Flow>,
    let_go: bool,
    /// A person has stopped them.
    no_copies: bool,
    ended: bool,
}

impl Watcher {
    /// Errors: the rule that is broken.
    fn check(&mut self, machine: &Machine, done: &[Action], now: Instant) -> Result<(), String> {
        self.no_copies = machine.wish().copies == Copies::Stopped;
        for action in done {
            self.follow(action)?;
        }
        let state = machine.state();
        let rules = [
            ("a link in a state that has none", state.has_link() == self.has_link),
            (
                "something goes although it is not started",
                !self.sends() || matches!(state, State::Started(_)),
            ),
            ("a stream that is started and held", !is_started_stream(state) || self.sends()),
            ("its stream is not as it says", machine.is_streaming() == self.streams),
            ("two states at once", [0, 1, 2, 4, 8, 12].contains(&state.bits())),
            ("the queue was let go in silence", self.let_go == machine.let_go().is_some()),
            ("it is over and goes on", self.ended == (*state == State::Gone)),
            ("it waits, and something is held for it", !machine.is_pending() || self.let_go),
            (
                "its replication is stopped, and it is not, or something is queued",
                !machine.is_unqueued() || self.ended || *state == State::Stopped && self.let_go,
            ),
            ("no reason", !machine.reason().is_empty()),
        ];
        for (rule, holds) in rules {
            if !holds {
                return Err(format!("{rule}: {state:?}"));
            }
        }
        let waits = matches!(state, State::Error { repair: Repair::Waiting { .. }, .. });
        match machine.poll_timeout() {
            Some(at) if waits && at <= now + Duration::from_secs(60) => Ok(()),
            None if !waits => Ok(()),
            other => Err(format!("a time-out {other:?} at {now:?} in {state:?}")),
        }
    }

    fn follow(&mut self, action: &Action) -> Result<(), String> {
        let wrong = |rule: &str| Err(format!("{rule}: {action:?}"));
        if self.ended {
            return wrong("something after the end");
        }
        match action {
            Action::Dial { .. } if self.has_link => return wrong("two links"),
            Action::Dial { .. } => self.has_link = true,
            Action::Greet | Action::AwaitCopy { .. } | Action::Stream { .. } if !self.has_link => {
                return wrong("no link");
            }
            Action::Greet => {}
            Action::AwaitCopy { .. } if !self.let_go => return wrong("a copy beside what the queue holds"),
            Action::AwaitCopy { .. } if self.no_copies => return wrong("a copy that a person has stopped"),
            Action::AwaitCopy { flow } => {
                (self.copies, self.let_go, self.flow) = (true, false, Some(*flow));
            }
            Action::Stream { .. } if self.let_go => return wrong("packets that are gone"),
            Action::Stream { after, .. } if after.sequence < Sequence(40) => {
                return wrong("packets that it has, again");
            }
            Action::Stream { flow, .. } => (self.streams, self.flow) = (true, Some(*flow)),
            Action::SetFlow(_) if !self.has_link => return wrong("no link"),
            Action::SetFlow(flow) => self.flow = Some(*flow),
            Action::Close { .. } => {
                (self.has_link, self.copies, self.streams, self.flow) = (false, false, false, None);
            }
            Action::LetGo if self.let_go => return wrong("let go twice"),
            Action::LetGo => self.let_go = true,
            Action::End => self.ended = true,
        }
        Ok(())
    }

    /// Packets go on, among the items of a copy.
    fn copies_part(&mut self) {
        (self.copies, self.streams) = (true, false);
    }

    fn sends(&self) -> bool {
        (self.copies || self.streams) && self.flow == Some(Flow::Send)
    }
}

fn is_started_stream(state: &State) -> bool {
    matches!(state, State::Started(link) if link.has_stream())
}

/// What a person asks for, now and then.
fn command(random: &mut Random) -> Option<Command> {
    match random.below(40) {
        0 | 1 => Some(Command::Start),
        2 => Some(Command::Stop),
        3 => Some(Command::Pause),
        4 | 5 => Some(Command::Resume),
        6 if random.below(50) == 0 => Some(Command::Disconnect),
        7 => Some(Command::StartMirror),
        9 => Some(Command::MirrorPart),
        12 => Some(Command::Merge),
        8 if random.below(4) == 0 => Some(Command::StopMirror),
        10 if random.below(4) == 0 => Some(Command::StopReplication),
        11 => Some(Command::StartReplication),
        _ => None,
    }
}

/// One thing that may happen, with chance as its source.
fn happen(machine: &mut Machine, now: &mut Instant, random: &mut Random) -> String {
    let jitter = Jitter(random.below(1 << 16) as u16);
    *now += Duration::from_millis(random.below(200));
    if let Some(command) = command(random) {
        let bits = machine.state().bits();
        let outcome = machine.handle_command(*now, command);
        match (command, outcome) {
            (Command::Stop | Command::StopReplication, Ok(())) => assert!(*machine.state() == State::Stopped),
            (Command::Stop, Err(why)) => assert_eq!(why, NotNow::Gone, "a stop goes from any state"),
            (_, Err(_)) => assert_eq!(machine.state().bits(), bits, "refused, and changed"),
            (
                Command::Start
                | Command::Pause
                | Command::Resume
                | Command::AcceptDeletes
                | Command::Disconnect
                | Command::StartMirror
                | Command::Merge
                | Command::MirrorPart
                | Command::StopMirror
                | Command::StartReplication,
                Ok(()),
            ) => {}
        }
        return format!("{command:?}: {outcome:?}");
    }
    let sequence = 35 + random.below(30);
    let data = [DataState::Good, DataState::Good, DataState::Bad, DataState::Empty][random.below(4) as usize];
    let event = match random.below(16) {
        0..4 => Event::Up,
        4..8 => Event::Welcome { proof: proof(data, at(sequence)), held: held() },
        8 | 9 => Event::InLine { after: at(sequence.max(40)), copy: "a copy" },
        10 if random.below(6) == 0 => Event::OutOfLine { reason: "set aside".into(), jitter },
        10 => Event::Lost { reason: "cut".into(), jitter },
        11 if random.below(4) == 0 => Event::KeptOut { reason: "stood in for".into(), jitter },
        11 if random.below(4) == 0 => Event::Undecided { reason: "about to".into(), jitter },
        11 => Event::Refused { reason: "a stranger".into(), jitter },
        12 if random.below(8) == 0 => Event::QueueFull,
        12 if random.below(8) == 0 => Event::HoldsUp { reason: "its disk is full".into(), jitter },
        12 if random.below(8) == 0 => Event::QueueLost { reason: "damaged".into(), jitter },
        13 => Event::CriterionMet,
        14 if random.below(4) == 0 => Event::CriterionOver,
        _ => {
            let due = machine.poll_timeout();
            *now = due.filter(|_| random.below(2) == 0).unwrap_or(*now);
            machine.handle_timeout(*now);
            return "time".into();
        }
    };
    let what = match &event {
        Event::Welcome { proof, .. } => format!("Welcome {:?} {}", proof.data, proof.applied.sequence),
        Event::InLine { after, .. } => format!("InLine {}", after.sequence),
        other => format!("{other:?}"),
    };
    machine.handle_event(*now, event);
    what
}

/// How often a walk came to what is worth coming to.
#[derive(Debug, Default)]
struct Seen {
    streaming: u64,
    paused: u64,
    failed: u64,
    scheduled_failed: u64,
    let_go: u64,
    gone: u64,
}

impl Seen {
    fn note(&mut self, machine: &Machine) {
        self.streaming += u64::from(*machine.state() == State::Started(Link::Streaming));
        self.paused += u64::from(*machine.state() == State::Paused(Link::Streaming));
        self.failed += u64::from(machine.state().bits() == 8);
        self.scheduled_failed += u64::from(machine.state().bits() == 12);
        self.let_go += u64::from(machine.let_go().is_some());
        self.gone += u64::from(*machine.state() == State::Gone);
    }
}

/// `STANDIN_SEED` replays a walk.
#[test]
fn whatever_happens_the_rules_hold() {
    let seed = std::env::var("STANDIN_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(crate::store::random_u64);
    eprintln!("STANDIN_SEED={seed}");
    let mut random = Random::new(seed);
    let mut seen = Seen::default();
    for walk in 0..2000 {
        let mut now = Instant::now();
        let window = if random.below(5) == 0 { Window::Closed } else { Window::Open };
        let mut machine = Machine::new(now, window);
        let mut watcher = Watcher::default();
        let mut way = Vec::new();
        for _ in 0..100 {
            let done = actions(&mut machine);
            if let Err(rule) = watcher.check(&machine, &done, now) {
                panic!("walk {walk} of seed {seed}: {rule}\nafter\n  {}", way.join("\n  "));
            }
            seen.note(&machine);
            let step = happen(&mut machine, &mut now, &mut random);
            if step == "MirrorPart: Ok(())" {
                watcher.copies_part();
            }
            way.push(step);
        }
    }
    let Seen { streaming, paused, failed, scheduled_failed, let_go, gone } = seen;
    for count in [streaming, paused, failed, scheduled_failed, let_go, gone] {
        assert!(count > 100, "the walks do not come around: {seen:?}");
    }
}

/// The watcher sees what it is there for.
#[test]
fn planted_faults_are_caught() {
    let now = Instant::now();
    let streaming =
        [Action::Dial { attempt: 0 }, Action::Greet, Action::Stream { after: at(50), flow: Flow::Send }];
    let paused = || {
        let mut machine = Machine::new(now, Window::Open);
        machine.handle_event(now, Event::Up);
        machine.handle_event(now, good());
        machine.handle_command(now, Command::Pause).unwrap();
        machine
    };
    let mut stopped = paused();
    stopped.handle_command(now, Command::Stop).unwrap();
    let close = || Action::Close { reason: "stopped".into() };
    let dial = Action::Dial { attempt: 1 };
    let after = |more: &[Action]| [&streaming[..], more].concat();
    for (machine, done, part) in [
        (paused(), after(&[]), "something goes"),
        (paused(), after(&[Action::SetFlow(Flow::Hold)]), ""),
        (stopped, after(&[close(), dial.clone()]), "a link in a state"),
        (paused(), after(&[dial]), "two links"),
        (paused(), after(&[Action::SetFlow(Flow::Hold), Action::LetGo]), "in silence"),
        (paused(), after(&[Action::LetGo, Action::LetGo]), "let go twice"),
        (paused(), vec![Action::Greet], "no link"),
        (paused(), after(&[Action::End, close()]), "after the end"),
        (
            paused(),
            vec![Action::Dial { attempt: 0 }, Action::Stream { after: at(3), flow: Flow::Hold }],
            "packets that it has",
        ),
    ] {
        let said = Watcher::default().check(&machine, &done, now).err().unwrap_or_default();
        assert!(said.contains(part) && said.is_empty() == part.is_empty(), "'{said}', not '{part}'");
    }
}
