//! A session's seat at a replica: what others may see of it while it runs, and how they end it.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use super::SharedApplier;
use super::markers::Markers;
use super::moment::Age;
use super::reading::Accept;
use crate::apply::{Applier, AsideView, DataStatus, Withheld};
use crate::clone;
use crate::control::Retrying;
use crate::packet::{Epoch, Position, SetId};
use crate::resync::CopyProgress;
use crate::words::Allow;

/// What a session gets to work with.
pub struct Seat {
    pub applier: SharedApplier,
    pub view: Arc<Mutex<View>>,
    pub cut: Arc<Cut>,
    /// What the source may have; `None`: as the replica was opened.
    pub allow: Option<Allow>,
    /// Does what has to be done when the session has ended.
    leave: Option<Box<dyn FnOnce() + Send>>,
}

/// Why a source gets no seat, in one line for both sides.
#[derive(Debug)]
pub enum NoSeat {
    Refused(String),
    /// Somebody else serves the replica, or is about to. What is kept of it is there; it was stood in for in this
    /// epoch.
    Wanted {
        state: PathBuf,
        fence: Option<Epoch>,
    },
}

impl From<String> for NoSeat {
    fn from(reason: String) -> NoSeat {
        NoSeat::Refused(reason)
    }
}

impl From<&str> for NoSeat {
    fn from(reason: &str) -> NoSeat {
        NoSeat::Refused(reason.to_owned())
    }
}

/// What whoever reads a replica back gets to work with.
pub struct ReadingSeat {
    pub seat: Seat,
    pub set: SetId,
    pub accept: Accept,
    /// What its source may have in it beside plain data.
    pub allowed: Allow,
    /// How much was given, for whoever asks.
    pub progress: Arc<CopyProgress>,
}

impl Seat {
    pub fn new(
        applier: SharedApplier,
        view: Arc<Mutex<View>>,
        cut: Arc<Cut>,
        leave: impl FnOnce() + Send + 'static,
    ) -> Seat {
        Seat { applier, view, cut, allow: None, leave: Some(Box::new(leave)) }
    }

    /// What this source may have beside plain data.
    pub fn allow(mut self, allow: Allow) -> Seat {
        self.allow = Some(allow);
        self
    }

    /// A seat that nobody else looks at.
    pub fn alone(applier: SharedApplier) -> Seat {
        let view = View::of(&applier.lock());
        Seat { applier, view: Arc::new(Mutex::new(view)), cut: Arc::default(), allow: None, leave: None }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(leave) = self.leave.take() {
            leave();
        }
    }
}

/// Ends a session from elsewhere, at once: what it has received and not performed is left.
#[derive(Default)]
pub struct Cut(OnceLock<String>);

impl Cut {
    /// The first reason counts.
    pub fn cut(&self, reason: &str) {
        let _ = self.0.set(reason.to_owned());
    }

    pub fn reason(&self) -> Option<&str> {
        self.0.get().map(String::as_str)
    }
}

/// How a replica is, readable while a session works on it.
#[derive(Clone, Debug)]
pub struct View {
    pub data: DataStatus,
    pub applied: Position,
    pub durable: Position,
    pub retrying: Option<Retrying>,
    pub aside: AsideView,
    pub withheld: Arc<Withheld>,
    /// What the source has said of moments, and which of them the replica has reached.
    pub age: Age,
    /// Between sessions and who runs commands for markers.
    pub markers: Arc<Markers>,
    /// What is kept of it while it is bad.
    pub last_good: Option<clone::Shown>,
}

fn last_good(applier: &Applier) -> Option<clone::Shown> {
    let clones = applier.clones();
    clones.has_good().then(|| clones.last_good()).flatten()
}

impl View {
    pub fn of(applier: &Applier) -> View {
        let now = applier.acknowledged();
        View {
            data: applier.data_shown(),
            applied: now.applied,
            durable: now.durable,
            retrying: None,
            aside: applier.aside(),
            withheld: applier.withheld(),
            age: super::moment::kept(applier.state()),
            markers: Arc::default(),
            last_good: last_good(applier),
        }
    }

    /// Takes over what the replica says now; what is being retried stays.
    pub fn update(&mut self, applier: &Applier) {
        let now = applier.acknowledged();
        (self.applied, self.durable) = (now.applied, now.durable);
        (self.data, self.aside, self.withheld) = (applier.data_shown(), applier.aside(), applier.withheld());
        self.last_good = last_good(applier);
    }
}
