//! The threads of the probes, the clock, and what follows from a change: the one loop of a monitor.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, Sender, bounded, select, unbounded};

use super::Options;
use super::acting::{Acting, is_served};
use super::machine::{Answer, Health, Machine, Who};
use super::outage::{Notes, Outage, Step};
use super::probe::{Asker, Heard, Probe};
use super::shown::{Place, Probed, Shown};
use crate::clock::steady_ms;
use crate::control::unix_ms;
use crate::service_manager::ServiceManager;
use crate::sys::boot_id;

/// How often it says how it is, whatever happens.
const SHOWN_EVERY: Duration = Duration::from_secs(1);

const STARTED_INTO_IT: &str = "the source has not answered since this monitor was started, so that it cannot know \
     whether somebody has acted on this outage before";

/// Something to tell.
pub enum Told {
    /// It has changed, from this.
    Health(Health, Shown),
    Outage(Outage),
    /// It may be acted on the next one.
    Over,
}

/// See the module.
pub struct Watching {
    options: Options,
    machine: Machine,
    /// Of the source, then of the own network.
    probed: Vec<Probed>,
    place: Place,
    asks: Vec<Sender<()>>,
    heard: Receiver<(Who, Heard)>,
    /// That was told last, and since when.
    health: Option<Health>,
    since_unix_ms: u64,
    /// Since when it is green without a break.
    green_ms: Option<u64>,
    notes: Option<Notes>,
    outage: Option<Outage>,
    is_red: Arc<AtomicBool>,
    acts: bool,
    steps: (Sender<Outage>, Receiver<Outage>),
    service: ServiceManager,
    shown: Option<Instant>,
}

impl Watching {
    /// Errors: the system's; what was done about an outage cannot be read.
    pub fn begin(options: Options, place: Place) -> io::Result<Watching> {
        let notes = options.auto.as_ref().map(|_| Notes::of(&options.state, &options.set)).transpose()?;
        let outage = notes.as_ref().map(Notes::read).transpose()?.flatten();
        let (hear, heard) = unbounded();
        let (mut asks, mut probed) = (Vec::new(), Vec::new());
        let of_source = options.probes.iter().enumerate().map(|(at, probe)| (Who::Probe(at), probe));
        let of_own = options.own.iter().enumerate().map(|(at, probe)| (Who::Own(at), probe));
        for (who, probe) in of_source.chain(of_own) {
            let is_own = matches!(who, Who::Own(_));
            let timeout = if is_own { options.own_timeout() } else { options.interval };
            let asker = Asker::new(probe.clone(), timeout, &options.set, &options.asked);
            asks.push(start(asker, who, hear.clone())?);
            let probe = name(probe, probed.len() + 1);
            probed.push(Probed { probe, own: is_own, answer: None, why: String::new() });
        }
        let mut watching = Watching {
            machine: Machine::new(options.plan(), steady_ms()),
            options,
            probed,
            place,
            asks,
            heard,
            health: Some(Health::Yellow),
            since_unix_ms: now_ms(),
            green_ms: None,
            notes,
            outage,
            is_red: Arc::default(),
            acts: false,
            steps: unbounded(),
            service: ServiceManager::of_process(),
            shown: None,
        };
        watching.show();
        Ok(watching)
    }

    /// Until it is told to end.
    pub fn work(&mut self, stops: &Receiver<()>, tell: &mut dyn FnMut(&Told)) {
        self.service.ready();
        let (end, ends) = bounded::<()>(1);
        self.go_on(&ends);
        let tick = Duration::from_millis(self.machine.plan().tick_ms());
        loop {
            for who in self.machine.due(steady_ms()) {
                let _ = self.asks[self.number(who)].send(());
            }
            let (heard, steps) = (self.heard.clone(), self.steps.1.clone());
            select! {
                recv(stops) -> _ => break,
                recv(heard) -> one => if let Ok((who, heard)) = one { self.hear(who, heard) },
                recv(steps) -> step => if let Ok(outage) = step { self.stepped(outage, tell) },
                default(tick) => self.machine.tick(steady_ms()),
            }
            self.follow(&ends, tell);
        }
        // What has not changed anything yet is not begun any more.
        let _ = end.try_send(());
        self.let_end();
        self.service.stopping(Duration::from_secs(10));
    }

    fn number(&self, who: Who) -> usize {
        match who {
            Who::Probe(at) => at,
            Who::Own(at) => self.options.probes.len() + at,
        }
    }

    fn hear(&mut self, who: Who, heard: Heard) {
        let number = self.number(who);
        let probed = &mut self.probed[number];
        if probed.why != heard.why && !heard.why.is_empty() {
            log::debug!("{}: {}: {}", self.options.set, probed.probe, heard.why);
        }
        probed.answer = Some(word(heard.answer).to_owned());
        probed.why = heard.why;
        self.machine.heard(who, heard.answer, steady_ms());
    }

    /// What follows from how it is now.
    fn follow(&mut self, ends: &Receiver<()>, tell: &mut dyn FnMut(&Told)) {
        let health = self.machine.health();
        self.is_red.store(health == Health::Red, Ordering::SeqCst);
        let before = self.health.replace(health);
        if before != Some(health) {
            self.since_unix_ms = now_ms();
            self.green_ms = (health == Health::Green).then(steady_ms);
            let shown = self.show();
            tell(&Told::Health(before.unwrap_or(Health::Yellow), shown));
            if health == Health::Red {
                self.act(ends, tell);
            }
        } else if self.shown.is_none_or(|at| at.elapsed() >= SHOWN_EVERY) {
            self.show();
        }
        self.rearm(tell);
        self.service.alive(Instant::now());
    }

    /// Once for an outage.
    fn act(&mut self, ends: &Receiver<()>, tell: &mut dyn FnMut(&Told)) {
        if self.options.auto.is_none() || self.outage.is_some() || self.acts {
            return;
        }
        if !self.machine.ever_heard() {
            return self.stepped(Outage::left_to_a_person(now_ms(), STARTED_INTO_IT), tell);
        }
        self.spawn(ends, None);
    }

    /// What a monitor before this one has begun.
    fn go_on(&mut self, ends: &Receiver<()>) {
        let begun =
            self.outage.clone().filter(|outage| !matches!(outage.step, Step::StandsIn | Step::Failed));
        if let Some(outage) = begun {
            self.spawn(ends, Some(outage));
        }
    }

    fn spawn(&mut self, ends: &Receiver<()>, begun: Option<Outage>) {
        let (Some(auto), Some(notes)) = (self.options.auto.clone(), self.notes.clone()) else { return };
        let mut acting = Acting {
            auto,
            set: self.options.set.clone(),
            run: self.options.run.clone(),
            state: self.options.state.clone(),
            notes,
            is_red: self.is_red.clone(),
            stops: ends.clone(),
            tell: self.steps.0.clone(),
        };
        let work = move || match begun {
            Some(outage) => acting.resume(outage),
            None => acting.act(),
        };
        match std::thread::Builder::new().name("acting".into()).spawn(work) {
            Ok(_) => self.acts = true,
            Err(error) => log::error!("{}: nothing can be done at red: {error}", self.options.set),
        }
    }

    fn stepped(&mut self, outage: Outage, tell: &mut dyn FnMut(&Told)) {
        self.acts = !matches!(outage.step, Step::StandsIn | Step::Failed);
        self.outage = Some(outage.clone());
        self.show();
        tell(&Told::Outage(outage));
    }

    /// The outage is over when the source has answered for a whole time-out.
    fn rearm(&mut self, tell: &mut dyn FnMut(&Told)) {
        let Some(outage) = self.outage.as_ref().filter(|_| !self.acts) else { return };
        let timeout = self.machine.plan().timeout_ms();
        let is_over = self.green_ms.is_some_and(|since| steady_ms().saturating_sub(since) >= timeout);
        if !is_over {
            return;
        }
        if outage.stands_in() && is_served(&self.options.run, &self.options.set) {
            self.green_ms = Some(steady_ms());
            return;
        }
        if let Some(Err(error)) = self.notes.as_ref().map(Notes::over) {
            log::error!("{}: the end of an outage cannot be noted: {error}", self.options.set);
            self.green_ms = Some(steady_ms());
            return;
        }
        self.outage = None;
        self.show();
        tell(&Told::Over);
    }

    /// The last word of what is done at red, where it has one.
    fn let_end(&mut self) {
        let until = Instant::now() + Duration::from_secs(8);
        // A failover goes on by itself.
        let goes_on = self.outage.as_ref().is_some_and(|outage| outage.step == Step::FailingOver);
        while self.acts && !goes_on {
            match self.steps.1.recv_deadline(until) {
                Ok(outage) => {
                    self.acts = !matches!(outage.step, Step::StandsIn | Step::Failed | Step::FailingOver)
                }
                Err(_) => break,
            }
        }
    }

    fn show(&mut self) -> Shown {
        let shown = self.shown_now();
        if let Err(error) = self.place.show(&shown) {
            log::error!("how the monitor is cannot be shown: {error}");
        }
        self.shown = Some(Instant::now());
        self.service.status(&format!("{} {}", shown.set, shown.health));
        shown
    }

    fn shown_now(&self) -> Shown {
        let (machine, now) = (&self.machine, steady_ms());
        let plan = machine.plan();
        Shown {
            set: self.options.set.clone(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").into(),
            health: machine.health(),
            since_unix_ms: self.since_unix_ms,
            silent_ms: machine.silent_since_ms().map(|since| now.saturating_sub(since)),
            time_to_fail_ms: machine.time_to_fail_ms(),
            timeout_ms: plan.timeout_ms(),
            worst_case_ms: plan.worst_case_ms(),
            need: plan.need,
            probes: self.probed.clone(),
            auto: self.options.auto.is_some(),
            outage: self.outage.clone(),
            at_unix_ms: now_ms(),
            beat_ms: now,
            boot: boot_id().map_or_else(|_| String::new(), |boot| format!("{boot:032x}")),
        }
    }
}

/// One attempt for each that is asked for.
fn start(mut asker: Asker, who: Who, hear: Sender<(Who, Heard)>) -> io::Result<Sender<()>> {
    let (ask, asked) = unbounded::<()>();
    let work = move || {
        for () in asked {
            if hear.send((who, asker.ask())).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new().name("probe".into()).spawn(work)?;
    Ok(ask)
}

/// What everybody on this host may read: no command, which may have a secret in it.
fn name(probe: &Probe, number: usize) -> String {
    match probe {
        Probe::Command(_) => format!("command {number}"),
        other => other.to_string(),
    }
}

fn word(answer: Answer) -> &'static str {
    match answer {
        Answer::There => "there",
        Answer::Silent => "silent",
        Answer::Unknown => "unknown",
    }
}

fn now_ms() -> u64 {
    unix_ms(SystemTime::now())
}
