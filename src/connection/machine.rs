//! From events and commands to states and actions. The diagram stands with [`State`].

use std::collections::VecDeque;
use std::time::Instant;

use super::handshake::{Decision, Held, decide};
use super::retry::{Jitter, delay};
use super::state::{Fault, FaultKind, Flow, Link, Repair, State, Window, started};
use crate::packet::{Position, ReplicaProof};

/// What a person asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    Start,
    Stop,
    Pause,
    Resume,
    Disconnect,
}

/// Why a command is not followed; the state is as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotNow {
    /// There is no network connection to pause or resume.
    Stopped,
    Scheduled,
    /// The queue holds nothing for this target any more.
    NeedsCopy,
    Gone,
}

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
    /// The attempt failed or the network connection ended.
    Lost {
        reason: String,
        jitter: Jitter,
    },
    /// A copy has brought the replica into line as of this position.
    InLine {
        after: Position,
    },
    /// Writers wait for room in the queue, and this connection's packets take some of it.
    QueueFull,
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
    /// The replica waits for a copy; its items go, or are held until [`Action::SetFlow`].
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
    /// Free what the queue holds for this target: it can never resume.
    LetGo,
    /// The connection is over.
    End,
}

/// See the module.
pub struct Machine {
    state: State,
    since: Instant,
    reason: String,
    /// Failed attempts in a row.
    attempts: u32,
    window: Window,
    /// The replica was in line once: from then on applications write, and no copy can be made.
    was_in_line: bool,
    /// Why the queue holds nothing for this target any more.
    let_go: Option<String>,
    actions: VecDeque<Action>,
}

impl Machine {
    /// A new connection: it dials at once where the window is open.
    pub fn new(now: Instant, window: Window) -> Machine {
        let mut machine = Machine {
            state: State::Stopped,
            since: now,
            reason: String::new(),
            attempts: 0,
            window,
            was_in_line: false,
            let_go: None,
            actions: VecDeque::new(),
        };
        machine.begin(now, Flow::Send);
        machine
    }

    /// Does what a person asks for. Asking for what is so already changes nothing.
    pub fn handle_command(&mut self, now: Instant, command: Command) -> Result<(), NotNow> {
        match command {
            Command::Start => self.start(now),
            Command::Stop => self.stop(now),
            Command::Pause => self.set_flow(now, Flow::Hold),
            Command::Resume => self.set_flow(now, Flow::Send),
            Command::Disconnect => self.end(now, "disconnected"),
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
            Event::Up => self.up(),
            Event::Welcome { proof, held } => self.welcome(now, &proof, &held),
            Event::Refused { reason, jitter } => {
                self.failed(now, Fault { kind: FaultKind::Refused, reason }, jitter);
            }
            Event::Lost { reason, jitter } => {
                self.failed(now, Fault { kind: FaultKind::Lost, reason }, jitter);
            }
            Event::InLine { after } => self.in_line(now, after),
            Event::QueueFull => self.queue_full(now),
            Event::CriterionMet => self.criterion_met(now),
            Event::CriterionOver => self.criterion_over(now),
        }
    }

    /// Time has passed: see [`Machine::poll_timeout`].
    pub fn handle_timeout(&mut self, now: Instant) {
        if let State::Error { repair, .. } = &mut self.state
            && matches!(repair, Repair::Waiting { until } if *until <= now)
        {
            *repair = Repair::Dialing;
            self.dial();
        }
    }

    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`Machine::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match &self.state {
            State::Error { repair: Repair::Waiting { until }, .. } => Some(*until),
            State::Error { repair: Repair::Dialing | Repair::Greeting | Repair::Connected, .. }
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

    /// Failed attempts in a row.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Why the queue holds nothing for this target any more, if it does not.
    pub fn let_go(&self) -> Option<&str> {
        self.let_go.as_deref()
    }

    /// The replica is in line and its stream runs, held or not.
    pub fn is_streaming(&self) -> bool {
        matches!(self.state, State::Started(Link::Streaming) | State::Paused(Link::Streaming))
    }

    fn start(&mut self, now: Instant) -> Result<(), NotNow> {
        if self.let_go.is_some() && !matches!(self.state, State::Gone) {
            return Err(NotNow::NeedsCopy);
        }
        match &mut self.state {
            State::Stopped => self.begin(now, Flow::Send),
            State::Scheduled { .. } => {
                self.goto(now, State::Started(Link::Dialing), "connecting");
                self.dial();
            }
            State::Started(_) => {}
            State::Paused(_) => return self.set_flow(now, Flow::Send),
            State::Error { repair, flow, .. } => {
                *flow = Flow::Send;
                if matches!(repair, Repair::Waiting { .. }) {
                    *repair = Repair::Dialing;
                    self.dial();
                }
            }
            State::Gone => return Err(NotNow::Gone),
        }
        Ok(())
    }

    /// Dials, or waits for its schedule.
    fn begin(&mut self, now: Instant, flow: Flow) {
        self.attempts = 0;
        match self.window {
            Window::Open => {
                self.goto(now, started(Link::Dialing, flow), "connecting");
                self.dial();
            }
            Window::Closed => {
                self.goto(now, State::Scheduled { failed: None, flow }, "waits for its schedule");
            }
        }
    }

    fn stop(&mut self, now: Instant) -> Result<(), NotNow> {
        match self.state {
            State::Gone => return Err(NotNow::Gone),
            State::Stopped => return Ok(()),
            State::Scheduled { .. } | State::Started(_) | State::Paused(_) | State::Error { .. } => {}
        }
        self.close("stopped on the source");
        let reason = self.let_go.clone();
        self.goto(now, State::Stopped, reason.as_deref().unwrap_or("stopped by hand"));
        Ok(())
    }

    fn set_flow(&mut self, now: Instant, wanted: Flow) -> Result<(), NotNow> {
        match &mut self.state {
            State::Stopped => return Err(NotNow::Stopped),
            State::Gone => return Err(NotNow::Gone),
            State::Scheduled { flow, .. } => match wanted {
                Flow::Hold => return Err(NotNow::Scheduled),
                Flow::Send => *flow = Flow::Send,
            },
            _ if self.let_go.is_some() => return Err(NotNow::NeedsCopy),
            State::Error { flow, .. } => *flow = wanted,
            State::Started(link) => {
                if wanted == Flow::Hold {
                    let link = *link;
                    self.goto(now, State::Paused(link), "paused by hand");
                    self.actions.push_back(Action::SetFlow(Flow::Hold));
                }
            }
            State::Paused(link) => {
                if wanted == Flow::Send {
                    let link = *link;
                    self.goto(now, State::Started(link), "resumed by hand");
                    self.actions.push_back(Action::SetFlow(Flow::Send));
                }
            }
        }
        Ok(())
    }

    fn end(&mut self, now: Instant, reason: &str) -> Result<(), NotNow> {
        if matches!(self.state, State::Gone) {
            return Err(NotNow::Gone);
        }
        self.close(reason);
        self.goto(now, State::Gone, reason);
        if self.let_go.is_none() {
            self.let_go = Some(reason.to_owned());
            self.actions.push_back(Action::LetGo);
        }
        self.actions.push_back(Action::End);
        Ok(())
    }

    fn up(&mut self) {
        match &mut self.state {
            State::Started(link @ Link::Dialing) | State::Paused(link @ Link::Dialing) => {
                *link = Link::Greeting;
            }
            State::Error { repair: repair @ Repair::Dialing, .. } => *repair = Repair::Greeting,
            State::Stopped
            | State::Scheduled { .. }
            | State::Started(_)
            | State::Paused(_)
            | State::Error { .. }
            | State::Gone => return,
        }
        self.actions.push_back(Action::Greet);
    }

    fn welcome(&mut self, now: Instant, proof: &ReplicaProof, held: &Held) {
        let Some(flow) = self.greeting() else { return };
        self.attempts = 0;
        if let Some(reason) = self.let_go.clone() {
            return self.needs_copy(now, &reason);
        }
        match decide(held, proof) {
            Decision::Resume { after } => {
                self.was_in_line = true;
                let reason = format!("resumed after packet {}", after.sequence);
                self.goto(now, started(Link::Streaming, flow), &reason);
                self.actions.push_back(Action::Stream { after, flow });
            }
            Decision::Copy(gap) if self.was_in_line => {
                self.give_up(&format!("the replica lost its place ({gap}): {NEEDS_COPY}"));
                let reason = self.let_go.clone().unwrap_or_default();
                self.needs_copy(now, &reason);
            }
            Decision::Copy(gap) => {
                let reason = format!("connected; the replica has to be brought into line by a copy: {gap}");
                self.goto(now, started(Link::Copying, flow), &reason);
                self.actions.push_back(Action::AwaitCopy { flow });
            }
        }
    }

    /// Whether the target's word is awaited, and what a person wants of the stream.
    fn greeting(&self) -> Option<Flow> {
        match &self.state {
            State::Started(Link::Greeting) => Some(Flow::Send),
            State::Paused(Link::Greeting) => Some(Flow::Hold),
            State::Error { repair: Repair::Greeting, flow, .. } => Some(*flow),
            State::Stopped
            | State::Scheduled { .. }
            | State::Started(_)
            | State::Paused(_)
            | State::Error { .. }
            | State::Gone => None,
        }
    }

    fn needs_copy(&mut self, now: Instant, reason: &str) {
        let fault = Fault { kind: FaultKind::NeedsCopy, reason: reason.to_owned() };
        let flow = self.flow();
        self.goto(now, State::Error { fault, repair: Repair::Connected, flow }, reason);
    }

    fn in_line(&mut self, now: Instant, after: Position) {
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
        self.was_in_line = true;
        self.goto(now, started(Link::Streaming, flow), "in line after a copy by differences");
        self.actions.push_back(Action::Stream { after, flow });
    }

    /// A session ended, or an attempt at one.
    fn failed(&mut self, now: Instant, fault: Fault, jitter: Jitter) {
        if !self.state.has_link() {
            return;
        }
        let flow = self.flow();
        self.attempts = self.attempts.saturating_add(1);
        self.close(&fault.reason);
        let until = now + delay(fault.kind, self.attempts, jitter);
        let reason = match &self.let_go {
            Some(why) => format!("{} ({why})", fault.reason),
            None => fault.reason.clone(),
        };
        self.goto(now, State::Error { fault, repair: Repair::Waiting { until }, flow }, &reason);
    }

    /// What a person holds back must not hold applications up: then the target needs a copy.
    fn queue_full(&mut self, now: Instant) {
        match &self.state {
            State::Stopped | State::Scheduled { .. } | State::Paused(_) if self.let_go.is_none() => {}
            // Paused, and its network connection broke off since.
            State::Error { flow: Flow::Hold, .. } if self.let_go.is_none() => {}
            // Who sends makes room; who is cut off by the network is waited for.
            State::Stopped
            | State::Scheduled { .. }
            | State::Paused(_)
            | State::Started(_)
            | State::Error { .. }
            | State::Gone => return,
        }
        let how = match &self.state {
            State::Paused(_) | State::Error { .. } => "paused",
            State::Stopped => "stopped",
            _ => "scheduled",
        };
        let reason = format!("the queue became full while it was {how}: {NEEDS_COPY}");
        self.close("the source has let this target go: its queue was full");
        match self.state {
            State::Paused(_) | State::Error { .. } => self.goto(now, State::Stopped, &reason),
            _ => reason.clone_into(&mut self.reason),
        }
        self.give_up(&reason);
    }

    fn criterion_met(&mut self, now: Instant) {
        self.window = Window::Open;
        let State::Scheduled { flow, .. } = self.state else { return };
        if self.let_go.is_none() {
            self.begin(now, flow);
        }
    }

    fn criterion_over(&mut self, now: Instant) {
        self.window = Window::Closed;
        let flow = self.flow();
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

    /// What a person wants of the stream, whatever stands in the way.
    fn flow(&self) -> Flow {
        match &self.state {
            State::Paused(_) => Flow::Hold,
            State::Error { flow, .. } | State::Scheduled { flow, .. } => *flow,
            State::Started(_) | State::Stopped | State::Gone => Flow::Send,
        }
    }

    fn give_up(&mut self, reason: &str) {
        self.let_go = Some(reason.to_owned());
        self.actions.push_back(Action::LetGo);
    }

    fn dial(&mut self) {
        self.actions.push_back(Action::Dial { attempt: self.attempts });
    }

    fn close(&mut self, reason: &str) {
        if self.state.has_link() {
            self.actions.push_back(Action::Close { reason: reason.to_owned() });
        }
    }

    /// The only place where the kind of state changes.
    fn goto(&mut self, now: Instant, next: State, reason: &str) {
        assert!(!matches!(self.state, State::Gone), "nothing follows the end of a connection");
        if self.state.bits() != next.bits() || matches!(next, State::Gone) {
            self.since = now;
        }
        self.state = next;
        reason.clone_into(&mut self.reason);
    }
}

/// What a person has to do in this version.
const NEEDS_COPY: &str = "it needs a copy; stop and start the protection, until then nothing is sent to it";
