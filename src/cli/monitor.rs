//! `standin monitor`: watches the source of a replica of this host, calls for a person, or has the failover done.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use clap::{ArgMatches, Args};
use crossbeam_channel::bounded;
use serde_json::{Value, json};

use super::args::Common;
use super::events::second;
use super::{CANNOT, Outcome, config, output};
use crate::control::{Answer, daemons};
use crate::failure::Failure;
use crate::monitor::acting;
use crate::monitor::driver::{Told, Watching};
use crate::monitor::machine::Health;
use crate::monitor::plan::Need;
use crate::monitor::probe::Probe;
use crate::monitor::shown::{self, Monitored, Place, Shown};
use crate::monitor::{Auto, Options};
use crate::signals::stop_signals;
use crate::units::{self, parse_duration};
use crate::words::{Target, is_set_name};

mod watched;

use watched::Watched;

const UNTOUCHED: &str = "Nothing is watched, and nothing was changed.";
const INTERVAL_MIN: Duration = Duration::from_millis(100);
const INTERVAL_MAX: Duration = Duration::from_secs(3600);

#[derive(Debug, Args)]
pub struct Monitor {
    /// Name of a replication set of which this host has the replica
    set: String,
    /// Say how the monitor of this set is, and whether there is one
    #[arg(long)]
    status: bool,
    /// How to look at the source: link (what the target daemon here hears of it), tcp:HOST:PORT, command:COMMAND (run by a
    /// shell, 0: it is there); may be repeated [default: link]
    #[arg(long, value_name = "PROBE")]
    probe: Vec<Probe>,
    /// How many of the probes have to be silent: all, or one
    #[arg(long, value_enum, value_name = "NEED", default_value_t = Need::All)]
    need: Need,
    /// How often each looks
    #[arg(long, value_name = "T", value_parser = parse_duration, default_value = "3s")]
    interval: Duration,
    /// So many intervals without an answer are red
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(2..=1000))]
    misses: u32,
    /// How to look at the own network, as tcp:GATEWAY:PORT or command:COMMAND: while none of these answers nothing is
    /// concluded; may be repeated
    #[arg(id = "self", long = "self", value_name = "PROBE")]
    own: Vec<Probe>,
    /// At red have the failover done, once, as `standin failover` does it; needs --fence and --at
    #[arg(long)]
    auto: bool,
    /// With --auto: run by a shell before the failover; cuts the source off for good. Where it fails there is no failover
    #[arg(long, value_name = "COMMAND")]
    fence: Option<String>,
    /// With --auto: where programs get the data, as for `standin failover`
    #[arg(long, value_name = "PATH")]
    at: Option<PathBuf>,
    /// With --auto: what is written from then on is replicated there, as for `standin failover`
    #[arg(long, value_name = "TARGET")]
    to: Vec<Target>,
    /// With --auto: as for `standin failover`
    #[arg(long, value_name = "COMMAND")]
    pre: Option<String>,
    /// With --auto: as for `standin failover`
    #[arg(long, value_name = "COMMAND")]
    post: Option<String>,
    /// With --auto: each of the commands is killed after this time
    #[arg(long, value_name = "T", value_parser = parse_duration, default_value = "1m")]
    timeout: Duration,
    /// Say what would be watched and done, and do the dry run of the failover; watch nothing
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn run(common: &Common, args: &Monitor, typed: &ArgMatches) -> Outcome {
    if !is_set_name(&args.set) {
        let what = format!("'{}' is no name of a replication set.", args.set);
        return Err(Failure::new(what, UNTOUCHED, "`standin status` shows what a target daemon has."));
    }
    if args.status {
        return status(common, &args.set);
    }
    let options = config::monitor(common, typed, &args.set)?;
    if args.dry_run {
        return dry_run(common, &options);
    }
    watch(common, options)
}

/// Of what was typed and of the file.
///
/// Errors: what cannot be meant.
pub(super) fn options(common: &Common, args: Monitor) -> Result<Options, Failure> {
    let refuse = |what: String, next: &str| Err(Failure::new(what, UNTOUCHED, next));
    if !(INTERVAL_MIN..=INTERVAL_MAX).contains(&args.interval) {
        return refuse(
            format!("--interval {} is not between 100ms and 1h.", units::duration(args.interval)),
            "The default is 3s.",
        );
    }
    if args.own.contains(&Probe::Link) {
        return refuse(
            "--self link says nothing of the own network.".into(),
            "Name something near: --self tcp:GATEWAY:PORT, or a command.",
        );
    }
    let auto = if args.auto { Some(auto(common, &args)?) } else { not_auto(&args)? };
    let probes = if args.probe.is_empty() { vec![Probe::Link] } else { args.probe };
    Ok(Options {
        set: args.set,
        run: common.run_dir(),
        asked: common.asked_dir(),
        state: common.state_dir(),
        probes,
        own: args.own,
        need: args.need,
        interval: args.interval,
        misses: args.misses,
        auto,
    })
}

/// Errors: an option is there that means nothing without --auto.
fn not_auto(args: &Monitor) -> Result<Option<Auto>, Failure> {
    let of_auto = [
        ("--fence", args.fence.is_some()),
        ("--at", args.at.is_some()),
        ("--to", !args.to.is_empty()),
        ("--pre", args.pre.is_some()),
        ("--post", args.post.is_some()),
    ];
    match of_auto.iter().find(|(_, is_there)| *is_there) {
        None => Ok(None),
        Some((option, _)) => Err(Failure::new(
            format!("{option} is of a monitor that fails over by itself."),
            UNTOUCHED,
            "Say --auto, or leave it out.",
        )),
    }
}

fn auto(common: &Common, args: &Monitor) -> Result<Auto, Failure> {
    crate::preflight::check_root_user(rustix::process::geteuid().as_raw())?;
    let refuse = |what: &str, next: &str| Err(Failure::new(what, UNTOUCHED, next));
    let Some(fence) = args.fence.clone().filter(|fence| !fence.trim().is_empty()) else {
        return refuse(
            "--auto needs a command that cuts the source off: two hosts could write one set. There is no witness in this \
             version that could take its place.",
            "Say --fence COMMAND, which ends with 0 only when the source can write no more; or leave --auto out, and a \
             person decides.",
        );
    };
    let Some(at) = &args.at else {
        return refuse(
            "--auto needs the place where programs get the data.",
            "Name a directory of this host: --at /srv/web. An empty one will do.",
        );
    };
    let mut failover: Vec<OsString> = vec!["--run".into(), common.run_dir().into()];
    failover.extend(["--state".into(), common.state_dir().into()]);
    failover.extend(["failover".into(), args.set.clone().into()]);
    failover.extend(["--at".into(), at.into(), "--name".into(), args.set.clone().into()]);
    failover.extend(args.to.iter().flat_map(|target| ["--to".into(), target.to_string().into()]));
    for (option, command) in [("--pre", &args.pre), ("--post", &args.post)] {
        failover.extend(command.iter().flat_map(|command| [option.into(), command.clone().into()]));
    }
    failover.extend(["--timeout".into(), format!("{}ms", args.timeout.as_millis()).into()]);
    Ok(Auto { fence, timeout: args.timeout, failover })
}

fn dry_run(common: &Common, options: &Options) -> Outcome {
    let watched = Watched::of(options);
    if !common.json {
        output::text(&watched.text());
    }
    let failed = |error: io::Error| {
        Failure::new(format!("The failover's dry run cannot be run: {error}."), UNTOUCHED, "")
    };
    let (ends, found) = match &options.auto {
        None => (0, Value::Null),
        Some(auto) if common.json => {
            let look = acting::command(auto, &["--dry-run", "--json"]).stderr(Stdio::inherit()).output();
            let look = look.map_err(failed)?;
            (code(look.status.code()), serde_json::from_slice(&look.stdout).unwrap_or(Value::Null))
        }
        Some(auto) => {
            let look = acting::command(auto, &["--dry-run"]).status().map_err(failed)?;
            (code(look.code()), Value::Null)
        }
    };
    if common.json {
        output::json(&json!({ "watched": watched, "look": found }));
    }
    Ok(ends)
}

/// That of a process; one that was killed has none.
fn code(code: Option<i32>) -> u8 {
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(CANNOT)
}

fn watch(common: &Common, options: Options) -> Outcome {
    is_here(&options)?;
    let unusable = |error: io::Error| {
        Failure::new(
            format!(
                "The monitor of {} cannot use {} or {}: {error}.",
                options.set,
                options.run.display(),
                options.state.join(".monitors").display()
            ),
            UNTOUCHED,
            "Run it as root, or name other directories with --run and --state. A note that is damaged says nothing of what \
             was done: look, and take it away.",
        )
    };
    let Some(place) = Place::take(&options.run, &options.set).map_err(unusable)? else {
        return Err(Failure::new(
            format!("Another monitor of {} runs.", options.set),
            "It goes on.",
            "Stop it first: one source is watched by one monitor of a host.",
        ));
    };
    let (told, stops) = bounded(1);
    stop_signals().and_then(|signals| signals.forward(move || told.send(()).is_ok())).map_err(unusable)?;
    let mut watching = Watching::begin(options.clone(), place).map_err(unusable)?;
    let watched = Watched::of(&options);
    match common.json {
        true => output::json(&watched),
        false => output::text(&format!("{}ready", watched.text())),
    }
    watching.work(&stops, &mut |told| tell(common, &options.set, told));
    Ok(0)
}

/// Errors: what runs here has no such replica.
fn is_here(options: &Options) -> Result<(), Failure> {
    let Ok(daemons) = daemons(&options.asked) else { return Ok(()) };
    let (mut known, mut is_heard) = (Vec::new(), true);
    for daemon in &daemons {
        match &daemon.answer {
            Answer::Status(status) => match status.target() {
                Some(target) => known.extend(target.replicas.iter().map(|replica| replica.name.clone())),
                None => known.push(status.name.clone()),
            },
            Answer::Dead | Answer::None(_) => is_heard = false,
        }
    }
    if !is_heard || daemons.is_empty() || known.contains(&options.set) {
        return Ok(());
    }
    Err(Failure::new(
        format!("No target daemon that runs on this host has a replica of {}.", options.set),
        UNTOUCHED,
        "Name one of those that `standin status` shows.",
    ))
}

fn tell(common: &Common, set: &str, told: &Told) {
    match told {
        Told::Health(before, shown) if common.json => output::json(&change(*before, shown)),
        Told::Health(before, shown) => output::text(&line(*before, shown)),
        Told::Outage(outage) if common.json => output::json(&json!({ "set": set, "outage": outage })),
        Told::Over if common.json => output::json(&json!({ "set": set, "outage": null })),
        Told::Over => output::text(&format!("{set}  the outage is over: the next one is acted on")),
        Told::Outage(outage) => {
            output::text(&format!("{}  {set}  {}", second(outage.at_unix_ms), outage.words()));
        }
    }
}

fn change(before: Health, shown: &Shown) -> Value {
    json!({
        "set": shown.set, "at_unix_ms": shown.at_unix_ms, "before": before, "health": shown.health,
        "silent_ms": shown.silent_ms, "time_to_fail_ms": shown.time_to_fail_ms, "why": why(shown),
    })
}

fn why(shown: &Shown) -> String {
    match shown.health {
        Health::Green => String::new(),
        Health::Red => shown.silence(),
        Health::Yellow | Health::Blind => shown.reasons(),
    }
}

fn line(before: Health, shown: &Shown) -> String {
    let why = why(shown);
    let because = if why.is_empty() { why } else { format!("  {why}") };
    format!("{}  {}  {before} -> {}{because}", second(shown.at_unix_ms), shown.set, shown.health)
}

fn status(common: &Common, set: &str) -> Outcome {
    let run = common.asked_dir();
    let found = shown::of(&run, set).map_err(|error| {
        let what = format!("What a monitor of {set} says in {} cannot be read: {error}.", run.display());
        Failure::new(what, "Nothing was changed.", "Ask as root, or name its run directory with --run.")
    })?;
    let Some(monitored) = found else {
        return Err(Failure::new(
            format!("No monitor of {set} runs (none in {}).", run.display()),
            "Nothing was changed.",
            format!("Start one: standin monitor {set}, or its unit standin-monitor@{set}.service."),
        ));
    };
    match common.json {
        true => output::json(&monitored),
        false => output::text(&text(&monitored)),
    }
    Ok(monitored.severity().exit_code())
}

fn text(monitored: &Monitored) -> String {
    let mut text = format!("{}  {}\n", monitored.shown.set, monitored.words());
    for probed in &monitored.shown.probes {
        let own = if probed.own { "own " } else { "" };
        let answer = probed.answer.as_deref().unwrap_or("no answer yet");
        let why = if probed.why.is_empty() { String::new() } else { format!(": {}", probed.why) };
        let _ = writeln!(text, "  {own}{}  {answer}{why}", probed.probe);
    }
    text
}
