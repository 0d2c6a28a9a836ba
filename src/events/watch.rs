//! The rings of all daemons of a host: what is told of them, once each. Pure.
//!
//! Its state is small and can be kept on disk: a watch that goes on from there neither repeats nor leaves out what
//! the daemons still have. What lasts with a daemon when that ends is over only if the next run of it does not
//! say the same soon.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ring::{HOLD, PAGE_MAX};
use super::{About, Code, Event, Now, Page, Record, Seen, Severity, What};

/// So long a daemon that was started again has to say once more what lasts: as long as most starts take.
pub const INHERIT: Duration = Duration::from_secs(30);

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watch {
    /// Of the watch's own events.
    number: u64,
    daemons: BTreeMap<String, Daemon>,
    /// Of which only what is left of them may still be there.
    #[serde(default)]
    forgotten: BTreeSet<String>,
    has_heard: bool,
    /// Number of the last drill that was told; `None` before it was looked.
    drills: Option<u64>,
    /// What monitors say that lasts.
    #[serde(default)]
    monitored: Vec<Kept>,
}

/// A drill that has come to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drilled {
    pub number: u64,
    pub set: String,
    pub is_passed: bool,
    /// On one line.
    pub text: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Daemon {
    run: String,
    after: u64,
    /// By their number in that run.
    lasting: BTreeMap<u64, Kept>,
    /// Of runs before.
    inherited: Vec<Kept>,
    /// Until then; by a clock that begins anew with each watch.
    #[serde(skip)]
    inherit_until: Option<Duration>,
    /// Since when it is not there.
    #[serde(skip)]
    absent: Option<Duration>,
    /// It is gone, or mute.
    trouble: Option<Kept>,
    /// Its end was told.
    ended: bool,
    /// In which it wrote last.
    epoch: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    id: String,
    event: Event,
}

/// What came of asking a daemon. One that is not there is not among those that were heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    Page(Page),
    /// It was killed: its socket is all that is left.
    Gone,
    /// Alive, and gave no answer; why.
    Mute(String),
}

/// Something to tell people, once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// The same for the begin and the end of one event, and of no other one.
    #[serde(rename = "event_id")]
    pub id: String,
    pub daemon: String,
    #[serde(flatten)]
    pub record: Record,
}

impl Watch {
    /// Where to go on with a daemon: its run, and the number.
    pub fn place(&self, daemon: &str) -> (String, u64) {
        self.daemons.get(daemon).map(|known| (known.run.clone(), known.after)).unwrap_or_default()
    }

    /// Those that were ever there and not forgotten.
    pub fn known(&self) -> impl Iterator<Item = &str> {
        self.daemons.keys().map(String::as_str)
    }

    /// Until it answers again nothing is told of it: it was killed, and is not to come back.
    pub fn forget(&mut self, daemon: &str) -> bool {
        self.forgotten.insert(daemon.to_owned());
        self.daemons.remove(daemon).is_some()
    }

    /// What all daemons say at one moment.
    pub fn hear(&mut self, now: Now, mut heard: BTreeMap<String, Heard>) -> Vec<Told> {
        let mut told = Vec::new();
        let absent: Vec<String> =
            self.known().filter(|name| !heard.contains_key(*name)).map(str::to_owned).collect();
        for name in absent {
            self.ended(now, &name, &mut told);
        }
        for (name, answer) in std::mem::take(&mut heard) {
            match answer {
                Heard::Page(page) => self.page(now, &name, page, &mut told),
                Heard::Gone if self.forgotten.contains(&name) => {}
                Heard::Gone => {
                    let text =
                        format!("The daemon {name} has ended without a word: it was killed, or crashed.");
                    self.trouble(now, &name, Code::DaemonGone, text, &mut told);
                }
                Heard::Mute(why) => {
                    let text = format!("The daemon {name} gives no answer: {why}.");
                    self.trouble(now, &name, Code::DaemonMute, text, &mut told);
                }
            }
        }
        self.has_heard = true;
        told
    }

    /// The drills of this host, the oldest first. Those from before the watch are not told.
    pub fn drilled(&mut self, now: Now, drills: &[Drilled]) -> Vec<Told> {
        let last = drills.last().map_or(0, |drill| drill.number);
        let known = self.drills.replace(last.max(self.drills.unwrap_or(0))).unwrap_or(last);
        let fresh = drills.iter().filter(|drill| drill.number > known);
        let told = fresh.map(|drill| {
            let severity = if drill.is_passed { Severity::Ok } else { Severity::Critical };
            own(&mut self.number, now, &drill.set, Code::DrillEnded, severity, drill.text.clone())
        });
        told.collect()
    }

    /// All that monitors of this host say now.
    pub fn monitored(&mut self, now: Now, seen: Vec<Seen>) -> Vec<Told> {
        let is = |kept: &Kept, seen: &Seen| kept.event.code == seen.code && kept.event.about == seen.about;
        let (lasting, over): (Vec<Kept>, Vec<Kept>) = std::mem::take(&mut self.monitored)
            .into_iter()
            .partition(|kept| seen.iter().any(|seen| is(kept, seen)));
        let name = |about: &About| about.set.clone().unwrap_or_default();
        let mut told: Vec<Told> = over
            .into_iter()
            .map(|kept| {
                let name = name(&kept.event.about);
                kept.end(now, &name)
            })
            .collect();
        self.monitored = lasting;
        for one in seen {
            if self.monitored.iter().any(|kept| is(kept, &one)) {
                continue;
            }
            let begun = own(&mut self.number, now, &name(&one.about), one.code, one.severity, one.text);
            self.monitored.push(Kept { id: begun.id.clone(), event: begun.record.event.clone() });
            told.push(begun);
        }
        told
    }

    fn page(&mut self, now: Now, name: &str, page: Page, told: &mut Vec<Told>) {
        self.forgotten.remove(name);
        let is_new = !self.daemons.contains_key(name);
        self.over(now, name, told);
        let known = self.daemons.entry(name.to_owned()).or_default();
        (known.ended, known.absent) = (false, None);
        if is_new && !self.has_heard {
            // What was before the watch is not told, but for what lasts.
            known.run.clone_from(&page.run);
        } else {
            if known.run != page.run {
                known.run.clone_from(&page.run);
                known.inherit(now);
            } else if page.lost > 0 {
                let text = format!(
                    "{} events of the daemon {name} were not heard: it keeps the last ones.",
                    page.lost
                );
                told.push(own(&mut self.number, now, name, Code::EventsLost, Severity::Warning, text));
            }
            for record in page.records {
                told.extend(known.record(name, record));
            }
        }
        known.after = page.next;
        if let Some(epoch) = page.epoch {
            let before = known.epoch.replace(epoch);
            // Of one that was not there before, and is not the first that ever wrote the set, somebody took the place.
            let is_other = before.map_or(is_new && self.has_heard && epoch > 1, |before| before != epoch);
            let text = format!("The source {name} writes in epoch {epoch}.");
            let mut tell =
                || own(&mut self.number, now, name, Code::RoleChanged, Severity::Warning, text.clone());
            told.extend(is_other.then(&mut tell));
        }
        if page.lasting.len() < PAGE_MAX {
            told.extend(known.reconcile(now, name, &page.run, page.lasting));
        }
        told.extend(known.disinherit(now, name));
    }

    /// It answers: it is neither gone nor mute.
    fn over(&mut self, now: Now, name: &str, told: &mut Vec<Told>) {
        let Some(kept) = self.daemons.get_mut(name).and_then(|known| known.trouble.take()) else { return };
        told.push(kept.end(now, name));
    }

    fn trouble(&mut self, now: Now, name: &str, code: Code, text: String, told: &mut Vec<Told>) {
        let has = |kept: &Kept| kept.event.code == code;
        if self.daemons.get(name).and_then(|known| known.trouble.as_ref()).is_some_and(has) {
            return;
        }
        self.over(now, name, told);
        let begun = own(&mut self.number, now, name, code, Severity::Critical, text);
        let known = self.daemons.entry(name.to_owned()).or_default();
        (known.ended, known.absent) = (false, None);
        known.trouble = Some(Kept { id: begun.id.clone(), event: begun.record.event.clone() });
        told.push(begun);
    }

    /// It is not there. One that was gone before stays so.
    fn ended(&mut self, now: Now, name: &str, told: &mut Vec<Told>) {
        let Some(known) = self.daemons.get_mut(name) else { return };
        let is_gone = known.trouble.as_ref().is_some_and(|kept| kept.event.code == Code::DaemonGone);
        let absent = *known.absent.get_or_insert(now.since_start);
        if !known.ended && !is_gone && now.since_start.saturating_sub(absent) >= HOLD {
            known.ended = true;
            known.inherit(now);
            let mute = known.trouble.take();
            told.extend(mute.map(|kept| kept.end(now, name)));
            let text = format!("The daemon {name} has ended.");
            told.push(own(&mut self.number, now, name, Code::DaemonEnded, Severity::Warning, text));
        }
        told.extend(known.disinherit(now, name));
    }
}

impl Daemon {
    fn inherit(&mut self, now: Now) {
        self.inherited.extend(std::mem::take(&mut self.lasting).into_values());
        self.inherit_until = Some(now.since_start + INHERIT);
    }

    /// What is not said again in time is over.
    fn disinherit(&mut self, now: Now, name: &str) -> Vec<Told> {
        if self.inherited.is_empty() {
            return Vec::new();
        }
        // A watch that was started again waits anew.
        let until = *self.inherit_until.get_or_insert(now.since_start + INHERIT);
        match now.since_start >= until {
            true => self.inherited.drain(..).map(|kept| kept.end(now, name)).collect(),
            false => Vec::new(),
        }
    }

    fn record(&mut self, name: &str, record: Record) -> Option<Told> {
        match record.what {
            What::Begin => self.begin(name, record),
            What::End => {
                let kept = self.lasting.remove(&record.event.id)?;
                Some(Told { id: kept.id, daemon: name.to_owned(), record })
            }
            What::Once => {
                Some(Told { id: id(name, &self.run, record.event.id), daemon: name.to_owned(), record })
            }
        }
    }

    /// `None`: it went on from the run before, or is known.
    fn begin(&mut self, name: &str, record: Record) -> Option<Told> {
        let number = record.event.id;
        if self.lasting.contains_key(&number) {
            return None;
        }
        let same = |kept: &Kept| kept.event.key() == record.event.key();
        if let Some(at) = self.inherited.iter().position(same) {
            let kept = self.inherited.swap_remove(at);
            self.lasting.insert(number, kept);
            return None;
        }
        let id = id(name, &self.run, number);
        self.lasting.insert(number, Kept { id: id.clone(), event: record.event.clone() });
        Some(Told { id, daemon: name.to_owned(), record })
    }

    /// What lasts is what the daemon says, whatever was heard of it.
    fn reconcile(&mut self, now: Now, name: &str, run: &str, lasting: Vec<Event>) -> Vec<Told> {
        debug_assert_eq!(self.run, run);
        let there: Vec<u64> = lasting.iter().map(|event| event.id).collect();
        let mut told = Vec::new();
        for event in lasting {
            told.extend(self.begin(name, Record { number: event.id, what: What::Begin, event }));
        }
        let over: Vec<u64> = self.lasting.keys().filter(|id| !there.contains(id)).copied().collect();
        told.extend(
            over.into_iter().filter_map(|id| self.lasting.remove(&id)).map(|kept| kept.end(now, name)),
        );
        told
    }
}

impl Kept {
    fn end(self, now: Now, name: &str) -> Told {
        let mut event = self.event;
        event.ended_unix_ms = Some(now.unix_ms);
        Told {
            id: self.id,
            daemon: name.to_owned(),
            record: Record { number: event.id, what: What::End, event },
        }
    }
}

fn id(daemon: &str, run: &str, number: u64) -> String {
    format!("{daemon}/{run}/{number}")
}

/// Of the watch itself.
fn own(number: &mut u64, now: Now, name: &str, code: Code, severity: Severity, text: String) -> Told {
    *number += 1;
    let about = About { set: Some(name.to_owned()), ..About::default() };
    let event = Event::new(*number, Seen { code, severity, about, text }, now.unix_ms);
    let what = if event.ended_unix_ms.is_some() { What::Once } else { What::Begin };
    // No daemon is named so: a name has no slash.
    let id = id(name, &format!("watch/{}", now.unix_ms), *number);
    Told { id, daemon: name.to_owned(), record: Record { number: *number, what, event } }
}
