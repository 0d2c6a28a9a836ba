//! Another process in the namespaces of a drill that stays open: it comes from outside, and gives up what the commands in
//! there must not have before it becomes what somebody asked for.
//!
//! While it still has more, nobody in there can reach it: it is hidden from processes without CAP_SYS_PTRACE.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{Mode, OFlags};
use rustix::process::{DumpableBehavior, Pid, PidfdFlags, Signal};
use rustix::thread::ThreadNameSpaceType;
use serde::{Deserialize, Serialize};

use super::calls;
use super::mounts::because;
use crate::drill::group;
use crate::privileges;

/// The command of this program that becomes that process.
pub const COMMAND: &str = "drill-enter";

/// What it becomes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Entry {
    pub at: PathBuf,
    pub environment: BTreeMap<String, String>,
    /// A program and its arguments; none: a shell.
    pub command: Vec<String>,
    /// Its standard input is a terminal of the drill's.
    pub has_terminal: bool,
    /// The control group of the drill.
    pub group: Option<PathBuf>,
}

/// The caller has one thread, and was started in the drill's process namespace.
///
/// Errors: why it does not run.
pub fn enter(entry: &Entry) -> Result<Infallible, String> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(because("it cannot hide"))?;
    entry.group.as_ref().map_or(Ok(()), |group| group::enter(group)).map_err(because("its control group"))?;
    // With who asks its terminal goes, too.
    let with = rustix::process::set_parent_process_death_signal(Some(Signal::HUP));
    with.map_err(because("it cannot be bound"))?;
    rustix::process::setsid().map_err(because("no session of its own"))?;
    if entry.has_terminal {
        rustix::process::ioctl_tiocsctty(io::stdin()).map_err(because("no terminal"))?;
    }
    go_in().map_err(because("the drill cannot be entered"))?;
    rustix::process::chdir(&entry.at).map_err(because(entry.at.display()))?;
    calls::forbid()?;
    privileges::narrow(privileges::DRILL).map_err(because("capabilities cannot be given up"))?;
    let (program, arguments) = program(entry);
    let error = Command::new(&program).args(arguments).env_clear().envs(&entry.environment).exec();
    Err(format!("{program}: {error}"))
}

/// Of all namespaces but the process one, in which it was born; and the root that is seen in there.
fn go_in() -> io::Result<()> {
    let first = rustix::process::pidfd_open(Pid::INIT, PidfdFlags::empty())?;
    let kinds = ThreadNameSpaceType::MOUNT | ThreadNameSpaceType::NETWORK;
    let kinds = kinds
        | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION
        | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME;
    rustix::thread::move_into_thread_name_spaces(std::os::fd::AsFd::as_fd(&first), kinds)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open("/proc/1/root", flags, Mode::empty())?;
    rustix::process::fchdir(&root)?;
    Ok(rustix::process::chroot(".")?)
}

fn program(entry: &Entry) -> (String, &[String]) {
    match entry.command.split_first() {
        Some((program, arguments)) => (program.clone(), arguments),
        None => {
            let own = entry.environment.get("SHELL").filter(|shell| Path::new(shell).is_absolute());
            let own = own.filter(|shell| Path::new(shell).exists());
            (own.cloned().unwrap_or_else(|| "/bin/sh".into()), &[])
        }
    }
}
