//! What works on a server: pgbench, and clients that commit numbered transactions and remember
//! outside the mount what the server acknowledged.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::server::Server;

/// Clients with numbered transactions.
pub const CLIENTS: usize = 3;
/// Between two transactions of one client.
const PAUSE: Duration = Duration::from_millis(20);
/// A client's next answer takes no longer, whatever happens to the target.
const ANSWER_MAX: Duration = Duration::from_secs(120);

/// The last acknowledged transaction of each client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told(pub [u64; CLIENTS]);

/// Everything that works on a server.
pub struct Load {
    pgbench: Child,
    clients: Vec<JoinHandle<Result<(), String>>>,
    told: Arc<[AtomicU64; CLIENTS]>,
    end: Arc<AtomicBool>,
}

impl Load {
    /// Makes the tables and starts everything.
    pub fn start(server: &Server) -> Load {
        let tables = "CREATE TABLE numbers(client int, n bigint, body text, PRIMARY KEY (client, n)); \
                      CREATE TABLE sums(client int PRIMARY KEY, last bigint, total bigint);";
        server.sql(tables).expect("tables");
        for client in 0..CLIENTS {
            server.sql(&format!("INSERT INTO sums VALUES({client}, 0, 0)")).expect("a row");
        }
        let mut initialize = server.client("pgbench");
        let initialized =
            initialize.args(["--initialize", "--quiet", "--scale=2"]).output().expect("pgbench");
        assert!(initialized.status.success(), "{initialized:?}");
        let mut pgbench = server.client("pgbench");
        pgbench.args(["--client=4", "--jobs=2", "--time=36000", "--no-vacuum"]);
        let pgbench = pgbench.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("pgbench");
        let (told, end) = (Arc::new(Default::default()), Arc::new(AtomicBool::new(false)));
        let clients = (0..CLIENTS).map(|number| start_client(server, number, &told, &end)).collect();
        Load { pgbench, clients, told, end }
    }

    pub fn told(&self) -> Told {
        Told(std::array::from_fn(|client| self.told[client].load(SeqCst)))
    }

    /// Waits until each client has an answer that it had not when this was called.
    #[track_caller]
    pub fn assert_goes_on(&mut self) {
        let (before, deadline) = (self.told(), Instant::now() + ANSWER_MAX);
        while self.told().0.iter().zip(before.0).any(|(now, before)| *now <= before) {
            assert!(Instant::now() < deadline, "clients stand still at {:?}", self.told());
            std::thread::sleep(Duration::from_millis(5));
        }
        let ended = self.pgbench.try_wait().expect("our own child");
        assert!(ended.is_none(), "pgbench ended: {ended:?}");
    }

    /// Ends everything; gives the last answers.
    pub fn end(&mut self) -> Told {
        self.end.store(true, SeqCst);
        for client in self.clients.drain(..) {
            client.join().expect("a client").unwrap_or_else(|wrong| panic!("{wrong}"));
        }
        let _ = self.pgbench.kill();
        let _ = self.pgbench.wait();
        self.told()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.end.store(true, SeqCst);
        let _ = self.pgbench.kill();
        let _ = self.pgbench.wait();
    }
}

/// Of varying length, so that rows leave their page now and then.
pub fn body_len(n: u64) -> u64 {
    n * 37 % 1500
}

fn start_client(
    server: &Server,
    number: usize,
    told: &Arc<[AtomicU64; CLIENTS]>,
    end: &Arc<AtomicBool>,
) -> JoinHandle<Result<(), String>> {
    let mut psql = server.client("psql");
    psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"]);
    let mut psql = psql.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("psql");
    let (told, end) = (told.clone(), end.clone());
    std::thread::spawn(move || {
        let outcome = commit(&mut psql, number, &told[number], &end);
        drop(psql.stdin.take());
        let _ = psql.wait();
        outcome
    })
}

/// One statement is one transaction; psql prints its row when the server has acknowledged it.
fn commit(psql: &mut Child, client: usize, told: &AtomicU64, end: &AtomicBool) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("client {client}: {error}");
    let mut answers = BufReader::new(psql.stdout.take().expect("piped")).lines();
    let mut statements = psql.stdin.take().expect("piped");
    for n in 1u64.. {
        if end.load(SeqCst) {
            break;
        }
        let len = body_len(n);
        writeln!(
            statements,
            "WITH new AS (INSERT INTO numbers VALUES({client}, {n}, repeat('x', {len})) RETURNING n) \
             UPDATE sums SET last = new.n, total = total + new.n FROM new WHERE client = {client} RETURNING last;"
        )
        .map_err(failed)?;
        let answer = answers.next().ok_or(format!("client {client}: the server went away at {n}"))?;
        if answer.map_err(failed)? != n.to_string() {
            return Err(format!("client {client}: another answer than {n}"));
        }
        told.store(n, SeqCst);
        std::thread::sleep(PAUSE);
    }
    Ok(())
}
