//! The command line as users and scripts type it.

mod connection;
mod deletes;
mod doctor;
mod mirror;
mod set;
mod statistics;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use self::connection::{
    AddConnection, Asked, Connection, ConnectionCommand, OneConnection, Replication, ReplicationCommand,
    Resume, ScheduleCommand,
};
pub use self::deletes::DeletesAsked;
pub use self::doctor::Doctor;
use super::address::Addresses;
use super::bench::Bench;
use super::clone::Clones;
use super::config::{Config, Reload};
use super::drill::Drills;
use super::events::Events;
use super::failback::Failback;
use super::failover::Failover;
use super::file::File;
use super::lost_writes::LostWrites;
use super::marker::{Marker, Markers};
use super::merge::Merge;
use super::metrics::Metrics;
use super::monitor::Monitor;
use super::orphans::Orphans;
use super::pages::{Completions, Man};
use super::restore::Restore;
use super::resync::Resync;
use super::roles::Roles;
use super::serve::parse_listen;
use super::size::Size;
use super::stop::Stop;
use super::switch::SwitchRoles;
use super::upgrade::{AskedFormats, Upgrade};
use super::verify::Verify;
use super::web::Web;
use crate::limits::{MAP_SIZE, QUEUE_MEMORY};
use crate::units::{parse_duration, parse_size};
use crate::words::{
    ActivityLogging, Compression, DeleteLimit, LimitPlan, OrphanChoice, OwnedBy, Profile, SchedulePlan,
    Target, TimeOfDay, VerifyMode, WhenFull,
};
pub use mirror::{Mirror, MirrorCommand, MirrorOf};
pub use set::{RulesAsked, Set, SetCommand};
pub use statistics::StatisticsAsked;

/// Real-time, ordered replication for any directory on Linux.
#[derive(Debug, Parser)]
#[command(name = "standin", version, after_help = AFTER_HELP, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    pub common: Common,
    #[command(subcommand)]
    pub command: Command,
}

const AFTER_HELP: &str = "\
Planned and not in this version: resync evaluate (an order of resynchronisations by priorities).

Exit codes: 0 ok, 1 warning or timed out, 2 critical or the command could not work.";

/// What every command has.
#[derive(Clone, Debug, Default, Args)]
pub struct Common {
    /// Answer in JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// Directory of the control sockets [default: /run/standin; the user's runtime directory when not root]
    #[arg(long, global = true, value_name = "DIR")]
    pub run: Option<PathBuf>,
    /// Directory of identities and positions [default: /var/lib/standin; the user's state directory when not root]
    #[arg(long, global = true, value_name = "DIR")]
    pub state: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Mount over DIR and replicate every change of it
    Protect(Protect),
    /// Hold replicas of directories of other hosts
    Serve(Serve),
    /// On a target: print a token with which a source can pair, once
    Invite(Invite),
    /// On a source: pair with a target; the token comes from standard input
    Pair(Pair),
    /// On a target: show or revoke who may send what
    Peers(Peers),
    /// Say how a daemon, its connections and its queue are
    Status(Status),
    /// All sets and replicas of this host on one screen, second by second: lag, rates, copies, events
    Top(Top),
    /// Wait until all targets have what was written before this command
    WaitSync(WaitSync),
    /// Say whether files are on the targets as they are now, or what they wait for
    File(File),
    /// Measure what the changes of a directory come to: bandwidth, and the queue for an outage
    Size(Size),
    /// Put a barrier with a name into the stream; targets can run something on exactly that state
    Marker(Marker),
    /// On a target: run a command for each marker
    Markers(Markers),
    /// Show the connections of a source; stop, start, pause, resume or disconnect one
    Connection(Connection),
    /// Whether changes are queued for a target, apart from whether they are sent: stop, start
    Replication(Replication),
    /// Copies to a target: start, stop, pause, resume; show what no copy could bring into line
    Mirror(Mirror),
    /// Have what is in doubt on a target brought into line now, also where the replica is good
    Merge(Merge),
    /// Show what is noted as changed, for targets that lose their place
    Bitmap(Bitmap),
    /// Say what a resynchronisation of each target would take, if it began now: which kind, why, how much, how long
    Resync(Resync),
    /// Compare a replica with its directory, while programs work in it
    Verify(Verify),
    /// Print what all daemons of this host say, for Prometheus; or serve it on this host
    Metrics(Metrics),
    /// Show all daemons of this host on a page for a browser of this host
    Web(Web),
    /// Show or remove what copies have moved aside on this host, beside replicas
    Orphans(Orphans),
    /// A replica on this host as of one moment, as a directory of its own: start, list, stop
    Clone(Clones),
    /// Rehearse on a clone of a replica: run, list, report; or leave it open: start, shell, stop
    Drill(Drills),
    #[command(hide = true)]
    DrillInit,
    #[command(hide = true)]
    DrillOpen(Rest),
    #[command(hide = true)]
    DrillEnter(Rest),
    /// What begins, ends and happens on this host: list, follow; call hooks for it
    Events(Events),
    /// Serve a replica of this host in its source's place, for good
    Failover(Box<Failover>),
    /// A planned change of roles, on the host that is written on: everything is sent, then the target's host takes over
    Switch(SwitchRoles),
    /// The way home after a failover, on the host that stands in: waits for the old host, then switches roles back
    Failback(Failback),
    /// On a host that was stood in for: what its directory had before it became a replica
    LostWrites(LostWrites),
    /// Hold the address at which clients reach a set, while this host serves it
    Address(Addresses),
    /// Watch the source of a replica of this host: green, yellow, red; call for a person, or fail over
    Monitor(Monitor),
    /// Who writes the sets of this host, and since when; of two that have stood in for one source: name the one to keep
    Roles(Roles),
    #[command(hide = true)]
    RunCommands,
    /// Which names of a directory are replicated: create, show, change, rename, copy, export, import, delete, size
    Set(Set),
    /// Send what is queued, take the mount away, end the daemon
    Stop(Stop),
    /// Have a protection go on as another version, under the programs in its directory: they see a pause
    Upgrade(Upgrade),
    /// What stands in the files of options: check it, show what counts, compare it with what runs
    Config(Config),
    /// Have a daemon read its file anew: all of it, or nothing
    Reload(Reload),
    /// Bring the content of a replica back into a directory
    Restore(Restore),
    /// Check this machine and a directory before they are used
    Doctor(Doctor),
    /// Measure what the mount costs here, side by side with the plain directory
    Bench(Bench),
    /// Write the manual: a page for each command
    Man(Man),
    /// Print what a shell needs to complete commands and options
    Completions(Completions),
    #[command(hide = true)]
    FlushMount(FlushMount),
    #[command(hide = true)]
    HoldMount(HoldMount),
    #[command(hide = true)]
    DropPages,
    #[command(hide = true)]
    Formats(AskedFormats),
}

#[derive(Debug, Args)]
pub struct Bitmap {
    #[command(subcommand)]
    pub command: BitmapCommand,
}

#[derive(Debug, Subcommand)]
pub enum BitmapCommand {
    /// Each generation of the map: since when it is marked, how full it is, what needs it
    Show {
        /// Name or directory of a replication set [default: the only one]
        set: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
pub struct Protect {
    /// The directory that applications use; or the name of a set whose file (sets/NAME.toml in the state directory)
    /// has `dir`: a word without a / is the set where there is one. Every option may stand in that file, but for
    /// decisions of a moment; what is typed goes before it
    #[arg(value_name = "DIR|NAME", required_unless_present = "name")]
    pub dir: Option<PathBuf>,
    /// Serve the data of this directory at DIR, instead of DIR's own
    #[arg(long, value_name = "DIR")]
    pub backing: Option<PathBuf>,
    /// standin://host:port/repset (paired before), local:PATH or null:; may be repeated. Without it, and with
    /// null:, changes are counted and NOT replicated
    #[arg(long, value_name = "TARGET")]
    pub to: Vec<Target>,
    /// Name of the replication set [default: the last part of DIR]
    #[arg(long)]
    pub name: Option<String>,
    /// Start although files are open for writing past the mount; their writes are not replicated
    #[arg(long)]
    pub force: bool,
    /// Take over a replica directory that is not empty
    #[arg(long)]
    pub adopt: bool,
    /// Of a local: target, before its good replica becomes bad (a copy begins): keep what it is as a clone that is not
    /// copied, until it is good again
    #[arg(long)]
    pub keep_good: bool,
    /// Take this directory for the set's although it is not the one that was protected before (restored from a
    /// backup, moved to another disk): everything is compared, and what it lacks goes from the replicas
    #[arg(long)]
    pub adopt_source: bool,
    /// Start although a target has said that somebody else writes the set in a higher epoch, and forget that. A
    /// target that still says so refuses as before
    #[arg(long, conflicts_with = "stand_in")]
    pub start_unconfirmed: bool,
    /// Serve a replica read-write in the place of its source, which is gone: in a higher epoch, so that the old
    /// source is never taken in again before it was brought into line. On the old source: write there again
    #[arg(long)]
    pub stand_in: bool,
    /// With --stand-in: also a replica that is no consistent state of its source
    #[arg(long, requires = "stand_in")]
    pub accept_bad_data: bool,
    /// Where a replica is served in its source's place: overwrite also what other targets have beyond it, or may have
    #[arg(long)]
    pub overwrite_further: bool,
    /// Start although mounts below DIR will be hidden
    #[arg(long)]
    pub hide_nested: bool,
    /// Memory for changes that the targets do not have yet
    #[arg(long, value_name = "SIZE", value_parser = parse_size, default_value_t = QUEUE_MEMORY as u64)]
    pub queue_memory: u64,
    /// Disk for those that memory has no room for: 0 for none [default: what is free but 50 MiB]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub queue_disk_limit: Option<u64>,
    /// A directory for them, best on a disk of its own [default: in the state of the set]
    #[arg(long, value_name = "DIR")]
    pub queue_dir: Option<PathBuf>,
    /// Memory for what has changed since a target was in line; twice that for each target that is away
    #[arg(long, value_name = "SIZE", value_parser = parse_size, default_value_t = MAP_SIZE as u64)]
    pub map_size: u64,
    /// Whether it is noted on disk whose content is being changed
    #[arg(long, value_enum, default_value_t)]
    pub activity_log: ActivityLogging,
    /// How writes of programs reach the daemon: what it costs, and what a power cut leaves
    #[arg(long, value_enum, default_value_t = Profile::Default)]
    pub profile: Profile,
    /// Keep the mount when this daemon is killed: calls of programs wait for the next `protect` with the same
    /// command, which goes on where this one was (Linux 6.9; not with --profile batch or --stand-in; what it does not
    /// promise yet stands in docs/operating.md)
    #[arg(long)]
    pub holder: bool,
    /// With --holder: how long calls wait for that one before they fail, as in 30s
    #[arg(long, value_name = "T", value_parser = parse_duration, default_value = "30s")]
    pub takeover_timeout: Duration,
    /// Writes that the kernel gathers (through shared mappings; with --profile batch all) reach the targets within
    /// this time, as in 500ms, 1s; 0: only when the kernel writes them back, or before wait-sync
    #[arg(long, value_name = "T", value_parser = parse_duration, default_value = "1s")]
    pub mmap_lag: Duration,
    /// What happens when the queue is full and a target is away, or does not take what it is sent: programs go on and the
    /// target gets what changed by a copy, or programs wait for it
    #[arg(long, value_enum, default_value_t = WhenFull::Resync)]
    pub on_queue_full: WhenFull,
    /// When more than so many percent of the files would be deleted on a target within a minute, its connection
    /// pauses and asks; off: never
    #[arg(long, value_name = "PERCENT|off", default_value_t = DeleteLimit::default())]
    pub delete_guard: DeleteLimit,
    /// What copies do with what a target has and DIR has not
    #[arg(long, value_enum, value_name = "WHAT", default_value_t = OrphanChoice::Aside)]
    pub orphans: OrphanChoice,
    /// What of it was modified within this time stays where it is, as in 12h, 30d
    #[arg(long, value_name = "T", value_parser = parse_duration)]
    pub orphan_age: Option<Duration>,
    #[command(flatten)]
    pub rules: RulesAsked,
    #[command(flatten)]
    pub deletes: DeletesAsked,
    /// Verify the replicas by itself, one after the other, as often as this: 24h, 7d [default: as the file of the set
    /// says]
    #[arg(long, value_name = "T", value_parser = parse_duration)]
    pub verify_every: Option<Duration>,
    /// With --verify-every: one of the times of day for it, in local time, as in 03:00
    #[arg(long, value_name = "HH:MM", requires = "verify_every")]
    pub verify_at: Option<TimeOfDay>,
    /// With --verify-every: what is compared
    #[arg(long, value_enum, value_name = "WHAT", default_value_t = VerifyMode::Attributes, requires = "verify_every")]
    pub verify_mode: VerifyMode,
    /// When connections send, as in at=22:00,every=1d,queue=50%,stop-after=2h,window=22:00-06:00 [default: as the file
    /// of the set says, or always]
    #[arg(long, value_name = "PLAN")]
    pub schedule: Option<SchedulePlan>,
    /// Bytes a second that each connection sends over a network at most, as in 1M, 8Mbit, or by rules:
    /// "weekdays 08:00-18:00 1M, sat+sun 00:00-24:00 8M" [default: as the file of the set says, or none]
    #[arg(long, value_name = "RATE|RULES")]
    pub limit: Option<LimitPlan>,
    /// Compress what goes over a network: 0 (off), 1 (lz4), 2 (zstd 1) or 3 (zstd 3) [default: as the file of the set
    /// says, or off]
    #[arg(long, value_name = "LEVEL")]
    pub compression: Option<Compression>,
    /// By what files of targets on other hosts get their owners
    #[arg(long, value_enum, value_name = "BY", default_value_t = OwnedBy::Number)]
    pub owner: OwnedBy,
    /// When a program's fsync returns: with the local disk, or only with the targets' disks too
    #[arg(long, value_enum, default_value_t = Fsync::Local)]
    pub fsync: Fsync,
    /// With --fsync=target: how long an fsync waits for the targets before it fails with an I/O error
    #[arg(long, value_name = "T", value_parser = parse_duration, default_value = "30s")]
    pub fsync_timeout: Duration,
    /// With --fsync=target: after the time-out let the local disk count alone until the targets are in line again
    #[arg(long)]
    pub fsync_degrade: bool,
    /// With --fsync=target: how many of several targets an fsync waits for
    #[arg(long, value_enum, value_name = "WHICH", default_value_t = FsyncTargets::All)]
    pub fsync_targets: FsyncTargets,
    #[command(flatten)]
    pub statistics: StatisticsAsked,
    /// Run in the background (not in this version: leave it to a service manager)
    #[arg(long)]
    pub daemon: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Fsync {
    Local,
    Target,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FsyncTargets {
    Any,
    All,
}

/// What the helper process of a daemon is started with.
#[derive(Debug, Args)]
pub struct FlushMount {
    pub mount: PathBuf,
}

/// What the holder of a mount is started with.
#[derive(Debug, Args)]
pub struct HoldMount {
    /// Of the set, for whoever looks at a list of processes.
    pub name: String,
}

#[derive(Debug, Args)]
pub struct Serve {
    /// Parent directory of the replicas: each is PATH/REPSET. This and the other options may stand in standin.toml in
    /// the state directory, but for --adopt; what is typed goes before it
    #[arg(long, value_name = "PATH")]
    pub root: Option<PathBuf>,
    /// Address and UDP port to listen on [default: all addresses, port 7447]
    #[arg(long, value_name = "ADDR", value_parser = parse_listen)]
    pub listen: Option<SocketAddr>,
    /// What sources may have here beside plain data, unless their invitation says otherwise:
    /// device,setuid,security
    #[arg(long, value_enum, value_delimiter = ',', value_name = "KINDS")]
    pub allow: Vec<Allowed>,
    /// Before a good replica becomes bad (a copy begins), keep what it is as a clone that is not copied, until it is good again
    #[arg(long)]
    pub keep_good: bool,
    /// Take over replica directories that are not empty
    #[arg(long)]
    pub adopt: bool,
    /// What a directory had whose host was stood in for may take this room, as in 10G, when it is kept before it is
    /// overwritten; more of it is lost, and 0 keeps nothing [default: refuse to start where it may not fit]
    #[arg(long, value_name = "SIZE", value_parser = parse_size, requires = "adopt")]
    pub lost_writes: Option<u64>,
    #[command(flatten)]
    pub statistics: StatisticsAsked,
    /// Name of this daemon, of its control socket
    #[arg(long, default_value = "serve")]
    pub name: String,
}

/// What a target can allow its sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Allowed {
    /// Device nodes
    Device,
    /// Setuid and setgid bits of files
    Setuid,
    /// Extended attributes security.* (file capabilities)
    Security,
    /// Nothing beside plain data
    Nothing,
}

#[derive(Debug, Args)]
pub struct Invite {
    /// Name of the replication set that the source may send
    pub repset: String,
    /// How long the token is good, as in 10m, 1h; 7 days at most
    #[arg(long, value_name = "T", value_parser = parse_duration, default_value = "1h")]
    pub expires: Duration,
    /// What the source may have beside plain data: device,setuid,security or nothing [default: what
    /// serve --allow says]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "KINDS")]
    pub allow: Vec<Allowed>,
    /// The right to restore from the replica, and no other
    #[arg(long, conflicts_with = "allow")]
    pub restore: bool,
    /// Where the source reaches this target, host:port; goes into the token for people
    #[arg(long, value_name = "HOST:PORT")]
    pub address: Option<String>,
    /// Name of the target daemon [default: the only one]
    #[arg(long)]
    pub name: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Pair {
    /// standin://host:port/repset
    pub target: Target,
    /// Read the token from this file, not from standard input
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Peers {
    #[command(subcommand)]
    pub command: PeersCommand,
    /// Name of the target daemon [default: the only one]
    #[arg(long, global = true)]
    pub name: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum PeersCommand {
    /// Show the keys that may send to this target
    List,
    /// Take what a key may away, and cut its connections
    Revoke {
        /// The key, or its first digits (8 at least)
        #[arg(value_name = "KEY")]
        fingerprint: String,
        /// Only this replication set
        repset: Option<String>,
    },
}

#[derive(Debug, Args)]
pub struct Status {
    /// Name or directory of a replication set [default: the only one]
    pub set: Option<PathBuf>,
    /// Show it again every second; where nobody looks, one line
    #[arg(long)]
    pub watch: bool,
    /// Show how each connection was in the last 15 minutes and the last 24 hours: behind, queued, captured, sent
    #[arg(long, conflicts_with = "watch")]
    pub history: bool,
}

#[derive(Debug, Args)]
pub struct Top {
    /// Draw with plain letters, as where the language of the terminal is not UTF-8
    #[arg(long)]
    pub ascii: bool,
    /// Draw without colours, as where NO_COLOR is set
    #[arg(long)]
    pub no_color: bool,
}

#[derive(Debug, Args)]
pub struct WaitSync {
    /// Name or directory of a replication set [default: the only one]
    pub set: Option<PathBuf>,
    /// Wait until it is durable on the targets' disks, not only applied
    #[arg(long)]
    pub durable: bool,
    /// Give up after this long, as in 500ms, 30s, 5m [default: never]
    #[arg(long, value_name = "T", value_parser = parse_duration)]
    pub timeout: Option<Duration>,
}

#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub struct Rest {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub rest: Vec<OsString>,
}
