//! Clients that commit numbered transactions and remember outside the mount what the server
//! acknowledged.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Clients of a server.
pub const CLIENTS: usize = 3;
/// Between two transactions of one client.
const PAUSE: Duration = Duration::from_millis(20);
/// A client's next answer takes no longer, whatever happens to the target.
const ANSWER_MAX: Duration = Duration::from_secs(120);

/// What the server has to have for [`Statement`].
pub const TABLES: [&str; 5] = [
    "CREATE TABLE numbers(client int, n bigint, body text, PRIMARY KEY (client, n))",
    "CREATE TABLE sums(client int PRIMARY KEY, last bigint, total bigint)",
    "INSERT INTO sums VALUES(0, 0, 0)",
    "INSERT INTO sums VALUES(1, 0, 0)",
    "INSERT INTO sums VALUES(2, 0, 0)",
];

/// Six numbers for each client, for [`all_from_one`].
pub const QUERY: &str = "SELECT s.last, s.total, count(n.n), coalesce(min(n.n), 0), coalesce(max(n.n), 0), \
                         coalesce(sum(length(n.body)), 0) \
                         FROM sums s LEFT JOIN numbers n ON n.client = s.client \
                         GROUP BY s.client, s.last, s.total ORDER BY s.client";

/// Transaction `n` of a client, as a line: a row with a body of [`body_len`] bytes goes into
/// `numbers`, `last` and `total` of `sums` follow, and the answer is `n`, after the commit.
pub type Statement = fn(client: usize, n: u64) -> String;

/// The last acknowledged transaction of each client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told(pub [u64; CLIENTS]);

/// Sessions with a server, and a program that loads it besides.
pub struct Clients {
    beside: Option<Child>,
    threads: Vec<JoinHandle<Result<(), String>>>,
    told: Arc<[AtomicU64; CLIENTS]>,
    end: Arc<AtomicBool>,
}

impl Clients {
    /// `session` is a program that reads statements and prints answers, one a line.
    pub fn start(session: impl Fn() -> Command, statement: Statement, beside: Option<Command>) -> Clients {
        let (told, end) = (Arc::new(<[AtomicU64; CLIENTS]>::default()), Arc::new(AtomicBool::new(false)));
        let start = |client: usize| {
            let mut session = session();
            let mut session =
                session.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a session");
            let (told, end) = (told.clone(), end.clone());
            std::thread::spawn(move || {
                let outcome = commit(&mut session, |n| statement(client, n), &told[client], &end);
                let _ = session.wait();
                outcome.map_err(|wrong| format!("client {client}: {wrong}"))
            })
        };
        let threads = (0..CLIENTS).map(start).collect();
        let beside = beside.map(|mut command| {
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            command.spawn().expect("a program that loads the server")
        });
        Clients { beside, threads, told, end }
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
        let ended = self.beside.as_mut().and_then(|beside| beside.try_wait().expect("our own child"));
        assert!(ended.is_none(), "what loads the server ended: {ended:?}");
    }

    /// Ends everything; gives the last answers.
    #[track_caller]
    pub fn end(&mut self) -> Told {
        self.end.store(true, SeqCst);
        for thread in self.threads.drain(..) {
            thread.join().expect("a client").unwrap_or_else(|wrong| panic!("{wrong}"));
        }
        self.end_beside();
        self.told()
    }

    fn end_beside(&mut self) {
        if let Some(mut beside) = self.beside.take() {
            let _ = beside.kill();
            let _ = beside.wait();
        }
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.end.store(true, SeqCst);
        self.end_beside();
    }
}

/// Of varying length, so that rows leave their page now and then.
pub fn body_len(n: u64) -> u64 {
    n * 37 % 1500
}

/// Errors: the answers of [`QUERY`], fields by `separator`, are not those of the transactions of
/// each client from 1 to some number.
pub fn all_from_one(answers: &str, separator: char) -> Result<Vec<u64>, String> {
    let parse =
        |row: &str| row.split(separator).map(|field| field.parse().ok()).collect::<Option<Vec<u64>>>();
    let rows: Option<Vec<Vec<u64>>> = answers.trim().lines().map(parse).collect();
    let rows = rows.filter(|rows| rows.len() == CLIENTS).ok_or(format!("not {CLIENTS} rows: {answers}"))?;
    for row in &rows {
        let k = row[0];
        let bodies: u64 = (1..=k).map(body_len).sum();
        if row[..] != [k, k * (k + 1) / 2, k, k.min(1), k, bodies] {
            return Err(format!("not the transactions from 1 to {k}: {row:?}, {bodies} bytes"));
        }
    }
    Ok(rows.iter().map(|row| row[0]).collect())
}

/// Commits until the end is asked for.
fn commit(
    session: &mut Child,
    statement: impl Fn(u64) -> String,
    told: &AtomicU64,
    end: &AtomicBool,
) -> Result<(), String> {
    let mut answers = BufReader::new(session.stdout.take().expect("piped")).lines();
    let mut statements = session.stdin.take().expect("piped");
    for n in 1.. {
        if end.load(SeqCst) {
            break;
        }
        writeln!(statements, "{}", statement(n)).map_err(|error| error.to_string())?;
        let answer = answers.next().ok_or(format!("the server went away at {n}"))?;
        if answer.map_err(|error| error.to_string())? != n.to_string() {
            return Err(format!("another answer than {n}"));
        }
        told.store(n, SeqCst);
        std::thread::sleep(PAUSE);
    }
    Ok(())
}
