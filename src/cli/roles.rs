//! `standin roles`: who writes the sets of this host, since when, in whose place; and which of two is kept.

use std::fmt::Write as _;
use std::time::Duration;

use clap::{Args, CommandFactory, Subcommand};
use serde::Serialize;

use super::args::{Cli, Common};
use super::{Outcome, config, output};
use crate::cover::Cover;
use crate::failure::Failure;
use crate::packet::{Epoch, History, How, Raised};
use crate::source_side::{self, HostRole, WhoWrites, who_writes_here};
use crate::words::shown;

/// Exit code where a person has to decide.
const SPLIT: u8 = 2;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Roles {
    /// Name of a replication set [default: all of this host]
    set: Option<String>,
    #[command(subcommand)]
    command: Option<RolesCommand>,
}

#[derive(Debug, Subcommand)]
enum RolesCommand {
    /// Keep what this host has written, of two that have stood in: raises its epoch above the other one's. What the
    /// other one has written is overwritten when it is stopped
    Keep {
        /// Name of the replication set
        set: String,
        /// Ask nobody
        #[arg(long)]
        yes: bool,
        /// Also data that are no consistent state, because a copy was cut off
        #[arg(long)]
        accept_bad_data: bool,
        /// Also where another host has been kept already, and this one was stood in for: what is written there is
        /// overwritten then
        #[arg(long)]
        force: bool,
    },
}

#[derive(Serialize)]
struct Shown {
    name: String,
    set: String,
    /// `source`, `stand_in` or `target`.
    role: &'static str,
    epoch: ShownEpoch,
    /// The oldest first; of the first epoch nothing is said.
    history: Vec<ShownRaised>,
    /// The epoch in which it is written elsewhere.
    stood_in_for: Option<ShownEpoch>,
    told_by: Option<String>,
    /// What stands over its directory since it was handed over, in words.
    cover: Option<String>,
    split_brain: Option<ShownOther>,
}

#[derive(Serialize)]
struct ShownOther {
    /// Where the other one was met: a target, or the source that came.
    met: String,
    since_unix_ms: u64,
    history: Vec<ShownRaised>,
    /// The epochs that only this host's history has, and those of the other one.
    only_here: Vec<ShownEpoch>,
    only_there: Vec<ShownEpoch>,
}

#[derive(Serialize)]
struct ShownEpoch {
    number: u32,
    writer: String,
}

#[derive(Serialize)]
struct ShownRaised {
    #[serde(flatten)]
    epoch: ShownEpoch,
    /// `null` where nobody has said.
    since_unix_ms: Option<u64>,
    /// The last change of the history before that was there; `null` where nobody has said, or all of it was written
    /// here.
    after: Option<String>,
    after_packet: Option<u64>,
    /// A person has kept another one.
    overruled: bool,
}

pub(super) fn run(common: &Common, args: &Roles) -> Outcome {
    if args.command.is_some() {
        crate::preflight::check_root_user(rustix::process::geteuid().as_raw())?;
    }
    match &args.command {
        Some(RolesCommand::Keep { set, yes, accept_bad_data, force }) => {
            let meant = meant(common, Some(set))?;
            if !force {
                refuse_overruled(&meant)?;
            }
            keep(common, (set, &meant), *yes, *accept_bad_data)
        }
        None => show(common, args.set.as_deref()),
    }
}

fn show(common: &Common, set: Option<&str>) -> Outcome {
    let meant = meant(common, set)?;
    let is_split = meant.iter().any(|one| one.other.is_some());
    match common.json {
        true => {
            let sets: Vec<Shown> = meant.iter().map(Shown::of).collect();
            output::json(&serde_json::json!({ "sets": sets }));
        }
        false if meant.is_empty() => output::text("No set is known on this host."),
        false => output::text(&meant.iter().map(text).collect::<Vec<_>>().join("\n")),
    }
    Ok(if is_split { SPLIT } else { 0 })
}

fn meant(common: &Common, set: Option<&str>) -> Result<Vec<WhoWrites>, Failure> {
    let state = common.state_dir();
    let mut all = who_writes_here(&state).map_err(|error| {
        Failure::new(
            format!("What is known of the sets in {} cannot be read: {error}.", state.display()),
            "Nothing was changed.",
            "Run it as root, and name the state directory of the daemons (--state).",
        )
    })?;
    let Some(set) = set else { return Ok(all) };
    all.retain(|one| one.name == set);
    if all.is_empty() {
        return Err(Failure::new(
            format!("Nothing is known of a set '{set}' in {}.", state.display()),
            "Nothing was changed.",
            "`standin roles` shows the sets of this host.",
        ));
    }
    Ok(all)
}

/// What it has is to be overwritten: a person has said so, on another host.
fn refuse_overruled(meant: &[WhoWrites]) -> Result<(), Failure> {
    let overruled = meant.iter().find_map(|one| Some((one, one.stood_in_for.as_ref()?)));
    let Some((one, (epoch, told_by))) = overruled.filter(|(one, _)| one.tree.is_some()) else {
        return Ok(());
    };
    Err(Failure::new(
        format!(
            "'{}' is not to be kept here: it is written in epoch {} now, above this host's {}, says {told_by}.",
            one.name, epoch.number, one.epoch.number
        ),
        "Nothing was raised, and nothing is overwritten.",
        "Save what only this host has, and let the other one bring it into line. To overrule that host instead, and \
         overwrite what it has written since: --force.",
    ))
}

fn keep(common: &Common, (set, meant): (&str, &[WhoWrites]), yes: bool, accept_bad_data: bool) -> Outcome {
    let Some((one, tree)) = meant.iter().find_map(|one| Some((one, one.tree.as_ref()?))) else {
        return Err(Failure::new(
            format!("This host does not stand in for the source of '{set}': it has a replica."),
            "Nothing was raised, and nothing is overwritten.",
            "Give the command on the host whose data are to stay.",
        ));
    };
    if !common.json {
        output::text(&text(one));
    }
    super::failover::confirm_of(
        common,
        yes,
        "What the other one has written is overwritten when it is stopped: save it first. Type yes to keep what this \
         host has: ",
    )?;
    let mut typed =
        vec!["standin".into(), "protect".into(), tree.clone().into_os_string(), "--name".into(), set.into()];
    if accept_bad_data {
        typed.extend(["--stand-in".into(), "--accept-bad-data".into()]);
    }
    let matches = Cli::command().try_get_matches_from(typed);
    let mut matches = matches
        .map_err(|error| Failure::new(error.to_string(), "Nothing was raised.", "Name another set."))?;
    let (_, typed) = matches.remove_subcommand().expect("it was `protect` that was typed");
    let kept = source_side::keep(&config::protect(common, &typed)?)?;
    let over = kept.over.history.last().unwrap_or_default();
    match common.json {
        true => output::json(&serde_json::json!({
            "name": set,
            "kept": true,
            "epoch": ShownEpoch::of(kept.epoch),
            "over": ShownEpoch::of(over),
            "met": kept.over.met,
        })),
        false => output::text(&format!(
            "Kept: '{set}' goes on here in epoch {}, above epoch {} of {}.\n\
             Start it again here, with the other host as a target (--to): the other one turns read-only when it hears of \
             it, and is overwritten when it is stopped there (standin stop). Save before what only it has.",
            kept.epoch.number,
            over.writing(),
            kept.over.met
        )),
    }
    Ok(0)
}

impl Shown {
    fn of(one: &WhoWrites) -> Shown {
        let (stood_in_for, told_by) = one.stood_in_for.clone().unzip();
        Shown {
            name: one.name.clone(),
            set: one.set.to_string(),
            role: role(one.role),
            epoch: ShownEpoch::of(one.epoch),
            history: history(&one.history),
            stood_in_for: stood_in_for.map(ShownEpoch::of),
            told_by,
            cover: one.cover.as_ref().map(Cover::words),
            split_brain: one.other.as_ref().map(|other| {
                let (here, there) = one.history.parted(&other.history);
                let epochs = |raised: Vec<Raised>| {
                    raised.into_iter().map(|raised| ShownEpoch::of(raised.epoch)).collect()
                };
                ShownOther {
                    met: other.met.clone(),
                    since_unix_ms: other.since_unix_ms,
                    history: history(&other.history),
                    only_here: epochs(here),
                    only_there: epochs(there),
                }
            }),
        }
    }
}

impl ShownEpoch {
    fn of(epoch: Epoch) -> ShownEpoch {
        ShownEpoch { number: epoch.number, writer: format!("{:016x}", epoch.writer) }
    }
}

fn history(history: &History) -> Vec<ShownRaised> {
    let raised = history.raised().iter().map(|raised| {
        let is_known = raised.since_ms > 0;
        let has_place = is_known && raised.after.sequence.0 < u64::MAX;
        ShownRaised {
            epoch: ShownEpoch::of(raised.epoch),
            since_unix_ms: is_known.then_some(raised.since_ms),
            after: has_place.then(|| raised.after.to_string()),
            after_packet: has_place.then_some(raised.after.sequence.0),
            overruled: raised.how == How::Overruled,
        }
    });
    raised.collect()
}

fn role(role: HostRole) -> &'static str {
    match role {
        HostRole::Source => "source",
        HostRole::StandIn => "stand_in",
        HostRole::Target => "target",
    }
}

/// For people.
fn text(one: &WhoWrites) -> String {
    let what = match one.role {
        HostRole::Source => "written here",
        HostRole::StandIn => "served here in its source's place",
        HostRole::Target => "a replica",
    };
    let mut text = format!("{}: {what}, in epoch {}\n", one.name, one.epoch.writing());
    lines(&mut text, "  ", &one.history);
    if let Some((epoch, told_by)) = &one.stood_in_for {
        let _ = writeln!(text, "  STOOD IN FOR: written in epoch {} now, says {told_by}", epoch.number);
    }
    if let Some(cover) = &one.cover {
        let _ = writeln!(text, "  {}", cover.words());
    }
    if let Some(other) = &one.other {
        let (here, there) = one.history.parted(&other.history);
        let writing = |raised: &[Raised]| {
            raised.iter().map(|raised| raised.epoch.writing()).collect::<Vec<_>>().join(", ")
        };
        let _ = writeln!(
            text,
            "  SPLIT BRAIN with {}, known since {}; neither overwrites the other\n  only here:  epoch {}\n  only there: \
             epoch {}\n  the other one's history:",
            other.met,
            moment(other.since_unix_ms),
            writing(&here),
            writing(&there)
        );
        lines(&mut text, "    ", &other.history);
        let _ =
            writeln!(text, "  Name the one to keep, on its host, stopped: standin roles keep {}", one.name);
    }
    text
}

fn lines(text: &mut String, indent: &str, history: &History) {
    for raised in history.raised() {
        let since = match raised.since_ms {
            0 => "since when is not known".to_owned(),
            since => format!("since {}, after {}", moment(since), after(raised)),
        };
        let over = if raised.how == How::Overruled { ", OVERRULED" } else { "" };
        let _ = writeln!(text, "{indent}epoch {}: {since}{over}", raised.epoch.writing());
    }
}

fn after(raised: &Raised) -> String {
    match raised.after.sequence.0 {
        u64::MAX => format!("all that was written here in epoch {}", raised.after.epoch.number),
        _ => format!("change {}", raised.after),
    }
}

fn moment(unix_ms: u64) -> String {
    let seconds = Duration::from_millis(unix_ms).as_secs();
    shown(seconds as i64, &crate::sys::utc_offset)
}
