//! Database servers with their data directory on the mount, under load, with clients that commit
//! numbered transactions. Settings that decide about durability are the servers' own defaults.

mod clients;
mod ddl_log;
mod disk;
mod mariadb;
mod postgres;
mod process;
mod restored;
mod switched;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Behind, FSYNC_TARGET, Site, copy_away, cuts, seeded};
use crate::host::heavy;
use crate::hosts::Hosts;
use clients::{Clients, Told};
use mariadb::MariaDb;
use postgres::Postgres;
use process::Gone;
use standin::random::Random;

/// Cuts of a series unless `STANDIN_DB_CUTS` is set.
const CUTS: u64 = 20;

/// A server of one kind that runs; dropped, it ends at once.
trait Server: Sized {
    const NAME: &str;
    /// Objects that its data directory has at least.
    const OBJECTS: usize;

    /// Makes a data directory and starts a server on it, with the tables that clients need.
    fn create(data: &Path) -> Self;
    /// Clients with numbered transactions, and what else loads it.
    fn start_load(&self) -> Clients;
    /// The last transaction of each client, which has all from 1 on.
    ///
    /// Errors: one is missing, or the tables do not agree.
    fn numbered(&self) -> Result<Vec<u64>, String>;
    /// Ends in order.
    fn stop(&mut self);
    fn gone(&self) -> Gone;
    /// Opens a copy as after a power cut and checks all of it; gives the last transaction of each
    /// client.
    ///
    /// Errors: what is wrong, with the server's log.
    fn recover(copy: &Path) -> Result<Vec<u64>, String>;
}

/// For all that a server writes at full speed while its target stands still, some 30 MiB a second
/// where it was looked at: programs wait when the queue is full.
const ROOM: [&str; 2] = ["--queue-memory", "2GiB"];

/// Two hosts with a server on the mount and everything that works on it.
struct Series<S> {
    // Drops in this order: what works on the mount before the mount, then what hung in it.
    clients: Clients,
    server: S,
    site: Site,
    _gone: Gone,
    synchronous: bool,
    behind: Behind,
    /// Where a copy is opened: open to the server's user.
    copies: tempfile::TempDir,
}

impl<S: Server> Series<S> {
    fn start(hosts: Hosts, synchronous: bool) -> Series<S> {
        let arguments: &[&str] = if synchronous { &FSYNC_TARGET } else { &ROOM };
        let site = Site::hosts_with(hosts, arguments);
        let open_to_all = |path: &Path| {
            fs::set_permissions(path, PermissionsExt::from_mode(0o755)).expect("our own directory");
        };
        open_to_all(site.mount().parent().expect("a parent"));
        open_to_all(site.mount());
        let copies = tempfile::Builder::new().prefix("s").tempdir().expect("a temporary directory");
        open_to_all(copies.path());
        let server = S::create(&site.mount().join("data"));
        let (clients, gone) = (server.start_load(), server.gone());
        site.wait_sync();
        Series { clients, server, site, _gone: gone, synchronous, behind: Behind::default(), copies }
    }

    /// One cut at a random moment; its copy recovers and has what it has to have.
    fn cut(&mut self, random: &mut Random) {
        std::thread::sleep(Duration::from_micros(300_000 + random.below(1_200_000)));
        let cut = self.site.pick_cut(random);
        let before = self.clients.told();
        self.site.cut(cut);
        let after = self.clients.told();
        let copy = self.copy_away();
        self.site.go_on(cut);
        self.judge(&format!("{cut:?}"), &copy, &before, &after);
        self.clients.assert_goes_on();
    }

    fn copy_away(&self) -> PathBuf {
        let copy = self.copies.path().join("copy");
        copy_away(&self.site.replica().join("data"), &copy);
        copy
    }

    /// `before` and `after`: what clients had been told when the cut began and when it was over.
    fn judge(&mut self, what: &str, copy: &Path, before: &Told, after: &Told) {
        let found = S::recover(copy).unwrap_or_else(|wrong| panic!("{what}: {wrong}\n{}", self.site.said()));
        for (client, found) in found.into_iter().enumerate() {
            let (before, after) = (before.0[client], after.0[client]);
            // One transaction was under way.
            assert!(found <= after + 1, "{what}: client {client} has {found} transactions of {after}");
            assert!(
                !self.synchronous || found >= before,
                "{what}: client {client} was told of {before} transactions, {found} are there\n{}",
                self.site.said()
            );
            self.behind.add(before, found);
        }
        fs::remove_dir_all(copy).expect("our own copy");
    }

    /// Everything ends in order; both sides are the same.
    fn end(mut self) {
        let last = self.clients.end();
        let found = self.server.numbered().expect("the server answers");
        assert_eq!(found, last.0, "the source itself lost transactions");
        self.server.stop();
        let seen = self.site.assert_in_sync();
        let copy = self.copy_away();
        assert_eq!(S::recover(&copy).expect("the replica after a stop"), found);
        println!(
            "{}: {} transactions of {} clients, {seen:?}; behind by {}",
            S::NAME,
            found.iter().sum::<u64>(),
            found.len(),
            self.behind
        );
        assert!(self.site.stop().objects > S::OBJECTS, "{seen:?}");
    }
}

fn run_series<S: Server>(synchronous: bool) {
    let _heavy = heavy();
    let (_, mut random) = seeded(S::NAME);
    let mut series = Series::<S>::start(Hosts::prepare(), synchronous);
    for _ in 0..cuts(CUTS) {
        series.cut(&mut random);
        // The next cut may find the target catching up after this one.
        if random.below(2) == 0 {
            series.site.wait_sync();
        }
    }
    series.end();
}

#[test]
fn a_copy_of_postgresql_recovers() {
    run_series::<Postgres>(false);
}

#[test]
fn what_postgresql_acknowledged_is_on_the_target() {
    run_series::<Postgres>(true);
}

#[test]
fn a_copy_of_mariadb_recovers() {
    run_series::<MariaDb>(false);
}

#[test]
fn what_mariadb_acknowledged_is_on_the_target() {
    run_series::<MariaDb>(true);
}
