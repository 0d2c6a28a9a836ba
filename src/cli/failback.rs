//! `standin failback`: the way home after a failover, typed on the host that stands in. What is missing on the old
//! host is said and waited for; then it is a switch of roles.

mod words;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;

use self::words::{say, text};
use super::args::Common;
use super::find::find_role;
use super::switch::{self, Hooks, SwitchRoles, other_end};
use super::{CANNOT, Outcome, TIMED_OUT, output, status};
use crate::control::{ConnectionStatus, Phase, Role, RoleName, SourceStatus, Status, TargetKind};
use crate::failover::failback::{Candidate, KnownBy, Missing, home, missing};
use crate::failover::journal::Journal;
use crate::failover::switch::{Stage, Switch};
use crate::failure::Failure;
use crate::link::Identity;
use crate::packet::DataState;
use crate::pairing::{Book, Direction, Grant, Known};
use crate::source_side::{HostRole, WhoWrites, who_writes_here};
use crate::target_side::serve_state;
use crate::units::{self, parse_duration};
use crate::words::{Fingerprint, Target};

const UNTOUCHED: &str = "Nothing was changed.";

/// How often it is looked whether the old host has come so far.
const ASKED_EVERY: Duration = Duration::from_secs(1);

/// How often it is said what is waited for.
const SAID_EVERY: Duration = Duration::from_secs(15);

#[derive(Debug, Args)]
pub struct Failback {
    /// Name or directory of the replication set that this host stands in for
    set: PathBuf,
    /// The target that was the source before, as typed for `--to` [default: the one with the key that has sent the set]
    #[arg(long, value_name = "TARGET")]
    target: Option<Target>,
    /// Look at everything, say what is missing and what would be done; change nothing
    #[arg(long)]
    dry_run: bool,
    /// The old host is brought into line while programs work, then roles are switched: what is done in any case
    #[arg(long)]
    restore_first: bool,
    /// Not possible: see the refusal
    #[arg(long, conflicts_with = "restore_first")]
    restore_after: bool,
    /// How long sending the last of it may take while programs work, as in 30s, 5m
    #[arg(long, value_name = "T", value_parser = parse_duration, default_value = "5m")]
    drain: Duration,
    /// How long to wait for the old host, before the switch and in it; the same command goes on waiting
    #[arg(long, value_name = "T", value_parser = parse_duration, default_value = "1h")]
    wait: Duration,
    #[command(flatten)]
    hooks: Hooks,
    /// Ask nobody
    #[arg(long)]
    yes: bool,
}

/// What was found.
struct Found {
    name: String,
    /// Where programs have the data here.
    at: PathBuf,
    replica: PathBuf,
    home: Option<(Candidate, KnownBy)>,
    missing: Option<Missing>,
    /// The epoch of this stand-in.
    epoch: String,
    /// What the old host had given out when it was stood in for that never came: it has that alone.
    only_there: Option<u64>,
    /// How far the old host is, in words.
    progress: String,
    /// Where the host was that has sent the set here, when the two were paired.
    last_seen: Option<IpAddr>,
    /// Its port, where a target daemon of this host could take changes back.
    returns_to: Option<String>,
}

pub(super) fn run(common: &Common, args: &Failback) -> Outcome {
    crate::preflight::check_root_user(rustix::process::geteuid().as_raw())?;
    if args.restore_after {
        return Err(Failure::new(
            "`standin failback --restore-after` makes no sense here: programs on the old host would work on what it had \
             before the failover, and what was written since would have to be merged into that.",
            UNTOUCHED,
            "Leave it out: the old host is brought into line while programs work here, and the break is short.",
        ));
    }
    if !args.dry_run && is_handed_over(common, &args.set) {
        return switch::run(common, &switch_of(args, None));
    }
    let (began, mut said) = (Instant::now(), None::<Instant>);
    let (mut before, mut has_failed) = (None, false);
    loop {
        let found = match look(common, args) {
            // It may be started anew; and be there again when it is asked whether it is.
            Err(failure)
                if before.is_some()
                    && began.elapsed() < args.wait
                    && (!has_failed || is_between_runs(common, args)) =>
            {
                log::debug!("{failure}");
                has_failed = true;
                std::thread::sleep(ASKED_EVERY);
                continue;
            }
            found => found?,
        };
        has_failed = false;
        if args.dry_run {
            say(common, &found);
            return Ok(if found.missing.is_none() { 0 } else { CANNOT });
        }
        let Some(missing) = &found.missing else {
            output::aside(&text(&found));
            let home = found.home.as_ref().and_then(|(home, _)| home.target.parse().ok());
            return switch::run(common, &switch_of(args, home));
        };
        if before.as_ref() != Some(missing)
            && !matches!((&before, missing), (Some(Missing::Copy(_)), Missing::Copy(_)))
        {
            output::aside(&text(&found));
            said = Some(Instant::now());
        }
        before = Some(missing.clone());
        if began.elapsed() >= args.wait {
            say(common, &found);
            return Ok(TIMED_OUT);
        }
        if said.is_none_or(|said| said.elapsed() >= SAID_EVERY) {
            said = Some(Instant::now());
            output::aside(&format!("waiting since {}: {}", units::duration(began.elapsed()), found.progress));
        }
        std::thread::sleep(ASKED_EVERY);
    }
}

fn is_between_runs(common: &Common, args: &Failback) -> bool {
    match find_role(common, Some(&args.set), RoleName::Source) {
        Ok(found) => found.status.phase != Phase::Serving,
        Err(_) => true,
    }
}

fn switch_of(args: &Failback, target: Option<Target>) -> SwitchRoles {
    SwitchRoles {
        set: args.set.clone(),
        target: target.or_else(|| args.target.clone()),
        drain: args.drain,
        wait: args.wait,
        hooks: args.hooks.clone(),
        yes: args.yes,
    }
}

/// An earlier command has handed it over: only the other host is waited for.
fn is_handed_over(common: &Common, set: &Path) -> bool {
    let state = common.state_dir();
    let is_served = find_role(common, Some(set), RoleName::Source).is_ok();
    let left = switch::named(&state, set).ok().and_then(|name| Switch::left(&state, &name).ok()?);
    !is_served && left.is_some_and(|left| left.stage == Stage::HandedOver)
}

/// Errors: this host does not stand in, or does not serve; it cannot be told who was the source before.
fn look(common: &Common, args: &Failback) -> Result<Found, Failure> {
    let state = common.state_dir();
    let status = find_role(common, Some(&args.set), RoleName::Source)?.status;
    let Role::Source(source) = &status.role else { return Err(stands_in_for_nobody(&status.name)) };
    let unread = |error: std::io::Error| {
        let what = format!("What is known of the sets in {} cannot be read: {error}.", state.display());
        Failure::new(what, UNTOUCHED, "Name the state directory of the daemon (--state).")
    };
    let all = who_writes_here(&state).map_err(unread)?;
    let own = all.iter().find(|one| one.name == status.name && one.role == HostRole::StandIn);
    let own = own.ok_or_else(|| stands_in_for_nobody(&status.name))?;
    if own.came_home {
        return Err(is_home(&status.name));
    }
    refuse_doubtful(&status, own)?;
    let candidates: Vec<Candidate> =
        source.connections.iter().map(|connection| candidate(&state, connection)).collect();
    let wanted = args.target.as_ref().map(Target::to_string);
    let grants = grants(&state, &source.backing);
    let senders: Vec<Fingerprint> = grants.iter().map(|grant| grant.peer).collect();
    let home = home(&candidates, &senders, wanted.as_deref()).map_err(|why| {
        let what = format!("It cannot be told where '{}' goes home to: {why}.", status.name);
        Failure::new(what, UNTOUCHED, "`standin status` shows its targets.")
    })?;
    let home = home.map(|(home, by)| (home.clone(), by));
    let reports = Journal::reports(&state, &status.name).map_err(unread)?;
    let of_failover = reports.iter().rev().find_map(|report| report.point.as_ref());
    Ok(Found {
        name: status.name.clone(),
        at: status.directory.clone(),
        replica: source.backing.clone(),
        missing: missing(home.as_ref().map(|(home, _)| home)),
        progress: progress(source, home.as_ref().map(|(home, _)| home)),
        home,
        epoch: own.epoch.writing(),
        only_there: of_failover.and_then(|point| point.beyond),
        last_seen: last_seen(&grants),
        returns_to: other_end(common, &source.backing),
    })
}

fn refuse_doubtful(status: &Status, own: &WhoWrites) -> Result<(), Failure> {
    if let Some((epoch, told_by)) = &own.stood_in_for {
        return Err(Failure::new(
            format!(
                "'{}' was stood in for itself: {told_by} says that it is written in epoch {}.",
                status.name, epoch.number
            ),
            UNTOUCHED,
            "What is written there counts: `standin roles` shows who writes the set.",
        ));
    }
    if own.other.is_some() {
        return Err(Failure::new(
            format!("'{}' is written by two hosts (split brain).", status.name),
            UNTOUCHED,
            "Name the one to keep first: standin roles, standin roles keep.",
        ));
    }
    if status.phase != Phase::Serving {
        return Err(Failure::new(
            format!("'{}' is not served at this moment.", status.name),
            UNTOUCHED,
            "Give the command again when `standin status` says that it serves.",
        )
        .passing());
    }
    Ok(())
}

fn candidate(state: &Path, connection: &ConnectionStatus) -> Candidate {
    let key = Known::in_state(state).get(&connection.target).ok().flatten();
    let reason = match (&connection.data_reason, &connection.progress) {
        (_, Some(progress)) if connection.data != DataState::Good => status::progress_words(progress),
        (said, _) if !said.is_empty() => said.clone(),
        (_, _) => connection.reason.clone(),
    };
    Candidate {
        target: connection.target.clone(),
        is_remote: connection.kind == TargetKind::Remote,
        key: key.map(|known| known.fingerprint),
        is_connected: connection.link.is_some(),
        data: connection.data,
        reason,
    }
}

/// Who may send, or has sent, what is in this replica.
fn grants(state: &Path, replica: &Path) -> Vec<Grant> {
    let Some(name) = replica.file_name() else { return Vec::new() };
    let Ok(own) = Identity::load_or_create(state) else { return Vec::new() };
    let book = Book::open(&serve_state(state).join("pairings.json"), own.fingerprint());
    let grants = book.map(|book| book.grants()).unwrap_or_default();
    let is_of_it = |grant: &Grant| {
        Path::new(&grant.set_name) == Path::new(name) && grant.direction == Direction::FromPeer
    };
    grants.into_iter().filter(is_of_it).collect()
}

/// Of several nobody knows which one is meant.
fn last_seen(grants: &[Grant]) -> Option<IpAddr> {
    let [grant] = grants else { return None };
    grant.address.parse::<SocketAddr>().ok().map(|address| address.ip().to_canonical())
}

fn progress(source: &SourceStatus, home: Option<&Candidate>) -> String {
    let Some(home) = home else { return "no target is named that was the source before".into() };
    let connection = source.connections.iter().find(|one| one.target == home.target);
    match connection.and_then(|connection| connection.lag_applied) {
        Some(lag) if home.is_connected => {
            format!("{} is good, {} behind", home.target, units::count(lag.packets))
        }
        _ if home.reason.is_empty() => format!("{} is not good yet", home.target),
        _ => format!("{}: {}", home.target, home.reason),
    }
}

/// It would go to the host that stood in.
fn is_home(name: &str) -> Failure {
    Failure::new(
        format!(
            "This host does not stand in for the source of '{name}': it was that itself, and has taken it back."
        ),
        UNTOUCHED,
        "There is nothing to fail back. For a planned change of roles: `standin switch`.",
    )
}

fn stands_in_for_nobody(name: &str) -> Failure {
    Failure::new(
        format!("This host does not stand in for the source of '{name}': there is nothing to fail back."),
        UNTOUCHED,
        "For a planned change of roles, on the host that is written on: `standin switch`.",
    )
}
