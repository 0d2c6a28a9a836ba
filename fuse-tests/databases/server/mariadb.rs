//! MariaDB: InnoDB writes with `O_DIRECT` and asynchronously, and twice against torn pages.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;

use super::clients::{Clients, QUERY, TABLES, all_from_one, body_len};
use super::ddl_log;
use super::process::{Account, Gone, Process, nothing_bad, succeeds};
use crate::host::{profile, require_program};

/// What a check says of the table that the load was dropping: see [`ddl_log`].
const HALF_DROPPED: [&str; 3] =
    ["slap.t1", "Error    : Table 'slap.t1' doesn't exist in engine", "status   : Operation failed"];
/// Words of a server's log that no cut excuses.
const BAD_WORDS: [&str; 3] = ["[ERROR]", "corrupt", "Corrupt"];
/// From the start to the first answer, with a recovery.
const START_MAX: Duration = Duration::from_secs(120);

/// A server on a unix socket in a directory of its own.
pub struct MariaDb {
    account: Account,
    running: bool,
    process: Process,
    /// Socket, log and number of the process.
    place: TempDir,
}

impl super::Server for MariaDb {
    const NAME: &str = "MariaDB";
    const OBJECTS: usize = 150;

    fn create(data: &Path) -> MariaDb {
        let account = Account::find("mysql", "mariadb-server");
        fs::create_dir(data).expect("a directory");
        account.own(data);
        let place = account.place();
        let mut install = account.command(&require_program("mariadb-install-db"));
        install.env("TMPDIR", place.path());
        install.args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"]);
        succeeds(install.arg(option("datadir", data))).unwrap_or_else(|said| panic!("{said}"));
        let server = MariaDb::start(data).unwrap_or_else(|wrong| panic!("{wrong}"));
        server.sql("CREATE DATABASE test").expect("a database");
        TABLES.iter().for_each(|statement| drop(server.sql(statement).expect("a table")));
        server
    }

    fn start_load(&self) -> Clients {
        let mut slap = self.client("mariadb-slap");
        slap.args(["--auto-generate-sql", "--auto-generate-sql-load-type=mixed", "--concurrency=3"]);
        slap.args([
            "--iterations=100000",
            "--number-of-queries=1500",
            "--engine=innodb",
            "--create-schema=slap",
        ]);
        Clients::start(|| self.session(), transaction, Some(slap))
    }

    fn numbered(&self) -> Result<Vec<u64>, String> {
        all_from_one(&self.sql(QUERY)?, '\t')
    }

    fn stop(&mut self) {
        self.end().unwrap_or_else(|said| panic!("{said}\n{}", self.log()));
    }

    fn gone(&self) -> Gone {
        Gone(self.process)
    }

    fn recover(copy: &Path) -> Result<Vec<u64>, String> {
        let gathered = profile(&[]).contains(&"batch".into());
        let excused: &[&str] = if gathered && ddl_log::drops_nothing_yet(copy) { &HALF_DROPPED } else { &[] };
        let mut server = MariaDb::start(copy)?;
        let found = server.check(excused).map_err(|wrong| format!("{wrong}\n{}", server.log()))?;
        server.end()?;
        nothing_bad(&server.log(), &BAD_WORDS)?;
        Ok(found)
    }
}

/// The answer is asked for when the commit has returned.
fn transaction(client: usize, n: u64) -> String {
    format!(
        "BEGIN; INSERT INTO numbers VALUES({client}, {n}, repeat('x', {})); \
         UPDATE sums SET last = {n}, total = total + {n} WHERE client = {client}; COMMIT; SELECT {n};",
        body_len(n)
    )
}

fn option(name: &str, value: &Path) -> String {
    format!("--{name}={}", value.display())
}

impl MariaDb {
    /// Starts a server on what is there.
    ///
    /// Errors: it did not start, with its log.
    fn start(data: &Path) -> Result<MariaDb, String> {
        let account = Account::find("mysql", "mariadb-server");
        let place = account.place();
        let (pid_file, log) = (place.path().join("pid"), place.path().join("log"));
        let mut start = account.command(&require_program("mariadbd"));
        start.args(["--no-defaults", "--skip-networking"]).arg(option("datadir", data));
        // A server removes at its start what it takes for temporary tables of a dead one.
        start.arg(option("tmpdir", place.path()));
        start.arg(option("socket", &place.path().join("socket"))).arg(option("pid-file", &pid_file));
        let output = File::create(&log).expect("a log");
        start.stdout(output.try_clone().expect("a descriptor")).stderr(output);
        let mut child = start.spawn().expect("mariadbd starts");
        let process = Process::from_child(&child);
        // Reaped here, so that its end can be seen.
        std::thread::spawn(move || child.wait());
        let server = MariaDb { account, running: true, process, place };
        server.wait_for_answer().map_err(|why| format!("{why}\n{}", server.log()))?;
        Ok(server)
    }

    fn wait_for_answer(&self) -> Result<(), String> {
        let deadline = Instant::now() + START_MAX;
        loop {
            let ping =
                self.client("mariadb-admin").arg("ping").output().map_err(|error| error.to_string())?;
            if ping.status.success() {
                return Ok(());
            }
            if self.process.ends_within(Duration::from_millis(50)) {
                return Err("the server ended".into());
            }
            if Instant::now() >= deadline {
                return Err(format!("no answer: {}", crate::host::describe(&ping)));
            }
        }
    }

    fn end(&mut self) -> Result<(), String> {
        self.running = false;
        succeeds(self.client("mariadb-admin").arg("shutdown"))?;
        match self.process.ends_within(START_MAX) {
            true => Ok(()),
            false => Err("the server does not end".into()),
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.place.path().join("log")).unwrap_or_default()
    }

    /// A client program, told where the server is.
    fn client(&self, program: &str) -> Command {
        let mut command = self.account.command(&require_program(program));
        let socket: PathBuf = self.place.path().join("socket");
        command.arg("--no-defaults").arg(option("socket", &socket)).arg("--user=root");
        command
    }

    /// Ends at the first error.
    fn session(&self) -> Command {
        let mut session = self.client("mariadb");
        session.args(["--batch", "--skip-column-names", "--unbuffered", "test"]);
        session
    }

    /// Runs statements; gives the fields of all rows, a tab between them.
    ///
    /// Errors: the server's answer.
    fn sql(&self, statements: &str) -> Result<String, String> {
        let mut session = self.client("mariadb");
        session.args(["--batch", "--skip-column-names", "--execute", statements]);
        if !statements.starts_with("CREATE DATABASE") {
            session.arg("test");
        }
        let output = succeeds(&mut session)?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Numbers, and every table with its indexes.
    ///
    /// Errors: what is wrong, unless it is one of the lines `excused`.
    fn check(&self, excused: &[&str]) -> Result<Vec<u64>, String> {
        let found = super::Server::numbered(self)?;
        let output = succeeds(self.client("mariadb-check").args(["--all-databases", "--extended"]))?;
        let said = String::from_utf8_lossy(&output.stdout);
        let is_good = |line: &str| line.ends_with("OK") || excused.contains(&line);
        match said.lines().find(|line| !is_good(line.trim_end())) {
            Some(_) => Err(format!("mariadb-check: {said}")),
            None => Ok(found),
        }
    }
}

impl Drop for MariaDb {
    fn drop(&mut self) {
        if self.running {
            // Without a word to its files: it may hang in one.
            self.process.signal(Signal::KILL);
            self.process.ends_within(Duration::from_secs(5));
        }
    }
}
