//! `standin protect`: from what was typed to what a source daemon needs.

use std::io;
use std::path::{Path, PathBuf};

use super::args::{Common, FlushMount, Fsync, FsyncTargets, HoldMount, Protect};
use super::config::{self, Typed};
use super::{LEFT_BEHIND, Outcome};
use crate::failure::Failure;
use crate::limits::{MAP_SIZE_MAX, MAP_SIZE_MIN, QUEUE_DISK_MIN, QUEUE_MEMORY_MIN};
use crate::preflight::{MountTable, check_root_user, resolve};
use crate::sets;
use crate::source_side::{self, Ended};
use crate::units;
use crate::words::{
    BadData, Configuration, Deletes, Late, Needs, OrphanRules, ProtectOptions, QueueDisk, Rule, Target,
    TypedRule, VerifyPlan,
};

const NOTHING_DONE: &str = "Nothing was mounted or written.";

pub(super) fn run(common: &Common, args: &Protect, typed: &Typed) -> Outcome {
    check_root_user(rustix::process::geteuid().as_raw())?;
    if args.daemon {
        return Err(refused(
            "--daemon is not in this version.".into(),
            "Leave it out and let a service manager keep the process, as the unit standin@.service does.",
        ));
    }
    let options = config::protect(common, typed)?;
    if options.stand_in.is_some() {
        super::failover::look_at_others(common, &options)?;
        super::drill::make_way(common, options.tree());
    }
    source_side::run(options).map(exit_code)
}

pub(super) fn exit_code(ended: Ended) -> u8 {
    match ended {
        Ended::Complete => 0,
        Ended::LeftBehind => LEFT_BEHIND,
    }
}

/// Absolute paths, a name, bounds; nothing is looked at beyond the way to the paths.
pub(super) fn options(common: &Common, args: Protect) -> Result<ProtectOptions, Failure> {
    let queue_memory = usize::try_from(args.queue_memory).unwrap_or(usize::MAX);
    if queue_memory < QUEUE_MEMORY_MIN {
        return Err(refused(
            format!("A queue of {} is too small.", units::size(args.queue_memory)),
            &format!("Give it {} at least.", units::size(QUEUE_MEMORY_MIN as u64)),
        ));
    }
    let map_size = usize::try_from(args.map_size).unwrap_or(usize::MAX);
    if !(MAP_SIZE_MIN..=MAP_SIZE_MAX).contains(&map_size) {
        let (least, most) = (units::size(MAP_SIZE_MIN as u64), units::size(MAP_SIZE_MAX as u64));
        return Err(refused(
            format!("A map of {} is no map.", units::size(args.map_size)),
            &format!("Give it {least} at least and {most} at most."),
        ));
    }
    let (fsync, verify) = (fsync_rule(&args)?, verify_plan(&args)?);
    let deletes = deletes(&args)?;
    let bad_data = if args.accept_bad_data { BadData::Accept } else { BadData::Refuse };
    let mounts = MountTable::read().map_err(|error| lost(Path::new("/proc/self/mountinfo"), &error))?;
    let place = |path: &Path| resolve(path, &mounts).map_err(|error| lost(path, &error));
    let nothing_named = || refused("No directory is named.".into(), "Name the one that programs use.");
    let directory = place(args.dir.as_deref().ok_or_else(nothing_named)?)?;
    let statistics = args.statistics.asked(&mounts, NOTHING_DONE)?;
    let queue_disk = queue_disk(args.queue_disk_limit, args.queue_dir.as_deref().map(place).transpose()?)?;
    let mut targets = Vec::new();
    for target in args.to {
        targets.push(match target {
            Target::Local(path) => Target::Local(place(&path)?),
            other => other,
        });
    }
    Ok(ProtectOptions {
        name: set_name(args.name, &directory)?,
        backing: args.backing.as_deref().map(place).transpose()?,
        directory,
        targets,
        state: place(&common.state_dir())?,
        run: place(&common.run_dir())?,
        force: args.force,
        adopt: args.adopt,
        keep_good: args.keep_good,
        adopt_source: args.adopt_source,
        start_unconfirmed: args.start_unconfirmed,
        overwrite_further: args.overwrite_further,
        stand_in: args.stand_in.then_some(bad_data),
        hide_nested: args.hide_nested,
        queue_memory,
        queue_disk,
        map_size,
        activity_log: args.activity_log,
        when_full: args.on_queue_full,
        delete_guard: args.delete_guard,
        orphans: OrphanRules::new(args.orphans, args.orphan_age),
        rules: args.rules.0.iter().map(typed).collect(),
        deletes,
        profile: args.profile,
        holder: args.holder,
        takeover_timeout: args.takeover_timeout,
        mmap_lag: Some(args.mmap_lag).filter(|lag| !lag.is_zero()),
        verify,
        schedule: args.schedule,
        limit: args.limit,
        compression: args.compression,
        owners: args.owner,
        fsync,
        statistics,
        configuration: Configuration::default(),
    })
}

fn queue_disk(limit: Option<u64>, parent: Option<PathBuf>) -> Result<Option<QueueDisk>, Failure> {
    match (limit, &parent) {
        (Some(0), None) => Ok(None),
        (Some(0), Some(parent)) => Err(refused(
            format!("With --queue-disk-limit 0 nothing would be put into {}.", parent.display()),
            "Leave one of --queue-disk-limit and --queue-dir out.",
        )),
        (Some(limit), _) if limit < QUEUE_DISK_MIN => Err(refused(
            format!("A queue of {} on disk is too small.", units::size(limit)),
            &format!("Give it {} at least, or 0 for none.", units::size(QUEUE_DISK_MIN)),
        )),
        (limit, _) => Ok(Some(QueueDisk { parent, limit })),
    }
}

pub(super) fn typed(sets::Rule { includes, pattern, is_recursive }: &sets::Rule) -> TypedRule {
    TypedRule { includes: *includes, pattern: pattern.clone(), is_recursive: *is_recursive }
}

/// The helper process of a running daemon.
pub(super) fn flush_mount(args: &FlushMount) -> Outcome {
    source_side::serve_flushes(&args.mount).map_err(|error| lost(&args.mount, &error))?;
    Ok(0)
}

/// The process that keeps a mount beyond its daemon.
pub(super) fn hold_mount(args: &HoldMount) -> Outcome {
    source_side::hold().map_err(|error| {
        refused(
            format!("The mount of '{}' cannot be held: {error}.", args.name),
            "Start the protection again.",
        )
    })?;
    Ok(0)
}

/// The process of a running daemon that has the kernel drop pages.
pub(super) fn drop_pages() -> Outcome {
    crate::intercept::serve_drops().map_err(|error| {
        refused(format!("No pages can be dropped: {error}."), "Start the protection again.")
    })?;
    Ok(0)
}

pub(super) fn deletes(args: &Protect) -> Result<Option<Deletes>, Failure> {
    args.deletes.asked().map_err(|why| refused(why, "Choose one that is."))
}

pub(super) fn verify_plan(args: &Protect) -> Result<Option<VerifyPlan>, Failure> {
    let Some(every) = args.verify_every else { return Ok(None) };
    let plan = VerifyPlan::new(every, args.verify_at, args.verify_mode);
    plan.map(Some)
        .map_err(|why| refused(format!("--verify-every makes no sense: {why}."), "Choose another interval."))
}

fn fsync_rule(args: &Protect) -> Result<Option<Rule>, Failure> {
    if args.fsync == Fsync::Local {
        return Ok(None);
    }
    if args.to.iter().all(|target| matches!(target, Target::Null)) {
        return Err(refused(
            "--fsync=target needs a target that has a disk; without --to, and with null: alone, there is none.".into(),
            "Name a target with --to, or leave --fsync=target out.",
        ));
    }
    if args.schedule.is_some() && !args.fsync_degrade {
        return Err(refused(
            "With --fsync=target every fsync outside of a session of --schedule would wait for its time-out and fail.".into(),
            "Leave one of them out, or let the local disk count alone meanwhile: --fsync-degrade.",
        ));
    }
    if args.fsync_timeout.is_zero() {
        return Err(refused(
            "With --fsync-timeout 0 every fsync would fail.".into(),
            "Give the targets time to answer, as in --fsync-timeout 30s.",
        ));
    }
    Ok(Some(Rule {
        needs: match args.fsync_targets {
            FsyncTargets::Any => Needs::Any,
            FsyncTargets::All => Needs::All,
        },
        timeout: args.fsync_timeout,
        late: if args.fsync_degrade { Late::Degrade } else { Late::Fail },
    }))
}

pub(super) fn set_name(asked: Option<String>, directory: &Path) -> Result<String, Failure> {
    let last = || directory.file_name().map(|name| name.to_string_lossy().into_owned());
    match asked.clone().or_else(last) {
        Some(name) if crate::words::is_set_name(&name) => Ok(name),
        // `/` has no last part; the checks before the mount say what is wrong with it.
        None => Ok("root".into()),
        Some(name) => Err(refused(
            format!("'{name}' cannot name a replication set."),
            "Choose a name with --name: at most 64 letters, digits and any of - _ . @ +, not starting with a dot.",
        )),
    }
}

fn lost(path: &Path, error: &io::Error) -> Failure {
    refused(format!("{} cannot be reached: {error}.", PathBuf::from(path).display()), "Check the path.")
}

fn refused(what: String, next: &str) -> Failure {
    Failure::new(what, NOTHING_DONE, next)
}
