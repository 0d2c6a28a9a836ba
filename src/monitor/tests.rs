//! The machine, by table: what is heard when, and how the source is then.

mod random;

use super::machine::{Answer, Health, Machine, Who};
use super::outage::{Notes, Outage, Step};
use super::plan::{Asks, Need, Plan};
use super::shown::{self, Life, Monitored, Place, Probed, Shown};
use crate::clock::steady_ms;
use crate::events::{Code, Severity};
use crate::sys::boot_id;

use Answer::{Silent, There, Unknown};
use Health::{Blind, Green, Red, Yellow};

const QUICK: Asks = Asks { longest_ms: 100, settles_ms: 0 };
const LINK: Asks = Asks { longest_ms: 2000, settles_ms: 60_000 };

fn plan(need: Need, probes: &[Asks], own: usize) -> Plan {
    let own = vec![QUICK; own];
    Plan { interval_ms: 3000, misses: 5, need, probes: probes.to_vec(), own }
}

/// Plays a timeline in steps of 100 ms; each probe answers at once, as `says` has it at that moment.
struct Play {
    machine: Machine,
    now_ms: u64,
}

impl Play {
    fn new(plan: Plan) -> Play {
        Play { machine: Machine::new(plan, 1000), now_ms: 1000 }
    }

    /// Milliseconds until it is so, at most `upto`.
    fn until(&mut self, wanted: Health, upto: u64, says: impl Fn(Who) -> Answer) -> Option<u64> {
        let began = self.now_ms;
        while self.now_ms - began <= upto {
            self.step(&says);
            if self.machine.health() == wanted {
                return Some(self.now_ms - began);
            }
            self.now_ms += 100;
        }
        None
    }

    fn run(&mut self, ms: u64, says: impl Fn(Who) -> Answer) -> Vec<Health> {
        let mut seen = Vec::new();
        for _ in 0..ms / 100 {
            self.step(&says);
            if seen.last() != Some(&self.machine.health()) {
                seen.push(self.machine.health());
            }
            self.now_ms += 100;
        }
        seen
    }

    fn step(&mut self, says: &impl Fn(Who) -> Answer) {
        for who in self.machine.due(self.now_ms) {
            self.machine.heard(who, says(who), self.now_ms);
        }
        self.machine.tick(self.now_ms);
    }
}

fn all_there(_: Who) -> Answer {
    There
}

/// The source is dead, the own network is there.
fn dead(who: Who) -> Answer {
    if matches!(who, Who::Own(_)) { There } else { Silent }
}

fn cut_off(_: Who) -> Answer {
    Silent
}

#[test]
fn silence_is_yellow_after_a_quarter_and_red_after_the_time_out() {
    let mut play = Play::new(plan(Need::All, &[QUICK], 0));
    assert_eq!(play.machine.health(), Yellow, "nothing was heard yet");
    assert_eq!(play.run(30_000, all_there), [Green]);
    assert!(play.machine.time_to_fail_ms().is_some_and(|left| left > 11_900), "it restarts with each answer");
    // The last answer came at most 2.9 s ago.
    let yellow = play.until(Yellow, 4000, dead).unwrap();
    assert!((800..=3800).contains(&yellow), "{yellow}");
    let red = yellow + play.until(Red, 15_000, dead).unwrap();
    assert!((12_000..=15_000).contains(&red), "{red}");
    assert_eq!(play.run(60_000, dead), [Red]);
    assert_eq!(play.machine.time_to_fail_ms(), Some(0));
    assert_eq!(play.until(Green, 3000, all_there).map(|ms| ms <= 3000), Some(true));
}

#[test]
fn all_or_one_have_to_be_silent() {
    let second = |who: Who| if who == Who::Probe(1) { There } else { Silent };
    let mut all = Play::new(plan(Need::All, &[QUICK, QUICK], 0));
    assert_eq!(all.run(60_000, second), [Green]);
    assert_eq!(all.run(10_000, dead).last(), Some(&Yellow));
    assert!(all.until(Red, 10_000, dead).is_some());
    let mut one = Play::new(plan(Need::One, &[QUICK, QUICK], 0));
    one.run(6000, all_there);
    assert!(one.until(Red, 15_000, second).is_some());
}

#[test]
fn who_has_lost_the_own_network_concludes_nothing() {
    let mut play = Play::new(plan(Need::All, &[QUICK], 2));
    play.run(9000, all_there);
    assert_eq!(play.run(200_000, cut_off).last(), Some(&Blind));
    // One of the two is enough, and from there on the whole time-out counts.
    let one_of_own = |who: Who| if who == Who::Own(1) { There } else { Silent };
    let red = play.until(Red, 60_000, one_of_own).unwrap();
    assert!((15_000..=18_500).contains(&red), "{red}");
    // Red, and blind: it is not red any more.
    assert!(play.until(Blind, 4000, cut_off).is_some());
    // An answer of the source is one, whatever the gateway does.
    let source_alone = |who: Who| if who == Who::Probe(0) { There } else { Silent };
    assert_eq!(play.run(30_000, source_alone).last(), Some(&Green));
    assert!(!play.run(120_000, cut_off).contains(&Red));
}

/// The network went between two looks at it.
#[test]
fn who_doubts_asks_for_the_own_network_once_more() {
    let mut play = Play::new(plan(Need::All, &[QUICK], 1));
    play.run(9000, all_there);
    while play.machine.time_to_fail_ms() > Some(200) {
        play.step(&dead);
        play.now_ms += 100;
    }
    assert!(!play.run(100_000, cut_off).contains(&Red));
}

/// What was asked before shows the network as of before.
#[test]
fn a_look_from_before_the_doubt_is_not_enough() {
    let own = vec![Asks { longest_ms: 20_000, settles_ms: 0 }];
    let mut machine = Machine::new(Plan { own, ..plan(Need::All, &[QUICK], 0) }, 0);
    let mut say = |now: u64, says: Answer| {
        for who in machine.due(now) {
            if who == Who::Probe(0) {
                machine.heard(who, says, now);
            }
        }
        machine.tick(now);
        machine.health()
    };
    say(0, There);
    let seen: Vec<Health> = (1..=160).map(|step| say(step * 100, Silent)).collect();
    assert!(!seen.contains(&Red));
    machine.heard(Who::Own(0), There, 16_050);
    assert_eq!(machine.health(), Yellow);
    assert_eq!(machine.due(16_100), [Who::Own(0)]);
    machine.heard(Who::Own(0), There, 16_100);
    assert_eq!(machine.health(), Red);
}

#[test]
fn a_host_that_has_slept_has_listened_to_nothing() {
    let mut play = Play::new(plan(Need::All, &[QUICK], 0));
    play.run(9000, all_there);
    play.run(12_000, dead);
    play.now_ms += 3_600_000;
    let red = play.until(Red, 60_000, dead).unwrap();
    assert!((15_000..=15_200).contains(&red), "{red}");
    // Frozen again and again, shorter than it notices: it still takes attempts that fail.
    let mut play = Play::new(plan(Need::All, &[QUICK], 0));
    play.run(9000, all_there);
    for who in play.machine.due(play.now_ms + 2900) {
        play.machine.heard(who, There, play.now_ms + 2900);
    }
    for _ in 0..20 {
        play.now_ms += 2900;
        play.machine.tick(play.now_ms);
        assert_ne!(play.machine.health(), Red, "nobody has asked");
    }
}

/// An attempt from before the sleep fails because of it.
#[test]
fn what_was_asked_before_a_sleep_does_not_count() {
    let mut machine = Machine::new(Plan { misses: 2, ..plan(Need::All, &[QUICK], 0) }, 0);
    assert_eq!(machine.due(0), [Who::Probe(0)]);
    machine.heard(Who::Probe(0), There, 0);
    assert_eq!(machine.due(3000), [Who::Probe(0)]);
    machine.tick(1_000_000);
    machine.heard(Who::Probe(0), Silent, 1_000_000);
    for now in (1_000_000..1_020_000).step_by(100) {
        machine.tick(now);
        assert_ne!(machine.health(), Red, "at {now}");
    }
}

/// The target daemon was killed, and is started again: its source needs a while to come back.
#[test]
fn a_probe_that_cannot_tell_is_not_silent() {
    let mut play = Play::new(plan(Need::All, &[LINK, QUICK], 0));
    play.run(9000, all_there);
    let no_daemon = |who: Who| if who == Who::Probe(0) { Unknown } else { Silent };
    assert_eq!(play.run(100_000, no_daemon).last(), Some(&Blind));
    assert_eq!(play.machine.time_to_fail_ms(), None);
    let red = play.until(Red, 60_000, dead).unwrap();
    assert!((12_000..=18_000).contains(&red), "from when it can tell again: {red}");
    // With one of them, the other one can still be silent for long enough.
    let mut one = Play::new(plan(Need::One, &[LINK, QUICK], 0));
    one.run(9000, all_there);
    assert!(one.until(Red, 18_000, no_daemon).is_some());
    let mut alone = Play::new(plan(Need::All, &[LINK], 0));
    alone.run(9000, all_there);
    assert!(!alone.run(300_000, |_| Unknown).contains(&Red));
}

/// After the own network was away the source may still wait before it dials again.
#[test]
fn a_source_has_time_to_come_back_over_the_link() {
    let mut play = Play::new(plan(Need::All, &[LINK], 1));
    play.run(9000, all_there);
    play.run(40_000, cut_off);
    assert_eq!(play.run(58_000, dead).last(), Some(&Blind));
    assert!(play.until(Red, 30_000, dead).is_some());
}

#[test]
fn the_worst_case_is_stated() {
    let of = |asks: &[Asks], own| plan(Need::All, asks, own).worst_case_ms();
    assert_eq!(of(&[QUICK], 0), 15_600);
    assert_eq!(of(&[QUICK], 1), 15_800);
    let slow = Asks { longest_ms: 5000, settles_ms: 0 };
    assert_eq!(of(&[QUICK, slow], 0), 3000 + 3 * 5000 + 5000 + 600);
}

pub fn sample_shown() -> Shown {
    Shown {
        set: "web".into(),
        pid: 1,
        version: "0.1.0".into(),
        health: Green,
        since_unix_ms: 1,
        silent_ms: Some(700),
        time_to_fail_ms: Some(14_300),
        timeout_ms: 15_000,
        worst_case_ms: 15_200,
        need: Need::All,
        probes: vec![Probed {
            probe: "link".into(),
            own: false,
            answer: Some("there".into()),
            why: String::new(),
        }],
        auto: false,
        outage: None,
        at_unix_ms: 1,
        beat_ms: steady_ms(),
        boot: format!("{:032x}", boot_id().unwrap()),
    }
}

#[test]
fn a_monitor_that_died_or_stands_still_is_not_green() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path();
    assert_eq!(shown::of(run, "web").unwrap(), None);
    let place = Place::take(run, "web").unwrap().unwrap();
    place.show(&sample_shown()).unwrap();
    assert!(Place::take(run, "web").unwrap().is_none(), "two would act twice");
    let life = || shown::of(run, "web").unwrap().map(|found| (found.life, found.severity()));
    assert_eq!(life(), Some((Life::Alive, Severity::Ok)));
    let beat_ms = steady_ms().saturating_sub(11_000);
    place.show(&Shown { beat_ms, ..sample_shown() }).unwrap();
    assert_eq!(life(), Some((Life::Frozen, Severity::Critical)));
    place.show(&Shown { boot: "0".repeat(32), ..sample_shown() }).unwrap();
    assert_eq!(life(), Some((Life::Dead, Severity::Critical)), "of before the host was started");
    place.show(&sample_shown()).unwrap();
    // As after kill -9: the file stays, nobody holds the lock.
    let kept = std::fs::read(run.join("web.monitor")).unwrap();
    drop(place);
    assert_eq!(life(), None);
    std::fs::write(run.join("web.monitor"), kept).unwrap();
    assert_eq!(life(), Some((Life::Dead, Severity::Critical)));
    assert_eq!(shown::all(run).len(), 1);
}

#[test]
fn each_health_is_its_event() {
    let code = |change: fn(&mut Shown)| {
        let mut shown = sample_shown();
        change(&mut shown);
        let seen = Monitored { life: Life::Alive, shown }.seen();
        seen.into_iter().map(|seen| (seen.code, seen.severity)).collect::<Vec<_>>()
    };
    assert_eq!(code(|_| {}), []);
    assert_eq!(code(|shown| shown.health = Yellow), [(Code::SourceYellow, Severity::Warning)]);
    assert_eq!(code(|shown| shown.health = Red), [(Code::SourceRed, Severity::Critical)]);
    assert_eq!(code(|shown| shown.health = Blind), [(Code::MonitorBlind, Severity::Warning)]);
    let failed = |shown: &mut Shown| shown.outage = Some(Outage::left_to_a_person(1, "no fence"));
    assert_eq!(code(failed), [(Code::AutoFailed, Severity::Critical)]);
    let stands_in = |shown: &mut Shown| {
        shown.health = Blind;
        shown.outage = Some(Outage { step: Step::StandsIn, ..Outage::begun(1) });
    };
    assert_eq!(
        code(stands_in),
        [(Code::AutoStoodIn, Severity::Warning)],
        "there is nothing to be seen any more"
    );
}

#[test]
fn a_note_outlives_its_monitor_and_is_kept_when_it_is_over() {
    let dir = tempfile::tempdir().unwrap();
    let notes = Notes::of(dir.path(), "web").unwrap();
    assert_eq!(notes.read().unwrap(), None);
    notes.over().unwrap();
    let outage = Outage { step: Step::FailingOver, ..Outage::begun(7) };
    notes.write(&outage).unwrap();
    assert_eq!(Notes::of(dir.path(), "web").unwrap().read().unwrap(), Some(outage));
    notes.over().unwrap();
    assert_eq!(notes.read().unwrap(), None);
    std::fs::write(dir.path().join(".monitors/web.json"), "{").unwrap();
    assert!(notes.read().is_err(), "what was done is not known");
}
