//! What `protect` was asked to do, parsed once at the border.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use super::activity::ActivityLogging;
use super::compression::Compression;
use super::configuration::Configuration;
use super::delete_limit::DeleteLimit;
use super::deletes::Deletes;
use super::limit_plan::LimitPlan;
use super::names::{is_set_name, socket_path};
use super::orphans::OrphanRules;
use super::owners::OwnedBy;
use super::profile::Profile;
use super::schedule_plan::SchedulePlan;
use super::statistics::StatisticsTo;
use super::verify_plan::VerifyPlan;
use super::when_full::WhenFull;

/// Everything a source daemon needs to know at its start. Paths are absolute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProtectOptions {
    /// Name of the replication set: of its socket in `run` and of its directory in `state`.
    pub name: String,
    /// The mount point that applications use. Symlinks in it are resolved.
    pub directory: PathBuf,
    /// Where the data is, if not below the mount itself.
    pub backing: Option<PathBuf>,
    /// Without any, changes are captured for nobody, as with [`Target::Null`].
    pub targets: Vec<Target>,
    /// Parent directory of what sets keep on disk.
    pub state: PathBuf,
    /// Directory of the control sockets.
    pub run: PathBuf,
    /// Start although files are open for writing past the mount.
    pub force: bool,
    /// Take over a replica that is not empty and has no identity.
    pub adopt: bool,
    /// The last good state of an embedded target's replica is kept while it is bad.
    pub keep_good: bool,
    /// Take a directory that is not the one protected before under this name for the set's.
    pub adopt_source: bool,
    /// Take changes although a target has said that somebody else writes the set.
    pub start_unconfirmed: bool,
    /// Of a stand-in: also replicas that have more than the one that is served had.
    pub overwrite_further: bool,
    /// Serve a replica in its source's place.
    pub stand_in: Option<BadData>,
    /// Start although mounts below the directory will be hidden by the new one.
    pub hide_nested: bool,
    /// Memory level of the queue, bytes; at least [`crate::limits::QUEUE_MEMORY_MIN`].
    pub queue_memory: usize,
    /// Where what memory has no room for goes; without, nowhere.
    pub queue_disk: Option<QueueDisk>,
    /// A generation of the map, bytes; at least [`crate::limits::MAP_SIZE_MIN`].
    pub map_size: usize,
    /// Whether it is noted whose content is being changed.
    pub activity_log: ActivityLogging,
    /// What the kernel has gathered (writes through shared mappings; in batch all) stays unseen no
    /// longer than this; without, until it writes them back or somebody waits for them.
    pub mmap_lag: Option<Duration>,
    /// How writes reach the daemon.
    pub profile: Profile,
    /// The mount outlives this daemon: a process of its own keeps it for the next one.
    pub holder: bool,
    /// How long it waits for that one.
    pub takeover_timeout: Duration,
    /// What a full queue means for a target that is away.
    pub when_full: WhenFull,
    /// How much may be deleted of a replica before a person is asked.
    pub delete_guard: DeleteLimit,
    /// What copies do with what only a replica has.
    pub orphans: OrphanRules,
    /// What is replicated, behind the rules in the file of the set.
    pub rules: Vec<TypedRule>,
    /// What a removal means for the targets; without, as the file of the set says.
    pub deletes: Option<Deletes>,
    /// When replicas are verified by themselves; without, as the file of the set says.
    pub verify: Option<VerifyPlan>,
    /// When connections send; without, as the file of the set says, or always.
    pub schedule: Option<SchedulePlan>,
    /// How fast they send over a network; without, as the file of the set says, or as fast as it goes.
    pub limit: Option<LimitPlan>,
    /// How short payloads are made for a network; without, as the file of the set says, or not at all.
    pub compression: Option<Compression>,
    /// By what a replica's files get their owners.
    pub owners: OwnedBy,
    /// What an application's fsync waits for beside the local disk; without, nothing.
    pub fsync: Option<Rule>,
    /// Where statistics of each connection are written; without, nowhere.
    pub statistics: Option<StatisticsTo>,
    /// Where all this was said, and what the file of the set says beside.
    pub configuration: Configuration,
}

impl ProtectOptions {
    /// The directory whose content is protected: the backing directory, or the mount point itself.
    pub fn tree(&self) -> &Path {
        self.backing.as_deref().unwrap_or(&self.directory)
    }

    /// What this set keeps on disk (identity, positions).
    pub fn set_state(&self) -> PathBuf {
        self.state.join(&self.name)
    }

    /// Where the segments of its queue lie, where it has any.
    pub fn queue_directory(&self) -> Option<PathBuf> {
        let disk = self.queue_disk.as_ref()?;
        Some(disk.parent.as_ref().map_or_else(
            || self.set_state().join("queue"),
            |parent| parent.join(format!("{}.queue", self.name)),
        ))
    }

    /// The control socket of this set.
    pub fn socket(&self) -> PathBuf {
        socket_path(&self.run, &self.name)
    }
}

/// The part of the queue that is on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueDisk {
    /// A directory that a person has made, in which this set gets one of its own; without, the set's state.
    pub parent: Option<PathBuf>,
    /// Bytes, at least [`crate::limits::QUEUE_DISK_MIN`]; without, what the disk has but the floor.
    pub limit: Option<u64>,
}

/// A rule of the set, as it was typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypedRule {
    pub includes: bool,
    pub pattern: String,
    pub is_recursive: bool,
}

/// Whether what is no consistent state of a source is served in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadData {
    Refuse,
    Accept,
}

/// How many targets a sync waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    Any,
    All,
}

/// What a sync is answered when its time is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Late {
    /// An error, although the local disk has everything.
    Fail,
    /// Success: the local disk counts alone until the targets are in line again.
    Degrade,
}

/// What was configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    pub needs: Needs,
    pub timeout: Duration,
    pub late: Late,
}

/// Where a connection sends to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `local:PATH`: an embedded target; PATH is the replica (absolute once options are built).
    Local(PathBuf),
    /// `null:`: capture and count, send nothing.
    Null,
    /// `standin://host:port/repset`: a paired target daemon.
    Remote { host: String, port: u16, repset: String },
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Local(path) => write!(f, "local:{}", path.display()),
            Target::Null => f.write_str("null:"),
            Target::Remote { host, port, repset } if host.contains(':') => {
                write!(f, "standin://[{host}]:{port}/{repset}")
            }
            Target::Remote { host, port, repset } => write!(f, "standin://{host}:{port}/{repset}"),
        }
    }
}

/// Text that is no target, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetError(pub String);

impl fmt::Display for TargetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TargetError {}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Target, TargetError> {
        if let Some(path) = text.strip_prefix("local:") {
            return match path {
                "" => Err(TargetError("local: needs a path, as in local:/srv/replica".into())),
                path => Ok(Target::Local(PathBuf::from(path))),
            };
        }
        match text.strip_prefix("standin://") {
            Some(address) => parse_remote(address),
            None if text == "null:" => Ok(Target::Null),
            None => Err(TargetError(format!(
                "'{text}' is no target: use local:PATH, null: or standin://host:port/repset"
            ))),
        }
    }
}

impl Target {
    /// What may be told of a target, as it was typed, to everybody: the directory of a local replica is nobody's
    /// business.
    pub fn plain(typed: &str) -> &str {
        match typed.parse::<Target>() {
            Ok(Target::Local(_)) => "local",
            Ok(_) | Err(_) => typed,
        }
    }
}

/// `host:port/repset`; an IPv6 address stands in brackets.
fn parse_remote(address: &str) -> Result<Target, TargetError> {
    let wrong = |why: &str| TargetError(format!("'standin://{address}' is no target: {why}"));
    let (place, repset) = address.split_once('/').ok_or_else(|| wrong("it lacks the /repset"))?;
    let (host, port) = place.rsplit_once(':').ok_or_else(|| wrong("it lacks the port"))?;
    let port = port.parse().map_err(|_| wrong("the port is no number from 1 to 65535"))?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    match (host, bare, port) {
        ("", ..) | (_, Some(""), _) => Err(wrong("it lacks the host")),
        (_, _, 0) => Err(wrong("the port is no number from 1 to 65535")),
        (_, None, _) if host.contains(':') => Err(wrong("an IPv6 address stands in brackets")),
        _ if !is_set_name(repset) => Err(wrong("the repset has to be a plain name")),
        _ => Ok(Target::Remote { host: bare.unwrap_or(host).into(), port, repset: repset.into() }),
    }
}

#[cfg(test)]
impl ProtectOptions {
    /// As they are typed least; state and sockets are below `base`.
    pub fn in_tests(directory: &Path, base: &Path) -> ProtectOptions {
        ProtectOptions {
            name: "test".into(),
            directory: directory.to_owned(),
            backing: None,
            targets: Vec::new(),
            state: base.join("state"),
            run: base.join("run"),
            force: false,
            adopt: false,
            keep_good: false,
            adopt_source: false,
            start_unconfirmed: false,
            overwrite_further: false,
            stand_in: None,
            hide_nested: false,
            queue_memory: crate::limits::QUEUE_MEMORY,
            queue_disk: Some(QueueDisk { parent: None, limit: None }),
            map_size: crate::limits::MAP_SIZE,
            activity_log: ActivityLogging::default(),
            mmap_lag: None,
            profile: Profile::Default,
            holder: false,
            takeover_timeout: crate::limits::TAKEOVER_TIMEOUT,
            when_full: WhenFull::Resync,
            delete_guard: DeleteLimit::default(),
            orphans: OrphanRules::default(),
            rules: Vec::new(),
            deletes: None,
            verify: None,
            schedule: None,
            limit: None,
            compression: None,
            owners: OwnedBy::default(),
            fsync: None,
            statistics: None,
            configuration: Configuration::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<Target, &str>) {
        match (text.parse::<Target>(), expected) {
            (Ok(target), Ok(expected)) => {
                assert_eq!(target, expected, "{text}");
                assert_eq!(target.to_string(), text);
            }
            (Err(error), Err(part)) => assert!(error.0.contains(part), "{text}: {error}"),
            (got, expected) => panic!("{text}: got {got:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn targets_are_parsed_or_refused_with_the_reason() {
        let remote = |host: &str| Target::Remote { host: host.into(), port: 7447, repset: "web".into() };
        check("local:/srv/replica", Ok(Target::Local("/srv/replica".into())));
        check("local:a b", Ok(Target::Local("a b".into())));
        check("null:", Ok(Target::Null));
        check("standin://host:7447/web", Ok(remote("host")));
        check("standin://[::1]:7447/web", Ok(remote("::1")));
        check("local:", Err("needs a path"));
        check("null:x", Err("is no target"));
        check("/srv/replica", Err("use local:PATH"));
        check("standin://host:7447", Err("/repset"));
        check("standin://host/web", Err("port"));
        check("standin://host:0/web", Err("65535"));
        check("standin://host:99999/web", Err("65535"));
        check("standin://:7447/web", Err("host"));
        check("standin://::1:7447/web", Err("brackets"));
        check("standin://host:7447/a/b", Err("plain name"));
        check("standin://host:7447/..", Err("plain name"));
    }
}
