//! The command line: one file a command; texts for people, JSON for scripts.
//!
//! A command never looks at a mount root: a daemon that hangs would hang it too. It finds its
//! daemon by the socket files of the run directory (`find`).

pub mod address;
pub mod args;
pub mod bench;
mod bitmap;
pub mod clone;
pub mod config;
mod connection;
mod curve;
mod doctor;
pub mod drill;
pub mod events;
mod failback;
pub mod failover;
pub mod file;
mod find;
mod lost_writes;
pub mod marker;
mod merge;
pub mod metrics;
mod mirror;
pub mod monitor;
pub mod orphans;
mod output;
pub mod pages;
mod pairing;
mod protect;
mod restore;
mod resync;
mod roles;
#[cfg(test)]
mod schema;
mod serve;
mod serving;
pub mod set;
mod size;
mod status;
mod stop;
mod switch;
#[cfg(test)]
mod tests;
mod top;
mod upgrade;
pub mod verify;
mod wait_sync;
pub mod web;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};

use crate::failure::Failure;
use crate::words::SOCKET_SUFFIX;
use args::{Cli, Command, Common};

/// Where the sockets of the host's daemons are.
const SYSTEM_RUN: &str = "/run/standin";

/// Where they keep what is to stay.
const SYSTEM_STATE: &str = "/var/lib/standin";

/// Exit code of a command that could not work.
const CANNOT: u8 = 2;

/// Exit code of a command that could not work yet: the same may work later.
const TIMED_OUT: u8 = 1;

/// Exit code of a protection that ended as it was told, and left changes behind: not one that a
/// service manager starts again.
const LEFT_BEHIND: u8 = 3;

/// Runs the command that this process was started with.
pub fn main() -> ExitCode {
    let mut typed = Cli::command().get_matches();
    let Cli { common, command } = Cli::from_arg_matches(&typed).unwrap_or_else(|error| error.exit());
    let typed = typed.remove_subcommand().map(|(_, typed)| typed).unwrap_or_default();
    let json = common.json;
    let result = match command {
        Command::Protect(args) => protect::run(&common, &args, &typed),
        Command::Serve(_) => serve::run(&common, &typed),
        Command::Invite(args) => pairing::invite(&common, &args),
        Command::Pair(args) => pairing::pair(&common, &args),
        Command::Peers(args) => pairing::peers(&common, &args),
        Command::Status(args) => status::run(&common, &args),
        Command::Top(args) => top::run(&common, &args),
        Command::WaitSync(args) => wait_sync::run(&common, &args),
        Command::File(args) => file::run(&common, &args),
        Command::Size(args) => size::run(&common, &args),
        Command::Marker(args) => marker::make(&common, &args),
        Command::Markers(args) => marker::run(&common, &args),
        Command::Connection(args) => connection::run(&common, &args),
        Command::Replication(args) => connection::replication(&common, &args),
        Command::Mirror(args) => mirror::run(&common, &args),
        Command::Merge(args) => merge::run(&common, &args),
        Command::Bitmap(args) => bitmap::run(&common, &args),
        Command::Metrics(args) => metrics::run(&common, &args),
        Command::Web(args) => web::run(&common, &args),
        Command::Verify(args) => verify::run(&common, &args),
        Command::Orphans(args) => orphans::run(&common, &args),
        Command::Clone(args) => clone::run(&common, &args),
        Command::Drill(args) => drill::run(&common, &args, &typed),
        Command::DrillInit => drill::init(),
        Command::DrillOpen(rest) => drill::keep_open(&rest.rest),
        Command::DrillEnter(rest) => drill::enter(&rest.rest),
        Command::Events(args) => events::run(&common, &args),
        Command::Failover(args) => failover::run(&common, &args),
        Command::Failback(args) => failback::run(&common, &args),
        Command::LostWrites(args) => lost_writes::run(&common, &args),
        Command::Switch(args) => switch::run(&common, &args),
        Command::Address(args) => address::run(&common, &args),
        Command::Monitor(args) => monitor::run(&common, &args, &typed),
        Command::Roles(args) => roles::run(&common, &args),
        Command::RunCommands => failover::run_commands(),
        Command::Set(args) => set::run(&common, &args),
        Command::Stop(args) => stop::run(&common, &args),
        Command::Upgrade(args) => upgrade::run(&common, &args),
        Command::Config(args) => config::run(&common, &args),
        Command::Reload(args) => config::reload(&common, &args),
        Command::Resync(args) => resync::run(&common, &args),
        Command::Restore(args) => restore::run(&common, args),
        Command::Doctor(args) => doctor::run(&common, &args),
        Command::Bench(args) => bench::run(&common, &args),
        Command::Man(args) => pages::man(&common, &args),
        Command::Completions(args) => pages::completions(&args),
        Command::FlushMount(args) => protect::flush_mount(&args),
        Command::HoldMount(args) => protect::hold_mount(&args),
        Command::DropPages => protect::drop_pages(),
        Command::Formats(args) => upgrade::formats(&args),
    };
    let code = result.unwrap_or_else(|failure| {
        output::failure(&failure, json);
        if failure.passing { TIMED_OUT } else { CANNOT }
    });
    ExitCode::from(output::exit_code(code))
}

/// What a command gives: its exit code.
type Outcome = Result<u8, Failure>;

impl Common {
    /// Where the control sockets are.
    pub fn run_dir(&self) -> PathBuf {
        self.run.clone().unwrap_or_else(|| default_dir(SYSTEM_RUN, "XDG_RUNTIME_DIR", ".cache"))
    }

    /// Where sockets are that are asked: those of the host's daemons, where this user has none of his own.
    pub fn asked_dir(&self) -> PathBuf {
        let own = self.run_dir();
        let has_sockets = |dir: &PathBuf| {
            let names = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.file_name());
            names.into_iter().any(|name| name.to_string_lossy().ends_with(SOCKET_SUFFIX))
        };
        if self.run.is_some() || has_sockets(&own) { own } else { PathBuf::from(SYSTEM_RUN) }
    }

    /// Where the daemons that are asked have their state.
    pub fn asked_state_dir(&self) -> PathBuf {
        match &self.state {
            None if self.asked_dir() == Path::new(SYSTEM_RUN) => PathBuf::from(SYSTEM_STATE),
            Some(_) | None => self.state_dir(),
        }
    }

    /// Where identities and positions are.
    pub fn state_dir(&self) -> PathBuf {
        self.state.clone().unwrap_or_else(|| default_dir(SYSTEM_STATE, "XDG_STATE_HOME", ".local/state"))
    }
}

/// The system's place for root; else the user's (XDG base directories), or one in the home.
fn default_dir(system: &str, variable: &str, in_home: &str) -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from(system);
    }
    let set = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = set(variable).or_else(|| Some(set("HOME")?.join(in_home)));
    base.map_or_else(|| PathBuf::from(system), |base| base.join("standin"))
}
