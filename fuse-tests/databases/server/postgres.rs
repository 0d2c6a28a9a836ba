//! PostgreSQL, with pgbench beside the clients, and opened copies checked by amcheck and checksums.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use super::clients::{Clients, QUERY, TABLES, all_from_one, body_len};
use super::process::{Account, Gone, Process, nothing_bad, succeeds};

/// Words of a server's log that no cut excuses.
const BAD_WORDS: [&str; 6] = ["PANIC", "FATAL", "ERROR", "WARNING", "invalid page", "could not"];

/// A server on a unix socket in a directory of its own.
pub struct Postgres {
    programs: Programs,
    data: PathBuf,
    running: bool,
    process: Process,
    /// Socket and log.
    place: TempDir,
}

/// What Debian's package brings.
struct Programs {
    account: Account,
    directory: PathBuf,
}

impl Programs {
    fn find() -> Programs {
        let versions = fs::read_dir("/usr/lib/postgresql").expect("postgresql is missing: install it");
        let versions = versions.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let newest = versions.max().expect("no version of postgresql is installed").to_string();
        let directory = Path::new("/usr/lib/postgresql").join(newest).join("bin");
        Programs { account: Account::find("postgres", "postgresql"), directory }
    }

    fn command(&self, program: &str) -> Command {
        let mut command = self.account.command(&self.directory.join(program));
        command.env("PGUSER", "postgres");
        command
    }
}

impl super::Server for Postgres {
    const NAME: &str = "PostgreSQL";
    const OBJECTS: usize = 900;

    /// With checksums.
    fn create(data: &Path) -> Postgres {
        let programs = Programs::find();
        fs::create_dir(data).expect("a directory");
        fs::set_permissions(data, PermissionsExt::from_mode(0o700)).expect("our own directory");
        programs.account.own(data);
        let mut initdb = programs.command("initdb");
        initdb.args(["--data-checksums", "--auth=trust", "--username=postgres", "--pgdata"]).arg(data);
        succeeds(&mut initdb).unwrap_or_else(|said| panic!("{said}"));
        // More checkpoints than the few a short run would have.
        let conf = data.join("postgresql.conf");
        let text = fs::read_to_string(&conf).expect("a configuration");
        fs::write(&conf, text + "\nmax_wal_size = 64MB\nmin_wal_size = 32MB\n").expect("a configuration");
        let server = Postgres::start(data).unwrap_or_else(|wrong| panic!("{wrong}"));
        TABLES.iter().for_each(|statement| drop(server.sql(statement).expect("a table")));
        let mut initialize = server.client("pgbench");
        succeeds(initialize.args(["--initialize", "--quiet", "--scale=2"])).expect("pgbench's tables");
        server
    }

    /// psql prints the answer when the server has acknowledged the one transaction of a line.
    fn start_load(&self) -> Clients {
        let mut pgbench = self.client("pgbench");
        pgbench.args(["--client=4", "--jobs=2", "--time=36000", "--no-vacuum"]);
        Clients::start(|| self.psql(), transaction, Some(pgbench))
    }

    fn numbered(&self) -> Result<Vec<u64>, String> {
        all_from_one(&self.sql(QUERY)?, '|')
    }

    fn stop(&mut self) {
        self.end("fast").unwrap_or_else(|said| panic!("{said}\n{}", self.log()));
    }

    fn gone(&self) -> Gone {
        Gone(self.process)
    }

    fn recover(copy: &Path) -> Result<Vec<u64>, String> {
        let _ = fs::remove_file(copy.join("postmaster.pid"));
        let mut server = Postgres::start(copy)?;
        let found = server.check().map_err(|wrong| format!("{wrong}\n{}", server.log()))?;
        // Waits for sessions that are just about to end: what breaks them off is in the log.
        server.end("smart")?;
        nothing_bad(&server.log(), &BAD_WORDS)?;
        succeeds(server.programs.command("pg_checksums").arg("--check").arg("--pgdata").arg(copy))?;
        Ok(found)
    }
}

fn transaction(client: usize, n: u64) -> String {
    format!(
        "WITH new AS (INSERT INTO numbers VALUES({client}, {n}, repeat('x', {})) RETURNING n) \
         UPDATE sums SET last = new.n, total = total + new.n FROM new WHERE client = {client} RETURNING last;",
        body_len(n)
    )
}

impl Postgres {
    /// Starts a server on what is there.
    ///
    /// Errors: it did not start, with its log.
    pub fn start(data: &Path) -> Result<Postgres, String> {
        let programs = Programs::find();
        let place = programs.account.place();
        let log = place.path().join("log");
        let mut start = programs.command("pg_ctl");
        start.args(["start", "--wait", "--timeout", "150", "--pgdata"]).arg(data).arg("--log").arg(&log);
        start.arg("--options").arg(format!("-c listen_addresses= -k {}", place.path().display()));
        let started = succeeds(&mut start);
        match (started, Process::of(&data.join("postmaster.pid"))) {
            (Ok(_), Some(process)) => {
                Ok(Postgres { programs, data: data.to_owned(), running: true, process, place })
            }
            (outcome, process) => {
                process.inspect(|process| process.signal(Signal::QUIT));
                Err(format!("{outcome:?}\n{}", fs::read_to_string(log).unwrap_or_default()))
            }
        }
    }

    fn end(&mut self, mode: &str) -> Result<(), String> {
        self.running = false;
        let mut stop = self.programs.command("pg_ctl");
        stop.args(["stop", "--wait", "--timeout", "150", "--mode", mode, "--pgdata"]).arg(&self.data);
        succeeds(&mut stop).map(drop)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.place.path().join("log")).unwrap_or_default()
    }

    /// A client program, told where the server is.
    fn client(&self, program: &str) -> Command {
        let mut command = self.programs.command(program);
        command.env("PGHOST", self.place.path()).env("PGDATABASE", "postgres");
        command
    }

    fn psql(&self) -> Command {
        let mut psql = self.client("psql");
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"]);
        psql
    }

    /// Runs statements; gives the fields of all rows, `|` between them.
    ///
    /// Errors: the server's answer.
    fn sql(&self, statements: &str) -> Result<String, String> {
        let output = succeeds(self.psql().args(["-c", statements]))?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Numbers, pgbench's own sums, every row of every table, and every index against its table.
    pub fn check(&self) -> Result<Vec<u64>, String> {
        let found = super::Server::numbered(self)?;
        let accounts = "(SELECT sum(abalance) FROM pgbench_accounts)";
        let sums = self.sql(&format!(
            "SELECT {accounts} = (SELECT sum(tbalance) FROM pgbench_tellers) \
             AND {accounts} = (SELECT sum(bbalance) FROM pgbench_branches) \
             AND {accounts} = (SELECT coalesce(sum(delta), 0) FROM pgbench_history)"
        ))?;
        if sums != "t" {
            return Err(format!("the sums of pgbench do not agree: {sums}"));
        }
        succeeds(self.client("pg_amcheck").args(["--all", "--install-missing", "--heapallindexed"]))?;
        Ok(found)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if self.running {
            // Without a word to its files: it may hang in one.
            self.process.signal(Signal::QUIT);
            self.process.ends_within(Duration::from_secs(5));
        }
    }
}
