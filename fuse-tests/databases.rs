//! Databases on the mount: at random moments the target is frozen or killed, its replica copied
//! away as it is, and the copy opened. It has to open as after a power cut, with exactly the
//! transactions up to some commit. Then the target goes on, until the next cut.
//!
//! `STANDIN_DB_CUTS=n` sets the number of cuts, `STANDIN_SEED=x` replays the moments of one run.

mod maildir;
#[cfg(feature = "suites")]
mod server;
mod sqlite;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::host::{COMMAND_MAX, Daemon, Protected, Setup, run};
use crate::hosts::Hosts;
use crate::random::setting;
use crate::tree::{self, Seen};
use standin::random::Random;

/// Longer than a cut takes: an fsync that fails stops a server, as on a broken disk.
#[cfg(feature = "suites")]
const FSYNC_TARGET: [&str; 3] = ["--fsync=target", "--fsync-timeout", "120s"];

/// How a target is stopped in the middle of what it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    /// SIGSTOP; SIGCONT later.
    Freeze,
    /// SIGKILL; started again later.
    Kill,
}

/// A protected directory and its target.
enum Site {
    /// `serve` on another host.
    Hosts(Box<Hosts>),
    /// `local:`, a target within the source daemon: to freeze it stops applications too, to kill
    /// it is another test.
    Local(Box<Protected>),
}

impl Site {
    /// Two paired hosts.
    fn hosts() -> Site {
        Site::hosts_with(Hosts::prepare(), &[])
    }

    /// Two hosts, paired here, the set protected with these further arguments.
    fn hosts_with(mut hosts: Hosts, arguments: &[&str]) -> Site {
        hosts.serve();
        hosts.pair();
        hosts.protect_with(arguments);
        Site::Hosts(Box::new(hosts))
    }

    fn local() -> Site {
        Site::Local(Box::new(Protected::start(Setup::default())))
    }

    /// The two hosts of a test that has no other.
    #[cfg(feature = "suites")]
    fn as_hosts(&self) -> &Hosts {
        match self {
            Site::Hosts(hosts) => hosts,
            Site::Local(_) => panic!("there is one host"),
        }
    }

    #[cfg(feature = "suites")]
    fn as_hosts_mut(&mut self) -> &mut Hosts {
        match self {
            Site::Hosts(hosts) => hosts,
            Site::Local(_) => panic!("there is one host"),
        }
    }

    fn mount(&self) -> &Path {
        match self {
            Site::Hosts(hosts) => &hosts.mount,
            Site::Local(protected) => &protected.mount,
        }
    }

    fn replica(&self) -> PathBuf {
        match self {
            Site::Hosts(hosts) => hosts.replica(),
            Site::Local(protected) => protected.replica.clone(),
        }
    }

    /// A directory beside the mount and the replica.
    fn base(&self) -> &Path {
        match self {
            Site::Hosts(hosts) => hosts.base.path(),
            Site::Local(protected) => protected.base.path(),
        }
    }

    fn pick_cut(&self, random: &mut Random) -> Cut {
        match self {
            Site::Hosts(_) => *random.one_of(&[Cut::Freeze, Cut::Kill]),
            Site::Local(_) => Cut::Freeze,
        }
    }

    fn daemon_with_target(&self) -> &Daemon {
        match self {
            Site::Hosts(hosts) => hosts.target.as_ref().expect("it serves"),
            Site::Local(protected) => protected.daemon(),
        }
    }

    /// From here on the replica does not change.
    fn cut(&mut self, cut: Cut) {
        match (cut, self) {
            (Cut::Freeze, site) => freeze(site.daemon_with_target()),
            (Cut::Kill, Site::Hosts(hosts)) => hosts.kill_target(),
            (Cut::Kill, Site::Local(_)) => panic!("not without the source"),
        }
    }

    /// The target goes on after a cut.
    fn go_on(&mut self, cut: Cut) {
        match (cut, self) {
            (Cut::Freeze, site) => site.daemon_with_target().signal(libc::SIGCONT),
            (Cut::Kill, Site::Hosts(hosts)) => hosts.serve(),
            (Cut::Kill, Site::Local(_)) => panic!("not without the source"),
        }
    }

    /// Waits until the replica has what was written before.
    #[track_caller]
    fn wait_sync(&self) {
        match self {
            Site::Hosts(hosts) => hosts.assert_goes_on(),
            Site::Local(protected) => protected.wait_sync(),
        }
    }

    #[track_caller]
    fn assert_in_sync(&self) -> Seen {
        match self {
            Site::Hosts(hosts) => hosts.assert_in_sync(),
            Site::Local(protected) => protected.assert_in_sync(),
        }
    }

    /// Both ends stopped in order; nothing differs.
    fn stop(&mut self) -> Seen {
        match self {
            Site::Hosts(hosts) => {
                hosts.stop_source();
                hosts.stop_target();
                tree::assert_same(&hosts.backing(), &hosts.replica())
            }
            Site::Local(protected) => {
                protected.stop();
                tree::assert_same(&protected.backing, &protected.replica)
            }
        }
    }

    fn said(&self) -> String {
        match self {
            Site::Hosts(hosts) => hosts.said(),
            Site::Local(protected) => protected.said(),
        }
    }
}

/// Stops a process and waits until each of its threads has stopped: one may be in a write.
fn freeze(daemon: &Daemon) {
    daemon.signal(libc::SIGSTOP);
    let deadline = Instant::now() + COMMAND_MAX;
    let frozen = |states: Vec<u8>| !states.is_empty() && states.iter().all(|state| *state == b'T');
    while !frozen(thread_states(daemon.pid())) {
        assert!(Instant::now() < deadline, "not frozen: {:?}", thread_states(daemon.pid()));
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// The state letters of proc(5), one for each thread; none of a process that is gone.
fn thread_states(pid: u32) -> Vec<u8> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let state = |path: PathBuf| {
        let stat = fs::read(path.join("stat")).ok()?;
        let name_end = stat.iter().rposition(|&byte| byte == b')')?;
        stat.get(name_end + 2).copied()
    };
    threads.filter_map(|thread| state(thread.path())).collect()
}

/// Copies a stopped replica, or a part of it, into a new directory: names, owners, modes, holes.
fn copy_away(from: &Path, to: &Path) {
    run(Command::new("cp").args(["-a", "--sparse=auto", "--reflink=auto"]).arg(from).arg(to));
}

/// Transactions that cut copies lacked of those committed just before the cut.
#[derive(Default)]
struct Behind(Vec<i64>);

impl Behind {
    fn add(&mut self, committed: u64, found: u64) {
        self.0.push(committed as i64 - found as i64);
    }
}

/// `0: 43, 1: 7` – so many copies were so many transactions behind. What was committed while the
/// cut took effect makes a number negative.
impl fmt::Display for Behind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let runs = sorted.chunk_by(|one, next| one == next);
        let counts: Vec<String> = runs.map(|run| format!("{}: {}", run[0], run.len())).collect();
        write!(f, "{}", counts.join(", "))
    }
}

/// The number of cuts that is wanted, else `default`.
fn cuts(default: u64) -> u64 {
    setting("STANDIN_DB_CUTS").unwrap_or(default)
}

/// The seed of this run, printed so that it can be replayed.
fn seeded(what: &str) -> (u64, Random) {
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    let seed = setting("STANDIN_SEED").unwrap_or(Random::new(clock.as_nanos() as u64).number() >> 16);
    println!("{what}: STANDIN_SEED={seed}");
    (seed, Random::new(seed))
}
