//! Schedules, case by case, with clocks of the test.

mod beginning;
mod going_on;

use std::time::{Duration, Instant};

use crate::connection::{KeptSchedule, Look, OutsideWindow, Scheduler, Turn};
use crate::words::{Waiting, shown};

const MINUTE: i64 = 60;
const HOUR: i64 = 3600;
const DAY: i64 = 86_400;
/// 2024-03-31 01:00 UTC: 02:00 becomes 03:00.
const SPRING: i64 = 1_711_846_800;
/// 2024-10-27 01:00 UTC: 03:00 becomes 02:00.
const AUTUMN: i64 = 1_729_990_800;
/// 2024-07-01 12:00 there, a Monday.
const MONDAY: i64 = 1_719_828_000;
/// 2016-12-31 23:59:00 UTC: a leap second ends this minute.
const LEAP: i64 = 1_483_228_740;

fn berlin(at: i64) -> i64 {
    if (SPRING..AUTUMN).contains(&at) { 2 * HOUR } else { HOUR }
}

#[derive(Clone, Copy, Debug)]
enum Do {
    /// Time passes.
    Pass(i64),
    /// The clock on the wall is set.
    Set(i64),
    /// What is queued; of 100.
    Queue(u64),
    /// Sent from now on, a second.
    Send(u64),
    /// A session has nothing more to send after so many seconds.
    Drain(i64),
    LetGo(bool),
    Stop(bool),
    Switch(bool),
    Hand,
    Restart,
    Plan(&'static str),
}
use Do::*;

struct Scene {
    scheduler: Scheduler,
    look: Look,
    step: i64,
    send: u64,
    drain: Option<i64>,
    /// Since it began, seconds.
    session: i64,
    told: Vec<String>,
}

impl Scene {
    fn new(plan: &str, from: i64, step: i64) -> Scene {
        let look = Look {
            now_s: from,
            now: Instant::now(),
            queue: Waiting { limit: 100, ..Waiting::default() },
            is_let_go: false,
            sent: 0,
            is_empty: false,
            is_stopped: false,
        };
        let scheduler = Scheduler::new(Some(plan.parse().unwrap()), true, KeptSchedule::default(), from);
        let mut scene = Scene { scheduler, look, step, send: 0, drain: None, session: 0, told: Vec::new() };
        scene.tick();
        scene
    }

    fn tick(&mut self) {
        self.look.is_empty =
            self.drain.is_some_and(|drain| self.scheduler.is_open() && self.session >= drain);
        let turn = self.scheduler.tick(&self.look, &berlin);
        if let Some(turn) = turn {
            self.say(turn);
        }
    }

    /// `+` a session begins, `-` it ends; day and time as clocks on the wall show them.
    fn say(&mut self, turn: Turn) {
        let sign = if turn == Turn::Met { "+" } else { "-" };
        let at = shown(self.look.now_s, &berlin);
        let second = self.look.now_s.rem_euclid(60);
        let seconds = if second == 0 { String::new() } else { format!(":{second:02}") };
        self.told.push(format!("{sign}{}{seconds}", &at[8..]));
        self.session = 0;
    }

    fn act(&mut self, what: Do) {
        match what {
            Pass(seconds) => {
                for _ in 0..seconds / self.step {
                    self.look.now_s += self.step;
                    self.look.now += Duration::from_secs(self.step as u64);
                    self.look.sent += self.send * self.step as u64;
                    self.session += self.step;
                    self.tick();
                }
            }
            Set(by) => self.look.now_s += by,
            Queue(bytes) => self.look.queue = Waiting { bytes, held: bytes, limit: 100 },
            Send(bytes) => self.send = bytes,
            Drain(seconds) => self.drain = Some(seconds),
            LetGo(is_so) => self.look.is_let_go = is_so,
            Stop(is_so) => self.look.is_stopped = is_so,
            Switch(is_on) => {
                let plan = self.scheduler.plan().copied();
                self.scheduler.follow(plan, is_on, self.look.now_s);
            }
            Plan(plan) => self.scheduler.follow(plan.parse().ok(), true, self.look.now_s),
            Hand => match self.scheduler.begin_by_hand(&self.look, &berlin) {
                Ok(()) => self.say(Turn::Met),
                Err(OutsideWindow) => self.told.push("refused".into()),
            },
            Restart => {
                let (plan, kept) = (self.scheduler.plan().copied(), self.scheduler.kept());
                let text = serde_json::to_string(&kept).unwrap();
                let kept = serde_json::from_str(&text).unwrap();
                self.scheduler = Scheduler::new(plan, self.scheduler.is_on(), kept, self.look.now_s);
                self.look.sent = 0;
            }
        }
    }
}

#[track_caller]
fn check(name: &str, plan: &str, from: i64, steps: &[Do], expected: &str) {
    check_by(30, name, plan, from, steps, expected);
}

#[track_caller]
fn check_by(step: i64, name: &str, plan: &str, from: i64, steps: &[Do], expected: &str) {
    let mut scene = Scene::new(plan, from, step);
    steps.iter().for_each(|step| scene.act(*step));
    assert_eq!(scene.told.join(" "), expected, "{name}: {plan}");
    let outlook = scene.scheduler.outlook(scene.look.now_s, &berlin);
    assert!(!outlook.why.is_empty() || scene.scheduler.plan().is_none(), "{name}: {outlook:?}");
    assert!(outlook.next_s.is_none_or(|next| next >= scene.look.now_s), "{name}: {outlook:?}");
}
