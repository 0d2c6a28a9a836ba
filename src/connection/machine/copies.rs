//! Copies as a person wants them: one more, or none before the next word. And what a target that needs
//! one waits for.

use std::time::Instant;

use super::super::retry::Jitter;
use super::super::state::{Flow, Link, Repair, State, started};
use super::super::wish::Copies;
use super::{Action, BY_HAND, Machine, NotNow};
use crate::words::WhenFull;

impl Machine {
    /// It has been held by a person since before it began.
    pub fn held_by_hand(self) -> Machine {
        self.held_for(BY_HAND.to_owned())
    }

    /// The target is brought into line by a copy, as soon as a person lets one begin.
    pub(super) fn needs_copy(&mut self, now: Instant, why: String, flow: Flow) {
        match (flow, self.copies) {
            (Flow::Send, Copies::ByThemselves) => self.copy(now, &why, flow),
            (Flow::Hold, _) | (Flow::Send, Copies::Stopped) => self.pend(now, why, flow),
        }
    }

    /// The queue holds nothing for the target; from the beginning of the copy on it does.
    fn copy(&mut self, now: Instant, why: &str, flow: Flow) {
        let reason = format!("connected, and brought into line by a copy: {why}");
        self.goto(now, started(Link::Copying, flow), &reason);
        self.actions.push_back(Action::AwaitCopy { flow });
    }

    /// Nothing is held for it: whatever programs write meanwhile, the copy brings it.
    fn pend(&mut self, now: Instant, why: String, flow: Flow) {
        self.attempts = 0;
        let reason = self.pending_reason(&why, flow);
        self.let_go = Some(why);
        self.goto(now, started(Link::Pending, flow), &reason);
    }

    /// Where nobody is to wait for it: what it gets by the map it may take in its own time.
    pub(super) fn holds_up(&mut self, now: Instant, reason: String, jitter: Jitter) {
        if self.when_full == WhenFull::Resync && matches!(self.state, State::Started(_)) {
            self.out_of_line(now, reason, jitter);
        }
    }

    fn pending_reason(&self, why: &str, flow: Flow) -> String {
        let until = match (self.copies, flow, &self.held) {
            (_, Flow::Hold, Some(question)) if question != BY_HAND => {
                return format!("connected; it needs a copy ({why}), and none begins: {question}");
            }
            (Copies::Stopped, ..) => "until `standin mirror start`",
            (Copies::ByThemselves, ..) => "until `standin connection resume`",
        };
        format!("connected; it needs a copy ({why}), and none begins {until}")
    }

    /// A person lets it go on, or holds it: what it waits for is said anew.
    pub(super) fn pending_flow(&mut self, now: Instant, flow: Flow) {
        let why = self.let_go.clone().unwrap_or_default();
        let reason = self.pending_reason(&why, flow);
        self.goto(now, started(Link::Pending, flow), &reason);
        if flow == Flow::Send && self.copies == Copies::ByThemselves {
            self.let_go = None;
            self.copy(now, &why, flow);
        }
    }

    /// One copy, now. Errors: why not.
    pub(super) fn start_mirror(&mut self, now: Instant) -> Result<(), NotNow> {
        self.start_copy(now, "a mirror was started by hand")
    }

    pub(super) fn start_copy(&mut self, now: Instant, why: &str) -> Result<(), NotNow> {
        self.why_no_copy().map_or(Ok(()), Err)?;
        match self.is_streaming() {
            true => self.connect_anew(now, why),
            false => {
                self.copies = Copies::ByThemselves;
                self.pending_flow(now, Flow::Send);
            }
        }
        Ok(())
    }

    /// Why none can begin now: it can where the stream runs, or where one waits for a person.
    pub fn why_no_copy(&self) -> Option<NotNow> {
        match &self.state {
            State::Gone => Some(NotNow::Gone),
            State::Stopped => Some(NotNow::Stopped),
            State::Scheduled { .. } => Some(NotNow::Scheduled),
            State::Started(Link::Copying) | State::Paused(Link::Copying) => Some(NotNow::MirrorRuns),
            State::Paused(_) => Some(NotNow::Paused),
            State::Error { .. } | State::Started(Link::Dialing | Link::Greeting) => {
                Some(NotNow::NotConnected)
            }
            State::Started(Link::Pending | Link::Streaming) => None,
        }
    }

    /// A part is copied, now: packets go on. Errors: why not.
    pub(super) fn mirror_part(&mut self, now: Instant) -> Result<(), NotNow> {
        match &self.state {
            State::Gone => Err(NotNow::Gone),
            State::Stopped => Err(NotNow::Stopped),
            State::Scheduled { .. } => Err(NotNow::Scheduled),
            State::Started(Link::Copying) | State::Paused(Link::Copying) => Err(NotNow::MirrorRuns),
            State::Paused(_) => Err(NotNow::Paused),
            State::Error { .. } | State::Started(Link::Dialing | Link::Greeting) => Err(NotNow::NotConnected),
            State::Started(Link::Pending) => Err(NotNow::NeedsAll),
            State::Started(Link::Streaming) => {
                self.goto(now, started(Link::Copying, Flow::Send), "a mirror of a part was started by hand");
                Ok(())
            }
        }
    }

    /// The copy under way, or the one that is due, is given up; none begins by itself.
    pub(super) fn stop_mirror(&mut self, now: Instant) -> Result<(), NotNow> {
        if self.state == State::Gone {
            return Err(NotNow::Gone);
        }
        if self.copies == Copies::Stopped {
            return Ok(());
        }
        if !self.is_copying() && self.let_go.is_none() {
            return Err(NotNow::NoMirror);
        }
        self.copies = Copies::Stopped;
        match &self.state {
            State::Started(Link::Copying) | State::Paused(Link::Copying) => {
                self.connect_anew(now, "the mirror was stopped by hand");
            }
            State::Started(Link::Pending) | State::Paused(Link::Pending) => {
                self.pending_flow(now, self.state.flow());
            }
            State::Stopped
            | State::Scheduled { .. }
            | State::Started(Link::Dialing | Link::Greeting | Link::Streaming)
            | State::Paused(Link::Dialing | Link::Greeting | Link::Streaming)
            | State::Error { repair: Repair::Waiting { .. } | Repair::Dialing | Repair::Greeting, .. }
            | State::Gone => {}
        }
        Ok(())
    }

    pub(super) fn set_changed(&mut self, now: Instant, why: &str) {
        if let State::Started(link) | State::Paused(link) = &self.state
            && link.has_stream()
        {
            self.connect_anew(now, why);
        }
    }

    /// The target is let go; what follows is decided at the next handshake.
    pub(super) fn connect_anew(&mut self, now: Instant, why: &str) {
        assert!(self.state.has_link(), "there is nothing to connect anew");
        let flow = self.state.flow();
        self.attempts = 0;
        self.actions.push_back(Action::Close { reason: why.to_owned() });
        self.give_up(why);
        self.goto(now, started(Link::Dialing, flow), &format!("connects anew: {why}"));
        self.dial();
    }
}
