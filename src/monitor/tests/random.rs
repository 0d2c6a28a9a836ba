//! The machine in random worlds, against what was said to it, kept beside: never red where it must not be, and red in time.
//!
//! `STANDIN_SEED=x` replays a world.

use std::collections::BTreeMap;

use super::{Asks, Machine, Need, Plan, Who};
use crate::monitor::machine::{Answer, Health};
use crate::random::Random;

const WORLDS: u64 = 400;

/// What is so at a moment, of each probe; and for how long.
struct World {
    random: Random,
    plan: Plan,
    now_ms: u64,
    says: BTreeMap<Who, Answer>,
    until_ms: u64,
    /// Attempts under way: when each ends, and with what.
    under_way: BTreeMap<Who, (u64, Answer)>,
    kept: Kept,
}

/// The naive model: what was heard, and nothing else.
#[derive(Default)]
struct Kept {
    last_there: BTreeMap<Who, u64>,
    last: BTreeMap<Who, Answer>,
    /// Failed attempts in a row.
    silent: BTreeMap<Who, u32>,
    /// When the last pause of this process ended.
    woke_ms: u64,
    /// Since then, and since what was asked before a pause has ended, nothing but answers and silence of the source was heard, and the own network was there.
    clean_ms: u64,
    /// Since when the source is dead without a break, all probes can tell, and the own network is there.
    plainly_dead_ms: Option<u64>,
}

fn random_plan(random: &mut Random) -> Plan {
    let interval_ms = *random.one_of(&[100, 500, 1000, 3000]);
    let asks = |random: &mut Random| Asks {
        longest_ms: *random.one_of(&[interval_ms / 4, interval_ms, 2 * interval_ms]),
        settles_ms: *random.one_of(&[0, 0, 5 * interval_ms]),
    };
    let probes = (0..=random.below(3)).map(|_| asks(random)).collect();
    let own = (0..random.below(3)).map(|_| Asks { longest_ms: interval_ms / 2, settles_ms: 0 }).collect();
    let need = *random.one_of(&[Need::All, Need::One]);
    Plan { interval_ms, misses: 2 + random.below(5) as u32, need, probes, own }
}

impl World {
    fn new(seed: u64) -> World {
        let mut random = Random::new(seed);
        let plan = random_plan(&mut random);
        World {
            random,
            plan,
            now_ms: 10_000,
            says: BTreeMap::new(),
            until_ms: 0,
            under_way: BTreeMap::new(),
            kept: Kept::default(),
        }
    }

    fn all(&self) -> Vec<Who> {
        let probes = (0..self.plan.probes.len()).map(Who::Probe);
        probes.chain((0..self.plan.own.len()).map(Who::Own)).collect()
    }

    /// The world turns: all well, the source dead, the own network gone, or anything.
    fn turn(&mut self) {
        if self.now_ms < self.until_ms {
            return;
        }
        let long = self.plan.worst_case_ms() * 2;
        self.until_ms = self.now_ms + 1 + self.random.below(long);
        let kind = self.random.below(5);
        for who in self.all() {
            let any = *self.random.one_of(&[Answer::There, Answer::Silent, Answer::Unknown]);
            let is_own = matches!(who, Who::Own(_));
            let says = match kind {
                0 => Answer::There,
                1 | 2 if is_own => Answer::There,
                1..=3 => Answer::Silent,
                _ => any,
            };
            self.says.insert(who, says);
        }
        self.kept.plainly_dead_ms = None;
    }

    fn longest(&self, who: Who) -> u64 {
        match who {
            Who::Probe(at) => self.plan.probes[at].longest_ms,
            Who::Own(at) => self.plan.own[at].longest_ms,
        }
    }

    /// Errors: what is wrong.
    fn run(&mut self) -> Result<u32, String> {
        let mut machine = Machine::new(self.plan.clone(), self.now_ms);
        let (mut reds, end) = (0, self.now_ms + 40 * self.plan.worst_case_ms());
        while self.now_ms < end {
            self.turn();
            self.pause();
            for who in machine.due(self.now_ms) {
                let length = self.random.below(self.longest(who) + 1);
                if self.under_way.insert(who, (self.now_ms + length, self.says[&who])).is_some() {
                    return Err(format!("{who:?} is asked twice at once"));
                }
            }
            let before = machine.health();
            self.hear(&mut machine);
            machine.tick(self.now_ms);
            reds += u32::from(before != Health::Red && machine.health() == Health::Red);
            self.check(before, machine.health())?;
            self.now_ms += 1 + self.random.below(self.plan.tick_ms());
        }
        Ok(reds)
    }

    /// The host sleeps, or does not come round to the process.
    fn pause(&mut self) {
        if self.random.one_in(2000) {
            self.now_ms +=
                self.random.below(8 * self.plan.timeout_ms()) + self.plan.interval_ms.max(1000) + 1;
            self.kept = Kept {
                woke_ms: self.now_ms,
                clean_ms: self.now_ms + 2 * self.plan.interval_ms,
                last: self.kept.last.clone(),
                ..Kept::default()
            };
        }
    }

    fn hear(&mut self, machine: &mut Machine) {
        let ended: Vec<Who> =
            self.under_way.iter().filter(|(_, (at, _))| *at <= self.now_ms).map(|(who, _)| *who).collect();
        for who in ended {
            let Some((_, answer)) = self.under_way.remove(&who) else { continue };
            machine.heard(who, answer, self.now_ms);
            self.kept.last.insert(who, answer);
            match answer {
                Answer::There => {
                    self.kept.last_there.insert(who, self.now_ms);
                    self.kept.silent.insert(who, 0);
                }
                Answer::Silent => *self.kept.silent.entry(who).or_default() += 1,
                Answer::Unknown => _ = self.kept.silent.insert(who, 0),
            }
        }
        let is_unclean = |(who, answer): (&Who, &Answer)| {
            *answer == Answer::Unknown || matches!((who, answer), (Who::Own(_), Answer::Silent))
        };
        if self.kept.last.iter().any(is_unclean) {
            self.kept.clean_ms = self.kept.clean_ms.max(self.now_ms + 1);
        }
        let plainly = self.all().iter().all(|who| {
            let wanted = if matches!(who, Who::Own(_)) { Answer::There } else { Answer::Silent };
            self.kept.last.get(who) == Some(&wanted)
        });
        if !plainly {
            self.kept.plainly_dead_ms = None;
        } else {
            self.kept.plainly_dead_ms.get_or_insert(self.now_ms);
        }
    }

    fn check(&self, before: Health, health: Health) -> Result<(), String> {
        let (kept, timeout) = (&self.kept, self.plan.timeout_ms());
        let probes: Vec<Who> = (0..self.plan.probes.len()).map(Who::Probe).collect();
        let own: Vec<Who> = (0..self.plan.own.len()).map(Who::Own).collect();
        let failed = (self.plan.misses - 1).max(1);
        let since = |who: &Who| kept.last_there.get(who).copied().unwrap_or(0).max(kept.woke_ms);
        let could = |who: &Who| {
            kept.last.get(who) == Some(&Answer::Silent)
                && self.now_ms.saturating_sub(since(who)) >= timeout
                && kept.silent.get(who).copied().unwrap_or(0) >= failed
        };
        let may = match self.plan.need {
            Need::All => probes.iter().all(could),
            Need::One => probes.iter().any(could),
        };
        let is_lost = !own.is_empty() && own.iter().all(|who| kept.last.get(who) != Some(&Answer::There));
        if health == Health::Red && !may {
            return Err("red while not every probe that has to be was silent for long enough".into());
        }
        if health == Health::Red && is_lost {
            return Err("red while nothing of the own network answers".into());
        }
        let was_seen = own.is_empty()
            || own.iter().any(|who| {
                let at = kept.last_there.get(who).copied().unwrap_or(0);
                at >= probes.iter().map(since).min().unwrap_or(0) + timeout
            });
        if health == Health::Red && before != Health::Red && !was_seen {
            return Err("red without a look at the own network behind the time-out".into());
        }
        // Right after an answer the stated time holds to the letter.
        let since = |who: &Who| kept.last_there.get(who).copied().filter(|at| *at >= kept.clean_ms);
        let silence = match self.plan.need {
            Need::All => {
                probes.iter().map(since).collect::<Option<Vec<u64>>>().and_then(|all| all.into_iter().max())
            }
            Need::One => probes.iter().filter_map(since).min(),
        };
        let silence = silence.map(|since| self.now_ms - since);
        if silence.is_some_and(|silence| silence > self.plan.worst_case_ms()) && health != Health::Red {
            return Err(format!("silent for {silence:?} ms, and {health}"));
        }
        let settles = self.plan.probes.iter().map(|asks| asks.settles_ms).max().unwrap_or(0);
        // What was asked before a pause is asked again.
        let bound = self.plan.worst_case_ms() + settles + 2 * self.plan.interval_ms;
        let dead_for = kept.plainly_dead_ms.map(|since| self.now_ms - since);
        if dead_for.is_some_and(|dead| dead > bound) && health != Health::Red {
            return Err(format!("dead for {dead_for:?} ms, and {health}"));
        }
        let is_heard = probes.iter().any(|who| kept.last_there.get(who) == Some(&self.now_ms));
        if is_heard && health == Health::Blind && self.plan.need == Need::All {
            return Err("blind while an answer comes".into());
        }
        Ok(())
    }
}

fn replayed() -> Option<u64> {
    std::env::var("STANDIN_SEED").ok().and_then(|seed| seed.parse().ok())
}

fn worlds(count: u64) -> Result<u32, String> {
    let mut seeds = Random::new(crate::store::random_u64());
    let seeds: Vec<u64> = match replayed() {
        Some(seed) => vec![seed],
        None => (0..count).map(|_| seeds.number() >> 16).collect(),
    };
    let mut reds = 0;
    for seed in seeds {
        reds += World::new(seed).run().map_err(|wrong| format!("STANDIN_SEED={seed}: {wrong}"))?;
    }
    Ok(reds)
}

#[test]
fn random_worlds_are_judged_as_they_are() {
    let reds = worlds(WORLDS).unwrap_or_else(|wrong| panic!("{wrong}"));
    assert!(reds > 100 || replayed().is_some(), "too little has happened: {reds} times red");
}
