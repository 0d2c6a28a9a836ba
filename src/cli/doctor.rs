//! `standin doctor`: what this machine and these directories can and cannot do, before it matters.

mod bundle;
pub(super) mod census;
mod host;
mod profile;
mod remote;

use std::path::{Path, PathBuf};

use rustix::process::{Resource, getrlimit};
use serde::Serialize;

use self::census::Census;
use super::args::{Common, Doctor};
use super::{Outcome, output};
use crate::apply::{OpenError, are_passing};
use crate::control::Severity;
use crate::failure::Failure;
use crate::limits::{OPEN_FILES_MIN, SOURCE_DESCRIPTORS, TARGET_DESCRIPTORS};
use crate::packet::Holdings;
use crate::preflight::{
    FsFacts, MountTable, UseKind, check_directory, check_handles, check_root_user, check_target,
    existing_ancestor, fs_warnings, is_within, kernel_version, list_uses, nested_in, open_dev_fuse,
    open_writers, resolve, standing_mount, users_of,
};
use crate::source_side::{is_missing_replica, waits_at};
use crate::units;
use crate::words::Target;

/// Kernels from here on clear setuid bits the way the mount asks for (`FUSE_HANDLE_KILLPRIV_V2`).
const KERNEL_MIN: (u32, u32) = (5, 11);

/// Descriptors beside those of objects: sockets, files that applications have open.
const DESCRIPTORS_BESIDE: u64 = 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    Ok,
    /// True by design, whatever this machine can do.
    Note,
    Warn,
    Fail,
}

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Line {
    level: Level,
    topic: &'static str,
    text: String,
}

#[derive(Default)]
pub(super) struct Report {
    lines: Vec<Line>,
}

pub(super) fn run(common: &Common, args: &Doctor) -> Outcome {
    let mut report = Report::default();
    report.machine();
    report.own_places(common);
    report.host(common);
    let source = args.dir.as_ref().and_then(|dir| report.places(common, dir, &args.to));
    for target in &args.to {
        report.remote(common, target, source.as_ref());
    }
    report.not_replicated();
    if let Some(path) = &args.bundle {
        return bundle::make(common, path, args.with_names, &report);
    }
    if common.json {
        output::json(&serde_json::json!({ "exit_code": report.exit_code(), "lines": report.lines }));
    } else {
        output::text(&report.text());
    }
    Ok(report.exit_code())
}

impl Report {
    pub fn add(&mut self, level: Level, topic: &'static str, text: impl Into<String>) {
        self.lines.push(Line { level, topic, text: text.into() });
    }

    /// 0, or 1 with a warning, or 2 with a failure.
    pub fn exit_code(&self) -> u8 {
        let severity = match self.lines.iter().map(|line| line.level).max() {
            None | Some(Level::Ok | Level::Note) => Severity::Ok,
            Some(Level::Warn) => Severity::Warning,
            Some(Level::Fail) => Severity::Critical,
        };
        severity.exit_code()
    }

    pub fn text(&self) -> String {
        let line = |line: &Line| {
            let level = match line.level {
                Level::Ok => "ok  ",
                Level::Note => "note",
                Level::Warn => "WARN",
                Level::Fail => "FAIL",
            };
            format!("{level}  {:<12} {}\n", line.topic, line.text)
        };
        self.lines.iter().map(line).collect()
    }

    /// A failure of a check as a line.
    fn refuse(&mut self, topic: &'static str, failure: &Failure) {
        self.add(Level::Fail, topic, format!("{} {}", failure.what, failure.next));
    }

    fn machine(&mut self) {
        match check_root_user(rustix::process::geteuid().as_raw()) {
            Ok(()) => self.add(Level::Ok, "user", "root"),
            Err(failure) => self.refuse("user", &failure),
        }
        let (major, minor, release) = kernel_version();
        if (major, minor) >= KERNEL_MIN {
            self.add(Level::Ok, "kernel", release);
        } else {
            let text = format!(
                "{release} is older than 5.11: writes cost more, setuid bits are cleared by other rules."
            );
            self.add(Level::Warn, "kernel", text);
        }
        match open_dev_fuse() {
            Ok(()) => self.add(Level::Ok, "fuse", "/dev/fuse can be opened"),
            Err(error) => {
                self.add(Level::Fail, "fuse", format!("/dev/fuse: {error}. Load the module (modprobe fuse)."))
            }
        }
        self.descriptors();
        match profile::wake_up() {
            Ok(wake_up) => self.add(Level::Ok, "profile", profile::advice(wake_up)),
            Err(error) => {
                self.add(Level::Note, "profile", format!("a wake-up could not be measured: {error}"))
            }
        }
    }

    fn descriptors(&mut self) {
        let needed = (SOURCE_DESCRIPTORS + TARGET_DESCRIPTORS) as u64 + DESCRIPTORS_BESIDE;
        match getrlimit(Resource::Nofile).maximum {
            Some(limit) if limit < OPEN_FILES_MIN as u64 => self.add(
                Level::Fail,
                "descriptors",
                format!(
                    "The hard limit is {limit}; {OPEN_FILES_MIN} are needed at least. Raise it (ulimit -Hn, LimitNOFILE=)."
                ),
            ),
            Some(limit) if limit < needed => self.add(
                Level::Warn,
                "descriptors",
                format!(
                    "The hard limit is {limit}; {needed} are needed. Raise it (ulimit -Hn, LimitNOFILE=)."
                ),
            ),
            Some(limit) => self.add(Level::Ok, "descriptors", format!("hard limit {limit}")),
            None => self.add(Level::Ok, "descriptors", "no hard limit"),
        }
    }

    fn own_places(&mut self, common: &Common) {
        for (topic, dir) in [("state", common.state_dir()), ("run", common.run_dir())] {
            let existing = existing_ancestor(&dir);
            match rustix::fs::access(&existing, rustix::fs::Access::WRITE_OK) {
                Ok(()) => self.add(Level::Ok, topic, dir.display().to_string()),
                Err(error) => {
                    self.add(
                        Level::Fail,
                        topic,
                        format!("{} cannot be written: {error}.", existing.display()),
                    );
                }
            }
        }
    }

    /// The directory, and facts of its file system, if it can be looked into.
    fn places(&mut self, common: &Common, dir: &Path, targets: &[Target]) -> Option<(PathBuf, FsFacts)> {
        let mounts = match MountTable::read() {
            Ok(mounts) => mounts,
            Err(error) => {
                self.add(Level::Fail, "mounts", format!("/proc/self/mountinfo: {error}."));
                return None;
            }
        };
        let dir = match resolve(dir, &mounts) {
            Ok(dir) => dir,
            Err(error) => {
                self.add(Level::Fail, "directory", format!("{}: {error}.", dir.display()));
                return None;
            }
        };
        let facts = self.source(&common.run_dir(), &dir, &mounts)?;
        if let Err(failure) = check_handles(&dir, &facts, targets) {
            self.refuse("directory", &failure);
        }
        for target in targets {
            self.target(common, &dir, &facts, target, &mounts);
        }
        Some((dir, facts))
    }

    /// Facts of the directory's file system, if it can be looked into.
    fn source(&mut self, run: &Path, dir: &Path, mounts: &MountTable) -> Option<FsFacts> {
        // First: a mount that hangs must not be touched.
        match standing_mount(dir) {
            Err(failure) => {
                let waiting = waits_at(run, dir);
                self.refuse("directory", &waiting.map_or(failure, |waiting| waiting.failure()));
                return None;
            }
            Ok(Some(dead)) => {
                let text = format!(
                    "A killed daemon left a dead mount at {}; the next start replaces it.",
                    dead.point.display()
                );
                self.add(Level::Warn, "directory", text);
                return None;
            }
            Ok(None) => {}
        }
        if let Err(failure) = check_directory(dir) {
            self.refuse("directory", &failure);
            return None;
        }
        let facts = match FsFacts::of(dir) {
            Ok(facts) => facts,
            Err(error) => {
                self.add(Level::Fail, "directory", format!("{}: {error}.", dir.display()));
                return None;
            }
        };
        self.add(Level::Ok, "directory", format!("{}: {}", dir.display(), describe(&facts)));
        fs_warnings(dir, &facts).into_iter().for_each(|warning| self.add(Level::Warn, "directory", warning));
        self.nested(dir, mounts, &facts);
        self.users(dir);
        Some(facts)
    }

    fn nested(&mut self, dir: &Path, mounts: &MountTable, facts: &FsFacts) {
        for nested in nested_in(dir, mounts, facts) {
            let text = format!(
                "{} is another file system: it would be hidden and not replicated.",
                nested.display()
            );
            self.add(Level::Warn, "nested", text);
        }
    }

    fn users(&mut self, dir: &Path) {
        let users = match users_of(dir) {
            Ok(users) => users,
            Err(error) => return self.add(Level::Fail, "open files", format!("/proc: {error}.")),
        };
        let writers = open_writers(&users);
        if writers.is_empty() {
            self.add(Level::Ok, "open files", "no file is open for writing");
        } else {
            let text = format!("They would write past the mount; stop them first: {}.", list_uses(&writers));
            self.add(Level::Warn, "open files", text);
        }
        let standing: Vec<_> =
            users.others().filter(|entry| entry.kind == UseKind::WorkingDirectory).cloned().collect();
        if !standing.is_empty() {
            let text =
                format!("They would go on seeing the directory without the mount: {}.", list_uses(&standing));
            self.add(Level::Warn, "open files", text);
        }
        if users.unreadable > 0 {
            // As root these are processes with more rights still, as the init outside of a container.
            let level = if rustix::process::geteuid().is_root() { Level::Note } else { Level::Warn };
            let text = format!("Processes that this user may not look into: {}.", users.unreadable);
            self.add(level, "open files", text);
        }
    }

    fn target(
        &mut self,
        common: &Common,
        dir: &Path,
        source: &FsFacts,
        target: &Target,
        mounts: &MountTable,
    ) {
        if let Err(failure) = check_target(target) {
            return self.refuse("target", &failure);
        }
        let path = match target {
            Target::Local(path) => path,
            Target::Null => return self.add(Level::Ok, "target", target.to_string()),
            // Asked itself, wherever the directory is.
            Target::Remote { .. } => return,
        };
        let replica = match resolve(path, mounts) {
            Ok(replica) => replica,
            Err(error) => return self.add(Level::Fail, "target", format!("{target}: {error}.")),
        };
        if is_within(&replica, dir, mounts) || is_within(dir, &replica, mounts) {
            let text = format!("{target} and {} lie in each other.", dir.display());
            return self.add(Level::Fail, "target", text);
        }
        if is_missing_replica(&common.state_dir(), &replica) {
            let text = format!(
                "The replica {} is not there any more. If its disk is not mounted, mount it; if it was removed \
                 on purpose, start with --adopt.",
                replica.display()
            );
            return self.add(Level::Fail, "target", text);
        }
        let existing = existing_ancestor(&replica);
        if let Ok(Some(why)) = std::fs::File::open(&existing).and_then(|dir| are_passing(&dir)) {
            let text =
                format!("{} cannot be the replica: {}.", replica.display(), OpenError::NoIdentities(why));
            return self.add(Level::Fail, "target", text);
        }
        match FsFacts::of(&existing) {
            Err(error) => self.add(Level::Fail, "target", format!("{}: {error}.", existing.display())),
            Ok(facts) => {
                self.add(Level::Ok, "target", format!("{}: {}", replica.display(), describe(&facts)));
                match facts.holdings(&existing) {
                    Ok(mut holdings) => {
                        holdings.is_fresh = existing != replica || is_without_entries(&replica);
                        self.holds((dir, source), target, &holdings);
                    }
                    Err(error) => {
                        self.add(Level::Fail, "target", format!("{}: {error}.", existing.display()))
                    }
                }
                self.same_disk(dir, &existing, target, mounts);
            }
        }
    }

    /// What the file system of a replica cannot hold, and how many objects of the directory that concerns.
    fn holds(&mut self, (dir, source): (&Path, &FsFacts), target: &Target, holdings: &Holdings) {
        if holdings.read_only {
            self.add(Level::Fail, "target", format!("{target} is mounted read-only."));
        }
        let census = Census::of(dir, holdings);
        let of = |count: u64| {
            let more = if census.is_cut_off { " looked at so far" } else { "" };
            format!("{} of {} objects{more}", units::count(count), units::count(census.objects))
        };
        for Lack { what, objects } in lacks(source, holdings, &census) {
            let (level, concerns) = match objects {
                Some(0) if !census.is_cut_off => {
                    (Level::Note, "; nothing in the directory needs it now".into())
                }
                Some(count) => (Level::Warn, format!(": {}", of(count))),
                None => (Level::Note, String::new()),
            };
            self.add(level, "target", format!("The file system of {target} {what}{concerns}."));
        }
        self.room(target, holdings, &census);
    }

    fn room(&mut self, target: &Target, holdings: &Holdings, census: &Census) {
        let least = if census.is_cut_off { "at least " } else { "" };
        let (needs, free) = (units::size(census.bytes), units::size(holdings.free_bytes));
        if holdings.is_fresh && census.bytes > holdings.free_bytes {
            let text = format!("A copy takes {least}{needs}, and {target} has {free} free.");
            self.add(Level::Warn, "target", text);
        }
        if let Some(inodes) =
            holdings.free_inodes.filter(|inodes| holdings.is_fresh && census.objects > *inodes)
        {
            let (objects, inodes) = (units::count(census.objects), units::count(inodes));
            let text = format!("A copy takes {least}{objects} inodes, and {target} has {inodes} free.");
            self.add(Level::Warn, "target", text);
        }
    }

    fn same_disk(&mut self, dir: &Path, replica: &Path, target: &Target, mounts: &MountTable) {
        let device = |path: &Path| mounts.holding(path).map(|mount| mount.device.clone());
        if device(dir).is_some() && device(dir) == device(replica) {
            let text = format!(
                "{target} is on the file system of the directory itself: it does not survive its loss."
            );
            self.add(Level::Warn, "target", text);
        }
    }

    fn not_replicated(&mut self) {
        for text in [
            "ctime, birth time, atime, inode numbers and the order of directories are never equal.",
            "Reflinks and FIEMAP do not pass the mount: cp --reflink=always fails, copies are plain copies.",
            "Of the flags of chattr immutable, append-only and no-dump are carried; those of a file's format cannot be set through the mount.",
            "Unnamed files (O_TMPFILE) cannot be made in the mount: programs get EOPNOTSUPP and make named ones.",
            "The mount shows no birth times: stat says '-', programs get none from statx.",
            "Bytes written by O_DIRECT beside a shared mapping of the same page have no defined result.",
        ] {
            self.add(Level::Note, "by design", text);
        }
        self.add(Level::Note, "by design", handles_text(kernel_version()));
    }
}

/// What becomes of file handles, which the kernel's NFS server and some backup tools keep.
fn handles_text((major, minor, _): (u32, u32, String)) -> &'static str {
    match (major, minor) >= (6, 9) {
        true => {
            "File handles do not pass the mount (name_to_handle_at): the kernel's NFS server cannot export it."
        }
        false => {
            "This kernel gives file handles that go stale at random (name_to_handle_at): do not export the mount \
             by the kernel's NFS server."
        }
    }
}

fn is_without_entries(dir: &Path) -> bool {
    std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none())
}

/// Something that a replica's file system cannot hold.
pub(super) struct Lack {
    pub(super) what: &'static str,
    /// How many objects of the directory that concerns, where they were counted.
    pub(super) objects: Option<u64>,
}

/// What a replica's file system cannot hold of what the source's can.
pub(super) fn lacks(source: &FsFacts, replica: &Holdings, census: &Census) -> Vec<Lack> {
    let fs_type = replica.fs_type.to_text();
    let bare = matches!(&*fs_type, "vfat" | "exfat");
    let all = [
        (source.user_xattrs && !replica.user_xattrs, "holds no user.* attributes", Some(census.user_xattrs)),
        (source.trusted_xattrs && !replica.trusted_xattrs, "holds no trusted.* attributes", None),
        (source.acls && !replica.acls, "holds no POSIX ACLs", Some(census.acls)),
        (
            !source.case_insensitive && replica.case_insensitive,
            "does not tell upper from lower case in names",
            Some(census.folded_names),
        ),
        (bare, "holds no owners, modes, links and special files", Some(census.objects)),
        (!replica.flags, "holds no flags of chattr", None),
        (replica.name_len_max < 255, "holds only shorter names", Some(census.long_names)),
        (
            replica.user_xattrs && census.long_xattrs > 0,
            "holds no attributes as long as these",
            Some(census.long_xattrs),
        ),
        (!replica.nanoseconds, "holds no nanoseconds of modification times", Some(census.fine_times)),
        (
            !(replica.early_times && replica.late_times),
            "holds only modification times from 1901 to 2038 or so",
            Some(census.odd_times),
        ),
        (census.long_files > 0, "holds no files as large as these", Some(census.long_files)),
        (
            fs_type == "xfs" && source.fs_type != "xfs",
            "holds no symlinks to more than 1,023 bytes",
            Some(census.long_links),
        ),
    ];
    let lack = |(is_so, what, objects): (bool, _, _)| is_so.then_some(Lack { what, objects });
    all.into_iter().filter_map(lack).collect()
}

fn describe(facts: &FsFacts) -> String {
    let has = [
        (facts.handles, "file handles"),
        (facts.user_xattrs, "user.*"),
        (facts.trusted_xattrs, "trusted.*"),
        (facts.acls, "ACLs"),
        (facts.reflinks, "reflinks"),
    ];
    let has: Vec<&str> = has.into_iter().filter(|(has, _)| *has).map(|(_, what)| what).collect();
    format!("{}, {} free; {}", facts.fs_type, units::size(facts.free_bytes), has.join(", "))
}
