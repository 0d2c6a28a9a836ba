//! `standin events`: what begins, what ends and what happens, of all daemons of this host.
//!
//! They ask over the control sockets, in processes of their own; hooks are run by `events run` alone, never by a
//! daemon.

mod book;
mod caller;
mod hooks;
mod host;
mod pulse;
mod trial;

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::json;

use self::host::Host;
use super::args::Common;
use super::{Outcome, output};
use crate::control::unix_ms;
use crate::events::{Event, Heard, Told, What};
use crate::failure::Failure;
use crate::sys::utc_offset;
use crate::units::parse_duration;
use crate::words::shown;

#[derive(Debug, Args)]
pub struct Events {
    #[command(subcommand)]
    pub command: EventsCommand,
}

#[derive(Debug, Subcommand)]
pub enum EventsCommand {
    /// What daemons keep: the last events since each was started, and what lasts
    List {
        /// Only what lasted or happened within this time, as in 1h
        #[arg(long, value_name = "T", value_parser = parse_duration)]
        since: Option<Duration>,
        /// Only of this replication set, or daemon
        #[arg(long, value_name = "NAME")]
        set: Option<String>,
    },
    /// Each event as it begins and ends, until interrupted
    Follow {
        /// Only of this replication set, or daemon
        #[arg(long, value_name = "NAME")]
        set: Option<String>,
    },
    /// Call hooks for events, and one as long as all is well, until interrupted
    Run(hooks::Run),
    /// Send an event to the hook of `standin events run`, and say what came of it
    Test {
        /// How long to wait for it, as in 30s
        #[arg(long, value_name = "T", value_parser = parse_duration, default_value = "1m")]
        timeout: Duration,
    },
}

/// How often daemons are asked.
const ASK_EVERY: Duration = Duration::from_secs(1);

pub(super) fn run(common: &Common, args: &Events) -> Outcome {
    match &args.command {
        EventsCommand::List { since, set } => list(common, *since, set.as_deref()),
        EventsCommand::Follow { set } => follow(common, set.as_deref()),
        EventsCommand::Run(args) => hooks::run(common, args),
        EventsCommand::Test { timeout } => trial::test(common, *timeout),
    }
}

/// An event of one of the daemons.
#[derive(Serialize)]
pub(super) struct Listed {
    daemon: String,
    #[serde(flatten)]
    event: Event,
}

/// Events of all daemons of this host, the oldest first.
///
/// Errors: the run directory cannot be read, or not every daemon is this user's to ask.
pub(super) fn listed(common: &Common) -> Result<Vec<Listed>, Failure> {
    let mut host = Host::new(common);
    let heard = host.ask()?;
    let mut all = BTreeMap::new();
    for (name, heard) in &heard {
        let Heard::Page(page) = heard else { continue };
        // What came later of an event stands for it.
        let events = page.records.iter().map(|record| &record.event).chain(&page.lasting);
        all.extend(events.map(|event| ((name.clone(), page.run.clone(), event.id), event.clone())));
    }
    let mut listed: Vec<Listed> =
        all.into_iter().map(|((daemon, ..), event)| Listed { daemon, event }).collect();
    // Those that give no answer.
    let own = host.hear(heard).into_iter().filter(|told| told.record.event.code.is_of_the_watch());
    listed.extend(own.map(|told| Listed { daemon: told.daemon, event: told.record.event }));
    listed.sort_by_key(|one| one.event.first_unix_ms);
    Ok(listed)
}

fn list(common: &Common, since: Option<Duration>, set: Option<&str>) -> Outcome {
    let mut listed = listed(common)?;
    let from = since.map_or(0, |since| unix_ms(SystemTime::now()).saturating_sub(since.as_millis() as u64));
    listed.retain(|one| {
        let is_recent = one.event.ended_unix_ms.unwrap_or(u64::MAX) >= from;
        is_recent && is_of(set, &one.daemon, &one.event)
    });
    if common.json {
        output::json(&json!({ "events": listed }));
    } else if listed.is_empty() {
        output::text("No events.");
    } else {
        output::text(
            &listed
                .iter()
                .map(|one| line(&one.daemon, &one.event, &state_of(&one.event)) + "\n")
                .collect::<String>(),
        );
    }
    Ok(0)
}

fn follow(common: &Common, set: Option<&str>) -> Outcome {
    let mut host = Host::new(common);
    while output::has_reader() {
        let heard = host.ask()?;
        let told = host.hear(heard);
        for one in told.iter().filter(|one| is_of(set, &one.daemon, &one.record.event)) {
            show(common, one);
        }
        std::thread::sleep(ASK_EVERY);
    }
    Ok(0)
}

fn is_of(set: Option<&str>, daemon: &str, event: &Event) -> bool {
    set.is_none_or(|set| daemon == set || event.about.set.as_deref() == Some(set))
}

fn show(common: &Common, told: &Told) {
    if common.json {
        output::json(told);
    } else {
        let event = &told.record.event;
        let word = match told.record.what {
            What::Begin => String::new(),
            What::End => format!("over after {}: ", lasted(event)),
            What::Once => String::new(),
        };
        output::text(&line(&told.daemon, event, &word));
    }
}

/// One line; `state` stands before the text.
fn line(daemon: &str, event: &Event, state: &str) -> String {
    let at = event.ended_unix_ms.unwrap_or(event.first_unix_ms);
    let at = if state.starts_with("over") { at } else { event.first_unix_ms };
    format!(
        "{}  {:<8}  {daemon}  {}  {state}{}",
        second(at),
        event.severity.word(),
        event.code.word(),
        event.text
    )
}

fn state_of(event: &Event) -> String {
    let times = if event.count > 1 { format!("{} times, ", event.count) } else { String::new() };
    match event.ended_unix_ms {
        None => format!("{times}lasts: "),
        Some(ended) if ended > event.first_unix_ms => format!("{times}lasted {}: ", lasted(event)),
        Some(_) => String::new(),
    }
}

fn lasted(event: &Event) -> String {
    let ms = event.ended_unix_ms.unwrap_or(event.last_unix_ms).saturating_sub(event.first_unix_ms);
    crate::units::duration(Duration::from_secs(ms.div_ceil(1000)))
}

/// In local time.
pub(super) fn second(unix_ms: u64) -> String {
    let seconds = (unix_ms / 1000) as i64;
    format!("{}:{:02}", shown(seconds, &utc_offset), seconds.rem_euclid(60))
}
