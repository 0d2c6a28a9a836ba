//! PostgreSQL with its data directory on the mount, under pgbench and under clients that commit
//! numbered transactions. Settings that decide about durability are PostgreSQL's own defaults.

mod clients;
mod disk;
mod server;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use super::{Behind, FSYNC_TARGET, Site, copy_away, cuts, seeded};
use crate::host::heavy;
use crate::hosts::Hosts;
use crate::random::Random;
use clients::{Load, Told};
use server::Server;

/// Cuts of a series unless `STANDIN_DB_CUTS` is set.
const CUTS: u64 = 20;

/// Two hosts with a server on the mount and everything that works on it.
struct Series {
    // Drops in this order: what works on the mount before the mount.
    load: Load,
    server: Server,
    site: Site,
    _gone: server::Gone,
    synchronous: bool,
    behind: Behind,
    /// Where a copy is opened: open to the server's user.
    copies: tempfile::TempDir,
}

impl Series {
    fn start(hosts: Hosts, synchronous: bool) -> Series {
        let arguments: &[&str] = if synchronous { &FSYNC_TARGET } else { &[] };
        let site = Site::hosts_with(hosts, arguments);
        let open_to_all = |path: &Path| {
            fs::set_permissions(path, PermissionsExt::from_mode(0o755)).expect("our own directory");
        };
        open_to_all(site.mount().parent().expect("a parent"));
        open_to_all(site.mount());
        let copies = tempfile::Builder::new().prefix("s").tempdir().expect("a temporary directory");
        open_to_all(copies.path());
        let server = Server::create(&site.mount().join("data"));
        let load = Load::start(&server);
        site.wait_sync();
        let _gone = server::Gone(server.postmaster.clone());
        Series { load, server, site, _gone, synchronous, behind: Behind::default(), copies }
    }

    /// One cut at a random moment; its copy recovers and has what it has to have.
    fn cut(&mut self, random: &mut Random) {
        std::thread::sleep(Duration::from_micros(300_000 + random.below(1_200_000)));
        let cut = self.site.pick_cut(random);
        let before = self.load.told();
        self.site.cut(cut);
        let after = self.load.told();
        let copy = self.copy_away();
        self.site.go_on(cut);
        self.judge(&format!("{cut:?}"), &copy, &before, &after);
        self.load.assert_goes_on();
    }

    fn copy_away(&self) -> std::path::PathBuf {
        let copy = self.copies.path().join("copy");
        copy_away(&self.site.replica().join("data"), &copy);
        copy
    }

    /// `before` and `after`: what clients had been told when the cut began and when it was over.
    fn judge(&mut self, what: &str, copy: &Path, before: &Told, after: &Told) {
        let found =
            server::recover(copy).unwrap_or_else(|wrong| panic!("{what}: {wrong}\n{}", self.site.said()));
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
        let last = self.load.end();
        let found = self.server.numbered().expect("the server answers");
        assert_eq!(found, last.0, "the source itself lost transactions");
        self.server.stop();
        let seen = self.site.assert_in_sync();
        let copy = self.copy_away();
        let replica = server::recover(&copy).expect("the replica after a stop");
        assert_eq!(replica, found);
        println!(
            "PostgreSQL: {} transactions of {} clients beside pgbench, {seen:?}; behind by {}",
            found.iter().sum::<u64>(),
            found.len(),
            self.behind
        );
        assert!(self.site.stop().objects > 900, "{seen:?}");
    }
}

fn run_series(synchronous: bool) {
    let _heavy = heavy();
    let (_, mut random) = seeded("PostgreSQL");
    let mut series = Series::start(Hosts::prepare(), synchronous);
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
fn a_copy_cut_at_any_moment_recovers() {
    run_series(false);
}

#[test]
fn what_was_acknowledged_is_on_the_target() {
    run_series(true);
}
