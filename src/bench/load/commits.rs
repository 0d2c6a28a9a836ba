//! Commits of an SQLite database: by its system calls, as seen of version 3.40 with a write-ahead
//! log and synchronous=NORMAL, and by the program itself.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use rustix::fs::{FlockOperation, fcntl_lock};

use super::super::content::Block;
use super::super::error::{Context, Error, Result};
use super::programs::{run, run_with_input};
use super::{Done, Load};

const DATABASE: &str = "calls.db";
const LOG: &str = "calls.db-wal";
const SHARED: &str = "calls.db-shm";

/// Header of a frame in the log, and the page behind it.
const FRAME_HEADER: usize = 24;
const PAGE: usize = 4096;
const FRAME: u64 = (FRAME_HEADER + PAGE) as u64;

/// Header of the log itself.
const LOG_HEADER: u64 = 32;

/// Pages in the log after which it is written into the database (`wal_autocheckpoint`).
const CHECKPOINT_EVERY: u64 = 1000;

/// Pages that so many commits of a short row change: each row is in one of these.
const PAGES_CHANGED: u64 = 32;

/// The database of the program.
const ROWS: &str = "rows.db";

/// Bytes of a row.
const ROW: usize = 100;

impl Load<'_> {
    fn commits(&self) -> u64 {
        self.settings.files * 2
    }

    pub(super) fn commit_calls(&self) -> Result<Done> {
        let open = |name: &str| {
            let path = self.path(name);
            OpenOptions::new().read(true).write(true).create_new(true).open(&path).at(&path)
        };
        let (database, log, shared) = (open(DATABASE)?, open(LOG)?, open(SHARED)?);
        let (mut page, path) = (Block::new(PAGE), self.path(LOG));
        let mut pace = self.pace();
        for commit in 0..self.commits() {
            if !pace.go_on()? {
                break;
            }
            let (frame, fresh) = (commit % CHECKPOINT_EVERY, commit % CHECKPOINT_EVERY == 0);
            if commit > 0 && fresh {
                checkpoint(&database, &log, &mut page, self.run).at(&path)?;
            }
            lock(&shared, &[LOCK, UNLOCK, READ, LOCK]).at(&path)?;
            if fresh {
                log.write_all_at(&[0; LOG_HEADER as usize], 0).at(&path)?;
            }
            let offset = LOG_HEADER + frame * FRAME;
            let bytes = page.stamped(self.run, commit);
            log.write_all_at(&bytes[..FRAME_HEADER], offset).at(&path)?;
            log.write_all_at(bytes, offset + FRAME_HEADER as u64).at(&path)?;
            lock(&shared, &[UNLOCK, UNLOCK, UNLOCK]).at(&path)?;
        }
        Ok(pace.done(1))
    }

    /// The last page in the log.
    pub(super) fn check_commit_calls(&self, commits: u64) -> Result<()> {
        let last = commits.saturating_sub(1);
        let offset = LOG_HEADER + last % CHECKPOINT_EVERY * FRAME + FRAME_HEADER as u64;
        for path in self.place.arrivals(LOG) {
            let mut found = vec![0; PAGE];
            File::open(&path).and_then(|file| file.read_exact_at(&mut found, offset)).at(&path)?;
            if found != Block::new(PAGE).stamped(self.run, last) {
                return Err(Error::Wrong(format!("{} lacks the last commit", path.display())));
            }
        }
        Ok(())
    }

    pub(super) fn clear_commit_calls(&self) -> Result<()> {
        [DATABASE, LOG, SHARED].iter().try_for_each(|name| {
            let path = self.path(name);
            fs::remove_file(&path).at(&path)
        })
    }

    pub(super) fn prepare_commits(&self) -> Result<()> {
        let sql = "PRAGMA journal_mode=WAL; CREATE TABLE rows(id INTEGER PRIMARY KEY, run, bytes BLOB);";
        run(Command::new("sqlite3").arg(self.path(ROWS)).arg(sql).stdout(Stdio::null()))
    }

    pub(super) fn commit_rows(&self) -> Result<Done> {
        let insert = format!("INSERT INTO rows(run, bytes) VALUES({}, zeroblob({ROW}));\n", self.run);
        let sql = format!("PRAGMA synchronous=NORMAL;\n{}", insert.repeat(self.commits() as usize));
        let started = Instant::now();
        run_with_input(Command::new("sqlite3").arg("-bail").arg(self.path(ROWS)), sql.as_bytes())?;
        Ok(Done::elsewhere(self.commits(), started.elapsed()))
    }

    /// On the replica it is looked at in a copy, which may be opened.
    pub(super) fn check_rows(&self) -> Result<()> {
        for path in self.place.arrivals(ROWS) {
            let copy = self.root.join("rows-looked-at.db");
            fs::copy(&path, &copy).at(&path)?;
            let count = self.count_rows(&copy)?;
            fs::remove_file(&copy).at(&copy)?;
            if count != self.commits() {
                let path = path.display();
                return Err(Error::Wrong(format!("{path} has {count} rows instead of {}", self.commits())));
            }
        }
        Ok(())
    }

    fn count_rows(&self, database: &Path) -> Result<u64> {
        let sql = format!("SELECT count(*) FROM rows WHERE run = {};", self.run);
        let output = Command::new("sqlite3").arg(database).arg(sql).output().at(Path::new("sqlite3"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        text.trim().parse().map_err(|_| {
            Error::Wrong(format!("{}: {}", database.display(), String::from_utf8_lossy(&output.stderr)))
        })
    }

    pub(super) fn clear_rows(&self) -> Result<()> {
        for name in [ROWS.to_owned(), format!("{ROWS}-wal"), format!("{ROWS}-shm")] {
            let path = self.path(&name);
            match fs::remove_file(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                other => other.at(&path)?,
            }
        }
        Ok(())
    }
}

const LOCK: FlockOperation = FlockOperation::NonBlockingLockExclusive;
const READ: FlockOperation = FlockOperation::NonBlockingLockShared;
const UNLOCK: FlockOperation = FlockOperation::NonBlockingUnlock;

fn lock(shared: &File, operations: &[FlockOperation]) -> std::io::Result<()> {
    operations.iter().try_for_each(|operation| fcntl_lock(shared, *operation).map_err(Into::into))
}

/// The log to the disk, its pages into the database, the database to the disk.
fn checkpoint(database: &File, log: &File, page: &mut Block, run: u64) -> std::io::Result<()> {
    log.sync_data()?;
    let mut bytes = vec![0; PAGE];
    for at in 0..PAGES_CHANGED {
        log.read_exact_at(&mut bytes, LOG_HEADER + at * FRAME)?;
        database.write_all_at(page.stamped(run, at), at * PAGE as u64)?;
    }
    database.sync_data()
}
