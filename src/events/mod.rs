//! Events: what begins, what ends and what happens on a host, in stable words.
//!
//! ```text
//!  status, each second ──> Ring (in the daemon) ──control socket──> Watch (of a command) ──> Calls ──> a hook
//! ```
//! - [`Code`]: every kind of event, in one table
//! - [`Ring`]: from what is so at each moment to what begins and ends; keeps the last ones, in memory: a daemon
//!   that was started again has a ring of its own ([`Page::run`])
//! - [`Watch`]: the rings of all daemons of a host, those that come and go among them
//! - [`Calls`]: which hooks are to be called when: throttled, tried again, summed up
//! - [`Journal`]: events for systemd's journal, with fields
//! - [`History`]: the last day of each connection
//!
//! All but the journal is pure: no I/O, no clock, no lock.

mod calls;
mod history;
mod journal;
mod ring;
mod table;
#[cfg(test)]
mod tests;
mod watch;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use calls::{Call, Calls, Outcome, Pace};
pub use history::{History, MINUTES, Measured, SECONDS, Sample, Series};
pub use journal::Journal;
pub use ring::{Page, Ring};
pub use table::{Code, Kind};
pub use watch::{Drilled, Heard, Told, Watch};

/// How bad it is; ordered. As numbers, the exit codes of `status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    Ok,
    Warning,
    Critical,
}

impl Severity {
    pub fn exit_code(self) -> u8 {
        match self {
            Severity::Ok => 0,
            Severity::Warning => 1,
            Severity::Critical => 2,
        }
    }

    pub fn word(self) -> &'static str {
        match self {
            Severity::Ok => "ok",
            Severity::Warning => "warning",
            Severity::Critical => "critical",
        }
    }
}

/// What of a daemon an event is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct About {
    /// Name of the replication set; `None`: the daemon as a whole.
    pub set: Option<String>,
    /// UUID of the connection.
    pub connection: Option<String>,
    /// Where that leads.
    pub target: Option<String>,
}

/// Something that is so now, or has happened now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub code: Code,
    pub severity: Severity,
    pub about: About,
    pub text: String,
}

/// A moment: by a clock that only goes forward, and by the one on the wall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    pub since_start: Duration,
    pub unix_ms: u64,
}

/// An event, as far as it has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Of one run of one daemon.
    pub id: u64,
    pub code: Code,
    pub severity: Severity,
    #[serde(flatten)]
    pub about: About,
    /// One line.
    pub text: String,
    /// What to do.
    pub next: String,
    pub first_unix_ms: u64,
    /// When it was so last.
    pub last_unix_ms: u64,
    /// How often it has come, with short breaks.
    pub count: u64,
    /// Since then it is over; a moment is over at once.
    pub ended_unix_ms: Option<u64>,
}

/// What is told of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    Begin,
    End,
    /// It has happened: a moment.
    Once,
}

impl What {
    pub fn word(self) -> &'static str {
        match self {
            What::Begin => "begin",
            What::End => "end",
            What::Once => "once",
        }
    }
}

/// One thing to tell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Counted from the start of the daemon.
    pub number: u64,
    pub what: What,
    #[serde(flatten)]
    pub event: Event,
}

impl Event {
    fn new(id: u64, seen: Seen, unix_ms: u64) -> Event {
        let Seen { code, severity, about, text } = seen;
        let over = code.kind() == Kind::Moment;
        Event {
            id,
            code,
            severity,
            about,
            text: one_line(&text),
            next: code.next().to_owned(),
            first_unix_ms: unix_ms,
            last_unix_ms: unix_ms,
            count: 1,
            ended_unix_ms: over.then_some(unix_ms),
        }
    }

    /// What makes two the same.
    pub fn key(&self) -> (Code, Severity, About) {
        (self.code, self.severity, self.about.clone())
    }
}

/// Something that is told and belongs to no daemon.
pub fn once(id: String, now: Now, seen: Seen) -> Told {
    let event = Event::new(0, seen, now.unix_ms);
    Told { id, daemon: String::new(), record: Record { number: 0, what: What::Once, event } }
}

/// Longest text of an event, bytes: a line that people read.
const TEXT_MAX: usize = 1000;

/// Of one line, for a mail's head and for a journal.
fn one_line(text: &str) -> String {
    let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match plain.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= TEXT_MAX).last() {
        Some(end) if end < plain.len() => format!("{} ...", &plain[..end]),
        _ => plain,
    }
}
