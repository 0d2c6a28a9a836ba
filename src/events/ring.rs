//! From what is so at each moment to what begins and ends. Pure.
//!
//! ```text
//!         seen            seen again within HOLD           not seen            not seen for HOLD
//!  (none) ────> (suspected) ───────────────────> lasting ──────────> (held) ─────────────────────> ended
//!                                                   ^    seen: count + 1 │
//!                                                   └────────────────────┘
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{About, Code, Event, Kind, Now, Record, Seen, Severity, What};

/// So long something has to be gone before it counts as over: what flickers is one event.
pub const HOLD: Duration = Duration::from_secs(10);
/// Records that are kept: with a text of 1,000 bytes each, half a MiB.
pub const RECORDS_MAX: usize = 512;
/// Events that last at once: more than there are kinds for a hundred connections.
pub const LASTING_MAX: usize = 2048;
/// Records of one page: with texts that JSON makes six times as long still below the longest answer.
pub const PAGE_MAX: usize = 256;

/// See the module.
pub struct Ring {
    run: String,
    number: u64,
    lasting: BTreeMap<(Code, Severity, About), Lasting>,
    /// Seen once: when.
    suspected: BTreeMap<(Code, Severity, About), Now>,
    records: VecDeque<Record>,
}

struct Lasting {
    event: Event,
    /// Since when it is not seen any more.
    gone: Option<Duration>,
}

/// What a ring has beyond a number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// Of the daemon; another one with each start.
    pub run: String,
    /// The number to go on from.
    pub next: u64,
    /// Records in between that are not kept any more.
    pub lost: u64,
    pub records: Vec<Record>,
    /// There are more of them.
    pub more: bool,
    /// What lasts, of any age.
    pub lasting: Vec<Event>,
    /// Of a source, the number of the epoch in which it writes.
    #[serde(default)]
    pub epoch: Option<u32>,
}

impl Ring {
    /// `run`: a word that no other start of a daemon has.
    pub fn new(run: String) -> Ring {
        Ring {
            run,
            number: 0,
            lasting: BTreeMap::new(),
            suspected: BTreeMap::new(),
            records: VecDeque::new(),
        }
    }

    /// Everything that is so now. Returns what begins and ends with that.
    pub fn observe(&mut self, now: Now, seen: Vec<Seen>) -> Vec<Record> {
        let before = self.number;
        let mut these = BTreeMap::new();
        for one in seen.into_iter().filter(|one| one.code.kind() == Kind::State) {
            // Of several with one name the first stands for all.
            these.entry((one.code, one.severity, one.about.clone())).or_insert(one);
        }
        self.suspected.retain(|_, since| now.since_start.saturating_sub(since.since_start) <= HOLD);
        let begun: Vec<Seen> = these.iter().filter_map(|(key, one)| self.lasts(now, key, one)).collect();
        self.end_those_gone(now, |key| these.contains_key(key));
        for one in begun {
            // What is there for one look alone is a step of something else: of a start, mostly.
            let key = (one.code, one.severity, one.about.clone());
            match self.suspected.remove(&key) {
                Some(since) => self.begin(now, since, one),
                None if self.suspected.len() < LASTING_MAX => drop(self.suspected.insert(key, now)),
                None => {}
            }
        }
        self.since(before)
    }

    /// Something that has happened.
    pub fn happened(&mut self, now: Now, seen: Seen) -> Record {
        self.number += 1;
        let record = Record {
            number: self.number,
            what: What::Once,
            event: Event::new(self.number, seen, now.unix_ms),
        };
        self.keep(record.clone());
        record
    }

    /// What came after a number of a run; of another run than this one, everything that is kept.
    pub fn after(&self, run: &str, number: u64) -> Page {
        let number = if run == self.run { number.min(self.number) } else { 0 };
        let oldest = self.records.front().map_or(self.number + 1, |record| record.number);
        let behind = self.records.iter().filter(|record| record.number > number);
        let records: Vec<Record> = behind.take(PAGE_MAX).cloned().collect();
        let next = records.last().map_or(self.number, |record| record.number);
        Page {
            run: self.run.clone(),
            next,
            lost: oldest.saturating_sub(number + 1),
            more: next < self.number,
            records,
            lasting: self.lasting.values().take(PAGE_MAX).map(|lasting| lasting.event.clone()).collect(),
            epoch: None,
        }
    }

    /// Gives it back where it has to begin.
    fn lasts(&mut self, now: Now, key: &(Code, Severity, About), one: &Seen) -> Option<Seen> {
        let Some(lasting) = self.lasting.get_mut(key) else { return Some(one.clone()) };
        lasting.event.count += u64::from(lasting.gone.take().is_some());
        lasting.event.last_unix_ms = now.unix_ms;
        lasting.event.text = super::one_line(&one.text);
        None
    }

    fn begin(&mut self, now: Now, since: Now, seen: Seen) {
        if self.lasting.len() >= LASTING_MAX {
            return;
        }
        self.number += 1;
        let event = Event { last_unix_ms: now.unix_ms, ..Event::new(self.number, seen, since.unix_ms) };
        self.lasting.insert(event.key(), Lasting { event: event.clone(), gone: None });
        self.keep(Record { number: self.number, what: What::Begin, event });
    }

    fn end_those_gone(&mut self, now: Now, is_seen: impl Fn(&(Code, Severity, About)) -> bool) {
        let mut over = Vec::new();
        for (key, lasting) in self.lasting.iter_mut().filter(|(key, _)| !is_seen(key)) {
            let gone = *lasting.gone.get_or_insert(now.since_start);
            if now.since_start.saturating_sub(gone) >= HOLD {
                over.push(key.clone());
            }
        }
        for key in over {
            let Some(Lasting { mut event, .. }) = self.lasting.remove(&key) else { continue };
            event.ended_unix_ms = Some(now.unix_ms);
            self.number += 1;
            self.keep(Record { number: self.number, what: What::End, event });
        }
    }

    fn keep(&mut self, record: Record) {
        if self.records.len() >= RECORDS_MAX {
            self.records.pop_front();
        }
        self.records.push_back(record);
    }

    fn since(&self, number: u64) -> Vec<Record> {
        self.records.iter().filter(|record| record.number > number).cloned().collect()
    }
}
