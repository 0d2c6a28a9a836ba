//! A PostgreSQL server of our own, by its own user, on a unix socket in a directory of its own.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use tempfile::TempDir;

use super::clients::CLIENTS;
use crate::databases::thread_states;
use crate::host::{describe, output_within};

/// For a start with recovery, for initdb and for a check of a whole database.
const LONG: Duration = Duration::from_secs(180);

/// Words of a server's log that no cut excuses.
const BAD_WORDS: [&str; 6] = ["PANIC", "FATAL", "ERROR", "WARNING", "invalid page", "could not"];

/// The user and the group that Debian's package made, and where its programs are.
struct Account {
    user: u32,
    group: u32,
    programs: PathBuf,
}

impl Account {
    fn find() -> Account {
        let passwd = fs::read_to_string("/etc/passwd").expect("/etc/passwd");
        let line = passwd.lines().find(|line| line.starts_with("postgres:"));
        let fields: Vec<&str> = line.expect("no user `postgres`: install postgresql").split(':').collect();
        let number = |at: usize| fields[at].parse().expect("passwd(5)");
        let versions = fs::read_dir("/usr/lib/postgresql").expect("postgresql is missing: install it");
        let newest =
            versions.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).max();
        let newest = newest.expect("no version of postgresql is installed").to_string();
        let programs = Path::new("/usr/lib/postgresql").join(newest).join("bin");
        Account { user: number(2), group: number(3), programs }
    }

    /// A program of PostgreSQL as its own user.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command
            .uid(self.user)
            .gid(self.group)
            .current_dir("/")
            .env("LC_ALL", "C.UTF-8")
            .env("PGUSER", "postgres");
        command
    }
}

/// A server that runs; it is stopped at once on drop.
pub struct Server {
    account: Account,
    data: PathBuf,
    running: bool,
    pub postmaster: Postmaster,
    /// Socket and log.
    place: TempDir,
}

impl Server {
    /// Makes a cluster in a new directory, with checksums, and starts a server on it.
    pub fn create(data: &Path) -> Server {
        let account = Account::find();
        fs::create_dir(data).expect("a directory");
        fs::set_permissions(data, PermissionsExt::from_mode(0o700)).expect("our own directory");
        chown(data, Some(account.user), Some(account.group)).expect("we are root");
        let mut initdb = account.command("initdb");
        initdb.args(["--data-checksums", "--auth=trust", "--username=postgres", "--pgdata"]).arg(data);
        succeeds(&mut initdb).unwrap_or_else(|said| panic!("{said}"));
        // More checkpoints than the few a short run would have.
        let conf = data.join("postgresql.conf");
        let text = fs::read_to_string(&conf).expect("a configuration");
        fs::write(&conf, text + "\nmax_wal_size = 64MB\nmin_wal_size = 32MB\n").expect("a configuration");
        Server::start(data).unwrap_or_else(|wrong| panic!("{wrong}"))
    }

    /// Starts a server on what is there.
    ///
    /// Errors: it did not start, with its log.
    pub fn start(data: &Path) -> Result<Server, String> {
        let account = Account::find();
        let place = tempfile::Builder::new().prefix("s").tempdir().expect("a temporary directory");
        chown(place.path(), Some(account.user), Some(account.group)).expect("we are root");
        let log = place.path().join("log");
        let mut start = account.command("pg_ctl");
        start.args(["start", "--wait", "--timeout", "150", "--pgdata"]).arg(data).arg("--log").arg(&log);
        start.arg("--options").arg(format!("-c listen_addresses= -k {}", place.path().display()));
        let started = succeeds(&mut start);
        let postmaster = Postmaster::of(data);
        match (started, postmaster) {
            (Ok(_), Some(postmaster)) => {
                Ok(Server { account, data: data.to_owned(), running: true, postmaster, place })
            }
            (outcome, postmaster) => {
                postmaster.map(|postmaster| postmaster.quit(Duration::from_secs(5)));
                Err(format!("{outcome:?}\n{}", fs::read_to_string(log).unwrap_or_default()))
            }
        }
    }

    /// Writes what is in memory and ends.
    pub fn stop(&mut self) {
        self.end("fast").unwrap_or_else(|said| panic!("{said}\n{}", self.log()));
    }

    fn end(&mut self, mode: &str) -> Result<(), String> {
        self.running = false;
        let mut stop = self.account.command("pg_ctl");
        succeeds(
            stop.args(["stop", "--wait", "--timeout", "150", "--mode", mode, "--pgdata"]).arg(&self.data),
        )
        .map(drop)
    }

    pub fn socket(&self) -> &Path {
        self.place.path()
    }

    fn log_path(&self) -> PathBuf {
        self.place.path().join("log")
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// A client program, told where the server is.
    pub fn client(&self, program: &str) -> Command {
        let mut command = self.account.command(program);
        command.env("PGHOST", self.socket()).env("PGDATABASE", "postgres");
        command
    }

    /// Runs statements; gives the fields of all rows, `|` between them.
    ///
    /// Errors: the server's answer.
    pub fn sql(&self, statements: &str) -> Result<String, String> {
        let mut psql = self.client("psql");
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", statements]);
        let output = succeeds(&mut psql)?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// The number of transactions of each client, which are all from 1 on.
    ///
    /// Errors: one is missing, or the two tables of a transaction do not agree.
    pub fn numbered(&self) -> Result<Vec<u64>, String> {
        let rows = self.sql(
            "SELECT s.last, s.total, count(n.n), coalesce(min(n.n), 0), coalesce(max(n.n), 0), \
             coalesce(sum(length(n.body)), 0) \
             FROM sums s LEFT JOIN numbers n USING (client) GROUP BY client, s.last, s.total ORDER BY client",
        )?;
        let parse = |row: &str| row.split('|').map(|field| field.parse().ok()).collect::<Option<Vec<u64>>>();
        let rows: Option<Vec<Vec<u64>>> = rows.lines().map(parse).collect();
        let rows = rows.filter(|rows| rows.len() == CLIENTS).ok_or("not one number for each client")?;
        for row in &rows {
            let k = row[0];
            let bodies: u64 = (1..=k).map(super::clients::body_len).sum();
            if row[..] != [k, k * (k + 1) / 2, k, k.min(1), k, bodies] {
                return Err(format!("not the transactions from 1 to {k}: {row:?}, {bodies} bytes"));
            }
        }
        Ok(rows.iter().map(|row| row[0]).collect())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.running && self.postmaster.quit(Duration::from_secs(5)).is_err() {
            eprintln!("the server on {} has not ended yet", self.data.display());
        }
    }
}

/// The first process of a server.
#[derive(Clone)]
pub struct Postmaster(Pid);

impl Postmaster {
    fn of(data: &Path) -> Option<Postmaster> {
        let text = fs::read_to_string(data.join("postmaster.pid")).ok()?;
        Pid::from_raw(text.lines().next()?.parse().ok()?).map(Postmaster)
    }

    /// A zombie that nobody asks for is gone.
    fn is_there(&self) -> bool {
        thread_states(self.0.as_raw_pid() as u32).iter().any(|state| *state != b'Z')
    }

    /// Ends it without a word to its files: it may hang in one. Errors: not in time.
    fn quit(&self, max: Duration) -> Result<(), ()> {
        let _ = rustix::process::kill_process(self.0, Signal::QUIT);
        let deadline = Instant::now() + max;
        while self.is_there() {
            if Instant::now() >= deadline {
                return Err(());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

/// Waits on drop until a server is gone that hung in a mount: to be dropped after the mount.
pub struct Gone(pub Postmaster);

impl Drop for Gone {
    fn drop(&mut self) {
        if self.0.is_there() && self.0.quit(Duration::from_secs(20)).is_err() {
            let _ = rustix::process::kill_process(self.0.0, Signal::KILL);
        }
    }
}

/// Opens a copy as after a power cut and checks all of it; gives the number of transactions of
/// each client.
///
/// Errors: what is wrong, with the server's log.
pub fn recover(copy: &Path) -> Result<Vec<u64>, String> {
    let _ = fs::remove_file(copy.join("postmaster.pid"));
    let mut server = Server::start(copy)?;
    let checked = check(&server);
    let found = checked.map_err(|wrong| format!("{wrong}\n{}", server.log()))?;
    // Waits for sessions that are just about to end: what breaks them off is in the log.
    server.end("smart")?;
    let log = server.log();
    if let Some(line) = log.lines().find(|line| BAD_WORDS.iter().any(|word| line.contains(word))) {
        return Err(format!("{line}\n{log}"));
    }
    succeeds(server.account.command("pg_checksums").arg("--check").arg("--pgdata").arg(copy))?;
    Ok(found)
}

/// Numbers, pgbench's own sums, every row of every table, and every index against its table.
fn check(server: &Server) -> Result<Vec<u64>, String> {
    let found = server.numbered()?;
    let sums = server.sql(
        "SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(tbalance) FROM pgbench_tellers) \
         AND (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(bbalance) FROM pgbench_branches) \
         AND (SELECT sum(abalance) FROM pgbench_accounts) = \
             (SELECT coalesce(sum(delta), 0) FROM pgbench_history)",
    )?;
    if sums != "t" {
        return Err(format!("the sums of pgbench do not agree: {sums}"));
    }
    succeeds(server.client("pg_amcheck").args(["--all", "--install-missing", "--heapallindexed"]))?;
    Ok(found)
}

/// Errors: how it ended and what it said.
fn succeeds(command: &mut Command) -> Result<Output, String> {
    let output = output_within(command, LONG);
    match output.status.success() {
        true => Ok(output),
        false => Err(format!("{command:?}: {}", describe(&output))),
    }
}
