//! Everything together: one step after the other, chosen by chance, and the rules that always hold.

mod hears;
mod network;
mod receives;
mod rules;
mod sends;
mod time;
mod trouble;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::clock;
use crate::connection::{Command, Event, Flow, Link, Repair, State};
use crate::link::{LostBy, Received, SourceEvent};
use crate::packet::*;
use crate::random::Random;
use crate::simulator::disk::{self, Times};
use crate::simulator::model::{Model, Tree};
use crate::simulator::planted::Planted;
use crate::simulator::source::{Desk, Effect, Source};
use crate::simulator::target::{Loss, Step, Target};
use crate::simulator::walker::Walker;
use crate::simulator::wire::{End, Wire};
use crate::source_side::News;
use crate::target_side::greeting;

const TRACE_LEN: usize = 70;
const WINDOW_MAX: usize = 20_000;
/// How late a side may learn that its link is gone: heartbeats are missed for so long.
const SILENCE: Duration = Duration::from_secs(9);
/// How often the driver looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);

const SYNC_FAILED: &str = "a sync of the target failed";

/// One run. See the module.
pub struct World {
    random: Random,
    planted: Option<Planted>,
    model: Model,
    /// What was given out, and the tree as of it.
    history: HashMap<Position, Tree>,
    incarnations: u64,
    queue_limit: usize,
    source: Source,
    /// What the driver of each source has around it.
    desk: Desk,
    target: Target,
    wires: BTreeMap<u32, Wire>,
    network_is_up: bool,
    /// Links whose welcome went out before their turn.
    welcomed: Vec<u32>,
    /// Why the histories are not whole, if they are not.
    broken: Option<&'static str>,
    /// The incarnation that the replica is in line with.
    in_line_with: Option<u64>,
    last_applied: Option<Position>,
    /// Applications rest for so many of their turns.
    lull: u64,
    /// The target is about to say what no sound target says.
    lies: bool,
    /// What was true when the welcome of a link went out: why histories are not whole, and with
    /// what the replica is in line.
    promised: HashMap<u32, (Option<&'static str>, Option<u64>)>,
    /// The replica said of itself that it is no copy.
    was_bad: bool,
    /// And why, when it was looked at last.
    bad_by: Option<BadBy>,
    calm: bool,
    pub seen: Seen,
    pub trace: VecDeque<String>,
}

/// How often a run came to what is worth coming to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    pub steps: u64,
    pub applied: u64,
    pub compared: u64,
    pub resumed: u64,
    pub resent: u64,
    pub copies: u64,
    pub deaths: u64,
    pub deaths_within: u64,
    pub power_losses: u64,
    pub in_doubt: u64,
    pub retried: u64,
    pub aside: u64,
    pub relieved: u64,
    pub took_over: u64,
    pub paused: u64,
    pub stopped: u64,
    pub let_go: u64,
    pub refused: u64,
    pub syncs_failed: u64,
    pub set_back: u64,
    pub lied: u64,
}

impl Seen {
    pub fn add(&mut self, other: &Seen) {
        for ((_, own), (_, more)) in self.counts().into_iter().zip(other.clone().counts()) {
            *own += *more;
        }
    }

    /// What no run came to.
    pub fn never(&mut self) -> Vec<&'static str> {
        self.counts().into_iter().filter(|(_, count)| **count == 0).map(|(name, _)| name).collect()
    }

    fn counts(&mut self) -> [(&'static str, &mut u64); 21] {
        [
            ("a step", &mut self.steps),
            ("a packet", &mut self.applied),
            ("a comparison", &mut self.compared),
            ("a resumed stream", &mut self.resumed),
            ("a packet sent again", &mut self.resent),
            ("a copy", &mut self.copies),
            ("a death", &mut self.deaths),
            ("a death within a step", &mut self.deaths_within),
            ("a power loss", &mut self.power_losses),
            ("an op in doubt", &mut self.in_doubt),
            ("an op tried again", &mut self.retried),
            ("an object set aside", &mut self.aside),
            ("a file emptied to make room", &mut self.relieved),
            ("a session that takes over", &mut self.took_over),
            ("a pause", &mut self.paused),
            ("a stop", &mut self.stopped),
            ("a target that was let go", &mut self.let_go),
            ("a refusal", &mut self.refused),
            ("a failed sync", &mut self.syncs_failed),
            ("a state directory set back", &mut self.set_back),
            ("a lie", &mut self.lied),
        ]
    }
}

type Checked = Result<(), String>;

impl World {
    pub fn new(seed: u64, planted: Option<Planted>) -> World {
        let now = Instant::now();
        clock::set(Some(now));
        let mut random = Random::new(seed);
        let model = Model::new();
        let queue_limit = 12_000 + random.below(100_000) as usize;
        let origin = Position::origin(Epoch { number: 1, writer: 2 }, Incarnation(1));
        let target = Target::new(Random::new(seed ^ 0xd15c), planted);
        let desk = Desk::new(Random::new(seed ^ 0xde5c), planted);
        World {
            planted,
            history: HashMap::from([(origin, model.tree.clone())]),
            model,
            incarnations: 1,
            queue_limit,
            source: Source::new(queue_limit, origin, &desk),
            desk,
            target,
            wires: BTreeMap::new(),
            network_is_up: true,
            welcomed: Vec::new(),
            broken: None,
            in_line_with: None,
            last_applied: None,
            lull: 0,
            lies: false,
            promised: HashMap::new(),
            was_bad: true,
            bad_by: None,
            calm: false,
            seen: Seen::default(),
            trace: VecDeque::new(),
            random,
        }
    }

    /// Chaos for so many steps, then calm until both sides are the same.
    ///
    /// Errors: the rule that is broken.
    pub fn run(&mut self, steps: u64) -> Checked {
        let trouble = 10 + self.random.below(80);
        self.begin_source()?;
        for _ in 0..steps {
            if self.random.one_in(trouble) {
                self.trouble()?;
            }
            if self.random.one_in(50) {
                self.person_mends()?;
            }
            self.step()?;
        }
        self.calm()
    }

    fn step(&mut self) -> Checked {
        self.seen.steps += 1;
        match self.random.below(100) {
            0..20 => self.write()?,
            20..27 => self.pump()?,
            27..34 => {
                self.walker_turn();
                self.pump()?;
            }
            34..48 => self.stream_arrives()?,
            48..55 => self.message_for_target()?,
            55..63 => self.message_for_source()?,
            63..70 => self.driver_turn()?,
            70..89 => self.target_turn()?,
            89..92 => self.sync_ends()?,
            _ => {
                let most = self.random.pick(&[5, 5, 300, 4000]).copied().unwrap_or(5);
                let time = Duration::from_millis(self.random.below(most));
                self.pass(time)?;
            }
        }
        let time = Duration::from_micros(self.random.below(900));
        self.pass(time)?;
        self.check()
    }

    fn note(&mut self, text: String) {
        if self.trace.len() == TRACE_LEN {
            self.trace.pop_front();
        }
        self.trace.push_back(format!("{:6} {text}", self.seen.steps));
    }
}

impl Drop for World {
    fn drop(&mut self) {
        clock::set(None);
    }
}
