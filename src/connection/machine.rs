//! From events and commands to states and actions. The diagram stands with [`State`].

use std::collections::VecDeque;
use std::time::Instant;

use super::handshake::{Decision, Held, decide};
use super::retry::{Jitter, delay};
use super::state::{Fault, FaultKind, Flow, Link, Repair, State, Window, started};
use super::wish::{Copies, Sending, Wish};
use crate::limits::RESYNC_PROVEN;
use crate::packet::{Position, ReplicaProof};
use crate::words::WhenFull;

mod command;
mod copies;
mod full;
mod reasons;
mod replication;
mod silence;

pub use command::{Command, NotNow};

/// What happens to a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The network connection is there.
    Up,
    /// The target said what it holds; `held` is what the source can still send.
    Welcome {
        proof: ReplicaProof,
        held: Held,
    },
    /// The target, or this side, does not take the other.
    Refused {
        reason: String,
        jitter: Jitter,
    },
    /// The set is written in a higher epoch, or by another one in this epoch.
    KeptOut {
        reason: String,
        jitter: Jitter,
    },
    /// Somebody is about to stand in for this source, and may not come through with it.
    Undecided {
        reason: String,
        jitter: Jitter,
    },
    /// The attempt failed or the network connection ended.
    Lost {
        reason: String,
        jitter: Jitter,
    },
    /// Only a copy brings the replica into line again, for this reason.
    OutOfLine {
        reason: String,
        jitter: Jitter,
    },
    /// Other names belong to the set than before, and a copy brings them: no fault of anybody.
    SetChanged {
        reason: String,
    },
    /// A copy of this kind, in words, has brought the replica into line as of this position.
    InLine {
        after: Position,
        copy: &'static str,
    },
    /// What comes next would delete much of the replica: a person is asked.
    ManyDeletes {
        reason: String,
    },
    /// Writers wait for room in the queue, and this connection's packets take some of it.
    QueueFull,
    /// Programs wait for this target, which is there and does not take what it is sent, for this reason.
    HoldsUp {
        reason: String,
        jitter: Jitter,
    },
    /// What the queue held for this target cannot be read, for this reason.
    QueueLost {
        reason: String,
        jitter: Jitter,
    },
    CriterionMet,
    CriterionOver,
}

/// What is to be done, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// `attempt` counts failed ones in a row before this one.
    Dial {
        attempt: u32,
    },
    /// Say what this source is and holds.
    Greet,
    /// Bring the replica into line by a copy. From its beginning on the queue is held for the target, and
    /// packets go among the copy's items, or both are held until [`Action::SetFlow`].
    AwaitCopy {
        flow: Flow,
    },
    /// Send packets from the one after this position, or hold them until [`Action::SetFlow`].
    Stream {
        after: Position,
        flow: Flow,
    },
    SetFlow(Flow),
    /// End the network connection, or the attempt at one.
    Close {
        reason: String,
    },
    /// Free what the queue holds for this target: it cannot resume, and is brought into line by a copy.
    LetGo,
    /// The connection is over.
    End,
}

const BY_HAND: &str = "paused by hand";
const STOPPED: &str = "stopped by hand before the start";

/// See the module.
pub struct Machine {
    /// For the log.
    id: u32,
    state: State,
    since: Instant,
    reason: String,
    /// Why it was held last, in this run; it counts while nothing may be sent, over the end of a network connection.
    held: Option<String>,
    /// How its target, or this side, refused the other last: what it had said to have counts again when it answers.
    refusal: Option<Fault>,
    /// Failed attempts in a row.
    attempts: u32,
    /// Since when the target's word is awaited, where it is.
    greeted_at: Option<Instant>,
    window: Window,
    when_full: WhenFull,
    copies: Copies,
    /// Why the queue holds nothing for the target, if it does not: then the way on is a copy.
    let_go: Option<String>,
    /// A person has stopped the replication, too.
    is_unqueued: bool,
    actions: VecDeque<Action>,
}

impl Machine {
    /// A new connection: it dials at once where the window is open.
    pub fn new(now: Instant, window: Window) -> Machine {
        Machine::wished(now, window, Wish::default(), false)
    }

    /// One that a person wanted so before. `is_queued`: what it lacks is still in the queue.
    pub fn wished(now: Instant, window: Window, wish: Wish, is_queued: bool) -> Machine {
        let mut machine = Machine {
            id: 0,
            state: State::Stopped,
            since: now,
            reason: String::new(),
            held: None,
            refusal: None,
            attempts: 0,
            greeted_at: None,
            window,
            when_full: WhenFull::default(),
            copies: wish.copies,
            let_go: None,
            is_unqueued: false,
            actions: VecDeque::new(),
        };
        match wish.sending {
            Sending::Now => machine.begin(now, Flow::Send),
            Sending::Paused => machine.begin(now, Flow::Hold),
            Sending::Stopped if wish.unqueued => machine.unqueue(),
            Sending::Stopped if is_queued => STOPPED.clone_into(&mut machine.reason),
            Sending::Stopped => {
                machine.give_up(
                    "nothing was sent since the start of the protection: a copy brings it into line",
                );
                machine.reason = machine.with_let_go(STOPPED);
            }
        }
        machine
    }

    /// As people know it.
    pub fn named(self, id: u32) -> Machine {
        Machine { id, ..self }
    }

    /// It has been held for this since before it began.
    pub fn held_for(self, reason: String) -> Machine {
        Machine { held: Some(reason), ..self }
    }

    pub fn when_full(self, when_full: WhenFull) -> Machine {
        Machine { when_full, ..self }
    }

    /// Does what a person asks for. Asking for what is so already changes nothing.
    pub fn handle_command(&mut self, now: Instant, command: Command) -> Result<(), NotNow> {
        match command {
            Command::Start => self.start(now),
            Command::Stop => self.stop(now),
            Command::Pause => self.set_flow(now, Flow::Hold),
            Command::Resume | Command::AcceptDeletes => self.set_flow(now, Flow::Send),
            Command::Disconnect => self.end(now, "disconnected"),
            Command::StartMirror => self.start_mirror(now),
            Command::Merge => self.start_copy(now, "a merge was asked for"),
            Command::MirrorPart => self.mirror_part(now),
            Command::StopMirror => self.stop_mirror(now),
            Command::StopReplication => self.stop_replication(now),
            Command::StartReplication => self.start_replication(now),
        }
    }

    /// The daemon ends: as disconnecting, for another reason.
    pub fn handle_end(&mut self, now: Instant, reason: &str) {
        // Fails only where it has ended already.
        let _ = self.end(now, reason);
    }

    /// What does not concern the state that it meets is dropped: it comes from a network connection
    /// that has been closed meanwhile.
    pub fn handle_event(&mut self, now: Instant, event: Event) {
        match event {
            Event::Up => self.up(now),
            Event::Welcome { proof, held } => self.welcome(now, &proof, &held),
            Event::Refused { reason, jitter } => {
                self.failed(now, Fault { kind: FaultKind::Refused, reason }, jitter);
            }
            Event::KeptOut { reason, jitter } => {
                self.failed(now, Fault { kind: FaultKind::KeptOut, reason }, jitter);
            }
            Event::Undecided { reason, jitter } => {
                self.failed(now, Fault { kind: FaultKind::Undecided, reason }, jitter);
            }
            Event::Lost { reason, jitter } => {
                self.failed(now, Fault { kind: FaultKind::Lost, reason }, jitter);
            }
            Event::OutOfLine { reason, jitter } => self.out_of_line(now, reason, jitter),
            Event::SetChanged { reason } => self.set_changed(now, &reason),
            Event::InLine { after, copy } => self.in_line(now, after, copy),
            Event::ManyDeletes { reason } => self.many_deletes(now, &reason),
            Event::QueueFull => self.queue_full(now),
            Event::HoldsUp { reason, jitter } => self.holds_up(now, reason, jitter),
            Event::QueueLost { reason, jitter } => self.queue_lost(now, reason, jitter),
            Event::CriterionMet => self.criterion_met(now),
            Event::CriterionOver => self.criterion_over(now),
        }
    }

    /// Time has passed: see [`Machine::poll_timeout`].
    pub fn handle_timeout(&mut self, now: Instant) {
        if let State::Error { repair: Repair::Waiting { until }, flow, .. } = self.state
            && until <= now
        {
            self.repair(now, Repair::Dialing, flow);
            self.dial();
        }
    }

    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Whether letting go of the target is what is to be done next. Whoever waits for room in the queue need not wait, too,
    /// until a network connection has ended that is closed before.
    pub fn lets_go_next(&self) -> bool {
        self.actions.front() == Some(&Action::LetGo)
    }

    /// When [`Machine::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match &self.state {
            State::Error { repair: Repair::Waiting { until }, .. } => Some(*until),
            State::Error { repair: Repair::Dialing | Repair::Greeting, .. }
            | State::Stopped
            | State::Scheduled { .. }
            | State::Started(_)
            | State::Paused(_)
            | State::Gone => None,
        }
    }

    pub fn state(&self) -> &State {
        &self.state
    }

    /// When it came into its state.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// Why it is in its state, for people.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Whether one side did not take the other when they met last, and how.
    pub fn refusal(&self) -> Option<FaultKind> {
        self.refusal.as_ref().map(|fault| fault.kind)
    }

    /// Failed attempts in a row.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Why the queue holds nothing for this target, if it does not.
    pub fn let_go(&self) -> Option<&str> {
        self.let_go.as_deref()
    }

    /// What a person wants, as far as they have said it.
    pub fn wish(&self) -> Wish {
        let sending = match (&self.state, self.state.flow()) {
            (State::Stopped, _) => Sending::Stopped,
            (_, Flow::Hold) => Sending::Paused,
            (_, Flow::Send) => Sending::Now,
        };
        Wish { sending, copies: self.copies, unqueued: self.is_unqueued }
    }

    /// The target needs a copy, and none begins before a person lets it.
    pub fn is_pending(&self) -> bool {
        matches!(self.state, State::Started(Link::Pending) | State::Paused(Link::Pending))
    }

    /// It connects for a copy, or is about to begin one: nobody has to do anything.
    pub fn begins_copy(&self) -> bool {
        match self.state {
            State::Started(Link::Dialing | Link::Greeting) => {
                self.let_go.is_some() && self.copies == Copies::ByThemselves
            }
            State::Started(Link::Copying) => true,
            _ => false,
        }
    }

    /// The replica is in line and its stream runs, held or not.
    pub fn is_streaming(&self) -> bool {
        matches!(self.state, State::Started(Link::Streaming) | State::Paused(Link::Streaming))
    }

    fn start(&mut self, now: Instant) -> Result<(), NotNow> {
        match &self.state {
            State::Gone => return Err(NotNow::Gone),
            State::Stopped => {
                if std::mem::take(&mut self.is_unqueued) {
                    self.let_go = Some("its replication was stopped by hand".into());
                }
                self.begin(now, Flow::Send);
            }
            State::Scheduled { .. } => self.run(now, Flow::Send),
            State::Started(_) => {}
            State::Paused(_) => return self.set_flow(now, Flow::Send),
            State::Error { repair: Repair::Waiting { .. }, .. } => {
                self.repair(now, Repair::Dialing, Flow::Send);
                self.dial();
                self.say_connecting();
            }
            State::Error { repair, .. } => {
                self.repair(now, *repair, Flow::Send);
                self.say_connecting();
            }
        }
        Ok(())
    }

    /// Dials, or waits for its schedule.
    fn begin(&mut self, now: Instant, flow: Flow) {
        self.attempts = 0;
        match self.window {
            Window::Open => self.run(now, flow),
            Window::Closed => {
                self.goto(now, State::Scheduled { failed: None, flow }, "waits for its schedule");
            }
        }
    }

    fn run(&mut self, now: Instant, flow: Flow) {
        self.goto(now, started(Link::Dialing, flow), "connecting");
        self.dial();
    }

    fn stop(&mut self, now: Instant) -> Result<(), NotNow> {
        match self.state {
            State::Gone => return Err(NotNow::Gone),
            State::Stopped => return Ok(()),
            State::Scheduled { .. } | State::Started(_) | State::Paused(_) | State::Error { .. } => {}
        }
        self.close("stopped on the source");
        let reason = self.with_let_go(&self.with_refusal("stopped by hand"));
        self.goto(now, State::Stopped, &reason);
        Ok(())
    }

    fn set_flow(&mut self, now: Instant, wanted: Flow) -> Result<(), NotNow> {
        if wanted == Flow::Hold {
            self.note_held(BY_HAND);
        }
        match (&self.state, wanted) {
            (State::Stopped, _) => return Err(NotNow::Stopped),
            (State::Gone, _) => return Err(NotNow::Gone),
            (State::Scheduled { .. }, Flow::Hold) => return Err(NotNow::Scheduled),
            (State::Scheduled { failed, .. }, Flow::Send) => {
                let next = State::Scheduled { failed: failed.clone(), flow: Flow::Send };
                self.goto_for_same_reason(now, next);
            }
            (State::Error { repair, .. }, flow) => self.repair(now, *repair, flow),
            (State::Started(Link::Pending), Flow::Hold) | (State::Paused(Link::Pending), Flow::Send) => {
                self.pending_flow(now, wanted);
            }
            (State::Started(link), Flow::Hold) => {
                self.goto(now, State::Paused(*link), BY_HAND);
                self.actions.push_back(Action::SetFlow(Flow::Hold));
            }
            (State::Paused(link), Flow::Send) => {
                self.goto(now, State::Started(*link), "resumed by hand");
                self.actions.push_back(Action::SetFlow(Flow::Send));
            }
            (State::Started(_), Flow::Send) | (State::Paused(_), Flow::Hold) => {}
        }
        Ok(())
    }

    /// Whoever holds it first says why; what it was held for before is over by then.
    fn note_held(&mut self, reason: &str) {
        if self.state.flow() == Flow::Send {
            self.held = Some(reason.to_owned());
        }
    }

    /// A connection that does not send is held before it does: the question stands until a person answers it,
    /// also where the queue became full meanwhile.
    fn many_deletes(&mut self, now: Instant, reason: &str) {
        self.note_held(reason);
        match &self.state {
            State::Started(Link::Pending) => self.pending_flow(now, Flow::Hold),
            State::Started(link) => {
                self.goto(now, State::Paused(*link), reason);
                self.actions.push_back(Action::SetFlow(Flow::Hold));
            }
            State::Error { repair, flow: Flow::Send, .. } => self.repair(now, *repair, Flow::Hold),
            State::Stopped
            | State::Scheduled { .. }
            | State::Paused(_)
            | State::Error { flow: Flow::Hold, .. }
            | State::Gone => {}
        }
        if self.state == State::Paused(Link::Pending) {
            self.reason = self.with_let_go(reason);
        }
    }

    fn end(&mut self, now: Instant, reason: &str) -> Result<(), NotNow> {
        if self.state == State::Gone {
            return Err(NotNow::Gone);
        }
        self.close(reason);
        self.give_up(reason);
        self.goto(now, State::Gone, reason);
        self.actions.push_back(Action::End);
        Ok(())
    }

    fn up(&mut self, now: Instant) {
        match self.state {
            State::Started(Link::Dialing) | State::Paused(Link::Dialing) => {
                self.goto_for_same_reason(now, started(Link::Greeting, self.state.flow()));
            }
            State::Error { repair: Repair::Dialing, flow, .. } => self.repair(now, Repair::Greeting, flow),
            State::Stopped
            | State::Scheduled { .. }
            | State::Started(_)
            | State::Paused(_)
            | State::Error { .. }
            | State::Gone => return,
        }
        self.greeted_at = Some(now);
        self.actions.push_back(Action::Greet);
    }

    fn welcome(&mut self, now: Instant, proof: &ReplicaProof, held: &Held) {
        if !self.is_greeting() {
            return;
        }
        self.refusal = None;
        let flow = self.state.flow();
        match (self.let_go.take(), decide(held, proof)) {
            (None, Decision::Resume { after }) => {
                self.attempts = 0;
                let reason = match (flow, &self.held) {
                    (Flow::Hold, Some(held)) => held.clone(),
                    (Flow::Hold, None) => {
                        format!("the target has everything up to packet {}", after.sequence)
                    }
                    (Flow::Send, _) => format!("resumed after packet {}", after.sequence),
                };
                self.goto(now, started(Link::Streaming, flow), &reason);
                self.stream(after, flow);
            }
            (None, Decision::Copy(gap)) => {
                self.actions.push_back(Action::LetGo);
                self.needs_copy(now, gap.to_string(), flow);
            }
            (Some(why), _) => self.needs_copy(now, why, flow),
        }
    }

    /// Whether the target's word is awaited.
    fn is_greeting(&self) -> bool {
        match &self.state {
            State::Started(link) | State::Paused(link) => *link == Link::Greeting,
            State::Error { repair, .. } => *repair == Repair::Greeting,
            State::Stopped | State::Scheduled { .. } | State::Gone => false,
        }
    }

    fn in_line(&mut self, now: Instant, after: Position, copy: &'static str) {
        let flow = match &self.state {
            State::Started(Link::Copying) => Flow::Send,
            State::Paused(Link::Copying) => Flow::Hold,
            State::Stopped
            | State::Scheduled { .. }
            | State::Started(_)
            | State::Paused(_)
            | State::Error { .. }
            | State::Gone => return,
        };
        self.attempts = 0;
        self.goto(now, started(Link::Streaming, flow), &format!("in line after {copy}"));
        self.stream(after, flow);
    }

    /// A session ended, or an attempt at one.
    fn failed(&mut self, now: Instant, fault: Fault, jitter: Jitter) {
        if !self.state.has_link() {
            return;
        }
        let flow = self.state.flow();
        // A copy that fails at once is not begun again and again at the pace of a lost connection.
        if self.is_copying() && now.saturating_duration_since(self.since) >= RESYNC_PROVEN {
            self.attempts = 0;
        }
        self.attempts = self.attempts.saturating_add(1);
        self.close(&fault.reason);
        let until = now + delay(fault.kind, self.attempts, jitter);
        let reason = self.with_let_go(&fault.reason);
        if fault.kind != FaultKind::Lost {
            self.refusal = Some(fault.clone());
        }
        self.goto(now, State::Error { fault, repair: Repair::Waiting { until }, flow }, &reason);
    }

    /// The target is let go, and copied to with the next network connection.
    fn out_of_line(&mut self, now: Instant, reason: String, jitter: Jitter) {
        let has_stream = match &self.state {
            State::Started(link) | State::Paused(link) => link.has_stream(),
            State::Stopped | State::Scheduled { .. } | State::Error { .. } | State::Gone => false,
        };
        if has_stream {
            let let_go = format!("{reason}: {COPIED_WHEN_BACK}");
            let fault = Fault { kind: FaultKind::Lost, reason };
            self.failed(now, fault, jitter);
            self.give_up(&let_go);
        }
    }

    fn is_copying(&self) -> bool {
        matches!(self.state, State::Started(Link::Copying) | State::Paused(Link::Copying))
    }

    fn criterion_met(&mut self, now: Instant) {
        self.window = Window::Open;
        if let State::Scheduled { flow, .. } = self.state {
            self.begin(now, flow);
        }
    }

    fn criterion_over(&mut self, now: Instant) {
        self.window = Window::Closed;
        let flow = self.state.flow();
        let failed = match &self.state {
            State::Started(_) | State::Paused(_) => None,
            State::Error { fault, .. } => Some(fault.clone()),
            State::Stopped | State::Scheduled { .. } | State::Gone => return,
        };
        self.close("the schedule of the source");
        let reason = match &failed {
            Some(fault) => format!("waits for its schedule; the last session failed: {}", fault.reason),
            None => "waits for its schedule".to_owned(),
        };
        self.goto(now, State::Scheduled { failed, flow }, &reason);
    }

    /// The queue holds nothing for the target from now on; an older reason stays.
    fn give_up(&mut self, reason: &str) {
        assert!(self.state != State::Gone, "the end of a connection lets go once more");
        if self.let_go.is_none() {
            self.let_go = Some(reason.to_owned());
            self.actions.push_back(Action::LetGo);
        }
    }

    fn dial(&mut self) {
        assert!(self.state.has_link(), "it dials in a state that has no network connection: {}", self.state);
        self.actions.push_back(Action::Dial { attempt: self.attempts });
    }

    fn stream(&mut self, after: Position, flow: Flow) {
        assert!(self.is_streaming() && self.let_go().is_none(), "packets go to a target that is not in line");
        assert_eq!(self.state.flow(), flow, "packets go against what a person wants");
        self.actions.push_back(Action::Stream { after, flow });
    }

    fn close(&mut self, reason: &str) {
        if self.state.has_link() {
            self.actions.push_back(Action::Close { reason: reason.to_owned() });
        }
        if self.is_copying() {
            self.give_up(&format!("a copy was cut off: {COPIED_WHEN_BACK}"));
        }
    }

    /// Another step on the way out of an error.
    fn repair(&mut self, now: Instant, repair: Repair, flow: Flow) {
        if let State::Error { fault, .. } = &self.state {
            let next = State::Error { fault: fault.clone(), repair, flow };
            self.goto_for_same_reason(now, next);
        }
    }

    fn goto_for_same_reason(&mut self, now: Instant, next: State) {
        let reason = std::mem::take(&mut self.reason);
        self.goto(now, next, &reason);
    }

    /// The only place where the state changes.
    fn goto(&mut self, now: Instant, next: State, reason: &str) {
        if let Err(rule) = self.state.may_become(&next) {
            panic!("{rule}: {:?} -> {next:?}", self.state);
        }
        log::debug!("connection {}: {} -> {next} ({reason})", self.id, self.state);
        if self.state.bits() != next.bits() || next == State::Gone {
            self.since = now;
        }
        self.state = next;
        reason.clone_into(&mut self.reason);
    }
}

/// What follows by itself.
const COPIED_WHEN_BACK: &str = "it is brought into line by a copy when it is back";
