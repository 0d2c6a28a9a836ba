//! Which hook calls are due: one after the other, throttled, tried again, summed up when there are too many. Pure.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{About, Code, Event, Record, Seen, Severity, Told, What};

/// Calls that are counted together.
const WINDOW: Duration = Duration::from_secs(60);
/// As soon as so many wait for their turn, they are one call.
const SUMMED_FROM: usize = 3;
/// Kinds of events that a sum names.
const SUMMED_MAX: usize = 100;
/// So many may wait at most, whatever the pace: what comes beyond them is summed up at once.
const WAITING_MAX: usize = 1000;

/// How often, and how often again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Calls in a minute, at most.
    pub a_minute: u32,
    /// What is waited before each further attempt; after the last of them a call is given up.
    pub again: Vec<Duration>,
}

/// One call of the hook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    #[serde(flatten)]
    pub told: Told,
    /// What it stands for, where it stands for many.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub summed: Vec<Summed>,
    #[serde(default)]
    pub attempts: u32,
}

/// Several of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summed {
    pub daemon: String,
    pub what: What,
    pub code: Code,
    pub severity: Severity,
    pub count: u64,
    /// Of the last of them.
    pub text: String,
}

/// See the module. What waits can be kept on disk.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Calls {
    waiting: VecDeque<Call>,
    /// The first of those is being made, or the trial.
    #[serde(skip)]
    under_way: bool,
    /// Since when.
    #[serde(skip)]
    begun: Duration,
    /// What a person tries the hook with: it waits for nothing, and one that succeeds says that the hook is well.
    #[serde(skip)]
    trial: Option<Call>,
    #[serde(skip)]
    is_trying: bool,
    #[serde(skip)]
    recent: VecDeque<Duration>,
    #[serde(skip)]
    not_before: Duration,
    /// The last call that was made to its end was given up.
    failing: bool,
}

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// It is tried again after this.
    Again(Duration),
    GivenUp,
}

impl Calls {
    pub fn add(&mut self, told: Told) {
        self.waiting.push_back(Call { told, summed: Vec::new(), attempts: 0 });
        if self.waiting.len() > WAITING_MAX {
            self.sum_up();
        }
    }

    pub fn try_out(&mut self, told: Told) {
        self.trial = Some(Call { told, summed: Vec::new(), attempts: 0 });
    }

    /// The hook does not do what it is for: the last call was given up, one is to be tried again, or one has not come to its
    /// end for `longest`.
    pub fn is_failing(&self, now: Duration, longest: Duration) -> bool {
        let hangs = self.under_way && now.saturating_sub(self.begun) > longest;
        self.failing || hangs || self.waiting.front().is_some_and(|call| call.attempts > 0)
    }

    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The call that is to be made now, if one is. It stays among those that wait until it [`Calls::ended`].
    pub fn due(&mut self, now: Duration, pace: &Pace) -> Option<Call> {
        if let Some(trial) = self.trial_due(now) {
            return Some(trial);
        }
        if self.under_way || self.waiting.is_empty() || now < self.not_before {
            return None;
        }
        while self.recent.front().is_some_and(|at| now.saturating_sub(*at) >= WINDOW) {
            self.recent.pop_front();
        }
        // The last one of a minute is for all that wait.
        match (pace.a_minute as usize).saturating_sub(self.recent.len()) {
            0 => return None,
            1 if self.waiting.len() >= SUMMED_FROM => self.sum_up(),
            _ => {}
        }
        (self.under_way, self.begun) = (true, now);
        self.recent.push_back(now);
        self.waiting.front().cloned()
    }

    /// Only what a person tries the hook with.
    pub fn trial_due(&mut self, now: Duration) -> Option<Call> {
        if self.under_way || self.trial.is_none() {
            return None;
        }
        (self.under_way, self.is_trying, self.begun) = (true, true, now);
        self.trial.take()
    }

    /// The call under way has come to its end.
    pub fn ended(&mut self, now: Duration, is_done: bool, pace: &Pace) -> Outcome {
        self.under_way = false;
        if std::mem::take(&mut self.is_trying) {
            if is_done {
                // It was mended: what was to be tried again is tried now.
                self.failing = false;
                self.not_before = now;
            }
            return if is_done { Outcome::Done } else { Outcome::GivenUp };
        }
        let Some(call) = self.waiting.front_mut() else { return Outcome::Done };
        call.attempts += 1;
        if is_done {
            self.waiting.pop_front();
            self.failing = false;
            return Outcome::Done;
        }
        match pace.again.get(call.attempts as usize - 1) {
            Some(wait) => {
                self.not_before = now + *wait;
                Outcome::Again(*wait)
            }
            None => {
                self.waiting.pop_front();
                self.failing = true;
                Outcome::GivenUp
            }
        }
    }

    /// All that wait but for one that has been tried become one.
    fn sum_up(&mut self) {
        let tried = usize::from(
            self.under_way && !self.is_trying || self.waiting.front().is_some_and(|call| call.attempts > 0),
        );
        let many: Vec<Call> = self.waiting.drain(tried..).collect();
        self.waiting.extend(sum(&many));
    }
}

fn sum(calls: &[Call]) -> Option<Call> {
    let (first, last) = (calls.first()?, calls.last()?);
    let mut kinds: BTreeMap<(String, &str, Code), Summed> = BTreeMap::new();
    for one in calls.iter().flat_map(parts) {
        let key = (one.daemon.clone(), one.what.word(), one.code);
        if let Some(kind) = kinds.get_mut(&key) {
            kind.count += one.count;
            kind.severity = kind.severity.max(one.severity);
            kind.text = one.text;
        } else if kinds.len() < SUMMED_MAX {
            kinds.insert(key, one);
        }
    }
    let count: u64 = calls.iter().flat_map(parts).map(|one| one.count).sum();
    let severity = calls.iter().map(|call| call.told.record.event.severity).max()?;
    let summed: Vec<Summed> = kinds.into_values().collect();
    let words = summed.iter().map(|one| format!("{} {} × {}", one.daemon, one.code.word(), one.count));
    let text = format!("{count} events in one call: {}", words.collect::<Vec<_>>().join(", "));
    let seen = Seen { code: Code::EventsSummed, severity, about: About::default(), text };
    let mut event = Event::new(last.told.record.number, seen, last.told.record.event.last_unix_ms);
    event.first_unix_ms = first.told.record.event.first_unix_ms;
    event.count = count;
    let record = Record { number: last.told.record.number, what: What::Once, event };
    let told = Told { id: format!("sum/{}", last.told.id), daemon: String::new(), record };
    Some(Call { told, summed, attempts: 0 })
}

fn parts(call: &Call) -> Vec<Summed> {
    if !call.summed.is_empty() {
        return call.summed.clone();
    }
    let Told { daemon, record, .. } = &call.told;
    let Event { code, severity, text, .. } = record.event.clone();
    vec![Summed { daemon: daemon.clone(), what: record.what, code, severity, count: 1, text }]
}
