//! Everything together: one step after the other, chosen by chance, and the rules that always hold.

mod disk_queue;
mod hears;
mod network;
mod receives;
mod rules;
mod sends;
mod time;
mod trouble;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

use crate::apply::plant_in_reconcile;
use crate::clock;
use crate::connection::{Command, Event, Flow, Link, Repair, State};
use crate::link::{LostBy, Received, SourceEvent};
use crate::packet::*;
use crate::random::Random;
use crate::simulator::applications::Applications;
use crate::simulator::disk::{self, Times};
use crate::simulator::kept::Kept;
use crate::simulator::marking::Marking;
use crate::simulator::model::Model;
use crate::simulator::planted::Planted;
use crate::simulator::seen::Seen;
use crate::simulator::setting;
use crate::simulator::snapshots::Snapshots;
use crate::simulator::source::{Desk, Effect, Left, SEGMENT, Source, Start};
use crate::simulator::target::{Loss, Step, Target};
use crate::simulator::walker::{Turn, Walker};
use crate::simulator::wire::{End, Wire};
use crate::source_side::{FirstOwed, Mark, Marks, News, OwedOrder};
use crate::target_side::greeting;
use crate::words::WhenFull;

const TRACE_LEN: u64 = 70;
const WINDOW_MAX: usize = 20_000;
/// How late a side may learn that its link is gone: heartbeats are missed for so long.
const SILENCE: Duration = Duration::from_secs(9);
/// How often the driver looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// In an orderly way.
const STOPS: &str = "it was stopped";
const DIES: &str = "it died";

const SYNC_FAILED: &str = "a sync of the target failed";

/// One run. See the module.
pub struct World {
    random: Random,
    planted: Option<Planted>,
    applications: Arc<Mutex<Applications>>,
    /// Until when the target had everything.
    marks: Arc<Marks>,
    /// Once everything up to here is durable, the target had everything as of this moment.
    moment: Option<(Sequence, Mark)>,
    when_full: WhenFull,
    incarnations: u64,
    queue_limit: usize,
    /// Bytes of its disk, if it has one.
    queue_disk: Option<u64>,
    /// Something of that disk could not be read.
    disk_failed: bool,
    /// Of its own: what a seed plays without a disk stays.
    disk_random: Random,
    /// Of its own: when the source ends in an orderly way.
    left_random: Random,
    /// Of its own: when nothing is queued for a while.
    stop_random: Random,
    /// Of sources that die under their mount.
    death_random: Random,
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
    /// Objects were aside since it was good last.
    was_aside: bool,
    calm: bool,
    kept: Kept,
    snapshots: Snapshots,
    pub seen: Seen,
    pub trace: VecDeque<String>,
    trace_len: u64,
}

type Checked = Result<(), String>;

impl World {
    pub fn new(seed: u64, planted: Option<Planted>) -> World {
        let now = Instant::now();
        clock::set(Some(now));
        let mut random = Random::new(seed);
        if let Some(Planted::Converging(rule)) = planted {
            plant_in_reconcile(Some(rule));
        }
        let queue_limit = 15_000 + random.below(300_000) as usize;
        let mut disk_random = Random::new(seed ^ 0x5e93);
        let queue_disk = (!disk_random.one_in(3)).then(|| SEGMENT * (2 + disk_random.below(30)));
        let origin = Position::origin(Epoch { number: 1, writer: 2 }, Incarnation(1));
        let target = Target::new(Random::new(seed ^ 0xd15c), planted);
        let snapshots = Snapshots::new(Random::new(seed ^ 0x511a), &target.places.root);
        let desk = Desk::new(Random::new(seed ^ 0xde5c), planted);
        let marks = Arc::new(Marks::default());
        let marking = Marking::new(Random::new(seed ^ 0x3a9), planted, origin);
        let when_full = if random.one_in(3) { WhenFull::Resync } else { WhenFull::Block };
        let start = Start {
            limit: queue_limit,
            at: origin,
            clock: Model::new().clock(),
            marks: marks.clone(),
            when_full,
            serves_at: now + Duration::from_millis(random.below(3000)),
            kept: Default::default(),
            disk: queue_disk,
            planted: planted.and_then(Planted::in_queue),
            map: marking.map(),
            left: None,
        };
        let source = Source::new(start, &desk);
        let applications = Applications::new(source.queue.clone(), Random::new(seed ^ 0xa99), marking);
        World {
            planted,
            applications: Arc::new(Mutex::new(applications)),
            marks,
            moment: None,
            when_full,
            incarnations: 1,
            queue_limit,
            queue_disk,
            disk_failed: false,
            disk_random,
            left_random: Random::new(seed ^ 0x1ef7),
            stop_random: Random::new(seed ^ 0x5709),
            death_random: Random::new(seed ^ 0xdea7),
            source,
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
            was_aside: false,
            calm: false,
            kept: Kept::default(),
            snapshots,
            seen: Seen::default(),
            trace: VecDeque::new(),
            trace_len: setting("STANDIN_TRACE").unwrap_or(TRACE_LEN),
            random,
        }
    }

    /// Chaos for so many steps, then calm until both sides are the same.
    ///
    /// Errors: the rule that is broken.
    pub fn run(&mut self, steps: u64) -> Checked {
        let trouble = 15 + self.random.below(500);
        let dies = self.death_random.one_in(2);
        self.begin_source()?;
        for _ in 0..steps {
            if self.random.one_in(trouble) {
                self.trouble()?;
            }
            if self.random.one_in(50) {
                self.person_mends()?;
            }
            if self.stop_random.one_in(800) {
                self.command(Command::StopReplication)?;
            }
            if self.left_random.one_in(1200) {
                self.restart_source(STOPS)?;
            }
            if dies && self.source.driver.is_in_line() && self.death_random.one_in(150) {
                self.restart_source(DIES)?;
            }
            self.step()?;
        }
        self.calm()
    }

    fn step(&mut self) -> Checked {
        self.seen.steps += 1;
        self.disk_turns()?;
        self.seen.linked += u64::from(self.snapshots.turn(&self.target.places.root));
        self.map_turns();
        match self.random.below(100) {
            0..20 => self.write()?,
            20..27 => self.pump()?,
            27..34 => self.copy_goes_on()?,
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

    /// Generations of the map come and go.
    fn map_turns(&mut self) {
        let (base, last) = (self.source.driver.base(), self.source.queue.last());
        if self.seen.steps.is_multiple_of(30) {
            let reached = self.reached();
            let marking = &mut self.applications.lock().marking;
            marking.look(base, reached, last);
            self.seen.rotated += std::mem::take(&mut marking.rotated);
            self.seen.full_maps += u64::from(marking.is_full());
        }
    }

    /// A copy gets on in the time of a few steps, or nothing would ever be in line.
    fn copy_goes_on(&mut self) -> Checked {
        for _ in 0..=self.random.below(3) {
            self.walker_turns();
            self.pump()?;
            if self.source.walker.is_none() {
                break;
            }
            self.stream_arrives()?;
            for _ in 0..3 {
                self.target_turn()?;
            }
            self.message_for_source()?;
        }
        Ok(())
    }

    fn applications(&self) -> MutexGuard<'_, Applications> {
        self.applications.lock()
    }

    fn note(&mut self, text: String) {
        if self.trace.len() as u64 == self.trace_len {
            self.trace.pop_front();
        }
        self.trace.push_back(format!("{:6} {text}", self.seen.steps));
    }
}

impl Drop for World {
    fn drop(&mut self) {
        clock::set(None);
        plant_in_reconcile(None);
    }
}
