//! `standin switch`: a planned change of roles, typed on the host that is written on.

mod hooks;
mod words;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

pub(super) use self::hooks::Hooks;
use self::hooks::has_run;
pub(super) use self::words::{changes, other_end};
use self::words::{document, kept_out, text, there, there_in_place};
use super::args::Common;
use super::find::{find_role, no_answer};
use super::{Outcome, TIMED_OUT, output};
use crate::control::{ConnectionStatus, SourceStatus};
use crate::control::{Phase, Role};
use crate::control::{RoleName, StopMode, TargetKind, WaitFor, WaitSync, unix_ms};
use crate::cover::{Cover, Standing, note_handed_over};
use crate::failover::switch::{self, Candidate, CommandRun, Next, Since, Stage, Switch, When};
use crate::failure::Failure;
use crate::limits::STOP_DRAIN;
use crate::packet::{Incarnation, Meeting, Raised};
use crate::source_side::{self, HostRole, WhoWrites, replica_of, who_took_over, who_writes_here};
use crate::units::{self, parse_duration};
use crate::words::Target;
use clap::Args;

/// The other host has taken over, and the command afterwards has failed.
const POST_FAILED: u8 = 3;

const AS_BEFORE: &str = "Nothing was changed: the directory is served and replicated as before.";

/// For the unmount itself and the end of the process, after the drain.
const UNMOUNT_PATIENCE: Duration = Duration::from_secs(30);

/// How often the target is asked whether it was taken over; each takes some round trips.
const ASKED_EVERY: Duration = Duration::from_secs(1);

/// How often it is said that it is waited for.
const SAID_EVERY: Duration = Duration::from_secs(15);

#[derive(Debug, Args)]
pub struct SwitchRoles {
    /// Name or directory of the replication set
    pub(super) set: PathBuf,
    /// Who takes over, as typed for `--to` [default: the only target on another host]
    #[arg(long, value_name = "TARGET")]
    pub(super) target: Option<Target>,
    /// How long sending everything may take while programs work, as in 30s, 5m
    #[arg(long, value_name = "T", value_parser = parse_duration, default_value = "5m")]
    pub(super) drain: Duration,
    /// How long to wait for the other host once it may take over; the same command goes on waiting
    #[arg(long, value_name = "T", value_parser = parse_duration, default_value = "10m")]
    pub(super) wait: Duration,
    #[command(flatten)]
    pub(super) hooks: Hooks,
    /// Ask nobody
    #[arg(long)]
    pub(super) yes: bool,
}

pub(super) fn run(common: &Common, args: &SwitchRoles) -> Outcome {
    crate::preflight::check_root_user(rustix::process::geteuid().as_raw())?;
    let state = common.state_dir();
    let found = find_role(common, Some(&args.set), RoleName::Source);
    let name = match &found {
        Ok(found) => found.status.name.clone(),
        Err(_) => named(&state, &args.set)?,
    };
    let left = Switch::left(&state, &name).map_err(|error| unnoted(&state, &error))?;
    let since = match &found {
        Ok(found) if found.status.phase == Phase::Serving => Since::Served,
        Ok(_) => Since::WasServed,
        Err(_) if left.as_ref().is_some_and(|left| is_of_last_run(&state, left)) => Since::Nothing,
        Err(_) => Since::WasServed,
    };
    let switch = match (switch::next(left.as_ref().map(|left| left.stage), since), left, found) {
        (Next::GoOnWaiting, Some(left), _) => left,
        (Next::Begin, _, Ok(found)) => {
            let switch = begin(args, &found.status)?;
            let mut client = found.client()?;
            let gone = |error| no_answer(&name, &error);
            let mut sync = |wait| client.wait_sync(wait).map_err(gone);
            let switch = drain(&state, args, switch, &mut sync)?;
            super::failover::confirm_of(
                common,
                args.yes,
                "Programs lose the mount here. Type yes to go on: ",
            )
            .map_err(|failure| Failure { untouched: AS_BEFORE.into(), ..failure })?;
            let mut switch = args.hooks.before(&state, switch)?;
            if args.hooks.has_before() {
                // What it has stopped may have written a lot.
                let before = switch.clone();
                switch =
                    drain(&state, args, switch, &mut sync).map_err(|failure| has_run(&before, failure))?;
            }
            let before = switch.clone();
            hand_over(&state, switch, || {
                let report = client.stop(StopMode::Covered, STOP_DRAIN + UNMOUNT_PATIENCE);
                let report = report.map_err(|error| no_answer(&name, &error))?;
                client.wait_for_end(UNMOUNT_PATIENCE);
                Ok((report.drained, report.left))
            })
            .map_err(|failure| has_run(&before, failure))?
        }
        (_, None, Err(failure)) => return Err(failure),
        (_, _, _) => return Err(start_again(&name)),
    };
    wait(common, args, &state, switch)
}

fn is_of_last_run(state: &Path, left: &Switch) -> bool {
    left.run.is_some() && left.run == last_run(state, &left.set)
}

/// `None` also where it cannot be read.
fn last_run(state: &Path, set: &str) -> Option<Incarnation> {
    let all = who_writes_here(state).ok()?;
    all.iter().find(|one| one.name == set).and_then(|one| one.run)
}

/// Of a set of which no daemon runs.
pub(super) fn named(state: &Path, set: &Path) -> Result<String, Failure> {
    let all = who_writes_here(state).map_err(|error| unnoted(state, &error))?;
    let is_it = |one: &&WhoWrites| Path::new(&one.name) == set || one.tree.as_deref() == Some(set);
    all.iter().find(is_it).map(|one| one.name.clone()).ok_or_else(|| {
        Failure::new(
            format!("No source of {} is known on this host.", set.display()),
            "Nothing was changed.",
            "`standin roles` shows the sets of this host.",
        )
    })
}

fn begin(args: &SwitchRoles, status: &crate::control::Status) -> Result<Switch, Failure> {
    let Role::Source(source) = &status.role else { return Err(start_again(&status.name)) };
    let candidates: Vec<Candidate> = source
        .connections
        .iter()
        .map(|connection| Candidate {
            target: connection.target.clone(),
            is_remote: connection.kind == TargetKind::Remote,
            data: connection.data,
        })
        .collect();
    let wanted = args.target.as_ref().map(Target::to_string);
    let target = switch::taker(&candidates, wanted.as_deref()).map_err(|why| {
        Failure::new(
            format!("Nobody can take over from '{}': {why}.", status.name),
            AS_BEFORE,
            "`standin status` says how its targets are; a replica that is being copied to is good when that is over.",
        )
    })?;
    Ok(Switch {
        set: status.name.clone(),
        at: status.directory.clone(),
        tree: source.backing.clone(),
        by: std::env::var("SUDO_USER").unwrap_or_else(|_| "root".into()),
        started_unix_ms: unix_ms(SystemTime::now()),
        stage: Stage::Draining,
        run: None,
        drained_ms: None,
        frozen_unix_ms: None,
        frozen_ms: None,
        epoch: None,
        began_at: meant(source, &target).map(|connection| connection.applied.0),
        position: None,
        commands: Vec::new(),
        target,
    })
}

fn meant<'a>(source: &'a SourceStatus, target: &str) -> Option<&'a ConnectionStatus> {
    source.connections.iter().find(|connection| connection.target == target)
}

/// Sends everything while programs work: what is left for the time without a mount is little.
///
/// Errors: it did not come to its end in time.
fn drain(
    state: &Path,
    args: &SwitchRoles,
    switch: Switch,
    sync: &mut dyn FnMut(WaitSync) -> Result<crate::control::SyncReport, Failure>,
) -> Result<Switch, Failure> {
    switch.note(state).map_err(|error| unnoted(state, &error))?;
    output::aside(&format!("{} gets everything while programs work", switch.target));
    let began = Instant::now();
    let report = sync(WaitSync { wait_for: WaitFor::Durable, timeout: Some(args.drain) })?;
    if !report.complete {
        let waits = report.connections.iter().find(|connection| !connection.complete);
        let why = waits.map_or_else(String::new, |one| format!(" ({}: {})", one.target, one.waits_for));
        return Err(Failure::new(
            format!("Not everything is durable at the targets within {}{why}.", units::duration(args.drain)),
            AS_BEFORE,
            "Wait until they are up to date (standin wait-sync), or give more time with --drain.",
        )
        .passing());
    }
    let drained_ms = switch.drained_ms.unwrap_or(0) + began.elapsed().as_millis() as u64;
    Ok(Switch { drained_ms: Some(drained_ms), ..switch })
}

/// Takes the mount away and sends the last of it.
///
/// Errors: the mount is busy, and goes on serving; something is left behind.
fn hand_over(
    state: &Path,
    switch: Switch,
    stop: impl FnOnce() -> Result<(bool, Vec<String>), Failure>,
) -> Result<Switch, Failure> {
    let frozen_unix_ms = Some(unix_ms(SystemTime::now()));
    let switch = Switch { stage: Stage::Stopping, frozen_unix_ms, ..switch };
    switch.note(state).map_err(|error| unnoted(state, &error))?;
    let (drained, left) = stop()?;
    if !drained {
        return Err(Failure::new(
            format!("Not everything has reached {}: {}.", switch.target, left.join("; ")),
            "Nothing was handed over: what was written is in the directory, and no epoch was raised.",
            format!("Start the protection of {} again; then try again.", switch.at.display()),
        ));
    }
    // Where programs could write for a moment, what they wrote is nowhere else.
    if cover(state, &switch).is_some_and(|cover| cover.gap_us.is_none()) {
        note_handed_over(&state.join(&switch.set))
            .map_err(|error| unnoted_stopped(state, &switch, &error))?;
    }
    let switch = Switch { stage: Stage::HandedOver, run: last_run(state, &switch.set), ..switch };
    switch.note(state).map_err(|error| unnoted_stopped(state, &switch, &error))?;
    Ok(switch)
}

/// Until the target's host has raised the epoch: somebody types it there.
fn wait(common: &Common, args: &SwitchRoles, state: &Path, switch: Switch) -> Outcome {
    let target: Target = switch.target.parse().map_err(|_| start_again(&switch.set))?;
    let all = who_writes_here(state).map_err(|error| unnoted(state, &error))?;
    let own = all.iter().find(|one| one.name == switch.set).ok_or_else(|| start_again(&switch.set))?;
    if own.role == HostRole::Target {
        // It has come here already, before anybody asked.
        let last = own.history.raised().last().copied().ok_or_else(|| start_again(&switch.set))?;
        return taken(common, args, state, (switch, last), HostRole::StandIn);
    }
    output::aside(&format!(
        "handed over; on the host of {} type:\n  {}\nor, where the replica there is {} itself:\n  {}\n{}",
        switch.target,
        there(common, &switch, &target),
        switch.at.display(),
        there_in_place(common, &switch),
        kept_out(state, &switch)
    ));
    let (began, mut said) = (Instant::now(), Instant::now());
    loop {
        let taken_by =
            who_came_here(state, own).or_else(|| who_took_over(state, (own.set, &own.history), &target));
        if let Some(raised) = taken_by {
            return taken(common, args, state, (switch, raised), own.role);
        }
        if began.elapsed() >= args.wait {
            break;
        }
        if said.elapsed() >= SAID_EVERY {
            said = Instant::now();
            output::aside(&format!(
                "waiting for {} since {}",
                switch.target,
                units::duration(began.elapsed())
            ));
        }
        std::thread::sleep(ASKED_EVERY);
    }
    match common.json {
        true => output::json(&document(common, state, &switch)),
        false => output::text(&text(common, state, &switch)),
    }
    Ok(TIMED_OUT)
}

/// Who writes the set now and has this host as a target again: its target daemon has taken it in.
fn who_came_here(state: &Path, own: &WhoWrites) -> Option<Raised> {
    let name = own.tree.as_ref()?.file_name()?;
    let came = replica_of(state, &name.to_string_lossy()).ok()??;
    let is_above = came.set == own.set && own.history.meets(&came.history) == Meeting::StoodInFor;
    came.history.raised().last().copied().filter(|_| is_above)
}

fn taken(
    common: &Common,
    args: &SwitchRoles,
    state: &Path,
    (switch, raised): (Switch, Raised),
    role: HostRole,
) -> Outcome {
    // Before anything is said of it: the next start here must not go on writing.
    source_side::note_taken_over(&state.join(&switch.set), raised.epoch, &switch.target)?;
    let now = unix_ms(SystemTime::now());
    let frozen_ms = switch.frozen_unix_ms.map(|since| now.saturating_sub(since));
    // What the other host has gone on from.
    let position = (raised.since_ms > 0).then_some(raised.after.sequence.0);
    let switch =
        Switch { stage: Stage::Taken, frozen_ms, epoch: Some(raised.epoch.number), position, ..switch };
    if role == HostRole::StandIn {
        lift_over_replica(common, state, &switch);
    }
    let keep = |switch: &Switch| {
        if let Err(error) = switch.note(state) {
            output::aside(&format!("the report cannot be kept: {error}"));
        }
    };
    keep(&switch);
    let switch = args.hooks.after(switch);
    let after = switch.command(When::After);
    if after.is_some() {
        keep(&switch);
    }
    match common.json {
        true => output::json(&document(common, state, &switch)),
        false => output::text(&text(common, state, &switch)),
    }
    Ok(if after.and_then(CommandRun::fault).is_some() { POST_FAILED } else { 0 })
}

/// What stands where the mount was.
fn cover(state: &Path, switch: &Switch) -> Option<Cover> {
    let cover = Cover::noted(&state.join(&switch.set)).ok()??;
    (cover.stands().ok()? == Standing::OnTop).then_some(cover)
}

/// The directory is the replica of a target daemon that runs here already: the daemon cannot lift it itself.
fn lift_over_replica(common: &Common, state: &Path, switch: &Switch) {
    let Some(cover) = cover(state, switch).filter(|cover| cover.at == cover.tree) else { return };
    if other_end(common, &switch.tree).is_none() {
        return;
    }
    match cover.lift(&state.join(&switch.set)) {
        Ok(_) => output::aside(&format!(
            "{} is the replica of a target daemon of this host: it is covered no more",
            cover.at.display()
        )),
        Err(error) => output::aside(&format!("the cover of {} stays: {error}", cover.at.display())),
    }
}

fn start_again(name: &str) -> Failure {
    Failure::new(
        format!("'{name}' is not served, and it is not known that its target has everything."),
        "Nothing was changed, and no epoch was raised.",
        "Start the protection again; then `standin switch`. Where this host is gone for good: `standin failover` on the \
         target's.",
    )
}

fn unnoted(state: &Path, error: &std::io::Error) -> Failure {
    Failure::new(
        format!("The notes in {} cannot be used: {error}.", state.display()),
        AS_BEFORE,
        "Make room, or name another state directory with --state.",
    )
}

/// As [`unnoted`], where the mount is gone already.
fn unnoted_stopped(state: &Path, switch: &Switch, error: &std::io::Error) -> Failure {
    Failure {
        untouched: format!(
            "{} has everything, and no epoch was raised; the mount is gone, and nothing was handed over.",
            switch.target
        ),
        next: format!("Make room; start the protection of {} again, then try again.", switch.at.display()),
        ..unnoted(state, error)
    }
}
